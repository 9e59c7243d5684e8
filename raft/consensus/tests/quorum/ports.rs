//! A quorum of real nodes in one process: what it promises to those above it.

use std::sync::Arc;

use crate::world::{Quorum, eventually, get, put};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use nautilus_consensus::JoinRequest;
use nautilus_consensus::transport::plain::PlainTransport;
use nautilus_machine::{
    ClusterError, Command, Digest, KeyRange, LeaderHandler, NewMember, Operation, Outcome,
    Proposal, RangeRequest, Txn, TxnOutcome, WatchRequest,
};

#[test]
fn a_write_on_any_node_is_readable_after_a_barrier_on_every_other() {
    let quorum = Quorum::of(3);
    for writer in 1..=3 {
        let key = format!("from-{writer}");
        let node = quorum.node(writer);
        node.run(node.kv().propose(put(&key, "value"))).unwrap();
        for reader in 1..=3 {
            let node = quorum.node(reader);
            node.run(node.kv().read_barrier()).unwrap();
            assert_eq!(
                get(node.kv().as_ref(), &key).as_deref(),
                Some("value"),
                "{writer} to {reader}"
            );
        }
    }
}

#[test]
fn a_restarted_node_comes_back_from_its_log() {
    let mut quorum = Quorum::of(1);
    let node = quorum.node(1);
    for at in 0..100 {
        node.run(
            node.kv()
                .propose(put(&format!("key-{at}"), &at.to_string())),
        )
        .unwrap();
    }
    quorum.node_mut(1).kill();
    quorum.node_mut(1).start();
    quorum.leader();
    let node = quorum.node(1);
    node.run(node.kv().read_barrier()).unwrap();
    assert!(
        (0..100).all(|at| get(node.kv().as_ref(), &format!("key-{at}")) == Some(at.to_string()))
    );
}

#[test]
fn leadership_is_handed_over_on_request_and_on_an_orderly_end() {
    let mut quorum = Quorum::of(3);
    let follower = quorum.followers()[0];
    let asked = quorum.followers()[1];
    let node = quorum.node(asked);
    node.run(node.cluster().transfer(follower)).unwrap();
    eventually("the follower leads", || quorum.leader() == follower);
    quorum.node_mut(follower).shutdown();
    assert_ne!(quorum.leader(), follower);
}

#[test]
fn members_are_added_promoted_and_removed() {
    let mut quorum = Quorum::of(3);
    quorum.add_learner(4);
    assert_eq!(quorum.voters(), 3);
    let node = quorum.node(2);
    node.run(node.cluster().promote(4)).unwrap();
    eventually("four voters", || quorum.voters() == 4);
    let node = quorum.node(4);
    eventually("the new one knows itself", || {
        node.cluster().members().len() == 4
    });
    node.run(node.kv().propose(put("through-the-new-one", "yes")))
        .unwrap();
    let leader = quorum.leader();
    let other = quorum.followers()[0];
    let node = quorum.node(other);
    node.run(node.cluster().remove(leader)).unwrap();
    eventually("three voters", || node.cluster().members().len() == 3);
    node.run(node.kv().propose(put("without-the-old-leader", "yes")))
        .unwrap();
}

#[test]
fn a_node_that_was_not_admitted_or_runs_elsewhere_is_refused_by_name() {
    let mut quorum = Quorum::of(1);
    quorum.add_learner(2);
    let address = quorum.node(1).address.to_string();
    let ask = |id: u64, platform: &str| {
        let request = JoinRequest {
            node_id: id,
            api_address: String::new(),
            client_address: String::new(),
            peer_address: "127.0.0.1:1".into(),
        };
        let transport = Arc::new(PlainTransport::new(id, platform));
        let node = quorum.node(1);
        node.run(nautilus_consensus::join(
            transport,
            std::slice::from_ref(&address),
            request,
        ))
        .err()
        .unwrap()
        .to_string()
    };
    let stranger = ask(9, "chip-9");
    assert!(stranger.contains("node 9 was not admitted"), "{stranger}");
    let impostor = ask(2, "chip-stolen");
    assert!(
        impostor.contains("chip-2") && impostor.contains("chip-stolen"),
        "{impostor}"
    );
    let forgetful = ask(1, "chip-1");
    assert!(
        forgetful.contains("node 1 is a voter and comes back with an empty disk"),
        "{forgetful}"
    );
}

