//! What clients match in errors.

use super::*;
use crate::resource::find;

#[test]
fn a_missing_pod_is_named_as_clients_expect() {
    let pods = find("", "v1", "pods").expect("pods are served");
    let status = ApiError::not_found(pods, "web").to_status();
    assert_eq!(
        status.to_string(),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"web\" not found","reason":"NotFound","details":{"name":"web","kind":"pods"},"code":404}"#
    );
}

#[test]
fn several_causes_stand_in_brackets() {
    let pods = find("", "v1", "pods").expect("pods are served");
    let cause = |field: &str| Cause {
        field: field.to_owned(),
        reason: "FieldValueRequired".to_owned(),
        message: "Required value".to_owned(),
    };
    let error = ApiError::invalid(pods, "web", vec![cause("a"), cause("b")]);
    assert_eq!(
        error.message(),
        "Pod \"web\" is invalid: [a: Required value, b: Required value]"
    );
}
