//! An API in memory whose followers lag, whose writes fail now and then, and the controller
//! that the tests drive by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use nautilus_machinery::timestamp::Instant;
use nautilus_planner::controller::{Change, Controller};
use nautilus_planner::kind::{self, Kind};
use nautilus_planner::object;
use nautilus_planner::plan::{Failed, NAME, Plan, Write};
use nautilus_planner::view::{Answer, Key, Question, Target, View, Within};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::events::EVENTS;
use crate::port::{Api, Body, Item, Told, Written};

struct Object(Value);

impl Body for Object {
    fn object(&self) -> Option<Value> {
        Some(self.0.clone())
    }
}

#[derive(Clone)]
struct Happened {
    kind: Kind,
    key: Key,
    revision: u64,
    object: Option<Value>,
}

struct State {
    objects: BTreeMap<(Kind, Key), (u64, Value)>,
    revision: u64,
}

/// See the module.
pub(crate) struct Fake {
    state: Mutex<State>,
    happened: broadcast::Sender<Happened>,
    /// From when on its clock goes, by tokio's time.
    begun: tokio::time::Instant,
    /// Draws lags and failures: xorshift.
    random: AtomicU64,
    /// Milliseconds that a follower may lag.
    lag_ms: u64,
    /// Of a hundred writes, so many fail.
    failing: u64,
    /// Objects of a namespace, at most.
    pub(crate) quota: usize,
    pub(crate) refused: AtomicU64,
}

impl Fake {
    pub(crate) fn new(seed: u64, lag_ms: u64, failing: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                objects: BTreeMap::new(),
                revision: 1,
            }),
            happened: broadcast::channel(1 << 16).0,
            begun: tokio::time::Instant::now(),
            random: AtomicU64::new(seed | 1),
            lag_ms,
            failing,
            quota: usize::MAX,
            refused: AtomicU64::new(0),
        })
    }

    pub(crate) fn with_quota(seed: u64, quota: usize) -> Arc<Self> {
        let mut fake = Self::new(seed, 1, 0);
        if let Some(fake) = Arc::get_mut(&mut fake) {
            fake.quota = quota;
        }
        fake
    }

    pub(crate) fn draw(&self, below: u64) -> u64 {
        let next = |mut x: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^ (x << 17)
        };
        let update = self
            .random
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| Some(next(x)));
        match below {
            0 => 0,
            below => update.unwrap_or_default() % below,
        }
    }

    pub(crate) fn put(&self, kind: Kind, mut object: Value) -> u64 {
        let mut state = self.state.lock();
        state.revision += 1;
        let revision = state.revision;
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{revision}").into();
        }
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = made(revision).into();
        }
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let key = Key::of(&object);
        state
            .objects
            .insert((kind, key.clone()), (revision, object.clone()));
        // Under the lock: what followers hear is in order.
        let _ = self.happened.send(Happened {
            kind,
            key,
            revision,
            object: Some(object),
        });
        revision
    }

    pub(crate) fn remove(&self, kind: Kind, key: &Key) -> u64 {
        let mut state = self.state.lock();
        state.revision += 1;
        let revision = state.revision;
        if state.objects.remove(&(kind, key.clone())).is_some() {
            let _ = self.happened.send(Happened {
                kind,
                key: key.clone(),
                revision,
                object: None,
            });
        }
        revision
    }

    /// The claim on devices at a path.
    fn claim_at(&self, path: &str) -> Option<Value> {
        let rest = path.strip_prefix("/apis/resource.k8s.io/v1/namespaces/")?;
        let (namespace, name) = rest.split_once("/resourceclaims/")?;
        let key = (kind::DEVICE_CLAIMS, Key::new(namespace, name));
        let state = self.state.lock();
        state.objects.get(&key).map(|own| own.1.clone())
    }

    pub(crate) fn all(&self, kind: Kind) -> Vec<Value> {
        let state = self.state.lock();
        let own = state.objects.iter().filter(|((own, _), _)| *own == kind);
        own.map(|(_, (_, object))| object.clone()).collect()
    }
}