#[test]
fn an_id_in_use_is_not_admitted_again_elsewhere() {
    let quorum = Quorum::of(1);
    let node = quorum.node(1);
    let member = NewMember {
        id: 1,
        peer_address: "127.0.0.1:9".into(),
    };
    let refused = node.run(node.cluster().add(member));
    assert!(
        matches!(refused, Err(ClusterError::Invalid(text)) if text.contains("node 1 is a member already"))
    );
}

struct Echo(u64);

impl LeaderHandler for Echo {
    fn handle(&self, message: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
        let text = format!("{} heard {}", self.0, String::from_utf8_lossy(&message));
        Box::pin(async move { Ok(text.into()) })
    }
}

#[test]
fn a_message_to_the_leader_arrives_from_every_node() {
    let quorum = Quorum::of(3);
    for node in &quorum.nodes {
        node.consensus().set_leader_handler(Arc::new(Echo(node.id)));
    }
    let leader = quorum.leader();
    for node in &quorum.nodes {
        let answer = node
            .run(
                node.consensus()
                    .leader_channel()
                    .call(Bytes::from_static(b"you")),
            )
            .unwrap();
        assert_eq!(answer, format!("{leader} heard you"));
    }
}

#[test]
fn a_watch_on_a_follower_sees_past_and_future_in_order() {
    let quorum = Quorum::of(3);
    let follower = quorum.node(quorum.followers()[0]);
    for at in 0..20 {
        follower
            .run(follower.kv().propose(put(&format!("watched/{at}"), "past")))
            .unwrap();
    }
    let request = WatchRequest {
        range: KeyRange::prefix("watched/"),
        from: Some(2),
        previous: true,
    };
    let mut watcher = follower.kv().watch(request).unwrap();
    let mut seen = Vec::new();
    for at in 20..40 {
        let leader = quorum.node(quorum.leader());
        leader
            .run(leader.kv().propose(put(&format!("watched/{at}"), "future")))
            .unwrap();
    }
    while seen.len() < 40 {
        let events = follower.run(watcher.next()).unwrap();
        seen.extend(
            events
                .into_iter()
                .map(|event| String::from_utf8(event.kv.key.to_vec()).unwrap()),
        );
    }
    assert_eq!(
        seen,
        (0..40)
            .map(|at| format!("watched/{at}"))
            .collect::<Vec<_>>()
    );
}

#[test]
fn an_answer_larger_than_a_message_between_nodes_comes_back_whole() {
    let quorum = Quorum::of(3);
    let node = quorum.node(quorum.followers()[0]);
    let value = "v".repeat(3 << 20);
    for at in 0..7 {
        let proposal = put(&format!("large/{at}"), &value);
        node.run(node.kv().propose(proposal)).unwrap();
    }
    let all = RangeRequest::newest(KeyRange::prefix("large/"));
    let read = Proposal::new(Command::Txn(Txn {
        then: vec![Operation::Range(all)],
        ..Txn::default()
    }));
    let applied = node.run(node.kv().propose(read)).unwrap();
    let Outcome::Txn { results, .. } = applied.outcome else {
        panic!("not a transaction's outcome");
    };
    let [TxnOutcome::Range(found)] = &results[..] else {
        panic!("not a range's outcome");
    };
    assert_eq!(found.kvs.len(), 7);
    assert!(found.kvs.iter().all(|kv| kv.value == value.as_bytes()));
}

