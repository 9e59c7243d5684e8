//! Going back to an earlier template, as the annotation of old clients asks.

use serde_json::Value;

use super::rollout::{Missing, Rollout};
use super::set::ReplicaSet;
use super::{TEMPLATE_HASH, annotations, same_template};
use crate::kind::DEPLOYMENTS;
use crate::object;
use crate::plan::{Plan, Write};

const NOT_FOUND: &str = "DeploymentRollbackRevisionNotFound";

impl Rollout<'_> {
    /// The revision to go back to; 0: the one before.
    pub(super) fn rollback_to(&self) -> Option<i64> {
        object::annotation(&self.next, annotations::ROLLBACK_TO)?
            .parse()
            .ok()
    }

    /// Takes the template of a revision, which the next look rolls out.
    pub(super) fn roll_back(mut self, revision: i64) -> Plan {
        // First of all, the set of the present template stands.
        if self.update_new(Missing::Make).is_err() || !self.is_settled() {
            return self.write();
        }
        let revision = match revision {
            0 => self.last_revision(),
            revision => Some(revision),
        };
        let target = self.sets().find(|set| set.revision() == revision);
        let target = target.map(|set| set.next.clone());
        let event = match (revision, target) {
            (None, _) => self.refuse(NOT_FOUND, "Unable to find last revision.".to_owned()),
            (Some(_), None) => {
                let message = "Unable to find the revision to rollback to.";
                self.refuse(NOT_FOUND, message.to_owned())
            }
            (Some(revision), Some(set)) => self.take(&set, revision),
        };
        let own = self.next["metadata"]["annotations"].as_object_mut();
        if let Some(own) = own {
            own.remove(annotations::ROLLBACK_TO);
        }
        let mut plan = Plan::default();
        plan.then(Write::update(DEPLOYMENTS, self.next));
        plan.then(event);
        plan
    }

    /// The newest revision but one.
    fn last_revision(&self) -> Option<i64> {
        let mut revisions: Vec<i64> = self.sets().filter_map(ReplicaSet::revision).collect();
        revisions.sort_unstable();
        revisions
            .iter()
            .rev()
            .nth(1)
            .copied()
            .filter(|own| *own > 0)
    }

    fn take(&mut self, set: &Value, revision: i64) -> Write {
        let name = object::name(&self.next).to_owned();
        let mut template = set["spec"]["template"].clone();
        if same_template(&self.next["spec"]["template"], &template) {
            let message = format!(
                "The rollback revision contains the same template as current deployment {name:?}"
            );
            return self.refuse("DeploymentRollbackTemplateUnchanged", message);
        }
        let labels = template.pointer_mut("/metadata/labels");
        if let Some(labels) = labels.and_then(Value::as_object_mut) {
            labels.remove(TEMPLATE_HASH);
        }
        self.next["spec"]["template"] = template;
        annotations::hand_back(set, &mut self.next);
        let message = format!("Rolled back deployment {name:?} to revision {revision}");
        Write::event(DEPLOYMENTS, &self.next, "DeploymentRollback", message)
    }

    fn refuse(&self, reason: &'static str, message: String) -> Write {
        Write::warning(DEPLOYMENTS, &self.next, reason, message)
    }
}
