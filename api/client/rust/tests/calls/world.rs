//! Nodes under a test's control, which make simulated evidence and take requests.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nautilus_attest_protocol::{
    EvidencePolicy, Measurement, Quoter as _, TeeKind, attestation_report_data,
};
use nautilus_attest_tee::{PlatformSecret, SimulatedProvider, SimulatedRoot, SimulatedVerifier};
use nautilus_client::{Address, Client, ClientConfig, Judge, Worker, provider, spki_of};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// What a node does.
#[derive(Default)]
pub(crate) struct Script {
    /// Runs other code than is accepted.
    pub(crate) other_code: bool,
    /// Evidence over this key instead of its own.
    pub(crate) relayed: Option<Vec<u8>>,
    /// Its quorum's name.
    pub(crate) cluster: String,
    /// Whom it names.
    pub(crate) members: Vec<String>,
    /// Who leads, as it says.
    pub(crate) leader: Option<String>,
    /// Its status for a request; 0 is 200.
    pub(crate) status: u16,
    /// Takes requests and answers none.
    pub(crate) silent: bool,
    /// How often it was asked for evidence.
    pub(crate) proofs: usize,
    /// What it got.
    pub(crate) requests: Vec<(String, HeaderMap, Value)>,
}

/// A node.
pub(crate) struct Node {
    pub(crate) address: Address,
    pub(crate) spki: Vec<u8>,
    script: Arc<Mutex<Script>>,
    serving: JoinHandle<()>,
}

impl Node {
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("whole")
    }

    /// Ends it with every connection.
    pub(crate) fn kill(&self) {
        self.serving.abort();
        self.script().silent = true;
    }

    pub(crate) fn taken(&self) -> usize {
        self.script().requests.len()
    }
}

/// A root of evidence, and a judge that accepts one measurement of it.
pub(crate) struct World {
    accepted: Arc<SimulatedProvider>,
    other: Arc<SimulatedProvider>,
    pub(crate) judge: Judge,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let provider = |code: u8| {
            let root = SimulatedRoot::load_or_create(&path("root")).expect("made");
            let secret = PlatformSecret::load_or_create(&path("secret")).expect("made");
            let measurement = Measurement::new([code; 48]).expect("short enough");
            Arc::new(SimulatedProvider::new(root, secret, measurement))
        };
        let (accepted, other) = (provider(1), provider(2));
        let verifier = SimulatedVerifier::new(accepted.root_public_key());
        let policy = EvidencePolicy::new(true).allow(TeeKind::Simulated, accepted.measurement());
        Self {
            judge: Judge::new(policy, Arc::new(verifier)),
            accepted,
            other,
            _folder: folder,
        }
    }

    pub(crate) fn config(&self, endpoints: &[&Node]) -> ClientConfig {
        ClientConfig {
            endpoints: endpoints.iter().map(|node| node.address.clone()).collect(),
            judge: self.judge.clone(),
            authority: None,
            identity: None,
            cache: None,
        }
    }

    pub(crate) fn worker(&self, endpoints: &[&Node]) -> Worker {
        worker(self.config(endpoints))
    }

    pub(crate) async fn node(&self) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let script = Script {
            cluster: "q".to_owned(),
            ..Script::default()
        };
        self.serve(listener, Arc::new(Mutex::new(script)))
    }

    /// The node at the same address with another key, as after a restart.
    pub(crate) async fn again(&self, node: Node) -> Node {
        node.serving.abort();
        let at = node.address.authority();
        let script = Arc::clone(&node.script);
        drop(node);
        loop {
            if let Ok(listener) = TcpListener::bind(&at).await {
                return self.serve(listener, script);
            }
            tokio::task::yield_now().await;
        }
    }

    fn serve(&self, listener: TcpListener, script: Arc<Mutex<Script>>) -> Node {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default();
        let certificate = certificate.self_signed(&key).expect("signed");
        let spki = spki_of(certificate.der()).expect("its own");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let at = listener.local_addr().expect("bound").to_string();
        let answerer = Arc::new(Answerer {
            accepted: Arc::clone(&self.accepted),
            other: Arc::clone(&self.other),
            spki: spki.clone(),
            script: Arc::clone(&script),
        });
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answerer) = (acceptor.clone(), Arc::clone(&answerer));
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let answerer = Arc::clone(&answerer);
                        async move { Ok::<_, Infallible>(answerer.answer(request).await) }
                    });
                    let serving = http1::Builder::new();
                    let _ = serving.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Node {
            address: at.parse().expect("an address"),
            spki,
            script,
            serving,
        }
    }
}

pub(crate) fn worker(config: ClientConfig) -> Worker {
    let token = Zeroizing::new("seal-1".to_owned());
    let client = Client::new(config).expect("endpoints");
    Worker::new(client, "worker-1", token).expect("text")
}

struct Answerer {
    accepted: Arc<SimulatedProvider>,
    other: Arc<SimulatedProvider>,
    spki: Vec<u8>,
    script: Arc<Mutex<Script>>,
}

impl Answerer {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("whole").to_bytes();
        if head.uri.path() == "/api/v1/attestation" {
            let query = head.uri.query().unwrap_or_default();
            return Response::new(Full::new(self.evidence(query).into()));
        }
        let (status, silent, leader) = {
            let mut script = self.script.lock().expect("whole");
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let path = head.uri.path().to_owned();
            script.requests.push((path, head.headers, body));
            (script.status.max(200), script.silent, script.leader.clone())
        };
        if silent {
            std::future::pending::<()>().await;
        }
        let mut answer = Response::builder().status(status);
        if let Some(leader) = leader {
            answer = answer.header("x-nautilus-leader-address", leader);
        }
        let body = json!({ "message": "so says the node" }).to_string();
        answer.body(Full::new(body.into())).expect("an answer")
    }

    fn evidence(&self, query: &str) -> String {
        let mut script = self.script.lock().expect("whole");
        script.proofs += 1;
        let nonce = query.strip_prefix("nonce=").expect("a nonce");
        let spki = script.relayed.as_ref().unwrap_or(&self.spki);
        let data = attestation_report_data(&hex::decode(nonce).expect("hex"), spki);
        let provider = if script.other_code {
            &self.other
        } else {
            &self.accepted
        };
        let evidence = provider.quote(&data).expect("evidence").encode();
        let members = script.members.iter().enumerate().map(|(at, address)| {
            json!({ "id": at, "api_address": address, "role": "voter", "platform": "" })
        });
        json!({
            "evidence": BASE64.encode(evidence),
            "quorum": {
                "cluster": script.cluster, "node_id": 1, "members": members.collect::<Vec<_>>(),
            },
        })
        .to_string()
    }
}
