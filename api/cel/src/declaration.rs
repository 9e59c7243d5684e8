//! What is declared of a variable: its type, how its JSON is read, and how large it can
//! be, as far as a schema says.
//!
//! Invariant: a declaration without bounds is as large as a request may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::MAX_REQUEST_BYTES;
use crate::types::Type;

/// A variable's or field's declaration.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// What values look like.
    pub shape: Shape,
    /// Most elements of a list, entries of a map or characters of a text; none where it
    /// means nothing.
    pub max_elements: Option<u64>,
    /// Fewest bytes of such a value in JSON.
    pub min_bytes: u64,
}

/// What values look like.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Anything; JSON is read as what it is.
    Dyn,
    /// Anything but lists and maps to walk over; JSON is read as what it is.
    Any,
    /// JSON booleans.
    Bool,
    /// JSON integers.
    Int,
    /// JSON numbers.
    Double,
    /// JSON strings.
    String,
    /// JSON strings of base64.
    Bytes,
    /// JSON strings in Go's form, as `1h30m`.
    Duration,
    /// JSON strings of RFC 3339.
    Timestamp,
    /// JSON strings of a day.
    Date,
    /// JSON arrays.
    List(Arc<Declaration>),
    /// JSON objects keyed by anything.
    Map(Arc<Declaration>),
    /// JSON objects with declared fields.
    Object(Arc<ObjectDeclaration>),
    /// Values that come from no JSON, as the authorizer.
    Other(Type),
}

/// An object's fields.
#[derive(Debug, Default)]
pub struct ObjectDeclaration {
    /// Its unique name, as messages show it.
    pub name: String,
    /// Fields by their identifiers.
    pub fields: BTreeMap<String, Field>,
    /// Any other field may be selected too, as `dyn`.
    pub open: bool,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its key in JSON.
    pub key: String,
    /// Its values.
    pub declaration: Declaration,
}

impl Declaration {
    fn plain(shape: Shape, min_bytes: u64) -> Self {
        Self {
            shape,
            max_elements: None,
            min_bytes,
        }
    }

    /// Anything.
    pub fn dynamic() -> Self {
        Self::plain(Shape::Dyn, 1)
    }

    /// One value of whatever type, of at most so many bytes.
    pub fn any(max_bytes: u64) -> Self {
        Self {
            max_elements: Some(max_bytes),
            ..Self::plain(Shape::Any, 1)
        }
    }

    /// A boolean.
    pub fn bool() -> Self {
        Self::plain(Shape::Bool, 4)
    }

    /// An integer.
    pub fn int() -> Self {
        Self::plain(Shape::Int, 1)
    }

    /// A number.
    pub fn double() -> Self {
        Self::plain(Shape::Double, 1)
    }

    /// Text of at most so many bytes.
    pub fn string(max_bytes: Option<u64>) -> Self {
        Self {
            shape: Shape::String,
            max_elements: Some(max_bytes.unwrap_or(MAX_REQUEST_BYTES - 2)),
            min_bytes: 2,
        }
    }

    /// A list of at most so many of these.
    pub fn list(element: Self, max_items: Option<u64>) -> Self {
        let fit = (MAX_REQUEST_BYTES - 2) / (element.min_bytes + 1);
        Self {
            max_elements: Some(max_items.unwrap_or(fit)),
            shape: Shape::List(Arc::new(element)),
            min_bytes: 2,
        }
    }

    /// A map from text to at most so many of these.
    pub fn map(value: Self, max_entries: Option<u64>) -> Self {
        let fit = (MAX_REQUEST_BYTES - 2) / (value.min_bytes + 6);
        Self {
            max_elements: Some(max_entries.unwrap_or(fit)),
            shape: Shape::Map(Arc::new(value)),
            min_bytes: 2,
        }
    }

    /// An object with these fields, keyed by their identifiers.
    pub fn object(name: impl Into<String>, fields: BTreeMap<String, Field>) -> Self {
        let object = ObjectDeclaration {
            name: name.into(),
            fields,
            open: false,
        };
        Self::plain(Shape::Object(Arc::new(object)), 2)
    }

    /// A value of a library's type.
    pub fn other(of: Type) -> Self {
        Self::plain(Shape::Other(of), 1)
    }

    /// Its type.
    pub fn type_of(&self) -> Type {
        match &self.shape {
            Shape::Dyn => Type::Dyn,
            Shape::Any => Type::Any,
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Double => Type::Double,
            Shape::String => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Duration => Type::Duration,
            Shape::Timestamp | Shape::Date => Type::Timestamp,
            Shape::List(element) => Type::list(element.type_of()),
            Shape::Map(value) => Type::map(Type::String, value.type_of()),
            Shape::Object(object) => Type::Object(Arc::clone(object)),
            Shape::Other(of) => of.clone(),
        }
    }
}
