//! What an agent configures its kubelet, proxy and tunnel by.
//!
//! Invariant: it says what this quorum does and no more: no pod network, no network policies and
//! no cloud controller are run for an agent, and its tunnel leads to its kubelet alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nautilus_machinery::resource;
use serde_json::{Value, json};

use crate::context::RestContext;
use crate::failure::Failure;
use crate::service_ranges::DEFAULT_RANGE;

/// Service of the cluster's DNS, by its name in kubeadm, K3s and most others.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
/// Its address where it is not there yet: kubeadm's, the tenth of the range.
const DNS_ADDRESS: &str = "10.96.0.10";
const DOMAIN: &str = "cluster.local";
/// Ports of nodes for services: the reference's default.
const NODE_PORTS: (u16, u16) = (30_000, 2_768);

/// The document, as Go writes the types in it.
pub(super) fn document(context: &RestContext) -> Result<Value, Failure> {
    let (address, range) = (dns_address(context)?, network(DEFAULT_RANGE));
    let port = port_of(&context.node.api_address);
    Ok(json!({
        "ClusterDNS": address,
        "ClusterDNSs": [address],
        "ClusterDomain": DOMAIN,
        "ClusterIPRange": null,
        "ClusterIPRanges": null,
        "ServiceIPRange": range,
        "ServiceIPRanges": [range],
        "ServiceNodePortRange": {"Base": NODE_PORTS.0, "Size": NODE_PORTS.1},
        "DisableCCM": true,
        "DisableHelmController": true,
        "DisableNPC": true,
        "DisableServiceLB": true,
        "DisableKubeProxy": false,
        "EmbeddedRegistry": false,
        "FlannelBackend": "none",
        "FlannelIPv6Masq": false,
        "FlannelExternalIP": false,
        "EgressSelectorMode": "agent",
        // One port serves everything; an agent stays with the address that it came to.
        "HTTPSPort": port,
        "SupervisorPort": port,
    }))
}

/// `host:port` of every member that serves.
pub(super) fn servers(context: &RestContext) -> Vec<String> {
    let members = context.cluster.members();
    let addresses = members.iter().filter_map(|member| {
        let address = member.api_address.strip_prefix("https://")?;
        (!address.is_empty()).then(|| address.to_owned())
    });
    addresses.collect()
}

fn dns_address(context: &RestContext) -> Result<String, Failure> {
    let Some(services) = resource::find("", "v1", "services") else {
        return Ok(DNS_ADDRESS.to_owned());
    };
    let (namespace, name) = DNS_SERVICE;
    let key = services.key(Some(namespace), name);
    let row = context.storage().read(services, &key)?;
    let address = row.as_ref().and_then(|row| {
        let address = row.object["spec"]["clusterIP"].as_str()?;
        (!address.is_empty() && address != "None").then(|| address.to_owned())
    });
    Ok(address.unwrap_or_else(|| DNS_ADDRESS.to_owned()))
}

fn port_of(address: &str) -> u16 {
    let port = address.rsplit_once(':').map(|(_, port)| port);
    port.and_then(|port| port.trim_end_matches('/').parse().ok())
        .unwrap_or(443)
}

/// A `net.IPNet`: the address as text, the mask's bytes in base64.
fn network(cidr: &str) -> Value {
    let (address, bits) = cidr.split_once('/').unwrap_or((cidr, "32"));
    let bits = bits.parse::<u32>().unwrap_or(32).min(32);
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    json!({"IP": address, "Mask": STANDARD.encode(mask.to_be_bytes())})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_as_go_writes_it() {
        // json.Marshal of net.ParseCIDR's answer.
        assert_eq!(
            network("10.96.0.0/12"),
            json!({"IP": "10.96.0.0", "Mask": "//AAAA=="})
        );
        assert_eq!(network("0.0.0.0/0")["Mask"], "AAAAAA==");
    }

    #[test]
    fn the_port_is_that_of_the_address() {
        assert_eq!(port_of("https://127.0.0.1:7443"), 7443);
        assert_eq!(port_of("https://[::1]:6443"), 6443);
        assert_eq!(port_of("https://host"), 443);
    }
}
