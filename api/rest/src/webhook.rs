//! Connections to webhooks: by URL, or to a service of the cluster.
//!
//! Invariants
//! - Answers are bounded in size and time; redirects are not followed.
//! - A webhook with certificates of its own is trusted by those alone.
//! - Clients are kept by what they depend on, [`MAX_CLIENTS`] of them; each keeps a
//!   bounded number of idle connections.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use http::header::HOST;
use nautilus_admission::hooks::Address;
use nautilus_machine::RangeRequest;
use nautilus_machine::types::KeyRange;
use nautilus_machinery::resource;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use serde_json::Value;

use crate::storage::{Storage, versioned_object};
use crate::upstream::{Trust, http_client};

/// Clients kept.
const MAX_CLIENTS: usize = 256;
/// Idle connections of one.
const MAX_IDLE: usize = 32;
/// Bytes of an answer.
const MAX_ANSWER_BYTES: usize = 3 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    ca_bundle: String,
    /// Where a host's connections go, unless its name says so.
    pinned: Option<(String, SocketAddr)>,
}

/// The clients of one node.
pub(crate) struct WebhookClients {
    storage: Storage,
    clients: Mutex<HashMap<Key, Client>>,
}

/// Where a call goes.
struct Route {
    /// As the caller knows it.
    url: String,
    pinned: Option<(String, SocketAddr)>,
}

impl Route {
    /// What is asked for: the port of the pinned address, which a port in the URL would
    /// take precedence of, and the host and port that the server is known by.
    fn target(&self, url: &str) -> Result<(Url, Option<HeaderValue>), String> {
        let mut target = Url::parse(url).map_err(|error| error.to_string())?;
        let Some((host, address)) = &self.pinned else {
            return Ok((target, None));
        };
        let known = match target.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let known = HeaderValue::try_from(known).map_err(|error| error.to_string())?;
        target
            .set_port(Some(address.port()))
            .map_err(|()| format!("{url} has no host"))?;
        Ok((target, Some(known)))
    }
}

impl WebhookClients {
    pub(crate) fn new(storage: Storage) -> Self {
        Self {
            storage,
            clients: Mutex::default(),
        }
    }

