//! What a real kube-apiserver made of the corpus in `validation/cases`, against what is
//! made of it here: defaults, causes of refusals, warnings.
//!
//! The goldens are written by `validation/record.py` (`make validation-golden`). With
//! `VALIDATION_VERBOSE` set, every difference is printed, by kind and frequency.

#![allow(
    clippy::unwrap_used,
    reason = "a golden either reads or the test fails"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use nautilus_machinery::fields;
use nautilus_machinery::resource;
use nautilus_machinery::strategy::{self, Context};
use serde_json::{Value, json};

const CONTEXT: Context<'static> = Context {
    now: "2026-01-01T00:00:00Z",
    uid: "00000000-0000-4000-8000-000000000001",
    name_suffix: "abcde",
    namespace: Some("default"),
    user: "admin",
    field_manager: "test",
};
/// What is the request's own, and no rule's.
const VOLATILE: &[&str] = &[
    "uid",
    "creationTimestamp",
    "managedFields",
    "resourceVersion",
    "selfLink",
];

#[test]
fn objects_are_defaulted_and_refused_as_the_reference_does() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/validation/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // Expressions are compiled elsewhere.
        .filter(|path| !path.ends_with("selectors.json"))
        .collect();
    files.sort();
    let (mut total, mut differing) = (0, BTreeMap::<String, Vec<String>>::new());
    let only = std::env::var("VALIDATION_ONLY").unwrap_or_default();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        for case in cases {
            let name = case["resource"].as_str().unwrap();
            if !name.contains(&only) {
                continue;
            }
            total += 1;
            if let Some(difference) = difference(&case) {
                let shown = format!("{}: {difference}", case["case"].as_str().unwrap());
                differing.entry(name.to_owned()).or_default().push(shown);
            }
        }
    }
    let count: usize = differing.values().map(Vec::len).sum();
    let mut report = String::new();
    for (resource, cases) in &differing {
        let _ = writeln!(report, "== {resource}: {} differ", cases.len());
        for case in cases {
            let _ = writeln!(report, "{case}");
        }
    }
    assert_eq!(count, 0, "{count} of {total} cases differ\n{report}");
    assert!(!only.is_empty() || total >= 300, "only {total} cases");
}

fn difference(case: &Value) -> Option<String> {
    let parts: Vec<&str> = case["resource"].as_str()?.split('/').collect();
    let Some(kind) = resource::find(parts[0], parts[1], parts[2]) else {
        return Some("no such kind".to_owned());
    };
    let context = Context {
        namespace: kind.namespaced.then_some("default"),
        ..CONTEXT
    };
    let (made, old) = if case["old"].is_null() {
        let mut object = case["object"].clone();
        let made = strategy::before_create(kind, &mut object, &context);
        (made.map(|()| object), Value::Null)
    } else {
        let mut old = fields::conform(&kind.schema, &case["old"]).ok()?;
        old["metadata"]["uid"] = json!("u");
        old["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let old = fields::conform(&kind.schema, &old).ok()?;
        let mut new = old.clone();
        new["metadata"]["resourceVersion"] = json!("1");
        for (path, value) in case["changes"].as_object().unwrap() {
            put(&mut new, path, value);
        }
        let subresource = case["subresource"].as_str();
        let made = strategy::before_update(kind, subresource, &old, &mut new, &context);
        (made.map(|_| new), old)
    };
    match made {
        Ok(object) => {
            let mut wanted = case["result"].clone();
            if wanted.is_null() {
                return Some(format!("accepted, wanted {}", refusal(case)));
            }
            let warnings = strategy::warnings(kind, &old, &object);
            let mut object = object;
            for value in [&mut object, &mut wanted] {
                strip(value, case);
            }
            let mut all = compare("", &object, &wanted);
            if json!(warnings) != *case.get("warnings").unwrap_or(&json!([])) {
                let wanted = case.get("warnings").unwrap_or(&Value::Null);
                all.push(format!("warnings {} wanted {wanted}", json!(warnings)));
            }
            (!all.is_empty()).then(|| all.join("\n    "))
        }
        Err(error) => {
            if !case["result"].is_null() {
                return Some(format!("refused: {}", error.message()));
            }
            let status = error.to_status();
            let own = causes(&status["details"]["causes"]);
            let wanted: Vec<String> = case["causes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|cause| {
                    let text = |at: usize| cause[at].as_str().unwrap_or_default();
                    format!("{} {} {}", text(0), text(1), text(2))
                })
                .collect();
            let mut wanted = wanted;
            wanted.sort();
            if wanted.is_empty() {
                let same = case["message"] == error.message();
                return (!same)
                    .then(|| format!("says {:?} wanted {}", error.message(), case["message"]));
            }
            if own == wanted {
                return None;
            }
            let extra: Vec<&String> = own.iter().filter(|one| !wanted.contains(one)).collect();
            let missing: Vec<&String> = wanted.iter().filter(|one| !own.contains(one)).collect();
            let mut text = String::new();
            for one in extra {
                let _ = write!(text, "\n    + {one}");
            }
            for one in missing {
                let _ = write!(text, "\n    - {one}");
            }
            if text.is_empty() {
                let _ = write!(text, "counts differ: {own:?} wanted {wanted:?}");
            }
            Some(text)
        }
    }
}

