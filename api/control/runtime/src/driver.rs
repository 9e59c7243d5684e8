//! Drives one controller: takes keys off its queue, lets it plan, carries the plan out, and
//! waits until its view shows what was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nautilus_planner::controller::{Change, Controller, MAX_ROUNDS};
use nautilus_planner::kind::Kind;
use nautilus_planner::plan::Failed;
use nautilus_planner::view::{Answer, Key, Question, View, Within};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::carry::{self, Reached};
use crate::events::{Author, Recorder};
use crate::follow::Listener;
use crate::port::Api;
use crate::queue::Queue;
use crate::world::World;

/// Without anything due, the queue is looked at so often.
const IDLE: Duration = Duration::from_secs(3_600);

pub(crate) struct Driver {
    api: Arc<dyn Api>,
    world: Arc<World>,
    controller: Box<dyn Controller>,
    recorder: Recorder,
    queue: Mutex<Queue>,
    /// Something is ready, and everything was told.
    wake: Notify,
    level: std::sync::atomic::AtomicBool,
    meters: Meters,
}

/// As client-go's work queues name them.
struct Meters {
    adds: metrics::Counter,
    depth: metrics::Gauge,
    retries: metrics::Counter,
    work: metrics::Histogram,
}

impl Meters {
    fn new(name: &'static str) -> Self {
        Self {
            adds: metrics::counter!("workqueue_adds_total", "name" => name),
            depth: metrics::gauge!("workqueue_depth", "name" => name),
            retries: metrics::counter!("workqueue_retries_total", "name" => name),
            work: metrics::histogram!("workqueue_work_duration_seconds", "name" => name),
        }
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.depth.set(0.0);
    }
}

impl Driver {
    pub(crate) fn new(
        api: Arc<dyn Api>,
        world: Arc<World>,
        controller: Box<dyn Controller>,
        recorder: Recorder,
    ) -> Self {
        Self {
            meters: Meters::new(controller.name()),
            api,
            world,
            controller,
            recorder,
            queue: Mutex::default(),
            wake: Notify::new(),
            level: false.into(),
        }
    }

    /// Looks at a key once.
    async fn look_at(self: Arc<Self>, key: Key) {
        let begun = Instant::now();
        let view = self.answered(&key).await;
        let plan = self.controller.reconcile(&view, &key, self.api.now());
        drop(view);
        let mut reached = Reached::new();
        let outcome = self.carry_out(&plan, &mut reached).await;
        if let Err(failed) = &outcome {
            self.tell_of(&key, failed, &mut reached).await;
        }
        for (kind, revision) in reached {
            self.world.reach(kind, revision).await;
        }
        self.meters.work.record(begun.elapsed().as_secs_f64());
        let now = Instant::now();
        let mut queue = self.queue.lock();
        if outcome.is_ok() {
            queue.done(&key, plan.again_in.map(|after| now + after));
        } else {
            self.meters.retries.increment(1);
            queue.failed(&key, now);
        }
        self.meters.depth.set(queue.depth() as f64);
    }

    /// The view, with the answers to what the controller asks for a key.
    async fn answered(&self, key: &Key) -> Answered<'_> {
        let mut view = Answered {
            world: &self.world,
            answers: BTreeMap::new(),
        };
        for _ in 0..MAX_ROUNDS {
            let mut asked = self.controller.asks(&view, key);
            asked.retain(|question| !view.answers.contains_key(question));
            if asked.is_empty() {
                break;
            }
            let user = self.controller.name();
            let answers = asked.iter().map(|question| self.api.ask(user, question));
            let answers = join_all(answers).await;
            view.answers.extend(asked.into_iter().zip(answers));
        }
        view
    }

    async fn carry_out(
        &self,
        plan: &nautilus_planner::plan::Plan,
        reached: &mut Reached,
    ) -> Result<(), Failed> {
        let author = Author {
            account: self.controller.name(),
            component: self.controller.component().into(),
        };
        carry::out(&*self.api, &self.recorder, &author, plan, reached).await
    }

    /// Has the controller tell of a failure. What was reached so far is in its view then.
    async fn tell_of(&self, key: &Key, failed: &Failed, reached: &mut Reached) {
        tracing::debug!(
            controller = self.controller.name(),
            %key,
            code = failed.code,
            reason = %failed.reason,
            message = %failed.message,
            "a plan was not carried out"
        );
        if failed.code == 409 {
            return;
        }
        for (kind, revision) in &*reached {
            self.world.reach(*kind, *revision).await;
        }
        let now = self.api.now();
        let report = self.controller.report(&*self.world, key, now, failed);
        if let Err(again) = self.carry_out(&report, reached).await {
            tracing::debug!(%key, message = %again.message, "a failure was not told");
        }
    }

    /// A key to look at, or when there will be one.
    fn next(&self) -> Result<Key, Instant> {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        match queue.take(now) {
            Some(key) => {
                self.meters.depth.set(queue.depth() as f64);
                Ok(key)
            }
            None => Err(queue.next_due().unwrap_or(now + IDLE)),
        }
    }
}

/// See [`Driver::answered`].
struct Answered<'a> {
    world: &'a World,
    answers: BTreeMap<Question, Answer>,
}

impl View for Answered<'_> {
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.world.get(kind, namespace, name)
    }

    fn list(&self, kind: Kind, within: Within<'_>) -> Vec<Arc<Value>> {
        self.world.list(kind, within)
    }

    fn keys(&self, kind: Kind, within: Within<'_>) -> Vec<Key> {
        self.world.keys(kind, within)
    }

    fn answer(&self, question: &Question) -> Option<&Answer> {
        self.answers.get(question)
    }
}

impl Listener for Driver {
    fn follows(&self) -> &[Kind] {
        self.controller.follows()
    }

    fn told(&self, world: &World, change: &Change) {
        let mut keys = Vec::new();
        self.controller.concerns(world, change, &mut keys);
        if keys.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        for key in keys {
            if queue.add(key) {
                self.meters.adds.increment(1);
            }
        }
        self.meters.depth.set(queue.depth() as f64);
        drop(queue);
        self.wake.notify_one();
    }

    fn level(&self) {
        self.level.store(true, std::sync::atomic::Ordering::Release);
        self.wake.notify_one();
    }
}

/// Ends only by being dropped.
pub(crate) async fn run(driver: Arc<Driver>) {
    while !driver.level.load(std::sync::atomic::Ordering::Acquire) {
        driver.wake.notified().await;
    }
    let mut looks: JoinSet<()> = JoinSet::new();
    loop {
        let free = looks.len() < driver.controller.workers();
        let due = match free.then(|| driver.next()) {
            Some(Ok(key)) => {
                looks.spawn(driver.clone().look_at(key));
                continue;
            }
            Some(Err(due)) => due,
            None => Instant::now() + IDLE,
        };
        tokio::select! {
            Some(_) = looks.join_next() => {}
            () = driver.wake.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}
