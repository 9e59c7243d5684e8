//! For which zones and nodes an endpoint is meant (`hints`): as the service's
//! `trafficDistribution` has it, or in proportion to the zones' processors where its
//! annotation says `Auto`. Sources: KEP-4444, KEP-3015, KEP-2433.
//!
//! Invariant: with hints in proportion, no zone has less than its share of the endpoints
//! over 1 + [`OVERLOAD`]; where that can't be, no endpoint has a hint.

use std::collections::BTreeMap;

use nautilus_machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::packing::{Draft, Fate};
use crate::kind;
use crate::object;
use crate::plan::Write;
use crate::view::{View, Within};

/// By how much an endpoint's load may exceed the mean.
const OVERLOAD: f64 = 0.2;
/// Label with a node's zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// How endpoints get their hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distribution {
    Anywhere,
    SameZone,
    SameNode,
    InProportion,
}

fn distribution(service: &Value) -> Distribution {
    if is_in_proportion(service) {
        return Distribution::InProportion;
    }
    match service["spec"]["trafficDistribution"].as_str() {
        Some("PreferClose" | "PreferSameZone") => Distribution::SameZone,
        Some("PreferSameNode") => Distribution::SameNode,
        _ => Distribution::Anywhere,
    }
}

/// Whether the zones' processors count for a service.
pub(super) fn is_in_proportion(service: &Value) -> bool {
    let older = object::annotation(service, "service.kubernetes.io/topology-aware-hints");
    let mode = older.or_else(|| object::annotation(service, "service.kubernetes.io/topology-mode"));
    matches!(mode, Some("Auto" | "auto"))
}

/// Sets the hints in the slices of one family; gives what is to be told of it.
pub(super) fn set(
    view: &dyn View,
    service: &Value,
    family: &str,
    drafts: &mut [Draft],
) -> Option<Write> {
    let distribution = distribution(service);
    if distribution != Distribution::InProportion {
        for draft in drafts.iter_mut().filter(|own| own.fate != Fate::Removed) {
            set_by(draft, |endpoint| near(endpoint, distribution));
        }
        return None;
    }
    let mut slices: Vec<&mut Draft> = drafts
        .iter_mut()
        .filter(|own| own.fate != Fate::Removed)
        .collect();
    let endpoints = || slices.iter().flat_map(|draft| draft.endpoints());
    let had_hints = endpoints().any(|endpoint| endpoint["hints"].is_object());
    let ready = endpoints().filter(|endpoint| is_ready(endpoint)).count();
    let hints = shares(view, ready).and_then(|shares| assign(&slices, &shares));
    let tell = |write: fn(_, _, _, _) -> Write, reason, message: &str| {
        let message = format!("{message}, addressType: {family}");
        Some(write(kind::SERVICES, service, reason, message))
    };
    match hints {
        Ok(hints) => {
            for (slice, hints) in hints {
                let mut hints = hints.into_iter();
                set_by(slices[slice], |_| Some(hints.next().unwrap_or_default()));
            }
            let message = "Topology Aware Hints has been enabled";
            tell(Write::event, "TopologyAwareHintsEnabled", message).filter(|_| !had_hints)
        }
        Err(message) => {
            for draft in slices {
                set_by(draft, |_| Some(Value::Null));
            }
            tell(Write::warning, "TopologyAwareHintsDisabled", &message)
        }
    }
}

fn is_ready(endpoint: &Value) -> bool {
    endpoint["conditions"]["ready"] == true
}

/// Hints by the endpoint's own place; `None`: they stay as they are.
fn near(endpoint: &Value, distribution: Distribution) -> Option<Value> {
    if distribution == Distribution::Anywhere {
        return Some(Value::Null);
    }
    if !is_ready(endpoint) {
        return None;
    }
    let mut hints = Value::Null;
    if let Some(zone) = endpoint["zone"].as_str() {
        hints["forZones"] = json!([{ "name": zone }]);
    }
    if distribution == Distribution::SameNode
        && let Some(node) = endpoint["nodeName"].as_str()
    {
        hints["forNodes"] = json!([{ "name": node }]);
    }
    Some(hints)
}

