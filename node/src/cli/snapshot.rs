//! `nautilus snapshot`: archives of a quorum, taken, examined and restored.
//!
//! What is saved is ciphertext from the member on: this program never sees a key or a
//! value of it. It checks what it wrote by reading it back against the signature of the
//! quorum, whose key it learned over the authenticated connection.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use nautilus_backup::{
    Archive, BackupError, Destination, Header, Identity, Opener, Recipient, S3Credentials,
    S3Settings, SIGNER_HEADER, SNAPSHOT_PATH, SignerKey, SnapshotRequest,
};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{Global, Output, print};
use crate::client::RequestError;
use crate::config::read_secret;
use crate::data_dir::write_durably;
use crate::exit::Failure;
use crate::up::progress::Progress;
use crate::up::{self, RestoreArgs, RestoreOptions, UpArgs};

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  nautilus snapshot keygen backup.key                          prints the recipient
  nautilus snapshot save s.archive --recipient nautilus-recipient-..
  nautilus snapshot save s3://backups/alpha/s.archive          sealed to the quorum itself
  nautilus snapshot status s.archive --identity backup.key
  nautilus snapshot restore s.archive --identity backup.key --dir q2   a new quorum";

/// Quiet for so long: only what takes longer shows its progress.
const QUIET: Duration = Duration::from_secs(2);
/// Between two looks at the progress.
const LOOK: Duration = Duration::from_millis(500);
/// A member that sends nothing for so long is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Pieces received but not yet written.
const PIECES_PENDING: usize = 4;

/// `nautilus snapshot`.
#[derive(Args)]
pub(crate) struct SnapshotArgs {
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Subcommand)]
enum SnapshotCommand {
    /// Take a snapshot from a member, sealed there
    #[command(after_help = "Examples:\n  nautilus snapshot save s.archive --recipient KEY")]
    Save(SaveArgs),
    /// Show what an archive is and whether it is whole
    #[command(after_help = "Examples:\n  nautilus snapshot status s.archive --output json")]
    Status(StatusArgs),
    /// Found a new quorum on this machine with an archive's content
    #[command(
        after_help = "Examples:\n  nautilus snapshot restore s.archive --identity backup.key --dir q2"
    )]
    Restore(RestoreCommand),
    /// Make an operator's key pair for snapshots
    #[command(after_help = "Examples:\n  nautilus snapshot keygen backup.key")]
    Keygen {
        /// Where the private key goes; must not exist
        file: PathBuf,
    },
}

#[derive(Args)]
struct SaveArgs {
    /// A file, or s3://BUCKET/PATH
    #[arg(value_name = "FILE|URL")]
    target: String,
    /// An operator's public key that can open it; may be repeated [default: the quorum alone]
    #[arg(long = "recipient", value_name = "KEY")]
    recipients: Vec<Recipient>,
    #[command(flatten)]
    bucket: BucketArgs,
}

/// How a bucket is reached; `AWS_*` variables count too.
#[derive(Args)]
pub(super) struct BucketArgs {
    /// Of a store that is not Amazon's
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The bucket's region
    #[arg(long, value_name = "NAME")]
    s3_region: Option<String>,
    /// A file with aws_access_key_id and aws_secret_access_key
    #[arg(long, value_name = "FILE")]
    s3_credentials: Option<PathBuf>,
    /// Certificates that TLS to the store trusts, PEM
    #[arg(long, value_name = "FILE")]
    s3_authorities: Option<PathBuf>,
}

#[derive(Args)]
struct StatusArgs {
    /// The archive
    file: PathBuf,
    /// A private key that opens it, to read its content's hash
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Refuse an archive that another has signed
    #[arg(long, value_name = "KEY")]
    signer: Option<SignerKey>,
}

#[derive(Args)]
struct RestoreCommand {
    /// The archive
    file: PathBuf,
    /// The private key that opens it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    #[command(flatten)]
    options: RestoreOptions,
    /// How many nodes the new quorum has
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9), value_name = "N")]
    nodes: u64,
}

/// What `status` and `save` print as JSON.
#[derive(Debug, Serialize)]
struct Description {
    file: String,
    format: u32,
    cluster: String,
    revision: u64,
    keys: u64,
    leases: u64,
    size_bytes: u64,
    created: String,
    program: String,
    signer: String,
    recipients: Vec<String>,
    /// SHA-256 of the content in hex, where it could be opened.
    hash: Option<String>,
}

impl Description {
    fn new(file: String, header: &Header, size_bytes: u64) -> Self {
        let created = i64::try_from(header.created_unix_ms).unwrap_or(i64::MAX);
        let created = jiff::Timestamp::from_millisecond(created).unwrap_or(jiff::Timestamp::MAX);
        Self {
            file,
            format: header.format,
            cluster: header.cluster.clone(),
            revision: header.revision,
            keys: header.keys,
            leases: header.leases,
            size_bytes,
            created: created.to_string(),
            program: header.program.clone(),
            signer: header.signer.clone(),
            recipients: header.recipients(),
            hash: None,
        }
    }

