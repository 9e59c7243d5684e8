//! Attaches the volumes of a node's pods to it, and detaches those that none of them uses:
//! `VolumeAttachment`s ask a CSI driver for it, `volumesAttached` tells the kubelet.
//!
//! Invariants
//! - A volume for one node at a time is asked for another only when nothing attaches it to
//!   the first.
//! - A volume that its node mounts is not detached, unless the node is said to be out of
//!   service, or was unhealthy for [`UNMOUNT_S`] after the last pod had gone.
//! - A node's status stops naming a volume before it is detached.
//!
//! Keys are nodes. Since when a volume waits to be unmounted is remembered, by this process
//! alone: whoever leads next waits anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::{claim_name, claim_of, claims_of};
use crate::controller::{Change, Controller};
use crate::hash;
use crate::kind::{CLAIMS, CSI_DRIVERS, Kind, NODES, PODS, VOLUME_ATTACHMENTS, VOLUMES};
use crate::object;
use crate::plan::{Delete, Plan, Write};
use crate::view::{Key, View, Within};

/// Seconds that an unhealthy node has to unmount a volume that no pod of it uses.
const UNMOUNT_S: i64 = 360;
/// Pause before a bound claim's volume is looked for again: the two come into view apart.
const VOLUME_RETRY: Duration = Duration::from_secs(1);
/// Whoever may do it says by this taint that a node is off, and its volumes unmounted.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// What names of CSI volumes begin with, in a node's status.
const CSI_PREFIX: &str = "kubernetes.io/csi/";

/// Attaches and detaches volumes.
#[derive(Default)]
pub(crate) struct Attacher {
    /// Attachments that none needs any more, by node, and since when.
    unneeded: Mutex<BTreeMap<String, BTreeMap<String, Instant>>>,
}

impl Controller for Attacher {
    fn name(&self) -> &'static str {
        "attachdetach-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[
            NODES,
            PODS,
            CLAIMS,
            VOLUMES,
            VOLUME_ATTACHMENTS,
            CSI_DRIVERS,
        ]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            NODES if node_matters(change) => keys.push(Key::of(change.object())),
            PODS => {
                let users = change
                    .versions()
                    .filter(|pod| claims_of(pod).next().is_some());
                keys.extend(users.filter_map(node_of));
            }
            CLAIMS if is_newly_bound(change) => {
                users(view, &Key::of(change.object()), keys);
            }
            VOLUME_ATTACHMENTS => {
                keys.extend(node_of(change.object()));
                if change.after.is_none() {
                    // Another node may wait for it.
                    let volume = volume_name(change.object());
                    let volume = volume.and_then(|name| view.get(VOLUMES, "", name));
                    if let Some(claim) = volume.and_then(|own| claim_of(&own)) {
                        users(view, &claim, keys);
                    }
                }
            }
            CSI_DRIVERS => keys.extend(view.keys(NODES, Within::All)),
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let look = Look::at(view, &key.name, &mut plan);
        let detached = self.detachable(&look, now, &mut plan);
        look.tell_node(&detached, &mut plan);
        let gone = detached
            .iter()
            .map(|own| Write::Delete(Delete::of(VOLUME_ATTACHMENTS, own)));
        plan.together(gone.collect());
        look.attach(&mut plan);
        plan
    }
}

impl Attacher {
    /// The attachments of a node that go.
    fn detachable(&self, look: &Look<'_>, now: Instant, plan: &mut Plan) -> Vec<Arc<Value>> {
        let mut unneeded = self.unneeded.lock().unwrap_or_else(PoisonError::into_inner);
        let before = unneeded.remove(look.node).unwrap_or_default();
        let mut waiting = BTreeMap::new();
        let mut detached = Vec::new();
        let unneeded_now = look
            .attachments
            .iter()
            .filter(|own| !look.is_needed(own) && look.is_ours(own) && !object::is_deleted(own));
        for attachment in unneeded_now {
            let name = object::name(attachment).to_owned();
            let since = before.get(&name).copied().unwrap_or(now);
            let waited_s = now.seconds - since.seconds;
            let unmounts = look.may_mount(&name) && !look.has_taint(OUT_OF_SERVICE);
            if unmounts && (look.is_healthy() || waited_s < UNMOUNT_S) {
                waiting.insert(name, since);
                let left = u64::try_from(UNMOUNT_S - waited_s).unwrap_or_default();
                if !look.is_healthy() {
                    plan.again(Duration::from_secs(left.max(1)));
                }
            } else {
                detached.push(attachment.clone());
            }
        }
        if !waiting.is_empty() {
            unneeded.insert(look.node.to_owned(), waiting);
        }
        detached
    }
}

