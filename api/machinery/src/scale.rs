//! The scale of an object: how many replicas it should have, has, and which pods they
//! are, as `autoscaling/v1` `Scale`, over any kind that says where these stand.
//!
//! Invariant: setting a scale changes the wanted replicas of the object and nothing else.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::fields;
use crate::resource::{Cells, Column, Resource};
use crate::selector::LabelSelector;
use crate::status::ApiError;
use crate::validation::Errors;

/// The OpenAPI name of `Scale`.
pub const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";

/// Where a kind keeps what its scale says; paths as `spec.replicas`, without a first dot.
#[derive(Debug, Clone)]
pub struct ScalePaths {
    /// The replicas wanted.
    pub spec_replicas: String,
    /// The replicas there are.
    pub status_replicas: String,
    /// The pods' selector.
    pub selector: ScaleSelector,
}

/// In which form a kind keeps its selector.
#[derive(Debug, Clone)]
pub enum ScaleSelector {
    /// A `LabelSelector` at this path.
    Object(String),
    /// A map of labels at this path.
    Labels(String),
    /// Text at this path.
    Text(String),
    /// Nowhere.
    None,
}

/// `Scale` as a kind: what answers and refusals call it, and its columns.
pub fn kind() -> &'static Arc<Resource> {
    &KIND
}

static KIND: LazyLock<Arc<Resource>> = LazyLock::new(|| {
    let column = |name: &str, column_type: &str| Column {
        name: name.to_owned(),
        column_type: column_type.to_owned(),
        format: String::new(),
        priority: 0,
        described_by: String::new(),
    };
    Arc::new(Resource {
        group: "autoscaling".to_owned(),
        version: "v1".to_owned(),
        kind: "Scale".to_owned(),
        plural: "scales".to_owned(),
        singular: "scale".to_owned(),
        schema: SCHEMA.to_owned(),
        columns: vec![
            column("Name", "string"),
            column("Desired", "integer"),
            column("Available", "integer"),
            column("Age", "string"),
        ],
        cells: Cells::new(cells),
        ..Resource::default()
    })
});

fn cells(scale: &Value, now: i64) -> Vec<Value> {
    let count = |value: &Value| json!(value.as_i64().unwrap_or(0));
    vec![
        scale["metadata"]["name"].clone(),
        count(&scale["spec"]["replicas"]),
        count(&scale["status"]["replicas"]),
        crate::table::cells::age(scale, now),
    ]
}

/// The scale of an object.
///
/// # Errors
/// The object's selector is none.
pub fn get(paths: &ScalePaths, object: &Value) -> Result<Value, ApiError> {
    let metadata = &object["metadata"];
    let replicas = |path: &str| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let selector = match &paths.selector {
        ScaleSelector::Object(path) => match at(object, path) {
            Some(selector) if !selector.is_null() => {
                LabelSelector::of_object(selector)?.to_string()
            }
            _ => String::new(),
        },
        ScaleSelector::Labels(path) => {
            let labels = at(object, path).cloned().unwrap_or_default();
            LabelSelector::of_object(&json!({ "matchLabels": labels }))?.to_string()
        }
        ScaleSelector::Text(path) => {
            let text = at(object, path).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        }
        ScaleSelector::None => String::new(),
    };
    let scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": replicas(&paths.spec_replicas) },
        "status": { "replicas": replicas(&paths.status_replicas), "selector": selector },
    });
    fields::conform_owned(SCHEMA, scale)
}

/// The object with the replicas that `scale` wants, at the version that it names.
///
/// # Errors
/// 422: fewer than none. 409: the scale is of another object of that name.
pub fn set(
    resource: &Resource,
    paths: &ScalePaths,
    object: &Value,
    scale: &Value,
) -> Result<Value, ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let replicas = &scale["spec"]["replicas"];
    let replicas = replicas.as_i64().unwrap_or(0);
    let mut errors = Errors::new();
    if replicas < 0 {
        let what = "must be greater than or equal to 0";
        errors.invalid("spec.replicas", &json!(replicas), what);
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(&KIND, name, errors.into_causes()));
    }
    let (wanted, uid) = (&scale["metadata"]["uid"], &object["metadata"]["uid"]);
    if let (Some(wanted), Some(uid)) = (wanted.as_str(), uid.as_str())
        && !wanted.is_empty()
        && wanted != uid
    {
        let kind = match resource.group.as_str() {
            "" => format!("{}/scale", resource.plural),
            group => format!("{}/scale.{group}", resource.plural),
        };
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        );
        return Err(ApiError::conflict_on(&kind, name, &why));
    }
    let mut changed = object.clone();
    put(&mut changed, &paths.spec_replicas, json!(replicas));
    let version = scale["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    changed["metadata"]["resourceVersion"] = json!(version);
    Ok(changed)
}

/// The scale paths of a built-in kind that has the subresource.
pub(crate) fn built_in(group: &str, plural: &str) -> ScalePaths {
    let selector = "spec.selector".to_owned();
    ScalePaths {
        spec_replicas: "spec.replicas".to_owned(),
        status_replicas: "status.replicas".to_owned(),
        selector: match (group, plural) {
            ("", "replicationcontrollers") => ScaleSelector::Labels(selector),
            _ => ScaleSelector::Object(selector),
        },
    }
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(object, |value, part| value.get(part))
}

fn put(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for part in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[part];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {
                "matchLabels": {"b": "2", "a": "1"},
                "matchExpressions": [{"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "d", "operator": "DoesNotExist"}],
            }},
            "status": {"replicas": 2},
        })
    }

    #[test]
    fn a_scale_says_what_is_wanted_what_is_there_and_which_pods() {
        let paths = built_in("apps", "deployments");
        let scale = get(&paths, &deployment()).expect("a scale");
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(
            scale["status"],
            json!({"replicas": 2, "selector": "a=1,b=2,c in (x,y),!d"})
        );
        assert!(scale["metadata"].get("labels").is_none());
    }

    #[test]
    fn setting_a_scale_changes_the_replicas_alone() {
        let resource = resource::find("apps", "v1", "deployments").expect("served");
        let paths = built_in("apps", "deployments");
        let mut scale = get(&paths, &deployment()).expect("a scale");
        scale["spec"]["replicas"] = json!(5);
        let mut expected = deployment();
        expected["spec"]["replicas"] = json!(5);
        assert_eq!(
            set(resource, &paths, &deployment(), &scale).expect("set"),
            expected
        );
        scale["spec"]["replicas"] = json!(-1);
        let error = set(resource, &paths, &deployment(), &scale).expect_err("too few");
        assert_eq!(
            error.message(),
            "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater \
             than or equal to 0"
        );
    }
}
