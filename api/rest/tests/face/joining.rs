//! Workers that join with a Seal token: a kubelet's bootstrap, and what an agent of K3s asks
//! for. Who judges the tokens is played here.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use nautilus_machinery::identity::User;
use nautilus_rest::{ConnectionLimits, RequestLimits, SealRefusal, Workers};
use parking_lot::Mutex;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::{client, credential, get, serve};
use crate::audit::Metadata;
use crate::world::{World, parts, within};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Tokens and what they come to; nodes that are barred.
#[derive(Default)]
struct Played {
    tokens: BTreeMap<&'static str, Result<&'static str, SealRefusal>>,
    barred: Mutex<BTreeMap<String, String>>,
    news: tokio::sync::Notify,
}

impl Workers for Played {
    fn node_of_token<'a>(
        &'a self,
        token: &'a str,
        claimed: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, SealRefusal>> {
        let judged = match self.tokens.get(token) {
            Some(Ok(node)) if claimed.is_none_or(|claimed| claimed == *node) => {
                Ok((*node).to_owned())
            }
            Some(Err(refusal)) => Err(refusal.clone()),
            _ if token == "seal-stolen" => Err(SealRefusal::Suspicious {
                why: "it is bound to another TLS client key".into(),
                word: "OtherKey",
            }),
            _ => Err(SealRefusal::Invalid("it is unknown".into())),
        };
        Box::pin(std::future::ready(judged))
    }

    fn barred(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.barred.lock().get(name).cloned())
    }

    fn each_barred<'a>(&'a self, told: &'a (dyn Fn(&str) + Send + Sync)) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                self.news.notified().await;
                self.barred.lock().keys().for_each(|node| told(node));
            }
        })
    }
}

struct Quorum {
    world: World,
    played: Arc<Played>,
    admin: String,
}

impl Quorum {
    /// `seal-1` speaks for `w1`, `seal-2` for `w2`; nobody can judge `seal-later`.
    async fn start() -> Self {
        let later = SealRefusal::Unavailable("the chain is out of reach".into());
        let played = Arc::new(Played {
            tokens: BTreeMap::from([
                ("seal-1", Ok("w1")),
                ("seal-2", Ok("w2")),
                ("seal-later", Err(later)),
            ]),
            barred: Mutex::default(),
            news: tokio::sync::Notify::new(),
        });
        let workers = played.clone();
        let world = World::start_configured(User::anonymous(), RequestLimits::default(), |facts| {
            facts.workers = Some(workers);
            facts.serving_names.push("10.96.0.1".into());
        })
        .await;
        world.kv.lead(1, true);
        tokio::spawn(nautilus_rest::run_controllers(
            world.context.clone(),
            6443,
            world.shutdown.clone(),
        ));
        let master = User::authenticated("admin", vec!["system:masters".into()]);
        let admin = world.serve_as(master).await;
        let quorum = Self {
            world,
            played,
            admin,
        };
        // The bindings are the leader's work.
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:k3s-controller";
        quorum
            .until(path, |status, _| status == StatusCode::OK)
            .await;
        // As the workers' face makes them when a token is used first.
        for node in ["w1", "w2"] {
            let node = json!({"metadata": {"name": node}});
            let request = quorum
                .world
                .client
                .post(format!("{}/api/v1/nodes", quorum.admin));
            let made = parts(request.json(&node).send().await.unwrap()).await;
            assert_eq!(made.0, StatusCode::CREATED, "{}", made.1);
        }
        quorum
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let request = self
            .world
            .client
            .request(method, format!("{}{path}", self.world.base))
            .bearer_auth(token)
            .json(body);
        parts(within(request.send()).await.unwrap()).await
    }

