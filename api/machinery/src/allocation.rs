//! What a service is given: cluster IPs and node ports. Pure: the caller says what is
//! free and writes what was taken, in the transaction that stores the service.
//!
//! Source: `pkg/registry/core/service/storage/alloc.go` of v1.37 for which fields are
//! filled when, and for the errors; KEP-1880 for addresses as objects.
//!
//! Invariants
//! - [`held`] of the filled service is all that it may use: what is in it and was not
//!   held before is taken, what was held before and is not in it is released.
//! - A service that keeps its type and ports keeps what it holds.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::status::ApiError;
use crate::validation::Errors;

/// What a service holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its cluster IPs.
    pub addresses: BTreeSet<IpAddr>,
    /// Node ports, also the one of health checks.
    pub ports: BTreeSet<u16>,
}

/// What may be given out.
pub trait Pool {
    /// The families with addresses, as `IPv4`, the cluster's own first; at least one.
    fn families(&self) -> &[&'static str];
    /// Whether an address that was asked for may be taken, else why not.
    fn check_address(&self, address: IpAddr) -> Result<(), String>;
    /// A free address of a family; `None` if there is none.
    fn any_address(&self, family: &str) -> Option<IpAddr>;
    /// Whether a port that was asked for may be taken, else why not.
    fn check_port(&self, port: u16) -> Result<(), String>;
    /// A free port, none of `taken`; `None` if there is none.
    fn any_port(&self, taken: &BTreeSet<u16>) -> Option<u16>;
}

/// Why a service gets nothing.
#[derive(Debug)]
pub enum Refused {
    /// The client asked for what it can't have.
    Invalid(Errors),
    /// There is nothing left.
    Exhausted(String),
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn is_external_name(spec: &Value) -> bool {
    text(spec, "type") == "ExternalName"
}

fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || spec["clusterIPs"][0] == "None"
}

/// Whether the type has node ports, and whether absent ones are given.
fn node_ports(spec: &Value) -> (bool, bool) {
    match text(spec, "type") {
        "NodePort" => (true, true),
        "LoadBalancer" => (true, spec["allocateLoadBalancerNodePorts"] != json!(false)),
        _ => (false, false),
    }
}

/// A balancer in front asks each node whether it has an endpoint.
fn has_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn port_of(value: &Value) -> Option<u16> {
    value
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
}

/// What a stored service holds.
pub fn held(service: &Value) -> Held {
    let spec = &service["spec"];
    let mut held = Held::default();
    if !is_external_name(spec) && !is_headless(spec) {
        let addresses = spec["clusterIPs"].as_array();
        held.addresses = addresses
            .into_iter()
            .flatten()
            .filter_map(|address| address.as_str()?.parse().ok())
            .collect();
    }
    if node_ports(spec).0 {
        let ports = spec["ports"].as_array();
        held.ports = ports
            .into_iter()
            .flatten()
            .filter_map(|port| port_of(&port["nodePort"]))
            .collect();
    }
    if has_health_check(spec) {
        held.ports.extend(port_of(&spec["healthCheckNodePort"]));
    }
    held
}

/// Fills in what the service is to be given; `before` is what it held as it stood.
pub fn fill(service: &mut Value, before: &Held, pool: &dyn Pool) -> Result<(), Refused> {
    let Some(spec) = service.get_mut("spec").filter(|spec| spec.is_object()) else {
        return Ok(());
    };
    if is_external_name(spec) {
        return Ok(());
    }
    fill_families(spec, pool)?;
    if !is_headless(spec) {
        fill_addresses(spec, before, pool)?;
    }
    fill_ports(spec, before, pool)
}

fn fill_families(spec: &mut Value, pool: &dyn Pool) -> Result<(), Refused> {
    let served = pool.families();
    if text(spec, "ipFamilyPolicy").is_empty() {
        let selects = spec["selector"].as_object().is_some_and(|s| !s.is_empty());
        let both = is_headless(spec) && !selects;
        spec["ipFamilyPolicy"] = json!(if both {
            "RequireDualStack"
        } else {
            "SingleStack"
        });
    }
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    let mut families: Vec<String> = texts(&spec["ipFamilies"]);
    for address in texts(&spec["clusterIPs"]).iter().skip(families.len()) {
        if let Ok(address) = address.parse::<IpAddr>() {
            families.push(family_of(address).to_owned());
        }
    }
    if families.is_empty() {
        families.extend(served.first().map(|&family| family.to_owned()));
    }
    let selects = spec["selector"].as_object().is_some_and(|s| !s.is_empty());
    let free = is_headless(spec) && !selects;
    if !free {
        let mut errors = Errors::new();
        if policy == "RequireDualStack" && served.len() < 2 {
            errors.invalid_text(
                "spec.ipFamilyPolicy",
                &policy,
                "this cluster is not configured for dual-stack services",
            );
        }
        for (at, family) in families.iter().enumerate() {
            if !served.contains(&family.as_str()) {
                errors.invalid_text(
                    &format!("spec.ipFamilies[{at}]"),
                    family,
                    "not configured on this cluster",
                );
            }
        }
        if !errors.is_empty() {
            return Err(Refused::Invalid(errors));
        }
    }
    if policy != "SingleStack" && families.len() == 1 && (free || served.len() == 2) {
        let other = if families[0] == "IPv4" {
            "IPv6"
        } else {
            "IPv4"
        };
        families.push(other.to_owned());
    }
    spec["ipFamilies"] = json!(families);
    Ok(())
}

fn fill_addresses(spec: &mut Value, before: &Held, pool: &dyn Pool) -> Result<(), Refused> {
    let families = texts(&spec["ipFamilies"]);
    let mut addresses = texts(&spec["clusterIPs"]);
    let asked = json!(addresses);
    addresses.resize(families.len().max(addresses.len()), String::new());
    for (family, address) in families.iter().zip(&mut addresses) {
        if address.is_empty() {
            let Some(given) = pool.any_address(family) else {
                let what = "failed to allocate a serviceIP: range is full";
                return Err(Refused::Exhausted(what.to_owned()));
            };
            *address = given.to_string();
            continue;
        }
        let Ok(parsed) = address.parse::<IpAddr>() else {
            continue;
        };
        if !before.addresses.contains(&parsed) {
            pool.check_address(parsed).map_err(|why| {
                let why = format!("failed to allocate IP {address}: {why}");
                invalid("spec.clusterIPs", &asked, &why)
            })?;
        }
    }
    if let Some(first) = addresses.first() {
        spec["clusterIP"] = json!(first);
    }
    spec["clusterIPs"] = json!(addresses);
    Ok(())
}

fn fill_ports(spec: &mut Value, before: &Held, pool: &dyn Pool) -> Result<(), Refused> {
    let (has_ports, gives_ports) = node_ports(spec);
    let health = has_health_check(spec);
    let mut taken = before.ports.clone();
    if has_ports {
        let ports = spec["ports"].as_array_mut();
        let ports = ports.map_or(&mut [][..], Vec::as_mut_slice);
        check_ports(ports, &mut taken, pool)?;
        if gives_ports {
            give_ports(ports, before, &mut taken, pool)?;
        }
    }
    if health {
        match port_of(&spec["healthCheckNodePort"]) {
            None => spec["healthCheckNodePort"] = json!(any_port(&mut taken, pool)?),
            Some(port) if taken.contains(&port) => {}
            Some(port) => pool.check_port(port).map_err(|why| {
                let what = "failed to allocate requested HealthCheck NodePort";
                Refused::Exhausted(format!("{what} {port}: {why}"))
            })?,
        }
    }
    Ok(())
}

/// The ports that were asked for come first: none of them is given to another.
fn check_ports(ports: &[Value], taken: &mut BTreeSet<u16>, pool: &dyn Pool) -> Result<(), Refused> {
    for (at, port) in ports.iter().enumerate() {
        if let Some(number) = port_of(&port["nodePort"])
            && taken.insert(number)
        {
            let path = format!("spec.ports[{at}].nodePort");
            pool.check_port(number)
                .map_err(|why| invalid(&path, &port["nodePort"], &why))?;
        }
    }
    Ok(())
}

/// Protocols of the same port share a node port, as far as they are new.
fn give_ports(
    ports: &mut [Value],
    before: &Held,
    taken: &mut BTreeSet<u16>,
    pool: &dyn Pool,
) -> Result<(), Refused> {
    for at in 0..ports.len() {
        if port_of(&ports[at]["nodePort"]).is_some() {
            continue;
        }
        let shared = ports.iter().enumerate().find_map(|(other, port)| {
            let same = other != at
                && port["port"] == ports[at]["port"]
                && port["protocol"] != ports[at]["protocol"];
            port_of(&port["nodePort"]).filter(|number| same && !before.ports.contains(number))
        });
        let number = match shared {
            Some(number) => number,
            None => any_port(taken, pool)?,
        };
        ports[at]["nodePort"] = json!(number);
    }
    Ok(())
}

fn any_port(taken: &mut BTreeSet<u16>, pool: &dyn Pool) -> Result<u16, Refused> {
    let Some(port) = pool.any_port(taken) else {
        let what = "failed to allocate a nodePort: range is full";
        return Err(Refused::Exhausted(what.to_owned()));
    };
    taken.insert(port);
    Ok(port)
}

fn invalid(path: &str, value: &Value, why: &str) -> Refused {
    let mut errors = Errors::new();
    errors.invalid(path, value, why);
    Refused::Invalid(errors)
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// As `IPv4`.
pub fn family_of(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// A range of addresses to give from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u128,
    /// Number of addresses that may be given, after the first.
    size: u128,
    v4: bool,
    bits: u8,
}

impl Cidr {
    /// Reads `10.96.0.0/12`; an IPv6 range longer than /64 is none to give from.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("{text:?} is no range of service addresses: {why}");
        let (address, bits) = text
            .split_once('/')
            .ok_or_else(|| refuse("want ADDRESS/BITS"))?;
        let address: IpAddr = address.parse().map_err(|_| refuse("no IP address"))?;
        let bits: u8 = bits.parse().map_err(|_| refuse("no number of bits"))?;
        let (number, width, least) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32, 8),
            IpAddr::V6(address) => (address.to_bits(), 128, 64),
        };
        if bits < least || bits > width - 2 {
            let range = format!("want between {least} and {} bits", width - 2);
            return Err(refuse(&range));
        }
        let span = 1u128 << (width - bits);
        if number & (span - 1) != 0 {
            return Err(refuse("the address has bits beyond the prefix"));
        }
        // Neither the range's own address nor, in IPv4, its broadcast address.
        let last = if width == 32 { 2 } else { 1 };
        Ok(Self {
            base: number,
            size: span - last,
            v4: width == 32,
            bits,
        })
    }

    /// As `IPv4`.
    pub fn family(&self) -> &'static str {
        if self.v4 { "IPv4" } else { "IPv6" }
    }

    /// How many addresses there are to give.
    pub fn size(&self) -> u128 {
        self.size
    }

    /// The `at`th address, from 0; `None` beyond the last.
    pub fn address(&self, at: u128) -> Option<IpAddr> {
        let number = self.base + 1 + at;
        (at < self.size).then(|| {
            if self.v4 {
                IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into())
            } else {
                IpAddr::V6(number.into())
            }
        })
    }

    /// Whether the address may be given.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = match address {
            IpAddr::V4(address) if self.v4 => u128::from(address.to_bits()),
            IpAddr::V6(address) if !self.v4 => address.to_bits(),
            _ => return false,
        };
        number > self.base && number <= self.base + self.size
    }

    /// The first addresses are left to those who ask for one by name (KEP-3070): how many.
    pub fn reserved(&self) -> u128 {
        match self.size {
            ..32 => 0,
            size => (size / 16).clamp(16, 256),
        }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let base = if self.v4 {
            IpAddr::V4(u32::try_from(self.base).unwrap_or(u32::MAX).into())
        } else {
            IpAddr::V6(self.base.into())
        };
        write!(f, "{base}/{}", self.bits)
    }
}

