//! The spec of a pod, of its own or in a template.
//!
//! Source: `ValidatePodSpec`, `ValidatePodTemplateSpec` of v1.37.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{affinity, container, security, volume};
use crate::strategy::internal;
use crate::strategy::resources::{self, Of};
use crate::validation::common::{MAX_ID, dns_subdomain_with_underscore, legacy_ip};
use crate::validation::{
    At, Errors, annotations, dns_label, dns_subdomain, labels, qualified_name,
};

/// Whose spec it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// A pod's, with its metadata.
    Pod(&'a Value),
    /// A template's.
    Template,
}

/// Most name servers of a pod.
const MAX_NAME_SERVERS: usize = 3;
/// Most search paths of a pod, and the bytes of all with a space between them.
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

/// Checks a template of pods.
pub(crate) fn template(at: &At<'_>, errors: &mut Errors) {
    // The reference leaves metadata out of these paths.
    let metadata = &at.value["metadata"];
    labels(errors, &at.get("labels").path(), metadata.get("labels"));
    let own = at.get("annotations").with(&metadata["annotations"]);
    annotations(errors, &own.path(), metadata.get("annotations"));
    let spec_at = at.get("spec");
    pod_annotations(&own, spec_at.value, errors);
    spec(&spec_at, Owner::Template, errors);
    annotations_agree(&own, &spec_at, errors);
    let ephemeral = spec_at.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// Checks a spec.
pub(crate) fn spec(at: &At<'_>, of: Owner<'_>, errors: &mut Errors) {
    let grace = at.get("terminationGracePeriodSeconds");
    if grace.is_null() {
        grace.required(errors, "");
    }
    let metadata = match of {
        Owner::Pod(metadata) => metadata,
        Owner::Template => &Value::Null,
    };
    let pod_name = metadata["name"].as_str().unwrap_or_default();
    let volumes_at = at.get("volumes");
    let volumes = volume::volumes(&volumes_at, pod_name, errors);
    let claims_at = at.get("resourceClaims");
    let claims: BTreeSet<&str> = claims_at
        .items()
        .map(|claim| claim.value["name"].as_str().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .collect();
    resource_claims(&claims_at, metadata, errors);
    let world = container::World {
        volumes: &volumes,
        claims: &claims,
        grace: grace.int(),
        restart_policy: at.str("restartPolicy"),
        host_users: at.value.get("hostUsers") != Some(&Value::Bool(false)),
    };
    container::containers(&at.get("containers"), &world, errors);
    container::init_containers(&at.get("initContainers"), at, &world, errors);
    container::ephemeral_containers(&at.get("ephemeralContainers"), at, &world, errors);
    resources::pod_level(at, &claims, errors);
    host_network(at, matches!(of, Owner::Pod(_)), errors);
    let policies = ["Always", "OnFailure", "Never"];
    at.get("restartPolicy").choice(errors, &policies);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    at.get("dnsPolicy").choice(errors, &policies);
    labels(
        errors,
        &at.get("nodeSelector").path(),
        at.value.get("nodeSelector"),
    );
    security::pod(at, errors);
    let shared = at.get("shareProcessNamespace");
    if shared.is_true() && at.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        shared.invalid(errors, detail);
    }
    if at.has("affinity") {
        affinity::affinity(&at.get("affinity"), errors);
    }
    dns_config(at, errors);
    for gate in at.get("readinessGates").items() {
        gate.get("conditionType").check(errors, qualified_name);
    }
    scheduling_gates(&at.get("schedulingGates"), errors);
    affinity::topology_spread(&at.get("topologySpreadConstraints"), errors);
    host_process(at, errors);
    host_users(at, errors);
    host_name(at, errors);
    names(at, errors);
    if at.has("overhead") {
        overhead(at, errors);
    }
    operating_system(at, errors);
    file_keys(at, errors);
}

fn names(at: &At<'_>, errors: &mut Errors) {
    let account = at.get("serviceAccountName");
    account.may_check(errors, dns_subdomain);
    at.get("nodeName").may_check(errors, dns_subdomain);
    at.get("activeDeadlineSeconds").within(errors, 1, MAX_ID);
    at.get("hostname").may_check(errors, dns_label);
    at.get("subdomain").may_check(errors, dns_label);
    affinity::tolerations(&at.get("tolerations"), errors);
    for alias in at.get("hostAliases").items() {
        legacy_ip(&alias.get("ip"), errors);
        for name in alias.get("hostnames").items() {
            name.check(errors, dns_subdomain);
        }
    }
    at.get("priorityClassName").may_check(errors, dns_subdomain);
    let class = at.get("runtimeClassName");
    if class.is_set() {
        class.check(errors, dns_subdomain);
    }
    let policy = at.get("preemptionPolicy");
    if policy.is_set() {
        policy.choice(errors, &["PreemptLowerPriority", "Never"]);
    }
}

fn overhead(at: &At<'_>, errors: &mut Errors) {
    let own = at.get("overhead");
    let limits = serde_json::json!({ "limits": own.value });
    resources::requirements(&own.with(&limits), Of::Container, &BTreeSet::new(), errors);
}

fn resource_claims(at: &At<'_>, metadata: &Value, errors: &mut Errors) {
    let mirror = !metadata["annotations"]["kubernetes.io/config.mirror"].is_null();
    let mut names = BTreeSet::new();
    for claim in at.items() {
        if mirror {
            errors.forbidden("", "static pods do not support resource claims");
            continue;
        }
        let name = claim.get("name");
        if name.need(errors) {
            if names.contains(name.text()) {
                name.duplicate(errors);
            } else {
                name.check(errors, dns_label);
                names.insert(claim.str("name"));
            }
        }
        let (own, template) = (
            claim.get("resourceClaimName"),
            claim.get("resourceClaimTemplateName"),
        );
        let wrong = match (own.is_set(), template.is_set()) {
            (true, true) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (false, false) => {
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            }
            _ => "",
        };
        if !wrong.is_empty() {
            let shown = internal::show("io.k8s.api.core.v1.PodResourceClaim", claim.value);
            claim.invalid_shown(errors, &shown, wrong);
        }
        for reference in [&own, &template] {
            if reference.is_set() {
                reference.check(errors, dns_subdomain);
            }
        }
    }
}

fn host_network(at: &At<'_>, is_pod: bool, errors: &mut Errors) {
    if !at.flag("hostNetwork") {
        return;
    }
    for container in at.get("containers").items() {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            let number = host.int().unwrap_or(0);
            let own = port.get("containerPort").int().unwrap_or(0);
            if (is_pod || number != 0) && number != own {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                host.invalid_int(errors, detail);
            }
        }
    }
}

