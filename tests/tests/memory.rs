//! What a look into a node's memory shows, and what its output does.
//!
//! Keys are to be in no core dump, whoever makes it: the quorum's root, what is
//! derived of it, and the platform's own secrets. What clients have stored is served
//! from memory in clear, by design, so a dump that was allowed does hold it; without
//! that word there is no dump, and one that root forces holds no memory at all.

use std::path::{Path, PathBuf};
use std::process::Command;

use nautilus_attest_protocol::Sealer as _;
use nautilus_attest_tee::{PlatformSecret, SimulatedProvider, SimulatedRoot, measure_file};
use nautilus_tests::{NodeStatus, Quorum};

/// The purpose under which a node seals the quorum's keys (node/src/compose/keys.rs).
const SEAL_LABEL: &str = "nautilus quorum keys v2";
/// In what it seals, before the roots: version, key of the digest, generation in use, and
/// how many roots follow; each stands after its generation (raft/store/src/keys.rs).
const BEFORE_ROOTS_BYTES: usize = 1 + 32 + 4 + 1;
const ROOT_BYTES: usize = 32;
const PLANTED: &str = "planted-in-a-configmap-and-looked-for-in-memory";
/// So many bytes of a key in a row are the key.
const WINDOW_BYTES: usize = 16;

/// Secrets to look for: every window of each, as it stands and reversed (big numbers
/// lie in memory with the least word first), and in hex.
struct Needles {
    windows: Vec<(&'static str, Vec<u8>)>,
    /// By the first two bytes: whether any window begins so.
    begins: Vec<bool>,
}

impl Needles {
    fn new() -> Self {
        Self {
            windows: Vec::new(),
            begins: vec![false; 1 << 16],
        }
    }

    fn add(&mut self, name: &'static str, secret: &[u8]) {
        assert!(
            secret.len() >= WINDOW_BYTES,
            "{name} is too short to be told apart"
        );
        let reversed: Vec<u8> = secret.iter().rev().copied().collect();
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret, &reversed, hex.as_bytes()] {
            for window in form.windows(WINDOW_BYTES) {
                self.begins[prefix(window)] = true;
                self.windows.push((name, window.to_vec()));
            }
        }
    }

    /// The first secret of which `bytes` hold a part.
    fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        bytes.windows(WINDOW_BYTES).find_map(|window| {
            if !self.begins[prefix(window)] {
                return None;
            }
            let found = self.windows.iter().find(|(_, needle)| needle == window);
            found.map(|(name, _)| *name)
        })
    }
}

fn prefix(window: &[u8]) -> usize {
    usize::from(window[0]) << 8 | usize::from(window[1])
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn folder(quorum: &Quorum, node: u64) -> PathBuf {
    quorum.dir().join(format!("node-{node}"))
}

/// The keys of a node, had by means that only this test has: the files of the
/// simulated platform, which hardware would not give.
fn keys(quorum: &Quorum, node: u64) -> Needles {
    let mut needles = Needles::new();
    let platform_file = folder(quorum, node).join("platform-secret");
    let platform = std::fs::read(&platform_file).expect("the platform's secret");
    needles.add("the platform's secret", &platform);
    let root_file = quorum.dir().join("simulated-root");
    let pkcs8 = std::fs::read(&root_file).expect("the signing root");
    // ECPrivateKey (RFC 5915): version 1, then the number of 32 bytes.
    let marker = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = pkcs8.windows(5).position(|window| window == marker);
    let at = at.expect("a P-256 key") + marker.len();
    needles.add("the signing root's private key", &pkcs8[at..at + 32]);

    let provider = SimulatedProvider::new(
        SimulatedRoot::load(&root_file).expect("the root"),
        PlatformSecret::load_or_create(&platform_file).expect("the platform"),
        measure_file(&Quorum::binary()).expect("the binary"),
    );
    let sealed = folder(quorum, node).join("data/sealed-keys");
    let sealed = std::fs::read(sealed).expect("the sealed root");
    let keys = provider.unseal(SEAL_LABEL, &sealed).expect("unsealed");
    assert!(keys[BEFORE_ROOTS_BYTES - 1] >= 1, "there is a root");
    let root = &keys[BEFORE_ROOTS_BYTES + 4..][..ROOT_BYTES];
    needles.add("the quorum's root key", root);
    needles
}

/// A dump of the process by the debugger, which follows what the kernel is told; without
/// the pages of zeroes, which are most of it.
fn dump(quorum: &Quorum, node: &NodeStatus) -> Vec<u8> {
    let pid = node.pid.expect("it runs").to_string();
    let prefix = quorum.dir().join("dump");
    let output = Command::new("gcore")
        .arg("-o")
        .arg(&prefix)
        .arg(&pid)
        .output()
        .expect("gcore, of the package gdb that .ci/setup installs");
    let file = quorum.dir().join(format!("dump.{pid}"));
    let bytes = std::fs::read(&file).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    std::fs::remove_file(file).expect("removed");
    let zeroes = [0; 4096];
    let pages = bytes.chunks(zeroes.len());
    pages
        .filter(|page| *page != &zeroes[..page.len()])
        .collect::<Vec<_>>()
        .concat()
}

fn proc_file(node: &NodeStatus, name: &str) -> String {
    let pid = node.pid.expect("it runs");
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(name)).expect(name)
}

