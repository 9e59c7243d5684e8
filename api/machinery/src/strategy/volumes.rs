//! Persistent volumes and the claims to them.
//!
//! Source: `pkg/apis/core`, `pkg/registry/core/persistentvolume*` of v1.37.

use serde_json::{Map, Value, json};

use super::defaults::{object_mut, set_default};
use super::pod::source::{self, Owner, needed};
use super::rules::{PLAIN, Rules};
use super::warnings::{Warnings, claim_resources, deprecated_node_label};
use super::{Context, claim, difference, internal, pod, resources};
use crate::validation::{At, Errors, dns_subdomain, qualified_name};

const IMMUTABLE: &str = "field is immutable";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Persistent volumes.
pub(crate) static PERSISTENT_VOLUME: Rules = Rules {
    has_status: true,
    default: default_volume,
    prepare_create: |object, context| {
        object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": context.now});
    },
    validate: |at, errors| volume_spec(&at.get("spec"), at.get("metadata").str("name"), errors),
    validate_update: volume_update,
    warn: warn_volume,
    ..PLAIN
};

/// Claims to volumes.
pub(crate) static CLAIM: Rules = Rules {
    has_status: true,
    default: default_claim,
    prepare_create: prepare_claim,
    prepare_update: |_, _, claim| normal_source(&mut claim["spec"]),
    validate: |at, errors| claim::spec(&at.get("spec"), errors),
    validate_update: claim_update,
    validate_subresource: claim_status,
    warn: |_, at, warnings| {
        let notes = at.get("metadata.annotations");
        if notes.has(BETA_CLASS) {
            let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
            warnings.add(&notes.key(BETA_CLASS), why);
        }
        claim_resources(&at.get("spec.resources"), warnings);
    },
    ..PLAIN
};