/// The name that is drawn for what has none.
fn made(revision: u64) -> String {
    format!("made-{revision}")
}

fn item(key: &Key, revision: u64, object: &Value) -> Item {
    Item {
        key: key.clone(),
        revision,
        body: Arc::new(Object(object.clone())),
    }
}

fn failed(write: &Write, code: u16, reason: &str) -> Failed {
    Failed {
        write: write.clone(),
        code,
        reason: reason.to_owned(),
        message: reason.to_owned(),
        namespace_ends: false,
    }
}

impl Api for Arc<Fake> {
    fn follow(&self, kind: Kind) -> BoxStream<'static, Told> {
        let (begin, receiver) = {
            let state = self.state.lock();
            let own = state.objects.iter().filter(|((own, _), _)| *own == kind);
            let items = own.map(|((_, key), (at, object))| item(key, *at, object));
            (
                Told::Begin(items.collect(), state.revision),
                self.happened.subscribe(),
            )
        };
        let fake = self.clone();
        let rest = stream::unfold((receiver, fake), move |(mut receiver, fake)| async move {
            loop {
                let happened = receiver.recv().await.ok()?;
                if happened.kind != kind {
                    continue;
                }
                tokio::time::sleep(Duration::from_millis(fake.draw(fake.lag_ms))).await;
                let told = match &happened.object {
                    Some(object) => Told::Put(item(&happened.key, happened.revision, object)),
                    None => Told::Gone(happened.key, happened.revision),
                };
                return Some((told, (receiver, fake)));
            }
        });
        stream::once(async { begin }).chain(rest).boxed()
    }

    fn write<'a>(
        &'a self,
        _user: &'a str,
        write: &'a Write,
    ) -> BoxFuture<'a, Result<Written, Failed>> {
        async move {
            tokio::time::sleep(Duration::from_millis(self.draw(3))).await;
            if self.draw(100) < self.failing {
                return Err(failed(write, 500, "InternalError"));
            }
            let mut name = String::new();
            let revision = match write {
                Write::Create { kind, object } if *kind == EVENTS => {
                    self.put(*kind, object.clone())
                }
                Write::Create { kind, object } => {
                    if self.all(*kind).len() >= self.quota {
                        self.refused.fetch_add(1, Ordering::SeqCst);
                        return Err(failed(write, 403, "Forbidden"));
                    }
                    let revision = self.put(*kind, object.clone());
                    name = made(revision);
                    revision
                }
                Write::Delete(delete) => {
                    self.remove(delete.kind, &Key::new(&delete.namespace, &delete.name))
                }
                Write::Update {
                    kind,
                    subresource,
                    object,
                } => {
                    let key = (*kind, Key::of(object));
                    let own = self.state.lock().objects.get(&key).cloned();
                    let seen = object["metadata"]["resourceVersion"].as_str();
                    let Some((_, mut next)) = own.filter(|own| Some(&*own.0.to_string()) == seen)
                    else {
                        return Err(failed(write, 409, "Conflict"));
                    };
                    match subresource {
                        Some(part) => next[*part] = object[*part].clone(),
                        None => next = object.clone(),
                    }
                    self.put(*kind, next)
                }
                Write::Patch {
                    kind,
                    namespace,
                    name,
                    patch,
                    ..
                } => {
                    let key = Key::new(namespace, name);
                    let own = self.state.lock().objects.get(&(*kind, key)).cloned();
                    let Some((at, mut object)) = own else {
                        return Err(failed(write, 404, "NotFound"));
                    };
                    let asked = patch["metadata"]["resourceVersion"].as_str();
                    if asked.is_some_and(|asked| *asked != at.to_string()) {
                        return Err(failed(write, 409, "Conflict"));
                    }
                    nautilus_machinery::patch::merge(&mut object, patch);
                    self.put(*kind, object)
                }
                Write::Bind {
                    namespace,
                    name,
                    uid,
                    node,
                } => {
                    let key = (kind::PODS, Key::new(namespace, name));
                    let own = self.state.lock().objects.get(&key).cloned();
                    let Some((_, mut pod)) = own.filter(|own| object::uid(&own.1) == uid) else {
                        return Err(failed(write, 404, "NotFound"));
                    };
                    if !pod["spec"]["nodeName"].is_null() {
                        return Err(failed(write, 409, "Conflict"));
                    }
                    pod["spec"]["nodeName"] = node.as_str().into();
                    self.put(kind::PODS, pod)
                }
                other => panic!("the test's controller writes no {other:?}"),
            };
            Ok(Written { revision, name })
        }
        .boxed()
    }

    fn ask<'a>(&'a self, _user: &'a str, question: &'a Question) -> BoxFuture<'a, Answer> {
        let answer = match question {
            Question::Scale(target) => Ok(json!({"metadata": {"name": target.name}})),
            Question::Get(path) => {
                let found = self.claim_at(path);
                found.ok_or_else(|| (404, path.clone()))
            }
        };
        std::future::ready(answer).boxed()
    }

    fn now(&self) -> Instant {
        let since = i64::try_from(self.begun.elapsed().as_secs()).unwrap_or_default();
        Instant {
            seconds: 1_800_000_000 + since,
            nanoseconds: 0,
        }
    }
}

