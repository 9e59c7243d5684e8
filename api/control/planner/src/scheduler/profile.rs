//! A profile: which plugins are asked, what their scores weigh, and their arguments, as
//! `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`) writes it.
//!
//! Knows only what the plugins here can do; other extension points than filters and scores
//! are not configurable.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::affinity_term::{Labels, SpreadConstraint};
use super::node_selector::{NodeSelector, PreferredNode};
use super::plugin::{Plugin, Plugins};
use super::pod::DEFAULT_SCHEDULER;
use crate::object;

/// The largest weight that is taken, so that sums of scores stay far from overflow.
const MAX_WEIGHT: i64 = 1 << 40;
/// Utilization and score of a shape's points go from 0 to these.
const MAX_UTILIZATION: i64 = 100;
const MAX_SHAPE_SCORE: i64 = 10;

/// A resource and what its share of the score weighs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted {
    /// `cpu`, `memory`, ...
    pub resource: String,
    /// From 1.
    pub weight: i64,
}

/// How a node's use makes a score: points of a broken line, utilization 0 to 100 and score
/// 0 to 100, in order.
pub type Shape = Vec<(i64, i64)>;

/// How full nodes had better be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FitStrategy {
    /// Empty.
    LeastAllocated,
    /// Full.
    MostAllocated,
    /// As a shape says.
    RequestedToCapacityRatio(Shape),
}

/// What one `schedulerName` stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Pods choose it by this name.
    pub scheduler_name: String,
    /// The plugins that filter.
    pub filters: Plugins,
    /// The plugins that score, with the weights of their scores.
    pub weights: BTreeMap<Plugin, i64>,
    /// How many percent of the nodes are looked for before the best is chosen; 0: fewer
    /// the more nodes there are.
    pub percentage_of_nodes_to_score: i64,
    /// `NodeResourcesFitArgs.ignoredResources`.
    pub ignored_resources: BTreeSet<String>,
    /// `NodeResourcesFitArgs.ignoredResourceGroups`.
    pub ignored_groups: BTreeSet<String>,
    /// `NodeResourcesFitArgs.scoringStrategy`.
    pub fit_strategy: FitStrategy,
    /// Its resources.
    pub fit_resources: Vec<Weighted>,
    /// `NodeResourcesBalancedAllocationArgs.resources`.
    pub balanced_resources: Vec<Weighted>,
    /// `NodeAffinityArgs.addedAffinity`, what is required.
    pub added_required: Option<NodeSelector>,
    /// `NodeAffinityArgs.addedAffinity`, what is preferred.
    pub added_preferred: PreferredNode,
    /// `InterPodAffinityArgs.hardPodAffinityWeight`.
    pub hard_affinity_weight: i64,
    /// `InterPodAffinityArgs.ignorePreferredTermsOfExistingPods`.
    pub ignores_existing_preferences: bool,
    /// Constraints of pods that have none. Their selectors are the pods' workloads'.
    pub default_spread: Vec<SpreadConstraint>,
    /// Whether those are the built-in ones, which bind only nodes that have the labels.
    pub is_system_spread: bool,
    /// `VolumeBindingArgs.shape`.
    pub storage_shape: Shape,
}

impl Default for Profile {
    fn default() -> Self {
        let filters = Plugin::ALL.into_iter().filter(|own| own.filters());
        let weights = Plugin::ALL.into_iter();
        let both = || {
            ["cpu", "memory"].map(|resource| Weighted {
                resource: resource.to_owned(),
                weight: 1,
            })
        };
        Self {
            scheduler_name: DEFAULT_SCHEDULER.to_owned(),
            filters: filters.collect(),
            weights: weights
                .filter_map(|own| Some((own, own.default_weight()?)))
                .collect(),
            percentage_of_nodes_to_score: 0,
            ignored_resources: BTreeSet::new(),
            ignored_groups: BTreeSet::new(),
            fit_strategy: FitStrategy::LeastAllocated,
            fit_resources: both().to_vec(),
            balanced_resources: both().to_vec(),
            added_required: None,
            added_preferred: PreferredNode::default(),
            hard_affinity_weight: 1,
            ignores_existing_preferences: false,
            default_spread: system_spread(),
            is_system_spread: true,
            storage_shape: vec![(0, 100), (100, 0)],
        }
    }
}

