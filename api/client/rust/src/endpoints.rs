//! Where the next request goes. Pure: time and chance are arguments.
//!
//! What it holds is where to ask, never whom to believe.

use std::time::Duration;

use crate::address::Address;
use crate::examine::MAX_MEMBERS;

/// Pause before an endpoint that failed is tried again, doubled with each failure.
const BACKOFF_LEAST: Duration = Duration::from_millis(100);
/// The longest such pause.
const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// The longest pause a server may ask for.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(30);
/// An endpoint whose evidence was refused is left alone for so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Doublings that reach the longest pause.
const DOUBLINGS: u32 = 10;

/// For whom a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// Any member: it stays where the last one was taken, on one connection.
    Settled,
    /// The leader, where that is known: it writes.
    Leader,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Ask(Address),
    /// Everybody rests; the first one for so long.
    Rest(Duration),
}

/// The known endpoints, and how they did.
pub(crate) struct Endpoints {
    known: Vec<Endpoint>,
    settled: Option<Address>,
    leader: Option<Address>,
}

struct Endpoint {
    address: Address,
    /// By the configuration: kept whoever the members are.
    given: bool,
    failures: u32,
    /// Time since the client's start.
    not_before: Duration,
    refusal: Option<String>,
}

impl Endpoints {
    /// Those given, then those of a cache, which last until a member says who the members
    /// are.
    pub(crate) fn new(given: Vec<Address>, cached: Vec<Address>) -> Self {
        let mut endpoints = Self {
            known: Vec::new(),
            settled: None,
            leader: None,
        };
        for address in given {
            endpoints.add(address, true);
        }
        for address in cached {
            endpoints.add(address, false);
        }
        endpoints
    }

    fn add(&mut self, address: Address, given: bool) {
        let is_new = self.known.iter().all(|known| known.address != address);
        if is_new && self.known.len() < MAX_MEMBERS {
            self.known.push(Endpoint {
                address,
                given,
                failures: 0,
                not_before: Duration::ZERO,
                refusal: None,
            });
        }
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        let known = self.known.iter();
        known.map(|known| known.address.clone()).collect()
    }

    /// Whom to ask: the leader first where a request is for it, then where the last one
    /// was taken, then whoever failed least.
    pub(crate) fn choose(&self, now: Duration, prefer: Prefer) -> Choice {
        let rank = |endpoint: &Endpoint| {
            let address = Some(&endpoint.address);
            let leads = prefer == Prefer::Leader && address == self.leader.as_ref();
            (!leads, address != self.settled.as_ref(), endpoint.failures)
        };
        let awake = self.known.iter().filter(|known| known.not_before <= now);
        match awake.min_by_key(|known| rank(known)) {
            Some(endpoint) => Choice::Ask(endpoint.address.clone()),
            None => {
                let ends = self.known.iter().map(|known| known.not_before);
                let first = ends.min().unwrap_or(now + BACKOFF_MOST);
                Choice::Rest(first.saturating_sub(now))
            }
        }
    }

    /// It answered. What is for anybody does not stay with a node that was chosen for
    /// leading: members share it.
    pub(crate) fn good(&mut self, address: &Address, prefer: Prefer) {
        let Some(known) = self.find(address) else {
            return;
        };
        known.failures = 0;
        known.not_before = Duration::ZERO;
        known.refusal = None;
        if prefer == Prefer::Settled {
            self.settled = Some(address.clone());
        }
    }

    /// It failed, and rests: as long as it asked, and at least a backoff of which `chance`
    /// (0 to 1) takes off up to a half, so that workers do not come back in step.
    pub(crate) fn failed(
        &mut self,
        address: &Address,
        now: Duration,
        asked: Duration,
        chance: f64,
    ) {
        if let Some(known) = self.find(address) {
            let backoff = BACKOFF_LEAST * 2_u32.pow(known.failures.min(DOUBLINGS));
            let backoff = backoff.min(BACKOFF_MOST).mul_f64(1.0 - chance / 2.0);
            known.failures = known.failures.saturating_add(1);
            known.refusal = None;
            known.not_before = now + backoff.max(asked.min(RETRY_AFTER_MOST));
        }
        self.leave(address);
    }

    /// Its evidence was refused.
    pub(crate) fn refused(&mut self, address: &Address, now: Duration, reason: String) {
        if let Some(known) = self.find(address) {
            known.failures = known.failures.saturating_add(1);
            known.refusal = Some(reason);
            known.not_before = now + REFUSED_PAUSE;
        }
        self.leave(address);
    }

    /// Why nobody is to be believed: while everybody rests whose evidence was refused.
    pub(crate) fn refusal(&self, now: Duration) -> Option<(Address, String)> {
        let refusals = self.known.iter().map(|known| {
            let rests = known.not_before > now;
            let reason = known.refusal.clone().filter(|_| rests)?;
            Some((known.address.clone(), reason))
        });
        refusals.collect::<Option<Vec<_>>>()?.pop()
    }

