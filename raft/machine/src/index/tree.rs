//! The ordered tree over the leaves: every branch knows how many keys of each of its
//! children live and how lately they changed, so that a count walks two edges of the
//! tree and not its keys.
//!
//! Nodes are shared until written (`Arc`): a clone of the tree is cheap, and is what a
//! checkpoint reads while the machine goes on.
//!
//! Invariants
//! - A child's keys are not before its `from` (but for the first child, whose `from`
//!   does not bound it) and before the next child's.
//! - A child's summary is that of its node; a branch's total is the sum of them.
//! - No branch is empty, and no leaf but the root.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::index::Newest;
use crate::index::leaf::{KeyParts, Leaf, common_bytes};
use crate::index::past::Past;
use crate::types::Revision;

/// Children that a branch has at most.
const BRANCH_CHILDREN_MAX: usize = 64;
/// What an `Arc` keeps beside its value, in bytes.
const ARC_BYTES: u64 = 16;

/// All keys, in order.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: Node,
}

#[derive(Debug, Clone)]
enum Node {
    Leaf(Arc<Leaf>),
    Branch(Arc<Branch>),
}

#[derive(Debug, Default, Clone)]
struct Branch {
    children: Vec<Child>,
    /// For each child, the first bytes of its `from` behind those that all but the
    /// first child's begin with: most searches look at nothing else.
    heads: Vec<u64>,
    prefix_bytes: usize,
    total: Summary,
}

#[derive(Debug, Clone)]
struct Child {
    from: Arc<[u8]>,
    node: Node,
    summary: Summary,
}

/// What is known of a subtree without looking into it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) keys: u64,
    pub(super) living: u64,
    /// No newest version in it is of a later revision.
    pub(super) changed: Revision,
    pub(super) memory_bytes: u64,
}

/// From a key, which is included, up to another, which is not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub(crate) start: &'a [u8],
    pub(crate) end: Option<&'a [u8]>,
}

/// What is done with each key of a range.
pub(crate) type Visit<'a> = dyn FnMut(KeyParts<'_>, Newest) -> ControlFlow<()> + 'a;

impl Default for Tree {
    fn default() -> Self {
        Self {
            root: Node::Leaf(Arc::default()),
        }
    }
}

impl Tree {
    pub(super) fn summary(&self) -> Summary {
        self.root.summary()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Newest> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| leaf.newest(at)),
                Node::Branch(branch) => node = &branch.children[branch.child(key)].node,
            }
        }
    }

    /// Notes the newest version of a key; `next` is given the one before.
    pub(super) fn put(&mut self, key: &[u8], next: &mut dyn FnMut(Option<Newest>) -> Newest) {
        if let Some((from, right)) = self.root.put(key, next) {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Arc::default()));
            let children = vec![Child::new(Arc::default(), left), Child::new(from, right)];
            self.root = Node::Branch(Arc::new(Branch::new(children)));
        }
    }

    /// Takes out a key; whether it was there.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.root.remove(key);
        while let Node::Branch(branch) = &mut self.root {
            match branch.children.len() {
                0 => self.root = Node::Leaf(Arc::default()),
                1 => self.root = branch.children[0].node.clone(),
                _ => break,
            }
        }
        removed
    }

    /// Visits the keys in the bounds, in order, but for subtrees that `skip`.
    pub(super) fn visit(
        &self,
        bounds: Bounds<'_>,
        skip: &dyn Fn(&Summary) -> bool,
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        self.root.visit(bounds, skip, visit)
    }

    /// How many keys in the bounds live.
    pub(super) fn living(&self, bounds: Bounds<'_>) -> u64 {
        let upto = match bounds.end {
            Some(end) if end <= bounds.start => return 0,
            Some(end) => self.root.living_before(end),
            None => self.summary().living,
        };
        upto - self.root.living_before(bounds.start)
    }

    /// How many keys in the bounds lived at `revision`, which is not compacted.
    pub(super) fn living_at(&self, bounds: Bounds<'_>, revision: Revision, past: &Past) -> u64 {
        self.root.living_at(bounds, revision, past)
    }

    /// A tree of leaves that follow one another.
    pub(super) fn from_leaves(leaves: Vec<Leaf>) -> Self {
        let mut level: Vec<Child> = leaves
            .into_iter()
            .filter(|leaf| leaf.len() > 0)
            .map(|leaf| Child::new(leaf.key(0).to_vec().into(), Node::Leaf(Arc::new(leaf))))
            .collect();
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len() / BRANCH_CHILDREN_MAX + 1);
            let mut rest = level.into_iter();
            loop {
                let children: Vec<Child> = rest.by_ref().take(BRANCH_CHILDREN_MAX).collect();
                let Some(first) = children.first() else { break };
                let from = Arc::clone(&first.from);
                above.push(Child::new(
                    from,
                    Node::Branch(Arc::new(Branch::new(children))),
                ));
            }
            level = above;
        }
        match level.pop() {
            Some(child) => Self { root: child.node },
            None => Self::default(),
        }
    }

    /// Checks every invariant; for tests.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.root.check(None, None);
    }
}

