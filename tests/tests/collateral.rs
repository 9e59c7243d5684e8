//! Vendors' endorsements: imported, replicated, refreshed by the leader, exported.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use nautilus_tests::{Quorum, eventually};
use serde_json::Value;

/// A genuine endorsement.
fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../attest/tee/fixtures")
        .join(path)
}

/// Of April 2025, and of February 2026.
const OLD_LIST: &str = "intel/tdx-v4/endorsements/intel/crl/root";
const NEW_LIST: &str = "intel/tdx-v5-extended/endorsements/intel/crl/root";

/// A service that has the newer list, in hex, under the path that caches in front of
/// Intel's service have.
fn stand_in() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let list = std::fs::read(fixture(NEW_LIST)).expect("the fixture");
    let body: String = list.iter().map(|byte| format!("{byte:02x}")).collect();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let known = head.starts_with(b"GET /sgx/certification/v4/rootcacrl ");
            let (code, body) = if known {
                ("200 OK", body.as_str())
            } else {
                ("404 Not Found", "")
            };
            let _ = write!(
                connection,
                "HTTP/1.1 {code}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}

fn collateral(quorum: &Quorum, arguments: &[&str]) -> Output {
    quorum.nautilus(&[&["attest", "collateral"], arguments].concat())
}

fn listed(quorum: &Quorum, name: &str) -> Option<Value> {
    let output = collateral(quorum, &["list", "--output", "json"]);
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = list["endorsements"].as_array().expect("a list").clone();
    rows.into_iter().find(|row| row["name"] == name)
}

#[test]
fn an_ended_list_is_refreshed_by_the_leader_and_never_replaced_by_an_older_one() {
    let source = stand_in();
    let quorum = Quorum::start_with(&[(
        "NAUTILUS_ATTESTATION_ENDORSEMENTS_INTEL_PCS",
        source.as_str(),
    )]);
    let file = |path: &str| fixture(path).to_str().expect("UTF-8").to_owned();
    let output = collateral(&quorum, &["import", &file(OLD_LIST)]);
    assert!(output.status.success(), "{output:?}");
    let row = eventually("the newer list", || {
        let row = listed(&quorum, "intel/crl/root").ok_or("no row")?;
        match row["expires_at"].as_str() {
            Some("2027-02-26T13:04:00Z") => Ok(row),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(row["signature_checked"], true);
    assert!(
        row["source"]
            .as_str()
            .is_some_and(|url| url.starts_with(&source))
    );

    let output = collateral(&quorum, &["import", &file(OLD_LIST)]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is older than"), "{said}");

    // What is no endorsement is not sent at all.
    let output = collateral(&quorum, &["import", &file("README.md")]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");

    let folder = quorum.dir().join("exported");
    let shown = folder.to_str().expect("UTF-8");
    let output = collateral(&quorum, &["export", shown]);
    assert!(output.status.success(), "{output:?}");
    let exported = std::fs::read(folder.join("intel/crl/root")).expect("exported");
    assert_eq!(
        exported,
        std::fs::read(fixture(NEW_LIST)).expect("the fixture")
    );
}