fn default_volume(object: &mut Value) {
    if let Some(spec) = object["spec"].as_object_mut() {
        set_default(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
        set_default(spec, "volumeMode", json!("Filesystem"));
        if let Some(path) = object_mut(spec, "hostPath") {
            set_default(path, "type", json!(""));
        }
        if let Some(disk) = object_mut(spec, "azureDisk") {
            pod::defaults::azure_disk(disk);
        }
        pod::defaults::round_list(spec.get_mut("capacity"));
    }
    if let Some(map) = object.as_object_mut()
        && let Some(status) = super::defaults::made(map, "status")
    {
        set_default(status, "phase", json!("Pending"));
    }
}

fn default_claim(object: &mut Value) {
    pod::defaults::claim_spec(&mut object["spec"]);
    if let Some(map) = object.as_object_mut()
        && let Some(status) = super::defaults::made(map, "status")
    {
        set_default(status, "phase", json!("Pending"));
    }
}

fn prepare_claim(claim: &mut Value, _: &Context<'_>) {
    claim["status"] = json!({"phase": "Pending"});
    normal_source(&mut claim["spec"]);
}

/// What a claim is filled from is named by both fields, where the older one can.
fn normal_source(spec: &mut Value) {
    let (old, new) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    let elsewhere = new["namespace"].as_str().is_some_and(|own| !own.is_empty());
    if !old.is_null() && new.is_null() {
        let known = match old["apiGroup"].as_str().unwrap_or_default() {
            "" => old["kind"] == "PersistentVolumeClaim",
            group => group == "snapshot.storage.k8s.io" && old["kind"] == "VolumeSnapshot",
        };
        if known {
            spec["dataSourceRef"] = old;
        } else {
            spec["dataSource"] = Value::Null;
        }
    } else if !new.is_null() && old.is_null() && !elsewhere {
        spec["dataSource"] = json!({
            "apiGroup": new["apiGroup"], "kind": new["kind"], "name": new["name"],
        });
    }
}

type Check = fn(&At<'_>, &str, &mut Errors);

/// In the order the reference looks at them: field, where its errors stand, as one too many.
const SOURCES: &[(&str, &str, &str, Check)] = &[
    ("hostPath", "hostPath", "hostPath", |at, _, e| {
        source::host_path(at, e);
    }),
    (
        "gcePersistentDisk",
        "persistentDisk",
        "gcePersistentDisk",
        |at, _, e| source::partitioned(at, "pdName", e),
    ),
    (
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        |at, _, e| source::partitioned(at, "volumeID", e),
    ),
    ("glusterfs", "glusterfs", "glusterfs", |at, _, e| {
        source::glusterfs(at, Owner::PersistentVolume, e);
    }),
    ("flocker", "flocker", "flocker", |at, _, e| {
        source::flocker(at, e);
    }),
    ("nfs", "nfs", "nfs", |at, _, e| source::nfs(at, e)),
    ("rbd", "rbd", "rbd", |at, _, e| {
        needed(at, &["monitors", "image"], e);
    }),
    ("quobyte", "quobyte", "quobyte", |at, _, e| {
        source::quobyte(at, e);
    }),
    ("cephfs", "cephfs", "cephFS", |at, _, e| {
        needed(at, &["monitors"], e);
    }),
    ("iscsi", "iscsi", "iscsi", |at, name, e| {
        source::iscsi(at, Owner::PersistentVolume, name, e);
    }),
    ("cinder", "cinder", "cinder", |at, _, e| {
        source::cinder(at, Owner::PersistentVolume, e);
    }),
    ("fc", "fc", "fc", |at, _, e| source::fibre_channel(at, e)),
    ("flexVolume", "flexVolume", "", |at, _, e| {
        source::flex(at, e);
    }),
    ("azureFile", "azureFile", "azureFile", |at, _, e| {
        source::azure_file(at, Owner::PersistentVolume, e);
    }),
    (
        "vsphereVolume",
        "vsphereVolume",
        "vsphereVolume",
        |at, _, e| {
            needed(at, &["volumePath"], e);
        },
    ),
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "photonPersistentDisk",
        |at, _, e| needed(at, &["pdID"], e),
    ),
    (
        "portworxVolume",
        "portworxVolume",
        "portworxVolume",
        |at, _, e| {
            needed(at, &["volumeID"], e);
        },
    ),
    ("azureDisk", "azureDisk", "azureDisk", |at, _, e| {
        source::azure_disk(at, e);
    }),
    ("scaleIO", "scaleIO", "scaleIO", |at, _, e| {
        needed(at, &["gateway", "system", "volumeName"], e);
    }),
    ("local", "local", "local", |at, _, e| source::local(at, e)),
    ("storageos", "storageos", "storageos", |at, _, e| {
        source::storage_os(at, Owner::PersistentVolume, e);
    }),
    ("csi", "csi", "csi", |at, _, e| {
        source::csi_persistent(at, e);
    }),
];

fn volume_spec(at: &At<'_>, name: &str, errors: &mut Errors) {
    at.get("accessModes").need(errors);
    claim::access_modes(&at.get("accessModes"), errors);
    capacity(&at.get("capacity"), errors);
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = at.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(errors, &policies);
    }
    let affinity = at.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_null() {
            required.required(errors, "must specify required node constraints");
        } else {
            pod::node_selector(&required, errors);
        }
    }
    let mut count = 0;
    for (field, path, extra, check) in SOURCES.iter().filter(|own| at.has(own.0)) {
        count += 1;
        if count > 1 && !extra.is_empty() {
            let detail = "may not specify more than 1 volume type";
            at.get(extra).forbidden(errors, detail);
            continue;
        }
        check(&at.get(field).named(path), name, errors);
        if *field == "local" && affinity.is_null() {
            affinity.required(errors, "Local volume requires node affinity");
        }
    }
    if count == 0 {
        at.required(errors, "must specify a volume type");
    }
    let path = at.get("hostPath").str("path");
    let root = path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."));
    if root && policy.text() == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        policy.forbidden(errors, detail);
    }
    at.get("storageClassName").may_check(errors, dns_subdomain);
    at.get("volumeMode")
        .may_one_of(errors, &["Block", "Filesystem"]);
    let class = at.get("volumeAttributesClassName");
    if class.is_set() {
        if class.is_empty() {
            class.required(errors, "an empty string is disallowed");
        } else {
            class.check(errors, dns_subdomain);
        }
        if !at.has("csi") {
            let detail = "has to be specified when using volumeAttributesClassName";
            at.get("csi").required(errors, detail);
        }
    }
}

fn capacity(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        at.required(errors, "");
    }
    if !at.has("storage") || at.len() > 1 {
        errors.not_supported_shown(&at.path(), &at.to_string(), &["storage"]);
    }
    for (_, entry) in at.entries() {
        let Some(quantity) = entry.quantity() else {
            continue;
        };
        if quantity.units_up() < 0 {
            let whole = i64::try_from(quantity.units_up()).unwrap_or(i64::MIN);
            entry.invalid_as(errors, whole, "must be a valid resource quantity");
        }
        if quantity.is_negative() || quantity.is_zero() {
            entry.invalid_as(errors, quantity.canonical(), "must be greater than zero");
        }
    }
}

/// Only the part of a volume's spec that says where it is.
fn source_of(spec: &Value) -> Value {
    let map = spec.as_object().into_iter().flatten();
    let own = map.filter(|(key, _)| SOURCES.iter().any(|source| source.0 == key.as_str()));
    Value::Object(
        own.map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    )
}

