//! What is refused, and where; how deep an expression may be.

use super::*;

fn none() -> Environment {
    Environment::kubernetes()
}

#[test]
fn mistakes_are_placed() {
    let refused = |text: &str| parse(text, &none()).expect_err(text).remove(0);
    let mistake = refused("a +");
    assert_eq!(mistake.at, 3);
    assert!(
        mistake
            .message
            .starts_with("Syntax error: mismatched input '<EOF>' expecting {'['")
    );
    assert_eq!(refused("has(a)").message, "invalid argument to has() macro");
    assert_eq!(
        refused("a.all(1, true)").message,
        "argument must be a simple name"
    );
}

#[test]
fn depth_is_bounded() {
    for text in [
        "(".repeat(5_000),
        "[".repeat(5_000),
        format!("a{}", ".b".repeat(5_000)),
        format!("1{}", "+1".repeat(5_000)),
        "a?b:".repeat(5_000),
    ] {
        assert!(parse(&text, &none()).is_err());
    }
    // A chain of one logical operator is no deep tree.
    assert!(parse(&format!("a{}", " && a".repeat(5_000)), &none()).is_ok());
}

#[test]
fn the_least_integer_is_a_literal() {
    assert!(parse("-9223372036854775808", &none()).is_ok());
    assert!(parse("9223372036854775808", &none()).is_err());
}
