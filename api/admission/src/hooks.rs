//! Webhooks as their configurations state them.

use nautilus_cel::Environment;
use nautilus_machinery::review::ReviewVersion;
use serde_json::Value;

use crate::expressions::{Conditions, Names, environment};
use crate::matching::Matching;
use crate::review::Role;
use crate::values::{items, text};

/// Seconds for an answer, where nothing is said.
const DEFAULT_TIMEOUT_SECONDS: u64 = 10;
/// Seconds for an answer, at most.
const MAX_TIMEOUT_SECONDS: u64 = 30;
/// The port of a service, where nothing is said.
const DEFAULT_PORT: u16 = 443;

/// Where a webhook listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Anywhere.
    Url(String),
    /// In the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The path, with its slash; may be empty.
        path: String,
        /// The service's port.
        port: u16,
    },
}

/// One webhook.
#[derive(Debug, Clone)]
pub struct Hook {
    /// The configuration's name.
    pub configuration: String,
    /// Its own name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it is about.
    pub matching: Matching,
    /// What must hold beside that.
    pub conditions: Conditions,
    /// Whether a failed call lets the request pass.
    pub ignores_failure: bool,
    /// Whether it may be asked in a dry run.
    pub allows_dry_run: bool,
    /// Whether it is asked again when another one changed the object after it.
    pub reinvokes: bool,
    /// The version of reviews that it is sent; none: it reads none that is known.
    pub reviews: Option<ReviewVersion>,
    /// Seconds for an answer.
    pub timeout_seconds: u64,
    /// Where it listens.
    pub address: Address,
    /// The certificates that vouch for it, PEM in base64; empty: the usual ones.
    pub ca_bundle: String,
}

/// The webhooks of one configuration object, in their order.
pub fn hooks(configuration: &Value, role: Role) -> Vec<Hook> {
    let environment = environment(Names {
        authorizer: true,
        ..Names::default()
    });
    let name = text(&configuration["metadata"]["name"]);
    items(&configuration["webhooks"])
        .map(|webhook| Hook::of(name, webhook, role, &environment))
        .collect()
}

impl Hook {
    fn of(configuration: &str, webhook: &Value, role: Role, environment: &Environment) -> Self {
        let client = &webhook["clientConfig"];
        Self {
            configuration: configuration.to_owned(),
            name: text(&webhook["name"]).to_owned(),
            role,
            matching: Matching::of_webhook(webhook),
            conditions: Conditions::of(&webhook["matchConditions"], environment),
            ignores_failure: webhook["failurePolicy"] == "Ignore",
            allows_dry_run: matches!(text(&webhook["sideEffects"]), "None" | "NoneOnDryRun"),
            reinvokes: webhook["reinvocationPolicy"] == "IfNeeded",
            reviews: ReviewVersion::first_known(
                items(&webhook["admissionReviewVersions"]).map(text),
            ),
            timeout_seconds: webhook["timeoutSeconds"]
                .as_u64()
                .unwrap_or(DEFAULT_TIMEOUT_SECONDS)
                .clamp(1, MAX_TIMEOUT_SECONDS),
            address: address(client),
            ca_bundle: text(&client["caBundle"]).to_owned(),
        }
    }

    /// Tells it from others, over time too: a changed configuration is another.
    pub fn id(&self) -> String {
        format!("{}/{}", self.configuration, self.name)
    }
}

/// Where a client configuration points to.
pub fn address(client: &Value) -> Address {
    if let Some(url) = client["url"].as_str() {
        return Address::Url(url.to_owned());
    }
    let service = &client["service"];
    let path = text(&service["path"]);
    Address::Service {
        namespace: text(&service["namespace"]).to_owned(),
        name: text(&service["name"]).to_owned(),
        path: match path.starts_with('/') || path.is_empty() {
            true => path.to_owned(),
            false => format!("/{path}"),
        },
        port: service["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(DEFAULT_PORT),
    }
}
