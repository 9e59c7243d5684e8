//! Documents about the API itself: discovery in both forms, OpenAPI, version.
//!
//! They change with the kinds served, and are made once for each generation of them, when
//! they are first asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use nautilus_machinery::discovery;
use nautilus_machinery::openapi::{self, gnostic, gnostic_v3, v2};
use nautilus_machinery::resource::{self, Index};
use nautilus_machinery::status::ApiError;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::context::RestContext;
use crate::failure::Failure;
use crate::negotiate::{self, Clause, Format};
use crate::options::Query;
use crate::registry::{Document, Served};
use crate::respond::{self, JSON_TYPE};

/// The commit this binary was built from, when the build said so.
const GIT_COMMIT: Option<&str> = option_env!("NAUTILUS_GIT_COMMIT");
/// When it was built, RFC 3339, when the build said so.
const BUILD_DATE: Option<&str> = option_env!("NAUTILUS_BUILD_DATE");
/// Names the build in `gitVersion`, as semantic versioning's build part.
const BUILD_SUFFIX: &str = "+nautilus";

/// What clients ask for OpenAPI v2 as protobuf by, the older name first.
const V2_PROTOBUF_TYPES: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    V2_PROTOBUF_TYPE,
];
/// What it is answered as, whichever name it was asked by.
const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The same of v3.
const V3_PROTOBUF_TYPES: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
    V3_PROTOBUF_TYPE,
];
const V3_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// The OpenAPI documents of the kinds served.
#[derive(Default)]
pub(crate) struct Documents {
    /// Of the built-in kinds, by path: made once.
    built_in: OnceCell<BTreeMap<String, Document>>,
    /// Of the newest generation of kinds that was asked for.
    newest: Mutex<Option<Arc<OpenApi>>>,
}

struct OpenApi {
    generation: u64,
    index: Document,
    /// By path: `api/v1`, `apis/GROUP/VERSION`.
    documents: BTreeMap<String, Document>,
    /// Those that were asked for in protobuf, in that form.
    protobuf: Mutex<BTreeMap<String, Bytes>>,
    /// JSON and protobuf.
    v2: OnceCell<(Document, Document)>,
}

impl Documents {
    /// The documents of the kinds served now.
    async fn openapi(&self, served: &Arc<Served>) -> Result<Arc<OpenApi>, Failure> {
        let known = self.newest.lock().clone();
        if let Some(known) = known.filter(|known| known.generation == served.generation) {
            return Ok(known);
        }
        let built_in = self.built_in.get_or_try_init(|| async {
            off_thread(|| Ok(documents_of(resource::built_in(), &BTreeMap::new()))).await
        });
        let (built_in, kinds) = (built_in.await?.clone(), served.clone());
        let made = off_thread(move || Ok(OpenApi::new(&kinds, &built_in))).await?;
        let made = Arc::new(made);
        let mut newest = self.newest.lock();
        if newest
            .as_ref()
            .is_none_or(|newest| newest.generation < made.generation)
        {
            *newest = Some(made.clone());
        }
        Ok(made)
    }

    /// `GET /openapi/v2`, in the first form that the client takes.
    pub(crate) async fn v2(
        &self,
        served: &Arc<Served>,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let clauses = negotiate::clauses(headers);
        let form = |clause: &Clause| match clause.media.as_str() {
            media if is_json(media) => Some(JSON_TYPE),
            media if V2_PROTOBUF_TYPES.contains(&media) => Some(V2_PROTOBUF_TYPE),
            _ => None,
        };
        let media = match clauses.iter().find_map(form) {
            Some(media) => media,
            None if clauses.is_empty() => JSON_TYPE,
            None => return Err(ApiError::not_acceptable(&[JSON_TYPE, V2_PROTOBUF_TYPE]).into()),
        };
        let openapi = self.openapi(served).await?;
        let kinds = served.clone();
        let made = openapi.v2.get_or_try_init(|| async {
            off_thread(move || {
                let document = v2::document(&kinds.kinds);
                let protobuf = gnostic::document(&document)?;
                Ok((Document::new(document.to_string()), Document::new(protobuf)))
            })
            .await
        });
        let (json, protobuf) = made.await?;
        let document = match media {
            V2_PROTOBUF_TYPE => protobuf,
            _ => json,
        };
        found(headers, media, Some(document.clone()))
    }

