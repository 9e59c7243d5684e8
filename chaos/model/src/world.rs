//! All processes, what is under way between them, the disks the host kept, and what an
//! observer has seen.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_attest_protocol::restart::{Claim, Decision, Floor, Freshness, LogPlace, judge};

use crate::process::{Disk, Logged, Process, Role, Standing, What, incarnation};

/// Which rule restarted nodes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The product's.
    Judge,
    /// None: the disk is believed.
    TrustDisk,
    /// The product's, but a node comes back without its floor.
    NoFloor,
    /// The product's, but nobody refuses an older life.
    NoFence,
}

/// How far the checker goes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Voters.
    pub nodes: u8,
    /// The highest term.
    pub terms: u8,
    /// Entries of a log.
    pub entries: usize,
    /// Starts after the first.
    pub restarts: u8,
    /// Whether a process may live on while its node is started again.
    pub twice: bool,
    /// What is followed.
    pub rule: Rule,
}

/// Under way; what is never delivered is lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A vote.
    Grant {
        /// Who gives it.
        voter: u8,
        /// In which life.
        epoch: u8,
        /// In which term.
        term: u8,
        /// To which process.
        to: usize,
    },
    /// An acknowledgement.
    Ack {
        /// Who gives it.
        follower: u8,
        /// In which life.
        epoch: u8,
        /// In which term.
        term: u8,
        /// So many entries.
        upto: u8,
        /// To which process.
        to: usize,
    },
}

/// What may happen next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process asks for votes.
    Stand(usize),
    /// Its request reaches another one.
    Ask(usize, usize),
    /// A leader takes a write.
    Write(usize),
    /// A leader registers the newest epoch it knows of a node.
    Register(usize, u8),
    /// A leader's log reaches another process.
    Send(usize, usize),
    /// An answer arrives and counts; one that does not count is as good as lost.
    Deliver(Message),
    /// A node starts from a disk; whether its present process lives on.
    Start(u8, Disk, bool),
    /// A process that comes back asks another one.
    Testify(usize, usize),
    /// A leader tells a process that it is registered.
    Readmit(usize, usize),
    /// The rule is applied.
    Judge(usize),
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// By number; dead ones are gone.
    pub processes: Vec<Option<Process>>,
    /// Under way.
    pub messages: BTreeSet<Message>,
    /// Every disk each node had.
    pub disks: Vec<BTreeSet<Disk>>,
    /// Starts so far.
    pub restarts: u8,
    /// Who was elected in each term.
    pub leaders: BTreeMap<u8, BTreeSet<usize>>,
    /// Whom a node's vote elected, by voter and term.
    pub counted: BTreeMap<(u8, u8), BTreeSet<usize>>,
    /// Committed entries by index from 0, and the first term in which they were.
    pub acknowledged: BTreeMap<usize, BTreeSet<(Logged, u8)>>,
}

impl World {
    /// Node 0 leads in term 1, and nothing is written yet.
    pub fn begin(bounds: &Bounds) -> Self {
        let process = |node| {
            let role = match node {
                0 => Role::Leader {
                    acked: BTreeMap::new(),
                    committed: 0,
                },
                _ => Role::Follower,
            };
            Some(Process {
                node,
                epoch: 1,
                disk: Disk {
                    term: 1,
                    voted: Some(0),
                    log: Vec::new(),
                    known: (0..bounds.nodes).map(|node| (node, 1)).collect(),
                },
                role,
                standing: Standing::Steady(Floor::default()),
                forgetful: false,
            })
        };
        Self {
            processes: (0..bounds.nodes).map(process).collect(),
            messages: BTreeSet::new(),
            disks: vec![BTreeSet::new(); usize::from(bounds.nodes)],
            restarts: 0,
            leaders: BTreeMap::from([(1, BTreeSet::from([0]))]),
            counted: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        }
    }

    /// No term has two leaders.
    pub fn elections_are_safe(&self) -> bool {
        self.leaders.values().all(|elected| elected.len() <= 1)
    }

    /// No node's votes elected two candidates in one term.
    pub fn votes_are_single(&self) -> bool {
        self.counted.values().all(|counted| counted.len() <= 1)
    }

    /// Every leader of a later term has what was acknowledged, and nothing else was.
    pub fn nothing_acknowledged_is_lost(&self) -> bool {
        let leaders = || {
            self.processes
                .iter()
                .flatten()
                .filter(|process| matches!(process.role, Role::Leader { .. }))
        };
        self.acknowledged.iter().all(|(index, entries)| {
            entries.len() == 1
                && entries.iter().all(|(entry, term)| {
                    leaders()
                        .filter(|leader| leader.disk.term > *term)
                        .all(|leader| leader.disk.log.get(*index) == Some(entry))
                })
        })
    }

