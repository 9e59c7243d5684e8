//! What differs between two objects of one type, as sets of fields.
//!
//! Invariant: no field is in more than one of the three sets; equal parts are
//! left after one look, so that a small change of a large object costs little.

use std::collections::BTreeMap;

use serde_json::{Map as Object, Value};

use crate::path::{Path, PathElement};
use crate::reset::Reset;
use crate::schema::{List, Map, Schema, TypeId, TypeView};
use crate::set::Set;
use crate::typed::{Kind, element_of, items, kind, scalar_fault};
use crate::value::equal;

/// The differences from one object to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the first alone.
    pub removed: Set,
    /// In both, with other values.
    pub modified: Set,
    /// In the second alone.
    pub added: Set,
}

impl Comparison {
    /// Without the fields that a strategy resets.
    #[must_use]
    pub fn filtered(self, reset: &Reset) -> Self {
        Self {
            removed: reset.filter(self.removed),
            modified: reset.filter(self.modified),
            added: reset.filter(self.added),
        }
    }

    /// What the second sets otherwise than the first.
    pub fn changed(&self) -> Set {
        self.modified.union(&self.added)
    }
}

/// Compares two objects of one type.
pub fn compare(view: &TypeView, left: &Value, right: &Value) -> Result<Comparison, String> {
    let mut walk = Walk {
        schema: &view.schema,
        path: Vec::new(),
        found: Comparison::default(),
        error: None,
    };
    walk.value(view.id, Some(left), Some(right));
    match walk.error {
        Some(error) => Err(error),
        None => Ok(walk.found),
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    path: Path,
    found: Comparison,
    error: Option<String>,
}

/// Whether a value was compared as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Leaf,
    Parts,
}

impl Walk<'_> {
    fn value(&mut self, id: TypeId, left: Option<&Value>, right: Option<&Value>) {
        if left == right {
            return;
        }
        let schema = self.schema;
        let atom = schema.atom(id);
        let (lefts, rights) = (kind(atom, left), kind(atom, right));
        let seen = if right.is_none() {
            self.kind(lefts, left, right)
        } else if left.is_none() || lefts.same(rights) || left == Some(&Value::Null) {
            // Nothing takes whatever form the other has, and so does null.
            self.kind(rights, left, right)
        } else {
            self.kind(lefts, left, right);
            self.kind(rights, left, right)
        };
        if seen == Seen::Parts {
            match (left, right) {
                (None, _) => self.found.added.insert(&self.path),
                (_, None) => self.found.removed.insert(&self.path),
                _ => {}
            }
        }
    }

    fn kind(&mut self, kind: Kind<'_>, left: Option<&Value>, right: Option<&Value>) -> Seen {
        match kind {
            Kind::Map(map) => self.map(map, left, right),
            Kind::List(list) => self.list(list, left, right),
            Kind::Scalar(scalar) => {
                let fault = |value: Option<&Value>| value.and_then(|v| scalar_fault(scalar, v));
                match (fault(left), fault(right)) {
                    (Some(what), Some(_)) => {
                        self.error.get_or_insert(what);
                        Seen::Parts
                    }
                    _ => self.leaf(left, right),
                }
            }
            Kind::Nothing => {
                self.error
                    .get_or_insert_with(|| "schema error: invalid atom".to_owned());
                Seen::Parts
            }
        }
    }

    fn leaf(&mut self, left: Option<&Value>, right: Option<&Value>) -> Seen {
        match (left, right) {
            (None, _) => self.found.added.insert(&self.path),
            (_, None) => self.found.removed.insert(&self.path),
            (Some(left), Some(right)) if !equal(left, right) => {
                self.found.modified.insert(&self.path);
            }
            _ => {}
        }
        Seen::Leaf
    }

    fn map(&mut self, map: &Map, left: Option<&Value>, right: Option<&Value>) -> Seen {
        let lefts = left.and_then(Value::as_object);
        let rights = right.and_then(Value::as_object);
        let empty = lefts.is_none_or(Object::is_empty) && rights.is_none_or(Object::is_empty);
        if map.atomic || empty {
            return self.leaf(left, right);
        }
        for (name, value) in lefts.into_iter().flatten() {
            self.field(map, name, Some(value), rights.and_then(|map| map.get(name)));
        }
        for (name, value) in rights.into_iter().flatten() {
            if lefts.is_none_or(|lefts| !lefts.contains_key(name)) {
                self.field(map, name, None, Some(value));
            }
        }
        Seen::Parts
    }

    fn field(&mut self, map: &Map, name: &str, left: Option<&Value>, right: Option<&Value>) {
        if left == right {
            return;
        }
        let Some(id) = map.child(name) else {
            self.error
                .get_or_insert_with(|| format!(".{name}: field not declared in schema"));
            return;
        };
        self.path.push(PathElement::field(name));
        self.value(id, left, right);
        self.path.pop();
    }

    fn list(&mut self, list: &List, left: Option<&Value>, right: Option<&Value>) -> Seen {
        let (lefts, rights) = (items(left), items(right));
        let empty = lefts.is_none_or(<[Value]>::is_empty) && rights.is_none_or(<[Value]>::is_empty);
        if !list.associative || empty {
            return self.leaf(left, right);
        }
        let mut elements: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (side, values) in [(0, lefts), (1, rights)] {
            for (at, item) in values.into_iter().flatten().enumerate() {
                match element_of(self.schema, list, item) {
                    Ok(element) => {
                        let sides = elements.entry(element).or_default();
                        match side {
                            0 => sides.0.push(item),
                            _ => sides.1.push(item),
                        }
                    }
                    Err(why) => {
                        self.error.get_or_insert(format!("element {at}: {why}"));
                    }
                }
            }
        }
        for (element, (lefts, rights)) in elements {
            self.path.push(element);
            self.element(list, &lefts, &rights);
            self.path.pop();
        }
        Seen::Parts
    }

    /// Elements named alike are one leaf; where one is left, it has its fields back.
    fn element(&mut self, list: &List, lefts: &[&Value], rights: &[&Value]) {
        let (left, right) = (lefts.first().copied(), rights.first().copied());
        match (lefts.len(), rights.len()) {
            (0 | 1, 0 | 1) => self.value(list.element, left, right),
            (2.., 2..) => {
                let same = lefts.len() == rights.len()
                    && lefts.iter().zip(rights).all(|(l, r)| equal(l, r));
                if !same {
                    self.found.modified.insert(&self.path);
                }
            }
            (2.., _) => {
                if right.is_some() {
                    self.value(list.element, None, right);
                }
                self.found.removed.insert(&self.path);
            }
            (_, _) => {
                if left.is_some() {
                    self.value(list.element, left, None);
                }
                self.found.added.insert(&self.path);
            }
        }
    }
}
