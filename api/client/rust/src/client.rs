//! Calls that go on elsewhere when a node dies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use rustls::RootCertStore;
use rustls::client::ResolvesClientCert;
use tokio::time::Instant;

use crate::address::Address;
use crate::cache;
use crate::connection::{Answer, Connection, ConnectionError};
use crate::endpoints::{Choice, Endpoints, Prefer};
use crate::examine::{ExamineError, MAX_MEMBERS, examine_connection};
use crate::judge::Judge;
use crate::tls;

/// How long a key that evidence vouched for is believed.
const PROOF_LIFETIME: Duration = Duration::from_secs(600);
/// Keys believed at once: two for each member, as nodes start again.
const MAX_KEYS: usize = 2 * MAX_MEMBERS;
/// On every answer: where the leader serves.
const LEADER_HEADER: &str = "x-nautilus-leader-address";

/// What a client is told.
#[derive(Clone)]
pub struct ClientConfig {
    /// Some members. The others are discovered.
    pub endpoints: Vec<Address>,
    /// Which code is believed.
    pub judge: Judge,
    /// Must have issued the serving certificates: evidence tells which code answers, the
    /// quorum's authority tells which quorum.
    pub authority: Option<RootCertStore>,
    /// Shown to the quorum.
    pub identity: Option<Arc<dyn ResolvesClientCert>>,
    /// Keeps the members' addresses for the next start.
    pub cache: Option<PathBuf>,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The quorum's final word.
    #[error("refused (HTTP {status}): {message}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// Why.
        message: String,
    },
    /// Nobody is believed, by evidence or by the authority given; no token was sent.
    #[error("{endpoint} is not believed: {reason}")]
    Distrusted {
        /// Judged last.
        endpoint: Address,
        /// Why.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("no member of the quorum answered in time; at last: {0}")]
    Unavailable(String),
    /// The request could not be made.
    #[error("{0}")]
    Local(String),
}

/// A client of one quorum.
pub struct Client {
    judge: Judge,
    cache: Option<PathBuf>,
    tls: Arc<rustls::ClientConfig>,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    endpoints: Endpoints,
    /// Serving keys that were vouched for, and until when they are believed.
    keys: BTreeMap<Vec<u8>, Instant>,
    /// At most one connection of each endpoint waits to be used again.
    idle: BTreeMap<Address, Connection>,
    cluster: Option<String>,
}

/// One call of the worker's face. It may be sent more than once.
pub(crate) struct Call {
    pub(crate) path: &'static str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) prefer: Prefer,
    /// For one endpoint.
    pub(crate) attempt: Duration,
    /// For the whole.
    pub(crate) deadline: Duration,
}

/// Why another endpoint may do better.
enum Setback {
    /// Its evidence was refused, or its certificate where an authority is given.
    Refused(String),
    /// It did not answer, or can't serve now and asked for a pause.
    Failed(String, Duration),
}

impl From<ConnectionError> for Setback {
    fn from(error: ConnectionError) -> Self {
        if error.is_refused_certificate() {
            return Self::Refused(error.to_string());
        }
        Self::Failed(error.to_string(), Duration::ZERO)
    }
}

impl Client {
    /// Checks the configuration; it speaks to nobody yet.
    ///
    /// # Errors
    /// `Local` when there is no endpoint, or TLS can't be set up.
    pub fn new(config: ClientConfig) -> Result<Self, CallError> {
        let local = |reason: String| CallError::Local(reason);
        let cached = config.cache.as_deref().map(cache::read_members);
        let cached = cached.unwrap_or_default();
        if config.endpoints.is_empty() && cached.is_empty() {
            return Err(local("there is no endpoint to begin with".to_owned()));
        }
        let tls = tls::tls(config.authority, config.identity);
        Ok(Self {
            judge: config.judge,
            cache: config.cache,
            tls: Arc::new(tls.map_err(|error| local(error.to_string()))?),
            started: Instant::now(),
            state: Mutex::new(State {
                // Each worker begins elsewhere, so that they spread over the members.
                endpoints: Endpoints::new(shuffled(config.endpoints), cached),
                keys: BTreeMap::new(),
                idle: BTreeMap::new(),
                cluster: None,
            }),
        })
    }

    /// The members known now.
    pub fn endpoints(&self) -> Vec<Address> {
        self.state().endpoints.addresses()
    }

    /// Sends until somebody has answered.
    pub(crate) async fn call(&self, call: &Call) -> Result<(), CallError> {
        let mut last = "nobody was asked".to_owned();
        let calling = async {
            loop {
                match self.choose(call.prefer)? {
                    Choice::Rest(pause) => tokio::time::sleep(pause).await,
                    Choice::Ask(address) => match self.attempt(&address, call).await {
                        Ok(answer) => return verdict(&answer),
                        Err(reason) => last = format!("{address}: {reason}"),
                    },
                }
            }
        };
        let result = tokio::time::timeout(call.deadline, calling).await;
        result.unwrap_or(Err(CallError::Unavailable(last)))
    }

    fn choose(&self, prefer: Prefer) -> Result<Choice, CallError> {
        let (state, now) = (self.state(), self.now());
        match state.endpoints.refusal(now) {
            Some((endpoint, reason)) => Err(CallError::Distrusted { endpoint, reason }),
            None => Ok(state.endpoints.choose(now, prefer)),
        }
    }

