//! Expressions that select devices (`resource.k8s.io`): what a device is to them, and what
//! they may come to.
//!
//! Source: `k8s.io/dynamic-resource-allocation` `cel` of v1.37.
//!
//! Invariant: whoever judges selectors that are written and whoever evaluates them compile
//! them here, against one declaration of a device.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use nautilus_machinery::quantity::Quantity;
use serde_json::Value as Json;

use crate::declaration::{Declaration, Field};
use crate::environment::Environment;
use crate::error::CompileError;
use crate::evaluate::{Bindings, Budget};
use crate::library::quantity::QuantityValue;
use crate::library::semver::Semver;
use crate::program::Program;
use crate::types::Type;
use crate::value::{Key, Map, Opaque, Value};

const MAX_DOMAIN_BYTES: u64 = 63;
const MAX_VALUE_BYTES: u64 = 64;
const MAX_ENTRIES: u64 = 32;

/// An expression that selects devices.
#[derive(Debug, Clone)]
pub struct DeviceSelector(Program);

/// Why an expression selects no devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnfitSelector {
    /// It is none.
    #[error("compilation failed: {0}")]
    Broken(CompileError),
    /// It is of another type; its name.
    #[error("must evaluate to bool or the unknown type, not {0}")]
    Mistyped(String),
}

/// A device as expressions see it.
#[derive(Debug, Clone)]
pub struct DeviceValue(Result<Value<'static>, String>);

impl DeviceSelector {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It can't select devices.
    pub fn compile(expression: &str) -> Result<Self, UnfitSelector> {
        let program = Program::compile(expression, &DEVICE, &[]).map_err(UnfitSelector::Broken)?;
        match program.result_type() {
            Type::Bool | Type::Any => Ok(Self(program)),
            other => Err(UnfitSelector::Mistyped(other.to_string())),
        }
    }

    /// What it costs at most, over the largest device.
    pub fn max_cost(&self) -> u64 {
        self.0.cost().max
    }

    /// Whether it selects a device.
    ///
    /// # Errors
    /// Why that can't be said.
    pub fn selects(&self, device: &DeviceValue) -> Result<bool, String> {
        const HINT: &str = ". consider using CEL optional chaining (.? followed by orValue()) \
                            or guarding the check with has() for optional fields";
        let device = device.0.clone()?;
        let mut bindings = Bindings::default();
        bindings.set("device", device);
        let value = self.0.evaluate(&bindings, &mut Budget::per_call());
        let value = value.map_err(|error| {
            let mut message = error.to_string();
            if message.contains("no such key:") {
                message.push_str(HINT);
            }
            message
        })?;
        value.as_bool().ok_or_else(|| {
            let name = value.type_name();
            format!(
                "CEL result of type {name} could not be converted to bool: unsupported type \
                 conversion from '{name}' to bool"
            )
        })
    }
}

impl DeviceValue {
    /// A device of a driver's ResourceSlice. What is wrong with it is said when it is used.
    pub fn read(driver: &str, device: &Json) -> Self {
        let attributes = by_domain(driver, &device["attributes"], attribute);
        let fields = attributes.map(|attributes| {
            let capacity = by_domain(driver, &device["capacity"], |own| {
                let text = own["value"].as_str().unwrap_or("0");
                let quantity = Quantity::parse(text)?;
                Ok(Value::Opaque(Opaque::Quantity(QuantityValue(quantity))))
            });
            let shared = device["allowMultipleAllocations"] == true;
            Value::map([
                ("driver".to_owned(), Value::text(driver)),
                ("allowMultipleAllocations".to_owned(), Value::Bool(shared)),
                ("attributes".to_owned(), attributes),
                ("capacity".to_owned(), capacity.unwrap_or(Value::map([]))),
            ])
        });
        Self(fields)
    }
}

/// The entries of a field by the domain of their names, that of the driver where they have
/// none.
fn by_domain(
    driver: &str,
    field: &Json,
    read: impl Fn(&Json) -> Result<Value<'static>, String>,
) -> Result<Value<'static>, String> {
    let mut domains: BTreeMap<&str, BTreeMap<Key, Value<'static>>> = BTreeMap::new();
    for (name, own) in field.as_object().into_iter().flatten() {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let value = read(own).map_err(|what| format!("attribute {name}: {what}"))?;
        let of_domain = domains.entry(domain).or_default();
        of_domain.insert(Key::String(id.into()), value);
    }
    let domains = domains.into_iter().map(|(domain, entries)| {
        let entries = Value::Map(Map::Owned(Arc::new(entries)));
        (Key::String(domain.into()), entries)
    });
    Ok(Value::Map(Map::Defaulting(Arc::new(domains.collect()))))
}

