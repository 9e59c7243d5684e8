//! Streams into containers with unmodified clients, against the real server of kubelets
//! (`tests/e2e/kube-apiserver/cmd/kubelet`): over WebSockets and over SPDY.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nautilus_tests::{Quorum, Streamed, eventually, program};
use rcgen::{CertificateParams, KeyPair};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: default}
spec:
  nodeName: node-1
  containers:
  - name: main
    image: registry.example/x:1
    env: [{name: LOG, value: "one\ntwo\nthree"}]
  - {name: options, image: "registry.example/x:1"}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: default}
spec:
  nodeName: node-1
  containers:
  - {name: main, image: "registry.example/x:1"}
"#;

/// Switches of kubectl that make it speak SPDY at once.
const SPDY: [(&str, &str); 2] = [
    ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"),
    ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false"),
];

/// A quorum with a node whose kubelet runs two pods.
struct World {
    quorum: Quorum,
    _kubelet: Streamed,
}

impl World {
    fn start(features: &str) -> Self {
        let quorum = Quorum::start();
        let kubelet = kubelet(&quorum, features);
        let manifest = quorum.dir().join("pods.yaml");
        std::fs::write(&manifest, PODS).expect("a manifest");
        quorum.kubectl_ok(&["apply", "-f", manifest.to_str().expect("a path")]);
        for pod in ["one", "two"] {
            let wanted = format!("pod/{pod}");
            let ready = "--for=jsonpath={.status.phase}=Running";
            quorum.kubectl_ok(&["wait", ready, &wanted, "--timeout=60s"]);
        }
        Self {
            quorum,
            _kubelet: kubelet,
        }
    }

    /// Runs kubectl by one of the two ways, with `input`.
    fn kubectl(&self, spdy: bool, arguments: &[&str], input: &str) -> Output {
        let path = self.quorum.dir().join("input");
        std::fs::write(&path, input).expect("an input");
        let file = std::fs::File::open(&path).expect("the input");
        let mut command = self.quorum.kubectl_command(arguments);
        if spdy {
            command.envs(SPDY);
        }
        command.stdin(Stdio::from(file)).output().expect("kubectl")
    }
}

fn said(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code(),
    )
}

/// Starts a kubelet whose clients are the quorum's.
fn kubelet(quorum: &Quorum, features: &str) -> Streamed {
    kubelet_with(quorum, &["--declared-features", features])
}

fn kubelet_with(quorum: &Quorum, arguments: &[&str]) -> Streamed {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["node-1".into()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = quorum.dir().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let certificate = write("kubelet.crt", &certificate.pem());
    let key = write("kubelet.key", &key.serialize_pem());
    let authority = write("ca.crt", &authority(quorum));
    let mut command = Command::new(program("kubelet"));
    let mut flag = |name: &str, path: &Path| {
        command.arg(name).arg(path);
    };
    flag("--kubeconfig", &quorum.dir().join("kubeconfig"));
    flag("--tls-cert-file", &certificate);
    flag("--tls-private-key-file", &key);
    flag("--client-ca-file", &authority);
    command.args(arguments);
    let mut kubelet = Streamed::start(command);
    kubelet.wait_for("the kubelet", |line| line.starts_with("serving on"));
    kubelet
}

/// The quorum's authority, as PEM.
fn authority(quorum: &Quorum) -> String {
    let path = "{.clusters[0].cluster.certificate-authority-data}";
    let output = format!("jsonpath={path}");
    let text = quorum.kubectl_ok(&["config", "view", "--raw", "-o", &output]);
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.trim());
    String::from_utf8(decoded.expect("base64")).expect("PEM")
}

#[test]
fn logs_are_read_and_followed() {
    let world = World::start("");
    let quorum = &world.quorum;
    let log = quorum.kubectl_ok(&["logs", "two", "-c", "main"]);
    assert_eq!(log, "one\ntwo\nthree\n");
    let log = quorum.kubectl_ok(&["logs", "-f", "two", "-c", "main", "--tail=1"]);
    assert_eq!(log, "three\nlater 0\nlater 1\nlater 2\n");
    let asked = quorum.kubectl_ok(&[
        "logs",
        "two",
        "-c",
        "options",
        "--since=5m",
        "--limit-bytes=100",
        "--timestamps",
    ]);
    assert_eq!(
        asked.trim(),
        r#"{"sinceSeconds":300,"timestamps":true,"limitBytes":100}"#
    );
    let refused = quorum.kubectl(&["logs", "one", "--previous"]);
    let (_, refusal, code) = said(&refused);
    assert_eq!(code, Some(1));
    assert!(
        refusal.contains("previous terminated container \"main\" in pod \"one\" not found"),
        "{refusal}"
    );
    // Any node passes on what any other would.
    for node in 1..=3 {
        let log = quorum.kubectl_on(node, &["logs", "two", "-c", "main", "--tail=1"]);
        assert_eq!(log, "three\n");
    }
}

