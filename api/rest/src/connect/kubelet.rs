//! How nodes' kubelets are reached, and as whom.

use std::sync::Arc;

use nautilus_machinery::status::ApiError;
use rustls::ClientConfig;
use serde_json::Value;

use crate::authority::Authority;
use crate::tunnel::Tunnels;
use crate::upstream::{ComponentIdentity, Security, Trust, Tunnel, Upstream, client_config};

/// The user as whom kubelets know an API server; kubeadm's name for it.
const CLIENT_USER: &str = "kube-apiserver-kubelet-client";
/// Its group: kubelets ask whether it may, and it may everything.
const CLIENT_GROUP: &str = "system:masters";
/// Where a kubelet serves that does not say where.
const DEFAULT_PORT: u16 = 10_250;
/// Said by kubelets that translate WebSockets themselves.
const TRANSLATES: &str = "ExtendWebSocketsToKubelet";

/// How to reach kubelets.
#[derive(Debug, Clone)]
pub struct KubeletSettings {
    /// Kinds of addresses, the best first. As kubeadm sets them.
    pub preferred_address_types: Vec<String>,
    /// Whose serving certificates of kubelets are good.
    pub trust: KubeletTrust,
}

/// Whose serving certificates of kubelets are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeletTrust {
    /// Anybody's, as the reference has it without `--kubelet-certificate-authority`.
    Anybody,
    /// Those of the quorum's authority: kubelets that ask it for theirs.
    Quorum,
    /// Those of the authorities in this PEM bundle.
    Bundle(String),
}

/// Whether a PEM bundle is good for [`KubeletTrust::Bundle`], or why not.
pub fn check_kubelet_bundle(pem: &str) -> Result<(), String> {
    Trust::pem(pem.as_bytes()).map(|_| ())
}

impl Default for KubeletSettings {
    fn default() -> Self {
        let types = [
            "InternalIP",
            "ExternalIP",
            "Hostname",
            "InternalDNS",
            "ExternalDNS",
        ];
        Self {
            preferred_address_types: types.map(str::to_owned).to_vec(),
            trust: KubeletTrust::Anybody,
        }
    }
}

/// Reaches kubelets.
pub(crate) struct Kubelets {
    settings: KubeletSettings,
    verified: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
    /// For pods and services, which are none of ours to know.
    anonymous: Arc<ClientConfig>,
    tunnels: Arc<Tunnels>,
}

/// One node's kubelet.
pub(crate) struct Kubelet {
    pub(crate) upstream: Upstream,
    /// It speaks v5 of the channels and tunnels itself.
    pub(crate) translates: bool,
}

impl Kubelets {
    /// Fails on a bundle without a certificate.
    pub(crate) fn new(
        settings: KubeletSettings,
        authority: &Arc<Authority>,
        tunnels: Arc<Tunnels>,
    ) -> Result<Self, String> {
        let issuer = authority.clone();
        let identity = ComponentIdentity::new(
            CLIENT_USER,
            Box::new(move || issuer.issue_component(CLIENT_USER, &[CLIENT_GROUP.to_owned()])),
        );
        let trust = match &settings.trust {
            KubeletTrust::Anybody => Trust::Anybody,
            KubeletTrust::Quorum => Trust::own(authority)?,
            KubeletTrust::Bundle(pem) => Trust::pem(pem.as_bytes())?,
        };
        Ok(Self {
            settings,
            verified: client_config(trust, Some(identity.clone()))?,
            unverified: client_config(Trust::Anybody, Some(identity))?,
            anonymous: client_config(Trust::Anybody, None)?,
            tunnels,
        })
    }

    /// To speak TLS to a pod, without a certificate and without checking one.
    pub(crate) fn anonymous(&self) -> Arc<ClientConfig> {
        self.anonymous.clone()
    }

    /// The kubelet of a Node; `skip_verification` for logs that are read whoever serves
    /// them.
    pub(crate) fn of_node(
        &self,
        node: &Value,
        skip_verification: bool,
    ) -> Result<Kubelet, ApiError> {
        let host = self.address(node)?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .unwrap_or(DEFAULT_PORT);
        let config = if skip_verification {
            &self.unverified
        } else {
            &self.verified
        };
        let translates = node["status"]["declaredFeatures"]
            .as_array()
            .is_some_and(|features| features.iter().any(|feature| feature == TRANSLATES));
        Ok(Kubelet {
            upstream: Upstream {
                host,
                port,
                security: Security::Tls(config.clone(), None),
                tunnel: Some(Tunnel {
                    tunnels: self.tunnels.clone(),
                    node: node["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                }),
            },
            translates,
        })
    }

    fn address(&self, node: &Value) -> Result<String, ApiError> {
        let known = node["status"]["addresses"].as_array();
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let found = self
            .settings
            .preferred_address_types
            .iter()
            .find_map(|kind| {
                known
                    .iter()
                    .find(|address| address["type"] == kind.as_str())
                    .and_then(|address| address["address"].as_str())
            });
        found.map(str::to_owned).ok_or_else(|| {
            let known: Vec<String> = known
                .iter()
                .map(|address| {
                    let text = |field: &str| address[field].as_str().unwrap_or_default().to_owned();
                    format!("{{{} {}}}", text("type"), text("address"))
                })
                .collect();
            let known = known.join(" ");
            let message = format!("no preferred addresses found; known addresses: [{known}]");
            ApiError::unknown(message)
        })
    }
}
