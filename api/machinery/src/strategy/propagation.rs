//! What a deletion means for dependents, written into the object as finalizers that the
//! garbage collector takes off when it is done.
//!
//! Source: the documentation of finalizers `foregroundDeletion` and `orphan`.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::DeleteOptions;
use crate::resource::Resource;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Kinds whose dependents stay where nobody says otherwise, for what once was promised.
const ORPHANING: [(&str, &str); 2] = [("", "replicationcontrollers"), ("batch", "jobs")];

/// The object with the finalizers that the deletion asks for.
pub(super) fn with_finalizers<'o>(
    resource: &Resource,
    object: &'o Value,
    options: &DeleteOptions,
) -> Cow<'o, Value> {
    let present: Vec<&str> = object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let kept = || match () {
        () if present.contains(&ORPHAN) => Some(ORPHAN),
        () if present.contains(&FOREGROUND) => Some(FOREGROUND),
        () if ORPHANING.contains(&(&resource.group, &resource.plural)) => Some(ORPHAN),
        () => None,
    };
    let wanted = match options.propagation_policy.as_deref() {
        Some("Orphan") => Some(ORPHAN),
        Some("Foreground") => Some(FOREGROUND),
        Some("Background") => None,
        _ => kept(),
    };
    let mut finalizers: Vec<&str> = present
        .iter()
        .copied()
        .filter(|own| ![ORPHAN, FOREGROUND].contains(own) || wanted == Some(own))
        .collect();
    if let Some(wanted) = wanted.filter(|wanted| !finalizers.contains(wanted)) {
        finalizers.push(wanted);
    }
    let cleanup = resource.rules.cleanup_finalizer;
    let being_deleted = !object["metadata"]["deletionTimestamp"].is_null();
    if !cleanup.is_empty() && !being_deleted && !finalizers.contains(&cleanup) {
        finalizers.push(cleanup);
    }
    if finalizers == present {
        return Cow::Borrowed(object);
    }
    let mut next = object.clone();
    next["metadata"]["finalizers"] = json!(finalizers);
    Cow::Owned(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    fn finalizers(plural: &str, present: &[&str], policy: Option<&str>) -> Value {
        let resource = find("", "v1", plural).expect("the kind is served");
        let object = json!({"metadata": {"finalizers": present}});
        let options = DeleteOptions {
            propagation_policy: policy.map(str::to_owned),
            ..DeleteOptions::default()
        };
        with_finalizers(resource, &object, &options)["metadata"]["finalizers"].clone()
    }

    #[test]
    fn a_policy_becomes_a_finalizer_and_overrides_the_one_before() {
        assert_eq!(finalizers("pods", &[], Some("Orphan")), json!([ORPHAN]));
        assert_eq!(
            finalizers("pods", &["mine", ORPHAN], Some("Foreground")),
            json!(["mine", FOREGROUND])
        );
        assert_eq!(
            finalizers("pods", &["mine", FOREGROUND], Some("Background")),
            json!(["mine"])
        );
        assert_eq!(finalizers("pods", &[FOREGROUND], None), json!([FOREGROUND]));
    }

    #[test]
    fn a_replication_controller_leaves_its_pods_where_nobody_says_otherwise() {
        let kind = "replicationcontrollers";
        assert_eq!(finalizers(kind, &[], None), json!([ORPHAN]));
        assert_eq!(finalizers(kind, &[], Some("Background")), json!([]));
    }
}