    /// Takes in the members that a believed one names, and forgets those that were neither
    /// given nor named. One that names nobody has nothing to teach.
    pub(crate) fn learn(&mut self, named: Vec<Address>) {
        if named.is_empty() {
            return;
        }
        self.known
            .retain(|known| known.given || named.contains(&known.address));
        for address in named {
            self.add(address, false);
        }
    }

    /// Who leads, as a believed node says.
    pub(crate) fn follow(&mut self, leader: Address) {
        self.leader = Some(leader);
    }

    fn find(&mut self, address: &Address) -> Option<&mut Endpoint> {
        let mut known = self.known.iter_mut();
        known.find(|known| known.address == *address)
    }

    fn leave(&mut self, address: &Address) {
        for role in [&mut self.settled, &mut self.leader] {
            if role.as_ref() == Some(address) {
                *role = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn at(text: &str) -> Address {
        text.parse().expect("an address")
    }

    fn three() -> Endpoints {
        Endpoints::new(vec![at("a:1"), at("b:1")], vec![at("c:1")])
    }

    #[test]
    fn writes_go_to_the_leader_and_beats_stay_where_they_are() {
        let mut endpoints = three();
        endpoints.good(&at("b:1"), Prefer::Settled);
        endpoints.follow(at("c:1"));
        let choice = endpoints.choose(NOW, Prefer::Leader);
        assert_eq!(choice, Choice::Ask(at("c:1")));
        endpoints.good(&at("c:1"), Prefer::Leader);
        let choice = endpoints.choose(NOW, Prefer::Settled);
        assert_eq!(choice, Choice::Ask(at("b:1")));
        endpoints.failed(&at("c:1"), NOW, Duration::ZERO, 0.0);
        let choice = endpoints.choose(NOW, Prefer::Leader);
        assert_eq!(choice, Choice::Ask(at("b:1")));
    }

    #[test]
    fn an_endpoint_that_fails_rests_longer_each_time_within_a_bound() {
        let mut endpoints = Endpoints::new(vec![at("a:1")], Vec::new());
        let (mut now, mut last) = (NOW, Duration::ZERO);
        for _ in 0..5 {
            endpoints.failed(&at("a:1"), now, Duration::ZERO, 0.0);
            let Choice::Rest(pause) = endpoints.choose(now, Prefer::Settled) else {
                panic!("it has to rest");
            };
            assert!(pause > last, "{pause:?} after {last:?}");
            (now, last) = (now + pause, pause);
            let choice = endpoints.choose(now, Prefer::Settled);
            assert_eq!(choice, Choice::Ask(at("a:1")));
        }
        for _ in 0..100 {
            endpoints.failed(&at("a:1"), now, Duration::ZERO, 1.0);
        }
        let choice = endpoints.choose(now, Prefer::Settled);
        assert_eq!(choice, Choice::Rest(BACKOFF_MOST / 2));
    }

    #[test]
    fn what_a_server_asks_is_respected_within_a_bound() {
        let mut endpoints = Endpoints::new(vec![at("a:1")], Vec::new());
        endpoints.failed(&at("a:1"), NOW, Duration::from_secs(3), 0.0);
        let choice = endpoints.choose(NOW, Prefer::Settled);
        assert_eq!(choice, Choice::Rest(Duration::from_secs(3)));
        endpoints.failed(&at("a:1"), NOW, Duration::from_secs(3600), 0.0);
        let choice = endpoints.choose(NOW, Prefer::Settled);
        assert_eq!(choice, Choice::Rest(RETRY_AFTER_MOST));
    }

    #[test]
    fn nobody_is_believed_once_everybody_was_refused() {
        let mut endpoints = three();
        endpoints.refused(&at("a:1"), NOW, "other code".to_owned());
        endpoints.failed(&at("b:1"), NOW, Duration::ZERO, 0.0);
        endpoints.refused(&at("c:1"), NOW, "other code".to_owned());
        assert_eq!(endpoints.refusal(NOW), None, "b may still be believed");
        endpoints.refused(&at("b:1"), NOW, "other code".to_owned());
        assert!(endpoints.refusal(NOW).is_some());
        // What was wrong may have been mended.
        let later = NOW + REFUSED_PAUSE;
        assert_eq!(endpoints.refusal(later), None);
        let choice = endpoints.choose(later, Prefer::Settled);
        assert!(matches!(choice, Choice::Ask(_)), "{choice:?}");
    }

    #[test]
    fn members_that_are_named_take_the_caches_place() {
        let mut endpoints = three();
        endpoints.learn(vec![at("b:1"), at("d:1")]);
        assert_eq!(endpoints.addresses(), [at("a:1"), at("b:1"), at("d:1")]);
        endpoints.learn((1..200).map(|port| at(&format!("e:{port}"))).collect());
        assert_eq!(endpoints.addresses().len(), MAX_MEMBERS);
        endpoints.learn(Vec::new());
        assert_eq!(endpoints.addresses().len(), MAX_MEMBERS);
    }
}
