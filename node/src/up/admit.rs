//! From one founder to a quorum: credentials first, then one node after another
//! is admitted, started and promoted, through the API as an operator does it.

use std::time::Instant;

use anyhow::Context as _;
use nautilus_machine::{MemberRole, NewMember};

use super::layout::{Layout, LocalNode, OPERATOR, Quorum};
use super::progress::Progress;
use super::{POLL, READY_TIMEOUT, alive, patience, start_node};
use crate::attested;
use crate::client::{ApiClient, RequestError};
use crate::credentials::{self, CredentialError};
use crate::data_dir::write_durably;
use crate::exit::Failure;
use crate::kubeconfig::{DEFAULT_CONTEXT, Kubeconfig};

/// A client per node.
pub(crate) fn clients<'a>(
    layout: &Layout,
    quorum: &'a Quorum,
) -> anyhow::Result<Vec<(&'a LocalNode, ApiClient)>> {
    let kubeconfig = Kubeconfig::read(&layout.kubeconfig())?;
    quorum
        .nodes
        .iter()
        .map(|node| Ok((node, ApiClient::new(&node.server(), &kubeconfig)?)))
        .collect()
}

/// Leaves `DIR/kubeconfig`, asking whichever node answers first.
pub(super) async fn credentials(
    layout: &Layout,
    quorum: &Quorum,
    progress: &Progress,
) -> anyhow::Result<()> {
    if layout.kubeconfig().exists() {
        return Ok(());
    }
    let path = layout.operator_key();
    let key_pem = zeroize::Zeroizing::new(
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())?,
    );
    let judge = attested::judge(
        &["self".to_owned()],
        true,
        Some(&layout.simulated_root_key()),
    )?;
    let patience = patience(quorum);
    let deadline = Instant::now() + patience;
    let granted = 'granted: loop {
        let mut last = String::from("no node runs");
        for node in &quorum.nodes {
            if super::process::running(&layout.node(node.id)).is_none() {
                if quorum.nodes.first() == Some(node) {
                    alive(layout, node)?;
                }
                continue;
            }
            match credentials::request(&node.server(), &key_pem, &judge, None).await {
                Ok(granted) => break 'granted granted,
                Err(CredentialError::NotYet(reason)) => last = reason,
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::Unavailable.error(format!(
                "no node gave credentials within {} s: {last}",
                patience.as_secs()
            )));
        }
        progress.wait("waiting for the founder's API");
        tokio::time::sleep(POLL).await;
    };
    let path = layout.authority();
    write_durably(&path, granted.authority_pem.as_bytes(), 0o644)
        .with_context(|| path.display().to_string())?;
    let kubeconfig = Kubeconfig {
        authority_pem: granted.authority_pem,
        certificate_pem: granted.certificate_pem,
        key_pem,
        user: OPERATOR.to_owned(),
        contexts: Vec::new(),
    };
    name_nodes(layout, quorum, kubeconfig)?;
    progress.say("evidence verified; wrote the kubeconfig");
    Ok(())
}

/// Writes what clients are configured by, with the nodes as they are now.
pub(crate) fn name_nodes(
    layout: &Layout,
    quorum: &Quorum,
    mut kubeconfig: Kubeconfig,
) -> anyhow::Result<()> {
    let mut contexts = vec![(DEFAULT_CONTEXT.to_owned(), quorum.server())];
    for node in &quorum.nodes {
        contexts.push((format!("{DEFAULT_CONTEXT}-{}", node.id), node.server()));
    }
    kubeconfig.contexts = contexts;
    let path = layout.kubeconfig();
    write_durably(&path, kubeconfig.to_yaml().as_bytes(), 0o600)
        .with_context(|| path.display().to_string())?;
    etcd_client(layout, quorum, &kubeconfig)
}

