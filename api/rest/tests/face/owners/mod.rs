//! Who owns what after every kind of write of every kind, as a kube-apiserver has it:
//! `answers.jsonl` is what it answered to `requests.json`, recorded by `make
//! owners-golden`; the program is `tests/e2e/cmd/ownersgolden`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, within};

/// Requests whose answers differ: a YAML error in other words, and the reference's own
/// controller on the status of flow schemas.
const OTHERWISE: &[&str] = &["a: [", "/flowschemas/f"];
/// Jobs that are read back have their pods' labels in the reference.
const UNLIKE: &[&str] = &["jobs"];

#[tokio::test]
async fn fields_have_the_owners_that_a_kube_apiserver_names() {
    let requests: Vec<Value> = serde_json::from_str(include_str!("requests.json")).unwrap();
    let answers: Vec<Value> = include_str!("answers.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(requests.len(), answers.len());
    let world = World::start().await;
    let mut wrong = Vec::new();
    for (at, (request, wanted)) in requests.iter().zip(&answers).enumerate() {
        let got = answer(&world, request).await;
        let text = request.to_string();
        if UNLIKE.iter().any(|kind| text.contains(&format!("/{kind}"))) {
            continue;
        }
        if got != ordered(wanted) && !OTHERWISE.iter().any(|other| text.contains(other)) {
            wrong.push(format!("{at}: {request}\ngives {got}\nand not {wanted}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers differ:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

/// The answer in the recorder's form.
async fn answer(world: &World, request: &Value) -> Value {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let body = match &request["body"] {
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    let media = match text("type") {
        "" => "application/json",
        media => media,
    };
    let method: Method = text("method").parse().unwrap();
    let sent = world
        .client
        .request(method, format!("{}{}", world.base, text("path")))
        .header("content-type", media)
        .header("user-agent", "recorder/1")
        .body(body)
        .send();
    let answer = within(sent).await.unwrap();
    let (code, object) = crate::world::parts(answer).await;
    let mut shown = json!({"code": code.as_u16()});
    if object["kind"] == "Status" && code.as_u16() >= 400 {
        shown["message"] = object["message"].clone();
    }
    if let Some(Value::Array(owners)) = object["metadata"].get("managedFields") {
        let mut owners = owners.clone();
        for entry in &mut owners {
            entry.as_object_mut().unwrap().shift_remove("time");
        }
        shown["owners"] = json!(owners);
    }
    ordered(&shown)
}

fn ordered(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(&String, Value)> = map
                .iter()
                .map(|(key, value)| (key, ordered(value)))
                .collect();
            fields.sort_by_key(|(key, _)| *key);
            fields
                .into_iter()
                .map(|(key, value)| (key.clone(), value))
                .collect()
        }
        Value::Array(list) => {
            // Entries are ordered by their times, to the second.
            let mut list: Vec<Value> = list.iter().map(ordered).collect();
            list.sort_by_key(ToString::to_string);
            Value::Array(list)
        }
        value => value.clone(),
    }
}