fn node_of(object: &Value) -> Option<Key> {
    let node = object["spec"]["nodeName"].as_str();
    node.filter(|node| !node.is_empty())
        .map(|node| Key::new("", node))
}

fn volume_name(attachment: &Value) -> Option<&str> {
    attachment["spec"]["source"]["persistentVolumeName"].as_str()
}

/// Nodes write their status all the time; little of it counts.
fn node_matters(change: &Change) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else {
        return true;
    };
    let differs = |field: &str| before["status"][field] != after["status"][field];
    differs("volumesInUse")
        || differs("volumesAttached")
        || before["spec"]["taints"] != after["spec"]["taints"]
        || object::is_ready(before) != object::is_ready(after)
}

fn is_newly_bound(change: &Change) -> bool {
    let is_bound = |claim: &Value| claim["status"]["phase"] == "Bound";
    let was_bound = change.before.as_deref().is_none_or(is_bound);
    !was_bound && change.after.as_deref().is_some_and(is_bound)
}

/// The nodes of pods that use a claim.
fn users(view: &dyn View, claim: &Key, keys: &mut Vec<Key>) {
    let pods = view.list(PODS, Within::Namespace(&claim.namespace));
    let users = pods
        .iter()
        .filter(|pod| claims_of(pod).any(|own| own == claim.name));
    keys.extend(users.filter_map(|pod| node_of(pod)));
}

/// Whether a pod has ended, or is about to and none of its containers runs.
fn is_terminated(pod: &Value) -> bool {
    let statuses = [
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ];
    let mut containers = statuses
        .iter()
        .flat_map(|field| object::items(&pod["status"][field]));
    object::is_finished(pod)
        || (object::is_deleted(pod)
            && containers.all(|own| {
                own["state"]["terminated"].is_object() || own["state"]["waiting"].is_object()
            }))
}

/// A volume that a node's pods use.
struct Wanted {
    volume: Arc<Value>,
    pods: Vec<Arc<Value>>,
}

impl Wanted {
    fn driver(&self) -> &str {
        self.csi("driver")
    }

    fn handle(&self) -> &str {
        self.csi("volumeHandle")
    }

    fn csi(&self, field: &str) -> &str {
        self.volume["spec"]["csi"][field]
            .as_str()
            .unwrap_or_default()
    }

    fn unique_name(&self) -> String {
        format!("{CSI_PREFIX}{}^{}", self.driver(), self.handle())
    }

    /// Whether several nodes may have it at once.
    fn is_shared(&self) -> bool {
        let modes = &self.volume["spec"]["accessModes"];
        let mut modes = object::items(modes).filter_map(Value::as_str).peekable();
        modes.peek().is_none() || modes.any(|mode| matches!(mode, "ReadWriteMany" | "ReadOnlyMany"))
    }

    fn tell(&self, plan: &mut Plan, is_warning: bool, reason: &'static str, what: &str) {
        let events = self.pods.iter().map(|pod| {
            if is_warning {
                Write::warning(PODS, pod, reason, what.to_owned())
            } else {
                Write::event(PODS, pod, reason, what.to_owned())
            }
        });
        plan.together(events.collect());
    }
}

/// The name of the attachment of a volume of a driver to a node.
fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hash::sha256(&format!("{handle}{driver}{node}")))
}

/// A node, what is attached to it and what shall be.
struct Look<'a> {
    view: &'a dyn View,
    node: &'a str,
    object: Option<Arc<Value>>,
    attachments: Vec<Arc<Value>>,
    /// By the names of their attachments.
    wanted: BTreeMap<String, Wanted>,
}

