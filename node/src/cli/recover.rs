//! `nautilus recover`: operators bring back a quorum that lost too many members.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use nautilus_attest_protocol::{Claims, recovery_report_data};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Global, Output, print};
use crate::attested::JudgeArgs;
use crate::cli::status::table;
use crate::client::{ApiClient, RequestError};
use crate::exit::Failure;
use crate::recovery::{Description, PATH, RecoveryAnswer, ShareKey, Submission, Taken, submit};
use crate::simulated;

/// Bytes of the nonce.
const NONCE_BYTES: usize = 32;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
When a majority of the members is lost for good, start one that is left with bootstrap =
\"recover\". It serves nothing but this: it proves what it is, and waits for the shares of as many
operators as must sign a change of the policy. Then it goes on as the only voter, with everything
that its disk holds, under a new authority: every client needs a new kubeconfig, and sees by that
what happened. Whatever only the lost members had acknowledged is gone. Make sure that they are:
two quorums would go on. Where its own keys are unreadable the operators' shares bring them back;
the file escrow.json may come from any member's data directory. Afterwards remove bootstrap =
\"recover\", add members, and rotate the keys.

Examples:
  nautilus recover status                                        of a quorum that serves
  nautilus recover status --server https://10.0.0.1:6443 --measurement snp:5f1c..
  nautilus recover submit --server https://10.0.0.1:6443 --measurement snp:5f1c.. --key operator.key
  nautilus kubeconfig --server https://10.0.0.1:6443 --key operator.key    when it serves again
  nautilus keys rotate --wait";

/// `nautilus recover`.
#[derive(Args)]
pub(crate) struct RecoverArgs {
    #[command(subcommand)]
    command: RecoverCommand,
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Subcommand)]
enum RecoverCommand {
    /// Show who holds shares and which recoveries there were, or what a node waits for
    #[command(
        after_help = "Examples:\n  nautilus recover status --output json\n  nautilus recover status \
        --server https://10.0.0.1:6443 --measurement snp:5f1c.."
    )]
    Status {
        #[command(flatten)]
        judge: JudgeArgs,
    },
    /// Give this operator's share to a node that waits for it and proves what it is
    #[command(
        after_help = "Examples:\n  nautilus recover submit --server https://10.0.0.1:6443 \
        --measurement snp:5f1c.. --key operator.key"
    )]
    Submit {
        /// The operator's private key (ECDSA P-256), as the policy names it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        judge: JudgeArgs,
    },
}

/// A waiting node that proved what it is.
struct Proved {
    description: Description,
    claims: Claims,
    /// What shares are sealed to.
    desk: Vec<u8>,
}

/// Runs it.
pub(super) async fn run(global: &Global, arguments: RecoverArgs) -> anyhow::Result<()> {
    let output = arguments.output;
    match arguments.command {
        RecoverCommand::Status { judge } => status(global, &judge, output).await,
        RecoverCommand::Submit { key, judge } => {
            let key = ShareKey::read(&key)?;
            let server = global.server().ok_or_else(|| {
                Failure::Usage.error("pass --server, the address of the node that waits for shares")
            })?;
            let client = ApiClient::unverified(server)?;
            let proved = ask(global, &client, &judge).await.map_err(not_waiting)?;
            let (operator, share) = proved
                .description
                .escrow
                .open_share(&key)
                .map_err(|error| Failure::Refused.error(format!("{error:#}")))?;
            let sealed = submit(&proved.desk, &operator, &share)?;
            let submission = Submission { operator, sealed };
            let taken: Taken = client
                .request(Method::POST, PATH, Some(&submission), None)
                .await
                .map_err(RequestError::into_failure)?;
            match output {
                Output::Json => print(&serde_json::to_string(&taken)?),
                Output::Table => print(&told(&taken)),
            }
            Ok(())
        }
    }
}

fn told(taken: &Taken) -> String {
    if taken.recovered {
        return "enough shares: the node goes on alone; ask it for a new kubeconfig".to_owned();
    }
    format!(
        "taken: {} of {} shares",
        taken.submitted.len(),
        taken.threshold
    )
}

/// Of the node of `--server` if it waits for shares; else of the quorum that serves.
async fn status(global: &Global, judge: &JudgeArgs, output: Output) -> anyhow::Result<()> {
    if let Some(server) = global.server() {
        let client = ApiClient::unverified(server)?;
        match ask(global, &client, judge).await {
            Ok(proved) => {
                show_waiting(&proved, output);
                return Ok(());
            }
            // Who serves tells strangers nothing.
            Err(error) if is_serving(&error) => {}
            Err(error) => return Err(not_waiting(error)),
        }
    }
    let answer: RecoveryAnswer = global
        .client()?
        .get(PATH, None)
        .await
        .map_err(RequestError::into_failure)?;
    match output {
        Output::Json => print(&serde_json::to_string(&answer)?),
        Output::Table => print(&serving(&answer)),
    }
    Ok(())
}