    fn print(&self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Json => print(&serde_json::to_string_pretty(self)?),
            Output::Table => {
                let recipients = self.recipients.join("\n            ");
                print(&format!(
                    "file        {}\nformat      {}\nquorum      {}\nrevision    {}\nkeys        {}\n\
                     leases      {}\nbytes       {}\ncreated     {}\nprogram     {}\nsigner      {}\n\
                     recipients  {recipients}\nhash        {}\n",
                    self.file,
                    self.format,
                    self.cluster,
                    self.revision,
                    self.keys,
                    self.leases,
                    self.size_bytes,
                    self.created,
                    self.program,
                    self.signer,
                    self.hash.as_deref().unwrap_or("- (needs --identity)"),
                ));
            }
        }
        Ok(())
    }
}

/// Does what is asked.
pub(super) async fn run(global: &Global, arguments: SnapshotArgs) -> anyhow::Result<()> {
    match arguments.command {
        SnapshotCommand::Save(save) => self::save(global, save, arguments.output).await,
        SnapshotCommand::Status(status) => {
            let output = arguments.output;
            tokio::task::spawn_blocking(move || self::status(&status, output)).await?
        }
        SnapshotCommand::Restore(restore) => {
            let nodes = restore.nodes;
            let restore = RestoreArgs {
                file: Some(restore.file),
                identity: Some(restore.identity),
                options: restore.options,
            };
            let arguments = UpArgs::restoring(nodes, restore);
            up::up(global, arguments).await
        }
        SnapshotCommand::Keygen { file } => keygen(&file),
    }
}

async fn save(global: &Global, arguments: SaveArgs, output: Output) -> anyhow::Result<()> {
    let client = global.client()?;
    let recipients = arguments.recipients.iter().map(ToString::to_string);
    let request = SnapshotRequest {
        recipients: recipients.collect(),
    };
    let answer = client.stream(SNAPSHOT_PATH, &request).await;
    let answer = answer.map_err(RequestError::into_failure)?;
    let signer = answer.headers().get(&SIGNER_HEADER);
    let signer = signer
        .and_then(|text| text.to_str().ok())
        .unwrap_or_default();
    let signer: SignerKey = signer
        .parse()
        .map_err(|error| anyhow!("the member did not say who signs: {error}"))?;
    let pieces = receive(answer);
    let description = if arguments.target.contains("://") {
        to_bucket(&arguments, pieces, &signer).await?
    } else {
        to_file(PathBuf::from(&arguments.target), pieces, signer).await?
    };
    description.print(output)
}

type Pieces = mpsc::Receiver<Result<bytes::Bytes, BackupError>>;

/// The answer's pieces, as they come.
fn receive(mut answer: reqwest::Response) -> Pieces {
    let (sender, pieces) = mpsc::channel(PIECES_PENDING);
    tokio::spawn(async move {
        loop {
            let piece = match tokio::time::timeout(IDLE_TIMEOUT, answer.chunk()).await {
                Ok(Ok(Some(piece))) => Ok(piece),
                Ok(Ok(None)) => return,
                Ok(Err(error)) => Err(BackupError::Store(format!(
                    "the member gave up in the middle: {error}"
                ))),
                Err(_) => Err(BackupError::Store("the member has fallen silent".into())),
            };
            let ended = piece.is_err();
            if sender.send(piece).await.is_err() || ended {
                return;
            }
        }
    });
    pieces
}

/// Writes beside the file, reads back, and gives it its name.
async fn to_file(
    path: PathBuf,
    mut pieces: Pieces,
    signer: SignerKey,
) -> anyhow::Result<Description> {
    let mut beside = path.clone().into_os_string();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = tokio::task::spawn_blocking(move || {
        let written = write_and_verify(&beside, &mut pieces, &signer);
        if written.is_err() {
            // What is there is no snapshot.
            let _ = std::fs::remove_file(&beside);
        }
        let (header, size_bytes) = written.with_context(|| beside.display().to_string())?;
        std::fs::rename(&beside, &path).with_context(|| path.display().to_string())?;
        let folder = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        anyhow::Ok(Description::new(
            path.display().to_string(),
            &header,
            size_bytes,
        ))
    });
    written.await?
}

fn write_and_verify(
    path: &Path,
    pieces: &mut Pieces,
    signer: &SignerKey,
) -> anyhow::Result<(Header, u64)> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    let mut report = Report::start("received");
    let mut size_bytes = 0;
    while let Some(piece) = pieces.blocking_recv() {
        let piece = piece?;
        file.write_all(&piece)?;
        size_bytes += piece.len() as u64;
        report.at(size_bytes);
    }
    file.sync_all()?;
    let mut report = report.next("verified");
    let archive = Archive::open(BufReader::new(File::open(path)?))?;
    archive.expect_signer(signer)?;
    let header = archive.header().clone();
    archive.verify(&mut |bytes| report.at(bytes))?;
    report.end();
    Ok((header, size_bytes))
}

