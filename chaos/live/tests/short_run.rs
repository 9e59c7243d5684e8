//! A short run as a test; `make soak` is the long one.

use std::process::Command;

#[test]
fn kills_and_partitions_break_no_promise() {
    let run = env!("CARGO_BIN_EXE_nautilus-chaos-live");
    let output = Command::new(run)
        .args(["--seconds", "30"])
        .output()
        .expect("the chaos run (needs root and iproute2)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("every promise kept"),
        "{said}"
    );
}
