//! Compared with the reference: fixtures that `schema/generate/golden` writes
//! with the real Go types, codecs and patches of the release served.

use base64::Engine as _;
use nautilus_machinery::codec::{self, MediaType};
use nautilus_machinery::openapi::{gnostic, v2};
use nautilus_machinery::patch::strategic;
use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::resource;
use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::table::duration;
use nautilus_machinery::{fields, schema};
use serde_json::{Value, json};

fn rows(text: &str) -> Vec<Value> {
    let rows: Vec<Value> = serde_json::from_str(text).expect("the fixture is JSON");
    assert!(rows.len() > 5, "the fixture is not empty");
    rows
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().expect("the fixture has the field")
}

fn fail_with(failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Whether both are the same with their fields in the same order.
fn same_text(left: &Value, right: &Value) -> bool {
    let text = |value: &Value| serde_json::to_string(value).expect("JSON");
    text(left) == text(right)
}

#[test]
fn protobuf_is_read_as_the_reference_writes_it() {
    let mut failures = Vec::new();
    for row in rows(include_str!("golden/objects.json")) {
        let wire = base64::engine::general_purpose::STANDARD
            .decode(text(&row, "protobuf"))
            .expect("base64");
        match codec::decode(text(&row, "schema"), MediaType::Protobuf, &wire) {
            // Compared as text: the order of fields is the reference's too.
            Ok(value) if same_text(&value, &row["json"]) => {}
            Ok(value) => failures.push(format!("got  {value}\nwant {}", row["json"])),
            Err(error) => failures.push(format!("{error}: {}", row["json"])),
        }
    }
    fail_with(&failures);
}

#[test]
fn protobuf_is_written_byte_for_byte_as_the_reference_does() {
    let mut failures = Vec::new();
    for row in rows(include_str!("golden/objects.json")) {
        match codec::encode_protobuf(text(&row, "schema"), &row["json"]) {
            Ok(wire) => {
                let wire = base64::engine::general_purpose::STANDARD.encode(wire);
                if wire != text(&row, "protobuf") {
                    failures.push(format!(
                        "{}\n  got  {wire}\n  want {}",
                        row["json"], row["protobuf"]
                    ));
                }
            }
            Err(error) => failures.push(format!("{error}: {}", row["json"])),
        }
    }
    fail_with(&failures);
}

#[test]
fn json_is_written_back_as_the_reference_does() {
    let mut failures = Vec::new();
    for row in rows(include_str!("golden/objects.json")) {
        match codec::decode(
            text(&row, "schema"),
            MediaType::Json,
            row["json"].to_string().as_bytes(),
        ) {
            Ok(value) if same_text(&value, &row["json"]) => {}
            Ok(value) => failures.push(format!("got  {value}\nwant {}", row["json"])),
            Err(error) => failures.push(format!("{error}: {}", row["json"])),
        }
    }
    fail_with(&failures);
}

#[test]
fn strategic_merge_patches_give_what_the_reference_gives() {
    let mut failures = Vec::new();
    for row in rows(include_str!("golden/strategic.json")) {
        let name = text(&row, "schema");
        let found = schema::find(name).expect("in the table");
        let result = strategic::apply(found, &row["original"], &row["patch"]);
        // Both typed, as a server does before anybody sees the result.
        let typed = |value: &Value| fields::conform(name, value).unwrap_or(Value::Null);
        let got = result.as_ref().map_or(Value::Null, typed);
        if got != typed(&row["result"]) {
            failures.push(format!(
                "{} + {}\n  got  {result:?}\n  want {}",
                row["original"], row["patch"], row["result"]
            ));
        }
    }
    fail_with(&failures);
}

#[test]
fn quantities_are_read_and_written_as_the_reference_does() {
    let mut failures = Vec::new();
    for row in rows(include_str!("golden/quantities.json")) {
        let got = match Quantity::parse(text(&row, "text")) {
            Ok(quantity) => json!({"canonical": quantity.canonical(), "text": row["text"]}),
            Err(error) => json!({"error": error, "text": row["text"]}),
        };
        if got != row {
            failures.push(format!("got {got}, want {row}"));
        }
    }
    fail_with(&failures);
}

#[test]
fn ages_are_written_as_the_reference_does() {
    for row in rows(include_str!("golden/durations.json")) {
        let seconds = row[0].as_i64().expect("a number");
        assert_eq!(
            duration::human(seconds),
            row[1].as_str().expect("text"),
            "{seconds} seconds"
        );
    }
}

#[test]
fn strict_decoding_says_what_the_reference_says() {
    for row in rows(include_str!("golden/strict.json")) {
        let messages =
            fields::unknown_and_duplicate("io.k8s.api.core.v1.Pod", text(&row, "body").as_bytes());
        assert_eq!(json!(messages), row["messages"], "{}", row["body"]);
    }
}

#[test]
fn label_selectors_parse_and_match_as_in_the_reference() {
    let sets = [
        json!({}),
        json!({"a": "1"}),
        json!({"a": "2", "b": "x"}),
        json!({"a": "", "c": "5"}),
    ];
    let mut failures = Vec::new();
    for row in rows(include_str!("golden/selectors.json")) {
        let got = match LabelSelector::parse(text(&row, "text")) {
            Ok(selector) => {
                let matches: Vec<bool> = sets
                    .iter()
                    .map(|labels| selector.matches(&json!({"metadata": {"labels": labels}})))
                    .collect();
                json!({"matches": matches, "text": row["text"]})
            }
            Err(error) => json!({"error": error.message(), "text": row["text"]}),
        };
        if got != row {
            failures.push(format!("got {got}\nwant {row}"));
        }
    }
    fail_with(&failures);
}

fn openapi_v2() -> Value {
    serde_json::from_str(include_str!("golden/openapi-v2.json")).expect("the fixture is JSON")
}

#[test]
fn openapi_v2_becomes_protobuf_byte_for_byte_as_the_reference_does() {
    let golden = openapi_v2();
    let wire = gnostic::document(&golden["sample"]).expect("every key has a field");
    let wire = base64::engine::general_purpose::STANDARD.encode(wire);
    assert_eq!(wire, text(&golden, "protobuf"));
}

/// A definition without descriptions, but with properties of that name.
fn without_texts(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, inner)| *key != "description" || !inner.is_string())
            .map(|(key, inner)| (key.clone(), without_texts(inner)))
            .collect(),
        Value::Array(list) => list.iter().map(without_texts).collect(),
        other => other.clone(),
    }
}

