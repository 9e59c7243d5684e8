//! Who may do what: the one place that decides, by the rules that
//! [`nautilus_access`] evaluates over what stands in the store.
//!
//! Invariants
//! - `system:masters` may do everything, also while no rule can be read.
//! - A resource request is judged by the very names that its route was found by.
//! - Nobody but a master uses the quorum's own routes, however wide a rule is.

pub(crate) mod accounts;
mod authenticate;
mod bootstrap;
mod leader;
mod nodes;
mod oidc;
mod reviews;
mod roles;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Uri};
use nautilus_access::impersonation::{self, Wanted};
use nautilus_access::jwt::Configuration;
use nautilus_access::node;
use nautilus_access::rbac::Rule;
use nautilus_access::{Attributes, Decision};
use nautilus_machine::Kv;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;
use tokio_util::sync::CancellationToken;

use crate::audit::Notes;
use crate::failure::Failure;
use crate::joining::Workers;
use crate::route::{self, ResourceRequest, Route, Verb};
use crate::storage::Storage;

use accounts::Accounts;
pub(crate) use bootstrap::Roles as BootstrapRoles;
pub(crate) use bootstrap::role_of_user;
pub(crate) use leader::{Kind as Looked, Leader, ensure_root_ca};
use nodes::Nodes;
use oidc::Issuers;
pub(crate) use reviews::serve as serve_review;
use roles::Roles;

/// Reads and checks an `AuthenticationConfiguration`: which other issuers' tokens count,
/// and where requests may come without a credential. `service_account_issuers` are those of
/// [`NodeFacts`](crate::NodeFacts), whose tokens nobody else may issue.
pub fn read_authentication(
    document: serde_json::Value,
    service_account_issuers: &[String],
) -> Result<Arc<Configuration>, String> {
    Configuration::read(document, &accounts::or_default(service_account_issuers)).map(Arc::new)
}

/// How long a request waits at most for the rules to be read after a start.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// What this node decides by.
pub(crate) struct Access {
    roles: Arc<Roles>,
    nodes: Arc<Nodes>,
    issuers: Option<Issuers>,
    storage: Storage,
    /// Who judges Seal tokens, where somebody does.
    workers: Option<Arc<dyn Workers>>,
    /// Service accounts' tokens.
    pub(crate) accounts: Accounts,
}

impl Access {
    /// Starts following the rules until `shutdown`.
    pub(crate) fn start(
        kv: &Arc<dyn Kv>,
        authentication: Option<Arc<Configuration>>,
        service_account_issuers: &[String],
        workers: Option<Arc<dyn Workers>>,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            issuers: authentication.map(Issuers::new),
            roles: Roles::start(kv, shutdown),
            nodes: Nodes::new(kv, shutdown),
            storage: Storage::new(kv.clone()),
            workers,
            accounts: Accounts::new(kv.clone(), service_account_issuers),
        })
    }

    /// Whether `user` may do what is asked.
    pub(crate) fn authorize(&self, user: &User, asked: &Attributes) -> Decision {
        if user.is_master() {
            return Decision::Allow(String::new());
        }
        // The first that allows decides; a refusal tells the reasons of both.
        let by_node = self.nodes.authorize(user, asked);
        if by_node.is_allowed() {
            return by_node;
        }
        match self.roles.policy().authorize(user, asked) {
            Decision::NoOpinion(reason) if !by_node.reason().is_empty() => {
                let reasons = [by_node.reason(), &reason];
                let told: Vec<&str> = reasons.into_iter().filter(|one| !one.is_empty()).collect();
                Decision::NoOpinion(told.join("\n"))
            }
            decision => decision,
        }
    }

    /// Waits until the rules have been read once, for a bounded time.
    pub(crate) async fn ready(&self, user: &User) {
        let read = async {
            self.roles.synced().await;
            self.nodes.synced(user).await;
        };
        let _ = tokio::time::timeout(SYNC_PATIENCE, read).await;
    }

    /// Every rule of `user` in `namespace`, whether there may be more, and why.
    fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, bool, String) {
        let (rules, error) = self.roles.policy().rules_for(user, namespace);
        if node::name_of(user).is_none() {
            return (rules, false, error);
        }
        let why = "node authorizer does not support user rule resolution";
        let error = match error.as_str() {
            "" => why.to_owned(),
            error => format!("{why}\n{error}"),
        };
        (rules, true, error)
    }
}

