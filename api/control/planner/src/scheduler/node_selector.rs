//! What a pod asks of a node's labels and name: selectors and affinities for nodes.
//!
//! Source: `k8s.io/component-helpers/scheduling/corev1/nodeaffinity`. A term that is not
//! understood matches no node.

use serde_json::Value;

use crate::object;

/// What can be asked of a node: its name, and the values of its labels.
pub trait Labelled {
    /// A label's value.
    fn label(&self, key: &str) -> Option<&str>;
    /// The node's name.
    fn name(&self) -> &str;
}

impl Labelled for Value {
    fn label(&self, key: &str) -> Option<&str> {
        object::label(self, key)
    }

    fn name(&self) -> &str {
        object::name(self)
    }
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) key: String,
    pub(super) test: Test,
}

/// What a label's value is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl Test {
    /// Whether a value passes; `None`: there is no such label.
    pub(super) fn passes(&self, value: Option<&str>) -> bool {
        let number = |value: &str| value.parse::<i64>().ok();
        match self {
            Self::In(values) => value.is_some_and(|own| values.iter().any(|value| value == own)),
            Self::NotIn(values) => {
                !value.is_some_and(|own| values.iter().any(|value| value == own))
            }
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::GreaterThan(bound) => value.and_then(number).is_some_and(|own| own > *bound),
            Self::LessThan(bound) => value.and_then(number).is_some_and(|own| own < *bound),
        }
    }
}

impl Requirement {
    pub(super) fn read(expression: &Value) -> Option<Self> {
        let values: Vec<String> = object::items(&expression["values"])
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
        let bound = || values.first().and_then(|value| value.parse().ok());
        let test = match expression["operator"].as_str()? {
            "In" if !values.is_empty() => Test::In(values),
            "NotIn" if !values.is_empty() => Test::NotIn(values),
            "Exists" if values.is_empty() => Test::Exists,
            "DoesNotExist" if values.is_empty() => Test::DoesNotExist,
            "Gt" if values.len() == 1 => Test::GreaterThan(bound()?),
            "Lt" if values.len() == 1 => Test::LessThan(bound()?),
            _ => return None,
        };
        let key = expression["key"].as_str()?.to_owned();
        Some(Self { key, test })
    }
}

/// Conditions on labels and on the name that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) labels: Vec<Requirement>,
    /// On `metadata.name`.
    pub(super) names: Vec<Test>,
}

impl Term {
    /// `None`: not understood.
    fn read(term: &Value) -> Option<Self> {
        let labels = object::items(&term["matchExpressions"]).map(Requirement::read);
        let names = object::items(&term["matchFields"]).map(|expression| {
            let own = Requirement::read(expression)?;
            let one =
                matches!(&own.test, Test::In(values) | Test::NotIn(values) if values.len() == 1);
            (own.key == "metadata.name" && one).then_some(own.test)
        });
        Some(Self {
            labels: labels.collect::<Option<_>>()?,
            names: names.collect::<Option<_>>()?,
        })
    }

    fn is_empty(term: &Value) -> bool {
        ["matchExpressions", "matchFields"]
            .into_iter()
            .all(|field| object::items(&term[field]).next().is_none())
    }

    fn matches(&self, node: &dyn Labelled) -> bool {
        let labels = &mut self.labels.iter();
        labels.all(|own| own.test.passes(node.label(&own.key)))
            && self.names.iter().all(|test| test.passes(Some(node.name())))
    }
}

/// `NodeSelector`: at least one of its terms must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSelector {
    pub(super) terms: Vec<Term>,
}

impl NodeSelector {
    /// Reads `{"nodeSelectorTerms": [...]}`; `None`: there is none.
    pub fn read(selector: &Value) -> Option<Self> {
        selector.as_object()?;
        let terms = object::items(&selector["nodeSelectorTerms"]);
        let terms = terms.filter(|term| !Term::is_empty(term));
        Some(Self {
            terms: terms.filter_map(Term::read).collect(),
        })
    }

    /// Whether a node matches.
    pub fn matches(&self, node: &dyn Labelled) -> bool {
        self.terms.iter().any(|term| term.matches(node))
    }
}

/// What a pod requires of its node: `nodeSelector` and the required node affinity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequiredNode {
    pub(super) labels: Vec<Requirement>,
    pub(super) selector: Option<NodeSelector>,
    /// The names that every term allows, if each allows names only.
    pub(super) names: Option<Vec<String>>,
}

