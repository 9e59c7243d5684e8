//! `nautilus audit`: the log of requests, checked by whoever has it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nautilus_rest::audit::chain;
use serde_json::{Value, json};

use super::{Global, Output, print};
use crate::attested::JudgeArgs;
use crate::exit::Failure;
use crate::receipt::check;

pub(super) const EXAMPLES: &str = "\
A node that is told to (--audit-policy-file, --audit-log-path) records requests in lines of
audit.k8s.io/v1 events. Each line names the hash of the one before, and heads between them are
signed by the node's attested key: a line that was removed, moved or altered shows. What was cut
off after the last head does not: keep what is printed here, and compare.

Examples:
  nautilus audit verify audit.log
  nautilus audit verify audit-2026-01-02T03-04-05.678.log audit.log --policy policy.json";

/// `nautilus audit`.
#[derive(Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Check the lines of a log, offline
    Verify(VerifyArgs),
}

#[derive(Args)]
struct VerifyArgs {
    /// The log's files, the oldest first
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// Does what is asked.
pub(super) fn run(global: &Global, arguments: &AuditArgs) -> anyhow::Result<()> {
    let AuditCommand::Verify(verify) = &arguments.command;
    let mut text = String::new();
    for file in &verify.files {
        let read = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        text.push_str(&read);
    }
    let layout = global.layout()?;
    let is_local = layout.load()?.is_some();
    let judge = verify.judge.judge(&layout.simulated_root_key(), is_local)?;
    let vouched = std::cell::RefCell::new(Value::Null);
    let verified = chain::verify(text.lines(), &|signed, statement| {
        let claims = check::audit_head(signed, statement, &judge).map_err(|why| why.to_string())?;
        *vouched.borrow_mut() = json!({
            "cluster": statement.cluster,
            "node": statement.node,
            "lines": statement.head.sequence,
            "sha256": hex::encode(statement.head.sha256),
            "signed": check::when(statement.time_ms),
            "tee": claims.tee.to_string(),
            "measurement": claims.measurement.to_string(),
        });
        Ok(())
    })
    .map_err(|error| refused(&verify.files, &error.to_string()))?;
    if verified.heads == 0 {
        return Err(refused(
            &verify.files,
            "no head in it is signed: anybody can have written it",
        ));
    }
    let description = json!({
        "verified": true,
        "first": verified.first,
        "last": verified.last,
        "heads": verified.heads,
        "afterLastHead": verified.unsigned,
        "head": vouched.into_inner(),
    });
    print(&match arguments.output {
        Output::Json => serde_json::to_string_pretty(&description)?,
        Output::Table => super::receipt::table(&description),
    });
    Ok(())
}

fn refused(files: &[PathBuf], why: &str) -> anyhow::Error {
    let last = files.last().map_or(Path::new(""), PathBuf::as_path);
    Failure::Refused.error(format!("{}: {why}", last.display()))
}
