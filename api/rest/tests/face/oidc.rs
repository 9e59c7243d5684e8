//! Tokens of another issuer, whose keys are fetched over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nautilus_machinery::identity::User;
use nautilus_rest::{RequestLimits, read_authentication};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use reqwest::{Method, StatusCode};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::world::{World, parts, provider, within};

/// An issuer that serves its documents.
struct Issuer {
    url: String,
    ca: String,
    key: KeyPair,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let serving = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&serving).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(serving.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("https://localhost:{port}");
        let fetches = Arc::new(AtomicUsize::new(0));
        let documents = (url.clone(), jwks(&key), fetches.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let (url, jwks, fetches) = &documents;
                let body = if head.starts_with("GET /.well-known/openid-configuration ") {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string()
                } else {
                    jwks.to_string()
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: \
                     close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            url,
            ca: certificate.pem(),
            key,
            fetches,
        }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid.to_owned());
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.url, "aud": "kubernetes", "sub": "jane", "groups": ["dev"],
            "exp": 4_000_000_000_u64,
        })
    }
}

fn jwks(key: &KeyPair) -> Value {
    use base64::Engine as _;
    let point = key.public_key_raw();
    let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    json!({ "keys": [
        { "kty": "unheard-of", "kid": "odd" },
        { "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one",
          "x": part(&point[1..33]), "y": part(&point[33..65]) },
    ] })
}

async fn whoami(world: &World, token: &str) -> (StatusCode, Value) {
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let request = world
        .client
        .request(Method::POST, format!("{}{path}", world.base))
        .bearer_auth(token)
        .json(&review);
    parts(within(request.send()).await.unwrap()).await
}

#[tokio::test]
async fn a_configured_issuers_token_makes_a_user() {
    let issuer = Issuer::start().await;
    let configuration = read_authentication(
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": { "url": issuer.url, "audiences": ["kubernetes"],
                            "certificateAuthority": issuer.ca },
                "claimMappings": {
                    "username": { "expression": "'idp:' + claims.sub" },
                    "groups": { "claim": "groups", "prefix": "" },
                },
            }],
            "anonymous": { "enabled": true, "conditions": [{ "path": "/livez" }] },
        }),
        &[],
    )
    .unwrap();
    let limits = RequestLimits::default();
    let world = World::start_configured(User::anonymous(), limits, |facts| {
        facts.authentication = Some(configuration);
    })
    .await;
    let (status, answer) = whoami(&world, &issuer.token("one", &issuer.claims())).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], "idp:jane");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    // Keys that are not there are not asked for again and again.
    for _ in 0..3 {
        let unknown = issuer.token("two", &issuer.claims());
        assert_eq!(whoami(&world, &unknown).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
    let mut others = issuer.claims();
    others["aud"] = "vault".into();
    let token = issuer.token("one", &others);
    assert_eq!(whoami(&world, &token).await.0, StatusCode::UNAUTHORIZED);
    let mut forger = Issuer::start().await;
    forger.url.clone_from(&issuer.url);
    let forged = forger.token("one", &issuer.claims());
    assert_eq!(whoami(&world, &forged).await.0, StatusCode::UNAUTHORIZED);
    // And who brings nothing goes where the configuration says.
    assert_eq!(world.get("/livez").await.0, StatusCode::OK);
    assert_eq!(world.get("/version").await.0, StatusCode::UNAUTHORIZED);
}
