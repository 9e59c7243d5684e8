//! `nautilus keys`: the quorum's generations of keys.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use reqwest::Method;

use super::{Global, Output, print};
use crate::cli::status::table;
use crate::client::{ApiClient, RequestError};
use crate::exit::Failure;
use crate::keys::{KeysAnswer, NodeAnswer, RotateRequest};

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  nautilus keys status
  nautilus keys rotate --wait                 a new root for the quorum, everything sealed anew
  nautilus keys rotate --withhold 4 --wait    and node 4 does not get it";

const STATUS_PATH: &str = "/nautilus/v1/keys";
const ROTATE_PATH: &str = "/nautilus/v1/keys/rotate";
/// Between two looks at a rotation.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Progress is shown of what takes longer.
const QUIET: Duration = Duration::from_secs(2);
/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// `nautilus keys`.
#[derive(Args)]
pub(crate) struct KeysArgs {
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Show which generation every node uses and holds, and what is left to be sealed anew
    #[command(after_help = "Examples:\n  nautilus keys status --output json")]
    Status,
    /// Draw a new root key, seal everything under it in the background, destroy the old one
    #[command(after_help = "Examples:\n  nautilus keys rotate --wait\n  \
        nautilus keys rotate --withhold 4 --wait --timeout 3600")]
    Rotate {
        /// Return when every node has destroyed the old key
        #[arg(long)]
        wait: bool,
        /// With --wait: give up after so many seconds; the rotation goes on
        #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
        timeout: u64,
        /// Members that must not get the new key
        #[arg(long, value_delimiter = ',', value_name = "ID,..")]
        withhold: Vec<u64>,
    },
}

/// Does it, and shows the keys as they are then.
pub(super) async fn run(global: &Global, arguments: KeysArgs) -> anyhow::Result<()> {
    let client = global.client()?;
    let answer = match arguments.command {
        KeysCommand::Status => status(&client).await.map_err(RequestError::into_failure)?,
        KeysCommand::Rotate {
            wait,
            timeout,
            withhold,
        } => {
            let begun = rotate(&client, withhold.into_iter().collect()).await?;
            if wait {
                let wanted = begun.next.unwrap_or(begun.generation);
                until_over(&client, wanted, Duration::from_secs(timeout)).await?
            } else {
                begun
            }
        }
    };
    match arguments.output {
        Output::Json => print(&serde_json::to_string_pretty(&answer)?),
        Output::Table => print(&to_table(&answer)),
    }
    Ok(())
}

async fn status(client: &ApiClient) -> Result<KeysAnswer, RequestError> {
    client.get(STATUS_PATH, None).await
}

async fn rotate(client: &ApiClient, withhold: BTreeSet<u64>) -> anyhow::Result<KeysAnswer> {
    let asked = RotateRequest { withhold };
    client
        .request(Method::POST, ROTATE_PATH, Some(&asked), None)
        .await
        .map_err(RequestError::into_failure)
}

