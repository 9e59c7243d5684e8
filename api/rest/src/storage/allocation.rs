//! Gives services their addresses and node ports, in the transaction that stores them.
//!
//! A cluster IP that is taken is an object `IPAddress` of its name (KEP-1880); a node
//! port that is taken is a row of its number. Ranges of addresses are the objects
//! `ServiceCIDR` that are not being deleted.
//!
//! Invariants
//! - Two services never hold the same address or port: taking one is a comparison with
//!   its absence in the service's own transaction.
//! - Nothing leaks: what a service gives up is removed in the transaction that changes or
//!   removes the service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use nautilus_admission::attributes::Attributes;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Compare, Operation, Put, RangeRequest};
use nautilus_machinery::allocation::{self, Cidr, Held, Pool, family_of};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use super::companions::Companions;
use super::{Storage, built_in, metadata_text, parse_object};
use crate::failure::Failure;
use crate::ids;

/// The group of ranges and addresses.
const GROUP: &str = "networking.k8s.io";
/// The ports of nodes that services are given, the reference's own range.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Where the rows of taken ports stand.
const PORTS_PREFIX: &str = "/nautilus/allocations/nodeports/";
/// Draws before the free ones are looked for in order.
const DRAWS: u32 = 64;

fn port_key(port: u16) -> String {
    format!("{PORTS_PREFIX}{port}")
}

impl Storage {
    /// Fills in a service and adds what is taken and given up to the companions.
    pub(super) fn allocate(
        &self,
        asked: &Attributes<'_>,
        object: Option<&mut Value>,
        companions: &mut Companions,
    ) -> Result<(), Failure> {
        let is_service = asked.resource.group.is_empty() && asked.resource.plural == "services";
        if !is_service || matches!(asked.subresource, Some(name) if name != "status") {
            return Ok(());
        }
        let before = asked.old.map(allocation::held).unwrap_or_default();
        let mut after = Held::default();
        if let Some(service) = object {
            if asked.subresource.is_none() {
                let free = Free::open(self)?;
                let name = metadata_text(service, "name").to_owned();
                let filled = allocation::fill(service, &before, &free);
                filled.map_err(|refused| refused.into_error(asked.resource, &name))?;
            }
            after = allocation::held(service);
            let key = asked
                .resource
                .key(asked.namespace, metadata_text(service, "name"));
            take(&before, &after, service, &key, companions)?;
        }
        let addresses = built_in(GROUP, "ipaddresses")?;
        let given_up = before.addresses.difference(&after.addresses);
        let keys = given_up
            .map(|address| addresses.key(None, &address.to_string()))
            .chain(
                before
                    .ports
                    .difference(&after.ports)
                    .map(|port| port_key(*port)),
            );
        for key in keys {
            companions.then.push(Operation::Delete {
                range: KeyRange::single(key),
                prev_kv: false,
            });
        }
        Ok(())
    }
}

/// Takes what is held after and was not before.
fn take(
    before: &Held,
    after: &Held,
    service: &Value,
    service_key: &str,
    companions: &mut Companions,
) -> Result<(), Failure> {
    let addresses = built_in(GROUP, "ipaddresses")?;
    let mut put = |key: String, bytes: Vec<u8>| {
        companions
            .compare
            .push(Compare::mod_revision(key.clone(), 0));
        companions.then.push(Operation::Put(Put::new(key, bytes)));
    };
    for address in after.addresses.difference(&before.addresses) {
        let object = address_object(*address, service);
        let bytes =
            serde_json::to_vec(&object).map_err(|error| ApiError::internal(error.to_string()))?;
        put(addresses.key(None, &address.to_string()), bytes);
    }
    for port in after.ports.difference(&before.ports) {
        put(port_key(*port), service_key.as_bytes().to_vec());
    }
    Ok(())
}

/// The object that says whose an address is.
fn address_object(address: IpAddr, service: &Value) -> Value {
    json!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(),
            "uid": ids::uuid(),
            "creationTimestamp": ids::now_rfc3339(),
            "generation": 1,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family_of(address),
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {
            "parentRef": {
                "resource": "services",
                "namespace": metadata_text(service, "namespace"),
                "name": metadata_text(service, "name"),
            },
        },
    })
}

/// What is free on this node's state; what was taken meanwhile loses its comparison.
struct Free<'a> {
    storage: &'a Storage,
    addresses: &'static Resource,
    families: Vec<&'static str>,
    ranges: BTreeMap<&'static str, Vec<Cidr>>,
}

