//! How an etcd is reached: addresses, certificates, a user.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::up::layout::{Layout, Quorum};

/// Flags that name an etcd, as etcdctl has them.
#[derive(Args, Clone, Default)]
pub(crate) struct EtcdArgs {
    /// Addresses of a running etcd, tried in order
    #[arg(long, value_delimiter = ',', value_name = "URL,..")]
    pub(crate) endpoints: Vec<String>,
    /// The authority of its certificates, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Our certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// A user of it: NAME:PASSWORD, or NAME with the password in ETCD_PASSWORD
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<String>,
}

/// An etcd and how to reach it.
#[derive(Clone)]
pub(crate) struct EtcdAddress {
    /// `http(s)://host:port`.
    pub(crate) endpoints: Vec<String>,
    /// TLS, for `https`.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// Name and password.
    pub(crate) user: Option<(String, Zeroizing<String>)>,
}

impl EtcdArgs {
    /// Reads the files.
    pub(crate) fn address(&self) -> anyhow::Result<EtcdAddress> {
        if self.endpoints.is_empty() {
            return Err(Failure::Usage.error("--endpoints names no address"));
        }
        let identity = self.cert.as_deref().zip(self.key.as_deref());
        let user = self.user.as_deref().map(|user| match user.split_once(':') {
            Some((name, password)) => Ok((name.to_owned(), Zeroizing::new(password.to_owned()))),
            None => std::env::var("ETCD_PASSWORD")
                .map(|password| (user.to_owned(), Zeroizing::new(password)))
                .map_err(|_| {
                    Failure::Usage.error("--user names no password, nor does ETCD_PASSWORD")
                }),
        });
        Ok(EtcdAddress {
            endpoints: self.endpoints.clone(),
            tls: Arc::new(tls(self.cacert.as_deref(), identity)?),
            user: user.transpose()?,
        })
    }
}

impl EtcdAddress {
    /// A quorum of this machine, as its administrator.
    pub(crate) fn local(layout: &Layout, quorum: &Quorum) -> anyhow::Result<Self> {
        let files = layout.etcd();
        let (certificate, key) = (files.certificate(), files.key());
        let nodes = quorum.nodes.iter();
        Ok(Self {
            endpoints: nodes
                .map(|node| format!("https://{}", node.etcd()))
                .collect(),
            tls: Arc::new(tls(Some(&layout.authority()), Some((&certificate, &key)))?),
            user: None,
        })
    }
}

fn tls(
    authority: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = authority {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .with_context(|| path.display().to_string())?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| anyhow!("{}: {error}", key.display()))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = |error| anyhow!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)
}

/// The parts of `http(s)://host:port`.
pub(super) struct Endpoint {
    /// Whether TLS is spoken.
    pub(super) is_tls: bool,
    /// `host:port`.
    pub(super) authority: String,
    /// What the certificate must be for.
    pub(super) name: ServerName<'static>,
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || Failure::Usage.error(format!("{text}: write https://HOST:PORT"));
        let (scheme, authority) = text.split_once("://").unwrap_or(("https", text));
        let authority = authority.trim_end_matches('/').to_owned();
        let (host, _) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            is_tls: match scheme {
                "https" => true,
                "http" => false,
                _ => return Err(wrong()),
            },
            name: ServerName::try_from(host).map_err(|_| wrong())?,
            authority,
        })
    }
}