fn is_serving(error: &anyhow::Error) -> bool {
    let refused = error
        .chain()
        .find_map(|error| error.downcast_ref::<RequestError>());
    matches!(
        refused,
        Some(RequestError::Refused {
            code: 401 | 403,
            ..
        })
    )
}

/// As a command's failure, with its exit code.
fn not_waiting(error: anyhow::Error) -> anyhow::Error {
    if is_serving(&error) {
        return Failure::Refused.error(
            "this node serves and waits for no shares; `nautilus recover --help` tells when",
        );
    }
    match error.downcast::<RequestError>() {
        Ok(error) => error.into_failure(),
        Err(error) => error,
    }
}

/// Asks a waiting node, and believes nothing before its evidence.
async fn ask(global: &Global, client: &ApiClient, judge: &JudgeArgs) -> anyhow::Result<Proved> {
    let layout = global.layout()?;
    let is_local = layout.load()?.is_some();
    let judge = judge.judge(&layout.simulated_root_key(), is_local)?;
    let nonce = simulated::random_hex::<NONCE_BYTES>()?;
    let description: Description = client.get(&format!("{PATH}?nonce={nonce}"), None).await?;
    let desk = BASE64.decode(&description.key).context("the node's key")?;
    let evidence = BASE64
        .decode(&description.evidence)
        .context("the evidence")?;
    let terms = description.escrow.terms.digest()?;
    let expected = recovery_report_data(&hex::decode(&nonce)?, &desk, &terms);
    let claims = judge.claims(&evidence, &expected).and_then(|claims| {
        judge.policy(&claims)?;
        Ok(claims)
    });
    let claims = claims.map_err(|error| {
        Failure::Refused.error(format!(
            "the node did not prove what it is, and was given nothing: {error}"
        ))
    })?;
    Ok(Proved {
        description,
        claims,
        desk,
    })
}

fn show_waiting(proved: &Proved, output: Output) {
    let Proved {
        description,
        claims,
        ..
    } = proved;
    let terms = &description.escrow.terms;
    let names = || {
        terms
            .operators
            .iter()
            .map(|operator| operator.name.as_str())
    };
    if output == Output::Json {
        let document: Value = json!({
            "waiting": true,
            "nodeId": description.node_id,
            "tee": claims.tee.to_string(),
            "measurement": claims.measurement.to_string(),
            "submitted": description.submitted,
            "escrow": terms,
        });
        return print(&document.to_string());
    }
    let rows = names().map(|name| {
        let is_given = description.submitted.iter().any(|given| given == name);
        let state = if is_given { "given" } else { "missing" };
        vec![name.to_owned(), state.to_owned()]
    });
    print(&format!(
        "node {} of quorum {} waits for {} of {} shares; it proved to be {} {}\n{}",
        description.node_id,
        terms.cluster_id,
        terms.threshold,
        terms.operators.len(),
        claims.tee,
        claims.measurement,
        table(&["OPERATOR", "SHARE"], rows)
    ));
}

/// The table of a quorum that serves.
fn serving(answer: &RecoveryAnswer) -> String {
    let escrow = match &answer.escrow {
        Some(terms) => {
            let generations = terms.roots.iter().map(|root| root.generation.to_string());
            let names = terms
                .operators
                .iter()
                .map(|operator| operator.name.as_str());
            format!(
                "{} of {} operators ({}) recover the keys of generation {}",
                terms.threshold,
                terms.operators.len(),
                names.collect::<Vec<_>>().join(", "),
                generations.collect::<Vec<_>>().join(", ")
            )
        }
        None => "there is no escrow: no operators could recover this quorum".to_owned(),
    };
    if answer.recoveries.is_empty() {
        return format!("{escrow}\nthis quorum was never recovered");
    }
    let rows = answer.recoveries.iter().map(|recovery| {
        vec![
            recovery.recovery.to_string(),
            recovery.node_id.to_string(),
            recovery.operators.join(", "),
        ]
    });
    format!(
        "{escrow}\n{}",
        table(&["RECOVERY", "NODE", "OPERATORS"], rows)
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::recovery::Recovery;

    #[test]
    fn a_quorum_that_was_recovered_says_so() {
        let mut answer = RecoveryAnswer {
            escrow: None,
            recoveries: Vec::new(),
        };
        expect![[r"
            there is no escrow: no operators could recover this quorum
            this quorum was never recovered"]]
        .assert_eq(&serving(&answer));
        answer.recoveries.push(Recovery {
            recovery: 1,
            node_id: 3,
            operators: vec!["ann".into(), "bob".into()],
            at_ms: 5,
        });
        expect![[r"
            there is no escrow: no operators could recover this quorum
            RECOVERY  NODE  OPERATORS
            1         3     ann, bob
        "]]
        .assert_eq(&serving(&answer));
    }
}
