//! Nodes that tell the truth and nodes that do not, in this process.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_attest_protocol::{Quoter as _, Refused, attestation_report_data};
use nautilus_attest_tee::{PlatformSecret, SimulatedProvider, SimulatedRoot};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A TEE, and a judge that accepts it.
pub(crate) struct World {
    provider: Arc<SimulatedProvider>,
    pub(crate) judge: Judge,
    _dir: tempfile::TempDir,
}

/// What a stand-in answers with.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Evidence over this key instead of its own.
    pub(crate) relayed_spki: Option<Vec<u8>>,
    /// Evidence over this nonce instead of the asker's.
    pub(crate) nonce: Option<Vec<u8>>,
    /// Its id.
    pub(crate) node_id: u64,
    /// Whom it names: id and address.
    pub(crate) members: Vec<(u64, String)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        let root = SimulatedRoot::load_or_create(&path("root")).expect("made");
        std::fs::write(path("root.pub"), root.public_key().to_string()).expect("written");
        let secret = PlatformSecret::load_or_create(&path("secret")).expect("made");
        let judge = judge(&["self".to_owned()], true, Some(&path("root.pub")));
        let provider = SimulatedProvider::for_this_process(root, secret).expect("measured");
        Self {
            provider: Arc::new(provider),
            judge: judge.expect("made"),
            _dir: dir,
        }
    }

    /// A node on a port of its own; gives its address and its key.
    pub(crate) async fn node(&self, script: Arc<Mutex<Script>>) -> (Address, Vec<u8>) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&key)
            .expect("signed");
        let spki = spki_of(certificate.der()).expect("its own");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(nautilus_client::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (provider, own) = (Arc::clone(&self.provider), spki.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    continue;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match tls.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let script = script.lock().expect("whole").clone();
                let body = answer(&provider, &own, &script, &head);
                let text = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = tls.write_all(text.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        (address.parse().expect("an address"), spki)
    }
}

fn answer(provider: &SimulatedProvider, own: &[u8], script: &Script, head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let nonce = head
        .split_once("nonce=")
        .and_then(|(_, rest)| rest.split_once(' '))
        .map_or("", |(nonce, _)| nonce);
    let nonce = hex::decode(nonce).expect("hex");
    let spki = script.relayed_spki.as_deref().unwrap_or(own);
    let data = attestation_report_data(script.nonce.as_deref().unwrap_or(&nonce), spki);
    let evidence = provider.quote(&data).expect("evidence").encode();
    let members: Vec<_> = script
        .members
        .iter()
        .map(|(id, at)| json!({ "id": id, "api_address": at, "role": "voter", "platform": "" }))
        .collect();
    json!({
        "evidence": BASE64.encode(evidence),
        "quorum": { "cluster": "q", "node_id": script.node_id, "members": members },
    })
    .to_string()
}

pub(crate) fn script(node_id: u64) -> Script {
    Script {
        node_id,
        ..Script::default()
    }
}

pub(crate) fn shared(script: Script) -> Arc<Mutex<Script>> {
    Arc::new(Mutex::new(script))
}

#[tokio::test]
async fn evidence_over_the_key_of_this_connection_is_read() {
    let world = World::new();
    let (address, spki) = world.node(shared(script(7))).await;
    let examined = examine(&address, &world.judge).await.expect("genuine");
    assert_eq!(examined.spki, spki);
    assert_eq!(examined.quorum.node_id, 7);
    world.judge.policy(&examined.claims).expect("allowed");
}

#[tokio::test]
async fn evidence_of_another_node_that_is_relayed_is_refused() {
    let world = World::new();
    let (_, genuine) = world.node(shared(script(1))).await;
    let relaying = Script {
        relayed_spki: Some(genuine),
        ..script(1)
    };
    let (address, _) = world.node(shared(relaying)).await;
    let error = examine(&address, &world.judge).await.expect_err("relayed");
    assert!(
        matches!(error, ExamineError::Refused(Refused::Replay { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn evidence_of_yesterday_is_refused() {
    let world = World::new();
    let replaying = Script {
        nonce: Some(vec![7; 32]),
        ..script(1)
    };
    let (address, _) = world.node(shared(replaying)).await;
    let error = examine(&address, &world.judge).await.expect_err("old");
    assert!(
        matches!(error, ExamineError::Refused(Refused::Replay { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_survey_asks_whom_accepted_nodes_name_and_no_one_else() {
    let world = World::new();
    let (second, _) = world.node(shared(script(2))).await;
    // A stranger under a member's address, which says it is somebody else.
    let (imposter, genuine) = world.node(shared(script(9))).await;
    let founder = Script {
        members: vec![
            (1, String::new()),
            (2, second.to_string()),
            (3, imposter.to_string()),
        ],
        ..script(1)
    };
    let (first, _) = world.node(shared(founder)).await;
    let found = survey(&first, &world.judge).await;
    let outcomes: Vec<_> = found
        .members
        .iter()
        .map(|member| (member.id, member.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            (Some(1), Outcome::Accepted),
            (Some(2), Outcome::Accepted),
            (Some(3), Outcome::Refused),
        ]
    );
    assert_eq!(
        found.members[2].reason.as_deref(),
        Some("it is node 9, expected node 3")
    );

    // One that relays names members too, but nobody listens.
    let relaying = Script {
        relayed_spki: Some(genuine),
        members: vec![(2, second.to_string())],
        ..script(1)
    };
    let (liar, _) = world.node(shared(relaying)).await;
    let found = survey(&liar, &world.judge).await;
    assert_eq!(found.members.len(), 1);
    assert_eq!(found.outcome, Outcome::Refused);
}

#[tokio::test]
async fn a_pinned_connection_ends_at_a_vouched_key_only() {
    let world = World::new();
    let (address, spki) = world.node(shared(script(1))).await;
    let pins = Arc::new(Pins::default());
    let tls = Arc::new(pinned_tls(Arc::clone(&pins), None).expect("TLS"));
    assert!(dial(&address, Arc::clone(&tls)).await.is_err());
    assert!(pins.add(&spki));
    let dialed = dial(&address, Arc::clone(&tls)).await.expect("vouched for");
    assert_eq!(dialed.spki, spki);
    pins.remove(&spki);
    assert!(dial(&address, tls).await.is_err());
}
