//! Containers: those that run, those that start first, those that are added to look
//! into a running pod.
//!
//! Source: `validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers` of `pkg/apis/core/validation`, v1.37.

use std::collections::BTreeSet;

use serde_json::Value;

use super::volume::Volumes;
use super::{field, probe, security};
use crate::strategy::resources::{self, Of};
use crate::validation::common::{no_backsteps, port, relative_path};
use crate::validation::{At, Errors, dns_label, port_name};

/// What containers have to agree with.
pub(crate) struct World<'a> {
    /// The volumes that may be mounted.
    pub volumes: &'a Volumes<'a>,
    /// The names of the pod's claims for devices.
    pub claims: &'a BTreeSet<&'a str>,
    /// Seconds within which the pod ends.
    pub grace: Option<i64>,
    /// The pod's own restart policy.
    pub restart_policy: &'a str,
    /// Whether users of the pod are those of the host.
    pub host_users: bool,
}

/// Most rules for restarts of one container.
const MAX_RESTART_RULES: usize = 20;
/// Most exit codes in one rule.
const MAX_EXIT_CODES: usize = 255;

/// Checks the containers that run.
pub(crate) fn containers(at: &At<'_>, world: &World<'_>, errors: &mut Errors) {
    if at.is_empty() {
        at.required(errors, "");
        return;
    }
    let mut names = BTreeSet::new();
    for container in at.items() {
        common(&container, world, errors);
        let name = container.get("name");
        if !names.insert(container.str("name")) {
            name.duplicate(errors);
        }
        let hooks = container.get("lifecycle");
        probe::lifecycle(&hooks, world.grace, errors);
        probe::probes(&container, errors);
        restart_policy(&container, errors);
    }
    host_ports(at, at.items(), errors);
}

/// Checks the containers that start first.
pub(crate) fn init_containers(at: &At<'_>, spec: &At<'_>, world: &World<'_>, errors: &mut Errors) {
    if at.is_empty() {
        return;
    }
    let running = spec.get("containers");
    let mut names: BTreeSet<&str> = running.items().map(|c| c.str("name")).collect();
    for container in at.items() {
        common(&container, world, errors);
        let sidecar = container.str("restartPolicy") == "Always";
        restart_policy(&container, errors);
        let name = container.get("name");
        if names.contains(name.text()) {
            name.duplicate(errors);
        } else if !name.is_empty() {
            names.insert(container.str("name"));
        }
        host_ports(at, std::iter::once(container), errors);
        if sidecar {
            probe::lifecycle(&container.get("lifecycle"), world.grace, errors);
            probe::probes(&container, errors);
        } else {
            for name in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                let detail = "may not be set for init containers without restartPolicy=Always";
                container.get(name).absent(errors, detail);
            }
            for policy in container.get("resizePolicy").items() {
                let restart = policy.get("restartPolicy");
                if restart.text() == "RestartContainer" {
                    let detail = "must not be set to 'RestartContainer' for non-sidecar \
                                  initContainers";
                    restart.invalid(errors, detail);
                }
            }
        }
    }
}

/// What a container that looks into a running pod may say.
const EPHEMERAL_FIELDS: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// Checks the containers that look into a running pod.
pub(crate) fn ephemeral_containers(
    at: &At<'_>,
    spec: &At<'_>,
    world: &World<'_>,
    errors: &mut Errors,
) {
    if at.is_empty() {
        return;
    }
    let (running, first) = (spec.get("containers"), spec.get("initContainers"));
    let others: BTreeSet<&str> = running
        .items()
        .chain(first.items())
        .map(|container| container.value["name"].as_str().unwrap_or_default())
        .collect();
    let mut names = others.clone();
    for container in at.items() {
        common(&container, world, errors);
        image_only_for_pods(&container, errors);
        let name = container.get("name");
        if !names.insert(container.str("name")) {
            name.duplicate(errors);
        }
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            target.not_found(errors);
        }
        let detail = "cannot be set for an Ephemeral Container";
        for name in EPHEMERAL_FIELDS {
            let own = container.get(name);
            let empty = own.value.as_object().is_some_and(serde_json::Map::is_empty)
                && *name == "resources";
            if own.is_set() && !empty {
                own.forbidden(errors, detail);
            }
        }
        for mount in container.get("volumeMounts").items() {
            for name in ["subPath", "subPathExpr"] {
                if !mount.str(name).is_empty() {
                    mount.get(name).forbidden(errors, detail);
                }
            }
        }
    }
}

