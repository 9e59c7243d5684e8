//! One rule of a role, and the names in bindings.

use nautilus_machinery::identity::User;
use nautilus_machinery::status::quote;
use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;

/// What stands for everything.
const ALL: &str = "*";

/// A rule: verbs on resources of groups, or on paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// As `get`; `*` for all.
    pub verbs: Vec<String>,
    /// API groups; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// As `pods`, `pods/status`, `*/scale`, `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The names it is limited to; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths; a `*` at the end stands for any rest.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// The role a binding binds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    /// Always [`super::GROUP`] in what was validated.
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The role's name.
    pub name: String,
}

/// Whom a binding binds to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// Empty for service accounts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// The name.
    pub name: String,
    /// A service account's; the binding's own when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == wanted)
}

fn all_or(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == ALL || own == wanted)
}

impl Rule {
    /// Whether the rule allows the request.
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !all_or(&self.verbs, &asked.verb) {
            return false;
        }
        if asked.is_resource {
            all_or(&self.api_groups, &asked.group)
                && self.names_resource(&asked.resource, &asked.subresource)
                && (self.resource_names.is_empty() || has(&self.resource_names, &asked.name))
        } else {
            self.non_resource_urls
                .iter()
                .any(|own| url_covers(own, &asked.path))
        }
    }

    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|own| {
            if own == ALL {
                return true;
            }
            if subresource.is_empty() {
                return own == resource;
            }
            own.split_once('/')
                .is_some_and(|(of, sub)| sub == subresource && (of == resource || of == ALL))
        })
    }

    /// The rule on one line, as refusals show it.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted_list(list)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// `["a" "b"]`, as the reference's messages show lists.
pub(super) fn quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Whether a rule's path stands for `path`.
pub(super) fn url_covers(own: &str, path: &str) -> bool {
    own == path || (own.ends_with('*') && path.starts_with(own.trim_end_matches('*')))
}

impl Subject {
    /// Whether it stands for `user`, in a binding of `namespace` (empty for none).
    pub fn applies_to(&self, user: &User, namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => user.name == self.name,
            "Group" => user.in_group(&self.name),
            "ServiceAccount" => {
                let namespace = self.account_namespace(namespace);
                !namespace.is_empty()
                    && user.as_service_account() == Some((namespace, self.name.as_str()))
            }
            _ => false,
        }
    }

    pub(super) fn account_namespace<'a>(&'a self, binding_namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() {
            binding_namespace
        } else {
            &self.namespace
        }
    }

    pub(super) fn describe(&self, binding_namespace: &str) -> String {
        match self.kind.as_str() {
            kind @ "ServiceAccount" => {
                let namespace = self.account_namespace(binding_namespace);
                format!("{kind} {}", quote(&format!("{}/{namespace}", self.name)))
            }
            kind => format!("{kind} {}", quote(&self.name)),
        }
    }
}
