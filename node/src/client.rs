//! The client of a node's API that our own commands use.
//!
//! TLS 1.3 by rustls and aws-lc-rs, the operator's certificate, no proxy of the
//! environment. A server is trusted by the quorum's authority alone; only
//! [`ApiClient::unverified`] speaks to a server before the authority is known, and
//! what it hears counts for nothing until evidence has proved it (`credentials.rs`).

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nautilus_client::{provider, unverified_tls};
use nautilus_machine::{LogPosition, Member, NewMember, NodeStatus};
use reqwest::{Method, StatusCode};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::Failure;
use crate::kubeconfig::Kubeconfig;

/// To open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// To answer a request, unless a caller sets less.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// For a streamed answer as a whole.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// An answer's text is cut here when it goes into an error.
const ERROR_TEXT_MAX: usize = 600;

/// A client of one address.
#[derive(Clone)]
pub(crate) struct ApiClient {
    http: reqwest::Client,
    server: String,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// No answer.
    #[error("{server} does not answer: {reason}")]
    Unreachable {
        /// The address.
        server: String,
        /// The transport's reason.
        reason: String,
    },
    /// An answer that is a refusal.
    #[error("{server}: {message} (HTTP {code})")]
    Refused {
        /// The address.
        server: String,
        /// The status code.
        code: u16,
        /// The `Status` object's message, or the body.
        message: String,
    },
    /// An answer in another form.
    #[error("{server} answered in a form this build does not know: {reason}")]
    Form {
        /// The address.
        server: String,
        /// What does not fit.
        reason: String,
    },
}

impl RequestError {
    /// As a command's failure, with its exit code.
    pub(crate) fn into_failure(self) -> anyhow::Error {
        let failure = match &self {
            Self::Unreachable { .. }
            | Self::Refused {
                code: 429 | 503 | 504,
                ..
            } => Failure::Unavailable,
            Self::Refused {
                code: 401 | 403, ..
            } => Failure::Refused,
            Self::Refused { .. } | Self::Form { .. } => Failure::General,
        };
        failure.error(self)
    }
}

/// `GET /nautilus/v1/leader`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LeaderAnswer {
    /// The leader's id, 0 while there is none.
    #[serde(default, alias = "nodeId", alias = "id")]
    pub(crate) node_id: Option<u64>,
}

/// `GET /nautilus/v1/status`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StatusAnswer {
    /// Consensus.
    #[serde(flatten)]
    pub(crate) node: NodeStatus,
    /// Hex of the measurement.
    #[serde(default)]
    pub(crate) measurement: Option<String>,
    /// The TEE's name.
    #[serde(default)]
    pub(crate) tee: Option<String>,
}

impl StatusAnswer {
    /// The last log entry.
    pub(crate) fn last_log(&self) -> LogPosition {
        self.node.last_log
    }
}

impl ApiClient {
    /// A client with a kubeconfig's user and authority, for `server`.
    pub(crate) fn new(server: &str, kubeconfig: &Kubeconfig) -> anyhow::Result<Self> {
        Self::with_tls(server, authenticated_tls(kubeconfig)?)
    }

    /// A client that trusts whoever answers and shows no certificate. See the module.
    pub(crate) fn unverified(server: &str) -> anyhow::Result<Self> {
        let tls = unverified_tls()?;
        Self::with_tls(server, tls)
    }

    /// A client with this TLS configuration; each has connections of its own.
    pub(crate) fn with_tls(server: &str, mut tls: rustls::ClientConfig) -> anyhow::Result<Self> {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .context("set up HTTP")?;
        Ok(Self {
            http,
            server: server.trim_end_matches('/').to_owned(),
        })
    }

