//! One TLS connection to a node, and the key it served with.
//!
//! The handshake proves that the other end holds the private key, evidence has to prove
//! what holds it. A [`Connection`] can be asked for that evidence itself, so that what was
//! judged and what is used are one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::address::Address;

/// To open a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer read at most: evidence and the list of members.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Characters of an answer that go into an error.
const MAX_TEXT: usize = 600;

/// Why nothing came over a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It was not opened, or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was not opened in time.
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    /// The certificate could not be read.
    #[error("its certificate: {0}")]
    Certificate(String),
    /// It does not speak HTTP, or stopped to.
    #[error("its answer: {0}")]
    Http(String),
}

impl ConnectionError {
    /// Whether the TLS configuration did not accept the certificate's key.
    pub fn is_refused_key(&self) -> bool {
        let refused: rustls::Error =
            rustls::CertificateError::ApplicationVerificationFailure.into();
        self.tls_error() == Some(&refused)
    }

    /// Whether the certificate itself was refused, such as for its issuer.
    pub(crate) fn is_refused_certificate(&self) -> bool {
        matches!(self.tls_error(), Some(rustls::Error::InvalidCertificate(_)))
    }

    fn tls_error(&self) -> Option<&rustls::Error> {
        match self {
            Self::Io(error) => error.get_ref()?.downcast_ref(),
            Self::TimedOut | Self::Certificate(_) | Self::Http(_) => None,
        }
    }
}

impl From<hyper::Error> for ConnectionError {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error.to_string())
    }
}

/// A connection to whoever answered.
pub struct Dialed {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// DER of the SubjectPublicKeyInfo the other end has proved possession of.
    pub spki: Vec<u8>,
}

/// Opens a connection with this TLS configuration.
///
/// # Errors
/// `Io`, `TimedOut`, `Certificate`.
pub async fn dial(
    address: &Address,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Dialed, ConnectionError> {
    let name = address.server_name().map_err(io::Error::other)?;
    let opening = async {
        let tcp = TcpStream::connect(address.authority()).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(tls).connect(name, tcp).await
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, opening)
        .await
        .map_err(|_| ConnectionError::TimedOut)??;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate =
        certificate.ok_or_else(|| ConnectionError::Certificate("it showed none".to_owned()))?;
    let spki = spki_of(certificate).map_err(ConnectionError::Certificate)?;
    Ok(Dialed { stream, spki })
}

/// DER of a certificate's SubjectPublicKeyInfo.
///
/// # Errors
/// Why the certificate does not parse.
pub fn spki_of(certificate: &[u8]) -> Result<Vec<u8>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    Ok(parsed.tbs_certificate.subject_pki.raw.to_vec())
}

/// HTTP/1.1 over one connection, one request at a time.
pub struct Connection {
    pub(crate) address: Address,
    pub(crate) spki: Vec<u8>,
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// Those of [`dial`], and `Http`.
    pub async fn open(
        address: &Address,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, ConnectionError> {
        let Dialed { stream, spki } = dial(address, tls).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How it ends shows in the answer that does not come.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            address: address.clone(),
            spki,
            sender,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    /// Sends a request and reads its answer. A connection on which that failed, or which
    /// was left while it was under way, is of no more use.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Answer, ConnectionError> {
        let host = self.address.authority().parse();
        let host = host.map_err(|_| ConnectionError::Http("no name of a host".to_owned()))?;
        request.headers_mut().insert(http::header::HOST, host);
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| ConnectionError::Http(error.to_string()))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

impl Answer {
    /// The message of a Kubernetes `Status`, or the body.
    pub(crate) fn message(&self) -> String {
        let status: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let message = status.as_ref().and_then(|it| it.get("message")?.as_str());
        let text = String::from_utf8_lossy(&self.body);
        message.unwrap_or(&text).chars().take(MAX_TEXT).collect()
    }
}
