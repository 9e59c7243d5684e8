//! From a real etcd and back: import into a running quorum and into an archive, export
//! for etcdutl.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nautilus_tests::{Quorum, eventually, program};
use serde_json::Value;

/// An etcd with certificates of its own; dropped, it is killed.
struct Etcd {
    folder: tempfile::TempDir,
    address: String,
    process: Child,
}

impl Etcd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        certificates(folder.path());
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("its address")
        };
        let (address, peer) = (format!("https://{}", free()), format!("http://{}", free()));
        let path = |name: &str| folder.path().join(name);
        let process = Command::new(program("etcd"))
            .arg("--data-dir")
            .arg(path("data"))
            .args(["--listen-client-urls", &address])
            .args(["--advertise-client-urls", &address])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .arg("--client-cert-auth")
            .arg("--trusted-ca-file")
            .arg(path("ca.crt"))
            .arg("--cert-file")
            .arg(path("server.crt"))
            .arg("--key-file")
            .arg(path("server.key"))
            .args(["--log-level", "error"])
            .stdout(Stdio::null())
            .spawn()
            .expect("etcd");
        let etcd = Self {
            folder,
            address,
            process,
        };
        eventually("etcd", || {
            let output = etcd.run(&["endpoint", "health"]);
            if output.status.success() {
                Ok(())
            } else {
                Err(format!("{output:?}"))
            }
        });
        etcd
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name)).to_owned()
    }

    /// The flags that name it, for etcdctl and for ours.
    fn flags(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.path(name));
        vec![
            format!("--endpoints={}", self.address),
            file("cacert", "ca.crt"),
            file("cert", "client.crt"),
            file("key", "client.key"),
        ]
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(program("etcdctl"))
            .args(self.flags())
            .args(arguments)
            .output()
            .expect("etcdctl")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        accepted(&self.run(arguments))
    }

    /// Some history: overwritten, deleted, leased.
    fn fill(&self) {
        let lease = self.ok(&["lease", "grant", "3600"]);
        let lease = lease.split_whitespace().nth(1).expect("an id").to_owned();
        self.ok(&["put", "leased", "for an hour", "--lease", &lease]);
        let puts: String = (0..200)
            .map(|n| format!("put many/{n:04} {}\n", n * n))
            .collect();
        for _ in 0..2 {
            for batch in puts.lines().collect::<Vec<_>>().chunks(100) {
                self.transaction(&batch.join("\n"));
            }
        }
        self.ok(&["put", "deleted", "soon"]);
        self.ok(&["del", "deleted"]);
        self.ok(&["put", "large", &"x".repeat(100_000)]);
        self.ok(&["put", "last", "one"]);
    }

    fn transaction(&self, puts: &str) {
        use std::io::Write as _;
        let mut child = Command::new(program("etcdctl"))
            .args(self.flags())
            .arg("txn")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("etcdctl");
        let mut input = child.stdin.take().expect("piped");
        write!(input, "\n{puts}\n\n\n").expect("written");
        drop(input);
        assert!(child.wait().expect("etcdctl's end").success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect(name);
    let key = || rcgen::KeyPair::generate().expect("a key");
    let authority_key = key();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).expect("an authority");
    write("ca.crt", certificate.pem());
    let issuer = rcgen::Issuer::new(authority, authority_key);
    for name in ["server", "client"] {
        let key = key();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut leaf = rcgen::CertificateParams::new(names).expect("names");
        leaf.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
        write(&format!("{name}.crt"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn accepted(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&accepted(output)).expect("JSON")
}

/// etcdctl on a quorum's etcd face.
fn on_face(dir: &Path, arguments: &str) -> String {
    let script = format!(
        ". {}/etcd/etcdctl.env && {} {arguments}",
        text(dir),
        text(&etcdctl())
    );
    accepted(
        &Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("sh"),
    )
}

fn etcdctl() -> PathBuf {
    program("etcdctl")
}

#[test]
fn an_etcd_is_imported_resumed_and_verified() {
    let (etcd, quorum) = (Etcd::start(), Quorum::start());
    etcd.fill();
    let import = |more: &[&str]| {
        let flags = etcd.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        quorum.nautilus(&[&["import", "etcd", "--output", "json"], &flags[..], more].concat())
    };
    let imported = json(&import(&[]));
    assert_eq!(imported["equal"], true);
    assert_eq!(imported["copied"]["written"], 203);
    assert_eq!(imported["copied"]["leases_granted"], 1);
    let leases = on_face(quorum.dir(), "lease list");
    assert!(leases.contains("found 1 leases"), "{leases}");

    // Again: only what differs.
    etcd.ok(&["put", "last", "but one"]);
    let again = json(&import(&[]));
    assert_eq!(again["copied"]["written"], 1);
    assert_eq!(again["equal"], true);

    // What the quorum holds beside them is told.
    on_face(quorum.dir(), "put another key");
    let differing = import(&[]);
    assert_eq!(differing.status.code(), Some(1), "{differing:?}");

    // And out again, in etcd's own form.
    let out = etcd.path("out.db");
    accepted(&quorum.nautilus(&["export", "--format", "etcd", &out]));
    let mut etcdutl = Command::new(program("etcdutl"));
    let status = etcdutl
        .args(["snapshot", "status", "-w", "json", &out])
        .output();
    let status = json(&status.expect("etcdutl"));
    assert_eq!(status["totalKey"], 204);
}

#[test]
fn an_etcd_snapshot_becomes_an_archive_that_keeps_its_revisions() {
    // One quorum at a time.
    let _alone = Quorum::prepare();
    let etcd = Etcd::start();
    etcd.fill();
    let (snapshot, archive, key) = (etcd.path("s.db"), etcd.path("s"), etcd.path("backup.key"));
    etcd.ok(&["snapshot", "save", &snapshot]);
    let nautilus = |arguments: &[&str]| {
        let mut command = Command::new(Quorum::binary());
        command.args(arguments).output().expect("nautilus")
    };
    let recipient = accepted(&nautilus(&["snapshot", "keygen", &key]));
    let made = json(&nautilus(&[
        "import",
        "etcd",
        "--snapshot",
        &snapshot,
        "--to",
        &archive,
        "--recipient",
        recipient.trim(),
        "--output",
        "json",
    ]));
    assert_eq!(made["keys"], 203);
    let revisions = |get: &str| {
        let mut get: Value = serde_json::from_str(get).expect("JSON");
        let mut kv = get["kvs"][0].take();
        kv["lease"] = Value::Null;
        (kv, get["header"]["revision"].clone())
    };
    let (kept, revision) = revisions(&etcd.ok(&["get", "many/0042", "-w", "json"]));

    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("q");
    let restored = nautilus(&[
        "snapshot",
        "restore",
        &archive,
        "--identity",
        &key,
        "--nodes",
        "1",
        "--dir",
        text(&dir),
    ]);
    let found = std::panic::catch_unwind(|| {
        accepted(&restored);
        revisions(&on_face(&dir, "get many/0042 -w json"))
    });
    let log = std::fs::read_to_string(dir.join("node-1").join("log")).unwrap_or_default();
    nautilus(&["down", "--purge", "--dir", text(&dir)]);
    let (found, at) = found.unwrap_or_else(|_| panic!("{log}"));
    assert_eq!(found, kept);
    assert!(at.as_u64() >= revision.as_u64(), "{at} after {revision}");
}
