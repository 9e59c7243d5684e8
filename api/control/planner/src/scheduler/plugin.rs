//! The scheduler's rules by their names, and sets of them.
//!
//! Invariant: the order of the variants is the order in which rules look at a node, so that
//! the first reason of a node is the one the reference gives.

/// A rule that turns pods away or says how good a node is, by the name that kube-scheduler
/// gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plugin {
    /// Pods wait until their gates are gone.
    SchedulingGates,
    /// A pod may name its node.
    NodeName,
    /// Nodes may be closed.
    NodeUnschedulable,
    /// Taints that a pod does not tolerate.
    TaintToleration,
    /// Labels of nodes that a pod asks for.
    NodeAffinity,
    /// Ports of the host.
    NodePorts,
    /// What a pod requests, and what is left.
    NodeResourcesFit,
    /// Volumes that only one may use.
    VolumeRestrictions,
    /// Volumes that a driver attaches to one node, at most.
    NodeVolumeLimits,
    /// Claims that must be bound where the pod runs.
    VolumeBinding,
    /// Zones of volumes.
    VolumeZone,
    /// Pods spread over domains.
    PodTopologySpread,
    /// Pods that want each other near or far.
    InterPodAffinity,
    /// Devices that pods claim.
    DynamicResources,
    /// Shares of CPU and memory used alike.
    NodeResourcesBalancedAllocation,
    /// Images that are there already.
    ImageLocality,
    /// Features that a node's kubelet declares.
    NodeDeclaredFeatures,
    /// What the stake behind a worker's node permits. Ours; off unless a profile has it.
    WorkerStake,
    /// How busy a node is by its metrics. Ours; off unless a profile has it.
    NodeLoad,
}

impl Plugin {
    /// Every one, each once, in the order in which they look at a node.
    pub const ALL: [Self; 19] = [
        Self::SchedulingGates,
        Self::NodeName,
        Self::NodeUnschedulable,
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeRestrictions,
        Self::NodeVolumeLimits,
        Self::VolumeBinding,
        Self::VolumeZone,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::DynamicResources,
        Self::NodeResourcesBalancedAllocation,
        Self::ImageLocality,
        Self::NodeDeclaredFeatures,
        Self::WorkerStake,
        Self::NodeLoad,
    ];

    /// Its name in messages, metrics and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::SchedulingGates => "SchedulingGates",
            Self::NodeUnschedulable => "NodeUnschedulable",
            Self::NodeName => "NodeName",
            Self::TaintToleration => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::NodePorts => "NodePorts",
            Self::NodeResourcesFit => "NodeResourcesFit",
            Self::VolumeRestrictions => "VolumeRestrictions",
            Self::NodeVolumeLimits => "NodeVolumeLimits",
            Self::VolumeBinding => "VolumeBinding",
            Self::VolumeZone => "VolumeZone",
            Self::PodTopologySpread => "PodTopologySpread",
            Self::InterPodAffinity => "InterPodAffinity",
            Self::DynamicResources => "DynamicResources",
            Self::NodeResourcesBalancedAllocation => "NodeResourcesBalancedAllocation",
            Self::ImageLocality => "ImageLocality",
            Self::NodeDeclaredFeatures => "NodeDeclaredFeatures",
            Self::WorkerStake => "WorkerStake",
            Self::NodeLoad => "NodeLoad",
        }
    }

    /// The rule of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plugin| plugin.name() == name)
    }

    /// Whether it can say that a node will not do.
    pub(super) fn filters(self) -> bool {
        !matches!(
            self,
            Self::SchedulingGates
                | Self::NodeResourcesBalancedAllocation
                | Self::ImageLocality
                | Self::WorkerStake
                | Self::NodeLoad
        )
    }

    /// Whether it can say how good a node is.
    pub(super) fn scores(self) -> bool {
        self.default_weight().is_some() || matches!(self, Self::WorkerStake | Self::NodeLoad)
    }

    /// What its score weighs where nothing is said; `None`: it does not score then.
    pub(super) fn default_weight(self) -> Option<i64> {
        match self {
            Self::TaintToleration => Some(3),
            Self::NodeAffinity
            | Self::PodTopologySpread
            | Self::InterPodAffinity
            | Self::DynamicResources => Some(2),
            Self::NodeResourcesFit
            | Self::VolumeBinding
            | Self::NodeResourcesBalancedAllocation
            | Self::ImageLocality => Some(1),
            _ => None,
        }
    }
}

/// A set of rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plugins(u32);

impl Plugins {
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one is among them.
    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & Self::bit(plugin) != 0
    }

    /// Adds one.
    pub fn insert(&mut self, plugin: Plugin) {
        self.0 |= Self::bit(plugin);
    }

    /// Keeps those that are wanted.
    pub fn retain(&mut self, wanted: impl Fn(Plugin) -> bool) {
        *self = self.iter().filter(|plugin| wanted(*plugin)).collect();
    }

    /// Those that are in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Each, in the order of [`Plugin::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Plugin> {
        Plugin::ALL
            .into_iter()
            .filter(move |plugin| self.contains(*plugin))
    }

    fn bit(plugin: Plugin) -> u32 {
        1 << plugin as u32
    }
}

impl FromIterator<Plugin> for Plugins {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Self {
        let mut set = Self::NONE;
        plugins.into_iter().for_each(|plugin| set.insert(plugin));
        set
    }
}