async fn to_bucket(
    arguments: &SaveArgs,
    mut pieces: Pieces,
    signer: &SignerKey,
) -> anyhow::Result<Description> {
    let target = &arguments.target;
    let usage = || Failure::Usage.error(format!("{target}: write s3://BUCKET/PATH"));
    let (folder, name) = target.rsplit_once('/').ok_or_else(usage)?;
    if name.is_empty() || folder.ends_with('/') {
        return Err(usage());
    }
    let destination = Destination::parse(folder, &arguments.bucket.settings()?);
    let destination = destination.map_err(|error| Failure::Usage.error(error))?;
    let size_bytes = destination.put(name, &mut pieces).await?;
    if let Err(error) = destination.verify(name, signer).await {
        let _ = destination.remove(name).await;
        return Err(error.into());
    }
    let reader = destination.read(name).await?;
    let header = tokio::task::spawn_blocking(move || {
        Archive::open(reader).map(|archive| archive.header().clone())
    });
    Ok(Description::new(
        target.clone(),
        &header.await??,
        size_bytes,
    ))
}

impl BucketArgs {
    fn settings(&self) -> anyhow::Result<S3Settings> {
        let credentials = match &self.s3_credentials {
            Some(path) => {
                let text = read_secret(path).with_context(|| path.display().to_string())?;
                Some(S3Credentials::from_text(&text)?)
            }
            None => None,
        };
        Ok(S3Settings {
            credentials,
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            authorities: self.s3_authorities.clone(),
        })
    }
}

fn status(arguments: &StatusArgs, output: Output) -> anyhow::Result<()> {
    let path = &arguments.file;
    let described = describe(arguments).map_err(|error| match error.downcast::<BackupError>() {
        Ok(error) => Failure::Refused.error(format!("{}: {error}", path.display())),
        Err(error) => error.context(path.display().to_string()),
    });
    described?.print(output)
}

fn describe(arguments: &StatusArgs) -> anyhow::Result<Description> {
    let open = || anyhow::Ok(Archive::open(BufReader::new(File::open(&arguments.file)?))?);
    let archive = open()?;
    if let Some(signer) = &arguments.signer {
        archive.expect_signer(signer)?;
    }
    let header = archive.header().clone();
    let mut report = Report::start("verified");
    let verified = archive.verify(&mut |bytes| report.at(bytes))?;
    let name = arguments.file.display().to_string();
    let mut description = Description::new(name, &header, verified.size_bytes);
    if let Some(identity) = &arguments.identity {
        let mut records = open()?.unseal(&Opener::Operator(read_identity(identity)?))?;
        while records.next_record()?.is_some() {}
        let summary = records.summary();
        description.hash = summary.map(|summary| hex::encode(summary.hash));
    }
    report.end();
    Ok(description)
}

/// An operator's private key.
pub(crate) fn read_identity(path: &Path) -> anyhow::Result<Identity> {
    let text = read_secret(path).with_context(|| path.display().to_string())?;
    Identity::from_file_text(&text)
        .map_err(|error| Failure::Refused.error(format!("{}: {error}", path.display())))
}

fn keygen(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Err(Failure::Usage.error(format!(
            "{} exists; a private key is never overwritten",
            path.display()
        )));
    }
    let identity = Identity::generate()?;
    let text = identity.to_file_text()?;
    write_durably(path, text.as_bytes(), 0o600).with_context(|| path.display().to_string())?;
    print(&identity.recipient()?.to_string());
    Ok(())
}

/// Progress in bytes, on standard error, of what takes long.
pub(super) struct Report {
    what: &'static str,
    started: Instant,
    looked: Instant,
    progress: Option<Progress>,
}

impl Report {
    /// Starts the clock.
    pub(super) fn start(what: &'static str) -> Self {
        let now = Instant::now();
        Self {
            what,
            started: now,
            looked: now,
            progress: None,
        }
    }

    /// Something else is done from now on.
    pub(super) fn next(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    /// So many bytes are done.
    pub(super) fn at(&mut self, bytes: u64) {
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        self.show(|what| format!("{what} {mebibytes:.1} MiB"));
    }

    /// So many keys are done.
    pub(super) fn keys(&mut self, keys: u64) {
        self.show(|what| format!("{what} {keys} keys"));
    }

    fn show(&mut self, text: impl FnOnce(&str) -> String) {
        let now = Instant::now();
        if now - self.started < QUIET || now - self.looked < LOOK {
            return;
        }
        self.looked = now;
        let progress = self.progress.get_or_insert_with(Progress::start);
        progress.wait(&text(self.what));
    }

    /// Leaves a clean line.
    pub(super) fn end(self) {
        if let Some(progress) = self.progress {
            progress.end();
        }
    }
}
