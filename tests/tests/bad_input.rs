//! Bad input of every kind: it is named, and nothing is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nautilus_attest_tee::PlatformSecret;
use nautilus_tests::{Quorum, eventually};
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use toml::{Table, Value};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A platform of its own for a node in `folder`.
fn new_platform(quorum: &Quorum, folder: &str) -> PathBuf {
    let folder = quorum.dir().join(folder);
    std::fs::create_dir(&folder).expect("a folder");
    PlatformSecret::load_or_create(&folder.join("platform-secret")).expect("a platform");
    folder
}

/// Runs `nautilus node` on a changed copy of a node's configuration until it ends.
fn node_with(quorum: &Quorum, id: u64, binary: &Path, change: impl FnOnce(&mut Table)) -> Output {
    let template = quorum.dir().join(format!("node-{id}")).join("config.toml");
    let text = std::fs::read_to_string(template).expect("the node's configuration");
    let mut configuration: Table = text.parse().expect("TOML");
    change(&mut configuration);
    let path = quorum.dir().join("changed.toml");
    std::fs::write(&path, configuration.to_string()).expect("a changed configuration");
    Command::new("timeout")
        .arg("30")
        .arg(binary)
        .args(["node", "--config"])
        .arg(path)
        .output()
        .expect("the node's end")
}

/// Moves a configuration to another folder and other ports of this machine.
fn elsewhere(configuration: &mut Table, folder: &Path) {
    let text = |path: &Path| Value::from(path.to_str().expect("UTF-8"));
    configuration["data_dir"] = text(&folder.join("data"));
    configuration["attestation"]["platform_secret"] = text(&folder.join("platform-secret"));
    for section in ["peer", "api", "etcd"] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address").to_string();
        configuration[section]["listen"] = Value::from(address);
    }
}

fn address_of(api: &str) -> &str {
    api.trim_start_matches("https://")
}

#[test]
fn malformed_and_oversize_bodies_are_refused_with_what_is_wrong() {
    let quorum = Quorum::start();
    let path = quorum.dir().join("body.json");
    let create = |body: &str| {
        std::fs::write(&path, body).expect("a body");
        let file = path.to_str().expect("a path");
        said(&quorum.kubectl(&[
            "create",
            "--raw",
            "/api/v1/namespaces/default/configmaps",
            "-f",
            file,
        ]))
    };
    let malformed = create(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"#);
    assert!(
        malformed.contains("EOF") || malformed.contains("unexpected end"),
        "{malformed}"
    );

    let large = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"large"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(10 << 20)
    );
    let refused = create(&large);
    assert!(
        refused.contains("limit is 3145728") || refused.contains("too large"),
        "{refused}"
    );
    quorum.kubectl_ok(&["create", "configmap", "small"]);
}

#[test]
fn a_truncated_tls_hello_costs_a_connection_and_nothing_else() {
    let quorum = Quorum::start();
    let node = quorum.follower();
    // The first bytes of a TLS 1.3 ClientHello record that promises 512 bytes more.
    let hello = [
        0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
    ];
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address_of(&node.api)).expect("a connection");
        stream.write_all(&hello).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("closed");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a limit");
        let mut rest = Vec::new();
        // The server closes; whatever it says first is an alert.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 64, "{rest:?}");
    }
    quorum.kubectl_on(node.id, &["create", "configmap", "after"]);
}

#[test]
fn a_client_certificate_of_another_ca_opens_nothing() {
    let quorum = Quorum::start();
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let mut client = CertificateParams::new(Vec::new()).expect("parameters");
    client.distinguished_name.push(DnType::CommonName, "admin");
    client
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    let certificate = client.signed_by(&key, &issuer).expect("a certificate");
    let (certificate_path, key_path) = (quorum.dir().join("x.crt"), quorum.dir().join("x.key"));
    std::fs::write(&certificate_path, certificate.pem()).expect("written");
    std::fs::write(&key_path, key.serialize_pem()).expect("written");

    let output = quorum.kubectl(&[
        "--client-certificate",
        certificate_path.to_str().expect("a path"),
        "--client-key",
        key_path.to_str().expect("a path"),
        "get",
        "secrets",
        "-A",
    ]);
    assert!(!output.status.success());
    let said = said(&output);
    assert!(
        said.contains("unknown certificate") || said.contains("Unauthorized"),
        "{said}"
    );
}

