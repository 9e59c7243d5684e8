//! What operators see: a write's trace through the whole quorum, metrics that keep to
//! the conventions, and logs that machines read. None of it may stand in a write's way.

mod collector;
mod exposition;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;

use collector::{Collector, Span};
use exposition::{Exposition, Kind};
use nautilus_tests::{NodeStatus, Quorum, SuiStandin, eventually};
use serde_json::Value;

/// Spans leave a node this often, in milliseconds (OpenTelemetry's own variable).
const EXPORT_OFTEN: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "100");

/// Creates a configmap through a follower, under a leader that stays the same meanwhile.
/// Returns the follower, the leader, and the configmap's name.
fn write_through_a_follower(quorum: &Quorum) -> (NodeStatus, NodeStatus, String) {
    let mut attempt = 0;
    eventually("a write under one leader", || {
        attempt += 1;
        let name = format!("traced-{attempt}");
        let (leader, follower) = (quorum.leader(), quorum.follower());
        quorum.kubectl_on(follower.id, &["create", "configmap", &name]);
        let after = quorum.leader();
        if (after.id, after.term) == (leader.id, leader.term) && follower.id != leader.id {
            Ok((follower, leader, name))
        } else {
            Err(format!("leader {} became {}", leader.id, after.id))
        }
    })
}

/// The spans called `name`, on `node` if given.
fn named<'a>(trace: &'a [Span], name: &str, node: Option<u64>) -> Vec<&'a Span> {
    trace
        .iter()
        .filter(|span| span.name == name && node.is_none_or(|node| span.node == node))
        .collect()
}

/// The parts of a write's trace that belong together, or what is missing.
struct WriteTrace {
    server: Span,
    spans: Vec<Span>,
}

impl WriteTrace {
    fn find(collector: &Collector, follower: u64, leader: u64) -> Result<Self, String> {
        let spans = collector.spans();
        let server = spans
            .iter()
            .find(|span| {
                span.node == follower
                    && span.name == "POST /api/v1/namespaces/{namespace}/configmaps"
            })
            .ok_or_else(|| {
                let names: BTreeSet<_> = spans.iter().map(|span| (span.node, &span.name)).collect();
                format!("no server span on {follower} among {names:?}")
            })?
            .clone();
        let spans: Vec<Span> = spans
            .into_iter()
            .filter(|span| span.trace_id == server.trace_id)
            .collect();
        let applied: BTreeSet<u64> = named(&spans, "apply", None)
            .iter()
            .map(|span| span.node)
            .collect();
        let complete = applied.len() >= 3
            && !named(&spans, "propose", Some(follower)).is_empty()
            && !named(&spans, "lead", Some(leader)).is_empty()
            && !named(&spans, "append", Some(leader)).is_empty();
        if complete {
            return Ok(Self { server, spans });
        }
        let seen: Vec<_> = spans.iter().map(|span| (span.node, &span.name)).collect();
        Err(format!("leader {leader}, follower {follower}: {seen:?}"))
    }

    fn one(&self, name: &str, node: u64) -> &Span {
        match named(&self.spans, name, Some(node)).as_slice() {
            [span] => span,
            other => panic!("{} spans {name} of node {node}", other.len()),
        }
    }
}

#[test]
fn a_writes_trace_leads_from_the_follower_to_the_leader_its_log_and_every_apply() {
    let collector = Collector::start();
    let quorum = Quorum::start_with(&[
        ("NAUTILUS_OTLP_ENDPOINT", &collector.endpoint()),
        EXPORT_OFTEN,
    ]);
    let (follower, leader, _) = write_through_a_follower(&quorum);
    let trace = eventually("the whole trace", || {
        WriteTrace::find(&collector, follower.id, leader.id)
    });
    let server = &trace.server;
    let propose = trace.one("propose", follower.id);
    let lead = trace.one("lead", leader.id);
    assert_eq!(propose.parent_id, server.span_id);
    assert_eq!(lead.parent_id, propose.span_id);
    for name in ["append", "apply"] {
        assert_eq!(trace.one(name, leader.id).parent_id, lead.span_id);
        assert_eq!(
            trace.one(name, follower.id).parent_id,
            lead.span_id,
            "{name}"
        );
    }
    let index = |span: &Span| span.integer("index").expect("an index");
    assert_eq!(
        index(trace.one("append", leader.id)),
        index(trace.one("apply", follower.id)),
        "one entry, everywhere"
    );
}

