//! Classes of storage and drivers of volumes.
//!
//! Source: `pkg/apis/storage`, `pkg/registry/storage` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::defaults::{list_mut, made, set_default};
use super::internal;
use super::pod::source::csi_driver_name;
use super::rules::{PLAIN, Rules};
use super::warnings::deprecated_node_label;
use crate::validation::common::{dns_subdomain_any_case, label_selector};
use crate::validation::{At, Errors, dns_subdomain, qualified_name};

const IMMUTABLE: &str = "field is immutable";
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
const MAX_ERROR_BYTES: usize = 1024;
const MAX_NODE_ID_BYTES: usize = 256;

/// Classes of storage.
pub(crate) static STORAGE_CLASS: Rules = Rules {
    default: |object| {
        if let Some(map) = object.as_object_mut() {
            set_default(map, "reclaimPolicy", json!("Delete"));
            set_default(map, "volumeBindingMode", json!("Immediate"));
        }
    },
    validate: |at, errors| {
        provisioner(&at.get("provisioner"), errors);
        parameters(&at.get("parameters"), errors);
        let policy = at.get("reclaimPolicy");
        if !policy.is_empty() {
            policy.one_of(errors, &["Delete", "Retain"]);
        }
        let modes = ["Immediate", "WaitForFirstConsumer"];
        at.get("volumeBindingMode").one_of(errors, &modes);
        topologies(&at.get("allowedTopologies"), errors);
    },
    validate_update: |old, new, errors| {
        for name in [
            "parameters",
            "provisioner",
            "reclaimPolicy",
            "volumeBindingMode",
        ] {
            new.get(name).fixed(errors, old.get(name).value);
        }
    },
    warn: |_, at, warnings| {
        for term in at.get("allowedTopologies").items() {
            for expression in term.get("matchLabelExpressions").items() {
                let key = expression.get("key");
                if let Some(why) = deprecated_node_label(key.text()) {
                    warnings.add(&key, why);
                }
            }
        }
    },
    ..PLAIN
};

/// Classes of attributes of volumes.
pub(crate) static VOLUME_ATTRIBUTES_CLASS: Rules = Rules {
    validate: |at, errors| {
        provisioner(&at.get("driverName"), errors);
        let own = at.get("parameters");
        parameters(&own, errors);
        if own.is_empty() {
            own.required(errors, "must contain at least one key/value pair");
        }
    },
    validate_update: |old, new, errors| {
        for name in ["driverName", "parameters"] {
            if new.get(name).value != old.get(name).value {
                let detail = format!("updates to {name} are forbidden.");
                new.get(name).forbidden(errors, &detail);
            }
        }
    },
    ..PLAIN
};

/// Drivers of volumes.
pub(crate) static CSI_DRIVER: Rules = Rules {
    default: default_driver,
    validate: validate_driver,
    validate_update: |old, new, errors| {
        let (old, new) = (old.get("spec"), new.get("spec"));
        let at = new.get("attachRequired").named("attachedRequired");
        at.unchanged(errors, old.get("attachRequired").value, IMMUTABLE);
        let at = new.get("volumeLifecycleModes");
        at.unchanged(errors, old.get("volumeLifecycleModes").value, IMMUTABLE);
    },
    warn: |_, at, warnings| {
        let spec = at.get("spec");
        let own = spec.get("serviceAccountTokenInSecrets");
        if !spec.get("tokenRequests").is_empty() && own.is_null() {
            let why = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, \
                       set to true to prevent possible logging of tokens in volume attributes";
            warnings.push(why.to_owned());
        }
    },
    ..PLAIN
};

/// What a node's drivers say of it.
pub(crate) static CSI_NODE: Rules = Rules {
    validate: validate_node,
    validate_update: |old, new, errors| {
        const DRIVER: &str = "io.k8s.api.storage.v1.CSINodeDriver";
        let (before, after) = (old.get("spec.drivers"), new.get("spec.drivers"));
        let bare = |at: &At<'_>| {
            let mut own = at.value.clone();
            if let Some(map) = own.as_object_mut() {
                map.shift_remove("allocatable");
            }
            own
        };
        for old in before.items() {
            for new in after
                .items()
                .filter(|new| new.str("name") == old.str("name"))
            {
                let own = bare(&new);
                if bare(&old) != own {
                    after.invalid_shown(errors, &internal::show(DRIVER, &own), IMMUTABLE);
                }
            }
        }
    },
    ..PLAIN
};

/// Room for volumes.
pub(crate) static CSI_STORAGE_CAPACITY: Rules = Rules {
    validate_create: |at, errors| {
        label_selector(&at.get("nodeTopology"), errors);
        at.get("storageClassName").check(errors, dns_subdomain);
        not_negative(&at.get("capacity"), errors);
    },
    validate_update: |old, new, errors| {
        for name in ["nodeTopology", "storageClassName"] {
            let at = new.get(name);
            at.unchanged(errors, old.get(name).value, IMMUTABLE);
        }
    },
    ..PLAIN
};

/// Volumes attached to nodes.
pub(crate) static VOLUME_ATTACHMENT: Rules = Rules {
    has_status: true,
    default: |_| {},
    prepare_create: |object, _| object["status"] = json!({"attached": false}),
    validate: validate_attachment,
    validate_update: |old, new, errors| {
        new.get("spec").fixed(errors, old.get("spec").value);
    },
    validate_subresource: |_, _, new, errors| validate_attachment(new, errors),
    ..PLAIN
};

fn not_negative(at: &At<'_>, errors: &mut Errors) {
    if let Some(quantity) = at.quantity().filter(|quantity| quantity.is_negative()) {
        let detail = "must be greater than or equal to 0";
        at.invalid_as(errors, quantity.canonical(), detail);
    }
}

