//! The table of kinds served. A kind is an entry here (its names, verbs,
//! columns, selectable fields) and a set of [`Rules`]; nothing else in this
//! crate or in the faces knows kinds by name.
//!
//! Source: the discovery documents of Kubernetes v1.37.

use crate::schema;
use crate::strategy::rules::{self, Rules};
use crate::validation::NameRule;

/// A kind, as clients address it.
#[derive(Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version, as `v1`.
    pub version: &'static str,
    /// Kind, as `Pod`.
    pub kind: &'static str,
    /// The path's name, as `pods`.
    pub plural: &'static str,
    /// As `pod`.
    pub singular: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of discovery, in alphabetical order.
    pub verbs: &'static [&'static str],
    /// As `po`.
    pub short_names: &'static [&'static str],
    /// As `all`.
    pub categories: &'static [&'static str],
    /// As `pods/status`.
    pub subresources: &'static [Subresource],
    /// The OpenAPI name of the kind's type.
    pub schema: &'static str,
    /// The columns of its table, in order.
    pub columns: &'static [Column],
    /// The fields that a field selector may name.
    pub selectable: &'static [Selectable],
    /// What discovery says about the stored version.
    pub storage_version_hash: &'static str,
    /// The group and plural under which objects are stored, where it is another
    /// kind's: both are the same objects in two forms (see [`crate::convert`]).
    pub stored_as: Option<(&'static str, &'static str)>,
    /// Whether an update of an object that does not exist creates it.
    pub create_on_update: bool,
    /// Whether an update may leave out `metadata.resourceVersion` and so write over
    /// whatever is there.
    pub unconditional_update: bool,
    /// Which names are good.
    pub name_rule: NameRule,
    /// Defaults, validation, columns' values.
    pub rules: &'static Rules,
}

/// A subresource of a kind.
#[derive(Debug)]
pub struct Subresource {
    /// As `status`.
    pub name: &'static str,
    /// Group of the body's kind.
    pub group: &'static str,
    /// Version of the body's kind.
    pub version: &'static str,
    /// The body's kind.
    pub kind: &'static str,
    /// Verbs of discovery.
    pub verbs: &'static [&'static str],
    /// The OpenAPI name of the body's type.
    pub schema: &'static str,
}

/// A column of a kind's table.
#[derive(Debug)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// `name` for the column that holds the object's name, else empty.
    pub format: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u32,
}

/// A field that a field selector may name.
#[derive(Debug)]
pub struct Selectable {
    /// As the selector writes it.
    pub label: &'static str,
    /// Where it stands in the object.
    pub path: &'static str,
    /// What an absent field is taken for.
    pub default: &'static str,
}

/// Every kind served.
pub fn all() -> &'static [Resource] {
    ALL
}

/// The kind at that group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    ALL.iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// The kind of that group, version and kind name.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    ALL.iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind)
}

impl Resource {
    /// `/nautilus/registry/pods/`, or `/nautilus/registry/<group>/<plural>/` for a named
    /// group: reserved keys, so that nobody writes objects past the API.
    pub fn storage_prefix(&self) -> String {
        let (group, plural) = self.stored_as.unwrap_or((self.group, self.plural));
        if group.is_empty() {
            format!("/nautilus/registry/{plural}/")
        } else {
            format!("/nautilus/registry/{group}/{plural}/")
        }
    }

    /// The key of one object.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{}{name}", self.namespace_prefix(namespace))
            }
            _ => format!("{}{name}", self.storage_prefix()),
        }
    }

    /// The prefix of a namespace's objects.
    pub fn namespace_prefix(&self, namespace: &str) -> String {
        format!("{}{namespace}/", self.storage_prefix())
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// As `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// The OpenAPI name of the list's type.
    pub fn list_schema(&self) -> String {
        format!("{}List", self.schema)
    }

    /// `pods`, or `leases.coordination.k8s.io`: how messages call it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether discovery lists the verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
}

