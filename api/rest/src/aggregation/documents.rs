//! This server's documents about the API, with what extension servers serve beside it.

use axum::body::to_bytes;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use nautilus_machinery::discovery::entity_tag;
use nautilus_machinery::openapi::gnostic;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use super::Aggregator;
use crate::context::RestContext;
use crate::documents::{self, tagged};
use crate::failure::Failure;
use crate::respond::JSON_TYPE as JSON;
use crate::route::Route;

/// Bytes of a document of this server's own, at most.
const MAX_OWN_BYTES: usize = 64 * 1024 * 1024;

/// A document about the whole API.
pub(crate) async fn document(
    context: &RestContext,
    asked: &Route,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let aggregator = &context.aggregator;
    if aggregator.remotes().is_empty() || matches!(asked, Route::Groups { named: false }) {
        return local(context, asked, headers).await;
    }
    // A tag of the whole says nothing of a part.
    let mut plain = headers.clone();
    plain.remove(IF_NONE_MATCH);
    let mut answer = local(context, asked, &plain).await;
    let mut as_protobuf = None;
    if let (Route::OpenApiV2, Ok(response)) = (asked, &answer)
        && !media(response).starts_with(JSON)
    {
        as_protobuf = Some(media(response));
        plain.insert(ACCEPT, HeaderValue::from_static(JSON));
        answer = local(context, asked, &plain).await;
    }
    let (media, mut document) = match (answer, asked) {
        (Ok(response), _) => {
            let media = media(&response);
            if response.status() != StatusCode::OK || !media.starts_with(JSON) {
                return Ok(response);
            }
            let content = to_bytes(response.into_body(), MAX_OWN_BYTES)
                .await
                .map_err(|error| ApiError::internal(error.to_string()))?;
            let document = serde_json::from_slice(&content)
                .map_err(|error| ApiError::internal(error.to_string()))?;
            (media, document)
        }
        (Err(failure), Route::Group(group)) if failure.error.code() == 404 => {
            let document = json!({
                "kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": [],
            });
            (JSON.to_owned(), document)
        }
        (Err(failure), _) => return Err(failure),
    };
    match asked {
        Route::Groups { .. } if document["kind"] == "APIGroupDiscoveryList" => {
            aggregator.add_discovered(&mut document);
        }
        Route::Groups { .. } => aggregator.add_groups(&mut document),
        Route::Group(group) => {
            aggregator.add_versions(group, &mut document);
            if document["versions"].as_array().is_none_or(Vec::is_empty) {
                return Err(ApiError::path_not_found().into());
            }
        }
        Route::OpenApiIndex => aggregator.add_links(&mut document),
        _ => aggregator.add_definitions(&mut document),
    }
    let (media, content) = match as_protobuf {
        None => (media, document.to_string().into_bytes()),
        Some(media) => {
            let content = gnostic::document(&document)
                .map_err(|error| ApiError::internal(error.to_string()))?;
            (media, content)
        }
    };
    let tag = entity_tag(&content);
    Ok(tagged(headers, &media, content.into(), &tag))
}

/// What this server itself serves.
async fn local(
    context: &RestContext,
    asked: &Route,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    match asked {
        Route::Groups { named } => {
            let address = context.node.api_address.trim_start_matches("https://");
            documents::groups(context, headers, *named, address)
        }
        Route::Group(group) => documents::group(context, headers, group),
        Route::OpenApiIndex => {
            let served = context.registry.served_full();
            context.documents.index(&served, headers).await
        }
        Route::OpenApiV2 => {
            let served = context.registry.served_full();
            context.documents.v2(&served, headers).await
        }
        _ => Err(ApiError::path_not_found().into()),
    }
}

fn media(response: &Response) -> String {
    let media = response.headers().get(CONTENT_TYPE);
    let media = media.and_then(|value| value.to_str().ok());
    media.unwrap_or_default().to_owned()
}