#[test]
fn commands_run_with_all_their_streams() {
    // A kubelet that speaks SPDY alone, and one that translates itself.
    for features in ["", "ExtendWebSocketsToKubelet"] {
        let world = World::start(features);
        for spdy in [false, true] {
            let script = "cat; echo out; echo err >&2; exit 3";
            let run = ["exec", "-i", "one", "--", "sh", "-c", script];
            let (out, err, code) = said(&world.kubectl(spdy, &run, "in\n"));
            assert_eq!((out.as_str(), code), ("in\nout\n", Some(3)), "{err}");
            assert!(err.starts_with("err\n"), "{err}");
            assert!(err.contains("command terminated with exit code 3"), "{err}");

            // More than any buffer holds, both ways at once.
            let large = "0123456789abcdef".repeat(1 << 19);
            let (out, err, code) =
                said(&world.kubectl(spdy, &["exec", "-i", "one", "--", "cat"], &large));
            assert_eq!(code, Some(0), "{err}");
            assert!(out == large, "{} bytes of {}", out.len(), large.len());

            let (_, err, code) = said(&world.kubectl(spdy, &["exec", "one", "--", "nosuch"], ""));
            assert_eq!(code, Some(1));
            assert!(err.contains("executable file not found"), "{err}");
        }
        // The size follows the start of the command.
        let terminal = "for i in $(seq 500); do test \"$(stty size)\" = '0 0' || break; sleep 0.1; \
                        done; stty size; test -t 0 && test -t 1 && echo a terminal";
        let (out, err, code) = said(&on_terminal(
            &world,
            &["exec", "-it", "one", "--", "sh", "-c", terminal],
        ));
        assert_eq!(code, Some(0), "{err}");
        assert!(
            out.contains("43 121") && out.contains("a terminal"),
            "{out}"
        );
    }
}

/// kubectl on a terminal of 43 lines and 121 columns, which `script` makes.
fn on_terminal(world: &World, arguments: &[&str]) -> Output {
    let command = world.quorum.kubectl_command(arguments);
    let quote = |text: &std::ffi::OsStr| {
        let text = text.to_str().expect("UTF-8").replace('\'', r"'\''");
        format!("'{text}'")
    };
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote)
        .collect();
    let line = format!("stty rows 43 cols 121; {}", words.join(" "));
    Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script")
}

#[test]
fn files_are_copied_both_ways() {
    let world = World::start("");
    let content: String = (0..200_000).map(|line| format!("line {line}\n")).collect();
    let there = world.quorum.dir().join("there.txt");
    std::fs::write(&there, &content).expect("a file");
    for spdy in [false, true] {
        let back = world.quorum.dir().join(format!("back-{spdy}.txt"));
        let (from, to) = (
            there.to_str().expect("a path"),
            back.to_str().expect("a path"),
        );
        for arguments in [["cp", from, "one:copied.txt"], ["cp", "one:copied.txt", to]] {
            let (_, err, code) = said(&world.kubectl(spdy, &arguments, ""));
            assert_eq!(code, Some(0), "{err}");
        }
        let copied = std::fs::read_to_string(&back).expect("the file came back");
        assert!(
            copied == content,
            "{} bytes of {}",
            copied.len(),
            content.len()
        );
    }
}

#[test]
fn a_running_process_is_attached_to_and_debugged() {
    let world = World::start("");
    for spdy in [false, true] {
        let (out, err, code) = said(&world.kubectl(spdy, &["attach", "-i", "one"], "hi\nbye\n"));
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(out, "attached to one_default/main\nheard hi\nheard bye\n");
    }
    let debug = [
        "debug",
        "one",
        "--image=registry.example/tools:1",
        "--container=tools",
        "-i",
        "--",
        "sh",
    ];
    let (out, err, code) = said(&world.kubectl(false, &debug, "hello\nbye\n"));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("attached to one_default/tools"), "{out}{err}");
    assert!(out.contains("heard hello"), "{out}{err}");
}

