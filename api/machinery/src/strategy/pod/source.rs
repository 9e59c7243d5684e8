//! The sources of volumes that pods and persistent volumes have in common.
//!
//! Source: `pkg/apis/core/validation` of v1.37.

use crate::validation::common::no_backsteps;
use crate::validation::{At, Errors, common, dns_label, dns_subdomain};

/// Who names the source: what a persistent volume refers to says its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A volume of a pod.
    Pod,
    /// A persistent volume.
    PersistentVolume,
}

/// Checks of a source with nothing but fields that must be there.
pub(crate) fn needed(at: &At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        at.get(field).need(errors);
    }
}

fn secret(at: &At<'_>, owner: Owner, errors: &mut Errors) {
    let reference = at.get("secretRef");
    if reference.is_set() {
        reference.get("name").need(errors);
        if owner == Owner::PersistentVolume {
            reference.get("namespace").need(errors);
        }
    }
}

pub(crate) fn host_path(at: &At<'_>, errors: &mut Errors) {
    let path = at.get("path");
    if !path.need(errors) {
        return;
    }
    no_backsteps(&path, errors);
    let types = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    at.get("type").may_one_of(errors, &types);
}

pub(crate) fn partitioned(at: &At<'_>, id: &str, errors: &mut Errors) {
    at.get(id).need(errors);
    let partition = at.get("partition");
    if !(0..=255).contains(&partition.int().unwrap_or(0)) {
        partition.invalid(errors, "must be between 1 and 255, inclusive");
    }
}

pub(crate) fn nfs(at: &At<'_>, errors: &mut Errors) {
    needed(at, &["server", "path"], errors);
    let path = at.get("path");
    if !path.text().starts_with('/') {
        path.invalid_text(errors, "must be an absolute path");
    }
}

/// Whether a name of an iSCSI node begins in one of the known ways; with `Some(false)`
/// it does and is malformed.
fn iscsi_name(name: &str) -> Option<bool> {
    let alphanumeric = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if name.starts_with("iqn") {
        return Some(is_iqn(name));
    }
    // The pattern's dot is any character.
    let after = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        let first = rest.chars().next()?;
        Some(rest[first.len_utf8()..].to_owned())
    };
    if name.starts_with("eui") {
        return Some(after("eui").is_some_and(|rest| alphanumeric(&rest, 16)));
    }
    if name.starts_with("naa") {
        return Some(after("naa").is_some_and(|rest| alphanumeric(&rest, 32)));
    }
    None
}

/// `iqn.2001-04.com.example:storage`: searched for, not matched as a whole at its start.
fn is_iqn(name: &str) -> bool {
    name.match_indices("iqn.").any(|(at, _)| {
        let bytes = &name.as_bytes()[at + 4..];
        let digits = |range: &[u8]| range.iter().all(u8::is_ascii_digit);
        if bytes.len() < 8 || !digits(&bytes[..4]) || bytes[4] != b'-' || !digits(&bytes[5..7]) {
            return false;
        }
        let rest = &name[at + 4 + 7..];
        let Some(rest) = rest.strip_prefix('.') else {
            return false;
        };
        rest.match_indices(':').any(|(colon, _)| {
            let (authority, unique) = (&rest[..colon], &rest[colon + 1..]);
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            let bad = |c: char| matches!(c, ',' | ';' | '*' | '&' | '$' | '|') || c.is_whitespace();
            !authority.is_empty()
                && authority.bytes().all(known)
                && !unique.is_empty()
                && !unique.contains(bad)
        })
    })
}

pub(crate) fn iscsi(at: &At<'_>, owner: Owner, name: &str, errors: &mut Errors) {
    at.get("targetPortal").need(errors);
    let too_long = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 \
                    characters if iscsi.initiatorName is specified.";
    if owner == Owner::PersistentVolume
        && at.has("initiatorName")
        && name.len() + 1 + at.str("targetPortal").len() > 64
    {
        let portal = at.get("targetPortal").named("targetportal");
        portal.invalid_text(errors, too_long);
    }
    let unknown = match owner {
        Owner::Pod => "must be valid format starting with iqn, eui, or naa",
        Owner::PersistentVolume => "must be valid format",
    };
    let check = |at: &At<'_>, errors: &mut Errors| match iscsi_name(at.text()) {
        None => at.invalid_text(errors, unknown),
        Some(false) => at.invalid_text(errors, "must be valid format"),
        Some(true) => {}
    };
    let iqn = at.get("iqn");
    if iqn.need(errors) {
        check(&iqn, errors);
    }
    at.get("lun").within(errors, 0, 255);
    let chap = at.flag("chapAuthDiscovery") || at.flag("chapAuthSession");
    if chap && !at.has("secretRef") {
        at.get("secretRef").required(errors, "");
    }
    if owner == Owner::PersistentVolume && at.has("secretRef") {
        at.get("secretRef.name").need(errors);
    }
    if at.has("initiatorName") {
        check(&at.get("initiatorName").named("initiatorname"), errors);
    }
}

pub(crate) fn fibre_channel(at: &At<'_>, errors: &mut Errors) {
    let (targets, ids) = (at.get("targetWWNs"), at.get("wwids"));
    if targets.is_empty() && ids.is_empty() {
        let detail = "must specify either targetWWNs or wwids, but not both";
        targets.required(errors, detail);
    }
    if !targets.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        targets.invalid(errors, detail);
    }
    if !targets.is_empty() {
        let lun = at.get("lun");
        if lun.is_null() {
            lun.required(errors, "lun is required if targetWWNs is specified");
        } else {
            lun.within(errors, 0, 255);
        }
    }
}

