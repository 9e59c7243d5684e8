//! `nodes/proxy`, `pods/proxy`, `services/proxy`: any request, to a port of theirs.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use nautilus_machine::types::KeyRange;
use nautilus_machinery::resource;
use nautilus_machinery::status::{ApiError, quote};
use serde_json::Value;

use super::Connection;
use super::location::Reference;
use super::options::shown;
use crate::failure::Failure;
use crate::ids;
use crate::storage::versioned_object;
use crate::upstream::{
    Forwarding, HostHeader, Links, Security, Upstream, UpstreamError, forward, is_upgrade,
};

/// The label that ties a slice of endpoints to its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl Connection {
    pub(super) async fn proxy(
        self,
        request: Request,
        options: &Value,
    ) -> Result<Response, Failure> {
        let reference = Reference::parse(self.kind(), self.name())?;
        let upstream = match self.asked.resource.plural.as_str() {
            "nodes" => self.node(&reference).await?,
            "pods" => self.pod_port(&reference).await?,
            _ => self.endpoint(&reference).await?,
        };
        let tail = self.asked.proxied.clone().unwrap_or_default();
        let mut path = clean(&tail);
        // Admission may lead it elsewhere.
        if let Some(led) = options["path"].as_str().filter(|led| *led != shown(&tail)) {
            path = clean(&format!("/{led}"));
        }
        let upgrade = is_upgrade(request.headers());
        let reading = *request.method() == Method::GET || *request.method() == Method::HEAD;
        if path.is_empty() && reading && !upgrade {
            return redirect_to_root(request.uri());
        }
        let query = request.uri().query();
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let root = if path.is_empty() { "/" } else { &path };
        let links = Links {
            prefix: prefix(request.uri().path(), &tail),
            path: path.clone(),
            upstream: upstream.authority(),
            asked: asked_host(&request),
        };
        let forwarding = Forwarding {
            path_and_query: format!("{root}{query}"),
            upstream,
            host: HostHeader::AsAsked,
            headers: HeaderMap::new(),
            links: (!upgrade).then_some(links),
            unreachable: |error: &UpstreamError| {
                ApiError::unavailable(format!("error trying to reach service: {error}"), 0)
            },
        };
        forward(
            request,
            forwarding,
            self.permit,
            self.context.shutdown.clone(),
        )
        .await
    }

    fn kind(&self) -> &'static str {
        match self.asked.resource.plural.as_str() {
            "nodes" => "node",
            "pods" => "pod",
            _ => "service",
        }
    }

    /// A node's kubelet, or another port of the node.
    async fn node(&self, reference: &Reference<'_>) -> Result<Upstream, Failure> {
        let kubelet = self.kubelet(reference.name, false).await?.upstream;
        let addresses = tokio::net::lookup_host((kubelet.host.as_str(), kubelet.port))
            .await
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        for address in addresses {
            check_address(address.ip())?;
        }
        if reference.port.is_empty() || reference.port == kubelet.port.to_string() {
            return Ok(kubelet);
        }
        Ok(Upstream {
            port: number(reference.port)?,
            security: self.security(reference)?,
            host: kubelet.host,
            tunnel: None,
        })
    }

    async fn pod_port(&self, reference: &Reference<'_>) -> Result<Upstream, Failure> {
        let pod = self
            .object("pods", Some(self.namespace()), reference.name)
            .await?;
        let address = pod["status"]["podIPs"][0]["ip"].as_str();
        let address = address
            .or(pod["status"]["podIP"].as_str())
            .and_then(|text| text.parse::<IpAddr>().ok())
            .ok_or_else(|| ApiError::bad_request("address not allowed"))?;
        check_address(address)?;
        let port = match reference.port {
            "" => match first_port(&pod) {
                Some(port) => port,
                None if reference.secure => 443,
                None => 80,
            },
            text => number(text)?,
        };
        Ok(Upstream {
            host: address.to_string(),
            port,
            security: self.security(reference)?,
            tunnel: None,
        })
    }

    /// One of a service's endpoints that are ready, and pods of its namespace.
    async fn endpoint(&self, reference: &Reference<'_>) -> Result<Upstream, Failure> {
        let name = reference.name;
        let quoted = quote(name);
        let mut port_name = reference.port.to_owned();
        if let Ok(number) = reference.port.parse::<u64>() {
            let service = self
                .object("services", Some(self.namespace()), name)
                .await?;
            let ports = service["spec"]["ports"].as_array();
            let port = ports
                .into_iter()
                .flatten()
                .find(|port| port["port"] == number)
                .ok_or_else(|| {
                    let message = format!("no service port {number} found for service {quoted}");
                    ApiError::unavailable(message, 0)
                })?;
            port_name = port["name"].as_str().unwrap_or_default().to_owned();
        }
        let mut candidates = self.candidates(name, &port_name).await?;
        // A place to begin at, as good as any other.
        let count = u64::try_from(candidates.len()).unwrap_or(u64::MAX);
        let start = usize::try_from(ids::below(count)).unwrap_or_default();
        candidates.rotate_left(start);
        for (endpoint, port) in candidates {
            if let Some(host) = self.pod_address(&endpoint).await? {
                return Ok(Upstream {
                    host,
                    port,
                    security: self.security(reference)?,
                    tunnel: None,
                });
            }
        }
        let message = format!("no endpoints available for service {quoted}");
        Err(ApiError::unavailable(message, 0).into())
    }

    /// Endpoints that are ready and serve the port.
    async fn candidates(
        &self,
        service: &str,
        port_name: &str,
    ) -> Result<Vec<(Value, u16)>, Failure> {
        let Some(resource) = resource::find("discovery.k8s.io", "v1", "endpointslices") else {
            return Ok(Vec::new());
        };
        let storage = self.storage();
        storage.barrier().await?;
        let (rows, _) = storage
            .rows(KeyRange::prefix(
                resource.namespace_prefix(self.namespace()),
            ))
            .await?;
        let mut candidates = Vec::new();
        for row in &rows {
            let slice = versioned_object(resource, row)?;
            if slice["metadata"]["labels"][SERVICE_NAME_LABEL] != service {
                continue;
            }
            let ports = slice["ports"].as_array().into_iter().flatten();
            let Some(port) = ports
                .filter(|port| port["name"].as_str().unwrap_or_default() == port_name)
                .find_map(|port| port["port"].as_u64())
                .and_then(|port| u16::try_from(port).ok())
            else {
                continue;
            };
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            for endpoint in endpoints {
                if endpoint["conditions"]["ready"].as_bool().unwrap_or(true) {
                    candidates.push((endpoint.clone(), port));
                }
            }
        }
        Ok(candidates)
    }

    /// The endpoint's address, if it is one of the pod that the endpoint names: nobody
    /// gets elsewhere through a slice he wrote.
    async fn pod_address(&self, endpoint: &Value) -> Result<Option<String>, Failure> {
        let target = &endpoint["targetRef"];
        let Some(address) = endpoint["addresses"][0].as_str() else {
            return Ok(None);
        };
        if target["namespace"].as_str() != Some(self.namespace()) {
            return Ok(None);
        }
        let name = target["name"].as_str().unwrap_or_default();
        let pod = match self.object("pods", Some(self.namespace()), name).await {
            Ok(pod) => pod,
            Err(failure) if failure.error.code() == 404 => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let own = pod["status"]["podIPs"].as_array().into_iter().flatten();
        let is_own = own.into_iter().any(|ip| ip["ip"] == address);
        Ok(is_own.then(|| address.to_owned()))
    }

    fn security(&self, reference: &Reference<'_>) -> Result<Security, ApiError> {
        Ok(match reference.secure {
            true => Security::Tls(self.kubelets()?.anonymous(), None),
            false => Security::Plain,
        })
    }
}

fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array()?;
    containers
        .iter()
        .find_map(|container| container["ports"][0]["containerPort"].as_u64())
        .and_then(|port| u16::try_from(port).ok())
}

fn number(port: &str) -> Result<u16, ApiError> {
    port.parse()
        .map_err(|_| ApiError::bad_request(format!("invalid port {}", quote(port))))
}

/// Refuses what is no address of a machine in a network: this machine itself, links
/// and groups.
fn check_address(address: IpAddr) -> Result<(), ApiError> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(())
}

/// The path behind, without empty or dotted segments; a slash at its end stays.
pub(super) fn clean(tail: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in tail.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.push_str(segment);
    }
    if tail.ends_with('/') {
        path.push('/');
    }
    path
}

/// The request's path without what is asked for behind the proxy.
fn prefix(path: &str, tail: &str) -> String {
    path.strip_suffix(tail).unwrap_or(path).to_owned()
}

fn asked_host(request: &Request) -> String {
    let header = || request.headers().get(HOST)?.to_str().ok();
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    authority.or_else(header).unwrap_or_default().to_owned()
}

/// A page whose links are relative must be asked for with a slash at its end.
fn redirect_to_root(uri: &Uri) -> Result<Response, Failure> {
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path()))
        .map_err(|_| ApiError::bad_request("the path is not one of a request"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_does_not_climb() {
        for (tail, path) in [
            ("", ""),
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b/"),
            ("/../../etc", "/etc"),
            ("/a/./b/..", "/a"),
        ] {
            assert_eq!(clean(tail), path, "{tail}");
        }
    }

    #[test]
    fn this_machine_is_not_reached_through_it() {
        for refused in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
        ] {
            assert!(
                check_address(refused.parse().unwrap()).is_err(),
                "{refused}"
            );
        }
        for allowed in ["10.0.0.1", "192.0.2.2", "fd00::2"] {
            assert!(check_address(allowed.parse().unwrap()).is_ok(), "{allowed}");
        }
    }
}
