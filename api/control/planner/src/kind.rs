//! The kinds that the scheduler and the controllers read and write.

/// A kind as it is served: its group (empty: core), version, plural and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Served version.
    pub version: &'static str,
    /// Plural, as in paths.
    pub plural: &'static str,
    /// `kind` of an object.
    pub kind: &'static str,
    /// Whether objects stand in namespaces.
    pub namespaced: bool,
}

impl Kind {
    const fn in_namespaces(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            plural,
            kind,
            namespaced: true,
        }
    }

    const fn of_cluster(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self {
            namespaced: false,
            ..Self::in_namespaces(group, version, plural, kind)
        }
    }

    /// `apiVersion` of an object: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// `v1` Pod.
pub const PODS: Kind = Kind::in_namespaces("", "v1", "pods", "Pod");
/// `v1` Node.
pub const NODES: Kind = Kind::of_cluster("", "v1", "nodes", "Node");
/// `v1` Namespace.
pub const NAMESPACES: Kind = Kind::of_cluster("", "v1", "namespaces", "Namespace");
/// `v1` Service.
pub const SERVICES: Kind = Kind::in_namespaces("", "v1", "services", "Service");
/// `v1` Endpoints.
pub const ENDPOINTS: Kind = Kind::in_namespaces("", "v1", "endpoints", "Endpoints");
/// `v1` Secret.
pub const SECRETS: Kind = Kind::in_namespaces("", "v1", "secrets", "Secret");
/// `v1` ConfigMap.
pub const CONFIG_MAPS: Kind = Kind::in_namespaces("", "v1", "configmaps", "ConfigMap");
/// `v1` ServiceAccount.
pub const SERVICE_ACCOUNTS: Kind =
    Kind::in_namespaces("", "v1", "serviceaccounts", "ServiceAccount");
/// `v1` ReplicationController.
pub const REPLICATION_CONTROLLERS: Kind =
    Kind::in_namespaces("", "v1", "replicationcontrollers", "ReplicationController");
/// `v1` PersistentVolumeClaim.
pub const CLAIMS: Kind =
    Kind::in_namespaces("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim");
/// `v1` PersistentVolume.
pub const VOLUMES: Kind = Kind::of_cluster("", "v1", "persistentvolumes", "PersistentVolume");
/// `apps/v1` Deployment.
pub const DEPLOYMENTS: Kind = Kind::in_namespaces("apps", "v1", "deployments", "Deployment");
/// `apps/v1` ReplicaSet.
pub const REPLICA_SETS: Kind = Kind::in_namespaces("apps", "v1", "replicasets", "ReplicaSet");
/// `apps/v1` StatefulSet.
pub const STATEFUL_SETS: Kind = Kind::in_namespaces("apps", "v1", "statefulsets", "StatefulSet");
/// `apps/v1` DaemonSet.
pub const DAEMON_SETS: Kind = Kind::in_namespaces("apps", "v1", "daemonsets", "DaemonSet");
/// `apps/v1` ControllerRevision.
pub const CONTROLLER_REVISIONS: Kind =
    Kind::in_namespaces("apps", "v1", "controllerrevisions", "ControllerRevision");
/// `batch/v1` Job.
pub const JOBS: Kind = Kind::in_namespaces("batch", "v1", "jobs", "Job");
/// `batch/v1` CronJob.
pub const CRON_JOBS: Kind = Kind::in_namespaces("batch", "v1", "cronjobs", "CronJob");
/// `discovery.k8s.io/v1` EndpointSlice.
pub const ENDPOINT_SLICES: Kind =
    Kind::in_namespaces("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
/// `policy/v1` PodDisruptionBudget.
pub const DISRUPTION_BUDGETS: Kind = Kind::in_namespaces(
    "policy",
    "v1",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
);
/// `autoscaling/v2` HorizontalPodAutoscaler.
pub const AUTOSCALERS: Kind = Kind::in_namespaces(
    "autoscaling",
    "v2",
    "horizontalpodautoscalers",
    "HorizontalPodAutoscaler",
);
/// `coordination.k8s.io/v1` Lease.
pub const LEASES: Kind = Kind::in_namespaces("coordination.k8s.io", "v1", "leases", "Lease");
/// `storage.k8s.io/v1` StorageClass.
pub const STORAGE_CLASSES: Kind =
    Kind::of_cluster("storage.k8s.io", "v1", "storageclasses", "StorageClass");
/// `storage.k8s.io/v1` CSINode.
pub const CSI_NODES: Kind = Kind::of_cluster("storage.k8s.io", "v1", "csinodes", "CSINode");
/// `storage.k8s.io/v1` CSIDriver.
pub const CSI_DRIVERS: Kind = Kind::of_cluster("storage.k8s.io", "v1", "csidrivers", "CSIDriver");
/// `storage.k8s.io/v1` CSIStorageCapacity.
pub const CSI_CAPACITIES: Kind = Kind::in_namespaces(
    "storage.k8s.io",
    "v1",
    "csistoragecapacities",
    "CSIStorageCapacity",
);
/// `storage.k8s.io/v1` VolumeAttachment.
pub const VOLUME_ATTACHMENTS: Kind = Kind::of_cluster(
    "storage.k8s.io",
    "v1",
    "volumeattachments",
    "VolumeAttachment",
);
/// `scheduling.k8s.io/v1` PriorityClass.
pub const PRIORITY_CLASSES: Kind = Kind::of_cluster(
    "scheduling.k8s.io",
    "v1",
    "priorityclasses",
    "PriorityClass",
);
/// `networking.k8s.io/v1` ServiceCIDR.
pub const SERVICE_CIDRS: Kind =
    Kind::of_cluster("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR");
/// `resource.k8s.io/v1` ResourceClaim.
pub const DEVICE_CLAIMS: Kind =
    Kind::in_namespaces("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim");
/// `resource.k8s.io/v1` ResourceClaimTemplate.
pub const DEVICE_CLAIM_TEMPLATES: Kind = Kind::in_namespaces(
    "resource.k8s.io",
    "v1",
    "resourceclaimtemplates",
    "ResourceClaimTemplate",
);
/// `resource.k8s.io/v1` DeviceClass.
pub const DEVICE_CLASSES: Kind =
    Kind::of_cluster("resource.k8s.io", "v1", "deviceclasses", "DeviceClass");
/// `resource.k8s.io/v1` ResourceSlice.
pub const DEVICE_SLICES: Kind =
    Kind::of_cluster("resource.k8s.io", "v1", "resourceslices", "ResourceSlice");
/// `resource.k8s.io/v1` DeviceTaintRule.
pub const DEVICE_TAINT_RULES: Kind = Kind::of_cluster(
    "resource.k8s.io",
    "v1",
    "devicetaintrules",
    "DeviceTaintRule",
);