impl RequiredNode {
    /// That of a pod's `spec`.
    pub fn of(spec: &Value) -> Self {
        let labels = spec["nodeSelector"].as_object().into_iter().flatten();
        let labels = labels.map(|(key, value)| Requirement {
            key: key.clone(),
            test: Test::In(vec![value.as_str().unwrap_or_default().to_owned()]),
        });
        let required =
            &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        Self {
            labels: labels.collect(),
            selector: NodeSelector::read(required),
            names: names_allowed(required),
        }
    }

    /// Whether every node will do.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.selector.is_none()
    }

    /// Whether a node will do.
    pub fn matches(&self, node: &dyn Labelled) -> bool {
        let labels = &mut self.labels.iter();
        labels.all(|own| own.test.passes(node.label(&own.key)))
            && self.selector.as_ref().is_none_or(|own| own.matches(node))
    }
}

/// The names of nodes that terms allow, where each of them names some.
fn names_allowed(selector: &Value) -> Option<Vec<String>> {
    let mut all: Option<Vec<String>> = None;
    for term in object::items(&selector["nodeSelectorTerms"]) {
        let mut own: Option<Vec<String>> = None;
        for expression in object::items(&term["matchFields"]) {
            if expression["key"] != "metadata.name" || expression["operator"] != "In" {
                continue;
            }
            let values = object::items(&expression["values"]).filter_map(Value::as_str);
            let values: Vec<String> = values.map(str::to_owned).collect();
            match &mut own {
                None => own = Some(values),
                Some(own) => own.retain(|name| values.contains(name)),
            }
        }
        all.get_or_insert_default().extend(own?);
    }
    if let Some(names) = &mut all {
        names.sort();
        names.dedup();
    }
    all
}

/// `PreferredSchedulingTerm`s: what each term that matches adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreferredNode {
    pub(super) terms: Vec<(i64, Term)>,
}

impl PreferredNode {
    /// Those of a list of terms.
    pub fn read(terms: &Value) -> Self {
        let terms = object::items(terms).filter_map(|term| {
            let weight = term["weight"].as_i64().unwrap_or_default();
            let preference = &term["preference"];
            (weight != 0 && !Term::is_empty(preference))
                .then(|| Some((weight, Term::read(preference)?)))?
        });
        Self {
            terms: terms.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn terms_are_alternatives_and_their_conditions_are_not() {
        let node = json!({"metadata": {"name": "a", "labels": {"zone": "x", "size": "5"}}});
        let expression = |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
        let zone = expression("zone", "In", json!(["x", "y"]));
        let not_zone = expression("zone", "NotIn", json!(["x"]));
        let large = expression("size", "Gt", json!(["4"]));
        let larger = expression("size", "Gt", json!(["5"]));
        let no_number = expression("size", "Gt", json!(["x"]));
        let other_name = expression("metadata.name", "In", json!(["b"]));
        for (terms, expected) in [
            (json!([]), false),
            (json!([{}]), false),
            (json!([{"matchExpressions": [zone, large]}]), true),
            (json!([{"matchExpressions": [zone, larger]}]), false),
            (
                json!([{"matchExpressions": [not_zone]}, {"matchExpressions": [large]}]),
                true,
            ),
            (json!([{"matchExpressions": [no_number]}]), false),
            (
                json!([{"matchExpressions": [zone], "matchFields": [other_name]}]),
                false,
            ),
        ] {
            let selector = json!({"nodeSelectorTerms": terms});
            let selector = NodeSelector::read(&selector).expect("one is there");
            assert_eq!(selector.matches(&node), expected, "{terms}");
        }
    }

    #[test]
    fn names_narrow_the_search_only_where_every_term_names_some() {
        let name =
            |names: Value| json!({"key": "metadata.name", "operator": "In", "values": names});
        let required = |terms: Value| {
            json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        let a = json!({"matchFields": [name(json!(["a"]))]});
        let both = json!({"matchFields": [name(json!(["a"])), name(json!(["b"]))]});
        let label = json!({"matchExpressions": [{"key": "x", "operator": "Exists"}]});
        for (terms, expected) in [
            (json!([a]), Some(vec!["a".to_owned()])),
            (json!([both]), Some(Vec::new())),
            (json!([a, label]), None),
        ] {
            let own = RequiredNode::of(&required(terms.clone()));
            assert_eq!(own.names, expected, "{terms}");
        }
    }
}
