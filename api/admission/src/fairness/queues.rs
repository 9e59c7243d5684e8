//! The fair queues of one level.
//!
//! Start-time fair queuing (Goyal, Vin, Cheng 1996): a request is tagged with the
//! virtual time at which its queue could start it; the smallest tag is served. A queue
//! that was idle starts at the level's present time, so that idleness earns nothing.
//! A flow's queue is the shortest of a hand dealt by shuffle sharding: two flows seldom
//! share their whole hands. A request's tag is never before an earlier one's of its flow.

use std::collections::{BTreeMap, VecDeque};

use super::schema::Queuing;

/// One request, for as long as it waits and runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// What became of a request that can't run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enqueued {
    Waits,
    Full,
    NoQueues,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    flow: u64,
    seats: u64,
    /// The virtual time at which it starts.
    start: u64,
}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<Waiting>,
    /// The virtual time at which the last request put in ends.
    finish: u64,
}

/// A flow that waits.
#[derive(Debug)]
struct Flow {
    waiting: usize,
    last_start: u64,
}

#[derive(Debug)]
pub(super) struct LevelQueues {
    /// `None`: the level rejects what can't run.
    queuing: Option<Queuing>,
    queues: Vec<Queue>,
    flows: BTreeMap<u64, Flow>,
    /// The virtual time: the tag of the request started last.
    now: u64,
    running: BTreeMap<Ticket, u64>,
    used: u64,
    waiting: u64,
}

impl LevelQueues {
    pub(super) fn new(queuing: Option<Queuing>) -> Self {
        let mut queues = Self {
            queuing: None,
            queues: Vec::new(),
            flows: BTreeMap::new(),
            now: 0,
            running: BTreeMap::new(),
            used: 0,
            waiting: 0,
        };
        queues.configure(queuing);
        queues
    }

    /// Takes on another configuration; what waits in a queue that is one too many stays
    /// there until it runs.
    pub(super) fn configure(&mut self, queuing: Option<Queuing>) {
        self.queuing = queuing;
        let wanted = queuing.map_or(0, |queuing| queuing.queues);
        while self.queues.len() < wanted {
            self.queues.push(Queue::default());
        }
        while self.queues.len() > wanted
            && self
                .queues
                .last()
                .is_some_and(|queue| queue.requests.is_empty())
        {
            self.queues.pop();
        }
    }

    pub(super) fn hand_size(&self) -> u64 {
        self.queuing
            .map_or(1, |queuing| u64::try_from(queuing.hand_size).unwrap_or(1))
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn running(&self) -> u64 {
        u64::try_from(self.running.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Whether nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn run(&mut self, ticket: Ticket, seats: u64) {
        self.running.insert(ticket, seats);
        self.used += seats;
    }

    pub(super) fn finish(&mut self, ticket: Ticket) {
        if let Some(seats) = self.running.remove(&ticket) {
            self.used -= seats;
        }
    }

    pub(super) fn enqueue(&mut self, ticket: Ticket, flow: u64, seats: u64) -> Enqueued {
        let Some(queuing) = self.queuing else {
            return Enqueued::NoQueues;
        };
        let hand = deal(flow, queuing.queues, queuing.hand_size);
        let shortest = hand
            .into_iter()
            .min_by_key(|index| self.queues[*index].requests.len());
        let Some(queue) = shortest.map(|index| &mut self.queues[index]) else {
            return Enqueued::NoQueues;
        };
        if queue.requests.len() >= queuing.length_limit {
            return Enqueued::Full;
        }
        let own = self.flows.entry(flow).or_insert(Flow {
            waiting: 0,
            last_start: 0,
        });
        let start = self.now.max(queue.finish).max(own.last_start);
        own.waiting += 1;
        own.last_start = start;
        queue.finish = start + seats;
        queue.requests.push_back(Waiting {
            ticket,
            flow,
            seats,
            start,
        });
        self.waiting += 1;
        Enqueued::Waits
    }

    /// Whose turn it is: the queue of the smallest tag, the first to come among equals.
    fn turn(&self) -> Option<usize> {
        let heads = self.queues.iter().enumerate().filter_map(|(index, queue)| {
            let head = queue.requests.front()?;
            Some((head.start, head.ticket, index))
        });
        heads.min().map(|(.., index)| index)
    }

    /// How many seats the next request wants.
    pub(super) fn next_seats(&self) -> Option<u64> {
        let index = self.turn()?;
        Some(self.queues[index].requests.front()?.seats)
    }

    /// Starts the next request.
    pub(super) fn dispatch(&mut self) -> Option<Ticket> {
        let index = self.turn()?;
        let request = self.queues[index].requests.pop_front()?;
        self.now = self.now.max(request.start);
        self.forget(request.flow);
        self.run(request.ticket, request.seats);
        Some(request.ticket)
    }

    /// Takes a waiting request out; false if it does not wait.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        for queue in &mut self.queues {
            let place = queue
                .requests
                .iter()
                .position(|request| request.ticket == ticket);
            if let Some(request) = place.and_then(|place| queue.requests.remove(place)) {
                self.forget(request.flow);
                return true;
            }
        }
        false
    }

    fn forget(&mut self, flow: u64) {
        self.waiting -= 1;
        if let Some(own) = self.flows.get_mut(&flow) {
            own.waiting -= 1;
            if own.waiting == 0 {
                self.flows.remove(&flow);
            }
        }
    }
}

/// A flow's hand of queues: `hand_size` different ones of `queues`, by its hash.
fn deal(mut hash: u64, queues: usize, hand_size: usize) -> Vec<usize> {
    let mut hand: Vec<usize> = Vec::with_capacity(hand_size);
    let mut dealt: Vec<usize> = Vec::with_capacity(hand_size);
    for place in 0..hand_size.min(queues) {
        let left = u64::try_from(queues - place).unwrap_or(1);
        let mut card = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
        // The card's place among those that are left, to its place among all.
        for taken in &dealt {
            if card >= *taken {
                card += 1;
            }
        }
        let at = dealt.partition_point(|taken| *taken < card);
        dealt.insert(at, card);
        hand.push(card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_different_queues_that_exist() {
        for hash in [0, 1, 12_345, u64::MAX, 0x9e37_79b9_7f4a_7c15] {
            let hand = deal(hash, 64, 6);
            let unique: std::collections::BTreeSet<_> = hand.iter().collect();
            assert_eq!(unique.len(), 6);
            assert!(hand.iter().all(|queue| *queue < 64));
        }
        assert_eq!(deal(u64::MAX, 3, 6).len(), 3);
    }
}
