//! Sets of fields, as trees: each node may be a member, and have members below.
//!
//! Invariants: nodes are in order and each is there once; a node that is no member
//! has members below (except in the result of [`Set::with_named_members`], which
//! is used for one comparison and thrown away).

use crate::path::{Path, PathElement};
use crate::schema::{Schema, TypeId};

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    nodes: Vec<Node>,
}

/// One child of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// How the child is named.
    pub element: PathElement,
    /// Whether the child itself is in the set.
    pub member: bool,
    /// What of the child is in the set.
    pub below: Set,
}

impl Node {
    fn kept(self) -> Option<Self> {
        (self.member || !self.below.is_empty()).then_some(self)
    }
}

impl FromIterator<Path> for Set {
    fn from_iter<I: IntoIterator<Item = Path>>(paths: I) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path);
        }
        set
    }
}

impl Set {
    /// The set of these dotted paths of fields, as `metadata.labels`.
    pub fn of_fields(paths: &[&str]) -> Self {
        paths
            .iter()
            .map(|path| path.split('.').map(PathElement::field).collect::<Path>())
            .collect()
    }

    /// Its children, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| !node.member && node.below.is_empty())
    }

    /// Puts a path in. The empty path, the whole object, is nobody's.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let node = self.node_mut(first.clone());
        if rest.is_empty() {
            node.member = true;
        } else {
            node.below.insert(rest);
        }
    }

    /// Puts in a child with what is below it.
    pub fn add(&mut self, element: PathElement, member: bool, below: Self) {
        if let Some(node) = (Node {
            element,
            member,
            below,
        })
        .kept()
        {
            match self.nodes.last() {
                Some(last) if last.element >= node.element => {
                    let own = self.node_mut(node.element);
                    own.member |= node.member;
                    own.below = own.below.union(&node.below);
                }
                _ => self.nodes.push(node),
            }
        }
    }

    fn node_mut(&mut self, element: PathElement) -> &mut Node {
        let at = match self
            .nodes
            .binary_search_by(|node| node.element.cmp(&element))
        {
            Ok(at) => at,
            Err(at) => {
                let node = Node {
                    element,
                    member: false,
                    below: Self::default(),
                };
                self.nodes.insert(at, node);
                at
            }
        };
        &mut self.nodes[at]
    }

    /// The child of that name.
    pub fn get(&self, element: &PathElement) -> Option<&Node> {
        self.nodes
            .binary_search_by(|node| node.element.cmp(element))
            .ok()
            .and_then(|at| self.nodes.get(at))
    }

    /// Whether the path is in the set.
    pub fn has(&self, path: &[PathElement]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        match self.get(first) {
            Some(node) if rest.is_empty() => node.member,
            Some(node) => node.below.has(rest),
            None => false,
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut lefts, mut rights) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            let order = match (lefts.peek(), rights.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.element.cmp(&right.element),
            };
            match order {
                std::cmp::Ordering::Less => nodes.extend(lefts.next().cloned()),
                std::cmp::Ordering::Greater => nodes.extend(rights.next().cloned()),
                std::cmp::Ordering::Equal => {
                    if let (Some(left), Some(right)) = (lefts.next(), rights.next()) {
                        nodes.push(Node {
                            element: left.element.clone(),
                            member: left.member || right.member,
                            below: left.below.union(&right.below),
                        });
                    }
                }
            }
        }
        Self { nodes }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let nodes = self.nodes.iter().filter_map(|node| {
            let own = other.get(&node.element)?;
            Node {
                element: node.element.clone(),
                member: node.member && own.member,
                below: node.below.intersection(&own.below),
            }
            .kept()
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// Whether some path is in both.
    pub fn meets(&self, other: &Self) -> bool {
        self.nodes.iter().any(|node| {
            other
                .get(&node.element)
                .is_some_and(|own| (node.member && own.member) || node.below.meets(&own.below))
        })
    }

    /// What is in this one alone, path by path.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let nodes = self.nodes.iter().filter_map(|node| {
            let Some(own) = other.get(&node.element) else {
                return Some(node.clone());
            };
            Node {
                element: node.element.clone(),
                member: node.member && !own.member,
                below: node.below.difference(&own.below),
            }
            .kept()
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// What is in this one, without the other's members and all that is below them.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let nodes = self.nodes.iter().filter_map(|node| {
            let Some(own) = other.get(&node.element) else {
                return Some(node.clone());
            };
            if own.member {
                return None;
            }
            Node {
                element: node.element.clone(),
                member: node.member,
                below: node.below.recursive_difference(&own.below),
            }
            .kept()
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// The same with every declared field a member that has members below.
    #[must_use]
    pub fn with_named_members(&self, schema: &Schema, id: Option<TypeId>) -> Self {
        let atom = id.map(|id| schema.atom(id));
        let map = atom.and_then(|atom| atom.map.as_ref());
        let list = atom.and_then(|atom| atom.list.as_ref());
        let nodes = self.nodes.iter().map(|node| {
            let (declared, child) = match (&node.element, map, list) {
                (PathElement::Field(name), Some(map), _) => {
                    let field = map.fields.get(name);
                    (field.is_some(), field.map(|field| field.id).or(map.element))
                }
                (PathElement::Key(_), _, Some(list)) => (false, Some(list.element)),
                _ => (false, None),
            };
            Node {
                element: node.element.clone(),
                member: node.member || (declared && !node.below.nodes.is_empty()),
                below: node.below.with_named_members(schema, child),
            }
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// Every path, parents first within a level.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Path, paths: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            let mut path = prefix.clone();
            path.push(node.element.clone());
            paths.push(path);
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.below.collect(prefix, paths);
            prefix.pop();
        }
    }
}
