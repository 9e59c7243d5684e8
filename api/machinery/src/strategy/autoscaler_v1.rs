//! The rules of `autoscaling/v1`'s autoscalers: those of `autoscaling/v2`, on the form
//! that is stored.

use serde_json::Value;

use super::Context;
use super::rules::{self, Rules};
use crate::convert::autoscaler::{to_v1, to_v2};
use crate::validation::At;

/// See the module.
pub static RULES: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: |object| through(object, v2().default),
    prepare_create: |object, context: &Context<'_>| {
        through(object, |object| (v2().prepare_create)(object, context));
    },
    prepare_update: |subresource, old, new| {
        let old = to_v2(old.clone());
        through(new, |new| (v2().prepare_update)(subresource, &old, new));
    },
    validate: |object, errors| {
        let v2_form = to_v2(object.value.clone());
        (v2().validate)(&At::root(&v2_form), errors);
    },
    validate_create: |object, errors| {
        let v2_form = to_v2(object.value.clone());
        (v2().validate_create)(&At::root(&v2_form), errors);
    },
    validate_update: |old, new, errors| {
        let (old, new) = (to_v2(old.value.clone()), to_v2(new.value.clone()));
        (v2().validate_update)(&At::root(&old), &At::root(&new), errors);
    },
    validate_subresource: |name, old, new, errors| {
        let (old, new) = (to_v2(old.value.clone()), to_v2(new.value.clone()));
        (v2().validate_subresource)(name, &At::root(&old), &At::root(&new), errors);
    },
    ..rules::PLAIN
};

fn v2() -> &'static Rules {
    rules::of("autoscaling", "horizontalpodautoscalers", true)
}

fn through(object: &mut Value, change: impl FnOnce(&mut Value)) {
    let mut v2 = to_v2(object.take());
    change(&mut v2);
    *object = to_v1(v2);
}
