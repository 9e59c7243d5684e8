//! The folder of a quorum, and what its nodes are told.

use super::*;

#[test]
fn taken_ports_are_passed_over() {
    let ports = Ports::pick(7000, 2, |port| port != 7001 && port != 7003).expect("enough");
    assert_eq!(
        ports,
        Ports {
            proxy: 7000,
            nodes: vec![
                NodePorts {
                    api: 7002,
                    peer: 7005,
                    etcd: 7007
                },
                NodePorts {
                    api: 7004,
                    peer: 7006,
                    etcd: 7008
                }
            ]
        }
    );
}

#[test]
fn too_few_ports_are_an_error() {
    let error = Ports::pick(u16::MAX - 3, 3, |_| true).expect_err("4 ports for 7");
    assert!(error.to_string().contains("--base-port"), "{error}");
}

#[test]
fn a_quorum_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let layout = Layout::new(dir.path()).expect("absolute");
    let ports = Ports::pick(7000, 3, |_| true).expect("enough");
    let quorum = Quorum::new("q-1".into(), "ab".into(), &ports);
    layout.save(&quorum).expect("written");
    assert_eq!(layout.existing().expect("read"), quorum);
}

#[test]
fn the_first_node_founds_and_the_others_join() {
    let layout = Layout::new(Path::new("q")).expect("absolute");
    let ports = Ports::pick(7000, 3, |_| true).expect("enough");
    let quorum = Quorum::new("q-1".into(), "ab".into(), &ports);
    let first = layout.settings(&quorum, &quorum.nodes[0], Age::New);
    let second = layout.settings(&quorum, &quorum.nodes[1], Age::New);
    assert_eq!(
        (first.bootstrap.as_deref(), first.join_addresses),
        (Some("genesis"), None)
    );
    assert_eq!(
        second.join_addresses,
        Some(vec![
            "127.0.0.1:7004".to_owned(),
            "127.0.0.1:7006".to_owned()
        ])
    );
}

#[test]
fn nobody_founds_a_quorum_that_stands() {
    let layout = Layout::new(Path::new("q")).expect("absolute");
    let ports = Ports::pick(7000, 3, |_| true).expect("enough");
    let quorum = Quorum::new("q-1".into(), "ab".into(), &ports);
    let first = layout.settings(&quorum, &quorum.nodes[0], Age::Standing);
    assert_eq!(first.bootstrap.as_deref(), Some("join"));
}

#[test]
fn a_folder_that_is_no_quorums_is_not_purged() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("kubeconfig"), "theirs").expect("written");
    let layout = Layout::new(dir.path()).expect("absolute");
    layout.purge().expect_err("not a quorum's");
    assert!(dir.path().join("kubeconfig").exists());
}
