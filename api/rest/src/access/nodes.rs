//! What nodes may do on this node's state. Followed from the first request of a kubelet
//! on: a quorum that has none pays nothing for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_access::node::{self, Graph, PodNeeds};
use nautilus_access::rbac::{RoleRow, Rule, bootstrap};
use nautilus_access::{Attributes, Decision};
use nautilus_machine::{Kv, Revision};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lister::{self, Place, Sink};

/// The role whose rules hold for what is not about single objects.
const ROLE: &str = "system:node";
/// Kinds by which nodes are decided about, beside pods.
const KINDS: [(&str, &str); 4] = [
    ("", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceslices"),
    ("certificates.k8s.io", "podcertificaterequests"),
];

/// The node authorizer of this node.
pub(super) struct Nodes {
    kv: Arc<dyn Kv>,
    shutdown: CancellationToken,
    graph: RwLock<Graph>,
    rules: Vec<Rule>,
    started: AtomicBool,
    /// How many of the kinds have not been read yet.
    unread: watch::Sender<usize>,
}

impl Nodes {
    pub(super) fn new(kv: &Arc<dyn Kv>, shutdown: &CancellationToken) -> Arc<Self> {
        let role = bootstrap::all().into_iter().find(|one| one.name == ROLE);
        let rules = role.and_then(|role| RoleRow::read(&role.object).ok());
        Arc::new(Self {
            kv: kv.clone(),
            shutdown: shutdown.clone(),
            graph: RwLock::default(),
            rules: rules.unwrap_or_default().rules,
            started: AtomicBool::new(false),
            unread: watch::Sender::new(1),
        })
    }

    /// Decides for nodes; has no opinion on others.
    pub(super) fn authorize(self: &Arc<Self>, user: &User, asked: &Attributes) -> Decision {
        if node::name_of(user).is_none() {
            return Decision::NoOpinion(String::new());
        }
        self.start();
        node::authorize(&self.graph.read(), &self.rules, user, asked)
    }

    /// Waits until everything has been read once, if `user` is a node.
    pub(super) async fn synced(self: &Arc<Self>, user: &User) {
        if node::name_of(user).is_some() {
            self.start();
            // The sender lives as long as `self`.
            let _ = self.unread.subscribe().wait_for(|left| *left == 0).await;
        }
    }

    fn start(self: &Arc<Self>) {
        if self.started.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(pods) = resource::find("", "v1", "pods") {
            self.unread.send_modify(|left| *left += 1);
            let sink: Arc<dyn Sink<Option<PodNeeds>>> = Arc::new(Part::new(self, "pods"));
            let read = |pod| Ok(PodNeeds::read(&pod));
            let shutdown = self.shutdown.clone();
            lister::follow(self.kv.clone(), pods.clone(), read, sink, shutdown);
        }
        for (group, plural) in KINDS {
            let Some(kind) = resource::find(group, "v1", plural) else {
                continue;
            };
            self.unread.send_modify(|left| *left += 1);
            let sink: Arc<dyn Sink<Value>> = Arc::new(Part::new(self, plural));
            let shutdown = self.shutdown.clone();
            lister::follow(self.kv.clone(), kind.clone(), Ok, sink, shutdown);
        }
        self.unread.send_modify(|left| *left -= 1);
    }
}

/// One of the kinds.
struct Part {
    nodes: Arc<Nodes>,
    plural: &'static str,
    /// What has been set, to unset it when everything is listed anew.
    known: parking_lot::Mutex<BTreeMap<Place, ()>>,
    synced: AtomicBool,
}

impl Part {
    fn new(nodes: &Arc<Nodes>, plural: &'static str) -> Self {
        Self {
            nodes: nodes.clone(),
            plural,
            known: parking_lot::Mutex::default(),
            synced: AtomicBool::new(false),
        }
    }

    fn apply<T>(
        &self,
        changes: Vec<(Place, Option<Arc<T>>)>,
        set: fn(&mut Graph, &str, &Place, Option<&T>),
    ) {
        let mut known = self.known.lock();
        let mut graph = self.nodes.graph.write();
        for (place, object) in changes {
            set(&mut graph, self.plural, &place, object.as_deref());
            match object {
                Some(_) => known.insert(place, ()),
                None => known.remove(&place),
            };
        }
    }

    fn replace<T>(
        &self,
        mut objects: BTreeMap<Place, Arc<T>>,
        set: fn(&mut Graph, &str, &Place, Option<&T>),
    ) {
        let mut changes: Vec<(Place, Option<Arc<T>>)> = Vec::new();
        for place in self.known.lock().keys() {
            changes.push((place.clone(), objects.remove(place)));
        }
        changes.extend(
            objects
                .into_iter()
                .map(|(place, object)| (place, Some(object))),
        );
        self.apply(changes, set);
        if !self.synced.swap(true, Ordering::Relaxed) {
            self.nodes.unread.send_modify(|left| *left -= 1);
        }
    }
}

fn set_pod(graph: &mut Graph, _: &str, place: &Place, needs: Option<&Option<PodNeeds>>) {
    graph.set_pod(&place.0, &place.1, needs.cloned().flatten());
}

fn set_object(graph: &mut Graph, plural: &str, place: &Place, object: Option<&Value>) {
    match plural {
        "persistentvolumes" => graph.set_volume(&place.1, object),
        plural => graph.set_owned(plural, &place.0, &place.1, object),
    }
}

impl Sink<Option<PodNeeds>> for Part {
    fn reset(&self, _: Revision, objects: BTreeMap<Place, Arc<Option<PodNeeds>>>) {
        self.replace(objects, set_pod);
    }

    fn change(&self, _: Revision, changes: Vec<(Place, Option<Arc<Option<PodNeeds>>>)>) {
        self.apply(changes, set_pod);
    }
}

impl Sink<Value> for Part {
    fn reset(&self, _: Revision, objects: BTreeMap<Place, Arc<Value>>) {
        self.replace(objects, set_object);
    }

    fn change(&self, _: Revision, changes: Vec<(Place, Option<Arc<Value>>)>) {
        self.apply(changes, set_object);
    }
}
