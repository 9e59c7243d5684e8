//! Kinds by what requests and objects call them.
//!
//! Invariant: looking one up takes a logarithm of comparisons and allocates nothing.

use std::sync::Arc;

use super::Resource;

/// A fixed set of kinds. Of two with the same group, version and plural name (or kind)
/// the first is found.
#[derive(Debug, Default)]
pub struct Index {
    kinds: Vec<Arc<Resource>>,
    by_plural: Vec<usize>,
    by_kind: Vec<usize>,
}

impl Index {
    /// Orders `kinds` for lookup; [`Index::all`] keeps them as they come.
    pub fn new(kinds: Vec<Arc<Resource>>) -> Self {
        let sorted = |key: for<'a> fn(&'a Resource) -> Key<'a>| {
            let mut order: Vec<usize> = (0..kinds.len()).collect();
            // Stable, so that the first of equals stays first.
            order.sort_by(|left, right| key(&kinds[*left]).cmp(&key(&kinds[*right])));
            order
        };
        Self {
            by_plural: sorted(by_plural),
            by_kind: sorted(by_kind),
            kinds,
        }
    }

    /// Every kind, in the order given.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.kinds
    }

    /// The kind at that group, version and plural name.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.search(&self.by_plural, by_plural, (group, version, plural))
    }

    /// The kind of that group, version and kind name.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.search(&self.by_kind, by_kind, (group, version, kind))
    }

    fn search(
        &self,
        order: &[usize],
        key: for<'a> fn(&'a Resource) -> Key<'a>,
        wanted: Key<'_>,
    ) -> Option<&Arc<Resource>> {
        let first = order.partition_point(|at| key(&self.kinds[*at]) < wanted);
        let found = self.kinds.get(*order.get(first)?)?;
        (key(found) == wanted).then_some(found)
    }
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn by_plural(resource: &Resource) -> Key<'_> {
    (&resource.group, &resource.version, &resource.plural)
}

fn by_kind(resource: &Resource) -> Key<'_> {
    (&resource.group, &resource.version, &resource.kind)
}
