//! Two masters over real sockets: who gets in, who does not, and what each side is
//! told. Adversaries here hold even the victims' private keys where it says so;
//! what they never hold is a TEE that lies.

use std::path::Path;

use nautilus_attest_protocol::binding::{certificate_claims_buffer, certificate_report_data};
use nautilus_attest_protocol::{EvidencePolicy, Measurement, Refused, TeeKind};
use nautilus_attest_tee::{
    PlatformSecret, SimulatedProvider, SimulatedRoot, SimulatedVerifier, Verifiers,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, NamedGroup, PeerIncompatible};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::key::IncarnationKey;

mod refused_early;
mod renewal;

const CODE: u8 = 7;
/// For peers that are silent on purpose.
const SHORT_TIMEOUT: Duration = Duration::from_millis(300);

/// A folder with one simulated root and the nodes' platform secrets.
struct World(TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn tee(&self, node_id: u64, code: u8) -> SimulatedProvider {
        let root = SimulatedRoot::load_or_create(&self.path().join("root")).unwrap();
        let secret =
            PlatformSecret::load_or_create(&self.path().join(format!("platform-{node_id}")))
                .unwrap();
        SimulatedProvider::new(root, secret, measurement(code))
    }

    fn verifier(&self) -> Arc<dyn Verifier> {
        let root = SimulatedRoot::load_or_create(&self.path().join("root"))
            .unwrap()
            .public_key();
        Arc::new(Verifiers::new().with(TeeKind::Simulated, Arc::new(SimulatedVerifier::new(root))))
    }

    fn config(&self, node_id: u64) -> EndpointConfig {
        EndpointConfig {
            cluster_id: "reef".into(),
            node_id,
            quoter: Arc::new(self.tee(node_id, CODE)),
            verifier: self.verifier(),
            policy: fixed(EvidencePolicy::new(true).allow(TeeKind::Simulated, measurement(CODE))),
            renewal_interval: RENEWAL_INTERVAL,
            pins: Arc::new(NoPins),
        }
    }

    fn node(&self, node_id: u64) -> AttestedEndpoint {
        AttestedEndpoint::new(self.config(node_id)).unwrap()
    }

    /// An identity of `node_id` whose certificate shows `evidence_for`'s evidence,
    /// made at `issued_at_ms`, but whose key is `key`.
    fn credential(
        &self,
        node_id: u64,
        key: IncarnationKey,
        evidence_for: &[u8],
        issued_at_ms: u64,
    ) -> Credential {
        let evidence = self
            .tee(node_id, CODE)
            .quote_at(&certificate_report_data(evidence_for), issued_at_ms)
            .unwrap();
        let evidence = evidence.with_claims_buffer(certificate_claims_buffer(evidence_for));
        Credential::from_parts(
            key,
            &evidence,
            self.verifier().as_ref(),
            node_id,
            issued_at_ms,
        )
        .unwrap()
    }
}

/// What an endpoint judges by.
fn in_force(endpoint: &AttestedEndpoint) -> Arc<Policy> {
    Arc::clone(&endpoint.config.policy.borrow())
}

/// A policy that nobody changes.
fn fixed(evidence: EvidencePolicy) -> watch::Receiver<Arc<Policy>> {
    watch::channel(Arc::new(Policy::of_evidence(evidence))).1
}

fn measurement(byte: u8) -> Measurement {
    Measurement::new([byte; 48]).unwrap()
}

fn assume(endpoint: &AttestedEndpoint, credential: Arc<Credential>) {
    *endpoint.credential.lock().unwrap() = credential;
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialed, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialed.unwrap(), accepted.unwrap().0)
}

type Outcome = Result<(AttestedStream, Peer), AttestedError>;

async fn meet(
    a: &AttestedEndpoint,
    b: &AttestedEndpoint,
    expect_node: Option<u64>,
) -> (Outcome, Outcome) {
    let (dialed, accepted) = sockets().await;
    tokio::join!(a.connect(dialed, expect_node), b.accept(accepted))
}

fn error(outcome: Outcome) -> AttestedError {
    match outcome {
        Ok((_, peer)) => panic!("node {} was let in", peer.node_id),
        Err(error) => error,
    }
}

fn refusal(outcome: Outcome) -> Refused {
    match error(outcome) {
        AttestedError::Refused(refused) => refused,
        other => panic!("not refused, but: {other}"),
    }
}

/// Asserts that the refused side was told `reason` in words.
fn assert_told(outcome: Outcome, reason: &Refused) {
    match error(outcome) {
        AttestedError::RefusedByPeer { reason: told } => assert_eq!(told, reason.to_string()),
        other => panic!("not told, but: {other}"),
    }
}

