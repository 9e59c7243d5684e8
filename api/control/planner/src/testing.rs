//! Objects in memory for table tests, and a small cluster that carries plans out.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::patch;
use serde_json::{Value, json};

use crate::controller::{Change, Controller};
use crate::kind::Kind;
use crate::object;
use crate::plan::{NAME, Plan, Write};
use crate::view::{Answer, Key, Question, Target, View, Within};
use nautilus_machinery::timestamp::Instant;

/// Objects of any kinds.
#[derive(Default, Clone)]
pub(crate) struct Cluster {
    objects: BTreeMap<(Kind, Key), Arc<Value>>,
    version: u64,
    /// What the API answers.
    pub(crate) answers: BTreeMap<Question, Answer>,
    /// Scales that were written.
    pub(crate) scales: Vec<(Target, Value)>,
    /// Events that plans recorded: reason and message.
    pub(crate) events: Vec<(&'static str, String)>,
}

/// A moment of the tests' time: seconds after 2027-01-15T08:00:00Z.
pub(crate) fn at(seconds: i64) -> Instant {
    Instant {
        seconds: 1_800_000_000 + seconds,
        nanoseconds: 0,
    }
}

impl Cluster {
    /// Puts an object there, or another version of it. Fills in what an API server would:
    /// uid (`uid-N`), resourceVersion, a generated name, creationTimestamp.
    pub(crate) fn put(&mut self, kind: Kind, mut object: Value) -> Arc<Value> {
        self.version += 1;
        let metadata = &mut object["metadata"];
        if metadata["name"].is_null() {
            let prefix = metadata["generateName"].as_str().unwrap_or("x-").to_owned();
            metadata["name"] = format!("{prefix}{:05}", self.version).into();
        }
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{}", self.version).into();
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = object::time_field(at(0));
        }
        metadata["resourceVersion"] = self.version.to_string().into();
        let object = Arc::new(object);
        self.objects
            .insert((kind, Key::of(&object)), object.clone());
        object
    }