/// Sets the hints of each endpoint (null: none); the slice is written if that changed it.
fn set_by(draft: &mut Draft, mut hints: impl FnMut(&Value) -> Option<Value>) {
    let mut is_changed = false;
    for endpoint in draft.endpoints_mut().into_iter().flatten() {
        let Some(hints) = hints(endpoint) else {
            continue;
        };
        if hints == endpoint["hints"] {
            continue;
        }
        if let Some(fields) = endpoint.as_object_mut() {
            is_changed = true;
            match hints {
                Value::Null => drop(fields.shift_remove("hints")),
                hints => drop(fields.insert("hints".to_owned(), hints)),
            }
        }
    }
    if is_changed {
        draft.fate = Fate::Changed;
    }
}

/// What a zone may have of the endpoints.
#[derive(Debug)]
struct Share {
    most: usize,
    wanted: f64,
}

type Shares = BTreeMap<String, Share>;

/// The zones' shares of so many endpoints, or why there are none.
fn shares(view: &dyn View, endpoints: usize) -> Result<Shares, String> {
    let ratios = processors(view).ok_or(
        "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes",
    )?;
    let zones = ratios.len();
    let refuse = |why: &str| Err(format!("{why} ({endpoints} endpoints, {zones} zones)"));
    if zones > endpoints {
        return refuse("Insufficient number of endpoints");
    }
    let least = |ratio: f64| {
        let wanted = ratio * count(endpoints);
        (wanted, (wanted / (1.0 + OVERLOAD)).ceil())
    };
    let total: f64 = ratios.values().map(|ratio| least(*ratio).1).sum();
    let spare = count(endpoints) - total;
    if spare < 0.0 {
        return refuse(
            "Unable to allocate minimum required endpoints to each zone without exceeding overload \
             threshold",
        );
    }
    let share = |(zone, ratio): (String, f64)| {
        let (wanted, least) = least(ratio);
        let share = Share {
            most: whole(least + spare),
            wanted: wanted.max(least),
        };
        (zone, share)
    };
    Ok(ratios.into_iter().map(share).collect())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "endpoints of a service are far fewer than 2^52"
)]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number between 0 and the number of endpoints"
)]
fn whole(number: f64) -> usize {
    number as usize
}

/// Which part of the ready nodes' processors each zone has; `None` where a node does not
/// say, or where there are fewer than two zones.
fn processors(view: &dyn View) -> Option<BTreeMap<String, f64>> {
    let mut zones: BTreeMap<String, f64> = BTreeMap::new();
    for node in view.list(kind::NODES, Within::All) {
        let is_master = |role| object::label(&node, role).is_some();
        if is_master("node-role.kubernetes.io/control-plane")
            || is_master("node-role.kubernetes.io/master")
            || !object::is_ready(&node)
        {
            continue;
        }
        let zone = object::label(&node, ZONE).filter(|zone| !zone.is_empty())?;
        let told = node["status"]["allocatable"]["cpu"].as_str()?;
        let processors = Quantity::parse(told).ok()?;
        if processors.is_zero() {
            return None;
        }
        *zones.entry(zone.to_owned()).or_default() += processors.as_f64();
    }
    let total: f64 = zones.values().sum();
    zones.values_mut().for_each(|own| *own /= total);
    (zones.len() >= 2).then_some(zones)
}

