//! Our side: a quorum of three, of which one node serves the load, as an administrator's
//! kubeconfig opens it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::side::ApiSide;
use crate::drive::Endpoint;
use crate::ours::Ours;
use crate::side::{Side as _, leader};

/// Which node serves the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Node {
    /// The one that leads.
    Leader,
    /// One that follows.
    Follower,
}

/// See the module.
pub struct Quorum {
    quorum: Ours,
    endpoint: Endpoint,
    server: u32,
}

impl Quorum {
    /// Starts one in `folder`, run by `binary`, and finds the node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(binary: &Path, folder: &Path, node: Node) -> anyhow::Result<Self> {
        let mut quorum = Ours::prepare(binary, folder)?;
        quorum.start()?;
        crate::side::serving(&quorum).await?;
        let leads = leader(&quorum).await?;
        let at = match node {
            Node::Leader => leads,
            Node::Follower => (leads + 1) % quorum.api_ports().len(),
        };
        let tls = client_tls(&quorum.folder().join("kubeconfig"))?;
        let mut endpoint = quorum.endpoints().swap_remove(at);
        endpoint.port = quorum.api_ports()[at];
        endpoint.tls = Arc::new(tls);
        let server = *quorum.processes().get(at).context("a node's process")?;
        Ok(Self {
            quorum,
            endpoint,
            server,
        })
    }
}

impl ApiSide for Quorum {
    fn name(&self) -> &'static str {
        "nautilus"
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    fn server(&self) -> u32 {
        self.server
    }

    fn processes(&self) -> Vec<u32> {
        self.quorum.processes()
    }
}

/// The administrator's side of TLS, from a kubeconfig with its data inside.
fn client_tls(kubeconfig: &Path) -> anyhow::Result<ClientConfig> {
    let text = fs::read_to_string(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    let pem = |field: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(field))
            .with_context(|| format!("no {field} in {}", kubeconfig.display()))?;
        let data = line.trim_start_matches(':').trim().trim_matches('"');
        STANDARD.decode(data).context(field.to_owned())
    };
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&pem("certificate-authority-data")?) {
        roots.add(authority?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem("client-certificate-data")?)
        .collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data")?)?;
    let mut tls = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}
