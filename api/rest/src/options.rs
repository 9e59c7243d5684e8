//! The query parameters of resource requests, parsed once into checked types.
//!
//! Source of the rules: the option types of `meta.k8s.io` v1 (ListOptions,
//! CreateOptions, UpdateOptions, PatchOptions, DeleteOptions) and the documented
//! semantics of resourceVersion and resourceVersionMatch.

use std::time::Duration;

use http::Uri;
use nautilus_machinery::fields::FieldValidation;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::selector::{FieldSelector, LabelSelector};
use nautilus_machinery::status::{ApiError, Cause, quote};

use crate::route::{query_pairs, truth};

/// Bytes of a `fieldManager`, at most.
const MAX_MANAGER_BYTES: usize = 128;

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Unset,
    Exact,
    NotOlderThan,
}

/// `resourceVersion` of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Not given: the newest, linearizably.
    Newest,
    /// `0`: whatever this node has.
    Any,
    /// This revision.
    At(u64),
}

/// What a list or watch asks for.
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) version: Version,
    pub(crate) version_match: VersionMatch,
    pub(crate) limit: Option<u64>,
    pub(crate) continue_token: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) allow_bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Parses the query of a list (`watch` false) or a watch.
    pub(crate) fn parse(uri: &Uri, resource: &Resource, watch: bool) -> Result<Self, ApiError> {
        let query = Query::of(uri);
        let labels = LabelSelector::parse(query.text("labelSelector").unwrap_or_default())?;
        let fields =
            FieldSelector::parse(resource, query.text("fieldSelector").unwrap_or_default())?;
        let version = parse_version(query.text("resourceVersion"))?;
        let options = Self {
            labels,
            fields,
            version,
            version_match: parse_match(query.text("resourceVersionMatch"))?,
            limit: query.positive("limit")?,
            continue_token: query.text("continue").map(str::to_owned),
            timeout: query.positive("timeoutSeconds")?.map(Duration::from_secs),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.text("sendInitialEvents").map(truth),
        };
        options.check(watch)?;
        Ok(options)
    }

    /// Narrows a watch of a collection to one object, for `GET .../NAME?watch=true`.
    pub(crate) fn restrict_to(&mut self, resource: &Resource, name: &str) -> Result<(), ApiError> {
        match self.fields.exact_name() {
            Some(selected) if selected == name => Ok(()),
            None if self.fields.is_empty() => {
                self.fields = FieldSelector::parse(resource, &format!("metadata.name={name}"))?;
                Ok(())
            }
            _ => Err(ApiError::bad_request(
                "field selectors other than metadata.name are not allowed on one object",
            )),
        }
    }

    fn check(&self, watch: bool) -> Result<(), ApiError> {
        let forbidden = |field: &str, why: &str| {
            let message = format!("Forbidden: {why}");
            Err(invalid_option(
                "ListOptions",
                field,
                "FieldValueForbidden",
                &message,
            ))
        };
        if watch {
            return match (self.send_initial_events, self.version_match) {
                (Some(_), VersionMatch::NotOlderThan) | (None, VersionMatch::Unset) => Ok(()),
                (Some(_), _) => forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                (None, _) => forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ),
            };
        }
        if self.send_initial_events.is_some() {
            return forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        if self.version_match != VersionMatch::Unset {
            if self.version == Version::Newest {
                return forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            if self.continue_token.is_some() {
                return forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                );
            }
            if self.version_match == VersionMatch::Exact && self.version == Version::Any {
                return forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
        }
        Ok(())
    }
}

/// What a write asks for.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    /// As asked for, or of the user agent.
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    /// Whether an apply takes what others own.
    pub(crate) force: Option<bool>,
    /// Whether the request itself names its manager.
    names_manager: bool,
}

impl WriteOptions {
    /// Parses the query of a create, update, patch or delete.
    pub(crate) fn parse(uri: &Uri, user_agent: &str) -> Result<Self, ApiError> {
        let query = Query::of(uri);
        let field_validation =
            FieldValidation::parse(query.text("fieldValidation").unwrap_or_default())?;
        let asked = query.text("fieldManager");
        let field_manager = match asked {
            Some(manager) => check_manager(manager)?,
            None => manager_of(user_agent),
        };
        let dry_runs: Vec<&str> = query.all("dryRun").collect();
        Ok(Self {
            dry_run: parse_dry_run(&dry_runs)?,
            field_manager,
            field_validation,
            force: query.text("force").map(truth),
            names_manager: asked.is_some(),
        })
    }

