//! A scripted chain before a quorum of one, followed by as many nodes as a test wants.

mod following;
mod join_tokens;
mod properties;
mod relaying;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{
    Applied, BarrierError, Kv, Leadership, Proposal, ProposeError, RangeError, RangeRequest,
    RangeResponse, Revision, WatchError, WatchGroup, WatchRequest, Watcher,
};
use nautilus_machinery::identity::User;
use nautilus_workers::chain::{ChainError, ChainEvent, Cursor, EventId, EventPage, EventSource};
use nautilus_workers::events::{
    ApiAnswer, ApiRequest, ApiRequests, Events, EventsContext, EventsSettings, events_router,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::world::World;

/// Its digest is that of no other number.
fn digest(number: u64) -> String {
    let digits = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZ";
    let mut left = number;
    let mut text = String::from("TX");
    loop {
        text.push(char::from(digits[(left % 33) as usize]));
        left /= 33;
        if left == 0 {
            return text;
        }
    }
}

/// Address `0xa1` in full.
fn address(short: &str) -> String {
    format!("0x{short:0>64}")
}

/// A chain: its events in order, and how its full node behaves.
#[derive(Default)]
struct Chain {
    events: Mutex<Vec<ChainEvent>>,
    fault: Mutex<Option<ChainError>>,
    /// How many events of a page were given out before.
    repeats: AtomicUsize,
    /// The newest checkpoint is not over: what happens may still be in it.
    is_open: std::sync::atomic::AtomicBool,
    names_no_checkpoints: std::sync::atomic::AtomicBool,
    pages: AtomicU64,
    questions: AtomicU64,
}

impl Chain {
    /// Adds an event in a transaction of its own.
    fn emit(&self, checkpoint: u64, module: &str, name: &str, fields: Value) -> ChainEvent {
        let mut events = self.events.lock();
        let event = ChainEvent {
            id: EventId {
                tx_digest: digest(events.len() as u64),
                event_seq: 0,
            },
            module: module.into(),
            name: name.into(),
            sender: address("a1"),
            fields,
            timestamp_ms: 1_790_000_000_000 + events.len() as u64,
            checkpoint: Some(checkpoint),
        };
        events.push(event.clone());
        event
    }

    fn registered(&self, checkpoint: u64, node_id: &str, stake_amount: u64) -> ChainEvent {
        let fields = json!({
            "node_id": node_id, "owner": address("a1"), "stake_amount": stake_amount.to_string(),
            "seal_token": "seal-1", "timestamp": "1",
        });
        self.emit(
            checkpoint,
            "worker_registry",
            "WorkerRegisteredEvent",
            fields,
        )
    }

    fn status(&self, checkpoint: u64, node_id: &str, new: &str) -> ChainEvent {
        let fields = json!({
            "node_id": node_id, "old_status": "active", "new_status": new, "timestamp": "1",
        });
        self.emit(
            checkpoint,
            "worker_registry",
            "WorkerStatusChangedEvent",
            fields,
        )
    }

    fn deposited(&self, checkpoint: u64, node_id: &str, amount: u64) -> ChainEvent {
        let fields = json!({
            "node_id": node_id, "owner": address("a1"), "amount": amount.to_string(),
            "timestamp": "1",
        });
        self.emit(checkpoint, "worker_registry", "StakeDepositedEvent", fields)
    }

    fn fail(&self, fault: impl Into<Option<ChainError>>) {
        *self.fault.lock() = fault.into();
    }

    fn lost() -> ChainError {
        ChainError::LostCursor {
            cursor: Box::default(),
            reason: "pruned".into(),
        }
    }

    fn give(&self, event: &ChainEvent) -> ChainEvent {
        let mut event = event.clone();
        if self.names_no_checkpoints.load(Ordering::Relaxed) {
            event.checkpoint = None;
        }
        event
    }

    fn page_now(&self, after: Option<Cursor>, limit: usize) -> Result<EventPage, ChainError> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        let events = self.events.lock();
        let cursor = after.unwrap_or_default();
        let begin = match &cursor.event {
            Some(id) => match events.iter().position(|event| event.id == *id) {
                Some(at) => at + 1,
                None => {
                    return Err(ChainError::LostCursor {
                        cursor: Box::new(cursor),
                        reason: "no such event: it is of another chain".into(),
                    });
                }
            },
            None => {
                let passed = cursor.checkpoint;
                events.partition_point(|event| event.checkpoint <= passed && passed.is_some())
            }
        };
        if let Some(fault) = self.fault.lock().clone() {
            let is_lost = matches!(fault, ChainError::LostCursor { .. });
            // A position of the operator's is known.
            if !is_lost || cursor.checkpoint != Some(RESUME_AT) {
                return Err(fault);
            }
        }
        let end = events.len().min(begin + limit);
        let given = begin.saturating_sub(self.repeats.load(Ordering::Relaxed));
        let last = events[..end].last();
        let whole = last.and_then(|last| match events.get(end) {
            Some(next) if next.checkpoint == last.checkpoint => {
                last.checkpoint.and_then(|at| at.checked_sub(1))
            }
            None if self.is_open.load(Ordering::Relaxed) => {
                last.checkpoint.and_then(|at| at.checked_sub(1))
            }
            _ => last.checkpoint,
        });
        Ok(EventPage {
            events: events[given..end]
                .iter()
                .map(|event| self.give(event))
                .collect(),
            next: Cursor {
                checkpoint: whole.or(cursor.checkpoint),
                event: last.map(|event| event.id.clone()),
            },
            more: end < events.len(),
        })
    }
}

