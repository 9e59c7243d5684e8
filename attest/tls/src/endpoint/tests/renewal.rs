//! Standing connections: evidence renewed under traffic, and peers cut off.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nautilus_attest_protocol::{Evidence, QuoteError, ReportData};
use tokio::sync::watch;

use super::*;

/// Renewals follow each other without pause.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Another release of the code.
const NEXT: u8 = CODE + 1;

fn policy(epoch: u64, codes: &[u8]) -> Arc<Policy> {
    let mut evidence = EvidencePolicy::new(true);
    for code in codes {
        evidence = evidence.allow(TeeKind::Simulated, measurement(*code));
    }
    let mut policy = Policy::of_evidence(evidence);
    policy.epoch = epoch;
    Arc::new(policy)
}

/// A TEE that counts what it is asked, and may be told to give no evidence any more.
struct Counted {
    tee: SimulatedProvider,
    asked: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Quoter for Counted {
    fn kind(&self) -> TeeKind {
        TeeKind::Simulated
    }

    fn measurement(&self) -> Measurement {
        self.tee.measurement()
    }

    fn platform(&self) -> String {
        self.tee.platform()
    }

    fn quote(&self, report_data: &ReportData) -> Result<Evidence, QuoteError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            return Err(QuoteError {
                kind: TeeKind::Simulated,
                reason: "told so".into(),
            });
        }
        self.tee.quote(report_data)
    }
}

/// A node, with everything that a test turns.
struct Node {
    endpoint: AttestedEndpoint,
    policy: watch::Sender<Arc<Policy>>,
    asked: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Node {
    fn new(world: &World, node_id: u64, code: u8, renewal_interval: Duration) -> Self {
        let (asked, silent) = (Arc::default(), Arc::default());
        let policy = watch::Sender::new(policy(1, &[CODE, NEXT]));
        let config = EndpointConfig {
            quoter: Arc::new(Counted {
                tee: world.tee(node_id, code),
                asked: Arc::clone(&asked),
                silent: Arc::clone(&silent),
            }),
            policy: policy.subscribe(),
            renewal_interval,
            ..world.config(node_id)
        };
        let endpoint = AttestedEndpoint::new(config).unwrap();
        Self {
            endpoint: endpoint.with_handshake_timeout(Duration::from_secs(5)),
            policy,
            asked,
            silent,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn connected(a: &Node, b: &Node) -> (AttestedStream, AttestedStream) {
    let (dialed, accepted) = meet(&a.endpoint, &b.endpoint, None).await;
    (dialed.unwrap().0, accepted.unwrap().0)
}

/// Writes and reads back until an end fails; gives the bytes that went around, and the
/// failure.
async fn echo(mut here: AttestedStream, mut there: AttestedStream) -> (usize, std::io::Error) {
    let back = tokio::spawn(async move {
        let mut buffer = vec![0; 40_000];
        loop {
            let count = there.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<(), std::io::Error>(());
            }
            there.write_all(&buffer[..count]).await?;
        }
    });
    let mut around = 0;
    let mut heard = vec![0; 70_000];
    let failure = loop {
        let said: Vec<u8> = (0..heard.len()).map(|at| (at % 251) as u8).collect();
        let turn = async {
            here.write_all(&said).await?;
            here.read_exact(&mut heard).await
        };
        match turn.await {
            Ok(count) => {
                assert!(heard == said, "what came back is not what was sent");
                around += count;
            }
            Err(error) => break error,
        }
    };
    drop(here);
    // Its failure, if any, is the same end's.
    let _ = back.await.unwrap();
    (around, failure)
}

#[tokio::test]
async fn evidence_is_renewed_both_ways_under_traffic_which_does_not_notice() {
    let world = World::new();
    let (a, b) = (
        Node::new(&world, 1, CODE, AT_ONCE),
        Node::new(&world, 2, NEXT, AT_ONCE),
    );
    let (mut here, mut there) = connected(&a, &b).await;
    let (made_a, made_b) = (a.asked(), b.asked());
    let mut heard = vec![0; 90_000];
    while a.asked() < made_a + 5 || b.asked() < made_b + 5 {
        let said: Vec<u8> = (0..heard.len()).map(|at| (at % 251) as u8).collect();
        let writing = async { here.write_all(&said).await.unwrap() };
        let reading = async { there.read_exact(&mut heard).await.unwrap() };
        tokio::join!(writing, reading);
        assert!(heard == said);
        std::mem::swap(&mut here, &mut there);
    }
}

#[tokio::test]
async fn a_peer_whose_measurement_is_retired_is_cut_off_and_the_others_are_not() {
    let world = World::new();
    let long = RENEWAL_INTERVAL;
    let (a, old, new) = (
        Node::new(&world, 1, NEXT, long),
        Node::new(&world, 2, CODE, long),
        Node::new(&world, 3, NEXT, long),
    );
    let (to_old, from_a) = connected(&a, &old).await;
    let (to_new, from_a_too) = connected(&a, &new).await;
    let mut with_new = tokio::spawn(echo(to_new, from_a_too));
    let with_old = tokio::spawn(echo(to_old, from_a));

    a.policy.send_replace(policy(2, &[NEXT]));
    let (_, failure) = with_old.await.unwrap();
    assert_eq!(failure.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(
        failure
            .to_string()
            .contains("no longer satisfies the policy: measurement"),
        "{failure}"
    );
    // It is not let in again either.
    let (dialed, accepted) = meet(&old.endpoint, &a.endpoint, None).await;
    assert_told(dialed, &refusal(accepted));
    // The other one still talks, and was asked for fresh evidence meanwhile.
    let asked = new.asked();
    a.policy.send_replace(policy(3, &[NEXT]));
    while new.asked() == asked {
        assert!(!with_new.is_finished(), "cut off too");
        tokio::time::sleep(AT_ONCE).await;
    }
    let still = tokio::time::timeout(AT_ONCE, &mut with_new).await;
    assert!(still.is_err(), "cut off too");
}

#[tokio::test]
async fn a_policy_that_changes_while_nothing_is_said_cuts_off_an_idle_peer() {
    let world = World::new();
    let long = RENEWAL_INTERVAL;
    let (a, old) = (
        Node::new(&world, 1, NEXT, long),
        Node::new(&world, 2, CODE, long),
    );
    let (mut here, mut there) = connected(&a, &old).await;
    a.policy.send_replace(policy(2, &[NEXT]));
    let mut byte = [0; 1];
    let cut = here.read(&mut byte).await.unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::PermissionDenied);
    // The peer learns why, before the end.
    let told = there.read(&mut byte).await.unwrap_err();
    assert!(told.to_string().contains("refuses this node"), "{told}");
}

#[tokio::test]
async fn a_peer_that_gives_no_fresh_evidence_is_cut_off() {
    let world = World::new();
    let mut a = Node::new(&world, 1, CODE, AT_ONCE);
    a.endpoint = a.endpoint.with_handshake_timeout(SHORT_TIMEOUT);
    let b = Node::new(&world, 2, CODE, RENEWAL_INTERVAL);
    let (here, there) = connected(&a, &b).await;
    b.silent.store(true, Ordering::Relaxed);
    let (_, failure) = echo(here, there).await;
    assert_eq!(failure.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(
        failure.to_string().contains("did not renew its evidence"),
        "{failure}"
    );
}
