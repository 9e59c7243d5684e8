//! Which incarnations of which nodes this process has heard of, its own first. They
//! travel in a header of every call and answer between members.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nautilus_attest_protocol::Counter;
use nautilus_attest_protocol::restart::{INCARNATION_ID_BYTES, Incarnation, fences};
use nautilus_machine::NodeId;
use nautilus_store::{Aad, Envelope, Keyring, Kind};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Status};

/// The header's name.
pub(crate) const HEADER: &str = "nautilus-incarnation";
/// In a refusal: the incarnation that outlived the caller.
const OUTLIVED_BY: &str = "nautilus-outlived-by";
const FILE: &str = "lives";
const POSITION: &[u8] = b"lives";
/// The folder, beside log and store.
pub(super) const FOLDER: &str = "restart";

/// On disk, sealed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Saved {
    own: Incarnation,
    known: BTreeMap<NodeId, Incarnation>,
    /// The counter's value when this was written.
    counter: Option<u64>,
    /// How the log ended, when the node stopped in order.
    stopped: Option<LogEnd>,
}

/// What a log says at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEnd {
    /// Term, node, whether it is committed.
    pub(super) vote: Option<(u64, NodeId, bool)>,
    /// Term and index of the last entry.
    pub(super) last: Option<(u64, u64)>,
    /// The chain over the last entries.
    pub(super) digest: Vec<u8>,
}

/// See the module.
pub(crate) struct Lives {
    own_id: NodeId,
    folder: PathBuf,
    keyring: Keyring,
    envelope: Mutex<Envelope>,
    /// The epoch the disk had before this start.
    disk_epoch: u64,
    counter: Option<Arc<dyn Counter>>,
    /// How the log ended, if the counter proves that nothing came after it.
    proven: Option<LogEnd>,
    saved: Mutex<Saved>,
    /// One writer at a time; what it writes is what it finds then.
    writing: Mutex<()>,
    outlived: watch::Sender<Option<Incarnation>>,
    newer: Notify,
}

impl Lives {
    /// A new life of `own_id`, above every one that the disk knows of it.
    pub(crate) fn begin(
        data_dir: &Path,
        keyring: &Keyring,
        own_id: NodeId,
        counter: Option<Arc<dyn Counter>>,
    ) -> Result<Arc<Self>, String> {
        let folder = data_dir.join(FOLDER);
        let (envelope, mut saved) = open(&folder, keyring)?;
        let disk_epoch = saved.own.epoch;
        saved.own = fresh(disk_epoch + 1);
        let proven = step(&mut saved, counter.as_deref())?;
        let lives = Self {
            own_id,
            folder,
            keyring: keyring.clone(),
            envelope: Mutex::new(envelope),
            disk_epoch,
            counter,
            proven,
            saved: Mutex::new(saved),
            writing: Mutex::default(),
            outlived: watch::channel(None).0,
            newer: Notify::new(),
        };
        lives.save()?;
        Ok(Arc::new(lives))
    }

    pub(crate) fn own(&self) -> Incarnation {
        self.saved.lock().own
    }

    pub(super) fn disk_epoch(&self) -> u64 {
        self.disk_epoch
    }

    /// How the log ended at the orderly stop, if a counter proves that nothing came after.
    pub(super) fn proven(&self) -> Option<&LogEnd> {
        self.proven.as_ref()
    }

    /// The orderly stop: nothing is written to the log any more. Blocks.
    pub(crate) fn stop(&self, end: LogEnd) -> Result<(), String> {
        let Some(counter) = &self.counter else {
            return Ok(());
        };
        let value = counter.increment().map_err(|error| error.to_string())?;
        {
            let mut saved = self.saved.lock();
            saved.counter = Some(value);
            saved.stopped = Some(end);
        }
        self.save()
    }

    /// The newest lives heard of, of other nodes.
    pub(super) fn known(&self) -> BTreeMap<NodeId, Incarnation> {
        self.saved.lock().known.clone()
    }

    /// Goes above a life of this node that peers know.
    pub(super) fn raise_above(&self, other: Incarnation) -> Result<(), String> {
        {
            let mut saved = self.saved.lock();
            if other >= saved.own {
                saved.own = fresh(other.epoch + 1);
            }
        }
        self.save()
    }

    /// Hears that `node` lives as `life`; refuses a life that another one outlived.
    pub(crate) fn hear(&self, node: NodeId, life: Incarnation) -> Result<(), Status> {
        if node == self.own_id {
            self.hear_of_own(life);
            return Ok(());
        }
        let known = {
            let mut saved = self.saved.lock();
            let known = saved.known.entry(node).or_default();
            if life > *known {
                *known = life;
                self.newer.notify_one();
                return Ok(());
            }
            *known
        };
        match fences(Some(known), life) {
            false => Ok(()),
            true => Err(outlived(node, life, known)),
        }
    }

