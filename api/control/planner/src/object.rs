//! Reading what objects say: metadata, owners, conditions, times.

use nautilus_machinery::timestamp::{self, Instant};
use serde_json::{Map, Value, json};

use crate::kind::Kind;

fn metadata<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata.namespace`, empty for none.
pub fn namespace(object: &Value) -> &str {
    metadata(object, "namespace")
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    metadata(object, "name")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    metadata(object, "uid")
}

/// A label's value.
pub fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(name)?.as_str()
}

/// An annotation's value.
pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(name)?.as_str()
}

/// Whether it is on its way out.
pub fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// When it was made.
pub fn created(object: &Value) -> Option<Instant> {
    time(&object["metadata"]["creationTimestamp"])
}

/// A field that holds a time.
pub fn time(field: &Value) -> Option<Instant> {
    field.as_str().and_then(timestamp::parse)
}

/// A time to the second, as fields of type `Time` hold it; null outside years 1 to 9999.
pub fn time_field(at: Instant) -> Value {
    timestamp::format_seconds(at.seconds).into()
}

/// A count or another whole number; 0 where it is absent.
pub fn number(field: &Value) -> i64 {
    field.as_i64().unwrap_or_default()
}

/// Sets a count of a status. None is the same as 0: what says the same is left as it is.
pub fn set_count(status: &mut Value, field: &str, count: i64) {
    if number(&status[field]) == count {
        return;
    }
    if count != 0 {
        status[field] = count.into();
    } else if let Some(fields) = status.as_object_mut() {
        fields.remove(field);
    }
}

/// Takes the condition of a type from a status, and the list with the last.
pub fn remove_condition(status: &mut Value, kind: &str) {
    let list = status.get_mut("conditions").and_then(Value::as_array_mut);
    let Some(list) = list else {
        return;
    };
    list.retain(|own| own["type"] != kind);
    if list.is_empty()
        && let Some(fields) = status.as_object_mut()
    {
        fields.remove("conditions");
    }
}

/// Milliseconds from one moment to another; negative where it lies before.
pub fn elapsed_ms(from: Instant, to: Instant) -> i64 {
    let seconds = to.seconds.saturating_sub(from.seconds);
    let nanoseconds = i64::from(to.nanoseconds - from.nanoseconds);
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds.div_euclid(1_000_000))
}

/// The items of a list; nothing where it is absent.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The owner that manages it: the one with `controller: true`.
pub fn controller(object: &Value) -> Option<&Value> {
    items(&object["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true)
}

/// Whether the owner that manages it has this uid.
pub fn is_controlled_by(object: &Value, uid: &str) -> bool {
    controller(object).is_some_and(|owner| owner["uid"] == uid)
}

/// The owner reference by which `owner` manages others, and waits for them when it is
/// deleted in the foreground.
pub fn controller_reference(kind: Kind, owner: &Value) -> Value {
    json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// `involvedObject` of an event about `object`.
pub fn reference(kind: Kind, object: &Value) -> Value {
    let mut reference = json!({
        "kind": kind.kind,
        "apiVersion": kind.api_version(),
        "name": name(object),
        "uid": uid(object),
        "resourceVersion": metadata(object, "resourceVersion"),
    });
    if kind.namespaced {
        reference["namespace"] = namespace(object).into();
    }
    reference
}

/// The condition of a type in `status.conditions`.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(&object["status"]["conditions"]).find(|own| own["type"] == kind)
}

/// Whether the condition of a type has the status `True`.
pub fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|own| own["status"] == "True")
}

/// The object with nothing but what says which version of which object it is: what a
/// [`crate::plan::Write::Update`] of a subresource needs beside the subresource.
pub fn identity(object: &Value) -> Value {
    let mut identity = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(text) = object["metadata"].get(field) {
            identity.insert(field.to_owned(), text.clone());
        }
    }
    json!({ "metadata": identity })
}

/// Whether a pod has come to its end.
pub fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// Whether a pod counts for whoever keeps a number of them: it has not ended and is not
/// on its way out.
pub fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !is_deleted(pod)
}

/// Whether a pod has its condition `Ready`.
pub fn is_ready(pod: &Value) -> bool {
    is_true(pod, "Ready")
}

/// Whether a pod is ready, and has been for `min_ready_seconds` at `now`.
pub fn is_available(pod: &Value, min_ready_seconds: i64, now: Instant) -> bool {
    let Some(ready) = condition(pod, "Ready").filter(|own| own["status"] == "True") else {
        return false;
    };
    min_ready_seconds == 0
        || time(&ready["lastTransitionTime"])
            .is_some_and(|since| since.seconds.saturating_add(min_ready_seconds) <= now.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind;
    use crate::testing::{Cluster, at};
    use crate::view::{View as _, Within};

    fn ready(status: &str, since: i64) -> Value {
        let since = time_field(at(since));
        json!({"status": {"conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": since},
        ]}})
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_for_long_enough() {
        for (pod, min_ready_s, now_s, expected) in [
            (ready("True", 0), 0, 0, true),
            (ready("False", 0), 0, 100, false),
            (ready("True", 10), 5, 14, false),
            (ready("True", 10), 5, 15, true),
            (json!({}), 0, 100, false),
        ] {
            assert_eq!(
                is_available(&pod, min_ready_s, at(now_s)),
                expected,
                "{pod}"
            );
        }
    }

    #[test]
    fn a_status_that_says_the_same_stays_as_it_is() {
        let mut status = json!({"old": 0, "more": 2, "conditions": [{"type": "A"}]});
        let before = status.clone();
        for (field, count) in [("old", 0), ("new", 0), ("more", 2)] {
            set_count(&mut status, field, count);
        }
        remove_condition(&mut status, "B");
        assert_eq!(status, before);
        set_count(&mut status, "more", 0);
        set_count(&mut status, "new", 1);
        remove_condition(&mut status, "A");
        remove_condition(&mut status, "A");
        assert_eq!(status, json!({"old": 0, "new": 1}));
    }

    #[test]
    fn only_the_managing_owner_counts() {
        let owner = |uid: &str, controller: bool| json!({"uid": uid, "controller": controller});
        let mut cluster = Cluster::default();
        for (name, owners) in [
            ("a", json!([owner("1", false), owner("2", true)])),
            ("b", json!([owner("2", false)])),
            ("c", Value::Null),
        ] {
            let metadata = json!({"namespace": "n", "name": name, "ownerReferences": owners});
            cluster.put(kind::PODS, json!({ "metadata": metadata }));
        }
        let names = |within: Within<'_>| -> Vec<String> {
            let keys = cluster.keys(kind::PODS, within);
            keys.into_iter().map(|key| key.name).collect()
        };
        assert_eq!(names(Within::Controlled("n", "2")), ["a"]);
        assert_eq!(names(Within::Controlled("n", "1")), [""; 0]);
        assert_eq!(names(Within::Uncontrolled("n")), ["b", "c"]);
    }
}
