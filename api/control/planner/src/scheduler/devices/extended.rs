//! Resources that devices stand for (`DeviceClass.spec.extendedResourceName`, or the name that
//! every class has of itself): what a pod that asks for some claims on a node, which has none
//! of itself.
//!
//! Invariants
//! - What is claimed on a node depends on the pod, on the classes, and on which of the
//!   resources the node has of itself.
//! - A pod has one such claim. One that an earlier attempt left is not used: it goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nautilus_machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::super::node::NodeInfo;
use super::super::plugin::Plugin;
use super::super::pod::PodInfo;
use super::super::rejection::Rejection;
use super::super::resources;
use super::claim::{Claim, Selectors, Spec};
use super::inventory::Inventory;
use crate::object;

/// Before the name of a class: the resource that its devices stand for in any case.
pub(super) const CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";
/// On a claim: that it was made for resources of a pod.
const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// The name of a claim that is still to be made.
const NAME: &str = "<extended-resources>";
const NANO: i128 = 1_000_000_000;

/// Whether a claim was made for resources of a pod.
pub(in super::super) fn is_made_for_resources(claim: &Value) -> bool {
    object::annotation(claim, ANNOTATION) == Some("true")
}

/// Whether devices may stand for a resource of this name.
fn is_extended(name: &str) -> bool {
    resources::is_extended(name) || name.starts_with(CLASS_PREFIX)
}

/// What a pod asks for that devices may stand for.
#[derive(Debug)]
pub(super) struct Extended {
    pod: Arc<Value>,
    /// Resources, with the class behind each; `None`: none is.
    resources: BTreeMap<String, Option<String>>,
    /// The claim of an earlier attempt.
    pub(super) stale: Option<Arc<Claim>>,
    /// Where a node has none of them of itself.
    all: Arc<Wanted>,
}

/// What is claimed on a node.
#[derive(Debug)]
pub(super) struct Wanted {
    /// As it would be made.
    pub(super) claim: Arc<Claim>,
    /// Which container uses which request for which resource.
    pub(super) mappings: Vec<Value>,
}

impl Extended {
    /// `None`: the pod asks for no such resource.
    pub(super) fn new(inventory: &Inventory, pod: &PodInfo) -> Option<Self> {
        let asked = pod.requests.asked.scalars.iter();
        let asked = asked.filter(|(name, amount)| **amount != 0 && is_extended(name));
        let resources: BTreeMap<String, Option<String>> = asked
            .map(|(name, _)| {
                let class = inventory.class_behind(name);
                (name.clone(), class.map(|own| own.name.clone()))
            })
            .collect();
        if resources.values().all(Option::is_none) {
            return None;
        }
        let classes = resources.iter();
        let classes = classes.filter_map(|(name, class)| Some((name.as_str(), class.as_deref()?)));
        Some(Self {
            all: Arc::new(Wanted::new(&pod.object, classes)),
            stale: inventory.made_for(&pod.uid).cloned(),
            pod: pod.object.clone(),
            resources,
        })
    }

    /// What is claimed on a node; `None`: it has all of itself.
    ///
    /// # Errors
    /// Why it will not do.
    pub(super) fn on(&self, node: &NodeInfo) -> Result<Option<Arc<Wanted>>, Rejection> {
        let refuse = |why: &'static str| Rejection::final_one(Plugin::DynamicResources, why);
        if self.stale.is_some() {
            return Err(refuse("cannot schedule extended resource claim"));
        }
        let mut classes = Vec::new();
        for (name, class) in &self.resources {
            match class {
                Some(class) if node.allocatable.amount(name) == 0 => {
                    classes.push((name.as_str(), class.as_str()));
                }
                _ if node.allocatable.scalars.contains_key(name) => {}
                _ => return Err(refuse("cannot fit resource")),
            }
        }
        if classes.is_empty() {
            return Ok(None);
        }
        let is_all = classes.len() == self.resources.values().flatten().count();
        Ok(Some(match is_all {
            true => self.all.clone(),
            false => Arc::new(Wanted::new(&self.pod, classes)),
        }))
    }
}

