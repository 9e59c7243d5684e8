//! Lists and watches over random histories, compared with a model that keeps everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::solo::SoloKv;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Command, Kv, Operation, Proposal, Put, Revision, Txn, UnixMillis};
use nautilus_machinery::resource::{self, Resource};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Caches, Keyed as _};
use crate::context::RequestLimits;
use crate::options::ListOptions;
use crate::storage::{Listed, Storage};
use crate::watch::{Ground, Session, WireEvent};

const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
const NODES: [&str; 3] = ["", "n1", "n2"];
const LABELS: [&str; 3] = ["", "x", "y"];
/// Long enough for anything that should happen at all.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
enum Act {
    Put {
        pod: usize,
        node: usize,
        label: usize,
    },
    Delete {
        pod: usize,
    },
    /// A revision that has nothing of the kind.
    Elsewhere,
    Compact,
    List(Query),
    /// The next page of the list that was begun last.
    Page,
    /// From so many revisions back; `None`: from the present state.
    Watch(Query, Option<u64>),
    /// Lets a watch catch up.
    Read(usize),
}

/// What is asked for; `None`: whatever.
#[derive(Debug, Clone, Default)]
struct Query {
    namespace: Option<usize>,
    node: Option<usize>,
    label: Option<usize>,
    limit: Option<u64>,
}

impl Query {
    fn uri(&self, more: &str) -> http::Uri {
        let node = self
            .node
            .map(|node| format!("fieldSelector=spec.nodeName%3D{}&", NODES[node]));
        let label = self.label.map(|label| match LABELS[label] {
            "" => "labelSelector=!app&".to_owned(),
            label => format!("labelSelector=app%3D{label}&"),
        });
        let limit = self.limit.map(|limit| format!("limit={limit}&"));
        let parts = [node, label, limit].map(Option::unwrap_or_default).concat();
        format!("/?{parts}{more}").parse().expect("a URI")
    }

    fn namespace(&self) -> Option<&'static str> {
        self.namespace.map(|namespace| NAMESPACES[namespace])
    }

    fn selects(&self, key: &str, object: &Value) -> bool {
        let label = object["metadata"]["labels"]["app"]
            .as_str()
            .unwrap_or_default();
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        self.namespace()
            .is_none_or(|own| key.split('/').next() == Some(own))
            && self.node.is_none_or(|own| NODES[own] == node)
            && self.label.is_none_or(|own| LABELS[own] == label)
    }
}

fn any_query() -> impl Strategy<Value = Query> {
    use proptest::option::of;
    let limit = of(1_u64..5);
    (of(0_usize..3), of(0_usize..3), of(0_usize..3), limit).prop_map(
        |(namespace, node, label, limit)| Query {
            namespace,
            node,
            label,
            limit,
        },
    )
}

fn any_act() -> impl Strategy<Value = Act> {
    let put = (0_usize..12, 0_usize..3, 0_usize..3).prop_map(|(pod, node, label)| Act::Put {
        pod,
        node,
        label,
    });
    prop_oneof![
        10 => put,
        4 => (0_usize..12).prop_map(|pod| Act::Delete { pod }),
        2 => Just(Act::Elsewhere),
        1 => Just(Act::Compact),
        3 => any_query().prop_map(Act::List),
        3 => Just(Act::Page),
        2 => (any_query(), proptest::option::of(0_u64..60)).prop_map(|(query, back)| Act::Watch(query, back)),
        2 => (0_usize..8).prop_map(Act::Read),
    ]
}