fn dns_config(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("dnsConfig");
    let servers = at.get("nameservers");
    if spec.str("dnsPolicy") == "None" {
        if at.is_null() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            at.required(errors, detail);
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            servers.required(errors, detail);
            return;
        }
    }
    if at.is_null() {
        return;
    }
    if servers.len() > MAX_NAME_SERVERS {
        let detail = format!("must not have more than {MAX_NAME_SERVERS} nameservers");
        servers.invalid(errors, &detail);
    }
    for server in servers.items() {
        legacy_ip(&server, errors);
    }
    let searches = at.get("searches");
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        searches.invalid(errors, &detail);
    }
    let bytes: usize = searches.items().map(|search| search.len() + 1).sum();
    if bytes > MAX_SEARCH_BYTES + 1 {
        let detail = format!(
            "must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the \
             search list"
        );
        searches.invalid(errors, &detail);
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let name = search.text().strip_suffix('.').unwrap_or(search.text());
        for message in dns_subdomain_with_underscore(name) {
            search.invalid_as(errors, name, &message);
        }
    }
    for option in at.get("options").items() {
        if option.str("name").is_empty() {
            option.required(errors, "must not be empty");
        }
    }
}

fn scheduling_gates(at: &At<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for gate in at.items() {
        let name = gate.str("name");
        for message in qualified_name(name) {
            gate.invalid_as(errors, name, &message);
        }
        if !names.insert(name) {
            gate.duplicate_as(errors, name);
        }
    }
}

