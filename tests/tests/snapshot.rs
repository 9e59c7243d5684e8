//! Snapshots by the CLI: taken from a running quorum, examined, restored into a new one.

use std::path::Path;
use std::process::{Command, Output};

use nautilus_tests::{Quorum, eventually};
use serde_json::Value;

/// The CLI, without a quorum's folder.
fn nautilus(arguments: &[&str]) -> Output {
    let mut command = Command::new(Quorum::binary());
    command.args(arguments).output().expect("nautilus runs")
}

fn accepted(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&accepted(output)).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A second quorum in a folder of its own; dropped, it is stopped and removed.
struct Second(tempfile::TempDir);

impl Second {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn dir(&self) -> String {
        text(self.0.path()).to_owned() + "/q"
    }

    fn kubectl(&self, quorum: &Quorum, arguments: &[&str]) -> String {
        let mut command = quorum.kubectl_command(arguments);
        // The later of the two counts.
        command.arg("--kubeconfig").arg(self.dir() + "/kubeconfig");
        accepted(&command.output().expect("kubectl"))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let log = std::fs::read_to_string(self.dir() + "/node-1/log").unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("--- the second quorum\n{log}");
        }
        nautilus(&["down", "--purge", "--dir", &self.dir()]);
    }
}

#[test]
fn a_snapshot_is_sealed_verified_and_restored_into_a_quorum_of_another_identity() {
    let quorum = Quorum::start();
    let planted = "planted-7d1f-in-plain-words";
    quorum.kubectl_ok(&["create", "namespace", "kept"]);
    let literal = format!("--from-literal=secret={planted}");
    quorum.kubectl_ok(&["-n", "kept", "create", "configmap", "before", &literal]);
    let folder = tempfile::tempdir().expect("a folder");
    let (key, file) = (folder.path().join("backup.key"), folder.path().join("s"));
    let recipient = accepted(&nautilus(&["snapshot", "keygen", text(&key)]));
    let recipient = recipient.trim();
    let saved = json(&quorum.nautilus(&[
        "snapshot",
        "save",
        text(&file),
        "--recipient",
        recipient,
        "--output",
        "json",
    ]));
    assert_eq!(saved["recipients"][0], recipient);
    quorum.kubectl_ok(&["-n", "kept", "create", "configmap", "after"]);

    // Ciphertext only, and whole.
    let bytes = std::fs::read(&file).expect("the snapshot");
    assert!(
        !bytes
            .windows(planted.len())
            .any(|window| window == planted.as_bytes())
    );
    let status = |arguments: &[&str]| nautilus(&[&["snapshot", "status"], arguments].concat());
    let shown = json(&status(&[
        text(&file),
        "--output",
        "json",
        "--identity",
        text(&key),
    ]));
    assert_eq!(shown["revision"], saved["revision"]);
    assert_eq!(shown["hash"].as_str().expect("a hash").len(), 64);
    let signer = saved["signer"].as_str().expect("a signer");

    // Whoever changes it is found out without a key.
    let changed = folder.path().join("changed");
    let mut other = bytes;
    let middle = other.len() / 2;
    other[middle] ^= 1;
    std::fs::write(&changed, other).expect("written");
    assert_eq!(status(&[text(&changed)]).status.code(), Some(4));

    let second = Second::new();
    let restored = nautilus(&[
        "snapshot",
        "restore",
        text(&file),
        "--identity",
        text(&key),
        "--signer",
        signer,
        "--nodes",
        "1",
        "--dir",
        &second.dir(),
    ]);
    accepted(&restored);
    let kept = second.kubectl(
        &quorum,
        &[
            "-n",
            "kept",
            "get",
            "configmap",
            "before",
            "-o",
            "jsonpath={.data.secret}",
        ],
    );
    assert_eq!(kept, planted);
    let names = second.kubectl(&quorum, &["-n", "kept", "get", "configmaps", "-o", "name"]);
    assert!(!names.contains("configmap/after"), "{names}");
    let authority = |dir: &str| std::fs::read(format!("{dir}/ca.crt")).expect("an authority");
    assert_ne!(authority(text(quorum.dir())), authority(&second.dir()));

    // Once founded, it is an ordinary quorum: restarting restores nothing.
    second.kubectl(&quorum, &["-n", "kept", "create", "configmap", "new-life"]);
    accepted(&nautilus(&["down", "--dir", &second.dir()]));
    accepted(&nautilus(&["up", "--detach", "--dir", &second.dir()]));
    second.kubectl(&quorum, &["-n", "kept", "get", "configmap", "new-life"]);
}

#[test]
fn a_snapshot_that_is_not_for_us_founds_nothing() {
    let quorum = Quorum::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let recipient = accepted(&nautilus(&["snapshot", "keygen", text(&path("ours"))]));
    accepted(&nautilus(&["snapshot", "keygen", text(&path("theirs"))]));
    let file = path("s");
    accepted(&quorum.nautilus(&[
        "snapshot",
        "save",
        text(&file),
        "--recipient",
        recipient.trim(),
    ]));
    let second = Second::new();
    let dir = second.dir();
    let refused = nautilus(&[
        "up",
        "--detach",
        "--nodes",
        "1",
        "--dir",
        &dir,
        "--restore",
        text(&file),
        "--identity",
        text(&path("theirs")),
    ]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("sealed to"), "{said}");
    assert!(
        !Path::new(&dir).join("quorum.json").exists(),
        "nothing was made"
    );
}

#[test]
fn the_leader_makes_snapshots_on_a_schedule() {
    let folder = tempfile::tempdir().expect("a folder");
    let quorum = Quorum::start_with(&[
        ("NAUTILUS_BACKUP_DESTINATION", text(folder.path())),
        ("NAUTILUS_BACKUP_INTERVAL", "1s"),
        ("NAUTILUS_BACKUP_KEEP", "2"),
    ]);
    let archives = || {
        let files = std::fs::read_dir(folder.path()).expect("the folder");
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| name.ends_with("-archive")).collect();
        names.sort();
        names
    };
    let first = eventually("a snapshot", || {
        archives().first().cloned().ok_or_else(|| "none".to_owned())
    });
    eventually("its removal", || match archives() {
        now if !now.is_empty() && !now.contains(&first) => Ok(()),
        now => Err(format!("{now:?}")),
    });
    let leader = quorum.leader();
    let metrics = quorum.kubectl_on(leader.id, &["get", "--raw", "/metrics"]);
    assert!(
        metrics.contains("nautilus_backup_last_success_timestamp_seconds"),
        "{metrics}"
    );
    let newest = eventually("a snapshot at rest", || {
        let name = archives().pop().ok_or("none")?;
        let file = folder.path().join(name);
        let output = nautilus(&["snapshot", "status", text(&file), "--output", "json"]);
        if output.status.success() {
            Ok(json(&output))
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert_eq!(newest["recipients"][0], "the quorum");
}
