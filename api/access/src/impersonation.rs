//! Acting as somebody else: who is wanted, and whether the asker may.
//!
//! Source: the reference's constrained impersonation (KEP-5284), whose last mode is
//! the original one by the verb `impersonate`.
//!
//! Invariants
//! - Every name that the wanted user would have is authorized by itself.
//! - Without one mode that allows all of it, the request ends in a refusal.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nautilus_machinery::identity::{
    ANONYMOUS, AUTHENTICATED_GROUP, MASTERS_GROUP, NODES_GROUP, UNAUTHENTICATED_GROUP, User,
};
use nautilus_machinery::status::{ApiError, quote};
use nautilus_machinery::validation::dns_subdomain;

use crate::Decision;
use crate::attributes::Attributes;

/// Header with the wanted user's name, in lower case.
pub const USER_HEADER: &str = "impersonate-user";
/// Header with one of the wanted groups.
pub const GROUP_HEADER: &str = "impersonate-group";
/// Header with the wanted uid.
pub const UID_HEADER: &str = "impersonate-uid";
/// What headers of further facts start with.
pub const EXTRA_PREFIX: &str = "impersonate-extra-";
/// So many names of a sort are first asked for as `*`.
const MANY: usize = 4;
/// The group of the kinds that names of users are checked as.
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";
/// Where a token says which node its pod runs on.
const NODE_NAME_EXTRA: &str = "authentication.kubernetes.io/node-name";

/// Who is wanted, as the headers say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The name.
    pub name: String,
    /// Empty for none.
    pub uid: String,
    /// Groups as given; nothing added.
    pub groups: Vec<String>,
    /// Further facts.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Reads the headers (names in lower case); `None` where nobody is wanted.
