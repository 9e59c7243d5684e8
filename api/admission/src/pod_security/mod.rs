//! PodSecurity: the pod security standards, by a namespace's labels.
//!
//! Source: KEP-2579 and the documentation of the pod security standards. A pod is
//! judged as it would be stored; a pod's template (of a deployment, a job, ...) is never
//! refused, only warned about and audited.
//!
//! Invariant: a version newer than the newest known one is judged as the newest.

mod checks;
mod labels;
mod restricted;

use nautilus_machinery::status::ApiError;
use serde_json::Value;

pub use labels::{Level, LevelVersion, Policy, Version};

use crate::attributes::{Attributes, Operation};
use crate::values::{items, text};

/// Existing pods looked at when a namespace's level is raised.
pub const MAX_PODS_CHECKED: usize = 3000;

/// Subresources of pods that do not bring a pod.
const IGNORED_SUBRESOURCES: [&str; 8] = [
    "exec",
    "attach",
    "binding",
    "eviction",
    "log",
    "portforward",
    "proxy",
    "status",
];

/// Where a kind keeps its pod template.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "replicationcontrollers", "/spec/template"),
    ("", "podtemplates", "/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

/// What the standards say of one request.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Why it is refused.
    pub refused: Option<ApiError>,
    /// What the client should hear.
    pub warnings: Vec<String>,
    /// What the audit log should hold, without the prefix [`AUDIT_PREFIX`].
    pub audit: Vec<(&'static str, String)>,
}

/// The prefix of audit annotations.
pub const AUDIT_PREFIX: &str = "pod-security.kubernetes.io/";

/// Whether the kind is looked at at all.
pub fn handles(asked: &Attributes<'_>) -> bool {
    matches!(asked.operation, Operation::Create | Operation::Update)
        && (asked.of("", "pods") || asked.of("", "namespaces") || template_path(asked).is_some())
}

fn template_path(asked: &Attributes<'_>) -> Option<&'static str> {
    TEMPLATES
        .iter()
        .find(|(group, plural, _)| asked.of(group, plural))
        .map(|(.., path)| *path)
}

/// Judges a pod or a template in `namespace`.
pub fn judge(asked: &Attributes<'_>, object: &Value, namespace: &Value) -> Judgement {
    let (policy, faults) = Policy::of_labels(&namespace["metadata"]["labels"]);
    if asked.of("", "pods") {
        if asked
            .subresource
            .is_some_and(|sub| IGNORED_SUBRESOURCES.contains(&sub))
        {
            return Judgement::default();
        }
        if faults.is_empty() && policy.is_fully_privileged() {
            return Judgement {
                audit: vec![("enforce-policy", "privileged:latest".to_owned())],
                ..Judgement::default()
            };
        }
        if asked
            .old
            .is_some_and(|old| !changes_what_matters(object, old))
        {
            return Judgement::default();
        }
        return evaluate(asked, &policy, &faults, object, Enforce::Yes);
    }
    let Some(path) = template_path(asked).filter(|_| asked.subresource.is_none()) else {
        return Judgement::default();
    };
    let calm = policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
    match object.pointer(path) {
        Some(template) if !(template.is_null() || faults.is_empty() && calm) => {
            evaluate(asked, &policy, &faults, template, Enforce::No)
        }
        _ => Judgement::default(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Enforce {
    Yes,
    No,
}

fn evaluate(
    asked: &Attributes<'_>,
    policy: &Policy,
    faults: &[labels::Fault],
    pod: &Value,
    enforce: Enforce,
) -> Judgement {
    let mut judgement = Judgement::default();
    if !faults.is_empty() {
        let text = labels::faults_text(faults);
        let what = format!("Failed to parse policy: {text}");
        judgement.audit.push(("error", what));
    }
    let violations = |what: &LevelVersion| checks::violations(what, pod);
    if enforce == Enforce::Yes {
        let own = policy.enforce.to_string();
        judgement.audit.push(("enforce-policy", own.clone()));
        let found = violations(&policy.enforce);
        if !found.is_empty() {
            let why = format!("violates PodSecurity \"{own}\": {}", details(&found));
            judgement.refused = Some(asked.forbidden(Some(pod), &why));
        }
    }
    let would = |what: &LevelVersion| {
        let found = violations(what);
        (!found.is_empty())
            .then(|| format!("would violate PodSecurity \"{what}\": {}", details(&found)))
    };
    if let Some(text) = would(&policy.audit) {
        judgement.audit.push(("audit-violations", text));
    }
    if judgement.refused.is_none() {
        judgement.warnings.extend(would(&policy.warn));
    }
    judgement
}

fn details(found: &[checks::Violation]) -> String {
    let texts: Vec<String> = found
        .iter()
        .map(|violation| match violation.detail.as_str() {
            "" => violation.reason.clone(),
            detail => format!("{} ({detail})", violation.reason),
        })
        .collect();
    texts.join(", ")
}

/// Judges a namespace's labels. `pods` gives the pods that live in it, asked only
/// when a raised level may concern them.
pub fn judge_namespace(
    asked: &Attributes<'_>,
    namespace: &Value,
    pods: impl FnOnce() -> Vec<Value>,
) -> Judgement {
    let mut judgement = Judgement::default();
    if asked.subresource.is_some() {
        return judgement;
    }
    let (policy, faults) = Policy::of_labels(&namespace["metadata"]["labels"]);
    let before = asked
        .old
        .map(|old| Policy::of_labels(&old["metadata"]["labels"]));
    let known = before.as_ref().is_some_and(|(_, old)| *old == faults);
    if !faults.is_empty() && !known {
        let causes = faults.iter().map(labels::Fault::cause).collect();
        let name = asked.called(Some(namespace));
        judgement.refused = Some(ApiError::invalid(asked.resource, &name, causes));
        return judgement;
    }
    let Some((old, _)) = before else {
        return judgement;
    };
    let (new, old) = (policy.enforce, old.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || relaxed {
        return judgement;
    }
    judgement.warnings = namespace_warnings(asked.name, &new, &pods());
    judgement
}

fn namespace_warnings(namespace: &str, enforce: &LevelVersion, pods: &[Value]) -> Vec<String> {
    let total = pods.len();
    let checked = prioritized(pods);
    // Reasons, the first pod by name, and how many pods share them.
    let mut found: Vec<(String, &str, usize)> = Vec::new();
    for pod in &checked {
        let violations = checks::violations(enforce, pod);
        if violations.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = violations.iter().map(|v| v.reason.as_str()).collect();
        let (reasons, name) = (reasons.join(", "), text(&pod["metadata"]["name"]));
        match found.iter_mut().find(|(own, ..)| *own == reasons) {
            Some((_, first, count)) => {
                *first = (*first).min(name);
                *count += 1;
            }
            None => found.push((reasons, name, 1)),
        }
    }
    let mut warnings = Vec::new();
    if checked.len() < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {} of {total} existing \
             pods",
            checked.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \
             \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, name, count)| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

/// One pod of each controller first, then the rest, within the bound.
fn prioritized(pods: &[Value]) -> Vec<&Value> {
    let mut controllers: std::collections::BTreeSet<&str> = std::collections::BTreeSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for pod in pods {
        let owner = items(&pod["metadata"]["ownerReferences"])
            .find(|owner| owner["controller"] == true)
            .map(|owner| text(&owner["uid"]));
        match owner {
            Some(uid) if !controllers.insert(uid) => rest.push(pod),
            _ => first.push(pod),
        }
    }
    first.extend(rest);
    first.truncate(MAX_PODS_CHECKED);
    first
}

/// An update is looked at when it adds a container or changes an image.
fn changes_what_matters(new: &Value, old: &Value) -> bool {
    let lists = ["containers", "initContainers"];
    let listed = |pod: &Value, list: &str| -> Vec<String> {
        items(&pod["spec"][list])
            .map(|container| text(&container["image"]).to_owned())
            .collect()
    };
    lists
        .iter()
        .any(|list| listed(new, list) != listed(old, list))
        || items(&new["spec"]["ephemeralContainers"]).any(|container| {
            items(&old["spec"]["ephemeralContainers"])
                .find(|before| before["name"] == container["name"])
                .is_none_or(|before| before["image"] != container["image"])
        })
}

#[cfg(test)]
mod tests;
