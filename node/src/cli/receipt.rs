//! `nautilus receipt`: proofs that the quorum accepted a change, got and checked.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nautilus_rest::receipts::{ConsistencyDocument, ReceiptDocument};
use serde_json::{Value, json};

use super::{Global, Output, print};
use crate::attested::{Judge, JudgeArgs};
use crate::client::RequestError;
use crate::data_dir::write_durably;
use crate::exit::Failure;
use crate::receipt::check::{self, CheckError, CheckedReceipt, CheckedRoot};

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
A receipt shows that the quorum's attested code accepted one change of one key. Whoever has it
checks it without a quorum: give a policy, or the measurements of the code that you trust. The
revision is the resourceVersion of a Kubernetes object. A receipt holds the value: leave it out
with --without-value before you pass the receipt of a secret on.

Examples:
  nautilus receipt get --revision 4711 --out pod.receipt
  nautilus receipt get --key /app/config
  nautilus receipt verify pod.receipt --object pod.json --measurement 5f1c.. \\
      --simulated-root-key root.pub --allow-simulated
  nautilus receipt verify pod.receipt --policy policy.json --output json
  nautilus receipt consistency monday.receipt friday.receipt
  nautilus receipt consistency monday.receipt        against the quorum as it is now";

/// `nautilus receipt`.
#[derive(Args)]
pub(crate) struct ReceiptArgs {
    #[command(subcommand)]
    command: ReceiptCommand,
    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand)]
enum ReceiptCommand {
    /// Get the receipt of a change
    Get(GetArgs),
    /// Check a receipt, offline
    Verify(VerifyArgs),
    /// Check that the quorum's history went on from one root to another
    Consistency(ConsistencyArgs),
}

#[derive(Args)]
struct GetArgs {
    /// The revision: of an object, its resourceVersion [default: the key's newest]
    #[arg(long, value_name = "N", required_unless_present = "key")]
    revision: Option<u64>,
    /// The key, where the revision changed several
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Where to write; - prints
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Leave the value out
    #[arg(long)]
    without_value: bool,
}

#[derive(Args)]
struct VerifyArgs {
    /// The receipt
    file: PathBuf,
    /// Check too that this is what was committed: an object in JSON or YAML, or the
    /// value's bytes
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
}