/// A pod's own images have no space around them; a template's may.
pub(crate) fn image_only_for_pods(container: &At<'_>, errors: &mut Errors) {
    let image = container.get("image");
    if image.text().trim() != image.text() {
        image.invalid_text(errors, "must not have leading or trailing whitespace");
    }
}

fn common(at: &At<'_>, world: &World<'_>, errors: &mut Errors) {
    at.get("name").need_check(errors, dns_label);
    at.get("image").need(errors);
    let policies = ["File", "FallbackToLogsOnError"];
    at.get("terminationMessagePolicy").choice(errors, &policies);
    ports(&at.get("ports"), errors);
    field::variables(&at.get("env"), errors);
    field::variable_sources(&at.get("envFrom"), errors);
    mounts(at, world, errors);
    devices(at, world, errors);
    let policies = ["Always", "IfNotPresent", "Never"];
    at.get("imagePullPolicy").choice(errors, &policies);
    resources::requirements(&at.get("resources"), Of::Container, world.claims, errors);
    resize_policy(&at.get("resizePolicy"), world.restart_policy, errors);
    security::container(&at.get("securityContext"), world.host_users, errors);
}

fn ports(at: &At<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for item in at.items() {
        let name = item.get("name");
        if !name.is_empty() && name.check(errors, port_name) && !names.insert(item.str("name")) {
            name.duplicate(errors);
        }
        let number = item.get("containerPort");
        if number.int().unwrap_or(0) == 0 {
            number.required(errors, "");
        } else {
            port(&number, errors);
        }
        let host = item.get("hostPort");
        if host.int().unwrap_or(0) != 0 {
            port(&host, errors);
        }
        item.get("protocol").choice(errors, &["SCTP", "TCP", "UDP"]);
    }
}

fn host_ports<'a>(at: &At<'_>, containers: impl Iterator<Item = At<'a>>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.enumerate() {
        for (inner, port) in container.get("ports").items().enumerate() {
            let number = port.get("hostPort").int().unwrap_or(0);
            if number == 0 {
                continue;
            }
            let own = format!("{}/{}/{number}", port.str("protocol"), port.str("hostIP"));
            if taken.contains(&own) {
                let place = at.item(index);
                let place = place.get("ports");
                let place = place.item(inner);
                place.get("hostPort").duplicate_as(errors, own);
            } else {
                taken.insert(own);
            }
        }
    }
}

fn mounts(container: &At<'_>, world: &World<'_>, errors: &mut Errors) {
    let at = container.get("volumeMounts");
    if at.is_empty() {
        return;
    }
    let devices = container.get("volumeDevices");
    let mut points = BTreeSet::new();
    for mount in at.items() {
        let (name, point) = (mount.get("name"), mount.get("mountPath"));
        name.need(errors);
        if !world.volumes.contains_key(name.text()) {
            name.not_found(errors);
        }
        point.need(errors);
        if !points.insert(mount.str("mountPath")) {
            point.invalid_text(errors, "must be unique");
        }
        if devices
            .items()
            .any(|device| device.str("name") == name.text())
        {
            name.invalid_text(errors, "must not already exist in volumeDevices");
        }
        if devices
            .items()
            .any(|device| device.str("devicePath") == point.text())
        {
            let detail = "must not already exist as a path in volumeDevices";
            point.invalid_text(errors, detail);
        }
        // The reference reports what follows at the list.
        let own = at.with(mount.value);
        let (path, expression) = (own.get("subPath"), own.get("subPathExpr"));
        if !path.is_empty() {
            relative_path(&path, errors);
        }
        if !expression.is_empty() {
            if !path.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                mount.get("subPathExpr").invalid_text(errors, detail);
            }
            relative_path(&expression, errors);
        }
        propagation(container, &own, errors);
        recursive_read_only(&own, errors);
    }
}

fn propagation(container: &At<'_>, mount: &At<'_>, errors: &mut Errors) {
    let at = mount.get("mountPropagation");
    let known = ["Bidirectional", "HostToContainer", "None"];
    at.may_one_of(errors, &known);
    let privileged = container.get("securityContext").flag("privileged");
    if at.text() == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        at.forbidden(errors, detail);
    }
}

