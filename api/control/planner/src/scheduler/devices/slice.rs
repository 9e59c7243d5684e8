//! What drivers say there is: ResourceSlices and their devices, and rules that taint them.
//!
//! Invariant: an object is read once, when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_cel::DeviceValue;
use nautilus_machinery::quantity::Quantity;
use serde_json::Value;

use super::super::node::NodeInfo;
use super::super::node_selector::NodeSelector;
use super::capacity::Capacity;
use crate::object;

/// A pool by its driver and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct PoolId {
    pub(super) driver: Arc<str>,
    pub(super) pool: Arc<str>,
}

/// A device by its pool and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct DeviceId {
    pub(super) pool: PoolId,
    pub(super) device: Arc<str>,
}

impl PoolId {
    pub(super) fn new(driver: &str, pool: &str) -> Self {
        let (driver, pool) = (driver.into(), pool.into());
        Self { driver, pool }
    }
}

impl std::fmt::Display for PoolId {
    fn fmt(&self, output: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(output, "{}/{}", self.driver, self.pool)
    }
}

impl DeviceId {
    pub(super) fn new(driver: &str, pool: &str, device: &str) -> Self {
        Self {
            pool: PoolId::new(driver, pool),
            device: device.into(),
        }
    }
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, output: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(output, "{}/{}", self.pool, self.device)
    }
}

/// From where devices can be reached.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    Node(String),
    All,
    /// Nodes that are selected, and the selector as it is written.
    Selected(NodeSelector, Value),
    /// Each device says so itself.
    PerDevice,
    Nowhere,
}

impl Reach {
    fn read(own: &Value) -> Self {
        if let Some(name) = own["nodeName"].as_str().filter(|name| !name.is_empty()) {
            return Self::Node(name.to_owned());
        }
        if own["allNodes"] == true {
            return Self::All;
        }
        match NodeSelector::read(&own["nodeSelector"]) {
            Some(selector) => Self::Selected(selector, own["nodeSelector"].clone()),
            None if own["perDeviceNodeSelection"] == true => Self::PerDevice,
            None => Self::Nowhere,
        }
    }

    /// Whether a node is among those meant; for [`Self::PerDevice`] its devices are asked.
    pub(super) fn reaches(&self, node: &NodeInfo) -> bool {
        match self {
            Self::Node(name) => *name == node.name,
            Self::All => true,
            Self::Selected(selector, _) => selector.matches(node),
            Self::PerDevice | Self::Nowhere => false,
        }
    }
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    Text(String),
    Number(i64),
    Flag(bool),
    Version(String),
    /// Of a type that is not known.
    Other,
}

impl Attribute {
    fn read(own: &Value) -> Self {
        if let Some(text) = own["string"].as_str() {
            Self::Text(text.to_owned())
        } else if let Some(number) = own["int"].as_i64() {
            Self::Number(number)
        } else if let Some(flag) = own["bool"].as_bool() {
            Self::Flag(flag)
        } else if let Some(text) = own["version"].as_str() {
            Self::Version(text.to_owned())
        } else {
            Self::Other
        }
    }
}

/// A taint of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceTaint {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) effect: String,
}

impl DeviceTaint {
    fn read(own: &Value) -> Self {
        let text = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
        Self {
            key: text("key"),
            value: text("value"),
            effect: text("effect"),
        }
    }

    pub(super) fn keeps_off(&self) -> bool {
        matches!(self.effect.as_str(), "NoSchedule" | "NoExecute")
    }
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: DeviceId,
    /// As expressions see it.
    pub(super) value: DeviceValue,
    pub(super) attributes: BTreeMap<String, Attribute>,
    pub(super) capacity: BTreeMap<String, Capacity>,
    pub(super) taints: Vec<DeviceTaint>,
    /// Counters of its pool that it takes, in nanounits, by counter set.
    pub(super) consumes: Vec<(String, BTreeMap<String, i128>)>,
    /// Whether several claims may have a share of it.
    pub(super) is_shared: bool,
    pub(super) binds_to_node: bool,
    pub(super) conditions: Option<Value>,
    pub(super) failure_conditions: Option<Value>,
    /// Where its slice leaves that to it.
    pub(super) reach: Reach,
}