    /// `GET /openapi/v3`.
    pub(crate) async fn index(
        &self,
        served: &Arc<Served>,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let index = self.openapi(served).await?.index.clone();
        found(headers, JSON_TYPE, Some(index))
    }

    /// `GET /openapi/v3/PATH`, for ever cacheable when asked by its hash.
    pub(crate) async fn document(
        &self,
        served: &Arc<Served>,
        path: &str,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response, Failure> {
        let clauses = negotiate::clauses(headers);
        let form = |clause: &Clause| match clause.media.as_str() {
            media if is_json(media) => Some(JSON_TYPE),
            media if V3_PROTOBUF_TYPES.contains(&media) => Some(V3_PROTOBUF_TYPE),
            _ => None,
        };
        let media = match clauses.iter().find_map(form) {
            Some(media) => media,
            None if clauses.is_empty() => JSON_TYPE,
            None => return Err(ApiError::not_acceptable(&[JSON_TYPE, V3_PROTOBUF_TYPE]).into()),
        };
        let openapi = self.openapi(served).await?;
        let document = openapi
            .documents
            .get(path)
            .ok_or_else(ApiError::path_not_found)?;
        let content = match media {
            V3_PROTOBUF_TYPE => openapi.protobuf(path, document).await?,
            _ => document.content.clone(),
        };
        let query = Query::of(uri);
        let mut response = match query.text("hash") {
            Some(hash) if hash != document.tag => {
                let mut response = respond::plain(StatusCode::MOVED_PERMANENTLY, "");
                let target = format!("/openapi/v3/{path}?hash={}", document.tag);
                if let Ok(target) = HeaderValue::from_str(&target) {
                    response.headers_mut().insert(LOCATION, target);
                }
                return Ok(response);
            }
            Some(_) => {
                let mut response = tagged(headers, media, content, &document.tag);
                let kept = response.headers_mut();
                kept.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
                kept.insert(
                    EXPIRES,
                    HeaderValue::from_static("Thu, 31 Dec 2099 23:59:59 GMT"),
                );
                response
            }
            None => tagged(headers, media, content, &document.tag),
        };
        response
            .headers_mut()
            .insert(VARY, HeaderValue::from_static("Accept"));
        Ok(response)
    }
}

fn is_json(media: &str) -> bool {
    matches!(media, JSON_TYPE | "*/*" | "application/*")
}

impl OpenApi {
    fn new(served: &Served, built_in: &BTreeMap<String, Document>) -> Self {
        let mut documents = documents_of(&served.kinds, built_in);
        documents.extend(built_in.clone());
        let paths: serde_json::Map<String, Value> = documents
            .iter()
            .map(|(path, document)| {
                let link = format!("/openapi/v3/{path}?hash={}", document.tag);
                (path.clone(), json!({ "serverRelativeURL": link }))
            })
            .collect();
        Self {
            generation: served.generation,
            index: Document::new(json!({ "paths": paths }).to_string()),
            documents,
            protobuf: Mutex::default(),
            v2: OnceCell::new(),
        }
    }
}

impl OpenApi {
    /// A document's protobuf, made once.
    async fn protobuf(&self, path: &str, document: &Document) -> Result<Bytes, Failure> {
        if let Some(known) = self.protobuf.lock().get(path) {
            return Ok(known.clone());
        }
        let json = document.content.clone();
        let made = tokio::task::spawn_blocking(move || {
            let document = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
            Ok::<_, String>(Bytes::from(gnostic_v3::document(&document)))
        });
        let made = made
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?;
        let made = made.map_err(ApiError::internal)?;
        self.protobuf.lock().insert(path.to_owned(), made.clone());
        Ok(made)
    }
}

/// The documents of the kinds whose group and version is not among `known`.
fn documents_of(kinds: &Index, known: &BTreeMap<String, Document>) -> BTreeMap<String, Document> {
    let pairs = discovery::group_versions(kinds).into_iter();
    pairs
        .map(|(group, version)| (openapi::document_name(group, version), group, version))
        .filter(|(path, _, _)| !known.contains_key(path))
        .filter_map(|(path, group, version)| {
            let document = openapi::document(kinds, group, version)?;
            Some((path, Document::new(document.to_string())))
        })
        .collect()
}

/// Makes what takes a while off the runtime's own threads.
async fn off_thread<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, gnostic::GnosticError> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(make)
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(|error| ApiError::internal(error.to_string()).into())
}

