//! Nobody gives away more than they have: what a writer of roles and bindings must
//! hold, or be allowed in so many words (`escalate`, `bind`).

use nautilus_machinery::identity::User;
use nautilus_machinery::status::{ApiError, quote};
use serde_json::Value;

use super::covers::{compact, covers};
use super::policy::{BindingRow, Policy, RoleRow};
use super::rule::{Rule, quoted_list};
use crate::attributes::Attributes;

/// What is written: a role or a binding, of a namespace or of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Guarded<'a> {
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`.
    pub plural: &'a str,
    /// Of the request; empty for the cluster's.
    pub namespace: &'a str,
    /// Of the request; empty for a creation.
    pub request_name: &'a str,
}

/// What decides about a binding.
pub type BindingCheck<'a> = &'a dyn Fn(&Attributes) -> bool;

/// Whether only what a garbage collector changes differs: owners and finalizers.
fn changes_owners_only(new: &Value, old: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in [
                "ownerReferences",
                "finalizers",
                "managedFields",
                "resourceVersion",
            ] {
                metadata.shift_remove(field);
            }
        }
        object
    };
    stripped(new) == stripped(old)
}

/// A role is written: `new` over `old`. `allowed` answers for the writer, whatever
/// authorizer says so.
pub fn check_role(
    policy: &Policy,
    user: &User,
    guarded: Guarded<'_>,
    new: &Value,
    old: Option<&Value>,
    allowed: BindingCheck<'_>,
) -> Result<(), ApiError> {
    let escalate = Attributes {
        verb: "escalate".to_owned(),
        is_resource: true,
        group: super::GROUP.to_owned(),
        version: "*".to_owned(),
        resource: guarded.plural.to_owned(),
        namespace: guarded.namespace.to_owned(),
        name: guarded.request_name.to_owned(),
        ..Attributes::default()
    };
    if user.is_master() || allowed(&escalate) {
        return Ok(());
    }
    if old.is_some_and(|old| changes_owners_only(new, old)) {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |why: &str| ApiError::forbidden_on(super::GROUP, guarded.plural, name, why);
    let rules = RoleRow::read(new).map_err(ApiError::bad_request)?.rules;
    confirm(policy, user, guarded.namespace, &rules).map_err(|why| refuse(&why))?;
    let gathers = |object: &Value| {
        object["aggregationRule"]["clusterRoleSelectors"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    };
    if gathers(new) || old.is_some_and(gathers) {
        confirm(policy, user, guarded.namespace, &full_authority())
            .map_err(|_| refuse("must have cluster-admin privileges to use the aggregationRule"))?;
    }
    Ok(())
}

/// A binding is written.
pub fn check_binding(
    policy: &Policy,
    user: &User,
    guarded: Guarded<'_>,
    new: &Value,
    old: Option<&Value>,
    allowed: BindingCheck<'_>,
) -> Result<(), ApiError> {
    if user.is_master() || old.is_some_and(|old| changes_owners_only(new, old)) {
        return Ok(());
    }
    let binding = BindingRow::read(new).map_err(ApiError::bad_request)?;
    let role = &binding.role_ref;
    let plural = match role.kind.as_str() {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        // Validation refuses it, in its own words.
        _ => return Ok(()),
    };
    let bind = Attributes {
        verb: "bind".to_owned(),
        is_resource: true,
        group: role.api_group.clone(),
        version: "*".to_owned(),
        resource: plural.to_owned(),
        namespace: guarded.namespace.to_owned(),
        name: role.name.clone(),
        ..Attributes::default()
    };
    if allowed(&bind) {
        return Ok(());
    }
    let rules = policy.rules_of(role, guarded.namespace).map_err(|_| {
        ApiError::not_found_on(super::GROUP, plural.trim_end_matches('s'), &role.name)
    })?;
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    confirm(policy, user, guarded.namespace, rules)
        .map_err(|why| ApiError::forbidden_on(super::GROUP, guarded.plural, name, &why))
}

fn full_authority() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Rule::default()
        },
    ]
}

/// Whether `user` has what `rules` give; in words what is missing.
fn confirm(policy: &Policy, user: &User, namespace: &str, rules: &[Rule]) -> Result<(), String> {
    let (owned, errors) = policy.rules_for(user, namespace);
    let missing = covers(&owned, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = compact(missing).iter().map(Rule::describe).collect();
    lines.sort();
    lines.dedup();
    let mut why = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        quoted_list(&user.groups),
        lines.join("\n")
    );
    if !errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{errors}]"));
    }
    Err(why)
}
