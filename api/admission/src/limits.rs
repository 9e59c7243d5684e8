//! LimitRanger: the defaults and bounds that a namespace's limit ranges set for
//! containers, pods and claims.

use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::pods::{self, Side};
use crate::values::{Resources, aggregate, items, resources, text};

/// Where it says what it set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Whether limits concern the request: pods when they are made or resized, claims.
pub fn handles(asked: &Attributes<'_>) -> bool {
    if asked
        .old
        .is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null())
    {
        return false;
    }
    match asked.operation {
        Operation::Create => asked.is("", "pods") || asked.is("", "persistentvolumeclaims"),
        Operation::Update => {
            asked.is_sub("", "pods", "resize") || asked.is("", "persistentvolumeclaims")
        }
        _ => false,
    }
}

/// Gives a pod's containers the defaults of the limit ranges.
pub fn mutate<'r>(
    asked: &Attributes<'_>,
    object: &mut Value,
    ranges: impl IntoIterator<Item = &'r Value>,
) {
    if asked.of("", "pods") {
        for range in ranges {
            default_pod(object, range);
        }
    }
}

fn default_pod(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Resources::new(), Resources::new());
    for limit in of_type(range, "Container") {
        requests.extend(resources(&limit["defaultRequest"]));
        limits.extend(resources(&limit["default"]));
    }
    let mut said = Vec::new();
    for (list, word) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let name = text(&container["name"]).to_owned();
            let mut fill = |field: &str, defaults: &Resources, kind: &str| {
                let set = fill_in(&mut container["resources"], field, defaults);
                if !set.is_empty() {
                    said.push(format!("{} {kind} for {word} {name}", set.join(", ")));
                }
            };
            fill("requests", &requests, "request");
            fill("limits", &limits, "limit");
        }
    }
    if !said.is_empty() {
        let said = format!("LimitRanger plugin set: {}", said.join("; "));
        pod["metadata"]["annotations"][ANNOTATION] = json!(said);
    }
}

fn fill_in(place: &mut Value, field: &str, defaults: &Resources) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if place[field][name].is_null() {
            place[field][name] = json!(amount.canonical());
            set.push(name.clone());
        }
    }
    set
}

fn of_type<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    items(&range["spec"]["limits"]).filter(move |limit| limit["type"] == kind)
}

/// Refuses what is out of the bounds of a limit range.
pub fn validate<'r>(
    asked: &Attributes<'_>,
    object: &Value,
    ranges: impl IntoIterator<Item = &'r Value>,
) -> Result<(), ApiError> {
    for range in ranges {
        let found = if asked.of("", "pods") {
            pod_faults(object, range)
        } else {
            claim_faults(object, range)
        };
        if let Some(why) = aggregate(found) {
            return Err(asked.forbidden(Some(object), &why));
        }
    }
    Ok(())
}

fn pod_faults(pod: &Value, range: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for limit in items(&range["spec"]["limits"]) {
        match text(&limit["type"]) {
            "Container" => {
                for list in ["containers", "initContainers"] {
                    for container in items(&pod["spec"][list]) {
                        let own = &container["resources"];
                        let bounds = Bounds::of("Container", limit);
                        let (requests, limits) =
                            (resources(&own["requests"]), resources(&own["limits"]));
                        bounds.check(&requests, &limits, &mut faults);
                    }
                }
            }
            "Pod" => {
                let requests = pods::taken(pod, Side::Requests);
                let limits = pods::taken(pod, Side::Limits);
                Bounds::of("Pod", limit).check(&requests, &limits, &mut faults);
            }
            _ => {}
        }
    }
    faults
}

fn claim_faults(claim: &Value, range: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let kind = "PersistentVolumeClaim";
    let requests = resources(&claim["spec"]["resources"]["requests"]);
    for limit in of_type(range, kind) {
        for (name, least) in &resources(&limit["min"]) {
            faults.extend(below(kind, name, least, &requests, &Resources::new()));
        }
        for (name, most) in &resources(&limit["max"]) {
            let request = ("request", requests.get(name));
            faults.extend(above(kind, name, most, request, ("limit", None)));
        }
    }
    faults
}

