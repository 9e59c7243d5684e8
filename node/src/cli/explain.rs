//! `nautilus explain pod`: the scheduler's decision for a pod, node by node.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::status::table;
use super::{Global, Output, print};
use crate::client::{ApiClient, RequestError};
use crate::exit::Failure;
use crate::kubeconfig::Kubeconfig;

pub(super) const EXAMPLES: &str = "\
Examples:
  nautilus explain pod default/web-0
  nautilus explain pod web-0 --output json";

/// For the leader to be known.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// `nautilus explain`.
#[derive(Args)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    what: Explained,
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Subcommand)]
enum Explained {
    /// Why a pod goes where it goes, or nowhere
    #[command(after_help = EXAMPLES)]
    Pod {
        /// Namespace and name, or a name in `default`
        #[arg(value_name = "NAMESPACE/NAME")]
        pod: String,
    },
}

/// Asks the leader.
pub(super) async fn run(global: &Global, arguments: ExplainArgs) -> anyhow::Result<()> {
    let Explained::Pod { pod } = &arguments.what;
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    let is_name = |text: &str| {
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        !text.is_empty() && text.bytes().all(is_label)
    };
    if !is_name(namespace) || !is_name(name) {
        return Err(Failure::Usage.error(format!("{pod:?} names no pod: write NAMESPACE/NAME")));
    }
    let path = format!("/nautilus/v1/scheduler/explain?namespace={namespace}&pod={name}");
    let leader = leader(global).await?;
    let answer = leader.get(&path, None).await;
    let document: Value = answer.map_err(RequestError::into_failure)?;
    match arguments.output {
        Output::Json => print(&serde_json::to_string(&document)?),
        Output::Table => print(&to_table(&document)),
    }
    Ok(())
}

/// A client of the leader: the scheduler runs there alone.
async fn leader(global: &Global) -> anyhow::Result<ApiClient> {
    let any = global.client()?;
    let answer = any.get("/nautilus/v1/leader", Some(LEADER_TIMEOUT)).await;
    let leader: Value = answer.map_err(RequestError::into_failure)?;
    let address = leader["address"].as_str().context("no node leads")?;
    let kubeconfig = Kubeconfig::read(&global.kubeconfig_path()?)?;
    let server = match address.contains("://") {
        true => address.to_owned(),
        false => format!("https://{address}"),
    };
    ApiClient::new(&server, &kubeconfig)
}

fn to_table(document: &Value) -> String {
    let text = |field: &str| document[field].as_str().unwrap_or("-");
    let mut out = format!(
        "{}/{} ({}): {}\n",
        text("namespace"),
        text("name"),
        text("schedulerName"),
        text("state")
    );
    for (label, field) in [
        ("node", "node"),
        ("nominated node", "nominatedNode"),
        ("best node now", "best"),
        ("message", "message"),
    ] {
        if let Some(value) = document[field].as_str() {
            let _ = writeln!(out, "{label}: {value}");
        }
    }
    let rejected = list(&document["rejectedBy"]);
    if !rejected.is_empty() {
        let _ = writeln!(out, "waits for what may help with: {rejected}");
    }
    let nodes = document["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = nodes.iter().map(|node| {
        let scores = node["scores"].as_object().into_iter().flatten();
        let scores: Vec<String> = scores
            .map(|(plugin, own)| format!("{plugin} {}x{}", own["score"], own["weight"]))
            .collect();
        let (fits, why) = match node["fits"] == true {
            true => (node["total"].to_string(), scores.join(", ")),
            false => (
                "no".to_owned(),
                format!(
                    "{}: {}",
                    node["plugin"].as_str().unwrap_or("-"),
                    list(&node["reasons"])
                ),
            ),
        };
        vec![node["node"].as_str().unwrap_or("-").to_owned(), fits, why]
    });
    out.push('\n');
    out.push_str(&table(&["NODE", "SCORE", "WHY"], rows));
    out
}

fn list(texts: &Value) -> String {
    let texts = texts.as_array().into_iter().flatten();
    let texts: Vec<&str> = texts.filter_map(Value::as_str).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_shows_scores_and_reasons() {
        let text = to_table(&json!({
            "namespace": "n", "name": "a", "schedulerName": "default-scheduler",
            "state": "Unschedulable", "node": null, "rejectedBy": ["NodeResourcesFit"],
            "nodes": [
                {"node": "b", "fits": true, "total": 7,
                    "scores": {"ImageLocality": {"score": 7, "weight": 1}}},
                {"node": "c", "fits": false, "plugin": "NodeResourcesFit",
                    "reasons": ["Insufficient cpu"]},
            ],
        }));
        for expected in [
            "n/a (default-scheduler): Unschedulable",
            "may help with: NodeResourcesFit",
            "ImageLocality 7x1",
            "NodeResourcesFit: Insufficient cpu",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
    }
}
