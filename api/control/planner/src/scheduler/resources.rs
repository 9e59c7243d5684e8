//! Amounts of resources: what nodes have, and what a pod asks for.
//!
//! Source: `k8s.io/component-helpers/resource` and the scheduler's `framework.Resource`:
//! sums are taken of exact quantities and rounded up at the end.

use std::collections::BTreeMap;

use nautilus_machinery::quantity::Quantity;
use serde_json::Value;

use crate::object;

/// The largest amount of one pod or node that is told from larger ones (milli-CPUs,
/// bytes, pieces): sums over a node's pods stay far from overflow.
const LARGEST: i128 = 1 << 52;
/// What a container without a request counts for in scores, in milli-CPUs.
const UNSAID_MILLI_CPU: i128 = 100;
/// What a container without a request counts for in scores, in bytes.
const UNSAID_MEMORY: i128 = 200 * 1024 * 1024;
const NANO: i128 = 1_000_000_000;
const NANO_PER_MILLI: i128 = 1_000_000;

/// Amounts by resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Extended resources, huge pages and others with a domain, in their own units.
    pub scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts that `quantities` (`{"cpu": "500m"}`) gives.
    pub fn of(quantities: &Value) -> Self {
        Self::rounded(&read(quantities))
    }

    fn rounded(quantities: &Quantities) -> Self {
        let mut amounts = Self::default();
        for (name, nano) in quantities {
            match name.as_str() {
                "cpu" => amounts.milli_cpu = rounded_up(*nano, NANO_PER_MILLI),
                "memory" => amounts.memory = rounded_up(*nano, NANO),
                "ephemeral-storage" => amounts.ephemeral_storage = rounded_up(*nano, NANO),
                _ if is_scalar(name) => {
                    let amount = rounded_up(*nano, NANO);
                    amounts.scalars.insert(name.clone(), amount);
                }
                _ => {}
            }
        }
        amounts
    }

    /// Adds other amounts.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes other amounts away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            let own = self.scalars.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }

    /// The amount of a resource by its name.
    pub fn amount(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            _ => self.scalars.get(name).copied().unwrap_or_default(),
        }
    }
}

/// What a pod asks for, in the forms that filters and scores want.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// By its specification: what a node must have room for.
    pub asked: Resources,
    /// As it counts on its node: the most of what is specified, allocated and in effect.
    pub held: Resources,
    /// Milli-CPUs it counts for in scores, on its node.
    pub counted_milli_cpu: i64,
    /// Bytes of memory it counts for in scores, on its node.
    pub counted_memory: i64,
    /// What it counts for in the score of its own placement: by its containers alone, each
    /// with at least something of CPU and memory.
    pub scored: Resources,
}

impl Requests {
    /// Those of a pod.
    pub fn of(pod: &Value) -> Self {
        let asked = total(pod, PodLevel::Counts, &[], By::Specification);
        let by_containers = total(pod, PodLevel::Ignored, &UNSAID, By::Specification);
        let held = total(pod, PodLevel::Counts, &[], By::Status);
        let said_for_pod = sets_pod_level(pod);
        let unsaid: Vec<(&str, i128)> = UNSAID
            .into_iter()
            .filter(|(name, _)| !(said_for_pod && held.contains_key(*name)))
            .collect();
        let counted = total(pod, PodLevel::Counts, &unsaid, By::Status);
        let counted = Resources::rounded(&counted);
        Self {
            asked: Resources::rounded(&asked),
            held: Resources::rounded(&held),
            counted_milli_cpu: counted.milli_cpu,
            counted_memory: counted.memory,
            scored: Resources::rounded(&by_containers),
        }
    }
}

/// Whether the scheduler counts a resource that is none of the common ones.
pub(super) fn is_scalar(name: &str) -> bool {
    name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
        || (name.contains('/') && !name.starts_with("requests."))
}

/// Whether a resource is one that a device's vendor names.
pub(super) fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Nanounits by resource.
type Quantities = BTreeMap<String, i128>;

const UNSAID: [(&str, i128); 2] = [
    ("cpu", UNSAID_MILLI_CPU * NANO_PER_MILLI),
    ("memory", UNSAID_MEMORY * NANO),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum PodLevel {
    Counts,
    Ignored,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Specification,
    Status,
}

fn rounded_up(nano: i128, unit: i128) -> i64 {
    let amount = nano.div_euclid(unit) + i128::from(nano.rem_euclid(unit) != 0);
    let amount = amount.clamp(-LARGEST, LARGEST);
    i64::try_from(amount).unwrap_or_default()
}

/// A number of things, rounded up; 0 where it is not said.
pub(super) fn count(quantity: &Value) -> i64 {
    nanounits(quantity).map_or(0, |nano| rounded_up(nano, NANO))
}

fn nanounits(quantity: &Value) -> Option<i128> {
    Quantity::of_json(quantity).map(|own| own.nanounits())
}

fn read(quantities: &Value) -> Quantities {
    let given = quantities.as_object().into_iter().flatten();
    given
        .filter_map(|(name, value)| Some((name.clone(), nanounits(value)?)))
        .collect()
}

fn add(sum: &mut Quantities, other: &Quantities) {
    for (name, nano) in other {
        let own = sum.entry(name.clone()).or_default();
        *own = own.saturating_add(*nano);
    }
}

fn raise(most: &mut Quantities, other: &Quantities) {
    for (name, nano) in other {
        let own = most.entry(name.clone()).or_insert(*nano);
        *own = (*own).max(*nano);
    }
}

fn is_for_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn sets_pod_level(pod: &Value) -> bool {
    let requests = pod["spec"]["resources"]["requests"].as_object();
    requests.is_some_and(|own| own.keys().any(|name| is_for_pods(name)))
}

/// What a pod asks for, its overhead included; each container with at least `unsaid`.
fn total(pod: &Value, level: PodLevel, unsaid: &[(&str, i128)], by: By) -> Quantities {
    let resize = object::condition(pod, "PodResizePending");
    let infeasible = resize.is_some_and(|own| own["reason"] == "Infeasible");
    let status = &pod["status"];
    let mut sum = of_containers(pod, unsaid, Source::Specified, infeasible);
    if by == By::Status {
        let whole =
            status["allocatedResources"].is_object() && status["resources"]["requests"].is_object();
        let (allocated, actual) = if whole {
            (
                read(&status["allocatedResources"]),
                read(&status["resources"]["requests"]),
            )
        } else {
            (
                of_containers(pod, unsaid, Source::Allocated, infeasible),
                of_containers(pod, unsaid, Source::Actual, infeasible),
            )
        };
        if infeasible {
            sum = actual;
        } else {
            raise(&mut sum, &actual);
        }
        raise(&mut sum, &allocated);
    }
    if level == PodLevel::Counts && sets_pod_level(pod) {
        let mut own = read(&pod["spec"]["resources"]["requests"]);
        if by == By::Status && status["resources"].is_object() {
            if infeasible {
                own.clear();
            }
            raise(&mut own, &read(&status["resources"]["requests"]));
            raise(&mut own, &read(&status["allocatedResources"]));
        }
        own.retain(|name, _| is_for_pods(name));
        sum.extend(own);
    }
    add(&mut sum, &read(&pod["spec"]["overhead"]));
    sum
}

/// Where a container's requests are taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Specified,
    Allocated,
    Actual,
}

