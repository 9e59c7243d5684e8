//! etcdctl of the present release through every command, against a quorum of three.

use std::time::Duration;

use nautilus_tests::{Etcdctl, Quorum, Streamed, eventually, other_than};
use serde_json::Value;

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn keys_are_put_read_compared_deleted_compacted_and_watched() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    put_and_get(&etcdctl);
    transactions(&etcdctl);
    watches(&etcdctl);
    deletion_and_compaction(&etcdctl);
    mirror(&etcdctl);
}

fn put_and_get(etcdctl: &Etcdctl) {
    for (key, value) in [
        ("a/1", "one"),
        ("a/2", "two"),
        ("a/3", "three"),
        ("b", "bee"),
    ] {
        assert_eq!(etcdctl.ok(&["put", key, value]), "OK\n");
    }
    assert_eq!(
        etcdctl.ok_with_input(&["put", "from-input"], "piped"),
        "OK\n"
    );
    assert_eq!(
        etcdctl.ok(&["get", "from-input", "--print-value-only"]),
        "piped\n"
    );
    let previous = etcdctl.ok(&["put", "--prev-kv", "a/1", "uno"]);
    assert_eq!(lines(&previous), ["OK", "a/1", "one"]);
    assert_eq!(etcdctl.ok(&["put", "--ignore-value", "a/1"]), "OK\n");
    assert_eq!(etcdctl.ok(&["get", "a/1"]), "a/1\nuno\n");
    assert_eq!(
        lines(&etcdctl.ok(&["get", "a/", "--prefix", "--keys-only"])),
        ["a/1", "", "a/2", "", "a/3", ""]
    );
    assert_eq!(
        etcdctl.ok(&["get", "a/2", "b", "--print-value-only"]),
        "two\nthree\n"
    );
    assert_eq!(
        etcdctl.ok(&[
            "get",
            "a/3",
            "--from-key",
            "--limit=2",
            "--print-value-only"
        ]),
        "three\nbee\n"
    );
    let descending = [
        "get",
        "a/",
        "--prefix",
        "--sort-by=VALUE",
        "--order=DESCEND",
        "--print-value-only",
    ];
    assert_eq!(etcdctl.ok(&descending), "uno\ntwo\nthree\n");
    let counted = etcdctl.ok(&[
        "get",
        "a/",
        "--prefix",
        "--count-only",
        "--write-out=fields",
    ]);
    assert!(counted.contains("\"Count\" : 3"), "{counted}");
    let first = etcdctl.json(&["get", "a/1"]);
    let created = &first["kvs"][0]["create_revision"];
    let at = format!("--rev={created}");
    assert_eq!(
        etcdctl.ok(&["get", "a/1", &at, "--print-value-only"]),
        "one\n"
    );
    for node in 1..=3 {
        let on = etcdctl.clone().on(node);
        assert_eq!(
            on.ok(&["get", "b", "--print-value-only"]),
            "bee\n",
            "linearizable on {node}"
        );
        eventually("a serializable read", || {
            let read = on.ok(&["get", "b", "--consistency=s", "--print-value-only"]);
            (read == "bee\n").then_some(()).ok_or(read)
        });
    }
    let none = etcdctl.refused(&["put", "--ignore-value", "nothing-here"]);
    assert!(none.contains("etcdserver: key not found"), "{none}");
    let future = etcdctl.refused(&["get", "a/1", "--rev=1000000"]);
    assert!(
        future.contains("etcdserver: mvcc: required revision is a future revision"),
        "{future}"
    );
}

fn transactions(etcdctl: &Etcdctl) {
    let equal =
        "value(\"b\") = \"bee\"\nversion(\"b\") = \"1\"\n\nput t then\nget b\n\nput t else\n\n";
    assert_eq!(
        lines(&etcdctl.ok_with_input(&["txn"], equal)),
        ["SUCCESS", "", "OK", "", "b", "bee"]
    );
    let differs = "mod(\"b\") < \"1\"\n\nput t then\n\ndel t\n\n";
    assert_eq!(
        lines(&etcdctl.ok_with_input(&["txn"], differs)),
        ["FAILURE", "", "1"]
    );
    let output = etcdctl.call_with_input(&["txn"], "\nput twice 1\nput twice 2\n\n\n");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("etcdserver: duplicate key given in txn request"),
        "{error}"
    );
}

