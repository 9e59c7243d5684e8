//! A quorum of one in memory with the worker face before it, on paused time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{KeyRange, Kv, Leadership, Member, MemberRole, RangeRequest, UnixMillis};
use nautilus_workers::limits::VERDICT_LIFETIME;
use nautilus_workers::{
    Clock, Evidence, EvidenceForm, Facts, Judgement, Leader, Probes, QuorumView, RosterSettings,
    SealToken, TokenJudge, Verdict, VerdictSettings, Verdicts, WorkerRow, WorkersContext,
    WorkersSettings, workers_router,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The Unix time at which every world begins, in seconds.
pub(crate) const BEGIN_S: u64 = 1_790_000_000;

/// One node that leads itself.
pub(crate) struct World {
    pub(crate) kv: SoloKv,
    pub(crate) judge: Arc<ScriptedJudge>,
    pub(crate) leader: Arc<Leader>,
    pub(crate) router: Router,
    pub(crate) serves: Arc<Mutex<Result<(), String>>>,
    pub(crate) verdicts: Arc<Verdicts>,
    clock: Arc<PausedClock>,
    shutdown: CancellationToken,
}

/// Verdicts by token; unknown where none is set.
pub(crate) struct ScriptedJudge {
    verdicts: Mutex<BTreeMap<String, Verdict>>,
    lifetime: Duration,
    takes: Duration,
    asked: AtomicU64,
    one_node_each: AtomicBool,
}

impl ScriptedJudge {
    /// One whose verdicts hold for `lifetime`, and who thinks for as long as `takes`.
    pub(crate) fn new(lifetime: Duration, takes: Duration) -> Arc<Self> {
        let judge = Arc::new(Self {
            verdicts: Mutex::default(),
            lifetime,
            takes,
            asked: AtomicU64::new(0),
            one_node_each: AtomicBool::new(false),
        });
        judge.set("seal-1", active("0xa1"));
        judge
    }

    pub(crate) fn set(&self, token: &str, verdict: Verdict) {
        self.verdicts.lock().insert(token.to_owned(), verdict);
    }

    /// From now on a token is for one node.
    pub(crate) fn let_tokens_speak_for_one(&self) {
        self.one_node_each.store(true, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl TokenJudge for ScriptedJudge {
    fn judge<'a>(&'a self, token: &'a SealToken, _node_id: &'a str) -> BoxFuture<'a, Judgement> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let verdict = self.verdicts.lock().get(token.expose()).cloned();
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            verdict.unwrap_or(Verdict::Unknown).into()
        })
    }

    fn speaks_for_many(&self) -> bool {
        !self.one_node_each.load(Ordering::SeqCst)
    }

    fn verdict_lifetime(&self) -> Duration {
        self.lifetime
    }
}

struct PausedClock(Instant);

impl Clock for PausedClock {
    fn unix_ms(&self) -> u64 {
        BEGIN_S * 1000 + self.monotonic_ms()
    }
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).expect("a short test")
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

pub(crate) fn active(owner: &str) -> Verdict {
    Verdict::Active {
        owner: owner.to_owned(),
        stake_amount: 1_000_000_000,
        expires_at: None,
    }
}

impl World {
    /// A world whose node leads and has read its rows; `seal-1` belongs to `0xa1`.
    pub(crate) async fn leading() -> Self {
        let world = Self::not_yet_leading();
        world.start_leading();
        world.settle().await;
        world
    }

    /// The same before the leader's work has started: no beat is answered.
    pub(crate) fn not_yet_leading() -> Self {
        Self::with_kv(|kv| Arc::new(kv))
    }

    /// A world whose face proposes through `wrap` (the leader does not).
    pub(crate) fn with_kv(wrap: impl FnOnce(SoloKv) -> Arc<dyn Kv>) -> Self {
        Self::new(wrap, ScriptedJudge::new(Duration::ZERO, Duration::ZERO))
    }

