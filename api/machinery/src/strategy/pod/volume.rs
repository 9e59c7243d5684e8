//! The volumes of a pod: what each source must say.
//!
//! Source: `ValidateVolumes` of `pkg/apis/core/validation`, v1.37.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::field;
use super::source::{self, Owner, needed};
use crate::strategy::claim;
use crate::strategy::signers;
use crate::validation::common::{self, label_selector, projected_path};
use crate::validation::{
    At, Errors, annotations, dns_label, dns_subdomain, labels, qualified_name,
};

/// The volumes that were found good, by name.
pub(crate) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const DUPLICATE_PATHS: &str = "conflicting duplicate paths";

struct Volume<'a> {
    name: &'a str,
    pod_name: &'a str,
}

type Check = fn(&At<'_>, &Volume<'_>, &mut Errors);

/// A source's field, and the names its errors stand at: its own, and as one too many.
struct Source {
    field: &'static str,
    path: &'static str,
    extra: &'static str,
    check: Check,
}

const fn plain(field: &'static str, check: Check) -> Source {
    Source {
        field,
        path: field,
        extra: field,
        check,
    }
}

/// In the order the reference looks at them.
const SOURCES: &[Source] = &[
    plain("emptyDir", |at, _, errors| {
        let limit = at.get("sizeLimit");
        if limit
            .quantity()
            .is_some_and(|quantity| quantity.is_negative())
        {
            limit.forbidden(errors, "SizeLimit field must be a valid resource quantity");
        }
    }),
    plain("hostPath", |at, _, errors| source::host_path(at, errors)),
    plain("gitRepo", |at, _, errors| {
        needed(at, &["repository"], errors);
        common::relative_path(&at.get("directory"), errors);
    }),
    Source {
        field: "gcePersistentDisk",
        path: "persistentDisk",
        extra: "gcePersistentDisk",
        check: |at, _, errors| source::partitioned(at, "pdName", errors),
    },
    plain("awsElasticBlockStore", |at, _, errors| {
        source::partitioned(at, "volumeID", errors);
    }),
    plain("secret", |at, _, errors| {
        needed(at, &["secretName"], errors);
        file_mode(&at.get("defaultMode"), errors);
        key_paths(at, errors);
    }),
    plain("nfs", |at, _, errors| source::nfs(at, errors)),
    plain("iscsi", |at, volume, errors| {
        source::iscsi(at, Owner::Pod, volume.name, errors);
    }),
    plain("glusterfs", |at, _, errors| {
        source::glusterfs(at, Owner::Pod, errors);
    }),
    plain("flocker", |at, _, errors| source::flocker(at, errors)),
    plain("persistentVolumeClaim", |at, _, errors| {
        needed(at, &["claimName"], errors);
    }),
    plain("rbd", |at, _, errors| {
        needed(at, &["monitors", "image"], errors);
    }),
    plain("cinder", |at, _, errors| {
        source::cinder(at, Owner::Pod, errors);
    }),
    Source {
        field: "cephfs",
        path: "cephfs",
        extra: "cephFS",
        check: |at, _, errors| needed(at, &["monitors"], errors),
    },
    plain("quobyte", |at, _, errors| source::quobyte(at, errors)),
    Source {
        field: "downwardAPI",
        path: "downwardAPI",
        extra: "downwarAPI",
        check: |at, _, errors| {
            file_mode(&at.get("defaultMode"), errors);
            for file in at.get("items").items() {
                downward_file(at, &file, errors);
            }
        },
    },
    plain("fc", |at, _, errors| source::fibre_channel(at, errors)),
    plain("flexVolume", |at, _, errors| source::flex(at, errors)),
    plain("configMap", |at, _, errors| {
        needed(at, &["name"], errors);
        file_mode(&at.get("defaultMode"), errors);
        key_paths(at, errors);
    }),
    plain("azureFile", |at, _, errors| {
        source::azure_file(at, Owner::Pod, errors);
    }),
    plain("vsphereVolume", |at, _, errors| {
        needed(at, &["volumePath"], errors);
    }),
    plain("photonPersistentDisk", |at, _, errors| {
        needed(at, &["pdID"], errors);
    }),
    plain("portworxVolume", |at, _, errors| {
        needed(at, &["volumeID"], errors);
    }),
    plain("azureDisk", |at, _, errors| source::azure_disk(at, errors)),
    plain("storageos", |at, _, errors| {
        source::storage_os(at, Owner::Pod, errors);
    }),
    plain("projected", |at, _, errors| projected(at, errors)),
    plain("scaleIO", |at, _, errors| {
        needed(at, &["gateway", "system", "volumeName"], errors);
    }),
    plain("csi", |at, _, errors| source::csi(at, errors)),
    plain("ephemeral", ephemeral),
    plain("image", |at, _, errors| {
        needed(at, &["reference"], errors);
        let policies = ["Always", "IfNotPresent", "Never"];
        at.get("pullPolicy").choice(errors, &policies);
    }),
];

