//! ServiceAccount: every pod runs as an account, and finds that account's token where
//! clients look for it.

use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::values::{items, list_at, text};

/// The account of pods that name none.
pub const DEFAULT_ACCOUNT: &str = "default";
/// Where the token is mounted.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The token's volume is called this and some letters.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Seconds of a mounted token: an hour, and seven that tell it from what users ask for.
const TOKEN_SECONDS: u32 = 3607;
/// Accounts so annotated allow the secrets they list only.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether pods come in.
pub fn handles(asked: &Attributes<'_>) -> bool {
    asked.operation == Operation::Create && asked.is("", "pods")
        || asked.operation == Operation::Update && asked.is_sub("", "pods", "ephemeralcontainers")
}

/// The account the pod runs as, for mutation: the one named, or the default one. `None`
/// for a mirror of a pod that a node runs by itself.
pub fn account_of(pod: &Value) -> Option<&str> {
    if is_mirror(pod) {
        return None;
    }
    match text(&pod["spec"]["serviceAccountName"]) {
        "" => Some(DEFAULT_ACCOUNT),
        name => Some(name),
    }
}

fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR].is_null()
}

/// 403: there is no such account.
pub fn missing(asked: &Attributes<'_>, pod: &Value, account: &str) -> ApiError {
    let namespace = asked.namespace.unwrap_or_default();
    let why = format!(
        "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not \
         found"
    );
    asked.forbidden(Some(pod), &why)
}

/// Gives a new pod its account, the account's token and pull secrets. `suffix`: letters
/// for the volume's name.
pub fn mutate(pod: &mut Value, account: &Value, suffix: &str) {
    if text(&pod["spec"]["serviceAccountName"]).is_empty() {
        pod["spec"]["serviceAccountName"] = json!(DEFAULT_ACCOUNT);
        pod["spec"]["serviceAccount"] = json!(DEFAULT_ACCOUNT);
    }
    let automount = |object: &Value| object["automountServiceAccountToken"].as_bool();
    if automount(&pod["spec"])
        .or_else(|| automount(account))
        .unwrap_or(true)
    {
        mount_token(pod, suffix);
    }
    if items(&pod["spec"]["imagePullSecrets"]).next().is_none() {
        let names: Vec<Value> = items(&account["imagePullSecrets"])
            .map(|secret| json!({"name": secret["name"]}))
            .collect();
        if !names.is_empty() {
            pod["spec"]["imagePullSecrets"] = json!(names);
        }
    }
}

fn mount_token(pod: &mut Value, suffix: &str) {
    let existing = items(&pod["spec"]["volumes"])
        .map(|volume| text(&volume["name"]))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let there =
                items(&container["volumeMounts"]).any(|mount| mount["mountPath"] == MOUNT_PATH);
            if !there {
                list_at(container, "volumeMounts").push(json!({
                    "name": name, "readOnly": true, "mountPath": MOUNT_PATH,
                }));
                mounted = true;
            }
        }
    }
    if mounted && !has_volume {
        list_at(&mut pod["spec"], "volumes").push(json!({
            "name": name,
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                    {"configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }},
                    {"downwardAPI": {"items": [{
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }]}},
                ],
                "defaultMode": 0o644,
            },
        }));
    }
}

