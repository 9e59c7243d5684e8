//! What pods claim: ResourceClaims and DeviceClasses, read once.
//!
//! Invariant: what a claim asks for never changes; its selectors are compiled once, however
//! many claims and classes have the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_cel::{DeviceSelector, UnfitSelector};
use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::super::node_selector::NodeSelector;
use super::capacity::{Amounts, amounts};
use super::constraint::Constraint;
use super::slice::{Device, DeviceTaint};
use crate::object;
use crate::view::Key;

/// A compiled selector, or why it is none.
type Selector = Result<DeviceSelector, UnfitSelector>;

/// Compiled selectors by their text, with how many objects have them.
#[derive(Debug, Default)]
pub(super) struct Selectors(BTreeMap<String, (u32, Arc<Selector>)>);

impl Selectors {
    fn acquire(&mut self, list: &Value) -> Vec<Asked> {
        let texts = object::items(list).map(|own| own["cel"]["expression"].as_str());
        let selectors = texts.map(|text| {
            let text = text?;
            let (count, compiled) = self
                .0
                .entry(text.to_owned())
                .or_insert_with(|| (0, Arc::new(DeviceSelector::compile(text))));
            *count += 1;
            Some((text.to_owned(), compiled.clone()))
        });
        selectors.collect()
    }

    fn release(&mut self, selectors: &[Asked]) {
        for (text, _) in selectors.iter().flatten() {
            if let Some((count, _)) = self.0.get_mut(text) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(text);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A selector with its text; `None`: of a type that is not known.
type Asked = Option<(String, Arc<Selector>)>;

/// A DeviceClass.
#[derive(Debug)]
pub(in super::super) struct Class {
    pub(super) name: String,
    pub(super) selectors: Vec<Asked>,
    /// `spec.config`.
    pub(super) config: Value,
    /// The resource that its devices stand for, beside the one that has its name.
    pub(super) resource: Option<String>,
    pub(super) created: Option<Instant>,
}

impl Class {
    pub(super) fn read(class: &Value, selectors: &mut Selectors) -> Self {
        Self {
            name: object::name(class).to_owned(),
            selectors: selectors.acquire(&class["spec"]["selectors"]),
            config: class["spec"]["config"].clone(),
            resource: class["spec"]["extendedResourceName"]
                .as_str()
                .map(str::to_owned),
            created: object::created(class),
        }
    }

    /// Whether its selectors mean a device.
    ///
    /// # Errors
    /// One can't be asked.
    pub(super) fn means(&self, device: &Device) -> Result<bool, String> {
        let selectors = self.selectors.iter().flatten().map(|(_, own)| own);
        all_select(selectors, device, || format!("class {}", self.name))
    }

    pub(super) fn release(&self, selectors: &mut Selectors) {
        selectors.release(&self.selectors);
    }
}

/// How many devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Count(usize),
    All,
    /// Of a mode that is not known.
    Unknown(String),
}

/// Devices of one kind that a claim asks for.
#[derive(Debug)]
pub(super) struct Ask {
    /// `request`, or `request/part` of alternatives.
    pub(super) name: String,
    pub(super) own_name: String,
    pub(super) class: String,
    pub(super) mode: Mode,
    pub(super) selectors: Vec<Asked>,
    /// Access for administration, beside whoever has the device.
    pub(super) is_admin: bool,
    tolerations: Vec<Toleration>,
    /// `tolerations` as they are written.
    pub(super) tolerations_written: Value,
    pub(super) capacity: Amounts,
}

#[derive(Debug)]
struct Toleration {
    key: String,
    value: String,
    effect: String,
    operator: String,
}

impl Toleration {
    fn read(own: &Value) -> Self {
        let text = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
        Self {
            key: text("key"),
            value: text("value"),
            effect: text("effect"),
            operator: text("operator"),
        }
    }

    fn tolerates(&self, taint: &DeviceTaint) -> bool {
        let fits = |own: &str, theirs: &str| own.is_empty() || own == theirs;
        fits(&self.effect, &taint.effect)
            && fits(&self.key, &taint.key)
            && match self.operator.as_str() {
                "" | "Equal" => self.value == taint.value,
                operator => operator == "Exists",
            }
    }
}

impl Ask {
    fn read(own: &Value, name: String, selectors: &mut Selectors) -> Self {
        let text = |field: &str| own[field].as_str().unwrap_or_default();
        let tolerations = object::items(&own["tolerations"]);
        Self {
            own_name: name.rsplit('/').next().unwrap_or_default().to_owned(),
            name,
            class: text("deviceClassName").to_owned(),
            mode: match text("allocationMode") {
                "ExactCount" | "" => {
                    let count = own["count"].as_u64().unwrap_or(1);
                    Mode::Count(usize::try_from(count).unwrap_or(usize::MAX))
                }
                "All" => Mode::All,
                other => Mode::Unknown(other.to_owned()),
            },
            selectors: selectors.acquire(&own["selectors"]),
            is_admin: own["adminAccess"] == true,
            tolerations: tolerations.map(Toleration::read).collect(),
            tolerations_written: own["tolerations"].clone(),
            capacity: amounts(&own["capacity"]["requests"]),
        }
    }

    pub(super) fn tolerates(&self, taint: &DeviceTaint) -> bool {
        self.tolerations.iter().any(|own| own.tolerates(taint))
    }
}

/// A request of a claim.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    /// One, or alternatives, the best first; none where it is of a type that is not known.
    pub(super) asks: Vec<Ask>,
    /// Whether these are alternatives.
    pub(super) is_choice: bool,
}

impl Request {
    fn read(own: &Value, selectors: &mut Selectors) -> Self {
        let name = own["name"].as_str().unwrap_or_default().to_owned();
        let exactly = &own["exactly"];
        let asks: Vec<Ask> = match exactly.is_object() {
            true => vec![Ask::read(exactly, name.clone(), selectors)],
            false => object::items(&own["firstAvailable"])
                .map(|part| {
                    let part_name = part["name"].as_str().unwrap_or_default();
                    Ask::read(part, format!("{name}/{part_name}"), selectors)
                })
                .collect(),
        };
        Self {
            name,
            asks,
            is_choice: !exactly.is_object(),
        }
    }
}

/// What a claim asks for.
#[derive(Debug)]
pub(in super::super) struct Spec {
    pub(super) requests: Vec<Request>,
    pub(super) constraints: Vec<Constraint>,
    /// `spec.devices.config`.
    pub(super) config: Value,
}

impl Spec {
    pub(super) fn read(claim: &Value, selectors: &mut Selectors) -> Self {
        let devices = &claim["spec"]["devices"];
        let requests = object::items(&devices["requests"]);
        Self {
            requests: requests.map(|own| Request::read(own, selectors)).collect(),
            constraints: object::items(&devices["constraints"])
                .map(Constraint::read)
                .collect(),
            config: devices["config"].clone(),
        }
    }