fn watches(etcdctl: &Etcdctl) {
    let past = ["watch", "a/1", "--rev=1", "--prev-kv"];
    let mut watch = Streamed::start(etcdctl.command(&past));
    watch.wait_for("the first value", |line| line == "one");
    watch.wait_for("the second value", |line| line == "uno");
    let mut prefix =
        Streamed::start(etcdctl.command(&["watch", "w/", "--prefix", "--progress-notify"]));
    eventually("an event", || {
        etcdctl.ok(&["put", "w/x", "seen"]);
        let seen = prefix.drain(Duration::from_millis(300));
        seen.iter()
            .any(|line| line == "seen")
            .then_some(())
            .ok_or_else(|| format!("{seen:?}"))
    });
    etcdctl.ok(&["del", "w/x"]);
    prefix.wait_for("the deletion", |line| line == "DELETE");
}

fn deletion_and_compaction(etcdctl: &Etcdctl) {
    etcdctl.ok(&["put", "d/1", "x"]);
    etcdctl.ok(&["put", "d/2", "y"]);
    assert_eq!(
        lines(&etcdctl.ok(&["del", "d/1", "--prev-kv"])),
        ["1", "d/1", "x"]
    );
    assert_eq!(etcdctl.ok(&["del", "d/", "--prefix"]), "1\n");
    assert_eq!(etcdctl.ok(&["del", "d/", "--prefix"]), "0\n");
    let now = etcdctl.json(&["get", "b"])["header"]["revision"].to_string();
    let done = etcdctl.ok(&["compaction", "--physical", &now]);
    assert_eq!(done, format!("compacted revision {now}\n"));
    let gone = etcdctl.refused(&["get", "b", "--rev=2"]);
    assert!(
        gone.contains("etcdserver: mvcc: required revision has been compacted"),
        "{gone}"
    );
    let again = etcdctl.refused(&["compaction", "2"]);
    assert!(
        again.contains("etcdserver: mvcc: required revision has been compacted"),
        "{again}"
    );
    let watch = etcdctl.refused(&["watch", "b", "--rev=2"]);
    assert!(
        watch.contains("required revision has been compacted"),
        "{watch}"
    );
}

fn mirror(etcdctl: &Etcdctl) {
    etcdctl.ok(&["put", "from/x", "mirrored"]);
    let own = |name: &str| etcdctl.value(name).to_owned();
    let arguments = [
        "make-mirror".to_owned(),
        "--prefix=from/".to_owned(),
        "--dest-prefix=to/".to_owned(),
        format!("--dest-cacert={}", own("ETCDCTL_CACERT")),
        format!("--dest-cert={}", own("ETCDCTL_CERT")),
        format!("--dest-key={}", own("ETCDCTL_KEY")),
        etcdctl.endpoint(2),
    ];
    let _mirror = Streamed::start(etcdctl.command(&arguments));
    eventually("the mirrored key", || {
        let read = etcdctl.ok(&["get", "to/x", "--print-value-only"]);
        (read == "mirrored\n").then_some(()).ok_or(read)
    });
    etcdctl.ok(&["put", "from/y", "later"]);
    eventually("the key put later", || {
        let read = etcdctl.ok(&["get", "to/y", "--print-value-only"]);
        (read == "later\n").then_some(()).ok_or(read)
    });
}