fn volume_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, after) = (&old.value["spec"], &new.value["spec"]);
    let (old_source, mut new_source) = (source_of(before), source_of(after));
    let expand = "controllerExpandSecretRef";
    if !old_source["csi"].is_null()
        && old_source["csi"][expand].is_null()
        && let Some(csi) = new_source["csi"].as_object_mut()
    {
        csi.shift_remove(expand);
    }
    if old_source != new_source {
        let show = |source: &Value| {
            internal::show_lines("io.k8s.api.core.v1.PersistentVolumeSource", source)
        };
        let difference = difference::unified(&show(&old_source), &show(&new_source));
        let detail =
            format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        errors.forbidden("spec.persistentvolumesource", &detail);
    }
    let mode = new.get("volumeMode").with(&after["volumeMode"]);
    mode.unchanged(errors, &before["volumeMode"], IMMUTABLE);
    if !before["nodeAffinity"].is_null() && !same_nodes(before, after) {
        let shown = match &after["nodeAffinity"] {
            Value::Null => "null".to_owned(),
            own => internal::show("io.k8s.api.core.v1.VolumeNodeAffinity", own),
        };
        let detail = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.invalid_shown("nodeAffinity", &shown, &detail);
    }
    let class = new.get("spec.volumeAttributesClassName");
    if class.is_null() && !before["volumeAttributesClassName"].is_null() {
        class.forbidden(errors, "update from non-nil value to nil is forbidden");
    }
}

/// Whether the nodes are the same, or named by the newer labels.
fn same_nodes(before: &Value, after: &Value) -> bool {
    fn renamed(value: &Value, other: &Value) -> Value {
        match (value, other) {
            (Value::Object(map), other) => {
                let each = map.iter().map(|(key, own)| {
                    let peer = other.get(key).unwrap_or(&Value::Null);
                    let newer = own.as_str().and_then(|own| match own {
                        "failure-domain.beta.kubernetes.io/zone" => {
                            Some("topology.kubernetes.io/zone")
                        }
                        "failure-domain.beta.kubernetes.io/region" => {
                            Some("topology.kubernetes.io/region")
                        }
                        "beta.kubernetes.io/os" => Some("kubernetes.io/os"),
                        "beta.kubernetes.io/arch" => Some("kubernetes.io/arch"),
                        "beta.kubernetes.io/instance-type" => {
                            Some("node.kubernetes.io/instance-type")
                        }
                        _ => None,
                    });
                    match newer {
                        Some(newer) if key == "key" && peer == newer => (key.clone(), json!(newer)),
                        _ => (key.clone(), renamed(own, peer)),
                    }
                });
                Value::Object(each.collect())
            }
            (Value::Array(list), other) => {
                let peer = |at: usize| other.get(at).unwrap_or(&Value::Null);
                let each = list.iter().enumerate();
                Value::Array(each.map(|(at, own)| renamed(own, peer(at))).collect())
            }
            (other, _) => other.clone(),
        }
    }
    renamed(&before["nodeAffinity"], &after["nodeAffinity"]) == after["nodeAffinity"]
}

fn claim_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, after) = (&old.value["spec"], &new.value["spec"]);
    let (mut old_spec, mut new_spec) = (before.clone(), after.clone());
    let note = |at: &At<'_>| {
        let value = at
            .value
            .pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
        value.cloned().unwrap_or(Value::Null)
    };
    if before["volumeName"].as_str().unwrap_or_default().is_empty() {
        old_spec["volumeName"] = after["volumeName"].clone();
    }
    let (old_note, new_note) = (note(old), note(new));
    let (old_class, new_class) = (&before["storageClassName"], &after["storageClassName"]);
    let from_note = !old_note.is_null()
        && old_class.is_null()
        && new_class == &old_note
        && (new_note.is_null() || new_note == old_note);
    if from_note {
        new_spec["storageClassName"] = Value::Null;
    } else {
        if old_note != new_note {
            let place = new.get("metadata.annotations");
            let shown = new_note.as_str().unwrap_or_default();
            place.get(BETA_CLASS).invalid_as(errors, shown, IMMUTABLE);
        }
        let from_nothing = !new_class.is_null()
            && old_class.is_null()
            && (old_note.is_null() || new_class == &old_note);
        if from_nothing {
            new_spec["storageClassName"] = Value::Null;
        }
    }
    if new.value["status"]["phase"] == "Bound" {
        if !new_spec["resources"]["requests"].is_null() {
            new_spec["resources"]["requests"]["storage"] =
                before["resources"]["requests"]["storage"].clone();
        }
        new_spec["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
    }
    if said(&old_spec) != said(&new_spec) {
        let show = |spec: &Value| {
            internal::show_lines("io.k8s.api.core.v1.PersistentVolumeClaimSpec", spec)
        };
        let difference = difference::unified(&show(&old_spec), &show(&new_spec));
        let detail = format!(
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims\n{difference}"
        );
        errors.forbidden("spec", &detail);
    }
    let storage = new.get("spec.resources.requests.storage");
    let (was, is) = (
        old.get("spec.resources.requests.storage").quantity(),
        storage.quantity(),
    );
    let held = old.get("status.capacity.storage").quantity();
    if is < was
        && is
            .as_ref()
            .is_some_and(|is| held.is_none_or(|held| is <= &held))
    {
        let nothing = old.get("status.capacity.storage").is_null();
        if !nothing || is.is_some_and(|is| is.is_zero()) {
            storage.forbidden(errors, "field can not be less than status.capacity");
        }
    }
    let mode = new.get("volumeMode").with(&after["volumeMode"]);
    mode.unchanged(errors, &before["volumeMode"], IMMUTABLE);
    let class = new.get("spec.volumeAttributesClassName");
    let current = &old.value["status"]["currentVolumeAttributesClassName"];
    if class.value != &before["volumeAttributesClassName"] && !current.is_null() && class.is_empty()
    {
        let what = if class.is_null() {
            "nil"
        } else {
            "empty string"
        };
        let detail = format!(
            "update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
        );
        class.forbidden(errors, &detail);
    }
}

