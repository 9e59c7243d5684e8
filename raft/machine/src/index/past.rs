//! The versions before the newest: which version each of them came after.
//!
//! No key is kept here: a version is known by its place, and everything that a
//! compaction removes is found from the places alone, oldest first.
//!
//! Every link also jumps further back, to a version whose depth (how many are before
//! it) has one bit less: a version of a key at a revision is found in a logarithmic
//! number of steps, however often the key was written.
//!
//! Invariants
//! - Links stand in the order of their places, which grow; so do tombstones.
//! - A link is there from the moment its version supersedes another until a compaction
//!   has swept it; a tombstone until one has passed it and swept it.
//! - What [`Past::sweep`] gives depends only on the rows that are there: a replica that
//!   started anew from its rows sweeps the same.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::encoding::Place;
use crate::index::Newest;
use crate::types::Revision;

/// Links in one piece.
const LINKS_PER_PIECE: usize = 512;
/// The depth that is not counted further.
const DEPTH_MAX: u32 = u32::MAX >> 1;

/// What came before a version of a key; 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    revision: Revision,
    before_revision: Revision,
    jump_revision: Revision,
    sub: u32,
    before_sub: u32,
    jump_sub: u32,
    /// The depth, doubled; odd if the version before is a put.
    depth_and_lives: u32,
}

impl Link {
    fn new(place: Place, before: Place, before_lives: bool, depth: u32, jump: Place) -> Self {
        Self {
            revision: place.revision,
            before_revision: before.revision,
            jump_revision: jump.revision,
            sub: place.sub,
            before_sub: before.sub,
            jump_sub: jump.sub,
            depth_and_lives: (depth.min(DEPTH_MAX) << 1) | u32::from(before_lives),
        }
    }

    fn place(&self) -> Place {
        place(self.revision, self.sub)
    }

    fn before(&self) -> Place {
        place(self.before_revision, self.before_sub)
    }

    fn jump(&self) -> Place {
        place(self.jump_revision, self.jump_sub)
    }

    fn before_lives(&self) -> bool {
        self.depth_and_lives & 1 != 0
    }

    fn depth(&self) -> u32 {
        self.depth_and_lives >> 1
    }
}

fn place(revision: Revision, sub: u32) -> Place {
    Place { revision, sub }
}

/// A row that a compaction removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    /// A put that was superseded.
    Put(Place),
    /// A deletion; if the key was not written since, it is forgotten.
    Tombstone(Place),
}

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Past {
    pieces: VecDeque<Arc<Vec<Link>>>,
    /// Links of the first piece that are swept.
    swept: usize,
    tombstones: VecDeque<Place>,
}

