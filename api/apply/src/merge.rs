//! The merge of a partial object into a whole one.
//!
//! Invariants: nothing is removed; a leaf that both have is the partial one's; list
//! elements stand in the partial one's order, the others where they stood.

use std::collections::BTreeMap;

use serde_json::{Map as Object, Value};

use crate::path::PathElement;
use crate::schema::{List, Map, Schema, TypeId, TypeView};
use crate::typed::{Kind, element_of, items, kind};

/// The whole object with the partial one's values.
pub fn merge(view: &TypeView, whole: &Value, partial: &Value) -> Result<Value, String> {
    let walk = Walk {
        schema: &view.schema,
    };
    let merged = walk.value(view.id, Some(whole), Some(partial))?;
    Ok(merged.unwrap_or(Value::Null))
}

struct Walk<'a> {
    schema: &'a Schema,
}

impl Walk<'_> {
    fn value(
        &self,
        id: TypeId,
        left: Option<&Value>,
        right: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let atom = self.schema.atom(id);
        // Where the forms differ the partial one's decides, and null has none.
        let form = match right {
            None | Some(Value::Null) => kind(atom, left),
            right => kind(atom, right),
        };
        match form {
            Kind::Map(map) => self.map(map, left, right),
            Kind::List(list) => self.list(list, left, right),
            Kind::Scalar(_) | Kind::Nothing => Ok(right.or(left).cloned()),
        }
    }

    fn map(
        &self,
        map: &Map,
        left: Option<&Value>,
        right: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let lefts = left.and_then(Value::as_object);
        let rights = right.and_then(Value::as_object);
        let empty = lefts.is_none_or(Object::is_empty) && rights.is_none_or(Object::is_empty);
        if map.atomic || empty {
            return Ok(right.or(left).cloned());
        }
        let mut merged = Object::new();
        let mut put = |name: &String, l: Option<&Value>, r: Option<&Value>| {
            let value = match map.child(name) {
                Some(id) => self.value(id, l, r)?,
                None => r.or(l).cloned(),
            };
            if let Some(value) = value {
                merged.insert(name.clone(), value);
            }
            Ok::<(), String>(())
        };
        for (name, value) in lefts.into_iter().flatten() {
            put(name, Some(value), rights.and_then(|map| map.get(name)))?;
        }
        for (name, value) in rights.into_iter().flatten() {
            if lefts.is_none_or(|lefts| !lefts.contains_key(name)) {
                put(name, None, Some(value))?;
            }
        }
        Ok((!merged.is_empty()).then_some(Value::Object(merged)))
    }

    fn list(
        &self,
        list: &List,
        left: Option<&Value>,
        right: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let (lefts, rights) = (items(left), items(right));
        let empty = lefts.is_none_or(<[Value]>::is_empty) && rights.is_none_or(<[Value]>::is_empty);
        if !list.associative || empty {
            return Ok(right.or(left).cloned());
        }
        let lefts = Side::index(self.schema, list, lefts.unwrap_or_default(), true)?;
        let rights = Side::index(self.schema, list, rights.unwrap_or_default(), false)?;
        let merged = self.elements(list, &lefts, &rights)?;
        Ok((!merged.is_empty()).then_some(Value::Array(merged)))
    }

    /// Walks both lists at once. Elements that both have come in the order of the
    /// partial list, `shared`; what only the whole has stays before the next of them.
    fn elements(
        &self,
        list: &List,
        lefts: &Side<'_>,
        rights: &Side<'_>,
    ) -> Result<Vec<Value>, String> {
        let mut merged = Vec::with_capacity(lefts.elements.len().max(rights.elements.len()));
        let mut shared = rights
            .elements
            .iter()
            .filter(|element| lefts.by_name.contains_key(*element));
        let mut next_shared = shared.next();
        let mut done = std::collections::BTreeSet::new();
        let (mut l, mut r) = (0, 0);
        while l < lefts.elements.len() || r < rights.elements.len() {
            let (left, right) = (lefts.elements.get(l), rights.elements.get(r));
            if let (Some(left), Some(right)) = (left, right) {
                if left == right {
                    done.insert(left);
                    self.put(list, lefts.get(left), rights.get(right), &mut merged)?;
                    l += 1;
                    r += 1;
                    next_shared = shared.next();
                    continue;
                }
                if rights.by_name.contains_key(left) && next_shared.is_some_and(|next| next != left)
                {
                    // Its turn comes with the partial list's.
                    l += 1;
                    continue;
                }
            }
            if let Some(left) = left {
                if !rights.by_name.contains_key(left) {
                    self.put(list, lefts.items.get(l), None, &mut merged)?;
                    l += 1;
                    continue;
                }
                if done.contains(left) {
                    l += 1;
                }
            }
            if let Some(right) = right {
                done.insert(right);
                self.put(list, lefts.get(right), rights.get(right), &mut merged)?;
                r += 1;
                if next_shared == Some(right) {
                    next_shared = shared.next();
                }
            }
        }
        Ok(merged)
    }

    fn put(
        &self,
        list: &List,
        left: Option<&Value>,
        right: Option<&Value>,
        merged: &mut Vec<Value>,
    ) -> Result<(), String> {
        merged.extend(self.value(list.element, left, right)?);
        Ok(())
    }
}

/// What stands for elements named alike: none of them is merged.
static REPEATED: Value = Value::Null;

/// One list with its elements by name.
struct Side<'a> {
    elements: Vec<PathElement>,
    items: &'a [Value],
    by_name: BTreeMap<PathElement, &'a Value>,
}

impl<'a> Side<'a> {
    fn index(
        schema: &Schema,
        list: &List,
        items: &'a [Value],
        may_repeat: bool,
    ) -> Result<Self, String> {
        let mut side = Self {
            elements: Vec::with_capacity(items.len()),
            items,
            by_name: BTreeMap::new(),
        };
        for (at, item) in items.iter().enumerate() {
            let element =
                element_of(schema, list, item).map_err(|why| format!("element {at}: {why}"))?;
            match side.by_name.get_mut(&element) {
                Some(_) if !may_repeat => {
                    return Err(format!("duplicate entries for key {element}"));
                }
                Some(known) => *known = &REPEATED,
                None => {
                    side.by_name.insert(element.clone(), item);
                }
            }
            side.elements.push(element);
        }
        Ok(side)
    }

    fn get(&self, element: &PathElement) -> Option<&'a Value> {
        self.by_name.get(element).copied()
    }
}
