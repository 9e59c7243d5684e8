//! A range of pods' addresses for every node (`spec.podCIDRs`), out of the cluster's.
//!
//! Invariants
//! - No two nodes have ranges that overlap, nor does one overlap with those of services.
//! - Nothing leaks: what is taken is what nodes have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::ACCOUNT;
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View, Within};

/// Bits by which a node's range is smaller than the cluster's, at most: 65,536 nodes.
const MAX_SPLIT_BITS: u8 = 16;
/// Bits of a node's prefix where nobody says.
const DEFAULT_V4_BITS: u8 = 24;
const DEFAULT_V6_BITS: u8 = 64;
/// Nodes that are changed together.
const BATCH_NODES: usize = 100;

/// Addresses that have a prefix in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    base: u128,
    bits: u8,
    /// Bits of an address of its family.
    width: u8,
}

impl Block {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (number, width) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= width)?;
        let base = number
            .checked_shr(u32::from(width - bits))
            .unwrap_or_default();
        let base = base
            .checked_shl(u32::from(width - bits))
            .unwrap_or_default();
        Some(Self { base, bits, width })
    }

    fn last(self) -> u128 {
        let host_bits = u32::from(self.width - self.bits);
        self.base
            | 1u128
                .checked_shl(host_bits)
                .map_or(u128::MAX, |span| span - 1)
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, output: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = match u32::try_from(self.base) {
            Ok(base) if self.width == 32 => IpAddr::V4(base.into()),
            _ => IpAddr::V6(self.base.into()),
        };
        write!(output, "{address}/{}", self.bits)
    }
}

/// A range of the cluster's, and how many bits of prefix a node's part of it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    cluster: Block,
    node_bits: u8,
}

impl Range {
    fn count(self) -> u128 {
        1 << (self.node_bits - self.cluster.bits)
    }

    fn part(self, at: u128) -> Block {
        let host_bits = self.cluster.width - self.node_bits;
        Block {
            base: self.cluster.base | (at << host_bits),
            bits: self.node_bits,
            width: self.cluster.width,
        }
    }

    /// Takes out of `free` the parts that a block has addresses of.
    fn take(self, block: Block, free: &mut BTreeSet<u128>) {
        let cluster = self.cluster;
        if block.width != cluster.width
            || block.last() < cluster.base
            || block.base > cluster.last()
        {
            return;
        }
        let host_bits = u32::from(cluster.width - self.node_bits);
        let at = |address: u128| {
            (address.clamp(cluster.base, cluster.last()) - cluster.base) >> host_bits
        };
        for taken in at(block.base)..=at(block.last()) {
            free.remove(&taken);
        }
    }
}

/// The cluster's ranges of pods' addresses: one, or one of each family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRanges(Vec<Range>);

impl PodRanges {
    /// Reads ranges (`10.244.0.0/16`). Nodes get parts of so many bits of prefix: 24 and 64
    /// where nobody says.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(
        ranges: &[String],
        v4_bits: Option<u8>,
        v6_bits: Option<u8>,
    ) -> Result<Self, String> {
        let mut parsed: Vec<Range> = Vec::new();
        for text in ranges {
            let cluster =
                Block::parse(text).ok_or_else(|| format!("{text:?} is no ADDRESS/BITS"))?;
            let node_bits = match cluster.width {
                32 => v4_bits.unwrap_or(DEFAULT_V4_BITS),
                _ => v6_bits.unwrap_or(DEFAULT_V6_BITS),
            };
            let split = node_bits.checked_sub(cluster.bits);
            if node_bits > cluster.width || split.is_none_or(|split| split > MAX_SPLIT_BITS) {
                let bits = cluster.bits;
                let most = bits.saturating_add(MAX_SPLIT_BITS).min(cluster.width);
                return Err(format!(
                    "a node's part of {text} can have {bits} to {most} bits of prefix, not {node_bits}"
                ));
            }
            if parsed.iter().any(|own| own.cluster.width == cluster.width) {
                return Err(format!("{text} is a second range of its family"));
            }
            parsed.push(Range { cluster, node_bits });
        }
        Ok(Self(parsed))
    }
}

/// The allocator of nodes' ranges. There is one key: all nodes.
pub struct NodeIpam {
    ranges: PodRanges,
}

