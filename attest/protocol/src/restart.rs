//! When a node whose process was started again may take part, decided from what its
//! disk claims and what its peers remember.
//!
//! The host owns the disk: it may put back an old copy, fork it, or start a node
//! twice. So a started node knows nothing of what it promised before. Each start is a
//! new [`Incarnation`]; peers that have heard of it take nothing from an older one, and
//! testify what they know. The rule ([`judge`]) lets the node in when
//! * the leader has committed the incarnation as an entry without the node's help
//!   ([`Claim::registered`]), or
//! * every other voter has testified, at a time when it knew the present life of each
//!   of the others, or
//! * a hardware counter proves the disk to be the one of the orderly stop.
//!
//! It comes back above a [`Floor`]: as if it had voted in the highest term heard, and
//! voting only for logs that hold everything it can have acknowledged.
//!
//! Invariants (checked by `chaos/model`): at most one leader in a term; no acknowledged
//! entry is lost as long as of each majority that acknowledged it one voter's state is
//! not an old one; no two votes of one node are counted in one term.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};

/// Bytes of an incarnation's random part.
pub const INCARNATION_ID_BYTES: usize = 16;

/// One life of a node's process. The greater one is the newer one.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Incarnation {
    /// Counts the node's starts: above every one that its disk and its peers know.
    pub epoch: u64,
    /// Drawn at the start; tells two starts of one epoch apart.
    pub id: [u8; INCARNATION_ID_BYTES],
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, hex::encode(self.id))
    }
}

/// Not the text of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an incarnation: wanted EPOCH-ID, a number and 32 hex digits")]
pub struct IncarnationTextError;

impl FromStr for Incarnation {
    type Err = IncarnationTextError;

    fn from_str(text: &str) -> Result<Self, IncarnationTextError> {
        let (epoch, digits) = text.split_once('-').ok_or(IncarnationTextError)?;
        let epoch = epoch.parse().map_err(|_| IncarnationTextError)?;
        let mut id = [0; INCARNATION_ID_BYTES];
        hex::decode_to_slice(digits, &mut id).map_err(|_| IncarnationTextError)?;
        Ok(Self { epoch, id })
    }
}

/// Where an entry stands in the log. Ordered as Raft orders logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPlace {
    /// The term of the leader that appended it.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// What a node that comes back has: its disk's claim, and what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Its id.
    pub node: u64,
    /// This life of it.
    pub incarnation: Incarnation,
    /// The epoch that its disk says it had before.
    pub disk_epoch: u64,
    /// The highest term on its disk.
    pub term: u64,
    /// The end of its log.
    pub last: Option<LogPlace>,
    /// Whether a counter proves the disk to be the newest.
    pub freshness: Freshness,
    /// The entry by which a leader registered this very incarnation, once that leader
    /// says that it is committed. The node must not have acknowledged it.
    pub registered: Option<LogPlace>,
}

/// What a hardware counter says of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// The disk is the one that the node's orderly stop left.
    Proven,
    /// There is no counter, or the node did not stop in order.
    Unproven,
}

/// How the tail of the asking node's log compares with the same entries of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tail {
    /// The chain of hashes is the same.
    Same,
    /// The same entries by term and index have other contents.
    Different,
    /// The peer does not hold those entries.
    Unknown,
}

/// What a peer answers a node that comes back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Testimony {
    /// Who testifies.
    pub node: u64,
    /// This life of it.
    pub incarnation: Incarnation,
    /// The newest incarnations it knew before it was asked, of any node.
    pub known: BTreeMap<u64, Incarnation>,
    /// The highest term it has seen or voted in.
    pub term: u64,
    /// The end of its log, or what it has to reach itself if that is further.
    pub last: Option<LogPlace>,
    /// What the asking node acknowledged to it, if it leads.
    pub acknowledged: Option<LogPlace>,
    /// The asking node's log compared with its own.
    pub tail: Tail,
}

