//! The world of these tests: a quorum of one, its face on a loopback socket, a client.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{
    Applied, BarrierError, Command, Kv, Leadership, LedgerHead, Proposal, ProposeError, RangeError,
    RangeRequest, RangeResponse, Revision, UnixMillis, WatchError, WatchGroup, WatchRequest,
    Watcher,
};
use nautilus_machinery::identity::User;
use nautilus_rest::audit::Audit;
use nautilus_rest::receipts::SignedRoot;
use nautilus_rest::{
    Authority, ConnectionLimits, NodeFacts, RequestLimits, RestContext, router,
    serve_plain_loopback,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A client without TLS; it follows redirects as `redirect` says.
pub(crate) fn plain_client(redirect: reqwest::redirect::Policy) -> reqwest::Client {
    // No provider is the process's default, as in the program: the library asks for one
    // even where nothing is encrypted.
    let unused = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(unused);
    builder.no_proxy().redirect(redirect).build().unwrap()
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Long enough for anything that should happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A quorum of one that can lose the answers of proposals it has applied.
#[derive(Clone)]
pub(crate) struct Forgetful {
    inner: SoloKv,
    answers_to_lose: Arc<AtomicUsize>,
}

impl Forgetful {
    pub(crate) fn lead(&self, term: u64, is_self: bool) {
        self.inner.set_leadership(Leadership {
            term,
            is_self,
            ..self.inner.leadership()
        });
    }

    pub(crate) fn lose_next_answer(&self) {
        self.answers_to_lose.fetch_add(1, Ordering::SeqCst);
    }
}

impl Kv for Forgetful {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            let applied = self.inner.propose(proposal).await?;
            let lost =
                self.answers_to_lose
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(1)
                    });
            match lost {
                Ok(_) => Err(ProposeError::Unknown("the leader was killed".into())),
                Err(_) => Ok(applied),
            }
        })
    }
    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, BarrierError>> {
        self.inner.read_barrier()
    }
    fn watch_group(&self) -> Box<dyn WatchGroup> {
        self.inner.watch_group()
    }
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        self.inner.range(request)
    }
    fn revision(&self) -> Revision {
        self.inner.revision()
    }
    fn compacted_revision(&self) -> Revision {
        self.inner.compacted_revision()
    }
    fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, WatchError> {
        self.inner.watch(request)
    }
    fn leadership(&self) -> Leadership {
        self.inner.leadership()
    }
    fn leadership_changes(&self) -> BoxStream<'static, Leadership> {
        self.inner.leadership_changes()
    }
}

/// An address of this machine that is not its loopback's: endpoints may not have that one.
/// Nothing is sent.
pub(crate) fn own_address() -> IpAddr {
    let usable = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
    let of_route = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        // The system only chooses the address it would send from.
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(usable)
    };
    // Without a route: the addresses of all interfaces, each above its line of scope.
    let of_interfaces = || {
        let table = std::fs::read_to_string("/proc/net/fib_trie").ok()?;
        let lines: Vec<&str> = table.lines().map(str::trim).collect();
        lines.windows(2).find_map(|pair| {
            let address = pair[0].strip_prefix("|-- ")?.parse().ok()?;
            (pair[1] == "/32 host LOCAL" && usable(&address)).then_some(address)
        })
    };
    of_route().or_else(of_interfaces).expect(
        "this test needs a machine with an IPv4 address beside the loopback one: \
         give it one, as by `ip addr add 10.255.255.1/32 dev lo`",
    )
}

pub(crate) struct World {
    pub(crate) kv: Arc<Forgetful>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) context: Arc<RestContext>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) client: reqwest::Client,
    pub(crate) base: String,
}

impl World {
    /// A face whose caller is a master.
    pub(crate) async fn start() -> Self {
        Self::start_with(
            User::authenticated("admin", vec!["system:masters".into()]),
            RequestLimits::default(),
        )
        .await
    }

    pub(crate) async fn start_with(user: User, limits: RequestLimits) -> Self {
        Self::start_audited(user, limits, None).await
    }

    pub(crate) async fn start_audited(
        user: User,
        limits: RequestLimits,
        audit: Option<Arc<Audit>>,
    ) -> Self {
        Self::start_configured(user, limits, |facts| facts.audit = audit).await
    }

