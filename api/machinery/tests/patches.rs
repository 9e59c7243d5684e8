//! Replays what the reference's strategic merge patch and JSON patch made of random
//! patches (`golden/patches.jsonl`, recorded by `make patch-golden`; the program is
//! `tests/e2e/cmd/patchgolden`). `PATCH_CASES` names another file of cases. Of
//! two thousand three come out otherwise: there the reference's lists share memory, or an
//! element says `replace` and has a key.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use nautilus_machinery::patch::{PatchKind, apply_loosely};
use nautilus_machinery::schema::find_kind;
use serde_json::Value;

/// Directives and nulls that stay in new elements: typing the object drops them.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map
                .iter()
                .filter(|(key, value)| !key.starts_with('$') && !value.is_null());
            Value::Object(
                kept.map(|(key, value)| (key.clone(), plain(value)))
                    .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.iter().map(plain).collect()),
        value => value.clone(),
    }
}

#[test]
fn every_patch_comes_out_as_the_reference_has_it() {
    let path = match std::env::var_os("PATCH_CASES") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/patches.jsonl"),
    };
    let cases = std::fs::read_to_string(path).unwrap();
    let mut wrong = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let group = match case["kind"].as_str().unwrap() {
            "Deployment" => "apps",
            _ => "",
        };
        let found = find_kind(group, "v1", case["kind"].as_str().unwrap()).unwrap();
        let kind = match case["patch"].is_array() {
            true => PatchKind::Json,
            false => PatchKind::StrategicMerge,
        };
        let error = case["error"].as_str().unwrap_or_default();
        // An order for two empty lists is an order that holds.
        if error == "no elements in any of the given slices" {
            continue;
        }
        let got = apply_loosely(kind, &found.name, &case["original"], &case["patch"]);
        let same = match (&got, case.get("error")) {
            (Ok(got), None) => plain(got) == plain(&case["result"]),
            (Err(_), Some(_)) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!(
                "{}\non {}\ngives {}\nand not {}",
                case["patch"],
                case["original"],
                got.map_or_else(|error| error.to_string(), |got| got.to_string()),
                case.get("error").unwrap_or(&case["result"])
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}
