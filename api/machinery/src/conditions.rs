//! Conditions of a status, which are told apart by their type.

use serde_json::{Value, json};

/// Replaces the condition of that type, or adds it. `status` is an object or null. While a
/// condition's status stays, so does its `lastTransitionTime`.
pub fn set(status: &mut Value, condition: &Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else {
        return;
    };
    match list.iter_mut().find(|own| own["type"] == condition["type"]) {
        Some(own) => {
            let since = own["lastTransitionTime"].clone();
            let stays = own["status"] == condition["status"] && !since.is_null();
            *own = condition.clone();
            if stays {
                own["lastTransitionTime"] = since;
            }
        }
        None => list.push(condition.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_one_condition() {
        let mut object = json!({});
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        for (kind, status) in [("A", "True"), ("B", "True"), ("A", "False")] {
            set(&mut object["status"], &condition(kind, status));
        }
        let list = json!([condition("A", "False"), condition("B", "True")]);
        assert_eq!(object["status"]["conditions"], list);
    }

    #[test]
    fn the_time_is_that_of_the_last_change() {
        let mut status = json!({});
        for (status_is, time) in [("True", "1"), ("True", "2"), ("False", "3")] {
            let condition = json!({"type": "A", "status": status_is, "lastTransitionTime": time});
            set(&mut status, &condition);
            let expected = if status_is == "True" { "1" } else { "3" };
            assert_eq!(status["conditions"][0]["lastTransitionTime"], expected);
        }
    }
}