impl Profile {
    /// The profiles of a `KubeSchedulerConfiguration`; one with defaults where it has none.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read_all(configuration: &Value) -> Result<Vec<Self>, String> {
        let percentage = &configuration["percentageOfNodesToScore"];
        let mut profiles = Vec::new();
        for (at, profile) in object::items(&configuration["profiles"]).enumerate() {
            let mut read = Self::read(profile).map_err(|what| format!("profiles[{at}]: {what}"))?;
            if profile["percentageOfNodesToScore"].is_null() {
                read.percentage_of_nodes_to_score = percentage.as_i64().unwrap_or_default();
            }
            if profiles
                .iter()
                .any(|own: &Self| own.scheduler_name == read.scheduler_name)
            {
                return Err(format!(
                    "profiles[{at}]: schedulerName: there are two of it"
                ));
            }
            profiles.push(read);
        }
        if profiles.is_empty() {
            profiles.push(Self {
                percentage_of_nodes_to_score: percentage.as_i64().unwrap_or_default(),
                ..Self::default()
            });
        }
        Ok(profiles)
    }

    fn read(profile: &Value) -> Result<Self, String> {
        let mut own = Self::default();
        if let Some(name) = profile["schedulerName"].as_str() {
            name.clone_into(&mut own.scheduler_name);
        }
        let percentage = profile["percentageOfNodesToScore"].as_i64();
        own.percentage_of_nodes_to_score = percentage.unwrap_or_default();
        let plugins = &profile["plugins"];
        own.set_plugins(&plugins["multiPoint"], true, true)?;
        own.set_plugins(&plugins["filter"], true, false)?;
        own.set_plugins(&plugins["score"], false, true)?;
        for config in object::items(&profile["pluginConfig"]) {
            let name = config["name"].as_str().unwrap_or_default();
            own.set_arguments(name, &config["args"])
                .map_err(|what| format!("pluginConfig {name}: {what}"))?;
        }
        Ok(own)
    }

    fn set_plugins(&mut self, set: &Value, filters: bool, scores: bool) -> Result<(), String> {
        for plugin in object::items(&set["disabled"]) {
            let name = plugin["name"].as_str().unwrap_or_default();
            let meant = |own: Plugin| name == "*" || own.name() == name;
            if filters {
                self.filters.retain(|own| !meant(own));
            }
            if scores {
                self.weights.retain(|own, _| !meant(*own));
            }
        }
        for plugin in object::items(&set["enabled"]) {
            let name = plugin["name"].as_str().unwrap_or_default();
            let weight = plugin["weight"].as_i64().filter(|weight| *weight != 0);
            let weight = weight.unwrap_or(1);
            if !(1..=MAX_WEIGHT).contains(&weight) {
                return Err(format!("weight of {name}: {weight} is none"));
            }
            // What neither filters nor scores (queue, binding) is not configurable.
            let Some(own) = Plugin::of_name(name) else {
                continue;
            };
            if filters && own.filters() {
                self.filters.insert(own);
            }
            if scores && own.scores() {
                self.weights.insert(own, weight);
            }
        }
        Ok(())
    }

    fn set_arguments(&mut self, plugin: &str, args: &Value) -> Result<(), String> {
        let names = |field: &str| -> BTreeSet<String> {
            let names = object::items(&args[field]).filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        };
        match plugin {
            "NodeResourcesFit" => {
                self.ignored_resources = names("ignoredResources");
                self.ignored_groups = names("ignoredResourceGroups");
                let strategy = &args["scoringStrategy"];
                self.fit_strategy = match strategy["type"].as_str() {
                    None | Some("LeastAllocated") => FitStrategy::LeastAllocated,
                    Some("MostAllocated") => FitStrategy::MostAllocated,
                    Some("RequestedToCapacityRatio") => FitStrategy::RequestedToCapacityRatio(
                        shape(&strategy["requestedToCapacityRatio"]["shape"])?,
                    ),
                    Some(other) => return Err(format!("scoringStrategy {other} is none")),
                };
                set_resources(&mut self.fit_resources, &strategy["resources"])?;
            }
            "NodeResourcesBalancedAllocation" => {
                set_resources(&mut self.balanced_resources, &args["resources"])?;
            }
            "NodeAffinity" => {
                let added = &args["addedAffinity"];
                let required = &added["requiredDuringSchedulingIgnoredDuringExecution"];
                self.added_required = NodeSelector::read(required);
                let preferred = &added["preferredDuringSchedulingIgnoredDuringExecution"];
                self.added_preferred = PreferredNode::read(preferred);
            }
            "InterPodAffinity" => {
                if let Some(weight) = args["hardPodAffinityWeight"].as_i64() {
                    self.hard_affinity_weight = weight.clamp(0, 100);
                }
                self.ignores_existing_preferences =
                    args["ignorePreferredTermsOfExistingPods"] == true;
            }
            "PodTopologySpread" if args["defaultingType"] == "List" => {
                self.is_system_spread = false;
                let constraints = object::items(&args["defaultConstraints"]);
                let read = |own| SpreadConstraint::read(own, &Labels::new());
                let read = constraints.map(read).collect::<Option<_>>();
                self.default_spread = read.ok_or("defaultConstraints: one is none")?;
            }
            "VolumeBinding" if args["shape"].is_array() => {
                self.storage_shape = shape(&args["shape"])?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn set_resources(resources: &mut Vec<Weighted>, given: &Value) -> Result<(), String> {
    if object::items(given).next().is_none() {
        return Ok(());
    }
    resources.clear();
    for spec in object::items(given) {
        let resource = spec["name"].as_str().unwrap_or_default().to_owned();
        let weight = spec["weight"].as_i64().filter(|weight| *weight != 0);
        let weight = weight.unwrap_or(1);
        if !(1..=100).contains(&weight) {
            return Err(format!("weight of {resource}: {weight} is none"));
        }
        resources.push(Weighted { resource, weight });
    }
    Ok(())
}

fn shape(points: &Value) -> Result<Shape, String> {
    let mut shape = Shape::new();
    for point in object::items(points) {
        let number = |field: &str| point[field].as_i64().unwrap_or_default();
        let (utilization, score) = (number("utilization"), number("score"));
        let rises = shape.last().is_none_or(|(last, _)| utilization > *last);
        if !rises
            || !(0..=MAX_UTILIZATION).contains(&utilization)
            || !(0..=MAX_SHAPE_SCORE).contains(&score)
        {
            return Err(format!("shape: {point} is no point of it"));
        }
        shape.push((utilization, score * (100 / MAX_SHAPE_SCORE)));
    }
    match shape.is_empty() {
        true => Err("shape: it has no points".to_owned()),
        false => Ok(shape),
    }
}

/// The score that a shape gives a utilization.
pub(super) fn on_shape(shape: &Shape, utilization: i64) -> i64 {
    let mut last: Option<(i64, i64)> = None;
    for (at, score) in shape {
        if utilization <= *at {
            return last.map_or(*score, |(from, low)| {
                low + (score - low) * (utilization - from) / (at - from)
            });
        }
        last = Some((*at, *score));
    }
    last.map_or(0, |(_, score)| score)
}

fn system_spread() -> Vec<SpreadConstraint> {
    let constraint = |key: &str, max_skew| SpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        is_required: false,
        selector: None,
        min_domains: 1,
        honors_affinity: true,
        honors_taints: false,
    };
    vec![
        constraint("kubernetes.io/hostname", 3),
        constraint("topology.kubernetes.io/zone", 5),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plugins_are_turned_off_and_on_and_weighed() {
        let configuration = json!({"percentageOfNodesToScore": 7, "profiles": [
            {"schedulerName": "a", "plugins": {
                "multiPoint": {"enabled": [{"name": "NodeResourcesFit", "weight": 9}]},
                "score": {"disabled": [{"name": "ImageLocality"}],
                    "enabled": [{"name": "WorkerStake", "weight": 2}]},
                "filter": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeName"}]}}},
            {"schedulerName": "b", "percentageOfNodesToScore": 3},
        ]});
        let read = Profile::read_all(&configuration).expect("it is right");
        assert_eq!(Vec::from_iter(read[0].filters.iter()), [Plugin::NodeName]);
        let weight = |plugin| read[0].weights.get(&plugin).copied();
        assert_eq!(weight(Plugin::NodeResourcesFit), Some(9));
        assert_eq!(weight(Plugin::WorkerStake), Some(2));
        assert_eq!(weight(Plugin::ImageLocality), None);
        let of = |own: &Profile| own.percentage_of_nodes_to_score;
        assert_eq!((of(&read[0]), of(&read[1])), (7, 3));
        assert_eq!(read[1].weights, Profile::default().weights);
    }

    #[test]
    fn a_configuration_without_profiles_is_the_default() {
        let read = Profile::read_all(&json!({})).expect("it is right");
        assert_eq!(read, [Profile::default()]);
    }

    #[test]
    fn a_wrong_argument_says_where_it_stands() {
        let profile = |config: Value| json!({"profiles": [{"pluginConfig": [config]}]});
        for (config, expected) in [
            (
                json!({"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "Odd"}}}),
                "profiles[0]: pluginConfig NodeResourcesFit: scoringStrategy Odd is none",
            ),
            (
                json!({"name": "VolumeBinding", "args": {"shape": []}}),
                "profiles[0]: pluginConfig VolumeBinding: shape: it has no points",
            ),
        ] {
            let read = Profile::read_all(&profile(config));
            assert_eq!(read.expect_err("it is wrong"), expected);
        }
    }

    #[test]
    fn a_shape_is_a_broken_line() {
        let shape = vec![(10, 0), (50, 100), (100, 20)];
        let scores = [0, 10, 30, 50, 75, 100].map(|use_of| on_shape(&shape, use_of));
        assert_eq!(scores, [0, 0, 50, 100, 60, 20]);
    }
}
