//! Whether the roles of a writer allow a write, where nobody has asked before: the leader's
//! controllers come here without a request that was judged.
//!
//! Invariants
//! - It is asked before anything is read or admitted, as of a request.
//! - Rules that were just made are waited for once; a refusal that stands costs no time.
//! - A refusal is told in the log once, and again only after it was lifted wherever it stood.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nautilus_access::Attributes;
use nautilus_machinery::identity::User;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::write::Writer;
use super::{Storage, Target};
use crate::access::Access;
use crate::failure::Failure;

/// How long rules may be on their way: those of a new quorum are made when its first term begins.
const PATIENCE: Duration = Duration::from_secs(2);
/// Namespaces that one refusal is remembered of.
const MAX_NAMESPACES: usize = 1_024;
/// Between two looks at the rules.
const POLL: Duration = Duration::from_millis(10);

/// Who decides, and what was refused.
pub(super) struct Rights {
    access: Arc<Access>,
    /// In which namespaces, by user, verb and kind: as many as controllers and their kinds.
    refused: Mutex<BTreeMap<Right, BTreeSet<String>>>,
}

/// User, verb, and kind with its group.
type Right = (String, String, String);

impl Storage {
    /// The same store, whose writers need roles for what they write.
    pub(crate) fn by_role(self, access: Arc<Access>) -> Self {
        let rights = Rights {
            access: access.clone(),
            refused: Mutex::default(),
        };
        Self {
            rights: Some(Arc::new(rights)),
            ..self.guarded(access)
        }
    }

    pub(super) async fn allow_update(
        &self,
        target: &Target<'_>,
        writer: &Writer<'_>,
    ) -> Result<(), Failure> {
        let verb = self.verb.unwrap_or("update");
        self.allow(verb, target, writer).await
    }

    pub(super) async fn allow_delete(
        &self,
        target: &Target<'_>,
        writer: &Writer<'_>,
    ) -> Result<(), Failure> {
        if !self.evicting {
            return self.allow("delete", target, writer).await;
        }
        let eviction = Target {
            subresource: Some("eviction"),
            ..*target
        };
        self.allow("create", &eviction, writer).await
    }

    /// Refuses what the writer's roles do not allow.
    pub(super) async fn allow(
        &self,
        verb: &str,
        target: &Target<'_>,
        writer: &Writer<'_>,
    ) -> Result<(), Failure> {
        let Some(rights) = self.rights.as_ref().filter(|_| !writer.user.is_master()) else {
            return Ok(());
        };
        let resource = target.resource;
        let asked = Attributes {
            verb: verb.to_owned(),
            is_resource: true,
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.plural.clone(),
            subresource: target.subresource.unwrap_or_default().to_owned(),
            namespace: target.asked_namespace().unwrap_or_default().to_owned(),
            name: target.name.to_owned(),
            ..Attributes::default()
        };
        rights.judge(writer.user, &asked).await
    }
}

impl Rights {
    async fn judge(&self, user: &User, asked: &Attributes) -> Result<(), Failure> {
        self.access.ready(user).await;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(judged) = self.look(user, asked, Instant::now() >= until) {
                return judged;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `None`: nothing is said before it `is_late`.
    fn look(&self, user: &User, asked: &Attributes, is_late: bool) -> Option<Result<(), Failure>> {
        let decision = self.access.authorize(user, asked);
        let mut refused = self.refused.lock();
        if decision.is_allowed() && refused.is_empty() {
            return Some(Ok(()));
        }
        let kind = format!("{}.{}", asked.combined_resource(), asked.group);
        let right = (user.name.clone(), asked.verb.clone(), kind);
        if decision.is_allowed() {
            lift(&mut refused, &right, &asked.namespace);
            return Some(Ok(()));
        }
        let is_known = refused.contains_key(&right);
        if !is_known && !is_late {
            return None;
        }
        let namespaces = refused.entry(right).or_default();
        if namespaces.len() < MAX_NAMESPACES {
            namespaces.insert(asked.namespace.clone());
        }
        let refusal = asked.forbidden(user, decision.reason());
        if !is_known {
            tracing::warn!(error = %refusal, "a role does not allow a controller's work");
        }
        Some(Err(refusal.into()))
    }
}

/// Forgets a refusal once no namespace is left of it.
fn lift(refused: &mut BTreeMap<Right, BTreeSet<String>>, right: &Right, namespace: &str) {
    let Some(namespaces) = refused.get_mut(right) else {
        return;
    };
    namespaces.remove(namespace);
    if namespaces.is_empty() {
        refused.remove(right);
    }
}
