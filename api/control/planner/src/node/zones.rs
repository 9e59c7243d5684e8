//! Which lost nodes are to be emptied (`NoExecute`), and how fast, zone by zone.
//! <https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction>
//!
//! | a zone's nodes | another of its lost nodes is tainted every |
//! |---|---|
//! | are ready for the greater part | [`INTERVAL_S`] |
//! | are lost for [`DISRUPTED_PERCENT`] or more | [`DISRUPTED_INTERVAL_S`]; never in a zone of [`SMALL_ZONE`] or fewer |
//! | are all lost, and another zone's are not | [`INTERVAL_S`] |
//! | are all lost in every zone | never, and what was tainted is not: it is this side that is cut off |
//!
//! Invariant: when a zone's turn comes is read off the times of its nodes' taints, so that
//! a new leader goes on where the last one was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::{ACCOUNT, is_workers, readiness, taints};
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View, Within};

/// Seconds between two nodes of a zone.
const INTERVAL_S: i64 = 10;
/// The same in a zone that is disrupted.
const DISRUPTED_INTERVAL_S: i64 = 100;
/// The part of a zone whose loss is a disruption...
const DISRUPTED_PERCENT: usize = 55;
/// ... where it is more than so many nodes.
const DISRUPTED_LEAST: usize = 2;
/// Nodes of a zone in which a disruption ends all evictions.
const SMALL_ZONE: usize = 50;
/// Label of nodes that do not count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// The controller of lost nodes' taints. There is one key: all zones.
pub struct Zones;

/// What a look at the zones needs of a node.
struct Member {
    node: Arc<Value>,
    /// In Unix seconds.
    lost_since: i64,
}

#[derive(Default)]
struct Zone {
    ready: usize,
    lost: usize,
    /// Ordinary nodes that are lost and have no such taint.
    waiting: Vec<Member>,
    /// When the last one was tainted, in Unix seconds.
    last: Option<i64>,
}

impl Controller for Zones {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::NODES]
    }

    fn concerns(&self, _view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let shape = |node: &Arc<Value>| {
            let has = |key: &str| taints::has(node, key, taints::NO_EXECUTE);
            (
                readiness(node).map(str::to_owned),
                zone_of(node),
                object::label(node, EXCLUDED).is_some(),
                [has(taints::NOT_READY), has(taints::UNREACHABLE)],
            )
        };
        // Workers come by the ten thousand: they count when somebody else is looked at.
        let ordinary = |node: &Option<Arc<Value>>| {
            let node = node.as_ref().filter(|node| !is_workers(node));
            node.map(shape)
        };
        if ordinary(&change.before) != ordinary(&change.after) {
            keys.push(Key::new("", "zones"));
        }
    }

    fn reconcile(&self, view: &dyn View, _key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut zones: BTreeMap<(String, String), Zone> = BTreeMap::new();
        let nodes = view.list(kind::NODES, Within::All);
        let mut writes = Vec::new();
        for node in &nodes {
            let zone = zones.entry(zone_of(node)).or_default();
            if object::label(node, EXCLUDED).is_none() {
                match object::is_ready(node) {
                    true => zone.ready += 1,
                    false => zone.lost += 1,
                }
            }
            if !is_workers(node) {
                writes.extend(zone.enter(node, now));
            }
        }
        zones.retain(|_, zone| zone.ready + zone.lost > 0 || !zone.waiting.is_empty());
        let counted = || zones.values().filter(|zone| zone.ready + zone.lost > 0);
        if counted().count() > 0 && counted().all(|zone| zone.ready == 0) {
            let ordinary = || nodes.iter().filter(|node| !is_workers(node));
            plan.together(ordinary().filter_map(|node| spare(node, now)).collect());
            if (1..nodes.len()).contains(&ordinary().count()) {
                // A worker that is heard again shows that this side is not cut off.
                plan.again(Duration::from_secs(INTERVAL_S.unsigned_abs()));
            }
            return plan;
        }
        for zone in zones.values_mut() {
            writes.extend(zone.take_one(now, &mut plan));
        }
        plan.together(writes);
        plan
    }
}

/// Region and zone.
fn zone_of(node: &Value) -> (String, String) {
    let label = |name: &str, older: &str| {
        let own = object::label(node, name).or_else(|| object::label(node, older));
        own.unwrap_or_default().to_owned()
    };
    (
        label(
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/region",
        ),
        label(
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
        ),
    )
}

fn is_loss(taint: &Value) -> bool {
    taint["effect"] == taints::NO_EXECUTE
        && (taint["key"] == taints::NOT_READY || taint["key"] == taints::UNREACHABLE)
}

/// Takes the taints of lost nodes away.
fn spare(node: &Value, now: Instant) -> Option<Write> {
    let taints = taints::changed(node, is_loss, &[], now)?;
    Some(taints::write(node, &taints))
}

/// The taint that a lost node has.
fn taint_of(readiness: Option<&str>) -> Option<&'static str> {
    match readiness? {
        "False" => Some(taints::NOT_READY),
        "Unknown" => Some(taints::UNREACHABLE),
        _ => None,
    }
}

/// Gives a lost node its taint, and only that one of the two.
fn taint(node: &Value, key: &str, now: Instant) -> Option<Write> {
    let drops = |own: &Value| is_loss(own) && own["key"] != key;
    let taints = taints::changed(node, drops, &[(key, taints::NO_EXECUTE)], now)?;
    Some(taints::write(node, &taints))
}

impl Zone {
    /// Looks at an ordinary node: what has the taint of another state, or one it should not
    /// have, is mended at once.
    fn enter(&mut self, node: &Arc<Value>, now: Instant) -> Option<Write> {
        let times = taints::of(node).filter(|own| is_loss(own));
        let times = times.filter_map(|own| object::time(&own["timeAdded"]));
        let last = times.map(|at| at.seconds).max();
        self.last = self.last.max(last);
        let condition = object::condition(node, "Ready")?;
        let Some(key) = taint_of(condition["status"].as_str()) else {
            return spare(node, now);
        };
        if taints::of(node).any(is_loss) {
            return taint(node, key, now);
        }
        let since = object::time(&condition["lastTransitionTime"]);
        self.waiting.push(Member {
            node: node.clone(),
            lost_since: since.map_or(0, |at| at.seconds),
        });
        None
    }

    fn interval_s(&self) -> Option<i64> {
        let all = self.ready + self.lost;
        let is_disrupted = self.ready > 0
            && self.lost > DISRUPTED_LEAST
            && self.lost * 100 >= all * DISRUPTED_PERCENT;
        match is_disrupted {
            false => Some(INTERVAL_S),
            true if all > SMALL_ZONE => Some(DISRUPTED_INTERVAL_S),
            true => None,
        }
    }

    /// Taints the node that was lost first, if it is the zone's turn; has the zones looked
    /// at again when it is next.
    fn take_one(&mut self, now: Instant, plan: &mut Plan) -> Option<Write> {
        let interval_s = self.interval_s()?;
        let first = self.waiting.iter().min_by_key(|own| own.lost_since)?;
        let left = self
            .last
            .map_or(0, |last| last.saturating_add(interval_s) - now.seconds);
        if left > 0 {
            // A time ahead of ours was not set here.
            let left = left.min(interval_s);
            plan.again(Duration::from_secs(u64::try_from(left).unwrap_or_default()));
            return None;
        }
        let key = taint_of(readiness(&first.node))?;
        taint(&first.node, key, now)
    }
}

#[cfg(test)]
#[path = "zones_tests.rs"]
mod tests;