/// The right half of a node that was split, and where it begins.
type Right = Option<(Arc<[u8]>, Node)>;

impl Node {
    fn summary(&self) -> Summary {
        match self {
            Self::Leaf(leaf) => Summary {
                keys: leaf.len() as u64,
                living: leaf.living(),
                changed: leaf.changed(),
                memory_bytes: leaf.memory_bytes() as u64,
            },
            Self::Branch(branch) => branch.total,
        }
    }

    fn put(&mut self, key: &[u8], next: &mut dyn FnMut(Option<Newest>) -> Newest) -> Right {
        match self {
            Self::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let before = leaf.find(key).ok().map(|at| leaf.newest(at));
                let at = leaf.put(key, next(before));
                if !leaf.is_overfull() {
                    return None;
                }
                let right = leaf.split_off(leaf.split_point(at));
                let from = separator(leaf.key(leaf.len() - 1), &right.key(0).to_vec());
                Some((from, Self::Leaf(Arc::new(right))))
            }
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let at = branch.child(key);
                let right = branch.children[at].node.put(key, next);
                branch.refresh(at);
                let (from, node) = right?;
                branch.insert(at + 1, Child::new(from, node));
                branch.split(at + 1)
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        match self {
            Self::Leaf(leaf) => match leaf.find(key) {
                Ok(at) => {
                    Arc::make_mut(leaf).remove(at);
                    true
                }
                Err(_) => false,
            },
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let at = branch.child(key);
                let removed = branch.children[at].node.remove(key);
                if removed {
                    branch.refresh(at);
                    branch.tidy(at);
                }
                removed
            }
        }
    }

    fn visit(
        &self,
        bounds: Bounds<'_>,
        skip: &dyn Fn(&Summary) -> bool,
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        match self {
            Self::Leaf(leaf) => {
                for at in leaf_range(leaf, bounds) {
                    visit(leaf.key(at), leaf.newest(at))?;
                }
            }
            Self::Branch(branch) => {
                for child in branch.overlapping(bounds) {
                    if !skip(&child.summary) {
                        child.node.visit(bounds, skip, visit)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn living_before(&self, key: &[u8]) -> u64 {
        let (mut node, mut count) = (self, 0);
        loop {
            match node {
                Self::Leaf(leaf) => return count + leaf.living_before(leaf.lower_bound(key)),
                Self::Branch(branch) => {
                    let at = branch.child(key);
                    let before = &branch.children[..at];
                    count += before.iter().map(|child| child.summary.living).sum::<u64>();
                    node = &branch.children[at].node;
                }
            }
        }
    }

    fn living_at(&self, bounds: Bounds<'_>, revision: Revision, past: &Past) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf_range(leaf, bounds)
                .filter(|at| past.at(leaf.newest(*at), revision).is_some())
                .count() as u64,
            Self::Branch(branch) => {
                let children = branch.overlapping(bounds);
                let last = children.len().saturating_sub(1);
                let count = |(at, child): (usize, &Child)| {
                    let inside = at > 0 && at < last;
                    if inside && child.summary.changed <= revision {
                        return child.summary.living;
                    }
                    child.node.living_at(bounds, revision, past)
                };
                children.iter().enumerate().map(count).sum()
            }
        }
    }

    #[cfg(test)]
    fn check(&self, from: Option<&[u8]>, to: Option<&[u8]>) {
        match self {
            Self::Leaf(leaf) => {
                let keys: Vec<Vec<u8>> = (0..leaf.len()).map(|at| leaf.key(at).to_vec()).collect();
                assert!(keys.is_sorted_by(|left, right| left < right), "keys ascend");
                assert!(from.is_none_or(|from| keys.iter().all(|key| &key[..] >= from)));
                assert!(to.is_none_or(|to| keys.iter().all(|key| &key[..] < to)));
                assert!(!leaf.is_overfull());
                let lives = |at: &usize| leaf.newest(*at).life.is_some();
                assert_eq!((0..leaf.len()).filter(lives).count() as u64, leaf.living());
            }
            Self::Branch(branch) => {
                assert!(!branch.children.is_empty(), "no branch is empty");
                assert!(branch.children.len() <= BRANCH_CHILDREN_MAX);
                for (at, child) in branch.children.iter().enumerate() {
                    let from = if at == 0 { from } else { Some(&child.from[..]) };
                    let next = branch.children.get(at + 1).map(|next| &next.from[..]);
                    child.node.check(from, next.or(to));
                    assert!(child.summary.keys > 0, "no leaf is empty");
                    assert_eq!(child.summary, child.node.summary());
                }
                let rebuilt = Branch::new(branch.children.clone());
                assert_eq!(
                    (&rebuilt.heads, rebuilt.prefix_bytes),
                    (&branch.heads, branch.prefix_bytes)
                );
                let rebuilt = rebuilt.total;
                assert_eq!(
                    (rebuilt.keys, rebuilt.living),
                    (branch.total.keys, branch.total.living)
                );
                assert!(rebuilt.changed <= branch.total.changed);
            }
        }
    }
}

/// The positions in a leaf that are in the bounds.
fn leaf_range(leaf: &Leaf, bounds: Bounds<'_>) -> std::ops::Range<usize> {
    let start = leaf.lower_bound(bounds.start);
    let end = bounds.end.map_or(leaf.len(), |end| leaf.lower_bound(end));
    start..end.max(start)
}

impl Child {
    fn new(from: Arc<[u8]>, node: Node) -> Self {
        let summary = node.summary();
        Self {
            from,
            node,
            summary,
        }
    }

    /// The memory of the child itself and of what it holds.
    fn memory_bytes(&self) -> u64 {
        (size_of::<Self>() + size_of::<u64>() + self.from.len()) as u64
            + ARC_BYTES
            + self.summary.memory_bytes
    }
}

impl Branch {
    fn new(children: Vec<Child>) -> Self {
        let mut total = Summary {
            memory_bytes: ARC_BYTES + size_of::<Self>() as u64,
            ..Summary::default()
        };
        for child in &children {
            total.keys += child.summary.keys;
            total.living += child.summary.living;
            total.changed = total.changed.max(child.summary.changed);
            total.memory_bytes += child.memory_bytes();
        }
        let mut branch = Self {
            children,
            heads: Vec::new(),
            prefix_bytes: 0,
            total,
        };
        branch.note_heads();
        branch
    }

    /// Takes note of where the children begin, after one came or went.
    fn note_heads(&mut self) {
        self.prefix_bytes = match (self.children.get(1), self.children.last()) {
            (Some(first), Some(last)) => common_bytes(&first.from, &last.from),
            _ => 0,
        };
        let prefix_bytes = self.prefix_bytes;
        self.heads.clear();
        let froms = self.children.iter().map(|child| &child.from);
        self.heads
            .extend(froms.map(|from| head(from.get(prefix_bytes..).unwrap_or_default())));
    }

    /// The first child after the first whose `from` does not satisfy `is_before`, which
    /// holds for those that are less than `key`, and is asked where heads are equal.
    fn search(&self, key: &[u8], is_before: impl Fn(&[u8]) -> bool) -> usize {
        let Some(second) = self.children.get(1) else {
            return self.children.len();
        };
        let prefix = &second.from[..self.prefix_bytes];
        let Some(rest) = key.strip_prefix(prefix) else {
            return if key < prefix { 1 } else { self.children.len() };
        };
        let wanted = head(rest);
        let (mut low, mut high) = (1, self.children.len());
        while low < high {
            let middle = low.midpoint(high);
            let before = match self.heads[middle].cmp(&wanted) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Equal => is_before(&self.children[middle].from),
                std::cmp::Ordering::Greater => false,
            };
            (low, high) = if before {
                (middle + 1, high)
            } else {
                (low, middle)
            };
        }
        low
    }

    /// Which child has `key`, or would.
    fn child(&self, key: &[u8]) -> usize {
        self.search(key, |from| from <= key).saturating_sub(1)
    }

    /// The children that may have keys in the bounds.
    fn overlapping(&self, bounds: Bounds<'_>) -> &[Child] {
        let first = self.child(bounds.start);
        let after = match bounds.end {
            Some(end) => self.search(end, |from| from < end),
            None => self.children.len(),
        };
        &self.children[first..after.max(first)]
    }

    /// Takes note of what changed in a child.
    fn refresh(&mut self, at: usize) {
        let child = &mut self.children[at];
        let (old, new) = (child.summary, child.node.summary());
        child.summary = new;
        let total = &mut self.total;
        total.keys = total.keys + new.keys - old.keys;
        total.living = total.living + new.living - old.living;
        total.changed = total.changed.max(new.changed);
        total.memory_bytes = total.memory_bytes + new.memory_bytes - old.memory_bytes;
    }

    fn insert(&mut self, at: usize, child: Child) {
        let total = &mut self.total;
        total.keys += child.summary.keys;
        total.living += child.summary.living;
        total.changed = total.changed.max(child.summary.changed);
        total.memory_bytes += child.memory_bytes();
        self.children.insert(at, child);
        self.note_heads();
    }

    fn take(&mut self, at: usize) -> Child {
        let child = self.children.remove(at);
        let total = &mut self.total;
        total.keys -= child.summary.keys;
        total.living -= child.summary.living;
        total.memory_bytes -= child.memory_bytes();
        self.note_heads();
        child
    }

    /// Splits it if it has too many children, of which one was inserted at `inserted`.
    fn split(&mut self, inserted: usize) -> Right {
        let count = self.children.len();
        if count <= BRANCH_CHILDREN_MAX {
            return None;
        }
        let at = if inserted + 1 == count {
            inserted
        } else {
            count / 2
        };
        let right = Self::new(self.children.split_off(at));
        *self = Self::new(std::mem::take(&mut self.children));
        let from = Arc::clone(&right.children[0].from);
        Some((from, Node::Branch(Arc::new(right))))
    }

    /// After a key of the child at `at` was removed: an empty child goes, a sparse one
    /// joins its neighbour where the two are one.
    fn tidy(&mut self, at: usize) {
        if self.children[at].summary.keys == 0 {
            self.take(at);
            return;
        }
        for left in [at, at.wrapping_sub(1)] {
            if left < self.children.len() && left + 1 < self.children.len() && self.joins(left) {
                let right = self.take(left + 1);
                self.children[left].node.absorb(&right);
                self.refresh(left);
                return;
            }
        }
    }

    /// Whether the child at `left` and its neighbour are better one.
    fn joins(&self, left: usize) -> bool {
        match (&self.children[left].node, &self.children[left + 1].node) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                (left.is_sparse() || right.is_sparse()) && left.fits_with(right)
            }
            (Node::Branch(left), Node::Branch(right)) => {
                left.children.len() + right.children.len() <= BRANCH_CHILDREN_MAX / 2
            }
            _ => false,
        }
    }
}

impl Node {
    /// Takes in the node of the next child.
    fn absorb(&mut self, right: &Child) {
        match (self, &right.node) {
            (Self::Leaf(leaf), Self::Leaf(other)) => Arc::make_mut(leaf).absorb(other),
            (Self::Branch(branch), Self::Branch(other)) => {
                let branch = Arc::make_mut(branch);
                for (at, child) in other.children.iter().enumerate() {
                    let mut child = child.clone();
                    if at == 0 {
                        // The first child's own bound may be too low here.
                        child.from = Arc::clone(&right.from);
                    }
                    branch.insert(branch.children.len(), child);
                }
            }
            _ => unreachable!("children of one branch are on one level"),
        }
    }
}

/// The first eight bytes of a key, as a number in the same order; equal for some keys
/// that are not.
fn head(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(8);
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// The shortest key that is after `left` and not after `right`.
fn separator(left: KeyParts<'_>, right: &[u8]) -> Arc<[u8]> {
    let common = left.common(right);
    assert!(
        common < right.len(),
        "a key to the right is greater than one to the left"
    );
    right[..=common].into()
}
