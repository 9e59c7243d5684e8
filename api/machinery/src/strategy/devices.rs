//! Devices: claims to them, what claims are made from, their classes, what drivers offer,
//! taints. What selects devices by expressions is compiled elsewhere.
//!
//! Source: `pkg/apis/resource`, `pkg/registry/resource` of v1.37: its defaults, its checks
//! in both of their forms, and the fields whose features are off, which are dropped.
//!
//! Invariants: what a claim asks for never changes; what was allocated is only given back.

mod capacity;
mod claim;
mod names;
mod slice;
mod status;

use serde_json::{Map, Value, json};

use super::defaults::{list_mut, object_mut, set_default, set_nonzero};
use super::internal;
use super::rules::{PLAIN, Rules};
use super::workloads::no_status;
use crate::validation::annotations;
use crate::validation::common::labels;

const EXACT: &str = "ExactCount";
const TEMPLATE_SPEC: &str = "io.k8s.api.resource.v1.ResourceClaimTemplateSpec";

/// Claims.
pub(crate) static RESOURCE_CLAIM: Rules = Rules {
    has_status: true,
    default: |claim| {
        default_claim(&mut claim["spec"]);
        for result in claim
            .pointer_mut("/status/allocation/devices/results")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            default_tolerations(result);
        }
    },
    prepare_create: |claim, _| {
        no_status(claim);
        drop_derived(&mut claim["spec"]);
    },
    prepare_update: |subresource, old, claim| match subresource {
        Some("status") => status::prepare(old, claim),
        _ => drop_derived(&mut claim["spec"]),
    },
    validate_create: |at, errors| claim::spec(&at.get("spec"), errors),
    validate_update: |old, new, errors| {
        new.get("spec").fixed(errors, old.get("spec").value);
    },
    validate_subresource: |_, old, new, errors| status::claim(old, new, errors),
    ..PLAIN
};

/// What claims are made from.
pub(crate) static RESOURCE_CLAIM_TEMPLATE: Rules = Rules {
    default: |template| default_claim(&mut template["spec"]["spec"]),
    prepare_create: |template, _| drop_derived(&mut template["spec"]["spec"]),
    prepare_update: |_, _, template| drop_derived(&mut template["spec"]["spec"]),
    validate_create: |at, errors| {
        let spec = at.get("spec");
        let metadata = spec.get("metadata");
        labels(&metadata.get("labels"), errors);
        let own = metadata.get("annotations");
        annotations(errors, &own.path(), Some(own.value));
        claim::spec(&spec.get("spec"), errors);
    },
    validate_update: |old, new, errors| {
        let (old, new) = (old.get("spec"), new.get("spec"));
        if old.value != new.value {
            let shown = internal::show(TEMPLATE_SPEC, new.value);
            new.invalid_shown(errors, &shown, "field is immutable");
        }
    },
    ..PLAIN
};

/// Classes of devices.
pub(crate) static DEVICE_CLASS: Rules = Rules {
    counts_generation: true,
    validate: |at, errors| {
        let name = at.get("spec.extendedResourceName");
        if name.is_set() {
            names::extended_resource(&name, errors);
        }
    },
    validate_create: |at, errors| {
        let spec = at.get("spec");
        claim::selectors(&spec.get("selectors"), errors);
        claim::class_configs(&spec.get("config"), errors);
    },
    validate_update: |old, new, errors| {
        // What stays as it was stays good.
        let (old, new) = (old.get("spec"), new.get("spec"));
        let selectors = new.get("selectors");
        if old.get("selectors").value != selectors.value {
            claim::selectors(&selectors, errors);
        }
        let configs = new.get("config");
        if old.get("config").value != configs.value {
            claim::class_configs(&configs, errors);
        }
    },
    ..PLAIN
};

