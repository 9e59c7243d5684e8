//! Flow schemas and priority levels as they are configured, and which of them a request
//! belongs to.

use std::sync::Arc;

use nautilus_machinery::identity::User;
use serde_json::Value;

use super::defaults;
use crate::values::{items, text};

/// Queues of one level, at most; more are taken for so many.
const MAX_QUEUES: usize = 4096;
/// Requests of one queue, at most.
const MAX_QUEUE_LENGTH: usize = 10_000;
/// Queues of one flow, at most.
const MAX_HAND: usize = 10;

/// What a request is classified by.
#[derive(Debug, Clone, Copy)]
pub struct Digest<'a> {
    /// Who asks.
    pub user: &'a User,
    /// As `list`.
    pub verb: &'a str,
    /// What it is about.
    pub about: About<'a>,
}

/// A resource, or a path that is none.
#[derive(Debug, Clone, Copy)]
pub enum About<'a> {
    /// Objects of a kind.
    Resource {
        /// API group.
        group: &'a str,
        /// Plural, with the subresource: `pods/status`.
        resource: &'a str,
        /// Empty for none.
        namespace: &'a str,
    },
    /// As `/healthz`.
    Path(&'a str),
}

/// How a level queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queuing {
    /// How many queues.
    pub queues: usize,
    /// How many of them a flow may use.
    pub hand_size: usize,
    /// How many requests one holds.
    pub length_limit: usize,
}

/// A PriorityLevelConfiguration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriorityLevel {
    /// Its name.
    pub name: Arc<str>,
    /// Its uid; empty for a built-in one that is not stored.
    pub uid: Arc<str>,
    /// Whether it is not limited.
    pub exempt: bool,
    /// Its shares of the server's seats.
    pub shares: u64,
    /// Percent of its seats that it lends.
    pub lendable_percent: u64,
    /// Percent of its seats that it may borrow on top; `None`: whatever there is.
    pub borrowing_limit_percent: Option<u64>,
    /// `None`: it rejects what can't run at once.
    pub queuing: Option<Queuing>,
}

impl PriorityLevel {
    /// Reads a stored object.
    pub fn of(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let exempt = object["spec"]["type"] == "Exempt";
        let spec = &object["spec"][if exempt { "exempt" } else { "limited" }];
        let size = |value: &Value, default: usize, most: usize| {
            let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
            size.unwrap_or(default).clamp(1, most)
        };
        let queuing = &spec["limitResponse"]["queuing"];
        let queues = size(&queuing["queues"], 64, MAX_QUEUES);
        Self {
            name: text(&metadata["name"]).into(),
            uid: text(&metadata["uid"]).into(),
            exempt,
            shares: spec["nominalConcurrencyShares"]
                .as_u64()
                .unwrap_or(if exempt { 0 } else { 30 }),
            lendable_percent: spec["lendablePercent"].as_u64().unwrap_or(0),
            borrowing_limit_percent: spec["borrowingLimitPercent"].as_u64(),
            queuing: (!exempt && spec["limitResponse"]["type"] == "Queue").then(|| Queuing {
                queues,
                hand_size: size(&queuing["handSize"], 8, MAX_HAND).min(queues),
                length_limit: size(&queuing["queueLengthLimit"], 50, MAX_QUEUE_LENGTH),
            }),
        }
    }
}

/// What tells the flows of a schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// A FlowSchema.
#[derive(Debug, Clone)]
pub struct FlowSchema {
    name: Arc<str>,
    uid: Arc<str>,
    level: Arc<str>,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug, Clone)]
enum Subject {
    User(String),
    Group(String),
    /// `system:serviceaccount:NAMESPACE:`, and the name; empty for any.
    Account(String, String),
}

#[derive(Debug, Clone)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Debug, Clone)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

fn texts(value: &Value) -> Vec<String> {
    items(value).map(|item| text(item).to_owned()).collect()
}

/// Whether the list holds the text, or is the wildcard alone.
fn holds(list: &[String], wanted: &str) -> bool {
    matches!(list, [only] if only == "*") || list.iter().any(|own| own == wanted)
}

impl FlowSchema {
    /// Reads a stored object.
    pub fn of(object: &Value) -> Self {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        Self {
            name: text(&metadata["name"]).into(),
            uid: text(&metadata["uid"]).into(),
            level: text(&spec["priorityLevelConfiguration"]["name"]).into(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            distinguisher: match text(&spec["distinguisherMethod"]["type"]) {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: items(&spec["rules"]).map(Rule::of).collect(),
        }
    }

    fn matches(&self, digest: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(digest))
    }
}

impl Rule {
    fn of(value: &Value) -> Self {
        Self {
            subjects: items(&value["subjects"]).filter_map(Subject::of).collect(),
            resources: items(&value["resourceRules"])
                .map(|rule| ResourceRule {
                    verbs: texts(&rule["verbs"]),
                    groups: texts(&rule["apiGroups"]),
                    resources: texts(&rule["resources"]),
                    namespaces: texts(&rule["namespaces"]),
                    cluster_scope: rule["clusterScope"] == true,
                })
                .collect(),
            paths: items(&value["nonResourceRules"])
                .map(|rule| PathRule {
                    verbs: texts(&rule["verbs"]),
                    paths: texts(&rule["nonResourceURLs"]),
                })
                .collect(),
        }
    }

