//! `nautilus status`: every node as it sees itself.
//!
//! The JSON form is relied on by scripts: see [`QuorumStatus`].

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Global, Output, print};
use crate::client::{ApiClient, RequestError, StatusAnswer};
use crate::exit::Failure;
use crate::kubeconfig::Kubeconfig;
use crate::up::layout::{Layout, Quorum};
use crate::up::process;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  nautilus status
  nautilus status --dir q --output json
  nautilus status --kubeconfig admin.kubeconfig      a quorum elsewhere";

/// For one node to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// Characters of a measurement in the table.
const MEASUREMENT_SHORT: usize = 12;

/// `nautilus status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The form of the answer
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// The JSON form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct QuorumStatus {
    /// The quorum's name.
    pub(crate) cluster: String,
    /// The nodes, by id.
    pub(crate) nodes: Vec<NodeRow>,
}

/// One node. What an unreachable node would say is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeRow {
    /// Its id.
    pub(crate) id: u64,
    /// `leader`, `follower`, `candidate`, `learner` or `unreachable`.
    pub(crate) role: String,
    /// Its term.
    pub(crate) term: Option<u64>,
    /// Index of its last log entry.
    pub(crate) last_log: Option<u64>,
    /// Index of its last applied entry.
    pub(crate) applied: Option<u64>,
    /// Its process, on this machine.
    pub(crate) pid: Option<u32>,
    /// `https://host:port` of its API.
    pub(crate) api: String,
    /// Hex of its measurement.
    pub(crate) measurement: Option<String>,
    /// Its TEE.
    pub(crate) tee: Option<String>,
}

impl NodeRow {
    fn new(id: u64, api: String, pid: Option<u32>, answer: Option<StatusAnswer>) -> Self {
        match answer {
            Some(answer) => Self {
                id,
                term: Some(answer.node.term),
                last_log: Some(answer.last_log().index),
                applied: Some(answer.node.applied.index),
                role: answer.node.role,
                pid,
                api,
                measurement: answer.measurement,
                tee: answer.tee,
            },
            None => Self {
                id,
                role: "unreachable".to_owned(),
                term: None,
                last_log: None,
                applied: None,
                pid,
                api,
                measurement: None,
                tee: None,
            },
        }
    }
}

impl QuorumStatus {
    /// The table for people.
    pub(crate) fn to_table(&self) -> String {
        let show = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let rows = self.nodes.iter().map(|node| {
            let log = match (node.term, node.last_log) {
                (Some(term), Some(index)) => format!("{term}-{index}"),
                _ => "-".to_owned(),
            };
            let measurement = node.measurement.as_deref().map_or("-", |measurement| {
                measurement.get(..MEASUREMENT_SHORT).unwrap_or(measurement)
            });
            vec![
                node.id.to_string(),
                node.role.clone(),
                show(node.term),
                log,
                show(node.applied),
                measurement.to_owned(),
                node.tee.clone().unwrap_or_else(|| "-".to_owned()),
                show(node.pid.map(u64::from)),
                node.api.clone(),
            ]
        });
        table(
            &[
                "NODE",
                "ROLE",
                "TERM",
                "LOG",
                "APPLIED",
                "MEASUREMENT",
                "TEE",
                "PID",
                "API",
            ],
            rows,
        )
    }
}

/// Shows every node; fails when none answers.
pub(super) async fn run(global: &Global, arguments: StatusArgs) -> anyhow::Result<()> {
    let status = if global.names_a_quorum() {
        remote(global).await?
    } else {
        let layout = global.layout()?;
        let quorum = layout.existing()?;
        local(&layout, &quorum).await
    };
    match arguments.output {
        Output::Json => print(&serde_json::to_string(&status)?),
        Output::Table => print(&status.to_table()),
    }
    if status.nodes.iter().all(|node| node.role == "unreachable") {
        return Err(Failure::Unavailable.error(
            "no node answers; start the quorum with `nautilus up`, or read DIR/node-N/log",
        ));
    }
    Ok(())
}