impl Past {
    /// Notes that the version at `place` came after `before`.
    pub(super) fn link(&mut self, place: Place, before: Place, before_lives: bool) {
        let (depth, jump) = self.depth_and_jump(before);
        let link = Link::new(place, before, before_lives, depth, jump);
        let last = self.pieces.back().and_then(|piece| piece.last());
        assert!(
            last.is_none_or(|last| last.place() < place),
            "versions must grow: {place:?} after {last:?}"
        );
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < LINKS_PER_PIECE => Arc::make_mut(piece).push(link),
            _ => {
                // Short at first: most stores have few versions of the past.
                self.pieces.push_back(Arc::new(vec![link]));
            }
        }
    }

    /// The depth of a version that comes after `before`, and where it jumps to: to the
    /// depth with its lowest bit cleared.
    fn depth_and_jump(&self, before: Place) -> (u32, Place) {
        let Some(link) = self.find(before) else {
            return (1, before);
        };
        let depth = link.depth() + 1;
        let goal = depth & (depth - 1);
        let (mut at, mut link) = (before, Some(link));
        while let Some(found) = link
            && found.depth() > goal
        {
            at = found.jump();
            link = self.find(at);
        }
        (depth, at)
    }

    pub(super) fn tombstone(&mut self, place: Place) {
        let last = self.tombstones.back();
        assert!(last.is_none_or(|last| *last < place), "deletions must grow");
        self.tombstones.push_back(place);
    }

    /// The put that stood at `revision`, which is not compacted, of a key whose newest
    /// version is known.
    pub(super) fn at(&self, newest: Newest, revision: Revision) -> Option<Place> {
        let mut lives = newest.life.is_some();
        let mut place = newest.place;
        while place.revision > revision {
            let link = self.find(place)?;
            if link.jump_revision > revision && link.jump() != link.before() {
                // Later than asked for: whether it lives is not of interest.
                place = link.jump();
            } else {
                (place, lives) = (link.before(), link.before_lives());
            }
        }
        lives.then_some(place)
    }

    /// The put before the version at `place`, if there is one and it is not swept.
    pub(super) fn before(&self, place: Place) -> Option<Place> {
        let link = self.find(place)?;
        link.before_lives().then_some(link.before())
    }

    fn find(&self, place: Place) -> Option<&Link> {
        let after = self
            .pieces
            .partition_point(|piece| piece[0].place() <= place);
        let at = after.checked_sub(1)?;
        let piece = &self.pieces[at];
        let found = piece
            .binary_search_by(|link| link.place().cmp(&place))
            .ok()?;
        (at > 0 || found >= self.swept).then(|| &piece[found])
    }

    /// The next row that a compaction at `compacted` removes.
    pub(super) fn sweep(&mut self, compacted: Revision) -> Option<Swept> {
        loop {
            let link = self.first_link().filter(|link| link.revision <= compacted);
            let tombstone = self.tombstones.front().copied();
            let tombstone = tombstone.filter(|place| place.revision < compacted);
            match (link, tombstone) {
                // A deletion goes after what it superseded.
                (Some(link), Some(place)) if place.revision < link.revision => {
                    return self.sweep_tombstone(place);
                }
                (Some(link), _) => {
                    self.drop_first_link();
                    if link.before_lives() {
                        return Some(Swept::Put(link.before()));
                    }
                }
                (None, Some(place)) => return self.sweep_tombstone(place),
                (None, None) => return None,
            }
        }
    }

    fn sweep_tombstone(&mut self, place: Place) -> Option<Swept> {
        self.tombstones.pop_front();
        Some(Swept::Tombstone(place))
    }

    /// Whether a compaction at `compacted` has still something to remove.
    pub(super) fn is_swept(&self, compacted: Revision) -> bool {
        let links = self.links();
        let mut links = links.take_while(|link| link.revision <= compacted);
        let tombstone = self.tombstones.front();
        tombstone.is_none_or(|place| place.revision >= compacted)
            && !links.any(|link| link.before_lives())
    }

    /// Every row that [`Past::sweep`] would still give, in no order.
    pub(super) fn unswept(&self, compacted: Revision) -> impl Iterator<Item = Place> {
        let links = self
            .links()
            .take_while(move |link| link.revision <= compacted);
        let puts = links.filter(|link| link.before_lives()).map(Link::before);
        let deletions = self.tombstones.iter().copied();
        puts.chain(deletions.take_while(move |place| place.revision < compacted))
    }

    fn first_link(&self) -> Option<Link> {
        Some(self.pieces.front()?[self.swept])
    }

    fn drop_first_link(&mut self) {
        self.swept += 1;
        if self
            .pieces
            .front()
            .is_some_and(|piece| piece.len() == self.swept)
        {
            self.pieces.pop_front();
            self.swept = 0;
        }
    }

    /// The links not swept, in order.
    fn links(&self) -> impl Iterator<Item = &Link> {
        self.pieces
            .iter()
            .flat_map(|piece| piece.iter())
            .skip(self.swept)
    }

    /// What each version came after, and whether that lived, in order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Place, Place, bool)> {
        self.links()
            .map(|link| (link.place(), link.before(), link.before_lives()))
    }

    pub(super) fn tombstones(&self) -> impl Iterator<Item = Place> {
        self.tombstones.iter().copied()
    }

    /// The memory it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        let pieces = self.pieces.capacity() * size_of::<Arc<Vec<Link>>>();
        let links = self.pieces.len() * LINKS_PER_PIECE * size_of::<Link>();
        let tombstones = self.tombstones.capacity() * size_of::<Place>();
        (pieces + links + tombstones) as u64
    }
}