/// `v1` or `group/version`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const ALL_BUT_COLLECTION: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
const CREATE: &[&str] = &["create"];
const UPDATE: &[&str] = &["update"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

const fn column(name: &'static str) -> Column {
    Column {
        name,
        format: "",
        priority: 0,
    }
}

const fn name_column() -> Column {
    Column {
        name: "Name",
        format: "name",
        priority: 0,
    }
}

const fn wide(name: &'static str) -> Column {
    Column {
        name,
        format: "",
        priority: 1,
    }
}

const fn field(label: &'static str) -> Selectable {
    Selectable {
        label,
        path: label,
        default: "",
    }
}

const fn field_at(label: &'static str, path: &'static str, default: &'static str) -> Selectable {
    Selectable {
        label,
        path,
        default,
    }
}

const fn own(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
    schema: &'static str,
) -> Subresource {
    Subresource {
        name,
        group: "",
        version: "v1",
        kind,
        verbs,
        schema,
    }
}

/// What most kinds have; an entry states what differs.
const PLAIN: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: true,
    verbs: ALL_VERBS,
    short_names: &[],
    categories: &[],
    subresources: &[],
    schema: "",
    columns: &[name_column(), column("Age")],
    selectable: &[field("metadata.name"), field("metadata.namespace")],
    storage_version_hash: "",
    stored_as: None,
    create_on_update: false,
    unconditional_update: true,
    name_rule: NameRule::DnsSubdomain,
    rules: &rules::PLAIN,
};

const EVENT_COLUMNS: &[Column] = &[
    column("Last Seen"),
    column("Type"),
    column("Reason"),
    column("Object"),
    wide("Subobject"),
    wide("Source"),
    column("Message"),
    wide("First Seen"),
    wide("Count"),
    Column {
        name: "Name",
        format: "name",
        priority: 1,
    },
];

static ALL: &[Resource] = &[
    Resource {
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        verbs: CREATE,
        schema: "io.k8s.api.core.v1.Binding",
        ..PLAIN
    },
    Resource {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        schema: "io.k8s.api.core.v1.ConfigMap",
        columns: &[name_column(), column("Data"), column("Age")],
        storage_version_hash: "qFsyl6wFWjQ=",
        rules: &rules::CONFIG_MAP,
        ..PLAIN
    },
    Resource {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        schema: "io.k8s.api.core.v1.Event",
        columns: EVENT_COLUMNS,
        selectable: &[
            field("metadata.name"),
            field("metadata.namespace"),
            field("involvedObject.kind"),
            field("involvedObject.namespace"),
            field("involvedObject.name"),
            field("involvedObject.uid"),
            field("involvedObject.apiVersion"),
            field("involvedObject.resourceVersion"),
            field("involvedObject.fieldPath"),
            field("reason"),
            field("reportingComponent"),
            field_at("source", "source.component|reportingComponent", ""),
            field("type"),
        ],
        storage_version_hash: "r2yiGXH7wu8=",
        create_on_update: true,
        // Names of events were never checked in this group.
        name_rule: NameRule::PathSegment,
        rules: &rules::EVENT,
        ..PLAIN
    },
    Resource {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        namespaced: false,
        verbs: ALL_BUT_COLLECTION,
        short_names: &["ns"],
        subresources: &[
            own(
                "finalize",
                "Namespace",
                UPDATE,
                "io.k8s.api.core.v1.Namespace",
            ),
            own(
                "status",
                "Namespace",
                GET_PATCH_UPDATE,
                "io.k8s.api.core.v1.Namespace",
            ),
        ],
        schema: "io.k8s.api.core.v1.Namespace",
        columns: &[name_column(), column("Status"), column("Age")],
        selectable: &[field("metadata.name"), field("status.phase")],
        storage_version_hash: "Q3oi5N2YM8M=",
        name_rule: NameRule::DnsLabel,
        rules: &rules::NAMESPACE,
        ..PLAIN
    },
    Resource {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        namespaced: false,
        short_names: &["no"],
        subresources: &[own(
            "status",
            "Node",
            GET_PATCH_UPDATE,
            "io.k8s.api.core.v1.Node",
        )],
        schema: "io.k8s.api.core.v1.Node",
        columns: &[
            name_column(),
            column("Status"),
            column("Roles"),
            column("Age"),
            column("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        selectable: &[
            field("metadata.name"),
            field_at("spec.unschedulable", "spec.unschedulable", "false"),
        ],
        storage_version_hash: "XwShjMxG9Fs=",
        rules: &rules::NODE,
        ..PLAIN
    },
    Resource {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            own("binding", "Binding", CREATE, "io.k8s.api.core.v1.Binding"),
            own(
                "ephemeralcontainers",
                "Pod",
                GET_PATCH_UPDATE,
                "io.k8s.api.core.v1.Pod",
            ),
            own("status", "Pod", GET_PATCH_UPDATE, "io.k8s.api.core.v1.Pod"),
        ],
        schema: "io.k8s.api.core.v1.Pod",
        columns: &[
            name_column(),
            column("Ready"),
            column("Status"),
            column("Restarts"),
            column("Age"),
            wide("IP"),
            wide("Node"),
            wide("Nominated Node"),
            wide("Readiness Gates"),
        ],
        selectable: &[
            field("metadata.name"),
            field("metadata.namespace"),
            field("spec.nodeName"),
            field_at("spec.host", "spec.nodeName", ""),
            field("spec.restartPolicy"),
            field("spec.schedulerName"),
            field("spec.serviceAccountName"),
            field_at("spec.hostNetwork", "spec.hostNetwork", "false"),
            field("status.phase"),
            field("status.podIP"),
            field_at("status.podIPs", "status.podIP", ""),
            field("status.nominatedNodeName"),
        ],
        storage_version_hash: "xPOwRZ+Yhw8=",
        rules: &rules::POD,
        ..PLAIN
    },
    Resource {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        schema: "io.k8s.api.core.v1.Secret",
        columns: &[name_column(), column("Type"), column("Data"), column("Age")],
        selectable: &[
            field("metadata.name"),
            field("metadata.namespace"),
            field("type"),
        ],
        storage_version_hash: "S6u1pOWzb84=",
        rules: &rules::SECRET,
        ..PLAIN
    },
    Resource {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        schema: "io.k8s.api.core.v1.ServiceAccount",
        storage_version_hash: "pbx9ZvyFpBE=",
        ..PLAIN
    },
    Resource {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[own(
            "status",
            "Service",
            GET_PATCH_UPDATE,
            "io.k8s.api.core.v1.Service",
        )],
        schema: "io.k8s.api.core.v1.Service",
        columns: &[
            name_column(),
            column("Type"),
            column("Cluster-IP"),
            column("External-IP"),
            column("Port(s)"),
            column("Age"),
            wide("Selector"),
        ],
        selectable: &[
            field("metadata.name"),
            field("metadata.namespace"),
            field("spec.clusterIP"),
            field("spec.type"),
        ],
        storage_version_hash: "0/CO1lhkEBI=",
        name_rule: NameRule::DnsLabel,
        create_on_update: true,
        rules: &rules::SERVICE,
        ..PLAIN
    },
    Resource {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        schema: "io.k8s.api.coordination.v1.Lease",
        columns: &[name_column(), column("Holder"), column("Age")],
        storage_version_hash: "gqkMMb/YqFM=",
        create_on_update: true,
        unconditional_update: false,
        rules: &rules::LEASE,
        ..PLAIN
    },
    Resource {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        schema: "io.k8s.api.events.v1.Event",
        columns: EVENT_COLUMNS,
        selectable: &[
            field("metadata.name"),
            field("metadata.namespace"),
            field("regarding.kind"),
            field("regarding.namespace"),
            field("regarding.name"),
            field("regarding.uid"),
            field("regarding.apiVersion"),
            field("regarding.resourceVersion"),
            field("regarding.fieldPath"),
            field("reason"),
            field("reportingController"),
            field("type"),
        ],
        storage_version_hash: "r2yiGXH7wu8=",
        stored_as: Some(("", "events")),
        create_on_update: true,
        rules: &rules::EVENTS_EVENT,
        ..PLAIN
    },
];

