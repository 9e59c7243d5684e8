//! Hosts of our own: network namespaces on one bridge, and the cuts between them.
//!
//! Every address is in 10.77.0.0/24 and lives in this process's namespaces; all of
//! it is removed on drop. Needs root and iproute2.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

const BRIDGE: &str = "nautchaos0";

/// A bridge with one namespace per node.
pub(crate) struct Network {
    nodes: u64,
}

impl Network {
    /// Makes the bridge and `nodes` namespaces.
    pub(crate) fn new(nodes: u64) -> Result<Self> {
        let network = Self { nodes };
        network.remove();
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["addr", "add", "10.77.0.254/24", "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        for id in 1..=nodes {
            let (space, outer) = (namespace(id), outer(id));
            ip(&["netns", "add", &space])?;
            ip(&[
                "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ])?;
            ip(&["link", "set", &outer, "master", BRIDGE, "up"])?;
            inside(
                id,
                &["addr", "add", &format!("{}/24", address(id)), "dev", "eth0"],
            )?;
            inside(id, &["link", "set", "eth0", "up"])?;
            inside(id, &["link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// Cuts a node off from everybody, its clients too; established connections hang.
    pub(crate) fn isolate(&self, id: u64) -> Result<()> {
        ip(&["link", "set", &outer(id), "down"])
    }

    /// Cuts two nodes off from each other; both still reach everybody else.
    pub(crate) fn cut(&self, a: u64, b: u64) -> Result<()> {
        inside(a, &["route", "add", "blackhole", &address(b)])?;
        inside(b, &["route", "add", "blackhole", &address(a)])
    }

    /// Undoes every cut.
    pub(crate) fn heal(&self) -> Result<()> {
        for id in 1..=self.nodes {
            ip(&["link", "set", &outer(id), "up"])?;
            for other in (1..=self.nodes).filter(|&other| other != id) {
                // Fails when there is no such route: that pair was not cut.
                let _ = inside(id, &["route", "del", "blackhole", &address(other)]);
            }
        }
        Ok(())
    }

    fn remove(&self) {
        for id in 1..=self.nodes {
            let _ = ip(&["netns", "del", &namespace(id)]);
            let _ = ip(&["link", "del", &outer(id)]);
        }
        let _ = ip(&["link", "del", BRIDGE]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The namespace of a node.
pub(crate) fn namespace(id: u64) -> String {
    format!("nautchaos-{id}")
}

/// A node's address.
pub(crate) fn address(id: u64) -> String {
    format!("10.77.0.{id}")
}

fn outer(id: u64) -> String {
    format!("nautchaos-v{id}")
}

fn inside(id: u64, arguments: &[&str]) -> Result<()> {
    let space = namespace(id);
    ip(&[&["-n", &space], arguments].concat())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run `ip`: install iproute2")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
