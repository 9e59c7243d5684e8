//! What each way in does not write, as the strategies of the release served have it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nautilus_apply::reset::Reset;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::strategy;

static NOTHING: Reset = Reset::Nothing;

/// What most kinds with a status reset through the object itself.
static STATUS: LazyLock<Reset> = LazyLock::new(|| Reset::fields(&["status"]));

/// What most reset through their status.
static SPEC: LazyLock<Reset> = LazyLock::new(|| Reset::fields(&["spec"]));

/// What those reset whose status takes nothing but itself.
static SPEC_AND_METADATA: LazyLock<Reset> = LazyLock::new(|| Reset::fields(&["spec", "metadata"]));

/// The ways in that reset something else: `<kind>/<subresource>`.
static OTHERS: LazyLock<BTreeMap<&str, Reset>> = LazyLock::new(|| {
    BTreeMap::from([
        (
            "certificatesigningrequests.certificates.k8s.io/",
            Reset::fields(&["spec", "status"]),
        ),
        (
            "certificatesigningrequests.certificates.k8s.io/status",
            Reset::fields(&["spec", "status.conditions"]),
        ),
        (
            "certificatesigningrequests.certificates.k8s.io/approval",
            Reset::fields(&["spec", "status.certificate"]),
        ),
        (
            "deployments.apps/status",
            Reset::fields(&["spec", "metadata.labels"]),
        ),
        ("namespaces/finalize", Reset::fields(&["status"])),
        (
            "pods/status",
            Reset::fields(&[
                "spec",
                "metadata.deletionTimestamp",
                "metadata.ownerReferences",
            ]),
        ),
    ])
});

/// What is reset when `resource` is written, itself or through a subresource.
pub(super) fn of(resource: &Resource, subresource: Option<&str>) -> &'static Reset {
    let kind = resource.qualified();
    let key = format!("{kind}/{}", subresource.unwrap_or_default());
    if let Some(reset) = OTHERS.get(key.as_str()) {
        return reset;
    }
    match subresource {
        None if resource.subresource("status").is_some() => &STATUS,
        Some("status") if strategy::status_keeps_metadata(resource) => &SPEC_AND_METADATA,
        Some("status") => &SPEC,
        _ => &NOTHING,
    }
}
