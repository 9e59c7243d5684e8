//! As much of S3 as an upload in parts, a listing, a read and a removal need.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};

#[derive(Default)]
struct Shared {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: HashMap<String, BTreeMap<u32, Vec<u8>>>,
    begun: usize,
    completed: usize,
    unsigned: usize,
}

/// A running store.
pub(crate) struct Bucket {
    address: std::net::SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Bucket {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Mutex<Shared>>::default();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn uploads_completed(&self) -> usize {
        self.shared.lock().unwrap().completed
    }

    pub(crate) fn every_request_was_signed(&self) -> bool {
        self.shared.lock().unwrap().unsigned == 0
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap().to_vec();
    let query: HashMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.replace("%2F", "/")))
        .collect();
    let path = parts.uri.path().trim_start_matches('/');
    let (_bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let mut shared = shared.lock().unwrap();
    shared.unsigned += usize::from(!is_signed(&parts.headers));
    let upload = query.get("uploadId").cloned();
    match (parts.method, upload) {
        (Method::POST, None) if query.contains_key("uploads") => {
            shared.begun += 1;
            let id = format!("upload-{}", shared.begun);
            shared.uploads.insert(id.clone(), BTreeMap::new());
            xml(&format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        (Method::PUT, Some(id)) => {
            let number: u32 = query["partNumber"].parse().unwrap();
            let parts = shared.uploads.get_mut(&id).expect("begun");
            parts.insert(number, body);
            tagged("part")
        }
        (Method::POST, Some(id)) => {
            let parts = shared.uploads.remove(&id).expect("begun");
            let whole: Vec<u8> = parts.into_values().flatten().collect();
            shared.objects.insert(key.to_owned(), whole);
            shared.completed += 1;
            xml(
                "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>",
            )
        }
        (Method::DELETE, Some(id)) => {
            shared.uploads.remove(&id);
            with_status(StatusCode::NO_CONTENT)
        }
        (Method::DELETE, None) => {
            shared.objects.remove(key);
            with_status(StatusCode::NO_CONTENT)
        }
        (Method::GET, None) if key.is_empty() => xml(&listing(&shared.objects, &query)),
        (Method::GET, None) => match shared.objects.get(key) {
            Some(object) => {
                let mut response = tagged("whole");
                *response.body_mut() = Body::from(object.clone());
                response
            }
            None => with_status(StatusCode::NOT_FOUND),
        },
        (method, _) => panic!("{method} {}", parts.uri),
    }
}

fn is_signed(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential=tester/"))
}

fn listing(objects: &BTreeMap<String, Vec<u8>>, query: &HashMap<String, String>) -> String {
    let prefix = query.get("prefix").map_or("", String::as_str);
    let contents: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(prefix))
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>\
                 <ETag>\"whole\"</ETag><Size>{}</Size></Contents>",
                object.len()
            )
        })
        .collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

fn xml(text: &str) -> Response {
    let mut response = Response::new(Body::from(text.to_owned()));
    let kind = http::HeaderValue::from_static("application/xml");
    response.headers_mut().insert("content-type", kind);
    response
}

fn tagged(tag: &str) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert("etag", format!("\"{tag}\"").parse().unwrap());
    let modified = http::HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT");
    headers.insert("last-modified", modified);
    response
}

fn with_status(code: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}