/// Without nulls.
fn said(value: &Value) -> Map<String, Value> {
    let map = value.as_object().into_iter().flatten();
    map.filter(|(_, own)| !own.is_null())
        .map(|(key, own)| (key.clone(), own.clone()))
        .collect()
}

fn claim_status(_: &str, _: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    for (_, entry) in new.get("status.capacity").entries() {
        not_below_zero(&entry, errors);
    }
    let statuses = new.get("status.allocatedResourceStatuses");
    for (key, entry) in statuses.entries() {
        claim_resource(&statuses, key, errors);
        let known = [
            "ControllerResizeInProgress",
            "ControllerResizeInfeasible",
            "NodeResizeInProgress",
            "NodeResizeInfeasible",
            "NodeResizePending",
        ];
        if !known.contains(&entry.text()) {
            errors.not_supported(&statuses.path(), key, &known);
        }
    }
    let allocated = new.get("status.allocatedResources");
    for (key, entry) in allocated.entries() {
        if claim_resource(&allocated, key, errors) && not_below_zero(&entry, errors) {
            resources::amount(&entry, "storage", errors);
        }
    }
}

fn not_below_zero(at: &At<'_>, errors: &mut Errors) -> bool {
    let whole = at.quantity().map_or(0, |quantity| quantity.units_up());
    if whole < 0 {
        let shown = i64::try_from(whole).unwrap_or(i64::MIN);
        at.invalid_as(errors, shown, "must be a valid resource quantity");
    }
    whole >= 0
}

fn claim_resource(at: &At<'_>, key: &str, errors: &mut Errors) -> bool {
    let wrong = qualified_name(key);
    for message in &wrong {
        at.invalid_as(errors, key, message);
    }
    let known = key == "storage" || !resources::is_native(key);
    if wrong.is_empty() && !known {
        errors.not_supported(&at.path(), key, &["storage"]);
    }
    wrong.is_empty() && known
}

fn warn_volume(_: &Value, at: &At<'_>, warnings: &mut Warnings) {
    let (spec, notes) = (at.get("spec"), at.get("metadata.annotations"));
    if notes.has(BETA_CLASS) {
        let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
        warnings.add(&notes.key(BETA_CLASS), why);
    }
    if spec.str("persistentVolumeReclaimPolicy") == "Recycle" {
        let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is \
                   to use dynamic provisioning.";
        warnings.add(&spec.get("persistentVolumeReclaimPolicy"), why);
    }
    let terms = spec.get("nodeAffinity.required.nodeSelectorTerms");
    for term in terms.items() {
        for expression in term.get("matchExpressions").items() {
            let key = expression.get("key");
            if let Some(why) = deprecated_node_label(key.text()) {
                warnings.add(&key, &format!("{} is {why}", key.text()));
            }
        }
    }
    for (field, shown, why) in [
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (
            "scaleIO",
            "scaleIO",
            "deprecated in v1.16, non-functional in v1.22+",
        ),
        (
            "storageos",
            "storageOS",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "glusterfs",
            "glusterfs",
            "deprecated in v1.25, non-functional in v1.26+",
        ),
        (
            "cephfs",
            "cephfs",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
        (
            "rbd",
            "rbd",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
    ] {
        if spec.has(field) {
            warnings.add(&spec.get(field).named(shown), why);
        }
    }
}
