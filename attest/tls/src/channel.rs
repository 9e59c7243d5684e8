//! The second layer: carries the attested handshake's frames over a TLS stream.
//!
//! All decisions are the state machine's; here frames are read within their limits,
//! evidence is made off the async threads, and a refused peer is told why in a way
//! that survives the closing of the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nautilus_attest_protocol::binding::Channel;
use nautilus_attest_protocol::frame::{FRAME_HEADER_BYTES, Frame};
use nautilus_attest_protocol::handshake::{Failure, Greeting, Local};
use nautilus_attest_protocol::{
    Claims, Evidence, EvidencePolicy, Peer, Quoter, Refused, ReportData, Verifier,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::admission::Finding;
use crate::credential::unix_millis;
use crate::endpoint::Pins;
use crate::error::{AttestedError, Stage};

/// How long a refused peer is given to take in the verdict and close.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// How much a refused peer may still send meanwhile, in bytes.
const LINGER_BYTES: u64 = 256 * 1024;

/// How far a connection has come, for the error when time runs out.
pub(crate) struct Progress(AtomicU8);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    fn enter(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        let stages = [
            Stage::TlsHandshake,
            Stage::Hello,
            Stage::Evidence,
            Stage::Verdict,
        ];
        stages
            .into_iter()
            .find(|stage| *stage as u8 == self.0.load(Ordering::Relaxed))
            .unwrap_or(Stage::Verdict)
    }
}

/// What the second layer judges by.
pub(crate) struct Judge<'a> {
    pub(crate) quoter: &'a Arc<dyn Quoter>,
    pub(crate) verifier: &'a dyn Verifier,
    pub(crate) policy: &'a EvidencePolicy,
    pub(crate) pins: &'a dyn Pins,
    pub(crate) expected_node: Option<u64>,
}

/// Runs the attested handshake to its end; gives the peer and what its evidence over
/// this connection has shown. On a refusal the peer has been told.
pub(crate) async fn attest<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    local: Local,
    channel: Channel,
    finding: Finding,
    judge: &Judge<'_>,
    progress: &Progress,
) -> Result<(Peer, Claims), AttestedError> {
    match exchange(stream, local, channel, finding, judge, progress).await {
        Ok(accepted) => Ok(accepted),
        Err(Step::Failed(failure)) => {
            if let Some(reply) = failure.reply {
                // The refusal stands whether or not the peer still listens.
                let _ = stream.write_all(&reply).await;
                linger(stream).await;
            }
            Err(failure.cause.into())
        }
        Err(Step::Broken(error)) => Err(error),
    }
}

/// Why a step did not lead to the next.
enum Step {
    Failed(Failure),
    Broken(AttestedError),
}

impl From<Failure> for Step {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Refused> for Step {
    fn from(refused: Refused) -> Self {
        Self::Failed(refused.into())
    }
}

impl From<AttestedError> for Step {
    fn from(error: AttestedError) -> Self {
        Self::Broken(error)
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    local: Local,
    channel: Channel,
    finding: Finding,
    judge: &Judge<'_>,
    progress: &Progress,
) -> Result<(Peer, Claims), Step> {
    progress.enter(Stage::Hello);
    let (greeting, hello) =
        Greeting::start(local, channel, finding.admission, judge.expected_node)?;
    send(stream, &hello, Stage::Hello).await?;
    let proving = greeting.receive(&receive(stream, Stage::Hello).await?)?;

    progress.enter(Stage::Evidence);
    let evidence = quote(judge.quoter, proving.report_data()).await?;
    let (judging, frame) = proving.prove(&evidence)?;
    send(stream, &frame, Stage::Evidence).await?;
    let frame = receive(stream, Stage::Evidence).await?;
    let pinned = judge.pins.platform_of(judging.hello().node_id);
    let (concluding, verdict) = judging.receive(
        &frame,
        judge.verifier,
        judge.policy,
        pinned.as_deref(),
        unix_millis(),
    )?;

    progress.enter(Stage::Verdict);
    send(stream, &verdict, Stage::Verdict).await?;
    let claims = concluding.claims().clone();
    let peer = concluding.receive(&receive(stream, Stage::Verdict).await?)?;
    Ok((peer, claims))
}

pub(crate) async fn quote(
    quoter: &Arc<dyn Quoter>,
    report_data: ReportData,
) -> Result<Evidence, AttestedError> {
    if quoter.quotes_at_once() {
        return Ok(quoter.quote(&report_data)?);
    }
    let quoter = Arc::clone(quoter);
    match tokio::task::spawn_blocking(move || quoter.quote(&report_data)).await {
        Ok(evidence) => Ok(evidence?),
        Err(error) => Err(AttestedError::Identity(format!(
            "making evidence ended early: {error}"
        ))),
    }
}

async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
    stage: Stage,
) -> Result<(), AttestedError> {
    let broken = |error| AttestedError::from_io(stage, error);
    stream.write_all(bytes).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, stage: Stage) -> Result<Frame, Step> {
    let broken = |error| AttestedError::from_io(stage, error);
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(broken)?;
    let (kind, length) = Frame::decode_header(header)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(broken)?;
    Ok(Frame { kind, body })
}

/// Closes our direction and takes in what the peer still sends, so that the
/// kernel does not reset the connection before the peer has read our last words.
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Nothing depends on how it ends: the connection is dropped either way.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, drained).await;
}
