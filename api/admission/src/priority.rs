//! Priority: a pod's number comes from its class, never from its author.

use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::values::text;

/// The classes that are there from the start: name, value, what for.
pub const SYSTEM_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
];

/// Whether pods come in, or classes.
pub fn handles(asked: &Attributes<'_>) -> bool {
    matches!(asked.operation, Operation::Create | Operation::Update)
        && (asked.is("", "pods") || asked.is("scheduling.k8s.io", "priorityclasses"))
}

/// Resolves a new pod's class among `classes`; an update keeps what was resolved.
pub fn mutate<'c>(
    asked: &Attributes<'_>,
    pod: &mut Value,
    classes: impl IntoIterator<Item = &'c Value>,
) -> Result<(), ApiError> {
    if !asked.is("", "pods") {
        return Ok(());
    }
    if let Some(old) = asked.old {
        for field in ["priority", "preemptionPolicy"] {
            if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
                pod["spec"][field] = old["spec"][field].clone();
            }
        }
        return Ok(());
    }
    let asked_class = text(&pod["spec"]["priorityClassName"]).to_owned();
    let mut classes = classes.into_iter();
    let class = if asked_class.is_empty() {
        global_default(classes)
    } else {
        let found = classes.find(|class| class["metadata"]["name"] == asked_class.as_str());
        if found.is_none() {
            let why = format!("no PriorityClass with name {asked_class} was found");
            return Err(asked.forbidden(Some(pod), &why));
        }
        found
    };
    let value = class.map_or(0, |class| class["value"].as_i64().unwrap_or(0));
    let policy = match class {
        Some(class) => class["preemptionPolicy"].as_str(),
        None => Some("PreemptLowerPriority"),
    };
    if let Some(own) = pod["spec"]["priority"].as_i64().filter(|own| *own != value) {
        let why = format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority \
             admission controller computed {value} from the given PriorityClass name"
        );
        return Err(asked.forbidden(Some(pod), &why));
    }
    if let (Some(own), Some(policy)) = (pod["spec"]["preemptionPolicy"].as_str(), policy)
        && own != policy
    {
        let why = format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; \
             priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(asked.forbidden(Some(pod), &why));
    }
    if let Some(class) = class {
        pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    pod["spec"]["priority"] = json!(value);
    if let Some(policy) = policy {
        pod["spec"]["preemptionPolicy"] = json!(policy);
    }
    Ok(())
}

/// The class of pods that name none: of several, the lowest.
fn global_default<'c>(classes: impl Iterator<Item = &'c Value>) -> Option<&'c Value> {
    classes
        .filter(|class| class["globalDefault"] == true)
        .min_by_key(|class| class["value"].as_i64().unwrap_or(0))
}

/// Refuses a second default class.
pub fn validate<'c>(
    asked: &Attributes<'_>,
    object: &Value,
    classes: impl IntoIterator<Item = &'c Value>,
) -> Result<(), ApiError> {
    if asked.of("", "pods") || object["globalDefault"] != true {
        return Ok(());
    }
    let name = &object["metadata"]["name"];
    match global_default(classes.into_iter()) {
        Some(class)
            if asked.operation == Operation::Create || class["metadata"]["name"] != *name =>
        {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                text(&class["metadata"]["name"])
            );
            Err(asked.forbidden(Some(object), &why))
        }
        _ => Ok(()),
    }
}
