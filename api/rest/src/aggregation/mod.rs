//! Extension servers: groups and versions of the API that another server answers, by an
//! APIService (apiregistration.k8s.io/v1).
//!
//! Source: kube-aggregator of the release served, with its endpoint routing: a master has
//! no service network of its own, so a service is reached at one of its endpoints.
//!
//! Invariants
//! - An extension server learns who asks from this server alone, over TLS with a client
//!   certificate of an authority that issues no other.
//! - What this server serves itself is never passed on.
//! - Whatever an extension server says is bounded before it is kept.

mod discovery;
mod documents;
mod front_proxy;
mod keeper;
mod proxy;
mod resolve;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Uri;
use nautilus_machine::Kv;
use nautilus_machinery::resource;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::lister::Lister;

pub(crate) use documents::document;
pub(crate) use keeper::keep;
pub(crate) use service::ApiService;

use discovery::Discovered;
use front_proxy::FrontProxy;

/// The group of APIServices themselves.
const GROUP: &str = "apiregistration.k8s.io";

/// What this node knows of extension servers.
pub(crate) struct Aggregator {
    kv: Arc<dyn Kv>,
    cluster: String,
    services: Option<Arc<Lister<ApiService>>>,
    front_proxy: OnceCell<FrontProxy>,
    /// By the APIService's name; what was last heard, of those that are there.
    discovered: Mutex<BTreeMap<String, Arc<Discovered>>>,
}

impl Aggregator {
    /// Follows APIServices, and what their servers say of themselves, until `shutdown`.
    pub(crate) fn start(
        kv: &Arc<dyn Kv>,
        cluster: &str,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        let services = resource::find(GROUP, "v1", "apiservices").map(|resource| {
            Lister::start(
                kv.clone(),
                resource.clone(),
                ApiService::read,
                shutdown.clone(),
            )
        });
        let aggregator = Arc::new(Self {
            kv: kv.clone(),
            cluster: cluster.to_owned(),
            services,
            front_proxy: OnceCell::new(),
            discovered: Mutex::default(),
        });
        tokio::spawn(discovery::follow(aggregator.clone(), shutdown.clone()));
        aggregator
    }

    /// The APIService of the extension server that a request is for: by its path, or by
    /// that of the OpenAPI document it wants.
    pub(crate) fn of_request(&self, uri: &Uri) -> Option<Arc<ApiService>> {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        let mut first = parts.next()?;
        if first == "openapi" {
            first = parts
                .next()
                .filter(|form| *form == "v3")
                .and(parts.next())?;
        }
        match (first, parts.next(), parts.next()) {
            ("apis", Some(group), Some(version)) => self.remote(group, version),
            _ => None,
        }
    }

    fn remote(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        let snapshot = self.services.as_ref()?.snapshot();
        let place = (String::new(), format!("{version}.{group}"));
        let service = snapshot.objects.get(&place)?;
        service.is_remote().then(|| service.clone())
    }

    /// All extension servers' APIServices.
    pub(crate) fn remotes(&self) -> Vec<Arc<ApiService>> {
        let Some(services) = &self.services else {
            return Vec::new();
        };
        let snapshot = services.snapshot();
        let services = snapshot.objects.values();
        services
            .filter(|service| service.is_remote())
            .cloned()
            .collect()
    }

    /// As whom extension servers know this one.
    async fn front_proxy(&self) -> Result<&FrontProxy, String> {
        self.front_proxy
            .get_or_try_init(|| async {
                let authority = Authority::front_proxy(self.kv.as_ref(), &self.cluster)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok(FrontProxy::new(authority))
            })
            .await
    }
}