/// The same credentials as files, for etcd clients.
fn etcd_client(layout: &Layout, quorum: &Quorum, who: &Kubeconfig) -> anyhow::Result<()> {
    let files = layout.etcd();
    let folder = files.folder();
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let endpoints: Vec<String> = quorum
        .nodes
        .iter()
        .map(|node| format!("https://{}", node.etcd()))
        .collect();
    let environment = format!(
        "export ETCDCTL_ENDPOINTS={}\nexport ETCDCTL_CACERT={}\nexport ETCDCTL_CERT={}\nexport ETCDCTL_KEY={}\n",
        endpoints.join(","),
        quoted(&layout.authority()),
        quoted(&files.certificate()),
        quoted(&files.key()),
    );
    for (path, text) in [
        (files.certificate(), who.certificate_pem.as_str()),
        (files.key(), who.key_pem.as_str()),
        (files.environment(), environment.as_str()),
    ] {
        write_durably(&path, text.as_bytes(), 0o600).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// A path as one word of a shell.
fn quoted(path: &std::path::Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Makes every node a voter: admit, start, wait until it serves, promote.
pub(super) async fn everyone(
    layout: &Layout,
    quorum: &Quorum,
    progress: &Progress,
) -> anyhow::Result<()> {
    let clients = clients(layout, quorum)?;
    for node in &quorum.nodes {
        let operator = &Operator {
            layout,
            clients: &clients,
            progress,
        };
        let role = operator.role_of(node.id).await?;
        if role.is_none() {
            let member = &NewMember {
                id: node.id,
                peer_address: node.peer(),
            };
            operator
                .through_any(&format!("admitting node {}", node.id), async |client| {
                    // An answer lost on the way may have been a success.
                    match client.add_member(member).await {
                        Err(error) if is_member(client, member.id).await => {
                            tracing::debug!(%error, "admitted all the same");
                            Ok(())
                        }
                        other => other,
                    }
                })
                .await?;
        }
        if start_node(layout, node)? {
            progress.say(&format!("started node {}", node.id));
        }
        if role != Some(MemberRole::Voter) {
            operator.promote(node).await?;
        }
    }
    Ok(())
}

async fn is_member(client: &ApiClient, id: u64) -> bool {
    client
        .members()
        .await
        .is_ok_and(|members| members.iter().any(|member| member.id == id))
}

/// Whoever admits nodes, and through whom.
struct Operator<'a> {
    layout: &'a Layout,
    clients: &'a [(&'a LocalNode, ApiClient)],
    progress: &'a Progress,
}

impl Operator<'_> {
    /// A member's role; `None` if it is none.
    async fn role_of(&self, id: u64) -> anyhow::Result<Option<MemberRole>> {
        let members = self.through_any("reading the membership", async |client| {
            client.members().await
        });
        Ok(members
            .await?
            .into_iter()
            .find(|member| member.id == id)
            .map(|member| member.role))
    }

    /// Promotes a node as soon as it has caught up.
    async fn promote(&self, node: &LocalNode) -> anyhow::Result<()> {
        let what = format!("waiting until node {} has caught up", node.id);
        self.through_any(&what, async |client| {
            alive(self.layout, node).map_err(|error| RequestError::Form {
                server: node.server(),
                reason: error.to_string(),
            })?;
            client.promote_member(node.id).await
        })
        .await?;
        self.progress.say(&format!("node {} is a voter", node.id));
        Ok(())
    }

    /// Tries a request on every node that runs until one takes it, for as long as
    /// the refusals may pass.
    async fn through_any<T>(
        &self,
        what: &str,
        mut request: impl AsyncFnMut(&ApiClient) -> Result<T, RequestError>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut last = None;
        loop {
            for (node, client) in self.clients {
                if super::process::running(&self.layout.node(node.id)).is_none() {
                    continue;
                }
                match request(client).await {
                    Ok(answer) => return Ok(answer),
                    Err(
                        error @ RequestError::Refused {
                            code: 401 | 403, ..
                        },
                    )
                    | Err(error @ RequestError::Form { .. }) => return Err(error.into_failure()),
                    // A node that has not caught up is named before one that is silent.
                    Err(error @ RequestError::Refused { .. }) => last = Some(error),
                    Err(error) => last = last.or(Some(error)),
                }
            }
            if Instant::now() >= deadline {
                let reason = last.map_or("no node runs".to_owned(), |error| error.to_string());
                return Err(Failure::Unavailable.error(format!(
                    "{what} failed for {} s: {reason}",
                    READY_TIMEOUT.as_secs()
                )));
            }
            self.progress.wait(what);
            tokio::time::sleep(POLL).await;
        }
    }
}
