//! `nautilus export`: plaintext, as JSON lines or as an etcd snapshot.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, ValueEnum};
use nautilus_backup::{Archive, EtcdExport, Opener, Record};
use nautilus_machine::types::is_reserved;
use serde_json::json;

use super::snapshot::{Report, read_identity};
use super::{Global, import, print};
use crate::migrate::{EtcdClient, Source};

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
What is written is PLAINTEXT: every key and value, for whoever can read the file.

Examples:
  nautilus export keys.jsonl                                   from the quorum of DIR
  nautilus export --archive s.archive --identity backup.key keys.jsonl
  nautilus export --format etcd etcd.db    then: etcdutl snapshot restore etcd.db --data-dir d";

/// Said on standard error before anything is written.
const WARNING: &str = "warning: the export is plaintext; whoever reads the file reads every value";

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One object a line, keys and values in base64.
    Json,
    /// A file for `etcdutl snapshot restore`.
    Etcd,
}

/// `nautilus export`.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Where to (mode 0600)
    file: PathBuf,
    /// The form
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// From this archive instead of a running quorum
    #[arg(long, value_name = "FILE", requires = "identity")]
    archive: Option<PathBuf>,
    /// The private key that opens the archive
    #[arg(long, value_name = "FILE", requires = "archive")]
    identity: Option<PathBuf>,
}

/// Exports users' keys; the quorum's own rows and Kubernetes objects are not etcd's.
pub(super) async fn run(global: &Global, arguments: ExportArgs) -> anyhow::Result<()> {
    let _ = writeln!(std::io::stderr(), "{WARNING}");
    let mut sink = Sink::begin(arguments.format, &arguments.file)?;
    let (keys, revision) = match arguments.archive.zip(arguments.identity) {
        Some((archive, identity)) => {
            let exported = tokio::task::spawn_blocking(move || {
                let exported = from_archive(&archive, &identity, &mut sink)?;
                sink.finish(exported.1)?;
                anyhow::Ok(exported)
            });
            exported.await??
        }
        None => {
            let client = EtcdClient::connect(&import::local(global)?).await?;
            let exported = from_quorum(client, &mut sink).await?;
            sink.finish(exported.1)?;
            exported
        }
    };
    print(&format!(
        "exported {keys} keys at revision {revision} into {}",
        arguments.file.display()
    ));
    Ok(())
}

fn from_archive(path: &Path, identity: &Path, sink: &mut Sink) -> anyhow::Result<(u64, u64)> {
    let opener = Opener::Operator(read_identity(identity)?);
    let file = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
    let mut records = Archive::open(file)?.unseal(&opener)?;
    let revision = records.header().revision;
    let mut report = Report::start("exported");
    let mut keys = 0;
    while let Some(record) = records.next_record()? {
        if let Record::Key(kv) = &record {
            if is_reserved(&kv.key) {
                continue;
            }
            keys += 1;
            report.keys(keys);
        }
        sink.add(&record)?;
    }
    report.end();
    Ok((keys, revision))
}

async fn from_quorum(client: EtcdClient, sink: &mut Sink) -> anyhow::Result<(u64, u64)> {
    let mut source = Source::live(client).await?;
    let mut report = Report::start("exported");
    let keys = source
        .records(|keys| report.keys(keys), |record| sink.add(record))
        .await?;
    report.end();
    Ok((keys, source.revision))
}

/// Where records go.
enum Sink {
    Json(BufWriter<File>),
    Etcd(Box<EtcdExport>),
}

impl Sink {
    fn begin(format: Format, path: &Path) -> anyhow::Result<Self> {
        match format {
            Format::Etcd => Ok(Self::Etcd(Box::new(EtcdExport::begin(path)?))),
            Format::Json => {
                let file = OpenOptions::new()
                    .create(true)
                    .truncate(true)
                    .write(true)
                    .mode(0o600)
                    .open(path)
                    .with_context(|| path.display().to_string())?;
                Ok(Self::Json(BufWriter::new(file)))
            }
        }
    }

    fn add(&mut self, record: &Record) -> anyhow::Result<()> {
        match self {
            Self::Etcd(export) => Ok(export.add(record)?),
            Self::Json(file) => {
                serde_json::to_writer(&mut *file, &line(record))?;
                Ok(file.write_all(b"\n")?)
            }
        }
    }

    fn finish(self, revision: u64) -> anyhow::Result<()> {
        match self {
            Self::Etcd(export) => export.finish(revision).map(|_| ())?,
            Self::Json(file) => file.into_inner()?.sync_all()?,
        }
        Ok(())
    }
}

fn line(record: &Record) -> serde_json::Value {
    match record {
        Record::Lease(lease) => json!({ "lease": lease.id.0, "ttl_ms": lease.ttl_ms }),
        Record::Key(kv) => json!({
            "key": BASE64.encode(&kv.key),
            "value": BASE64.encode(&kv.value),
            "create_revision": kv.create_revision,
            "mod_revision": kv.mod_revision,
            "version": kv.version,
            "lease": kv.lease.map_or(0, |lease| lease.0),
        }),
    }
}

#[cfg(test)]
mod tests {
    use nautilus_machine::{KeyValue, LeaseId};

    use super::*;

    #[test]
    fn a_line_has_the_key_and_its_value_in_base64() {
        let record = Record::Key(KeyValue {
            key: "k".into(),
            value: vec![0xff].into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: Some(LeaseId(7)),
        });
        assert_eq!(
            line(&record).to_string(),
            r#"{"key":"aw==","value":"/w==","create_revision":2,"mod_revision":3,"version":2,"lease":7}"#
        );
    }
}