/// What a driver offers on a node or on many.
pub(crate) static RESOURCE_SLICE: Rules = Rules {
    counts_generation: true,
    prepare_create: |slice, _| slice::drop_unserved(slice),
    prepare_update: |_, _, slice| slice::drop_unserved(slice),
    stamp: |_, slice, now| {
        let devices = slice.pointer_mut("/spec/devices");
        let devices = devices.and_then(Value::as_array_mut).into_iter().flatten();
        for taint in devices
            .filter_map(Value::as_object_mut)
            .flat_map(|device| list_mut(device, "taints"))
        {
            set_default(taint, "timeAdded", json!(now));
        }
    },
    validate_create: |at, errors| slice::spec(None, &at.get("spec"), errors),
    validate_update: |old, new, errors| {
        slice::spec(Some(&old.get("spec")), &new.get("spec"), errors);
    },
    warn: |_, at, warnings| {
        let driver = at.get("spec.driver");
        if driver.text().to_lowercase() != driver.text() {
            let why =
                format!("driver names should be lowercase; {driver} contains uppercase characters");
            warnings.add(&driver, &why);
        }
    },
    ..PLAIN
};

/// Taints of all devices that a selector names.
pub(crate) static DEVICE_TAINT_RULE: Rules = Rules {
    has_status: true,
    counts_generation: true,
    prepare_create: |rule, _| no_status(rule),
    stamp: |old, rule, now| {
        let Some(taint) = rule
            .pointer_mut("/spec/taint")
            .and_then(Value::as_object_mut)
        else {
            return;
        };
        set_default(taint, "timeAdded", json!(now));
        let before = &old["spec"]["taint"];
        let same = |name: &str| taint.get(name).unwrap_or(&Value::Null) == &before[name];
        // The time is the effect's, and follows it unless the client says otherwise.
        if !before.is_null() && !same("effect") && same("timeAdded") {
            taint.insert("timeAdded".to_owned(), json!(now));
        }
    },
    validate: |at, errors| {
        let selector = at.get("spec.deviceSelector");
        let driver = selector.get("driver");
        if driver.is_set() {
            names::driver(&driver, names::Form::Own, errors);
        }
        let pool = selector.get("pool");
        if pool.is_set() {
            names::pool(&pool, names::Form::Own, errors);
        }
        let device = selector.get("device");
        if device.is_set() {
            device.check(errors, crate::validation::dns_label);
        }
    },
    validate_create: |at, errors| names::taint(None, &at.get("spec.taint"), errors),
    validate_update: |old, new, errors| {
        let before = old.get("spec.taint");
        names::taint(Some(before.str("effect")), &new.get("spec.taint"), errors);
    },
    validate_subresource: |_, _, new, errors| status::conditions_of(&new.get("status"), errors),
    ..PLAIN
};

fn default_claim(spec: &mut Value) {
    for request in requests(spec) {
        if let Some(own) = object_mut(request, "exactly") {
            default_request(own);
        }
        for own in list_mut(request, "firstAvailable") {
            default_request(own);
        }
    }
}

fn requests(spec: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let list = spec.pointer_mut("/devices/requests");
    let list = list.and_then(Value::as_array_mut).into_iter().flatten();
    list.filter_map(Value::as_object_mut)
}

fn default_request(own: &mut Map<String, Value>) {
    set_default(own, "allocationMode", json!(EXACT));
    if own["allocationMode"] == EXACT {
        set_nonzero(own, "count", 1);
    }
    default_tolerations(own);
}

fn default_tolerations(own: &mut Map<String, Value>) {
    for toleration in list_mut(own, "tolerations") {
        set_default(toleration, "operator", json!("Equal"));
    }
}

/// Attributes that expressions make: a feature that is off.
fn drop_derived(spec: &mut Value) {
    for request in requests(spec) {
        if let Some(own) = object_mut(request, "exactly") {
            own.shift_remove("derivedAttributes");
        }
        for own in list_mut(request, "firstAvailable") {
            own.shift_remove("derivedAttributes");
        }
    }
}