impl Testimony {
    /// What the same peer says when it is asked again; what it said before still binds.
    pub fn renew(&mut self, again: Self) {
        self.incarnation = self.incarnation.max(again.incarnation);
        for (node, life) in again.known {
            let known = self.known.entry(node).or_default();
            *known = life.max(*known);
        }
        self.term = self.term.max(again.term);
        self.last = self.last.max(again.last);
        self.acknowledged = self.acknowledged.max(again.acknowledged);
        if again.tail != Tail::Unknown {
            self.tail = again.tail;
        }
    }

    /// Whether it knows that `other` lives as it says: then it has refused whatever an
    /// elder life of that node said since.
    fn knows(&self, other: &Self) -> bool {
        self.node == other.node || self.known.get(&other.node) >= Some(&other.incarnation)
    }
}

/// How low a node that came back must not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Floor {
    /// It acts as if it had voted in this term.
    pub term: u64,
    /// It votes for no log that ends before this, its own included.
    pub last: Option<LogPlace>,
}

impl Floor {
    /// Whether a vote in `term` for a log that ends at `last` may be granted.
    pub fn admits(&self, term: u64, last: Option<LogPlace>) -> bool {
        term > self.term && last >= self.last
    }

    /// Whether a log that ends at `last` is whole again.
    pub fn is_reached(&self, last: Option<LogPlace>) -> bool {
        last >= self.last
    }
}

/// What the rule says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Not yet: these voters have not testified since they know of each other's lives.
    Wait(BTreeSet<u64>),
    /// It may take part above the floor.
    Rejoin(Rejoin),
    /// A newer incarnation of this node was heard of.
    Fenced(Incarnation),
    /// The disk is of another history: this entry has other contents elsewhere.
    Forked(LogPlace),
}

/// How a node comes back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rejoin {
    /// Below it nothing may be promised.
    pub floor: Floor,
    /// Why it may.
    pub ground: Ground,
    /// What was found about the disk.
    pub verdict: Verdict,
}

/// On what ground a node comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ground {
    /// A leader committed the incarnation without it.
    Registered,
    /// Every other voter has testified.
    AllTestified,
    /// The counter proves the disk.
    Counter,
}

/// What is known about the disk of a node that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing speaks against it.
    Consistent,
    /// The log ends before what the node had acknowledged.
    RolledBack {
        /// Where it ends.
        disk: Option<LogPlace>,
        /// Where it should.
        acknowledged: LogPlace,
    },
    /// The disk is from before a later start of the node.
    Replayed {
        /// The disk's epoch.
        disk_epoch: u64,
        /// The one peers know.
        newest: Incarnation,
    },
}

/// Bytes of a hash of the chain.
pub const CHAIN_BYTES: usize = 32;

/// The next hash of a chain over entries: `kind` and `body` are an entry's content.
pub fn chain_entry(
    previous: &[u8; CHAIN_BYTES],
    place: LogPlace,
    kind: u8,
    body: &[u8],
) -> [u8; CHAIN_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(&place.term.to_be_bytes());
    context.update(&place.index.to_be_bytes());
    context.update(&[kind]);
    context.update(body);
    let mut chained = [0; CHAIN_BYTES];
    chained.copy_from_slice(context.finish().as_ref());
    chained
}

/// Whether something said by `peer` is to be refused, because a newer incarnation of
/// that node is known.
pub fn fences(known: Option<Incarnation>, peer: Incarnation) -> bool {
    known.is_some_and(|known| known > peer)
}