impl<'a> Free<'a> {
    fn open(storage: &'a Storage) -> Result<Self, Failure> {
        let cidrs = built_in(GROUP, "servicecidrs")?;
        let request = RangeRequest::newest(KeyRange::prefix(cidrs.storage_prefix()));
        let mut families: Vec<&'static str> = Vec::new();
        let mut ranges: BTreeMap<&'static str, Vec<Cidr>> = BTreeMap::new();
        let mut rows = storage.kv.range(&request)?.kvs;
        // The oldest is the cluster's own: its family is the default.
        rows.sort_by_key(|row| row.create_revision);
        for row in &rows {
            let object = parse_object(cidrs, row)?;
            if !object["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            for text in object["spec"]["cidrs"].as_array().into_iter().flatten() {
                let Ok(range) = Cidr::parse(text.as_str().unwrap_or_default()) else {
                    continue;
                };
                if !families.contains(&range.family()) {
                    families.push(range.family());
                }
                ranges.entry(range.family()).or_default().push(range);
            }
        }
        if families.is_empty() {
            return Err(ApiError::internal(
                "services get no address: there is no ServiceCIDR; create one, or wait until \
                 the leader has made the default",
            )
            .into());
        }
        Ok(Self {
            storage,
            addresses: built_in(GROUP, "ipaddresses")?,
            families,
            ranges,
        })
    }

    /// Whether a key is taken. What cannot be read counts as taken.
    fn is_taken(&self, key: &str) -> bool {
        !matches!(self.storage.read_row(key), Ok(None))
    }

    fn address_taken(&self, address: IpAddr) -> bool {
        self.is_taken(&self.addresses.key(None, &address.to_string()))
    }

    /// The first free address from a drawn place on, for ranges that are nearly full.
    fn search(&self, range: Cidr) -> Option<IpAddr> {
        let request = RangeRequest {
            keys_only: true,
            ..RangeRequest::newest(KeyRange::prefix(self.addresses.storage_prefix()))
        };
        let rows = self.storage.kv.range(&request).ok()?.kvs;
        let prefix = self.addresses.storage_prefix();
        let taken: BTreeSet<IpAddr> = rows
            .iter()
            .filter_map(|row| std::str::from_utf8(&row.key).ok())
            .filter_map(|key| key.strip_prefix(&prefix)?.parse().ok())
            .collect();
        // Among one address more than are taken, one is free.
        let many = (taken.len() as u128 + 1).min(range.size());
        let start = draw(range.size());
        (0..many)
            .filter_map(|at| range.address((start + at) % range.size()))
            .find(|address| !taken.contains(address))
    }
}

/// A number below `size`.
fn draw(size: u128) -> u128 {
    u128::from(ids::below(u64::try_from(size).unwrap_or(u64::MAX)))
}

impl Pool for Free<'_> {
    fn families(&self) -> &[&'static str] {
        &self.families
    }

    fn check_address(&self, address: IpAddr) -> Result<(), String> {
        let ranges = self.ranges.get(family_of(address));
        let ranges = ranges.map_or(&[][..], Vec::as_slice);
        if !ranges.iter().any(|range| range.contains(address)) {
            let valid = ranges.first().map(Cidr::to_string).unwrap_or_default();
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs \
                 is {valid}"
            ));
        }
        if self.address_taken(address) {
            return Err("provided IP is already allocated".to_owned());
        }
        Ok(())
    }

    fn any_address(&self, family: &str) -> Option<IpAddr> {
        let ranges = self.ranges.get(family)?;
        for range in ranges {
            let reserved = range.reserved();
            let drawn = (0..DRAWS)
                .filter_map(|_| range.address(reserved + draw(range.size() - reserved)))
                .find(|address| !self.address_taken(*address));
            if drawn.is_some() {
                return drawn;
            }
        }
        ranges.iter().find_map(|range| self.search(*range))
    }

    fn check_port(&self, port: u16) -> Result<(), String> {
        if !NODE_PORTS.contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                NODE_PORTS.start(),
                NODE_PORTS.end()
            ));
        }
        if self.is_taken(&port_key(port)) {
            return Err("provided port is already allocated".to_owned());
        }
        Ok(())
    }

    fn any_port(&self, taken: &BTreeSet<u16>) -> Option<u16> {
        let (first, last) = (*NODE_PORTS.start(), *NODE_PORTS.end());
        let size = u64::from(last - first) + 1;
        let start = ids::below(size);
        (0..size)
            .filter_map(|at| u16::try_from(u64::from(first) + (start + at) % size).ok())
            .find(|port| !taken.contains(port) && !self.is_taken(&port_key(*port)))
    }
}
