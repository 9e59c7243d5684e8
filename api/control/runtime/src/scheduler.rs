//! Drives the scheduler: lets it decide for one pod after the other, and carries the
//! decisions out beside that.
//!
//! Invariants
//! - Decisions are made one at a time, each in the knowledge of those before it; what is
//!   being written is bounded by [`WRITES_AT_ONCE`]. A pod whose volumes are being made
//!   waits beside that.
//! - The scheduler is told of every placement that failed; one that was carried out it sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nautilus_machinery::timestamp::Instant;
use nautilus_planner::controller::Change;
use nautilus_planner::kind::{self, Kind};
use nautilus_planner::object;
use nautilus_planner::plan::{Delete, Event, Failed, Write};
use nautilus_planner::scheduler::told::{self, Reason};
use nautilus_planner::scheduler::{
    BIND_TIMEOUT, Chosen, Decision, Placement, PodInfo, Scheduler, Wait,
};
use nautilus_planner::view::{Question, View as _};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::events::{Author, Recorder};
use crate::follow::Listener;
use crate::port::Api;
use crate::scheduler_meters::Meters;
use crate::world::World;

/// Decisions whose writes are under way, at most.
const WRITES_AT_ONCE: usize = 256;
/// How often a status is written in a version that turns out to be old.
const STATUS_ATTEMPTS: usize = 4;
/// For a newer version to be seen.
const STATUS_PAUSE: Duration = Duration::from_millis(50);
/// Where nodes' metrics stand, and how often they are read: workers tell them with their beats,
/// metrics-server measures as often.
const NODE_METRICS: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const METRICS_EVERY: Duration = Duration::from_secs(15);
/// Pause after they could not be read.
const METRICS_RETRY: Duration = Duration::from_secs(1);
/// With nothing to do.
const IDLE: Duration = Duration::from_secs(10);
/// As whom the scheduler writes.
pub(crate) const ACCOUNT: &str = "kube-scheduler";

/// The scheduler of one term.
pub struct Scheduling {
    pub(crate) api: Arc<dyn Api>,
    pub(crate) core: Mutex<Scheduler>,
    kinds: Vec<Kind>,
    pub(crate) wake: Notify,
    /// Claims, on volumes or devices, or volumes have changed.
    pub(crate) claims: Notify,
    /// One each for a decision whose writes are under way.
    pub(crate) turns: Arc<Semaphore>,
    level: AtomicBool,
    meters: Meters,
}

impl Scheduling {
    /// A scheduler at the start of a term.
    pub fn new(api: Arc<dyn Api>, scheduler: Scheduler) -> Arc<Self> {
        Arc::new(Self {
            api,
            core: Mutex::new(scheduler),
            kinds: Scheduler::follows(),
            wake: Notify::new(),
            claims: Notify::new(),
            turns: Arc::new(Semaphore::new(WRITES_AT_ONCE)),
            level: AtomicBool::new(false),
            meters: Meters::new(),
        })
    }

    /// The decision for a pod as it would be now; `None`: nobody knows the pod.
    pub fn explain(&self, namespace: &str, name: &str) -> Option<Value> {
        let core = self.core.lock();
        core.explain(namespace, name)
    }

    pub(crate) fn now(&self) -> Instant {
        self.api.now()
    }

    /// Lets the scheduler decide once.
    fn decide(&self) -> Option<Decision> {
        let begun = std::time::Instant::now();
        let mut core = self.core.lock();
        let decision = core.next(self.now())?;
        self.meters.decided(&decision, begun.elapsed(), &core);
        Some(decision)
    }

    /// How long nothing will be decided if nothing changes.
    fn pause(&self) -> Duration {
        let core = self.core.lock();
        if !core.is_idle() {
            return Duration::ZERO;
        }
        let now = self.now();
        let pause = core.due().map(|due| {
            let seconds = due.seconds.saturating_sub(now.seconds);
            let nanoseconds = i64::from(due.nanoseconds) - i64::from(now.nanoseconds);
            let nanoseconds = seconds.saturating_mul(1_000_000_000) + nanoseconds;
            Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
        });
        pause.unwrap_or(IDLE).min(IDLE)
    }
}

impl Listener for Scheduling {
    fn follows(&self) -> &[Kind] {
        &self.kinds
    }

    fn told(&self, _world: &World, change: &Change) {
        let mut core = self.core.lock();
        core.hear(change, self.now());
        let has_work = !core.is_idle();
        drop(core);
        let claims = [kind::CLAIMS, kind::VOLUMES, kind::DEVICE_CLAIMS];
        if claims.contains(&change.kind) {
            self.claims.notify_waiters();
        }
        if has_work {
            self.wake.notify_one();
        }
    }

