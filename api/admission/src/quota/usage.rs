//! What an object takes, by its kind, under the names that quotas have for it.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::timestamp;
use serde_json::Value;

use crate::defaults;
use crate::pods::{self, Side};
use crate::values::{Resources, items, resources, text};

/// How a kind counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// By what its containers ask for.
    Pods,
    /// By ports and load balancers.
    Services,
    /// By storage, and by class.
    Claims,
    /// By devices.
    DeviceClaims,
    /// By number.
    Count,
}

impl Tracked {
    /// How the kind of that group and plural counts.
    pub fn of(group: &str, plural: &str) -> Self {
        match (group, plural) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("resource.k8s.io", "resourceclaims") => Self::DeviceClaims,
            _ => Self::Count,
        }
    }
}

/// The computing resources that a quota has two names for.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Kinds of the core group that a quota counts by their bare name too.
const ALIASES: [&str; 4] = [
    "configmaps",
    "resourcequotas",
    "replicationcontrollers",
    "secrets",
];
const BY_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const BY_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// What a request for all devices counts as.
const ALL_DEVICES: u64 = 32;

/// `count/pods`, `count/jobs.batch`.
fn count_name(resource: &Resource) -> String {
    format!("count/{}", resource.qualified())
}

/// Whether a hard limit of that name is about this kind.
pub(super) fn tracks(resource: &Resource, name: &str) -> bool {
    if name == count_name(resource) {
        return true;
    }
    match Tracked::of(&resource.group, &resource.plural) {
        Tracked::Pods => {
            let computing = name
                .strip_prefix("requests.")
                .or(name.strip_prefix("limits."));
            name == "pods"
                || COMPUTE.contains(&computing.unwrap_or(name))
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || name.strip_prefix("requests.").is_some_and(is_extended)
        }
        Tracked::Services => matches!(
            name,
            "services" | "services.nodeports" | "services.loadbalancers"
        ),
        Tracked::Claims => {
            let own = name
                .split_once(BY_STORAGE_CLASS)
                .map_or(name, |(_, own)| own);
            matches!(own, "persistentvolumeclaims" | "requests.storage")
        }
        Tracked::DeviceClaims => name.ends_with(BY_DEVICE_CLASS),
        Tracked::Count => {
            resource.group.is_empty()
                && ALIASES.contains(&&*resource.plural)
                && *name == *resource.plural
        }
    }
}

/// A resource of somebody's own: `example.com/dongle`.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
        || name.starts_with("deviceclass.resource.kubernetes.io/")
}

/// What the object takes. `now_s`: seconds since 1970, for pods past their grace.
pub fn usage(resource: &Resource, object: &Value, now_s: i64) -> Resources {
    let mut taken = Resources::new();
    let mut count = |name: &str, number: u64| {
        taken.insert(name.to_owned(), Quantity::of_count(number));
    };
    count(&count_name(resource), 1);
    match Tracked::of(&resource.group, &resource.plural) {
        Tracked::Pods => {
            if is_running(object, now_s) {
                count("pods", 1);
                taken.extend(pod_amounts(
                    &pods::taken_with_overhead(object, Side::Requests),
                    &pods::taken_with_overhead(object, Side::Limits),
                ));
            }
        }
        Tracked::Services => {
            let (ports, balancers) = service_parts(object);
            count("services", 1);
            count("services.nodeports", ports);
            count("services.loadbalancers", balancers);
        }
        Tracked::Claims => claim_usage(object, &mut taken),
        Tracked::DeviceClaims => device_usage(object, &mut taken),
        Tracked::Count => {
            if resource.group.is_empty() && ALIASES.contains(&&*resource.plural) {
                count(&resource.plural, 1);
            }
        }
    }
    taken
}

/// Whether a pod still takes something: it is not finished, nor should it be gone.
fn is_running(pod: &Value, now_s: i64) -> bool {
    if pods::is_finished(pod) {
        return false;
    }
    let metadata = &pod["metadata"];
    let deleted = metadata["deletionTimestamp"]
        .as_str()
        .and_then(timestamp::parse);
    match (deleted, metadata["deletionGracePeriodSeconds"].as_i64()) {
        (Some(at), Some(grace)) => now_s <= at.seconds.saturating_add(grace),
        _ => true,
    }
}

