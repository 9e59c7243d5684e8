//! What the reference answers to definitions and to objects of defined kinds, recorded,
//! and what we answer.
//!
//! `golden/cases.json` holds the questions, `golden/answers.json` what a kube-apiserver
//! said. To record anew: start one, and
//! `ORACLE=https://127.0.0.1:6443 ORACLE_TOKEN=... cargo test -p nautilus-extension --test
//! golden -- --ignored record` (it needs curl).

use std::collections::BTreeMap;
use std::process::Command;

use nautilus_extension::custom;
use nautilus_extension::definition::{self, Definition};
use nautilus_machinery::validation::Errors;
use serde_json::{Value, json};

const CASES: &str = include_str!("golden/cases.json");
const ANSWERS: &str = include_str!("golden/answers.json");

/// Cases whose answers differ, and why.
const KNOWN: &[(&str, &str)] = &[
    (
        "bad names",
        "the rule for names of objects is the machinery's",
    ),
    (
        "status root",
        "the message holds a dump of the reference's memory",
    ),
];

fn cases() -> Value {
    serde_json::from_str(CASES).expect("cases")
}

/// The definition of a case, as its client writes it.
fn written(case: &Value, plural: &str) -> Value {
    let mut version = json!({"name": "v1", "served": true, "storage": true});
    if !case["schema"].is_null() {
        version["schema"] = json!({"openAPIV3Schema": case["schema"]});
    }
    if case["status"] == true {
        version["subresources"] = json!({"status": {}});
    }
    if !case["scale"].is_null() {
        version["subresources"] = json!({"scale": case["scale"]});
    }
    let mut spec = json!({
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": plural, "singular": plural, "kind": format!("K{plural}"), "listKind": format!("K{plural}List")},
        "versions": [version]
    });
    for (key, value) in case["spec"].as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let name = format!(
        "{}.{}",
        spec["names"]["plural"].as_str().unwrap_or(plural),
        spec["group"].as_str().unwrap_or_default()
    );
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name}, "spec": spec
    })
}

fn sorted(errors: Errors) -> Vec<String> {
    let mut causes: Vec<String> = errors
        .into_causes()
        .into_iter()
        .map(|cause| format!("{} {} {}", cause.field, cause.reason, cause.message))
        .collect();
    causes.sort();
    causes.dedup();
    causes
}

fn our_definition(case: &Value) -> Vec<String> {
    let mut object = written(case, "widgets");
    definition::apply_defaults(&mut object);
    definition::note_storage_version(&mut object);
    sorted(definition::validate(&object, None))
}

fn parsed(case: &Value, schema: &str) -> Definition {
    let mut case = case.clone();
    case["schema"] = case[schema].clone();
    let mut object = written(&case, "widgets");
    definition::apply_defaults(&mut object);
    Definition::parse(&object).expect("a definition")
}

fn as_object(spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "example.com/v1", "kind": "Kwidgets",
        "metadata": {"name": "one", "namespace": "default"}
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

/// What is wrong with an object, or what is made of it.
fn our_object(case: &Value) -> Value {
    let definition = parsed(case, "schema");
    let version = &definition.versions[0];
    let mut object = as_object(&case["object"]);
    let old = (!case["old"].is_null()).then(|| {
        let mut old = as_object(&case["old"]);
        custom::normalize(version, false, &mut old).expect("good metadata");
        old
    });
    if let Err(errors) = custom::normalize(version, false, &mut object) {
        return json!(sorted(errors));
    }
    let findings = custom::check(version, &object, old.as_ref());
    let causes = sorted(findings.errors);
    if causes.is_empty() {
        for key in ["apiVersion", "kind", "metadata"] {
            object.as_object_mut().expect("an object").remove(key);
        }
        return object;
    }
    json!(causes)
}

/// Compares what we say of each case with what was recorded.
fn compare(kind: &str, ours: impl Fn(&Value) -> Value) {
    let answers: BTreeMap<String, Value> = serde_json::from_str(ANSWERS).expect("answers");
    let mut wrong = Vec::new();
    for case in cases()[kind].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        if KNOWN.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let (ours, theirs) = (ours(case), without_numbers(&answers[name]));
        if ours != theirs {
            wrong.push(format!("--- {name}\nours:   {ours:#}\ntheirs: {theirs:#}"));
        }
    }
    let texts = wrong.join("\n");
    assert!(wrong.is_empty(), "{} differ\n{texts}", wrong.len());
}

#[test]
fn definitions_are_judged_as_the_reference_does() {
    compare("definitions", |case| json!(our_definition(case)));
}

#[test]
fn objects_are_judged_as_the_reference_does() {
    compare("objects", our_object);
}

