//! The node's side of a recovery: waits for shares, and for nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_attest_protocol::{ReportData, recovery_report_data};
use nautilus_rest::{Authority, ConnectionLimits, ServingCertificate, serve_tls, server_config};
use nautilus_store::Keyring;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::escrow::{Desk, Escrow};
use super::face::{Description, Submission, Taken, desk_router};
use super::shamir::Share;

/// For the last answer on its way out.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Evidence over 64 bytes. May block.
type Evidence = Arc<dyn Fn(&ReportData) -> Result<Vec<u8>, String> + Send + Sync>;

/// Takes the keys that the shares opened, or says why they will not do. May block.
type Accept = Arc<dyn Fn(&Keyring) -> anyhow::Result<()> + Send + Sync>;

/// A node that waits.
pub(crate) struct DeskParts {
    /// The node.
    pub(crate) node_id: u64,
    /// What opens by the shares.
    pub(crate) escrow: Escrow,
    /// Proves what waits.
    pub(crate) evidence: Evidence,
    /// Has the last word: the operators hear why not.
    pub(crate) accept: Accept,
    /// Names of its certificate, which proves nothing.
    pub(crate) names: Vec<String>,
}

/// A recovery that operators decided.
pub(crate) struct Recovered {
    /// The names of those who gave their shares.
    pub(crate) operators: Vec<String>,
}

/// A share and whose it is.
type Submitted = (String, Share);

/// The desk while it is open.
pub(super) struct Waiting {
    node_id: u64,
    escrow: Escrow,
    desk: Desk,
    evidence: Evidence,
    accept: Accept,
    /// By the fingerprint of the operator's key.
    shares: Mutex<BTreeMap<String, Submitted>>,
    recovered: Mutex<Option<Recovered>>,
    done: CancellationToken,
}

impl Waiting {
    fn shares(&self) -> MutexGuard<'_, BTreeMap<String, Submitted>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submitted(&self) -> Vec<String> {
        let shares = self.shares();
        shares.values().map(|(name, _)| name.clone()).collect()
    }

    /// What it waits for, with evidence over `nonce`. Blocks.
    pub(super) fn describe(&self, nonce: &[u8]) -> anyhow::Result<Description> {
        let key = self.desk.public_key();
        let bound = recovery_report_data(nonce, key, &self.escrow.terms.digest()?);
        let evidence = (self.evidence)(&bound).map_err(anyhow::Error::msg)?;
        Ok(Description {
            node_id: self.node_id,
            submitted: self.submitted(),
            escrow: self.escrow.clone(),
            key: BASE64.encode(key),
            evidence: BASE64.encode(evidence),
        })
    }

    /// Takes an operator's share; the last one that is needed ends the waiting. Blocks.
    pub(super) fn take(&self, submission: &Submission) -> anyhow::Result<Taken> {
        let Submission { operator, sealed } = submission;
        let share = self.desk.receive(operator, sealed)?;
        let name = self.escrow.check(operator, &share)?;
        let threshold = self.escrow.terms.threshold;
        tracing::warn!(target: "nautilus::audit", operator = %name, threshold, "an operator's share for the recovery");
        let mut shares = self.shares();
        shares.insert(operator.clone(), (name, share));
        let is_enough = shares.len() >= usize::from(threshold);
        if is_enough && !self.done.is_cancelled() {
            let (operators, parts): (Vec<_>, Vec<_>) = shares.values().cloned().unzip();
            (self.accept)(&self.escrow.keys(&parts)?)?;
            let recovered = Recovered { operators };
            *self
                .recovered
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(recovered);
            self.done.cancel();
        }
        drop(shares);
        Ok(Taken {
            submitted: self.submitted(),
            threshold,
            recovered: is_enough,
        })
    }
}

/// Serves on `listener` until enough operators gave their shares; `None` when told to
/// stop before.
pub(crate) async fn recover(
    parts: DeskParts,
    listener: TcpListener,
    stopped: &CancellationToken,
) -> anyhow::Result<Option<Recovered>> {
    let authority = Arc::new(Authority::ephemeral("recovery desk")?);
    let certificate = ServingCertificate::issue(Arc::clone(&authority), parts.names)?;
    let tls = server_config(&authority, certificate)?;
    tracing::warn!(
        threshold = parts.escrow.terms.threshold,
        operators = parts.escrow.terms.operators.len(),
        "waiting for operators' shares: `nautilus recover submit`"
    );
    let done = CancellationToken::new();
    let waiting = Arc::new(Waiting {
        node_id: parts.node_id,
        escrow: parts.escrow,
        desk: Desk::open()?,
        evidence: parts.evidence,
        accept: parts.accept,
        shares: Mutex::default(),
        recovered: Mutex::default(),
        done: done.clone(),
    });
    let ended = CancellationToken::new();
    let limits = ConnectionLimits {
        shutdown_grace: LAST_ANSWER,
        ..ConnectionLimits::default()
    };
    let router = desk_router(Arc::clone(&waiting));
    let nodes = Arc::default();
    let serving = serve_tls(listener, tls, router, limits, nodes, ended.clone());
    let serving = tokio::spawn(serving);
    tokio::select! {
        () = done.cancelled() => {}
        () = stopped.cancelled() => {}
    }
    ended.cancel();
    serving.await.context("serve the recovery")??;
    let mut recovered = waiting.recovered.lock();
    Ok(recovered
        .as_mut()
        .map_or(None, |recovered| recovered.take()))
}