impl<'a> Look<'a> {
    fn at(view: &'a dyn View, node: &'a str, plan: &mut Plan) -> Self {
        let mut look = Self {
            view,
            node,
            object: view.get(NODES, "", node),
            attachments: view.list(VOLUME_ATTACHMENTS, Within::Node(node)),
            wanted: BTreeMap::new(),
        };
        if look.object.is_some() {
            for pod in view.list(PODS, Within::Node(node)) {
                if !is_terminated(&pod) {
                    look.want_volumes_of(&pod, plan);
                }
            }
        }
        look
    }

    fn want_volumes_of(&mut self, pod: &Arc<Value>, plan: &mut Plan) {
        for volume in object::items(&pod["spec"]["volumes"]) {
            let claim = claim_name(pod, volume)
                .and_then(|name| self.view.get(CLAIMS, object::namespace(pod), &name))
                .filter(|claim| claim["status"]["phase"] == "Bound");
            let Some(claim) = claim else {
                continue;
            };
            let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            let Some(volume) = self.view.get(VOLUMES, "", name) else {
                plan.again(VOLUME_RETRY);
                continue;
            };
            if volume["spec"]["claimRef"]["uid"] == object::uid(&claim) {
                self.want(&volume, pod);
            }
        }
    }

    fn want(&mut self, volume: &Arc<Value>, pod: &Arc<Value>) {
        let csi = &volume["spec"]["csi"];
        let (Some(driver), Some(handle)) = (csi["driver"].as_str(), csi["volumeHandle"].as_str())
        else {
            return;
        };
        let driver_object = self.view.get(CSI_DRIVERS, "", driver);
        if driver_object.is_some_and(|own| own["spec"]["attachRequired"] == false) {
            return;
        }
        let name = attachment_name(handle, driver, self.node);
        let wanted = self.wanted.entry(name).or_insert_with(|| Wanted {
            volume: volume.clone(),
            pods: Vec::new(),
        });
        wanted.pods.push(pod.clone());
    }

    fn is_needed(&self, attachment: &Value) -> bool {
        let of_wanted =
            |wanted: &Wanted| volume_name(attachment) == Some(object::name(&wanted.volume));
        self.wanted.contains_key(object::name(attachment)) || self.wanted.values().any(of_wanted)
    }

    fn status(&self, field: &str) -> impl Iterator<Item = &Value> {
        let node = self.object.as_deref();
        node.into_iter()
            .flat_map(move |node| object::items(&node["status"][field]))
    }

    /// The attachment that a name in the node's status stands for.
    fn attachment_of(&self, unique_name: &str) -> Option<String> {
        let (driver, handle) = unique_name.strip_prefix(CSI_PREFIX)?.split_once('^')?;
        Some(attachment_name(handle, driver, self.node))
    }

    /// Whether the node has a volume mounted, for all that is known: a node that is gone
    /// says nothing.
    fn may_mount(&self, attachment: &str) -> bool {
        let mut in_use = self.status("volumesInUse").filter_map(Value::as_str);
        self.object.is_none()
            || in_use.any(|name| self.attachment_of(name).as_deref() == Some(attachment))
    }

    fn is_healthy(&self) -> bool {
        self.object.as_deref().is_some_and(object::is_ready)
    }

    fn has_taint(&self, key: &str) -> bool {
        let node = self.object.as_deref();
        node.is_some_and(|node| object::items(&node["spec"]["taints"]).any(|own| own["key"] == key))
    }

    /// Whether an attachment is one that pods asked for: of a volume that is there, or that
    /// the node's status names. Others are left to those who made them.
    fn is_ours(&self, attachment: &Value) -> bool {
        let name = Some(object::name(attachment).to_owned());
        let volume = volume_name(attachment).and_then(|name| self.view.get(VOLUMES, "", name));
        let mut named = self
            .status("volumesAttached")
            .filter_map(|own| own["name"].as_str());
        volume.is_some() || named.any(|own| self.attachment_of(own) == name)
    }

    /// Whether an attachment is done, and not about to be undone.
    fn is_attached(&self, name: &str) -> bool {
        let mut attachments = self.attachments.iter();
        let found = attachments.find(|own| object::name(own) == name);
        found.is_some_and(|own| own["status"]["attached"] == true && !object::is_deleted(own))
    }