    /// A leading world before a judge like the chain: slow, and remembered.
    pub(crate) async fn before_the_chain() -> Self {
        let judge = ScriptedJudge::new(VERDICT_LIFETIME, Duration::from_millis(300));
        let world = Self::new(|kv| Arc::new(kv), judge);
        world.start_leading();
        world.settle().await;
        world
    }

    fn new(wrap: impl FnOnce(SoloKv) -> Arc<dyn Kv>, judge: Arc<ScriptedJudge>) -> Self {
        let clock = Arc::new(PausedClock(Instant::now()));
        let times = Arc::clone(&clock);
        let kv = SoloKv::new(move || UnixMillis(times.unix_ms()));
        let leader = Leader::new(clock.clone(), RosterSettings::default());
        kv.set_handler(leader.clone());
        Self::over(kv, wrap, judge, clock, leader)
    }

    /// Another node of the same quorum, that was started now: it remembers nothing, and its judge
    /// knows what this world's knows.
    pub(crate) fn another_node(&self) -> Self {
        let judge = ScriptedJudge::new(VERDICT_LIFETIME, Duration::from_millis(300));
        *judge.verdicts.lock() = self.judge.verdicts.lock().clone();
        let (clock, leader) = (Arc::clone(&self.clock), Arc::clone(&self.leader));
        Self::over(self.kv.clone(), |kv| Arc::new(kv), judge, clock, leader)
    }

    fn over(
        kv: SoloKv,
        wrap: impl FnOnce(SoloKv) -> Arc<dyn Kv>,
        judge: Arc<ScriptedJudge>,
        clock: Arc<PausedClock>,
        leader: Arc<Leader>,
    ) -> Self {
        let serves = Arc::new(Mutex::new(Ok(())));
        let probe = Arc::clone(&serves);
        let shutdown = CancellationToken::new();
        let settings = VerdictSettings::default();
        let verdicts = Verdicts::new(
            Arc::new(kv.clone()),
            judge.clone(),
            clock.clone(),
            Arc::new(|| 1),
            &settings,
        );
        tokio::spawn(Arc::clone(&verdicts).run(shutdown.clone()));
        let router = workers_router(WorkersContext {
            kv: wrap(kv.clone()),
            channel: Arc::new(kv.clone()),
            verdicts: Arc::clone(&verdicts),
            clock: clock.clone(),
            facts: Facts {
                enclave: false,
                components: vec!["kube-apiserver".into(), "consensus".into()],
                tee_type: "simulated".into(),
                security_level: 0,
                measurement: "ab".repeat(48),
            },
            probes: Probes {
                ready: Arc::new(move || probe.lock().clone()),
                sui_connected: Arc::new(|| Err("no chain is followed".into())),
                attest: Arc::new(|nonce, form| {
                    let format = match form {
                        EvidenceForm::Raw => "application/cbor",
                        EvidenceForm::Eat => "application/eat+cwt",
                        EvidenceForm::Sui => "application/json",
                    };
                    Box::pin(async move {
                        Ok(Evidence {
                            format,
                            document: nonce.into(),
                        })
                    })
                }),
                quorum: Arc::new(|| QuorumView {
                    cluster: "q".to_owned(),
                    node_id: 1,
                    members: vec![Member {
                        id: 1,
                        peer_address: "10.0.0.1:7000".to_owned(),
                        api_address: "https://10.0.0.1:6443".to_owned(),
                        client_address: String::new(),
                        role: MemberRole::Voter,
                        platform: "ab".to_owned(),
                    }],
                }),
                kubeconfig: Arc::new(|user| Ok(format!("current-context: {}\n", user.name))),
            },
            settings: WorkersSettings::default(),
        });
        Self {
            kv,
            judge,
            leader,
            router,
            serves,
            clock,
            shutdown,
            verdicts,
        }
    }

    /// Starts the leader's background work.
    pub(crate) fn start_leading(&self) {
        self.start_leading_over(Arc::new(self.kv.clone()));
    }

