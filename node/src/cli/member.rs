//! `nautilus member`: the quorum's membership.

use clap::{Args, Subcommand};
use nautilus_machine::{Member, NewMember};

use super::{Global, Output, print};
use crate::cli::status::table;
use crate::client::RequestError;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  nautilus member list
  nautilus member add 4 10.0.0.4:7443     then start node 4 with bootstrap = \"join\"
  nautilus member promote 4               once it has caught up
  nautilus member transfer 4              hand leadership to it
  nautilus member remove 1";

/// `nautilus member`.
#[derive(Args)]
pub(crate) struct MemberArgs {
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Subcommand)]
enum MemberCommand {
    /// Show the members
    #[command(after_help = "Examples:\n  nautilus member list --output json")]
    List,
    /// Admit a node as a learner; it may then be started and join
    #[command(after_help = "Examples:\n  nautilus member add 4 10.0.0.4:7443")]
    Add {
        /// Its id, unused so far
        id: u64,
        /// Where its peers reach it, host:port
        peer_address: String,
    },
    /// Take a member out
    #[command(after_help = "Examples:\n  nautilus member remove 4")]
    Remove {
        /// Its id
        id: u64,
    },
    /// Make a learner that has caught up a voter
    #[command(after_help = "Examples:\n  nautilus member promote 4")]
    Promote {
        /// Its id
        id: u64,
    },
    /// Hand leadership to a voter
    #[command(after_help = "Examples:\n  nautilus member transfer 2")]
    Transfer {
        /// Its id
        id: u64,
    },
}

/// Does it, and shows the members as they are then.
pub(super) async fn run(global: &Global, arguments: MemberArgs) -> anyhow::Result<()> {
    let client = global.client()?;
    let done = match arguments.command {
        MemberCommand::List => Ok(()),
        MemberCommand::Add { id, peer_address } => {
            client.add_member(&NewMember { id, peer_address }).await
        }
        MemberCommand::Remove { id } => client.remove_member(id).await,
        MemberCommand::Promote { id } => client.promote_member(id).await,
        MemberCommand::Transfer { id } => client.transfer_leadership(id).await,
    };
    done.map_err(RequestError::into_failure)?;
    let members = client.members().await.map_err(RequestError::into_failure)?;
    match arguments.output {
        Output::Json => print(&serde_json::to_string_pretty(&members)?),
        Output::Table => print(&members_table(&members)),
    }
    Ok(())
}

fn members_table(members: &[Member]) -> String {
    let rows = members.iter().map(|member| {
        let role = format!("{:?}", member.role).to_lowercase();
        vec![
            member.id.to_string(),
            role,
            member.peer_address.clone(),
            or_dash(&member.api_address),
            or_dash(member.platform.get(..16).unwrap_or(&member.platform)),
        ]
    });
    table(&["NODE", "ROLE", "PEERS", "API", "PLATFORM"], rows)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use nautilus_machine::MemberRole;

    use super::*;

    #[test]
    fn a_member_that_has_not_joined_shows_dashes() {
        let members = [
            Member {
                id: 1,
                peer_address: "127.0.0.1:7000".into(),
                api_address: "127.0.0.1:7001".into(),
                client_address: String::new(),
                role: MemberRole::Voter,
                platform: "ab".repeat(32),
            },
            Member {
                id: 2,
                peer_address: "127.0.0.1:7002".into(),
                ..Member::default()
            },
        ];
        expect![[r#"
            NODE  ROLE     PEERS           API             PLATFORM
            1     voter    127.0.0.1:7000  127.0.0.1:7001  abababababababab
            2     learner  127.0.0.1:7002  -               -
        "#]]
        .assert_eq(&members_table(&members));
    }
}
