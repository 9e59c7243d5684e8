//! Values of a type: their validation, the set of fields they mention, and how the
//! elements of their lists are told apart.

use serde_json::{Map as Object, Value};

use crate::path::{Path, PathElement, shown};
use crate::schema::{Atom, List, Map, Scalar, Schema, TypeId, TypeView};
use crate::set::Set;
use crate::value::{literal, plain, quoted, type_name};

/// What of a type applies to a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    Map(&'a Map),
    Scalar(Scalar),
    List(&'a List),
    /// A type that allows nothing.
    Nothing,
}

impl Kind<'_> {
    /// Whether both are the same part of one type.
    pub(crate) fn same(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// The part of a type that a value has, or its first part if it has none of them.
pub(crate) fn kind<'a>(atom: &'a Atom, value: Option<&Value>) -> Kind<'a> {
    let own = match value {
        None | Some(Value::Null) => None,
        Some(Value::Object(_)) => atom.map.as_ref().map(Kind::Map),
        Some(Value::Array(_)) => atom.list.as_ref().map(Kind::List),
        Some(_) => atom.scalar.map(Kind::Scalar),
    };
    own.or_else(|| atom.map.as_ref().map(Kind::Map))
        .or_else(|| atom.scalar.map(Kind::Scalar))
        .or_else(|| atom.list.as_ref().map(Kind::List))
        .unwrap_or(Kind::Nothing)
}

/// A list's elements, where it is one.
pub(crate) fn items(value: Option<&Value>) -> Option<&[Value]> {
    value.and_then(Value::as_array).map(Vec::as_slice)
}

/// How an element of a list is named; why not, where it can't be.
pub(crate) fn element_of(
    schema: &Schema,
    list: &List,
    item: &Value,
) -> Result<PathElement, String> {
    if list.keys.is_empty() {
        return match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            Value::Null => Err(
                "associative list without keys has an element that's an explicit null".to_owned(),
            ),
            scalar => Ok(PathElement::Value(scalar.clone())),
        };
    }
    let Value::Object(fields) = item else {
        return Err(match item {
            Value::Null => "associative list with keys may not have a null element".to_owned(),
            _ => "associative list with keys may not have non-map elements".to_owned(),
        });
    };
    key_of(schema, list, fields)
}

fn key_of(
    schema: &Schema,
    list: &List,
    fields: &Object<String, Value>,
) -> Result<PathElement, String> {
    let declared = schema.atom(list.element).map.as_ref();
    let mut key: Vec<(String, Value)> = list
        .keys
        .iter()
        .filter_map(|name| {
            let default = || declared?.fields.get(name)?.default.as_ref();
            let value = fields.get(name).or_else(default)?;
            Some((name.clone(), value.clone()))
        })
        .collect();
    if key.is_empty() {
        let names: Vec<String> = list.keys.iter().map(|name| quoted(name)).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and \
             doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    key.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(PathElement::Key(key))
}

/// Whether elements named alike may be in one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// As objects have them that were written before.
    Allowed,
    /// As a configuration may not.
    Refused,
}

/// Checks a value; the error is one text of all that is wrong, with paths.
pub fn validate(view: &TypeView, value: &Value, duplicates: Duplicates) -> Result<(), String> {
    let mut walk = Validation {
        schema: &view.schema,
        duplicates,
        path: Vec::new(),
        errors: Vec::new(),
    };
    walk.value(view.id, value);
    match walk.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        errors => Err(format!("errors:\n  {}", errors.join("\n  "))),
    }
}

struct Validation<'a> {
    schema: &'a Schema,
    duplicates: Duplicates,
    path: Path,
    errors: Vec<String>,
}