    /// Asks one endpoint, and notes what came of it.
    async fn attempt(&self, address: &Address, call: &Call) -> Result<Answer, String> {
        let result = tokio::time::timeout(call.attempt, self.send(address, call)).await;
        let result = result.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", call.attempt.as_secs());
            Err(Setback::Failed(reason, Duration::ZERO))
        });
        let now = self.now();
        let endpoints = &mut self.state().endpoints;
        match result {
            Ok(answer) => {
                endpoints.good(address, call.prefer);
                Ok(answer)
            }
            Err(Setback::Failed(reason, asked)) => {
                endpoints.failed(address, now, asked, chance());
                Err(reason)
            }
            Err(Setback::Refused(reason)) => {
                endpoints.refused(address, now, reason.clone());
                Err(reason)
            }
        }
    }

    /// Over the connection that waits, or else a new one.
    async fn send(&self, address: &Address, call: &Call) -> Result<Answer, Setback> {
        let idle = self.state().idle.remove(address);
        if let Some(connection) = idle {
            // The other end may have closed it long ago, which shows only now.
            if let Ok(answer) = self.send_over(connection, call).await {
                return checked(answer);
            }
        }
        let connection = Connection::open(address, Arc::clone(&self.tls)).await?;
        checked(self.send_over(connection, call).await?)
    }

    async fn send_over(&self, mut connection: Connection, call: &Call) -> Result<Answer, Setback> {
        self.prove(&mut connection).await?;
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(call.path);
        *request.headers_mut() = call.headers.clone();
        let answer = connection.send(request).await?;
        let mut state = self.state();
        let leader = answer.headers.get(LEADER_HEADER);
        let leader = leader.and_then(|leader| leader.to_str().ok()?.parse().ok());
        if let Some(leader) = leader {
            state.endpoints.follow(leader);
        }
        state.idle.insert(connection.address.clone(), connection);
        Ok(answer)
    }

    /// Sees to it that the key at the other end of this connection is vouched for, by its
    /// evidence on this connection if it is not yet; learns whom a believed node names.
    async fn prove(&self, connection: &mut Connection) -> Result<(), Setback> {
        let believed = self.state().keys.get(&connection.spki).copied();
        if believed.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let examined = match examine_connection(connection, &self.judge).await {
            Ok(examined) => examined,
            Err(ExamineError::Refused(refused)) => {
                return Err(self.distrust(connection, refused.to_string()));
            }
            Err(error) => return Err(Setback::Failed(error.to_string(), Duration::ZERO)),
        };
        if let Err(refused) = self.judge.policy(&examined.claims) {
            return Err(self.distrust(connection, refused.to_string()));
        }
        let quorum = examined.quorum;
        let named = quorum.members.iter();
        let named = named.filter_map(|member| member.api_address.parse().ok());
        let named = shuffled(named.collect());
        let mut state = self.state();
        let cluster = state.cluster.get_or_insert_with(|| quorum.cluster.clone());
        if *cluster != quorum.cluster {
            let reason = format!("it is of quorum {:?}, expected {cluster:?}", quorum.cluster);
            drop(state);
            return Err(self.distrust(connection, reason));
        }
        let now = Instant::now();
        state.keys.retain(|_, until| now < *until);
        if state.keys.len() >= MAX_KEYS {
            let reason = format!("more than {MAX_KEYS} serving keys at once");
            return Err(Setback::Failed(reason, Duration::ZERO));
        }
        state.keys.insert(examined.spki, now + PROOF_LIFETIME);
        state.endpoints.learn(named);
        let members = state.endpoints.addresses();
        state.idle.retain(|address, _| members.contains(address));
        drop(state);
        if let Some(path) = &self.cache {
            // Without it the next start has to discover again, which is no error of this.
            let _ = cache::write_members(path, &members);
        }
        Ok(())
    }

    fn distrust(&self, connection: &Connection, reason: String) -> Setback {
        self.state().keys.remove(&connection.spki);
        Setback::Refused(reason)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer, unless another endpoint may give a better one.
fn checked(answer: Answer) -> Result<Answer, Setback> {
    if answer.status != StatusCode::TOO_MANY_REQUESTS && !answer.status.is_server_error() {
        return Ok(answer);
    }
    let asked = answer.headers.get(http::header::RETRY_AFTER);
    let asked = asked.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    let reason = format!("HTTP {}: {}", answer.status.as_u16(), answer.message());
    Err(Setback::Failed(
        reason,
        Duration::from_secs(asked.unwrap_or(0)),
    ))
}

fn verdict(answer: &Answer) -> Result<(), CallError> {
    if answer.status == StatusCode::OK {
        return Ok(());
    }
    Err(CallError::Refused {
        status: answer.status.as_u16(),
        message: answer.message(),
    })
}

/// From 0 to 1. Without random bytes everybody is in step, which is slower and not wrong.
pub(crate) fn chance() -> f64 {
    let mut bytes = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

fn shuffled<T>(items: Vec<T>) -> Vec<T> {
    let mut drawn: Vec<(f64, T)> = items.into_iter().map(|item| (chance(), item)).collect();
    drawn.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    drawn.into_iter().map(|(_, item)| item).collect()
}
