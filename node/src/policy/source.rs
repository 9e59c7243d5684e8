//! The policy this process judges by, and where it has it from.
//!
//! Until the quorum's rows can be read a node judges by the last policy it knew, sealed
//! in its data directory, or by its configuration where it never knew one.
//!
//! Invariants: an epoch never goes back while the process runs; from a known policy only
//! signed changes lead to a newer one, each verified here; what is kept on disk opens to
//! this TEE and this code alone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nautilus_attest_protocol::policy::{ChangeRefused, accept};
use nautilus_attest_protocol::{EvidencePolicy, Policy, Sealer};
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Kv, WatchRequest};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::store::{self, Record, StoreError};
use crate::data_dir::write_durably;

/// The sealed copy's file.
const KEPT: &str = "sealed-policy";
const SEAL_LABEL: &str = "nautilus policy v1";
/// Rows are read again after so long whatever a watch says: a snapshot that replaced
/// them tells nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause before rows are watched again after a watch has ended.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// Where a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    /// The node's own configuration: it has never known another one.
    Configuration,
    /// What it knew before it stopped.
    LastKnown,
    /// The quorum's rows.
    Quorum,
}

/// Why a newer record does not count.
#[derive(Debug, thiserror::Error)]
enum NotAdopted {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("epoch {epoch} is not in the history")]
    Missing { epoch: u64 },
    #[error("epoch {epoch}: {reason}")]
    Refused { epoch: u64, reason: ChangeRefused },
}

/// The policy in force in this process.
pub(crate) struct PolicySource {
    cluster_id: String,
    present: watch::Sender<Arc<Policy>>,
    origin: Mutex<Origin>,
    sealer: Arc<dyn Sealer>,
    file: PathBuf,
}

impl PolicySource {
    /// What this node knew last, or its configuration. Blocks on the disk.
    pub(crate) fn open(
        cluster_id: &str,
        data_dir: &std::path::Path,
        sealer: Arc<dyn Sealer>,
        configured: EvidencePolicy,
    ) -> anyhow::Result<Self> {
        let file = data_dir.join(KEPT);
        let (policy, origin) = match kept(&file, sealer.as_ref())? {
            Some(policy) => (policy, Origin::LastKnown),
            None => (Policy::of_evidence(configured), Origin::Configuration),
        };
        tracing::info!(epoch = policy.epoch, ?origin, "judging by this policy");
        metrics::gauge!("nautilus_policy_epoch").set(policy.epoch as f64);
        Ok(Self {
            cluster_id: cluster_id.to_owned(),
            present: watch::Sender::new(Arc::new(policy)),
            origin: Mutex::new(origin),
            sealer,
            file,
        })
    }

    /// The policy as it is and as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Policy>> {
        self.present.subscribe()
    }

    /// The policy as it is.
    pub(crate) fn present(&self) -> Arc<Policy> {
        Arc::clone(&self.present.borrow())
    }

    /// Where it comes from.
    pub(crate) fn origin(&self) -> Origin {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges by the rows' record from now on, if it is newer and every step from the
    /// present policy to it was signed.
    fn adopt(&self, kv: &dyn Kv, record: Record) -> Result<(), NotAdopted> {
        let present = self.present();
        let newest = record.document.epoch;
        if self.origin() != Origin::Configuration {
            if newest <= present.epoch {
                if newest == present.epoch {
                    self.set_origin(Origin::Quorum);
                }
                return Ok(());
            }
            let mut last = Policy::clone(&present);
            for epoch in present.epoch + 1..=newest {
                let step = store::of_epoch(kv, epoch)?.ok_or(NotAdopted::Missing { epoch })?;
                accept(&last, &self.cluster_id, &step.document, &step.approvals)
                    .map_err(|reason| NotAdopted::Refused { epoch, reason })?;
                last = step.document;
            }
            self.take(last);
        } else {
            self.take(record.document);
        }
        Ok(())
    }

    fn take(&self, policy: Policy) {
        if let Err(error) = self.keep(&policy) {
            // The node judges by it all the same; only a restart would not know it.
            tracing::error!(file = %self.file.display(), error = %format!("{error:#}"), "the policy is not kept on disk");
        }
        self.set_origin(Origin::Quorum);
        tracing::info!(epoch = policy.epoch, digest = %hex::encode(policy.digest()), "judging by the quorum's policy");
        metrics::gauge!("nautilus_policy_epoch").set(policy.epoch as f64);
        self.present.send_replace(Arc::new(policy));
    }

    fn set_origin(&self, origin: Origin) {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = origin;
    }

    fn keep(&self, policy: &Policy) -> anyhow::Result<()> {
        let text = serde_json::to_vec(policy)?;
        let sealed = self.sealer.seal(SEAL_LABEL, &text)?;
        Ok(write_durably(&self.file, &sealed, 0o600)?)
    }
}

