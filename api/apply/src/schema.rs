//! What field management has to know of a type: which lists are owned by element,
//! which maps field by field, and what is owned as a whole.
//!
//! A [`Schema`] is a graph of [`Atom`]s; a type is an index into it, so that types
//! may name themselves. It is made by [`table`] from the built-in types and by
//! [`structural`] from the JSON schema of a custom resource.
//!
//! Invariant: every [`TypeId`] that a schema gave out names an atom of it.

pub mod structural;
pub mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// A type of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeId(usize);

/// Anything, owned as a whole.
pub const UNTYPED: TypeId = TypeId(0);
/// Anything: maps are owned by their fields, lists as a whole.
pub const DEDUCED: TypeId = TypeId(1);

/// What a value of a type may be; more than one where the value decides.
#[derive(Debug, Clone, Default)]
pub struct Atom {
    /// A scalar.
    pub scalar: Option<Scalar>,
    /// A list.
    pub list: Option<List>,
    /// A map or struct.
    pub map: Option<Map>,
}

/// Kinds of scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Whole or not.
    Numeric,
    /// A text.
    String,
    /// A truth.
    Boolean,
    /// Any of them.
    Untyped,
}

/// A list's type.
#[derive(Debug, Clone)]
pub struct List {
    /// The type of its elements.
    pub element: TypeId,
    /// Whether elements have owners of their own: by `keys`, or by value where
    /// there are none (a set).
    pub associative: bool,
    /// The fields that tell elements apart.
    pub keys: Vec<String>,
}

/// A map's or struct's type.
#[derive(Debug, Clone, Default)]
pub struct Map {
    /// Declared fields.
    pub fields: BTreeMap<String, Field>,
    /// The type of any other field; `None`: there may be none.
    pub element: Option<TypeId>,
    /// Whether it is owned as a whole.
    pub atomic: bool,
}

/// A declared field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its type.
    pub id: TypeId,
    /// What an absent field stands for where it is a key of a list.
    pub default: Option<Value>,
}

impl Map {
    /// The type of a field of that name, declared or not.
    pub fn child(&self, name: &str) -> Option<TypeId> {
        self.fields.get(name).map(|field| field.id).or(self.element)
    }
}

/// A graph of types.
#[derive(Debug)]
pub struct Schema {
    atoms: Vec<Atom>,
}

impl Schema {
    /// The atom of a type.
    pub fn atom(&self, id: TypeId) -> &Atom {
        // Index 0 is there from the start.
        self.atoms.get(id.0).unwrap_or(&self.atoms[0])
    }

    /// A schema that knows nothing: every field is deduced.
    pub fn deduced() -> TypeView {
        TypeView {
            schema: Arc::new(Builder::default().finish()),
            id: DEDUCED,
        }
    }
}

/// A type together with the graph it is in.
#[derive(Debug, Clone)]
pub struct TypeView {
    /// The graph.
    pub schema: Arc<Schema>,
    /// The type.
    pub id: TypeId,
}

/// A schema being made.
#[derive(Debug)]
pub(crate) struct Builder {
    atoms: Vec<Atom>,
    /// Types of the table that are in already, and inline types that are told apart
    /// by what they are made of.
    pub(crate) named: BTreeMap<String, TypeId>,
}

impl Default for Builder {
    fn default() -> Self {
        let anything = |element, atomic| Atom {
            scalar: Some(Scalar::Untyped),
            list: Some(List {
                element: UNTYPED,
                associative: false,
                keys: Vec::new(),
            }),
            map: Some(Map {
                fields: BTreeMap::new(),
                element: Some(element),
                atomic,
            }),
        };
        Self {
            atoms: vec![anything(UNTYPED, true), anything(DEDUCED, false)],
            named: BTreeMap::new(),
        }
    }
}

impl Builder {
    /// Puts in a type.
    pub(crate) fn add(&mut self, atom: Atom) -> TypeId {
        self.atoms.push(atom);
        TypeId(self.atoms.len() - 1)
    }

    /// A place for a type that may name itself.
    pub(crate) fn reserve(&mut self) -> TypeId {
        self.add(Atom::default())
    }

    /// Fills a reserved place.
    pub(crate) fn fill(&mut self, id: TypeId, atom: Atom) {
        if let Some(place) = self.atoms.get_mut(id.0) {
            *place = atom;
        }
    }

    pub(crate) fn finish(self) -> Schema {
        Schema { atoms: self.atoms }
    }
}

impl Atom {
    /// A type of one kind of scalar.
    pub(crate) fn of_scalar(scalar: Scalar) -> Self {
        Self {
            scalar: Some(scalar),
            ..Self::default()
        }
    }

    /// A list.
    pub(crate) fn of_list(list: List) -> Self {
        Self {
            list: Some(list),
            ..Self::default()
        }
    }

    /// A map.
    pub(crate) fn of_map(map: Map) -> Self {
        Self {
            map: Some(map),
            ..Self::default()
        }
    }
}
