//! Python's etcd3 client against a quorum.

use std::path::Path;

use nautilus_tests::{Quorum, Streamed};

#[test]
fn pythons_client_reads_writes_watches_leases_and_locks() {
    let quorum = Quorum::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/python/etcd_client.py");
    let script = script.display().to_string();
    let mut command = quorum.etcdctl().client("python/bin/python", &[&script]);
    // etcd3's generated code is older than protobuf's compiled form.
    command.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
    let mut client = Streamed::start(command);
    let last = client.wait_for("its verdict", |line| {
        line == "ok" || line.starts_with("failed")
    });
    assert_eq!(last, "ok");
    assert!(client.join().success());
}