    /// As [`Lives::hear`], of what a peer's call or answer carries.
    pub(crate) fn hear_header(&self, node: NodeId, headers: &MetadataMap) -> Result<(), Status> {
        self.hear(node, incarnation_of(headers)?)
    }

    /// As [`Lives::hear_header`], of a refusal that `node` sent; it may say that this
    /// node's own life is outlived.
    pub(crate) fn hear_refusal(&self, node: NodeId, refusal: &Status) {
        if let Some(newer) = incarnation_in(refusal.metadata(), OUTLIVED_BY) {
            self.hear_of_own(newer);
        }
        // A refusal that never came tells nothing.
        let _ = self.hear_header(node, refusal.metadata());
    }

    /// Whether a life of `node` that was heard before counts no more.
    pub(crate) fn is_outlived(&self, node: NodeId, life: Incarnation) -> bool {
        fences(self.saved.lock().known.get(&node).copied(), life)
    }

    fn hear_of_own(&self, life: Incarnation) {
        if life > self.own() {
            self.outlived.send_if_modified(|newest| {
                let newer = *newest < Some(life);
                if newer {
                    *newest = Some(life);
                }
                newer
            });
        }
    }

    /// A newer life of this node, if one was heard of.
    pub(super) fn outlived(&self) -> watch::Receiver<Option<Incarnation>> {
        self.outlived.subscribe()
    }

    /// Resolves when a life was heard of that was not known.
    pub(super) async fn newer(&self) {
        self.newer.notified().await;
    }

    /// Writes everything heard of, durably. Blocks.
    pub(super) fn save(&self) -> Result<(), String> {
        let _writing = self.writing.lock();
        let saved = self.saved.lock().clone();
        let plain = postcard::to_stdvec(&saved).map_err(|error| error.to_string())?;
        let sealed = self.envelope.lock().seal(aad(), &plain);
        write(&self.folder, &sealed)
            .map_err(|error| format!("writing {}: {error}", self.folder.join(FILE).display()))
    }

    /// Seals what is on disk under the current root of the keys. Blocks.
    pub(crate) fn seal_anew(&self) -> Result<(), String> {
        let _writing = self.writing.lock();
        let saved = self.saved.lock().clone();
        let plain = postcard::to_stdvec(&saved).map_err(|error| error.to_string())?;
        let mut envelope = self.envelope.lock();
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.folder.display());
        let beside = self.folder.with_extension("new");
        let _ = std::fs::remove_dir_all(&beside);
        let anew = Envelope::open_dir(&beside, &self.keyring).map_err(|error| failed(&error))?;
        write(&beside, &anew.seal(aad(), &plain)).map_err(|error| failed(&error))?;
        drop(anew);
        std::fs::remove_dir_all(&self.folder).map_err(|error| failed(&error))?;
        std::fs::rename(&beside, &self.folder).map_err(|error| failed(&error))?;
        *envelope =
            Envelope::open_dir(&self.folder, &self.keyring).map_err(|error| failed(&error))?;
        Ok(())
    }

    /// The header's value.
    pub(crate) fn header(&self) -> String {
        self.own().to_string()
    }
}

/// Moves the counter, so that this disk is proven by it once only; returns what it
/// proves.
fn step(saved: &mut Saved, counter: Option<&dyn Counter>) -> Result<Option<LogEnd>, String> {
    let Some(counter) = counter else {
        return Ok(None);
    };
    let value = counter.read().map_err(|error| error.to_string())?;
    let before = saved
        .counter
        .replace(counter.increment().map_err(|error| error.to_string())?);
    let stopped = saved.stopped.take();
    if let Some(before) = before.filter(|before| *before != value) {
        tracing::warn!(
            disk = before,
            counter = value,
            "the counter has moved since this disk was written: the disk is an old one, or the last start was cut short"
        );
    }
    Ok(stopped.filter(|_| before == Some(value)))
}

fn aad() -> Aad<'static> {
    Aad {
        kind: Kind::NodeState,
        position: POSITION,
    }
}

fn fresh(epoch: u64) -> Incarnation {
    let mut id = [0; INCARNATION_ID_BYTES];
    // Two starts of one epoch must differ; the system's source does not fail once it began.
    let filled = aws_lc_rs::rand::fill(&mut id);
    assert!(filled.is_ok(), "the system gives no random bytes");
    Incarnation { epoch, id }
}

