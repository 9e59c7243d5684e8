//! The checks of the standards, each with the releases it holds in; those of `baseline`
//! stand here.

use std::collections::BTreeSet;

use nautilus_machinery::status::quote;
use serde_json::Value;

use super::labels::{Level, LevelVersion};
use super::restricted::{
    capabilities_restricted, privilege_escalation, restricted_volumes, run_as_non_root,
    run_as_user, seccomp_restricted,
};
use crate::values::{items, text};

/// What a pod breaks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: String,
    /// May be empty.
    pub(super) detail: String,
}

/// A check: the pod (or template) and the minor release whose standards count.
type Check = fn(&Value, u32) -> Option<Violation>;

/// Releases from which a check holds: never, where a restricted one never replaces it.
const NEVER: u32 = u32::MAX;

/// Checks of `baseline` in the order of their names: since when, and since when
/// `restricted` has one of its own instead.
const BASELINE: [(u32, u32, Check); 12] = [
    (0, NEVER, app_armor),
    (0, 22, capabilities_baseline),
    (0, NEVER, host_namespaces),
    (0, 0, host_path_volumes),
    (0, NEVER, host_ports),
    (34, NEVER, host_probes),
    (0, NEVER, privileged),
    (0, 35, proc_mount_baseline),
    (0, NEVER, se_linux),
    (0, 19, seccomp_baseline),
    (0, NEVER, sysctls),
    (0, NEVER, windows_host_process),
];

/// Checks of `restricted` alone.
const RESTRICTED: [(u32, Check); 7] = [
    (8, privilege_escalation),
    (22, capabilities_restricted),
    (35, proc_mount),
    (0, restricted_volumes),
    (0, run_as_non_root),
    (23, run_as_user),
    (19, seccomp_restricted),
];

/// What a pod (or template) breaks of the standards; empty for `privileged`.
pub(super) fn violations(standard: &LevelVersion, pod: &Value) -> Vec<Violation> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let minor = standard.version.minor();
    let restricted = standard.level == Level::Restricted;
    let baseline = BASELINE
        .iter()
        .filter(|(since, replaced, _)| {
            minor >= *since && !(restricted && *replaced != NEVER && minor >= *replaced)
        })
        .map(|(.., check)| *check);
    let own = RESTRICTED
        .iter()
        .filter(|(since, _)| restricted && minor >= *since)
        .map(|(_, check)| *check);
    baseline
        .chain(own)
        .filter_map(|check| check(pod, minor))
        .collect()
}

pub(super) fn violation(reason: impl Into<String>, detail: String) -> Option<Violation> {
    Some(Violation {
        reason: reason.into(),
        detail,
    })
}

pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| items(&pod["spec"][*list]))
}

/// Names of the containers for which `bad` holds.
pub(super) fn named(pod: &Value, mut bad: impl FnMut(&Value) -> bool) -> Vec<&str> {
    containers(pod)
        .filter(|container| bad(container))
        .map(|container| text(&container["name"]))
        .collect()
}

pub(super) fn quoted<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = texts
        .into_iter()
        .map(|text| format!("\"{}\"", text.as_ref()))
        .collect();
    texts.join(", ")
}