pub fn wanted<'a>(
    headers: impl Iterator<Item = (&'a str, Cow<'a, str>)>,
) -> Result<Option<Wanted>, ApiError> {
    let mut wanted = Wanted::default();
    for (name, value) in headers {
        match name {
            USER_HEADER if wanted.name.is_empty() => wanted.name = value.into_owned(),
            UID_HEADER if wanted.uid.is_empty() => wanted.uid = value.into_owned(),
            GROUP_HEADER => wanted.groups.push(value.into_owned()),
            _ => {
                if let Some(key) = name.strip_prefix(EXTRA_PREFIX) {
                    let values = wanted.extra.entry(unescape(key)).or_default();
                    values.push(value.into_owned());
                }
            }
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == Wanted::default() {
        return Ok(None);
    }
    Err(ApiError::bad_request(format!(
        "requested {} without impersonating a user name",
        wanted.describe()
    )))
}

impl Wanted {
    fn describe(&self) -> String {
        let list = |items: &[String]| {
            let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
            format!("[]string{{{}}}", quoted.join(", "))
        };
        let groups = match self.groups.as_slice() {
            [] => "[]string(nil)".to_owned(),
            groups => list(groups),
        };
        let extra = if self.extra.is_empty() {
            "map[string][]string(nil)".to_owned()
        } else {
            let pairs: Vec<String> = self
                .extra
                .iter()
                .map(|(key, values)| format!("{}:{}", quote(key), list(values)))
                .collect();
            format!("map[string][]string{{{}}}", pairs.join(", "))
        };
        format!(
            "&user.DefaultInfo{{Name:{}, UID:{}, Groups:{groups}, Extra:{extra}}}",
            quote(&self.name),
            quote(&self.uid)
        )
    }

    fn only_name(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }

    fn node_name(&self) -> Option<&str> {
        self.name
            .strip_prefix("system:node:")
            .filter(|name| dns_subdomain(name).is_empty())
    }
}

/// Percent-decoded; as it stands where it does not decode.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = (*first == b'%')
            .then(|| {
                tail.get(..2)
                    .and_then(|pair| std::str::from_utf8(pair).ok())
            })
            .flatten();
        match (*first, digits.map(|pair| u8::from_str_radix(pair, 16))) {
            (b'%', Some(Ok(byte))) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'%', _) => return key.to_owned(),
            (other, _) => {
                bytes.push(other);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// The ways to act as somebody, the narrowest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] = [
    Mode::AssociatedNode,
    Mode::ArbitraryNode,
    Mode::ServiceAccount,
    Mode::UserInfo,
    Mode::Legacy,
];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn applies(self, wanted: &Wanted, asker: &User) -> bool {
        let node = wanted.node_name();
        let account = as_account(&wanted.name);
        match self {
            Self::AssociatedNode => {
                let own = asker.extra.get(NODE_NAME_EXTRA).map(Vec::as_slice);
                wanted.only_name()
                    && asker.as_service_account().is_some()
                    && matches!((node, own), (Some(node), Some([own])) if own == node)
            }
            Self::ArbitraryNode => wanted.only_name() && node.is_some(),
            Self::ServiceAccount => wanted.only_name() && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

fn as_account(name: &str) -> Option<(String, String)> {
    let user = User {
        name: name.to_owned(),
        ..User::default()
    };
    user.as_service_account()
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}

/// The user that `asker` acts as for the request `asked`, where some mode allows it;
/// else the first refusal. `authorize` answers for the asker.
pub fn impersonate(
    wanted: &Wanted,
    asker: &User,
    asked: &Attributes,
    authorize: &dyn Fn(&User, &Attributes) -> Decision,
) -> Result<User, ApiError> {
    let mut first = None;
    for mode in MODES.into_iter().filter(|mode| mode.applies(wanted, asker)) {
        let attempt = Attempt {
            mode,
            asker,
            authorize,
        };
        match attempt.run(wanted, asked) {
            Ok(user) => return Ok(user),
            Err(refusal) => {
                first.get_or_insert(refusal);
            }
        }
    }
    Err(first.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

struct Attempt<'a> {
    mode: Mode,
    asker: &'a User,
    authorize: &'a dyn Fn(&User, &Attributes) -> Decision,
}

impl Attempt<'_> {
    fn constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    fn run(&self, wanted: &Wanted, asked: &Attributes) -> Result<User, ApiError> {
        if self.constrained() {
            self.check(&Attributes {
                verb: format!("impersonate-on:{}:{}", self.mode.name(), asked.verb),
                ..asked.clone()
            })?;
        }
        let mut user = User {
            name: wanted.name.clone(),
            uid: wanted.uid.clone(),
            groups: wanted.groups.clone(),
            extra: wanted.extra.clone(),
        };
        self.check_name(wanted, &mut user)?;
        if !wanted.uid.is_empty() {
            self.check(&self.named(AUTHENTICATION_GROUP, "uids", &wanted.uid))?;
        }
        self.check_groups(&wanted.groups)?;
        self.check_extra(&wanted.extra)?;
        let of_all = if user.name == ANONYMOUS {
            UNAUTHENTICATED_GROUP
        } else {
            AUTHENTICATED_GROUP
        };
        if !user.in_group(UNAUTHENTICATED_GROUP) && !user.in_group(of_all) {
            user.groups.push(of_all.to_owned());
        }
        Ok(user)
    }

    fn check(&self, attributes: &Attributes) -> Result<(), ApiError> {
        match (self.authorize)(self.asker, attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(attributes.forbidden(self.asker, &reason)),
        }
    }

    fn named(&self, group: &str, resource: &str, name: &str) -> Attributes {
        let verb = if self.constrained() {
            format!("impersonate:{}", self.mode.name())
        } else {
            "impersonate".to_owned()
        };
        Attributes {
            verb,
            is_resource: true,
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        }
    }

    /// Names of users and groups stood in the core group before modes came.
    fn name_group(&self) -> &'static str {
        if self.constrained() {
            AUTHENTICATION_GROUP
        } else {
            ""
        }
    }

    fn check_name(&self, wanted: &Wanted, user: &mut User) -> Result<(), ApiError> {
        let mut attributes = self.named(self.name_group(), "users", &wanted.name);
        if let Some(node) = wanted.node_name().filter(|_| self.constrained()) {
            "nodes".clone_into(&mut attributes.resource);
            // Whoever may act as its own node may do so on every node.
            attributes.name = if self.mode == Mode::AssociatedNode {
                "*".to_owned()
            } else {
                node.to_owned()
            };
            user.groups = vec![NODES_GROUP.to_owned()];
        } else if let Some((namespace, name)) = as_account(&wanted.name) {
            if wanted.groups.is_empty() {
                user.groups = User::service_account(&namespace, &name, "").groups;
                user.groups.retain(|group| group != AUTHENTICATED_GROUP);
            }
            "serviceaccounts".clone_into(&mut attributes.resource);
            attributes.namespace = namespace;
            attributes.name = name;
        }
        self.check(&attributes)
    }

    fn check_groups(&self, groups: &[String]) -> Result<(), ApiError> {
        let attributes = |name: &str| self.named(self.name_group(), "groups", name);
        if self.constrained() {
            let refuse = |name: &str, why: &str| Err(attributes(name).forbidden(self.asker, why));
            if groups.iter().any(String::is_empty) {
                return refuse("", "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|group| group == MASTERS_GROUP) {
                let why = "impersonating the system:masters group is not allowed";
                return refuse(MASTERS_GROUP, why);
            }
            if groups.len() >= MANY && self.check(&attributes("*")).is_ok() {
                return Ok(());
            }
        }
        groups
            .iter()
            .try_for_each(|group| self.check(&attributes(group)))
    }

    fn check_extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), ApiError> {
        let attributes = |key: &str, value: &str| Attributes {
            subresource: key.to_owned(),
            ..self.named(AUTHENTICATION_GROUP, "userextras", value)
        };
        if self.constrained() {
            if let Some(why) = extra.iter().find_map(bad_extra) {
                return Err(attributes("", "").forbidden(self.asker, &why));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            if count.max(extra.len()) >= MANY && self.check(&attributes("*", "*")).is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.check(&attributes(key, value))?;
            }
        }
        Ok(())
    }
}

fn bad_extra((key, values): (&String, &Vec<String>)) -> Option<String> {
    let why = if key.is_empty() {
        "impersonating the empty string key in extra is not allowed".to_owned()
    } else if !is_domain_prefixed_path(key) {
        format!(
            "impersonating an invalid key in extra is not allowed: {}",
            quote(key)
        )
    } else if key.to_lowercase() != *key {
        format!(
            "impersonating a non-lowercase key in extra is not allowed: {}",
            quote(key)
        )
    } else if values.iter().any(String::is_empty) {
        "impersonating the empty string value in extra is not allowed".to_owned()
    } else {
        return None;
    };
    Some(why)
}

/// As `example.com/some/path`.
fn is_domain_prefixed_path(key: &str) -> bool {
    let path = |path: &str| {
        !path.is_empty()
            && path
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c))
    };
    key.split_once('/')
        .is_some_and(|(domain, rest)| dns_subdomain(domain).is_empty() && path(rest))
}