#[test]
fn leases_locks_and_elections_work() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    let granted = etcdctl.ok(&["lease", "grant", "600"]);
    let id = granted.split_whitespace().nth(1).expect("an id").to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(600s)\n"));
    etcdctl.ok(&["put", "leased", "x", &format!("--lease={id}")]);
    let listed = etcdctl.ok(&["lease", "list"]);
    assert_eq!(lines(&listed), ["found 1 leases", &id[..]]);
    let left = etcdctl.ok(&["lease", "timetolive", &id, "--keys"]);
    assert!(
        left.contains("granted with TTL(600s)") && left.contains("attached keys([leased])"),
        "{left}"
    );
    let kept = etcdctl.ok(&["lease", "keep-alive", "--once", &id]);
    assert_eq!(kept, format!("lease {id} keepalived with TTL(600)\n"));
    assert_eq!(
        etcdctl.ok(&["lease", "revoke", &id]),
        format!("lease {id} revoked\n")
    );
    assert_eq!(etcdctl.ok(&["get", "leased"]), "");
    let gone = etcdctl.refused(&["lease", "revoke", &id]);
    assert!(
        gone.contains("etcdserver: requested lease not found"),
        "{gone}"
    );
    assert!(
        etcdctl
            .ok(&["lease", "timetolive", &id])
            .contains("already expired")
    );
    let gone = etcdctl.refused(&["put", "leased", "x", &format!("--lease={id}")]);
    assert!(
        gone.contains("etcdserver: requested lease not found"),
        "{gone}"
    );

    let mut holder = Streamed::start(etcdctl.command(&["lock", "mutex"]));
    let held = holder.wait_for("the lock", |line| line.starts_with("mutex/"));
    let mut waiter = Streamed::start(etcdctl.command(&["lock", "mutex", "echo", "mine"]));
    eventually("a second waiter", || {
        let keys = etcdctl.ok(&["get", "mutex/", "--prefix", "--keys-only"]);
        (keys.matches("mutex/").count() == 2)
            .then_some(())
            .ok_or(keys)
    });
    assert!(waiter.is_running());
    etcdctl.ok(&["del", &held]);
    waiter.wait_for("the command under the lock", |line| line == "mine");

    let mut observer = Streamed::start(etcdctl.command(&["elect", "--listen", "post"]));
    let mut candidate = Streamed::start(etcdctl.command(&["elect", "post", "me"]));
    candidate.wait_for("the election", |line| line == "me");
    observer.wait_for("the leader", |line| line == "me");
}

#[test]
fn the_cluster_is_shown_and_maintained() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    etcdctl.ok(&["put", "k", "v"]);
    let healthy = etcdctl.call(&["endpoint", "health", "--cluster"]);
    assert!(healthy.status.success(), "{healthy:?}");
    let status = etcdctl.json(&["endpoint", "status", "--cluster"]);
    let status = status.as_array().expect("three members").clone();
    assert_eq!(status.len(), 3);
    let leader = quorum.leader();
    for member in &status {
        assert_eq!(member["Status"]["leader"], Value::from(leader.id));
        assert!(
            member["Status"]["version"]
                .as_str()
                .is_some_and(|version| version.starts_with("3.6."))
        );
        assert!(
            member["Status"]["dbSize"]
                .as_u64()
                .is_some_and(|bytes| bytes > 0),
            "{member}"
        );
    }
    let table = etcdctl.ok(&["endpoint", "status", "--cluster", "--write-out=table"]);
    assert_eq!(table.matches("| ").count() % 3, 0, "{table}");
    hashes(&etcdctl);
    members(&etcdctl);
    snapshot(&quorum, &etcdctl);
    assert_eq!(
        etcdctl
            .ok(&["defrag", "--cluster"])
            .matches("Finished defragmenting")
            .count(),
        3
    );
    alarms(&etcdctl);
    downgrade(&etcdctl);
    for local in [
        &["version"][..],
        &["help"],
        &["options"],
        &["completion", "bash"],
    ] {
        assert!(!etcdctl.ok(local).is_empty(), "{local:?}");
    }
    let follower = other_than(&leader, &quorum.nodes());
    let to = format!("{:x}", follower.id);
    let refused = etcdctl
        .clone()
        .on(follower.id)
        .refused(&["move-leader", &to]);
    assert!(refused.contains("no leader endpoint given"), "{refused}");
    etcdctl.ok(&["move-leader", &to]);
    eventually("the new leader", || {
        let now = quorum.leader();
        (now.id == follower.id)
            .then_some(())
            .ok_or_else(|| format!("{now:?}"))
    });
}

fn hashes(etcdctl: &Etcdctl) {
    eventually("equal hashes", || {
        let hashes = etcdctl.json(&["endpoint", "hashkv", "--cluster"]);
        let hashes: Vec<&Value> = hashes
            .as_array()
            .expect("three members")
            .iter()
            .map(|member| &member["HashKV"]["hash"])
            .collect();
        let equal = hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]);
        equal.then_some(()).ok_or_else(|| format!("{hashes:?}"))
    });
}