    /// Has the node's status name what is attached, and nothing that is detached; tells
    /// the pods whose volumes are new there.
    fn tell_node(&self, detached: &[Arc<Value>], plan: &mut Plan) {
        let Some(node) = &self.object else {
            return;
        };
        let going: BTreeSet<&str> = detached.iter().map(|own| object::name(own)).collect();
        let is_there = |name: &str| self.attachments.iter().any(|own| object::name(own) == name);
        let before: Vec<&Value> = self.status("volumesAttached").collect();
        let mut after: Vec<Value> = before
            .iter()
            .filter(|own| {
                let name = own["name"]
                    .as_str()
                    .and_then(|name| self.attachment_of(name));
                // What is no CSI volume is not attached here.
                name.is_none_or(|name| is_there(&name) && !going.contains(name.as_str()))
            })
            .map(|own| (*own).clone())
            .collect();
        let mut new = Vec::new();
        for (name, wanted) in &self.wanted {
            let unique = wanted.unique_name();
            let is_named = after.iter().any(|own| own["name"] == unique.as_str());
            if self.is_attached(name) && !is_named {
                after.push(json!({"name": unique, "devicePath": ""}));
                new.push(wanted);
            }
        }
        if before.iter().map(|own| (*own).clone()).collect::<Vec<_>>() != after {
            let patch = json!({"status": {"volumesAttached": after}});
            plan.then(Write::patch_status(NODES, node, patch));
        }
        for wanted in new {
            let volume = object::name(&wanted.volume);
            let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
            wanted.tell(plan, false, "SuccessfulAttachVolume", &message);
        }
    }

    /// Asks for the attachments that are missing.
    fn attach(&self, plan: &mut Plan) {
        for (name, wanted) in &self.wanted {
            let mut attachments = self.attachments.iter();
            let volume = object::name(&wanted.volume);
            if let Some(own) = attachments.find(|own| object::name(own) == name) {
                if let Some(why) = own["status"]["attachError"]["message"].as_str()
                    && own["status"]["attached"] != true
                {
                    let message =
                        format!("AttachVolume.Attach failed for volume \"{volume}\" : {why}");
                    wanted.tell(plan, true, "FailedAttachVolume", &message);
                }
                continue;
            }
            let others = self.elsewhere(wanted);
            if !wanted.is_shared() && !others.is_empty() {
                self.tell_of_others(wanted, &others, plan);
                continue;
            }
            plan.then(Write::create(
                VOLUME_ATTACHMENTS,
                json!({
                    "metadata": {"name": name},
                    "spec": {
                        "attacher": wanted.driver(),
                        "nodeName": self.node,
                        "source": {"persistentVolumeName": volume},
                    },
                }),
            ));
        }
    }

    /// The other nodes that a volume is attached to.
    fn elsewhere(&self, wanted: &Wanted) -> BTreeSet<String> {
        let attachments = self.view.list(VOLUME_ATTACHMENTS, Within::All);
        let of_volume = attachments
            .iter()
            .filter(|own| volume_name(own) == Some(object::name(&wanted.volume)));
        let nodes = of_volume.filter_map(|own| own["spec"]["nodeName"].as_str());
        nodes
            .filter(|node| *node != self.node)
            .map(str::to_owned)
            .collect()
    }

    /// Tells pods who has their volume.
    fn tell_of_others(&self, wanted: &Wanted, nodes: &BTreeSet<String>, plan: &mut Plan) {
        let name = object::name(&wanted.volume);
        let mut users = Vec::new();
        if let Some(claim) = claim_of(&wanted.volume) {
            let there = nodes
                .iter()
                .flat_map(|node| self.view.list(PODS, Within::Node(node)));
            users.extend(there.filter(|pod| {
                object::namespace(pod) == claim.namespace
                    && !is_terminated(pod)
                    && claims_of(pod).any(|own| own == claim.name)
            }));
        }
        let names: Vec<&str> = users.iter().map(|pod| object::name(pod)).collect();
        let why = if names.is_empty() {
            "Volume is already exclusively attached to one node, waiting on detach before it can be attached to another node".to_owned()
        } else {
            format!("Volume is already used by pod(s) {}", names.join(", "))
        };
        let message = format!("Waiting for detach for volume \"{name}\" {why}");
        wanted.tell(plan, true, "FailedAttachVolume", &message);
    }
}

#[cfg(test)]
mod tests;
