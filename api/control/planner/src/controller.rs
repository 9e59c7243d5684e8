//! What a controller is: pure, one key at a time.

use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use crate::kind::Kind;
use crate::plan::{Failed, Plan};
use crate::view::{Key, Question, View};

/// Rounds of questions before a plan.
pub const MAX_ROUNDS: usize = 4;

/// One change of one object. At least one of the two is there.
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// As it was; `None`: it was not there, or nobody had seen it.
    pub before: Option<Arc<Value>>,
    /// As it is; `None`: it is gone.
    pub after: Option<Arc<Value>>,
}

impl Change {
    /// The object as it is, or was.
    pub fn object(&self) -> &Value {
        static NOTHING: Value = Value::Null;
        let newest = self.after.as_deref().or(self.before.as_deref());
        newest.unwrap_or(&NOTHING)
    }

    /// Both versions.
    pub fn versions(&self) -> impl Iterator<Item = &Value> {
        [self.before.as_deref(), self.after.as_deref()]
            .into_iter()
            .flatten()
    }
}

/// A controller. It remembers nothing that matters: what it must remember stands in objects.
pub trait Controller: Send + Sync {
    /// The name of its service account in `kube-system`: `replicaset-controller`. The
    /// roles `system:controller:NAME` say what it may do.
    fn name(&self) -> &'static str;

    /// Who its Events come from: mostly its name, too.
    fn component(&self) -> &'static str {
        self.name()
    }

    /// The kinds it reads or hears of. Nothing else is in its view.
    fn follows(&self) -> &'static [Kind];

    /// Which keys are to be looked at after a change. Told of every object once at the
    /// start of a term, with `before` absent, and of every change from then on.
    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>);

    /// What is to be asked of the API before a plan is made for a key. Asked again with
    /// the answers in the view, until there is nothing new: [`MAX_ROUNDS`] times at most.
    fn asks(&self, view: &dyn View, key: &Key) -> Vec<Question> {
        let _ = (view, key);
        Vec::new()
    }

    /// What is to be written for a key at `now`. The view holds everything that came of
    /// this controller's earlier plans for the key.
    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan;

    /// What is to be told of a write that failed, before the key is looked at again after
    /// a while. Not asked after conflicts (409), which are met by looking again at once.
    fn report(&self, view: &dyn View, key: &Key, now: Instant, failed: &Failed) -> Plan {
        let _ = (view, key, now, failed);
        Plan::default()
    }

    /// Keys that are looked at together, at most.
    fn workers(&self) -> usize {
        5
    }
}