pub(crate) fn glusterfs(at: &At<'_>, owner: Owner, errors: &mut Errors) {
    needed(at, &["endpoints", "path"], errors);
    let namespace = at.get("endpointsNamespace");
    if owner == Owner::PersistentVolume && namespace.is_set() {
        if namespace.is_empty() {
            let detail = "if the endpointnamespace is set, it must be a valid namespace name";
            namespace.invalid_text(errors, detail);
        } else {
            namespace.check(errors, dns_label);
        }
    }
}

pub(crate) fn quobyte(at: &At<'_>, errors: &mut Errors) {
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    let registry = at.get("registry");
    if registry.is_empty() {
        registry.required(errors, pairs);
    } else if at.str("tenant").len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        at.get("tenant").required(errors, detail);
    } else {
        for pair in registry.text().split(',') {
            if !is_host_and_port(pair) {
                registry.invalid_text(errors, pairs);
            }
        }
    }
    at.get("volume").need(errors);
}

/// As Go splits `host:port` and `[host]:port`.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let inner = match host.strip_prefix('[') {
        Some(rest) => match rest.strip_suffix(']') {
            Some(inner) => return !inner.contains(['[', ']']) && !port.contains(['[', ']']),
            None => return false,
        },
        None => host,
    };
    !inner.contains([':', '[', ']']) && !port.contains(['[', ']'])
}

pub(crate) fn flocker(at: &At<'_>, errors: &mut Errors) {
    let name = at.get("datasetName");
    match (name.is_empty(), at.str("datasetUUID").is_empty()) {
        (true, true) => at.required(errors, "one of datasetName and datasetUUID is required"),
        (false, false) => at.invalid_as(
            errors,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ),
        _ => {}
    }
    if name.text().contains('/') {
        name.invalid_text(errors, "must not contain '/'");
    }
}

pub(crate) fn cinder(at: &At<'_>, owner: Owner, errors: &mut Errors) {
    at.get("volumeID").need(errors);
    secret(at, owner, errors);
}

pub(crate) fn flex(at: &At<'_>, errors: &mut Errors) {
    at.get("driver").need(errors);
    for (key, option) in at.get("options").entries() {
        let namespace = key.split('/').next().unwrap_or(key);
        let domain = format!(".{}", namespace.to_ascii_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            option.invalid_as(errors, key, detail);
        }
    }
}

pub(crate) fn azure_file(at: &At<'_>, owner: Owner, errors: &mut Errors) {
    needed(at, &["secretName", "shareName"], errors);
    let namespace = at.get("secretNamespace");
    if owner == Owner::PersistentVolume && namespace.is_set() {
        namespace.need(errors);
    }
}

pub(crate) fn azure_disk(at: &At<'_>, errors: &mut Errors) {
    needed(at, &["diskName", "diskURI"], errors);
    let modes = ["None", "ReadOnly", "ReadWrite"];
    at.get("cachingMode").may_one_of(errors, &modes);
    let kinds = ["Dedicated", "Managed", "Shared"];
    at.get("kind").may_one_of(errors, &kinds);
    let uri = at.get("diskURI");
    let managed = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/\
                   microsoft.compute/disks/{disk-id}";
    let blob = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    match at.str("kind") {
        "Managed" if !uri.text().starts_with("/subscriptions/") => {
            uri.unsupported(errors, &[managed]);
        }
        "" | "Managed" => {}
        _ if !uri.text().starts_with("https://") => uri.unsupported(errors, &[blob]),
        _ => {}
    }
}

pub(crate) fn storage_os(at: &At<'_>, owner: Owner, errors: &mut Errors) {
    at.get("volumeName").need_check(errors, dns_label);
    at.get("volumeNamespace").may_check(errors, dns_label);
    secret(at, owner, errors);
}

pub(crate) fn local(at: &At<'_>, errors: &mut Errors) {
    let path = at.get("path");
    if path.need(errors) {
        no_backsteps(&path, errors);
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver_name(at: &At<'_>, errors: &mut Errors) {
    if !at.need(errors) {
        return;
    }
    if at.text().len() > 63 {
        at.too_long(errors, 63);
    }
    at.check(errors, common::dns_subdomain_caseless);
}

pub(crate) fn csi(at: &At<'_>, errors: &mut Errors) {
    csi_driver_name(&at.get("driver"), errors);
    let reference = at.get("nodePublishSecretRef");
    if reference.is_set() {
        let name = reference.get("name");
        if name.need(errors) {
            let own = at.get("name").with(name.value);
            own.check(errors, dns_subdomain);
        }
    }
}

pub(crate) fn csi_persistent(at: &At<'_>, errors: &mut Errors) {
    csi_driver_name(&at.get("driver"), errors);
    at.get("volumeHandle").need(errors);
    for name in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let reference = at.get(name);
        if reference.is_set() {
            reference.get("name").need_check(errors, dns_subdomain);
            reference.get("namespace").need_check(errors, dns_label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_iscsi_nodes_are_told_apart() {
        assert_eq!(iscsi_name("iqn.2015-02.example.com:test"), Some(true));
        assert_eq!(iscsi_name("iqn.2015-02.example.com"), Some(false));
        assert_eq!(iscsi_name("iqn"), Some(false));
        assert_eq!(iscsi_name("eui.0123456789abcdef"), Some(true));
        assert_eq!(iscsi_name("eui"), Some(false));
        assert_eq!(iscsi_name("wwn.1"), None);
    }

    #[test]
    fn a_host_comes_with_a_port() {
        assert!(is_host_and_port("a:1"));
        assert!(is_host_and_port("[::1]:1"));
        assert!(!is_host_and_port("::1:1"));
        assert!(!is_host_and_port("a"));
    }
}