    pub(super) fn release(&self, selectors: &mut Selectors) {
        for ask in self.requests.iter().flat_map(|own| &own.asks) {
            selectors.release(&ask.selectors);
        }
    }
}

/// A ResourceClaim.
#[derive(Debug, Clone)]
pub(in super::super) struct Claim {
    pub(in super::super) object: Arc<Value>,
    pub(super) spec: Arc<Spec>,
    /// Where its devices can be reached; `None`: everywhere, or it has none.
    pub(super) reach: Option<NodeSelector>,
}

impl Claim {
    pub(super) fn new(object: Arc<Value>, spec: Arc<Spec>) -> Self {
        let reach = NodeSelector::read(&object["status"]["allocation"]["nodeSelector"]);
        Self {
            object,
            spec,
            reach,
        }
    }

    pub(super) fn uid(&self) -> &str {
        object::uid(&self.object)
    }

    /// `namespace/name`.
    pub(super) fn key(&self) -> Key {
        Key::of(&self.object)
    }

    /// Its devices.
    pub(super) fn allocation(&self) -> Option<&Value> {
        Some(&self.object["status"]["allocation"]).filter(|own| own.is_object())
    }

    /// Who may use it.
    pub(super) fn is_reserved_for(&self, uid: &str) -> bool {
        let mut reserved = object::items(&self.object["status"]["reservedFor"]);
        reserved.any(|own| own["uid"] == uid)
    }

    /// Whether nobody but a pod may use it.
    pub(super) fn is_free_for(&self, uid: &str) -> bool {
        let mut reserved = object::items(&self.object["status"]["reservedFor"]);
        reserved.next().is_none_or(|own| own["uid"] == uid) && reserved.next().is_none()
    }
}

/// Whether all selectors select a device; `whose` they are is said where one can't be asked.
pub(super) fn all_select<'s>(
    selectors: impl Iterator<Item = &'s Arc<Selector>>,
    device: &Device,
    whose: impl Fn() -> String,
) -> Result<bool, String> {
    for (at, selector) in selectors.enumerate() {
        let selector = match &**selector {
            Ok(selector) => selector,
            Err(unfit) => {
                let whose = whose();
                return Err(format!(
                    "{whose}: selector #{at}: CEL compile error: {unfit}"
                ));
            }
        };
        let selected = selector.selects(&device.value).map_err(|what| {
            let (whose, id) = (whose(), &device.id);
            format!("{whose}: selector #{at} on device {id}: CEL runtime error: {what}")
        });
        if !selected? {
            return Ok(false);
        }
    }
    Ok(true)
}
