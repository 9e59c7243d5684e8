//! What pods ask about other pods: affinity terms and spread constraints.
//!
//! Source: `framework.AffinityTerm` and `podtopologyspread` of kube-scheduler.
//! `matchLabelKeys` of affinity terms are merged into their selectors when a pod is
//! created, those of spread constraints here.

use std::collections::BTreeMap;

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use crate::object;

/// Labels of pods and namespaces.
pub type Labels = BTreeMap<String, String>;

/// The labels of an object.
pub(super) fn labels_of(object: &Value) -> Labels {
    let labels = object["metadata"]["labels"].as_object();
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Whether labels match; no selector matches nothing.
pub(super) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_some_and(|own| own.matches_labels(|key| labels.get(key).map(String::as_str)))
}

/// `PodAffinityTerm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityTerm {
    /// The namespaces that are meant.
    pub namespaces: Vec<String>,
    /// Or those whose labels match; `None`: no others.
    pub namespace_selector: Option<LabelSelector>,
    /// The pods that are meant; `None`: none.
    pub selector: Option<LabelSelector>,
    /// The label of nodes whose value makes a domain.
    pub topology_key: String,
}

impl AffinityTerm {
    fn read(term: &Value, namespace: &str) -> Option<Self> {
        let named = object::items(&term["namespaces"]).filter_map(Value::as_str);
        let mut namespaces: Vec<String> = named.map(str::to_owned).collect();
        let others = &term["namespaceSelector"];
        if namespaces.is_empty() && !others.is_object() {
            namespaces.push(namespace.to_owned());
        }
        Some(Self {
            namespaces,
            namespace_selector: read_selector(others).ok()?,
            selector: read_selector(&term["labelSelector"]).ok()?,
            topology_key: term["topologyKey"].as_str()?.to_owned(),
        })
    }

    /// Whether a pod is meant by its own and its namespace's labels.
    pub fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        self.means(namespace, namespace_labels) && selects(self.selector.as_ref(), labels)
    }

    /// Whether pods of a namespace are meant.
    pub(super) fn means(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespaces.iter().any(|own| own == namespace)
            || selects(self.namespace_selector.as_ref(), labels)
    }
}

/// A selector where one is there.
fn read_selector(selector: &Value) -> Result<Option<LabelSelector>, ApiError> {
    if !selector.is_object() {
        return Ok(None);
    }
    LabelSelector::of_object(selector).map(Some)
}

/// All affinity terms of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodAffinities {
    /// Pods that must be in its domain.
    pub required: Vec<AffinityTerm>,
    /// Pods that must not be in its domain.
    pub required_anti: Vec<AffinityTerm>,
    /// Pods that it likes to be near, with weights.
    pub preferred: Vec<(i64, AffinityTerm)>,
    /// Pods that it likes to be far from, with weights.
    pub preferred_anti: Vec<(i64, AffinityTerm)>,
}

impl PodAffinities {
    /// Those of a pod's `spec.affinity`. What validation would refuse is left out.
    pub(super) fn read(affinity: &Value, namespace: &str) -> Self {
        let required = |field: &str| -> Vec<AffinityTerm> {
            let terms = &affinity[field]["requiredDuringSchedulingIgnoredDuringExecution"];
            let read = |own: &Value| AffinityTerm::read(own, namespace);
            object::items(terms).filter_map(read).collect()
        };
        let preferred = |field: &str| -> Vec<(i64, AffinityTerm)> {
            let terms = &affinity[field]["preferredDuringSchedulingIgnoredDuringExecution"];
            let read = |own: &Value| {
                let weight = own["weight"].as_i64().unwrap_or_default();
                let term = AffinityTerm::read(&own["podAffinityTerm"], namespace)?;
                Some((weight, term))
            };
            object::items(terms).filter_map(read).collect()
        };
        Self {
            required: required("podAffinity"),
            required_anti: required("podAntiAffinity"),
            preferred: preferred("podAffinity"),
            preferred_anti: preferred("podAntiAffinity"),
        }
    }

    /// Whether there is no term.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }
}

/// `TopologySpreadConstraint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadConstraint {
    /// How much more pods a domain may have than the emptiest.
    pub max_skew: i64,
    /// The label of nodes whose value makes a domain.
    pub topology_key: String,
    /// Whether a node that breaks it will not do; else it only scores less.
    pub is_required: bool,
    /// The pods that are counted; `None`: none.
    pub selector: Option<LabelSelector>,
    /// With fewer domains the emptiest counts as empty.
    pub min_domains: usize,
    /// Whether only nodes count that the pod's node affinity allows.
    pub honors_affinity: bool,
    /// Whether only nodes count whose taints the pod tolerates.
    pub honors_taints: bool,
}

impl SpreadConstraint {
    /// Reads one; `labels` are the pod's. `None`: it is not understood.
    pub fn read(constraint: &Value, labels: &Labels) -> Option<Self> {
        let mut selector = constraint["labelSelector"].clone();
        if selector.is_object() {
            let mut merged: Vec<Value> = object::items(&selector["matchExpressions"])
                .cloned()
                .collect();
            let keys = object::items(&constraint["matchLabelKeys"]).filter_map(Value::as_str);
            for (key, value) in keys.filter_map(|key| labels.get_key_value(key)) {
                merged.push(json!({"key": key, "operator": "In", "values": [value]}));
            }
            selector["matchExpressions"] = merged.into();
        }
        let policy = |field: &str, unsaid: bool| match constraint[field].as_str() {
            Some(said) => said == "Honor",
            None => unsaid,
        };
        let min_domains = constraint["minDomains"].as_u64().unwrap_or(1);
        Some(Self {
            max_skew: constraint["maxSkew"].as_i64()?,
            topology_key: constraint["topologyKey"].as_str()?.to_owned(),
            is_required: constraint["whenUnsatisfiable"] != "ScheduleAnyway",
            selector: read_selector(&selector).ok()?,
            min_domains: usize::try_from(min_domains).unwrap_or(usize::MAX),
            honors_affinity: policy("nodeAffinityPolicy", true),
            honors_taints: policy("nodeTaintsPolicy", false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_term_means_its_pods_namespace_unless_it_says_others() {
        let web = json!({"matchLabels": {"app": "web"}});
        for (term, expected) in [
            (json!({"labelSelector": web}), [true, false]),
            (
                json!({"labelSelector": web, "namespaces": ["b"]}),
                [false, true],
            ),
            (
                json!({"labelSelector": web, "namespaceSelector": {}}),
                [true, true],
            ),
            (
                json!({"labelSelector": web, "namespaceSelector": {"matchLabels": {"team": "b"}}}),
                [false, true],
            ),
            (json!({}), [false, false]),
        ] {
            let mut term = term;
            term["topologyKey"] = "zone".into();
            let read = AffinityTerm::read(&term, "a").expect("it is one");
            let pod = labels(&[("app", "web")]);
            let answers = ["a", "b"].map(|own| read.matches(own, &labels(&[("team", own)]), &pod));
            assert_eq!(answers, expected, "{term}");
        }
    }

    #[test]
    fn keys_of_a_constraint_select_the_pods_own_values() {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "labelSelector": {},
            "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["hash", "absent"]});
        let read = SpreadConstraint::read(&constraint, &labels(&[("hash", "1")]));
        let read = read.expect("it is one");
        let selects = |hash: &str| selects(read.selector.as_ref(), &labels(&[("hash", hash)]));
        assert_eq!([selects("1"), selects("2")], [true, false]);
        assert!(read.honors_affinity && !read.honors_taints && read.min_domains == 1);
    }
}
