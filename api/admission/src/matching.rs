//! Which requests a webhook or a policy is about: rules, selectors, equivalent kinds.

use nautilus_machinery::resource::Resource;
use nautilus_machinery::selector::LabelSelector;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::values::{items, text};

/// The group whose objects no webhook and no policy is asked about: who makes a mistake
/// there could not mend it.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// One rule.
#[derive(Debug, Clone)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    /// Names of objects, of policies alone; none: any.
    names: Vec<String>,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Cluster,
    Namespaced,
}

fn texts(value: &Value) -> Vec<String> {
    items(value).map(|item| text(item).to_owned()).collect()
}

fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

impl Rule {
    fn of(rule: &Value) -> Self {
        Self {
            operations: texts(&rule["operations"]),
            groups: texts(&rule["apiGroups"]),
            versions: texts(&rule["apiVersions"]),
            resources: texts(&rule["resources"]),
            names: texts(&rule["resourceNames"]),
            scope: match text(&rule["scope"]) {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::All,
            },
        }
    }

    fn matches(&self, asked: &Attributes<'_>, resource: &Resource) -> bool {
        let namespaced = asked.namespace.is_some() && !asked.of("", "namespaces");
        let in_scope = match self.scope {
            Scope::All => true,
            Scope::Cluster => !namespaced,
            Scope::Namespaced => namespaced,
        };
        let names_it = |own: &String| {
            let (plural, sub) = own.split_once('/').unwrap_or((own, ""));
            (plural == "*" || *plural == *resource.plural)
                && (sub == "*" || sub == asked.subresource.unwrap_or_default())
        };
        in_scope
            && holds(&self.operations, asked.operation.as_str())
            && holds(&self.groups, &resource.group)
            && holds(&self.versions, &resource.version)
            && self.resources.iter().any(names_it)
            && (self.names.is_empty() || self.names.iter().any(|own| own == asked.name))
    }
}

/// What a webhook, a policy or a binding is about.
#[derive(Debug, Clone)]
pub struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Whether another form of the same objects matches too.
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

/// A selector; an empty one is not looked at.
#[derive(Debug, Clone)]
enum Selector {
    Everything,
    Labels(LabelSelector),
    /// It does not parse: what validation lets through matches nothing here.
    Nothing,
}

impl Selector {
    fn of(value: &Value) -> Self {
        match LabelSelector::of_object(value) {
            Ok(selector) if selector.is_empty() => Self::Everything,
            Ok(selector) => Self::Labels(selector),
            Err(_) => Self::Nothing,
        }
    }

    fn matches(&self, object: &Value) -> bool {
        match self {
            Self::Everything => true,
            Self::Labels(selector) => selector.matches(object),
            Self::Nothing => false,
        }
    }
}

impl Matching {
    /// Of a webhook: `rules`, `matchPolicy` and the selectors.
    pub fn of_webhook(webhook: &Value) -> Self {
        Self {
            rules: items(&webhook["rules"]).map(Rule::of).collect(),
            ..Self::of_selectors(webhook)
        }
    }

    /// Of a policy's `matchConstraints` or a binding's `matchResources`.
    pub fn of_resources(resources: &Value) -> Self {
        Self {
            rules: items(&resources["resourceRules"]).map(Rule::of).collect(),
            excluded: items(&resources["excludeResourceRules"])
                .map(Rule::of)
                .collect(),
            ..Self::of_selectors(resources)
        }
    }

    fn of_selectors(value: &Value) -> Self {
        Self {
            rules: Vec::new(),
            excluded: Vec::new(),
            equivalent: value["matchPolicy"] != "Exact",
            namespaces: Selector::of(&value["namespaceSelector"]),
            objects: Selector::of(&value["objectSelector"]),
        }
    }

