//! An unmodified kube-apiserver with its store on our etcd face: 1,000 pods are created by
//! kubectl while the leader of the store is killed, and nothing that was told is lost.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};

use nautilus_tests::{ApiServer, Quorum, Streamed, eventually};

/// Pods that are created.
const PODS: usize = 1000;
/// Pods that the watch has shown when the leader is killed.
const PODS_BEFORE_THE_KILL: usize = 300;

#[test]
fn a_kube_apiserver_loses_nothing_when_the_leader_of_its_store_dies() {
    let quorum = Quorum::start();
    let folder = tempfile::tempdir().expect("a folder");
    let server = ApiServer::start(&quorum);
    let pods = folder.path().join("pods.yaml");
    std::fs::write(&pods, manifests()).expect("written");

    let mut watch = Streamed::start(server.kubectl(&["get", "pods", "--watch", "-o", "name"]));
    let create = server
        .kubectl(&["create", "-o", "name", "-f"])
        .arg(&pods)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    for _ in 0..PODS_BEFORE_THE_KILL {
        watch.wait_for("a pod", |line| line.starts_with("pod/"));
    }
    quorum.kill(&quorum.leader());
    let created = create.wait_with_output().expect("kubectl's output");
    let told = names(&created);
    assert!(
        told.len() > PODS_BEFORE_THE_KILL,
        "nothing was created after the kill: {}",
        text(&created.stderr)
    );

    // The next leader serves, and everything that was told is there.
    let present = eventually("a list of the pods", || {
        let output = run(&mut server.kubectl(&["get", "pods", "-o", "name"]));
        output
            .status
            .success()
            .then(|| names(&output))
            .ok_or(text(&output.stderr))
    });
    let lost: Vec<_> = told.difference(&present).collect();
    assert!(lost.is_empty(), "told but not there: {lost:?}");

    // Whatever the kill made fail can be created now.
    eventually("the rest of the pods", || {
        let mut again = server.kubectl(&["create", "-o", "name", "-f"]);
        let output = run(again.arg(&pods));
        let refused = text(&output.stderr);
        match refused.lines().find(|line| !line.contains("AlreadyExists")) {
            Some(other) => Err(other.to_owned()),
            None => Ok(()),
        }
    });
    let all = names(&run(&mut server.kubectl(&["get", "pods", "-o", "name"])));
    assert_eq!(all.len(), PODS);

    // The watch that ran all the time has shown each of them once.
    let mut shown = Vec::new();
    eventually("the watch's events", || {
        shown = pod_lines(watch.drain(std::time::Duration::from_millis(300)).iter());
        if shown.len() >= PODS {
            Ok(())
        } else {
            Err(format!("{} pods", shown.len()))
        }
    });
    assert_eq!(shown.len(), PODS, "a pod was shown twice");
    assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), all);
}

/// Every pod, as YAML documents.
fn manifests() -> String {
    (0..PODS).fold(String::new(), |mut all, number| {
        let _ = write!(
            all,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{number}, namespace: default}}\n\
             spec: {{containers: [{{name: only, image: example.com/nothing}}]}}\n"
        );
        all
    })
}

fn names(output: &Output) -> BTreeSet<String> {
    let stdout = text(&output.stdout);
    stdout.lines().map(str::to_owned).collect()
}

fn pod_lines<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<String> {
    lines
        .filter(|line| line.starts_with("pod/"))
        .cloned()
        .collect()
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("kubectl runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
