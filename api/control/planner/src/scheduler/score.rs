//! How good nodes are for a pod, plugin by plugin.
//!
//! Invariant: a plugin's scores of a pod's nodes go from 0 to 100 before they are weighed.

use super::cycle::Cycle;
use super::fit::{MAX_SCORE, Scored};
use super::inter_pod;
use super::label_index::Slot;
use super::node_selector::PreferredNode;
use super::plugin::Plugin;
use super::snapshot::Snapshot;
use super::spread;
use super::taint::{self, Effect, Toleration};

/// Label of workers' nodes with what their stake permits.
const STAKE_TIER: &str = "nautilus.io/stake-tier";
/// Bytes of images below which nothing is saved.
const IMAGE_FLOOR: i64 = 23 * 1024 * 1024;
/// Bytes per image from which on more saves nothing.
const IMAGE_CEILING: i64 = 1000 * 1024 * 1024;

/// What one plugin says of the nodes, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginScores {
    /// Who says so.
    pub plugin: Plugin,
    /// What its word weighs.
    pub weight: i64,
    /// From 0 to 100.
    pub scores: Vec<i64>,
}

impl Cycle<'_> {
    /// What each plugin says of `nodes`, which will all do. Who has nothing to say of the
    /// pod is left out.
    pub fn scores(&self, snapshot: &Snapshot, nodes: &[Slot]) -> Vec<PluginScores> {
        let weights = self.profile.weights.iter();
        let scores = weights.filter_map(|(plugin, weight)| {
            Some(PluginScores {
                plugin: *plugin,
                weight: *weight,
                scores: self.plugin_scores(*plugin, snapshot, nodes)?,
            })
        });
        scores.collect()
    }

    /// The sums of what they say, weighed.
    pub(super) fn totals(&self, snapshot: &Snapshot, nodes: &[Slot]) -> Vec<i64> {
        let mut totals = vec![0; nodes.len()];
        for own in self.scores(snapshot, nodes) {
            for (total, score) in totals.iter_mut().zip(&own.scores) {
                *total += score * own.weight;
            }
        }
        totals
    }

    fn plugin_scores(
        &self,
        plugin: Plugin,
        snapshot: &Snapshot,
        nodes: &[Slot],
    ) -> Option<Vec<i64>> {
        let at = |slot: &Slot| snapshot.at(*slot);
        match plugin {
            Plugin::TaintToleration => {
                let deterring = self.deterring(snapshot);
                if !deterring.contains(&true) {
                    return Some(vec![MAX_SCORE; nodes.len()]);
                }
                let count = |slot: &Slot| {
                    let taints = at(slot).taints.iter();
                    taints.map(|own| i64::from(deterring[*own as usize])).sum()
                };
                let mut scores: Vec<i64> = nodes.iter().map(count).collect();
                normalize(&mut scores);
                for score in &mut scores {
                    *score = MAX_SCORE - *score;
                }
                Some(scores)
            }
            Plugin::NodeAffinity => self.preference_scores(snapshot, nodes),
            Plugin::NodeResourcesFit => {
                let scored = Scored::for_fit(self.pod, self.profile, &snapshot.devices);
                let strategy = &self.profile.fit_strategy;
                let score = |slot: &Slot| scored.fit(at(slot), strategy);
                Some(nodes.iter().map(score).collect())
            }
            Plugin::NodeResourcesBalancedAllocation => {
                let scored = Scored::for_balance(self.pod, self.profile, &snapshot.devices)?;
                Some(nodes.iter().map(|slot| scored.balance(at(slot))).collect())
            }
            Plugin::VolumeBinding => {
                let storage = self.storage.as_ref()?;
                Some(storage.scores(snapshot, self.profile, nodes))
            }
            Plugin::PodTopologySpread => spread::scores(snapshot, self.pod, self.profile, nodes),
            Plugin::InterPodAffinity => inter_pod::scores(snapshot, self.pod, self.profile, nodes),
            Plugin::DynamicResources => self.devices.as_ref()?.scores(snapshot, nodes),
            Plugin::WorkerStake => {
                let tier = |slot: &Slot| stake(at(slot).labels.get(STAKE_TIER).map(String::as_str));
                Some(nodes.iter().map(tier).collect())
            }
            Plugin::NodeLoad => {
                let idle = |slot: &Slot| snapshot.idle(&at(slot).name);
                Some(nodes.iter().map(idle).collect())
            }
            Plugin::ImageLocality => Some(self.image_scores(snapshot, nodes)),
            _ => None,
        }
    }

    /// By number: taints that deter the pod.
    fn deterring(&self, snapshot: &Snapshot) -> Vec<bool> {
        let tolerations: Vec<Toleration> = self
            .pod
            .tolerations
            .iter()
            .filter(|own| own.is_for_preferences())
            .cloned()
            .collect();
        snapshot.taints.map(false, |own| {
            own.effect == Effect::PreferNoSchedule && !taint::is_tolerated(own, &tolerations)
        })
    }

    fn preference_scores(&self, snapshot: &Snapshot, nodes: &[Slot]) -> Option<Vec<i64>> {
        let preferences: [&PreferredNode; 2] =
            [&self.profile.added_preferred, &self.pod.preferred_node];
        let terms: Vec<_> = preferences.iter().flat_map(|own| &own.terms).collect();
        if terms.is_empty() {
            return None;
        }
        let mut scores = vec![0; nodes.len()];
        for (weight, term) in terms {
            let matching = snapshot.matching_term(term);
            for (score, slot) in scores.iter_mut().zip(nodes) {
                *score += if matching.contains(*slot) { *weight } else { 0 };
            }
        }
        normalize(&mut scores);
        Some(scores)
    }

    /// What of the pod's images the nodes have already, in bytes, less for images that few
    /// nodes have.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "the reference computes in float64"
    )]
    fn image_scores(&self, snapshot: &Snapshot, nodes: &[Slot]) -> Vec<i64> {
        let all_nodes = snapshot.len() as f64;
        let known = self.pod.images.iter().filter_map(|own| {
            let id = snapshot.images.id(own.as_str())?;
            let spread = f64::from(snapshot.images.count(id)) / all_nodes;
            let size = snapshot.image_sizes[id as usize] as f64;
            Some((id, (size * spread) as i64))
        });
        let known: Vec<(u32, i64)> = known.collect();
        if known.is_empty() {
            return vec![0; nodes.len()];
        }
        let images = i64::try_from(self.pod.images.len()).unwrap_or(1).max(1);
        let ceiling = IMAGE_CEILING.saturating_mul(images);
        let score = |slot: &Slot| {
            let own = &snapshot.at(*slot).images;
            let there = known.iter().filter(|(id, _)| own.binary_search(id).is_ok());
            let bytes: i64 = there.map(|(_, bytes)| bytes).sum();
            let bytes = bytes.clamp(IMAGE_FLOOR, ceiling);
            MAX_SCORE * (bytes - IMAGE_FLOOR) / (ceiling - IMAGE_FLOOR)
        };
        nodes.iter().map(score).collect()
    }
}

/// The more is at stake, the better.
fn stake(tier: Option<&str>) -> i64 {
    let tiers = ["none", "view", "node", "administration"];
    let place = tiers.into_iter().position(|own| Some(own) == tier);
    let place = place.and_then(|own| i64::try_from(own).ok());
    place.unwrap_or_default() * MAX_SCORE / 3
}

/// Stretches scores so that the best is 100.
fn normalize(scores: &mut [i64]) {
    let most = scores.iter().copied().max().unwrap_or_default();
    if most > 0 {
        for score in scores {
            *score = MAX_SCORE * *score / most;
        }
    }
}
