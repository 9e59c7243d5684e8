//! The rules of each kind, as a table of plain functions. What a kind does not
//! state is [`PLAIN`]'s.

use serde_json::Value;

use super::warnings::Warnings;
use super::{
    Context, admission_policies, autoscaling, batch, certificates, cron, devices, flow, hooks,
    networking, node, pod, policy, quota, service, service_change, small, stateful, storage,
    volumes, workloads,
};
use crate::resource::Resource;
use crate::status::ApiError;
use crate::validation::{At, Errors};

/// What a kind does at each step of an object's life.
#[derive(Debug)]
pub struct Rules {
    /// Whether `status` is written only through its subresource.
    pub has_status: bool,
    /// Whether a change of `spec` raises `metadata.generation`.
    pub counts_generation: bool,
    /// The places, as JSON pointers, whose change raises it.
    pub generation_of: &'static [&'static str],
    /// Whether a deletion that has to wait states its grace.
    pub marks_grace: bool,
    /// Fills in what the client left open.
    pub default: fn(&mut Value),
    /// Sets what a client may not choose at creation.
    pub prepare_create: fn(&mut Value, &Context<'_>),
    /// Keeps what a client may not change through this way in.
    pub prepare_update: fn(Option<&str>, &Value, &mut Value),
    /// Notes when something was added: in the object as it was, null if it is new, as it
    /// is to be, and now.
    pub stamp: fn(&Value, &mut Value, &str),
    /// Checks an object, new or changed; not a change through a subresource.
    pub validate: fn(&At<'_>, &mut Errors),
    /// Checks what only a new object may not have.
    pub validate_create: fn(&At<'_>, &mut Errors),
    /// Checks a change of the object itself, old and new.
    pub validate_update: fn(&At<'_>, &At<'_>, &mut Errors),
    /// Checks a change through that subresource, old and new.
    pub validate_subresource: fn(&str, &At<'_>, &At<'_>, &mut Errors),
    /// Tells what is accepted and better written otherwise: of the object as it was,
    /// null if it is new, and as it is to be.
    pub warn: fn(&Value, &At<'_>, &mut Warnings),
    /// Refuses a deletion.
    pub may_delete: fn(&Resource, &Value) -> Result<(), ApiError>,
    /// The finalizer that a deletion waits for, or empty.
    pub cleanup_finalizer: &'static str,
    /// Seconds of grace, of the object and what was asked; `None`: the kind knows none.
    pub grace_seconds: fn(&Value, Option<i64>) -> Option<i64>,
    /// What else changes when an object is marked for deletion.
    pub mark_deleted: fn(&mut Value),
}

/// A kind without rules of its own.
pub const PLAIN: Rules = Rules {
    has_status: false,
    counts_generation: false,
    generation_of: &["/spec"],
    marks_grace: true,
    default: |_| {},
    prepare_create: |_, _| {},
    prepare_update: |_, _, _| {},
    stamp: |_, _, _| {},
    validate: |_, _| {},
    validate_create: |_, _| {},
    validate_update: |_, _, _| {},
    validate_subresource: |_, _, _, _| {},
    warn: |_, _, _| {},
    may_delete: |_, _| Ok(()),
    cleanup_finalizer: "",
    grace_seconds: |_, _| None,
    mark_deleted: |_| {},
};

/// The rules of a built-in kind; `has_status` says whether it has that subresource.
pub fn of(group: &str, plural: &str, has_status: bool) -> &'static Rules {
    match (group, plural) {
        ("", "configmaps") => &CONFIG_MAP,
        ("", "events") => &EVENT,
        ("", "namespaces") => &NAMESPACE,
        ("", "nodes") => &NODE,
        ("", "pods") => &POD,
        ("", "secrets") => &SECRET,
        ("", "services") => &SERVICE,
        ("", "podtemplates") => &workloads::POD_TEMPLATE,
        ("", "replicationcontrollers") => &workloads::REPLICATION_CONTROLLER,
        ("apps", "controllerrevisions") => &workloads::CONTROLLER_REVISION,
        ("apps", "daemonsets") => &workloads::DAEMON_SET,
        ("apps", "deployments") => &workloads::DEPLOYMENT,
        ("apps", "replicasets") => &workloads::REPLICA_SET,
        ("apps", "statefulsets") => &stateful::STATEFUL_SET,
        ("batch", "cronjobs") => &cron::CRON_JOB,
        ("batch", "jobs") => &batch::JOB,
        ("", "endpoints") => &policy::ENDPOINTS,
        ("", "limitranges") => &quota::LIMIT_RANGE,
        ("", "persistentvolumeclaims") => &volumes::CLAIM,
        ("", "persistentvolumes") => &volumes::PERSISTENT_VOLUME,
        ("", "resourcequotas") => &quota::RESOURCE_QUOTA,
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::HORIZONTAL_POD_AUTOSCALER,
        ("apiextensions.k8s.io", "customresourcedefinitions") => &DEFINITION,
        ("coordination.k8s.io", "leases") => &LEASE,
        ("discovery.k8s.io", "endpointslices") => &policy::ENDPOINT_SLICE,
        ("networking.k8s.io", "ingresses") => &networking::INGRESS,
        ("networking.k8s.io", "ingressclasses") => &networking::INGRESS_CLASS,
        ("networking.k8s.io", "ipaddresses") => &networking::IP_ADDRESS,
        ("networking.k8s.io", "networkpolicies") => &networking::NETWORK_POLICY,
        ("networking.k8s.io", "servicecidrs") => &networking::SERVICE_CIDR,
        ("node.k8s.io", "runtimeclasses") => &policy::RUNTIME_CLASS,
        ("policy", "poddisruptionbudgets") => &policy::POD_DISRUPTION_BUDGET,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &policy::CLUSTER_ROLE_BINDING,
        ("rbac.authorization.k8s.io", "clusterroles") => &policy::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "rolebindings") => &policy::ROLE_BINDING,
        ("rbac.authorization.k8s.io", "roles") => &policy::ROLE,
        ("scheduling.k8s.io", "priorityclasses") => &policy::PRIORITY_CLASS,
        ("storage.k8s.io", "csidrivers") => &storage::CSI_DRIVER,
        ("storage.k8s.io", "csinodes") => &storage::CSI_NODE,
        ("storage.k8s.io", "csistoragecapacities") => &storage::CSI_STORAGE_CAPACITY,
        ("storage.k8s.io", "storageclasses") => &storage::STORAGE_CLASS,
        ("storage.k8s.io", "volumeattachments") => &storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "volumeattributesclasses") => &storage::VOLUME_ATTRIBUTES_CLASS,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => {
            &admission_policies::MUTATING_POLICY
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => {
            &admission_policies::MUTATING_BINDING
        }
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => {
            &hooks::MUTATING_WEBHOOKS
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            &admission_policies::VALIDATING_POLICY
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            &admission_policies::VALIDATING_BINDING
        }
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => {
            &hooks::VALIDATING_WEBHOOKS
        }
        ("apiregistration.k8s.io", "apiservices") => &hooks::API_SERVICE,
        ("certificates.k8s.io", "certificatesigningrequests") => &certificates::SIGNING_REQUEST,
        ("certificates.k8s.io", "clustertrustbundles") => &certificates::TRUST_BUNDLE,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flow::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flow::PRIORITY_LEVEL,
        ("resource.k8s.io", "deviceclasses") => &devices::DEVICE_CLASS,
        ("resource.k8s.io", "devicetaintrules") => &devices::DEVICE_TAINT_RULE,
        ("resource.k8s.io", "resourceslices") => &devices::RESOURCE_SLICE,
        ("resource.k8s.io", "resourceclaims") => &devices::RESOURCE_CLAIM,
        ("resource.k8s.io", "resourceclaimtemplates") => &devices::RESOURCE_CLAIM_TEMPLATE,
        ("events.k8s.io", "events") => &EVENTS_EVENT,
        _ => match (has_status, generations(group, plural)) {
            (true, true) => &COUNTED_WITH_STATUS,
            (true, false) => &WITH_STATUS,
            (false, true) => &COUNTED,
            (false, false) => &PLAIN,
        },
    }
}

/// Kinds whose `metadata.generation` counts the changes of their spec.
fn generations(group: &str, plural: &str) -> bool {
    match group {
        "admissionregistration.k8s.io"
        | "apiextensions.k8s.io"
        | "autoscaling"
        | "batch"
        | "discovery.k8s.io"
        | "flowcontrol.apiserver.k8s.io"
        | "policy"
        | "scheduling.k8s.io" => true,
        "apps" => plural != "controllerrevisions",
        "networking.k8s.io" => matches!(plural, "ingresses" | "ingressclasses" | "networkpolicies"),
        "" => matches!(plural, "podtemplates" | "replicationcontrollers"),
        _ => false,
    }
}

static WITH_STATUS: Rules = Rules {
    has_status: true,
    prepare_create: |object, _| drop_status(object),
    ..PLAIN
};

static COUNTED: Rules = Rules {
    counts_generation: true,
    ..PLAIN
};

static COUNTED_WITH_STATUS: Rules = Rules {
    has_status: true,
    counts_generation: true,
    prepare_create: |object, _| drop_status(object),
    ..PLAIN
};

/// What a new object's status is, is not for its creator to say.
fn drop_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.shift_remove("status");
    }
}

