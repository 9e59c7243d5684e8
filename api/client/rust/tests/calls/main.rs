//! The client against nodes that tell the truth, and nodes that do not.

mod world;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_client::{CallError, Facts, Signer, Step, proof_message};

use world::{World, worker};

/// Steps of a running worker that wait to be looked at.
const MAX_STEPS: usize = 1000;

fn beat() -> Facts {
    Facts::default()
}

#[tokio::test]
async fn a_token_goes_to_a_proven_key_and_nowhere_else() {
    let world = World::new();
    let honest = world.node().await;
    let genuine = honest.spki.clone();
    for (said, other_code, relayed) in [
        ("is not in the policy", true, None),
        ("answers another question", false, Some(genuine)),
    ] {
        let liar = world.node().await;
        liar.script().other_code = other_code;
        liar.script().relayed = relayed;
        let error = world.worker(&[&liar]).register().await;
        let error = error.expect_err("not believed");
        assert!(matches!(error, CallError::Distrusted { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(liar.taken(), 0);
    }
    let worker = world.worker(&[&honest]);
    for _ in 0..3 {
        worker.beat(beat()).await.expect("taken");
    }
    let script = honest.script();
    assert_eq!((script.proofs, script.requests.len()), (1, 3));
    let (path, headers, body) = &script.requests[0];
    assert_eq!(path, "/api/v1/heartbeat");
    assert_eq!(headers["x-seal-token"], "seal-1");
    assert_eq!(body["node_id"], "worker-1");
    assert!(body["timestamp"].is_u64());
}

#[tokio::test]
async fn with_an_authority_only_its_quorum_is_believed() {
    let world = World::new();
    let node = world.node().await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut other = rcgen::CertificateParams::default();
    other.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let other = other.self_signed(&key).expect("signed");
    let mut config = world.config(&[&node]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(other.der().clone()).expect("a certificate");
    config.authority = Some(roots);
    let error = worker(config).register().await.expect_err("of another");
    assert!(matches!(error, CallError::Distrusted { .. }), "{error}");
    assert_eq!(node.script().proofs, 0);
    assert_eq!(node.taken(), 0);
}

#[tokio::test]
async fn a_node_with_another_key_is_judged_again_before_it_gets_a_byte() {
    let world = World::new();
    let node = world.node().await;
    let worker = world.worker(&[&node]);
    worker.beat(beat()).await.expect("taken");
    let node = world.again(node).await;
    worker.beat(beat()).await.expect("judged again");
    assert_eq!(node.script().proofs, 2);
    assert_eq!(node.taken(), 2);
    let node = world.again(node).await;
    node.script().other_code = true;
    let error = worker.beat(beat()).await.expect_err("other code now");
    assert!(matches!(error, CallError::Distrusted { .. }), "{error}");
    assert_eq!(node.taken(), 2);
}

#[tokio::test]
async fn dead_busy_and_silent_members_are_passed_over() {
    let world = World::new();
    let (dead, busy, alive) = (world.node().await, world.node().await, world.node().await);
    busy.script().status = 503;
    let members: Vec<_> = [&dead, &busy, &alive]
        .map(|node| node.address.to_string())
        .into();
    for node in [&dead, &busy, &alive] {
        node.script().members.clone_from(&members);
    }
    dead.kill();
    let worker = world.worker(&[&dead, &busy, &alive]);
    for _ in 0..3 {
        worker
            .beat(beat())
            .await
            .expect("taken by the one that can");
    }
    assert_eq!(alive.taken(), 3);
    // The one it stays with falls silent under a beat, and another can serve again.
    busy.script().status = 0;
    alive.script().silent = true;
    worker.beat(beat()).await.expect("taken by another");
    assert_eq!(alive.taken(), 4);
}

#[tokio::test]
async fn the_leader_is_followed_and_members_are_discovered_and_kept() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (first, leader) = (world.node().await, world.node().await);
    let members = vec![first.address.to_string(), leader.address.to_string()];
    first.script().members.clone_from(&members);
    leader.script().members = members;
    first.script().leader = Some(leader.address.to_string());
    let mut config = world.config(&[&first]);
    config.cache = Some(folder.path().join("members.json"));
    let joining = worker(config.clone());
    joining.beat(beat()).await.expect("taken");
    joining.register().await.expect("taken");
    assert_eq!((first.taken(), leader.taken()), (1, 1));
    // The next start needs nobody who was given.
    first.kill();
    config.endpoints.clear();
    worker(config).register().await.expect("taken");
    assert_eq!(leader.taken(), 2);
}

#[tokio::test]
async fn another_quorum_of_the_same_code_is_not_ours() {
    let world = World::new();
    let (ours, theirs) = (world.node().await, world.node().await);
    ours.script().members = vec![theirs.address.to_string()];
    theirs.script().cluster = "other".to_owned();
    let worker = world.worker(&[&ours]);
    worker.beat(beat()).await.expect("taken");
    ours.kill();
    let trying = tokio::time::timeout(Duration::from_secs(1), worker.beat(beat()));
    assert!(!matches!(trying.await, Ok(Ok(()))));
    assert_eq!(theirs.taken(), 0);
}

#[tokio::test]
async fn a_refusal_is_final_and_a_forgotten_worker_registers_again() {
    let world = World::new();
    let node = world.node().await;
    let worker = world
        .worker(&[&node])
        .with_interval(Duration::from_millis(1));
    node.script().status = 401;
    let error = worker.run(beat, |_, _| ()).await.expect_err("refused");
    assert_eq!(error.to_string(), "refused (HTTP 401): so says the node");
    node.script().status = 0;
    let (told, mut steps) = tokio::sync::mpsc::channel(MAX_STEPS);
    let running = worker.run(beat, |step, result| {
        let forgotten = matches!(result, Err(CallError::Refused { status: 404, .. }));
        node.script().status = match step {
            Step::Register => 404,
            Step::Beat => 0,
        };
        let _ = told.try_send((step, forgotten));
    });
    let watching = async {
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.extend(steps.recv().await);
        }
        seen
    };
    let seen = tokio::select! {
        result = running => panic!("{result:?}"),
        seen = watching => seen,
    };
    let wanted = [
        (Step::Register, false),
        (Step::Beat, true),
        (Step::Register, false),
        (Step::Beat, true),
    ];
    assert_eq!(seen, wanted);
}

struct Wallet;

impl Signer for Wallet {
    fn sign_personal_message(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        Ok([b"signed ", message].concat())
    }
}

#[tokio::test]
async fn the_owners_proof_goes_beside_the_token() {
    let world = World::new();
    let node = world.node().await;
    let worker = world.worker(&[&node]).with_owner(Arc::new(Wallet));
    worker.register().await.expect("taken");
    let script = node.script();
    let (_, headers, body) = &script.requests[0];
    let timestamp = body["timestamp"].as_u64().expect("seconds");
    let proof = BASE64.decode(&headers["x-seal-proof"]).expect("base64");
    assert_eq!(
        proof,
        [b"signed ".as_slice(), &proof_message("worker-1", timestamp)].concat()
    );
    assert_eq!(proof_message("w", 7), b"nautilus seal proof v1\nw\n7");
}
