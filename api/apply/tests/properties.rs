//! What holds of any set and any configuration.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::borrow::Cow;

use nautilus_apply::path::PathElement;
use nautilus_apply::reset::Reset;
use nautilus_apply::schema::{TypeView, structural};
use nautilus_apply::{FieldManager, Set, Versions, fields};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const VERSION: &str = "golden.example.com/v1";

struct Widget(TypeView);

impl Versions for Widget {
    fn schema(&self, api_version: &str) -> Option<TypeView> {
        (api_version == VERSION).then(|| self.0.clone())
    }

    fn convert<'a>(&self, object: &'a Value, api_version: &str) -> Option<Cow<'a, Value>> {
        (api_version == VERSION).then_some(Cow::Borrowed(object))
    }

    fn reset(&self, _api_version: &str) -> &Reset {
        &Reset::Nothing
    }

    fn empty(&self) -> Value {
        empty()
    }
}

fn widget() -> Widget {
    let schema: Value = serde_json::from_str(include_str!("golden/widget.json")).unwrap();
    Widget(structural::of_json_schema(Some(&schema), false))
}

fn manager(widget: &Widget) -> FieldManager<'_> {
    FieldManager {
        versions: widget,
        api_version: VERSION,
        kind: "Widget",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    }
}

fn element() -> impl Strategy<Value = PathElement> {
    let scalar = prop_oneof![
        "[a-c\"<]{1,2}".prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ];
    prop_oneof![
        "[a-d:.]{1,2}".prop_map(PathElement::Field),
        scalar.clone().prop_map(PathElement::Value),
        scalar.prop_map(|value| PathElement::Key(vec![("name".to_owned(), value)])),
        (0i64..4).prop_map(PathElement::Index),
    ]
}

fn set() -> impl Strategy<Value = Set> {
    let path = prop::collection::vec(element(), 1..4);
    prop::collection::vec(path, 0..12).prop_map(|paths| paths.into_iter().collect())
}

fn spec() -> impl Strategy<Value = Value> {
    let text = || "[xyz]";
    let texts = prop::collection::btree_map("[a-d]", text(), 0..4);
    let set = prop::collection::btree_set("[a-e]", 0..4);
    let keyed = prop::collection::btree_map("[a-d]", prop::option::of(text()), 0..4);
    let fields = (
        texts,
        set,
        keyed,
        prop::option::of(text()),
        prop::option::of(0..3),
    );
    fields.prop_map(|(map, set, keyed, text, number)| {
        let mut spec = Map::new();
        let keyed: Vec<Value> = keyed
            .into_iter()
            .map(|(name, value)| match value {
                Some(value) => json!({"name": name, "port": 7, "value": value}),
                None => json!({"name": name, "port": 7}),
            })
            .collect();
        spec.insert("map".to_owned(), json!(map));
        spec.insert("set".to_owned(), json!(set));
        spec.insert("keyed".to_owned(), json!(keyed));
        spec.extend(text.map(|text| ("text".to_owned(), json!(text))));
        spec.extend(number.map(|number| ("number".to_owned(), json!(number))));
        Value::Object(spec)
    })
}

fn config(spec: &Value) -> Value {
    json!({"apiVersion": VERSION, "kind": "Widget", "metadata": {"name": "n"}, "spec": spec})
}

fn empty() -> Value {
    json!({"apiVersion": VERSION, "kind": "Widget", "metadata": {}})
}

fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = json!("u");
    object
}

proptest! {
    #[test]
    fn a_set_reads_back_as_it_was_written(set in set()) {
        prop_assert_eq!(fields::decode(&fields::encode(&set)).unwrap(), set);
    }

    #[test]
    fn sets_follow_the_laws_of_sets(a in set(), b in set()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.union(&b).difference(&a), b.difference(&a));
        prop_assert_eq!(a.meets(&b), !a.intersection(&b).is_empty());
        for path in a.paths() {
            prop_assert!(a.union(&b).has(&path));
            prop_assert_eq!(a.intersection(&b).has(&path), b.has(&path));
        }
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a);
    }

    #[test]
    fn the_wire_form_answers_as_the_set_does(a in set(), b in set()) {
        let wire = fields::encode(&a);
        prop_assert_eq!(fields::holds(&wire, &b), b.difference(&a).is_empty());
        prop_assert!(fields::may_touch(&wire, &b) || !a.meets(&b));
    }

    #[test]
    fn applying_again_changes_nothing(first in spec(), second in spec()) {
        let widget = widget();
        let manager = manager(&widget);
        let once = stored(manager.apply(&empty(), &config(&first), "a", false).unwrap());
        let twice = manager.apply(&once, &config(&first), "a", false).unwrap();
        prop_assert_eq!(&once, &twice);
        let other = stored(manager.apply(&once, &config(&second), "b", true).unwrap());
        prop_assert_eq!(&manager.apply(&other, &config(&second), "b", false).unwrap(), &other);
    }

    #[test]
    fn what_its_only_owner_no_longer_applies_goes(spec in spec()) {
        let widget = widget();
        let manager = manager(&widget);
        let once = stored(manager.apply(&empty(), &config(&spec), "a", false).unwrap());
        let bare = json!({"text": "kept"});
        let left = manager.apply(&once, &config(&bare), "a", false).unwrap();
        for (name, value) in left["spec"].as_object().unwrap() {
            let is_left = name == "text" || value.is_null() || *value == json!([]) || *value == json!({});
            prop_assert!(is_left, "{name} is left of {spec}: {left}");
        }
    }

    #[test]
    fn what_another_applied_too_stays(spec in spec()) {
        let widget = widget();
        let manager = manager(&widget);
        let one = stored(manager.apply(&empty(), &config(&spec), "a", false).unwrap());
        let both = manager.apply(&one, &config(&spec), "b", false).unwrap();
        let left = manager.apply(&both, &config(&json!({})), "a", false).unwrap();
        prop_assert_eq!(&left["spec"], &one["spec"]);
    }

    #[test]
    fn any_entries_are_read_or_refused(text in "\\PC{0,40}", keys in prop::collection::vec("\\PC{0,12}", 0..4)) {
        let widget = widget();
        let manager = manager(&widget);
        let below: Map<String, Value> = keys.into_iter().map(|key| (key, json!({}))).collect();
        let mut object = stored(config(&json!({"text": "x"})));
        object["metadata"]["managedFields"] = json!([{"manager": text, "operation": "Update", "apiVersion": VERSION, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": below}}]);
        let mut changed = object.clone();
        changed["spec"]["text"] = json!("y");
        manager.update(&object, &mut changed, "b");
        let _ = manager.apply(&object, &config(&json!({"text": text})), "c", false);
    }
}
