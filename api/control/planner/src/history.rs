//! The templates that a set of pods had: ControllerRevisions.
//!
//! A revision's name comes of its contents, so that the same template leads to the same
//! name on whichever node plans; two templates of one name are told apart by a count of
//! collisions that stands in the owner's status.

use std::sync::Arc;

use nautilus_machinery::selector::LabelSelector;
use serde_json::{Map, Value, json};

use crate::kind::{CONTROLLER_REVISIONS, Kind};
use crate::object;
use crate::ownership;
use crate::plan::{Plan, Write};
use crate::view::{View, Within};

/// Bytes of its owner's name that a revision's name begins with, at most: with a dash and
/// a hash it stays below 253.
const PREFIX_BYTES: usize = 223;

/// The revisions of an owner, or of nobody, that its selector matches: oldest first.
pub fn list(view: &dyn View, owner: &Value, selector: &LabelSelector) -> Vec<Arc<Value>> {
    let namespace = object::namespace(owner);
    let mut revisions = view.list(
        CONTROLLER_REVISIONS,
        Within::Controlled(namespace, object::uid(owner)),
    );
    revisions.extend(view.list(CONTROLLER_REVISIONS, Within::Uncontrolled(namespace)));
    revisions.retain(|own| selector.matches(own));
    revisions.sort_by(|one, two| order(one).cmp(&order(two)));
    revisions
}

fn order(revision: &Value) -> (i64, Option<i64>, &str) {
    let created = object::created(revision).map(|at| at.seconds);
    (number(revision), created, object::name(revision))
}

/// The revisions among these that nobody manages come under `owner`, behind another look
/// at it.
pub fn adopt(revisions: &[Arc<Value>], owners: Kind, owner: &Value, plan: &mut Plan) {
    let orphans = revisions
        .iter()
        .filter(|own| object::controller(own).is_none());
    let writes: Vec<Write> = orphans
        .map(|orphan| ownership::adopt(CONTROLLER_REVISIONS, orphan, owners, owner))
        .collect();
    if !writes.is_empty() && !object::is_deleted(owner) {
        plan.then(Write::status(owners, owner.clone()));
        plan.together(writes);
    }
}

/// Which revision it is: counted from 1.
pub fn number(revision: &Value) -> i64 {
    revision["revision"].as_i64().unwrap_or_default()
}

/// The number of the revision after these, which are sorted.
pub fn next_number(revisions: &[Arc<Value>]) -> i64 {
    revisions.last().map_or(1, |newest| number(newest) + 1)
}

/// `data` of a revision: a patch that gives its owner this pod template. Its fields are in the
/// order of their names, as in the reference's: clients compare the bytes.
pub fn record(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    template.sort_all_objects();
    json!({"spec": {"template": template}})
}

/// The pod template that a revision holds.
pub fn template(revision: &Value) -> Value {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    template
}

/// Whether two `data` give the same template. Fields that say nothing do not count: other
/// encoders write them.
pub fn same(one: &Value, two: &Value) -> bool {
    one == two || without_nulls(one) == without_nulls(two)
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(name, value)| (name.clone(), without_nulls(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// A revision of `owner` that is not there yet: with the labels of the template, its
/// hash under `hash_label` and the owner's annotations.
pub fn revision(
    owners: Kind,
    owner: &Value,
    data: &Value,
    number: i64,
    hash: &str,
    hash_label: &str,
) -> Value {
    let labels = &data["spec"]["template"]["metadata"]["labels"];
    let mut labels = labels.as_object().cloned().unwrap_or_default();
    labels.insert(hash_label.to_owned(), hash.into());
    let mut metadata = Map::new();
    metadata.insert("namespace".to_owned(), object::namespace(owner).into());
    metadata.insert("name".to_owned(), name(owner, hash).into());
    metadata.insert("labels".to_owned(), labels.into());
    if let Some(annotations) = owner["metadata"].get("annotations") {
        metadata.insert("annotations".to_owned(), annotations.clone());
    }
    let owners = json!([object::controller_reference(owners, owner)]);
    metadata.insert("ownerReferences".to_owned(), owners);
    json!({"metadata": metadata, "data": data, "revision": number})
}

/// The name of an owner's revision of a hash.
pub fn name(owner: &Value, hash: &str) -> String {
    let owner = object::name(owner);
    let prefix = owner.get(..PREFIX_BYTES).unwrap_or(owner);
    format!("{prefix}-{hash}")
}

/// The oldest of the revisions that are not `live`, as many as are over `limit`.
pub fn over_limit<'a>(
    revisions: &'a [Arc<Value>],
    limit: usize,
    live: impl Fn(&str) -> bool,
) -> impl Iterator<Item = Write> + 'a {
    let past: Vec<&Value> = revisions
        .iter()
        .map(|own| &**own)
        .filter(|own| !live(object::name(own)))
        .collect();
    let over = past.len().saturating_sub(limit);
    past.into_iter()
        .take(over)
        .map(|own| Write::delete(CONTROLLER_REVISIONS, own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn a_template_is_recorded_in_the_order_of_names() {
        let template = json!({"spec": {"volumes": [], "containers": []}, "metadata": {}});
        let text = r#"{"spec":{"template":{"$patch":"replace","metadata":{},"spec":{"containers":[],"volumes":[]}}}}"#;
        assert_eq!(record(&template).to_string(), text);
    }

    #[test]
    fn revisions_are_those_selected_that_are_its_own_or_nobodys_oldest_first() {
        let owner = json!({"metadata": {"namespace": "n", "name": "s", "uid": "1"}});
        let mut cluster = Cluster::default();
        for (name, app, uid, revision) in [
            ("c", "a", "1", 3),
            ("b", "a", "", 7),
            ("a", "a", "2", 4),
            ("d", "a", "1", 2),
            ("e", "z", "1", 1),
        ] {
            let owners = match uid {
                "" => json!([]),
                uid => json!([{"uid": uid, "controller": true}]),
            };
            let metadata = json!({
                "namespace": "n", "name": name, "labels": {"app": app}, "ownerReferences": owners,
            });
            let revision = json!({"metadata": metadata, "revision": revision});
            cluster.put(CONTROLLER_REVISIONS, revision);
        }
        let selector = LabelSelector::parse("app=a").unwrap();
        let revisions = list(&cluster, &owner, &selector);
        let names: Vec<&str> = revisions.iter().map(|own| object::name(own)).collect();
        assert_eq!(names, ["d", "c", "b"]);
        assert_eq!(next_number(&revisions), 8);
        let mut plan = Plan::default();
        adopt(&revisions, crate::kind::STATEFUL_SETS, &owner, &mut plan);
        assert_eq!(plan.steps.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        let gone = over_limit(&revisions, 1, |name| name == "c").count();
        assert_eq!((gone, over_limit(&revisions, 0, |_| false).count()), (1, 3));
    }

    #[test]
    fn nulls_of_another_encoder_make_no_other_revision() {
        let own = record(&json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}));
        let mut other = own.clone();
        other["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
        assert!(same(&own, &other));
        other["spec"]["template"]["spec"]["x"] = 2.into();
        assert!(!same(&own, &other));
        let held = json!({ "data": own });
        assert_eq!(template(&held)["spec"], json!({"x": 1}));
        assert!(template(&held).get("$patch").is_none());
    }
}