/// The nodes of a folder.
pub(crate) async fn local(layout: &Layout, quorum: &Quorum) -> QuorumStatus {
    let kubeconfig = Kubeconfig::read(&layout.kubeconfig()).ok();
    let nodes = quorum.nodes.iter().map(|node| {
        let kubeconfig = kubeconfig.as_ref();
        async move {
            let pid = process::running(&layout.node(node.id));
            let answer = ask(&node.server(), kubeconfig).await;
            NodeRow::new(node.id, node.server(), pid, answer)
        }
    });
    QuorumStatus {
        cluster: quorum.cluster_id.clone(),
        nodes: futures_util::future::join_all(nodes).await,
    }
}

/// The nodes of a quorum elsewhere, by its own membership.
async fn remote(global: &Global) -> anyhow::Result<QuorumStatus> {
    let kubeconfig = Kubeconfig::read(&global.kubeconfig_path()?)?;
    let client = global.client()?;
    let members = client.members().await.map_err(RequestError::into_failure)?;
    let about = client
        .cluster_name()
        .await
        .map_err(RequestError::into_failure)?;
    let nodes = members.iter().map(|member| {
        let server = as_server(&member.api_address);
        let kubeconfig = Some(&kubeconfig);
        async move {
            let answer = ask(&server, kubeconfig).await;
            NodeRow::new(member.id, server, None, answer)
        }
    });
    Ok(QuorumStatus {
        cluster: about,
        nodes: futures_util::future::join_all(nodes).await,
    })
}

pub(crate) fn as_server(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else {
        format!("https://{address}")
    }
}

pub(crate) async fn ask(server: &str, kubeconfig: Option<&Kubeconfig>) -> Option<StatusAnswer> {
    let client = ApiClient::new(server, kubeconfig?).ok()?;
    client.status(NODE_TIMEOUT).await.ok()
}

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use nautilus_machine::{LogPosition, NodeStatus};

    use super::*;

    fn sample() -> QuorumStatus {
        let answer = StatusAnswer {
            node: NodeStatus {
                id: 1,
                role: "leader".into(),
                term: 3,
                last_log: LogPosition { term: 3, index: 42 },
                applied: LogPosition { term: 3, index: 41 },
                revision: 7,
                checkpoint: None,
                digest: String::new(),
            },
            measurement: Some("abcdef0123456789".into()),
            tee: Some("simulated".into()),
        };
        QuorumStatus {
            cluster: "q".into(),
            nodes: vec![
                NodeRow::new(1, "https://127.0.0.1:7001".into(), Some(99), Some(answer)),
                NodeRow::new(2, "https://127.0.0.1:7002".into(), None, None),
            ],
        }
    }

    #[test]
    fn the_json_form_has_exactly_the_agreed_fields() {
        let json = serde_json::to_string_pretty(&sample()).expect("plain data");
        expect![[r#"
            {
              "cluster": "q",
              "nodes": [
                {
                  "id": 1,
                  "role": "leader",
                  "term": 3,
                  "last_log": 42,
                  "applied": 41,
                  "pid": 99,
                  "api": "https://127.0.0.1:7001",
                  "measurement": "abcdef0123456789",
                  "tee": "simulated"
                },
                {
                  "id": 2,
                  "role": "unreachable",
                  "term": null,
                  "last_log": null,
                  "applied": null,
                  "pid": null,
                  "api": "https://127.0.0.1:7002",
                  "measurement": null,
                  "tee": null
                }
              ]
            }"#]]
        .assert_eq(&json);
    }

    #[test]
    fn the_table_is_aligned() {
        expect![[r#"
            NODE  ROLE         TERM  LOG   APPLIED  MEASUREMENT   TEE        PID  API
            1     leader       3     3-42  41       abcdef012345  simulated  99   https://127.0.0.1:7001
            2     unreachable  -     -     -        -             -          -    https://127.0.0.1:7002
        "#]]
        .assert_eq(&sample().to_table());
    }
}