/// Checks all volumes; the answer holds those that may be mounted.
pub(crate) fn volumes<'a>(at: &'a At<'a>, pod_name: &str, errors: &mut Errors) -> Volumes<'a> {
    let claims: BTreeSet<String> = at
        .items()
        .filter(|volume| !pod_name.is_empty() && volume.has("ephemeral"))
        .map(|volume| format!("{pod_name}-{}", volume.str("name")))
        .collect();
    let mut good = Volumes::new();
    for volume in at.items() {
        let before = errors.len();
        validate_source(&volume, pod_name, errors);
        let name = volume.get("name");
        name.need_check(errors, dns_label);
        if good.contains_key(name.text()) {
            name.duplicate(errors);
        }
        if errors.len() == before {
            good.insert(volume.str("name"), volume.value);
        }
        let claim = volume.get("persistentVolumeClaim.claimName");
        if claims.contains(claim.text()) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            claim.invalid_text(errors, detail);
        }
    }
    good
}

fn validate_source(at: &At<'_>, pod_name: &str, errors: &mut Errors) {
    let volume = Volume {
        name: at.str("name"),
        pod_name,
    };
    // A volume has its name and one source: look at what is there, not at all there may be.
    let there = at.value.as_object().into_iter().flatten();
    let there = there.filter(|(key, value)| key.as_str() != "name" && !value.is_null());
    if there.clone().count() == 1 {
        let known = there.clone().next();
        let known = known.and_then(|(key, _)| SOURCES.iter().find(|own| own.field == key));
        if let Some(own) = known {
            check_source(own, at, &volume, errors);
            return;
        }
    }
    let mut count = 0;
    for own in SOURCES.iter().filter(|own| at.has(own.field)) {
        count += 1;
        if count == 1 {
            check_source(own, at, &volume, errors);
        } else {
            let detail = "may not specify more than 1 volume type";
            at.get(own.extra).forbidden(errors, detail);
            iscsi_portal(own, at, &volume, errors);
        }
    }
    if count == 0 {
        at.required(errors, "must specify a volume type");
    }
}

fn check_source(own: &Source, at: &At<'_>, volume: &Volume<'_>, errors: &mut Errors) {
    (own.check)(&at.get(own.field).named(own.path), volume, errors);
    iscsi_portal(own, at, volume, errors);
    if own.field == "ephemeral" && !volume.pod_name.is_empty() && !volume.name.is_empty() {
        let claim = format!("{}-{}", volume.pod_name, volume.name);
        for message in dns_subdomain(&claim) {
            let detail = format!("PVC name \"{claim}\": {message}");
            at.get("name").invalid_text(errors, &detail);
        }
    }
}