    /// Posts a JSON object and gives the JSON answer. The error says what failed.
    pub(crate) async fn post(
        &self,
        address: &Address,
        ca_bundle: &str,
        timeout: Duration,
        body: &Value,
    ) -> Result<Value, String> {
        let route = self.route(address)?;
        let seconds = timeout.as_secs().max(1);
        let separator = if route.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}timeout={seconds}s", route.url);
        let failed = |why: &str| format!("Post \"{url}\": {why}");
        let (target, known) = route.target(&url).map_err(|why| failed(&why))?;
        let client = self.client(ca_bundle, route.pinned)?;
        let call = async {
            let mut request = client
                .post(target)
                .header("content-type", "application/json")
                .header("accept", "application/json")
                .body(body.to_string());
            if let Some(known) = known {
                request = request.header(HOST, known);
            }
            let mut response = request
                .send()
                .await
                .map_err(|error| failed(&causes(&error)))?;
            let status = response.status();
            let mut content = Vec::new();
            while let Some(chunk) = response
                .chunk()
                .await
                .map_err(|error| failed(&causes(&error)))?
            {
                if content.len() + chunk.len() > MAX_ANSWER_BYTES {
                    return Err(failed("the answer is too large"));
                }
                content.extend_from_slice(&chunk);
            }
            if !status.is_success() {
                let text = String::from_utf8_lossy(&content);
                return Err(refused(status.as_u16(), text.trim()));
            }
            serde_json::from_slice(&content)
                .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
        };
        tokio::time::timeout(timeout, call)
            .await
            .unwrap_or_else(|_| Err(failed("context deadline exceeded")))
    }

    fn client(
        &self,
        ca_bundle: &str,
        pinned: Option<(String, SocketAddr)>,
    ) -> Result<Client, String> {
        let key = Key {
            ca_bundle: ca_bundle.to_owned(),
            pinned,
        };
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let trust = if ca_bundle.is_empty() {
            Trust::system()
        } else {
            let wrong =
                |why: &dyn std::fmt::Display| format!("unable to load root certificates: {why}");
            let pem = BASE64.decode(ca_bundle).map_err(|error| wrong(&error))?;
            Trust::pem(&pem).map_err(|error| wrong(&error))?
        };
        let mut builder = http_client(trust)?
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE);
        if let Some((host, address)) = &key.pinned {
            builder = builder.resolve(host, *address);
        }
        let client = builder.build().map_err(|error| causes(&error))?;
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn route(&self, address: &Address) -> Result<Route, String> {
        match address {
            Address::Url(url) => Ok(Route {
                url: url.clone(),
                pinned: None,
            }),
            Address::Service {
                namespace,
                name,
                path,
                port,
            } => {
                let host = format!("{name}.{namespace}.svc");
                let pinned = self.resolve(namespace, name, *port)?;
                Ok(Route {
                    url: format!("https://{host}:{port}{path}"),
                    pinned: pinned.map(|address| (host, address)),
                })
            }
        }
    }

    /// Where a service's port is reached: one of its ready endpoints, else its cluster
    /// address; `None` where its name says so itself.
    fn resolve(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<Option<SocketAddr>, String> {
        let services = resource::find("", "v1", "services").ok_or("services are not served")?;
        let service = self
            .storage
            .read(services, &services.key(Some(namespace), name))
            .map_err(|failure| failure.error.to_string())?
            .ok_or_else(|| format!("service \"{name}\" not found"))?
            .object;
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            return Ok(None);
        }
        let ports = spec["ports"].as_array().into_iter().flatten();
        let own = ports
            .into_iter()
            .find(|own| own["port"].as_u64() == Some(u64::from(port)))
            .ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;
        let port_name = own["name"].as_str().unwrap_or_default();
        if let Some(address) = self.ready_endpoint(namespace, name, port_name) {
            return Ok(Some(address));
        }
        let address: IpAddr = spec["clusterIP"]
            .as_str()
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("no endpoints available for service \"{name}\""))?;
        Ok(Some(SocketAddr::new(address, port)))
    }

    fn ready_endpoint(&self, namespace: &str, name: &str, port_name: &str) -> Option<SocketAddr> {
        let kind = resource::find("discovery.k8s.io", "v1", "endpointslices")?;
        let range = KeyRange::prefix(kind.namespace_prefix(namespace));
        let rows = self
            .storage
            .kv
            .range(&RangeRequest::newest(range))
            .ok()?
            .kvs;
        let slices = rows
            .iter()
            .filter_map(|row| versioned_object(kind, row).ok())
            .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name);
        let mut found = Vec::new();
        for slice in slices {
            let ports = slice["ports"].as_array().into_iter().flatten();
            let port = ports
                .into_iter()
                .find(|port| port["name"].as_str().unwrap_or_default() == port_name)
                .and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
            let Some(port) = port else { continue };
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let address = endpoint["addresses"][0].as_str();
                if endpoint["conditions"]["ready"] != false
                    && let Some(address) = address.and_then(|address| address.parse().ok())
                {
                    found.push(SocketAddr::new(address, port));
                }
            }
        }
        let count = u64::try_from(found.len()).ok().filter(|count| *count > 0)?;
        found
            .get(usize::try_from(crate::ids::below(count)).ok()?)
            .copied()
    }
}

/// What the server of a webhook said with a status that is no success.
fn refused(code: u16, text: &str) -> String {
    match code {
        404 => "the server could not find the requested resource".to_owned(),
        _ if text.is_empty() => format!("the server responded with the status code {code}"),
        _ => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
    }
}

/// An error and what it comes from, without its URL: the caller says it.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        texts.push(source.to_string());
        next = source.source();
    }
    if texts.is_empty() {
        return error.to_string();
    }
    texts.join(": ")
}
