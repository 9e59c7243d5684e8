//! `nautilus attest collateral`: vendors' endorsements, seen, brought in and taken out
//! by hand. For networks from which no vendor can be reached.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nautilus_attest_tee::{inspect_endorsement, name_endorsement};
use serde::Deserialize;
use serde_json::json;

use crate::cli::status::table;
use crate::cli::{Global, Output, print};
use crate::client::RequestError;
use crate::data_dir::write_durably;
use crate::endorsements::{Listed, MAX_ENDORSEMENT_BYTES, PATH, path_of};
use crate::exit::Failure;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
An endorsement is what a vendor says of its platforms: a chain, a revocation list, a level of
patches. What it is follows from its content; a vendor's signature is checked wherever its issuer
is at hand, and nothing older replaces what is there.

Examples:
  nautilus attest collateral list
  nautilus attest collateral import crl.der tcb-info.json vcek.der
  nautilus attest collateral export ./endorsements
  nautilus attest collateral import --into ./endorsements crl.der    without a quorum, for
      `attestation.endorsements.directory` and `nautilus attest verify --endorsements`";

/// `nautilus attest collateral`.
#[derive(Args)]
pub(super) struct CollateralArgs {
    #[command(subcommand)]
    command: CollateralCommand,
}

#[derive(Subcommand)]
enum CollateralCommand {
    /// Show what the quorum has, and what its verifiers miss
    #[command(after_help = "Examples:\n  nautilus attest collateral list --output json")]
    List {
        /// The form of the answer
        #[arg(long, short, value_enum, default_value = "table")]
        output: Output,
    },
    /// Check files and hand them to the quorum, or put them into a directory
    #[command(after_help = "Examples:\n  nautilus attest collateral import crl.der vcek.der")]
    Import {
        /// What a vendor's service gave: DER, PEM, or JSON with its chain behind it
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Put them here instead of into a quorum
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Write everything the quorum has into a directory
    #[command(after_help = "Examples:\n  nautilus attest collateral export ./endorsements")]
    Export {
        /// Made if absent
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// `GET /nautilus/v1/endorsements`.
#[derive(Deserialize)]
struct List {
    endorsements: Vec<Listed>,
}

/// Does what was asked.
pub(super) async fn run(global: &Global, arguments: CollateralArgs) -> anyhow::Result<()> {
    match arguments.command {
        CollateralCommand::List { output } => list(global, output).await,
        CollateralCommand::Import {
            files,
            into: Some(directory),
        } => import_into(&directory, &files),
        CollateralCommand::Import { files, into: None } => import(global, &files).await,
        CollateralCommand::Export { directory } => export(global, &directory).await,
    }
}

async fn list(global: &Global, output: Output) -> anyhow::Result<()> {
    let list: List = global
        .client()?
        .get(PATH, None)
        .await
        .map_err(RequestError::into_failure)?;
    if output == Output::Json {
        print(&json!({ "endorsements": list.endorsements }).to_string());
        return Ok(());
    }
    let dash = || "-".to_owned();
    let rows = list.endorsements.into_iter().map(|one| {
        let signature = match (one.state.as_str(), one.signature_checked) {
            ("wanted", _) => "-",
            (_, true) => "checked",
            (_, false) => "when used",
        };
        vec![
            one.name,
            one.state,
            one.expires_at.unwrap_or_else(dash),
            one.fetched_at.unwrap_or_else(dash),
            signature.to_owned(),
            one.source,
        ]
    });
    let header = ["NAME", "STATE", "EXPIRES", "FETCHED", "SIGNATURE", "SOURCE"];
    print(&table(&header, rows));
    Ok(())
}

/// Files by the names of what they hold.
fn read(files: &[PathBuf]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    files
        .iter()
        .map(|path| {
            let shown = path.display();
            let size = std::fs::metadata(path)
                .with_context(|| shown.to_string())?
                .len();
            if size > MAX_ENDORSEMENT_BYTES as u64 {
                return Err(Failure::Refused.error(format!(
                    "{shown} has {size} bytes, more than the limit of {MAX_ENDORSEMENT_BYTES}"
                )));
            }
            let bytes = std::fs::read(path).with_context(|| shown.to_string())?;
            let name = name_endorsement(&bytes)
                .map_err(|error| Failure::Refused.error(format!("{shown}: {error}")))?;
            Ok((name, bytes))
        })
        .collect()
}

async fn import(global: &Global, files: &[PathBuf]) -> anyhow::Result<()> {
    let client = global.client()?;
    // All are read before the first is sent.
    for (name, bytes) in read(files)? {
        let taken: Listed =
            client
                .put(&format!("{PATH}/{name}"), bytes)
                .await
                .map_err(|error| match error {
                    RequestError::Refused {
                        code: 400 | 409,
                        message,
                        ..
                    } => Failure::Refused.error(message),
                    other => other.into_failure(),
                })?;
        print(&format!(
            "{}: holds until {}",
            taken.name,
            taken.expires_at.as_deref().unwrap_or("-")
        ));
    }
    Ok(())
}

fn import_into(directory: &Path, files: &[PathBuf]) -> anyhow::Result<()> {
    for (name, bytes) in read(files)? {
        let facts = inspect_endorsement(&name, &bytes)
            .map_err(|error| Failure::Refused.error(format!("{name}: {error}")))?;
        let path = path_of(directory, &name);
        if let Ok(present) = std::fs::read(&path)
            && let Ok(present) = inspect_endorsement(&name, &present)
            && present.issued_at_ms > facts.issued_at_ms
        {
            return Err(Failure::Refused.error(format!(
                "{name} is older than {}, which is there; remove that first if you mean it",
                path.display()
            )));
        }
        put(directory, &name, &bytes)?;
        print(&format!("{name}: wrote {}", path.display()));
    }
    Ok(())
}

async fn export(global: &Global, directory: &Path) -> anyhow::Result<()> {
    let client = global.client()?;
    let list: List = client
        .get(PATH, None)
        .await
        .map_err(RequestError::into_failure)?;
    let present = list
        .endorsements
        .iter()
        .filter(|one| one.state == "present");
    let mut count = 0_usize;
    for one in present {
        let bytes = client
            .bytes(&format!("{PATH}/{}", one.name))
            .await
            .map_err(RequestError::into_failure)?;
        // The name comes from elsewhere; only what the content calls itself is a path.
        let name = name_endorsement(&bytes)
            .map_err(|error| Failure::Refused.error(format!("{}: {error}", one.name)))?;
        put(directory, &name, &bytes)?;
        count += 1;
    }
    print(&format!(
        "wrote {count} endorsements into {}",
        directory.display()
    ));
    Ok(())
}

fn put(directory: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = path_of(directory, name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    write_durably(&path, bytes, 0o644).with_context(|| path.display().to_string())
}
