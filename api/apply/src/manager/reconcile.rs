//! Field sets that were written when a list or map was not yet atomic.

use crate::path::PathElement;
use crate::schema::{Schema, TypeId};
use crate::set::Set;

/// The set with atomic fields in place of what is below them.
pub(super) fn reconcile(schema: &Schema, id: Option<TypeId>, set: &Set) -> Set {
    let mut kept = Set::default();
    let atom = id.map(|id| schema.atom(id));
    let map = atom.and_then(|atom| atom.map.as_ref());
    let list = atom.and_then(|atom| atom.list.as_ref());
    for node in set.nodes() {
        let child = match (map, list) {
            (Some(map), _) => match &node.element {
                PathElement::Field(name) => map.child(name),
                _ => map.element,
            },
            (None, Some(list)) => Some(list.element),
            (None, None) => None,
        };
        let has_children = !node.below.is_empty();
        let atomic = has_children && child.is_some_and(|child| is_atomic(schema, child));
        let below = match has_children && !atomic {
            true => reconcile(schema, child, &node.below),
            false => Set::default(),
        };
        kept.add(node.element.clone(), node.member || atomic, below);
    }
    kept
}

/// Whether values of a type are owned as a whole. Types that are deduced are not asked.
fn is_atomic(schema: &Schema, id: TypeId) -> bool {
    let atom = schema.atom(id);
    match (&atom.map, &atom.scalar, &atom.list) {
        (Some(map), _, _) => map.atomic,
        (None, None, Some(list)) => !list.associative,
        _ => false,
    }
}