    /// What an apply must say, and no other patch may.
    pub(crate) fn check_patch(&self, is_apply: bool) -> Result<(), ApiError> {
        let wrong =
            |field, reason, message| Err(invalid_option("PatchOptions", field, reason, message));
        match (is_apply, self.names_manager, self.force) {
            (true, false, _) => wrong(
                "fieldManager",
                "FieldValueRequired",
                "Required value: is required for apply patch",
            ),
            (false, _, Some(_)) => wrong(
                "force",
                "FieldValueForbidden",
                "Forbidden: may not be specified for non-apply patch",
            ),
            _ => Ok(()),
        }
    }
}

fn check_manager(manager: &str) -> Result<String, ApiError> {
    let wrong = |reason, message: &str| {
        Err(invalid_option(
            "PatchOptions",
            "fieldManager",
            reason,
            message,
        ))
    };
    if manager.len() > MAX_MANAGER_BYTES {
        let message = format!("Too long: may not be more than {MAX_MANAGER_BYTES} bytes");
        return wrong("FieldValueTooLong", &message);
    }
    match manager
        .char_indices()
        .find(|(_, letter)| letter.is_control())
    {
        None => Ok(manager.to_owned()),
        Some((at, letter)) => wrong(
            "FieldValueInvalid",
            &format!(
                "Invalid value: {manager:?}: invalid character U+{:04X} (at position {at})",
                u32::from(letter)
            ),
        ),
    }
}

/// The program's name of a user agent: what can be printed of it before the first slash.
fn manager_of(user_agent: &str) -> String {
    let mut manager = String::new();
    let name = user_agent.split('/').next().unwrap_or_default();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if manager.len() + letter.len_utf8() > MAX_MANAGER_BYTES {
            break;
        }
        manager.push(letter);
    }
    manager
}

/// `dryRun`: nothing, or `All`.
pub(crate) fn parse_dry_run(values: &[&str]) -> Result<bool, ApiError> {
    match values
        .iter()
        .find(|value| !value.is_empty() && **value != "All")
    {
        Some(other) => Err(invalid_option(
            "CreateOptions",
            "dryRun",
            "FieldValueNotSupported",
            &format!("Unsupported value: \"{other}\": supported values: \"All\""),
        )),
        None => Ok(values.contains(&"All")),
    }
}

/// A decoded query string.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Self {
        Self(query_pairs(uri))
    }

    /// A parameter that is there and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(key, value)| key == name && truth(value))
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.text(name).map(integer).transpose()
    }

    /// A number above zero; any other counts as none.
    pub(crate) fn positive(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let number = self.number(name)?;
        Ok(number.and_then(|number| u64::try_from(number).ok().filter(|number| *number > 0)))
    }
}

/// A parameter that is a whole number; refused in the reference's words.
pub(crate) fn integer(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        let text = quote(text);
        ApiError::bad_request(format!("strconv.ParseInt: parsing {text}: {why}"))
    })
}

/// Reads a resourceVersion of a read.
pub(crate) fn parse_version(text: Option<&str>) -> Result<Version, ApiError> {
    match text {
        None => Ok(Version::Newest),
        Some("0") => Ok(Version::Any),
        Some(text) => text.parse().map(Version::At).map_err(|_| {
            let text = quote(text);
            ApiError::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {text}: \
                 strconv.ParseUint: parsing {text}: invalid syntax"
            ))
        }),
    }
}

fn parse_match(text: Option<&str>) -> Result<VersionMatch, ApiError> {
    match text {
        None => Ok(VersionMatch::Unset),
        Some("Exact") => Ok(VersionMatch::Exact),
        Some("NotOlderThan") => Ok(VersionMatch::NotOlderThan),
        Some(other) => Err(invalid_option(
            "ListOptions",
            "resourceVersionMatch",
            "FieldValueNotSupported",
            &format!(
                "Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            ),
        )),
    }
}

/// 422 in the reference's words: one option breaks a rule.
fn invalid_option(kind: &str, field: &str, reason: &str, message: &str) -> ApiError {
    let cause = Cause {
        field: field.into(),
        reason: reason.into(),
        message: message.into(),
    };
    ApiError::invalid_options(kind, vec![cause])
}