/// Keeps `spec.replicas` config maps for each set, and says in its status how many it saw
/// and how a creation failed. It counts, and expects nothing.
pub(crate) struct Keeper;

impl Controller for Keeper {
    fn name(&self) -> &'static str {
        "keeper"
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::REPLICA_SETS, kind::CONFIG_MAPS]
    }

    fn concerns(&self, _: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if change.kind == kind::REPLICA_SETS {
            keys.push(Key::of(change.object()));
        } else if let Some(owner) = object::controller(change.object()) {
            let name = owner["name"].as_str().unwrap_or_default();
            keys.push(Key::new(object::namespace(change.object()), name));
        }
    }

    fn asks(&self, view: &dyn View, key: &Key) -> Vec<Question> {
        let scale = Question::Scale(Target {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        });
        let about = view.answer(&scale).and_then(|answer| answer.as_ref().ok());
        let more = about.map(|own| Question::Get(format!("/{}", object::name(own))));
        more.into_iter().chain([scale]).collect()
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _: Instant) -> Plan {
        let mut plan = Plan::default();
        // Both rounds of its questions were answered.
        let path = Question::Get(format!("/{}", key.name));
        assert_eq!(
            view.answer(&path),
            Some(&Err((404, format!("/{}", key.name))))
        );
        let Some(set) = view.get(kind::REPLICA_SETS, &key.namespace, &key.name) else {
            return plan;
        };
        let children = view.list(
            kind::CONFIG_MAPS,
            Within::Controlled(&key.namespace, object::uid(&set)),
        );
        let wanted = set["spec"]["replicas"].as_u64().unwrap_or_default() as usize;
        let child = json!({"metadata": {
            "namespace": key.namespace,
            "ownerReferences": [object::controller_reference(kind::REPLICA_SETS, &set)],
        }});
        let missing = wanted.saturating_sub(children.len());
        let made = format!("Made {NAME}");
        let create =
            Write::create(kind::CONFIG_MAPS, child).told(kind::REPLICA_SETS, &set, "Made", made);
        plan.together(vec![create; missing]);
        let surplus = children.iter().skip(wanted);
        plan.together(
            surplus
                .map(|own| Write::delete(kind::CONFIG_MAPS, own))
                .collect(),
        );
        if set["status"]["seen"] != children.len() {
            let mut next = (*set).clone();
            next["status"] = json!({"seen": children.len()});
            plan.then(Write::update(kind::REPLICA_SETS, next));
        }
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        if let Some(set) = view.get(kind::REPLICA_SETS, &key.namespace, &key.name)
            && set["status"]["failed"] != failed.reason.as_str()
        {
            let mut next = (*set).clone();
            next["status"]["failed"] = failed.reason.as_str().into();
            plan.then(Write::update(kind::REPLICA_SETS, next));
        }
        plan
    }
}

