//! Volumes that are not for everybody: disks with one user, claims for one pod, and how many
//! volumes of a driver a node takes.
//!
//! Source: plugins `VolumeRestrictions` and `NodeVolumeLimits`. Volumes of plugins from
//! before CSI are not counted as their drivers'.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::node::NodeInfo;
use super::plugin::Plugin;
use super::pod::PodInfo;
use super::rejection::Rejection;
use super::snapshot::Snapshot;
use super::storage;
use crate::kind;
use crate::object;
use crate::volumes;

/// What a pod's volumes shut others out of.
#[derive(Debug, Clone)]
pub(super) struct Exclusive {
    /// Claims that one pod alone may use.
    claims: BTreeSet<String>,
    /// How often they are in use.
    in_use: i64,
}

impl Exclusive {
    /// `None`: there is nothing to keep apart.
    ///
    /// # Errors
    /// Why no node will do.
    pub(super) fn new(snapshot: &Snapshot, pod: &PodInfo) -> Result<Option<Self>, Rejection> {
        let mut claims = BTreeSet::new();
        for own in pod.claims.iter().filter(|own| !own.is_ephemeral) {
            let Some(claim) = snapshot.get(kind::CLAIMS, &pod.namespace, &own.name) else {
                let what = format!("persistentvolumeclaim \"{}\" not found", own.name);
                return Err(Rejection::final_one(Plugin::VolumeRestrictions, what));
            };
            let mut modes = object::items(&claim["spec"]["accessModes"]);
            if modes.any(|mode| mode == "ReadWriteOncePod") {
                claims.insert(own.name.clone());
            }
        }
        let used = |name: &&String| snapshot.is_used(&pod.namespace, name);
        let in_use = i64::try_from(claims.iter().filter(used).count()).unwrap_or(i64::MAX);
        let matters = !pod.disks.is_empty() || in_use > 0;
        Ok(matters.then_some(Self { claims, in_use }))
    }

    /// Why a node will not do.
    pub(super) fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
        let plugin = Plugin::VolumeRestrictions;
        let disks = || node.pods.iter().flat_map(|own| &own.disks);
        let conflicts = |disk: &Value| disks().any(|other| is_same_disk(disk, other));
        if pod.disks.iter().any(conflicts) {
            let reason = "node(s) had no available disk";
            return Some(Rejection::resolvable(plugin, reason));
        }
        (self.in_use > 0).then(|| {
            let reason = "node(s) unavailable due to PersistentVolumeClaim with \
                          ReadWriteOncePod access mode already in-use by another pod";
            Rejection::resolvable(plugin, reason)
        })
    }

    /// What would be with so many more of a pod.
    pub(super) fn change(&mut self, for_pod: &PodInfo, pod: &PodInfo, more: i64) {
        if pod.namespace == for_pod.namespace {
            let claims = pod.claims.iter().filter(|own| !own.is_ephemeral);
            let shared = claims.filter(|own| self.claims.contains(&own.name));
            self.in_use += more * i64::try_from(shared.count()).unwrap_or(i64::MAX);
        }
    }
}

/// Whether a volume is a disk that pods of one node may not share freely.
pub(super) fn is_disk(volume: &Value) -> bool {
    let kinds = ["gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd"];
    kinds.iter().any(|kind| volume[*kind].is_object())
}

fn is_same_disk(one: &Value, other: &Value) -> bool {
    let pair = |kind: &str| {
        let pair = (&one[kind], &other[kind]);
        (pair.0.is_object() && pair.1.is_object()).then_some(pair)
    };
    let same = |(one, other): (&Value, &Value), field: &str| one[field] == other[field];
    let reads =
        |(one, other): (&Value, &Value)| one["readOnly"] == true && other["readOnly"] == true;
    let gce = pair("gcePersistentDisk").is_some_and(|own| same(own, "pdName") && !reads(own));
    let aws = pair("awsElasticBlockStore").is_some_and(|own| same(own, "volumeID"));
    let iscsi = pair("iscsi").is_some_and(|own| same(own, "iqn") && !reads(own));
    let rbd = pair("rbd").is_some_and(|own| {
        let mut monitors = object::items(&own.0["monitors"]);
        let meets = monitors.any(|monitor| {
            let mut others = object::items(&own.1["monitors"]);
            others.any(|other| other == monitor)
        });
        meets && same(own, "pool") && same(own, "image") && !reads(own)
    });
    gce || aws || iscsi || rbd
}