    /// Whether a rule names the request's kind, or one of its other forms; the form that
    /// matched.
    pub fn by_rules<'r>(
        &self,
        asked: &Attributes<'r>,
        equivalents: &[&'r Resource],
    ) -> Option<&'r Resource> {
        let others = || equivalents.iter().copied().filter(|_| self.equivalent);
        let excluded = |resource: &Resource| {
            self.excluded
                .iter()
                .any(|rule| rule.matches(asked, resource))
        };
        if excluded(asked.resource) || others().any(excluded) {
            return None;
        }
        let matches = |rules: &[Rule], resource: &Resource| {
            rules.iter().any(|rule| rule.matches(asked, resource))
        };
        if matches(&self.rules, asked.resource) {
            return Some(asked.resource);
        }
        // Earlier rules come first.
        self.rules
            .iter()
            .find_map(|rule| others().find(|resource| rule.matches(asked, resource)))
    }

    /// The same for a binding: without rules it is about everything its policy is.
    pub fn by_rules_if_any(&self, asked: &Attributes<'_>, equivalents: &[&Resource]) -> bool {
        if self.rules.is_empty() && self.excluded.is_empty() {
            return true;
        }
        if self.rules.is_empty() {
            let others = equivalents.iter().copied().filter(|_| self.equivalent);
            let mut all = std::iter::once(asked.resource).chain(others);
            return !all.any(|one| self.excluded.iter().any(|rule| rule.matches(asked, one)));
        }
        self.by_rules(asked, equivalents).is_some()
    }

    /// Whether the object or what it was before is selected.
    pub fn by_object(&self, asked: &Attributes<'_>, object: Option<&Value>) -> bool {
        matches!(self.objects, Selector::Everything)
            || [object, asked.old]
                .iter()
                .flatten()
                .any(|object| self.objects.matches(object))
    }

    /// Whether the namespace of the object decides.
    pub fn wants_namespace(&self, asked: &Attributes<'_>) -> bool {
        !matches!(self.namespaces, Selector::Everything) && asked.namespace.is_some()
    }

    /// Whether the namespace is selected: the one the object is in, or the object itself
    /// where it is one. What is in no namespace always is.
    pub fn by_namespace(
        &self,
        asked: &Attributes<'_>,
        object: Option<&Value>,
        namespace: Option<&Value>,
    ) -> bool {
        if !self.wants_namespace(asked) {
            return true;
        }
        if asked.of("", "namespaces") {
            let own = match asked.operation {
                Operation::Delete => asked.old,
                _ => object.or(asked.old),
            };
            return own.is_some_and(|own| self.namespaces.matches(own));
        }
        namespace.is_some_and(|namespace| self.namespaces.matches(namespace))
    }
}

/// Whether no webhook and no policy is asked about the request.
pub fn is_exempt(asked: &Attributes<'_>) -> bool {
    *asked.resource.group == *GROUP
        && [
            "validatingwebhookconfigurations",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ]
        .contains(&&*asked.resource.plural)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_machinery::identity::User;
    use nautilus_machinery::resource::find;
    use serde_json::json;

    fn asked<'a>(user: &'a User, plural: &str, sub: Option<&'a str>) -> Attributes<'a> {
        Attributes {
            operation: Operation::Create,
            resource: find("", "v1", plural).expect("the kind is served"),
            subresource: sub,
            namespace: Some("a"),
            name: "x",
            field_manager: "",
            user,
            dry_run: false,
            old: None,
        }
    }

    fn about(resources: &Value) -> Matching {
        Matching::of_webhook(&json!({"rules": [{
            "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": resources,
        }]}))
    }

    #[test]
    fn a_rule_on_a_kind_is_not_about_its_subresources() {
        let user = User::anonymous();
        let (pods, status) = (
            asked(&user, "pods", None),
            asked(&user, "pods", Some("status")),
        );
        assert!(about(&json!(["pods"])).by_rules(&pods, &[]).is_some());
        assert!(about(&json!(["pods"])).by_rules(&status, &[]).is_none());
        assert!(about(&json!(["*/*"])).by_rules(&status, &[]).is_some());
        assert!(about(&json!(["pods/*"])).by_rules(&status, &[]).is_some());
        assert!(about(&json!(["*"])).by_rules(&pods, &[]).is_some());
    }

    #[test]
    fn another_form_of_the_same_objects_matches_unless_it_must_be_exact() {
        let user = User::anonymous();
        let events = asked(&user, "events", None);
        let other = find("events.k8s.io", "v1", "events").expect("they are served");
        let rules = json!([{
            "operations": ["*"], "apiGroups": ["events.k8s.io"], "apiVersions": ["*"],
            "resources": ["events"],
        }]);
        let wide = Matching::of_webhook(&json!({"rules": rules}));
        let found = wide
            .by_rules(&events, &[other])
            .map(|kind| kind.group.to_string());
        assert_eq!(found.as_deref(), Some("events.k8s.io"));
        let exact = Matching::of_webhook(&json!({"rules": rules, "matchPolicy": "Exact"}));
        assert!(exact.by_rules(&events, &[other]).is_none());
    }
}
