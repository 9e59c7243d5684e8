//! Documents about the API itself: discovery in both forms, OpenAPI, version.
//!
//! They change with the binary only; OpenAPI documents are made once, on first use.

use std::collections::BTreeMap;

use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use nautilus_machinery::discovery;
use nautilus_machinery::openapi::{self, gnostic, v2};
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::failure::Failure;
use crate::negotiate::{self, Clause, Format};
use crate::options::Query;
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

/// The cache of documents.
#[derive(Default)]
pub(crate) struct Documents {
    openapi: OnceCell<OpenApi>,
}

struct OpenApi {
    index: Bytes,
    /// By path: `api/v1`, `apis/GROUP/VERSION`.
    documents: BTreeMap<String, Document>,
    v2_json: Bytes,
    v2_protobuf: Bytes,
}

struct Document {
    content: Bytes,
    hash: String,
}

impl Documents {
    async fn openapi(&self) -> Result<&OpenApi, Failure> {
        self.openapi
            .get_or_try_init(|| async {
                tokio::task::spawn_blocking(build_openapi)
                    .await
                    .map_err(|error| ApiError::internal(error.to_string()))?
                    .map_err(|error| Failure::from(ApiError::internal(error.to_string())))
            })
            .await
    }

    /// `GET /openapi/v2`, in the first form that the client takes.
    pub(crate) async fn v2(&self, headers: &HeaderMap) -> Result<Response, Failure> {
        let clauses = negotiate::clauses(headers);
        let served = |clause: &Clause| match clause.media.as_str() {
            media if is_json(media) => Some(JSON_TYPE),
            media if V2_PROTOBUF_TYPES.contains(&media) => Some(V2_PROTOBUF_TYPE),
            _ => None,
        };
        let media = match clauses.iter().find_map(served) {
            Some(media) => media,
            None if clauses.is_empty() => JSON_TYPE,
            None => return Err(ApiError::not_acceptable(&[JSON_TYPE, V2_PROTOBUF_TYPE]).into()),
        };
        let openapi = self.openapi().await?;
        let content = match media {
            V2_PROTOBUF_TYPE => openapi.v2_protobuf.clone(),
            _ => openapi.v2_json.clone(),
        };
        Ok(tagged(headers, media, content))
    }

    /// `GET /openapi/v3`.
    pub(crate) async fn index(&self, headers: &HeaderMap) -> Result<Response, Failure> {
        let index = self.openapi().await?.index.clone();
        Ok(tagged(headers, JSON_TYPE, index))
    }

    /// `GET /openapi/v3/PATH`, for ever cacheable when asked by its hash.
    pub(crate) async fn document(
        &self,
        path: &str,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response, Failure> {
        let clauses = negotiate::clauses(headers);
        if !clauses.is_empty() && !clauses.iter().any(|clause| is_json(&clause.media)) {
            return Err(ApiError::not_acceptable(&[JSON_TYPE]).into());
        }
        let openapi = self.openapi().await?;
        let document = openapi
            .documents
            .get(path)
            .ok_or_else(ApiError::path_not_found)?;
        let query = Query::of(uri);
        let mut response = match query.text("hash") {
            Some(hash) if hash != document.hash => {
                let mut response = respond::plain(StatusCode::MOVED_PERMANENTLY, "");
                let target = format!("/openapi/v3/{path}?hash={}", document.hash);
                if let Ok(target) = HeaderValue::from_str(&target) {
                    response.headers_mut().insert(LOCATION, target);
                }
                return Ok(response);
            }
            Some(_) => {
                let mut response = tagged(headers, JSON_TYPE, document.content.clone());
                let kept = response.headers_mut();
                kept.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
                kept.insert(
                    EXPIRES,
                    HeaderValue::from_static("Thu, 31 Dec 2099 23:59:59 GMT"),
                );
                response
            }
            None => tagged(headers, JSON_TYPE, document.content.clone()),
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

fn build_openapi() -> Result<OpenApi, gnostic::GnosticError> {
    let mut documents = BTreeMap::new();
    let mut paths = serde_json::Map::new();
    for (group, version) in discovery::group_versions() {
        let Some(document) = openapi::document(group, version) else {
            continue;
        };
        let content = Bytes::from(document.to_string());
        let hash = discovery::entity_tag(&content);
        let path = match group {
            "" => format!("api/{version}"),
            group => format!("apis/{group}/{version}"),
        };
        let link = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path.clone(), json!({ "serverRelativeURL": link }));
        documents.insert(path, Document { content, hash });
    }
    let index = Bytes::from(json!({ "paths": paths }).to_string());
    let v2 = v2::document();
    Ok(OpenApi {
        index,
        documents,
        v2_json: Bytes::from(v2.to_string()),
        v2_protobuf: Bytes::from(gnostic::document(&v2)?),
    })
}

/// `GET /api` and `/apis`: aggregated for clients that ask for it, else the lists.
pub(crate) fn groups(
    headers: &HeaderMap,
    named: bool,
    server_address: &str,
) -> Result<Response, Failure> {
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
        let content = discovery::aggregated(!named, version).to_string();
        return Ok(tagged(headers, &media, content.into()));
    }
    let value = match named {
        true => discovery::api_group_list(),
        false => discovery::api_versions(server_address),
    };
    plain_document(headers, &value)
}

/// `GET /apis/GROUP`.
pub(crate) fn group(headers: &HeaderMap, group: &str) -> Result<Response, Failure> {
    let value = discovery::api_group(group).ok_or_else(ApiError::path_not_found)?;
    plain_document(headers, &value)
}

/// `GET /api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resources(
    headers: &HeaderMap,
    group: &str,
    version: &str,
) -> Result<Response, Failure> {
    let value =
        discovery::api_resource_list(group, version).ok_or_else(ApiError::path_not_found)?;
    plain_document(headers, &value)
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

fn plain_document(headers: &HeaderMap, value: &Value) -> Result<Response, Failure> {
    let agreed = negotiate::negotiate(headers, false)?;
    let mut response = match agreed.format {
        Format::Yaml => respond::status(Format::Yaml, StatusCode::OK, value)?,
        Format::Json | Format::Protobuf => tagged(headers, JSON_TYPE, value.to_string().into()),
    };
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Content with its entity tag, or 304 to a client that has it.
fn tagged(headers: &HeaderMap, media: &str, content: Bytes) -> Response {
    let tag = format!("\"{}\"", discovery::entity_tag(&content));
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