pub(crate) fn set(name: &str, replicas: u64) -> Value {
    json!({"metadata": {"namespace": "n", "name": name}, "spec": {"replicas": replicas}})
}

/// Runs the keeper over `fake` for a time.
pub(crate) async fn run_for(fake: &Arc<Fake>, time: Duration) {
    let api: Arc<dyn Api> = Arc::new(fake.clone());
    let run = crate::run(api, vec![Box::new(Keeper)], None);
    let _ = tokio::time::timeout(time, run).await;
}

mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(fake: &Fake) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for child in fake.all(kind::CONFIG_MAPS) {
            let owner = object::controller(&child).expect("an owner");
            let name = owner["name"].as_str().expect("a name").to_owned();
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// However far followers lag, whatever fails, and wherever a leader is lost: as many
        /// children are made as are missing, and never one more.
        #[test]
        fn guard(seed in 1_u64.., lag_ms in 0_u64..200, failing in 0_u64..40, terms in 1_u64..4) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let fake = Fake::new(seed, lag_ms, failing);
                for (name, replicas) in [("a", 40), ("b", 3), ("c", 0)] {
                    fake.put(kind::REPLICA_SETS, set(name, replicas));
                }
                let mut told = fake.happened.subscribe();
                for _ in 1..terms {
                    run_for(&fake, Duration::from_millis(fake.draw(300))).await;
                }
                run_for(&fake, Duration::from_secs(3_600)).await;
                assert_eq!(counts(&fake), BTreeMap::from([("a".into(), 40), ("b".into(), 3)]));
                let mut made = 0;
                while let Ok(happened) = told.try_recv() {
                    assert!(
                        happened.kind != kind::CONFIG_MAPS || happened.object.is_some(),
                        "one too many was made, and removed again"
                    );
                    made += usize::from(happened.kind == kind::CONFIG_MAPS);
                }
                assert_eq!(made, 43);
                for set in fake.all(kind::REPLICA_SETS) {
                    assert_eq!(set["status"]["seen"], set["spec"]["replicas"]);
                }
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_quota_is_told_and_not_stormed() {
        let fake = Fake::with_quota(7, 5);
        fake.put(kind::REPLICA_SETS, set("a", 1_000));
        run_for(&fake, Duration::from_secs(3_600)).await;
        assert_eq!(counts(&fake)["a"], 5);
        let made = fake.all(kind::CONFIG_MAPS);
        let made = made.iter().map(|own| format!("Made {}", object::name(own)));
        let told = fake.all(EVENTS);
        let told = told
            .iter()
            .map(|own| own["message"].as_str().unwrap_or_default());
        assert_eq!(
            told.map(str::to_owned).collect::<BTreeSet<_>>(),
            made.collect::<BTreeSet<_>>(),
            "each is told of by its name, and nothing else"
        );
        assert_eq!(
            fake.all(kind::REPLICA_SETS)[0]["status"]["failed"],
            "Forbidden"
        );
        let refused = fake.refused.load(Ordering::SeqCst);
        assert!(refused < 100, "asked {refused} times in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_later_is_met_and_what_is_gone_is_let_go() {
        let fake = Fake::new(3, 20, 0);
        fake.put(kind::REPLICA_SETS, set("a", 4));
        let later = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let mut grown = fake.all(kind::REPLICA_SETS).remove(0);
            grown["spec"]["replicas"] = 9.into();
            fake.put(kind::REPLICA_SETS, grown);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(counts(&fake)["a"], 9);
            fake.remove(kind::REPLICA_SETS, &Key::new("n", "a"));
            tokio::time::sleep(Duration::from_secs(60)).await;
            let lost = Key::of(&fake.all(kind::CONFIG_MAPS)[0]);
            fake.remove(kind::CONFIG_MAPS, &lost);
        };
        tokio::join!(run_for(&fake, Duration::from_secs(300)), later);
        assert_eq!(counts(&fake)["a"], 8, "nobody keeps them any more");
    }
}