/// The reference numbers the types of `self`, anew each time.
fn without_numbers(answer: &Value) -> Value {
    let text = answer.to_string();
    let mut parts = text.split("selfType");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("selfType");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    serde_json::from_str(&out).expect("JSON")
}

/// A kube-apiserver, asked by curl.
struct Oracle {
    url: String,
    token: String,
}

impl Oracle {
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let output = Command::new("curl")
            .args(["--silent", "--insecure", "--request", method])
            .args(["--header", &format!("Authorization: Bearer {}", self.token)])
            .args(["--header", "Content-Type: application/json"])
            .args(["--data", &body.to_string()])
            .arg(format!("{}{path}", self.url))
            .output()
            .expect("curl");
        // A path that is not served yet answers with plain text.
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!({"kind": "Status"}))
    }

    fn causes(answer: &Value) -> Value {
        let mut causes: Vec<String> = answer["details"]["causes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|cause| {
                let text = |key: &str| cause[key].as_str().unwrap_or_default();
                format!("{} {} {}", text("field"), text("reason"), text("message"))
            })
            .collect();
        if causes.is_empty() && answer["kind"] == "Status" && answer["status"] == "Failure" {
            causes.push(answer["message"].as_str().unwrap_or_default().to_owned());
        }
        causes.sort();
        causes.dedup();
        json!(causes)
    }
}

#[test]
#[ignore = "records the answers of a kube-apiserver"]
fn record() {
    let oracle = Oracle {
        url: std::env::var("ORACLE").expect("ORACLE"),
        token: std::env::var("ORACLE_TOKEN").expect("ORACLE_TOKEN"),
    };
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut answers = BTreeMap::new();
    let cases = cases();
    for case in cases["definitions"].as_array().expect("cases") {
        let path = format!("{definitions}?dryRun=All");
        let answer = oracle.ask("POST", &path, &written(case, "widgets"));
        let name = case["name"].as_str().expect("a name");
        answers.insert(name.to_owned(), Oracle::causes(&answer));
    }
    for (at, case) in cases["objects"]
        .as_array()
        .expect("cases")
        .iter()
        .enumerate()
    {
        let name = case["name"].as_str().expect("a name");
        answers.insert(
            name.to_owned(),
            oracle_object(&oracle, definitions, at, case),
        );
    }
    let text = serde_json::to_string_pretty(&answers).expect("JSON");
    std::fs::write(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/answers.json"),
        text + "\n",
    )
    .expect("written");
}

/// Makes a kind, writes the object, and takes the kind away.
fn oracle_object(oracle: &Oracle, definitions: &str, at: usize, case: &Value) -> Value {
    let plural = format!("widgets{at}");
    let mut first = case.clone();
    if !case["oldSchema"].is_null() {
        first["schema"] = case["oldSchema"].clone();
    }
    let written_first = written(&first, &plural);
    let made = oracle.ask("POST", definitions, &written_first);
    assert_eq!(made["kind"], "CustomResourceDefinition", "{made}");
    let objects = format!("/apis/example.com/v1/namespaces/default/{plural}");
    let named = |spec: &Value| {
        let mut object = as_object(spec);
        object["kind"] = json!(format!("K{plural}"));
        object
    };
    // Served within a moment.
    let mut tries = 0;
    loop {
        let list = oracle.ask("GET", &objects, &json!({}));
        if list["kind"] != "Status" {
            break;
        }
        tries += 1;
        assert!(tries < 200, "{list}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let answer = if case["old"].is_null() {
        oracle.ask("POST", &objects, &named(&case["object"]))
    } else {
        let old = oracle.ask("POST", &objects, &named(&case["old"]));
        assert!(old["metadata"]["uid"].is_string(), "{old}");
        if !case["oldSchema"].is_null() {
            let path = format!("{definitions}/{plural}.example.com");
            let mut changed = written(case, &plural);
            let present = oracle.ask("GET", &path, &json!({}));
            changed["metadata"] = present["metadata"].clone();
            let changed = oracle.ask("PUT", &path, &changed);
            assert_eq!(changed["kind"], "CustomResourceDefinition", "{changed}");
            std::thread::sleep(std::time::Duration::from_millis(1_500));
        }
        let mut object = named(&case["object"]);
        object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        oracle.ask("PUT", &format!("{objects}/one"), &object)
    };
    oracle.ask(
        "DELETE",
        &format!("{definitions}/{plural}.example.com"),
        &json!({}),
    );
    if answer["kind"] == "Status" {
        let text = Oracle::causes(&answer).to_string();
        return serde_json::from_str(&text.replace(&plural, "widgets")).expect("JSON");
    }
    let mut made = answer;
    for key in ["apiVersion", "kind", "metadata"] {
        made.as_object_mut().expect("an object").remove(key);
    }
    made
}