impl Validation<'_> {
    fn wrong(&mut self, what: &str) {
        let path = shown(&self.path);
        self.errors.push(match path.is_empty() {
            true => what.to_owned(),
            false => format!("{path}: {what}"),
        });
    }

    fn value(&mut self, id: TypeId, value: &Value) {
        let schema = self.schema;
        match kind(schema.atom(id), Some(value)) {
            Kind::Map(map) => match value {
                Value::Object(object) => self.map(map, object),
                Value::Null => {}
                _ => self.wrong(&format!("expected map, got &{{{}}}", plain(value))),
            },
            Kind::List(list) => match value {
                Value::Array(list_items) => self.list(list, list_items),
                Value::Null => {}
                _ => self.wrong(&format!("expected list, got &{{{}}}", plain(value))),
            },
            Kind::Scalar(scalar) => {
                if let Some(what) = scalar_fault(scalar, value) {
                    self.wrong(&what);
                }
            }
            Kind::Nothing => self.wrong("schema error: invalid atom"),
        }
    }

    fn map(&mut self, map: &Map, object: &Object<String, Value>) {
        for (name, value) in object {
            self.path.push(PathElement::field(name));
            let known = map.child(name);
            match known {
                Some(id) => self.value(id, value),
                None => self.wrong("field not declared in schema"),
            }
            self.path.pop();
            if known.is_none() {
                return;
            }
        }
    }

    fn list(&mut self, list: &List, list_items: &[Value]) {
        let mut seen = std::collections::BTreeSet::new();
        for (at, item) in list_items.iter().enumerate() {
            let element = if list.associative {
                match element_of(self.schema, list, item) {
                    Ok(element) => element,
                    Err(why) => {
                        self.wrong(&format!("element {at}: {why}"));
                        return;
                    }
                }
            } else {
                PathElement::Index(i64::try_from(at).unwrap_or(i64::MAX))
            };
            if list.associative
                && !seen.insert(element.clone())
                && self.duplicates == Duplicates::Refused
            {
                self.wrong(&format!("duplicate entries for key {element}"));
            }
            self.path.push(element);
            self.value(list.element, item);
            self.path.pop();
        }
    }
}

/// What is wrong with a value of a scalar type.
pub(crate) fn scalar_fault(scalar: Scalar, value: &Value) -> Option<String> {
    let fault = |text: String| Some(text);
    match (scalar, value) {
        (_, Value::Null)
        | (Scalar::Numeric, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => None,
        (Scalar::Numeric, _) => fault(format!(
            "expected numeric (int or float), got {}",
            type_name(value)
        )),
        (Scalar::String, _) => fault(format!(
            "expected string, got &value.valueUnstructured{{Value:{}}}",
            literal(value)
        )),
        (Scalar::Boolean, _) => fault(format!("expected boolean, got &{{{}}}", plain(value))),
        (Scalar::Untyped, _) => fault(format!("expected any scalar, got &{{{}}}", plain(value))),
    }
}

/// Every leaf and element that a value mentions.
pub fn field_set(view: &TypeView, value: &Value) -> Set {
    mentioned(&view.schema, view.id, value).below
}

/// What a value mentions below it, and whether it is itself a leaf.
struct Mentioned {
    leaf: bool,
    below: Set,
}

impl Mentioned {
    fn leaf() -> Self {
        Self {
            leaf: true,
            below: Set::default(),
        }
    }

    fn below(below: Set) -> Self {
        Self { leaf: false, below }
    }
}

fn mentioned(schema: &Schema, id: TypeId, value: &Value) -> Mentioned {
    match (kind(schema.atom(id), Some(value)), value) {
        (Kind::Map(map), _) if map.atomic => Mentioned::leaf(),
        (Kind::Map(map), Value::Object(object)) => {
            Mentioned::below(mentioned_fields(schema, map, object))
        }
        (Kind::List(list), _) if !list.associative => Mentioned::leaf(),
        (Kind::List(list), Value::Array(list_items)) => {
            Mentioned::below(mentioned_items(schema, list, list_items))
        }
        (Kind::Scalar(_), _) => Mentioned::leaf(),
        _ => Mentioned::below(Set::default()),
    }
}

fn mentioned_fields(schema: &Schema, map: &Map, object: &Object<String, Value>) -> Set {
    let mut set = Set::default();
    for (name, value) in object {
        let empty = value.is_null() || value.as_object().is_some_and(Object::is_empty);
        let undeclared = !map.fields.contains_key(name);
        let Some(id) = map.child(name) else {
            continue;
        };
        let found = mentioned(schema, id, value);
        set.add(
            PathElement::field(name),
            found.leaf || empty || undeclared,
            found.below,
        );
    }
    set
}

fn mentioned_items(schema: &Schema, list: &List, list_items: &[Value]) -> Set {
    let mut elements = Vec::with_capacity(list_items.len());
    let mut seen = std::collections::BTreeMap::new();
    for item in list_items {
        if let Ok(element) = element_of(schema, list, item) {
            *seen.entry(element.clone()).or_insert(0) += 1;
            elements.push((element, item));
        }
    }
    let mut set = Set::default();
    for (element, item) in elements {
        // Elements named alike are owned as one, with nothing below them.
        let below = match seen.get(&element) {
            Some(1) => mentioned(schema, list.element, item).below,
            _ => Set::default(),
        };
        set.add(element, true, below);
    }
    set
}
