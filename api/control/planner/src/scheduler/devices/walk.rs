//! The order in which devices are tried: device after device for request after request, by the
//! names of pools, slices and devices; where it can't go on, the last pick is taken back and
//! the next one tried. The first solution is taken.
//!
//! Invariants
//! - Of devices of one request only combinations are tried, no permutations.
//! - No more than [`MAX_LOOKS`] looks are taken at devices and requests, and what waits for an
//!   outcome is on the heap.

use super::allocator::{MAX_DEVICES, Search, Undo};

/// Looks at devices and requests for one node. The reference stops after ten seconds.
const MAX_LOOKS: usize = 1_000_000;

/// Where the search is: which device of which request.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) claim: usize,
    pub(super) request: usize,
    pub(super) alternative: usize,
    pub(super) device: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Yes,
    No,
    /// No more devices fit into the claim, whichever are picked.
    TooMany,
}

enum Step {
    /// Goes on with a place. `from`: where devices are looked at first.
    Enter {
        at: At,
        is_chosen: bool,
        from: usize,
    },
    Leave(Outcome),
}

/// What waits for the outcome of the rest.
pub(super) enum Frame {
    /// The claim before.
    Claim,
    /// An alternative.
    Choice { at: At, all_exceed: bool },
    /// A device that must be had.
    Must { undo: Undo },
    /// A device behind which others can be tried.
    Try { at: At, next: usize, undo: Undo },
}

impl Search<'_> {
    /// Tries, until all claims have their devices or nothing is left to try.
    pub(super) fn run(&mut self) -> Result<Outcome, String> {
        let mut step = Step::Enter {
            at: At {
                claim: 0,
                request: 0,
                alternative: 0,
                device: 0,
            },
            is_chosen: false,
            from: 0,
        };
        loop {
            step = match step {
                Step::Enter {
                    at,
                    is_chosen,
                    from,
                } => self.enter(at, is_chosen, from)?,
                Step::Leave(outcome) => match self.frames.pop() {
                    Some(frame) => self.resume(frame, outcome)?,
                    None => return Ok(outcome),
                },
            };
        }
    }

    fn look(&mut self) -> Result<(), String> {
        self.looks += 1;
        match self.looks > MAX_LOOKS {
            true => Err(format!(
                "node {}: timed out trying to allocate devices",
                self.node.name
            )),
            false => Ok(()),
        }
    }

    fn enter(&mut self, at: At, is_chosen: bool, from: usize) -> Result<Step, String> {
        self.look()?;
        let begin = |claim, request, alternative, is_chosen| Step::Enter {
            at: At {
                claim,
                request,
                alternative,
                device: 0,
            },
            is_chosen,
            from: 0,
        };
        let Some(claim) = self.claims.get(at.claim) else {
            return Ok(Step::Leave(Outcome::Yes));
        };
        let Some(request) = claim.spec.requests.get(at.request) else {
            self.frames.push(Frame::Claim);
            return Ok(begin(at.claim + 1, 0, 0, false));
        };
        if request.is_choice && !is_chosen {
            self.frames.push(Frame::Choice {
                at,
                all_exceed: true,
            });
            return Ok(begin(at.claim, at.request, 0, true));
        }
        let need = &self.needs[at.claim][at.request][at.alternative];
        if need.all.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Step::Leave(Outcome::No));
        }
        if at.device >= need.count {
            return Ok(begin(at.claim, at.request + 1, 0, false));
        }
        if need.count - at.device > MAX_DEVICES - self.picked[at.claim].len() {
            return Ok(Step::Leave(Outcome::TooMany));
        }
        let Some(all) = &need.all else {
            return self.scan(at, from);
        };
        let candidate = all[at.device];
        Ok(match self.pick(at, candidate)? {
            None => Step::Leave(Outcome::No),
            Some(undo) => {
                self.frames.push(Frame::Must { undo });
                Self::after(at, 0)
            }
        })
    }

    /// The next device of the same request.
    fn after(at: At, from: usize) -> Step {
        let device = at.device + 1;
        Step::Enter {
            at: At { device, ..at },
            is_chosen: true,
            from,
        }
    }

    /// Picks the first device that will do, from a place on.
    fn scan(&mut self, at: At, from: usize) -> Result<Step, String> {
        for candidate in from..self.candidates.len() {
            self.look()?;
            if let Some(undo) = self.pick(at, candidate)? {
                let next = candidate + 1;
                self.frames.push(Frame::Try { at, next, undo });
                return Ok(Self::after(at, next));
            }
        }
        Ok(Step::Leave(Outcome::No))
    }

    fn resume(&mut self, frame: Frame, outcome: Outcome) -> Result<Step, String> {
        Ok(match (frame, outcome) {
            // With other devices of the claims before, the claim may fit.
            (Frame::Claim, Outcome::TooMany) => Step::Leave(Outcome::No),
            (Frame::Choice { at, .. }, Outcome::Yes) => {
                self.chosen[at.claim][at.request] = at.alternative;
                Step::Leave(Outcome::Yes)
            }
            (_, Outcome::Yes) | (Frame::Claim, _) => Step::Leave(outcome),
            (Frame::Choice { mut at, all_exceed }, _) => {
                let all_exceed = all_exceed && outcome == Outcome::TooMany;
                at.alternative += 1;
                if at.alternative == self.needs[at.claim][at.request].len() {
                    return Ok(Step::Leave(match all_exceed {
                        true => Outcome::TooMany,
                        false => Outcome::No,
                    }));
                }
                self.frames.push(Frame::Choice { at, all_exceed });
                Step::Enter {
                    at,
                    is_chosen: true,
                    from: 0,
                }
            }
            (Frame::Must { undo }, _) => {
                self.take_back(&undo);
                Step::Leave(outcome)
            }
            (Frame::Try { at, next, undo }, _) => {
                self.take_back(&undo);
                match outcome {
                    Outcome::TooMany => Step::Leave(outcome),
                    _ => self.scan(at, next)?,
                }
            }
        })
    }
}