impl Wanted {
    /// `classes`: resources in order, and the class behind each.
    fn new<'a>(pod: &Value, classes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let containers = Container::all(pod);
        let mut requests: BTreeMap<String, Value> = BTreeMap::new();
        let mut mappings = Vec::new();
        for (resource, class) in classes {
            let (needs, uses) = needs(&containers, resource);
            for own in needs {
                let exactly = json!({
                    "deviceClassName": class,
                    "allocationMode": "ExactCount",
                    "count": own.count,
                });
                let request = json!({"name": own.name, "exactly": exactly});
                requests.insert(own.name, request);
            }
            mappings.extend(uses.into_iter().map(|(container, request)| {
                json!({
                    "containerName": container,
                    "resourceName": resource,
                    "requestName": request,
                })
            }));
        }
        let requests: Vec<Value> = requests.into_values().collect();
        let (name, uid) = (object::name(pod), object::uid(pod));
        let claim = json!({
            "metadata": {
                "namespace": object::namespace(pod),
                "name": NAME,
                // Until it has one of its own.
                "uid": uid,
                "generateName": format!("{name}-extended-resources-"),
                "annotations": {ANNOTATION: "true"},
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid,
                    "controller": true,
                }],
            },
            "spec": {"devices": {"requests": requests}},
        });
        // Such requests select by their class alone.
        let spec = Spec::read(&claim, &mut Selectors::default());
        Self {
            claim: Arc::new(Claim::new(Arc::new(claim), Arc::new(spec))),
            mappings,
        }
    }
}

struct Container<'a> {
    name: &'a str,
    requests: &'a Value,
    /// Whether it ends before later ones begin.
    is_short: bool,
}

impl<'a> Container<'a> {
    fn all(pod: &'a Value) -> Vec<Self> {
        let of = |field: &'static str| object::items(&pod["spec"][field]);
        let read = |own: &'a Value, is_early: bool| Self {
            name: own["name"].as_str().unwrap_or_default(),
            requests: &own["resources"]["requests"],
            is_short: is_early && own["restartPolicy"] != "Always",
        };
        let early = of("initContainers").map(|own| read(own, true));
        early
            .chain(of("containers").map(|own| read(own, false)))
            .collect()
    }

    /// How many it asks for; 0: none, or no whole number.
    fn count(&self, resource: &str) -> u64 {
        let quantity = Quantity::of_json(&self.requests[resource]);
        let nano = quantity.map_or(0, |own| own.nanounits());
        match nano % NANO {
            0 => u64::try_from(nano / NANO).unwrap_or_default(),
            _ => 0,
        }
    }

    /// The name of its request, by its place and that of the resource among its own.
    fn request(&self, at: usize, resource: &str) -> String {
        let names = self.requests.as_object().into_iter().flatten();
        let before = names.filter(|(name, _)| name.as_str() < resource).count();
        format!("container-{at}-request-{before}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    name: String,
    count: u64,
}

/// Containers, and the requests that they use.
type Uses<'a> = Vec<(&'a str, String)>;

/// The requests for one resource: one for each container that goes on running, and one for
/// all that end before later ones begin. These use what later ones have that go on running,
/// and so much more as the one needs that needs the most.
fn needs<'a>(containers: &[Container<'a>], resource: &str) -> (Vec<Need>, Uses<'a>) {
    let mut lasting: Vec<Option<Need>> = containers.iter().map(|_| None).collect();
    let mut uses = Uses::new();
    for (at, own) in containers.iter().enumerate() {
        let count = own.count(resource);
        if own.is_short || count == 0 {
            continue;
        }
        let name = own.request(at, resource);
        uses.push((own.name, name.clone()));
        lasting[at] = Some(Need { name, count });
    }
    let mut most: Option<Need> = None;
    let mut own_names = BTreeSet::new();
    let mut short_uses = Uses::new();
    for (at, own) in containers.iter().enumerate() {
        let mut left = own.count(resource);
        if !own.is_short {
            continue;
        }
        for later in lasting[at..].iter().flatten() {
            if left == 0 {
                break;
            }
            short_uses.push((own.name, later.name.clone()));
            left = left.saturating_sub(later.count);
        }
        if left == 0 {
            continue;
        }
        let name = own.request(at, resource);
        short_uses.push((own.name, name.clone()));
        own_names.insert(name.clone());
        if most.as_ref().is_none_or(|most| most.count < left) {
            most = Some(Need { name, count: left });
        }
    }
    if let Some(most) = &most {
        let own = short_uses
            .iter_mut()
            .filter(|(_, name)| own_names.contains(name));
        for (_, name) in own {
            name.clone_from(&most.name);
        }
    }
    uses.append(&mut short_uses);
    let needs = most.into_iter().chain(lasting.into_iter().flatten());
    (needs.collect(), uses)
}

