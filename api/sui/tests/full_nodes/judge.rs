//! The four checks against full nodes that tell the truth.

use nautilus_sui::Verification;
use nautilus_sui_standin::{Operation, layout};
use nautilus_workers::Verdict;
use sui_sdk_types::Address;

use crate::world::{By, OWNER, SUI, World, active, judge, judged, objects, verdict};

/// Each way to ask: by which face, and whether it must be proved.
fn ways(world: &World) -> [(By, Verification); 3] {
    [
        (By::Grpc, Verification::None),
        (By::JsonRpc, Verification::None),
        (By::Grpc, world.committee()),
    ]
}

#[tokio::test]
async fn workers_of_the_registry_are_judged_alike_by_every_way() {
    let world = World::with(1).await;
    world.register("worker-1", 2 * SUI, "seal-1");
    world.register("poor", SUI - 1, "seal-2");
    world.register("slashed", SUI, "seal-3");
    world
        .chain
        .set_status("slashed", "slashed")
        .expect("slashed");
    world.register("withdrawn", SUI, "seal-4");
    world
        .chain
        .set_status("withdrawn", "withdrawn")
        .expect("withdrawn");
    for (by, verification) in ways(&world) {
        let is_proved = verification != Verification::None;
        let mut settings = world.settings(by);
        settings.verification = verification;
        let judge = judge(&settings);
        let too_small = Verdict::StakeTooSmall {
            amount: SUI - 1,
            needed: SUI,
        };
        for (token, node_id, expected) in [
            ("seal-1", "worker-1", active(2 * SUI)),
            ("seal-2", "worker-1", Verdict::Unknown),
            ("seal-1", "worker-2", Verdict::Unknown),
            ("seal-2", "poor", too_small),
            ("seal-3", "slashed", Verdict::Slashed),
            ("seal-4", "withdrawn", Verdict::Withdrawn),
        ] {
            assert_eq!(
                verdict(&judge, token, node_id).await,
                expected,
                "{by:?} {node_id}"
            );
        }
        let evidence = judged(&judge, "seal-1", "worker-1").await.evidence;
        let evidence = evidence.expect("an object speaks for it");
        let object = layout::worker_field("worker-1");
        let held = world.chain.object(object).expect("it is there");
        assert_eq!(evidence.object_id, object.to_string());
        assert_eq!(evidence.version, held.version());
        assert_eq!(evidence.digest, held.digest().to_base58());
        assert_eq!(evidence.checkpoint.is_some(), is_proved);
    }
}

#[tokio::test]
async fn tokens_that_are_objects_are_judged_alike_by_every_way() {
    const LATE_MS: u64 = 4_000_000_000_000;
    let world = World::with(1).await;
    let issue = |stake, expires_at_ms| {
        let operation = Operation::IssueToken {
            owner: OWNER,
            stake,
            expires_at_ms,
        };
        let receipt = world.chain.apply(operation).expect("issued");
        (receipt.created[0], receipt.created[1])
    };
    let (good, _) = issue(SUI, LATE_MS);
    let (ended, _) = issue(SUI, 1);
    let (poor, _) = issue(SUI - 1, LATE_MS);
    let (slashed, stake) = issue(SUI, LATE_MS);
    world
        .chain
        .set_stake_status(stake, "slashed")
        .expect("slashed");
    let (revoked, _) = issue(SUI, LATE_MS);
    let revocation = Operation::RevokeToken { token: revoked };
    world.chain.apply(revocation).expect("revoked");
    for (by, verification) in ways(&world) {
        let mut settings = world.settings(by);
        settings.layout = objects();
        settings.verification = verification;
        let judge = judge(&settings);
        let active = Verdict::Active {
            owner: OWNER.to_string(),
            stake_amount: SUI,
            expires_at: Some(LATE_MS / 1000),
        };
        let too_small = Verdict::StakeTooSmall {
            amount: SUI - 1,
            needed: SUI,
        };
        for (token, expected) in [
            (good, active),
            (ended, Verdict::Expired),
            (poor, too_small),
            (slashed, Verdict::Slashed),
            (revoked, Verdict::Unknown),
            // There, but no tokens.
            (stake, Verdict::Unknown),
            (layout::registry_id(), Verdict::Unknown),
            (Address::from_static("0xbad"), Verdict::Unknown),
        ] {
            let found = verdict(&judge, &token.to_string(), "worker-1").await;
            assert_eq!(found, expected, "{by:?} {token}");
        }
        let asked = world.full_nodes[0].grpc().total_requests();
        assert_eq!(verdict(&judge, "no id", "worker-1").await, Verdict::Unknown);
        let again = world.full_nodes[0].grpc().total_requests();
        assert_eq!(again, asked, "what is no id is not asked for");
    }
}

#[tokio::test]
async fn a_registry_that_is_none_judges_nobody() {
    let world = World::with(1).await;
    world.register("worker-1", SUI, "seal-1");
    let mut settings = world.settings(By::Grpc);
    settings.layout = nautilus_sui::Layout::Registry {
        registry: layout::worker_field("worker-1"),
    };
    assert_eq!(
        verdict(&judge(&settings), "seal-1", "worker-1").await,
        Verdict::Unavailable
    );
}

#[tokio::test]
async fn another_packages_objects_speak_for_nobody() {
    let world = World::with(1).await;
    world.register("worker-1", SUI, "seal-1");
    let mut settings = world.settings(By::Grpc);
    settings.package = Address::from_static("0xbad");
    assert_eq!(
        verdict(&judge(&settings), "seal-1", "worker-1").await,
        Verdict::Unavailable
    );
}
