//! What extension servers say they serve: asked when APIServices change and now and
//! then, kept for the documents of this node.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode};
use nautilus_machinery::identity::User;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::service::ApiService;
use super::{Aggregator, front_proxy, resolve};
use crate::storage::Storage;
use crate::upstream::exchange;

/// One question to an extension server, as the reference has it.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Extension servers are asked anew this often.
const ASK_INTERVAL: Duration = Duration::from_secs(60);
/// The same after something was not heard.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of a document of an extension server's, at most.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// Extension servers that are asked, at most.
const MAX_SERVERS: usize = 256;
/// As whom this server asks for itself.
const SELF: &str = "system:kube-aggregator";
/// What it asks aggregated discovery by.
const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// What one group and version holds.
pub(super) struct Discovered {
    /// `APIResourceDiscovery` objects.
    pub(super) resources: Value,
    /// The hash of its OpenAPI v3 document, where it has one.
    pub(super) openapi: Option<String>,
    /// Its OpenAPI v2 document, where it has one.
    pub(super) openapi_v2: Option<Value>,
}

/// Asks all of them, over and over.
pub(super) async fn follow(aggregator: Arc<Aggregator>, shutdown: CancellationToken) {
    let Some(services) = aggregator.services.clone() else {
        return;
    };
    let mut changes = services.changes();
    let run = async {
        loop {
            let all_heard = aggregator.ask_all().await;
            let pause = if all_heard {
                ASK_INTERVAL
            } else {
                RETRY_INTERVAL
            };
            let _ = timeout(pause, changes.changed()).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = run => {}
    }
}

impl Aggregator {
    async fn ask_all(&self) -> bool {
        let remotes = self.remotes();
        let mut all_heard = true;
        for service in remotes.iter().take(MAX_SERVERS) {
            if !service.available {
                continue;
            }
            match self.discover(service).await {
                Ok(heard) => {
                    let mut discovered = self.discovered.lock();
                    discovered.insert(service.name.clone(), Arc::new(heard));
                }
                Err(why) => {
                    tracing::debug!(%why, name = service.name, "an extension server was not heard");
                    all_heard = false;
                }
            }
        }
        self.discovered
            .lock()
            .retain(|name, _| remotes.iter().any(|service| service.name == *name));
        all_heard
    }

    async fn discover(&self, service: &ApiService) -> Result<Discovered, String> {
        let resources = match self.ask(service, "/apis", AGGREGATED).await {
            Ok(document) => aggregated_resources(&document, service),
            Err(_) => None,
        };
        let resources = match resources {
            Some(resources) => resources,
            None => {
                let path = format!("/{}", service.path());
                legacy_resources(&self.ask(service, &path, "application/json").await?)
            }
        };
        let index = self.ask(service, "/openapi/v3", "application/json").await;
        let openapi = index.ok().and_then(|index| {
            let link = index["paths"][service.path()]["serverRelativeURL"].as_str()?;
            Some(link.split_once("hash=")?.1.to_owned())
        });
        let v2 = self.ask(service, "/openapi/v2", "application/json").await;
        Ok(Discovered {
            resources,
            openapi,
            openapi_v2: v2.ok(),
        })
    }

    /// A JSON document of an extension server's, asked for in this server's own name.
    pub(super) async fn ask(
        &self,
        service: &ApiService,
        path: &str,
        accept: &'static str,
    ) -> Result<Value, String> {
        let asked = timeout(ASK_TIMEOUT, self.ask_now(service, path, accept)).await;
        asked.unwrap_or_else(|_| {
            Err(
                "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
                    .into(),
            )
        })
    }

    async fn ask_now(
        &self,
        service: &ApiService,
        path: &str,
        accept: &'static str,
    ) -> Result<Value, String> {
        let config = self.front_proxy().await?.client(service)?;
        let storage = Storage::new(self.kv.clone());
        let upstream = resolve::upstream(&storage, service, config).map_err(|why| why.message)?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|_| "a malformed path".to_owned())?;
        let user = User::internal(SELF);
        *request.headers_mut() = front_proxy::headers(&user);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let authority = HeaderValue::from_str(&upstream.authority());
        headers.insert(http::header::HOST, authority.map_err(|e| e.to_string())?);
        let answer = exchange(&upstream, request)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!(
                "bad status from {path}: {}",
                answer.status().as_u16()
            ));
        }
        let mut content = Vec::new();
        let mut chunks = Body::new(answer.into_body()).into_data_stream();
        while let Some(chunk) = chunks.next().await {
            content.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
            if content.len() > MAX_DOCUMENT_BYTES {
                return Err(format!("{path} is larger than {MAX_DOCUMENT_BYTES} bytes"));
            }
        }
        serde_json::from_slice(&content).map_err(|error| error.to_string())
    }
}