/// Why a node's drivers can't take a pod's volumes.
pub(super) fn limits(snapshot: &Snapshot, pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
    let plugin = Plugin::NodeVolumeLimits;
    let mut new = BTreeMap::new();
    if let Err(what) = add_volumes(snapshot, pod, &mut new, Owner::Waits) {
        return Some(Rejection::final_one(plugin, what));
    }
    let csi_node = snapshot.get(kind::CSI_NODES, "", &node.name);
    let drivers = || {
        let drivers = csi_node.map(|own| object::items(&own["spec"]["drivers"]));
        drivers.into_iter().flatten()
    };
    for driver in new.values() {
        let known = snapshot.get(kind::CSI_DRIVERS, "", driver);
        let insists = known.is_some_and(|own| own["spec"]["preventPodSchedulingIfMissing"] == true);
        if insists && !drivers().any(|own| own["name"] == driver.as_str()) {
            let what = format!("{driver} CSI driver is not installed on the node");
            return Some(Rejection::resolvable(plugin, what));
        }
    }
    let limits = drivers().filter_map(|own| {
        let count = own["allocatable"]["count"].as_u64()?;
        Some((
            own["name"].as_str()?,
            usize::try_from(count).unwrap_or(usize::MAX),
        ))
    });
    let limits: BTreeMap<&str, usize> = limits.collect();
    if limits.is_empty() {
        return None;
    }
    let mut attached = BTreeMap::new();
    for own in &node.pods {
        // What can't be told of a pod that is there does not count.
        let _ = add_volumes(snapshot, own, &mut attached, Owner::IsThere);
    }
    new.retain(|handle, _| !attached.contains_key(handle));
    for attachment in snapshot.attachments(&node.name) {
        if let Some((handle, driver)) = attached_volume(snapshot, attachment) {
            attached.insert(handle, driver);
        }
    }
    let count = |volumes: &BTreeMap<String, String>, driver: &str| {
        volumes.values().filter(|own| *own == driver).count()
    };
    let is_over = new.values().any(|driver| {
        let limit = limits.get(driver.as_str());
        limit.is_some_and(|limit| count(&attached, driver) + count(&new, driver) > *limit)
    });
    let reason = "node(s) exceed max volume count";
    is_over.then(|| Rejection::resolvable(plugin, reason))
}

/// Whether a pod's claims must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Waits,
    IsThere,
}

/// Adds the handles of a pod's volumes, with their drivers.
fn add_volumes(
    snapshot: &Snapshot,
    pod: &PodInfo,
    volumes: &mut BTreeMap<String, String>,
    owner: Owner,
) -> Result<(), String> {
    for own in &pod.claims {
        let (namespace, name) = (&pod.namespace, &own.name);
        let Some(claim) = snapshot.get(kind::CLAIMS, namespace, name) else {
            match owner {
                Owner::IsThere => continue,
                Owner::Waits => {
                    return Err(format!(
                        "looking up PVC {namespace}/{name}: persistentvolumeclaim \"{name}\" not \
                         found"
                    ));
                }
            }
        };
        if own.is_ephemeral && !object::is_controlled_by(claim, &pod.uid) {
            return Err(storage::not_owner(pod, name));
        }
        if let Some((handle, driver)) = volume_of(snapshot, claim) {
            volumes.insert(format!("{driver}/{handle}"), driver);
        }
    }
    Ok(())
}

/// Handle and driver of a claim's volume; a volume still to be made counts by its claim.
fn volume_of(snapshot: &Snapshot, claim: &Value) -> Option<(String, String)> {
    let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
    if let Some(volume) = snapshot.get(kind::VOLUMES, "", volume) {
        let csi = &volume["spec"]["csi"];
        let text = |field: &str| csi[field].as_str().map(str::to_owned);
        return Some((text("volumeHandle")?, text("driver")?));
    }
    let class = snapshot.get(kind::STORAGE_CLASSES, "", volumes::class(claim))?;
    let (namespace, name) = (object::namespace(claim), object::name(claim));
    // No handle of a driver begins like this.
    let handle = format!("\0{namespace}/{name}");
    Some((handle, class["provisioner"].as_str()?.to_owned()))
}

fn attached_volume(snapshot: &Snapshot, attachment: &Value) -> Option<(String, String)> {
    let driver = attachment["spec"]["attacher"].as_str()?;
    let volume = attachment["spec"]["source"]["persistentVolumeName"].as_str()?;
    let volume = snapshot.get(kind::VOLUMES, "", volume)?;
    let handle = volume["spec"]["csi"]["volumeHandle"].as_str()?;
    Some((format!("{driver}/{handle}"), driver.to_owned()))
}
