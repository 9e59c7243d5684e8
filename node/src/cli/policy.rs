//! `nautilus policy`: which code may be a member, and who may change that.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use nautilus_attest_protocol::Policy;
use nautilus_attest_protocol::policy::differences;
use reqwest::Method;
use serde::Deserialize;

use super::{Global, Output, print};
use crate::cli::status::table;
use crate::client::{ApiClient, RequestError};
use crate::exit::Failure;
use crate::policy::face::{ChangeAnswer, ChangeRequest};
use crate::policy::file::{OperatorSigner, read_policy};
use crate::policy::store::Record;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
A change is a whole policy in a file (TOML, YAML or JSON), signed by as many operators as
the policy in force asks for. The file's epoch names the policy it was made from.

Examples:
  nautilus policy get --output json > p.json      then edit p.json
  nautilus policy diff p.json
  nautilus policy apply p.json --key ann.key
  nautilus policy pending
  nautilus policy approve 3f9a --key bob.key      once you have seen what it changes
  nautilus policy history";

/// `nautilus policy`.
#[derive(Args)]
pub(crate) struct PolicyArgs {
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Show the policy in force
    #[command(after_help = "Examples:\n  nautilus policy get --output json > p.json")]
    Get,
    /// Show what a file would change
    #[command(after_help = "Examples:\n  nautilus policy diff p.json")]
    Diff {
        /// The new policy
        file: PathBuf,
    },
    /// Sign a new policy; it is in force once enough operators have signed
    #[command(after_help = "Examples:\n  nautilus policy apply p.json --key ann.key")]
    Apply {
        /// The new policy
        file: PathBuf,
        #[command(flatten)]
        key: KeyArgs,
    },
    /// Sign a pending change of another operator
    #[command(after_help = "Examples:\n  nautilus policy approve 3f9a --key bob.key")]
    Approve {
        /// The start of its digest, as `nautilus policy pending` shows it
        digest: String,
        #[command(flatten)]
        key: KeyArgs,
    },
    /// Show changes that lack approvals, and what each changes
    #[command(after_help = "Examples:\n  nautilus policy pending")]
    Pending,
    /// Show every policy the quorum had
    #[command(after_help = "Examples:\n  nautilus policy history --output json")]
    History,
    /// Show a key's public half as a policy names operators
    #[command(after_help = "Examples:\n  nautilus policy key ann.key")]
    Key {
        /// The operator's private key, PEM
        file: PathBuf,
    },
}

/// Who signs.
#[derive(Args)]
struct KeyArgs {
    /// The operator's private key, PEM: Ed25519 or P-256 [default: DIR/operator.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl KeyArgs {
    fn signer(&self, global: &Global) -> anyhow::Result<OperatorSigner> {
        match &self.key {
            Some(path) => OperatorSigner::read(path),
            None => OperatorSigner::read(&global.layout()?.operator_key()),
        }
    }
}

/// `GET /nautilus/v1/policy/pending`.
#[derive(Deserialize)]
struct PendingAnswer {
    pending: Vec<PendingChange>,
}

/// A change that lacks approvals.
#[derive(Deserialize)]
struct PendingChange {
    document: Policy,
    digest: String,
    given: u32,
    needed: u32,
}

/// `GET /nautilus/v1/policy/history`.
#[derive(Deserialize)]
struct HistoryAnswer {
    history: Vec<Record>,
}

/// Does it.
pub(super) async fn run(global: &Global, arguments: PolicyArgs) -> anyhow::Result<()> {
    let output = arguments.output;
    if let PolicyCommand::Key { file } = &arguments.command {
        return key(file, output);
    }
    let client = global.client()?;
    match arguments.command {
        PolicyCommand::Get => get(&client, output).await,
        PolicyCommand::Diff { file } => diff(&client, &file, output).await,
        PolicyCommand::Apply { file, key } => {
            let present = present(&client).await?;
            let document = next(&present, read_policy(&file)?)?;
            submit(&client, document, &key.signer(global)?, output).await
        }
        PolicyCommand::Approve { digest, key } => {
            let change = find(pending_changes(&client).await?, &digest)?;
            submit(&client, change.document, &key.signer(global)?, output).await
        }
        PolicyCommand::Pending => pending(&client, output).await,
        PolicyCommand::History => history(&client, output).await,
        PolicyCommand::Key { .. } => Ok(()),
    }
}