/// An event as a client sees it.
type Seen = (&'static str, String, Revision, Value);

/// Everything that ever was.
#[derive(Default)]
struct Model {
    changes: Vec<(Revision, String, Option<Value>)>,
}

impl Model {
    fn state(&self, at: Revision) -> BTreeMap<String, (Revision, Value)> {
        let mut state = BTreeMap::new();
        for (revision, key, object) in self.changes.iter().filter(|change| change.0 <= at) {
            match object {
                Some(object) => state.insert(key.clone(), (*revision, object.clone())),
                None => state.remove(key),
            };
        }
        state
    }

    fn events(&self, query: &Query, after: Revision) -> Vec<Seen> {
        let (mut state, mut seen) = (BTreeMap::<String, Value>::new(), Vec::new());
        for (revision, key, object) in &self.changes {
            let before = match object {
                Some(object) => state.insert(key.clone(), object.clone()),
                None => state.remove(key),
            };
            let selected = |object: &Value| query.selects(key, object);
            let was = before.clone().filter(|object| selected(object));
            let is = object.clone().filter(|object| selected(object));
            let event = match (was, is) {
                (None, None) => continue,
                (None, Some(object)) => ("ADDED", object),
                (Some(_), Some(object)) => ("MODIFIED", object),
                (Some(object), None) => ("DELETED", object),
            };
            if *revision > after {
                seen.push((event.0, key.clone(), *revision, event.1));
            }
        }
        seen
    }
}

/// A client's watch: it resumes after the last version it saw when it is ended.
struct Client {
    query: Query,
    /// Where it first began, and what it has seen since.
    began: Revision,
    seen: Vec<Seen>,
    session: Option<Session>,
    expired: bool,
}

struct World {
    kv: Arc<dyn Kv>,
    caches: Caches,
    limits: RequestLimits,
    shutdown: CancellationToken,
    resource: Arc<Resource>,
    model: Model,
    clients: Vec<Client>,
    /// Query, revision, token and what was listed so far of the list begun last.
    list: Option<(Query, Revision, String, Vec<String>)>,
    number: u64,
}

impl World {
    fn new() -> Self {
        let kv: Arc<dyn Kv> = Arc::new(SoloKv::new(|| UnixMillis(1)));
        let shutdown = CancellationToken::new();
        Self {
            caches: Caches::new(kv.clone(), shutdown.clone()),
            kv,
            limits: RequestLimits::default(),
            shutdown,
            resource: resource::find("", "v1", "pods").expect("served").clone(),
            model: Model::default(),
            clients: Vec::new(),
            list: None,
            number: 0,
        }
    }

    async fn write(&self, operation: Operation) -> Revision {
        let command = Command::Txn(Txn {
            compare: Vec::new(),
            then: vec![operation],
            otherwise: Vec::new(),
        });
        let applied = self.kv.propose(Proposal::new(command)).await;
        applied.expect("applied").revision
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Put { pod, node, label } => self.put(pod, node, label).await,
            Act::Delete { pod } => {
                let (namespace, name) = place(pod);
                let key = format!("{namespace}/{name}");
                let present = self.model.state(Revision::MAX).contains_key(&key);
                let range = KeyRange::single(self.resource.key(Some(namespace), &name));
                let delete = Operation::Delete {
                    range,
                    prev_kv: false,
                };
                let revision = self.write(delete).await;
                if present {
                    self.model.changes.push((revision, key, None));
                }
            }
            Act::Elsewhere => {
                self.write(Operation::Put(Put::new("elsewhere", "x"))).await;
            }
            Act::Compact => {
                // Watches that stand far back may lose what they have not read yet.
                let revision = self.kv.revision();
                let compact = Proposal::new(Command::Compact { revision });
                self.kv.propose(compact).await.expect("applied");
            }
            Act::List(query) => self.begin_list(query).await,
            Act::Page => self.next_page().await,
            Act::Watch(query, back) => self.watch(query, back).await,
            Act::Read(client) => {
                if client < self.clients.len() {
                    self.read(client).await;
                }
            }
        }
    }

    async fn put(&mut self, pod: usize, node: usize, label: usize) {
        self.number += 1;
        let (namespace, name) = place(pod);
        let mut object = json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace},
            "spec": {"number": self.number},
        });
        if !LABELS[label].is_empty() {
            object["metadata"]["labels"] = json!({ "app": LABELS[label] });
        }
        if !NODES[node].is_empty() {
            object["spec"]["nodeName"] = NODES[node].into();
        }
        let key = self.resource.key(Some(namespace), &name);
        let revision = self
            .write(Operation::Put(Put::new(key, object.to_string())))
            .await;
        self.model
            .changes
            .push((revision, format!("{namespace}/{name}"), Some(object)));
    }

    async fn list(
        &self,
        query: &Query,
        more: &str,
    ) -> Result<(Vec<(String, Value)>, Revision, Option<String>, Option<u64>), u16> {
        let options = ListOptions::parse(&query.uri(more), &self.resource, false).expect("options");
        let storage = Storage::new(self.kv.clone());
        let listed = storage
            .list_cached(&self.caches, &self.resource, query.namespace(), &options)
            .await;
        match listed.map_err(|failure| failure.error.code())? {
            Listed::Entries(page) => {
                let items = page.entries.iter().map(|entry| {
                    let object = entry.object(entry.revision());
                    (
                        entry.key().to_owned(),
                        object.unwrap_or_else(|failure| panic!("{}", failure.error)),
                    )
                });
                Ok((
                    items.collect(),
                    page.revision,
                    page.continue_token,
                    page.remaining,
                ))
            }
            Listed::Objects(page) => {
                let items = page.items.into_iter().map(|object| {
                    let text = |field: &str| {
                        object["metadata"][field]
                            .as_str()
                            .unwrap_or_default()
                            .to_owned()
                    };
                    (format!("{}/{}", text("namespace"), text("name")), object)
                });
                Ok((
                    items.collect(),
                    page.revision,
                    page.continue_token,
                    page.remaining,
                ))
            }
        }
    }

    async fn begin_list(&mut self, query: Query) {
        let before = self.kv.revision();
        let (items, revision, token, remaining) = self.list(&query, "").await.expect("listed");
        assert!(
            revision >= before,
            "the list is older than what was acknowledged"
        );
        let wanted = self.selected(&query, revision);
        if query.limit.is_none() {
            assert_eq!(items.len(), wanted.len());
        }
        if let Some(remaining) = remaining {
            assert_eq!(remaining as usize, wanted.len() - items.len());
        }
        self.check_page(&items, &wanted, revision);
        self.list = token.map(|token| {
            (
                query,
                revision,
                token,
                items.into_iter().map(|(key, _)| key).collect(),
            )
        });
    }

    async fn next_page(&mut self) {
        let Some((query, revision, token, mut before)) = self.list.take() else {
            return;
        };
        match self.list(&query, &format!("continue={token}")).await {
            Ok((items, at, token, _)) => {
                assert_eq!(at, revision, "all pages show one revision");
                let wanted = self.selected(&query, revision);
                let rest: Vec<_> = wanted
                    .into_iter()
                    .filter(|(key, _)| !before.contains(key))
                    .collect();
                self.check_page(&items, &rest, revision);
                if token.is_none() {
                    assert_eq!(items.len(), rest.len(), "the last page ends the list");
                }
                before.extend(items.into_iter().map(|(key, _)| key));
                self.list = token.map(|token| (query, revision, token, before));
            }
            Err(code) => {
                assert_eq!(code, 410);
                assert!(
                    revision < self.kv.compacted_revision(),
                    "nothing was compacted"
                );
            }
        }
    }

    fn selected(&self, query: &Query, at: Revision) -> Vec<(String, (Revision, Value))> {
        let state = self.model.state(at).into_iter();
        state
            .filter(|(key, (_, object))| query.selects(key, object))
            .collect()
    }

    /// The page is the beginning of what is wanted.
    fn check_page(
        &self,
        items: &[(String, Value)],
        wanted: &[(String, (Revision, Value))],
        at: Revision,
    ) {
        for ((key, object), (wanted_key, (revision, wanted))) in items.iter().zip(wanted) {
            assert_eq!(key, wanted_key, "at {at}");
            let mut wanted = wanted.clone();
            wanted["metadata"]["resourceVersion"] = revision.to_string().into();
            assert_eq!(object, &wanted);
        }
        assert!(items.len() <= wanted.len());
    }

    async fn watch(&mut self, query: Query, back: Option<u64>) {
        let now = self.kv.revision();
        let mut client = Client {
            query,
            began: back.map_or(now, |back| now.saturating_sub(back).max(1)),
            seen: Vec::new(),
            session: None,
            expired: false,
        };
        if back.is_none() {
            let options = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                           &allowWatchBookmarks=true";
            let mut session = self.open(&client.query, options).await;
            let mut initial = Vec::new();
            client.began = 'state: loop {
                for event in within(session.next()).await.expect("the watch goes on") {
                    match event {
                        WireEvent::Object(told) => initial.push(seen(&told)),
                        WireEvent::Bookmark {
                            revision,
                            initial_events_end: true,
                        } => {
                            break 'state revision;
                        }
                        _ => panic!("an event of another kind"),
                    }
                }
            };
            assert!(
                client.began >= now,
                "the state is older than what was acknowledged"
            );
            let wanted = self.selected(&client.query, client.began).into_iter();
            let wanted = wanted.map(|(key, (revision, object))| ("ADDED", key, revision, object));
            assert_eq!(initial, wanted.collect::<Vec<_>>());
            client.session = Some(session);
        } else if client.began >= self.kv.compacted_revision() {
            let options = format!("resourceVersion={}", client.began);
            client.session = Some(self.open(&client.query, &options).await);
        }
        self.clients.push(client);
    }

    async fn open(&self, query: &Query, more: &str) -> Session {
        let uri = query.uri(&format!("{more}&watch=true"));
        let options = ListOptions::parse(&uri, &self.resource, true).expect("options");
        let permit = Arc::new(Semaphore::new(1))
            .acquire_owned()
            .await
            .expect("open");
        let ground = Ground {
            kv: &self.kv,
            caches: &self.caches,
            limits: &self.limits,
            shutdown: &self.shutdown,
        };
        let session = Session::open(
            ground,
            &self.resource,
            query.namespace(),
            &options,
            permit,
            None,
        )
        .await;
        session.unwrap_or_else(|failure| panic!("{}", failure.error))
    }

    /// Reads a watch until it has shown everything there is, as a client does: one that is
    /// ended goes on after the last version it saw.
    async fn read(&mut self, at: usize) {
        let mut client = self.clients.remove(at);
        let wanted = self.model.events(&client.query, client.began);
        while client.seen.len() < wanted.len() && !client.expired {
            let after = client.seen.last().map_or(client.began, |seen| seen.2);
            let mut session = match client.session.take() {
                Some(session) => session,
                None => {
                    self.open(&client.query, &format!("resourceVersion={after}"))
                        .await
                }
            };
            let Some(events) = within(session.next()).await else {
                continue;
            };
            for event in events {
                match event {
                    WireEvent::Object(told) => client.seen.push(seen(&told)),
                    WireEvent::Bookmark { .. } => {}
                    WireEvent::Error(error) => {
                        assert_eq!(error.code(), 410);
                        assert!(after <= self.kv.compacted_revision(), "{after} is there");
                        client.expired = true;
                    }
                }
            }
            client.session = Some(session);
        }
        let length = client.seen.len().min(wanted.len());
        assert_eq!(
            client.seen,
            wanted[..length],
            "{:?} after {}",
            client.query,
            client.began
        );
        if !client.expired {
            self.clients.insert(at, client);
        }
    }
}

fn seen(told: &crate::watch::Told) -> Seen {
    let object = told.entry.object(told.revision);
    let mut object = object.unwrap_or_else(|failure| panic!("{}", failure.error));
    let version = crate::storage::take_version(&mut object);
    assert_eq!(version, told.revision.to_string());
    (
        told.happened.as_str(),
        told.entry.key().to_owned(),
        told.revision,
        object,
    )
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.expect("it happens in time")
}

/// Twelve pods in three namespaces, two of which begin alike.
fn place(pod: usize) -> (&'static str, String) {
    (NAMESPACES[pod % 3], format!("pod-{}", pod / 3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn lists_and_watches_are_those_of_a_model_that_keeps_everything(
        acts in proptest::collection::vec(any_act(), 1..160),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new();
            for act in acts {
                world.act(act).await;
            }
            // Everything that was begun comes to its end.
            world.put(0, 1, 1).await;
            for client in (0..world.clients.len()).rev() {
                world.read(client).await;
            }
            while world.list.is_some() {
                world.next_page().await;
            }
        });
    }
}