fn iscsi_portal(own: &Source, at: &At<'_>, volume: &Volume<'_>, errors: &mut Errors) {
    if own.field != "iscsi" || !at.get("iscsi").has("initiatorName") {
        return;
    }
    if volume.name.len() + 1 + at.get("iscsi").str("targetPortal").len() > 64 {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 \
                      characters if iscsi.initiatorName is specified.";
        at.get("name").invalid_text(errors, detail);
    }
}

fn file_mode(at: &At<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        at.invalid(errors, FILE_MODE);
    }
}

fn key_paths(at: &At<'_>, errors: &mut Errors) {
    for item in at.get("items").items() {
        key_path(&item, errors);
    }
}

fn key_path(item: &At<'_>, errors: &mut Errors) {
    item.get("key").need(errors);
    let path = item.get("path");
    path.need(errors);
    projected_path(&path, errors);
    file_mode(&item.get("mode"), errors);
}

/// A file of the downward API: its errors stand at its owner, as in the reference.
fn downward_file(owner: &At<'_>, file: &At<'_>, errors: &mut Errors) {
    let own = owner.with(file.value);
    let path = own.get("path");
    path.need(errors);
    projected_path(&path, errors);
    match (own.has("fieldRef"), own.has("resourceFieldRef")) {
        (true, both) => {
            field::object_field(&own.get("fieldRef"), field::VOLUME_FIELDS, errors);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                own.invalid_as(errors, "resource", detail);
            }
        }
        (false, true) => field::resource_field(&own.get("resourceFieldRef"), true, errors),
        (false, false) => {
            own.required(errors, "one of fieldRef and resourceFieldRef is required");
        }
    }
    file_mode(&own.get("mode"), errors);
}

fn projected(at: &At<'_>, errors: &mut Errors) {
    file_mode(&at.get("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for source in at.get("sources").items() {
        let before = source.value.as_object().map_or(0, |map| {
            map.values().filter(|value| !value.is_null()).count()
        });
        for name in ["secret", "configMap"] {
            let own = source.get(name);
            if own.is_set() {
                own.get("name").need(errors);
                for item in own.get("items").items() {
                    key_path(&item, errors);
                    if !item.str("path").is_empty() && !paths.insert(item.str("path").to_owned()) {
                        at.invalid_as(errors, own.str("name"), DUPLICATE_PATHS);
                    }
                }
            }
        }
        let downward = source.get("downwardAPI");
        for file in downward.get("items").items() {
            downward_file(&downward, &file, errors);
            take_path(at, file.str("path"), &mut paths, errors);
        }
        token(at, &source.get("serviceAccountToken"), errors);
        trust_bundle(at, &source.get("clusterTrustBundle"), &mut paths, errors);
        pod_certificate(at, &source.get("podCertificate"), &mut paths, errors);
        if before > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type per source");
        }
    }
}

fn take_path(at: &At<'_>, path: &str, paths: &mut BTreeSet<String>, errors: &mut Errors) {
    if !path.is_empty() && !paths.insert(path.to_owned()) {
        at.invalid_as(errors, path, DUPLICATE_PATHS);
    }
}

fn token(owner: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let seconds = at.get("expirationSeconds");
    match seconds.int() {
        None => seconds.required(errors, ""),
        Some(own) if own < 600 => {
            seconds.invalid(errors, "may not specify a duration less than 10 minutes");
        }
        Some(own) if own > 1 << 32 => seconds.invalid(
            errors,
            "may not specify a duration larger than 2^32 seconds",
        ),
        Some(_) => {}
    }
    let path = owner
        .get("path")
        .with(at.value.get("path").unwrap_or(&Value::Null));
    if path.need(errors) {
        projected_path(&path, errors);
    }
}