impl Aggregator {
    /// Extension servers' groups and versions, in the order of their priorities.
    fn ordered(&self) -> Vec<(String, String, String)> {
        let mut remotes = self.remotes();
        remotes.sort_by_key(|service| service.order());
        remotes
            .iter()
            .map(|service| {
                (
                    service.name.clone(),
                    service.group.clone(),
                    service.version.clone(),
                )
            })
            .collect()
    }

    fn add_groups(&self, document: &mut Value) {
        for (_, group, _) in self.ordered() {
            let Some(groups) = document["groups"].as_array_mut() else {
                return;
            };
            let at = groups.iter().position(|own| own["name"] == group.as_str());
            let entry = match at {
                Some(at) => &mut groups[at],
                None => {
                    groups.push(json!({ "name": group, "versions": [] }));
                    let last = groups.len() - 1;
                    &mut groups[last]
                }
            };
            self.add_versions(&group, entry);
        }
    }

    fn add_versions(&self, wanted: &str, entry: &mut Value) {
        for (_, group, version) in self.ordered() {
            if group != wanted {
                continue;
            }
            let version = json!({
                "groupVersion": format!("{group}/{version}"), "version": version,
            });
            if entry["preferredVersion"].is_null() {
                entry["preferredVersion"] = version.clone();
            }
            if let Some(versions) = entry["versions"].as_array_mut()
                && !versions.contains(&version)
            {
                versions.push(version);
            }
        }
    }

    fn add_discovered(&self, document: &mut Value) {
        let available: Vec<String> = self
            .remotes()
            .iter()
            .filter(|service| service.available)
            .map(|service| service.name.clone())
            .collect();
        for (name, group, version) in self.ordered() {
            let heard = self.discovered.lock().get(&name).cloned();
            let fresh = available.contains(&name) && heard.is_some();
            let resources = heard.map_or_else(|| json!([]), |heard| heard.resources.clone());
            let entry = json!({
                "version": version,
                "resources": resources,
                "freshness": if fresh { "Current" } else { "Stale" },
            });
            let Some(items) = document["items"].as_array_mut() else {
                return;
            };
            let own = items
                .iter_mut()
                .find(|item| item["metadata"]["name"] == group.as_str());
            match own {
                Some(item) => {
                    if let Some(versions) = item["versions"].as_array_mut() {
                        // Who answers tells what there is.
                        versions.retain(|own| own["version"] != entry["version"]);
                        versions.push(entry);
                    }
                }
                None => items.push(json!({
                    "metadata": { "name": group, "creationTimestamp": null },
                    "versions": [entry],
                })),
            }
        }
    }

    fn add_links(&self, document: &mut Value) {
        for service in self.remotes() {
            let heard = self.discovered.lock().get(&service.name).cloned();
            let Some(hash) = heard.and_then(|heard| heard.openapi.clone()) else {
                continue;
            };
            let path = service.path();
            let link = format!("/openapi/v3/{path}?hash={hash}");
            document["paths"][path] = json!({ "serverRelativeURL": link });
        }
    }

    /// Paths of their own groups and versions, and types that nobody defines otherwise.
    fn add_definitions(&self, document: &mut Value) {
        for service in self.remotes() {
            let heard = self.discovered.lock().get(&service.name).cloned();
            let Some(Value::Object(theirs)) = heard.and_then(|heard| heard.openapi_v2.clone())
            else {
                continue;
            };
            let prefix = format!("/{}/", service.path());
            for (field, only) in [("paths", Some(&prefix)), ("definitions", None)] {
                let Some(Value::Object(theirs)) = theirs.get(field) else {
                    continue;
                };
                let Some(ours) = document[field].as_object_mut() else {
                    continue;
                };
                for (name, value) in theirs {
                    let own = only.is_none_or(|prefix| name.starts_with(prefix.as_str()));
                    if own && !ours.contains_key(name) {
                        ours.insert(name.clone(), value.clone());
                    }
                }
            }
        }
    }
}