    fn live(&self) -> impl Iterator<Item = (usize, &Process)> {
        let numbered = self.processes.iter().enumerate();
        numbered.filter_map(|(number, process)| Some((number, process.as_ref()?)))
    }

    /// The newest process of a node, dead or alive ones counted by epoch.
    fn newest(&self, node: u8) -> Option<&Process> {
        let of_node = self.live().map(|(_, process)| process);
        of_node
            .filter(|process| process.node == node)
            .max_by_key(|process| process.epoch)
    }

    /// What may happen; some of it turns out to change nothing.
    pub fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        actions.extend(self.messages.iter().cloned().map(Action::Deliver));
        for (number, process) in self.live() {
            self.steps_of(bounds, number, process, actions);
        }
        if self.restarts < bounds.restarts {
            for node in 0..bounds.nodes {
                self.starts_of(bounds, node, actions);
            }
        }
    }

    fn steps_of(
        &self,
        bounds: &Bounds,
        number: usize,
        process: &Process,
        actions: &mut Vec<Action>,
    ) {
        let others = || {
            self.live()
                .filter(|(_, other)| other.node != process.node)
                .map(|(other, _)| other)
        };
        let Some(floor) = process.floor() else {
            actions.extend(others().map(|other| Action::Testify(number, other)));
            actions.push(Action::Judge(number));
            return;
        };
        match &process.role {
            Role::Leader { .. } => {
                if process.disk.log.len() < bounds.entries {
                    actions.push(Action::Write(number));
                    let known = process.disk.known.keys();
                    actions.extend(known.map(|node| Action::Register(number, *node)));
                }
                actions.extend(others().map(|other| Action::Send(number, other)));
                actions.extend(others().map(|other| Action::Readmit(number, other)));
            }
            Role::Candidate(_) => {
                actions.extend(others().map(|other| Action::Ask(number, other)));
            }
            Role::Follower => {}
        }
        let may_stand = floor.is_reached(process.disk.last());
        if process.disk.term < bounds.terms && may_stand {
            actions.push(Action::Stand(number));
        }
    }

    fn starts_of(&self, bounds: &Bounds, node: u8, actions: &mut Vec<Action>) {
        let Some(present) = self.newest(node) else {
            return;
        };
        let forgetful = (0..bounds.nodes)
            .filter(|id| *id != node)
            .filter(|id| self.newest(*id).is_some_and(Process::is_forgetful))
            .count();
        let minority = usize::from(bounds.nodes - 1) / 2;
        actions.push(Action::Start(node, present.disk.clone(), false));
        if forgetful < minority {
            let older = self.disks[usize::from(node)].iter().cloned();
            actions.extend(older.map(|disk| Action::Start(node, disk, false)));
            if bounds.twice {
                actions.push(Action::Start(node, present.disk.clone(), true));
            }
        }
    }

    /// The world after `action`; `None` when it changes nothing.
    pub fn step(&self, bounds: &Bounds, action: &Action) -> Option<Self> {
        let mut world = self.clone();
        match action {
            Action::Stand(number) => world.stand(*number),
            Action::Ask(number, other) => world.ask(bounds, *number, *other),
            Action::Write(number) => world.append(*number, What::Data),
            Action::Register(number, node) => world.register(*number, *node),
            Action::Send(number, other) => world.send(bounds, *number, *other),
            Action::Deliver(message) => world.deliver(bounds, message),
            Action::Start(node, disk, twice) => world.start(bounds, *node, disk, *twice),
            Action::Testify(number, other) => world.testify(*number, *other),
            Action::Readmit(number, other) => world.readmit(*number, *other),
            Action::Judge(number) => world.judge(bounds, *number),
        }?;
        world.keep_disks(self);
        (world != *self).then_some(world)
    }

    /// The host keeps every disk that was overwritten.
    fn keep_disks(&mut self, before: &Self) {
        for (number, old) in before.live() {
            let new = self.processes[number].as_ref();
            if new.is_none_or(|new| new.disk != old.disk) {
                self.disks[usize::from(old.node)].insert(old.disk.clone());
            }
        }
    }

    fn process(&mut self, number: usize) -> Option<&mut Process> {
        self.processes.get_mut(number)?.as_mut()
    }

    fn stand(&mut self, number: usize) -> Option<()> {
        let process = self.process(number)?;
        process.disk.term += 1;
        process.disk.voted = Some(process.node);
        process.role = Role::Candidate(BTreeSet::from([process.node]));
        Some(())
    }

    fn count(&mut self, voter: u8, term: u8, candidate: usize) {
        let counted = self.counted.entry((voter, term)).or_default();
        counted.insert(candidate);
    }

    fn ask(&mut self, bounds: &Bounds, number: usize, other: usize) -> Option<()> {
        let candidate = self.processes[number].clone()?;
        let voter = self.process(other)?;
        if !voter.hear(candidate.node, candidate.epoch) && bounds.rule != Rule::NoFence {
            return None;
        }
        let floor = voter.floor()?;
        let (term, last) = (candidate.disk.term, candidate.disk.last());
        let free = term > voter.disk.term
            || (term == voter.disk.term
                && voter.disk.voted.is_none_or(|voted| voted == candidate.node));
        if !free || last < voter.disk.last() || !floor.admits(u64::from(term), last) {
            return None;
        }
        voter.disk.term = term;
        voter.disk.voted = Some(candidate.node);
        voter.role = Role::Follower;
        let grant = Message::Grant {
            voter: voter.node,
            epoch: voter.epoch,
            term,
            to: number,
        };
        self.messages.insert(grant);
        Some(())
    }

    fn append(&mut self, number: usize, what: What) -> Option<()> {
        let leader = self.process(number)?;
        let mut log = leader.disk.log.clone();
        log.push(Logged {
            term: leader.disk.term,
            what,
        });
        leader.store_log(log);
        Some(())
    }

    fn register(&mut self, number: usize, node: u8) -> Option<()> {
        let leader = self.process(number)?;
        let epoch = *leader.disk.known.get(&node)?;
        let what = What::Register { node, epoch };
        let is_new = node != leader.node
            && epoch > 1
            && leader.disk.log.iter().all(|entry| entry.what != what);
        if !is_new {
            return None;
        }
        self.append(number, what)
    }

    fn send(&mut self, bounds: &Bounds, number: usize, other: usize) -> Option<()> {
        let leader = self.processes[number].clone()?;
        let follower = self.process(other)?;
        if !follower.hear(leader.node, leader.epoch) && bounds.rule != Rule::NoFence {
            return None;
        }
        follower.floor()?;
        let term = leader.disk.term;
        if term < follower.disk.term {
            return None;
        }
        follower.disk.term = term;
        follower.disk.voted = Some(leader.node);
        follower.role = Role::Follower;
        if !follower.disk.log.starts_with(&leader.disk.log) {
            follower.store_log(leader.disk.log.clone());
        }
        let upto = u8::try_from(leader.disk.log.len()).ok()?;
        if upto > 0 {
            let ack = Message::Ack {
                follower: follower.node,
                epoch: follower.epoch,
                term,
                upto,
                to: number,
            };
            self.messages.insert(ack);
        }
        Some(())
    }

    fn deliver(&mut self, bounds: &Bounds, message: &Message) -> Option<()> {
        self.messages.remove(message);
        let majority = usize::from(bounds.nodes) / 2 + 1;
        let fence = bounds.rule != Rule::NoFence;
        match *message {
            Message::Grant {
                voter,
                epoch,
                term,
                to,
            } => {
                let candidate = self.process(to)?;
                let heard = candidate.hear(voter, epoch) || !fence;
                let Role::Candidate(votes) = &mut candidate.role else {
                    return None;
                };
                if !heard || candidate.disk.term != term {
                    return None;
                }
                votes.insert(voter);
                if votes.len() >= majority {
                    let votes = votes.clone();
                    candidate.role = Role::Leader {
                        acked: BTreeMap::new(),
                        committed: 0,
                    };
                    self.leaders.entry(term).or_default().insert(to);
                    for voter in votes {
                        self.count(voter, term, to);
                    }
                }
            }
            Message::Ack {
                follower,
                epoch,
                term,
                upto,
                to,
            } => {
                let leader = self.process(to)?;
                let heard = leader.hear(follower, epoch) || !fence;
                let Role::Leader { acked, .. } = &mut leader.role else {
                    return None;
                };
                if !heard || leader.disk.term != term {
                    return None;
                }
                let known = acked.entry(follower).or_default();
                *known = (*known).max(upto);
                self.commit(to, majority)?;
            }
        }
        Some(())
    }

    fn commit(&mut self, number: usize, majority: usize) -> Option<()> {
        let leader = self.processes[number].as_mut()?;
        let Role::Leader { acked, committed } = &mut leader.role else {
            return None;
        };
        let length = u8::try_from(leader.disk.log.len()).ok()?;
        let newest = (1..=length).rev().find(|upto| {
            let held = 1 + acked.values().filter(|acked| *acked >= upto).count();
            let of_term = leader.disk.log[usize::from(*upto) - 1].term == leader.disk.term;
            of_term && held >= majority
        });
        if let Some(newest) = newest {
            *committed = (*committed).max(newest);
            let entries = leader.disk.log.iter().take(usize::from(newest));
            for (index, entry) in entries.enumerate() {
                let seen = self.acknowledged.entry(index).or_default();
                if seen.iter().all(|(other, _)| other != entry) {
                    seen.insert((*entry, leader.disk.term));
                }
            }
        }
        Some(())
    }

    fn start(&mut self, bounds: &Bounds, node: u8, disk: &Disk, twice: bool) -> Option<()> {
        self.restarts += 1;
        let present = self.newest(node)?.clone();
        let forgetful = twice || *disk != present.disk || present.is_forgetful();
        if !twice {
            for process in &mut self.processes {
                let same = process.as_ref().is_some_and(|old| old.node == node);
                if same {
                    *process = None;
                }
            }
            // Nobody is there to take what was under way to it.
            let processes = &self.processes;
            self.messages.retain(|message| {
                let (Message::Grant { to, .. } | Message::Ack { to, .. }) = message;
                processes[*to].is_some()
            });
        }
        let standing = match bounds.rule {
            Rule::TrustDisk => Standing::Steady(Floor::default()),
            _ => Standing::Returning {
                heard: Vec::new(),
                registered: None,
            },
        };
        self.processes.push(Some(Process {
            node,
            epoch: present.epoch + 1,
            disk: disk.clone(),
            role: Role::Follower,
            standing,
            forgetful,
        }));
        Some(())
    }

    fn testify(&mut self, number: usize, other: usize) -> Option<()> {
        let asker = self.processes[number].clone()?;
        let peer = self.process(other)?;
        let known = peer.disk.known.clone();
        peer.hear(asker.node, asker.epoch);
        let testimony = peer.testify(&asker, known);
        let (node, epoch) = (peer.node, peer.epoch);
        let asker = self.process(number)?;
        if !asker.hear(node, epoch) {
            return None;
        }
        let told: Vec<(u8, u8)> = testimony
            .known
            .iter()
            .filter_map(|(node, life)| {
                Some((u8::try_from(*node).ok()?, u8::try_from(life.epoch).ok()?))
            })
            .collect();
        let own = asker.node;
        for (node, epoch) in told.into_iter().filter(|(node, _)| *node != own) {
            asker.hear(node, epoch);
        }
        let Standing::Returning { heard, .. } = &mut asker.standing else {
            return None;
        };
        match heard.iter_mut().find(|by| by.node == testimony.node) {
            Some(before) => before.renew(testimony),
            None => heard.push(testimony),
        }
        heard.sort_by_key(|by| by.node);
        Some(())
    }

    fn readmit(&mut self, number: usize, other: usize) -> Option<()> {
        let leader = self.processes[number].clone()?;
        let Role::Leader { committed, .. } = leader.role else {
            return None;
        };
        let process = self.process(other)?;
        let what = What::Register {
            node: process.node,
            epoch: process.epoch,
        };
        let at = leader
            .disk
            .log
            .iter()
            .position(|entry| entry.what == what)?;
        if at >= usize::from(committed) || !process.hear(leader.node, leader.epoch) {
            return None;
        }
        let place: LogPlace = leader.disk.place(at + 1)?;
        let Standing::Returning { registered, .. } = &mut process.standing else {
            return None;
        };
        *registered = Some(place);
        Some(())
    }

    fn judge(&mut self, bounds: &Bounds, number: usize) -> Option<()> {
        let process = self.process(number)?;
        let Standing::Returning { heard, registered } = &process.standing else {
            return None;
        };
        let claim = Claim {
            node: u64::from(process.node),
            incarnation: incarnation(process.epoch),
            disk_epoch: 0,
            term: u64::from(process.disk.term),
            last: process.disk.last(),
            freshness: Freshness::Unproven,
            registered: *registered,
        };
        let voters = (0..u64::from(bounds.nodes)).collect();
        match judge(&claim, &voters, heard) {
            Decision::Rejoin(rejoin) => {
                let floor = match bounds.rule {
                    Rule::NoFloor => Floor::default(),
                    _ => rejoin.floor,
                };
                let term = u8::try_from(floor.term).ok()?;
                if term > process.disk.term {
                    process.disk.term = term;
                    // As if it had voted, for nobody that is there.
                    process.disk.voted = Some(u8::MAX);
                }
                process.standing = Standing::Steady(floor);
            }
            Decision::Fenced(_) | Decision::Forked(_) => self.processes[number] = None,
            Decision::Wait(_) => return None,
        }
        Some(())
    }
}
