//! What a registration may say of the worker's machine: its capacity, and where it stands.
//! Workers in the field say nothing; a kubelet that runs there knows better and corrects it.
//! Pure.

use nautilus_machinery::quantity::Quantity;
use serde_json::{Map, Value};

use crate::wire::{Malformed, present, wrong};

/// Resources that a registration may name in `capacity`.
const RESOURCES: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pods"];
/// Fields of `topology`, and the label that each becomes.
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesioregion>
const TOPOLOGY: [(&str, &str); 2] = [
    ("region", "topology.kubernetes.io/region"),
    ("zone", "topology.kubernetes.io/zone"),
];
/// Longest value of a label, in bytes.
const LABEL_LIMIT_BYTES: usize = 63;

/// As far as it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Quantities by resource.
    pub capacity: Vec<(&'static str, String)>,
    /// Values by label.
    pub topology: Vec<(&'static str, String)>,
}

impl Machine {
    /// Reads `capacity` and `topology` of a registration, each of which may be absent.
    pub(crate) fn read(fields: &Map<String, Value>) -> Result<Self, Malformed> {
        let mut machine = Self::default();
        for resource in RESOURCES {
            let field = format!("capacity.{resource}");
            if let Some(text) = text(fields, "capacity", resource)? {
                let quantity = Quantity::parse(&text).map_err(|why| wrong(&field, why))?;
                if quantity.is_negative() {
                    return Err(wrong(field, "must not be negative"));
                }
                machine.capacity.push((resource, quantity.canonical()));
            }
        }
        for (name, label) in TOPOLOGY {
            if let Some(text) = text(fields, "topology", name)? {
                if !is_label_value(&text) {
                    let field = format!("topology.{name}");
                    return Err(wrong(field, "must be the value of a label"));
                }
                machine.topology.push((label, text));
            }
        }
        Ok(machine)
    }
}

fn text(fields: &Map<String, Value>, group: &str, name: &str) -> Result<Option<String>, Malformed> {
    let Some(group_fields) = present(fields, group) else {
        return Ok(None);
    };
    let Some(group_fields) = group_fields.as_object() else {
        return Err(wrong(group, "must be an object"));
    };
    match present(group_fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(wrong(format!("{group}.{name}"), "must be a string")),
    }
}

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
fn is_label_value(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_LIMIT_BYTES
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Machine, String> {
        let fields = serde_json::from_str(text).expect("an object");
        Machine::read(&fields).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_told_is_read_and_what_is_not_stays_open() {
        assert_eq!(read("{}"), Ok(Machine::default()));
        let told = r#"{"capacity": {"cpu": 4, "memory": "8192Mi", "gpu": "1"},
            "topology": {"zone": "eu-1a"}}"#;
        assert_eq!(
            read(told),
            Ok(Machine {
                capacity: vec![("cpu", "4".into()), ("memory", "8Gi".into())],
                topology: vec![("topology.kubernetes.io/zone", "eu-1a".into())],
            })
        );
    }

    #[test]
    fn a_complaint_names_the_field() {
        for (told, complaint) in [
            (r#"{"capacity": 4}"#, "capacity: must be an object"),
            (
                r#"{"capacity": {"cpu": "-1"}}"#,
                "capacity.cpu: must not be negative",
            ),
            (
                r#"{"capacity": {"memory": true}}"#,
                "capacity.memory: must be a string",
            ),
            (
                r#"{"topology": {"zone": "a/b"}}"#,
                "topology.zone: must be the value of a label",
            ),
        ] {
            assert_eq!(read(told).expect_err("refused"), complaint);
        }
    }
}
