//! What a person meets: the layers, and the text of every refusal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use expect_test::{Expect, expect};

use super::*;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    settings: Settings,
}

/// A folder with the files a configuration names, and the smallest configuration.
struct World {
    dir: tempfile::TempDir,
    key: rcgen::KeyPair,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["root", "secret"] {
            std::fs::write(dir.path().join(name), "any").expect("written");
        }
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        std::fs::write(dir.path().join("operator.pub"), key.public_key_pem()).expect("written");
        Self { dir, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn toml(&self) -> String {
        format!(
            r#"
cluster_id = "alpha"
node_id = 1
data_dir = "data"
bootstrap = "genesis"
operators = ["admin={}"]
[peer]
listen = "127.0.0.1:7443"
[api]
listen = "127.0.0.1:6443"
[attestation]
provider = "simulated"
allow_simulated = true
simulated_root = "{}"
platform_secret = "{}"
"#,
            self.path("operator.pub").display(),
            self.path("root").display(),
            self.path("secret").display()
        )
    }

    fn load(&self, toml: &str, flags: &[&str]) -> Result<NodeConfig, ConfigError> {
        let file = self.path("node.toml");
        std::fs::write(&file, toml).expect("written");
        let line = CommandLine::try_parse_from([&["nautilus"], flags].concat()).expect("flags");
        NodeConfig::load(Some(&file), line.settings)
    }
}

fn refused(change: impl FnOnce(String) -> String, flags: &[&str], text: &Expect) {
    let world = World::new();
    let error = world
        .load(&change(world.toml()), flags)
        .expect_err("refused")
        .to_string();
    text.assert_eq(&error.replace(&world.dir.path().display().to_string(), "DIR"));
}

#[test]
fn the_smallest_file_gets_every_default() {
    let world = World::new();
    let config = world.load(&world.toml(), &[]).expect("accepted");
    assert_eq!(config.bootstrap, Bootstrap::Genesis);
    assert_eq!(config.peer.advertise, "127.0.0.1:7443");
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(50));
    assert_eq!(config.attestation.allowed_measurements, ["self"]);
    assert_eq!(
        config.log,
        Log {
            format: LogFormat::Human,
            filter: "info,openraft=error".into()
        }
    );
}

#[test]
fn a_flag_wins_over_the_file() {
    let world = World::new();
    let flags = ["--node-id", "7", "--raft-heartbeat-interval-ms", "20"];
    let config = world.load(&world.toml(), &flags).expect("accepted");
    assert_eq!(
        (config.node_id, config.raft.heartbeat_interval.as_millis()),
        (7, 20)
    );
}

#[test]
fn every_key_has_the_variable_and_the_flag_of_its_name() {
    use clap::CommandFactory as _;
    let command = CommandLine::command();
    for argument in command.get_arguments() {
        let Some(flag) = argument.get_long() else {
            continue;
        };
        let variable = argument
            .get_env()
            .expect("a variable")
            .to_str()
            .expect("text");
        assert_eq!(
            variable,
            format!("NAUTILUS_{}", flag.replace('-', "_").to_uppercase())
        );
    }
}

#[test]
fn settings_written_as_a_file_are_read_back() {
    let world = World::new();
    let settings = Settings::parse(Path::new("a"), &world.toml()).expect("parsed");
    let again = Settings::parse(Path::new("b"), &settings.to_toml().expect("written"));
    assert_eq!(
        format!("{settings:?}"),
        format!("{:?}", again.expect("parsed"))
    );
}

#[test]
fn a_missing_key_is_named_with_all_its_forms() {
    refused(
        |toml| toml.replace("node_id = 1", ""),
        &[],
        &expect![
            "node_id is not set; write a whole number from 1 (or set NAUTILUS_NODE_ID, or pass --node-id)"
        ],
    );
}

#[test]
fn a_key_that_does_not_exist_is_named() {
    let world = World::new();
    let toml = world.toml().replace("[peer]\n", "[peer]\nlisen = \"x\"\n");
    let error = world.load(&toml, &[]).expect_err("refused").to_string();
    assert!(error.contains("unknown field `lisen`"), "{error}");
}

#[test]
fn a_plain_listener_on_the_network_is_refused() {
    refused(
        |toml| toml,
        &["--plain-http-listen", "0.0.0.0:8080"],
        &expect![[
            r#"plain_http_listen = "0.0.0.0:8080": tokens would cross the network unencrypted; write a loopback address, as in 127.0.0.1:8080; others must use TLS (api.listen)"#
        ]],
    );
}

#[test]
fn simulated_evidence_needs_its_own_word() {
    refused(
        |toml| toml.replace("allow_simulated = true", ""),
        &[],
        &expect![[
            r#"attestation.provider = "simulated": simulated evidence proves nothing about hardware and is not allowed; for a development quorum write attestation.allow_simulated = true"#
        ]],
    );
}