/// Where an operator lets tests go on.
const RESUME_AT: u64 = 500;

impl EventSource for Chain {
    fn page(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<EventPage, ChainError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.page_now(after, limit)
        })
    }

    fn of_transaction(
        &self,
        tx_digest: &str,
    ) -> BoxFuture<'_, Result<Option<Vec<ChainEvent>>, ChainError>> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let events = self.events.lock();
        let found = events
            .iter()
            .filter(|event| event.id.tx_digest == tx_digest);
        let found: Vec<ChainEvent> = found.map(|event| self.give(event)).collect();
        let answer = match self.fault.lock().clone() {
            Some(error) => Err(error),
            None => Ok((!found.is_empty()).then_some(found)),
        };
        Box::pin(async move { answer })
    }
}

/// An API server of config maps, nearly: objects by path.
#[derive(Default)]
struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    asked: Mutex<Vec<(User, ApiRequest)>>,
    /// Answers never come.
    hangs: std::sync::atomic::AtomicBool,
}

impl Api {
    fn answer(&self, request: &ApiRequest) -> (u16, Value) {
        let mut objects = self.objects.lock();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let version = |objects: &BTreeMap<String, Value>| (objects.len() + 100).to_string();
        match request.method.as_str() {
            "POST" => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{}/{name}", request.path);
                if objects.contains_key(&path) {
                    return (409, json!({"message": "already exists"}));
                }
                let mut object = body.clone();
                object["metadata"]["uid"] = format!("uid-{}", objects.len()).into();
                object["metadata"]["resourceVersion"] = version(&objects).into();
                objects.insert(path, object.clone());
                (201, object)
            }
            "GET" => match objects.get(&request.path) {
                Some(object) => (200, object.clone()),
                None => (404, json!({"message": "not found"})),
            },
            "DELETE" => match objects.get(&request.path) {
                None => (404, json!({"message": "not found"})),
                Some(object) if object["metadata"]["uid"] != body["preconditions"]["uid"] => {
                    (409, json!({"message": "another object"}))
                }
                Some(_) => {
                    objects.remove(&request.path);
                    (200, json!({"status": "Success"}))
                }
            },
            _ => (405, json!({})),
        }
    }

    /// The requests that change something.
    fn changes(&self) -> Vec<String> {
        let asked = self.asked.lock();
        let changes = asked.iter().filter(|(_, request)| request.method != "GET");
        changes
            .map(|(_, request)| format!("{} {}", request.method, request.path))
            .collect()
    }
}

impl ApiRequests for Api {
    fn execute(
        &self,
        user: User,
        request: ApiRequest,
        limit_bytes: usize,
    ) -> BoxFuture<'_, Result<ApiAnswer, String>> {
        self.asked.lock().push((user, request.clone()));
        let (code, body) = self.answer(&request);
        let hangs = self.hangs.load(Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            if hangs {
                std::future::pending::<()>().await;
            }
            let mut body = body.to_string().into_bytes();
            let truncated = body.len() > limit_bytes;
            body.truncate(limit_bytes);
            Ok(ApiAnswer {
                code,
                body: body.into(),
                truncated,
            })
        })
    }
}

/// One node's view of the quorum: who it thinks leads, and what it loses on the way.
#[derive(Clone)]
struct View {
    kv: SoloKv,
    leadership: tokio::sync::watch::Sender<Leadership>,
    /// Every so many proposals one gets no answer, though it was applied. 0: none.
    loses_every: Arc<AtomicU64>,
    proposals: Arc<AtomicU64>,
}

impl Kv for View {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let applied = self.kv.propose(proposal).await?;
            let number = self.proposals.fetch_add(1, Ordering::Relaxed) + 1;
            match self.loses_every.load(Ordering::Relaxed) {
                every if every > 0 && number.is_multiple_of(every) => {
                    Err(ProposeError::Unknown("the leader was lost".into()))
                }
                _ => Ok(applied),
            }
        })
    }
    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, BarrierError>> {
        self.kv.read_barrier()
    }
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        self.kv.range(request)
    }
    fn revision(&self) -> Revision {
        self.kv.revision()
    }
    fn compacted_revision(&self) -> Revision {
        self.kv.compacted_revision()
    }
    fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, WatchError> {
        self.kv.watch(request)
    }
    fn watch_group(&self) -> Box<dyn WatchGroup> {
        self.kv.watch_group()
    }
    fn leadership(&self) -> Leadership {
        self.leadership.borrow().clone()
    }
    fn leadership_changes(&self) -> BoxStream<'static, Leadership> {
        let changes = tokio_stream(self.leadership.subscribe());
        changes.boxed()
    }
}

