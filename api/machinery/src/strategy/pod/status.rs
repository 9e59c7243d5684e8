//! What a kubelet or a controller may report of a pod.
//!
//! Source: `ValidatePodStatusUpdate` of v1.37.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::validation::common::{MAX_ID, legacy_ip, parse_ip};
use crate::validation::{At, Errors, dns_subdomain, qualified_name};

const SYSTEM_CONDITIONS: &[&str] = &["PodScheduled", "Ready", "Initialized"];

/// Checks a new status.
pub(crate) fn validate(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, after) = (old.get("status"), new.get("status"));
    conditions(&after.get("conditions"), errors);
    let node = after.get("nominatedNodeName");
    if node.text() != before.str("nominatedNodeName") && !node.is_empty() {
        node.check(errors, dns_subdomain);
        if !old.value["spec"]["nodeName"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
        {
            let detail = "may not be set on pods that are already bound to a node";
            node.forbidden(errors, detail);
        }
    }
    generation(&after.get("observedGeneration"), errors);
    let class = after.get("qosClass");
    if class.text() != before.str("qosClass") {
        class.invalid_text(errors, "field is immutable");
    }
    for (list, containers) in [
        ("containerStatuses", Some("containers")),
        ("initContainerStatuses", Some("initContainers")),
        ("ephemeralContainerStatuses", None),
    ] {
        let spec = &old.value["spec"];
        transitions(
            &before.get(list),
            &after.get(list),
            spec,
            containers,
            errors,
        );
    }
    claim_statuses(new, &after.get("resourceClaimStatuses"), errors);
    addresses(&before, &after, errors);
    for list in [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ] {
        users(&after.get(list), &new.value["spec"], errors);
    }
}

fn generation(at: &At<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|own| own < 0) {
        at.invalid(errors, "must be a non-negative integer");
    }
}

fn conditions(at: &At<'_>, errors: &mut Errors) {
    for condition in at.items() {
        generation(&condition.get("observedGeneration"), errors);
        let kind = condition.get("type").named("Type");
        if !SYSTEM_CONDITIONS.contains(&kind.text()) {
            kind.check(errors, qualified_name);
        }
    }
}

/// Whether a container that ended with that code is started again.
fn restarts(container: &Value, spec: &Value, exit_code: i64) -> bool {
    for rule in container["restartPolicyRules"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let codes = &rule["exitCodes"];
        let listed = codes["values"]
            .as_array()
            .is_some_and(|list| list.iter().any(|code| code == exit_code));
        let holds = match codes["operator"].as_str() {
            Some("In") => listed,
            Some("NotIn") => !listed,
            _ => false,
        };
        if holds && rule["action"] == "Restart" {
            return true;
        }
    }
    let own = container["restartPolicy"].as_str();
    let policy = own.or(spec["restartPolicy"].as_str()).unwrap_or("Always");
    policy == "Always" || (policy == "OnFailure" && exit_code != 0)
}

/// Whether some rule restarts all containers of the pod.
fn all_restart(spec: &Value) -> bool {
    ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .flat_map(|container| {
            container["restartPolicyRules"]
                .as_array()
                .into_iter()
                .flatten()
        })
        .any(|rule| rule["action"] == "RestartAllContainers")
}

/// What has ended does not run again, unless it is restarted.
fn transitions(
    old: &At<'_>,
    new: &At<'_>,
    spec: &Value,
    containers: Option<&str>,
    errors: &mut Errors,
) {
    if containers.is_some() && all_restart(spec) {
        return;
    }
    for (index, before) in old.items().enumerate() {
        let ended = before.value.pointer("/state/terminated");
        let Some(ended) = ended.filter(|ended| !ended.is_null()) else {
            continue;
        };
        let name = before.str("name");
        let after = new.items().find(|after| after.str("name") == name);
        let Some(after) = after.filter(|after| after.value["state"]["terminated"].is_null()) else {
            continue;
        };
        let code = ended["exitCode"].as_i64().unwrap_or(0);
        let own = containers.and_then(|list| {
            let list = spec[list].as_array()?;
            list.iter().find(|container| container["name"] == name)
        });
        if !own.is_some_and(|own| restarts(own, spec, code)) {
            let _ = after;
            let place = new.item(index);
            let detail = "may not be transitioned to non-terminated state";
            place.get("state").forbidden(errors, detail);
        }
    }
}

fn claim_statuses(pod: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    let claims = pod.get("spec.resourceClaims");
    for status in at.items() {
        let name = status.get("name");
        if !claims.items().any(|claim| claim.str("name") == name.text()) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            name.invalid_text(errors, detail);
        }
        if !names.insert(status.str("name")) {
            name.duplicate(errors);
        }
        let claim = status.get("resourceClaimName");
        if claim.is_set() {
            claim.check(errors, dns_subdomain);
        }
    }
}

/// One address of each family at most, and the first of them stands alone too.
fn addresses(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    for (list, one, type_name) in [
        ("podIPs", "podIP", "io.k8s.api.core.v1.PodIP"),
        ("hostIPs", "hostIP", "io.k8s.api.core.v1.HostIP"),
    ] {
        let (at, single, before) = (new.get(list), new.get(one), old.get(list));
        if list == "hostIPs" && at.is_empty() {
            continue;
        }
        let shown = || crate::strategy::internal::show_list(type_name, at.value);
        let mut parsed: Vec<IpAddr> = Vec::new();
        for address in at.items() {
            let text = address.value["ip"].as_str().unwrap_or_default();
            parsed.extend(parse_ip(text));
            if !before.items().any(|own| own.str("ip") == text) {
                let value = Value::from(text);
                legacy_ip(&address.with(&value), errors);
            }
        }
        let dual = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
        if at.len() > 1 && (!dual || at.len() > 2) {
            let detail = "may specify no more than one IP for each IP family";
            at.invalid_shown(errors, &shown(), detail);
        }
        let first = at.item(0);
        if list == "podIPs" && single.is_empty() != at.is_empty() {
            let detail = "podIP and podIPs must either both be set or both be unset";
            at.invalid_shown(errors, &shown(), detail);
        } else if !at.is_empty() && single.text() != first.str("ip") {
            let detail = format!("must be equal to `{one}`");
            first.get("ip").invalid_text(errors, &detail);
        }
    }
}

fn users(at: &At<'_>, spec: &Value, errors: &mut Errors) {
    for status in at.items() {
        let linux = status.get("user.linux");
        if linux.is_null() {
            continue;
        }
        if spec["os"]["name"] == "windows" {
            let detail = "cannot be set for a windows pod";
            linux.forbidden(errors, detail);
            continue;
        }
        linux.get("uid").within(errors, 0, MAX_ID);
        linux.get("gid").within(errors, 0, MAX_ID);
        for group in linux.get("supplementalGroups").items() {
            group.within(errors, 0, MAX_ID);
        }
    }
}
