//! What the generated table does not know of a built-in kind: what may be selected,
//! which names are good, how updates behave, and its rules.
//!
//! Source: the strategies and field label conversions of Kubernetes v1.37.

use super::{Cells, Resource, Row, Selectable};
use crate::scale;
use crate::strategy::{autoscaler_v1, rules};
use crate::table::cells;
use crate::validation::NameRule;

/// Fields as `label`, `label=default`, `label@path` or `label@path=default`, with spaces between.
pub(super) fn selectable(text: &str) -> Vec<Selectable> {
    let fields = text.split_whitespace().map(|field| {
        let (field, default) = field.split_once('=').unwrap_or((field, ""));
        let (label, path) = field.split_once('@').unwrap_or((field, field));
        Selectable {
            label: label.to_owned(),
            path: path.to_owned(),
            default: default.to_owned(),
        }
    });
    fields.collect()
}

/// The kind of a row.
pub(super) fn complete(row: Row) -> Resource {
    let (group, plural) = (row.group.as_str(), row.plural.as_str());
    let has_status = row.subresources.iter().any(|sub| sub.name == "status");
    let mut resource = Resource {
        create_on_update: creates_on_update(group, plural),
        unconditional_update: !needs_version(group, plural),
        returns_deleted: returns_deleted(group, plural),
        // The reference's default of `--event-ttl`.
        lifetime_seconds: (plural == "events").then_some(3_600),
        name_rule: name_rule(group, plural),
        cells: Cells::new(cells::of(group, &row.version, plural)),
        rules: rules::of(group, plural, has_status),
        ..Resource::default()
    };
    if row.subresources.iter().any(|sub| sub.name == "scale") {
        resource.scale = Some(scale::built_in(group, plural));
    }
    if let Some(fields) = selected(group, plural) {
        resource.selectable = selectable(fields);
    }
    match (group, row.version.as_str(), plural) {
        ("events.k8s.io", _, "events") => {
            resource.stored_as = Some((String::new(), "events".to_owned()));
        }
        ("autoscaling", "v1", plural) => {
            resource.stored_as = Some((group.to_owned(), plural.to_owned()));
            resource.rules = &autoscaler_v1::RULES;
        }
        _ => {}
    }
    Resource {
        group: row.group,
        version: row.version,
        kind: row.kind,
        plural: row.plural,
        singular: row.singular,
        namespaced: row.namespaced,
        verbs: row.verbs,
        short_names: row.short_names,
        categories: row.categories,
        subresources: row.subresources,
        schema: row.schema,
        columns: row.columns,
        storage_version_hash: row.storage_version_hash,
        ..resource
    }
}

/// Where not only `metadata.name` and `metadata.namespace` may be selected.
fn selected(group: &str, plural: &str) -> Option<&'static str> {
    Some(match (group, plural) {
        ("", "pods") => {
            "metadata.name metadata.namespace spec.nodeName spec.host@spec.nodeName \
             spec.restartPolicy spec.schedulerName spec.serviceAccountName \
             spec.hostNetwork=false status.phase status.podIP status.podIPs@status.podIP \
             status.nominatedNodeName"
        }
        ("", "nodes") => "metadata.name spec.unschedulable=false",
        ("", "namespaces") => "metadata.name status.phase",
        ("", "secrets") => "metadata.name metadata.namespace type",
        ("", "services") => "metadata.name metadata.namespace spec.clusterIP spec.type",
        ("", "replicationcontrollers") => "metadata.name metadata.namespace status.replicas=0",
        ("", "events") => {
            "metadata.name metadata.namespace involvedObject.kind involvedObject.namespace \
             involvedObject.name involvedObject.uid involvedObject.apiVersion \
             involvedObject.resourceVersion involvedObject.fieldPath reason \
             reportingComponent source@source.component|reportingComponent type"
        }
        ("events.k8s.io", "events") => {
            "metadata.name metadata.namespace regarding.kind regarding.namespace \
             regarding.name regarding.uid regarding.apiVersion regarding.resourceVersion \
             regarding.fieldPath reason reportingController type"
        }
        ("batch", "jobs") => {
            "metadata.name metadata.namespace status.successful@status.succeeded=0"
        }
        ("certificates.k8s.io", "certificatesigningrequests" | "clustertrustbundles") => {
            "metadata.name spec.signerName"
        }
        ("certificates.k8s.io", "podcertificaterequests") => {
            "metadata.name spec.signerName spec.podName spec.nodeName"
        }
        ("resource.k8s.io", "resourceslices") => {
            "metadata.name spec.nodeName spec.driver spec.pool.name"
        }
        _ => return None,
    })
}

fn creates_on_update(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("events.k8s.io", "events")
            | ("coordination.k8s.io", "leases")
            | ("node.k8s.io", "runtimeclasses")
            | ("rbac.authorization.k8s.io", _)
    )
}

fn returns_deleted(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        (
            "",
            "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ) | (
            "resource.k8s.io",
            "deviceclasses" | "resourceclaims" | "resourceclaimtemplates" | "resourceslices"
        ) | (
            "storage.k8s.io",
            "csidrivers"
                | "csinodes"
                | "storageclasses"
                | "volumeattachments"
                | "volumeattributesclasses"
        )
    )
}

/// Kinds that are not written over unseen.
fn needs_version(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        (
            "admissionregistration.k8s.io"
                | "apiextensions.k8s.io"
                | "apiregistration.k8s.io"
                | "coordination.k8s.io"
                | "node.k8s.io"
                | "policy"
                | "storagemigration.k8s.io",
            _
        ) | (
            "certificates.k8s.io",
            "clustertrustbundles" | "podcertificaterequests"
        ) | (
            "storage.k8s.io",
            "csidrivers" | "csinodes" | "csistoragecapacities" | "volumeattachments"
        )
    )
}

fn name_rule(group: &str, plural: &str) -> NameRule {
    match (group, plural) {
        ("", "namespaces" | "services") | ("apps", "statefulsets") => NameRule::DnsLabel,
        // Names of events of the core group were never checked; addresses and bundles
        // have rules of their own.
        ("", "events")
        | ("networking.k8s.io", "ipaddresses")
        | ("certificates.k8s.io", "clustertrustbundles")
        | ("rbac.authorization.k8s.io", _)
        | ("certificates.k8s.io", "certificatesigningrequests")
        | ("apiregistration.k8s.io", "apiservices") => NameRule::PathSegment,
        _ => NameRule::DnsSubdomain,
    }
}