/// What a mirror of a node's own pod may not refer to.
fn check_mirror(asked: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    let refuse = |why: &str| Err(asked.forbidden(Some(pod), why));
    if !text(&pod["spec"]["serviceAccountName"]).is_empty() {
        return refuse("a mirror pod may not reference service accounts");
    }
    let volumes = || items(&pod["spec"]["volumes"]);
    let sources = || volumes().flat_map(|volume| items(&volume["projected"]["sources"]));
    let secrets = !all_secrets(pod).is_empty()
        || items(&pod["spec"]["imagePullSecrets"]).next().is_some()
        || volumes().any(|volume| !volume["secret"].is_null())
        || sources().any(|source| !source["secret"].is_null());
    if secrets {
        return refuse("a mirror pod may not reference secrets");
    }
    if sources().any(|source| !source["serviceAccountToken"].is_null()) {
        return refuse("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Refuses a pod without an account, and secrets its account does not list where the
/// account says so. `account` is the named one, looked up.
pub fn validate(
    asked: &Attributes<'_>,
    pod: &Value,
    account: Option<&Value>,
) -> Result<(), ApiError> {
    if is_mirror(pod) && asked.operation == Operation::Create {
        return check_mirror(asked, pod);
    }
    let named = text(&pod["spec"]["serviceAccountName"]);
    if named.is_empty() {
        let (namespace, name) = (
            asked.namespace.unwrap_or_default(),
            text(&pod["metadata"]["name"]),
        );
        let why = format!("no service account specified for pod {namespace}/{name}");
        return Err(asked.forbidden(Some(pod), &why));
    }
    let Some(account) = account else {
        return Err(missing(asked, pod, named));
    };
    let enforced = matches!(
        text(&account["metadata"]["annotations"][ENFORCE]),
        "1" | "t" | "T" | "TRUE" | "true" | "True"
    );
    if !enforced {
        return Ok(());
    }
    match unlisted_secret(asked, pod, account) {
        Some(why) => Err(asked.forbidden(Some(pod), &why)),
        None => Ok(()),
    }
}

/// A secret that a container takes its environment from.
struct SecretUse<'a> {
    kind: &'static str,
    container: &'a str,
    /// The variable; `None` for all of the secret.
    variable: Option<&'a str>,
    secret: &'a str,
}

fn all_secrets(pod: &Value) -> Vec<SecretUse<'_>> {
    let mut uses = Vec::new();
    for (list, kind) in [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ] {
        for container in items(&pod["spec"][list]) {
            let name = text(&container["name"]);
            for variable in items(&container["env"]) {
                let reference = &variable["valueFrom"]["secretKeyRef"];
                if !reference.is_null() {
                    uses.push(SecretUse {
                        kind,
                        container: name,
                        variable: Some(text(&variable["name"])),
                        secret: text(&reference["name"]),
                    });
                }
            }
            for from in items(&container["envFrom"]) {
                if !from["secretRef"].is_null() {
                    uses.push(SecretUse {
                        kind,
                        container: name,
                        variable: None,
                        secret: text(&from["secretRef"]["name"]),
                    });
                }
            }
        }
    }
    uses
}

fn unlisted_secret(asked: &Attributes<'_>, pod: &Value, account: &Value) -> Option<String> {
    let called = text(&account["metadata"]["name"]);
    let listed = |secret: &str| items(&account["secrets"]).any(|own| own["name"] == secret);
    let unlisted = format!("is not allowed because service account {called} does not reference");
    let new = asked.operation == Operation::Create;
    if new {
        for volume in items(&pod["spec"]["volumes"]) {
            let secret = text(&volume["secret"]["secretName"]);
            if !volume["secret"].is_null() && !listed(secret) {
                return Some(format!(
                    "volume with secret.secretName=\"{secret}\" {unlisted} that secret"
                ));
            }
        }
    }
    for used in all_secrets(pod) {
        let looked_at = new != (used.kind == "ephemeral container");
        if looked_at && !listed(used.secret) {
            let how = match used.variable {
                Some(variable) => format!("envVar {variable}"),
                None => "envFrom".to_owned(),
            };
            return Some(format!(
                "{} {} with {how} referencing secret.secretName=\"{}\" {unlisted} that secret",
                used.kind, used.container, used.secret
            ));
        }
    }
    if new {
        for (index, secret) in items(&pod["spec"]["imagePullSecrets"]).enumerate() {
            let name = text(&secret["name"]);
            if !items(&account["imagePullSecrets"]).any(|own| own["name"] == name) {
                return Some(format!(
                    "imagePullSecrets[{index}].name=\"{name}\" {unlisted} that imagePullSecret"
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_its_token_where_clients_look_and_only_once() {
        let account = json!({"imagePullSecrets": [{"name": "pull"}]});
        let mut pod = json!({"spec": {"containers": [{"name": "c"}, {"name": "d"}]}});
        mutate(&mut pod, &account, "abcde");
        let once = pod.clone();
        mutate(&mut pod, &account, "fghij");
        assert_eq!(pod, once);
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        assert_eq!(pod["spec"]["volumes"][0]["name"], "kube-api-access-abcde");
        assert_eq!(
            pod["spec"]["containers"][1]["volumeMounts"][0]["mountPath"],
            MOUNT_PATH
        );
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    }

    #[test]
    fn an_account_may_keep_its_token_to_itself_and_a_pod_may_ask_for_it_all_the_same() {
        let account = json!({"automountServiceAccountToken": false});
        let mut pod = json!({"spec": {"containers": [{"name": "c"}]}});
        mutate(&mut pod, &account, "abcde");
        assert!(pod["spec"]["volumes"].is_null());
        pod["spec"]["automountServiceAccountToken"] = json!(true);
        mutate(&mut pod, &account, "abcde");
        assert!(pod["spec"]["volumes"].is_array());
    }
}
