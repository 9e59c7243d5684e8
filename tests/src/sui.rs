//! The stand-in for a full node of Sui, as a process: `sui-standin`, steered by its admin face.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::Quorum;

/// A running `sui-standin`; it ends when this is dropped.
pub struct SuiStandin {
    child: Child,
    addresses: Value,
}

impl SuiStandin {
    /// Starts it on ports of the system's choice.
    ///
    /// # Panics
    /// When it was not built, or says nothing.
    pub fn start() -> Self {
        let mut child = Command::new(program())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sui-standin runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let addresses = serde_json::from_str(&line).expect("its addresses");
        Self { child, addresses }
    }

    /// The URL of its face `grpc`, `jsonrpc` or `admin`.
    ///
    /// # Panics
    /// When there is no such face.
    pub fn url(&self, face: &str) -> String {
        format!("http://{}", self.address(face))
    }

    /// Does an operation, or several in one checkpoint; the receipts.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply(&self, operations: &Value) -> Value {
        self.admin("POST", "/apply", operations)
    }

    /// Lets a face misbehave, or behave again.
    ///
    /// # Panics
    /// When there is no such face or fault.
    pub fn set_faults(&self, face: &str, faults: &Value) {
        self.admin("PUT", &format!("/faults/{face}"), faults);
    }

    /// How often each method of a face was asked for.
    ///
    /// # Panics
    /// When there is no such face.
    pub fn requests(&self, face: &str) -> Value {
        self.admin("GET", &format!("/requests/{face}"), &Value::Null)
    }

    /// The chain's ids, height, epoch and committee.
    pub fn state(&self) -> Value {
        self.admin("GET", "/state", &Value::Null)
    }

    fn address(&self, face: &str) -> &str {
        self.addresses[face].as_str().expect("a face")
    }

    fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let at = self.address("admin");
        let body = body.to_string();
        let mut stream = TcpStream::connect(at).expect("the admin face");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with("HTTP/1.1 200"),
            "{method} {path}: {answer}"
        );
        serde_json::from_str(body).expect("JSON")
    }
}

impl Drop for SuiStandin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Beside the binary under test, where `make test` builds it.
fn program() -> PathBuf {
    let path = Quorum::binary().with_file_name("sui-standin");
    assert!(
        path.is_file(),
        "{} is missing: cargo build --release --workspace --bins",
        path.display()
    );
    path
}
