//! What is written of a pod's claims before the pod is bound, what is counted on until it is
//! seen, and when the devices are ready.
//!
//! Invariants
//! - A claim gets devices in a version in which it had none.
//! - What is counted on is what is written.
//! - A claim that is made for resources of a pod goes when the pod does not come to its node.

use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::super::pod::PodInfo;
use super::super::snapshot::Snapshot;
use super::extended::is_made_for_resources;
use crate::device_claims::FINALIZER;
use crate::kind::{DEVICE_CLAIMS, PODS};
use crate::object;
use crate::plan::{Delete, Write};
use crate::view::View;

/// For devices to get ready once they are allocated.
pub const BINDING_TIMEOUT: Duration = Duration::from_secs(600);

/// The claims of a pod that goes to a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDevices {
    /// Each once.
    pub claims: Vec<ClaimBinding>,
    /// One that is made for resources that devices stand for.
    pub extended: Option<Box<ExtendedBinding>>,
}

/// A claim that is to be made, and what it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtendedBinding {
    /// As it would be, but for its name and uid.
    pub claim: Arc<Value>,
    /// Its devices.
    pub allocation: Value,
    /// Which container uses which of its requests for which resource.
    pub mappings: Vec<Value>,
}

/// A claim, and what it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimBinding {
    /// As it was seen.
    pub claim: Arc<Value>,
    /// Its devices, where it had none.
    pub allocation: Option<Value>,
    /// Whether the pod may use it already.
    pub is_reserved: bool,
}

impl PodDevices {
    /// Whether there are no claims.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.extended.is_none()
    }

    /// Counts on what is to be written.
    pub(in super::super) fn assume(&self, snapshot: &mut Snapshot) {
        for own in &self.claims {
            if let Some(allocation) = &own.allocation {
                let mut claim = (*own.claim).clone();
                claim["status"]["allocation"] = allocation.clone();
                snapshot.devices.assume(claim);
            }
        }
        if let Some(own) = &self.extended {
            let allocation = own.allocation.clone();
            snapshot.devices.assume_made(own.pod(), allocation);
        }
    }

    /// Counts on it no more. What was written stays.
    pub(in super::super) fn forget(&self, snapshot: &mut Snapshot) {
        for own in self.claims.iter().filter(|own| own.allocation.is_some()) {
            snapshot.devices.forget(&own.claim);
        }
        if let Some(own) = &self.extended {
            snapshot.devices.forget_made(own.pod());
        }
    }

    /// Whether all devices are ready for the pod.
    ///
    /// # Errors
    /// Why they will not be.
    pub fn are_ready(&self, view: &dyn View, now: Instant) -> Result<bool, String> {
        for own in &self.claims {
            let (namespace, name) = (object::namespace(&own.claim), object::name(&own.claim));
            let seen = view.get(DEVICE_CLAIMS, namespace, name);
            let seen =
                seen.ok_or_else(|| format!("could not find ResourceClaim \"{namespace}/{name}\""))?;
            match readiness(&seen, now)? {
                Readiness::Ready => {}
                Readiness::Pending => return Ok(false),
                Readiness::TimedOut => {
                    return Err(format!("device binding timeout: claim={name}"));
                }
            }
        }
        Ok(true)
    }

    /// Whether any device gets ready only some time after it is allocated.
    pub fn have_conditions(&self) -> bool {
        self.claims.iter().any(|own| {
            let allocation = own.allocation.as_ref();
            let allocation = allocation.unwrap_or(&own.claim["status"]["allocation"]);
            let mut results = object::items(&allocation["devices"]["results"]);
            results.any(|own| object::items(&own["bindingConditions"]).next().is_some())
        })
    }
}

impl ExtendedBinding {
    /// The uid of its pod.
    fn pod(&self) -> &str {
        object::uid(&self.claim)
    }

    /// Makes it.
    pub fn create(&self) -> Write {
        let mut claim = (*self.claim).clone();
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            metadata.shift_remove("name");
            metadata.shift_remove("uid");
        }
        Write::create(DEVICE_CLAIMS, claim)
    }

    /// What it gets once it is made.
    pub fn made(&self, claim: Arc<Value>) -> ClaimBinding {
        ClaimBinding {
            claim,
            allocation: Some(self.allocation.clone()),
            is_reserved: false,
        }
    }

    /// Has the pod say which claim its containers use.
    pub fn tell(&self, pod: &PodInfo, claim: &Value) -> Write {
        let status = json!({
            "requestMappings": self.mappings,
            "resourceClaimName": object::name(claim),
        });
        let patch = json!({"status": {"extendedResourceClaimStatus": status}});
        Write::patch_status(PODS, &pod.object, patch)
    }

    /// What a write that failed was to do, as that is told.
    pub fn failure(&self, write: &Write) -> String {
        let namespace = object::namespace(&self.claim);
        match write {
            Write::Patch { name, .. } => {
                format!("update pod {namespace}/{name} ExtendedResourceClaimStatus")
            }
            _ => format!("create claim for extended resources {namespace}/"),
        }
    }
}