/// The hints of the endpoints of those slices (by their place) that are given new ones.
/// Slices that are not written anyway keep theirs where these fit.
fn assign(slices: &[&mut Draft], shares: &Shares) -> Result<Vec<(usize, Vec<Value>)>, String> {
    let mut given: BTreeMap<&str, usize> = BTreeMap::new();
    let mut open = Vec::new();
    for (place, draft) in slices.iter().enumerate() {
        let fitting = (draft.fate == Fate::Unchanged)
            .then(|| fitting(draft, &given, shares))
            .flatten();
        match fitting {
            Some(own) => own.into_iter().for_each(|(zone, number)| {
                *given.entry(zone).or_default() += number;
            }),
            None => open.push((place, draft)),
        }
    }
    let mut zones: Vec<(usize, Vec<Option<&str>>)> = Vec::new();
    for (place, draft) in open {
        let mut own = Vec::new();
        for endpoint in draft.endpoints() {
            let zone = endpoint["zone"].as_str().filter(|zone| !zone.is_empty());
            if !is_ready(endpoint) {
                own.push(None);
                continue;
            }
            let zone = zone.ok_or("One or more endpoints do not have a zone specified")?;
            *given.entry(zone).or_default() += 1;
            own.push(Some(zone));
        }
        zones.push((place, own));
    }
    let (mut giving, mut receiving) = moves(shares, &given);
    for zone in zones.iter_mut().flat_map(|(_, own)| own).flatten() {
        let Some(left) = giving.get_mut(*zone).filter(|left| **left > 0) else {
            continue;
        };
        if let Some((to, more)) = receiving.iter_mut().find(|(_, more)| **more > 0) {
            *left -= 1;
            *more -= 1;
            *zone = to;
        }
    }
    let hint = |zone: Option<&str>| match zone {
        Some(zone) => json!({"forZones": [{ "name": zone }]}),
        None => Value::Null,
    };
    let hints =
        |(place, own): (usize, Vec<Option<&str>>)| (place, own.into_iter().map(hint).collect());
    Ok(zones.into_iter().map(hints).collect())
}

/// How many hints a slice has for each zone; `None` where it needs others.
fn fitting<'a>(
    draft: &'a Draft,
    given: &BTreeMap<&str, usize>,
    shares: &Shares,
) -> Option<BTreeMap<&'a str, usize>> {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for endpoint in draft.endpoints().iter().filter(|own| is_ready(own)) {
        let hints = endpoint["hints"]["forZones"].as_array()?;
        if hints.is_empty() {
            return None;
        }
        for hint in hints {
            let zone = hint["name"]
                .as_str()
                .filter(|zone| shares.contains_key(*zone))?;
            *zones.entry(zone).or_default() += 1;
        }
    }
    let fits = zones.iter().all(|(zone, number)| {
        let before = given.get(zone).copied().unwrap_or_default();
        shares
            .get(*zone)
            .is_some_and(|share| before + number <= share.most)
    });
    fits.then_some(zones)
}

