//! What a client is told about a pod that is accepted and will not do what it seems to.
//!
//! Source: `pkg/api/pod/warnings.go`, `pkg/api/node/util.go` of v1.37.

use std::collections::BTreeSet;

use serde_json::Value;

use super::container::each;
use crate::strategy::warnings::{Warnings, deprecated_node_label, fraction_of_byte};
use crate::validation::{At, dns_label, label_value};

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "flocker",
        "flocker",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "quobyte",
        "quobyte",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
    (
        "cephfs",
        "cephfs",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
    (
        "rbd",
        "rbd",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
];

/// Of a new pod.
pub(crate) fn on_create(pod: &At<'_>, warnings: &mut Warnings) {
    let name = pod.get("metadata.name");
    let wrong = dns_label(name.text());
    if !wrong.is_empty() {
        warnings.add(
            &name,
            &format!(
                "this is used in the Pod's hostname, which can result in surprising behavior; a \
                 DNS label is recommended: [{}]",
                wrong.join(" ")
            ),
        );
    }
    template(pod, warnings);
}

/// Of a template, or of a pod in the same form.
pub(crate) fn template(at: &At<'_>, warnings: &mut Warnings) {
    let (metadata, spec) = (at.get("metadata"), at.get("spec"));
    placement(&spec, warnings);
    let notes = metadata.get("annotations");
    for (key, why) in OLD_ANNOTATIONS {
        if notes.has(key) {
            warnings.add(&notes.key(key), why);
        }
    }
    volumes(&spec.get("volumes"), warnings);
    twice(&spec.get("hostAliases"), "ip", warnings);
    let secrets = spec.get("imagePullSecrets");
    twice(&secrets, "name", warnings);
    for secret in secrets
        .items()
        .filter(|secret| secret.str("name").is_empty())
    {
        warnings.add(&secret.get("name"), "invalid empty name \"\"");
    }
    fraction_of_byte(&spec.get("overhead"), warnings);
    annotated_profiles(&notes, &spec, warnings);
    each(&spec, |container| {
        fraction_of_byte(&container.get("resources.limits"), warnings);
        fraction_of_byte(&container.get("resources.requests"), warnings);
        hidden_variables(&container.get("env"), warnings);
    });
    ports(&spec, warnings);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.add(&grace, why);
    }
    for name in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
        let own = spec.get(name);
        for term in own
            .get("requiredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            null_selector(&term.get("labelSelector"), warnings);
        }
        for term in own
            .get("preferredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            null_selector(&term.get("podAffinityTerm.labelSelector"), warnings);
        }
    }
    for server in spec.get("dnsConfig.nameservers").items() {
        warnings.address(&server);
    }
    for alias in spec.get("hostAliases").items() {
        warnings.address(&alias.get("ip"));
    }
}

fn null_selector(at: &At<'_>, warnings: &mut Warnings) {
    if at.is_null() {
        let why = "a null labelSelector results in matching no pod";
        warnings.add(at, why);
    }
}

fn placement(spec: &At<'_>, warnings: &mut Warnings) {
    for (key, entry) in spec.get("nodeSelector").entries() {
        if let Some(why) = deprecated_node_label(key) {
            warnings.add(&entry, why);
        }
    }
    let affinity = spec.get("affinity.nodeAffinity");
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    for term in required.items() {
        selector_term(&term, false, warnings);
    }
    let preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution");
    for term in preferred.items() {
        selector_term(&term.get("preference"), true, warnings);
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        let key = constraint.get("topologyKey");
        if let Some(why) = deprecated_node_label(key.text()) {
            warnings.add(&key, &format!("{} is {why}", key.text()));
        }
        null_selector(&constraint.get("labelSelector"), warnings);
    }
}