/// Whether every kind's types are in the schema (a test holds it).
pub fn is_consistent() -> bool {
    ALL.iter().all(|resource| {
        schema::find(resource.schema).is_some()
            && resource
                .subresources
                .iter()
                .all(|sub| schema::find(sub.schema).is_some())
            && (resource.verbs == CREATE || schema::find(&resource.list_schema()).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_types() {
        assert!(is_consistent());
    }

    #[test]
    fn keys_nest_by_namespace() {
        let pods = find("", "v1", "pods").expect("served");
        assert_eq!(pods.key(Some("a"), "b"), "/nautilus/registry/pods/a/b");
        let nodes = find("", "v1", "nodes").expect("served");
        assert_eq!(nodes.key(None, "b"), "/nautilus/registry/nodes/b");
        let leases = find("coordination.k8s.io", "v1", "leases").expect("served");
        assert_eq!(
            leases.namespace_prefix("a"),
            "/nautilus/registry/coordination.k8s.io/leases/a/"
        );
    }

    #[test]
    fn both_kinds_of_events_share_their_keys() {
        let core = find("", "v1", "events").expect("served");
        let events = find("events.k8s.io", "v1", "events").expect("served");
        assert_eq!(core.key(Some("a"), "b"), events.key(Some("a"), "b"));
    }
}
