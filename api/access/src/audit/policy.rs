//! A policy: the first rule that a request matches says how much of it is recorded.

use nautilus_machinery::identity::User;
use nautilus_machinery::validation::dns_subdomain;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::attributes::Attributes;

/// How much of a request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who asked for what, and how it ended.
    Metadata,
    /// The request's body besides.
    Request,
    /// The answer's body besides.
    RequestResponse,
}

impl Level {
    /// As events write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// Before anything is done.
    RequestReceived,
    /// Once a long answer has begun.
    ResponseStarted,
    /// Once the answer is complete.
    ResponseComplete,
    /// Never made here: a panic ends the connection, not the record.
    Panic,
}

impl Stage {
    /// As events write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What is recorded of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// How much.
    pub level: Level,
    /// When not.
    pub omit_stages: Vec<Stage>,
    /// Whether bodies are recorded without `managedFields`.
    pub omit_managed_fields: bool,
}

/// A checked policy.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    /// May be there, and means nothing.
    #[serde(default, rename = "metadata")]
    _metadata: IgnoredAny,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads and checks a policy's document.
    pub fn read(document: serde_json::Value) -> Result<Self, String> {
        let document: Document =
            serde_json::from_value(document).map_err(|error| error.to_string())?;
        if document.api_version != "audit.k8s.io/v1" || document.kind != "Policy" {
            return Err(format!(
                "{} {} is no audit.k8s.io/v1 Policy",
                document.api_version, document.kind
            ));
        }
        if document.rules.is_empty() {
            return Err("the policy has no rules, and records nothing".to_owned());
        }
        for (at, rule) in document.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{at}]{why}"))?;
        }
        Ok(Self {
            rules: document.rules,
            omit_stages: document.omit_stages,
            omit_managed_fields: document.omit_managed_fields,
        })
    }

    /// What is recorded of a request.
    pub fn judge(&self, user: &User, asked: &Attributes) -> Recorded {
        let rule = self.rules.iter().find(|rule| rule.matches(user, asked));
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(
            rule.iter()
                .flat_map(|rule| rule.omit_stages.iter().copied()),
        );
        Recorded {
            level: rule.map_or(Level::None, |rule| rule.level),
            omit_stages,
            omit_managed_fields: rule
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

fn any_or(list: &[String], wanted: &str) -> bool {
    list.is_empty() || list.iter().any(|own| own == wanted)
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        for url in &self.non_resource_urls {
            if url == "*" {
                continue;
            }
            if !url.starts_with('/') {
                return Err(format!(
                    ".nonResourceURLs: {url:?}: non-resource URL rules must begin with a '/' \
                     character"
                ));
            }
            if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
                return Err(format!(
                    ".nonResourceURLs: {url:?}: non-resource URL wildcards '*' must be the final \
                     character of the rule"
                ));
            }
        }
        let of_kinds = !(self.resources.is_empty() && self.namespaces.is_empty());
        if of_kinds && !self.non_resource_urls.is_empty() {
            return Err(
                ".nonResourceURLs: rules cannot apply to both regular resources and non-resource \
                 URLs"
                    .to_owned(),
            );
        }
        for resources in &self.resources {
            let group = resources.group.as_str();
            if !group.is_empty() && group != "*" && !dns_subdomain(group).is_empty() {
                return Err(format!(".resources.group: {group:?} is no name of a group"));
            }
            if !resources.resource_names.is_empty() && resources.resources.is_empty() {
                return Err(
                    ".resources.resourceNames: using resourceNames requires at least one resource"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    fn matches(&self, user: &User, asked: &Attributes) -> bool {
        let in_group = self.user_groups.is_empty()
            || self.user_groups.iter().any(|group| user.in_group(group));
        if !any_or(&self.users, &user.name) || !in_group || !any_or(&self.verbs, &asked.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return asked.is_resource
                && any_or(&self.namespaces, &asked.namespace)
                && (self.resources.is_empty()
                    || self.resources.iter().any(|own| own.matches(asked)));
        }
        self.non_resource_urls.is_empty()
            || (!asked.is_resource
                && self.non_resource_urls.iter().any(|url| {
                    url == "*"
                        || *url == asked.path
                        || url
                            .strip_suffix('*')
                            .is_some_and(|prefix| asked.path.starts_with(prefix))
                }))
    }
}

impl Resources {
    fn matches(&self, asked: &Attributes) -> bool {
        if self.group != "*" && self.group != asked.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !any_or(&self.resource_names, &asked.name) {
            return false;
        }
        let combined = asked.combined_resource();
        self.resources.iter().any(|own| {
            let of_any = own
                .strip_prefix("*/")
                .is_some_and(|sub| !asked.subresource.is_empty() && sub == asked.subresource);
            let any_of = own
                .strip_suffix("/*")
                .is_some_and(|resource| resource == asked.resource);
            own == "*" || *own == combined || of_any || any_of
        })
    }
}
