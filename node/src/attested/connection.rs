//! One TLS connection to a node, and the key it served with.
//!
//! The certificate's issuer counts for nothing here: the handshake proves that the
//! other end holds the private key, evidence has to prove what holds it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// To open a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a node to make its evidence and answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer read at most: evidence and the list of members.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Where a node serves: `https://host:port` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// `host:port`, an IPv6 address in brackets.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The name TLS asks for.
    pub(crate) fn server_name(&self) -> anyhow::Result<ServerName<'static>> {
        ServerName::try_from(self.host.clone())
            .map_err(|_| anyhow!("{} is neither a name nor an IP address", self.host))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "https://{}", self.authority())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address: write HOST:PORT or https://HOST:PORT");
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let plain = host.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'%')
        });
        if host.is_empty() || !plain || (host.contains(':') && bare.is_none()) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// A connection to whoever answered.
pub(crate) struct Dialed {
    /// The connection.
    pub(crate) stream: TlsStream<TcpStream>,
    /// DER of the SubjectPublicKeyInfo the other end has proved possession of.
    pub(crate) spki: Vec<u8>,
}

/// Opens a connection with this TLS configuration.
pub(crate) async fn dial(
    address: &Address,
    tls: Arc<rustls::ClientConfig>,
) -> anyhow::Result<Dialed> {
    let name = address.server_name()?;
    let opening = async {
        let tcp = TcpStream::connect(address.authority()).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(tls).connect(name, tcp).await
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, opening)
        .await
        .map_err(|_| anyhow!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))??;
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or_else(|| anyhow!("it showed no certificate"))?;
    let spki = spki_of(certificate).map_err(|reason| anyhow!("its certificate: {reason}"))?;
    Ok(Dialed { stream, spki })
}

/// DER of a certificate's SubjectPublicKeyInfo.
pub(crate) fn spki_of(certificate: &[u8]) -> Result<Vec<u8>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    Ok(parsed.tbs_certificate.subject_pki.raw.to_vec())
}

/// Asks for a path once, over HTTP/1.1, and gives the body of an answer that is 200.
pub(crate) async fn get(
    stream: TlsStream<TcpStream>,
    address: &Address,
    path: &str,
) -> anyhow::Result<Bytes> {
    let asking = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = http::Request::get(path)
            .header(http::header::HOST, address.authority())
            .header(http::header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())?;
        let answering = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| anyhow!("its answer: {error}"))?
                .to_bytes();
            if !status.is_success() {
                let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                return Err(anyhow!("it answered {status}: {}", text.escape_default()));
            }
            Ok(body)
        };
        // The connection has to be driven while the answer is awaited. When it ends first,
        // the answer is there, or never comes, and says so.
        tokio::pin!(answering, connection);
        tokio::select! {
            answer = &mut answering => answer,
            _ = &mut connection => answering.await,
        }
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asking)
        .await
        .map_err(|_| anyhow!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_its_scheme() {
        for (text, shown) in [
            ("127.0.0.1:6443", "https://127.0.0.1:6443"),
            ("https://node-1.example:1/", "https://node-1.example:1"),
            ("[::1]:7443", "https://[::1]:7443"),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "http://a:1",
            "a",
            "a:b",
            ":1",
            "::1:7443",
            "a:70000",
            "a/b:1",
            "a b:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
