//! Where archives are kept: a directory, or a bucket that speaks S3.
//!
//! Invariants
//! - An archive has its name only when it is whole: a directory's file is written
//!   beside and renamed, an upload to S3 is completed last.
//! - Uploads hold at most [`PARTS_PENDING`] parts of [`PART_BYTES`] in memory.
//! - TLS by rustls and aws-lc-rs, with the certificates of a file.

use std::io::{self, Read};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::error::BackupError;
use crate::keys::SignerKey;
use crate::reader::{Archive, Verified};
use crate::stream::blocking;

/// Bytes of one part of an upload.
pub(crate) const PART_BYTES: usize = 8 << 20;
/// Parts under way at once.
pub(crate) const PARTS_PENDING: usize = 2;
/// Archives that a listing reads, at most.
pub(crate) const LISTED_MAX: usize = 10_000;
/// Pieces read ahead while an archive is verified.
const PIECES_AHEAD: usize = 4;
/// How archives' names end.
const SUFFIX: &str = ".nautilus-archive";

/// How a bucket is reached, beyond the variables `AWS_*` of the environment.
#[derive(Clone, Default)]
pub struct S3Settings {
    /// Who asks; otherwise the environment or the machine says.
    pub credentials: Option<S3Credentials>,
    /// `https://host:port` of a store that is not Amazon's; `http://` only with a
    /// loopback address.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// Certificates that TLS trusts, PEM [default: the system's].
    pub authorities: Option<PathBuf>,
}

/// A bucket's credentials. Has neither `Debug` nor `Serialize`.
#[derive(Clone)]
pub struct S3Credentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
}

impl S3Credentials {
    /// Reads the form that other clients keep: `aws_access_key_id = ...` and
    /// `aws_secret_access_key = ...`, one a line; of several sections the first counts.
    pub fn from_text(text: &str) -> Result<Self, BackupError> {
        let value = |name: &str| {
            let found = text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            });
            found.ok_or_else(|| BackupError::Key(format!("the credentials lack {name}")))
        };
        Ok(Self {
            access_key_id: value("aws_access_key_id")?,
            secret_access_key: Zeroizing::new(value("aws_secret_access_key")?),
        })
    }
}

/// Where archives are kept.
#[derive(Clone)]
pub struct Destination {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    text: String,
}

/// A kept archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name, as [`archive_name`] makes it.
    pub name: String,
    /// When it was begun, by its name.
    pub created_unix_ms: u64,
    /// Its length.
    pub size_bytes: u64,
}

impl Destination {
    /// A directory (made if absent), or `s3://bucket/prefix`.
    pub fn parse(text: &str, settings: &S3Settings) -> Result<Self, BackupError> {
        let refused = |reason: String| BackupError::Destination {
            destination: text.to_owned(),
            reason,
        };
        let (store, prefix): (Arc<dyn ObjectStore>, &str) = match text.strip_prefix("s3://") {
            Some(rest) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let bucket = bucket_store(bucket, settings).map_err(refused)?;
                (Arc::new(bucket), prefix)
            }
            None if text.contains("://") => {
                return Err(refused("write a directory, or s3://BUCKET/PREFIX".into()));
            }
            None => (
                Arc::new(directory(FilePath::new(text)).map_err(refused)?),
                "",
            ),
        };
        Ok(Self {
            store,
            prefix: Path::parse(prefix.trim_matches('/')).map_err(|e| refused(e.to_string()))?,
            text: text.to_owned(),
        })
    }

    /// Writes an archive under `name`; gives its length. On an error nothing of that
    /// name is left behind.
    pub async fn put(
        &self,
        name: &str,
        pieces: &mut mpsc::Receiver<Result<Bytes, BackupError>>,
    ) -> Result<u64, BackupError> {
        let path = self.path(name);
        let upload = self.store.put_multipart(&path).await;
        let upload = upload.map_err(|error| self.failed(&error))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut size_bytes = 0;
        let failure = loop {
            match pieces.recv().await {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(piece)) => {
                    size_bytes += piece.len() as u64;
                    if let Err(error) = upload.wait_for_capacity(PARTS_PENDING).await {
                        break Some(self.failed(&error));
                    }
                    upload.put(piece);
                }
            }
        };
        if let Some(failure) = failure {
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, destination = %self.text, "an upload could not be given up; its parts may remain");
            }
            return Err(failure);
        }
        let finished = upload.finish().await;
        finished.map_err(|error| self.failed(&error))?;
        Ok(size_bytes)
    }

    /// Reads an archive back and checks that it is whole and signed by `signer`.
    pub async fn verify(&self, name: &str, signer: &SignerKey) -> Result<Verified, BackupError> {
        let reader = self.read(name).await?;
        let signer = signer.clone();
        blocking(move || {
            let archive = Archive::open(reader)?;
            archive.expect_signer(&signer)?;
            archive.verify(&mut |_| {})
        })
        .await
    }

    /// An archive's bytes, for a blocking thread.
    pub async fn read(&self, name: &str) -> Result<impl Read + Send + 'static, BackupError> {
        let found = self.store.get(&self.path(name)).await;
        let mut stream = found.map_err(|error| self.failed(&error))?.into_stream();
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(async move {
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(io::Error::other);
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
        });
        Ok(PieceReader {
            pieces,
            piece: Bytes::new(),
        })
    }

    /// The archives of quorum `cluster`, oldest first. Other files are left out.
    pub async fn list(&self, cluster: &str) -> Result<Vec<Stored>, BackupError> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let found = self.store.list(prefix).take(LISTED_MAX);
        let mut archives: Vec<Stored> = found
            .try_filter_map(|object| async move {
                let name = object.location.filename().unwrap_or_default().to_owned();
                Ok(created_of(cluster, &name).map(|created_unix_ms| Stored {
                    name,
                    created_unix_ms,
                    size_bytes: object.size,
                }))
            })
            .try_collect()
            .await
            .map_err(|error| self.failed(&error))?;
        archives.sort_by(|one, two| {
            (one.created_unix_ms, &one.name).cmp(&(two.created_unix_ms, &two.name))
        });
        Ok(archives)
    }

    /// Removes an archive.
    pub async fn remove(&self, name: &str) -> Result<(), BackupError> {
        let removed = self.store.delete(&self.path(name)).await;
        removed.map_err(|error| self.failed(&error))
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    fn failed(&self, error: &dyn std::error::Error) -> BackupError {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            cause = error.source();
        }
        BackupError::Destination {
            destination: self.text.clone(),
            reason,
        }
    }
}

