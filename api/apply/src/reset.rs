//! The fields that a way in does not write, and so nobody owns through it: `status`
//! through the object itself, `spec` through `status`.

use crate::path::PathElement;
use crate::set::Set;

/// Which fields are left out of what a request changes.
#[derive(Debug, Clone, Default)]
pub enum Reset {
    /// None.
    #[default]
    Nothing,
    /// These, and what is below them.
    Fields(Set),
    /// All but what matches a pattern.
    AllBut(Vec<Pattern>),
}

/// A path by whose steps fields are kept, with all that is below it.
#[derive(Debug, Clone)]
pub struct Pattern(Vec<Step>);

/// One step of a pattern.
#[derive(Debug, Clone)]
enum Step {
    Any,
    Field(PathElement),
}

impl Pattern {
    /// Reads `spec.containers.*.resources`.
    pub fn parse(text: &str) -> Self {
        Self(
            text.split('.')
                .map(|step| match step {
                    "*" => Step::Any,
                    name => Step::Field(PathElement::field(name)),
                })
                .collect(),
        )
    }
}

impl Reset {
    /// Leaves out these dotted paths.
    pub fn fields(paths: &[&str]) -> Self {
        Self::Fields(Set::of_fields(paths))
    }

    /// Leaves out all but what matches.
    pub fn all_but(patterns: &[&str]) -> Self {
        Self::AllBut(patterns.iter().map(|text| Pattern::parse(text)).collect())
    }

    /// The set without the fields that are reset.
    #[must_use]
    pub fn filter(&self, set: Set) -> Set {
        match self {
            Self::Nothing => set,
            Self::Fields(fields) => set.recursive_difference(fields),
            Self::AllBut(patterns) => {
                let patterns: Vec<&[Step]> = patterns.iter().map(|p| p.0.as_slice()).collect();
                matching(&set, &patterns)
            }
        }
    }
}

fn matching(set: &Set, patterns: &[&[Step]]) -> Set {
    let mut kept = Set::default();
    for node in set.nodes() {
        let rest: Vec<&[Step]> = patterns
            .iter()
            .filter_map(|pattern| match pattern.split_first() {
                Some((Step::Any, rest)) => Some(rest),
                Some((Step::Field(own), rest)) if *own == node.element => Some(rest),
                _ => None,
            })
            .collect();
        if rest.is_empty() {
            continue;
        }
        let below = match rest.iter().any(|rest| rest.is_empty()) {
            true => node.below.clone(),
            false => matching(&node.below, &rest),
        };
        kept.add(node.element.clone(), node.member, below);
    }
    kept
}
