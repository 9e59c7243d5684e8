//! One kept-alive HTTP/1.1 connection over TLS, as an HTTP client keeps in its pool: one
//! request at a time, opened anew when it was closed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use nautilus_client::provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For a connection to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a request to be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Where connections go, and whom they trust.
pub(super) struct Target {
    port: u16,
    host: String,
    tls: TlsConnector,
}

impl Target {
    /// The endpoint on `port` of this machine, whose nodes `authority` has signed.
    pub(super) fn new(authority: &Path, port: u16) -> anyhow::Result<Arc<Self>> {
        let mut roots = rustls::RootCertStore::empty();
        let pem = std::fs::read(authority).with_context(|| authority.display().to_string())?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(|error| anyhow!("the authority's PEM: {error}"))?)?;
        }
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(Self {
            port,
            host: format!("127.0.0.1:{port}"),
            tls: TlsConnector::from(Arc::new(tls)),
        }))
    }
}

/// See the module.
pub(super) struct Connection {
    target: Arc<Target>,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection that is opened by its first request.
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, open: None }
    }

    /// Opens it unless it is open.
    pub(super) async fn open(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        if self.open.as_ref().is_none_or(SendRequest::is_closed) {
            let opening = tokio::time::timeout(CONNECT_TIMEOUT, self.connect());
            self.open = Some(opening.await.context("no connection in time")??);
        }
        self.open.as_mut().context("it was opened above")
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(("127.0.0.1", self.target.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = self.target.tls.connect(name, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the sender, or with the server.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Posts `body` with a Seal token; the status of the answer. A request that surely was
    /// not sent, because the connection had been closed, is sent on another one.
    pub(super) async fn post(
        &mut self,
        path: &str,
        token: &str,
        body: &Bytes,
    ) -> anyhow::Result<StatusCode> {
        let answering = tokio::time::timeout(ANSWER_TIMEOUT, async {
            match self.send(path, token, body).await {
                Err(error) if was_not_sent(&error) => self.send(path, token, body).await,
                answered => answered,
            }
        });
        let answered = answering.await.context("no answer in time");
        let answered = answered.and_then(|answered| answered);
        if answered.is_err() {
            self.open = None;
        }
        answered
    }

    async fn send(&mut self, path: &str, token: &str, body: &Bytes) -> anyhow::Result<StatusCode> {
        let request = Request::post(path)
            .header("host", &self.target.host)
            .header("content-type", "application/json")
            .header("x-seal-token", token)
            .body(Full::new(body.clone()))?;
        let sender = self.open().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        sender.ready().await?;
        Ok(status)
    }
}

fn was_not_sent(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(|error| error.is_canceled() || error.is_closed())
}