fn tokio_stream(
    mut changes: tokio::sync::watch::Receiver<Leadership>,
) -> impl futures_util::Stream<Item = Leadership> + Send + 'static {
    changes.mark_changed();
    futures_util::stream::unfold(changes, |mut changes| async move {
        changes.changed().await.ok()?;
        let now = changes.borrow_and_update().clone();
        Some((now, changes))
    })
}

/// One node that may lead.
struct Node {
    view: View,
    events: Arc<Events>,
    router: Router,
}

/// A quorum that follows a chain.
struct ChainWorld {
    world: World,
    chain: Arc<Chain>,
    api: Arc<Api>,
    nodes: Vec<Node>,
    term: u64,
    stop: CancellationToken,
}

impl Drop for ChainWorld {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ChainWorld {
    /// `nodes` nodes, of which the first leads.
    async fn new(nodes: usize) -> Self {
        Self::with(nodes, EventsSettings::default()).await
    }

    async fn with(nodes: usize, settings: EventsSettings) -> Self {
        let mut world = Self {
            world: World::leading().await,
            chain: Arc::default(),
            api: Arc::default(),
            nodes: Vec::new(),
            term: 1,
            stop: CancellationToken::new(),
        };
        for number in 0..nodes {
            world.start(number == 0, settings.clone());
        }
        world
    }

    fn start(&mut self, leads: bool, settings: EventsSettings) {
        let leadership = Leadership {
            is_self: leads,
            ..self.world.kv.leadership()
        };
        let view = View {
            kv: self.world.kv.clone(),
            leadership: tokio::sync::watch::Sender::new(leadership),
            loses_every: Arc::default(),
            proposals: Arc::default(),
        };
        let clock = self.world.clock();
        let events = Events::new(EventsContext {
            kv: Arc::new(view.clone()),
            channel: Arc::new(self.world.kv.clone()),
            // Another node's leader is not this one's.
            hints: match leads {
                true => self.world.leader.hints(),
                false => Arc::default(),
            },
            source: self.chain.clone(),
            verdicts: self.world.verdicts.clone(),
            clock,
            settings,
        });
        let running = Arc::clone(&events).run(self.api.clone(), self.stop.clone());
        tokio::spawn(running);
        self.nodes.push(Node {
            router: events_router(Some(Arc::clone(&events))),
            view,
            events,
        });
    }

    /// Another node leads from now on. The former one, if it `lingers`, has not heard of it.
    fn elect(&mut self, number: usize, lingers: bool) {
        self.term += 1;
        self.world.elect(self.term, true);
        for (at, node) in self.nodes.iter().enumerate() {
            let now = self.world.kv.leadership();
            let is_self = at == number;
            if is_self || !lingers {
                node.view
                    .leadership
                    .send_replace(Leadership { is_self, ..now });
            }
        }
    }

    async fn pass(&self, time: Duration) {
        self.world.pass(time).await;
    }

    /// Until everything there is was read.
    async fn settle(&self) {
        self.pass(Duration::from_secs(5)).await;
    }

    /// What the chain's events have said of a node.
    fn chain_node(&self, node_id: &str) -> Value {
        let key = format!("/nautilus/sui/nodes/{node_id}");
        self.world.value(&key).unwrap_or_default()
    }

    /// How the verdicts about a node were ended last.
    fn eviction(&self, node_id: &str) -> Value {
        let key = format!("/nautilus/seal/verdicts/{node_id}/evicted");
        let row = self.world.value(&key).unwrap_or_default();
        row["verdict"].clone()
    }

    fn cursor(&self) -> Value {
        self.world.value("/nautilus/sui/cursor").unwrap_or_default()
    }

    async fn send(&self, number: usize, request: Request<Body>) -> (StatusCode, Value) {
        let router = self.nodes[number].router.clone();
        let response = router.oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body in memory").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::String(text));
        (parts.status, json)
    }

    async fn relay(&self, number: usize, events: &Value) -> (StatusCode, Value) {
        let request = Request::post("/api/v1/sui-events").body(Body::from(events.to_string()));
        self.send(number, request.expect("a request")).await
    }
}

/// As a relayer sends it.
fn relayed(event: &ChainEvent) -> Value {
    json!({
        "type": format!("0x7::{}::{}", event.module, event.name),
        "packageId": "0x7",
        "transactionModule": event.module,
        "sender": event.sender,
        "parsedJson": event.fields,
        "id": {"txDigest": event.id.tx_digest, "eventSeq": event.id.event_seq.to_string()},
        "timestampMs": event.timestamp_ms.to_string(),
    })
}
