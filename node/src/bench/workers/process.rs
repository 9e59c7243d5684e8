//! What a node's process has used, as the kernel counts it.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;

use super::super::World;
use super::super::load::to_f64;
use crate::up::process;

/// At one moment.
pub(super) struct Usage {
    at: Instant,
    processor_s: f64,
    /// Memory that is resident, in bytes.
    pub(super) resident_bytes: f64,
}

impl Usage {
    /// Of one node.
    pub(super) fn of_node(world: &World, node: u64) -> anyhow::Result<Self> {
        let pid = process::running(&world.layout.node(node))
            .with_context(|| format!("node {node} is not running"))?;
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::read_to_string(&path).context(path)
        };
        let usage = parse(&read("stat")?, &read("status")?);
        let (ticks, resident_kib) =
            usage.with_context(|| format!("/proc/{pid} reads otherwise"))?;
        let ticks_per_s = u32::try_from(rustix::param::clock_ticks_per_second())
            .context("the clock's ticks per second")?;
        Ok(Self {
            at: Instant::now(),
            processor_s: to_f64(ticks) / f64::from(ticks_per_s),
            resident_bytes: to_f64(resident_kib) * 1024.0,
        })
    }

    /// Of every node, by id.
    pub(super) fn of_nodes(world: &World) -> anyhow::Result<BTreeMap<u64, Self>> {
        let nodes = world.quorum.nodes.iter();
        nodes
            .map(|node| Ok((node.id, Self::of_node(world, node.id)?)))
            .collect()
    }

    /// Processors that were busy with it between `earlier` and this.
    pub(super) fn cores_since(&self, earlier: &Self) -> f64 {
        let elapsed = (self.at - earlier.at).as_secs_f64().max(f64::EPSILON);
        (self.processor_s - earlier.processor_s) / elapsed
    }
}

/// Ticks in user and system mode by proc_pid_stat(5), resident KiB by proc_pid_status(5).
fn parse(stat: &str, status: &str) -> Option<(usize, usize)> {
    // The name in brackets may hold anything; utime and stime are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: usize = fields.next()?.parse().ok()?;
    let system: usize = fields.next()?.parse().ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some((user + system, line.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_moves_no_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 120 34 0 0 20 0 1 0 5 6 7";
        let status = "Name:\ta\nVmRSS:\t    2048 kB\n";
        assert_eq!(parse(stat, status), Some((154, 2048)));
    }
}