impl ClaimBinding {
    /// What is written next, of the claim as it was seen last: that it is held, then its
    /// devices and its user.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn write(&self, seen: &Value, pod: &PodInfo, now: Instant) -> Result<Write, String> {
        let key = format!("{}/{}", object::namespace(seen), object::name(seen));
        if object::is_deleted(seen) || object::uid(seen) != object::uid(&self.claim) {
            return Err(format!("claim {key} got deleted in the meantime"));
        }
        let mut status = seen["status"].clone();
        if let Some(allocation) = &self.allocation {
            if seen["status"]["allocation"].is_object() {
                return Err(format!(
                    "claim {key} got allocated elsewhere in the meantime"
                ));
            }
            let finalizers = object::items(&seen["metadata"]["finalizers"]);
            let mut finalizers: Vec<Value> = finalizers.cloned().collect();
            if !finalizers.iter().any(|own| own == FINALIZER) {
                finalizers.push(FINALIZER.into());
                let mut held = seen.clone();
                held["metadata"]["finalizers"] = finalizers.into();
                return Ok(Write::update(DEVICE_CLAIMS, held));
            }
            status["allocation"] = allocation.clone();
        }
        if !status["allocation"].is_object() {
            return Err(format!(
                "claim {key} got deallocated elsewhere in the meantime"
            ));
        }
        if status["allocation"]["allocationTimestamp"].is_null() {
            status["allocation"]["allocationTimestamp"] = object::time_field(now);
        }
        let user = json!({"resource": "pods", "name": pod.name, "uid": pod.uid});
        let users = object::items(&status["reservedFor"]).cloned();
        status["reservedFor"] = users.chain([user]).collect();
        let mut object = seen.clone();
        object["status"] = status;
        Ok(Write::status(DEVICE_CLAIMS, object))
    }

    /// What a write that failed was to do, as that is told.
    pub fn failure(&self, write: &Write) -> String {
        let key = format!(
            "{}/{}",
            object::namespace(&self.claim),
            object::name(&self.claim)
        );
        let what = match write {
            Write::Update {
                subresource: None, ..
            } => "add finalizer to claim",
            _ if self.allocation.is_some() => "add allocation and reservation to claim",
            _ => "add reservation to claim",
        };
        format!("{what} {key}")
    }
}

/// A pod that did not come to its node may use a claim no more; `None`: it may not anyway.
pub fn released(seen: &Value, pod: &PodInfo) -> Option<Write> {
    let users = || object::items(&seen["status"]["reservedFor"]);
    if !users().any(|own| own["uid"] == *pod.uid) {
        return None;
    }
    let others: Vec<Value> = users()
        .filter(|own| own["uid"] != *pod.uid)
        .cloned()
        .collect();
    let mut object = seen.clone();
    match others.is_empty() {
        true => drop(
            object["status"]
                .as_object_mut()?
                .shift_remove("reservedFor"),
        ),
        false => object["status"]["reservedFor"] = others.into(),
    }
    Some(Write::status(DEVICE_CLAIMS, object))
}

/// A claim loses its devices; one that was made for resources of its pod goes.
pub fn freed(claim: &Value) -> Vec<Write> {
    if is_made_for_resources(claim) {
        return removed(claim);
    }
    let mut object = object::identity(claim);
    object["status"] = json!({});
    vec![Write::status(DEVICE_CLAIMS, object)]
}

/// Whether a claim stays for others than us when it is deleted.
pub(in super::super) fn is_held_by_others(claim: &Value) -> bool {
    object::items(&claim["metadata"]["finalizers"]).any(|own| own != FINALIZER)
}

/// A claim goes: nothing holds it, then it is deleted.
fn removed(claim: &Value) -> Vec<Write> {
    let finalizers: Vec<&Value> = object::items(&claim["metadata"]["finalizers"]).collect();
    let is_held = finalizers.iter().any(|own| **own == FINALIZER);
    let others: Vec<&Value> = finalizers
        .into_iter()
        .filter(|own| **own != FINALIZER)
        .collect();
    let patch = json!({"metadata": {"finalizers": others}});
    let release = is_held.then(|| Write::patch(DEVICE_CLAIMS, claim, patch));
    let delete = Write::Delete(Delete::of(DEVICE_CLAIMS, claim));
    release.into_iter().chain([delete]).collect()
}

/// Whether a pod can go where a claim's devices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    Pending,
    TimedOut,
}

/// Whether all conditions hold that devices wait for, or one that says that they failed.
pub(super) fn readiness(claim: &Value, now: Instant) -> Result<Readiness, String> {
    let status = &claim["status"];
    let allocation = &status["allocation"];
    let mut readiness = Readiness::Ready;
    for own in object::items(&allocation["devices"]["results"]) {
        let mut wanted = object::items(&own["bindingConditions"]).filter_map(Value::as_str);
        if object::items(&own["bindingConditions"]).next().is_none() {
            continue;
        }
        let is_its = |told: &&Value| {
            let mut fields = ["driver", "pool", "device"].into_iter();
            fields.all(|field| told[field] == own[field])
        };
        let told = object::items(&status["devices"]).find(is_its);
        let condition = |kind: &str| {
            let mut conditions = told.map(|own| object::items(&own["conditions"]))?;
            conditions.find(|own| own["type"] == kind && own["status"] == "True")
        };
        let failures = object::items(&own["bindingFailureConditions"]).filter_map(Value::as_str);
        if let Some(failed) = failures.filter_map(condition).next() {
            return Err(format!(
                "device binding failed: claim={}, reason={}, message={:?}",
                object::name(claim),
                failed["reason"].as_str().unwrap_or_default(),
                failed["message"].as_str().unwrap_or_default()
            ));
        }
        if !wanted.all(|kind| condition(kind).is_some()) {
            readiness = Readiness::Pending;
        }
    }
    let since = object::time(&allocation["allocationTimestamp"]);
    let limit = i64::try_from(BINDING_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
    let is_late = since.is_some_and(|since| object::elapsed_ms(since, now) > limit);
    Ok(match readiness {
        Readiness::Pending if is_late => Readiness::TimedOut,
        other => other,
    })
}