    /// Starts it over another view of the quorum.
    pub(crate) fn start_leading_over(&self, kv: Arc<dyn Kv>) {
        let leader = Arc::clone(&self.leader);
        tokio::spawn(nautilus_workers::run(leader, kv, self.shutdown.clone()));
    }

    /// Lets everything that is under way come to rest, in virtual time.
    pub(crate) async fn settle(&self) {
        self.pass(Duration::from_secs(2)).await;
    }

    /// Lets virtual time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub(crate) fn now_s(&self) -> u64 {
        self.clock.unix_ms() / 1000
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body in memory").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Answer {
            code: parts.status,
            headers: parts.headers,
            text,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("a request"))
            .await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        token: Option<&str>,
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("X-Seal-Token", token);
        }
        self.send(request.body(body.into()).expect("a request"))
            .await
    }

    /// Registers in the worker's exact form.
    pub(crate) async fn register(&self, node_id: &str, token: &str) -> Answer {
        let body = json!({"node_id": node_id, "seal_token": token, "timestamp": self.now_s()});
        self.post("/api/v1/register-worker", Some(token), body.to_string())
            .await
    }

    /// Beats with `more` fields.
    pub(crate) async fn beat(&self, node_id: &str, token: &str, more: Value) -> Answer {
        let mut body = json!({"node_id": node_id, "timestamp": self.now_s()});
        for (field, value) in more.as_object().expect("fields") {
            body[field] = value.clone();
        }
        self.post("/api/v1/heartbeat", Some(token), body.to_string())
            .await
    }

    /// Pretends that this node leads in `term`, or that nobody does.
    pub(crate) fn elect(&self, term: u64, leads: bool) {
        let leader = if leads {
            self.kv.leadership().leader
        } else {
            None
        };
        self.kv.set_leadership(Leadership {
            term,
            leader,
            is_self: leads,
        });
    }

    /// Every key and value, as text.
    pub(crate) fn everything(&self) -> BTreeMap<String, String> {
        let range = RangeRequest::newest(KeyRange::prefix("/nautilus/"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = self.kv.range(&range).expect("readable").kvs;
        found
            .iter()
            .map(|kv| (text(&kv.key), text(&kv.value)))
            .collect()
    }

    pub(crate) fn row(&self, node_id: &str) -> Option<WorkerRow> {
        let range = RangeRequest::newest(KeyRange::single(WorkerRow::key(node_id)));
        let kv = self
            .kv
            .range(&range)
            .expect("readable")
            .kvs
            .into_iter()
            .next()?;
        Some(WorkerRow::decode(&kv).expect("a row"))
    }

    /// The worker's `Node` object, from where the generic API looks for it.
    pub(crate) fn node(&self, name: &str) -> Option<Value> {
        let nodes = nautilus_machinery::resource::find("", "v1", "nodes").expect("served");
        let range = RangeRequest::newest(KeyRange::single(nodes.key(None, name)));
        let kv = self
            .kv
            .range(&range)
            .expect("readable")
            .kvs
            .into_iter()
            .next()?;
        Some(serde_json::from_slice(&kv.value).expect("JSON"))
    }

    /// The object or row under a key.
    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        let found = self.everything().remove(key)?;
        Some(serde_json::from_str(&found).expect("JSON"))
    }

    /// The node's taints for who is not ready or not reached, as `key:effect`.
    pub(crate) fn taints(&self, name: &str) -> Vec<String> {
        let node = self.node(name).expect("a node");
        let taints = node["spec"]["taints"].as_array().cloned();
        let text = |taint: &Value, field: &str| taint[field].as_str().expect("text").to_owned();
        taints
            .unwrap_or_default()
            .iter()
            .map(|taint| format!("{}:{}", text(taint, "key"), text(taint, "effect")))
            .collect()
    }

    /// Status and reason of the `Ready` condition.
    pub(crate) fn ready(&self, name: &str) -> String {
        let node = self.node(name).expect("a node");
        let ready = &node["status"]["conditions"][0];
        let text = |field: &str| ready[field].as_str().expect("text");
        format!("{} {}", text("status"), text("reason"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
