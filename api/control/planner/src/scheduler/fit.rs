//! Room for a pod on a node, and how its coming would leave the node used.
//!
//! Source: plugins `NodeResourcesFit` and `NodeResourcesBalancedAllocation`.

use std::borrow::Cow;

use super::devices::{self, Inventory};
use super::node::NodeInfo;
use super::plugin::Plugin;
use super::pod::PodInfo;
use super::profile::{FitStrategy, Profile, Weighted, on_shape};
use super::rejection::Rejection;
use super::resources::{self, Resources};

/// The best score.
pub(super) const MAX_SCORE: i64 = 100;

/// Whether a node has room. Resources that it has none of, but that devices stand for, are
/// left to plugin `DynamicResources`.
pub(super) fn filter(
    pod: &PodInfo,
    profile: &Profile,
    node: &NodeInfo,
    devices: &Inventory,
) -> Option<Rejection> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut is_resolvable = true;
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if pods >= node.allowed_pods {
        reasons.push("Too many pods".into());
    }
    let (asked, have, held) = (&pod.requests.asked, &node.allocatable, &node.requested);
    let common = [
        ("cpu", asked.milli_cpu, have.milli_cpu, held.milli_cpu),
        ("memory", asked.memory, have.memory, held.memory),
        (
            "ephemeral-storage",
            asked.ephemeral_storage,
            have.ephemeral_storage,
            held.ephemeral_storage,
        ),
    ];
    let mut look = |name: &str, asked: i64, have: i64, held: i64| {
        if asked > 0 && asked > have.saturating_sub(held) {
            reasons.push(lack(name));
            is_resolvable &= asked <= have;
        }
    };
    for (name, asked, have, held) in common {
        look(name, asked, have, held);
    }
    for (name, asked) in &asked.scalars {
        let is_left =
            is_ignored(name, profile) || is_given_as_devices(name, &node.allocatable, devices);
        if !is_left {
            look(name, *asked, have.amount(name), held.amount(name));
        }
    }
    Rejection::of_all(Plugin::NodeResourcesFit, is_resolvable, reasons)
}

fn lack(name: &str) -> Cow<'static, str> {
    match name {
        "cpu" => "Insufficient cpu".into(),
        "memory" => "Insufficient memory".into(),
        "ephemeral-storage" => "Insufficient ephemeral-storage".into(),
        other => format!("Insufficient {other}").into(),
    }
}

/// Whether devices stand for a resource of which a node has none.
pub(super) fn is_given_as_devices(name: &str, have: &Resources, devices: &Inventory) -> bool {
    have.amount(name) <= 0 && devices.class_behind(name).is_some()
}

fn is_ignored(name: &str, profile: &Profile) -> bool {
    let group = name.split_once('/').map_or(name, |(group, _)| group);
    resources::is_extended(name)
        && (profile.ignored_resources.contains(name) || profile.ignored_groups.contains(group))
}

/// Use of one resource of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    /// Before the pod comes.
    before: i64,
    /// With it.
    after: i64,
    /// What there is; 0: the resource does not count.
    capacity: i64,
}

impl Use {
    /// How much of all there is an amount is, at most all.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the reference computes in float64"
    )]
    fn share(&self, amount: i64) -> f64 {
        (amount as f64 / self.capacity as f64).min(1.0)
    }
}

/// Which of a node's sums count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// What pods ask for.
    Asked,
    /// With something for containers that ask for nothing.
    WithUnsaid,
}

fn use_of(node: &NodeInfo, name: &str, asked: i64, count: Count, devices: &Inventory) -> Use {
    if asked == 0 && resources::is_scalar(name) {
        return Use::default();
    }
    let capacity = node.allocatable.amount(name);
    if capacity == 0 {
        let counts = devices::counts(devices, node, name);
        return counts.map_or_else(Use::default, |(capacity, before)| Use {
            before,
            after: before.saturating_add(asked),
            capacity,
        });
    }
    let before = match (name, count) {
        ("cpu", Count::WithUnsaid) => node.counted_milli_cpu,
        ("memory", Count::WithUnsaid) => node.counted_memory,
        _ => node.requested.amount(name),
    };
    Use {
        before,
        after: before.saturating_add(asked),
        capacity,
    }
}

