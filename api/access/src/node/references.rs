//! What pods and volumes refer to by name.

use serde_json::Value;

/// The kinds that nodes read because pods refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Secret,
    ConfigMap,
    Claim,
    Account,
    ResourceClaim,
}

/// Sources of volumes with the path of the secret they name.
const VOLUME_SECRETS: [(&str, &str); 10] = [
    ("azureFile", "/secretName"),
    ("cephfs", "/secretRef/name"),
    ("cinder", "/secretRef/name"),
    ("flexVolume", "/secretRef/name"),
    ("rbd", "/secretRef/name"),
    ("secret", "/secretName"),
    ("scaleIO", "/secretRef/name"),
    ("iscsi", "/secretRef/name"),
    ("storageos", "/secretRef/name"),
    ("csi", "/nodePublishSecretRef/name"),
];
/// The same of persistent volumes, by the reference's own object.
const PERSISTENT_SECRETS: [(&str, &str); 10] = [
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("flexVolume", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("iscsi", "secretRef"),
    ("storageos", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("csi", "nodeStageSecretRef"),
    ("csi", "nodeExpandSecretRef"),
];

fn items<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    object[field].as_array().into_iter().flatten()
}

/// Everything that a pod names, in its own namespace; a name may come twice.
pub(super) fn of_pod(pod: &Value) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    let mut note = |kind: Kind, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            found.push((kind, name.to_owned()));
        }
    };
    let spec = &pod["spec"];
    note(Kind::Account, spec.get("serviceAccountName"));
    for secret in items(spec, "imagePullSecrets") {
        note(Kind::Secret, secret.get("name"));
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, list) {
            for variable in items(container, "env") {
                note(
                    Kind::Secret,
                    variable.pointer("/valueFrom/secretKeyRef/name"),
                );
                note(
                    Kind::ConfigMap,
                    variable.pointer("/valueFrom/configMapKeyRef/name"),
                );
            }
            for source in items(container, "envFrom") {
                note(Kind::Secret, source.pointer("/secretRef/name"));
                note(Kind::ConfigMap, source.pointer("/configMapRef/name"));
            }
        }
    }
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    for volume in items(spec, "volumes") {
        for (source, path) in VOLUME_SECRETS {
            note(Kind::Secret, volume[source].pointer(path));
        }
        note(Kind::ConfigMap, volume.pointer("/configMap/name"));
        note(
            Kind::Claim,
            volume.pointer("/persistentVolumeClaim/claimName"),
        );
        if volume
            .get("ephemeral")
            .is_some_and(|source| !source.is_null())
        {
            let own = format!("{pod_name}-{}", volume["name"].as_str().unwrap_or_default());
            note(Kind::Claim, Some(&own.into()));
        }
        for source in items(&volume["projected"], "sources") {
            note(Kind::Secret, source.pointer("/secret/name"));
            note(Kind::ConfigMap, source.pointer("/configMap/name"));
        }
    }
    for claim in items(spec, "resourceClaims") {
        note(Kind::ResourceClaim, claim.get("resourceClaimName"));
    }
    for claim in items(&pod["status"], "resourceClaimStatuses") {
        note(Kind::ResourceClaim, claim.get("resourceClaimName"));
    }
    note(
        Kind::ResourceClaim,
        pod.pointer("/status/extendedResourceClaimStatus/resourceClaimName"),
    );
    found
}

/// The claim of a persistent volume, and the secrets that kubelets read for it, by
/// namespace and name; nothing while it is not claimed.
pub(super) fn of_volume(volume: &Value) -> Option<(Place, Vec<Place>)> {
    let spec = &volume["spec"];
    let claim = &spec["claimRef"];
    let claim = (
        claim["namespace"].as_str()?.to_owned(),
        claim["name"].as_str()?.to_owned(),
    );
    let mut secrets = Vec::new();
    let mut note = |name: &Value, namespace: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            let namespace = namespace
                .as_str()
                .filter(|namespace| !namespace.is_empty())
                .unwrap_or(&claim.0);
            secrets.push((namespace.to_owned(), name.to_owned()));
        }
    };
    let azure = &spec["azureFile"];
    note(&azure["secretName"], &azure["secretNamespace"]);
    for (source, field) in PERSISTENT_SECRETS {
        let reference = &spec[source][field];
        note(&reference["name"], &reference["namespace"]);
    }
    Some((claim, secrets))
}

/// Namespace and name.
pub(super) type Place = (String, String);

/// Volumes of a mirror pod that need no API object; what else there is, is refused.
const HARMLESS_VOLUMES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// The kind of an API object that a pod needs, if it needs one.
pub(super) fn referenced(pod: &Value) -> Option<&'static str> {
    let found = of_pod(pod);
    let has = |kind: Kind| found.iter().any(|(own, _)| *own == kind);
    for (kind, plural) in [
        (Kind::Account, "serviceaccounts"),
        (Kind::Secret, "secrets"),
        (Kind::ConfigMap, "configmaps"),
    ] {
        if has(kind) {
            return Some(plural);
        }
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if !list(&pod["spec"]["resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    let volumes = list(&pod["spec"]["volumes"]);
    volumes.iter().find_map(|volume| {
        let set = |name: &str| volume.get(name).is_some_and(|source| !source.is_null());
        for (source, plural) in [
            ("configMap", "configmaps (via configmap volumes)"),
            ("secret", "secrets (via secret volumes)"),
            ("csi", "csidrivers (via CSI volumes)"),
            ("glusterfs", "endpoints (via glusterFS volumes)"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            (
                "ephemeral",
                "persistentvolumeclaims (via ephemeral volumes)",
            ),
            ("azureFile", "secrets (via azureFile volumes)"),
        ] {
            if set(source) {
                return Some(plural);
            }
        }
        if set("projected") {
            let sources = list(&volume["projected"]["sources"]);
            return sources.iter().find_map(projected);
        }
        let known = HARMLESS_VOLUMES.iter().any(|name| set(name));
        (!known).then_some("unknown volume types")
    })
}

fn projected(source: &Value) -> Option<&'static str> {
    for (name, plural) in [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        (
            "serviceAccountToken",
            "serviceaccounts (via projected volumes)",
        ),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ] {
        if source.get(name).is_some_and(|source| !source.is_null()) {
            return Some(plural);
        }
    }
    source
        .get("downwardAPI")
        .is_none()
        .then_some("unknown projected volume sources")
}