/// What is asked, as rules see it. Fails where the path reads as one thing to the
/// rules and as another to the router.
pub(crate) fn attributes(
    method: &Method,
    uri: &Uri,
    route: &Route,
) -> Result<Attributes, ApiError> {
    let segments = route::segments(uri.path()).unwrap_or_default();
    let slash = if uri.path().ends_with('/') && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    let path = format!("/{}{slash}", segments.join("/"));
    let query = route::query_pairs(uri);
    let mut asked = Attributes::of_request(method.as_str(), &path, &segments, &query);
    if let Route::Resource(request) = route {
        if !agrees(request, &asked) {
            return Err(ApiError::path_not_found());
        }
        if request.verb == Verb::Watch {
            request.verb.as_str().clone_into(&mut asked.verb);
        }
    }
    Ok(asked)
}

fn agrees(request: &ResourceRequest, asked: &Attributes) -> bool {
    let resource = &request.resource;
    let of_namespace = resource.group.is_empty() && &*resource.plural == "namespaces";
    let namespace = if of_namespace {
        request.name.as_deref()
    } else {
        request.namespace.as_deref()
    };
    let name = request.name.as_deref();
    asked.is_resource
        && asked.group == *resource.group
        && asked.version == *resource.version
        && asked.resource == *resource.plural
        && asked.subresource == request.subresource.as_deref().unwrap_or_default()
        && asked.namespace == namespace.unwrap_or_default()
        && name.is_none_or(|name| name == asked.name)
}

/// Lets a request pass, or refuses it with 403 in the reference's words. Gives the user
/// that it goes on as: another one where the headers ask for it and the rules allow it.
pub(crate) async fn admit(
    access: &Access,
    user: User,
    asked: &Attributes,
    wanted: Option<Wanted>,
    route: &Route,
    notes: &Notes,
) -> Result<User, Failure> {
    if !user.is_master() {
        access.ready(&user).await;
    }
    let user = match wanted {
        None => user,
        Some(wanted) => {
            let judge = |user: &User, asked: &Attributes| access.authorize(user, asked);
            let user = impersonation::impersonate(&wanted, &user, asked, &judge)?;
            notes.acts_as(&user);
            user
        }
    };
    let own = |allowed: bool| match allowed || user.is_master() {
        true => Decision::Allow(String::new()),
        false => Decision::NoOpinion(String::new()),
    };
    let decision = match route {
        // Whoever can reach the node may ask whether it lives; a credential request
        // is judged by the key that signed it.
        Route::Health { .. } | Route::Credentials => own(true),
        Route::K3s(asked) => own(asked.is_open() || crate::k3s::node_of(&user).is_some()),
        Route::Leader => own(user.is_authenticated()),
        Route::TunnelConnect => own(crate::tunnel::node_of(&user).is_some()),
        Route::TunnelDial
        | Route::Status
        | Route::Explain
        | Route::Certificates
        | Route::Members(_)
        | Route::Receipts(_) => own(false),
        _ => access.authorize(&user, asked),
    };
    notes.decided(decision.is_allowed(), decision.reason());
    match decision {
        Decision::Allow(_) => Ok(user),
        Decision::NoOpinion(reason) => Err(asked.forbidden(&user, &reason).into()),
    }
}

/// Whom the request wants to act as.
pub(crate) fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, ApiError> {
    // A name that is no ASCII must not be passed over: the request would go on as its
    // asker.
    impersonation::wanted(headers.iter().filter_map(|(name, value)| {
        let ours = name.as_str().starts_with("impersonate-");
        ours.then(|| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_router_read_a_path_alike() {
        for path in [
            "/api/v1/namespaces/a",
            "/api/v1/namespaces/a/pods/x",
            "/api/v1//namespaces/a/pods",
            "/api/v1/pods?watch=true",
            "/api/v1/watch/pods",
            "/api/v1/namespaces/a/pods/x/status",
            "/api/v1/nodes/n",
        ] {
            let uri: Uri = path.parse().expect("a path");
            let route = route::parse(nautilus_machinery::resource::built_in(), &Method::GET, &uri);
            assert!(matches!(route, Route::Resource(_)), "{path}");
            assert!(attributes(&Method::GET, &uri, &route).is_ok(), "{path}");
        }
    }
}
