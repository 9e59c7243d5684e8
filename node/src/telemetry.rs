//! Logs, traces and metrics of one process.
//!
//! Logs go to standard error, for people or as JSON. Where a collector is
//! configured, spans go to it by OTLP over gRPC, in batches, and are flushed by
//! [`Telemetry::shutdown`]. Metrics are kept in memory and rendered when asked.
//!
//! Invariants
//! - No request waits for the collector: spans wait in a bounded queue, and what does
//!   not fit is dropped.
//! - Every trace is exported whose caller did not decide otherwise (`traceparent`);
//!   OpenTelemetry's own variables change that, as `OTEL_TRACES_SAMPLER=traceidratio`
//!   with `OTEL_TRACES_SAMPLER_ARG=0.01`, or `OTEL_BSP_SCHEDULE_DELAY` in milliseconds.
//! - Whatever a running node says is one line of its log in the format asked for,
//!   panics included.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat};

/// How long one export may take before its spans are given up.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at the process's own numbers.
const PROCESS_METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// Buckets of every histogram in seconds: from a sync of the disk to a lost leader.
const SECONDS_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The process's telemetry; one per process.
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: PrometheusHandle,
}

impl Telemetry {
    /// Installs everything. Must run inside a tokio runtime when a collector is given.
    pub(crate) fn start(
        log: &Log,
        otlp_endpoint: Option<&str>,
        instance: &str,
    ) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(&log.filter).context("log.filter")?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match log.format {
            LogFormat::Human => lines.with_ansi(false).boxed(),
            LogFormat::Json => lines
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .boxed(),
        };
        let traces = otlp_endpoint
            .map(|endpoint| tracer(endpoint, instance))
            .transpose()?;
        let spans = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer().with_tracer(provider.tracer("nautilus"))
        });
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        tracing_subscriber::registry()
            .with(spans.with_filter(EnvFilter::new("info")))
            .with(lines.with_filter(filter))
            .try_init()
            .context("install the log")?;
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
            .context("metric buckets")?
            .install_recorder()
            .context("install the metrics recorder")?;
        log_panics();
        describe_metrics();
        Ok(Self { traces, metrics })
    }

    /// A handle that renders the metrics in Prometheus's text form.
    pub(crate) fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Sends the spans still held. Blocks for [`EXPORT_TIMEOUT`] at most.
    pub(crate) fn shutdown(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown_with_timeout(EXPORT_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

fn tracer(endpoint: &str, instance: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .with_context(|| format!("otlp_endpoint {endpoint}"))?;
    let resource = Resource::builder()
        .with_service_name("nautilus")
        .with_attributes([
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

/// Panics become lines of the log.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            location = panic.location().map(tracing::field::display),
            reason = panic.payload_as_str().unwrap_or("unknown"),
            "panicked"
        );
    }));
}

/// Says what this crate's own metrics mean.
fn describe_metrics() {
    metrics::describe_counter!(
        "process_cpu_seconds_total",
        "Processor time used, in seconds."
    );
    metrics::describe_gauge!(
        "process_resident_memory_bytes",
        "Resident memory, in bytes."
    );
    metrics::describe_gauge!("process_open_fds", "Open file descriptors.");
    metrics::describe_gauge!(
        "process_start_time_seconds",
        "Start, in seconds since the epoch."
    );
    metrics::describe_gauge!("nautilus_build_info", "The running build; always 1.");
    metrics::describe_counter!(
        "nautilus_peers_refused_total",
        "Peers refused for their evidence, key or measurement."
    );
    metrics::describe_counter!(
        nautilus_attest_tls::PEERS_CUT_OFF,
        "Peers cut off on a standing connection, by reason."
    );
    metrics::describe_counter!(
        nautilus_attest_tls::EVIDENCE_RENEWED,
        "Evidence renewed over standing connections and found good."
    );
    metrics::describe_gauge!(
        "nautilus_policy_epoch",
        "The policy this node judges by; 0 is its configuration."
    );
    metrics::describe_gauge!(
        "nautilus_policy_retired_voters",
        "Voters whose measurement is retired and who can't go without breaking the quorum."
    );
    metrics::describe_counter!(
        "nautilus_policy_votes_taken_total",
        "Nodes that lost their vote for their measurement."
    );
    metrics::describe_counter!(
        "nautilus_policy_changes_refused_total",
        "Policies in the quorum's rows whose signatures do not hold."
    );
    // A rate over a counter that is not there yet misses its first increment.
    metrics::counter!("nautilus_peers_refused_total").increment(0);
}

/// Keeps the process's own metrics fresh until the future is dropped.
pub(crate) async fn process_metrics(metrics: PrometheusHandle, measurement: String) {
    metrics::gauge!(
        "nautilus_build_info",
        "version" => env!("CARGO_PKG_VERSION"),
        "measurement" => measurement
    )
    .set(1.0);
    let mut ticks = tokio::time::interval(PROCESS_METRICS_INTERVAL);
    loop {
        ticks.tick().await;
        if let Some(sample) = ProcessSample::take() {
            metrics::counter!("process_cpu_seconds_total").absolute(sample.cpu_seconds);
            metrics::gauge!("process_resident_memory_bytes").set(sample.resident_bytes);
            metrics::gauge!("process_open_fds").set(sample.open_files);
            metrics::gauge!("process_start_time_seconds").set(sample.started_seconds);
        }
        metrics.run_upkeep();
    }
}

/// The process's numbers, from `/proc` (proc(5)).
struct ProcessSample {
    cpu_seconds: u64,
    resident_bytes: f64,
    open_files: f64,
    /// Since the epoch.
    started_seconds: f64,
}

impl ProcessSample {
    fn take() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold spaces; field 3 follows the last of them.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let user_ticks: u64 = fields.get(11)?.parse().ok()?;
        let system_ticks: u64 = fields.get(12)?.parse().ok()?;
        let resident_pages: u32 = fields.get(21)?.parse().ok()?;
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let started_ticks: u64 = fields.get(19)?.parse().ok()?;
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        let boot_seconds: u64 = boot.trim().parse().ok()?;
        let page_bytes = u32::try_from(rustix::param::page_size()).ok()?;
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            cpu_seconds: (user_ticks + system_ticks) / ticks_per_second,
            resident_bytes: f64::from(resident_pages) * f64::from(page_bytes),
            open_files: f64::from(u32::try_from(open_files).ok()?),
            started_seconds: (boot_seconds + started_ticks / ticks_per_second) as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_memory_and_files() {
        let sample = ProcessSample::take().expect("/proc of the test itself");
        assert!(sample.resident_bytes > 0.0 && sample.open_files > 0.0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after the epoch")
            .as_secs_f64();
        // Boot time is rounded to a second, and so is the start.
        assert!((0.0..=now + 2.0).contains(&sample.started_seconds));
    }
}
