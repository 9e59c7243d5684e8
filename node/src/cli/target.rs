//! Which quorum a command speaks to: a kubeconfig, that of a folder by default.

use std::path::PathBuf;

use super::Global;
use crate::client::ApiClient;
use crate::kubeconfig::Kubeconfig;

impl Global {
    /// The kubeconfig's path: named, or the folder's.
    pub(crate) fn kubeconfig_path(&self) -> anyhow::Result<PathBuf> {
        match &self.kubeconfig {
            Some(path) => Ok(path.clone()),
            None => Ok(self.layout()?.kubeconfig()),
        }
    }

    /// The address named with `--server`.
    pub(crate) fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Whether a kubeconfig or a server was named, so that the folder does not count.
    pub(crate) fn names_a_quorum(&self) -> bool {
        self.kubeconfig.is_some() || self.server.is_some()
    }

    /// A client with the operator's credentials.
    pub(crate) fn client(&self) -> anyhow::Result<ApiClient> {
        let kubeconfig = Kubeconfig::read(&self.kubeconfig_path()?)?;
        let server = match (&self.server, kubeconfig.contexts.first()) {
            (Some(server), _) | (None, Some((_, server))) => server.clone(),
            (None, None) => anyhow::bail!("the kubeconfig names no server; pass --server"),
        };
        ApiClient::new(&server, &kubeconfig)
    }
}
