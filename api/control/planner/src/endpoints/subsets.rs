//! Subsets of Endpoints in one form: each address with a set of ports stands in one subset,
//! in the order of ports and addresses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::backends;
use crate::object;

/// Name, number, protocol and application protocol of a port; `None` stands for no port.
type Port = Option<(String, i64, String, Option<String>)>;
/// The address and the pod's uid.
type AddressKey = (String, String);
/// Addresses, and whether each is ready.
type Addresses = BTreeMap<AddressKey, bool>;

/// What is told of addresses and their ports, gathered.
#[derive(Default)]
pub(super) struct Subsets {
    addresses: BTreeMap<AddressKey, Value>,
    ports: BTreeMap<Port, Addresses>,
}

impl Subsets {
    /// The subsets of an object, gathered.
    pub(super) fn of(endpoints: &Value) -> Self {
        let mut all = Self::default();
        for subset in object::items(&endpoints["subsets"]) {
            for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
                for address in object::items(&subset[field]) {
                    let mut address = address.clone();
                    if let Some(target) = address["targetRef"].as_object_mut() {
                        target.shift_remove("resourceVersion");
                    }
                    if let Some(fields) = address.as_object_mut() {
                        fields.retain(|_, value| !value.is_null());
                    }
                    let ports: Vec<Value> = object::items(&subset["ports"]).cloned().collect();
                    all.add(address, &ports, ready);
                }
            }
        }
        all
    }

    /// Adds an address with its ports. One that is told twice is ready only where both say
    /// so.
    pub(super) fn add(&mut self, address: Value, ports: &[Value], ready: bool) {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let key = (text(&address["ip"]), text(&address["targetRef"]["uid"]));
        let mut add = |port: Port| {
            let addresses = self.ports.entry(port).or_default();
            *addresses.entry(key.clone()).or_insert(true) &= ready;
        };
        for port in ports {
            add(Some((
                text(&port["name"]),
                port["port"].as_i64().unwrap_or_default(),
                backends::protocol(port).to_owned(),
                port["appProtocol"].as_str().map(str::to_owned),
            )));
        }
        if ports.is_empty() {
            add(None);
        }
        self.addresses.entry(key).or_insert(address);
    }

    /// The subsets that say so.
    pub(super) fn pack(&self) -> Vec<Value> {
        let mut subsets: BTreeMap<&Addresses, Vec<Value>> = BTreeMap::new();
        for (port, addresses) in &self.ports {
            let ports = subsets.entry(addresses).or_default();
            ports.extend(port.as_ref().map(|(name, number, protocol, application)| {
                let mut port = json!({"name": name, "port": number, "protocol": protocol});
                if let Some(application) = application {
                    port["appProtocol"] = application.as_str().into();
                }
                port
            }));
        }
        let one = |(addresses, ports): (&Addresses, Vec<Value>)| {
            let of = |ready: bool| -> Vec<Value> {
                let own = addresses.iter().filter(|(_, own)| **own == ready);
                own.filter_map(|(key, _)| self.addresses.get(key).cloned())
                    .collect()
            };
            let mut subset = json!({});
            for (field, list) in [
                ("addresses", of(true)),
                ("notReadyAddresses", of(false)),
                ("ports", ports),
            ] {
                if !list.is_empty() {
                    subset[field] = list.into();
                }
            }
            subset
        };
        subsets.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_the_same_ports_stand_together() {
        let port = |number: i64| json!({"name": "", "port": number, "protocol": "TCP"});
        let address = |ip: &str| json!({ "ip": ip });
        let told = json!({"subsets": [
            {"addresses": [address("10.0.0.2"), address("10.0.0.1")], "ports": [port(80)]},
            {"addresses": [address("10.0.0.1"), address("10.0.0.2")], "ports": [port(443)]},
            {"addresses": [address("10.0.0.3")], "ports": [port(80)]},
            {"notReadyAddresses": [address("10.0.0.3")], "ports": [port(80)]},
            {"addresses": [address("10.0.0.4")]},
        ]});
        let packed = json!([
            {"addresses": [address("10.0.0.1"), address("10.0.0.2")], "ports": [port(443)]},
            {"addresses": [address("10.0.0.1"), address("10.0.0.2")], "notReadyAddresses": [address("10.0.0.3")], "ports": [port(80)]},
            {"addresses": [address("10.0.0.4")]},
        ]);
        assert_eq!(json!(Subsets::of(&told).pack()), packed);
        assert_eq!(
            json!(Subsets::of(&json!({"subsets": packed})).pack()),
            packed
        );
        let both = json!({"subsets": [
            {"addresses": [address("10.0.0.1")], "ports": [port(80)]},
            {"addresses": [address("10.0.0.1")], "ports": [port(443)]},
        ]});
        let together =
            json!([{"addresses": [address("10.0.0.1")], "ports": [port(80), port(443)]}]);
        assert_eq!(json!(Subsets::of(&both).pack()), together);
    }
}
