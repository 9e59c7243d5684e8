//! Which of many ranges hold a key: a treap of ranges, each node knowing the range of
//! its subtree that ends last.
//!
//! Invariants
//! - In order of (start, end); a range is there once.
//! - Priorities are a heap, so that the depth is logarithmic for any order of inserts.
//! - `furthest` is the node of the subtree whose range ends last.

use std::cmp::Ordering;

use bytes::Bytes;

/// No node.
const NIL: u32 = u32::MAX;

/// Where a range ends; in the order of how far it reaches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Never,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Never => true,
        }
    }
}

struct Node<V> {
    start: Bytes,
    end: End,
    /// `None` when the node is free.
    value: Option<V>,
    priority: u64,
    left: u32,
    right: u32,
    furthest: u32,
}

/// Values by range.
pub(super) struct Ranges<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    root: u32,
    draw: u64,
}

impl<V> Default for Ranges<V> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NIL,
            draw: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl<V> Ranges<V> {
    /// Calls `f` with the start and the value of every range that holds `key`.
    pub(super) fn each<'a>(&'a self, key: &[u8], f: &mut impl FnMut(&'a Bytes, &'a V)) {
        self.visit(self.root, key, f);
    }

    /// The value of exactly this range.
    pub(super) fn get_mut(&mut self, start: &[u8], end: &End) -> Option<&mut V> {
        let at = self.find(start, end)?;
        self.nodes[at as usize].value.as_mut()
    }

    /// Adds a range that is not there yet.
    pub(super) fn insert(&mut self, start: Bytes, end: End, value: V) {
        let (before, after) = self.split(self.root, &start, &end);
        let node = Node {
            start,
            end,
            value: Some(value),
            priority: self.priority(),
            left: NIL,
            right: NIL,
            furthest: NIL,
        };
        let at = self.place(node);
        self.update(at);
        let joined = self.merge(before, at);
        self.root = self.merge(joined, after);
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, start: &[u8], end: &End) -> Option<V> {
        self.find(start, end)?;
        let (before, rest) = self.split(self.root, start, end);
        let (taken, after) = self.without_first(rest);
        self.root = self.merge(before, after);
        self.free.push(taken);
        let node = &mut self.nodes[taken as usize];
        (node.start, node.end) = (Bytes::new(), End::Never);
        node.value.take()
    }

    fn visit<'a>(&'a self, at: u32, key: &[u8], f: &mut impl FnMut(&'a Bytes, &'a V)) {
        let Some(node) = self.nodes.get(at as usize) else {
            return;
        };
        if !self.nodes[node.furthest as usize].end.is_after(key) {
            return;
        }
        self.visit(node.left, key, f);
        if node.start[..] <= *key {
            if node.end.is_after(key)
                && let Some(value) = &node.value
            {
                f(&node.start, value);
            }
            self.visit(node.right, key, f);
        }
    }

    fn find(&self, start: &[u8], end: &End) -> Option<u32> {
        let mut at = self.root;
        while at != NIL {
            let node = &self.nodes[at as usize];
            at = match order(start, end, node) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(at),
            };
        }
        None
    }

    /// xorshift64*: no adversary gains more than a few deeper look-ups from guessing it.
    fn priority(&mut self) -> u64 {
        self.draw ^= self.draw >> 12;
        self.draw ^= self.draw << 25;
        self.draw ^= self.draw >> 27;
        self.draw.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn place(&mut self, node: Node<V>) -> u32 {
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            return at;
        }
        let at = u32::try_from(self.nodes.len()).unwrap_or(NIL);
        assert!(at < NIL, "more ranges than a table can hold");
        self.nodes.push(node);
        at
    }

    /// Sets `furthest` from the children's.
    fn update(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let mut furthest = at;
        for child in [node.left, node.right] {
            if child == NIL {
                continue;
            }
            let candidate = self.nodes[child as usize].furthest;
            if self.nodes[candidate as usize].end > self.nodes[furthest as usize].end {
                furthest = candidate;
            }
        }
        self.nodes[at as usize].furthest = furthest;
    }

    /// What stands before (start, end), and the rest.
    fn split(&mut self, at: u32, start: &[u8], end: &End) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        let node = &self.nodes[at as usize];
        let (left, right) = (node.left, node.right);
        if order(start, end, node) == Ordering::Greater {
            let (before, rest) = self.split(right, start, end);
            self.nodes[at as usize].right = before;
            self.update(at);
            (at, rest)
        } else {
            let (before, rest) = self.split(left, start, end);
            self.nodes[at as usize].left = rest;
            self.update(at);
            (before, at)
        }
    }

    /// Joins two trees, all of the first before all of the second.
    fn merge(&mut self, first: u32, second: u32) -> u32 {
        if first == NIL || second == NIL {
            return if first == NIL { second } else { first };
        }
        if self.nodes[first as usize].priority > self.nodes[second as usize].priority {
            let right = self.nodes[first as usize].right;
            self.nodes[first as usize].right = self.merge(right, second);
            self.update(first);
            first
        } else {
            let left = self.nodes[second as usize].left;
            self.nodes[second as usize].left = self.merge(first, left);
            self.update(second);
            second
        }
    }

    /// The first node of a tree that has one, and the tree without it.
    fn without_first(&mut self, at: u32) -> (u32, u32) {
        let left = self.nodes[at as usize].left;
        if left == NIL {
            return (at, self.nodes[at as usize].right);
        }
        let (first, rest) = self.without_first(left);
        self.nodes[at as usize].left = rest;
        self.update(at);
        (first, at)
    }
}

fn order<V>(start: &[u8], end: &End, node: &Node<V>) -> Ordering {
    start.cmp(&node.start[..]).then_with(|| end.cmp(&node.end))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn end(number: u8) -> End {
        if number > 30 {
            End::Never
        } else {
            End::Before(vec![number].into())
        }
    }

    proptest! {
        #[test]
        fn a_key_finds_exactly_the_ranges_that_hold_it(
            steps in proptest::collection::vec((any::<bool>(), 0u8..32, 0u8..32), 1..200),
        ) {
            let mut ranges = Ranges::default();
            let mut model = BTreeMap::new();
            for (number, (add, from, to)) in steps.into_iter().enumerate() {
                let key = (vec![from], end(to));
                if add && !model.contains_key(&key) {
                    ranges.insert(vec![from].into(), end(to), number);
                    model.insert(key, number);
                } else {
                    prop_assert_eq!(ranges.remove(&[from], &end(to)), model.remove(&key));
                }
                for key in 0u8..33 {
                    let mut found = Vec::new();
                    ranges.each(&[key], &mut |_, value| found.push(*value));
                    found.sort_unstable();
                    let mut expected: Vec<usize> = model
                        .iter()
                        .filter(|((from, to), _)| from[0] <= key && to.is_after(&[key]))
                        .map(|(_, value)| *value)
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn ranges_added_in_order_do_not_make_a_list() {
        fn depth(ranges: &Ranges<()>, at: u32) -> usize {
            match ranges.nodes.get(at as usize) {
                None => 0,
                Some(node) => 1 + depth(ranges, node.left).max(depth(ranges, node.right)),
            }
        }
        let mut ranges = Ranges::default();
        for number in 0u32..10_000 {
            let start = Bytes::copy_from_slice(&number.to_be_bytes());
            ranges.insert(start, End::Never, ());
        }
        assert!(depth(&ranges, ranges.root) < 60);
    }
}