/// What a pod asks for of each resource that scores.
pub(super) struct Scored<'a> {
    resources: &'a [Weighted],
    asked: Vec<i64>,
    devices: &'a Inventory,
}

impl<'a> Scored<'a> {
    fn new(resources: &'a [Weighted], requests: &Resources, devices: &'a Inventory) -> Self {
        let asked = resources.iter().map(|own| requests.amount(&own.resource));
        Self {
            resources,
            asked: asked.collect(),
            devices,
        }
    }

    /// For the score of `NodeResourcesFit`.
    pub(super) fn for_fit(pod: &PodInfo, profile: &'a Profile, devices: &'a Inventory) -> Self {
        Self::new(&profile.fit_resources, &pod.requests.scored, devices)
    }

    /// For the score of `NodeResourcesBalancedAllocation`; `None`: it asks for nothing.
    pub(super) fn for_balance(
        pod: &PodInfo,
        profile: &'a Profile,
        devices: &'a Inventory,
    ) -> Option<Self> {
        let own = Self::new(&profile.balanced_resources, &pod.requests.asked, devices);
        own.asked.iter().any(|asked| *asked != 0).then_some(own)
    }

    fn uses(&self, node: &NodeInfo, count: Count) -> impl Iterator<Item = (i64, Use)> + Clone {
        let each = self.resources.iter().zip(&self.asked);
        each.map(move |(own, asked)| {
            let used = use_of(node, &own.resource, *asked, count, self.devices);
            (own.weight, used)
        })
        .filter(|(_, own)| own.capacity != 0)
    }

    /// How well the node's use fits a strategy.
    pub(super) fn fit(&self, node: &NodeInfo, strategy: &FitStrategy) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (weight, own) in self.uses(node, Count::WithUnsaid) {
            let score = score(own, strategy);
            let is_left_out =
                score <= 0 && matches!(strategy, FitStrategy::RequestedToCapacityRatio(_));
            if !is_left_out {
                sum += score * weight;
                weights += weight;
            }
        }
        match (weights, strategy) {
            (0, _) => 0,
            (_, FitStrategy::RequestedToCapacityRatio(_)) => {
                // Half away from zero, as `math.Round`; both are positive.
                (sum * 2 + weights) / (weights * 2)
            }
            _ => sum / weights,
        }
    }

    /// How much more alike the shares of the resources are with the pod than before.
    pub(super) fn balance(&self, node: &NodeInfo) -> i64 {
        let uses = self.uses(node, Count::Asked).map(|(_, own)| own);
        let with = evenness(uses.clone().map(|own| own.share(own.after)));
        let without = evenness(uses.map(|own| own.share(own.before)));
        MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
    }
}