/// The rule. `voters` are those of the newest configuration heard of; `heard` are
/// testimonies given to this incarnation, one of each peer. One whose speaker another
/// peer knows to be outlived does not count.
pub fn judge(claim: &Claim, voters: &BTreeSet<u64>, heard: &[Testimony]) -> Decision {
    let newest = |node| heard.iter().filter_map(move |by| by.known.get(&node)).max();
    if let Some(newer) = newest(claim.node).filter(|newer| **newer > claim.incarnation) {
        return Decision::Fenced(*newer);
    }
    let heard: Vec<&Testimony> = heard
        .iter()
        .filter(|by| !fences(newest(by.node).copied(), by.incarnation))
        .collect();
    let differs = heard.iter().any(|by| by.tail == Tail::Different);
    if let Some(last) = claim.last.filter(|_| differs) {
        return Decision::Forked(last);
    }
    let missing: BTreeSet<u64> = voters
        .iter()
        .copied()
        .filter(|id| *id != claim.node)
        .filter(|id| {
            // An elder life of a peer may be a candidate still, and say nothing here.
            let by = heard.iter().find(|by| by.node == *id);
            by.is_none_or(|by| !heard.iter().all(|other| by.knows(other)))
        })
        .collect();
    let ground = if claim.registered.is_some() {
        Ground::Registered
    } else if claim.freshness == Freshness::Proven {
        Ground::Counter
    } else if missing.is_empty() && voters.contains(&claim.node) {
        Ground::AllTestified
    } else {
        return Decision::Wait(missing);
    };
    Decision::Rejoin(Rejoin {
        floor: floor(claim, &heard),
        ground,
        verdict: verdict(claim, &heard),
    })
}

/// The highest of everything heard.
fn floor(claim: &Claim, heard: &[&Testimony]) -> Floor {
    let terms = heard.iter().map(|testimony| testimony.term);
    let ends = heard
        .iter()
        .flat_map(|testimony| [testimony.last, testimony.acknowledged]);
    let registered_term = claim.registered.map_or(0, |place| place.term);
    Floor {
        term: terms.fold(claim.term.max(registered_term), u64::max),
        last: ends.fold(claim.registered, Option::max),
    }
}

