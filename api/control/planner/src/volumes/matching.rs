//! Which volume a claim gets, and why one that it names does not do.

use std::collections::BTreeSet;
use std::sync::Arc;

use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::selector::LabelSelector;
use serde_json::Value;

use super::{class, is_for};
use crate::kind::VOLUMES;
use crate::object;
use crate::view::{View, Within};

/// When a volume is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    /// At once.
    Immediate,
    /// The scheduler chooses; until then a claim gets nothing but what is kept for it.
    Delayed,
}

/// The volume for a claim: one that is kept for it, or else the smallest that is large
/// enough; of those with the fewest access modes first.
pub(super) fn best(view: &dyn View, claim: &Value, binding: Binding) -> Option<Arc<Value>> {
    let selector = &claim["spec"]["selector"];
    let selector = match selector {
        Value::Null => None,
        selector => Some(LabelSelector::of_object(selector).ok()?),
    };
    let request = Quantity::parse(requested(claim)).ok();
    let selects = |volume: &Value| {
        volume["status"]["phase"] == "Available"
            && class(volume) == class(claim)
            && selector.as_ref().is_none_or(|own| own.matches(volume))
    };
    let mut candidates: Vec<_> = view
        .list(VOLUMES, Within::All)
        .into_iter()
        .filter(|volume| {
            let is_taken = volume["spec"]["claimRef"].is_object() && !is_for(volume, claim);
            !is_taken && !object::is_deleted(volume)
        })
        .filter(|volume| mode(volume) == mode(claim) && attributes(volume) == attributes(claim))
        .filter(|volume| modes(claim).is_subset(&modes(volume)))
        .filter_map(|volume| {
            let size = Quantity::parse(capacity(&volume)).ok()?;
            let kept = is_for(&volume, claim);
            let fits = request.as_ref().is_none_or(|request| size >= *request);
            let eligible = kept || (binding == Binding::Immediate && selects(&volume));
            (fits && eligible).then(|| (modes(&volume).len(), !kept, size, volume))
        })
        .collect();
    // Stable: equal ones stay in the order of names.
    candidates.sort_by(|one, two| {
        let by_modes = (one.0, one.1).cmp(&(two.0, two.1));
        by_modes.then_with(|| one.2.cmp(&two.2))
    });
    candidates.into_iter().next().map(|(.., volume)| volume)
}

/// Whether a claim that waits for a pod can get a volume, or has it already: nobody else's,
/// of its class, kind and modes. How large it is and where is for the caller to ask.
pub fn can_be_for(volume: &Value, claim: &Value) -> bool {
    let alike = mode(volume) == mode(claim)
        && attributes(volume) == attributes(claim)
        && class(volume) == class(claim)
        && !object::is_deleted(volume);
    if is_for(volume, claim) {
        return alike;
    }
    let selector = &claim["spec"]["selector"];
    let selected = || match selector {
        Value::Null => true,
        _ => LabelSelector::of_object(selector).is_ok_and(|own| own.matches(volume)),
    };
    alike
        && !volume["spec"]["claimRef"].is_object()
        && volume["status"]["phase"] == "Available"
        && modes(claim).is_subset(&modes(volume))
        && selected()
}

