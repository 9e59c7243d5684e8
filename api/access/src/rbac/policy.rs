//! Every role and binding, indexed by whom they bind: a decision looks at the
//! bindings of one user and its groups, however many there are of others.
//!
//! Invariants
//! - The index holds exactly the bindings that are held by name; a change of one
//!   touches only its own entries.
//! - A binding whose role is missing grants nothing, and says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::identity::User;
use nautilus_machinery::status::quote;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rule::{RoleRef, Rule, Subject};
use crate::Decision;
use crate::attributes::Attributes;

/// A `Role` or `ClusterRole`, as far as it counts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRow {
    /// What it allows.
    pub rules: Vec<Rule>,
}

/// A `RoleBinding` or `ClusterRoleBinding`, as far as it counts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BindingRow {
    /// The role bound.
    pub role_ref: RoleRef,
    /// To whom.
    pub subjects: Vec<Subject>,
}

impl RoleRow {
    /// Reads a role's object.
    pub fn read(object: &Value) -> Result<Self, String> {
        // A null list is an empty one.
        let rules = match &object["rules"] {
            Value::Null => Vec::new(),
            rules => serde_json::from_value(rules.clone()).map_err(|error| error.to_string())?,
        };
        Ok(Self { rules })
    }
}

impl BindingRow {
    /// Reads a binding's object.
    pub fn read(object: &Value) -> Result<Self, String> {
        let subjects = match &object["subjects"] {
            Value::Null => Vec::new(),
            list => serde_json::from_value(list.clone()).map_err(|error| error.to_string())?,
        };
        let role_ref =
            serde_json::from_value(object["roleRef"].clone()).map_err(|error| error.to_string())?;
        Ok(Self { role_ref, subjects })
    }
}

/// A binding, as the index finds it.
#[derive(Debug)]
struct Bound {
    /// Empty for a `ClusterRoleBinding`.
    namespace: String,
    name: String,
    row: Arc<BindingRow>,
}

/// By whom: `kind` and name (namespace and name of a service account).
type SubjectKey = (char, String);

/// The rules in force.
#[derive(Debug, Default)]
pub struct Policy {
    /// By namespace (empty for cluster roles) and name.
    roles: BTreeMap<(String, String), Arc<RoleRow>>,
    /// By namespace (empty for cluster role bindings) and name.
    bindings: BTreeMap<(String, String), Arc<Bound>>,
    /// By the binding's namespace and a subject; each list is in the order of names.
    index: BTreeMap<String, BTreeMap<SubjectKey, Vec<Arc<Bound>>>>,
}

/// A rule that a user has, and what gives it.
pub struct Granted<'a> {
    /// The rule.
    pub rule: &'a Rule,
    bound: &'a Bound,
    subject: &'a Subject,
}

