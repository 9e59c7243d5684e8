//! One machine that joins with a Seal token: registers, beats, registers again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::client::{Call, CallError, Client, chance};
use crate::endpoints::Prefer;

/// How often a worker beats; three missed beats make it lost.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(30);

/// For one endpoint to register.
const REGISTER_ATTEMPT: Duration = Duration::from_secs(15);
/// For the quorum to register.
const REGISTER_DEADLINE: Duration = Duration::from_secs(45);
/// For one endpoint to take a beat.
const BEAT_ATTEMPT: Duration = Duration::from_secs(6);
/// For the quorum to take a beat.
const BEAT_DEADLINE: Duration = Duration::from_secs(25);
/// The share of the interval by which beats are drawn apart.
const BEAT_JITTER: f64 = 0.1;
/// Between two calls that found nobody.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-seal-token");
const PROOF_HEADER: HeaderName = HeaderName::from_static("x-seal-proof");

/// What a beat says of the worker; what is not known is left out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// `active`, `slashed` or `withdrawn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stake_status: Option<String>,
    /// In MIST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stake_amount: Option<u64>,
    /// Pods that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_pods: Option<u32>,
    /// Its load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_usage: Option<ResourceUsage>,
}

/// In percent.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct ResourceUsage {
    /// Of the processors.
    pub cpu_percent: f64,
    /// Of the memory.
    pub memory_percent: f64,
    /// Of the disk.
    pub disk_percent: f64,
}

/// The wallet of a token's owner.
pub trait Signer: Send + Sync + 'static {
    /// Signs a personal message; gives Sui's serialized signature: flag, signature, public
    /// key.
    ///
    /// # Errors
    /// Why it does not sign.
    fn sign_personal_message(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// The personal message by whose signature a token's owner stands for a node at a time in
/// Unix seconds.
pub fn proof_message(node_id: &str, timestamp: u64) -> Vec<u8> {
    format!("nautilus seal proof v1\n{node_id}\n{timestamp}").into_bytes()
}

/// What a running worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It registers.
    Register,
    /// It beats.
    Beat,
}

/// One machine.
pub struct Worker {
    client: Client,
    node_id: String,
    token: HeaderValue,
    owner: Option<Arc<dyn Signer>>,
    interval: Duration,
}

#[derive(Serialize)]
struct Body<'a> {
    node_id: &'a str,
    timestamp: u64,
    #[serde(flatten)]
    facts: Facts,
}

impl Worker {
    /// A worker of this quorum that joins with `token`, which is wiped with the last
    /// request that carries it.
    ///
    /// # Errors
    /// `Local` when the token can't be sent.
    pub fn new(
        client: Client,
        node_id: impl Into<String>,
        token: Zeroizing<String>,
    ) -> Result<Self, CallError> {
        let token = HeaderValue::from_maybe_shared(Bytes::from_owner(Wiped(token)));
        let mut token = token.map_err(|_| CallError::Local("the token is no text".to_owned()))?;
        token.set_sensitive(true);
        Ok(Self {
            client,
            node_id: node_id.into(),
            token,
            owner: None,
            interval: BEAT_INTERVAL,
        })
    }

    /// Proves with each registration and beat that the token's owner sends it.
    #[must_use]
    pub fn with_owner(mut self, owner: Arc<dyn Signer>) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Beats in another interval than [`BEAT_INTERVAL`].
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Its client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Registers. All attempts carry one timestamp and have one effect.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn register(&self) -> Result<(), CallError> {
        let mut call = self.call("/api/v1/register-worker", Facts::default())?;
        call.prefer = Prefer::Leader;
        call.attempt = REGISTER_ATTEMPT;
        call.deadline = REGISTER_DEADLINE;
        self.client.call(&call).await
    }

    /// Sends one heartbeat.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn beat(&self, facts: Facts) -> Result<(), CallError> {
        self.client
            .call(&self.call("/api/v1/heartbeat", facts)?)
            .await
    }

    /// Registers and beats, until the quorum refuses the worker or is not to be believed.
    /// A quorum that is out of reach is waited for; one that does not know the worker any
    /// more gets its registration again. `facts` is asked before each beat, `observe`
    /// hears what came of each step. Stops when it is dropped.
    ///
    /// # Errors
    /// See [`CallError`]; never `Unavailable`.
    pub async fn run(
        &self,
        mut facts: impl FnMut() -> Facts,
        mut observe: impl FnMut(Step, Result<(), &CallError>),
    ) -> Result<(), CallError> {
        let mut step = Step::Register;
        loop {
            let started = Instant::now();
            let result = match step {
                Step::Register => self.register().await,
                Step::Beat => self.beat(facts()).await,
            };
            observe(step, result.as_ref().copied());
            let pause = match (step, result) {
                (Step::Register, Ok(())) => {
                    step = Step::Beat;
                    Duration::ZERO
                }
                (Step::Beat, Ok(())) => {
                    let apart = 1.0 + BEAT_JITTER * (2.0 * chance() - 1.0);
                    let next = self.interval.mul_f64(apart);
                    next.saturating_sub(started.elapsed())
                }
                (Step::Beat, Err(CallError::Refused { status, .. }))
                    if status == StatusCode::NOT_FOUND.as_u16() =>
                {
                    step = Step::Register;
                    RETRY_PAUSE
                }
                (_, Err(CallError::Unavailable(_))) => RETRY_PAUSE,
                (_, Err(error)) => return Err(error),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// A beat's call, which a registration changes.
    fn call(&self, path: &'static str, facts: Facts) -> Result<Call, CallError> {
        let local = |error: &dyn std::fmt::Display| CallError::Local(error.to_string());
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = since.map_err(|error| local(&error))?.as_secs();
        let body = Body {
            node_id: &self.node_id,
            timestamp,
            facts,
        };
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, json.clone()),
            (ACCEPT, json),
            (TOKEN_HEADER, self.token.clone()),
        ]);
        if let Some(owner) = &self.owner {
            let message = proof_message(&self.node_id, timestamp);
            let proof = owner.sign_personal_message(&message);
            let proof = proof.map_err(|error| local(&format!("the owner's proof: {error}")))?;
            let proof = HeaderValue::try_from(BASE64.encode(proof));
            headers.insert(PROOF_HEADER, proof.map_err(|error| local(&error))?);
        }
        Ok(Call {
            path,
            headers,
            body: serde_json::to_vec(&body)
                .map_err(|error| local(&error))?
                .into(),
            prefer: Prefer::Settled,
            attempt: BEAT_ATTEMPT,
            deadline: BEAT_DEADLINE,
        })
    }
}

/// A token whose memory is wiped when the last user is gone.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