/// Why a volume that a claim names does not do.
pub(super) fn mismatch(volume: &Value, claim: &Value) -> Option<String> {
    let units = |text: &str| Quantity::parse(text).map_or(0, |own| own.units_up());
    if object::is_deleted(volume) {
        let name = object::name(volume);
        return Some(format!("the volume is marked for deletion \"{name}\""));
    }
    let reason = if units(capacity(volume)) < units(requested(claim)) {
        "requested PV is too small"
    } else if class(volume) != class(claim) {
        "storageClassName does not match"
    } else if attributes(volume) != attributes(claim) {
        "volumeAttributesClassName does not match"
    } else if mode(volume) != mode(claim) {
        "incompatible volumeMode"
    } else if !modes(claim).is_subset(&modes(volume)) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// `Filesystem` or `Block`.
pub(super) fn mode(object: &Value) -> &str {
    object["spec"]["volumeMode"]
        .as_str()
        .unwrap_or("Filesystem")
}

/// The class of attributes of a claim or a volume, empty for none.
pub(super) fn attributes(object: &Value) -> &str {
    let class = object["spec"]["volumeAttributesClassName"].as_str();
    class.unwrap_or_default()
}

fn modes(object: &Value) -> BTreeSet<&str> {
    object::items(&object["spec"]["accessModes"])
        .filter_map(Value::as_str)
        .collect()
}

fn capacity(volume: &Value) -> &str {
    volume["spec"]["capacity"]["storage"]
        .as_str()
        .unwrap_or("0")
}

fn requested(claim: &Value) -> &str {
    let request = &claim["spec"]["resources"]["requests"]["storage"];
    request.as_str().unwrap_or("0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;
    use serde_json::json;

    fn volume(name: &str, size: &str, modes: &[&str], more: &Value) -> Value {
        let mut volume = json!({
            "metadata": {"name": name, "labels": {"disk": name}},
            "spec": {"capacity": {"storage": size}, "accessModes": modes, "storageClassName": "c"},
            "status": {"phase": "Available"},
        });
        nautilus_machinery::patch::merge(&mut volume, more);
        volume
    }

    fn claim(more: &Value) -> Value {
        let mut claim = json!({
            "metadata": {"namespace": "n", "name": "c", "uid": "1"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "5Gi"}},
                "storageClassName": "c",
            },
        });
        nautilus_machinery::patch::merge(&mut claim, more);
        claim
    }

    const ONCE: &[&str] = &["ReadWriteOnce"];
    const BOTH: &[&str] = &["ReadWriteOnce", "ReadOnlyMany"];

    #[test]
    fn a_claim_gets_the_smallest_volume_that_does() {
        let kept =
            |uid: &str| json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": uid}}});
        for (what, volumes, change, expected) in [
            (
                "smallest",
                vec![
                    volume("a", "20Gi", ONCE, &json!({})),
                    volume("b", "10Gi", ONCE, &json!({})),
                ],
                json!({}),
                Some("b"),
            ),
            (
                "large enough",
                vec![volume("a", "4Gi", ONCE, &json!({}))],
                json!({}),
                None,
            ),
            (
                "fewest modes",
                vec![
                    volume("a", "5Gi", BOTH, &json!({})),
                    volume("b", "9Gi", ONCE, &json!({})),
                ],
                json!({}),
                Some("b"),
            ),
            (
                "all modes",
                vec![volume("a", "9Gi", ONCE, &json!({}))],
                json!({"spec": {"accessModes": BOTH}}),
                None,
            ),
            (
                "class",
                vec![volume("a", "9Gi", ONCE, &json!({}))],
                json!({"spec": {"storageClassName": "d"}}),
                None,
            ),
            (
                "mode",
                vec![volume("a", "9Gi", ONCE, &json!({}))],
                json!({"spec": {"volumeMode": "Block"}}),
                None,
            ),
            (
                "selector",
                vec![
                    volume("a", "5Gi", ONCE, &json!({})),
                    volume("b", "9Gi", ONCE, &json!({})),
                ],
                json!({"spec": {"selector": {"matchLabels": {"disk": "b"}}}}),
                Some("b"),
            ),
            (
                "free",
                vec![volume(
                    "a",
                    "9Gi",
                    ONCE,
                    &json!({"status": {"phase": "Released"}}),
                )],
                json!({}),
                None,
            ),
            (
                "kept by name",
                vec![
                    volume("a", "5Gi", ONCE, &json!({})),
                    volume("b", "9Gi", ONCE, &kept("")),
                ],
                json!({}),
                Some("b"),
            ),
            (
                "kept by uid",
                vec![volume("b", "9Gi", ONCE, &kept("1"))],
                json!({}),
                Some("b"),
            ),
            (
                "kept for an earlier one",
                vec![volume("b", "9Gi", ONCE, &kept("0"))],
                json!({}),
                None,
            ),
            (
                "kept, but too small",
                vec![volume("b", "1Gi", ONCE, &kept("1"))],
                json!({}),
                None,
            ),
        ] {
            let mut cluster = Cluster::default();
            for volume in volumes {
                cluster.put(VOLUMES, volume);
            }
            let found = best(&cluster, &claim(&change), Binding::Immediate);
            let found = found.as_deref().map(object::name);
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn a_claim_that_waits_gets_only_what_is_kept_for_it() {
        let mut cluster = Cluster::default();
        cluster.put(VOLUMES, volume("a", "9Gi", ONCE, &json!({})));
        assert!(best(&cluster, &claim(&json!({})), Binding::Delayed).is_none());
        let kept = json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "1"}}});
        cluster.put(VOLUMES, volume("b", "9Gi", ONCE, &kept));
        assert!(best(&cluster, &claim(&json!({})), Binding::Delayed).is_some());
    }

    #[test]
    fn a_volume_that_is_named_and_does_not_do_is_told_of() {
        for (change, expected) in [
            (json!({}), None),
            (
                json!({"spec": {"resources": {"requests": {"storage": "20Gi"}}}}),
                Some("requested PV is too small"),
            ),
            (
                json!({"spec": {"storageClassName": "d"}}),
                Some("storageClassName does not match"),
            ),
            (
                json!({"spec": {"volumeAttributesClassName": "d"}}),
                Some("volumeAttributesClassName does not match"),
            ),
            (
                json!({"spec": {"volumeMode": "Block"}}),
                Some("incompatible volumeMode"),
            ),
            (
                json!({"spec": {"accessModes": BOTH}}),
                Some("incompatible accessMode"),
            ),
        ] {
            let volume = volume("a", "9Gi", ONCE, &json!({}));
            let seen = mismatch(&volume, &claim(&change));
            assert_eq!(seen.as_deref(), expected, "{change}");
        }
    }
}