    pub(crate) async fn start_configured(
        user: User,
        limits: RequestLimits,
        configure: impl FnOnce(&mut NodeFacts),
    ) -> Self {
        let inner = SoloKv::new(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            UnixMillis(u64::try_from(now.as_millis()).unwrap())
        });
        let cluster = Arc::new(inner.clone());
        let ledger = inner.clone();
        let kv = Arc::new(Forgetful {
            inner,
            answers_to_lose: Arc::default(),
        });
        let authority = Arc::new(
            Authority::load_or_create(kv.as_ref(), "test")
                .await
                .unwrap(),
        );
        let shutdown = CancellationToken::new();
        let mut facts = facts(&ledger);
        configure(&mut facts);
        let context = RestContext::new(
            kv.clone(),
            cluster,
            authority.clone(),
            facts,
            limits,
            shutdown.clone(),
        );
        nautilus_rest::ensure_defaults(&context, 6443)
            .await
            .unwrap();
        if !user.is_master() {
            nautilus_rest::ensure_roles(&context).await.unwrap();
        }
        let base = serve_as(&context, &shutdown, user).await;
        let client = plain_client(reqwest::redirect::Policy::default());
        Self {
            kv,
            authority,
            context,
            shutdown,
            client,
            base,
        }
    }

    /// One more face on the same quorum, whose caller is `user`; gives its base.
    pub(crate) async fn serve_as(&self, user: User) -> String {
        serve_as(&self.context, &self.shutdown, user).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        within(
            self.client
                .request(method, format!("{}{path}", self.base))
                .header("content-type", media)
                .body(body)
                .send(),
        )
        .await
        .unwrap()
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        parts(
            self.send(method, path, "application/json", body.to_string())
                .await,
        )
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        parts(
            within(self.client.get(format!("{}{path}", self.base)).send())
                .await
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> (StatusCode, Value) {
        let request = self
            .client
            .get(format!("{}{path}", self.base))
            .header("accept", accept);
        parts(within(request.send()).await.unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::DELETE, path, &json!({})).await
    }

    /// Creates a config map in `default`.
    pub(crate) async fn config_map(&self, name: &str, labels: &Value, data: &Value) -> Value {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "labels": labels }, "data": data,
        });
        let (status, created) = self
            .call(
                Method::POST,
                "/api/v1/namespaces/default/configmaps",
                &object,
            )
            .await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        created
    }

    pub(crate) async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }

    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let request = self
            .client
            .get(format!("{}{path}", self.base))
            .header("accept", accept);
        let response = within(request.send()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Events {
            chunks: response.bytes_stream().boxed(),
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn compact(&self) {
        let revision = self.kv.revision();
        self.kv
            .propose(Proposal::new(Command::Compact { revision }))
            .await
            .unwrap();
    }
}

async fn serve_as(context: &Arc<RestContext>, shutdown: &CancellationToken, user: User) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let face = router(context.clone()).layer(axum::Extension(user));
    tokio::spawn(serve_plain_loopback(
        listener,
        face,
        ConnectionLimits::default(),
        shutdown.clone(),
    ));
    base
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn facts(ledger: &SoloKv) -> NodeFacts {
    NodeFacts {
        service_account_issuers: Vec::new(),
        cluster: "test".into(),
        api_address: "https://127.0.0.1:6443".into(),
        tee: "simulated".into(),
        measurement: "00".repeat(32),
        evidence: Arc::new(|data| Ok(data.to_vec())),
        credential_report_data: Arc::new(|nonce, _, _| {
            let mut data = [0; 64];
            data[..nonce.len()].copy_from_slice(nonce);
            data
        }),
        evidence_digest: Arc::new(|_| Some("abcd".into())),
        ledger: Arc::new(ledger.clone()),
        sign_root: Arc::new(|head| Box::pin(std::future::ready(Ok(unsigned(&head))))),
        audit: None,
        authentication: None,
        metrics_text: Arc::new(|| "up 1\n".into()),
        kubelets: nautilus_rest::KubeletSettings::default(),
        serving_names: vec!["kubernetes".into(), "127.0.0.1".into()],
        workers: None,
        control: nautilus_rest::ControlSettings::default(),
        node_usages: None,
    }
}

/// A root as a node states it, with nothing in the place of the signature.
fn unsigned(head: &LedgerHead) -> SignedRoot {
    SignedRoot {
        cluster: "test".into(),
        node: 1,
        size: head.size,
        sha256: head.root.map(|byte| format!("{byte:02x}")).concat(),
        term: head.term,
        revision: head.revision,
        time_ms: 0,
        public_key: String::new(),
        signature: String::new(),
        evidence: String::new(),
    }
}

pub(crate) async fn parts(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = within(response.text()).await.unwrap();
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

/// The lines of a watch.
pub(crate) struct Events {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the server ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match within(self.chunks.next()).await {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.unwrap()),
                None => return None,
            }
        }
    }

    /// The next event as its type and its object's name.
    pub(crate) async fn next_named(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens in time")
}
