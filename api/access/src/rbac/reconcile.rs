//! Bringing a bootstrap role or binding that exists to what the release expects,
//! without taking anything away.
//!
//! Source: the reference's reconciliation, in its mode that keeps what was added. An
//! object with `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use serde_json::{Value, json};

use super::covers::covers;
use super::policy::{BindingRow, RoleRow};

/// The annotation by which administrators keep an object as it is.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Reconciled {
    /// It is as expected, or kept by its administrator.
    Keep,
    /// It shall be this.
    Update(Value),
    /// Its role is another one: it must go and be made anew.
    Recreate,
}

/// Compares the object that is there with the expected one of the same kind.
pub fn reconcile(present: &Value, expected: &Value) -> Result<Reconciled, String> {
    if present["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return Ok(Reconciled::Keep);
    }
    let mut wanted = present.clone();
    for field in ["labels", "annotations"] {
        let Some(own) = expected["metadata"][field].as_object() else {
            continue;
        };
        for (key, value) in own {
            let there = &mut wanted["metadata"][field];
            if there.get(key).is_none() {
                there[key.as_str()] = value.clone();
            }
        }
    }
    if expected.get("roleRef").is_some() {
        let (now, then) = (BindingRow::read(present)?, BindingRow::read(expected)?);
        if now.role_ref != then.role_ref {
            return Ok(Reconciled::Recreate);
        }
        let missing = then
            .subjects
            .iter()
            .filter(|subject| !now.subjects.contains(subject));
        extend(&mut wanted, "subjects", missing)?;
    } else {
        let (now, then) = (RoleRow::read(present)?, RoleRow::read(expected)?);
        extend(&mut wanted, "rules", covers(&now.rules, &then.rules).iter())?;
        reconcile_selectors(&mut wanted, expected)?;
    }
    Ok(if wanted == *present {
        Reconciled::Keep
    } else {
        Reconciled::Update(wanted)
    })
}

fn reconcile_selectors(wanted: &mut Value, expected: &Value) -> Result<(), String> {
    let Some(selectors) = expected["aggregationRule"]["clusterRoleSelectors"].as_array() else {
        if let Some(fields) = wanted.as_object_mut() {
            fields.shift_remove("aggregationRule");
        }
        return Ok(());
    };
    let there = wanted["aggregationRule"]["clusterRoleSelectors"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let missing: Vec<&Value> = selectors
        .iter()
        .filter(|selector| !there.contains(selector))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if wanted["aggregationRule"].is_null() {
        wanted["aggregationRule"] = json!({});
    }
    extend(
        &mut wanted["aggregationRule"],
        "clusterRoleSelectors",
        missing.into_iter(),
    )
}

/// Appends to the list `field`, which may be unset.
fn extend<'a, T: serde::Serialize + 'a>(
    object: &mut Value,
    field: &str,
    items: impl Iterator<Item = &'a T>,
) -> Result<(), String> {
    for item in items {
        let item = serde_json::to_value(item).map_err(|error| error.to_string())?;
        match object.get_mut(field).and_then(Value::as_array_mut) {
            Some(list) => list.push(item),
            None => object[field] = json!([item]),
        }
    }
    Ok(())
}
