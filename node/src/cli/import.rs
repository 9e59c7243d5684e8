//! `nautilus import etcd`: from a running etcd or a snapshot of one, into a running
//! quorum or an archive.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nautilus_backup::{
    Archive, ArchiveInfo, ArchiveWriter, EtcdSnapshot, Integrity, Recipient, Seal, Signing,
};
use serde_json::json;

use super::snapshot::Report;
use super::{Global, Output, print};
use crate::exit::Failure;
use crate::migrate::{EtcdAddress, EtcdArgs, EtcdClient, Source, compare, copy};

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
An import that was interrupted is resumed by the same command: only what differs is written.

Examples:
  nautilus import etcd --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert c.crt --key c.key
  nautilus import etcd --snapshot etcd.db
  nautilus import etcd --snapshot etcd.db --to s.archive --recipient KEY    keeps revisions;
  nautilus snapshot restore s.archive --identity backup.key --dir q2        for a new quorum";

/// `nautilus import`.
#[derive(Args)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    from: ImportFrom,
}

#[derive(Subcommand)]
enum ImportFrom {
    /// From etcd
    #[command(after_help = EXAMPLES)]
    Etcd(Box<ImportEtcd>),
}

#[derive(Args)]
struct ImportEtcd {
    #[command(flatten)]
    etcd: EtcdArgs,
    /// A snapshot file instead of a running etcd
    #[arg(long, value_name = "FILE", conflicts_with = "endpoints")]
    snapshot: Option<PathBuf>,
    /// Read a snapshot without a SHA-256 at its end: one copied from a data directory
    #[arg(long, requires = "snapshot")]
    skip_hash_check: bool,
    /// Make an archive that keeps etcd's revisions, instead of writing into a quorum
    #[arg(long, value_name = "ARCHIVE", requires = "recipients")]
    to: Option<PathBuf>,
    /// With --to: an operator's public key that can open it; may be repeated
    #[arg(long = "recipient", value_name = "KEY", requires = "to")]
    recipients: Vec<Recipient>,
    #[command(flatten)]
    into: IntoArgs,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// The quorum's etcd face; that of the folder (--dir) by default.
#[derive(Args, Clone, Default)]
struct IntoArgs {
    /// Addresses of the quorum's etcd face [default: those of DIR]
    #[arg(long, value_delimiter = ',', value_name = "URL,..")]
    into: Vec<String>,
    /// The quorum's authority, PEM
    #[arg(long, value_name = "FILE", requires = "into")]
    into_cacert: Option<PathBuf>,
    /// Our certificate there, PEM
    #[arg(long, value_name = "FILE", requires = "into_key")]
    into_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "into_cert")]
    into_key: Option<PathBuf>,
}

/// Imports.
pub(super) async fn run(global: &Global, arguments: ImportArgs) -> anyhow::Result<()> {
    let ImportFrom::Etcd(asked) = arguments.from;
    let mut source = source(&asked).await?;
    match &asked.to {
        Some(path) => to_archive(&asked, &mut source, path).await,
        None => into_quorum(global, &asked, &mut source).await,
    }
}

async fn source(asked: &ImportEtcd) -> anyhow::Result<Source> {
    let Some(path) = asked.snapshot.clone() else {
        let client = EtcdClient::connect(&asked.etcd.address()?).await?;
        return Source::live(client).await;
    };
    let integrity = if asked.skip_hash_check {
        Integrity::Unchecked
    } else {
        Integrity::Hashed
    };
    let snapshot = tokio::task::spawn_blocking(move || {
        EtcdSnapshot::open(&path, integrity)
            .map_err(|error| Failure::Refused.error(format!("{}: {error}", path.display())))
    });
    let snapshot = snapshot.await??;
    if snapshot.orphans() > 0 {
        let text = format!(
            "{} keys hang on leases that the snapshot does not hold; they are taken without",
            snapshot.orphans()
        );
        let _ = writeln!(std::io::stderr(), "warning: {text}");
    }
    Ok(Source::snapshot(Arc::new(snapshot)))
}

