//! The checks that only `restricted` has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{
    Violation, bad_seccomp, has_own_users, is_windows, named, plural, quoted, seccomp, setters,
    these, violation,
};
use crate::values::{items, text};

pub(super) fn privilege_escalation(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 25 && is_windows(pod) {
        return None;
    }
    let names = named(pod, |container| {
        container["securityContext"]["allowPrivilegeEscalation"] != false
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            these(&names)
        ),
    )
}

pub(super) fn capabilities_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 25 && is_windows(pod) {
        return None;
    }
    let own = |container: &'_ Value, list: &str| -> Vec<String> {
        items(&container["securityContext"]["capabilities"][list])
            .map(|capability| text(capability).to_owned())
            .collect()
    };
    let missing = named(pod, |c| {
        !own(c, "drop").iter().any(|dropped| dropped == "ALL")
    });
    let mut forbidden = BTreeSet::new();
    let adding = named(pod, |container| {
        let bad: Vec<String> = own(container, "add")
            .into_iter()
            .filter(|added| added != "NET_BIND_SERVICE")
            .collect();
        let found = !bad.is_empty();
        forbidden.extend(bad);
        found
    });
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            these(&missing)
        ));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            these(&adding),
            quoted(&forbidden)
        ));
    }
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

pub(super) fn restricted_volumes(pod: &Value, _: u32) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const KNOWN: [&str; 21] = [
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
    ];
    let has = |volume: &Value, kind: &&&str| !volume[**kind].is_null();
    let mut kinds = BTreeSet::new();
    let mut names = Vec::new();
    for volume in items(&pod["spec"]["volumes"]) {
        if ALLOWED.iter().any(|kind| has(volume, &kind)) {
            continue;
        }
        names.push(text(&volume["name"]));
        let known = KNOWN.iter().find(|kind| has(volume, kind));
        kinds.insert(*known.unwrap_or(&"unknown"));
    }
    if names.is_empty() {
        return None;
    }
    let uses = if names.len() == 1 { "uses" } else { "use" };
    violation(
        "restricted volume types",
        format!(
            "{} {} {uses} {} {}",
            plural("volume", names.len()),
            quoted(&names),
            plural("restricted volume type", kinds.len()),
            quoted(&kinds)
        ),
    )
}

pub(super) fn run_as_non_root(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 35 && has_own_users(pod) {
        return None;
    }
    let own = |owner: &Value| owner["securityContext"]["runAsNonRoot"].as_bool();
    let of_pod = own(&pod["spec"]);
    let explicit = named(pod, |container| own(container) == Some(false));
    let reason = "runAsNonRoot != true";
    if let Some(setters) = setters(of_pod == Some(false), &explicit) {
        let detail = format!("{setters} must not set securityContext.runAsNonRoot=false");
        return violation(reason, detail);
    }
    let implicit = named(pod, |container| {
        own(container).is_none() && of_pod != Some(true)
    });
    if implicit.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.runAsNonRoot=true",
        these(&implicit)
    );
    violation(reason, detail)
}

pub(super) fn run_as_user(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 35 && has_own_users(pod) {
        return None;
    }
    let root = |owner: &Value| owner["securityContext"]["runAsUser"] == 0;
    let setters = setters(root(&pod["spec"]), &named(pod, root))?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

pub(super) fn seccomp_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 25 && is_windows(pod) {
        return None;
    }
    let found = seccomp(pod);
    if let Some(setters) = setters(found.pod_is_bad, &found.bad) {
        return violation("seccompProfile", bad_seccomp(&setters, &found.values));
    }
    if found.without.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\"",
            these(&found.without)
        ),
    )
}