#[test]
fn replicas_hold_the_same_digest_at_every_checkpoint() {
    let quorum = Quorum::tuned(3, Arc::new(|config| config.checkpoint_every_entries = 50));
    let node = quorum.node(quorum.followers()[0]);
    for at in 0..200 {
        node.run(
            node.kv()
                .propose(put(&format!("digest-{}", at % 30), &at.to_string())),
        )
        .unwrap();
    }
    let checkpoints = || -> Vec<_> {
        quorum
            .nodes
            .iter()
            .map(|node| node.cluster().status().checkpoint)
            .collect()
    };
    eventually("one checkpoint on all", || {
        let found = checkpoints();
        found[0].as_ref().is_some_and(|(index, _)| *index >= 150)
            && found.iter().all(|one| *one == found[0])
    });
}

#[test]
fn a_replica_whose_digest_differs_from_the_leaders_ends_and_names_both() {
    let quorum = Quorum::tuned(3, Arc::new(|config| config.checkpoint_every_entries = 20));
    let node = quorum.node(quorum.followers()[0]);
    for at in 0..40 {
        node.run(node.kv().propose(put(&format!("diverge-{at}"), "value")))
            .unwrap();
    }
    eventually("a checkpoint", || {
        node.cluster().status().checkpoint.is_some()
    });
    // What the leader of a diverged quorum would say: its note of the same place, but another digest.
    let read = Proposal::new(Command::Checkpoint { previous: None });
    let checkpoint = node.run(node.kv().propose(read)).unwrap();
    let Outcome::Checkpoint { digest, .. } = checkpoint.outcome else {
        panic!("{:?}", checkpoint.outcome)
    };
    let fatals: Vec<_> = quorum
        .nodes
        .iter()
        .map(|node| node.consensus().fatal())
        .collect();
    let lie = Proposal::new(Command::Checkpoint {
        previous: Some((checkpoint.position, Digest([0xee; 32]))),
    });
    let refused = node.run(node.kv().propose(lie));
    assert!(refused.is_err(), "{refused:?}");
    for fatal in fatals {
        let text = node.run(fatal).to_string();
        let ours: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(
            text.contains("replicas diverged") && text.contains(&ours) && text.contains("eeee"),
            "{text}"
        );
    }
}

#[test]
fn a_watcher_slower_than_queue_and_ring_misses_nothing() {
    let quorum = Quorum::tuned(
        1,
        Arc::new(|config| {
            config.limits.hub.ring_events = 10;
            config.limits.hub.queue_events = 5;
        }),
    );
    let node = quorum.node(1);
    let request = WatchRequest {
        range: KeyRange::prefix("slow/"),
        from: None,
        previous: true,
    };
    let mut watcher = node.kv().watch(request).unwrap();
    for at in 0..50 {
        node.run(node.kv().propose(put(&format!("slow/{at}"), "value")))
            .unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        let events = node.run(watcher.next()).unwrap();
        seen.extend(
            events
                .into_iter()
                .map(|event| String::from_utf8(event.kv.key.to_vec()).unwrap()),
        );
    }
    assert_eq!(
        seen,
        (0..50).map(|at| format!("slow/{at}")).collect::<Vec<_>>()
    );
}

#[test]
fn nothing_written_is_readable_in_any_file() {
    let mut quorum = Quorum::tuned(3, Arc::new(|config| config.checkpoint_every_entries = 20));
    let node = quorum.node(1);
    for at in 0..60 {
        node.run(
            node.kv()
                .propose(put(&format!("planted-key-name-{at}"), "planted-value-text")),
        )
        .unwrap();
    }
    eventually("a snapshot", || {
        quorum
            .folder
            .path()
            .join("1/snapshots")
            .read_dir()
            .unwrap()
            .next()
            .is_some()
    });
    for id in 1..=3 {
        quorum.node_mut(id).shutdown();
    }
    let mut folders = vec![quorum.folder.path().to_path_buf()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let planted = bytes.windows(8).any(|window| window == b"planted-");
            assert!(!planted, "{}", path.display());
        }
    }
    assert!(files > 10);
}
