//! What kubectl's users hear from admission.

use nautilus_tests::{Quorum, eventually};

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: strict
  labels:
    pod-security.kubernetes.io/enforce: baseline
";

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: NAME
  namespace: SPACE
spec:
  hostNetwork: HOST
  containers:
  - name: c
    image: registry.k8s.io/pause:3.10
";

const QUOTA: &str = "
apiVersion: v1
kind: ResourceQuota
metadata:
  name: one
  namespace: small
spec:
  hard:
    pods: '1'
";

const POLICY: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: no-tmp
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - apiGroups: ['']
      apiVersions: ['v1']
      operations: ['CREATE']
      resources: ['configmaps']
  validations:
  - expression: \"!object.metadata.name.startsWith('tmp-')\"
    messageExpression: \"'not ' + object.metadata.name\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: no-tmp
spec:
  policyName: no-tmp
  validationActions: ['Deny']
";

fn pod(name: &str, namespace: &str, host: bool) -> String {
    let host = if host { "true" } else { "false" };
    POD.replace("NAME", name)
        .replace("SPACE", namespace)
        .replace("HOST", host)
}

fn refused(quorum: &Quorum, manifest: &str) -> String {
    let output = quorum.kubectl_with_input(&["create", "-f", "-"], manifest);
    assert!(!output.status.success(), "it was created");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn created(quorum: &Quorum, manifest: &str) {
    let output = quorum.kubectl_with_input(&["create", "-f", "-"], manifest);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

#[test]
fn refusals_and_warnings_read_as_kube_apiserver_s() {
    let quorum = Quorum::start();
    created(&quorum, NAMESPACE);
    assert_eq!(
        refused(&quorum, &pod("host", "strict", true)),
        "Error from server (Forbidden): error when creating \"STDIN\": pods \"host\" is forbidden: \
         violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    quorum.kubectl_ok(&["create", "namespace", "small"]);
    created(&quorum, &pod("host", "small", true));
    let label = [
        "label",
        "namespace",
        "small",
        "pod-security.kubernetes.io/enforce=baseline",
    ];
    let labelled = quorum.kubectl(&label);
    assert_eq!(
        String::from_utf8_lossy(&labelled.stderr).trim(),
        "Warning: existing pods in namespace \"small\" violate the new PodSecurity enforce level \
         \"baseline:latest\"\nWarning: host: host namespaces"
    );
    created(&quorum, QUOTA);
    eventually("the quota is counted", || {
        let path = "jsonpath={.status.used.pods}";
        let used = quorum.kubectl_ok(&["get", "quota", "one", "-n", "small", "-o", path]);
        (used.trim() == "1").then_some(()).ok_or(used)
    });
    assert_eq!(
        refused(&quorum, &pod("more", "small", false)),
        "Error from server (Forbidden): error when creating \"STDIN\": pods \"more\" is forbidden: \
         exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1"
    );
    created(&quorum, POLICY);
    let denied = eventually("the policy is in force", || {
        let output = quorum.kubectl(&["create", "configmap", "tmp-a", "--dry-run=server"]);
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() {
            Err("it was created".to_owned())
        } else {
            Ok(said)
        }
    });
    assert_eq!(
        denied,
        "error: failed to create configmap: configmaps \"tmp-a\" is forbidden: \
         ValidatingAdmissionPolicy 'no-tmp' with binding 'no-tmp' denied request: not tmp-a"
    );
}