fn host_process(at: &At<'_>, errors: &mut Errors) {
    let flag = |at: &At<'_>| {
        let value = at
            .value
            .pointer("/securityContext/windowsOptions/hostProcess");
        value.and_then(Value::as_bool)
    };
    let pod = flag(at);
    let (mut all, mut own_process) = (0, 0);
    container::each(at, |container| {
        all += 1;
        let own = flag(container);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let detail =
                format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let place = container.get("securityContext.windowsOptions.hostProcess");
            place.invalid_as(errors, own, &detail);
        }
        if own.or(pod) == Some(true) {
            own_process += 1;
        }
    });
    if own_process == 0 {
        return;
    }
    if own_process != all {
        let detail = "If pod contains any hostProcess containers then all containers must be \
                      HostProcess containers";
        at.invalid_as(errors, "", detail);
    }
    if !at.flag("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        at.get("hostNetwork").invalid_as(errors, false, detail);
    }
}

fn host_users(at: &At<'_>, errors: &mut Errors) {
    if at.value.get("hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    let detail = "when `hostUsers` is false";
    for (name, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if at.flag(name) {
            at.get(shown).forbidden(errors, detail);
        }
    }
    container::each(at, |container| {
        let devices = container.get("volumeDevices");
        if !devices.is_empty() {
            devices.forbidden(errors, detail);
        }
    });
}

fn host_name(at: &At<'_>, errors: &mut Errors) {
    let own = at.get("hostnameOverride");
    if own.is_null() {
        return;
    }
    if at.flag("setHostnameAsFQDN") {
        let detail = "may not be specified when setHostnameAsFQDN is true";
        own.forbidden(errors, detail);
    }
    if at.flag("hostNetwork") {
        own.forbidden(errors, "may not be specified when hostNetwork is true");
    }
    if own.len() > 64 {
        own.too_long(errors, 64);
    }
    own.check(errors, dns_subdomain);
}

fn operating_system(at: &At<'_>, errors: &mut Errors) {
    let os = at.get("os");
    if os.is_null() {
        return;
    }
    let name = os.get("name");
    if !name.need(errors) {
        return;
    }
    match name.text() {
        "linux" => {
            let detail = "windows options cannot be set for a linux pod";
            let own = at.get("securityContext");
            own.get("windowsOptions").absent(errors, detail);
            container::each(at, |container| {
                let own = container.get("securityContext");
                own.get("windowsOptions").absent(errors, detail);
            });
        }
        "windows" => windows(at, errors),
        other => errors.not_supported(&os.path(), other, &["linux", "windows"]),
    }
}

const WINDOWS_POD: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const WINDOWS_CONTAINER: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn windows(at: &At<'_>, errors: &mut Errors) {
    let detail = "cannot be set for a windows pod";
    let own = at.get("securityContext");
    for name in WINDOWS_POD {
        own.get(name).absent(errors, detail);
    }
    at.get("hostUsers").absent(errors, detail);
    for name in ["hostPID", "hostIPC"] {
        if at.flag(name) {
            at.get(name).forbidden(errors, detail);
        }
    }
    at.get("shareProcessNamespace").absent(errors, detail);
    container::each(at, |container| {
        let own = container.get("securityContext");
        for name in WINDOWS_CONTAINER {
            own.get(name).absent(errors, detail);
        }
    });
}

fn file_keys(at: &At<'_>, errors: &mut Errors) {
    let volumes = at.get("volumes");
    container::each(at, |container| {
        for variable in container.get("env").items() {
            let from = variable.get("valueFrom");
            let reference = from.get("fileKeyRef");
            if reference.is_null() {
                continue;
            }
            let name = reference.get("volumeName");
            let volume = volumes.items().find(|own| own.str("name") == name.text());
            match volume {
                None => name.not_found(errors),
                Some(volume) if !volume.has("emptyDir") => {
                    let detail = "referenced volume must be of type emptyDir";
                    name.invalid_text(errors, detail);
                }
                Some(_) => {}
            }
        }
    });
}

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Checks the annotations that mean something to a pod; `at`: the annotations.
pub(crate) fn pod_annotations(at: &At<'_>, spec: &Value, errors: &mut Errors) {
    for (key, own) in at.entries() {
        match key {
            MIRROR if spec["nodeName"].as_str().unwrap_or_default().is_empty() => {
                let detail = "must set spec.nodeName if mirror pod annotation is set";
                own.invalid(errors, detail);
            }
            DELETION_COST if !is_deletion_cost(own.text()) => {
                own.invalid(errors, "must be a 32bit integer");
            }
            // The reference writes these keys as fields.
            SECCOMP_POD => seccomp_profile(&at.get(key), errors),
            _ if key.starts_with(SECCOMP_CONTAINER) => seccomp_profile(&at.get(key), errors),
            _ => {
                if let Some(name) = key.strip_prefix(APP_ARMOR) {
                    app_armor_profile(&own, name, spec, errors);
                }
            }
        }
    }
}

fn is_deletion_cost(text: &str) -> bool {
    let leading_zero = text.len() > 1 && text.starts_with('0');
    !text.starts_with('+') && !leading_zero && text.parse::<i32>().is_ok()
}

fn seccomp_profile(place: &At<'_>, errors: &mut Errors) {
    match place.text() {
        "runtime/default" | "docker/default" | "unconfined" => {}
        text => match text.strip_prefix("localhost/") {
            Some(path) => {
                let path = Value::from(path);
                crate::validation::common::relative_path(&place.with(&path), errors);
            }
            None => place.invalid(errors, "must be a valid seccomp profile"),
        },
    }
}

fn app_armor_profile(own: &At<'_>, name: &str, spec: &Value, errors: &mut Errors) {
    if !container::exists(spec, name) {
        own.invalid_as(errors, name, "container not found");
    }
    let known = ["", "runtime/default", "unconfined"];
    if !known.contains(&own.text()) && !own.text().starts_with("localhost/") {
        let detail = format!("invalid AppArmor profile name: {own}");
        own.invalid(errors, &detail);
    }
}

/// What annotations once said and fields say now must agree; `at`: the annotations.
pub(crate) fn annotations_agree(at: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        return;
    }
    let context = spec.get("securityContext");
    let profile = context.get("seccompProfile");
    if profile.is_set() && at.has(SECCOMP_POD) {
        agree(&profile, at.str(SECCOMP_POD), "seccomp", errors);
    }
    container::each(spec, |container| {
        let own = container.get("securityContext");
        let profile = own.get("seccompProfile");
        let key = format!("{SECCOMP_CONTAINER}{}", container.str("name"));
        if profile.is_set() && at.has(&key) {
            agree(&profile, at.str(&key), "seccomp", errors);
        }
    });
    if spec.get("os").str("name") == "windows" {
        return;
    }
    let pod = context.value.get("appArmorProfile").unwrap_or(&Value::Null);
    container::each(spec, |container| {
        let own = container.get("securityContext");
        let mut profile = own.get("appArmorProfile");
        if profile.is_null() {
            profile = profile.with(pod);
        }
        let key = format!("{APP_ARMOR}{}", container.str("name"));
        if profile.is_set() && at.has(&key) {
            agree(&profile, at.str(&key), "apparmor", errors);
        }
    });
}

fn agree(profile: &At<'_>, annotation: &str, what: &str, errors: &mut Errors) {
    let kind_differs = match profile.str("type") {
        "Unconfined" => annotation != "unconfined",
        "RuntimeDefault" => {
            annotation != "runtime/default"
                && !(what == "seccomp" && annotation == "docker/default")
        }
        "Localhost" => match annotation.strip_prefix("localhost/") {
            None => true,
            Some(own) => {
                if profile.value["localhostProfile"] != own {
                    let detail = format!("{what} profile in annotation and field must match");
                    profile.get("localhostProfile").forbidden(errors, &detail);
                }
                false
            }
        },
        _ => false,
    };
    if kind_differs {
        let detail = format!("{what} type in annotation and field must match");
        profile.get("type").forbidden(errors, &detail);
    }
}
