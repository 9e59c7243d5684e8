//! Claims to devices.
//!
//! Source: `pkg/apis/resource` of v1.37: its defaults.

use serde_json::{Map, Value, json};

use super::defaults::{list_mut, object_mut, set_default, set_nonzero};
use super::rules::{PLAIN, Rules};
use super::workloads::no_status;

const EXACT: &str = "ExactCount";

/// Claims.
pub(crate) static RESOURCE_CLAIM: Rules = Rules {
    has_status: true,
    default: |claim| default_claim(&mut claim["spec"]),
    prepare_create: |claim, _| no_status(claim),
    ..PLAIN
};

/// What claims are made from.
pub(crate) static RESOURCE_CLAIM_TEMPLATE: Rules = Rules {
    default: |template| default_claim(&mut template["spec"]["spec"]),
    ..PLAIN
};

fn default_claim(spec: &mut Value) {
    let Some(devices) = spec
        .as_object_mut()
        .and_then(|spec| object_mut(spec, "devices"))
    else {
        return;
    };
    for request in list_mut(devices, "requests") {
        if let Some(own) = object_mut(request, "exactly") {
            default_request(own);
        }
        for own in list_mut(request, "firstAvailable") {
            default_request(own);
        }
    }
}

fn default_request(own: &mut Map<String, Value>) {
    set_default(own, "allocationMode", json!(EXACT));
    if own["allocationMode"] == EXACT {
        set_nonzero(own, "count", 1);
    }
}
