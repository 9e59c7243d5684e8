//! Claims on devices on the way to a node: has them written before the pod is bound, and waits
//! until the devices are ready.
//!
//! Invariants
//! - A claim is written in the version that was seen; after a conflict it is looked at anew.
//!   The scheduler is told of what was written before anybody can see it.
//! - A claim that was made for resources of a pod goes again if the pod does not come to its
//!   node; where that fails, the next attempt finds it.

use std::sync::Arc;
use std::time::Duration;

use nautilus_planner::object;
use nautilus_planner::plan::{Event, Write};
use nautilus_planner::scheduler::{
    BINDING_TIMEOUT, ClaimBinding, ExtendedBinding, Placement, PodDevices, PodInfo, freed, released,
};
use nautilus_planner::view::Question;
use nautilus_planner::{kind, object::reference};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::scheduler::{ACCOUNT, Hands};

/// How often a claim is written in a version that turns out to be old.
const ATTEMPTS: usize = 5;
/// Before it is looked at anew.
const PAUSE: Duration = Duration::from_millis(10);
const CONFLICT: u16 = 409;
const NOT_FOUND: u16 = 404;

impl Hands {
    /// Has a pod's claims written, and waits, without a turn, until their devices are ready.
    /// `made`: the claim that was made on the way.
    pub(crate) async fn bind_devices(
        &self,
        placement: &Placement,
        turn: OwnedSemaphorePermit,
        made: &mut Option<Arc<Value>>,
    ) -> Result<OwnedSemaphorePermit, (u16, String)> {
        let why = |(code, message): (u16, String)| {
            let message = format!("running PreBind plugin \"DynamicResources\": {message}");
            (code, message)
        };
        let pod = &placement.attempt.pod;
        let PodDevices { claims, extended } = &placement.chosen.devices;
        for claim in claims.iter().filter(|own| !own.is_reserved) {
            self.bind_device_claim(claim, pod).await.map_err(why)?;
        }
        let mut devices = PodDevices {
            claims: claims.clone(),
            extended: None,
        };
        if let Some(own) = extended {
            let bound = self.bind_extended(own, pod, made).await;
            devices.claims.push(bound.map_err(why)?);
        }
        if !devices.have_conditions() {
            return Ok(turn);
        }
        drop(turn);
        let node = &placement.chosen.node;
        self.record(
            pod,
            Event {
                regarding: reference(kind::PODS, &pod.object),
                warning: false,
                reason: "BindingConditionsPending",
                message: format!("waiting for binding conditions for device on node {node}"),
            },
        );
        self.scheduling.wake.notify_one();
        let ready = async {
            loop {
                let mut changed = std::pin::pin!(self.scheduling.claims.notified());
                // From here on no change is missed.
                changed.as_mut().enable();
                if devices.are_ready(&*self.world, self.scheduling.now())? {
                    return Ok::<(), String>(());
                }
                changed.await;
            }
        };
        match tokio::time::timeout(BINDING_TIMEOUT, ready).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => return Err(why((500, message))),
            Err(_) => {
                let message = "device binding timeout: context deadline exceeded";
                return Err(why((500, message.to_owned())));
            }
        }
        let turn = self.scheduling.turns.clone().acquire_owned().await;
        turn.map_err(|closed| (500, closed.to_string()))
    }

    /// Has the claim made for resources of a pod, gives it its devices, and has the pod say so.
    async fn bind_extended(
        &self,
        own: &ExtendedBinding,
        pod: &PodInfo,
        made: &mut Option<Arc<Value>>,
    ) -> Result<ClaimBinding, (u16, String)> {
        let create = own.create();
        let written = self.scheduling.api.write(ACCOUNT, &create).await;
        let told = |write: &Write, message: &str| format!("{}: {message}", own.failure(write));
        let written = written.map_err(|failed| (failed.code, told(&create, &failed.message)))?;
        let mut name = object::identity(&own.claim);
        name["metadata"]["name"] = written.name.into();
        let claim = made.insert(Arc::new(self.latest(&name).await?)).clone();
        self.scheduling.core.lock().claim_made(pod, &claim);
        let claim = own.made(claim);
        self.bind_device_claim(&claim, pod).await?;
        let tell = own.tell(pod, &claim.claim);
        let told_of = self.scheduling.api.write(ACCOUNT, &tell).await;
        told_of.map_err(|failed| (failed.code, told(&tell, &failed.message)))?;
        Ok(claim)
    }

    async fn bind_device_claim(
        &self,
        claim: &ClaimBinding,
        pod: &PodInfo,
    ) -> Result<(), (u16, String)> {
        let mut seen = (*claim.claim).clone();
        for attempt in 1.. {
            let written = self.write_device_claim(claim, pod, seen).await;
            match written {
                Err((CONFLICT, _)) if attempt < ATTEMPTS => {}
                other => return other,
            }
            tokio::time::sleep(PAUSE).await;
            seen = self.latest(&claim.claim).await?;
        }
        Ok(())
    }

    /// Writes what is to be written, one after the other.
    async fn write_device_claim(
        &self,
        claim: &ClaimBinding,
        pod: &PodInfo,
        mut seen: Value,
    ) -> Result<(), (u16, String)> {
        loop {
            let write = claim.write(&seen, pod, self.scheduling.now());
            let write = write.map_err(|message| (500, message))?;
            let told = claim.failure(&write);
            let is_last = matches!(
                write,
                Write::Update {
                    subresource: Some(_),
                    ..
                }
            );
            let written = self.write_claim(write).await;
            seen = written.map_err(|(code, message)| (code, format!("{told}: {message}")))?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Writes a claim, tells the scheduler how it is now, and returns that.
    async fn write_claim(&self, write: Write) -> Result<Value, (u16, String)> {
        let written = self.scheduling.api.write(ACCOUNT, &write).await;
        let written = written.map_err(|failed| (failed.code, failed.message))?;
        let Write::Update {
            object: mut claim, ..
        } = write
        else {
            return Ok(Value::Null);
        };
        claim["metadata"]["resourceVersion"] = written.revision.to_string().into();
        self.scheduling.core.lock().claim_written(claim.clone());
        Ok(claim)
    }

    /// A claim as it is now.
    async fn latest(&self, claim: &Value) -> Result<Value, (u16, String)> {
        let (namespace, name) = (object::namespace(claim), object::name(claim));
        let path = format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}");
        let api = &self.scheduling.api;
        let latest = api.ask(ACCOUNT, &Question::Get(path)).await;
        latest.map_err(|(code, message)| {
            let why = format!("get updated claim {namespace}/{name} after conflict: {message}");
            (code, why)
        })
    }

    /// A pod that did not come to its node lets its claims go; `made` for it goes.
    pub(crate) async fn release_devices(&self, placement: &Placement, made: Option<&Arc<Value>>) {
        let pod = &placement.attempt.pod;
        if self.pending(pod).is_none() {
            // Who looks after claims lets them go, or the pod was bound by another hand.
            return;
        }
        if let Some(made) = made {
            self.remove_claim(pod, made).await;
        }
        for own in &placement.chosen.devices.claims {
            for _ in 0..ATTEMPTS {
                let latest = self.latest(&own.claim).await.ok();
                let Some(write) = latest.and_then(|seen| released(&seen, pod)) else {
                    break;
                };
                match self.write_claim(write).await {
                    Err((CONFLICT, _)) => tokio::time::sleep(PAUSE).await,
                    Err((code, message)) => {
                        tracing::debug!(pod = %pod.key(), code, message, "a claim stays reserved");
                        break;
                    }
                    Ok(_) => break,
                }
            }
        }
    }

    /// Has a claim that was made for resources of a pod go, as it is now.
    async fn remove_claim(&self, pod: &PodInfo, made: &Value) {
        match self.latest(made).await {
            Ok(latest) if object::uid(&latest) == object::uid(made) => {
                self.free(pod, &Arc::new(latest)).await;
            }
            // Gone, or not known: then the next attempt finds it.
            _ => {}
        }
    }

    /// Has a claim lose its devices, or go where it was made for resources of the pod; whether
    /// that was done.
    pub(crate) async fn free(&self, pod: &PodInfo, claim: &Arc<Value>) -> bool {
        let writes = freed(claim);
        for write in &writes {
            let written = self.scheduling.api.write(ACCOUNT, write).await;
            if let Err(failed) = written.map_err(|own| (own.code, own.message))
                && failed.0 != NOT_FOUND
            {
                let (code, message) = failed;
                tracing::debug!(pod = %pod.key(), code, message, "a claim kept its devices");
                return false;
            }
        }
        if matches!(writes.last(), Some(Write::Delete(_))) {
            let mut core = self.scheduling.core.lock();
            core.claim_removed(claim, self.scheduling.now());
        }
        true
    }
}
