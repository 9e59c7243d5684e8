//! An unmodified kubectl against the quorum: who may do what, tokens, impersonation and
//! certificates; the bootstrap roles are those of the reference.

use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nautilus_tests::{Quorum, eventually};
use rcgen::{CertificateParams, DnType, KeyPair};

/// kubectl with a token alone.
fn with_token(quorum: &Quorum, token: &str, arguments: &[&str]) -> Output {
    let server = quorum.server();
    let folder = tempfile::tempdir().expect("a folder");
    let ca = quorum.dir().join("ca.crt");
    std::process::Command::new(nautilus_tests::program("kubectl"))
        .args(["--kubeconfig", "/dev/null", "--server", &server])
        .arg("--certificate-authority")
        .arg(ca)
        .arg("--cache-dir")
        .arg(folder.path())
        .args(["--token", token])
        .args(arguments)
        .output()
        .expect("kubectl")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn kubectl_asks_who_it_is_and_what_it_may() {
    let quorum = Quorum::start();
    let whoami = quorum.kubectl_ok(&["auth", "whoami"]);
    assert!(whoami.contains("system:masters"), "{whoami}");
    let may = quorum.kubectl_ok(&["auth", "can-i", "delete", "nodes"]);
    assert_eq!(may.trim(), "yes");

    // An account, its token, and what a role gives it.
    quorum.kubectl_ok(&["create", "serviceaccount", "robot"]);
    let token = quorum.kubectl_ok(&["create", "token", "robot", "--duration", "20m"]);
    let token = token.trim();
    let whoami = with_token(&quorum, token, &["auth", "whoami", "-o", "yaml"]);
    let whoami = text(&whoami.stdout) + &text(&whoami.stderr);
    assert!(
        whoami.contains("username: system:serviceaccount:default:robot"),
        "{whoami}"
    );
    let refused = with_token(&quorum, token, &["get", "pods"]);
    assert_eq!(
        text(&refused.stderr).trim(),
        "Error from server (Forbidden): pods is forbidden: User \
         \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \"\" \
         in the namespace \"default\""
    );
    quorum.kubectl_ok(&[
        "create",
        "rolebinding",
        "robot-views",
        "--clusterrole=view",
        "--serviceaccount=default:robot",
    ]);
    eventually("the role counts on every node", || {
        let output = with_token(&quorum, token, &["get", "pods"]);
        output
            .status
            .success()
            .then_some(())
            .ok_or(text(&output.stderr))
    });
    let list = with_token(&quorum, token, &["auth", "can-i", "--list"]);
    let list = text(&list.stdout);
    assert!(list.contains("configmaps"), "{list}");
    let secrets = with_token(&quorum, token, &["auth", "can-i", "get", "secrets"]);
    assert_eq!(text(&secrets.stdout).trim(), "no");
    let granting = with_token(
        &quorum,
        token,
        &[
            "create",
            "rolebinding",
            "more",
            "--clusterrole=admin",
            "--user=robot",
        ],
    );
    assert!(
        text(&granting.stderr).contains("is forbidden"),
        "{}",
        text(&granting.stderr)
    );

    // As somebody else.
    let whoami = quorum.kubectl_ok(&[
        "auth",
        "whoami",
        "--as",
        "jane",
        "--as-group",
        "dev",
        "-o",
        "yaml",
    ]);
    assert!(
        whoami.contains("username: jane") && whoami.contains("- dev"),
        "{whoami}"
    );
    let as_jane = quorum.kubectl(&["get", "nodes", "--as", "jane"]);
    assert!(text(&as_jane.stderr).contains("User \"jane\" cannot list resource \"nodes\""));
    let checked = quorum.kubectl(&["auth", "can-i", "list", "nodes", "--as", "jane"]);
    assert_eq!(text(&checked.stdout).trim(), "no");

    // Roles by hand, brought by reconcile.
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: \
                hand\nrules:\n- apiGroups: [\"\"]\n  resources: [nodes]\n  verbs: [list]\n";
    let reconciled = quorum.kubectl_with_input(&["auth", "reconcile", "-f", "-"], role);
    assert!(reconciled.status.success(), "{}", text(&reconciled.stderr));
}

#[test]
fn kubectl_approves_a_certificate_that_then_serves() {
    let quorum = Quorum::start();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "dev");
    let request = params.serialize_request(&key).expect("a request");
    let request = request.pem().expect("PEM");
    let object = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata:\n  name: \
         jane\nspec:\n  request: {}\n  signerName: kubernetes.io/kube-apiserver-client\n  \
         expirationSeconds: 86400\n  usages: [client auth]\n",
        STANDARD.encode(request)
    );
    let created = quorum.kubectl_with_input(&["create", "-f", "-"], &object);
    assert!(created.status.success(), "{}", text(&created.stderr));
    let listed = quorum.kubectl_ok(&["get", "csr"]);
    assert!(listed.contains("Pending"), "{listed}");
    quorum.kubectl_ok(&["certificate", "approve", "jane"]);
    let certificate = eventually("the certificate", || {
        let path = "jsonpath={.status.certificate}";
        let found = quorum.kubectl_ok(&["get", "csr", "jane", "-o", path]);
        Some(found)
            .filter(|found| !found.is_empty())
            .ok_or("not signed".into())
    });
    let listed = quorum.kubectl_ok(&["get", "csr"]);
    assert!(listed.contains("Approved,Issued"), "{listed}");
    let folder = tempfile::tempdir().expect("a folder");
    let (crt, private) = (folder.path().join("crt"), folder.path().join("key"));
    std::fs::write(&crt, STANDARD.decode(certificate).expect("base64")).expect("written");
    std::fs::write(&private, key.serialize_pem()).expect("written");
    let server = quorum.server();
    let output = std::process::Command::new(nautilus_tests::program("kubectl"))
        .args(["--kubeconfig", "/dev/null", "--server", &server])
        .arg("--certificate-authority")
        .arg(quorum.dir().join("ca.crt"))
        .arg("--client-certificate")
        .arg(&crt)
        .arg("--client-key")
        .arg(&private)
        .arg("--cache-dir")
        .arg(folder.path().join("cache"))
        .args(["auth", "whoami", "-o", "yaml"])
        .output()
        .expect("kubectl");
    let whoami = text(&output.stdout) + &text(&output.stderr);
    assert!(
        whoami.contains("username: jane") && whoami.contains("- dev"),
        "{whoami}"
    );
    quorum.kubectl_ok(&["delete", "csr", "jane"]);
}