#[test]
fn without_a_word_the_hardware_is_taken_and_nothing_else() {
    let world = World::new();
    let toml = world.toml().replace("provider = \"simulated\"", "");
    let config = world.load(&toml, &[]).expect("accepted");
    let provider = config.attestation.provider;
    assert!(matches!(provider, Provider::Hardware(None)), "{provider:?}");
    let toml = world.toml().replace("\"simulated\"", "\"snp\"");
    let config = world.load(&toml, &[]).expect("accepted");
    let provider = config.attestation.provider;
    assert!(
        matches!(provider, Provider::Hardware(Some(TeeKind::Snp))),
        "{provider:?}"
    );
}

#[test]
fn a_provider_that_does_not_exist_is_told_the_others() {
    refused(
        |toml| toml.replace("\"simulated\"", "\"sev\""),
        &[],
        &expect![[
            r#"attestation.provider = "sev": no such provider; write "auto" (what the machine has, see `nautilus attest detect`), "nitro", "snp", "tdx", "sgx" or "simulated""#
        ]],
    );
}

#[test]
fn a_file_that_is_missing_is_named_with_its_key() {
    refused(
        |toml| toml.replace("/secret", "/absent"),
        &[],
        &expect![[
            r#"attestation.platform_secret = "DIR/absent": no such file; name an existing file"#
        ]],
    );
}

#[test]
fn an_address_nobody_can_connect_to_is_not_advertised() {
    refused(
        |toml| toml.replace("127.0.0.1:6443", "0.0.0.0:6443"),
        &[],
        &expect![[
            r#"api.advertise = "": api.listen is 0.0.0.0:6443, which others can't connect to; write the host name or address and port that others use"#
        ]],
    );
}

#[test]
fn a_node_that_joins_needs_somebody_to_join() {
    refused(
        |toml| toml.replace("genesis", "join"),
        &[],
        &expect![
            "join_addresses is not set; write the peer addresses of members (or set NAUTILUS_JOIN_ADDRESSES, or pass --join-addresses)"
        ],
    );
}

#[test]
fn elections_shorter_than_heartbeats_are_refused() {
    refused(
        |toml| toml,
        &["--raft-election-timeout-min-ms", "60"],
        &expect![[
            r#"raft.election_timeout_min_ms = "60": less than two heartbeats (50 ms each) would depose every leader; write at least three times raft.heartbeat_interval_ms"#
        ]],
    );
}

#[test]
fn a_measurement_that_is_no_hex_is_refused() {
    let world = World::new();
    let flags = ["--attestation-allowed-measurements", "zz"];
    let error = world
        .load(&world.toml(), &flags)
        .expect_err("refused")
        .to_string();
    assert!(
        error.starts_with("attestation.allowed_measurements = \"zz\":"),
        "{error}"
    );
}

#[test]
fn an_operator_is_a_user_and_a_public_key() {
    let world = World::new();
    let config = world.load(&world.toml(), &[]).expect("accepted");
    assert_eq!(config.operators[0].user, "admin");
    assert_eq!(
        config.operators[0].public_key_der,
        rcgen::PublicKeyData::subject_public_key_info(&world.key)
    );
}

#[test]
fn a_quorum_without_operators_is_not_founded() {
    let world = World::new();
    let toml: String = world
        .toml()
        .lines()
        .filter(|line| !line.starts_with("operators"))
        .map(|l| format!("{l}\n"))
        .collect();
    let error = world.load(&toml, &[]).expect_err("refused").to_string();
    assert!(
        error.starts_with("operators is not set; name whoever may ask"),
        "{error}"
    );
}

#[test]
fn an_operators_key_that_is_no_key_is_refused() {
    let world = World::new();
    let flag = format!("admin={}", world.path("root").display());
    let error = world
        .load(&world.toml(), &["--operators", &flag])
        .expect_err("refused");
    assert!(
        error.to_string().contains("give a SubjectPublicKeyInfo"),
        "{error}"
    );
}

#[test]
fn the_example_documents_every_key_with_its_default() {
    use clap::CommandFactory as _;
    let example = include_str!("../../node.example.toml");
    // Uncommented, what is commented must still parse.
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.split_once(" = ").is_some_and(|(name, _)| is_key(name)) => key,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let settings = Settings::parse(Path::new("node.example.toml"), &all).expect("parses");
    let written = settings.to_toml().expect("written");
    let keys = CommandLine::command()
        .get_arguments()
        .filter(|a| a.get_env().is_some())
        .count();
    let said = written.lines().filter(|line| line.contains(" = ")).count();
    assert_eq!(said, keys, "{written}");
}

fn is_key(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
