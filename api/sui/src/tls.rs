//! How full nodes are connected to: by TLS against the system's authorities or those of a PEM
//! file, or in the clear where the URL says `http`.
//!
//! Invariant: every client names its cryptographic provider and depends on no default.

use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Certificates of one bundle, at most.
const BUNDLE_LIMIT: usize = 1024;
/// Where systems keep their authorities, unless `SSL_CERT_FILE` names another file: Debian,
/// Red Hat, SUSE, Alpine.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A connection in the clear or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whose certificates of full nodes are good: `bundle`'s, or the system's.
pub fn authorities(bundle: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(bundle) = bundle else {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let known = SYSTEM_AUTHORITIES.iter().map(PathBuf::from);
        for path in named.map_or_else(|| known.collect::<Vec<_>>(), |path| vec![path]) {
            if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
                roots.add_parsable_certificates(certificates.filter_map(Result::ok));
                break;
            }
        }
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(bundle).take(BUNDLE_LIMIT) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate is in it".to_owned());
    }
    Ok(roots)
}

/// TLS that speaks `protocol` inside.
pub(crate) fn client_config(
    roots: RootCertStore,
    protocol: &[u8],
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Connects to `host`; in the clear without `tls`.
pub(crate) async fn connect(
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
) -> Result<TokioIo<Box<dyn Stream>>, std::io::Error> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((bare, port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(TokioIo::new(Box::new(tcp)));
    };
    let name = ServerName::try_from(bare.to_owned()).map_err(std::io::Error::other)?;
    Ok(TokioIo::new(Box::new(tls.connect(name, tcp).await?)))
}