/// How many endpoints zones give to others, and how many others receive.
fn moves<'a>(
    shares: &'a Shares,
    given: &BTreeMap<&str, usize>,
) -> (BTreeMap<&'a str, usize>, BTreeMap<&'a str, usize>) {
    let (mut over, mut under) = (BTreeMap::new(), BTreeMap::new());
    for (zone, share) in shares {
        let own = count(given.get(zone.as_str()).copied().unwrap_or_default());
        match own > share.wanted {
            true => over.insert(zone.as_str(), own - share.wanted),
            false => under.insert(zone.as_str(), share.wanted - own),
        };
    }
    let most = |zones: &BTreeMap<&'a str, f64>| {
        let largest = zones.iter().max_by(|one, other| one.1.total_cmp(other.1));
        largest.map(|(zone, number)| (*zone, *number))
    };
    let (mut giving, mut receiving) = (BTreeMap::new(), BTreeMap::new());
    while let (Some((from, gives)), Some((to, takes))) = (most(&over), most(&under)) {
        if (gives < 1.0 && takes < 1.0) || gives < 0.5 || takes < 0.5 {
            break;
        }
        for (wanted, zone, moved) in [
            (&mut over, from, &mut giving),
            (&mut under, to, &mut receiving),
        ] {
            *wanted.entry(zone).or_default() -= 1.0;
            *moved.entry(zone).or_default() += 1;
        }
    }
    (giving, receiving)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::Cluster;

    fn cluster(processors: &[(&str, &str)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (zone, processors) in processors {
            let node = json!({
                "metadata": {"labels": {ZONE: zone}},
                "status": {
                    "allocatable": {"cpu": processors},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            });
            cluster.put(kind::NODES, node);
        }
        cluster
    }

    /// One slice with ready endpoints in these zones.
    fn slice(zones: &str) -> Draft {
        let endpoints: Vec<Value> = zones
            .chars()
            .map(|zone| match zone {
                '-' => json!({"conditions": {"ready": false}, "zone": "a"}),
                zone => json!({
                    "conditions": {"ready": true}, "zone": zone.to_string(), "nodeName": "n",
                }),
            })
            .collect();
        Draft::of(&Arc::new(json!({ "endpoints": endpoints })))
    }

    fn hints(draft: &Draft) -> String {
        let zone = |endpoint: &Value| match endpoint["hints"]["forZones"][0]["name"].as_str() {
            Some(zone) => zone.to_owned(),
            None => "-".to_owned(),
        };
        draft.endpoints().iter().map(zone).collect()
    }

    #[test]
    fn endpoints_are_shared_out_as_the_zones_have_processors() {
        let service = json!({"metadata": {
            "annotations": {"service.kubernetes.io/topology-mode": "Auto"},
        }});
        let equal = [("a", "1"), ("b", "1000m")];
        for (nodes, zones, expected, told) in [
            (
                &equal[..],
                "aabb",
                "aabb",
                "Topology Aware Hints has been enabled, addressType: IPv4",
            ),
            (
                &equal[..],
                "aaaa-",
                "bbaa-",
                "Topology Aware Hints has been enabled, addressType: IPv4",
            ),
            (
                &[("a", "3"), ("b", "1")],
                "aabb",
                "aaab",
                "Topology Aware Hints has been enabled, addressType: IPv4",
            ),
            (
                &equal[..],
                "a",
                "-",
                "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv4",
            ),
            (
                &equal[..],
                "aab",
                "---",
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (3 endpoints, 2 zones), addressType: IPv4",
            ),
            (
                &[("a", "1")],
                "aa",
                "--",
                "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes, addressType: IPv4",
            ),
        ] {
            let view = cluster(nodes);
            let mut drafts = [slice(zones)];
            let event = set(&view, &service, "IPv4", &mut drafts);
            let Some(Write::Event(event)) = event else {
                panic!("{zones}: nothing is told");
            };
            let mut ours: Vec<char> = hints(&drafts[0]).chars().collect();
            let mut others: Vec<char> = expected.chars().collect();
            ours.sort_unstable();
            others.sort_unstable();
            assert_eq!((ours, event.message.as_str()), (others, told), "{zones}");
            // Hints that fit stay, and nothing more is told of them.
            if !event.warning {
                let mut again = [Draft::of(&Arc::new(drafts[0].slice.clone()))];
                assert_eq!(set(&view, &service, "IPv4", &mut again), None);
                assert_eq!(again[0].fate, Fate::Unchanged);
            }
        }
    }

    #[test]
    fn a_distribution_hints_at_the_endpoints_own_place() {
        let view = Cluster::default();
        for (distribution, zone, node) in [
            ("PreferClose", true, false),
            ("PreferSameZone", true, false),
            ("PreferSameNode", true, true),
            ("", false, false),
        ] {
            let service = json!({"spec": {"trafficDistribution": distribution}});
            let mut drafts = [slice("a-")];
            assert_eq!(set(&view, &service, "IPv4", &mut drafts), None);
            let hints = &drafts[0].endpoints()[0]["hints"];
            assert_eq!(hints["forZones"][0]["name"] == "a", zone, "{distribution}");
            assert_eq!(hints["forNodes"][0]["name"] == "n", node, "{distribution}");
            assert_eq!(drafts[0].fate == Fate::Changed, zone, "{distribution}");
            assert_eq!(drafts[0].endpoints()[1]["hints"], Value::Null);
            let anywhere = json!({});
            set(&view, &anywhere, "IPv4", &mut drafts);
            assert_eq!(drafts[0].endpoints()[0]["hints"], Value::Null);
        }
    }
}
