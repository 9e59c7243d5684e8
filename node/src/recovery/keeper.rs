//! Keeps an escrow that fits the operators and the keys, and a copy of it on this disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nautilus_machine::{Cluster, Kv, NodeId};
use nautilus_store::{Generation, Keyring};
use tokio_util::sync::CancellationToken;

use super::escrow::{Escrow, RootName, Terms};
use super::rows;
use crate::data_dir::write_durably;
use crate::exit::Failure;
use crate::keys::{node_rows, secrets_for};
use crate::policy::store;

/// The escrow in a data directory.
const ESCROW_FILE: &str = "escrow.json";
/// Between two looks at what the escrow is to be.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The escrow of a data directory.
///
/// # Errors
/// There is none, or it is another quorum's.
pub(crate) fn escrow_of(folder: &Path, cluster_id: &str) -> anyhow::Result<Escrow> {
    let path = folder.join(ESCROW_FILE);
    let bytes = std::fs::read(&path).map_err(|error| {
        Failure::Refused.error(format!(
            "{}: {error}; operators recover with it: copy it from any member's data directory",
            path.display()
        ))
    })?;
    let escrow: Escrow =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    if escrow.terms.cluster_id != cluster_id {
        return Err(Failure::Refused.error(format!(
            "{}: it is of quorum {:?}",
            path.display(),
            escrow.terms.cluster_id
        )));
    }
    Ok(escrow)
}

/// One node's part: the leader makes the escrow, every node keeps a copy.
pub(crate) struct EscrowKeeper {
    /// The quorum's name.
    pub(crate) cluster_id: String,
    /// This node.
    pub(crate) node_id: NodeId,
    /// The quorum's rows.
    pub(crate) kv: Arc<dyn Kv>,
    /// The membership.
    pub(crate) cluster: Arc<dyn Cluster>,
    /// What is wrapped.
    pub(crate) keyring: Keyring,
    /// Where the copy lies.
    pub(crate) folder: PathBuf,
}

impl EscrowKeeper {
    /// Until told to stop.
    pub(crate) async fn run(self, stopped: CancellationToken) {
        super::describe_metrics();
        let path = self.folder.join(ESCROW_FILE);
        let mut written = std::fs::read(&path).ok();
        let mut complaint = String::new();
        loop {
            let done = match self.round().await {
                Ok(()) => self.copy(&path, &mut written),
                Err(reason) => Err(reason),
            };
            let reason = done.err().unwrap_or_default();
            if reason != complaint && !reason.is_empty() {
                tracing::warn!(%reason, "the escrow is not as it is to be: operators could not recover the present keys");
            }
            complaint = reason;
            tokio::select! {
                () = stopped.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Makes another escrow, if this node leads and the present one does not fit.
    async fn round(&self) -> Result<(), String> {
        let kv = self.kv.as_ref();
        let recoveries = rows::recoveries(kv)?.last().map_or(0, |last| last.recovery);
        metrics::gauge!("nautilus_recoveries").set(recoveries as f64);
        if !kv.leadership().is_self {
            return Ok(());
        }
        // Nobody governs it, or not yet.
        let Some((record, _)) = store::current(kv).map_err(|error| error.to_string())? else {
            return Ok(());
        };
        let (row, revision) = rows::escrow(kv)?;
        let present: Option<Escrow> = row.and_then(|row| serde_json::from_slice(&row).ok());
        let held = RootName::all_of(&self.keyring);
        let mut terms = Terms::of_policy(&self.cluster_id, &record.document, recoveries, held)?;
        if let Some(present) = &present
            && is_still_needed(&present.terms, &terms, &self.generations_on_disks()?)
        {
            terms.roots.clone_from(&present.terms.roots);
        }
        if present.is_some_and(|present| present.terms == terms) {
            return Ok(());
        }
        // The secrets are asked for as a member would: not before all that they hold is
        // announced.
        let secrets = secrets_for(kv, &self.keyring, self.node_id)?;
        let wrapped = Keyring::from_secrets(&secrets).map_err(|error| error.to_string())?;
        terms.roots = RootName::all_of(&wrapped);
        let escrow = Escrow::make(terms, &secrets).map_err(|error| format!("{error:#}"))?;
        if rows::put_escrow(kv, &escrow, revision).await? {
            tracing::info!(
                target: "nautilus::audit",
                threshold = escrow.terms.threshold,
                operators = escrow.terms.operators.len(),
                generations = ?wrapped.generations(),
                "gave the operators new shares of the quorum's keys"
            );
        }
        Ok(())
    }

    /// The generations that members say they hold.
    fn generations_on_disks(&self) -> Result<Vec<Generation>, String> {
        let told = node_rows(self.kv.as_ref())?;
        let members = self.cluster.members();
        let rows = members.iter().filter_map(|member| told.get(&member.id));
        Ok(rows.flat_map(|row| row.held.iter().copied()).collect())
    }

    /// Writes this node's copy where the row is another.
    fn copy(&self, path: &Path, written: &mut Option<Vec<u8>>) -> Result<(), String> {
        let (row, _) = rows::escrow(self.kv.as_ref())?;
        let row = row.unwrap_or_default();
        let operators = match serde_json::from_slice::<Escrow>(&row) {
            Ok(escrow) => escrow.terms.operators.len(),
            Err(_) => 0,
        };
        metrics::gauge!("nautilus_recovery_operators").set(operators as f64);
        if row.is_empty() || written.as_ref() == Some(&row) {
            return Ok(());
        }
        write_durably(path, &row, 0o600).map_err(|error| format!("{}: {error}", path.display()))?;
        *written = Some(row);
        Ok(())
    }
}

/// Whether the present escrow holds every root of the new terms, and besides only roots
/// that this node has destroyed while something on another member's disk needs them.
fn is_still_needed(present: &Terms, new: &Terms, on_disks: &[Generation]) -> bool {
    let holds_all = new.roots.iter().all(|root| present.roots.contains(root));
    let mut more = present
        .roots
        .iter()
        .filter(|root| !new.roots.contains(root));
    holds_all && more.any(|root| on_disks.contains(&root.generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(generations: &[u32]) -> Terms {
        let root = |generation: &u32| RootName {
            generation: *generation,
            fingerprint: format!("{generation:02x}"),
        };
        Terms {
            cluster_id: "alpha".into(),
            recoveries: 0,
            threshold: 1,
            operators: Vec::new(),
            roots: generations.iter().map(root).collect(),
        }
    }

    #[test]
    fn an_old_root_stays_in_the_escrow_until_no_disk_needs_it() {
        let (both, new) = (terms(&[1, 2]), terms(&[2]));
        assert!(is_still_needed(&both, &new, &[2, 1, 2]));
        assert!(!is_still_needed(&both, &new, &[2, 2, 2]));
        // A root that the escrow does not hold comes first.
        assert!(!is_still_needed(&terms(&[1]), &new, &[2, 1, 2]));
        assert!(!is_still_needed(&new, &new, &[2, 2, 2]));
    }
}