/// The most that a pod's containers ask for at one time: all of those that go on running
/// together, or one that runs before with the sidecars that were started before it.
fn of_containers(
    pod: &Value,
    unsaid: &[(&str, i128)],
    source: Source,
    infeasible: bool,
) -> Quantities {
    let requests = |container: &Value| {
        let mut own = read(requests_of(pod, container, source, infeasible));
        for (name, nano) in unsaid {
            own.entry((*name).to_owned()).or_insert(*nano);
        }
        own
    };
    let spec = &pod["spec"];
    let mut sum = Quantities::new();
    for container in object::items(&spec["containers"]) {
        add(&mut sum, &requests(container));
    }
    let mut sidecars = Quantities::new();
    let mut most_before = Quantities::new();
    for container in object::items(&spec["initContainers"]) {
        let mut own = requests(container);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut most_before, &own);
    }
    raise(&mut sum, &most_before);
    sum
}

fn requests_of<'a>(
    pod: &'a Value,
    container: &'a Value,
    source: Source,
    infeasible: bool,
) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    let specified = &container["resources"]["requests"];
    if source == Source::Specified {
        return specified;
    }
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let status = statuses
        .into_iter()
        .flat_map(|field| object::items(&pod["status"][field]))
        .find(|status| status["name"] == container["name"])
        .unwrap_or(NOTHING);
    let actual = &status["resources"]["requests"];
    let allocated = &status["allocatedResources"];
    match source {
        Source::Actual if actual.is_object() => actual,
        _ if allocated.is_object() => allocated,
        _ if infeasible => NOTHING,
        _ => specified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn asked(spec: &Value) -> (i64, i64) {
        let own = Requests::of(&json!({ "spec": spec })).asked;
        (own.milli_cpu, own.memory)
    }

    #[test]
    fn containers_count_together_and_earlier_ones_alone_with_their_sidecars() {
        let main = container("500m", "1Gi");
        let early = container("2", "10");
        let mut sidecar = container("100m", "100");
        sidecar["restartPolicy"] = "Always".into();
        let gi = 1 << 30;
        for (spec, expected) in [
            (json!({"containers": [main, main]}), (1000, 2 * gi)),
            (
                json!({"containers": [main], "initContainers": [early]}),
                (2000, gi),
            ),
            (
                json!({"containers": [main], "initContainers": [sidecar, early]}),
                (2100, gi + 100),
            ),
            (
                json!({"containers": [main], "initContainers": [early, sidecar]}),
                (2000, gi + 100),
            ),
            (
                json!({"containers": [main], "overhead": {"cpu": "250m"}}),
                (750, gi),
            ),
            (
                json!({"containers": [main], "resources": {"requests": {"cpu": "3"}}}),
                (3000, gi),
            ),
        ] {
            assert_eq!(asked(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn sums_are_rounded_once() {
        let tiny = json!({"name": "c", "resources": {"requests": {"cpu": "100u"}}});
        assert_eq!(asked(&json!({"containers": [tiny, tiny, tiny]})), (1, 0));
    }

    #[test]
    fn what_a_pod_holds_is_the_most_of_what_it_is_given() {
        let status = json!({"name": "c", "allocatedResources": {"cpu": "1"},
            "resources": {"requests": {"cpu": "2"}}});
        let pod = json!({
            "spec": {"containers": [container("500m", "1")]},
            "status": {"containerStatuses": [status]},
        });
        let own = Requests::of(&pod);
        assert_eq!((own.asked.milli_cpu, own.held.milli_cpu), (500, 2000));
        assert_eq!(own.held.memory, 1);
    }

    #[test]
    fn a_container_that_asks_for_nothing_counts_for_something() {
        let own = Requests::of(&json!({"spec": {"containers": [{"name": "c"}, {"name": "d"}]}}));
        assert_eq!(
            (own.counted_milli_cpu, own.counted_memory),
            (200, 400 << 20)
        );
        assert_eq!(own.asked, Resources::default());
        assert_eq!(own.scored.milli_cpu, 200);
    }
}
