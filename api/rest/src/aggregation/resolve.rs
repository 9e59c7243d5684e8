//! Which endpoint of a service is asked, and whether there is one at all.

use nautilus_machine::types::KeyRange;
use nautilus_machinery::resource;
use nautilus_machinery::status::quote;
use serde_json::Value;

use super::service::{ApiService, ServiceReference};
use crate::ids;
use crate::storage::{Storage, versioned_object};
use crate::upstream::Upstream;

/// The label that ties a slice of endpoints to its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Why a service can't be asked: a condition's reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Unresolved {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Host and port of the service of an APIService, as of this node's state.
fn address(storage: &Storage, wanted: &ServiceReference) -> Result<(String, u16), Unresolved> {
    let ServiceReference {
        namespace,
        name,
        port,
    } = wanted;
    let place = format!("service/{name} in {}", quote(namespace));
    let service = read(storage, "", "services", namespace, name)
        .ok_or_else(|| Unresolved::new("ServiceNotFound", format!("{place} is not present")))?;
    if service["spec"]["type"] == "ExternalName" {
        let host = service["spec"]["externalName"].as_str().unwrap_or_default();
        return Ok((host.to_owned(), *port));
    }
    let ports = service["spec"]["ports"].as_array();
    let port_name = ports
        .into_iter()
        .flatten()
        .find(|own| own["port"] == *port)
        .map(|own| own["name"].as_str().unwrap_or_default())
        .ok_or_else(|| {
            let message = format!("{place} is not listening on port {port}");
            Unresolved::new("ServicePortError", message)
        })?;
    let slices = slices(storage, namespace, name);
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for {place}");
        return Err(Unresolved::new("EndpointsNotFound", message));
    }
    let mut ready = Vec::new();
    for slice in &slices {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let Some(port) = ports
            .filter(|port| port["name"].as_str().unwrap_or_default() == port_name)
            .find_map(|port| port["port"].as_u64())
            .and_then(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        ready.extend(
            endpoints
                .filter(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true))
                .filter_map(|endpoint| endpoint["addresses"][0].as_str())
                .map(|address| (address.to_owned(), port)),
        );
    }
    if ready.is_empty() {
        let port_name = quote(port_name);
        let message =
            format!("endpointslices for {place} have no addresses with port name {port_name}");
        return Err(Unresolved::new("MissingEndpoints", message));
    }
    let count = u64::try_from(ready.len()).unwrap_or(u64::MAX);
    let chosen = usize::try_from(ids::below(count)).unwrap_or_default();
    Ok(ready.swap_remove(chosen))
}

/// The server of an APIService, with `security` made for its name.
pub(super) fn upstream(
    storage: &Storage,
    service: &ApiService,
    config: std::sync::Arc<rustls::ClientConfig>,
) -> Result<Upstream, Unresolved> {
    let Some(wanted) = &service.service else {
        return Err(Unresolved::new("Local", "this server answers".into()));
    };
    let (host, port) = address(storage, wanted)?;
    let name = format!("{}.{}.svc", wanted.name, wanted.namespace);
    Ok(Upstream {
        host,
        port,
        security: crate::upstream::Security::Tls(config, Some(name)),
        tunnel: None,
    })
}

fn read(
    storage: &Storage,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Option<Value> {
    let resource = resource::find(group, "v1", plural)?;
    let row = storage.read(resource, &resource.key(Some(namespace), name));
    Some(row.ok()??.object)
}

fn slices(storage: &Storage, namespace: &str, service: &str) -> Vec<Value> {
    let Some(resource) = resource::find("discovery.k8s.io", "v1", "endpointslices") else {
        return Vec::new();
    };
    let range = KeyRange::prefix(resource.namespace_prefix(namespace));
    let request = nautilus_machine::RangeRequest::newest(range);
    let rows = storage.kv.range(&request).map(|answer| answer.kvs);
    rows.unwrap_or_default()
        .iter()
        .filter_map(|row| versioned_object(resource, row).ok())
        .filter(|slice| slice["metadata"]["labels"][SERVICE_NAME_LABEL] == service)
        .collect()
}