    /// Changes fields of an object by a merge patch, as its status's writer would.
    pub(crate) fn merge(&mut self, kind: Kind, key: &Key, change: &Value) -> Arc<Value> {
        let found = self.objects.get(&(kind, key.clone()));
        let mut object = (**found.expect("it is there")).clone();
        patch::merge(&mut object, change);
        self.put(kind, object)
    }

    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) {
        self.objects.remove(&(kind, key.clone()));
    }

    /// What a controller plans for a key.
    pub(crate) fn plan(&self, controller: &dyn Controller, key: &Key, now: Instant) -> Plan {
        controller.reconcile(self, key, now)
    }

    /// Lets a controller plan for a key and carries the plan out, until nothing is left to
    /// write (but events); says how many plans that took.
    ///
    /// Pods that are deleted are gone at once unless `metadata.finalizers` hold them.
    pub(crate) fn settle(&mut self, controller: &dyn Controller, key: &Key, now: Instant) -> u32 {
        for round in 0..100 {
            let plan = self.plan(controller, key, now);
            self.carry_out(&plan);
            if plan.writes().all(|write| matches!(write, Write::Event(_))) {
                return round;
            }
        }
        panic!("{} never settles on {key}", controller.name());
    }

    /// Writes what a plan says.
    pub(crate) fn carry_out(&mut self, plan: &Plan) {
        for write in plan.writes() {
            self.write(write);
        }
    }

    pub(crate) fn write(&mut self, write: &Write) {
        match write {
            Write::Create { kind, object } => {
                let key = (*kind, Key::of(object));
                let taken = !key.1.name.is_empty() && self.objects.contains_key(&key);
                assert!(!taken, "{} is there already", key.1);
                self.put(*kind, object.clone());
            }
            Write::Update {
                kind,
                subresource,
                object,
            } => {
                let found = self.objects.get(&(*kind, Key::of(object)));
                let seen = found.expect("what is updated is there").clone();
                let versions = [&seen, object].map(|own| &own["metadata"]["resourceVersion"]);
                assert_eq!(versions[0], versions[1], "a version nobody has seen");
                let next = match subresource {
                    None => object.clone(),
                    Some(part) => {
                        let mut next = (*seen).clone();
                        if seen.get(part).is_some() || object.get(part).is_some() {
                            next[*part] = object[*part].clone();
                        }
                        if let Some(notes) = object["metadata"].get("annotations") {
                            next["metadata"]["annotations"] = notes.clone();
                        }
                        next
                    }
                };
                if next != *seen {
                    self.put(*kind, next);
                }
            }
            Write::Patch {
                kind,
                namespace,
                name,
                uid,
                patch,
                ..
            } => {
                let key = Key::new(namespace, name);
                let found = self.objects.get(&(*kind, key.clone()));
                assert_eq!(found.map(|own| object::uid(own)), Some(uid.as_str()));
                let version = patch["metadata"]["resourceVersion"].as_str();
                let seen = found.map(|own| &own["metadata"]["resourceVersion"]);
                let is_fresh = version.is_none_or(|own| seen.is_some_and(|seen| seen == own));
                assert!(is_fresh, "a version nobody has seen");
                let next = self.merge(*kind, &key, patch);
                let held = object::items(&next["metadata"]["finalizers"]).count() > 0;
                if object::is_deleted(&next) && !held {
                    self.remove(*kind, &key);
                }
            }
            Write::Delete(delete) | Write::Evict(delete) => {
                let key = Key::new(&delete.namespace, &delete.name);
                let Some(found) = self.objects.get(&(delete.kind, key.clone())) else {
                    return;
                };
                assert_eq!(object::uid(found), delete.uid);
                let held = object::items(&found["metadata"]["finalizers"]).count() > 0;
                if held {
                    let mark = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
                    self.merge(delete.kind, &key, &mark);
                } else {
                    self.remove(delete.kind, &key);
                }
            }
            Write::Bind {
                namespace,
                name,
                node,
                ..
            } => {
                let bound = json!({"spec": {"nodeName": node}});
                self.merge(crate::kind::PODS, &Key::new(namespace, name), &bound);
            }
            Write::Event(event) => self.events.push((event.reason, event.message.clone())),
            Write::Scale { target, scale } => {
                self.scales.push((target.clone(), scale.clone()));
            }
            Write::Told(write, event) => {
                self.write(write);
                let name = match &**write {
                    Write::Create { .. } => self.newest_name(),
                    _ => String::new(),
                };
                let message = event.message.replace(NAME, &name);
                self.events.push((event.reason, message));
            }
        }
    }

    fn newest_name(&self) -> String {
        let version = self.version.to_string();
        let newest = self
            .objects
            .values()
            .find(|own| own["metadata"]["resourceVersion"] == version.as_str());
        newest.map_or_else(String::new, |own| object::name(own).to_owned())
    }

    /// The keys a controller looks at after an object came to be as it is.
    pub(crate) fn concerned(
        &self,
        controller: &dyn Controller,
        kind: Kind,
        before: Option<&Arc<Value>>,
        after: Option<&Arc<Value>>,
    ) -> Vec<Key> {
        let change = Change {
            kind,
            before: before.cloned(),
            after: after.cloned(),
        };
        let mut keys = Vec::new();
        controller.concerns(self, &change, &mut keys);
        keys.sort();
        keys.dedup();
        keys
    }
}

fn is_within(object: &Value, key: &Key, within: Within<'_>) -> bool {
    match within {
        Within::All => true,
        Within::Namespace(namespace) => key.namespace == namespace,
        Within::Controlled(namespace, uid) => {
            key.namespace == namespace && object::is_controlled_by(object, uid)
        }
        Within::Uncontrolled(namespace) => {
            key.namespace == namespace && object::controller(object).is_none()
        }
        Within::Node(node) => object["spec"]["nodeName"] == node,
    }
}

impl View for Cluster {
    fn answer(&self, question: &Question) -> Option<&Answer> {
        self.answers.get(question)
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.objects
            .get(&(kind, Key::new(namespace, name)))
            .cloned()
    }

    fn list(&self, kind: Kind, within: Within<'_>) -> Vec<Arc<Value>> {
        self.objects
            .iter()
            .filter(|((own, key), object)| *own == kind && is_within(object, key, within))
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn keys(&self, kind: Kind, within: Within<'_>) -> Vec<Key> {
        let list = self.list(kind, within);
        list.iter().map(|object| Key::of(object)).collect()
    }
}