/// Looks until every node is over with what is older than `wanted`. A node that can't be
/// asked now is asked again.
async fn until_over(
    client: &ApiClient,
    wanted: u32,
    timeout: Duration,
) -> anyhow::Result<KeysAnswer> {
    let started = Instant::now();
    let mut told = started + QUIET - TELL_EVERY;
    loop {
        let state = match status(client).await {
            Ok(answer) if answer.generation >= wanted && answer.is_over() => return Ok(answer),
            Ok(answer) => progress(&answer),
            Err(
                error @ (RequestError::Unreachable { .. }
                | RequestError::Refused {
                    code: 429 | 500..=599,
                    ..
                }),
            ) => error.to_string(),
            Err(error) => return Err(error.into_failure()),
        };
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            eprintln!("{state}");
        }
        if started.elapsed() >= timeout {
            return Err(Failure::Unavailable.error(format!(
                "the rotation is not over after {} s and goes on: {state}; look again with \
                 `nautilus keys status`",
                timeout.as_secs()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One line.
fn progress(answer: &KeysAnswer) -> String {
    if let Some(next) = answer.next {
        let without =
            |node: &&NodeAnswer| !node.held.contains(&next) && !answer.withheld.contains(&node.id);
        let waits = answer.nodes.iter().filter(without).map(|node| node.id);
        return format!(
            "generation {next} is being handed out; not yet at node {}",
            joined(waits)
        );
    }
    let left: Vec<String> = answer
        .unfinished()
        .map(|node| {
            let all = node.left_bytes + node.done_bytes;
            match (node.generation == answer.generation, all) {
                (false, _) => format!("node {} has not begun", node.id),
                (true, 0) => format!("node {} ends it", node.id),
                (true, _) => format!(
                    "node {} has {:.1} MiB left ({} %)",
                    node.id,
                    node.left_bytes as f64 / f64::from(1 << 20),
                    node.done_bytes * 100 / all
                ),
            }
        })
        .collect();
    format!(
        "sealing anew under generation {}: {}",
        answer.generation,
        left.join(", ")
    )
}

fn joined(ids: impl Iterator<Item = u64>) -> String {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    ids.join(", ")
}

fn to_table(answer: &KeysAnswer) -> String {
    let rows = answer.nodes.iter().map(|node| {
        let held = node.held.iter().map(|held| u64::from(*held));
        let state = if answer.withheld.contains(&node.id) {
            "withheld"
        } else if node.held.is_empty() {
            "unknown"
        } else if node.is_over(answer.generation) && answer.next.is_none() {
            "current"
        } else {
            "rotating"
        };
        vec![
            node.id.to_string(),
            format!("{:?}", node.role).to_lowercase(),
            node.generation.to_string(),
            joined(held),
            node.data_keys.to_string(),
            format!("{:.1} MiB", node.left_bytes as f64 / f64::from(1 << 20)),
            state.to_owned(),
        ]
    });
    let heads = [
        "NODE",
        "ROLE",
        "GENERATION",
        "HELD",
        "DATA KEYS",
        "LEFT",
        "STATE",
    ];
    let next = answer.next.map_or_else(String::new, |next| {
        format!("; generation {next} is being handed out")
    });
    format!(
        "the quorum seals under generation {}{next}\n{}",
        answer.generation,
        table(&heads, rows)
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use nautilus_machine::MemberRole;

    use super::*;

    fn node(id: u64, held: &[u32], generation: u32, left_bytes: u64) -> NodeAnswer {
        NodeAnswer {
            id,
            role: MemberRole::Voter,
            generation,
            held: held.to_vec(),
            data_keys: 3,
            left_bytes,
            done_bytes: left_bytes / 3,
        }
    }

    #[test]
    fn a_rotation_under_way_shows_what_is_left() {
        let answer = KeysAnswer {
            generation: 2,
            next: None,
            withheld: BTreeSet::from([4]),
            nodes: vec![
                node(1, &[2], 2, 0),
                node(2, &[1, 2], 2, 3 << 20),
                node(3, &[1], 1, 0),
                node(4, &[1], 1, 0),
            ],
        };
        assert!(!answer.is_over());
        expect![
            "sealing anew under generation 2: node 2 has 3.0 MiB left (25 %), node 3 has not begun"
        ]
        .assert_eq(&progress(&answer));
        expect![[r#"
            the quorum seals under generation 2
            NODE  ROLE   GENERATION  HELD  DATA KEYS  LEFT     STATE
            1     voter  2           2     3          0.0 MiB  current
            2     voter  2           1, 2  3          3.0 MiB  rotating
            3     voter  1           1     3          0.0 MiB  rotating
            4     voter  1           1     3          0.0 MiB  withheld
        "#]]
        .assert_eq(&to_table(&answer));
    }

    #[test]
    fn a_root_that_is_handed_out_names_who_waits_for_it() {
        let answer = KeysAnswer {
            generation: 1,
            next: Some(2),
            withheld: BTreeSet::new(),
            nodes: vec![node(1, &[1, 2], 1, 0), node(2, &[1], 1, 0)],
        };
        assert!(!answer.is_over());
        expect!["generation 2 is being handed out; not yet at node 2"]
            .assert_eq(&progress(&answer));
    }
}
