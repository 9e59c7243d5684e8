//! The rules of this node's state, kept as they change.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_access::rbac::{self, BindingRow, Policy, RoleRow};
use nautilus_machine::{Kv, Revision};
use nautilus_machinery::resource;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lister::{self, Place, Sink};

/// The rules in force on this node.
pub(super) struct Roles {
    policy: RwLock<Policy>,
    /// How many of the kinds have not been read yet.
    unread: watch::Sender<usize>,
}

impl Roles {
    /// Follows roles and bindings until `shutdown`.
    pub(super) fn start(kv: &Arc<dyn Kv>, shutdown: &CancellationToken) -> Arc<Self> {
        let roles = Arc::new(Self {
            policy: RwLock::default(),
            // One more until all of them are counted.
            unread: watch::Sender::new(1),
        });
        for namespaced in [false, true] {
            let sink = |bindings| Part {
                roles: roles.clone(),
                bindings,
                namespaced,
                synced: false.into(),
            };
            let (role, binding) = match namespaced {
                false => ("clusterroles", "clusterrolebindings"),
                true => ("roles", "rolebindings"),
            };
            if let Some(kind) = resource::find(rbac::GROUP, "v1", role) {
                roles.unread.send_modify(|left| *left += 1);
                let read = |object| RoleRow::read(&object);
                let sink: Arc<dyn Sink<RoleRow>> = Arc::new(sink(false));
                lister::follow(kv.clone(), kind.clone(), read, sink, shutdown.clone());
            }
            if let Some(kind) = resource::find(rbac::GROUP, "v1", binding) {
                roles.unread.send_modify(|left| *left += 1);
                let read = |object| BindingRow::read(&object);
                let sink: Arc<dyn Sink<BindingRow>> = Arc::new(sink(true));
                lister::follow(kv.clone(), kind.clone(), read, sink, shutdown.clone());
            }
        }
        roles.unread.send_modify(|left| *left -= 1);
        roles
    }

    pub(super) fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        // A decision may be asked for while the rules are being read for another one.
        self.policy.read_recursive()
    }

    /// Waits until every kind has been read once.
    pub(super) async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.unread.subscribe().wait_for(|left| *left == 0).await;
    }
}

/// One of the kinds.
struct Part {
    roles: Arc<Roles>,
    bindings: bool,
    namespaced: bool,
    synced: std::sync::atomic::AtomicBool,
}

impl Part {
    fn replace<T>(
        &self,
        objects: BTreeMap<Place, Arc<T>>,
        set: fn(&mut Policy, &Place, Option<Arc<T>>),
    ) {
        let mut policy = self.roles.policy.write();
        policy.clear(self.bindings, self.namespaced);
        for (place, object) in objects {
            set(&mut policy, &place, Some(object));
        }
        drop(policy);
        if !self.synced.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.roles.unread.send_modify(|left| *left -= 1);
        }
    }

    fn apply<T>(
        &self,
        changes: Vec<(Place, Option<Arc<T>>)>,
        set: fn(&mut Policy, &Place, Option<Arc<T>>),
    ) {
        let mut policy = self.roles.policy.write();
        for (place, object) in changes {
            set(&mut policy, &place, object);
        }
    }
}

fn set_role(policy: &mut Policy, (namespace, name): &Place, role: Option<Arc<RoleRow>>) {
    policy.set_role(namespace, name, role);
}

fn set_binding(policy: &mut Policy, (namespace, name): &Place, row: Option<Arc<BindingRow>>) {
    policy.set_binding(namespace, name, row);
}

impl Sink<RoleRow> for Part {
    fn reset(&self, _revision: Revision, objects: BTreeMap<Place, Arc<RoleRow>>) {
        self.replace(objects, set_role);
    }

    fn change(&self, _revision: Revision, changes: Vec<(Place, Option<Arc<RoleRow>>)>) {
        self.apply(changes, set_role);
    }
}

impl Sink<BindingRow> for Part {
    fn reset(&self, _revision: Revision, objects: BTreeMap<Place, Arc<BindingRow>>) {
        self.replace(objects, set_binding);
    }

    fn change(&self, _revision: Revision, changes: Vec<(Place, Option<Arc<BindingRow>>)>) {
        self.apply(changes, set_binding);
    }
}