async fn into_quorum(
    global: &Global,
    asked: &ImportEtcd,
    source: &mut Source,
) -> anyhow::Result<()> {
    let target = EtcdClient::connect(&target(global, &asked.into)?).await?;
    let mut report = Report::start("copied");
    let copied = copy(source, &target, &mut |keys| report.keys(keys)).await?;
    let mut report = report.next("compared");
    let comparison = compare(source, target, &mut |keys| report.keys(keys)).await?;
    report.end();
    match asked.output {
        Output::Json => {
            let mut answer = serde_json::to_value(&comparison)?;
            answer["copied"] = serde_json::to_value(copied)?;
            print(&serde_json::to_string_pretty(&answer)?);
        }
        Output::Table => print(&format!(
            "written     {} keys, {} leases ({} keys were there)\netcd        {} keys at revision {}\n\
             quorum      {} keys at revision {}\nhash        {}\n",
            copied.written,
            copied.leases_granted,
            copied.unchanged,
            comparison.source.keys,
            comparison.source.revision,
            comparison.target.keys,
            comparison.target.revision,
            comparison.target.hash,
        )),
    }
    if comparison.equal {
        return Ok(());
    }
    Err(Failure::General.error(format!(
        "the two differ: etcd has {} keys with hash {}, the quorum {} with {}; the quorum held \
         other keys before, or is written to",
        comparison.source.keys,
        comparison.source.hash,
        comparison.target.keys,
        comparison.target.hash
    )))
}

fn target(global: &Global, into: &IntoArgs) -> anyhow::Result<EtcdAddress> {
    if into.into.is_empty() {
        return local(global);
    }
    let arguments = EtcdArgs {
        endpoints: into.into.clone(),
        cacert: into.into_cacert.clone(),
        cert: into.into_cert.clone(),
        key: into.into_key.clone(),
        user: None,
    };
    arguments.address()
}

/// The etcd face of the folder's quorum.
pub(super) fn local(global: &Global) -> anyhow::Result<EtcdAddress> {
    let layout = global.layout()?;
    EtcdAddress::local(&layout, &layout.existing()?)
}

async fn to_archive(asked: &ImportEtcd, source: &mut Source, path: &Path) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let info = ArchiveInfo {
        cluster: "etcd".to_owned(),
        revision: source.revision,
        keys: source.count().await?,
        leases: source.leases.len() as u64,
        created_unix_ms: u64::try_from(now)?,
    };
    let revision = info.revision;
    let signing = Signing::ephemeral()?;
    let seal = Seal {
        recipients: &asked.recipients,
        quorum: None,
        signing: &signing,
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .with_context(|| beside.display().to_string())?;
    let mut writer = ArchiveWriter::begin(BufWriter::new(file), &seal, info)?;
    let mut report = Report::start("archived");
    source
        .records(|keys| report.keys(keys), |record| Ok(writer.add(record)?))
        .await?;
    let (sink, summary) = writer.finish()?;
    sink.into_inner()?.sync_all()?;
    let archive = Archive::open(BufReader::new(File::open(&beside)?))?;
    archive.expect_signer(&signing.public())?;
    let verified = archive.verify(&mut |bytes| report.at(bytes))?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())?;
    report.end();
    let answer = json!({
        "file": path.display().to_string(),
        "revision": revision,
        "keys": summary.keys,
        "leases": summary.leases,
        "size_bytes": verified.size_bytes,
        "signer": verified.signer.to_string(),
        "hash": hex::encode(summary.hash),
    });
    match asked.output {
        Output::Json => print(&serde_json::to_string_pretty(&answer)?),
        Output::Table => print(&format!(
            "file        {}\nrevision    {revision}\nkeys        {}\nleases      {}\nbytes       {}\n\
             signer      {}\nhash        {}\n",
            path.display(),
            summary.keys,
            summary.leases,
            verified.size_bytes,
            verified.signer,
            hex::encode(summary.hash),
        )),
    }
    Ok(())
}