impl NodeIpam {
    /// Gives from these ranges.
    pub fn new(ranges: PodRanges) -> Self {
        Self { ranges }
    }
}

fn pod_ranges(node: &Value) -> impl Iterator<Item = Block> {
    let all = object::items(&node["spec"]["podCIDRs"]);
    all.filter_map(|own| Block::parse(own.as_str()?))
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    fn component(&self) -> &'static str {
        "cidrAllocator"
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::NODES, kind::SERVICE_CIDRS]
    }

    fn concerns(&self, _view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let ranges = |node: Option<&Value>| node.map(|node| pod_ranges(node).collect::<Vec<_>>());
        if change.kind == kind::SERVICE_CIDRS
            || ranges(change.before.as_deref()) != ranges(change.after.as_deref())
        {
            keys.push(Key::new("", "nodes"));
        }
    }

    fn reconcile(&self, view: &dyn View, _key: &Key, _now: Instant) -> Plan {
        let mut plan = Plan::default();
        let nodes = view.list(kind::NODES, Within::All);
        let services = view.list(kind::SERVICE_CIDRS, Within::All);
        let services: Vec<Block> = services
            .iter()
            .flat_map(|own| object::items(&own["spec"]["cidrs"]))
            .filter_map(|own| Block::parse(own.as_str()?))
            .collect();
        let mut pools: Vec<(Range, BTreeSet<u128>)> = Vec::new();
        for range in &self.ranges.0 {
            let mut free: BTreeSet<u128> = (0..range.count()).collect();
            let taken = nodes.iter().flat_map(|node| pod_ranges(node));
            for block in taken.chain(services.iter().copied()) {
                range.take(block, &mut free);
            }
            pools.push((*range, free));
        }
        let (mut given, mut told) = (Vec::new(), Vec::new());
        let lacks = |node: &&std::sync::Arc<Value>| {
            !object::is_deleted(node) && object::items(&node["spec"]["podCIDRs"]).next().is_none()
        };
        for node in nodes.iter().filter(lacks) {
            if pools.iter().any(|(_, free)| free.is_empty()) {
                let name = object::name(node);
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                told.push(Write::event(kind::NODES, node, "CIDRNotAvailable", message));
                continue;
            }
            let parts = pools
                .iter_mut()
                .filter_map(|(range, free)| free.pop_first().map(|at| range.part(at).to_string()));
            let parts: Vec<String> = parts.collect();
            let patch = json!({"spec": {"podCIDR": parts.first(), "podCIDRs": parts}});
            given.push(Write::patch(kind::NODES, node, patch));
        }
        for batch in given.chunks(BATCH_NODES) {
            plan.together(batch.to_vec());
        }
        plan.together(told);
        plan
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Cluster, at};

    fn ranges(texts: &[&str], v4_bits: u8) -> PodRanges {
        let texts: Vec<String> = texts.iter().map(|own| (*own).to_owned()).collect();
        PodRanges::parse(&texts, Some(v4_bits), None).expect("ranges")
    }

    fn key() -> Key {
        Key::new("", "nodes")
    }

    fn add(cluster: &mut Cluster, name: &str, ranges: &[&str]) {
        let metadata = json!({ "name": name });
        cluster.put(
            kind::NODES,
            json!({"metadata": metadata, "spec": {"podCIDRs": ranges}}),
        );
    }

    fn given(cluster: &Cluster) -> Vec<String> {
        let nodes = cluster.list(kind::NODES, Within::All);
        nodes
            .iter()
            .flat_map(|node| pod_ranges(node))
            .map(|own| own.to_string())
            .collect()
    }

    #[test]
    fn each_node_has_a_part_of_each_range() {
        let ipam = NodeIpam::new(ranges(&["10.244.0.0/16", "fd00:1::/48"], 24));
        let mut cluster = Cluster::default();
        add(&mut cluster, "a", &[]);
        add(&mut cluster, "b", &[]);
        assert_eq!(cluster.settle(&ipam, &key(), at(0)), 1);
        let expected = [
            "10.244.0.0/24",
            "fd00:1::/64",
            "10.244.1.0/24",
            "fd00:1:0:1::/64",
        ];
        assert_eq!(given(&cluster), expected);
        let a = cluster.get(kind::NODES, "", "a").expect("a node");
        assert_eq!(a["spec"]["podCIDR"], "10.244.0.0/24");
        cluster.remove(kind::NODES, &Key::new("", "a"));
        add(&mut cluster, "c", &[]);
        cluster.settle(&ipam, &key(), at(0));
        let c = cluster.get(kind::NODES, "", "c").expect("a node");
        assert_eq!(c["spec"]["podCIDR"], "10.244.0.0/24");
    }

    #[test]
    fn what_services_and_larger_ranges_have_is_not_given() {
        let ipam = NodeIpam::new(ranges(&["10.0.0.0/24"], 26));
        let mut cluster = Cluster::default();
        let services =
            json!({"metadata": {"name": "k"}, "spec": {"cidrs": ["10.0.0.8/29", "fd00::/112"]}});
        cluster.put(kind::SERVICE_CIDRS, services);
        add(&mut cluster, "a", &["10.0.0.64/27"]);
        add(&mut cluster, "b", &[]);
        add(&mut cluster, "c", &[]);
        add(&mut cluster, "d", &[]);
        cluster.settle(&ipam, &key(), at(0));
        assert_eq!(
            given(&cluster),
            ["10.0.0.64/27", "10.0.0.128/26", "10.0.0.192/26"]
        );
        let told = (
            "CIDRNotAvailable",
            "Node d status is now: CIDRNotAvailable".to_owned(),
        );
        assert!(!cluster.events.is_empty() && cluster.events.iter().all(|own| *own == told));
        // One that covers all.
        add(&mut cluster, "b", &["10.0.0.0/8"]);
        add(&mut cluster, "c", &[]);
        assert!(
            cluster
                .plan(&ipam, &key(), at(0))
                .writes()
                .all(|own| matches!(own, Write::Event(_)))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let parse = |texts: &[&str], v4_bits| {
            let texts: Vec<String> = texts.iter().map(|own| (*own).to_owned()).collect();
            PodRanges::parse(&texts, v4_bits, None)
        };
        for (texts, v4_bits, expected) in [
            (
                &["10.0.0.0"][..],
                None,
                Err("\"10.0.0.0\" is no ADDRESS/BITS"),
            ),
            (
                &["10.0.0.0/33"],
                None,
                Err("\"10.0.0.0/33\" is no ADDRESS/BITS"),
            ),
            (
                &["10.0.0.0/16", "10.1.0.0/16"],
                None,
                Err("10.1.0.0/16 is a second range of its family"),
            ),
            (
                &["10.0.0.0/28"],
                None,
                Err("a node's part of 10.0.0.0/28 can have 28 to 32 bits of prefix, not 24"),
            ),
            (
                &["10.0.0.0/8"],
                Some(25),
                Err("a node's part of 10.0.0.0/8 can have 8 to 24 bits of prefix, not 25"),
            ),
            (&["10.0.0.0/8"], None, Ok(1)),
            (&["fd00::/56", "10.0.0.0/16"], None, Ok(2)),
            (&[], None, Ok(0)),
        ] {
            let found = parse(texts, v4_bits).map(|own| own.0.len());
            assert_eq!(found, expected.map_err(str::to_owned), "{texts:?}");
        }
    }

    proptest! {
        #[test]
        fn no_two_nodes_share_an_address(
            steps in prop::collection::vec((0..12_u8, any::<bool>()), 1..60),
        ) {
            let ipam = NodeIpam::new(ranges(&["10.0.0.0/28", "fd00::/61"], 31));
            let mut cluster = Cluster::default();
            for (name, comes) in steps {
                let name = name.to_string();
                let node = Key::new("", &name);
                match comes {
                    true if cluster.get(kind::NODES, "", &name).is_none() => add(&mut cluster, &name, &[]),
                    true => {}
                    false => cluster.remove(kind::NODES, &node),
                }
                cluster.settle(&ipam, &key(), at(0));
                let nodes = cluster.list(kind::NODES, Within::All);
                let blocks: Vec<Block> = nodes.iter().flat_map(|node| pod_ranges(node)).collect();
                // Eight parts: whoever came in time has one of each family.
                prop_assert_eq!(blocks.len(), 2 * nodes.len().min(8));
                for (at, one) in blocks.iter().enumerate() {
                    for other in &blocks[at + 1..] {
                        let apart = one.width != other.width
                            || one.last() < other.base || other.last() < one.base;
                        prop_assert!(apart, "{one} and {other}");
                    }
                }
            }
        }
    }
}