/// What is on disk; as good as nothing when it does not open.
fn open(folder: &Path, keyring: &Keyring) -> Result<(Envelope, Saved), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    let beside = folder.with_extension("new");
    if !folder.exists() && beside.exists() {
        // Sealing anew was broken off after the new one was whole.
        std::fs::rename(&beside, folder).map_err(|error| failed(&error))?;
    }
    match Envelope::open_dir(folder, keyring) {
        Ok(envelope) => {
            let saved = read(folder, &envelope)?;
            Ok((envelope, saved))
        }
        Err(nautilus_store::EnvelopeError::Table { reason, .. }) => {
            tracing::warn!(%reason, "the incarnations on disk do not open; asking peers for them");
            std::fs::remove_dir_all(folder).map_err(|error| failed(&error))?;
            let envelope = Envelope::open_dir(folder, keyring).map_err(|error| failed(&error))?;
            Ok((envelope, Saved::default()))
        }
        Err(error) => Err(failed(&error)),
    }
}

fn read(folder: &Path, envelope: &Envelope) -> Result<Saved, String> {
    let path = folder.join(FILE);
    let sealed = match std::fs::read(&path) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(format!("reading {}: {error}", path.display())),
    };
    let opened = envelope.open(aad(), &sealed);
    let saved = opened
        .ok()
        .and_then(|plain| postcard::from_bytes(&plain).ok());
    // It says nothing that peers do not know better; without it they are asked all the same.
    if saved.is_none() {
        tracing::warn!(file = %path.display(), "the incarnations on disk were altered; asking peers for them");
    }
    Ok(saved.unwrap_or_default())
}

fn write(folder: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = folder.join(format!("{FILE}.new"));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

/// The incarnation that a peer's call or answer carries.
pub(crate) fn incarnation_of(headers: &MetadataMap) -> Result<Incarnation, Status> {
    incarnation_in(headers, HEADER)
        .ok_or_else(|| Status::unauthenticated("the peer does not tell its incarnation"))
}

fn incarnation_in(headers: &MetadataMap, name: &str) -> Option<Incarnation> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn outlived(node: NodeId, life: Incarnation, newer: Incarnation) -> Status {
    metrics::counter!("nautilus_restart_outlived_refused_total").increment(1);
    let mut status = Status::permission_denied(format!(
        "incarnation {life} of node {node} is outlived by {newer}"
    ));
    if let Ok(value) = newer.to_string().parse::<AsciiMetadataValue>() {
        status.metadata_mut().insert(OUTLIVED_BY, value);
    }
    status
}

/// Puts the own incarnation on every call.
#[derive(Clone)]
pub(crate) struct Stamp(pub(crate) Option<Arc<Lives>>);

impl tonic::service::Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(lives) = &self.0 {
            let value = lives.header().parse::<AsciiMetadataValue>();
            let value = value.map_err(|error| Status::internal(error.to_string()))?;
            request.metadata_mut().insert(HEADER, value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use nautilus_store::RootKey;

    use super::*;

    fn begin(dir: &Path) -> Arc<Lives> {
        Lives::begin(dir, &Keyring::new(RootKey::from_bytes([3; 32])), 1, None).expect("begun")
    }

    #[test]
    fn each_start_is_a_newer_life_and_what_was_saved_is_known_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = begin(dir.path());
        first.hear(2, fresh(7)).expect("news");
        first.save().expect("saved");
        let (own, known) = (first.own(), first.known());
        // One process at a time has the folder.
        drop(first);
        let second = begin(dir.path());
        assert!(second.own() > own);
        assert_eq!(second.disk_epoch(), own.epoch);
        assert_eq!(second.known(), known);
    }

    #[test]
    fn an_outlived_life_is_refused_and_hears_by_whom() {
        let dir = tempfile::tempdir().expect("a folder");
        let lives = begin(dir.path());
        let (old, new) = (fresh(1), fresh(2));
        lives.hear(2, old).expect("the first");
        lives.hear(2, new).expect("a newer one");
        let refused = lives.hear(2, old).expect_err("outlived");
        assert!(refused.message().contains("outlived by 2-"), "{refused}");
        assert_eq!(incarnation_in(refused.metadata(), OUTLIVED_BY), Some(new));
        assert!(lives.is_outlived(2, old) && !lives.is_outlived(2, new));
    }

    #[test]
    fn an_altered_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(begin(dir.path()));
        std::fs::write(dir.path().join(FOLDER).join(FILE), b"nonsense").expect("written");
        assert_eq!(begin(dir.path()).disk_epoch(), 0);
    }
}