    /// Reads as an administrator until it holds.
    async fn until(&self, path: &str, holds: impl Fn(StatusCode, &Value) -> bool) -> Value {
        within(async {
            loop {
                let request = self.world.client.get(format!("{}{path}", self.admin));
                let (status, object) = parts(request.send().await.unwrap()).await;
                if holds(status, &object) {
                    return object;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

/// A signing request's PEM, and its DER.
fn request(name: &str, organization: Option<&str>) -> (String, Vec<u8>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        let kind = DnType::OrganizationName;
        params.distinguished_name.push(kind, organization);
    }
    let request = params.serialize_request(&key).unwrap();
    (request.pem().unwrap(), request.der().to_vec())
}

fn signing_request(object: &str, node: &str, signer: &str) -> Value {
    let (pem, _) = request(&format!("system:node:{node}"), Some("system:nodes"));
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": object },
        "spec": {
            "request": STANDARD.encode(pem), "signerName": signer,
            "usages": ["digital signature", "client auth"],
        },
    })
}

#[tokio::test]
async fn a_seal_token_obtains_the_certificate_of_its_own_node_and_nothing_else() {
    let quorum = Quorum::start().await;
    let own = signing_request("own", "w1", KUBELET);
    let (status, made) = quorum.ask(Method::POST, REQUESTS, "seal-1", &own).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["username"], "system:bootstrap:seal:w1");
    let signed = quorum
        .until(&format!("{REQUESTS}/own"), |_, object| {
            object["status"]["certificate"].is_string()
        })
        .await;
    let condition = &signed["status"]["conditions"][0];
    assert_eq!(condition["reason"], "AutoApproved", "{signed}");

    let client = "kubernetes.io/kube-apiserver-client";
    for (object, node, signer) in [
        ("others", "w2", KUBELET),
        ("client", "w1", client),
        ("serving", "w1", "kubernetes.io/kubelet-serving"),
    ] {
        let asked = signing_request(object, node, signer);
        let (status, refused) = quorum.ask(Method::POST, REQUESTS, "seal-1", &asked).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
        let message = refused["message"].as_str().unwrap();
        assert!(
            message.contains("obtains that node's client certificate alone"),
            "{message}"
        );
    }
    let nodes = "/api/v1/nodes";
    let (status, _) = quorum.ask(Method::GET, nodes, "seal-1", &Value::Null).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_token_that_nobody_can_judge_is_not_called_invalid() {
    let quorum = Quorum::start().await;
    let ask = |token: &'static str| {
        let url = format!("{}{REQUESTS}", quorum.world.base);
        within(quorum.world.client.get(url).bearer_auth(token).send())
    };
    let later = ask("seal-later").await.unwrap();
    assert_eq!(later.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(later.headers().contains_key("retry-after"));
    let unknown = ask("no-such-token").await.unwrap();
    assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
    let joined = ask("K10abcd::node:seal-1").await.unwrap();
    assert_eq!(joined.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_certificate_of_a_node_whose_stake_is_gone_counts_for_nobody() {
    let quorum = Quorum::start().await;
    let kubelet = |name: &str| {
        let groups = vec!["system:nodes".to_owned()];
        User::authenticated(format!("system:node:{name}"), groups)
    };
    let w1 = quorum.world.serve_as(kubelet("w1")).await;
    let w2 = quorum.world.serve_as(kubelet("w2")).await;
    let read = async |base: &str, name: &str| {
        let url = format!("{base}/api/v1/nodes/{name}");
        let request = quorum.world.client.get(url);
        within(request.send()).await.unwrap().status()
    };
    let groups = vec!["nautilus:agent-of:w1".to_owned()];
    let agent = User::authenticated("system:kube-proxy", groups);
    let agent = quorum.world.serve_as(agent).await;
    assert_eq!(read(&w1, "w1").await, StatusCode::OK);
    let agents = read(&agent, "w1").await;
    assert_ne!(agents, StatusCode::UNAUTHORIZED);
    let why = "its stake was slashed".to_owned();
    quorum.played.barred.lock().insert("w1".into(), why);
    assert_eq!(read(&w1, "w1").await, StatusCode::UNAUTHORIZED);
    assert_eq!(read(&agent, "w1").await, StatusCode::UNAUTHORIZED);
    assert_eq!(read(&w2, "w2").await, StatusCode::OK);
    quorum.played.barred.lock().clear();
    assert_eq!(read(&w1, "w1").await, StatusCode::OK);
    assert_eq!(read(&agent, "w1").await, agents);
}

/// What an agent of K3s sends.
struct Agent<'q> {
    quorum: &'q Quorum,
    token: &'static str,
    node: &'static str,
    password: &'static str,
    addresses: &'static str,
}

impl Agent<'_> {
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.quorum.world.base);
        let request = self.quorum.world.client.get(url);
        let request = request.basic_auth("node", Some(self.token));
        parts(within(request.send()).await.unwrap()).await
    }

    async fn certificate(&self, path: &str) -> (StatusCode, String) {
        // Agents send a request without a name.
        let (_, der) = request("", None);
        let url = format!("{}/v1-k3s/{path}", self.quorum.world.base);
        let request = self
            .quorum
            .world
            .client
            .post(url)
            .basic_auth("node", Some(self.token))
            .header("k3s-Node-Name", self.node)
            .header("k3s-Node-Password", self.password)
            .header("k3s-Node-IP", self.addresses)
            .body(der);
        let response = within(request.send()).await.unwrap();
        let status = response.status();
        (status, within(response.text()).await.unwrap())
    }
}

fn user_of(pem: &str) -> User {
    let der: rustls::pki_types::CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
    User::of_certificate(&der)
}

#[tokio::test]
async fn an_agent_of_k3s_gets_its_certificates_and_its_configuration() {
    let quorum = Quorum::start().await;
    let base = &quorum.world.base;
    let open = async |path: &str| {
        let request = quorum.world.client.get(format!("{base}{path}"));
        let response = within(request.send()).await.unwrap();
        (response.status(), within(response.text()).await.unwrap())
    };
    let (_, authorities) = open("/cacerts").await;
    assert_eq!(authorities, quorum.world.authority.certificate_pem());
    assert_eq!(open("/ping").await, (StatusCode::OK, "pong".to_owned()));
    assert_eq!(open("/v1-k3s/config").await.0, StatusCode::FORBIDDEN);

    let agent = Agent {
        quorum: &quorum,
        token: "seal-1",
        node: "W1",
        password: "planted-password",
        addresses: "10.1.2.3,fd00::7",
    };
    let (status, config) = agent.get("/v1-k3s/config").await;
    assert_eq!(status, StatusCode::OK, "{config}");
    assert_eq!(config["ServiceIPRange"]["IP"], "10.96.0.0");
    assert_eq!(config["SupervisorPort"], config["HTTPSPort"]);
    let (_, ready) = agent.get("/v1-k3s/readyz").await;
    assert_eq!(ready, "ok");
    let (_, bundle) = agent.get("/v1-k3s/client-ca.crt").await;
    assert_eq!(bundle, authorities.as_str());
    let (status, servers) = agent.get("/v1-k3s/apiservers").await;
    assert_eq!((status, servers.is_array()), (StatusCode::OK, true));

    for (path, name) in [
        ("client-kubelet.crt", "system:node:w1"),
        ("client-kube-proxy.crt", "system:kube-proxy"),
        ("client-k3s-controller.crt", "system:k3s-controller"),
        ("serving-kubelet.crt", "system:node:w1"),
    ] {
        let (status, pem) = agent.certificate(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {pem}");
        assert_eq!(user_of(&pem).name, name, "{path}");
        assert!(pem.ends_with(&authorities), "{path}");
        assert!(!pem.contains("PRIVATE KEY"), "{path}");
    }
    // Nobody gets a key that was not made by who asks.
    let (status, _) = agent.get("/v1-k3s/client-kubelet.crt").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    // Its password opens nothing else.
    let (status, _) = agent.get("/api/v1/nodes").await;
    assert_eq!(status, StatusCode::FORBIDDEN);

    let path = "/api/v1/namespaces/kube-system/secrets/w1.node-password.k3s";
    let secret = quorum
        .until(path, |status, _| status == StatusCode::OK)
        .await;
    let hash = STANDARD
        .decode(secret["data"]["hash"].as_str().unwrap())
        .unwrap();
    assert!(
        !String::from_utf8(hash)
            .unwrap()
            .contains("planted-password")
    );
}

#[tokio::test]
async fn an_agent_takes_neither_anothers_place_nor_an_api_servers() {
    let quorum = Quorum::start().await;
    let agent = |token, node, password, addresses| Agent {
        quorum: &quorum,
        token,
        node,
        password,
        addresses,
    };
    let kubelet = "client-kubelet.crt";
    let first = agent("seal-1", "w1", "first", "10.1.2.3");
    assert_eq!(first.certificate(kubelet).await.0, StatusCode::OK);
    let thief = agent("seal-1", "w1", "second", "10.1.2.4");
    assert_eq!(thief.certificate(kubelet).await.0, StatusCode::FORBIDDEN);
    // Nor by another way than its password's.
    let asked = signing_request("thief", "w1", KUBELET);
    let (status, refused) = quorum.ask(Method::POST, REQUESTS, "seal-1", &asked).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    let thief = agent("seal-2", "w1", "first", "10.1.2.3");
    assert_eq!(thief.certificate(kubelet).await.0, StatusCode::UNAUTHORIZED);
    for (addresses, expected) in [
        ("127.0.0.1", StatusCode::FORBIDDEN),
        ("10.1.2.3,::1", StatusCode::FORBIDDEN),
        ("::ffff:127.0.0.1", StatusCode::FORBIDDEN),
        ("10.96.0.1", StatusCode::FORBIDDEN),
        ("::ffff:10.96.0.1", StatusCode::FORBIDDEN),
        ("not-an-address", StatusCode::BAD_REQUEST),
        ("10.1.2.3", StatusCode::OK),
    ] {
        let server = agent("seal-2", "w2", "own", addresses);
        let (status, _) = server.certificate("serving-kubelet.crt").await;
        assert_eq!(status, expected, "{addresses}");
    }
}

#[tokio::test]
async fn a_watch_of_a_node_ends_when_it_is_barred() {
    let quorum = Quorum::start().await;
    let groups = ["system:nodes"];
    let credential = credential(&quorum.world.authority, "system:node:w1", &groups);
    let base = serve(&quorum.world, ConnectionLimits::default()).await;
    let kubelet = client(&quorum.world.authority, Some(credential));
    let path = "/api/v1/nodes?watch=true&fieldSelector=metadata.name%3Dw1";
    let mut watch = within(kubelet.get(format!("{base}{path}")).send())
        .await
        .unwrap();
    assert_eq!(watch.status(), StatusCode::OK);
    assert!(within(watch.chunk()).await.unwrap().is_some(), "the node");
    let why = "its stake was slashed".to_owned();
    quorum.played.barred.lock().insert("w1".into(), why);
    quorum.played.news.notify_one();
    let ended = within(async { while let Ok(Some(_)) = watch.chunk().await {} });
    ended.await;
    let (status, body) = get(&kubelet, format!("{base}/api/v1/nodes/w1")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        body["message"],
        "Unauthorized: the node w1 is removed: its stake was slashed"
    );
}

#[tokio::test]
async fn who_presents_a_bad_seal_token_is_told_what_is_wrong_with_it() {
    let quorum = Quorum::start().await;
    let unknown = "Unauthorized: invalid Seal token: it is unknown";
    let bound = "Unauthorized: invalid Seal token: it is bound to another TLS client key";
    for (token, message) in [("seal-9", unknown), ("seal-stolen", bound)] {
        let (status, body) = quorum
            .ask(Method::GET, "/api/v1/nodes", token, &json!({}))
            .await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(body["message"], message);
        let agent = Agent {
            quorum: &quorum,
            token,
            node: "w1",
            password: "secret",
            addresses: "",
        };
        let (status, body) = agent.get("/v1-k3s/config").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(body["message"], message);
    }
}

#[tokio::test]
async fn a_stolen_seal_token_that_comes_to_the_api_stands_in_the_audit_log() {
    let (log, audit) = Metadata::start();
    let world = World::start_configured(User::anonymous(), RequestLimits::default(), |facts| {
        facts.workers = Some(Arc::new(Played::default()));
        facts.audit = Some(audit);
    })
    .await;
    for path in ["/api/v1/nodes", "/v1-k3s/config"] {
        let request = world.client.get(format!("{}{path}", world.base));
        let answer = within(request.bearer_auth("seal-stolen").send()).await;
        assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    let events = log.end().await.into_iter();
    let noted: Vec<String> = events
        .filter(|event| event["annotations"]["nautilus.io/seal-token-refused"] == "OtherKey")
        .map(|event| event["requestURI"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(noted, ["/api/v1/nodes", "/v1-k3s/config"]);
}
