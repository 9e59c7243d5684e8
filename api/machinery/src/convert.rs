//! Two forms of one object. Where a kind is stored as another
//! ([`Resource::stored_as`](crate::resource::Resource)), the object is rewritten on the
//! way in and out; for every other kind both functions return their input.
//!
//! Two kinds have two forms: events (`v1` and `events.k8s.io/v1`) and autoscalers
//! (`autoscaling/v2` and `v1`).

pub mod autoscaler;

use serde_json::{Map, Value};

use crate::resource::Resource;

/// `events.k8s.io/v1` name, `v1` name.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// The form that is stored.
pub fn to_stored(resource: &Resource, value: Value) -> Value {
    if let Some(defined) = &resource.defined {
        return defined.to_stored(value);
    }
    match form(resource) {
        Form::Own => value,
        Form::Autoscaler => autoscaler::to_v2(value),
        Form::Event => rename(value, "v1", |name| {
            EVENT_FIELDS
                .iter()
                .find(|(events, _)| *events == name)
                .map(|(_, core)| *core)
        }),
    }
}

/// The form that `resource` serves, from the one stored.
pub fn from_stored(resource: &Resource, value: Value) -> Value {
    if let Some(defined) = &resource.defined {
        return defined.read_stored(value);
    }
    match form(resource) {
        Form::Own => value,
        Form::Autoscaler => autoscaler::to_v1(value),
        Form::Event => {
            let mut value = rename(value, "events.k8s.io/v1", |name| {
                EVENT_FIELDS
                    .iter()
                    .find(|(_, core)| *core == name)
                    .map(|(events, _)| *events)
            });
            if let Value::Object(map) = &mut value {
                map.entry("eventTime").or_insert(Value::Null);
            }
            value
        }
    }
}

enum Form {
    Own,
    Event,
    Autoscaler,
}

fn form(resource: &Resource) -> Form {
    match &resource.stored_as {
        None => Form::Own,
        Some((group, _)) if group == "autoscaling" => Form::Autoscaler,
        Some(_) => Form::Event,
    }
}

fn rename(value: Value, version: &str, name_of: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = value else {
        return value;
    };
    let mut renamed = Map::new();
    for (name, inner) in map {
        let name = name_of(&name).map_or(name, str::to_owned);
        let inner = if name == "apiVersion" {
            Value::String(version.to_owned())
        } else {
            inner
        };
        renamed.insert(name, inner);
    }
    Value::Object(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;
    use serde_json::json;

    #[test]
    fn an_event_keeps_everything_through_its_stored_form() {
        let events = find("events.k8s.io", "v1", "events").expect("served");
        let event = json!({
            "kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "a"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod"},
            "note": "n", "reportingController": "c", "deprecatedCount": 3,
        });
        let stored = to_stored(events, event.clone());
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(from_stored(events, stored), event);
    }
}
