//! Certificates, users, and what they may do: over real TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Json, Router};
use nautilus_machine::UnixMillis;
use nautilus_machine::solo::SoloKv;
use nautilus_machinery::identity::{ClientKey, User};
use nautilus_rest::authority::CheckedRequest;
use nautilus_rest::operators::spki_fingerprint;
use nautilus_rest::{
    Authority, ConnectionLimits, Operator, RequestLimits, ServingCertificate, pin_operators,
    router, router_with, serve_tls, server_config,
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use reqwest::StatusCode;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{World, parts, provider, text, within};

/// The face of `world` behind TLS; gives `https://...`.
pub(crate) async fn serve(world: &World, limits: ConnectionLimits) -> String {
    serve_router(world, limits, router(world.context.clone())).await
}

async fn serve_router(world: &World, limits: ConnectionLimits, face: Router) -> String {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = ServingCertificate::issue(world.authority.clone(), names).unwrap();
    let config = server_config(&world.authority, certificate).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(serve_tls(
        listener,
        config,
        face,
        limits,
        world.context.node_connections(),
        world.shutdown.clone(),
    ));
    base
}

fn trust(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate_der().clone()).unwrap();
    roots
}

type Credential = (CertificateDer<'static>, KeyPair);

pub(crate) fn client(authority: &Authority, credential: Option<Credential>) -> reqwest::Client {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trust(authority));
    let config = match credential {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(config)
        .build()
        .unwrap()
}

/// A key and its signing request.
fn request() -> (KeyPair, String) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    (key, pem)
}

pub(crate) fn credential(authority: &Authority, user: &str, groups: &[&str]) -> Credential {
    let (key, pem) = request();
    let request = CheckedRequest::from_pem(&pem).unwrap();
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    (
        authority
            .issue_client(&request, user, &groups, Duration::from_secs(3600))
            .unwrap(),
        key,
    )
}

pub(crate) async fn get(client: &reqwest::Client, url: String) -> (StatusCode, Value) {
    parts(within(client.get(url).send()).await.unwrap()).await
}