#[test]
fn a_requests_span_keeps_to_the_conventions_for_http_servers() {
    let collector = Collector::start();
    let quorum = Quorum::start_with(&[
        ("NAUTILUS_OTLP_ENDPOINT", &collector.endpoint()),
        EXPORT_OFTEN,
    ]);
    let (node, _, name) = write_through_a_follower(&quorum);
    let object = format!("/api/v1/namespaces/default/configmaps/{name}");
    let path_of = |span: &Span| span.text("url.path").map(str::to_owned);
    quorum.kubectl_on(node.id, &["get", "--raw", &object]);
    quorum.kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps/none"]);
    let (found, missing) = eventually("the spans of two reads", || {
        let spans = collector.spans();
        let of = |path: &str| {
            let span = spans
                .iter()
                .find(|span| path_of(span).as_deref() == Some(path));
            span.cloned().ok_or_else(|| format!("no span for {path}"))
        };
        Ok((
            of(&object)?,
            of("/api/v1/namespaces/default/configmaps/none")?,
        ))
    });
    let route = "/api/v1/namespaces/{namespace}/configmaps/{name}";
    for span in [&found, &missing] {
        assert!(span.is_server, "{span:?}");
        assert_eq!(span.name, format!("GET {route}"));
        assert_eq!(span.text("http.request.method"), Some("GET"));
        assert_eq!(span.text("http.route"), Some(route));
        assert_eq!(span.text("url.scheme"), Some("https"));
    }
    assert_eq!(found.integer("http.response.status_code"), Some(200));
    assert_eq!(missing.integer("http.response.status_code"), Some(404));
    assert!(
        !missing.is_error,
        "a client's mistake is no error of the server"
    );
}

/// Every name of a metric in `text`: what stands before a `{`.
fn metric_names(text: &str) -> BTreeSet<String> {
    let selectors = text
        .match_indices('{')
        .map(|(at, _)| &text[..at])
        .filter_map(|before| {
            before
                .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
        });
    let of_ours = |name: &&str| {
        ["nautilus_", "apiserver_", "process_"]
            .iter()
            .any(|p| name.starts_with(p))
    };
    selectors.filter(of_ours).map(str::to_owned).collect()
}

#[test]
fn every_nodes_metrics_are_described_well_named_and_those_that_alerts_look_at() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let read = |name: &str| std::fs::read_to_string(deploy.join(name)).expect("a file of deploy/");
    let watched = metric_names(&(read("alerts.yml") + &read("dashboard.json")));
    assert!(watched.contains("nautilus_raft_is_leader"), "{watched:?}");
    let backups = tempfile::tempdir().expect("a folder");
    let destination = backups.path().to_str().expect("UTF-8");
    let chain = SuiStandin::start();
    let state = chain.state();
    let full_node = format!("grpc={}", chain.url("grpc"));
    let id = |field: &str| state[field].as_str().expect("an id");
    let quorum = Quorum::start_with(&[
        ("NAUTILUS_BACKUP_DESTINATION", destination),
        ("NAUTILUS_BACKUP_INTERVAL", "1s"),
        ("NAUTILUS_SUI_FULL_NODES", &full_node),
        ("NAUTILUS_SUI_PACKAGE", id("package")),
        ("NAUTILUS_SUI_REGISTRY", id("registry")),
    ]);
    for node in quorum.nodes() {
        let watch = "/api/v1/configmaps?watch=true&timeoutSeconds=1";
        quorum.kubectl_on(node.id, &["get", "--raw", watch]);
        quorum.kubectl_on(node.id, &["get", "--raw", "/api/v1/configmaps"]);
    }
    let leader = quorum.leader();
    let everyone = eventually("every metric that alerts or the dashboard look at", || {
        let mut everyone = Vec::new();
        for node in quorum.nodes() {
            let text = quorum.kubectl_on(node.id, &["get", "--raw", "/metrics"]);
            let metrics = Exposition::parse(&text).expect("Prometheus' text format");
            // Backups and the chain's events are the leader's work alone.
            let of_leader = |name: &str| {
                ["nautilus_backup_", "nautilus_sui_cursor_"]
                    .iter()
                    .any(|own| name.starts_with(own))
            };
            let absent: Vec<_> = watched
                .iter()
                .filter(|name| node.id == leader.id || !of_leader(name))
                .filter(|name| !metrics.has_sample(name))
                .collect();
            if !absent.is_empty() {
                return Err(format!("node {}: {absent:?}", node.id));
            }
            everyone.push(metrics);
        }
        Ok(everyone)
    });
    for (name, family) in everyone.iter().flat_map(|metrics| &metrics.families) {
        assert!(family.help.is_some(), "{name} has no HELP");
        let kind = family.kind.unwrap_or_else(|| panic!("{name} has no TYPE"));
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        // The scheduler's names are kube-scheduler's; two of its histograms count.
        let counts = name.starts_with("scheduler_") && !name.contains("duration");
        if (kind == Kind::Histogram && !counts) || name.contains("duration") {
            assert!(name.ends_with("_seconds"), "{name}");
        }
    }
}