/// Definitions of kinds: they go after their objects. What they define is judged by who
/// serves it.
pub static DEFINITION: Rules = Rules {
    cleanup_finalizer: "customresourcecleanup.apiextensions.k8s.io",
    ..COUNTED_WITH_STATUS
};

/// Config maps.
pub static CONFIG_MAP: Rules = Rules {
    validate: small::validate_config_map,
    validate_update: small::validate_config_map_update,
    ..PLAIN
};

/// Secrets.
pub static SECRET: Rules = Rules {
    default: small::default_secret,
    validate: small::validate_secret,
    validate_update: small::validate_secret_update,
    ..PLAIN
};

/// Namespaces.
pub static NAMESPACE: Rules = Rules {
    has_status: true,
    marks_grace: false,
    validate: small::validate_namespace,
    validate_subresource: small::validate_namespace_subresource,
    default: small::default_namespace,
    prepare_create: small::prepare_namespace,
    prepare_update: small::keep_namespace,
    may_delete: small::may_delete_namespace,
    mark_deleted: small::mark_namespace_deleted,
    ..PLAIN
};

/// Nodes.
pub static NODE: Rules = Rules {
    has_status: true,
    default: node::default,
    prepare_update: node::prepare_update,
    validate: node::validate,
    validate_update: node::validate_update,
    validate_subresource: node::validate_subresource,
    warn: node::warn,
    ..PLAIN
};

/// Pods.
pub static POD: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: pod::defaults::pod,
    prepare_create: pod::prepare_create,
    prepare_update: pod::prepare_update,
    validate: pod::validate,
    validate_create: pod::validate_create,
    validate_update: pod::validate_update,
    validate_subresource: pod::validate_subresource,
    warn: pod::warn,
    grace_seconds: pod::grace_seconds,
    ..PLAIN
};

/// Services.
pub static SERVICE: Rules = Rules {
    has_status: true,
    default: service::default,
    prepare_create: service::prepare_create,
    prepare_update: service_change::prepare_update,
    validate: service::validate,
    validate_update: service_change::validate_update,
    validate_subresource: service::validate_subresource,
    warn: service::warn,
    ..PLAIN
};

/// Leases.
pub static LEASE: Rules = Rules {
    default: small::default_lease,
    validate: small::validate_lease,
    ..PLAIN
};

/// Events of the core group.
pub static EVENT: Rules = Rules {
    validate: small::validate_event,
    ..PLAIN
};

/// Events of `events.k8s.io`.
pub static EVENTS_EVENT: Rules = Rules {
    validate: small::validate_events_event,
    validate_create: small::validate_events_event_create,
    validate_update: small::validate_events_event_update,
    ..PLAIN
};
