//! Where the API is: the endpoints of the service `kubernetes` in `default` are the
//! members of the quorum that serve clients.
//!
//! Addresses that pods can't use, as loopback ones, are not published; a quorum that has
//! only such (all on one machine) has no endpoints. Only addresses, not names, can be.
//!
//! Invariants
//! - What is published is the membership of one moment; it is written only where it
//!   differs, and in the leader's term.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::{Cluster, Member};
use nautilus_machinery::allocation::family_of;
use nautilus_machinery::resource::Resource;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::storage::{Storage, Target, Writer};

/// The service, and the name of what belongs to it.
const SERVICE: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// Between two looks at the membership.
const PAUSE: Duration = Duration::from_secs(5);

/// Keeps the endpoints level with the membership. Ends only by being dropped.
pub(crate) async fn keep(storage: Storage, cluster: Arc<dyn Cluster>, writer: Writer<'_>) {
    loop {
        if let Err(failure) = publish(&storage, &cluster.members(), &writer).await {
            tracing::warn!(error = %failure.error, "the API's endpoints could not be published");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn publish(
    storage: &Storage,
    members: &[Member],
    writer: &Writer<'_>,
) -> Result<(), Failure> {
    let ports = addresses(members);
    if ports.is_empty() {
        return Ok(());
    }
    put(storage, writer, "", "endpoints", &endpoints(&ports)).await?;
    let group = "discovery.k8s.io";
    for slice in slices(&ports) {
        put(storage, writer, group, "endpointslices", &slice).await?;
    }
    Ok(())
}

/// The members' addresses by port.
fn addresses(members: &[Member]) -> BTreeMap<u16, Vec<IpAddr>> {
    let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for member in members {
        let address = member.api_address.trim_start_matches("https://");
        if let Ok(address) = address.parse::<SocketAddr>()
            && is_reachable(address.ip())
        {
            ports.entry(address.port()).or_default().push(address.ip());
        }
    }
    for addresses in ports.values_mut() {
        addresses.sort_unstable();
        addresses.dedup();
    }
    ports
}

/// What the reference lets stand in endpoints.
fn is_reachable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

fn endpoints(ports: &BTreeMap<u16, Vec<IpAddr>>) -> Value {
    let subsets: Vec<Value> = ports
        .iter()
        .map(|(port, addresses)| {
            let addresses: Vec<Value> = addresses
                .iter()
                .map(|address| json!({ "ip": address.to_string() }))
                .collect();
            json!({
                "addresses": addresses,
                "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
            })
        })
        .collect();
    json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {
            "name": SERVICE,
            "namespace": NAMESPACE,
            // The slices are written here too.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": subsets,
    })
}

/// One slice for each port and family.
fn slices(ports: &BTreeMap<u16, Vec<IpAddr>>) -> Vec<Value> {
    let mut slices = Vec::new();
    for (port, addresses) in ports {
        for family in ["IPv4", "IPv6"] {
            let endpoints: Vec<Value> = addresses
                .iter()
                .filter(|address| family_of(**address) == family)
                .map(|address| {
                    json!({ "addresses": [address.to_string()], "conditions": { "ready": true } })
                })
                .collect();
            if endpoints.is_empty() {
                continue;
            }
            let name = match slices.is_empty() {
                true => SERVICE.to_owned(),
                false => format!("{SERVICE}-{}-{port}", family.to_lowercase()),
            };
            slices.push(json!({
                "kind": "EndpointSlice",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "labels": { "kubernetes.io/service-name": SERVICE },
                },
                "addressType": family,
                "endpoints": endpoints,
                "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
            }));
        }
    }
    slices
}

/// Creates the object, or writes over what differs.
async fn put(
    storage: &Storage,
    writer: &Writer<'_>,
    group: &str,
    plural: &str,
    wanted: &Value,
) -> Result<(), Failure> {
    let resource: &Resource = crate::storage::built_in(group, plural)?;
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let target = Target {
        resource,
        namespace: Some(NAMESPACE),
        name,
        subresource: None,
    };
    let make = |current: &Value| {
        let mut object = current.clone();
        for (field, value) in wanted.as_object().into_iter().flatten() {
            if field != "metadata" {
                object[field.as_str()] = value.clone();
            }
        }
        object["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
        Ok(object)
    };
    match storage.update(&target, writer, make).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.error.code() == 404 => {
            match storage
                .create(resource, Some(NAMESPACE), wanted.clone(), writer)
                .await
            {
                Ok(_) => Ok(()),
                // The namespace or somebody else's object: the next look will do.
                Err(failure) if matches!(failure.error.code(), 404 | 409) => Ok(()),
                Err(failure) => Err(failure),
            }
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, api_address: &str) -> Member {
        Member {
            id,
            peer_address: String::new(),
            api_address: api_address.to_owned(),
            client_address: String::new(),
            role: nautilus_machine::MemberRole::Voter,
            platform: String::new(),
        }
    }

    #[test]
    fn members_are_grouped_by_port_and_family() {
        let members = [
            member(1, "https://192.0.2.2:6443"),
            member(2, "https://192.0.2.1:6443"),
            member(3, "https://[2001:db8::1]:6443"),
            member(4, "https://127.0.0.1:6443"),
            member(5, "https://master.example:6443"),
            member(6, ""),
        ];
        let ports = addresses(&members);
        let subsets = &endpoints(&ports)["subsets"];
        assert_eq!(subsets[0]["addresses"][0]["ip"], "192.0.2.1");
        assert_eq!(subsets[0]["addresses"].as_array().map(Vec::len), Some(3));
        let slices = slices(&ports);
        let names: Vec<&Value> = slices.iter().map(|s| &s["metadata"]["name"]).collect();
        assert_eq!(names, ["kubernetes", "kubernetes-ipv6-6443"]);
        assert_eq!(slices[1]["addressType"], "IPv6");
    }

    #[test]
    fn a_quorum_on_one_machine_publishes_nothing() {
        assert!(addresses(&[member(1, "https://127.0.0.1:6443")]).is_empty());
    }
}