#[derive(Args)]
struct ConsistencyArgs {
    /// A receipt with the older root
    older: PathBuf,
    /// A receipt with the newer root [default: the quorum's root as it is now]
    newer: Option<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// Does what is asked.
pub(super) async fn run(global: &Global, arguments: ReceiptArgs) -> anyhow::Result<()> {
    let output = arguments.output;
    match arguments.command {
        ReceiptCommand::Get(get) => self::get(global, get).await,
        ReceiptCommand::Verify(verify) => {
            let global = global.clone();
            tokio::task::spawn_blocking(move || self::verify(&global, &verify, output)).await?
        }
        ReceiptCommand::Consistency(asked) => consistency(global, asked, output).await,
    }
}

async fn get(global: &Global, arguments: GetArgs) -> anyhow::Result<()> {
    let client = global.client()?;
    let mut query = Vec::new();
    if let Some(revision) = arguments.revision {
        query.push(format!("revision={revision}"));
    }
    if let Some(key) = &arguments.key {
        query.push(format!("keyHex={}", hex::encode(key)));
    }
    let path = format!("/nautilus/v1/receipt?{}", query.join("&"));
    let mut receipt: ReceiptDocument = client
        .get(&path, None)
        .await
        .map_err(RequestError::into_failure)?;
    if arguments.without_value {
        receipt.value = None;
    }
    let text = format!("{}\n", serde_json::to_string_pretty(&receipt)?);
    if arguments.out.as_os_str() == "-" {
        print(&text);
        return Ok(());
    }
    write_durably(&arguments.out, text.as_bytes(), 0o600)
        .with_context(|| arguments.out.display().to_string())?;
    print(&format!("wrote {}", arguments.out.display()));
    Ok(())
}

fn verify(global: &Global, arguments: &VerifyArgs, output: Output) -> anyhow::Result<()> {
    let document = read(&arguments.file)?;
    let judge = judge(global, &arguments.judge)?;
    let refused = |error| refused(&arguments.file, &error);
    let checked = check::receipt(&document, &judge).map_err(refused)?;
    if let Some(path) = &arguments.object {
        let object = std::fs::read(path).with_context(|| path.display().to_string())?;
        checked.commits_to_object(&object).map_err(refused)?;
    }
    let description = describe(&document, &checked, arguments.object.as_deref());
    match output {
        Output::Json => print(&serde_json::to_string_pretty(&description)?),
        Output::Table => print(&table(&description)),
    }
    Ok(())
}

async fn consistency(
    global: &Global,
    arguments: ConsistencyArgs,
    output: Output,
) -> anyhow::Result<()> {
    let older = read(&arguments.older)?.root;
    let newer = arguments.newer.as_deref().map(read).transpose()?;
    let newer = newer.map(|receipt| receipt.root);
    let judge = judge(global, &arguments.judge)?;
    let client = global.client()?;
    let refused = |error| refused(&arguments.older, &error);
    let from = check::root(&older, &judge).map_err(refused)?;
    let to = newer.map(|root| check::root(&root, &judge));
    let to = to.transpose().map_err(refused)?;
    if let Some(to) = &to {
        check::order(&from, to).map_err(refused)?;
    }
    let mut path = format!("/nautilus/v1/receipt/consistency?from={}", older.size);
    if let Some(to) = &to {
        path.push_str(&format!("&to={}", to.statement.size));
    }
    let answer: Result<ConsistencyDocument, RequestError> = client.get(&path, None).await;
    let document = match answer {
        Ok(document) => document,
        Err(RequestError::Refused {
            code: 404, message, ..
        }) => {
            return Err(Failure::Refused.error(format!(
                "the quorum's history was rolled back: it signed a root of {} leaves, and now \
                 says: {message}",
                older.size
            )));
        }
        Err(error) => return Err(error.into_failure()),
    };
    let present = check::root(&document.root, &judge).map_err(refused)?;
    let to = match to {
        Some(to) => to,
        None => {
            check::order(&from, &present).map_err(refused)?;
            present
        }
    };
    check::consistency(&from, &to, &document).map_err(refused)?;
    let description = json!({ "consistent": true, "from": root(&from), "to": root(&to) });
    match output {
        Output::Json => print(&serde_json::to_string_pretty(&description)?),
        Output::Table => print(&table(&description)),
    }
    Ok(())
}

fn judge(global: &Global, arguments: &JudgeArgs) -> anyhow::Result<Judge> {
    let layout = global.layout()?;
    let is_local = layout.load()?.is_some();
    arguments.judge(&layout.simulated_root_key(), is_local)
}

fn read(path: &Path) -> anyhow::Result<ReceiptDocument> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not a receipt", path.display()))
}

fn refused(path: &Path, error: &CheckError) -> anyhow::Error {
    Failure::Refused.error(format!("{}: {error}", path.display()))
}

/// What a receipt proves.
fn describe(document: &ReceiptDocument, checked: &CheckedReceipt, object: Option<&Path>) -> Value {
    let leaf = &checked.leaf;
    json!({
        "verified": true,
        "kind": document.leaf.kind,
        "key": String::from_utf8_lossy(&leaf.key),
        "revision": leaf.revision,
        "term": leaf.log.term,
        "logIndex": leaf.log.index,
        "leaf": document.leaf.index,
        "valueSha256": document.leaf.value_sha256,
        "object": object.map(|path| path.display().to_string()),
        "root": root(&checked.root),
    })
}

fn root(checked: &CheckedRoot) -> Value {
    let (statement, claims) = (&checked.statement, &checked.claims);
    json!({
        "cluster": statement.cluster,
        "node": statement.node,
        "leaves": statement.size,
        "sha256": hex::encode(statement.root),
        "revision": statement.revision,
        "term": statement.term,
        "signed": check::when(statement.time.0),
        "tee": claims.tee.to_string(),
        "measurement": claims.measurement.to_string(),
    })
}

/// A description's fields, one a line.
pub(super) fn table(description: &Value) -> String {
    let mut text = String::new();
    lines(&mut text, "", description);
    text
}

fn lines(text: &mut String, prefix: &str, value: &Value) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        match value {
            Value::Null => {}
            Value::Object(_) => lines(text, &format!("{name}."), value),
            Value::String(value) => text.push_str(&format!("{name:<20} {value}\n")),
            value => text.push_str(&format!("{name:<20} {value}\n")),
        }
    }
}
