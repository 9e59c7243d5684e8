//! Carries a plan out: its steps in order, the writes of a step together.
//!
//! Invariants
//! - After a write that fails, no write of a later step begins; those of its own step that
//!   have begun come to their end, and no more begin.
//! - A step begins with one write, and doubles how many go together while they succeed: a
//!   quota that is full is asked a few times, not a thousand.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use nautilus_planner::kind::{self, Kind};
use nautilus_planner::plan::{Event, Failed, NAME, Plan, Write};

use crate::events::{Author, Recorder};
use crate::port::Api;

/// Writes of one plan that are under way together.
const WRITES_AT_ONCE: usize = 32;

/// The revisions at which a plan's writes stand, by kind.
pub(crate) type Reached = BTreeMap<Kind, u64>;

/// The kind that a write changes.
fn kind_of(write: &Write) -> Option<Kind> {
    match write {
        Write::Create { kind, .. } | Write::Update { kind, .. } | Write::Patch { kind, .. } => {
            Some(*kind)
        }
        Write::Delete(delete) | Write::Evict(delete) => Some(delete.kind),
        Write::Bind { .. } => Some(kind::PODS),
        // Whoever asks for a scale reads it behind a barrier.
        Write::Scale { .. } | Write::Event(_) => None,
        Write::Told(write, _) => kind_of(write),
    }
}

/// The write itself, and what is told of it.
fn split(write: &Write) -> (&Write, Option<&Event>) {
    match write {
        Write::Told(write, event) => (write, Some(event)),
        write => (write, None),
    }
}

/// Carries `plan` out as `author`; notes what was reached, whatever fails.
pub(crate) async fn out(
    api: &dyn Api,
    recorder: &Recorder,
    author: &Author,
    plan: &Plan,
    reached: &mut Reached,
) -> Result<(), Failed> {
    for step in &plan.steps {
        let mut writes = Vec::with_capacity(step.len());
        for write in step {
            match write {
                Write::Event(event) => recorder.record(author, event.clone()),
                write => writes.push(write),
            }
        }
        let (mut begun, mut together) = (0, 1);
        while begun < writes.len() {
            let batch = &writes[begun..writes.len().min(begun + together)];
            let writes = batch
                .iter()
                .map(|write| api.write(author.account, split(write).0));
            let outcomes = join_all(writes).await;
            let mut failure = None;
            for (write, outcome) in batch.iter().zip(outcomes) {
                let written = match outcome {
                    Ok(written) => written,
                    Err(failed) => {
                        failure = Some(failed);
                        continue;
                    }
                };
                if let Some(kind) = kind_of(write) {
                    let at = reached.entry(kind).or_default();
                    *at = written.revision.max(*at);
                }
                if let (_, Some(event)) = split(write) {
                    let mut event = event.clone();
                    event.message = event.message.replace(NAME, &written.name);
                    recorder.record(author, event);
                }
            }
            if let Some(failed) = failure {
                return Err(failed);
            }
            begun += batch.len();
            together = WRITES_AT_ONCE.min(together * 2);
        }
    }
    Ok(())
}
