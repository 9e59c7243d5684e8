//! The document, checked: field paths and messages are the reference's.

use std::collections::BTreeSet;

use nautilus_cel::{Declaration, Environment, Field, Program, Type};
use nautilus_machinery::status::Cause;
use nautilus_machinery::validation::Errors;
use serde::Deserialize;
use serde_json::{Value, json};

/// Issuers, at most; the reference's bound.
const MAX_ISSUERS: usize = 64;

/// A checked configuration.
#[derive(Debug, Default)]
pub struct Configuration {
    /// One for each issuer.
    pub authenticators: Vec<Authenticator>,
    /// Whether requests without credentials go on.
    pub anonymous: Anonymous,
}

/// Which requests may come without a credential.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Anonymous {
    /// All.
    #[default]
    Everywhere,
    /// To these paths.
    On(Vec<String>),
    /// None.
    Nowhere,
}

impl Anonymous {
    /// Whether a request to that path may.
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::On(paths) => paths.iter().any(|own| own == path),
            Self::Nowhere => false,
        }
    }
}

/// One issuer, and what its claims mean.
#[derive(Debug)]
pub struct Authenticator {
    /// The issuer, as tokens name it.
    pub issuer: String,
    /// Where its discovery document is, if not under the issuer.
    pub discovery_url: Option<String>,
    /// The authorities that its server is known by, PEM; the public ones when empty.
    pub certificate_authority: String,
    pub(super) audiences: Vec<String>,
    pub(super) username: Mapped,
    pub(super) groups: Option<Mapped>,
    pub(super) uid: Option<Mapped>,
    pub(super) extra: Vec<(String, Program)>,
    pub(super) required: Vec<(String, String)>,
    pub(super) claim_rules: Vec<(Program, String)>,
    pub(super) user_rules: Vec<(Program, String)>,
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Mapped {
    /// A claim, with a prefix.
    Claim(String, String),
    /// An expression over the claims.
    Expression(Program),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Entry>,
    #[serde(default)]
    anonymous: Option<AnonymousEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousEntry {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    #[serde(default)]
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<UserRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Issuer {
    #[serde(default)]
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: Option<String>,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct ClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct UserRule {
    expression: String,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Mappings {
    username: Mapping,
    groups: Mapping,
    uid: Mapping,
    extra: Vec<Extra>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Mapping {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Extra {
    key: String,
    value_expression: String,
}

impl Configuration {
    /// Reads and checks a document. `own_issuers` are the API server's own, which nobody
    /// else may claim to be.
    pub fn read(document: Value, own_issuers: &[String]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_value(document).map_err(|error| error.to_string())?;
        let known = ["v1", "v1beta1"]
            .iter()
            .any(|version| document.api_version == format!("apiserver.config.k8s.io/{version}"));
        if !known || document.kind != "AuthenticationConfiguration" {
            return Err(format!(
                "{} {} is no apiserver.config.k8s.io/v1 AuthenticationConfiguration",
                document.api_version, document.kind
            ));
        }
        let mut errors = Errors::new();
        if document.jwt.len() > MAX_ISSUERS {
            errors.too_many("jwt", document.jwt.len(), MAX_ISSUERS);
        }
        let mut seen = BTreeSet::new();
        let mut authenticators = Vec::new();
        for (at, entry) in document.jwt.into_iter().enumerate() {
            let path = format!("jwt[{at}]");
            if !seen.insert(entry.issuer.url.clone()) {
                errors.duplicate(
                    &format!("{path}.issuer.url"),
                    &entry.issuer.url.as_str().into(),
                );
            }
            authenticators.extend(entry.check(&path, own_issuers, &mut errors));
        }
        let anonymous = match document.anonymous {
            None => Anonymous::Everywhere,
            Some(entry) if !entry.enabled && !entry.conditions.is_empty() => {
                errors.forbidden(
                    "anonymous.conditions",
                    "enabled should be set to true when conditions are defined",
                );
                Anonymous::Nowhere
            }
            Some(entry) if !entry.enabled => Anonymous::Nowhere,
            Some(entry) if entry.conditions.is_empty() => Anonymous::Everywhere,
            Some(entry) => {
                let paths = entry.conditions.into_iter().map(|condition| condition.path);
                Anonymous::On(paths.collect())
            }
        };
        if errors.is_empty() {
            return Ok(Self {
                authenticators,
                anonymous,
            });
        }
        let told: Vec<String> = errors
            .into_causes()
            .into_iter()
            .map(|Cause { field, message, .. }| format!("{field}: {message}"))
            .collect();
        Err(told.join("; "))
    }
}

impl Entry {
    fn check(
        self,
        path: &str,
        own_issuers: &[String],
        errors: &mut Errors,
    ) -> Option<Authenticator> {
        self.issuer
            .check(&format!("{path}.issuer"), own_issuers, errors);
        let claims = claims_environment();
        let mappings = format!("{path}.claimMappings");
        let Mappings {
            username,
            groups,
            uid,
            extra,
        } = self.claim_mappings;
        self::email_rule(
            &username,
            &extra,
            &self.claim_validation_rules,
            &mappings,
            errors,
        );
        let mut mapped = |mapping: Mapping, name: &str, required: bool, prefixed: bool| {
            let path = format!("{mappings}.{name}");
            mapping.check(&path, &claims, required, prefixed, errors)
        };
        let username = mapped(username, "username", true, true);
        let groups = mapped(groups, "groups", false, true);
        let uid = mapped(uid, "uid", false, false);
        let extra = check_extra(extra, &format!("{mappings}.extra"), &claims, errors);
        let (mut required, mut claim_rules) = (Vec::new(), Vec::new());
        for (at, rule) in self.claim_validation_rules.into_iter().enumerate() {
            let path = format!("{path}.claimValidationRules[{at}]");
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (false, false) => {
                    let detail = "claim and expression can't both be set";
                    errors.invalid_text(&path, &rule.claim, detail);
                }
                (true, true) => errors.required(&path, "claim or expression is required"),
                (false, true) => {
                    if !rule.message.is_empty() {
                        let detail = "may not be specified when claim is set";
                        errors.invalid_text(&format!("{path}.message"), &rule.message, detail);
                    }
                    required.push((rule.claim, rule.required_value));
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        let detail = "may not be specified when expression is set";
                        let path = format!("{path}.requiredValue");
                        errors.invalid_text(&path, &rule.required_value, detail);
                    }
                    let path = format!("{path}.expression");
                    let program = compile(&rule.expression, &claims, &[Type::Bool], &path, errors);
                    claim_rules.extend(program.map(|program| (program, rule.message)));
                }
            }
        }
        let of_user = user_environment();
        let mut user_rules = Vec::new();
        for (at, rule) in self.user_validation_rules.into_iter().enumerate() {
            let path = format!("{path}.userValidationRules[{at}].expression");
            let program = compile(&rule.expression, &of_user, &[Type::Bool], &path, errors);
            user_rules.extend(program.map(|program| (program, rule.message)));
        }
        Some(Authenticator {
            issuer: self.issuer.url,
            discovery_url: self.issuer.discovery_url.filter(|url| !url.is_empty()),
            certificate_authority: self.issuer.certificate_authority,
            audiences: self.issuer.audiences,
            username: username?,
            groups,
            uid,
            extra,
            required,
            claim_rules,
            user_rules,
        })
    }
}

impl Issuer {
    fn check(&self, path: &str, own_issuers: &[String], errors: &mut Errors) {
        if self.url.is_empty() {
            errors.required(&format!("{path}.url"), "");
        } else {
            check_url(&self.url, &format!("{path}.url"), errors);
        }
        if own_issuers.contains(&self.url) {
            errors.invalid_text(
                &format!("{path}.url"),
                &self.url,
                &format!(
                    "URL must not overlap with disallowed issuers: [{}]",
                    own_issuers.join(" ")
                ),
            );
        }
        if let Some(url) = self.discovery_url.as_deref().filter(|url| !url.is_empty()) {
            let path = format!("{path}.discoveryURL");
            if url.trim_end_matches('/') == self.url.trim_end_matches('/') {
                errors.invalid_text(&path, url, "discoveryURL must be different from URL");
            }
            check_url(url, &path, errors);
        }
        if self.audiences.is_empty() {
            errors.required(
                &format!("{path}.audiences"),
                "at least one jwt.audiences is required",
            );
        }
        for (at, audience) in self.audiences.iter().enumerate() {
            let path = format!("{path}.audiences[{at}]");
            if audience.is_empty() {
                errors.required(&path, "audience can't be empty");
            } else if self.audiences[..at].contains(audience) {
                errors.duplicate(&path, &audience.as_str().into());
            }
        }
        let policy = self.audience_match_policy.as_str();
        let path_of_policy = format!("{path}.audienceMatchPolicy");
        match (self.audiences.len(), policy) {
            (0 | 1, "" | "MatchAny") | (_, "MatchAny") => {}
            (0 | 1, _) => errors.invalid_text(
                &path_of_policy,
                policy,
                "audienceMatchPolicy must be empty or MatchAny for single audience",
            ),
            _ => errors.invalid_text(
                &path_of_policy,
                policy,
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
        }
        if !self.egress_selector_type.is_empty() {
            errors.forbidden(
                &format!("{path}.egressSelectorType"),
                "connections go out from the node itself",
            );
        }
    }
}

fn check_url(url: &str, path: &str, errors: &mut Errors) {
    let Some(rest) = url.strip_prefix("https://") else {
        errors.invalid_text(path, url, "URL scheme must be https");
        return;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    for (bad, what) in [
        (authority.contains('@'), "a username or password"),
        (url.contains('?'), "a query"),
        (url.contains('#'), "a fragment"),
    ] {
        if bad {
            errors.invalid_text(path, url, &format!("URL must not contain {what}"));
        }
    }
}

impl Mapping {
    fn check(
        self,
        path: &str,
        claims: &Environment,
        required: bool,
        prefixed: bool,
        errors: &mut Errors,
    ) -> Option<Mapped> {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (false, false) => {
                errors.invalid_text(path, "", "claim and expression can't both be set");
                None
            }
            (true, true) => {
                if required {
                    errors.required(path, "claim or expression is required");
                }
                None
            }
            (false, true) => {
                if prefixed && self.prefix.is_none() {
                    errors.required(
                        &format!("{path}.prefix"),
                        "prefix is required when claim is set. It can be set to an empty string \
                         to disable prefixing",
                    );
                }
                Some(Mapped::Claim(self.claim, self.prefix.unwrap_or_default()))
            }
            (true, false) => {
                if let Some(prefix) = &self.prefix {
                    let detail = "may not be specified when expression is set";
                    errors.invalid_text(&format!("{path}.prefix"), prefix, detail);
                }
                let path = format!("{path}.expression");
                compile(&self.expression, claims, &[], &path, errors).map(Mapped::Expression)
            }
        }
    }
}

fn check_extra(
    extra: Vec<Extra>,
    path: &str,
    claims: &Environment,
    errors: &mut Errors,
) -> Vec<(String, Program)> {
    let mut seen = BTreeSet::new();
    let mut mapped = Vec::new();
    for (
        at,
        Extra {
            key,
            value_expression,
        },
    ) in extra.into_iter().enumerate()
    {
        let path = format!("{path}[{at}]");
        let key_path = format!("{path}.key");
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        if domain.is_empty() {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid_text(&key_path, &key, detail);
        }
        if key != key.to_lowercase() {
            errors.invalid_text(&key_path, &key, "must be lowercase");
        }
        let reserved = ["kubernetes.io", "k8s.io"].iter().any(|of| {
            domain == *of
                || domain
                    .strip_suffix(of)
                    .is_some_and(|rest| rest.ends_with('.'))
        });
        if reserved {
            errors.invalid_text(
                &key_path,
                &key,
                "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
            );
        }
        if !seen.insert(key.clone()) {
            errors.duplicate(&key_path, &key.as_str().into());
        }
        let path = format!("{path}.valueExpression");
        let program = compile(&value_expression, claims, &[], &path, errors);
        mapped.extend(program.map(|program| (key, program)));
    }
    mapped
}

/// An address names a user only where its issuer says that it is the user's.
fn email_rule(
    username: &Mapping,
    extra: &[Extra],
    rules: &[ClaimRule],
    path: &str,
    errors: &mut Errors,
) {
    let uses = |expression: &str, claim: &str| {
        [".", ".?"].iter().any(|dot| {
            expression
                .split(&format!("claims{dot}{claim}"))
                .skip(1)
                .any(|rest| {
                    let next = rest.chars().next();
                    next.is_none_or(|next| !(next.is_alphanumeric() || next == '_'))
                })
        })
    };
    let verified = uses(&username.expression, "email_verified")
        || extra
            .iter()
            .any(|extra| uses(&extra.value_expression, "email_verified"))
        || rules
            .iter()
            .any(|rule| uses(&rule.expression, "email_verified"));
    if uses(&username.expression, "email") && !verified {
        errors.invalid_text(
            &format!("{path}.username.expression"),
            &username.expression,
            "claims.email_verified must be used in claimMappings.username.expression or \
             claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
             claims.email is used in claimMappings.username.expression",
        );
    }
}

fn compile(
    expression: &str,
    environment: &Environment,
    results: &[Type],
    path: &str,
    errors: &mut Errors,
) -> Option<Program> {
    if expression.trim().is_empty() {
        errors.required(path, "");
        return None;
    }
    match Program::compile(expression, environment, results) {
        Ok(program) => Some(program),
        Err(error) => {
            let detail = format!("compilation failed: {error}");
            errors.invalid(path, &json!(expression), &detail);
            None
        }
    }
}

pub(super) fn claims_declaration() -> Declaration {
    Declaration::map(Declaration::dynamic(), None)
}

pub(super) fn user_declaration() -> Declaration {
    let text = || Declaration::string(None);
    let texts = || Declaration::list(text(), None);
    let fields = [
        ("username", text()),
        ("uid", text()),
        ("groups", texts()),
        ("extra", Declaration::map(texts(), None)),
    ];
    let field = |(key, declaration): (&str, Declaration)| {
        let key = key.to_owned();
        (key.clone(), Field { key, declaration })
    };
    Declaration::object(
        "kubernetes.UserInfo",
        fields.into_iter().map(field).collect(),
    )
}

fn claims_environment() -> Environment {
    let mut environment = Environment::kubernetes();
    environment.declare("claims", claims_declaration());
    environment
}

fn user_environment() -> Environment {
    let mut environment = Environment::kubernetes();
    environment.declare("user", user_declaration());
    environment
}
