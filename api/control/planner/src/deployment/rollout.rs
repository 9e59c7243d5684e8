//! One look at a Deployment: what it and its sets shall become, and the plan for that.

use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::set::ReplicaSet;
use super::{annotations, has_progress_deadline, replicas, same_template, status, with_hash};
use crate::hash;
use crate::kind::{DEPLOYMENTS, PODS, REPLICA_SETS};
use crate::object;
use crate::plan::{Plan, Write};
use crate::pods::{self, Rounding};
use crate::view::{View, Within};

/// Bytes of a name, at most.
const MAX_NAME_BYTES: usize = 253;

/// See the module.
pub(super) struct Rollout<'a> {
    view: &'a dyn View,
    pub(super) now: Instant,
    seen: &'a Arc<Value>,
    /// The deployment as it shall be: its annotations and its status.
    pub(super) next: Value,
    /// The set of its template.
    pub(super) new: Option<ReplicaSet>,
    /// The others, oldest first.
    pub(super) old: Vec<ReplicaSet>,
    pub(super) events: Vec<Write>,
    /// Sets that are not needed any more.
    obsolete: Vec<Write>,
}

/// Whether a set that is missing may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Leave,
}

/// How far the status goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// With the progress of the rollout.
    Judged,
    /// The counts.
    Ignored,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        view: &'a dyn View,
        now: Instant,
        deployment: &'a Arc<Value>,
        sets: &[Arc<Value>],
    ) -> Self {
        let mut old: Vec<ReplicaSet> = sets.iter().map(ReplicaSet::seen).collect();
        old.sort_by(|one, two| one.age().cmp(&two.age()));
        let template = &deployment["spec"]["template"];
        let new = old
            .iter()
            .position(|set| same_template(&set.next["spec"]["template"], template));
        Self {
            view,
            now,
            seen: deployment,
            next: (**deployment).clone(),
            new: new.map(|index| old.remove(index)),
            old,
            events: Vec::new(),
            obsolete: Vec::new(),
        }
    }

    pub(super) fn plan(mut self) -> Plan {
        if object::is_deleted(&self.next) {
            return match self.update_new(Missing::Leave) {
                Ok(()) => self.finish(Progress::Ignored),
                Err(Collision) => self.write(),
            };
        }
        self.note_pause();
        let is_paused = self.next["spec"]["paused"] == true;
        if !is_paused && let Some(revision) = self.rollback_to() {
            return self.roll_back(revision);
        }
        let rolled = if is_paused || self.is_scaled() {
            self.resize(is_paused)
        } else if self.is_rolling() {
            self.roll()
        } else {
            self.recreate()
        };
        match rolled {
            Ok(progress) => self.finish(progress),
            Err(Collision) => self.write(),
        }
    }

    pub(super) fn replicas(&self) -> i64 {
        replicas(&self.next)
    }

    pub(super) fn is_rolling(&self) -> bool {
        self.next["spec"]["strategy"]["type"] == "RollingUpdate"
    }

    /// Pods over and under the number that was asked for, at most, while they are replaced.
    fn slack(&self) -> (i64, i64) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let limits = &self.next["spec"]["strategy"]["rollingUpdate"];
        let limit = |field: &str, rounding| {
            pods::scaled(&limits[field], self.replicas(), rounding).unwrap_or_default()
        };
        let surge = limit("maxSurge", Rounding::Up);
        match limit("maxUnavailable", Rounding::Down) {
            // Neither: a surge might not fit into a quota, so one pod less it is.
            0 if surge == 0 => (0, 1),
            unavailable => (surge, unavailable),
        }
    }

    pub(super) fn max_surge(&self) -> i64 {
        self.slack().0
    }

    pub(super) fn max_unavailable(&self) -> i64 {
        self.slack().1.min(self.replicas())
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// How many pods the sets shall have.
    pub(super) fn total(&self) -> i64 {
        self.sets().map(ReplicaSet::replicas).sum()
    }

    /// Brings the set of the template up to date, and the deployment's revision with it.
    pub(super) fn update_new(&mut self, missing: Missing) -> Result<(), Collision> {
        let revisions = self.old.iter().filter_map(ReplicaSet::revision);
        let revision = revisions.max().unwrap_or_default().max(0) + 1;
        if self.new.is_none() && missing == Missing::Make {
            self.make(revision)?;
        }
        let Some(new) = &mut self.new else {
            return Ok(());
        };
        let is_found = new.seen.is_some();
        annotations::hand_on(&self.next, &mut new.next);
        annotations::advance(new, revision);
        let own = object::number(&new.next["spec"]["minReadySeconds"]);
        let wanted = object::number(&self.next["spec"]["minReadySeconds"]);
        if own != wanted {
            new.next["spec"]["minReadySeconds"] = wanted.into();
        }
        if let Some(revision) = object::annotation(&new.next, annotations::REVISION) {
            let revision = revision.to_owned();
            self.next["metadata"]["annotations"][annotations::REVISION] = revision.into();
        }
        let name = new.name();
        let (reason, message) = match is_found {
            true => (
                "FoundNewReplicaSet",
                format!("Found new replica set {name:?}"),
            ),
            false => (
                "NewReplicaSetCreated",
                format!("Created new replica set {name:?}"),
            ),
        };
        let is_noted = object::condition(&self.next, "Progressing").is_some();
        if has_progress_deadline(&self.next) && !(is_found && is_noted) {
            let condition = status::condition("Progressing", "True", reason, &message, self.now);
            status::set_condition(&mut self.next["status"], condition);
        }
        Ok(())
    }

    /// Makes the set of the template. Its name may be taken by a set that is another: then
    /// the next look tries another name.
    fn make(&mut self, revision: i64) -> Result<(), Collision> {
        let template = &self.next["spec"]["template"];
        let collisions = self.next["status"]["collisionCount"].as_i64();
        let hash = hash::name_of(template, collisions);
        let owner = object::name(&self.next);
        let end = owner.len().min(MAX_NAME_BYTES - 1 - hash.len());
        let name = format!("{}-{hash}", owner.get(..end).unwrap_or(owner));
        let namespace = object::namespace(&self.next);
        if self.view.get(REPLICA_SETS, namespace, &name).is_some() {
            let count = collisions.unwrap_or_default() + 1;
            self.next["status"]["collisionCount"] = count.into();
            return Err(Collision);
        }
        let template = with_hash(template.clone(), &["metadata", "labels"], &hash);
        let selector = self.next["spec"]["selector"].clone();
        let set = json!({
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [object::controller_reference(DEPLOYMENTS, &self.next)],
            },
            "spec": {
                "replicas": 0,
                "selector": with_hash(selector, &["matchLabels"], &hash),
                "template": template,
            },
        });
        let mut new = ReplicaSet {
            seen: None,
            next: set,
        };
        let size = self.new_size(&new);
        new.next["spec"]["replicas"] = size.into();
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.tell_of_scaling(message);
        }
        annotations::hand_on(&self.next, &mut new.next);
        annotations::advance(&mut new, revision);
        let desired = self.replicas();
        annotations::note_size(&mut new, desired, desired + self.max_surge());
        self.new = Some(new);
        Ok(())
    }

    pub(super) fn tell_of_scaling(&mut self, message: String) {
        let event = Write::event(DEPLOYMENTS, self.seen, "ScalingReplicaSet", message);
        self.events.push(event);
    }

    /// Replaces pods a few at a time.
    fn roll(&mut self) -> Result<Progress, Collision> {
        self.update_new(Missing::Make)?;
        if !self.grow_new() && !self.shrink_old() {
            self.clean_up_if_complete();
        }
        Ok(Progress::Judged)
    }

    /// Removes all pods, and only then makes others.
    fn recreate(&mut self) -> Result<Progress, Collision> {
        self.update_new(Missing::Leave)?;
        let mut has_shrunk = false;
        for index in 0..self.old.len() {
            has_shrunk |= self.scale_old(index, 0);
        }
        if has_shrunk || self.has_old_pods() {
            return Ok(Progress::Judged);
        }
        if self.new.is_none() {
            self.update_new(Missing::Make)?;
        }
        self.scale_new(self.replicas());
        self.clean_up_if_complete();
        Ok(Progress::Judged)
    }

    fn has_old_pods(&self) -> bool {
        let namespace = object::namespace(&self.next);
        self.old.iter().any(|set| {
            let own = Within::Controlled(namespace, object::uid(&set.next));
            let mut pods = self.view.list(PODS, own).into_iter();
            set.count("replicas") > 0 || pods.any(|pod| !object::is_finished(&pod))
        })
    }

    /// Scales without rolling on.
    fn resize(&mut self, is_paused: bool) -> Result<Progress, Collision> {
        self.update_new(Missing::Leave)?;
        self.scale();
        if is_paused && self.rollback_to().is_none() {
            self.clean_up();
        }
        Ok(Progress::Ignored)
    }

    /// Whether another number of pods is asked for than when the sets were last scaled.
    fn is_scaled(&self) -> bool {
        let active = self.sets().filter(|set| set.is_active());
        let mut desired = active.filter_map(ReplicaSet::desired);
        desired.any(|desired| desired != self.replicas())
    }

    fn note_pause(&mut self) {
        if !has_progress_deadline(&self.next) {
            return;
        }
        let progress = object::condition(&self.next, "Progressing");
        let reason = progress.and_then(|own| own["reason"].as_str());
        let is_paused = self.next["spec"]["paused"] == true;
        let (reason, message) = match (reason, is_paused) {
            (Some("DeploymentPaused"), false) => ("DeploymentResumed", "Deployment is resumed"),
            (Some("ProgressDeadlineExceeded"), _)
            | (Some("DeploymentPaused"), true)
            | (_, false) => return,
            (_, true) => ("DeploymentPaused", "Deployment is paused"),
        };
        let condition = status::condition("Progressing", "Unknown", reason, message, self.now);
        status::set_condition(&mut self.next["status"], condition);
    }

    fn clean_up_if_complete(&mut self) {
        if status::is_complete(&self.next, &self.next["status"]) {
            self.clean_up();
        }
    }

    /// Removes the oldest sets that no rollback may need.
    fn clean_up(&mut self) {
        let limit = self.next["spec"]["revisionHistoryLimit"].as_i64();
        let Some(limit) = limit.filter(|limit| *limit != super::NO_LIMIT) else {
            return;
        };
        let mut past: Vec<&ReplicaSet> = self.old.iter().collect();
        past.retain(|set| !object::is_deleted(&set.next));
        past.sort_by_key(|set| (set.revision().unwrap_or_default(), set.age()));
        let over = past
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or_default());
        let is_unused = |set: &&&ReplicaSet| {
            let generation = object::number(&set.next["metadata"]["generation"]);
            !set.is_active()
                && set.count("replicas") == 0
                && generation <= set.count("observedGeneration")
        };
        let unused = past.iter().take(over).filter(is_unused);
        self.obsolete = unused
            .map(|set| Write::delete(REPLICA_SETS, &set.next))
            .collect();
    }

    fn finish(mut self, progress: Progress) -> Plan {
        let mut again = None;
        let next = match progress {
            Progress::Ignored => status::counted(&self),
            Progress::Judged => {
                let next = status::judged(&self);
                again = status::next_check(&self.next, &next, self.now);
                next
            }
        };
        self.next["status"] = next;
        let mut plan = self.write();
        plan.again_in = again;
        plan
    }

    /// Whether everything is as it shall be.
    pub(super) fn is_settled(&self) -> bool {
        self.next == **self.seen && !self.sets().any(ReplicaSet::is_changed)
    }

    /// The plan that makes everything as it shall be.
    pub(super) fn write(self) -> Plan {
        let mut plan = Plan::default();
        let (mut made, mut changed) = (Vec::new(), Vec::new());
        let sets = self.old.into_iter().chain(self.new);
        for set in sets.filter(ReplicaSet::is_changed) {
            match set.seen {
                None => made.push(Write::create(REPLICA_SETS, set.next)),
                Some(_) => changed.push(Write::update(REPLICA_SETS, set.next)),
            }
        }
        plan.together(made);
        plan.together(changed);
        plan.together(self.events);
        plan.together(self.obsolete);
        if self.next != **self.seen {
            plan.then(Write::status(DEPLOYMENTS, self.next));
        }
        plan
    }
}

/// The name for a new set is taken; the next one is noted in the status.
#[derive(Debug)]
pub(super) struct Collision;