impl Granted<'_> {
    /// As `ClusterRoleBinding "a" of ClusterRole "b" to User "c"`.
    pub fn source(&self) -> String {
        let Bound {
            namespace,
            name,
            row,
        } = self.bound;
        let (kind, name) = match namespace.as_str() {
            "" => ("ClusterRoleBinding", name.clone()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        format!(
            "{kind} {} of {} {} to {}",
            quote(&name),
            row.role_ref.kind,
            quote(&row.role_ref.name),
            self.subject.describe(namespace)
        )
    }
}

impl Policy {
    /// Puts a role (`namespace` empty: a cluster role) in the place of what was there.
    pub fn set_role(&mut self, namespace: &str, name: &str, role: Option<Arc<RoleRow>>) {
        let key = (namespace.to_owned(), name.to_owned());
        match role {
            Some(role) => {
                self.roles.insert(key, role);
            }
            None => {
                self.roles.remove(&key);
            }
        }
    }

    /// Puts a binding (`namespace` empty: a cluster role binding) in the place of what
    /// was there.
    pub fn set_binding(&mut self, namespace: &str, name: &str, row: Option<Arc<BindingRow>>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(old) = self.bindings.remove(&key) {
            self.unindex(&old);
        }
        let Some(row) = row else { return };
        let bound = Arc::new(Bound {
            namespace: key.0.clone(),
            name: key.1.clone(),
            row,
        });
        let subjects = self.index.entry(key.0.clone()).or_default();
        for subject in subject_keys(&bound) {
            let list = subjects.entry(subject).or_default();
            // One binding may name a subject twice.
            if let Err(at) = list.binary_search_by(|other| other.name.cmp(&bound.name)) {
                list.insert(at, bound.clone());
            }
        }
        self.bindings.insert(key, bound);
    }

    fn unindex(&mut self, bound: &Bound) {
        let Some(subjects) = self.index.get_mut(&bound.namespace) else {
            return;
        };
        for key in subject_keys(bound) {
            if let Some(list) = subjects.get_mut(&key) {
                list.retain(|other| other.name != bound.name);
                if list.is_empty() {
                    subjects.remove(&key);
                }
            }
        }
        if subjects.is_empty() {
            self.index.remove(&bound.namespace);
        }
    }

    /// Forgets all roles, or all bindings, of the cluster or of namespaces.
    pub fn clear(&mut self, bindings: bool, namespaced: bool) {
        if bindings {
            self.bindings
                .retain(|(namespace, _), _| namespace.is_empty() == namespaced);
            self.index
                .retain(|namespace, _| namespace.is_empty() == namespaced);
        } else {
            self.roles
                .retain(|(namespace, _), _| namespace.is_empty() == namespaced);
        }
    }

    /// Whether a rule allows `user` what is asked.
    pub fn authorize(&self, user: &User, asked: &Attributes) -> Decision {
        let mut errors = Vec::new();
        let mut reason = None;
        self.visit(user, &asked.namespace, &mut errors, &mut |granted| {
            if granted.rule.allows(asked) {
                reason = Some(format!("RBAC: allowed by {}", granted.source()));
            }
            reason.is_none()
        });
        match reason {
            Some(reason) => Decision::Allow(reason),
            None if errors.is_empty() => Decision::NoOpinion(String::new()),
            None => Decision::NoOpinion(format!("RBAC: {}", aggregate(&errors))),
        }
    }

    /// Every rule of `user` in `namespace` (empty: of the cluster alone), and what is
    /// wrong with its bindings (empty when nothing is).
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, String) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, &mut errors, &mut |granted| {
            rules.push(granted.rule.clone());
            true
        });
        (rules, aggregate(&errors))
    }

    /// The rules of the role that a binding in `namespace` would bind; the reference's
    /// words where there is none.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&[Rule], String> {
        let (namespace, plural) = match role.kind.as_str() {
            "Role" => (namespace, "role"),
            "ClusterRole" => ("", "clusterrole"),
            other => {
                return Err(format!("unsupported role reference kind: {}", quote(other)));
            }
        };
        // A role of a namespace can't be bound to a user everywhere.
        let found = (role.kind == "ClusterRole" || !namespace.is_empty())
            .then(|| self.roles.get(&(namespace.to_owned(), role.name.clone())))
            .flatten();
        found
            .map(|row| row.rules.as_slice())
            .ok_or_else(|| format!("{plural}.{} {} not found", super::GROUP, quote(&role.name)))
    }

    /// Walks the rules of `user` until `each` says no.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        errors: &mut Vec<String>,
        each: &mut dyn FnMut(Granted<'_>) -> bool,
    ) {
        let scopes = [("", true), (namespace, !namespace.is_empty())];
        for scope in scopes.iter().filter(|(_, wanted)| *wanted) {
            let Some(subjects) = self.index.get(scope.0) else {
                continue;
            };
            for key in user_keys(user) {
                for bound in subjects.get(&key).into_iter().flatten() {
                    match self.rules_of(&bound.row.role_ref, &bound.namespace) {
                        Err(error) if errors.contains(&error) => {}
                        Err(error) => errors.push(error),
                        Ok(rules) => {
                            let mut subjects = bound.row.subjects.iter();
                            let Some(subject) =
                                subjects.find(|subject| subject.applies_to(user, scope.0))
                            else {
                                continue;
                            };
                            // A user found under several of its groups has the rules once.
                            if subject_key(subject, scope.0).as_ref() != Some(&key) {
                                continue;
                            }
                            for rule in rules {
                                if !each(Granted {
                                    rule,
                                    bound,
                                    subject,
                                }) {
                                    return;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Errors as the reference joins them: one alone, several in brackets.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        [] => String::new(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn subject_key(subject: &Subject, binding_namespace: &str) -> Option<SubjectKey> {
    match subject.kind.as_str() {
        "User" => Some(('u', subject.name.clone())),
        "Group" => Some(('g', subject.name.clone())),
        "ServiceAccount" => {
            let namespace = subject.account_namespace(binding_namespace);
            (!namespace.is_empty()).then(|| ('s', format!("{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

fn subject_keys(bound: &Bound) -> impl Iterator<Item = SubjectKey> + '_ {
    bound
        .row
        .subjects
        .iter()
        .filter_map(|subject| subject_key(subject, &bound.namespace))
}

/// The keys under which a user's bindings stand, each once.
fn user_keys(user: &User) -> Vec<SubjectKey> {
    let mut keys = vec![('u', user.name.clone())];
    if let Some((namespace, name)) = user.as_service_account() {
        keys.push(('s', format!("{namespace}:{name}")));
    }
    for group in &user.groups {
        let key = ('g', group.clone());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}
