//! Certificate requests from their creation to the certificate, bootstrap tokens, and
//! what a kubelet may do then.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, parts, text, within};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

struct Cluster {
    world: World,
    admin: String,
}

impl Cluster {
    /// A quorum of one that leads, with its controllers running.
    async fn start() -> Self {
        let world = World::start_with(User::anonymous(), RequestLimits::default()).await;
        world.kv.lead(1, true);
        let shutdown = world.shutdown.clone();
        tokio::spawn(nautilus_rest::run_controllers(
            world.context.clone(),
            6443,
            shutdown,
        ));
        let master = User::authenticated("admin", vec!["system:masters".into()]);
        let admin = world.serve_as(master).await;
        Self { world, admin }
    }

    async fn call(
        &self,
        base: &str,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let client = &self.world.client;
        let mut request = client.request(method, format!("{base}{path}")).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        parts(within(request.send()).await.unwrap()).await
    }

    async fn admin(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        self.call(&self.admin, None, method, path, body).await
    }

    async fn create(&self, path: &str, body: &Value) {
        let (status, answer) = self.admin(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }

    /// Reads until `wanted` gives something.
    async fn until<T>(&self, path: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        within(async {
            loop {
                let (_, object) = self.admin(Method::GET, path, &Value::Null).await;
                if let Some(found) = wanted(&object) {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

fn request(name: &str, organizations: &[&str], signer: &str, usages: &[&str]) -> Value {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    for organization in organizations {
        params
            .distinguished_name
            .push(DnType::OrganizationName, *organization);
    }
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": "asked" },
        "spec": {
            "request": STANDARD.encode(pem), "signerName": signer, "usages": usages,
            "expirationSeconds": 3600,
        },
    })
}

fn certificate(object: &Value) -> Option<Vec<u8>> {
    let pem = STANDARD
        .decode(object["status"]["certificate"].as_str()?)
        .unwrap();
    let der: rustls::pki_types::CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    Some(der.to_vec())
}

#[tokio::test]
async fn an_approved_request_is_signed() {
    let cluster = Cluster::start().await;
    let usages = ["digital signature", "client auth"];
    let asked = request(
        "jane",
        &["dev"],
        "kubernetes.io/kube-apiserver-client",
        &usages,
    );
    cluster.create(REQUESTS, &asked).await;
    let path = format!("{REQUESTS}/asked");
    let (_, mut object) = cluster.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(object["spec"]["username"], "admin");
    object["status"]["conditions"] = json!([{
        "type": "Approved", "status": "True", "reason": "Because", "message": "",
    }]);
    let (status, approved) = cluster
        .admin(Method::PUT, &format!("{path}/approval"), &object)
        .await;
    assert_eq!(status, StatusCode::OK, "{approved}");
    let der = cluster.until(&path, certificate).await;
    let user = User::of_certificate(&der);
    assert_eq!((user.name.as_str(), user.in_group("dev")), ("jane", true));
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let left = parsed.validity().time_to_expiration().unwrap();
    assert!((3000..=3600).contains(&left.whole_seconds()), "{left}");
}

#[tokio::test]
async fn what_a_signer_does_not_take_fails_for_good() {
    let cluster = Cluster::start().await;
    let asked = request(
        "jane",
        &[],
        "kubernetes.io/kube-apiserver-client",
        &["server auth"],
    );
    cluster.create(REQUESTS, &asked).await;
    let path = format!("{REQUESTS}/asked");
    let (_, mut object) = cluster.admin(Method::GET, &path, &Value::Null).await;
    object["status"]["conditions"] =
        json!([{ "type": "Approved", "status": "True", "reason": "Because" }]);
    let approval = format!("{path}/approval");
    cluster.admin(Method::PUT, &approval, &object).await;
    let why = cluster
        .until(&path, |object| {
            let conditions = object["status"]["conditions"].as_array()?;
            let failed = conditions.iter().find(|one| one["type"] == "Failed")?;
            Some(text(&failed["message"]))
        })
        .await;
    assert_eq!(why, "invalid usage for client certificate: server auth");
    let masters = request(
        "jane",
        &["system:masters"],
        "kubernetes.io/kube-apiserver-client",
        &["client auth"],
    );
    let (status, refused) = cluster.admin(Method::POST, REQUESTS, &masters).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
}

#[tokio::test]
async fn a_kubelet_joins_by_a_bootstrap_token_and_is_held_to_its_own() {
    let cluster = Cluster::start().await;
    let encode = |text: &str| STANDARD.encode(text);
    let secret = json!({
        "metadata": { "name": "bootstrap-token-abcdef", "namespace": "kube-system" },
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"),
            "usage-bootstrap-signing": encode("true"),
        },
    });
    cluster
        .create("/api/v1/namespaces/kube-system/secrets", &secret)
        .await;
    for (name, role) in [
        ("bootstrap", "system:node-bootstrapper"),
        (
            "approve",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        ),
    ] {
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "Group", "apiGroup": group, "name": "system:bootstrappers" }],
        });
        cluster
            .create(&format!("{RBAC}/clusterrolebindings"), &binding)
            .await;
    }
    let token = Some("abcdef.0123456789abcdef");
    let usages = ["digital signature", "client auth"];
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let asked = request("system:node:n1", &["system:nodes"], signer, &usages);
    let base = cluster.world.base.clone();
    let (status, made) = within(async {
        loop {
            let answer = cluster
                .call(&base, token, Method::POST, REQUESTS, &asked)
                .await;
            // The bindings reach the node in their own time.
            if answer.0 != StatusCode::FORBIDDEN {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["username"], "system:bootstrap:abcdef");
    let path = format!("{REQUESTS}/asked");
    let der = cluster.until(&path, certificate).await;
    let kubelet = User::of_certificate(&der);
    let node = cluster.world.serve_as(kubelet).await;
    let own = json!({ "metadata": { "name": "n1" } });
    let (status, made) = cluster
        .call(&node, None, Method::POST, "/api/v1/nodes", &own)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let other = json!({ "metadata": { "name": "n2" } });
    let (status, refused) = cluster
        .call(&node, None, Method::POST, "/api/v1/nodes", &other)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    assert_eq!(
        refused["message"],
        "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\""
    );
    let get = |path: &'static str| cluster.call(&node, None, Method::GET, path, &Value::Null);
    let (status, refused) = get("/api/v1/namespaces/default/secrets/other").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    assert!(
        text(&refused["message"])
            .ends_with("no relationship found between node 'n1' and this object")
    );
    let (status, pods) = get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await;
    assert_eq!(status, StatusCode::OK, "{pods}");
    // What joining nodes are told is signed with the token.
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let signed = cluster
        .until(path, |map| {
            map["data"]["jws-kubeconfig-abcdef"]
                .as_str()
                .map(str::to_owned)
        })
        .await;
    assert!(signed.contains(".."), "{signed}");
}

#[tokio::test]
async fn a_secret_that_asks_for_a_token_gets_one_that_counts() {
    let cluster = Cluster::start().await;
    let secret = json!({
        "metadata": {
            "name": "of-default",
            "annotations": { "kubernetes.io/service-account.name": "default" },
        },
        "type": "kubernetes.io/service-account-token",
    });
    cluster
        .create("/api/v1/namespaces/default/secrets", &secret)
        .await;
    let path = "/api/v1/namespaces/default/secrets/of-default";
    let token = cluster
        .until(path, |secret| {
            secret["data"]["token"].as_str().map(str::to_owned)
        })
        .await;
    let token = String::from_utf8(STANDARD.decode(token).unwrap()).unwrap();
    let base = cluster.world.base.clone();
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = || cluster.call(&base, Some(&token), Method::POST, reviews, &review);
    let (status, answer) = ask().await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let user = &answer["status"]["userInfo"]["username"];
    assert_eq!(user, "system:serviceaccount:default:default");
    cluster.admin(Method::DELETE, path, &json!({})).await;
    assert_eq!(ask().await.0, StatusCode::UNAUTHORIZED);
    let path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
    let ca = cluster
        .until(path, |map| {
            map["data"]["ca.crt"].as_str().map(str::to_owned)
        })
        .await;
    assert_eq!(ca, cluster.world.authority.certificate_pem());
}