fn pod_amounts(requests: &Resources, limits: &Resources) -> Resources {
    let mut amounts = Resources::new();
    for (name, amount) in requests {
        let computing = COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-");
        if computing {
            amounts.insert(name.clone(), amount.clone());
        }
        if computing || is_extended(name) {
            amounts.insert(format!("requests.{name}"), amount.clone());
        }
    }
    for (name, amount) in limits {
        if COMPUTE.contains(&name.as_str()) {
            amounts.insert(format!("limits.{name}"), amount.clone());
        }
    }
    amounts
}

/// Node ports and load balancers.
fn service_parts(service: &Value) -> (u64, u64) {
    let ports = || items(&service["spec"]["ports"]);
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    match text(&service["spec"]["type"]) {
        "NodePort" => (number(ports().count()), 0),
        "LoadBalancer" if service["spec"]["allocateLoadBalancerNodePorts"] == false => {
            let with = ports().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0);
            (number(with.count()), 1)
        }
        "LoadBalancer" => (number(ports().count()), 1),
        _ => (0, 0),
    }
}

fn claim_usage(claim: &Value, taken: &mut Resources) {
    let class = defaults::storage_class(claim).filter(|class| !class.is_empty());
    let mut both = |name: &str, amount: Quantity| {
        if let Some(class) = class {
            taken.insert(format!("{class}{BY_STORAGE_CLASS}{name}"), amount.clone());
        }
        taken.insert(name.to_owned(), amount);
    };
    both("persistentvolumeclaims", Quantity::of_count(1));
    let storage = |value: &Value| resources(value).get("storage").cloned();
    if let Some(asked) = storage(&claim["spec"]["resources"]["requests"]) {
        let allocated = storage(&claim["status"]["allocatedResources"]);
        both(
            "requests.storage",
            allocated.filter(|own| *own > asked).unwrap_or(asked),
        );
    }
}

fn device_usage(claim: &Value, taken: &mut Resources) {
    let devices = |request: &Value| match text(&request["allocationMode"]) {
        "ExactCount" => request["count"].as_u64().unwrap_or(0),
        "All" => ALL_DEVICES,
        _ => 0,
    };
    let class = |request: &Value| format!("{}{BY_DEVICE_CLASS}", text(&request["deviceClassName"]));
    let mut sum: BTreeMap<String, u64> = BTreeMap::new();
    for request in items(&claim["spec"]["devices"]["requests"]) {
        // Of alternatives the largest counts, for each class.
        let mut largest: BTreeMap<String, u64> = BTreeMap::new();
        let alternatives = items(&request["firstAvailable"]);
        let exactly = Some(&request["exactly"]).filter(|exactly| !exactly.is_null());
        for one in alternatives.chain(exactly) {
            let own = largest.entry(class(one)).or_default();
            *own = (*own).max(devices(one));
        }
        for (class, number) in largest {
            *sum.entry(class).or_default() += number;
        }
    }
    for (class, number) in sum {
        taken.insert(class, Quantity::of_count(number));
    }
}

/// A quota on computing resources needs every container to say what it takes: what is
/// not said, in the reference's words.
pub(super) fn missing_amounts(
    resource: &Resource,
    object: &Value,
    tracked: &BTreeSet<String>,
) -> Option<String> {
    const NEEDED: [&str; 6] = [
        "cpu",
        "limits.cpu",
        "limits.memory",
        "memory",
        "requests.cpu",
        "requests.memory",
    ];
    if Tracked::of(&resource.group, &resource.plural) != Tracked::Pods {
        return None;
    }
    let spec = &object["spec"];
    let whole = ["requests", "limits"]
        .iter()
        .any(|side| !resources(&spec["resources"][*side]).is_empty());
    if whole {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in items(&spec["containers"]).chain(items(&spec["initContainers"])) {
        let own = &container["resources"];
        let said = pod_amounts(&resources(&own["requests"]), &resources(&own["limits"]));
        for name in NEEDED {
            if tracked.contains(name) && !said.contains_key(name) {
                let containers = missing.entry(name).or_default();
                containers.insert(text(&container["name"]));
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let parts: Vec<String> = missing
        .iter()
        .map(|(name, containers)| {
            let containers: Vec<&str> = containers.iter().copied().collect();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    Some(format!("must specify {}", parts.join("; ")))
}
