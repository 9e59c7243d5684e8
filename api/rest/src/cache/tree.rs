//! An ordered map that is cheap to keep: a B+ tree whose nodes are shared between
//! versions and copied when one of two owners changes them.
//!
//! Invariants
//! - A clone never changes, whatever is done to the tree it was made of; it costs one
//!   reference, and a change beside a clone costs the nodes on one path.
//! - Items are in the order of their keys; a key stands once.
//! - No node but the root is empty; a branch's `low` is not above any key in it, and not
//!   below any key of the branches before it.

use std::sync::Arc;

/// Items of a leaf and branches of a node, at most; few in tests, so that trees are deep.
const WIDTH: usize = if cfg!(test) { 4 } else { 64 };
/// Two neighbours that hold no more than this become one.
const MERGE_AT: usize = WIDTH / 2;

/// What stands in the tree, shared.
pub(crate) trait Keyed {
    fn key(&self) -> &str;
}

/// See the module.
pub(crate) struct Tree<T> {
    root: Arc<Node<T>>,
    count: usize,
}

enum Node<T> {
    Leaf(Vec<Arc<T>>),
    Inner(Vec<Branch<T>>),
}

struct Branch<T> {
    low: Arc<str>,
    count: usize,
    node: Arc<Node<T>>,
}

impl<T> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
            count: self.count,
        }
    }
}

impl<T> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Self {
            low: self.low.clone(),
            count: self.count,
            node: self.node.clone(),
        }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(items) => Self::Leaf(items.clone()),
            Self::Inner(branches) => Self::Inner(branches.clone()),
        }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self {
            root: Arc::new(Node::Leaf(Vec::new())),
            count: 0,
        }
    }
}

impl<T: Keyed> Tree<T> {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<T>> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(items) => {
                    let at = items.binary_search_by(|item| item.key().cmp(key)).ok()?;
                    return items.get(at);
                }
                Node::Inner(branches) => node = &branches[child_of(branches, key)].node,
            }
        }
    }

    /// Puts an item in; gives the one that stood there.
    pub(crate) fn insert(&mut self, item: Arc<T>) -> Option<Arc<T>> {
        let (before, split) = insert(&mut self.root, item);
        if let Some(right) = split {
            let left = Branch {
                low: "".into(),
                count: count(&self.root),
                node: self.root.clone(),
            };
            self.root = Arc::new(Node::Inner(vec![left, right]));
        }
        self.count += usize::from(before.is_none());
        before
    }

    /// Takes an item out.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Arc<T>> {
        let removed = remove(&mut self.root, key)?;
        self.count -= 1;
        loop {
            let only = match &*self.root {
                Node::Inner(branches) if branches.is_empty() => Arc::new(Node::Leaf(Vec::new())),
                Node::Inner(branches) if branches.len() == 1 => branches[0].node.clone(),
                _ => return Some(removed),
            };
            self.root = only;
        }
    }

    /// How many keys are less than `key`.
    pub(crate) fn rank(&self, key: &str) -> usize {
        let (mut node, mut before) = (&*self.root, 0);
        loop {
            match node {
                Node::Leaf(items) => {
                    return before + items.partition_point(|item| item.key() < key);
                }
                Node::Inner(branches) => {
                    let at = child_of(branches, key);
                    before += branches[..at].iter().map(|b| b.count).sum::<usize>();
                    node = &branches[at].node;
                }
            }
        }
    }

    /// The items from `start` on, as they are now.
    pub(crate) fn cursor(&self, start: &str) -> Cursor<T> {
        let (mut node, mut path) = (self.root.clone(), Vec::new());
        loop {
            let (at, next) = match &*node {
                Node::Leaf(items) => (items.partition_point(|item| item.key() < start), None),
                Node::Inner(branches) => {
                    let at = child_of(branches, start);
                    (at + 1, Some(branches[at].node.clone()))
                }
            };
            path.push((node, at));
            match next {
                Some(next) => node = next,
                None => return Cursor { path },
            }
        }
    }
}

/// Walks a tree in order, holding it as it was.
pub(crate) struct Cursor<T> {
    /// Each node with the place of what comes next in it.
    path: Vec<(Arc<Node<T>>, usize)>,
}

impl<T> Iterator for Cursor<T> {
    type Item = Arc<T>;

    fn next(&mut self) -> Option<Arc<T>> {
        loop {
            let (node, at) = self.path.last_mut()?;
            let here = *at;
            *at += 1;
            let below = match &**node {
                Node::Leaf(items) => match items.get(here) {
                    Some(item) => return Some(item.clone()),
                    None => None,
                },
                Node::Inner(branches) => branches.get(here).map(|branch| branch.node.clone()),
            };
            match below {
                Some(below) => self.path.push((below, 0)),
                None => {
                    self.path.pop();
                }
            }
        }
    }
}

/// The branch that `key` belongs in.
fn child_of<T>(branches: &[Branch<T>], key: &str) -> usize {
    branches
        .partition_point(|branch| &*branch.low <= key)
        .saturating_sub(1)
}

fn count<T>(node: &Node<T>) -> usize {
    match node {
        Node::Leaf(items) => items.len(),
        Node::Inner(branches) => branches.iter().map(|branch| branch.count).sum(),
    }
}

