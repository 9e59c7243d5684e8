//! Trace context between a request's span, the log, and every replica's apply; and
//! what this crate's metrics mean.
//!
//! A traced proposal is followed by four spans: `propose` where it was made, `lead` on
//! the leader, `append` and `apply` on every replica. The last two join the leader's
//! span through the entry itself, so they are there after a restart too.

use nautilus_machine::{Entry, TraceContext};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::log::{EntryKind, RawEntry};

/// Bytes of a present trace at the end of an encoded entry: its tag, 16 of the trace's
/// id and 8 of the span's.
const ENCODED_TRACE_BYTES: usize = 1 + 16 + 8;

/// The present span as it travels in a proposal; nothing when it is not sampled.
pub(crate) fn current_trace() -> Option<TraceContext> {
    trace_of_span(&Span::current())
}

fn trace_of_span(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    (span.is_valid() && span.is_sampled()).then(|| TraceContext {
        trace_id: span.trace_id().to_bytes(),
        span_id: span.span_id().to_bytes(),
    })
}

/// The leader's handling of a proposal; what comes after it joins this span. Nothing
/// for a proposal without a trace.
pub(crate) fn lead_span(trace: &mut Option<TraceContext>) -> Span {
    let Some(parent) = *trace else {
        return Span::none();
    };
    let span = tracing::info_span!(parent: None, "lead");
    join(&span, parent);
    *trace = trace_of_span(&span).or(Some(parent));
    span
}

/// From an entry's way into the log until it is durable.
pub(crate) fn append_span(entry: &RawEntry) -> Option<Span> {
    if entry.kind != EntryKind::Command {
        return None;
    }
    let trace = trace_of_entry(&entry.body)?;
    let (term, index) = (entry.position.term, entry.position.index);
    let span = tracing::info_span!(parent: None, "append",
        term = term.cast_signed(), index = index.cast_signed());
    join(&span, trace);
    Some(span)
}

/// One replica's apply of an entry.
pub(crate) fn apply_span(at: nautilus_machine::LogPosition, entry: &Entry) -> Option<Span> {
    let trace = entry.proposal.trace?;
    let span = tracing::info_span!(parent: None, "apply",
        term = at.term.cast_signed(), index = at.index.cast_signed());
    join(&span, trace);
    Some(span)
}

fn join(span: &Span, trace: TraceContext) {
    let context = Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes(trace.trace_id),
        SpanId::from_bytes(trace.span_id),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    ));
    // Without a tracing layer there is nothing to attach to.
    let _ = span.set_parent(context);
}

/// The trace of an encoded entry. It stands last, so an entry without one is told by a
/// byte, in all but one of 256 cases; the hot path decodes nothing.
fn trace_of_entry(encoded: &[u8]) -> Option<TraceContext> {
    let tag = encoded.len().checked_sub(ENCODED_TRACE_BYTES)?;
    if encoded[tag] != 1 {
        return None;
    }
    let entry: Entry = postcard::from_bytes(encoded).ok()?;
    entry.proposal.trace
}

