//! etcd's Go client and its concurrency package against a quorum, the leader's death
//! included.

use nautilus_tests::{Quorum, Streamed};

#[track_caller]
fn succeeds(quorum: &Quorum, arguments: &[&str]) {
    let mut client = Streamed::start(quorum.etcdctl().client("etcdclient", arguments));
    let last = client.wait_for("its verdict", |line| {
        line == "ok" || line.starts_with("failed")
    });
    assert_eq!(last, "ok", "{arguments:?}");
    assert!(client.join().success());
}

#[test]
fn locks_elections_transactional_memory_and_leases_keep_their_promises() {
    let quorum = Quorum::start();
    for promise in ["counter", "election", "stm", "leases"] {
        succeeds(&quorum, &[promise]);
    }
}

#[test]
fn a_lock_outlives_the_leader_and_goes_to_who_waits_only_when_it_is_released() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    let hold = |who: &str| Streamed::start(etcdctl.client("etcdclient", &["hold", "l", who]));
    let mut first = hold("first");
    let key = first.wait_for("the lock", |line| line.starts_with("held "));
    let key = key.trim_start_matches("held ").to_owned();
    let mut second = hold("second");
    second.wait_for("the second", |line| line == "waits");
    quorum.kill(&quorum.leader());
    // The lock's key is there, under its lease, once there is a new leader.
    let shown = etcdctl.eventually_ok(&["get", &key, "--keys-only"]);
    assert!(shown.starts_with(&key), "{shown}");
    assert!(first.is_running() && second.is_running());
    etcdctl.eventually_ok(&["put", "/release/l/first", ""]);
    first.wait_for("the release", |line| line == "released");
    second.wait_for("its turn", |line| line.starts_with("held "));
    etcdctl.eventually_ok(&["put", "/release/l/second", ""]);
    second.wait_for("its end", |line| line == "ok");
}

#[test]
fn a_watch_loses_nothing_when_the_leader_is_killed() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    let mut watch = Streamed::start(etcdctl.client("etcdclient", &["watch", "/seen/", "20"]));
    for round in 0..20 {
        if round == 10 {
            quorum.kill(&quorum.leader());
        }
        etcdctl.eventually_ok(&["put", &format!("/seen/{round}"), "x"]);
    }
    let last = watch.wait_for("every event", |line| {
        line == "ok" || line.starts_with("failed")
    });
    let seen = watch.drain(std::time::Duration::from_millis(10));
    assert_eq!(last, "ok", "{seen:?}");
    for round in 0..10 {
        let wanted = format!("saw /seen/{round}");
        assert!(seen.contains(&wanted), "{wanted} is missing in {seen:?}");
    }
}