fn verdict(claim: &Claim, heard: &[&Testimony]) -> Verdict {
    let acknowledged = heard
        .iter()
        .filter_map(|testimony| testimony.acknowledged)
        .max();
    if let Some(acknowledged) = acknowledged.filter(|place| claim.last < Some(*place)) {
        return Verdict::RolledBack {
            disk: claim.last,
            acknowledged,
        };
    }
    let lives = heard
        .iter()
        .filter_map(|testimony| testimony.known.get(&claim.node));
    let earlier = lives.filter(|life| **life != claim.incarnation).max();
    match earlier {
        Some(newest) if newest.epoch > claim.disk_epoch => Verdict::Replayed {
            disk_epoch: claim.disk_epoch,
            newest: *newest,
        },
        _ => Verdict::Consistent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(term: u64, index: u64) -> LogPlace {
        LogPlace { term, index }
    }

    fn life(epoch: u64) -> Incarnation {
        Incarnation {
            epoch,
            ..Incarnation::default()
        }
    }

    fn claim() -> Claim {
        Claim {
            node: 1,
            incarnation: life(5),
            disk_epoch: 4,
            term: 3,
            last: Some(place(3, 10)),
            freshness: Freshness::Unproven,
            registered: None,
        }
    }

    fn testimony(node: u64) -> Testimony {
        Testimony {
            node,
            incarnation: life(1),
            known: BTreeMap::from([(1, life(4)), (2, life(1)), (3, life(1))]),
            term: 3,
            last: Some(place(3, 10)),
            acknowledged: None,
            tail: Tail::Same,
        }
    }

    fn voters(count: u64) -> BTreeSet<u64> {
        (1..=count).collect()
    }

    fn rejoined(decision: Decision) -> Rejoin {
        match decision {
            Decision::Rejoin(rejoin) => rejoin,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_waits_for_the_voters_that_have_not_testified() {
        let decision = judge(&claim(), &voters(3), &[testimony(2)]);
        assert_eq!(decision, Decision::Wait(BTreeSet::from([3])));
        let all = judge(&claim(), &voters(3), &[testimony(2), testimony(3)]);
        assert_eq!(rejoined(all).verdict, Verdict::Consistent);
    }

    #[test]
    fn a_lone_voter_goes_on_but_a_node_without_members_waits_for_a_leader() {
        let alone = rejoined(judge(&claim(), &voters(1), &[]));
        assert_eq!(alone.ground, Ground::AllTestified);
        let unknown = judge(&claim(), &BTreeSet::new(), &[]);
        assert_eq!(unknown, Decision::Wait(BTreeSet::new()));
        let mut registered = claim();
        registered.registered = Some(place(4, 12));
        let floor = rejoined(judge(&registered, &BTreeSet::new(), &[])).floor;
        assert_eq!((floor.term, floor.last), (4, Some(place(4, 12))));
    }

    #[test]
    fn a_shorter_log_than_was_acknowledged_is_named_and_has_to_be_regained() {
        let mut leader = testimony(2);
        leader.acknowledged = Some(place(3, 20));
        leader.last = Some(place(3, 22));
        let rejoin = rejoined(judge(&claim(), &voters(3), &[leader, testimony(3)]));
        assert_eq!(
            rejoin.verdict,
            Verdict::RolledBack {
                disk: Some(place(3, 10)),
                acknowledged: place(3, 20),
            }
        );
        assert!(!rejoin.floor.is_reached(Some(place(3, 21))));
        assert!(!rejoin.floor.admits(4, Some(place(3, 21))));
        assert!(!rejoin.floor.admits(3, Some(place(3, 22))));
        assert!(rejoin.floor.admits(4, Some(place(3, 22))));
    }

    #[test]
    fn a_disk_from_before_a_later_start_is_named() {
        let peer = testimony(2);
        let mut claim = claim();
        claim.disk_epoch = 2;
        let rejoin = rejoined(judge(&claim, &voters(2), &[peer]));
        assert_eq!(
            rejoin.verdict,
            Verdict::Replayed {
                disk_epoch: 2,
                newest: life(4),
            }
        );
    }

    #[test]
    fn an_older_incarnation_and_a_forked_log_are_refused() {
        let mut peer = testimony(2);
        peer.known.insert(1, life(6));
        let fenced = judge(&claim(), &voters(2), &[peer]);
        assert_eq!(fenced, Decision::Fenced(life(6)));
        let mut peer = testimony(2);
        peer.tail = Tail::Different;
        let forked = judge(&claim(), &voters(2), &[peer]);
        assert_eq!(forked, Decision::Forked(place(3, 10)));
        assert!(fences(Some(life(2)), life(1)));
        assert!(!fences(Some(life(1)), life(1)) && !fences(None, life(1)));
    }

    #[test]
    fn a_voter_that_does_not_know_anothers_life_is_asked_again() {
        let mut elder = testimony(2);
        let mut started = testimony(3);
        started.incarnation = life(2);
        let decision = judge(&claim(), &voters(3), &[elder.clone(), started.clone()]);
        assert_eq!(decision, Decision::Wait(BTreeSet::from([2])));
        let mut again = testimony(2);
        again.known.insert(3, life(2));
        again.term = 7;
        elder.renew(again);
        let rejoin = rejoined(judge(&claim(), &voters(3), &[elder, started]));
        assert_eq!(rejoin.floor.term, 7);
    }

    #[test]
    fn the_word_of_an_outlived_peer_does_not_count() {
        let mut knowing = testimony(3);
        knowing.known.insert(2, life(2));
        let decision = judge(&claim(), &voters(3), &[testimony(2), knowing]);
        assert_eq!(decision, Decision::Wait(BTreeSet::from([2])));
    }

    #[test]
    fn a_proven_disk_needs_nobody() {
        let mut claim = claim();
        claim.freshness = Freshness::Proven;
        let rejoin = rejoined(judge(&claim, &voters(3), &[]));
        assert_eq!(rejoin.ground, Ground::Counter);
        assert_eq!((rejoin.floor.term, rejoin.floor.last), (3, None));
    }

    #[test]
    fn an_incarnation_is_read_from_its_own_text() {
        let incarnation = Incarnation {
            epoch: 7,
            id: [0xab; 16],
        };
        assert_eq!(incarnation.to_string().parse(), Ok(incarnation));
        for wrong in ["", "7", "7-", "x-00", "7-abcd"] {
            assert_eq!(wrong.parse::<Incarnation>(), Err(IncarnationTextError));
        }
    }
}