pub(super) fn plural(word: &str, count: usize) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn these(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`; `None` when neither did it.
pub(super) fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(these(names)),
        (true, false) => Some(format!("pod and {}", these(names))),
    }
}

pub(super) fn is_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows"
}

/// Since 1.35 a pod with user namespaces of its own is given more room.
pub(super) fn has_own_users(pod: &Value) -> bool {
    pod["spec"]["hostUsers"] == false
}

fn app_armor(pod: &Value, _: u32) -> Option<Violation> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let mut bad = |owner: &Value| {
        let profile = &owner["securityContext"]["appArmorProfile"];
        let kind = text(&profile["type"]);
        let bad = !profile.is_null() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    };
    let of_pod = bad(&pod["spec"]);
    let names = named(pod, bad);
    let mut setters: Vec<String> = setters(of_pod, &names).into_iter().collect();
    let mut annotations: Vec<String> = annotations(pod)
        .filter(|(key, value)| {
            let allowed =
                value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(PREFIX) && !allowed
        })
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        setters.push(plural("annotation", annotations.len()));
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    if setters.is_empty() {
        return None;
    }
    violation(
        plural("forbidden AppArmor profile", values.len()),
        format!(
            "{} must not set AppArmor profile type to {}",
            setters.join(" and "),
            quoted(&values)
        ),
    )
}

fn annotations(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    pod["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), text(value)))
}

fn capabilities_baseline(pod: &Value, _: u32) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let mut added = BTreeSet::new();
    let names = named(pod, |container| {
        let before = added.len();
        let bad: Vec<&str> = items(&container["securityContext"]["capabilities"]["add"])
            .map(text)
            .filter(|capability| !ALLOWED.contains(capability))
            .collect();
        added.extend(bad.iter().map(|capability| (*capability).to_owned()));
        added.len() > before || !bad.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            these(&names),
            quoted(&added)
        ),
    )
}

fn host_namespaces(pod: &Value, _: u32) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod["spec"][**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() {
        return None;
    }
    violation("host namespaces", set.join(", "))
}

fn host_path_volumes(pod: &Value, _: u32) -> Option<Violation> {
    let names: Vec<&str> = items(&pod["spec"]["volumes"])
        .filter(|volume| !volume["hostPath"].is_null())
        .map(|volume| text(&volume["name"]))
        .collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} {}", plural("volume", names.len()), quoted(&names));
    violation("hostPath volumes", detail)
}

fn host_ports(pod: &Value, _: u32) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let names = named(pod, |container| {
        let own: Vec<String> = items(&container["ports"])
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        let bad = !own.is_empty();
        ports.extend(own);
        bad
    });
    if names.is_empty() {
        return None;
    }
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let list: Vec<&str> = ports.iter().map(String::as_str).collect();
    violation(
        "hostPort",
        format!(
            "{} {uses} {} {}",
            these(&names),
            plural("hostPort", list.len()),
            list.join(", ")
        ),
    )
}

fn host_probes(pod: &Value, _: u32) -> Option<Violation> {
    const HANDLERS: [&str; 5] = [
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    let mut hosts = BTreeSet::new();
    let names: BTreeSet<&str> = named(pod, |container| {
        let own: Vec<&str> = HANDLERS
            .iter()
            .filter_map(|path| container.pointer(path))
            .flat_map(|handler| ["httpGet", "tcpSocket"].map(|form| text(&handler[form]["host"])))
            .filter(|host| !host.is_empty())
            .collect();
        hosts.extend(own.iter().map(|host| (*host).to_owned()));
        !own.is_empty()
    })
    .into_iter()
    .collect();
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    violation(
        "probe or lifecycle host",
        format!(
            "{} {uses} {} {}",
            these(&names),
            plural("probe or lifecycle host", hosts.len()),
            quoted(&hosts)
        ),
    )
}

fn privileged(pod: &Value, _: u32) -> Option<Violation> {
    let names = named(pod, |c| c["securityContext"]["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.privileged=true",
        these(&names)
    );
    violation("privileged", detail)
}

fn proc_mount_baseline(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 35 && has_own_users(pod) {
        return None;
    }
    proc_mount(pod, minor)
}

fn proc_mount(pod: &Value, _: u32) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let names = named(pod, |container| {
        let kind = container["securityContext"]["procMount"].as_str();
        let bad = kind.is_some_and(|kind| kind != "Default");
        if let (true, Some(kind)) = (bad, kind) {
            kinds.insert(kind.to_owned());
        }
        bad
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "procMount",
        format!(
            "{} must not set securityContext.procMount to {}",
            these(&names),
            quoted(&kinds)
        ),
    )
}

fn se_linux(pod: &Value, minor: u32) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut bad = |owner: &Value| {
        let options = &owner["securityContext"]["seLinuxOptions"];
        let kind = text(&options["type"]);
        let known = matches!(
            kind,
            "" | "container_t" | "container_init_t" | "container_kvm_t"
        ) || minor >= 31 && kind == "container_engine_t";
        let (has_user, has_role) = (
            !text(&options["user"]).is_empty(),
            !text(&options["role"]).is_empty(),
        );
        if !known {
            types.insert(kind.to_owned());
        }
        user |= has_user;
        role |= has_role;
        !known || has_user || has_role
    };
    let of_pod = bad(&pod["spec"]);
    let names = named(pod, bad);
    let setters = setters(of_pod, &names)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!(
            "{} {}",
            plural("type", types.len()),
            quoted(&types)
        ));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    let data = data.join("; ");
    violation(
        "seLinuxOptions",
        format!("{setters} set forbidden securityContext.seLinuxOptions: {data}"),
    )
}

fn seccomp_baseline(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let found = seccomp(pod);
    let setters = setters(found.pod_is_bad, &found.bad)?;
    violation("seccompProfile", bad_seccomp(&setters, &found.values))
}

pub(super) fn bad_seccomp(setters: &str, values: &BTreeSet<String>) -> String {
    let values = quoted(values);
    format!("{setters} must not set securityContext.seccompProfile.type to {values}")
}

fn seccomp_annotations(pod: &Value) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let keys: BTreeSet<String> = std::iter::once(POD.to_owned())
        .chain(containers(pod).map(|c| format!("{CONTAINER}{}", text(&c["name"]))))
        .collect();
    let forbidden: BTreeSet<String> = annotations(pod)
        .filter(|(key, value)| {
            let allowed = matches!(*value, "runtime/default" | "docker/default")
                || value.starts_with("localhost/");
            keys.contains(*key) && !allowed
        })
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let list: Vec<&str> = forbidden.iter().map(String::as_str).collect();
    let what = plural("annotation", list.len());
    violation(
        "seccompProfile",
        format!("forbidden {what} {}", list.join(", ")),
    )
}

/// Who sets which seccomp profile.
pub(super) struct Seccomp<'a> {
    pub(super) pod_is_bad: bool,
    /// Containers that set a bad one.
    pub(super) bad: Vec<&'a str>,
    /// Containers that have none, nor has the pod.
    pub(super) without: Vec<&'a str>,
    pub(super) values: BTreeSet<String>,
}

pub(super) fn seccomp(pod: &Value) -> Seccomp<'_> {
    let kind = |owner: &Value| {
        let profile = &owner["securityContext"]["seccompProfile"];
        (!profile.is_null()).then(|| text(&profile["type"]).to_owned())
    };
    let good = |kind: &str| matches!(kind, "Localhost" | "RuntimeDefault");
    let mut values = BTreeSet::new();
    let of_pod = kind(&pod["spec"]);
    let pod_is_bad = of_pod.as_deref().is_some_and(|kind| !good(kind));
    let pod_is_good = of_pod.as_deref().is_some_and(good);
    if pod_is_bad {
        values.extend(of_pod);
    }
    let bad = named(pod, |container| {
        let own = kind(container).filter(|kind| !good(kind));
        let bad = own.is_some();
        values.extend(own);
        bad
    });
    let without = named(pod, |container| !pod_is_good && kind(container).is_none());
    Seccomp {
        pod_is_bad,
        bad,
        without,
        values,
    }
}

fn sysctls(pod: &Value, minor: u32) -> Option<Violation> {
    const ALLOWED: [(u32, &str); 14] = [
        (0, "kernel.shm_rmid_forced"),
        (0, "net.ipv4.ip_local_port_range"),
        (0, "net.ipv4.tcp_syncookies"),
        (0, "net.ipv4.ping_group_range"),
        (0, "net.ipv4.ip_unprivileged_port_start"),
        (27, "net.ipv4.ip_local_reserved_ports"),
        (29, "net.ipv4.tcp_keepalive_time"),
        (29, "net.ipv4.tcp_fin_timeout"),
        (29, "net.ipv4.tcp_keepalive_intvl"),
        (29, "net.ipv4.tcp_keepalive_probes"),
        (32, "net.ipv4.tcp_rmem"),
        (32, "net.ipv4.tcp_wmem"),
        (37, "net.ipv4.tcp_slow_start_after_idle"),
        (37, "net.ipv4.tcp_notsent_lowat"),
    ];
    let names: Vec<&str> = items(&pod["spec"]["securityContext"]["sysctls"])
        .map(|sysctl| text(&sysctl["name"]))
        .filter(|name| {
            !ALLOWED
                .iter()
                .any(|(since, allowed)| minor >= *since && allowed == name)
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    violation("forbidden sysctls", names.join(", "))
}

fn windows_host_process(pod: &Value, _: u32) -> Option<Violation> {
    let set = |owner: &Value| owner["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let setters = setters(set(&pod["spec"]), &named(pod, set))?;
    violation(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