/// The name of quorum `cluster`'s archive of `revision`, begun at a time: in order of
/// time when sorted.
pub fn archive_name(cluster: &str, created_unix_ms: u64, revision: u64) -> String {
    format!("{cluster}-{created_unix_ms:014}-{revision}{SUFFIX}")
}

fn created_of(cluster: &str, name: &str) -> Option<u64> {
    let rest = name.strip_prefix(cluster)?.strip_prefix('-')?;
    let (created, revision) = rest.strip_suffix(SUFFIX)?.split_once('-')?;
    revision.parse::<u64>().ok()?;
    created.parse().ok()
}

fn directory(path: &FilePath) -> Result<LocalFileSystem, String> {
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    Ok(store.with_fsync(true))
}

fn bucket_store(
    bucket: &str,
    settings: &S3Settings,
) -> Result<object_store::aws::AmazonS3, String> {
    let connector = Connector::new(settings)?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(connector);
    if let Some(credentials) = &settings.credentials {
        builder = builder
            .with_access_key_id(&credentials.access_key_id)
            .with_secret_access_key(&*credentials.secret_access_key);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(is_loopback(endpoint))
            .with_disable_bulk_delete(true);
    }
    builder.build().map_err(|error| error.to_string())
}

/// What is sent there is ciphertext, but the credentials' signatures are not.
fn is_loopback(endpoint: &str) -> bool {
    let rest = endpoint.strip_prefix("http://");
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        let address: Option<std::net::SocketAddr> = host.parse().ok();
        address.is_some_and(|address| address.ip().is_loopback())
    })
}

/// Connects with our TLS instead of the library's choice.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl Connector {
    fn new(settings: &S3Settings) -> Result<Self, String> {
        let path = match &settings.authorities {
            Some(path) => path.clone(),
            None => std::env::var_os("SSL_CERT_FILE").map_or_else(
                || PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
                PathBuf::from,
            ),
        };
        let mut roots = rustls::RootCertStore::empty();
        match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => {
                roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            }
            // A store on this machine without TLS needs none.
            Err(_) if settings.endpoint.as_deref().is_some_and(is_loopback) => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .build();
        client.map(Self).map_err(|error| error.to_string())
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// Reads what a task sends.
struct PieceReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let now = self.piece.len().min(target.len());
        self.piece.copy_to_slice(&mut target[..now]);
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_archives_of_the_quorum_itself_count() {
        let name = archive_name("alpha", 1_700_000_000_123, 42);
        assert_eq!(created_of("alpha", &name), Some(1_700_000_000_123));
        assert_eq!(created_of("alpha-2", &name), None);
        assert_eq!(created_of("alpha", "alpha-notes.txt"), None);
        // The quorum `al` does not take those of `al-1` for its own.
        assert_eq!(created_of("al", &archive_name("al-1", 5, 6)), None);
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        assert!(is_loopback("http://127.0.0.1:9000"));
        assert!(!is_loopback("http://10.0.0.1:9000"));
        assert!(!is_loopback("https://127.0.0.1:9000"));
    }
}