/// The sealed copy, if there is one that this TEE and this code can open.
fn kept(file: &std::path::Path, sealer: &dyn Sealer) -> anyhow::Result<Option<Policy>> {
    let sealed = match std::fs::read(file) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    let opened = sealer
        .unseal(SEAL_LABEL, &sealed)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_slice::<Policy>(&text)?));
    match opened {
        Ok(policy) => Ok(Some(policy)),
        Err(error) => {
            tracing::warn!(
                file = %file.display(), error = %format!("{error:#}"),
                "the last known policy can't be read; judging by the configuration until the \
                 quorum's is known"
            );
            Ok(None)
        }
    }
}

/// Follows the quorum's rows until told to stop.
pub(crate) async fn follow(source: Arc<PolicySource>, kv: Arc<dyn Kv>, stopped: CancellationToken) {
    let mut complained_of = None;
    let mut watcher = None;
    loop {
        if watcher.is_none() {
            let request = WatchRequest {
                range: KeyRange::prefix(store::POLICY_PREFIX),
                from: None,
                previous: false,
            };
            watcher = kv.watch(request).ok();
        }
        match store::current(kv.as_ref()) {
            Ok(Some((record, _))) => {
                let epoch = record.document.epoch;
                if let Err(error) = source.adopt(kv.as_ref(), record)
                    && complained_of != Some(epoch)
                {
                    tracing::error!(epoch, %error, "the quorum's policy is not taken; judging by the present one");
                    metrics::counter!("nautilus_policy_changes_refused_total").increment(1);
                    complained_of = Some(epoch);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the policy can't be read"),
        }
        let changed = async {
            match watcher.as_mut() {
                Some(watcher) => watcher.next().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let stands = tokio::select! {
            () = stopped.cancelled() => return,
            stands = changed => stands,
            () = tokio::time::sleep(LOOK_AGAIN) => true,
        };
        if !stands {
            watcher = None;
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use nautilus_attest_protocol::policy::OperatorKey;
    use nautilus_attest_protocol::{Measurement, TeeKind};
    use nautilus_attest_tee::{PlatformSecret, SimulatedProvider, SimulatedRoot};
    use nautilus_machine::UnixMillis;
    use nautilus_machine::solo::SoloKv;

    use super::*;
    use crate::policy::file::OperatorSigner;

    const CLUSTER: &str = "reef";

    fn measurement(byte: u8) -> Measurement {
        Measurement::new([byte; 48]).expect("48 bytes")
    }

    fn evidence(byte: u8) -> EvidencePolicy {
        EvidencePolicy::new(true).allow(TeeKind::Simulated, measurement(byte))
    }

    /// A node's folder, the rows, and an operator who alone may change the policy.
    struct World {
        dir: tempfile::TempDir,
        kv: SoloKv,
        signer: OperatorSigner,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let key = rcgen::KeyPair::generate().expect("a key");
            let path = dir.path().join("operator.key");
            std::fs::write(&path, key.serialize_pem()).expect("written");
            let world = Self {
                signer: OperatorSigner::read(&path).expect("read"),
                kv: SoloKv::new(|| UnixMillis(1)),
                dir,
            };
            let mut first = Policy::of_evidence(evidence(1));
            first.epoch = 1;
            first.threshold = 1;
            first.operators = vec![OperatorKey {
                name: "ann".into(),
                public_key: world.signer.public_key().expect("its own"),
            }];
            let record = Record {
                document: first,
                approvals: Vec::new(),
                at_ms: 1,
            };
            assert!(store::found(&world.kv, &record).await.expect("written"));
            world
        }

        /// The node with code `code`, as after a start.
        fn node(&self, code: u8) -> PolicySource {
            let path = |name: &str| self.dir.path().join(name);
            let root = SimulatedRoot::load_or_create(&path("root")).expect("made");
            let secret = PlatformSecret::load_or_create(&path("secret")).expect("made");
            let tee = SimulatedProvider::new(root, secret, measurement(code));
            PolicySource::open(CLUSTER, self.dir.path(), Arc::new(tee), evidence(9))
                .expect("opened")
        }

        /// Writes the next record, signed or not.
        async fn change(&self, signed: bool) {
            let (present, revision) = store::current(&self.kv).expect("read").expect("there");
            let mut document = present.document;
            document.epoch += 1;
            let allowed = measurement(u8::try_from(document.epoch).expect("small"));
            document.evidence = document.evidence.allow(TeeKind::Simulated, allowed);
            let approval = self.signer.approve(CLUSTER, &document).expect("signed");
            let record = Record {
                document,
                approvals: if signed { vec![approval] } else { Vec::new() },
                at_ms: 2,
            };
            let written = store::replace(&self.kv, &record, revision).await;
            assert!(written.expect("written"));
        }

        fn adopt(&self, node: &PolicySource) -> Result<(), NotAdopted> {
            let (record, _) = store::current(&self.kv).expect("read").expect("there");
            node.adopt(&self.kv, record)
        }
    }

    #[tokio::test]
    async fn a_node_judges_by_its_configuration_until_it_knows_the_quorums_policy() {
        let world = World::new().await;
        let node = world.node(1);
        let before = (node.present().epoch, node.origin());
        assert_eq!(before, (0, Origin::Configuration));
        assert_eq!(node.present().evidence, evidence(9));
        world.adopt(&node).expect("the first it sees");
        assert_eq!((node.present().epoch, node.origin()), (1, Origin::Quorum));
    }

    #[tokio::test]
    async fn a_node_that_was_away_verifies_every_step_it_missed() {
        let world = World::new().await;
        let node = world.node(1);
        world.adopt(&node).expect("the first it sees");
        for _ in 0..3 {
            world.change(true).await;
        }
        world.adopt(&node).expect("three signed steps");
        assert_eq!(node.present().epoch, 4);
    }

    #[tokio::test]
    async fn a_record_that_nobody_signed_is_not_taken() {
        let world = World::new().await;
        let node = world.node(1);
        world.adopt(&node).expect("the first it sees");
        world.change(false).await;
        world.change(true).await;
        let refused = world.adopt(&node).expect_err("not signed");
        assert!(
            matches!(refused, NotAdopted::Refused { epoch: 2, .. }),
            "{refused}"
        );
        assert_eq!(node.present().epoch, 1);
    }

    #[tokio::test]
    async fn the_last_known_policy_outlives_a_restart_and_opens_to_the_same_code_alone() {
        let world = World::new().await;
        world.adopt(&world.node(1)).expect("taken");
        let again = world.node(1);
        let known = (again.present().epoch, again.origin());
        assert_eq!(known, (1, Origin::LastKnown));
        let other_code = world.node(2);
        assert_eq!(other_code.origin(), Origin::Configuration);
    }

    #[tokio::test]
    async fn an_older_record_is_passed_over() {
        let world = World::new().await;
        let node = world.node(1);
        let (old, _) = store::current(&world.kv).expect("read").expect("there");
        world.change(true).await;
        world.adopt(&node).expect("taken");
        node.adopt(&world.kv, old).expect("passed over");
        assert_eq!(node.present().epoch, 2);
    }
}
