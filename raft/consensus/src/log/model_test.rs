//! The log against a model: any sequence of appends, truncations, purges, votes and
//! restarts leaves exactly what the model has.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use nautilus_machine::LogPosition;
use nautilus_store::{Keyring, Outcome, RootKey};
use proptest::prelude::*;

use super::Wal;
use super::record::{HardVote, RawEntry};
use super::tests::{World, append, entry};

#[derive(Debug, Clone)]
enum Step {
    Append {
        count: u64,
        size: usize,
    },
    /// Forget so many of the newest, and go on in a new term.
    Truncate {
        back: u64,
    },
    /// Purge up to so many before the end.
    Purge {
        keep: u64,
    },
    Vote(u64),
    Reopen,
    /// A new generation of keys, or so many steps of a rotation that is not over.
    Rotate {
        steps: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..8, 0_usize..900).prop_map(|(count, size)| Step::Append { count, size }),
        2 => (1_u64..10).prop_map(|back| Step::Truncate { back }),
        2 => (0_u64..20).prop_map(|keep| Step::Purge { keep }),
        1 => (1_u64..100).prop_map(Step::Vote),
        2 => Just(Step::Reopen),
        3 => (1_u8..60).prop_map(|steps| Step::Rotate { steps }),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, RawEntry>,
    purged: Option<LogPosition>,
    vote: Option<HardVote>,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        let after_purge = self.purged.map_or(0, |purged| purged.index + 1);
        self.entries
            .keys()
            .next_back()
            .map_or(after_purge, |last| last + 1)
    }

    async fn run(&mut self, wal: &Wal, step: &Step) {
        match *step {
            Step::Append { count, size } => {
                let from = self.next();
                let body = "m".repeat(size);
                let new: Vec<_> = (from..from + count)
                    .map(|index| entry(self.term, index, &format!("{index}{body}")))
                    .collect();
                self.entries.extend(
                    new.iter()
                        .map(|entry| (entry.position.index, entry.clone())),
                );
                append(wal, new).await.unwrap();
            }
            Step::Truncate { back } => {
                let floor = self.purged.map_or(0, |purged| purged.index + 1);
                let from = self.next().saturating_sub(back).max(floor);
                self.entries.retain(|index, _| *index < from);
                self.term += 1;
                wal.truncate_from(from).await.unwrap();
            }
            Step::Purge { keep } => {
                let upto = self.next().saturating_sub(keep);
                let Some(last) = self
                    .entries
                    .range(..upto)
                    .next_back()
                    .map(|(_, entry)| entry.position)
                else {
                    return;
                };
                self.entries.retain(|index, _| *index > last.index);
                self.purged = Some(last);
                wal.purge(last).await.unwrap();
            }
            Step::Vote(term) => {
                let vote = HardVote {
                    term,
                    node: 1,
                    committed: false,
                };
                self.vote = Some(vote);
                wal.save_vote(vote).await.unwrap();
            }
            Step::Reopen | Step::Rotate { .. } => {}
        }
    }

    fn compare(&self, wal: &Wal) {
        let reader = wal.reader();
        let entries = reader.read(0..u64::MAX, usize::MAX).unwrap();
        assert_eq!(entries, self.entries.values().cloned().collect::<Vec<_>>());
        assert_eq!(reader.bounds().0, self.purged);
        assert_eq!(reader.vote(), self.vote);
    }
}

fn rotate(ring: &Keyring, wal: &Wal, steps: u8) {
    let (reader, current) = (wal.reader(), ring.current());
    if reader.oldest_generation() == current {
        ring.destroy_old();
        ring.add(current + 1, RootKey::generate().unwrap()).unwrap();
        ring.advance(current + 1).unwrap();
    }
    let mut left = steps;
    let outcome = reader.reencrypt(&mut |_| {
        left -= 1;
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if outcome.unwrap() == Outcome::Done {
        assert_eq!(reader.oldest_generation(), ring.current());
        ring.destroy_old();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_log_is_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.segment_bytes = 4096;
            world.cache_bytes = 2048;
            let mut model = Model { term: 1, ..Model::default() };
            let mut wal = world.open().unwrap();
            for step in &steps {
                model.run(&wal, step).await;
                match step {
                    Step::Reopen => {
                        drop(wal);
                        wal = world.open().unwrap();
                    }
                    Step::Rotate { steps } => rotate(&world.keyring, &wal, *steps),
                    _ => {}
                }
                model.compare(&wal);
            }
        });
    }
}