#[tokio::test]
async fn a_master_reads_what_anonymous_may_not() {
    let world = World::start().await;
    let base = serve(&world, ConnectionLimits::default()).await;
    let anonymous = client(&world.authority, None);
    let (status, refused) = get(&anonymous, format!("{base}/api/v1/pods")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \
         \"\" at the cluster scope"
    );
    assert_eq!(
        get(&anonymous, format!("{base}/livez")).await.0,
        StatusCode::OK
    );
    let admin = credential(&world.authority, "admin", &["team", "system:masters"]);
    let master = client(&world.authority, Some(admin));
    assert_eq!(
        get(&master, format!("{base}/api/v1/pods")).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn other_faces_are_told_a_connections_client_key_whoever_its_token_names() {
    let world = World::start().await;
    let told = |key: Option<Extension<ClientKey>>| async move {
        let key = key.map(|Extension(key)| (spki(&key.spki_sha256), key.subject.to_string()));
        Json(json!(key))
    };
    let others = Router::new().route("/key", axum::routing::get(told));
    let face = router_with(world.context.clone(), others);
    let base = serve_router(&world, ConnectionLimits::default(), face).await;
    let anonymous = client(&world.authority, None);
    let url = format!("{base}/key");
    assert_eq!(get(&anonymous, url.clone()).await.1, Value::Null);
    let kubelet = credential(&world.authority, "system:node:w1", &["system:nodes"]);
    let expected = spki_fingerprint(&kubelet.1.subject_public_key_info());
    let kubelet = client(&world.authority, Some(kubelet));
    assert_eq!(
        get(&kubelet, url).await.1,
        json!([expected, "system:node:w1"])
    );
}

fn spki(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_in_the_handshake() {
    let world = World::start().await;
    let base = serve(&world, ConnectionLimits::default()).await;
    let elsewhere = SoloKv::new(|| UnixMillis(1));
    let foreign = Authority::load_or_create(&elsewhere, "other")
        .await
        .unwrap();
    let intruder = credential(&foreign, "admin", &["system:masters"]);
    let client = client(&world.authority, Some(intruder));
    let error = within(client.get(format!("{base}/livez")).send())
        .await
        .unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("UnknownCA"), "{text}");
}

#[tokio::test]
async fn a_truncated_hello_is_dropped_and_the_face_lives_on() {
    let world = World::start().await;
    let limits = ConnectionLimits {
        handshake_timeout: Duration::from_millis(200),
        ..ConnectionLimits::default()
    };
    let base = serve(&world, limits).await;
    let mut stream = TcpStream::connect(base.trim_start_matches("https://"))
        .await
        .unwrap();
    // A record header that promises 512 bytes, and the first two of them.
    stream
        .write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00])
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    let client = client(&world.authority, None);
    assert_eq!(
        get(&client, format!("{base}/livez")).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let world = World::start().await;
    let base = serve(&world, ConnectionLimits::default()).await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(trust(&world.authority))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(base.trim_start_matches("https://"))
        .await
        .unwrap();
    let refused = connector
        .connect("127.0.0.1".try_into().unwrap(), stream)
        .await;
    assert!(refused.unwrap_err().to_string().contains("ProtocolVersion"));
}

#[tokio::test]
async fn a_pinned_operator_gets_a_certificate_bound_to_the_nonce() {
    let world = World::start().await;
    let base = serve(&world, ConnectionLimits::default()).await;
    let (key, pem) = request();
    let spki = CheckedRequest::from_pem(&pem).unwrap().spki_der().to_vec();
    let operator = Operator {
        spki_sha256: spki_fingerprint(&spki),
        user: "olga".into(),
        groups: vec!["system:masters".into()],
    };
    pin_operators(world.kv.as_ref(), &[operator]).await.unwrap();
    let body = json!({ "csr": pem, "nonce": "07".repeat(32) });
    let anonymous = client(&world.authority, None);
    let url = format!("{base}/nautilus/v1/credentials");
    let (status, answer) = parts(
        within(anonymous.post(url).json(&body).send())
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(text(&answer["ca"]), world.authority.certificate_pem());
    // The test's evidence is its report data, which begins with the nonce.
    assert!(text(&answer["evidence"]).starts_with("BwcHBwcH"));
    let pem = text(&answer["certificate"]);
    let certificate: CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
    let olga = client(&world.authority, Some((certificate, key)));
    assert_eq!(
        get(&olga, format!("{base}/api/v1/pods")).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_operator_says_how_long_a_certificate_is_valid() {
    let world = World::start().await;
    let (_, pem) = request();
    let spki = CheckedRequest::from_pem(&pem).unwrap().spki_der().to_vec();
    let operator = Operator {
        spki_sha256: spki_fingerprint(&spki),
        user: "olga".into(),
        groups: vec!["system:masters".into()],
    };
    pin_operators(world.kv.as_ref(), &[operator]).await.unwrap();
    let path = "/nautilus/v1/credentials";
    let asked =
        |seconds: u64| json!({ "csr": pem, "nonce": "07".repeat(32), "validity_seconds": seconds });
    let (status, answer) = world.call(reqwest::Method::POST, path, &asked(600)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let der: CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(text(&answer["certificate"]).as_bytes())
            .unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    let left = certificate.validity().time_to_expiration().unwrap();
    assert!((500..=600).contains(&left.whole_seconds()), "{left}");
    for seconds in [0, 59, 366 * 86_400] {
        let (status, answer) = world
            .call(reqwest::Method::POST, path, &asked(seconds))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert_eq!(answer["message"], "validity_seconds must be 60 to 31536000");
    }
}

#[tokio::test]
async fn an_unknown_key_gets_no_certificate() {
    let world = World::start().await;
    let (_, pem) = request();
    let body = json!({ "csr": pem, "nonce": "07".repeat(32) });
    let (status, answer) = world
        .call(reqwest::Method::POST, "/nautilus/v1/credentials", &body)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        text(&answer["message"]).contains("not pinned as an operator"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_ordinary_user_writes_nothing() {
    let jane = User::authenticated("jane", vec!["dev".into()]);
    let world = World::start_with(jane, RequestLimits::default()).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let object = json!({ "metadata": { "name": "settings" } });
    let (status, answer) = world.call(reqwest::Method::POST, path, &object).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        answer["message"],
        "configmaps is forbidden: User \"jane\" cannot create resource \"configmaps\" in API \
         group \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn the_whole_quorum_has_one_authority() {
    let kv = SoloKv::new(|| UnixMillis(1));
    let first = Authority::load_or_create(&kv, "test").await.unwrap();
    let second = Authority::load_or_create(&kv, "test").await.unwrap();
    assert_eq!(first.certificate_der(), second.certificate_der());
}

#[tokio::test]
async fn a_recovery_replaces_the_authority_once() {
    let kv = SoloKv::new(|| UnixMillis(1));
    let load = async || {
        let authority = Authority::load_or_create(&kv, "test").await.unwrap();
        authority.certificate_der().clone()
    };
    let before = load().await;
    let row = || ("/nautilus/recovery/done/1".to_owned(), b"{}".to_vec());
    let replace = async || {
        let replaced = Authority::replace(&kv, "test recovery 1", row()).await;
        replaced.unwrap();
    };
    replace().await;
    let after = load().await;
    assert_ne!(after, before);
    // What comes of asking again where the outcome was not known.
    replace().await;
    assert_eq!(load().await, after);
}
