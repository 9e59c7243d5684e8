//! Expressions that select devices, as a kube-apiserver judges them: the corpus is
//! `api/machinery/tests/validation/cases/selectors.py`.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

const GROUP: &str = "/apis/resource.k8s.io/v1";
const RECORDED: &str = include_str!("../../../machinery/tests/validation/golden/selectors.json");

fn path(plural: &str) -> String {
    match plural {
        "deviceclasses" => format!("{GROUP}/{plural}"),
        _ => format!("{GROUP}/namespaces/default/{plural}"),
    }
}

#[tokio::test]
async fn expressions_of_new_objects_are_judged_as_a_kube_apiserver_does() {
    let world = World::start().await;
    let cases: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for case in cases.iter().filter(|case| case["object"].is_object()) {
        let plural = case["resource"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        let path = format!("{}?dryRun=All", path(plural));
        let (code, answer) = world.call(Method::POST, &path, &case["object"]).await;
        asked += 1;
        let wanted = case["code"].as_u64().unwrap_or(201);
        let triple = |cause: &Value| json!([cause["field"], cause["reason"], cause["message"]]);
        let causes = answer["details"]["causes"].as_array().into_iter().flatten();
        let causes: Vec<Value> = causes.map(triple).collect();
        let recorded = case["causes"].as_array().cloned().unwrap_or_default();
        if u64::from(code.as_u16()) != wanted || causes != recorded {
            wrong.push(format!(
                "{}\ngives {code} {causes:#?}\nand not {recorded:#?}",
                case["object"]
            ));
        }
    }
    assert!(asked > 30, "only {asked} cases");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

#[tokio::test]
async fn an_expression_of_a_class_is_judged_when_it_changes() {
    let world = World::start().await;
    let path = path("deviceclasses");
    let class = json!({"metadata": {"name": "x"}, "spec": {"selectors": [{"cel": {"expression": "true"}}]}});
    let (code, mut class) = world.call(Method::POST, &path, &class).await;
    assert_eq!(code, StatusCode::CREATED, "{class}");
    class["spec"]["selectors"] =
        json!([{"cel": {"expression": "true"}}, {"cel": {"expression": "1"}}]);
    let (code, refused) = world.call(Method::PUT, &format!("{path}/x"), &class).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let cause = &refused["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.selectors[1].cel.expression");
}