fn trust_bundle(owner: &At<'_>, at: &At<'_>, paths: &mut BTreeSet<String>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let (name, signer, selector) = (
        at.get("name"),
        at.get("signerName"),
        at.get("labelSelector"),
    );
    match (name.is_set(), signer.is_set()) {
        (true, true) => {
            let shown = crate::strategy::internal::show(
                "io.k8s.api.core.v1.ClusterTrustBundleProjection",
                at.value,
            );
            at.invalid_shown(
                errors,
                &shown,
                "only one of name and signerName may be used",
            );
        }
        (true, false) => {
            if name.is_empty() {
                name.required(errors, "must be a valid object name");
            }
            for message in signers::trust_bundle_name(name.text()) {
                let detail = format!("not a valid clustertrustbundlename: {message}");
                name.invalid_text(errors, &detail);
            }
            if selector.is_set() {
                selector.invalid(errors, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.is_empty() {
                signer.required(errors, "must be a valid signer name");
            }
            signers::signer_name(&signer, errors);
            label_selector(&selector, errors);
        }
        (false, false) => at.required(errors, "either name or signerName must be specified"),
    }
    let path = at.get("path");
    path.need(errors);
    projected_path(&path, errors);
    if !paths.insert(path.text().to_owned()) {
        owner.invalid_as(errors, path.text(), DUPLICATE_PATHS);
    }
}

/// Seconds that a certificate of a pod may be asked for, and of Kubernetes' own signers.
const MAX_CERTIFICATE_SECONDS: i64 = 91 * 86400;
const MAX_KUBERNETES_CERTIFICATE_SECONDS: i64 = 86400;

fn pod_certificate(owner: &At<'_>, at: &At<'_>, paths: &mut BTreeSet<String>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    signers::signer_name(&at.get("signerName"), errors);
    let notes = at.get("userAnnotations");
    for (key, _) in notes.entries() {
        domain_prefixed_key(&notes, &key.to_ascii_lowercase(), errors);
    }
    let kinds = [
        "RSA3072",
        "RSA4096",
        "ECDSAP256",
        "ECDSAP384",
        "ECDSAP521",
        "ED25519",
    ];
    at.get("keyType").one_of(errors, &kinds);
    let seconds = at.get("maxExpirationSeconds");
    if let Some(own) = seconds.int() {
        if own < 3600 {
            seconds.invalid(errors, "if provided, maxExpirationSeconds must be >= 3600");
        }
        let most = if at.str("signerName").starts_with("kubernetes.io/") {
            MAX_KUBERNETES_CERTIFICATE_SECONDS
        } else {
            MAX_CERTIFICATE_SECONDS
        };
        if own > most {
            let detail = format!("if provided, maxExpirationSeconds must be <= {most}");
            seconds.invalid(errors, &detail);
        }
    }
    let mut count = 0;
    for name in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = at.get(name);
        if !path.is_empty() {
            count += 1;
            projected_path(&path, errors);
            take_path(owner, path.text(), paths, errors);
        }
    }
    if count == 0 {
        let detail = "specify at least one of credentialBundlePath, keyPath, and \
                      certificateChainPath";
        at.required(errors, detail);
    }
}

fn domain_prefixed_key(at: &At<'_>, key: &str, errors: &mut Errors) {
    let wrong = qualified_name(key);
    if wrong.is_empty() && !key.contains('/') {
        let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
        at.invalid_as(errors, key, detail);
    }
    for message in wrong {
        at.invalid_as(errors, key, &message);
    }
}

fn ephemeral(at: &At<'_>, _: &Volume<'_>, errors: &mut Errors) {
    let template = at.get("volumeClaimTemplate");
    if template.is_null() {
        template.required(errors, "");
        return;
    }
    let metadata = template.get("metadata");
    let empty = Map::new();
    let own = metadata.value.as_object().unwrap_or(&empty);
    annotations(
        errors,
        &metadata.get("annotations").path(),
        own.get("annotations"),
    );
    labels(errors, &metadata.get("labels").path(), own.get("labels"));
    for (key, value) in own {
        let allowed = ["annotations", "labels"].contains(&key.as_str());
        if !allowed && !value.is_null() && value != "" {
            metadata.get(key).forbidden(errors, "cannot be set");
        }
    }
    claim::spec(&template.get("spec"), errors);
}
