//! Security contexts of pods and containers.
//!
//! Source: `validatePodSpecSecurityContext`, `ValidateSecurityContext` of v1.37.

use std::collections::BTreeSet;

use crate::strategy::internal;
use crate::validation::common::{MAX_ID, relative_path};
use crate::validation::{At, Errors, dns_subdomain};

/// Longest name of a sysctl, in bytes.
const SYSCTL_MAX_BYTES: usize = 253;
/// Longest name of an AppArmor profile, in bytes.
const APP_ARMOR_MAX_BYTES: usize = 4095;
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// Checks what holds for all containers of a pod.
pub(crate) fn pod(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("securityContext");
    if at.is_null() {
        return;
    }
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        at.get(name).within(errors, 0, MAX_ID);
    }
    for group in at.get("supplementalGroups").items() {
        group.within(errors, 0, MAX_ID);
    }
    sysctls(spec, &at.get("sysctls"), errors);
    let policies = ["Always", "OnRootMismatch"];
    at.get("fsGroupChangePolicy").may_one_of(errors, &policies);
    seccomp(&at.get("seccompProfile"), errors);
    windows(&at.get("windowsOptions"), errors);
    app_armor(&at.get("appArmorProfile"), errors);
    let policies = ["Merge", "Strict"];
    at.get("supplementalGroupsPolicy")
        .may_one_of(errors, &policies);
    let policies = ["MountOption", "Recursive"];
    at.get("seLinuxChangePolicy").may_one_of(errors, &policies);
}

fn sysctls(spec: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for sysctl in at.items() {
        let name = sysctl.get("name");
        if name.need(errors) {
            if !is_sysctl(name.text()) {
                let detail = format!(
                    "must have at most {SYSCTL_MAX_BYTES} characters and match regex \
                     ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
                );
                name.invalid_text(errors, &detail);
            } else if names.contains(name.text()) {
                name.duplicate(errors);
            }
        }
        names.insert(sysctl.str("name"));
        host_sysctl(spec, &name, errors);
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if edge(*first) && edge(*last))
            && bytes
                .iter()
                .all(|byte| edge(*byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= SYSCTL_MAX_BYTES && name.split(['.', '/']).all(segment)
}

/// What the pod shares with its host it may not set.
fn host_sysctl(spec: &At<'_>, name: &At<'_>, errors: &mut Errors) {
    let dotted = match name.text().find(['.', '/']) {
        Some(at) if name.text().as_bytes()[at] == b'/' => {
            let swap = |c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            };
            name.text().chars().map(swap).collect()
        }
        _ => name.text().to_owned(),
    };
    let root = dotted.split('*').next().unwrap_or_default();
    let ipc = root.starts_with("fs.mqueue.")
        || matches!(
            root,
            "kernel.sem"
                | "kernel.shmall"
                | "kernel.shmmax"
                | "kernel.shmmni"
                | "kernel.shm_rmid_forced"
                | "kernel.shm"
                | "kernel.msgmax"
                | "kernel.msgmnb"
                | "kernel.msgmni"
                | "kernel.msg"
        );
    if spec.flag("hostNetwork") && root.starts_with("net.") {
        name.invalid_text(errors, "may not be specified when 'hostNetwork' is true");
    } else if spec.flag("hostIPC") && ipc {
        name.invalid_text(errors, "may not be specified when 'hostIPC' is true");
    }
}

/// Checks what holds for one container; `host_users`: its users are the host's.
pub(crate) fn container(at: &At<'_>, host_users: bool, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    for name in ["runAsUser", "runAsGroup"] {
        at.get(name).within(errors, 0, MAX_ID);
    }
    let mount = at.get("procMount");
    if mount.is_set() {
        mount.one_of(errors, &["Default", "Unmasked"]);
        if host_users && mount.text() == "Unmasked" {
            mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&at.get("seccompProfile"), errors);
    if at.value.get("allowPrivilegeEscalation") == Some(&false.into()) {
        let shown = || internal::show("io.k8s.api.core.v1.SecurityContext", at.value);
        if at.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            at.invalid_shown(errors, &shown(), detail);
        }
        for capability in at.get("capabilities.add").items() {
            if capability.text() == "CAP_SYS_ADMIN" {
                let detail = "cannot set `allowPrivilegeEscalation` to false and \
                              `capabilities.Add` CAP_SYS_ADMIN";
                at.invalid_shown(errors, &shown(), detail);
            }
        }
    }
    windows(&at.get("windowsOptions"), errors);
    app_armor(&at.get("appArmorProfile"), errors);
}

fn seccomp(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let kind = at.get("type");
    if kind.is_empty() {
        kind.required(errors, "type is required when seccompProfile is set");
    } else {
        kind.one_of(errors, PROFILES);
    }
    let profile = at.get("localhostProfile");
    if kind.text() != "Localhost" {
        if profile.is_set() {
            let shown = internal::show("io.k8s.api.core.v1.SeccompProfile", at.value);
            let detail = "can only be set when seccomp type is Localhost";
            profile.invalid_shown(errors, &shown, detail);
        }
    } else if profile.is_null() {
        profile.required(errors, "must be set when seccomp type is Localhost");
    } else {
        relative_path(&profile, errors);
    }
}

fn app_armor(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let (kind, profile) = (at.get("type"), at.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            let text = profile.text();
            if profile.is_set() && text.trim() != text {
                profile.invalid_text(errors, "must not be padded with whitespace");
            } else if text.is_empty() {
                profile.required(errors, "must be set when AppArmor type is Localhost");
            }
            if text.len() > APP_ARMOR_MAX_BYTES {
                profile.too_long(errors, APP_ARMOR_MAX_BYTES);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.is_set() {
                profile.invalid(errors, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => kind.required(errors, "type is required when appArmorProfile is set"),
        _ => kind.unsupported(errors, PROFILES),
    }
}

const GMSA_SPEC_MAX_KIB: usize = 64;

fn windows(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let name = at.get("gmsaCredentialSpecName");
    if name.is_set() {
        name.check(errors, dns_subdomain);
    }
    let spec = at.get("gmsaCredentialSpec");
    if spec.is_set() && spec.is_empty() {
        spec.invalid(errors, "gmsaCredentialSpec cannot be an empty string");
    } else if spec.len() > GMSA_SPEC_MAX_KIB * 1024 {
        let detail = format!("gmsaCredentialSpec size must be under {GMSA_SPEC_MAX_KIB} KiB");
        spec.invalid(errors, &detail);
    }
    let user = at.get("runAsUserName");
    if user.is_set() {
        for message in windows_user(user.text()) {
            user.invalid(errors, message);
        }
    }
}

fn windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.bytes().any(|byte| byte.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let mut wrong = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= 256) {
        wrong.push("runAsUserName's Domain length must be under 256 characters");
    }
    if domain.is_some_and(|domain| !is_netbios(domain) && !is_dns_domain(domain)) {
        wrong.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        wrong.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        wrong.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.bytes().all(|byte| matches!(byte, b'.' | b' ')) {
        wrong.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains([
        '"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']',
    ]) {
        wrong.push(
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
        );
    }
    wrong
}

fn is_netbios(domain: &str) -> bool {
    let bad = ['\\', '/', ':', '*', '?', '"', '<', '>', '|'];
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && !domain.contains(bad)
}

fn is_dns_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    })
}
