//! An OTLP collector that keeps every span it is sent, for as long as a test runs.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as WireSpan};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span, and the node it came from.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) node: u64,
    pub(crate) name: String,
    pub(crate) trace_id: Vec<u8>,
    pub(crate) span_id: Vec<u8>,
    /// Empty for a root.
    pub(crate) parent_id: Vec<u8>,
    pub(crate) is_server: bool,
    pub(crate) is_error: bool,
    attributes: Vec<KeyValue>,
}

impl Span {
    fn new(node: u64, span: WireSpan) -> Self {
        Self {
            node,
            is_server: span.kind() == SpanKind::Server,
            is_error: span
                .status
                .is_some_and(|status| status.code() == StatusCode::Error),
            name: span.name,
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_id: span.parent_span_id,
            attributes: span.attributes,
        }
    }

    /// An attribute that is a text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match attribute(&self.attributes, key)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    /// An attribute that is an integer.
    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        match attribute(&self.attributes, key)? {
            Value::IntValue(value) => Some(*value),
            _ => None,
        }
    }
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

/// The node's id: the last part of its `service.instance.id`.
fn node_of(spans: &ResourceSpans) -> u64 {
    let resource = spans.resource.as_ref().expect("a resource");
    let text = |key| match attribute(&resource.attributes, key) {
        Some(Value::StringValue(text)) => text.as_str(),
        other => panic!("{key}: {other:?}"),
    };
    assert_eq!(text("service.name"), "nautilus");
    let (_, id) = text("service.instance.id")
        .rsplit_once('/')
        .expect("cluster/node");
    id.parse().expect("a node's id")
}

/// A running collector; dropped, it is gone.
pub(crate) struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    endpoint: String,
    _runtime: Runtime,
}

impl Collector {
    /// On a free port of the loopback interface.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let spans = Arc::new(Mutex::new(Vec::new()));
        let service = TraceServiceServer::new(Keeper(Arc::clone(&spans)));
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self {
            spans,
            endpoint,
            _runtime: runtime,
        }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// All that came so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

struct Keeper(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for spans in request.into_inner().resource_spans {
            let node = node_of(&spans);
            let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| Span::new(node, span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