/// Gives what was replaced, and the right half if the node had to be split.
fn insert<T: Keyed>(node: &mut Arc<Node<T>>, item: Arc<T>) -> (Option<Arc<T>>, Option<Branch<T>>) {
    match Arc::make_mut(node) {
        Node::Leaf(items) => {
            let found = items.binary_search_by(|other| other.key().cmp(item.key()));
            let at = match found {
                Ok(at) => return (Some(std::mem::replace(&mut items[at], item)), None),
                Err(at) => at,
            };
            let appended = at == items.len();
            items.insert(at, item);
            (None, split(items, appended).map(leaf_branch))
        }
        Node::Inner(branches) => {
            let at = child_of(branches, item.key());
            let (before, new) = insert(&mut branches[at].node, item);
            branches[at].count = count(&branches[at].node);
            let Some(new) = new else {
                return (before, None);
            };
            let appended = at + 1 == branches.len();
            branches.insert(at + 1, new);
            (before, split(branches, appended).map(inner_branch))
        }
    }
}

/// The right part of what has become too wide. What grows at its end stays full, so that
/// a tree that is filled in order has no half-empty nodes.
fn split<I>(items: &mut Vec<I>, appended: bool) -> Option<Vec<I>> {
    (items.len() > WIDTH).then(|| items.split_off(if appended { WIDTH } else { WIDTH / 2 }))
}

fn leaf_branch<T: Keyed>(items: Vec<Arc<T>>) -> Branch<T> {
    Branch {
        low: items.first().map_or("", |item| item.key()).into(),
        count: items.len(),
        node: Arc::new(Node::Leaf(items)),
    }
}

fn inner_branch<T>(branches: Vec<Branch<T>>) -> Branch<T> {
    Branch {
        low: branches
            .first()
            .map_or("".into(), |branch| branch.low.clone()),
        count: branches.iter().map(|branch| branch.count).sum(),
        node: Arc::new(Node::Inner(branches)),
    }
}

fn remove<T: Keyed>(node: &mut Arc<Node<T>>, key: &str) -> Option<Arc<T>> {
    match Arc::make_mut(node) {
        Node::Leaf(items) => {
            let at = items.binary_search_by(|item| item.key().cmp(key)).ok()?;
            Some(items.remove(at))
        }
        Node::Inner(branches) => {
            let at = child_of(branches, key);
            let removed = remove(&mut branches[at].node, key)?;
            branches[at].count -= 1;
            if branches[at].count == 0 {
                let empty = branches.remove(at);
                if let Some(first) = branches.get_mut(at).filter(|_| at == 0) {
                    first.low = empty.low;
                }
            } else if !merge(branches, at) && at > 0 {
                merge(branches, at - 1);
            }
            Some(removed)
        }
    }
}

/// Makes one of the branches `at` and `at + 1` if they are small enough together.
fn merge<T>(branches: &mut Vec<Branch<T>>, at: usize) -> bool {
    let (Some(left), Some(right)) = (branches.get(at), branches.get(at + 1)) else {
        return false;
    };
    let merged = match (&*left.node, &*right.node) {
        (Node::Leaf(a), Node::Leaf(b)) if a.len() + b.len() <= MERGE_AT => {
            Node::Leaf(a.iter().chain(b).cloned().collect())
        }
        (Node::Inner(a), Node::Inner(b)) if a.len() + b.len() <= MERGE_AT => {
            Node::Inner(a.iter().chain(b).cloned().collect())
        }
        _ => return false,
    };
    let count = left.count + right.count;
    branches[at].count = count;
    branches[at].node = Arc::new(merged);
    branches.remove(at + 1);
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Item(String, u32);

    impl Keyed for Item {
        fn key(&self) -> &str {
            &self.0
        }
    }

    fn listed(tree: &Tree<Item>, start: &str) -> Vec<(String, u32)> {
        tree.cursor(start)
            .map(|item| (item.0.clone(), item.1))
            .collect()
    }

    proptest! {
        #[test]
        fn a_tree_and_its_clones_are_what_an_ordered_map_was(
            acts in proptest::collection::vec((0_u16..600, any::<bool>()), 1..2000),
            probe in 0_u16..600,
        ) {
            let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
            let mut kept = Vec::new();
            for (number, (key, put)) in (0_u32..).zip(acts) {
                let key = format!("{key:04}");
                if put {
                    let before = tree.insert(Arc::new(Item(key.clone(), number)));
                    prop_assert_eq!(before.map(|item| item.1), model.insert(key, number));
                } else {
                    let before = tree.remove(&key);
                    prop_assert_eq!(before.map(|item| item.1), model.remove(&key));
                }
                if number % 97 == 0 {
                    kept.push((tree.clone(), model.clone()));
                }
            }
            kept.push((tree, model));
            let probe = format!("{probe:04}");
            for (tree, model) in kept {
                let all: Vec<_> = model.clone().into_iter().collect();
                prop_assert_eq!(tree.len(), all.len());
                prop_assert_eq!(listed(&tree, ""), all);
                let tail: Vec<_> = model.range(probe.clone()..).map(|(k, v)| (k.clone(), *v)).collect();
                prop_assert_eq!(tree.rank(&probe), model.len() - tail.len());
                prop_assert_eq!(listed(&tree, &probe), tail);
                prop_assert_eq!(tree.get(&probe).map(|item| item.1), model.get(&probe).copied());
            }
        }
    }

    fn leaves(node: &Node<Item>) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Inner(branches) => branches.iter().map(|branch| leaves(&branch.node)).sum(),
        }
    }

    #[test]
    fn filled_in_order_it_is_dense() {
        let mut tree = Tree::default();
        for number in 0..1000 {
            tree.insert(Arc::new(Item(format!("{number:05}"), number)));
        }
        assert_eq!(leaves(&tree.root), 1000_usize.div_ceil(WIDTH));
    }
}