fn attribute(own: &Json) -> Result<Value<'static>, String> {
    if let Some(number) = own["int"].as_i64() {
        Ok(Value::Int(number))
    } else if let Some(flag) = own["bool"].as_bool() {
        Ok(Value::Bool(flag))
    } else if let Some(text) = own["string"].as_str() {
        Ok(Value::text(text))
    } else if let Some(text) = own["version"].as_str() {
        let version = Semver::parse(text);
        let version = version.map_err(|what| format!("parse semantic version: {what}"))?;
        Ok(Value::Opaque(Opaque::Semver(Arc::new(version))))
    } else {
        Err("unsupported attribute value".to_owned())
    }
}

/// A device, as expressions see it.
static DEVICE: LazyLock<Environment> = LazyLock::new(|| {
    let by_name = |value| {
        let of_domain = Declaration::map(value, Some(MAX_ENTRIES));
        Declaration::map(of_domain, Some(MAX_ENTRIES))
    };
    let field = |name: &str, declaration| {
        let key = name.to_owned();
        (name.to_owned(), Field { key, declaration })
    };
    let fields: BTreeMap<String, Field> = [
        field("driver", Declaration::string(Some(MAX_DOMAIN_BYTES))),
        field("allowMultipleAllocations", Declaration::bool()),
        field("attributes", by_name(Declaration::any(MAX_VALUE_BYTES))),
        field(
            "capacity",
            by_name(Declaration::other(Type::Opaque("kubernetes.Quantity"))),
        ),
    ]
    .into_iter()
    .collect();
    let mut environment = Environment::kubernetes();
    environment
        .declare(
            "device",
            Declaration::object("kubernetes.DRADevice", fields),
        )
        .allow_binding();
    environment
});

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(expression: &str) -> Result<bool, String> {
        let device = json!({
            "name": "d",
            "attributes": {
                "model": {"string": "large"},
                "other.example/slot": {"int": 3},
                "driver": {"version": "1.10.0"},
                "healthy": {"bool": true},
            },
            "capacity": {"memory": {"value": "4Gi"}},
        });
        let device = DeviceValue::read("d.example", &device);
        let selector = DeviceSelector::compile(expression).map_err(|error| error.to_string())?;
        selector.selects(&device)
    }

    #[test]
    fn a_device_is_its_driver_attributes_and_capacity() {
        for (expression, expected) in [
            ("device.driver == \"d.example\"", true),
            ("device.attributes[\"d.example\"].model == \"large\"", true),
            ("device.attributes[\"other.example\"].slot > 3", false),
            ("device.attributes[\"d.example\"].healthy", true),
            (
                "device.attributes[\"d.example\"].driver.isGreaterThan(semver(\"1.9.0\"))",
                true,
            ),
            (
                "device.capacity[\"d.example\"].memory.compareTo(quantity(\"4Gi\")) >= 0",
                true,
            ),
            ("has(device.attributes[\"none.example\"].model)", false),
            ("\"none.example\" in device.attributes", false),
            ("\"d.example\" in device.attributes", true),
            ("device.allowMultipleAllocations", false),
        ] {
            assert_eq!(selects(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_selects_nothing_says_why() {
        for (expression, expected) in [
            (
                "device.nothing",
                "compilation failed: ERROR: <input>:1:7: undefined field",
            ),
            (
                "device.driver",
                "must evaluate to bool or the unknown type, not string",
            ),
            (
                "device.attributes[\"d.example\"].none",
                "no such key: none. consider using CEL optional chaining",
            ),
            (
                "device.attributes[\"d.example\"].model",
                "CEL result of type string could not be converted to bool",
            ),
        ] {
            let message = selects(expression).expect_err("it is unfit");
            assert!(message.starts_with(expected), "{expression}: {message}");
        }
    }
}