fn members(etcdctl: &Etcdctl) {
    let listed = etcdctl.ok(&["member", "list"]);
    assert_eq!(
        listed.matches(", started, nautilus-").count(),
        3,
        "{listed}"
    );
    let added = etcdctl.ok(&[
        "member",
        "add",
        "fourth",
        "--learner",
        "--peer-urls=https://127.0.0.1:23999",
    ]);
    assert!(
        added.starts_with("Member                4 added as learner to cluster"),
        "{added}"
    );
    let twice = etcdctl.refused(&[
        "member",
        "add",
        "again",
        "--learner",
        "--peer-urls=https://127.0.0.1:23999",
    ]);
    assert!(
        twice.contains("etcdserver: Peer URLs already exists"),
        "{twice}"
    );
    let early = etcdctl.refused(&["member", "promote", "4"]);
    assert!(
        early.contains("can only promote a learner member which is in sync with leader"),
        "{early}"
    );
    etcdctl.ok(&[
        "member",
        "update",
        "4",
        "--peer-urls=https://127.0.0.1:23998",
    ]);
    let listed = etcdctl.ok(&["member", "list"]);
    assert!(
        listed.contains("4, unstarted, , https://127.0.0.1:23998, , true"),
        "{listed}"
    );
    assert!(
        etcdctl
            .ok(&["member", "remove", "4"])
            .contains("removed from cluster")
    );
    assert!(
        etcdctl
            .refused(&["member", "remove", "4"])
            .contains("etcdserver: member not found")
    );
    assert!(
        etcdctl
            .refused(&["member", "promote", "1"])
            .contains("can only promote a learner member")
    );
}

fn snapshot(quorum: &Quorum, etcdctl: &Etcdctl) {
    let file = quorum.dir().join("snapshot.db");
    let path = file.display().to_string();
    let saved = etcdctl.clone().on(1).ok(&["snapshot", "save", &path]);
    assert!(saved.contains("Snapshot saved at"), "{saved}");
    let bytes = std::fs::read(&file).expect("the snapshot");
    assert_eq!(bytes.len() % 512, 32);
    assert!(
        !bytes.windows(9).any(|window| window == b"nautilus/"),
        "it is sealed"
    );
}

fn alarms(etcdctl: &Etcdctl) {
    assert_eq!(etcdctl.ok(&["alarm", "list"]), "");
    assert_eq!(etcdctl.ok(&["alarm", "disarm"]), "");
}

fn downgrade(etcdctl: &Etcdctl) {
    let none = etcdctl.refused(&["downgrade", "validate", "3.5"]);
    assert!(
        none.contains("etcdserver: invalid downgrade target version"),
        "{none}"
    );
    let none = etcdctl.refused(&["downgrade", "enable", "3.5"]);
    assert!(
        none.contains("etcdserver: invalid downgrade target version"),
        "{none}"
    );
    assert!(
        etcdctl
            .ok(&["downgrade", "cancel"])
            .contains("Downgrade cancel success")
    );
}

#[test]
fn no_space_stops_writes_until_it_is_disarmed() {
    let quorum = Quorum::start_with(&[("NAUTILUS_ETCD_QUOTA_BACKEND_BYTES", "1")]);
    let etcdctl = quorum.etcdctl();
    eventually("the alarm", || {
        let listed = etcdctl.ok(&["alarm", "list"]);
        listed.contains("alarm:NOSPACE").then_some(()).ok_or(listed)
    });
    let refused = etcdctl.refused(&["put", "k", "v"]);
    assert!(
        refused.contains("etcdserver: mvcc: database space exceeded"),
        "{refused}"
    );
    assert!(etcdctl.ok(&["alarm", "disarm"]).contains("alarm:NOSPACE"));
}