/// One limit of a range.
struct Bounds<'a> {
    kind: &'a str,
    min: Resources,
    max: Resources,
    ratio: Resources,
}

impl<'a> Bounds<'a> {
    fn of(kind: &'a str, limit: &Value) -> Self {
        Self {
            kind,
            min: resources(&limit["min"]),
            max: resources(&limit["max"]),
            ratio: resources(&limit["maxLimitRequestRatio"]),
        }
    }

    fn check(&self, requests: &Resources, limits: &Resources, faults: &mut Vec<String>) {
        let kind = self.kind;
        for (name, least) in &self.min {
            faults.extend(below(kind, name, least, requests, limits));
        }
        for (name, most) in &self.max {
            let (limit, request) = (("limit", limits.get(name)), ("request", requests.get(name)));
            faults.extend(above(kind, name, most, limit, request));
        }
        for (name, most) in &self.ratio {
            faults.extend(out_of_ratio(kind, name, most, requests, limits));
        }
    }
}

/// An amount and what it is called.
type Named<'a> = (&'a str, Option<&'a Quantity>);

/// The fault of what must be stated, or else of another amount.
fn fault(
    bound: &str,
    stated: Named<'_>,
    other: Named<'_>,
    is_out: impl Fn(&Quantity) -> bool,
) -> Option<String> {
    if stated.1.is_none() {
        return Some(format!("{bound}.  No {} is specified", stated.0));
    }
    [stated, other].into_iter().find_map(|(word, amount)| {
        let amount = amount.filter(|amount| is_out(amount))?;
        Some(format!("{bound}, but {word} is {}", amount.canonical()))
    })
}

fn below(
    kind: &str,
    name: &str,
    least: &Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let bound = format!("minimum {name} usage per {kind} is {}", least.canonical());
    let (request, limit) = (("request", requests.get(name)), ("limit", limits.get(name)));
    fault(&bound, request, limit, |amount| amount < least)
}

fn above(
    kind: &str,
    name: &str,
    most: &Quantity,
    stated: Named<'_>,
    other: Named<'_>,
) -> Option<String> {
    let bound = format!("maximum {name} usage per {kind} is {}", most.canonical());
    fault(&bound, stated, other, |amount| amount > most)
}

fn out_of_ratio(
    kind: &str,
    name: &str,
    most: &Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let bound = format!(
        "{name} max limit to request ratio per {kind} is {}",
        most.canonical()
    );
    let some = |amounts: &Resources| {
        amounts
            .get(name)
            .filter(|amount| !amount.is_zero())
            .map(Quantity::as_f64)
    };
    let Some(request) = some(requests) else {
        return Some(format!(
            "{bound}, but no request is specified or request is 0"
        ));
    };
    let Some(limit) = some(limits) else {
        return Some(format!("{bound}, but no limit is specified or limit is 0"));
    };
    let ratio = limit / request;
    (ratio > most.as_f64()).then(|| format!("{bound}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_machinery::identity::User;
    use nautilus_machinery::resource::find;

    fn asked<'a>(user: &'a User) -> Attributes<'a> {
        Attributes {
            operation: Operation::Create,
            resource: find("", "v1", "pods").expect("pods are served"),
            subresource: None,
            namespace: Some("a"),
            name: "web",
            field_manager: "",
            user,
            dry_run: false,
            old: None,
        }
    }

    #[test]
    fn a_container_without_amounts_gets_the_defaults_and_says_so() {
        let user = User::anonymous();
        let range = json!({"spec": {"limits": [{
            "type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"},
        }]}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}});
        mutate(&asked(&user), &mut pod, [&range]);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
        );
    }

    #[test]
    fn a_container_over_the_maximum_is_refused_in_the_reference_s_words() {
        let user = User::anonymous();
        let range = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}});
        let pod = json!({"spec": {"containers": [
            {"name": "c", "resources": {"limits": {"cpu": "1500m"}}},
        ]}});
        let error = validate(&asked(&user), &pod, [&range]).expect_err("it is too much");
        assert_eq!(
            error.message(),
            "pods \"web\" is forbidden: maximum cpu usage per Container is 1, but limit is 1500m"
        );
    }
}