    fn level(&self) {
        self.level.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// Who carries decisions out.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) scheduling: Arc<Scheduling>,
    pub(crate) world: Arc<World>,
    recorder: Recorder,
}

/// Ends only by being dropped.
pub(crate) async fn run(scheduling: Arc<Scheduling>, world: Arc<World>, recorder: Recorder) {
    while !scheduling.level.load(Ordering::Acquire) {
        scheduling.wake.notified().await;
    }
    let hands = Hands {
        scheduling: scheduling.clone(),
        world,
        recorder,
    };
    // Ends with this.
    let mut asking = JoinSet::new();
    if scheduling.core.lock().wants_metrics() {
        asking.spawn(follow_metrics(scheduling.clone()));
    }
    let mut under_way: JoinSet<()> = JoinSet::new();
    loop {
        while under_way.try_join_next().is_some() {}
        let turn = scheduling.turns.clone().try_acquire_owned().ok();
        let is_free = turn.is_some();
        if let Some(turn) = turn
            && let Some(decision) = scheduling.decide()
        {
            under_way.spawn(hands.clone().carry_out(decision, turn));
            tokio::task::yield_now().await;
            continue;
        }
        let pause = if is_free { scheduling.pause() } else { IDLE };
        tokio::select! {
            Some(_) = under_way.join_next() => {}
            () = scheduling.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Asks how busy nodes are, again and again.
async fn follow_metrics(scheduling: Arc<Scheduling>) {
    let question = Question::Get(NODE_METRICS.to_owned());
    loop {
        let pause = match scheduling.api.ask(ACCOUNT, &question).await {
            Ok(list) => {
                scheduling.core.lock().set_metrics(&list);
                METRICS_EVERY
            }
            Err((code, message)) => {
                tracing::debug!(code, message, "how busy nodes are is not known");
                // What was known before says less and less.
                scheduling.core.lock().set_metrics(&Value::Null);
                METRICS_RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Hands {
    /// Holds its turn for as long as it writes.
    async fn carry_out(self, decision: Decision, turn: OwnedSemaphorePermit) {
        match decision {
            Decision::Place(placement) => self.place(&placement, turn).await,
            Decision::Wait(wait) => self.wait(&wait).await,
            Decision::Fail(failure) => {
                let pod = &failure.attempt.pod;
                self.tell_failure(pod, &failure.message).await;
            }
            Decision::Skip(pod) => self.record(&pod, told::skipped(&pod)),
        }
    }

    /// Records an event that came of scheduling `pod`: it is of the profile that the pod names.
    pub(crate) fn record(&self, pod: &PodInfo, event: Event) {
        let author = Author {
            account: ACCOUNT,
            component: pod.scheduler_name.as_str().into(),
        };
        self.recorder.record(&author, event);
    }

    async fn write(&self, write: &Write) -> Result<(), Failed> {
        let written = self.scheduling.api.write(ACCOUNT, write).await;
        written.map(drop)
    }

    async fn place(&self, placement: &Placement, mut turn: OwnedSemaphorePermit) {
        let pod = &placement.attempt.pod;
        let begun = std::time::Instant::now();
        if !placement.chosen.volumes.is_empty() {
            match self.bind_claims(placement, turn).await {
                Ok(next) => turn = next,
                Err(why) => return self.place_failed(placement, None, why).await,
            }
        }
        let mut made = None;
        if !placement.chosen.devices.is_empty() {
            match self.bind_devices(placement, turn, &mut made).await {
                Ok(next) => turn = next,
                Err(why) => return self.place_failed(placement, made.as_ref(), why).await,
            }
        }
        let bind = Write::Bind {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            node: placement.chosen.node.clone(),
        };
        match self.write(&bind).await {
            Ok(()) => {
                self.record(pod, told::scheduled(placement));
                let meters = &self.scheduling.meters;
                meters.bound(placement, begun.elapsed(), self.scheduling.now());
            }
            Err(failed) => {
                let why = format!("running Bind plugin \"DefaultBinder\": {}", failed.message);
                let why = (failed.code, why);
                self.place_failed(placement, made.as_ref(), why).await;
            }
        }
        drop(turn);
    }

    /// Has a pod's claims bound, and waits until they are, without a turn.
    async fn bind_claims(
        &self,
        placement: &Placement,
        turn: OwnedSemaphorePermit,
    ) -> Result<OwnedSemaphorePermit, (u16, String)> {
        let why = |message: &str| format!("running PreBind plugin \"VolumeBinding\": {message}");
        let Chosen { volumes, node, .. } = &placement.chosen;
        let writes = volumes.writes(node);
        for written in join_all(writes.iter().map(|write| self.write(write))).await {
            written.map_err(|failed| (failed.code, why(&failed.message)))?;
        }
        drop(turn);
        self.scheduling.wake.notify_one();
        let bound = async {
            loop {
                let mut changed = std::pin::pin!(self.scheduling.claims.notified());
                // From here on no change is missed.
                changed.as_mut().enable();
                if volumes.are_bound(&*self.world, node)? {
                    return Ok::<(), String>(());
                }
                changed.await;
            }
        };
        match tokio::time::timeout(BIND_TIMEOUT, bound).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => return Err((500, why(&message))),
            Err(_) => return Err((500, why("binding volumes: context deadline exceeded"))),
        }
        let turn = self.scheduling.turns.clone().acquire_owned().await;
        turn.map_err(|closed| (500, closed.to_string()))
    }

    /// `made`: a claim that was made for it on the way.
    async fn place_failed(
        &self,
        placement: &Placement,
        made: Option<&Arc<Value>>,
        (code, message): (u16, String),
    ) {
        let pod = &placement.attempt.pod;
        tracing::debug!(pod = %pod.key(), node = placement.chosen.node, code, message,
            "a pod was not bound");
        // Before it is tried again, which then knows.
        self.release_devices(placement, made).await;
        let now = self.scheduling.now();
        self.scheduling.core.lock().failed(placement, now);
        self.scheduling.wake.notify_one();
        // A pod that is gone, or bound by another hand, needs no explanation.
        if code == 404 || self.pending(pod).is_none() {
            return;
        }
        self.scheduling.meters.failed(placement);
        self.tell_failure(pod, &message).await;
    }

    async fn tell_failure(&self, pod: &PodInfo, message: &str) {
        let event = told::not_scheduled(pod, message);
        self.record(pod, event);
        self.tell(pod, |seen, now| {
            told::unscheduled(seen, Reason::SchedulerError, message, Some(""), now)
        })
        .await;
    }

    async fn wait(&self, wait: &Wait) {
        let pod = &wait.attempt.pod;
        let mut is_stuck = false;
        if let Some(claim) = &wait.freed {
            is_stuck = !self.free(pod, claim).await;
        }
        // What could not be freed is not told as freed: the next look tells.
        if !is_stuck {
            let event = told::not_scheduled(pod, &wait.message);
            self.record(pod, event);
            let nominated = wait.nominated.as_deref();
            self.tell(pod, |seen, now| {
                told::unscheduled(seen, Reason::Unschedulable, &wait.message, nominated, now)
            })
            .await;
        }
        let displaced = wait.displaced.iter();
        join_all(displaced.map(|own| self.tell(own, |seen, _| told::displaced(seen)))).await;
        if wait.victims.is_empty() && !is_stuck {
            return;
        }
        let ends = wait.victims.iter().map(|victim| self.end(victim, wait));
        let all_end = join_all(ends).await.into_iter().all(|ends| ends);
        let now = self.scheduling.now();
        let key = &wait.attempt.key;
        self.scheduling
            .core
            .lock()
            .preempted(key, is_stuck || !all_end, now);
        self.scheduling.wake.notify_one();
    }

    /// Has a pod end for another; whether it does.
    async fn end(&self, victim: &PodInfo, wait: &Wait) -> bool {
        if victim.is_terminating {
            return true;
        }
        let scheduler = &wait.attempt.pod.scheduler_name;
        self.tell(victim, |seen, now| told::disrupted(seen, scheduler, now))
            .await;
        let delete = Write::Delete(Delete::of(kind::PODS, &victim.object));
        let outcome = self.write(&delete).await;
        if let Err(failed) = &outcome {
            tracing::debug!(pod = %victim.key(), code = failed.code, message = %failed.message,
                "a victim was not deleted");
            return false;
        }
        self.record(&wait.attempt.pod, told::preempted(victim, wait));
        true
    }

    /// Changes a pod's status as `write` says of what was seen of it last.
    async fn tell(&self, pod: &PodInfo, write: impl Fn(&Value, Instant) -> Option<Write>) {
        for _ in 0..STATUS_ATTEMPTS {
            let seen = self.seen(pod);
            let Some(write) = seen.and_then(|seen| write(&seen, self.scheduling.now())) else {
                return;
            };
            match self.write(&write).await {
                Err(failed) if failed.code == 409 => tokio::time::sleep(STATUS_PAUSE).await,
                Err(failed) => {
                    tracing::debug!(pod = %pod.key(), code = failed.code,
                        message = %failed.message, "a pod's status was not written");
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    fn seen(&self, pod: &PodInfo) -> Option<Arc<Value>> {
        let seen = self.world.get(kind::PODS, &pod.namespace, &pod.name);
        seen.filter(|seen| object::uid(seen) == pod.uid)
    }

    pub(crate) fn pending(&self, pod: &PodInfo) -> Option<Arc<Value>> {
        let seen = self.seen(pod);
        seen.filter(|seen| {
            seen["spec"]["nodeName"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
        })
    }
}

#[cfg(test)]
#[path = "scheduler/tests.rs"]
mod tests;