/// The policy in force.
pub(crate) async fn present(client: &ApiClient) -> anyhow::Result<Policy> {
    let record: Record = client
        .get("/nautilus/v1/policy", None)
        .await
        .map_err(RequestError::into_failure)?;
    Ok(record.document)
}

/// The change that a file made from `present` asks for.
fn next(present: &Policy, mut document: Policy) -> anyhow::Result<Policy> {
    // A file without an epoch is made from whatever is in force.
    if document.epoch != 0 && document.epoch != present.epoch {
        return Err(Failure::Refused.error(format!(
            "the file was made from policy epoch {}, but epoch {} is in force: get that one, and \
             make the change anew",
            document.epoch, present.epoch
        )));
    }
    document.epoch = present.epoch + 1;
    document
        .check_governed()
        .map_err(|error| Failure::Usage.error(error))?;
    Ok(document)
}

/// Signs `document` and hands it in.
pub(crate) async fn hand_in(
    client: &ApiClient,
    document: Policy,
    signer: &OperatorSigner,
) -> anyhow::Result<ChangeAnswer> {
    let cluster_id = client
        .cluster_name()
        .await
        .map_err(RequestError::into_failure)?;
    let approval = signer.approve(&cluster_id, &document)?;
    let request = ChangeRequest {
        document,
        approvals: vec![approval],
    };
    client
        .request(
            Method::POST,
            "/nautilus/v1/policy/changes",
            Some(&request),
            None,
        )
        .await
        .map_err(RequestError::into_failure)
}

async fn submit(
    client: &ApiClient,
    document: Policy,
    signer: &OperatorSigner,
    output: Output,
) -> anyhow::Result<()> {
    let answer = hand_in(client, document, signer).await?;
    match output {
        Output::Json => print(&serde_json::to_string_pretty(&answer)?),
        Output::Table => print(&outcome(&answer)),
    }
    Ok(())
}

fn outcome(answer: &ChangeAnswer) -> String {
    if answer.applied {
        return format!("policy epoch {} is in force", answer.epoch);
    }
    let short = answer.digest.get(..16).unwrap_or(&answer.digest);
    format!(
        "{} of {} operators have approved; {} more must run\n  nautilus policy approve {short}",
        answer.given,
        answer.needed,
        answer.needed.saturating_sub(answer.given)
    )
}

async fn get(client: &ApiClient, output: Output) -> anyhow::Result<()> {
    let policy = present(client).await?;
    match output {
        Output::Json => print(&serde_json::to_string_pretty(&policy)?),
        Output::Table => print(&shown(&policy)),
    }
    Ok(())
}

/// A policy for people.
fn shown(policy: &Policy) -> String {
    let mut rows = Vec::new();
    for (tee, rules) in &policy.evidence.kinds {
        for allowed in &rules.measurements {
            let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), date);
            rows.push(vec![
                tee.to_string(),
                allowed.measurement.to_string(),
                or_dash(&allowed.name),
                time(allowed.not_before_ms),
                time(allowed.not_after_ms),
            ]);
        }
    }
    let measurements = table(
        &["TEE", "MEASUREMENT", "NAME", "NOT BEFORE", "NOT AFTER"],
        rows,
    );
    let operators = policy.operators.iter().map(|operator| {
        vec![
            operator.name.clone(),
            format!("sha256:{}", operator.public_key.fingerprint()),
        ]
    });
    let mut head = format!(
        "epoch                {}\nsimulated evidence   {}\n",
        policy.epoch,
        if policy.evidence.allow_simulated {
            "allowed"
        } else {
            "refused"
        }
    );
    if let Some(rule) = policy.diversity {
        head.push_str(&format!("vendor faults borne  {}\n", rule.vendor_faults));
    }
    let tcb = tcb_lines(policy);
    format!(
        "{head}changes need         {} of {} operators\n\n{measurements}{tcb}\n{}",
        policy.threshold,
        policy.operators.len(),
        table(&["OPERATOR", "KEY"], operators)
    )
}