/// Says what the metrics mean, and makes those that count rare things stand at zero:
/// a rate over a counter that is not there yet misses its first increment.
pub(crate) fn describe_metrics() {
    use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
    describe_gauge!("nautilus_raft_term", "The newest term this node knows.");
    describe_gauge!("nautilus_raft_is_leader", "1 on the leader, 0 elsewhere.");
    describe_gauge!(
        "nautilus_raft_commit_index",
        "Index of the last entry known to be committed."
    );
    describe_gauge!(
        "nautilus_applied_index",
        "Index of the last entry applied here."
    );
    describe_counter!(
        "nautilus_raft_leader_changes_total",
        "Times this node saw leadership move."
    );
    describe_counter!(
        "nautilus_raft_leader_losses_total",
        "Leaders this node found gone before a timeout, with a quorum's word."
    );
    describe_counter!(
        "nautilus_raft_proposals_total",
        "Proposals made on this node, by outcome."
    );
    describe_gauge!(
        "nautilus_raft_proposals_pending",
        "Proposals of this node that wait for their outcome."
    );
    describe_histogram!(
        "nautilus_wal_fsync_duration_seconds",
        metrics::Unit::Seconds,
        "Time to sync a frame of the log."
    );
    describe_histogram!(
        "nautilus_apply_duration_seconds",
        metrics::Unit::Seconds,
        "Time to apply a batch of entries."
    );
    describe_counter!(
        "nautilus_peer_handshakes_refused_total",
        "Handshakes of peers that came to nothing, for whatever reason."
    );
    describe_gauge!(
        "nautilus_restart_returning",
        "1 from the start of the process until it takes part in consensus."
    );
    describe_counter!(
        "nautilus_restart_rejoins_total",
        "Times this process came back, by the ground on which it may."
    );
    describe_counter!(
        "nautilus_restart_outlived_refused_total",
        "Calls and answers refused because a newer incarnation of their sender is known."
    );
    describe_counter!(
        "nautilus_restart_fenced_total",
        "Times this process found that its node was started a second time."
    );
    describe_counter!(
        "nautilus_disk_rollback_detected_total",
        "Disks found at a start to be old, replayed or forked, by kind."
    );
    describe_gauge!(
        "nautilus_watch_ring_bytes",
        "Bytes of events kept for watchers."
    );
    describe_gauge!("nautilus_watch_watchers", "Watchers of this node.");
    describe_gauge!(
        "nautilus_watch_slow_watchers",
        "Watchers that catch up, from the kept events or from history."
    );
    describe_gauge!(
        "nautilus_watch_queue_bytes",
        "Bytes of events that wait for readers of watches; shared ones count once for each."
    );
    describe_counter!(
        "nautilus_watch_events_total",
        "Events given to watchers; one that two watchers get counts twice."
    );
    for outcome in ["applied", "unknown", "unavailable"] {
        counter!("nautilus_raft_proposals_total", "outcome" => outcome).increment(0);
    }
    for kind in ["rolled_back", "replayed", "forked"] {
        counter!("nautilus_disk_rollback_detected_total", "kind" => kind).increment(0);
    }
    counter!("nautilus_restart_outlived_refused_total").increment(0);
    counter!("nautilus_restart_fenced_total").increment(0);
    counter!("nautilus_raft_leader_changes_total").increment(0);
    counter!("nautilus_raft_leader_losses_total").increment(0);
    counter!("nautilus_peer_handshakes_refused_total").increment(0);
    counter!("nautilus_watch_events_total").increment(0);
    gauge!("nautilus_raft_proposals_pending").increment(0.0);
    gauge!("nautilus_watch_ring_bytes").increment(0.0);
    gauge!("nautilus_watch_watchers").increment(0.0);
    gauge!("nautilus_watch_slow_watchers").increment(0.0);
    gauge!("nautilus_watch_queue_bytes").increment(0.0);
}

#[cfg(test)]
mod tests {
    use nautilus_machine::{Command, Proposal, UnixMillis};

    use super::*;

    fn encoded(trace: Option<TraceContext>, command: Command) -> Vec<u8> {
        let proposal = Proposal {
            command,
            guard_term: Some(7),
            trace,
        };
        let time = UnixMillis(1_700_000_000_000);
        postcard::to_stdvec(&Entry { time, proposal }).expect("encoded")
    }

    /// A command whose encoding is nothing but ones, wherever the trace's tag is sought.
    fn ones() -> Command {
        Command::Checkpoint {
            previous: Some((
                nautilus_machine::LogPosition { term: 1, index: 1 },
                nautilus_machine::Digest([1; 32]),
            )),
        }
    }

    #[test]
    fn an_entrys_trace_is_read_from_its_bytes() {
        let trace = TraceContext {
            trace_id: [0xab; 16],
            span_id: [0; 8],
        };
        assert_eq!(trace_of_entry(&encoded(Some(trace), ones())), Some(trace));
    }

    #[test]
    fn an_entry_without_a_trace_has_none_even_if_its_bytes_look_like_one() {
        let bytes = encoded(None, ones());
        assert_eq!(bytes[bytes.len() - ENCODED_TRACE_BYTES], 1);
        assert_eq!(trace_of_entry(&bytes), None);
    }
}