impl Device {
    fn read(pool: &PoolId, own: &Value) -> Self {
        let name = own["name"].as_str().unwrap_or_default();
        let entries = |field: &str| own[field].as_object().into_iter().flatten();
        let list = |field: &str| Some(own[field].clone()).filter(Value::is_array);
        let consumes = object::items(&own["consumesCounters"]).map(|taken| {
            let set = taken["counterSet"].as_str().unwrap_or_default();
            (set.to_owned(), counters(&taken["counters"]))
        });
        Self {
            id: DeviceId {
                pool: pool.clone(),
                device: name.into(),
            },
            value: DeviceValue::read(&pool.driver, own),
            attributes: entries("attributes")
                .map(|(name, own)| (name.clone(), Attribute::read(own)))
                .collect(),
            capacity: entries("capacity")
                .map(|(name, own)| (name.clone(), Capacity::read(own)))
                .collect(),
            taints: object::items(&own["taints"])
                .map(DeviceTaint::read)
                .collect(),
            consumes: consumes.collect(),
            is_shared: own["allowMultipleAllocations"] == true,
            binds_to_node: own["bindsToNode"] == true,
            conditions: list("bindingConditions"),
            failure_conditions: list("bindingFailureConditions"),
            reach: Reach::read(own),
        }
    }

    /// An attribute by its full name: where the domain is the driver's, it may go without.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(name).or_else(|| {
            let (domain, id) = name.split_once('/')?;
            let is_own = *domain == *self.id.pool.driver;
            self.attributes.get(id).filter(|_| is_own)
        })
    }
}

/// Nanounits by name.
fn counters(own: &Value) -> BTreeMap<String, i128> {
    let entries = own.as_object().into_iter().flatten();
    let amounts = entries.map(|(name, own)| {
        let amount = Quantity::of_json(&own["value"]);
        (name.clone(), amount.map_or(0, |own| own.nanounits()))
    });
    amounts.collect()
}

/// A part of a pool.
#[derive(Debug)]
pub(in super::super) struct Slice {
    pub(super) pool: PoolId,
    pub(super) generation: i64,
    /// How many slices the pool has.
    pub(super) slices: usize,
    pub(super) reach: Reach,
    pub(super) devices: Vec<Device>,
    /// Counters that devices of the pool share, by set.
    pub(super) counters: Vec<(String, BTreeMap<String, i128>)>,
}

impl Slice {
    pub(super) fn read(slice: &Value) -> Self {
        let spec = &slice["spec"];
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let pool = PoolId::new(&text(&spec["driver"]), &text(&spec["pool"]["name"]));
        let devices = object::items(&spec["devices"]).map(|own| Device::read(&pool, own));
        let devices = devices.collect();
        let sets = object::items(&spec["sharedCounters"]);
        Self {
            generation: spec["pool"]["generation"].as_i64().unwrap_or_default(),
            slices: spec["pool"]["resourceSliceCount"]
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or_default(),
            reach: Reach::read(spec),
            devices,
            counters: sets
                .map(|own| (text(&own["name"]), counters(&own["counters"])))
                .collect(),
            pool,
        }
    }

    /// Whether a node can reach any of its devices.
    pub(super) fn reaches(&self, node: &NodeInfo) -> bool {
        match &self.reach {
            Reach::PerDevice => self.devices.iter().any(|own| own.reach.reaches(node)),
            reach => reach.reaches(node),
        }
    }

    /// From where one of its devices can be reached.
    pub(super) fn reach_of<'a>(&'a self, device: &'a Device) -> &'a Reach {
        match &self.reach {
            Reach::PerDevice => &device.reach,
            own => own,
        }
    }
}

/// A DeviceTaintRule.
#[derive(Debug)]
pub(super) struct TaintRule {
    /// Of what is meant: driver, pool and device, where they are said. `None`: nothing.
    selector: Option<[Option<String>; 3]>,
    pub(super) taint: DeviceTaint,
}

impl TaintRule {
    pub(super) fn read(rule: &Value) -> Self {
        let selector = &rule["spec"]["deviceSelector"];
        let parts = ["driver", "pool", "device"];
        let parts = parts.map(|field| selector[field].as_str().map(str::to_owned));
        Self {
            selector: selector.is_object().then_some(parts),
            taint: DeviceTaint::read(&rule["spec"]["taint"]),
        }
    }

    pub(super) fn means(&self, id: &DeviceId) -> bool {
        let own = [&id.pool.driver, &id.pool.pool, &id.device];
        self.selector.as_ref().is_some_and(|selector| {
            let mut both = selector.iter().zip(own);
            both.all(|(wanted, own)| wanted.as_deref().is_none_or(|wanted| *wanted == **own))
        })
    }
}