/// What is asked of the platforms' patches, where anything is.
fn tcb_lines(policy: &Policy) -> String {
    let mut lines = String::new();
    for (tee, rules) in &policy.evidence.kinds {
        for (component, version) in &rules.minimum_tcb {
            lines.push_str(&format!("{tee}: {component} at least {version}\n"));
        }
        let statuses: Vec<_> = rules.accepted_statuses.iter().map(|s| s.name()).collect();
        lines.push_str(&format!("{tee}: TCB status {}\n", statuses.join(", ")));
        for advisory in &rules.accepted_advisories {
            lines.push_str(&format!("{tee}: advisory {advisory} is borne\n"));
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!("\n{lines}")
}

async fn diff(client: &ApiClient, file: &std::path::Path, output: Output) -> anyhow::Result<()> {
    let present = present(client).await?;
    let changes = differences(&present, &read_policy(file)?);
    match output {
        Output::Json => print(&serde_json::to_string_pretty(&changes)?),
        Output::Table if changes.is_empty() => print("nothing differs"),
        Output::Table => print(&changes.join("\n")),
    }
    Ok(())
}

async fn pending_changes(client: &ApiClient) -> anyhow::Result<Vec<PendingChange>> {
    let answer: PendingAnswer = client
        .get("/nautilus/v1/policy/pending", None)
        .await
        .map_err(RequestError::into_failure)?;
    Ok(answer.pending)
}

/// The one change whose digest starts so. The digest is computed here: what is signed is
/// what was looked at.
fn find(changes: Vec<PendingChange>, digest: &str) -> anyhow::Result<PendingChange> {
    let mut fitting = changes
        .into_iter()
        .filter(|change| hex::encode(change.document.digest()).starts_with(digest));
    match (fitting.next(), fitting.next()) {
        (Some(change), None) => Ok(change),
        (None, _) => Err(anyhow!(
            "no pending change's digest starts with {digest}; see `nautilus policy pending`"
        )),
        (Some(_), Some(_)) => Err(anyhow!(
            "more than one pending change's digest starts with {digest}; write more of it"
        )),
    }
}

async fn pending(client: &ApiClient, output: Output) -> anyhow::Result<()> {
    let changes = pending_changes(client).await?;
    if output == Output::Json {
        let value: serde_json::Value = client
            .get("/nautilus/v1/policy/pending", None)
            .await
            .map_err(RequestError::into_failure)?;
        print(&serde_json::to_string_pretty(&value["pending"])?);
        return Ok(());
    }
    if changes.is_empty() {
        print("no change waits for approvals");
        return Ok(());
    }
    let present = present(client).await?;
    for change in &changes {
        print(&format!(
            "{}  {} of {} operators\n{}",
            change.digest.get(..16).unwrap_or(&change.digest),
            change.given,
            change.needed,
            differences(&present, &change.document).join("\n")
        ));
    }
    Ok(())
}

async fn history(client: &ApiClient, output: Output) -> anyhow::Result<()> {
    let answer: HistoryAnswer = client
        .get("/nautilus/v1/policy/history", None)
        .await
        .map_err(RequestError::into_failure)?;
    if output == Output::Json {
        print(&serde_json::to_string_pretty(&answer.history)?);
        return Ok(());
    }
    let mut rows = Vec::new();
    let mut before: Option<&Record> = None;
    for record in &answer.history {
        let what = match before {
            None => "genesis".to_owned(),
            Some(before) => differences(&before.document, &record.document).join("; "),
        };
        rows.push(vec![
            record.document.epoch.to_string(),
            date(record.at_ms),
            signers(before, record),
            what,
        ]);
        before = Some(record);
    }
    print(&table(&["EPOCH", "AT", "SIGNED BY", "WHAT"], rows));
    Ok(())
}

/// The names of those who approved, as the policy before knew them.
fn signers(before: Option<&Record>, record: &Record) -> String {
    let name = |fingerprint: &str| {
        let known = before.and_then(|before| {
            let mut operators = before.document.operators.iter();
            operators.find(|operator| operator.public_key.fingerprint() == fingerprint)
        });
        known.map_or_else(|| fingerprint.to_owned(), |known| known.name.clone())
    };
    let names: Vec<String> = record
        .approvals
        .iter()
        .map(|approval| name(&approval.operator))
        .collect();
    or_dash(&names.join(", "))
}

fn key(file: &std::path::Path, output: Output) -> anyhow::Result<()> {
    let key = OperatorSigner::read(file)?.public_key()?;
    match output {
        Output::Json => print(&serde_json::to_string_pretty(&serde_json::json!({
            "public_key": key, "fingerprint": key.fingerprint(),
        }))?),
        Output::Table => print(&format!(
            "public_key   {key}\nfingerprint  sha256:{}",
            key.fingerprint()
        )),
    }
    Ok(())
}

/// A time for people, in UTC.
fn date(at_ms: u64) -> String {
    let shown = i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok());
    shown.map_or_else(|| at_ms.to_string(), |time| time.to_string())
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}