/// Of a term of a selector of nodes.
pub(crate) fn selector_term(at: &At<'_>, check_values: bool, warnings: &mut Warnings) {
    for expression in at.get("matchExpressions").items() {
        let key = expression.get("key");
        if let Some(why) = deprecated_node_label(key.text()) {
            warnings.add(&key, &format!("{} is {why}", key.text()));
        }
        let values = expression.get("values");
        for value in values.items().filter(|_| check_values) {
            for message in label_value(value.text()) {
                warnings.add(&value, &format!("{} is invalid, {message}", value.text()));
            }
        }
    }
}

fn volumes(at: &At<'_>, warnings: &mut Warnings) {
    for volume in at.items() {
        for (field, shown, why) in OLD_VOLUMES {
            if volume.has(field) {
                warnings.add(&volume.get(field).named(shown), why);
            }
        }
        let resources = volume.get("ephemeral.volumeClaimTemplate.spec.resources");
        crate::strategy::warnings::claim_resources(&resources, warnings);
    }
    for volume in at.items() {
        let name = volume.str("name");
        for (field, what) in [
            ("configMap", "ConfigMap"),
            ("secret", "Secret"),
            ("downwardAPI", "DownwardAPI"),
        ] {
            let source = volume.get(field);
            let of = match field {
                "configMap" => format!("{what} \"{}\"", source.str("name")),
                "secret" => format!("{what} \"{}\"", source.str("secretName")),
                _ => what.to_owned(),
            };
            let mut paths = Vec::new();
            for item in source.get("items").items() {
                overlaps(name, &of, item.str("path"), "", &mut paths, warnings);
            }
        }
        projected(name, &volume.get("projected.sources"), warnings);
    }
}

fn projected(name: &str, sources: &At<'_>, warnings: &mut Warnings) {
    let mut paths = Vec::new();
    for source in sources.items() {
        if source
            .value
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
        {
            let why = format!("volume \"{name}\" (Projected) has no sources provided");
            warnings.push(why);
            continue;
        }
        let mut own: Vec<(String, String)> = Vec::new();
        for (field, what) in [
            ("configMap", "ConfigMap"),
            ("secret", "Secret"),
            ("downwardAPI", "DownwardAPI"),
        ] {
            let part = source.get(field);
            let of = match field {
                "downwardAPI" => what.to_owned(),
                _ => format!("{what} \"{}\"", part.str("name")),
            };
            for item in part.get("items").items() {
                own.push((item.str("path").to_owned(), of.clone()));
            }
        }
        let token = source.get("serviceAccountToken");
        if token.is_set() {
            own.push((
                token.str("path").to_owned(),
                "ServiceAccountToken".to_owned(),
            ));
        }
        let bundle = source.get("clusterTrustBundle");
        if bundle.is_set() {
            let of = match bundle.str("name") {
                "" => bundle.str("signerName"),
                name => name,
            };
            let what = format!("ClusterTrustBundle \"{of}\"");
            own.push((bundle.str("path").to_owned(), what));
        }
        let certificate = source.get("podCertificate");
        for (field, what) in [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ] {
            if !certificate.str(field).is_empty() {
                own.push((certificate.str(field).to_owned(), what.to_owned()));
            }
        }
        for (path, of) in own {
            overlaps(name, "Projected", &path, &of, &mut paths, warnings);
        }
    }
}

/// Tells where a path lies over one before it.
fn overlaps(
    volume: &str,
    kind: &str,
    path: &str,
    source: &str,
    paths: &mut Vec<(String, String)>,
    warnings: &mut Warnings,
) {
    let path = path.trim_end_matches('/');
    let shown = |path: &str, source: &str| match source {
        "" => format!("\"{path}\""),
        of => format!("\"{path}\" ({of})"),
    };
    let begins = |long: &str, short: &str| format!("{long}/").starts_with(&format!("{short}/"));
    for (other, of) in paths.iter() {
        let over =
            !path.is_empty() && !other.is_empty() && (begins(other, path) || begins(path, other));
        if over {
            warnings.push(format!(
                "volume \"{volume}\" ({kind}): overlapping paths: {} with {}",
                shown(path, source),
                shown(other, of)
            ));
        }
    }
    paths.push((path.to_owned(), source.to_owned()));
}