fn refusal(case: &Value) -> String {
    if case["causes"].is_null() {
        case["message"].to_string()
    } else {
        case["causes"].to_string()
    }
}

fn causes(value: &Value) -> Vec<String> {
    let text = |cause: &Value, key: &str| cause[key].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<String> = value
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| {
            format!(
                "{} {} {}",
                text(cause, "field"),
                text(cause, "reason"),
                text(cause, "message")
            )
        })
        .collect();
    all.sort();
    all
}

fn strip(value: &mut Value, case: &Value) {
    for key in ["kind", "apiVersion"] {
        value.as_object_mut().unwrap().remove(key);
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for key in VOLATILE {
            metadata.remove(*key);
        }
    }
    let conditions = value.pointer_mut("/status/conditions");
    for condition in conditions
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        condition
            .as_object_mut()
            .unwrap()
            .remove("lastTransitionTime");
    }
    for path in case["volatile"].as_array().into_iter().flatten() {
        put(value, path.as_str().unwrap(), &Value::Null);
    }
}

/// As the recorder changes an object: null removes.
fn put(target: &mut Value, path: &str, value: &Value) {
    let parts: Vec<String> = path
        .split('.')
        .map(|part| part.replace("~1", "."))
        .collect();
    let (last, rest) = parts.split_last().unwrap();
    let mut at = target;
    for (index, part) in rest.iter().enumerate() {
        let is_index = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        at = match at {
            Value::Array(list) => match list.get_mut(part.parse::<usize>().unwrap()) {
                Some(next) => next,
                None => return,
            },
            other => {
                let next = &mut other[part.as_str()];
                if next.is_null() {
                    if value.is_null() {
                        return;
                    }
                    let list = is_index(&parts[index + 1]);
                    *next = if list { json!([]) } else { json!({}) };
                }
                next
            }
        };
    }
    match at {
        Value::Array(list) => {
            let index: usize = last.parse().unwrap();
            if value.is_null() {
                list.remove(index);
            } else if index == list.len() {
                list.push(value.clone());
            } else {
                list[index] = value.clone();
            }
        }
        Value::Object(map) if value.is_null() => {
            map.remove(last.as_str());
        }
        other => other[last.as_str()] = value.clone(),
    }
}

fn compare(path: &str, own: &Value, wanted: &Value) -> Vec<String> {
    match (own, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.iter()
                .flat_map(|key| {
                    compare(
                        &format!("{path}.{key}"),
                        a.get(*key).unwrap_or(&Value::Null),
                        b.get(*key).unwrap_or(&Value::Null),
                    )
                })
                .collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .flat_map(|(at, (a, b))| compare(&format!("{path}[{at}]"), a, b))
            .collect(),
        _ if own == wanted => Vec::new(),
        _ => vec![format!("{path}: {own} wanted {wanted}")],
    }
}
