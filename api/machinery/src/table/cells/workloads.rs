//! Kinds that run pods, and what belongs to them.

use serde_json::{Value, json};

use super::*;

/// Names and images of a pod template's containers.
fn containers(template: &Value) -> [Value; 2] {
    let all = list(&template["spec"]["containers"]);
    let join = |key: &str| {
        json!(
            all.iter()
                .map(|c| text(c, key))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    [join("name"), join("image")]
}

fn workload(object: &Value, cells: Vec<Value>, template: &Value, selector: Value) -> Vec<Value> {
    let mut row = vec![name(object)];
    row.extend(cells);
    row.extend(containers(template));
    row.push(selector);
    row
}

pub(super) fn deployment(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let cells = vec![
        of_all(int(&status["readyReplicas"]), int(&spec["replicas"])),
        json!(int(&status["updatedReplicas"])),
        json!(int(&status["availableReplicas"])),
        age(object, now),
    ];
    let selector = match LabelSelector::of_object(&spec["selector"]) {
        Ok(selector) => selector.to_string(),
        Err(_) => "<invalid>".to_owned(),
    };
    workload(object, cells, &spec["template"], json!(selector))
}

/// Replica sets.
pub(super) fn replica_set(object: &Value, now: i64) -> Vec<Value> {
    let selector = selector(&object["spec"]["selector"]);
    replicated(object, selector, now)
}

/// Replication controllers.
pub(super) fn controller(object: &Value, now: i64) -> Vec<Value> {
    let selector = labels(&object["spec"]["selector"]);
    replicated(object, selector, now)
}

fn replicated(object: &Value, selector: Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let cells = vec![
        json!(int(&spec["replicas"])),
        json!(int(&status["replicas"])),
        json!(int(&status["readyReplicas"])),
        age(object, now),
    ];
    workload(object, cells, &spec["template"], selector)
}

pub(super) fn stateful_set(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let ready = int(&object["status"]["readyReplicas"]);
    let mut row = vec![
        name(object),
        of_all(ready, int(&spec["replicas"])),
        age(object, now),
    ];
    row.extend(containers(&spec["template"]));
    row
}

pub(super) fn daemon_set(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut cells: Vec<Value> = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ]
    .iter()
    .map(|key| json!(int(&status[*key])))
    .collect();
    cells.push(labels(&spec["template"]["spec"]["nodeSelector"]));
    cells.push(age(object, now));
    workload(
        object,
        cells,
        &spec["template"],
        selector(&spec["selector"]),
    )
}

pub(super) fn job(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let succeeded = int(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), int(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let seconds = |key: &str| {
        let time = status[key].as_str().and_then(timestamp::parse);
        time.map(|time| time.seconds)
    };
    let took = match (seconds("startTime"), seconds("completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => duration::human(end.unwrap_or(now).saturating_sub(start)),
    };
    let state = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("", "Terminating"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ]
    .iter()
    .find(|(condition, _)| match *condition {
        "" => !object["metadata"]["deletionTimestamp"].is_null(),
        condition => has_condition(status, condition),
    })
    .map_or("Running", |(_, word)| word);
    let cells = vec![
        json!(state),
        json!(completions),
        json!(took),
        age(object, now),
    ];
    workload(
        object,
        cells,
        &spec["template"],
        selector(&spec["selector"]),
    )
}

pub(super) fn cron_job(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let last = match &status["lastScheduleTime"] {
        Value::Null => NONE.to_owned(),
        time => since(time, now),
    };
    let suspended = match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    let cells = vec![
        json!(text(spec, "schedule")),
        json!(spec["timeZone"].as_str().unwrap_or(NONE)),
        json!(suspended),
        json!(list(&status["active"]).len()),
        json!(last),
        age(object, now),
    ];
    let job = &spec["jobTemplate"]["spec"];
    workload(object, cells, &job["template"], selector(&job["selector"]))
}

pub(super) fn pod_template(object: &Value, _now: i64) -> Vec<Value> {
    let template = &object["template"];
    let [names, images] = containers(template);
    vec![
        name(object),
        names,
        images,
        labels(&template["metadata"]["labels"]),
    ]
}

pub(super) fn controller_revision(object: &Value, now: i64) -> Vec<Value> {
    let owners = list(&object["metadata"]["ownerReferences"]);
    let owner = owners.iter().find(|owner| owner["controller"] == true);
    let owner = owner.map_or(NONE.to_owned(), |owner| {
        let (group, _) = text(owner, "apiVersion")
            .split_once('/')
            .unwrap_or(("", ""));
        let kind = qualified(text(owner, "kind"), group).to_lowercase();
        match kind.as_str() {
            "" => text(owner, "name").to_owned(),
            kind => format!("{kind}/{}", text(owner, "name")),
        }
    });
    vec![
        name(object),
        json!(owner),
        json!(int(&object["revision"])),
        age(object, now),
    ]
}

pub(super) fn disruption_budget(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let amount = |key: &str| match &spec[key] {
        Value::Null => json!("N/A"),
        Value::String(text) => json!(text),
        number => json!(number.to_string()),
    };
    vec![
        name(object),
        amount("minAvailable"),
        amount("maxUnavailable"),
        json!(int(&object["status"]["disruptionsAllowed"])),
        age(object, now),
    ]
}

/// Autoscalers, in the form of `autoscaling/v2`.
pub(super) fn autoscaler(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    let least = spec["minReplicas"].as_i64();
    vec![
        name(object),
        json!(format!("{}/{}", text(target, "kind"), text(target, "name"))),
        json!(metrics(
            list(&spec["metrics"]),
            list(&status["currentMetrics"])
        )),
        json!(least.map_or(UNSET.to_owned(), |least| least.to_string())),
        json!(int(&spec["maxReplicas"])),
        json!(int(&status["currentReplicas"])),
        age(object, now),
    ]
}

/// The autoscalers of `autoscaling/v1`.
pub(super) fn autoscaler_v1(object: &Value, now: i64) -> Vec<Value> {
    autoscaler(&crate::convert::autoscaler::to_v2(object.clone()), now)
}

/// Metrics shown in full.
const MAX_METRICS: usize = 2;

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let shown = specs.iter().take(MAX_METRICS).enumerate();
    let shown: Vec<String> = shown
        .map(|(at, spec)| metric(spec, statuses.get(at).unwrap_or(&Value::Null)))
        .collect();
    let shown = shown.join(", ");
    match specs.len().saturating_sub(MAX_METRICS) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let (source, keyed) = match text(spec, "type") {
        "External" => ("external", false),
        "Object" => ("object", false),
        "Pods" => ("pods", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[source]["target"], &status[source]["current"]);
    let quantity = |value: &Value| value.as_str().map(str::to_owned);
    let percent = |value: &Value| value.as_i64().map(|percent| format!("{percent}%"));
    let present = !status[source].is_null();
    // A status that is there without the amount is Go's nil.
    let shown = |amount: Option<String>| match amount {
        Some(amount) => amount,
        None if present => "<nil>".to_owned(),
        None => UNKNOWN.to_owned(),
    };
    let average = quantity(&target["averageValue"]);
    let body = match (source, average) {
        ("pods", average) => format!(
            "{}/{}",
            shown(quantity(&current["averageValue"])),
            average.unwrap_or_else(|| "<nil>".to_owned())
        ),
        ("external" | "object", Some(average)) => {
            let current = quantity(&current["averageValue"]);
            format!("{}/{average} (avg)", current.unwrap_or(UNKNOWN.to_owned()))
        }
        ("external" | "object", None) => format!(
            "{}/{}",
            shown(quantity(&current["value"])),
            quantity(&target["value"]).unwrap_or_else(|| "<nil>".to_owned())
        ),
        (_, Some(average)) => {
            format!("{}/{average}", shown(quantity(&current["averageValue"])))
        }
        (_, None) => format!(
            "{}/{}",
            percent(&current["averageUtilization"]).unwrap_or(UNKNOWN.to_owned()),
            percent(&target["averageUtilization"]).unwrap_or("<auto>".to_owned())
        ),
    };
    match keyed {
        true => format!("{}: {body}", text(&spec[source], "name")),
        false => body,
    }
}
