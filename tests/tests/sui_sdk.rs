//! Sui's own TypeScript SDK, unmodified, reads the stand-in for a full node by both faces
//! (`tests/e2e/javascript/sui.mjs`): what we test against is the chain's form, not ours.

use std::process::Command;

use nautilus_tests::{SuiStandin, program};
use serde_json::json;

/// What the program reads.
const PARTS: [&str; 6] = [
    "objects",
    "dynamicFields",
    "transactions",
    "events",
    "checkpoints",
    "ok",
];

#[test]
fn suis_sdk_reads_the_stand_in_by_both_faces() {
    let standin = SuiStandin::start();
    let owner = format!("0x{:0>64}", "a11ce");
    let worker = |node_id: &str| {
        json!({
            "operation": "register_worker",
            "node_id": node_id,
            "owner": owner,
            "stake": 2_000_000_000_u64,
            "seal_token": "seal",
        })
    };
    standin.apply(&json!([worker("w1"), worker("w2")]));
    let issued = standin.apply(&json!({
        "operation": "issue_token",
        "owner": owner,
        "stake": 2_000_000_000_u64,
        "expires_at_ms": 4_102_444_800_000_u64,
    }));
    let slashed = standin.apply(&json!({
        "operation": "set_status",
        "node_id": "w1",
        "status": "slashed",
    }));
    let state = standin.state();
    let facts = json!({
        "package": state["package"],
        "registry": state["registry"],
        "table": state["workers_table"],
        "token": issued[0]["created"][0],
        "owner": owner,
        "slashed": slashed[0]["tx_digest"],
    });
    let output = Command::new("node")
        .arg(program("javascript/sui.mjs"))
        .args([
            standin.url("grpc"),
            standin.url("jsonrpc"),
            facts.to_string(),
        ])
        .output()
        .expect("node");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), PARTS, "{complaint}");
    assert!(output.status.success());
}