    /// Sends a request and reads the answer's JSON.
    pub(crate) async fn request<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        timeout: Option<Duration>,
    ) -> Result<A, RequestError> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.server))
            .header("accept", "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let bytes = self.whole(request).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|error| RequestError::Form {
            server: self.server.clone(),
            reason: error.to_string(),
        })
    }

    /// Reads a path.
    pub(crate) async fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        timeout: Option<Duration>,
    ) -> Result<A, RequestError> {
        self.request(Method::GET, path, None::<&()>, timeout).await
    }

    /// Posts a body and drops the answer's.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        timeout: Option<Duration>,
    ) -> Result<(), RequestError> {
        self.request::<serde::de::IgnoredAny>(Method::POST, path, Some(body), timeout)
            .await
            .map(|_| ())
    }

    /// Puts bytes and reads the answer's JSON.
    pub(crate) async fn put<A: DeserializeOwned>(
        &self,
        path: &str,
        bytes: Vec<u8>,
    ) -> Result<A, RequestError> {
        let request = self.http.put(format!("{}{path}", self.server)).body(bytes);
        let answer = self.whole(request).await?;
        serde_json::from_slice(&answer).map_err(|error| RequestError::Form {
            server: self.server.clone(),
            reason: error.to_string(),
        })
    }

    /// Reads a path's bytes.
    pub(crate) async fn bytes(&self, path: &str) -> Result<bytes::Bytes, RequestError> {
        self.whole(self.http.get(format!("{}{path}", self.server)))
            .await
    }

    async fn whole(&self, request: reqwest::RequestBuilder) -> Result<bytes::Bytes, RequestError> {
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let code = answer.status();
        let bytes = answer
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if code.is_success() {
            return Ok(bytes);
        }
        Err(self.refused(code, &bytes))
    }

    /// Posts a body and gives the answer as it comes, for as long as it comes.
    pub(crate) async fn stream(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<reqwest::Response, RequestError> {
        let request = self.http.post(format!("{}{path}", self.server));
        self.streamed(request.json(body)).await
    }

    /// Reads a path and gives the answer as it comes, for as long as it comes.
    pub(crate) async fn open(&self, path: &str) -> Result<reqwest::Response, RequestError> {
        let request = self.http.get(format!("{}{path}", self.server));
        self.streamed(request.header("accept", "application/json"))
            .await
    }

    async fn streamed(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, RequestError> {
        let answer = request
            .timeout(STREAM_TIMEOUT)
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let code = answer.status();
        if code.is_success() {
            return Ok(answer);
        }
        let bytes = answer
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        Err(self.refused(code, &bytes))
    }

    /// Whether the node says it is ready.
    pub(crate) async fn ready(&self, timeout: Duration) -> bool {
        let readiness = self.readiness(timeout).await;
        readiness.is_some_and(|(ready, _)| ready)
    }

    /// Whether the node says it is ready, and who leads, as its answer's headers say;
    /// `None` when it does not answer.
    pub(crate) async fn readiness(&self, timeout: Duration) -> Option<(bool, Option<u64>)> {
        let request = self
            .http
            .get(format!("{}/readyz", self.server))
            .timeout(timeout);
        let answer = request.send().await.ok()?;
        let leader = answer
            .headers()
            .get(nautilus_rest::LEADER_ID_HEADER)
            .and_then(|id| id.to_str().ok()?.parse().ok());
        Some((answer.status() == StatusCode::OK, leader))
    }

    /// Who leads, as this node knows.
    pub(crate) async fn leader(&self, timeout: Duration) -> Result<Option<u64>, RequestError> {
        let answer: LeaderAnswer = self.get("/nautilus/v1/leader", Some(timeout)).await?;
        Ok(answer.node_id.filter(|id| *id != 0))
    }

    /// This node's own state.
    pub(crate) async fn status(&self, timeout: Duration) -> Result<StatusAnswer, RequestError> {
        self.get("/nautilus/v1/status", Some(timeout)).await
    }

    /// The quorum's name, as this node knows it.
    pub(crate) async fn cluster_name(&self) -> Result<String, RequestError> {
        let answer: Value = self.get("/nautilus/v1/status", None).await?;
        Ok(answer["cluster"].as_str().unwrap_or_default().to_owned())
    }

    /// The quorum's members.
    pub(crate) async fn members(&self) -> Result<Vec<Member>, RequestError> {
        let answer: Members = self.get("/nautilus/v1/members", None).await?;
        Ok(match answer {
            Members::Bare(members) | Members::Listed { members } => members,
        })
    }

    /// Admits a node as a learner.
    pub(crate) async fn add_member(&self, member: &NewMember) -> Result<(), RequestError> {
        self.post("/nautilus/v1/members", member, None).await
    }

    /// Takes a member out.
    pub(crate) async fn remove_member(&self, id: u64) -> Result<(), RequestError> {
        let path = format!("/nautilus/v1/members/{id}");
        let answer: Result<serde::de::IgnoredAny, _> =
            self.request(Method::DELETE, &path, None::<&()>, None).await;
        answer.map(|_| ())
    }

    /// Makes a learner a voter.
    pub(crate) async fn promote_member(&self, id: u64) -> Result<(), RequestError> {
        self.post(
            &format!("/nautilus/v1/members/{id}/promote"),
            &Value::Null,
            None,
        )
        .await
    }

    /// Hands leadership to a voter.
    pub(crate) async fn transfer_leadership(&self, id: u64) -> Result<(), RequestError> {
        self.post(
            &format!("/nautilus/v1/members/{id}/transfer"),
            &Value::Null,
            None,
        )
        .await
    }

    fn unreachable(&self, error: &reqwest::Error) -> RequestError {
        let mut reason = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            reason = error.to_string();
            cause = error.source();
        }
        RequestError::Unreachable {
            server: self.server.clone(),
            reason,
        }
    }

    fn refused(&self, code: StatusCode, body: &[u8]) -> RequestError {
        let status: Option<Value> = serde_json::from_slice(body).ok();
        let message = status
            .as_ref()
            .and_then(|status| status.get("message")?.as_str());
        let message = message.map_or_else(
            || {
                String::from_utf8_lossy(body)
                    .chars()
                    .take(ERROR_TEXT_MAX)
                    .collect()
            },
            str::to_owned,
        );
        RequestError::Refused {
            server: self.server.clone(),
            code: code.as_u16(),
            message,
        }
    }
}

/// The members, alone or in an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Members {
    Bare(Vec<Member>),
    Listed { members: Vec<Member> },
}

/// TLS with a kubeconfig's user, trusting its authority.
pub(crate) fn authenticated_tls(kubeconfig: &Kubeconfig) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(kubeconfig.authority_pem.as_bytes()) {
        roots.add(certificate.map_err(|error| anyhow!("the authority's PEM: {error}"))?)?;
    }
    let chain = CertificateDer::pem_slice_iter(kubeconfig.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow!("the client certificate's PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(kubeconfig.key_pem.as_bytes())
        .map_err(|error| anyhow!("the client key's PEM: {error}"))?;
    rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("the client certificate and its key")
}