fn recursive_read_only(mount: &At<'_>, errors: &mut Errors) {
    let at = mount.get("recursiveReadOnly");
    if at.is_null() || at.text() == "Disabled" {
        return;
    }
    if !["Enabled", "IfPossible"].contains(&at.text()) {
        at.unsupported(errors, &["Disabled", "Enabled", "IfPossible"]);
        return;
    }
    if !mount.flag("readOnly") {
        at.forbidden(errors, "may only be specified when readOnly is true");
    }
    if mount.has("mountPropagation") && mount.str("mountPropagation") != "None" {
        let detail = "may only be specified when mountPropagation is None or not specified";
        at.forbidden(errors, detail);
    }
}

fn devices(container: &At<'_>, world: &World<'_>, errors: &mut Errors) {
    let at = container.get("volumeDevices");
    if at.is_empty() {
        return;
    }
    let mounts = container.get("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in at.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        name.need(errors);
        if names.contains(name.text()) {
            name.invalid_text(errors, "must be unique");
        }
        match world.volumes.get(name.text()) {
            Some(volume) => {
                let block = ["persistentVolumeClaim", "ephemeral"];
                if block.iter().all(|source| volume[*source].is_null()) {
                    let detail = "can only use volume source type of PersistentVolumeClaim or \
                                  Ephemeral for block mode";
                    name.invalid_text(errors, detail);
                }
            }
            None => name.not_found(errors),
        }
        path.need(errors);
        if paths.contains(path.text()) {
            path.invalid_text(errors, "must be unique");
        }
        let mut ignored = Errors::new();
        if !path.is_empty() && !no_backsteps(&path, &mut ignored) {
            path.invalid_text(errors, "can not contain backsteps ('..')");
        } else {
            paths.insert(device.str("devicePath"));
        }
        if mounts.items().any(|mount| mount.str("name") == name.text()) {
            name.invalid_text(errors, "must not already exist in volumeMounts");
        }
        if mounts
            .items()
            .any(|mount| mount.str("mountPath") == path.text())
        {
            let detail = "must not already exist as a path in volumeMounts";
            path.invalid_text(errors, detail);
        }
        if !name.is_empty() {
            names.insert(device.str("name"));
        }
    }
}

fn resize_policy(at: &At<'_>, pod_restart_policy: &str, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for policy in at.items() {
        let (name, restart) = (policy.str("resourceName"), policy.str("restartPolicy"));
        if !names.insert(name) {
            policy.duplicate_as(errors, name);
        }
        for (own, known) in [
            (name, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if own.is_empty() {
                at.required(errors, "");
            } else if !known.contains(&own) {
                errors.not_supported(&at.path(), own, &known);
            }
        }
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            at.invalid_as(errors, restart, detail);
        }
    }
}

fn restart_policy(at: &At<'_>, errors: &mut Errors) {
    let (policy, rules) = (at.get("restartPolicy"), at.get("restartPolicyRules"));
    if policy.is_set() {
        policy.one_of(errors, &["Always", "Never", "OnFailure"]);
    } else if !rules.is_empty() {
        let detail = "must specify restartPolicy when restart rules are used";
        policy.required(errors, detail);
    }
    if rules.len() > MAX_RESTART_RULES {
        rules.too_many(errors, MAX_RESTART_RULES);
    }
    for rule in rules.items() {
        let actions = ["Restart", "RestartAllContainers"];
        rule.get("action").one_of(errors, &actions);
        let codes = rule.get("exitCodes");
        if codes.is_null() {
            codes.required(errors, "must be specified");
            continue;
        }
        codes.get("operator").one_of(errors, &["In", "NotIn"]);
        let values = codes.get("values");
        if values.len() > MAX_EXIT_CODES {
            values.too_many(errors, MAX_EXIT_CODES);
        }
    }
}

/// Every container of a pod: those that start first, those that run, those that look in.
pub(crate) fn each<'a>(spec: &'a At<'a>, mut visit: impl FnMut(&At<'_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            visit(&container);
        }
    }
}

/// Whether a pod has a container of that name.
pub(crate) fn exists(spec: &Value, name: &str) -> bool {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .any(|container| container["name"] == name)
}