#[test]
fn a_node_with_another_measurement_is_refused_on_both_sides() {
    let quorum = Quorum::start();
    // One byte after the end of the program: it runs, and it is another program.
    let altered = quorum.dir().join("altered");
    let mut bytes = std::fs::read(Quorum::binary()).expect("the binary");
    bytes.push(0);
    std::fs::write(&altered, bytes).expect("a copy");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&altered, mode).expect("executable");

    let admitted = quorum.nautilus(&["member", "add", "4", "127.0.0.1:15999"]);
    assert!(admitted.status.success(), "{}", said(&admitted));
    // It allows the quorum's measurement beside its own, so that only the quorum objects.
    let quorums = quorum.nodes()[0]
        .measurement
        .clone()
        .expect("a measurement");
    let folder = new_platform(&quorum, "node-4");
    let output = node_with(&quorum, 2, &altered, |configuration| {
        elsewhere(configuration, &folder);
        configuration["node_id"] = Value::from(4);
        configuration["attestation"]["allowed_measurements"] =
            Value::from(vec!["self", quorums.as_str()]);
    });
    assert!(!output.status.success());
    let joiner = said(&output);
    assert!(
        joiner.contains("measurement") && joiner.contains(&quorums[..16]),
        "{joiner}"
    );
    let members = quorum.logs();
    assert!(
        members.contains("measurement") && members.contains(&quorums[..16]),
        "{members}"
    );
}

#[test]
fn a_second_node_with_a_members_id_is_refused_by_its_platform() {
    let quorum = Quorum::start();
    let folder = new_platform(&quorum, "twin");
    let output = node_with(&quorum, 2, &Quorum::binary(), |configuration| {
        elsewhere(configuration, &folder);
    });
    assert!(!output.status.success());
    let twin = said(&output);
    assert!(
        twin.contains("platform") && twin.contains("node 2"),
        "{twin}"
    );
    quorum.kubectl_on(2, &["create", "configmap", "the-first-goes-on"]);
}

#[test]
fn a_data_directory_in_use_names_its_holder() {
    let quorum = Quorum::start();
    let holder = quorum.nodes()[1].pid.expect("a pid").to_string();
    let output = node_with(&quorum, 2, &Quorum::binary(), |_| ());
    assert!(!output.status.success());
    assert!(said(&output).contains(&holder), "{}", said(&output));
}

#[test]
fn a_data_directory_of_another_quorum_is_refused_by_both_names() {
    let quorum = Quorum::start();
    let victim = quorum.follower();
    quorum.kill(&victim);
    let mut own = String::new();
    let output = node_with(&quorum, victim.id, &Quorum::binary(), |configuration| {
        let id = configuration.insert("cluster_id".into(), Value::from("somebody-elses"));
        own = id
            .as_ref()
            .and_then(Value::as_str)
            .expect("a cluster id")
            .to_owned();
    });
    assert!(!output.status.success());
    let said = said(&output);
    assert!(
        said.contains("somebody-elses") && said.contains(&own),
        "{said}"
    );
}

/// A small file system over a node's data folder; unmounted on drop.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path, mebibytes: u32) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let options = format!("size={mebibytes}m,mode=0700");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .status()
            .expect("mount");
        assert!(status.success(), "mounting a tmpfs needs root");
        Self(folder)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_stops_one_node_with_its_name_and_loses_nothing() {
    let quorum = Quorum::prepare();
    let folder = quorum.dir().join("node-3").join("data");
    let _disk = SmallDisk::mount(&folder, 500);
    quorum.up();
    quorum.kubectl_ok(&["create", "configmap", "before"]);

    // Somebody else takes what is left.
    let hog = folder.join("somebody-elses-file");
    let mut file = std::fs::File::create(&hog).expect("a file");
    let block = vec![0u8; 1 << 20];
    while file.write_all(&block).is_ok() {}
    drop(file);

    let value = "x".repeat(900_000);
    let mut acknowledged = vec!["before".to_owned()];
    let third_stopped = || quorum.nodes()[2].pid.is_none();
    for index in 0..300 {
        let name = format!("c-{index}");
        let manifest = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {value}}}\n"
        );
        let output = quorum.kubectl_with_input(&["create", "-f", "-"], &manifest);
        if output.status.success() {
            acknowledged.push(name);
        }
        if third_stopped() {
            break;
        }
    }
    assert!(third_stopped(), "node 3 still runs on a full disk");
    let log = std::fs::read_to_string(quorum.dir().join("node-3").join("log")).expect("its log");
    assert!(log.contains("No space left on device"), "{log}");

    std::fs::remove_file(&hog).expect("room again");
    quorum.up();
    let names = eventually("node 3's reads", || {
        let output =
            quorum.kubectl(&["--context", "nautilus-3", "get", "configmaps", "-o", "name"]);
        if output.status.success() {
            Ok(said(&output))
        } else {
            Err(said(&output))
        }
    });
    for name in acknowledged {
        assert!(
            names
                .lines()
                .any(|line| line.ends_with(&format!("/{name}"))),
            "{name} is lost"
        );
    }
}