#[test]
fn a_log_in_json_is_an_object_on_every_line() {
    let quorum = Quorum::start_with(&[("NAUTILUS_LOG_FORMAT", "json")]);
    let leader = quorum.leader();
    quorum.kill(&leader);
    quorum.kubectl_ok(&["create", "configmap", "after-a-leaders-death"]);
    quorum.up();
    for node in quorum.nodes() {
        let path = quorum.dir().join(format!("node-{}/log", node.id));
        let log = std::fs::read_to_string(&path).expect("a log");
        // What comes after the last newline is still being written.
        let (lines, _) = log.rsplit_once('\n').expect("a line");
        assert!(lines.lines().count() > 1, "{lines}");
        assert_events(lines);
    }
}

#[test]
fn a_node_that_fails_says_so_in_json_too() {
    let quorum = Quorum::start();
    // Its data directory is in use.
    let second = std::process::Command::new(Quorum::binary())
        .args(["node", "--config"])
        .arg(quorum.dir().join("node-1/config.toml"))
        .env("NAUTILUS_LOG_FORMAT", "json")
        .output()
        .expect("the node's end");
    assert!(!second.status.success());
    let log = String::from_utf8(second.stderr).expect("UTF-8");
    assert!(log.contains(r#""level":"ERROR""#), "{log}");
    assert_events(&log);
}

/// Every line is an object with when, how bad and from where, none of them twice.
fn assert_events(lines: &str) {
    for line in lines.lines() {
        let Ok(Value::Object(event)) = serde_json::from_str(line) else {
            panic!("not a JSON object: {line}");
        };
        for key in ["timestamp", "level", "target"] {
            let value = event.get(key);
            assert!(value.is_some_and(Value::is_string), "{key} of {line}");
            let times = line.matches(&format!("\"{key}\":")).count();
            assert_eq!(times, 1, "{key} in {line}");
        }
    }
}

#[test]
fn a_quorum_writes_and_stops_in_order_while_its_collector_is_gone() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", gone.local_addr().expect("its address"));
    drop(gone);
    let quorum = Quorum::start_with(&[("NAUTILUS_OTLP_ENDPOINT", &endpoint), EXPORT_OFTEN]);
    writes_and_stops_in_order(&quorum);
}

#[test]
fn a_quorum_writes_and_stops_in_order_while_its_collector_never_answers() {
    // The kernel takes connections, nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("its address"));
    let quorum = Quorum::start_with(&[("NAUTILUS_OTLP_ENDPOINT", &endpoint), EXPORT_OFTEN]);
    writes_and_stops_in_order(&quorum);
}

fn writes_and_stops_in_order(quorum: &Quorum) {
    let before = quorum.nodes();
    for round in 0..20 {
        let node = before[round % before.len()].id;
        quorum.kubectl_on(node, &["create", "configmap", &format!("untraced-{round}")]);
    }
    let pids = |nodes: &[NodeStatus]| nodes.iter().map(|node| node.pid).collect::<Vec<_>>();
    assert_eq!(pids(&before), pids(&quorum.nodes()), "nobody died");
    let stopped = quorum.nautilus(&["down"]);
    assert!(stopped.status.success(), "{stopped:?}");
    for node in before {
        let path = quorum.dir().join(format!("node-{}/log", node.id));
        let log = std::fs::read_to_string(&path).expect("a log");
        assert!(
            log.contains("stopped"),
            "node {} was cut off: {log}",
            node.id
        );
    }
}