/// The resources of the service's group and version in an aggregated document.
fn aggregated_resources(document: &Value, service: &ApiService) -> Option<Value> {
    let groups = document["items"].as_array()?;
    let group = groups
        .iter()
        .find(|group| group["metadata"]["name"] == service.group.as_str())?;
    let versions = group["versions"].as_array()?;
    let version = versions
        .iter()
        .find(|version| version["version"] == service.version.as_str())?;
    Some(version["resources"].clone())
}

/// The same, made of an `APIResourceList`.
fn legacy_resources(list: &Value) -> Value {
    let (group, version) = match list["groupVersion"].as_str().unwrap_or_default() {
        text if text.contains('/') => text.split_once('/').unwrap_or_default(),
        text => ("", text),
    };
    let kind_of = |entry: &Value| {
        let text = |field: &str, or: &str| {
            let own = entry[field].as_str().unwrap_or_default();
            if own.is_empty() {
                or.to_owned()
            } else {
                own.to_owned()
            }
        };
        json!({
            "group": text("group", group),
            "version": text("version", version),
            "kind": text("kind", ""),
        })
    };
    let entries = list["resources"].as_array();
    let entries = entries.map(Vec::as_slice).unwrap_or_default();
    let mut resources: Vec<Value> = Vec::new();
    for entry in entries {
        let name = entry["name"].as_str().unwrap_or_default();
        if name.contains('/') {
            continue;
        }
        let scope = if entry["namespaced"] == true {
            "Namespaced"
        } else {
            "Cluster"
        };
        let mut resource = Map::new();
        resource.insert("resource".into(), name.into());
        resource.insert("responseKind".into(), kind_of(entry));
        resource.insert("scope".into(), scope.into());
        resource.insert("singularResource".into(), entry["singularName"].clone());
        resource.insert("verbs".into(), entry["verbs"].clone());
        for field in ["shortNames", "categories"] {
            if entry[field].is_array() {
                resource.insert(field.into(), entry[field].clone());
            }
        }
        let subresources: Vec<Value> = entries
            .iter()
            .filter_map(|sub| {
                let of = sub["name"]
                    .as_str()?
                    .strip_prefix(name)?
                    .strip_prefix('/')?;
                Some(json!({
                    "subresource": of,
                    "responseKind": kind_of(sub),
                    "verbs": sub["verbs"],
                }))
            })
            .collect();
        if !subresources.is_empty() {
            resource.insert("subresources".into(), subresources.into());
        }
        resources.push(resource.into());
    }
    resources.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legacy_list_becomes_what_an_aggregated_one_would_say() {
        let list = json!({ "groupVersion": "example.org/v1", "resources": [
            { "name": "widgets", "singularName": "widget", "namespaced": true,
              "kind": "Widget", "verbs": ["get"], "shortNames": ["w"] },
            { "name": "widgets/scale", "group": "autoscaling", "version": "v1",
              "namespaced": true, "kind": "Scale", "verbs": ["get"] },
        ] });
        assert_eq!(
            legacy_resources(&list),
            json!([{
                "resource": "widgets",
                "responseKind": { "group": "example.org", "version": "v1", "kind": "Widget" },
                "scope": "Namespaced",
                "singularResource": "widget",
                "verbs": ["get"],
                "shortNames": ["w"],
                "subresources": [{
                    "subresource": "scale",
                    "responseKind": { "group": "autoscaling", "version": "v1", "kind": "Scale" },
                    "verbs": ["get"],
                }],
            }])
        );
    }
}