#[tokio::test]
async fn two_masters_attest_each_other_and_talk() {
    let world = World::new();
    let (a, b) = (world.node(1), world.node(2));
    let (dialed, accepted) = meet(&a, &b, Some(2)).await;
    let ((mut dialed, peer_of_a), (mut accepted, peer_of_b)) = (dialed.unwrap(), accepted.unwrap());
    assert_eq!((peer_of_a.node_id, peer_of_b.node_id), (2, 1));
    assert_eq!(peer_of_a.platform, world.tee(2, CODE).platform());
    assert_eq!(peer_of_a.measurement, measurement(CODE));
    dialed.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    accepted.read_exact(&mut heard).await.unwrap();
    accepted.write_all(&heard).await.unwrap();
    dialed.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum() {
    let world = World::new();
    let (dialed, accepted) = meet(&world.node(1), &world.node(2), None).await;
    assert_eq!(
        dialed.unwrap().0.key_exchange_group(),
        Some(NamedGroup::X25519MLKEM768)
    );
    assert_eq!(
        accepted.unwrap().0.key_exchange_group(),
        Some(NamedGroup::X25519MLKEM768)
    );
}

#[tokio::test]
async fn a_peer_is_known_by_the_digest_it_names_itself() {
    let world = World::new();
    let (a, b) = (world.node(1), world.node(2));
    let (dialed, accepted) = meet(&a, &b, None).await;
    assert_eq!(dialed.unwrap().1.evidence_digest, b.own_evidence_digest());
    assert_eq!(accepted.unwrap().1.evidence_digest, a.own_evidence_digest());
}

#[tokio::test]
async fn a_node_with_other_code_is_refused_and_told() {
    let world = World::new();
    let other = EndpointConfig {
        quoter: Arc::new(world.tee(2, 8)),
        ..world.config(2)
    };
    let (dialed, accepted) =
        meet(&AttestedEndpoint::new(other).unwrap(), &world.node(1), None).await;
    let refused = refusal(accepted);
    let (seen, allowed) = (measurement(8), vec![measurement(CODE)]);
    assert_eq!(
        refused,
        Refused::Measurement {
            tee: TeeKind::Simulated,
            seen,
            allowed
        }
    );
    assert_told(dialed, &refused);
}

#[tokio::test]
async fn a_dialed_node_with_other_code_is_refused_and_told_too() {
    let world = World::new();
    let other = EndpointConfig {
        quoter: Arc::new(world.tee(2, 8)),
        ..world.config(2)
    };
    let (dialed, accepted) =
        meet(&world.node(1), &AttestedEndpoint::new(other).unwrap(), None).await;
    let refused = refusal(dialed);
    assert!(matches!(refused, Refused::Measurement { .. }));
    assert_told(accepted, &refused);
}

#[tokio::test]
async fn simulated_evidence_is_refused_where_it_is_not_allowed() {
    let world = World::new();
    let policy = EvidencePolicy::new(false).allow(TeeKind::Simulated, measurement(CODE));
    let strict = AttestedEndpoint::new(EndpointConfig {
        policy: fixed(policy),
        ..world.config(1)
    })
    .unwrap();
    let (dialed, accepted) = meet(&world.node(2), &strict, None).await;
    let refused = refusal(accepted);
    assert_eq!(
        refused,
        Refused::SimulatedNotAllowed {
            seen: measurement(CODE)
        }
    );
    assert_told(dialed, &refused);
}

#[tokio::test]
async fn evidence_for_another_key_is_refused_and_told() {
    let world = World::new();
    let (honest, thief, own_key) = (
        world.node(1),
        world.node(2),
        IncarnationKey::generate().unwrap(),
    );
    let stolen = world.node(3).credential();
    assume(
        &thief,
        Arc::new(world.credential(3, own_key, &stolen.spki, unix_millis())),
    );
    let (dialed, accepted) = meet(&thief, &honest, None).await;
    let refused = refusal(accepted);
    assert!(matches!(refused, Refused::KeyBinding { .. }), "{refused}");
    assert_told(dialed, &refused);
}

#[tokio::test]
async fn a_certificate_of_a_key_not_held_ends_tls() {
    let world = World::new();
    let (honest, thief) = (world.node(1), world.node(2));
    let victim = world.node(3).credential();
    let wrong_key = Arc::new(IncarnationKey::generate().unwrap());
    let certified = CertifiedKey::new(victim.certified.cert.clone(), wrong_key);
    let (spki, claims) = (victim.spki.clone(), victim.claims.clone());
    let stolen = world.credential(3, IncarnationKey::generate().unwrap(), &spki, unix_millis());
    assume(
        &thief,
        Arc::new(Credential {
            certified: Arc::new(certified),
            spki,
            claims,
            ..stolen
        }),
    );
    let (dialed, accepted) = meet(&thief, &honest, None).await;
    let accepted = error(accepted).to_string();
    assert_eq!(
        accepted,
        "TLS handshake failed: invalid peer certificate: BadSignature"
    );
    assert!(matches!(
        error(dialed),
        AttestedError::Alert {
            stage: Stage::Hello,
            ..
        }
    ));
}

#[tokio::test]
async fn a_man_in_the_middle_with_both_private_keys_is_refused_by_both() {
    let world = World::new();
    let (a, b) = (world.node(1), world.node(2));
    let (as_b, as_a) = (world.node(8), world.node(9));
    assume(&as_b, b.credential());
    assume(&as_a, a.credential());
    let ((from_a, to_middle), (from_middle, to_b)) = (sockets().await, sockets().await);
    let relay = async {
        // Both TLS handshakes succeed; then every frame is relayed unchanged.
        let policy = in_force(&as_b);
        let (left, right) = tokio::join!(
            as_b.secure(to_middle, Role::Responder, &policy),
            as_a.secure(from_middle, Role::Initiator, &policy)
        );
        let ((mut left, ..), (mut right, ..)) = (left.unwrap(), right.unwrap());
        let _ = tokio::io::copy_bidirectional(&mut left, &mut right).await;
        std::future::pending::<std::convert::Infallible>().await
    };
    let victims = async { tokio::join!(a.connect(from_a, Some(2)), b.accept(to_b)) };
    let (dialed, accepted) = tokio::select! {
        outcomes = victims => outcomes,
        never = relay => match never {},
    };
    assert!(matches!(refusal(dialed), Refused::WrongChannel { .. }));
    assert!(matches!(refusal(accepted), Refused::WrongChannel { .. }));
}

#[tokio::test]
async fn a_stolen_key_without_a_tee_is_refused() {
    let world = World::new();
    let (honest, thief) = (world.node(1), world.node(3));
    assume(&thief, world.node(2).credential());
    let (dialed, accepted) = meet(&thief, &honest, None).await;
    let refused = refusal(accepted);
    assert!(
        matches!(
            refused,
            Refused::Inconsistent {
                what: "platform",
                ..
            }
        ),
        "{refused}"
    );
    assert_told(dialed, &refused);
}

#[tokio::test]
async fn another_node_than_dialed_is_refused_and_told() {
    let world = World::new();
    let (dialed, accepted) = meet(&world.node(1), &world.node(2), Some(3)).await;
    let refused = refusal(dialed);
    assert_eq!(
        refused,
        Refused::NodeId {
            seen: 2,
            expected: 3
        }
    );
    assert_told(accepted, &refused);
}

#[tokio::test]
async fn two_nodes_with_one_id_refuse_each_other() {
    let world = World::new();
    let twin = EndpointConfig {
        quoter: Arc::new(world.tee(2, CODE)),
        ..world.config(1)
    };
    let (dialed, accepted) =
        meet(&world.node(1), &AttestedEndpoint::new(twin).unwrap(), None).await;
    assert_eq!(refusal(dialed), Refused::NodeIdInUse { seen: 1 });
    assert_eq!(refusal(accepted), Refused::NodeIdInUse { seen: 1 });
}

#[tokio::test]
async fn a_member_on_another_platform_than_pinned_is_refused_and_told() {
    let world = World::new();
    let pins = |node_id| (node_id == 2).then(|| "ab".repeat(32));
    let pinning = AttestedEndpoint::new(EndpointConfig {
        pins: Arc::new(pins),
        ..world.config(1)
    })
    .unwrap();
    let (dialed, accepted) = meet(&world.node(2), &pinning, None).await;
    let refused = refusal(accepted);
    let seen = world.tee(2, CODE).platform();
    assert_eq!(
        refused,
        Refused::Platform {
            node_id: 2,
            seen,
            pinned: "ab".repeat(32)
        }
    );
    assert_told(dialed, &refused);
}

#[tokio::test]
async fn a_member_on_its_pinned_platform_is_let_in() {
    let world = World::new();
    let platform = world.tee(2, CODE).platform();
    let pins = move |node_id| (node_id == 2).then(|| platform.clone());
    let pinning = AttestedEndpoint::new(EndpointConfig {
        pins: Arc::new(pins),
        ..world.config(1)
    })
    .unwrap();
    let (dialed, accepted) = meet(&world.node(2), &pinning, None).await;
    assert!(dialed.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let world = World::new();
    let other = EndpointConfig {
        cluster_id: "atoll".into(),
        ..world.config(2)
    };
    let (dialed, accepted) =
        meet(&world.node(1), &AttestedEndpoint::new(other).unwrap(), None).await;
    assert_eq!(
        refusal(dialed),
        Refused::ClusterId {
            seen: "atoll".into(),
            expected: "reef".into()
        }
    );
    assert_eq!(
        refusal(accepted),
        Refused::ClusterId {
            seen: "reef".into(),
            expected: "atoll".into()
        }
    );
}

#[tokio::test]
async fn evidence_under_another_root_ends_tls_with_an_alert() {
    let (world, foreign) = (World::new(), World::new());
    let (dialed, accepted) = meet(&foreign.node(2), &world.node(1), None).await;
    // Here the dialing end is the first to look, and refuses likewise.
    assert!(matches!(refusal(dialed), Refused::Signature { .. }));
    let told = error(accepted);
    assert!(
        matches!(
            &told,
            AttestedError::Alert {
                stage: Stage::TlsHandshake,
                ..
            }
        ),
        "{told}"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_told() {
    let world = World::new();
    let (honest, late) = (world.node(1), world.node(2));
    let key = IncarnationKey::generate().unwrap();
    let spki = key.spki();
    let issued_at_ms = unix_millis() - 30 * 60 * 60 * 1000;
    let mut credential = world.credential(2, key, &spki, issued_at_ms);
    // A node renews its own in time; this one looks young to itself.
    credential.issued_at_ms = unix_millis();
    assume(&late, Arc::new(credential));
    let (dialed, accepted) = meet(&late, &honest, None).await;
    let refused = refusal(accepted);
    assert!(
        matches!(
            refused,
            Refused::Expired {
                what: "certificate",
                ..
            }
        ),
        "{refused}"
    );
    assert_told(dialed, &refused);
}

#[tokio::test]
async fn an_old_identity_is_renewed_with_a_new_key() {
    let world = World::new();
    let (a, b) = (world.node(1), world.node(2));
    let key = IncarnationKey::generate().unwrap();
    let old_spki = key.spki();
    let old = world.credential(1, key, &old_spki, unix_millis() - 13 * 60 * 60 * 1000);
    let old_digest = old.evidence_digest;
    assume(&a, Arc::new(old));
    let (_, accepted) = meet(&a, &b, None).await;
    assert_ne!(accepted.unwrap().1.evidence_digest, old_digest);
    assert_ne!(a.credential().spki, old_spki);
}

#[tokio::test]
async fn a_node_whose_verifier_trusts_another_root_does_not_start() {
    let (world, foreign) = (World::new(), World::new());
    let config = EndpointConfig {
        verifier: foreign.verifier(),
        ..world.config(1)
    };
    let error = AttestedEndpoint::new(config).err().unwrap();
    assert!(
        matches!(error, AttestedError::OwnEvidence(Refused::Signature { .. })),
        "{error}"
    );
}

/// Counts how often it is asked.
struct Counting(Arc<dyn Verifier>, std::sync::atomic::AtomicUsize);

impl Verifier for Counting {
    fn verify(
        &self,
        evidence: &nautilus_attest_protocol::Evidence,
        now_ms: u64,
    ) -> Result<Claims, Refused> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.verify(evidence, now_ms)
    }
}

#[tokio::test]
async fn a_certificate_is_judged_once_in_minutes_but_every_connection_anew() {
    let world = World::new();
    let counting = Arc::new(Counting(world.verifier(), 0.into()));
    let a = world.node(1);
    let b = AttestedEndpoint::new(EndpointConfig {
        verifier: Arc::clone(&counting) as Arc<dyn Verifier>,
        ..world.config(2)
    });
    let b = b.unwrap();
    let mut asked = vec![counting.1.load(std::sync::atomic::Ordering::Relaxed)];
    for _ in 0..3 {
        let (dialed, accepted) = meet(&a, &b, None).await;
        assert!(dialed.is_ok() && accepted.is_ok());
        asked.push(counting.1.load(std::sync::atomic::Ordering::Relaxed));
    }
    // Its own certificate; then the peer's and the first connection; then connections.
    assert_eq!(asked, [1, 3, 4, 5]);
}

#[tokio::test]
async fn evidence_that_is_remembered_serves_no_other_key() {
    let world = World::new();
    let (thief, b) = (world.node(1), world.node(2));
    let key = IncarnationKey::generate().unwrap();
    let stolen = world.credential(1, key, &thief.credential().spki, unix_millis());
    assume(&thief, Arc::new(stolen));
    // The first connection leaves the evidence, which is genuine, in the memory.
    for _ in 0..2 {
        let (_, accepted) = meet(&thief, &b, None).await;
        assert!(matches!(refusal(accepted), Refused::KeyBinding { .. }));
    }
}