/// `GET /api` and `/apis`: aggregated for clients that ask for it, else the lists.
pub(crate) fn groups(
    context: &RestContext,
    headers: &HeaderMap,
    named: bool,
    server_address: &str,
) -> Result<Response, Failure> {
    let served = context.registry.served();
    let path = if named { "apis" } else { "api" };
    for clause in &negotiate::clauses(headers) {
        let aggregated = clause.media == JSON_TYPE
            && clause.parameter("g") == Some("apidiscovery.k8s.io")
            && clause.parameter("as") == Some("APIGroupDiscoveryList");
        let version = match clause.parameter("v") {
            Some(version @ ("v2" | "v2beta1")) if aggregated => version,
            _ if clause.parameter("as").is_none() => break,
            _ => continue,
        };
        let media =
            format!("{JSON_TYPE};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let make = |kinds: &Index| Some(discovery::aggregated(kinds, !named, version));
        return found(
            headers,
            &media,
            served.document(&format!("{path};{version}"), make),
        );
    }
    let make = |kinds: &Index| {
        Some(match named {
            true => discovery::api_group_list(kinds),
            false => discovery::api_versions(server_address),
        })
    };
    plain_document(headers, served.document(path, make))
}

/// `GET /apis/GROUP`.
pub(crate) fn group(
    context: &RestContext,
    headers: &HeaderMap,
    group: &str,
) -> Result<Response, Failure> {
    let served = context.registry.served();
    let make = |kinds: &Index| discovery::api_group(kinds, group);
    plain_document(headers, served.document(&format!("apis/{group}"), make))
}

/// `GET /api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resources(
    context: &RestContext,
    headers: &HeaderMap,
    group: &str,
    version: &str,
) -> Result<Response, Failure> {
    let served = context.registry.served();
    let name = openapi::document_name(group, version);
    let make = |kinds: &Index| discovery::api_resource_list(kinds, group, version);
    plain_document(headers, served.document(&name, make))
}

/// `GET /`: the paths that are served.
pub(crate) fn paths(context: &RestContext) -> Result<Response, Failure> {
    let served = context.registry.served();
    let remotes = context.aggregator.remotes();
    let mut groups = discovery::group_versions(&served.kinds);
    groups.extend(
        remotes
            .iter()
            .map(|remote| (remote.group.as_str(), remote.version.as_str())),
    );
    respond::json_document(&discovery::root_paths(&groups))
}

/// `GET /version`.
pub(crate) fn version() -> Result<Response, Failure> {
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => other,
    };
    let mut value = discovery::version(
        GIT_COMMIT.unwrap_or_default(),
        BUILD_DATE.unwrap_or_default(),
        "rustc",
        platform,
    );
    if let Some(release) = value["gitVersion"].as_str()
        && !release.contains('+')
    {
        value["gitVersion"] = format!("{release}{BUILD_SUFFIX}").into();
    }
    respond::json_document(&value)
}

/// A document in JSON, or 404.
fn found(
    headers: &HeaderMap,
    media: &str,
    document: Option<Document>,
) -> Result<Response, Failure> {
    let document = document.ok_or_else(ApiError::path_not_found)?;
    Ok(tagged(headers, media, document.content, &document.tag))
}

/// A document in the form that the client prefers.
fn plain_document(headers: &HeaderMap, document: Option<Document>) -> Result<Response, Failure> {
    let mut response = match negotiate::negotiate(headers, negotiate::Transforms::None)?.format {
        Format::Yaml => {
            let document = document.ok_or_else(ApiError::path_not_found)?;
            let value = serde_json::from_slice(&document.content)
                .map_err(|error| ApiError::internal(error.to_string()))?;
            respond::status(Format::Yaml, StatusCode::OK, &value)?
        }
        Format::Json | Format::Protobuf => found(headers, JSON_TYPE, document)?,
    };
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Content with its entity tag, or 304 to a client that has it.
pub(crate) fn tagged(headers: &HeaderMap, media: &str, content: Bytes, tag: &str) -> Response {
    let tag = format!("\"{tag}\"");
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim() == tag || value.trim() == "*");
    let mut response = match known {
        true => respond::bytes(StatusCode::NOT_MODIFIED, media, Bytes::new()),
        false => respond::bytes(StatusCode::OK, media, content),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
}
