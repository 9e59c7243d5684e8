//! Environment variables, and the references by which they and volumes read what
//! else the pod or cluster knows.
//!
//! Source: `ValidateEnv` and its neighbours of `pkg/apis/core/validation`, v1.37.

use crate::validation::common::no_backsteps;
use crate::validation::{
    At, Errors, config_key, dns_label, dns_subdomain, env_name, qualified_name,
};

/// What a volume may show of its pod.
pub(crate) const VOLUME_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// What a variable may show of its pod.
const VARIABLE_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields that have a name in the downward API at all.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// Checks a container's variables.
pub(crate) fn variables(at: &At<'_>, errors: &mut Errors) {
    for variable in at.items() {
        variable.get("name").need_check(errors, env_name);
        let from = variable.get("valueFrom");
        if from.is_set() {
            value_from(&from, !variable.str("value").is_empty(), errors);
        }
    }
}

type Source = fn(&At<'_>, &mut Errors);

fn value_from(at: &At<'_>, has_value: bool, errors: &mut Errors) {
    let mut count = 0;
    let sources: [(&str, Source); 5] = [
        ("fieldRef", |at, errors| {
            object_field(at, VARIABLE_FIELDS, errors);
        }),
        ("resourceFieldRef", |at, errors| {
            resource_field(at, false, errors);
        }),
        ("configMapKeyRef", key_selector),
        ("secretKeyRef", key_selector),
        ("fileKeyRef", |at, errors| {
            at.get("key").need_check(errors, env_name);
            at.get("volumeName").need_check(errors, dns_label);
            let path = at.get("path");
            if path.need(errors) {
                no_backsteps(&path, errors);
            }
        }),
    ];
    for (name, check) in sources {
        let own = at.get(name);
        if own.is_set() {
            count += 1;
            check(&own, errors);
        }
    }
    let wrong = match (count, has_value) {
        (0, _) => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
             `secretKeyRef` or `fileKeyRef`"
        }
        (_, true) => "may not be specified when `value` is not empty",
        (1, false) => return,
        (_, false) => "may not have more than one field specified at a time",
    };
    at.invalid_as(errors, "", wrong);
}

fn key_selector(at: &At<'_>, errors: &mut Errors) {
    at.get("name").check(errors, dns_subdomain);
    at.get("key").need_check(errors, config_key);
}

/// Checks the sources of many variables at once.
pub(crate) fn variable_sources(at: &At<'_>, errors: &mut Errors) {
    for source in at.items() {
        source.get("prefix").may_check(errors, env_name);
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            let own = source.get(name);
            if own.is_set() {
                count += 1;
                let name = own.get("name");
                if name.need(errors) {
                    // The name may end as a prefix may.
                    for message in
                        crate::validation::NameRule::DnsSubdomain.check(name.text(), true)
                    {
                        name.invalid_text(errors, &message);
                    }
                }
            }
        }
        let wrong = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        at.invalid_as(errors, "", wrong);
    }
}

/// `metadata.labels` and `key` of `metadata.labels['key']`.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    let (path, subscript) = path.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, subscript))
}

/// Checks a reference to a field of the pod.
pub(crate) fn object_field(at: &At<'_>, allowed: &[&str], errors: &mut Errors) {
    let path = at.get("fieldPath");
    if !at.get("apiVersion").need(errors) || !path.need(errors) {
        return;
    }
    let convert = |errors: &mut Errors, why: String| {
        path.invalid_text(errors, &format!("error converting fieldPath: {why}"));
    };
    if at.str("apiVersion") != "v1" {
        let why = format!("unsupported pod version: {}", at.str("apiVersion"));
        return convert(errors, why);
    }
    let label = path.text();
    if let Some((map, key)) = subscripted(label) {
        let key = match map {
            "metadata.annotations" => key.to_ascii_lowercase(),
            "metadata.labels" => key.to_owned(),
            _ => {
                let why = format!("field label does not support subscript: {label}");
                return convert(errors, why);
            }
        };
        for message in qualified_name(&key) {
            at.invalid_as(errors, key.as_str(), &message);
        }
        return;
    }
    let own = if label == "spec.host" {
        "spec.nodeName"
    } else {
        label
    };
    if !KNOWN_FIELDS.contains(&own) {
        return convert(errors, format!("field label not supported: {label}"));
    }
    if !allowed.contains(&own) {
        errors.not_supported(&path.path(), own, allowed);
    }
}

/// Checks a reference to a container's resources.
pub(crate) fn resource_field(at: &At<'_>, volume: bool, errors: &mut Errors) {
    let resource = at.get("resource");
    let name = resource.text();
    let pages = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if volume && at.str("containerName").is_empty() {
        at.get("containerName").required(errors, "");
    } else if resource.need(errors) && !pages {
        resource.one_of(errors, RESOURCE_FIELDS);
    }
    let divisor = at.get("divisor");
    let Some(quantity) = divisor.quantity().filter(|quantity| !quantity.is_zero()) else {
        return;
    };
    let own = quantity.canonical();
    let what = match name.rsplit('.').next().unwrap_or_default() {
        "cpu" if !["1m", "1"].contains(&own.as_str()) => {
            let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
            divisor.invalid_as(errors, name, detail);
            return;
        }
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ if pages => "hugepages",
        _ => return,
    };
    if !DIVISORS.contains(&own.as_str()) {
        let detail = format!(
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are \
             supported with the {what} resource"
        );
        divisor.invalid_as(errors, name, &detail);
    }
}