#[test]
fn ports_are_forwarded() {
    use std::io::{Read, Write};

    let world = World::start("");
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let remote = target.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in target.incoming().map_while(Result::ok) {
            let (mut from, mut to) = (stream.try_clone().expect("a stream"), stream);
            std::thread::spawn(move || {
                let mut content = Vec::new();
                let _ = from.read_to_end(&mut content);
                content.reverse();
                let _ = to.write_all(&content);
            });
        }
    });
    for spdy in [false, true] {
        let ports = format!(":{remote}");
        let mut command = world
            .quorum
            .kubectl_command(&["port-forward", "one", &ports]);
        if spdy {
            command.envs(SPDY);
        }
        let mut forwarding = Streamed::start(command);
        let line = forwarding.wait_for("the port", |line| line.contains("127.0.0.1:"));
        let local: u16 = line
            .split("127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|port| port.parse().ok())
            .expect("a port");
        // Several at once over the one connection.
        let callers: Vec<_> = (0..4_usize)
            .map(|index| {
                std::thread::spawn(move || {
                    let sent: Vec<u8> = format!("{index} and more ").repeat(20_000).into_bytes();
                    let mut stream = eventually("a connection", || {
                        std::net::TcpStream::connect(("127.0.0.1", local))
                            .map_err(|error| error.to_string())
                    });
                    stream.write_all(&sent).expect("sent");
                    stream.shutdown(std::net::Shutdown::Write).expect("ended");
                    let mut received = Vec::new();
                    stream.read_to_end(&mut received).expect("an answer");
                    received.reverse();
                    assert!(received == sent, "{} of {}", received.len(), sent.len());
                })
            })
            .collect();
        for caller in callers {
            caller.join().expect("an answer");
        }
    }
}

#[test]
fn a_node_that_can_not_be_reached_is_reached_through_its_tunnel_by_every_master() {
    let quorum = Quorum::start();
    let folder = quorum.dir().join("tunnel");
    let issued = quorum.nautilus(&[
        "certificate",
        "--user",
        "system:node:node-1",
        "--group",
        "system:nodes",
        "--out",
        folder.to_str().expect("a path"),
    ]);
    assert!(issued.status.success(), "{}", said(&issued).1);
    let (certificate, key) = (folder.join("client.crt"), folder.join("client.key"));
    let (certificate, key) = (
        certificate.to_str().expect("a path"),
        key.to_str().expect("a path"),
    );
    let holder = quorum.follower();
    let tunnelled = |master: &str| {
        let master = master.trim_start_matches("https://").to_owned();
        // An address that is nobody's (RFC 5737).
        let arguments = [
            "--advertise-address",
            "203.0.113.1",
            "--tunnel",
            &master,
            "--tunnel-cert-file",
            certificate,
            "--tunnel-key-file",
            key,
        ];
        kubelet_with(&quorum, &arguments)
    };
    let kubelet = tunnelled(&holder.api);
    let manifest = quorum.dir().join("pods.yaml");
    std::fs::write(&manifest, PODS).expect("a manifest");
    quorum.kubectl_ok(&["apply", "-f", manifest.to_str().expect("a path")]);
    quorum.kubectl_ok(&[
        "wait",
        "--for=jsonpath={.status.phase}=Running",
        "pod/one",
        "--timeout=60s",
    ]);
    let large = "0123456789abcdef".repeat(1 << 18);
    let world = World {
        quorum,
        _kubelet: kubelet,
    };
    eventually("the tunnel", || {
        let output = world.quorum.kubectl(&["exec", "one", "--", "true"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(said(&output).1)
        }
    });
    for node in 1..=3 {
        let context = format!("nautilus-{node}");
        let run = ["--context", &context, "exec", "-i", "one", "--", "cat"];
        let (out, err, code) = said(&world.kubectl(false, &run, &large));
        assert_eq!(code, Some(0), "{err}");
        assert!(out == large, "{} bytes of {}", out.len(), large.len());
        let log = world
            .quorum
            .kubectl_on(node, &["logs", "two", "-c", "main", "--tail=1"]);
        assert_eq!(log, "three\n");
    }
}