fn score(own: Use, strategy: &FitStrategy) -> i64 {
    match strategy {
        FitStrategy::LeastAllocated if own.after > own.capacity => 0,
        FitStrategy::LeastAllocated => (own.capacity - own.after) * MAX_SCORE / own.capacity,
        FitStrategy::MostAllocated => own.after.min(own.capacity) * MAX_SCORE / own.capacity,
        FitStrategy::RequestedToCapacityRatio(shape) => {
            let utilization = match own.after > own.capacity {
                true => 100,
                false => own.after * 100 / own.capacity,
            };
            on_shape(shape, utilization)
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the reference computes in float64"
)]
fn evenness(shares: impl Iterator<Item = f64> + Clone) -> i64 {
    let mut first = shares.clone();
    let deviation = match (first.next(), first.next(), first.next()) {
        (Some(one), Some(other), None) => ((one - other) / 2.0).abs(),
        (Some(_), Some(_), Some(_)) => {
            let count = shares.clone().count() as f64;
            let mean = shares.clone().sum::<f64>() / count;
            let squares: f64 = shares.map(|own| (own - mean) * (own - mean)).sum();
            (squares / count).sqrt()
        }
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(requests: &Value) -> PodInfo {
        let container = json!({"resources": {"requests": requests}});
        PodInfo::new(Arc::new(json!({"spec": {"containers": [container]}})))
    }

    fn node(allocatable: &Value, used: &Value) -> NodeInfo {
        let mut node = NodeInfo::new(0, "n");
        let object = json!({"status": {"allocatable": allocatable}});
        node.set_object(Some(&object));
        node.add_pod(Arc::new(pod(used)));
        node
    }

    #[test]
    fn every_lack_is_told_and_whether_more_than_pods_stands_in_the_way() {
        let profile = Profile {
            ignored_groups: ["ours.io".to_owned()].into(),
            ..Profile::default()
        };
        let allocatable = json!({"cpu": "2", "memory": "1Gi", "pods": 2, "a.b/c": "3"});
        let node = node(&allocatable, &json!({"cpu": "1500m", "a.b/c": 2}));
        for (requests, expected, is_resolvable) in [
            (json!({"cpu": "500m"}), vec![], true),
            (json!({"cpu": "501m"}), vec!["Insufficient cpu"], true),
            (json!({"cpu": "2001m"}), vec!["Insufficient cpu"], false),
            (json!({"a.b/c": 2}), vec!["Insufficient a.b/c"], true),
            (json!({"ours.io/x": 2}), vec![], true),
            (
                json!({"memory": "2Gi", "cpu": "1"}),
                vec!["Insufficient cpu", "Insufficient memory"],
                false,
            ),
        ] {
            let rejection = filter(&pod(&requests), &profile, &node, &Inventory::default());
            let reasons = rejection.as_ref().map_or(&[][..], |own| &own.reasons);
            assert_eq!(reasons, expected, "{requests}");
            assert!(rejection.is_none_or(|own| own.is_resolvable == is_resolvable));
        }
        let mut full = node;
        full.add_pod(Arc::new(pod(&json!({}))));
        let none = Inventory::default();
        let reasons = filter(&pod(&json!({})), &profile, &full, &none).expect("it is full");
        assert_eq!(reasons.reasons, ["Too many pods"]);
    }

    #[test]
    fn strategies_rank_by_use() {
        let node = node(
            &json!({"cpu": "4", "memory": "8Gi"}),
            &json!({"cpu": "1", "memory": "2Gi"}),
        );
        let pod = pod(&json!({"cpu": "1", "memory": "4Gi"}));
        let shape = vec![(0, 0), (100, 100)];
        for (strategy, expected) in [
            (FitStrategy::LeastAllocated, (50 + 25) / 2),
            (FitStrategy::MostAllocated, (50 + 75) / 2),
            (FitStrategy::RequestedToCapacityRatio(shape), 63),
        ] {
            let profile = Profile::default();
            let none = Inventory::default();
            let scored = Scored::for_fit(&pod, &profile, &none);
            assert_eq!(scored.fit(&node, &strategy), expected, "{strategy:?}");
        }
    }

    #[test]
    fn a_pod_that_evens_out_is_better_than_one_that_does_not() {
        let profile = Profile::default();
        let node = node(&json!({"cpu": "4", "memory": "4Gi"}), &json!({"cpu": "2"}));
        let balance = |requests: Value| {
            let pod = pod(&requests);
            let none = Inventory::default();
            Scored::for_balance(&pod, &profile, &none).map(|own| own.balance(&node))
        };
        assert_eq!(balance(json!({"memory": "2Gi"})), Some(87));
        assert_eq!(balance(json!({"cpu": "2"})), Some(62));
        assert_eq!(balance(json!({})), None);
    }
}