fn twice(at: &At<'_>, key: &str, warnings: &mut Warnings) {
    let mut seen = BTreeSet::new();
    for item in at.items() {
        if !seen.insert(item.str(key)) {
            let why = format!("duplicate {key} \"{}\"", item.str(key));
            warnings.add(&item.get(key), &why);
        }
    }
}

fn annotated_profiles(notes: &At<'_>, spec: &At<'_>, warnings: &mut Warnings) {
    if notes.is_empty() {
        return;
    }
    let old = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let context = spec.get("securityContext");
    if !context.has("seccompProfile") && notes.has(SECCOMP_POD) {
        warnings.add(&notes.key(SECCOMP_POD), old);
    }
    each(spec, |container| {
        let own = container.get("securityContext");
        let key = format!("{SECCOMP_CONTAINER}{}", container.str("name"));
        if !own.has("seccompProfile") && notes.has(&key) {
            warnings.add(&notes.key(&key), old);
        }
        let key = format!("{APP_ARMOR}{}", container.str("name"));
        let whole = context.value.get("appArmorProfile").unwrap_or(&Value::Null);
        let agrees = super::app_armor_profile(notes.str(&key)).is_some_and(|own| &own == whole);
        // A pod's annotation has become its field by now: it is told all the same.
        let field = own.get("appArmorProfile");
        let from_annotation = super::app_armor_profile(notes.str(&key)).is_some_and(|profile| {
            &profile == field.value && notes.path() == "metadata.annotations"
        });
        if notes.has(&key) && !agrees && (field.is_null() || from_annotation) {
            let why = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            warnings.add(&notes.key(&key), why);
        }
    });
}

fn hidden_variables(at: &At<'_>, warnings: &mut Warnings) {
    let mut seen = BTreeSet::new();
    for variable in at.items() {
        let (name, value) = (variable.str("name"), variable.str("value"));
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            let why = format!(
                "hides previous definition of \"{name}\", which may be dropped when using apply"
            );
            warnings.add(&variable, &why);
        }
    }
}

struct Port {
    path: String,
    number: i64,
    protocol: String,
    host_ip: String,
    host_port: i64,
    name: String,
}

fn ports(spec: &At<'_>, warnings: &mut Warnings) {
    let mut seen: Vec<Port> = Vec::new();
    each(spec, |container| {
        for at in container.get("ports").items() {
            let int = |key: &str| at.value.get(key).and_then(Value::as_i64).unwrap_or(0);
            let port = Port {
                path: at.path(),
                number: int("containerPort"),
                protocol: at.str("protocol").to_owned(),
                host_ip: at.str("hostIP").to_owned(),
                host_port: int("hostPort"),
                name: at.str("name").to_owned(),
            };
            if !port.host_ip.is_empty() && port.host_port == 0 {
                warnings.push(format!(
                    "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} \
                     Protocol:{} HostIP:{}}}",
                    port.path, port.name, port.number, port.protocol, port.host_ip
                ));
            }
            for other in seen
                .iter()
                .filter(|other| (other.number, &other.protocol) == (port.number, &port.protocol))
            {
                let what = if (&port.host_ip, port.host_port) == (&other.host_ip, other.host_port) {
                    "duplicate"
                } else if port.host_port == 0 || other.host_port == 0 {
                    "overlapping"
                } else if port.host_port == other.host_port
                    && port.host_ip.is_empty() != other.host_ip.is_empty()
                {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                warnings.push(format!(
                    "{}: {what} port definition with {}",
                    port.path, other.path
                ));
            }
            seen.push(port);
        }
    });
    for (at, port) in seen
        .iter()
        .enumerate()
        .filter(|(_, port)| !port.name.is_empty())
    {
        if let Some(other) = seen[..at].iter().find(|other| other.name == port.name) {
            warnings.push(format!(
                "{}: duplicate port name \"{}\" with {}, services and probes that select ports by \
                 name will use {}",
                port.path, port.name, other.path, other.path
            ));
        }
    }
}