fn token(quorum: &Quorum) -> String {
    let tokens = std::fs::read_to_string(quorum.dir().join("tokens.toml")).expect("tokens");
    tokens
        .lines()
        .find_map(|line| line.trim().strip_prefix("token = "))
        .map(|value| value.trim_matches('"').to_owned())
        .expect("a token")
}

fn plant(quorum: &Quorum) {
    let literal = format!("--from-literal=k={PLANTED}");
    quorum.kubectl_ok(&["create", "configmap", "planted", &literal]);
    quorum.kubectl_ok(&["create", "secret", "generic", "planted", &literal]);
    let seen = quorum.kubectl_ok(&["get", "configmap", "planted", "-o", "yaml"]);
    assert!(seen.contains(PLANTED));
}

#[test]
fn no_key_is_in_a_dump_even_where_dumps_are_allowed() {
    let quorum = Quorum::start_with(&[("NAUTILUS_ALLOW_CORE_DUMPS", "true")]);
    plant(&quorum);
    for node in [quorum.leader(), quorum.follower()] {
        let needles = keys(&quorum, node.id);
        let dump = dump(&quorum, &node);
        // What is there by design shows that the dump is whole and the search finds.
        assert!(
            holds(&dump, PLANTED),
            "{} bytes of node {} hold not even what was stored",
            dump.len(),
            node.id
        );
        assert_eq!(
            needles.found_in(&dump),
            None,
            "in a dump of node {}",
            node.id
        );
    }
}

#[test]
fn without_a_word_there_is_no_dump_and_a_forced_one_holds_no_memory() {
    let quorum = Quorum::start();
    plant(&quorum);
    let node = quorum.leader();
    let limits = proc_file(&node, "limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    assert_eq!(
        core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
        ["0", "0"],
        "{core}"
    );
    assert_eq!(proc_file(&node, "coredump_filter").trim(), "00000000");
    let dump = dump(&quorum, &node);
    assert!(dump.starts_with(b"\x7fELF"), "the debugger made a dump");
    assert!(!holds(&dump, PLANTED), "what was stored is in the dump");
    assert_eq!(keys(&quorum, node.id).found_in(&dump), None);
}

#[test]
fn nothing_that_a_node_says_holds_a_key_a_token_or_what_was_stored() {
    let quorum = Quorum::start_with(&[("NAUTILUS_LOG_FILTER", "debug,h2=info,hyper=info")]);
    plant(&quorum);
    let token = token(&quorum);
    let registered = Command::new(nautilus_tests::program("worker"))
        .args(["--server", &quorum.follower().api, "--token", &token])
        .args(["--node-id", "worker-1", "--count=1", "--interval=100ms"])
        .arg("--ca")
        .arg(quorum.dir().join("ca.crt"))
        .output()
        .expect("a worker");
    assert!(registered.status.success(), "{registered:?}");
    // A refusal says something too.
    let refused = quorum.kubectl(&["create", "configmap", "Not_A_Name", "--from-literal=k=v"]);
    assert!(!refused.status.success());
    let mut said = Vec::new();
    for node in quorum.nodes() {
        said.extend(std::fs::read(folder(&quorum, node.id).join("log")).expect("its log"));
        for path in ["/metrics", "/nautilus/v1/status"] {
            let context = format!("nautilus-{}", node.id);
            let text = quorum.kubectl_ok(&["--context", &context, "get", "--raw", path]);
            assert!(text.len() > 100, "{path} of node {}: {text}", node.id);
            said.extend(text.into_bytes());
        }
    }
    assert!(holds(&said, "nautilus_"), "metrics were looked at");
    assert!(holds(&said, "starting"), "logs were looked at");
    for text in [token.as_str(), PLANTED] {
        assert!(!holds(&said, text), "{text:?} was said");
    }
    for node in quorum.nodes() {
        assert_eq!(keys(&quorum, node.id).found_in(&said), None);
    }
}