/// How many devices a node can reach that stand for a resource, and how many of them are
/// given; `None`: no class is behind it, or it can't be asked.
pub(in super::super) fn counts(
    inventory: &Inventory,
    node: &NodeInfo,
    resource: &str,
) -> Option<(i64, i64)> {
    let class = inventory.class_behind(resource)?;
    let in_use = inventory.in_use();
    let (mut there, mut given) = (0, 0);
    let pools = inventory.pools_near(&node.name).into_iter();
    for slice in pools.flat_map(|own| inventory.slices_of(own)) {
        for device in &slice.devices {
            if slice.reach_of(device).reaches(node) && class.means(device).ok()? {
                there += 1;
                given += i64::from(in_use.has_whole(&device.id) || in_use.has_shares(&device.id));
            }
        }
    }
    Some((there, given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, count: u64) -> Value {
        json!({"name": name, "resources": {"requests": {"x.io/card": count.to_string()}}})
    }

    fn sidecar(name: &str, count: u64) -> Value {
        let mut own = container(name, count);
        own["restartPolicy"] = "Always".into();
        own
    }

    #[test]
    fn containers_that_end_early_use_what_later_ones_have() {
        let c = container;
        for (early, late, requests, uses) in [
            (vec![], vec![c("a", 2)], "0:2", "a=0"),
            (
                vec![],
                vec![c("a", 2), c("b", 0), c("c", 1)],
                "0:2 2:1",
                "a=0 c=2",
            ),
            (vec![c("i", 1)], vec![c("a", 2)], "1:2", "a=1 i=1"),
            (
                vec![c("i", 2)],
                vec![c("a", 1), c("b", 1)],
                "1:1 2:1",
                "a=1 b=2 i=1 i=2",
            ),
            (vec![c("i", 3)], vec![c("a", 1)], "0:2 1:1", "a=1 i=1 i=0"),
            // Of those that need more, the one that needs the most.
            (
                vec![c("i", 2), c("j", 4)],
                vec![c("a", 1)],
                "1:3 2:1",
                "a=2 i=2 i=1 j=2 j=1",
            ),
            // What was started before goes on, and is nobody else's.
            (
                vec![sidecar("s", 1), c("i", 1)],
                vec![],
                "0:1 1:1",
                "s=0 i=1",
            ),
            (vec![c("i", 1), sidecar("s", 1)], vec![], "1:1", "s=1 i=1"),
        ] {
            let pod = json!({"spec": {"initContainers": early, "containers": late}});
            let own = Wanted::new(&pod, [("x.io/card", "d")]);
            let place = |own: &Value| {
                let name = own.as_str().unwrap_or_default();
                name.split('-').nth(1).unwrap_or_default().to_owned()
            };
            let spec = &own.claim.object["spec"]["devices"]["requests"];
            let found: Vec<String> = object::items(spec)
                .map(|own| format!("{}:{}", place(&own["name"]), own["exactly"]["count"]))
                .collect();
            assert_eq!(found.join(" "), requests, "{pod}");
            let found: Vec<String> = own
                .mappings
                .iter()
                .map(|own| {
                    let name = own["containerName"].as_str().unwrap_or_default();
                    format!("{name}={}", place(&own["requestName"]))
                })
                .collect();
            assert_eq!(found.join(" "), uses, "{pod}");
        }
    }

    #[test]
    fn requests_are_named_by_places_and_sorted_by_name() {
        let mut many: Vec<Value> = (0..11).map(|at| container(&format!("c{at}"), 0)).collect();
        many[2] = json!({"name": "c2", "resources": {"requests":
            {"x.io/card": "1", "cpu": "1", "a.io/card": "2"}}});
        many[10] = container("c10", 1);
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"},
            "spec": {"containers": many}});
        let own = Wanted::new(&pod, [("a.io/card", "a"), ("x.io/card", "x")]);
        let requests = &own.claim.object["spec"]["devices"]["requests"];
        let found: Vec<(&str, &str)> = object::items(requests)
            .filter_map(|own| {
                Some((
                    own["name"].as_str()?,
                    own["exactly"]["deviceClassName"].as_str()?,
                ))
            })
            .collect();
        let expected = [
            ("container-10-request-0", "x"),
            ("container-2-request-0", "a"),
            ("container-2-request-2", "x"),
        ];
        assert_eq!(found, expected);
        let metadata = &own.claim.object["metadata"];
        assert_eq!(metadata["generateName"], "p-extended-resources-");
        assert!(is_made_for_resources(&own.claim.object));
        assert!(object::is_controlled_by(&own.claim.object, "u"));
    }
}
