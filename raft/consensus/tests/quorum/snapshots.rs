//! Nodes that are too far behind for the log.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nautilus_consensus::transport::plain::PlainTransport;
use nautilus_consensus::{JoinRequest, join};
use nautilus_machine::NewMember;

use crate::world::{Node, Quorum, Tune, eventually, get, put};

fn short_log() -> Tune {
    Arc::new(|config| {
        config.checkpoint_every_entries = 200;
        config.log_tail_entries = 100;
        config.segment_bytes = 256 << 10;
    })
}

/// Writes until the log has been shortened.
fn fill(quorum: &Quorum, megabytes: usize) {
    let node = quorum.node(quorum.leader());
    let value = "v".repeat(16 << 10);
    let writes = (megabytes << 20) / value.len();
    for at in 0..writes.max(600) {
        node.run(node.kv().propose(put(&format!("fill-{at}"), &value)))
            .unwrap();
    }
    let log = node.dir.join("log");
    eventually("the first segment is gone", || {
        !log.join(format!("{:020}.log", 1)).exists()
    });
}

#[test]
fn a_node_that_was_away_too_long_gets_a_snapshot() {
    let mut quorum = Quorum::tuned(3, short_log());
    let away = quorum.followers()[0];
    quorum.node_mut(away).kill();
    fill(&quorum, 4);
    quorum.node_mut(away).start();
    let node = quorum.node(away);
    eventually("it has caught up", || {
        node.run(node.kv().read_barrier()).is_ok()
    });
    assert!(get(node.kv().as_ref(), "fill-599").is_some());
    eventually("a snapshot was installed", || {
        node.dir
            .join("snapshots")
            .read_dir()
            .unwrap()
            .next()
            .is_some()
    });
}

#[test]
fn a_snapshot_damaged_on_the_senders_disk_is_refused_and_made_anew() {
    let mut quorum = Quorum::tuned(3, short_log());
    let away = quorum.followers()[0];
    quorum.node_mut(away).kill();
    fill(&quorum, 4);
    let snapshots = quorum.node(quorum.leader()).dir.join("snapshots");
    let damaged: Vec<_> = snapshots
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for path in &damaged {
        let file = File::options().write(true).open(path).unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        file.write_all_at(b"rotten", middle).unwrap();
    }
    quorum.node_mut(away).start();
    let node = quorum.node(away);
    eventually("it has caught up", || {
        node.run(node.kv().read_barrier()).is_ok()
    });
    assert!(get(node.kv().as_ref(), "fill-599").is_some());
    eventually("the damaged one is gone", || {
        damaged.iter().all(|path| !path.exists())
    });
}

/// A pipe that breaks every connection after so many bytes, a few times.
fn cutting_proxy(to: SocketAddr, after_bytes: u64, cuts: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for incoming in listener.incoming() {
            let Ok(incoming) = incoming else { continue };
            let Ok(outgoing) = TcpStream::connect(to) else {
                continue;
            };
            let back = (outgoing.try_clone().unwrap(), incoming.try_clone().unwrap());
            let cuts = Arc::clone(&cuts);
            std::thread::spawn(move || copy(incoming, outgoing, after_bytes, &cuts));
            std::thread::spawn(move || copy(back.0, back.1, u64::MAX, &AtomicU64::new(0)));
        }
    });
    address
}

fn copy(mut from: TcpStream, mut to: TcpStream, limit: u64, cuts: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    let mut copied = 0;
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
        copied += length as u64;
        if copied > limit
            && cuts
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
        {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_snapshot_goes_on_where_a_broken_connection_left_it() {
    let quorum = Quorum::tuned(1, short_log());
    fill(&quorum, 24);
    let mut learner = Node::new(2, quorum.folder.path().join("2"), short_log());
    let cuts = Arc::new(AtomicU64::new(3));
    let proxy = cutting_proxy(learner.address, 8 << 20, Arc::clone(&cuts));
    let node = quorum.node(1);
    node.run(node.cluster().add(NewMember {
        id: 2,
        peer_address: proxy.to_string(),
    }))
    .unwrap();
    learner.start();
    let transport = Arc::new(PlainTransport::new(2, "chip-2"));
    let request = JoinRequest {
        node_id: 2,
        api_address: String::new(),
        client_address: String::new(),
        peer_address: proxy.to_string(),
    };
    learner
        .run(join(transport, &[node.address.to_string()], request))
        .unwrap();
    eventually("the learner has everything", || {
        get(learner.kv().as_ref(), "fill-1500").is_some()
    });
    // Each connection carries 8 MiB at most while it is cut: the whole never fits into one.
    assert!(cuts.load(Ordering::Relaxed) < 3, "no connection was cut");
}