impl Refused {
    /// As clients hear it.
    pub fn into_error(self, resource: &crate::resource::Resource, name: &str) -> ApiError {
        match self {
            Self::Invalid(errors) => ApiError::invalid(resource, name, errors.into_causes()),
            Self::Exhausted(what) => ApiError::internal(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of which some is taken.
    struct Some3 {
        taken: Vec<&'static str>,
    }

    impl Pool for Some3 {
        fn families(&self) -> &[&'static str] {
            &["IPv4"]
        }
        fn check_address(&self, address: IpAddr) -> Result<(), String> {
            if self.taken.iter().any(|own| own.parse() == Ok(address)) {
                return Err("provided IP is already allocated".to_owned());
            }
            Ok(())
        }
        fn any_address(&self, _: &str) -> Option<IpAddr> {
            "10.0.0.7".parse().ok()
        }
        fn check_port(&self, port: u16) -> Result<(), String> {
            if port < 30_000 {
                return Err("provided port is not in the valid range".to_owned());
            }
            Ok(())
        }
        fn any_port(&self, taken: &BTreeSet<u16>) -> Option<u16> {
            (30_000..30_003).find(|port| !taken.contains(port))
        }
    }

    fn filled(mut service: Value) -> Value {
        fill(&mut service, &Held::default(), &Some3 { taken: vec![] }).expect("given");
        service
    }

    #[test]
    fn a_service_gets_an_address_and_its_ports() {
        let service = filled(json!({"spec": {"type": "NodePort", "ports": [
            {"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"},
            {"port": 81, "protocol": "TCP", "nodePort": 30001},
        ]}}));
        let spec = &service["spec"];
        assert_eq!(spec["clusterIP"], "10.0.0.7");
        assert_eq!(spec["clusterIPs"], json!(["10.0.0.7"]));
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        let ports: Vec<&Value> = (0..3).map(|at| &spec["ports"][at]["nodePort"]).collect();
        assert_eq!(ports, [&json!(30_000), &json!(30_000), &json!(30_001)]);
        let held = held(&service);
        assert_eq!(held.ports.into_iter().collect::<Vec<_>>(), [30_000, 30_001]);
    }

    #[test]
    fn what_has_no_address_gets_none() {
        for spec in [
            json!({"type": "ExternalName", "externalName": "a.b"}),
            json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
        ] {
            let service = filled(json!({"spec": spec}));
            assert_eq!(held(&service), Held::default());
            assert_ne!(service["spec"]["clusterIP"], "10.0.0.7");
        }
    }

    #[test]
    fn what_is_taken_or_out_of_range_is_refused_by_its_path() {
        let pool = Some3 {
            taken: vec!["10.0.0.9"],
        };
        let refuse = |mut service: Value| match fill(&mut service, &Held::default(), &pool) {
            Err(Refused::Invalid(errors)) => {
                let cause = errors.into_causes().remove(0);
                (cause.field, cause.message)
            }
            other => panic!("{other:?}"),
        };
        let (field, message) =
            refuse(json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.9"]}}));
        assert_eq!(field, "spec.clusterIPs");
        assert!(
            message.ends_with("failed to allocate IP 10.0.0.9: provided IP is already allocated"),
            "{message}"
        );
        let (field, _) = refuse(json!({"spec": {"type": "NodePort", "ports": [
            {"port": 80, "nodePort": 80}]}}));
        assert_eq!(field, "spec.ports[0].nodePort");
        let (field, _) = refuse(json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}));
        assert_eq!(field, "spec.ipFamilyPolicy");
    }

    #[test]
    fn a_service_keeps_what_it_holds() {
        let service = filled(json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
        let before = held(&service);
        let pool = Some3 {
            taken: vec!["10.0.0.7"],
        };
        let mut again = service.clone();
        fill(&mut again, &before, &pool).expect("its own");
        assert_eq!(again, service);
    }

    #[test]
    fn ranges_are_read_and_enumerated() {
        let range = Cidr::parse("10.0.0.0/29").expect("a range");
        let all: Vec<String> = (0..10)
            .filter_map(|at| range.address(at))
            .map(|address| address.to_string())
            .collect();
        assert_eq!(all.first().map(String::as_str), Some("10.0.0.1"));
        assert_eq!(all.last().map(String::as_str), Some("10.0.0.6"));
        assert!(range.contains("10.0.0.6".parse().expect("an address")));
        assert!(!range.contains("10.0.0.7".parse().expect("an address")));
        assert_eq!(range.to_string(), "10.0.0.0/29");
        for bad in ["10.0.0.1/29", "10.0.0.0", "fd00::/48", "10.0.0.0/31", "x/8"] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }
}