#[test]
fn users_have_the_rights_of_their_roles() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    assert!(
        etcdctl
            .ok(&["auth", "status"])
            .contains("Authentication Status: false")
    );
    assert!(
        etcdctl
            .refused(&["auth", "enable"])
            .contains("root user does not exist")
    );
    etcdctl.ok(&["user", "add", "root:rootpass"]);
    etcdctl.ok(&["user", "grant-role", "root", "root"]);
    etcdctl.ok(&["user", "add", "alice", "--new-user-password=pass"]);
    etcdctl.ok_with_input(&["user", "add", "bob", "--interactive=false"], "bobpass\n");
    etcdctl.ok(&["user", "add", "carol", "--no-password"]);
    etcdctl.ok(&["role", "add", "writer"]);
    etcdctl.ok(&[
        "role",
        "grant-permission",
        "writer",
        "readwrite",
        "app/",
        "--prefix",
    ]);
    etcdctl.ok(&[
        "role",
        "grant-permission",
        "writer",
        "read",
        "z",
        "--from-key",
    ]);
    let shown = etcdctl.ok(&["role", "get", "writer"]);
    assert!(
        shown.contains("[app/, app0) (prefix app/)") && shown.contains("[z, <open ended>"),
        "{shown}"
    );
    for user in ["alice", "carol"] {
        etcdctl.ok(&["user", "grant-role", user, "writer"]);
    }
    let alice_certificate = quorum.client_certificate("carol", "people");
    etcdctl.ok(&["auth", "enable"]);

    let root = etcdctl.clone().with_user("root", "rootpass");
    let alice = etcdctl.clone().with_user("alice", "pass");
    assert!(
        root.ok(&["auth", "status"])
            .contains("Authentication Status: true")
    );
    assert_eq!(root.ok(&["user", "list"]), "alice\nbob\ncarol\nroot\n");
    assert_eq!(root.ok(&["role", "list"]), "writer\n");
    assert_eq!(alice.ok(&["put", "app/x", "1"]), "OK\n");
    assert!(
        alice
            .refused(&["put", "other", "1"])
            .contains("etcdserver: permission denied")
    );
    assert!(
        alice
            .refused(&["user", "list"])
            .contains("etcdserver: permission denied")
    );
    assert!(
        alice
            .refused(&["endpoint", "hashkv"])
            .contains("permission denied")
    );
    assert!(
        etcdctl
            .refused(&["get", "app/x"])
            .contains("etcdserver: permission denied"),
        "the administrator is no user"
    );
    let wrong = etcdctl.clone().with_user("alice", "wrong");
    assert!(
        wrong
            .refused(&["get", "app/x"])
            .contains("authentication failed, invalid user ID or password")
    );
    let carol = etcdctl.clone().with_certificate(&alice_certificate);
    assert_eq!(
        carol.ok(&["get", "app/x", "--print-value-only"]),
        "1\n",
        "by the certificate's name"
    );
    assert!(
        carol
            .refused(&["get", "other"])
            .contains("etcdserver: permission denied")
    );

    quorum.kill(&quorum.leader());
    eventually("a write without the leader that gave the tokens", || {
        let put = alice.call(&["put", "app/x", "2"]);
        put.status
            .success()
            .then_some(())
            .ok_or_else(|| format!("{put:?}"))
    });
    root.ok_with_input(&["user", "passwd", "alice", "--interactive=false"], "new\n");
    assert!(
        alice
            .refused(&["get", "app/x"])
            .contains("authentication failed")
    );
    root.ok(&["role", "revoke-permission", "writer", "app/", "--prefix"]);
    assert!(
        carol
            .refused(&["get", "app/x"])
            .contains("etcdserver: permission denied")
    );
    root.ok(&["user", "revoke-role", "alice", "writer"]);
    root.ok(&["role", "delete", "writer"]);
    assert_eq!(
        lines(&root.ok(&["user", "get", "carol"])),
        ["User: carol", "Roles:"]
    );
    root.ok(&["user", "delete", "alice"]);
    root.ok(&["auth", "disable"]);
    assert_eq!(etcdctl.ok(&["get", "app/x", "--print-value-only"]), "2\n");
}

#[test]
fn the_load_check_writes_and_reads_what_it_wants() {
    // Sixty seconds at 150 writes a second; how fast they are is the benches' matter.
    // (`check datascale` reads /metrics without a certificate: no member under mutual
    // TLS, of etcd or of ours, answers it.)
    let quorum = Quorum::start();
    let checked = quorum.etcdctl().call(&["check", "perf", "--load=s"]);
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        printed.contains("Throughput") && !printed.contains("error"),
        "{printed}{error}"
    );
}
