//! Spans by the OpenTelemetry conventions for HTTP servers, and the trace context
//! that follows a write through the log.

use http::HeaderMap;
use nautilus_machine::TraceContext;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// Makes `span` a child of the request's `traceparent`, if it carries one.
pub(crate) fn adopt(span: &Span, headers: &HeaderMap) {
    let Some(parent) = headers
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok())
    else {
        return;
    };
    if let Some(parent) = parse(parent) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        // Fails only where no OpenTelemetry layer is installed: nothing to join then.
        let _ = span.set_parent(context);
    }
}

/// The current span as a proposal carries it; `None` when it is not sampled.
pub(crate) fn current() -> Option<TraceContext> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    (span.is_valid() && span.is_sampled()).then(|| TraceContext {
        trace_id: span.trace_id().to_bytes(),
        span_id: span.span_id().to_bytes(),
    })
}

fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths_fit =
        version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    if !lengths_fit || version == "ff" {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example_is_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parse(text).expect("a valid context");
        assert_eq!(
            context.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert!(context.is_sampled());
    }

    #[test]
    fn a_context_of_zeros_is_none() {
        assert!(parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01").is_none());
    }
}