fn provisioner(at: &At<'_>, errors: &mut Errors) {
    if at.need(errors) {
        let lower = at.text().to_lowercase();
        for message in qualified_name(&lower) {
            at.invalid_as(errors, lower.as_str(), &message);
        }
    }
}

fn parameters(at: &At<'_>, errors: &mut Errors) {
    if at.len() > MAX_PARAMETERS {
        at.too_long(errors, MAX_PARAMETERS);
        return;
    }
    let mut size_bytes = 0;
    for (key, entry) in at.entries() {
        if key.is_empty() {
            at.invalid_as(errors, "", "field can not be empty.");
        }
        size_bytes += key.len() + entry.len();
    }
    if size_bytes > MAX_PARAMETER_BYTES {
        at.too_long(errors, MAX_PARAMETER_BYTES);
    }
}

fn topologies(at: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<Vec<(String, BTreeSet<String>)>> = Vec::new();
    for term in at.items() {
        let mut keys = BTreeSet::new();
        let mut own = Vec::new();
        let expressions = term.get("matchLabelExpressions");
        for requirement in expressions.items() {
            let (key, values) = (requirement.get("key"), requirement.get("values"));
            values.need(errors);
            let mut set = BTreeSet::new();
            for value in values.items() {
                if !set.insert(value.text().to_owned()) {
                    value.duplicate(errors);
                }
            }
            key.check(errors, qualified_name);
            if !keys.insert(key.text().to_owned()) {
                key.duplicate(errors);
            }
            own.push((key.text().to_owned(), set));
        }
        own.sort();
        if seen.contains(&own) {
            expressions.duplicate_as(errors, "");
        }
        seen.push(own);
    }
}

fn default_driver(object: &mut Value) {
    let Some(spec) = object.as_object_mut().and_then(|map| made(map, "spec")) else {
        return;
    };
    set_default(spec, "attachRequired", json!(true));
    for name in [
        "podInfoOnMount",
        "storageCapacity",
        "requiresRepublish",
        "seLinuxMount",
        "preventPodSchedulingIfMissing",
    ] {
        set_default(spec, name, json!(false));
    }
    set_default(spec, "fsGroupPolicy", json!("ReadWriteOnceWithFSType"));
    let modes = spec.get("volumeLifecycleModes").and_then(Value::as_array);
    if modes.is_none_or(Vec::is_empty) {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
    for request in list_mut(spec, "tokenRequests") {
        set_default(request, "audience", json!(""));
    }
}

fn validate_driver(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    spec.get("fsGroupPolicy").may_one_of(errors, &policies);
    let requests = spec.get("tokenRequests");
    let mut audiences = BTreeSet::new();
    for request in requests.items() {
        let audience = request.get("audience");
        if !audiences.insert(request.str("audience")) {
            audience.duplicate(errors);
            continue;
        }
        let seconds = request.get("expirationSeconds");
        match seconds.int() {
            Some(own) if own < 600 => {
                seconds.invalid(errors, "may not specify a duration less than 10 minutes");
            }
            Some(own) if own > 1 << 32 => {
                let detail = "may not specify a duration larger than 2^32 seconds";
                seconds.invalid(errors, detail);
            }
            _ => {}
        }
    }
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items() {
        let known = ["Persistent", "Ephemeral"];
        if !known.contains(&mode.text()) {
            errors.not_supported(&modes.path(), mode.text(), &known);
        }
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|own| own < 10) {
        period.invalid(errors, "must be greater than or equal to 10 seconds");
    }
    let secrets = spec.get("serviceAccountTokenInSecrets");
    if secrets.is_set() && requests.is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        secrets.invalid(errors, detail);
    }
}

fn validate_node(at: &At<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for driver in at.get("spec.drivers").items() {
        let name = driver.get("name");
        csi_driver_name(&name, errors);
        let id = driver.get("nodeID");
        id.need(errors);
        if id.len() > MAX_NODE_ID_BYTES {
            let detail = format!("must be {MAX_NODE_ID_BYTES} characters or less");
            id.invalid_text(errors, &detail);
        }
        driver.get("allocatable.count").not_negative(errors);
        if !names.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        let mut keys = BTreeSet::new();
        for key in driver.get("topologyKeys").items() {
            if key.is_empty() {
                driver.required(errors, "");
            }
            if !keys.insert(key.text().to_owned()) {
                driver.duplicate_as(errors, key.text());
            }
            for message in qualified_name(key.text()) {
                driver.invalid_as(errors, key.text(), &message);
            }
        }
    }
}

fn validate_attachment(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let attacher = spec.get("attacher");
    if attacher.need(errors) {
        if attacher.len() > 63 {
            attacher.too_long(errors, 63);
        }
        attacher.check(errors, dns_subdomain_any_case);
    }
    let source = spec.get("source");
    let (inline, name) = (
        source.get("inlineVolumeSpec"),
        source.get("persistentVolumeName"),
    );
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_set(), name.is_set()) {
        (false, false) => source.required(errors, one),
        (true, true) => source.forbidden(errors, one),
        (false, true) if name.is_empty() => {
            name.required(errors, "must specify non empty persistentVolumeName");
        }
        _ => {}
    }
    spec.get("nodeName").check(errors, dns_subdomain);
    for problem in ["attachError", "detachError"] {
        let own = at.get("status");
        let own = own.get(problem);
        if own.get("message").len() > MAX_ERROR_BYTES {
            own.get("message").too_long(errors, MAX_ERROR_BYTES);
        }
        own.get("errorCode").within(errors, 0, i64::from(i32::MAX));
    }
    if name.is_set() {
        name.check(errors, dns_subdomain);
    }
}