#[test]
fn openapi_v2_defines_every_type_as_the_reference_does() {
    let ours = v2::document(nautilus_machinery::resource::built_in());
    let ours = ours["definitions"].as_object().expect("definitions");
    let golden = openapi_v2();
    let golden = golden["definitions"].as_object().expect("definitions");
    let mut failures: Vec<String> = golden
        .iter()
        .filter(|(name, definition)| {
            ours.get(*name).map(without_texts).as_ref() != Some(*definition)
        })
        .map(|(name, definition)| format!("{name}: got {:?}, want {definition}", ours.get(name)))
        .collect();
    let more = ours.keys().filter(|name| !golden.contains_key(*name));
    failures.extend(more.map(|name| format!("{name} is not the reference's")));
    fail_with(&failures);
}

#[test]
fn every_kind_is_printed_as_the_reference_does() {
    let golden: Value =
        serde_json::from_str(include_str!("golden/cells.json")).expect("the fixture is JSON");
    let now = golden["now"].as_i64().expect("a time");
    let mut failures = Vec::new();
    for row in golden["rows"].as_array().expect("rows") {
        let (group, version, plural) = (
            text(row, "group"),
            text(row, "version"),
            text(row, "plural"),
        );
        let resource = resource::find(group, version, plural).expect("in the table");
        let cells = resource.cells.of(&row["object"], now);
        let expected = row["cells"].as_array().expect("cells");
        if cells.len() != expected.len() {
            failures.push(format!("{plural}: {} cells", cells.len()));
        }
        for (at, (own, expected)) in cells.iter().zip(expected).enumerate() {
            if own != expected {
                let column = resource.columns.get(at).map(|column| column.name.as_str());
                failures.push(format!(
                    "{plural} {column:?}: got {own}, want {expected} of {}",
                    row["object"]
                ));
            }
        }
    }
    fail_with(&failures);
}
