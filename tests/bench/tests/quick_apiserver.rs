//! The quick form of the comparison with kube-apiserver, on both sides: every row gets a
//! number, so that the bench can't rot between the runs whose numbers count.

use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn every_row_gets_a_number_of_both_sides() {
    let bench = env!("CARGO_BIN_EXE_nautilus-bench-apiserver");
    let output = Command::new(bench)
        .args(["--quick", "--pairs", "1"])
        .env(
            "NAUTILUS_BIN",
            beside_the_test("NAUTILUS_BIN", 2, "nautilus"),
        )
        .env(
            "NAUTILUS_E2E_BIN",
            beside_the_test("NAUTILUS_E2E_BIN", 3, "e2e"),
        )
        .stdin(Stdio::null())
        .output()
        .expect("the bench runs");
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    let rows = report["rows"].as_array().expect("rows");
    for row in nautilus_bench_etcd::api::rows::ROWS {
        let found = rows.iter().find(|found| found["what"] == row.what);
        let found = found.unwrap_or_else(|| panic!("no row {}", row.what));
        for side in ["ours", "peer"] {
            let number = found[side].as_f64().unwrap_or(f64::NAN);
            assert!(number > 0.0, "{side} in {found}\n{progress}");
        }
    }
}

/// What `variable` names, or `name` among the ancestors of this test's own file.
fn beside_the_test(variable: &str, ancestor: usize, name: &str) -> PathBuf {
    let beside = || {
        let exe = std::env::current_exe().expect("the test's own path");
        let folder = exe.ancestors().nth(ancestor).expect("a target directory");
        folder.join(name)
    };
    std::env::var_os(variable).map_or_else(beside, PathBuf::from)
}