    fn matches(&self, digest: &Digest<'_>) -> bool {
        if !self.subjects.iter().any(|own| own.matches(digest.user)) {
            return false;
        }
        match digest.about {
            About::Resource {
                group,
                resource,
                namespace,
            } => self.resources.iter().any(|rule| {
                holds(&rule.verbs, digest.verb)
                    && holds(&rule.resources, resource)
                    && holds(&rule.groups, group)
                    && match namespace {
                        "" => rule.cluster_scope,
                        namespace => holds(&rule.namespaces, namespace),
                    }
            }),
            About::Path(path) => self.paths.iter().any(|rule| {
                holds(&rule.verbs, digest.verb)
                    && rule.paths.iter().any(|own| path_matches(own, path))
            }),
        }
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    if rule == "*" || rule == path {
        return true;
    }
    let prefix = rule.strip_suffix('*').unwrap_or(rule);
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl Subject {
    fn of(value: &Value) -> Option<Self> {
        Some(match text(&value["kind"]) {
            "User" => Self::User(value["user"]["name"].as_str()?.to_owned()),
            "Group" => Self::Group(value["group"]["name"].as_str()?.to_owned()),
            "ServiceAccount" => {
                let account = &value["serviceAccount"];
                let namespace = account["namespace"].as_str()?;
                let name = account["name"].as_str()?;
                let prefix = format!("system:serviceaccount:{namespace}:");
                let name = if name == "*" { "" } else { name };
                Self::Account(prefix, name.to_owned())
            }
            _ => return None,
        })
    }

    fn matches(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.in_group(name),
            Self::Account(prefix, name) => user
                .name
                .strip_prefix(prefix.as_str())
                .is_some_and(|own| name.is_empty() || own == name),
        }
    }
}

/// A flow: which schema, and by what its requests are told from others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The schema's name.
    pub schema: Arc<str>,
    /// The schema's uid.
    pub schema_uid: Arc<str>,
    /// The flow's hash, even over its values.
    pub hash: u64,
}

/// Where a request belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// Its flow.
    pub flow: Flow,
    /// Its level's name.
    pub level: Arc<str>,
    /// Its level's uid.
    pub level_uid: Arc<str>,
    /// Whether the level is not limited.
    pub exempt: bool,
}

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Schemas {
    schemas: Vec<FlowSchema>,
    levels: Vec<PriorityLevel>,
}

impl Schemas {
    /// The stored schemas and levels. The mandatory ones are there even where they are
    /// not stored; a schema without its level does not count.
    pub fn new(schemas: Vec<FlowSchema>, levels: Vec<PriorityLevel>) -> Self {
        let (mut schemas, mut levels) = (schemas, levels);
        for (name, object) in defaults::mandatory_levels() {
            if !levels.iter().any(|level| *level.name == *name) {
                levels.push(PriorityLevel::of(&object));
            }
        }
        for (name, object) in defaults::mandatory_schemas() {
            if !schemas.iter().any(|schema| *schema.name == *name) {
                schemas.push(FlowSchema::of(&object));
            }
        }
        schemas.retain(|schema| levels.iter().any(|level| level.name == schema.level));
        schemas.sort_by(|a, b| a.precedence.cmp(&b.precedence).then(a.name.cmp(&b.name)));
        Self { schemas, levels }
    }

    /// What holds before anything was read.
    pub fn built_in() -> Self {
        let schemas = defaults::suggested_schemas();
        let levels = defaults::suggested_levels();
        Self::new(
            schemas.iter().map(|(_, o)| FlowSchema::of(o)).collect(),
            levels.iter().map(|(_, o)| PriorityLevel::of(o)).collect(),
        )
    }

    /// The levels.
    pub fn levels(&self) -> &[PriorityLevel] {
        &self.levels
    }

    /// Where a request belongs: to the schema of the lowest precedence that matches;
    /// `None` only for a user in no group at all.
    pub fn classify(&self, digest: &Digest<'_>) -> Option<Classified> {
        let schema = self.schemas.iter().find(|schema| schema.matches(digest))?;
        let level = self
            .levels
            .iter()
            .find(|level| level.name == schema.level)?;
        let distinguisher = match (schema.distinguisher, digest.about) {
            (Distinguisher::User, _) => digest.user.name.as_str(),
            (Distinguisher::Namespace, About::Resource { namespace, .. }) => namespace,
            _ => "",
        };
        Some(Classified {
            flow: Flow {
                schema: schema.name.clone(),
                schema_uid: schema.uid.clone(),
                hash: hash(&schema.name, distinguisher),
            },
            level: level.name.clone(),
            level_uid: level.uid.clone(),
            exempt: level.exempt,
        })
    }
}

/// FNV-1a with a final mix (splitmix64), so that every bit counts when a hand is dealt.
fn hash(schema: &str, distinguisher: &str) -> u64 {
    let bytes = schema.bytes().chain([0]).chain(distinguisher.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
