//! The faces for clients: the Kubernetes API, our own paths, and the Go workers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use nautilus_attest_protocol::credential_report_data;
use nautilus_backup::{
    Audience, Destination, Plan, Source, backup_router, lease_table, run_schedule,
};
use nautilus_machine::{Kv, RangeRequest, types::KeyRange};
use nautilus_machinery::identity::{MASTERS_GROUP, User};
use nautilus_rest::audit::Audit;
use nautilus_rest::operators::{OPERATORS_PREFIX, spki_fingerprint};
use nautilus_rest::{
    AuthenticationConfiguration, Authority, ConnectionLimits, NodeFacts, Operator, RequestLimits,
    RestContext, ServingCertificate, pin_operators, read_authentication, router_with,
    run_controllers, serve_plain_loopback, serve_tls, server_config,
};
use nautilus_workers::events::{Events, events_router};
use nautilus_workers::{
    Facts, Joins, Leader, Probes, QuorumView, SystemClock, WorkersContext, run as run_workers,
    workers_router,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::events::OwnApi;
use super::forms::Forms;
use super::joins::JoiningWorkers;
use super::usages::WorkersUsages;
use super::{Node, RECOVERED_NOTE, authority};
use crate::config::{Bootstrap, NodeConfig};
use crate::endorsements::{self, Keeper, Sources};
use crate::exit::Failure;
use crate::keys::{KeyRotation, RotationParts, keys_router};
use crate::receipt::sign::RootSigner;
use crate::recovery::{self, EscrowKeeper, recovery_router};

/// Names every serving certificate covers, so that a client may come through the
/// stable endpoint, a loopback address or a Service.
const BUILT_IN_NAMES: [&str; 8] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "nautilus",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// The Service `kubernetes`'s address.
const SERVICE_ADDRESS: &str = "10.96.0.1";
/// For requests under way when the node is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Pause before operators are pinned again after a failure.
const PIN_PAUSE: Duration = Duration::from_millis(300);

/// Serves until told to stop.
pub(super) async fn serve(
    node: &Node,
    config: &NodeConfig,
    metrics: &PrometheusHandle,
    stopped: &CancellationToken,
) -> anyhow::Result<()> {
    let kv = node.consensus.kv();
    let leader = Leader::new(Arc::new(SystemClock::new()), super::sui::roster(config));
    node.consensus.set_leader_handler(Arc::clone(&leader) as _);
    let mut recovery = None;
    let ready = async {
        if let Some(recovered) = &node.recovered {
            let (cluster, id) = (&config.cluster_id, config.node_id);
            recovery = Some(recovery::finish(kv.as_ref(), cluster, id, recovered).await?);
            node.sealed_keys.data_dir.write(RECOVERED_NOTE, b"")?;
        }
        let authority = authority(kv.as_ref(), &config.cluster_id).await?;
        if config.bootstrap == Bootstrap::Genesis {
            pin(kv.as_ref(), config).await?;
            super::policy::found(kv.as_ref(), config, &node.identity).await?;
        }
        anyhow::Ok(authority)
    };
    let authority = tokio::select! {
        authority = ready => authority?,
        () = stopped.cancelled() => return Ok(()),
    };
    let certificate = ServingCertificate::issue(Arc::clone(&authority), names(config))?;
    let tls = server_config(&authority, Arc::clone(&certificate))?;
    let tracker = TaskTracker::new();
    let chain = super::sui::chain(config)?;
    let verdicts = super::sui::verdicts(node, config, &kv, chain.as_ref())?;
    let events = {
        let leader = (&*leader, node.consensus.leader_channel());
        super::events::events(config, &kv, &verdicts, chain.as_ref(), leader)
    };
    let settings = super::sui::settings(config);
    let facts = NodeFacts {
        workers: Some(Arc::new(JoiningWorkers(Joins::new(
            Arc::clone(&kv),
            Arc::clone(&verdicts),
            Arc::new(SystemClock::new()),
            settings.stake_tiers,
        )))),
        ..facts(node, config, metrics, stopped, &tracker)?
    };
    let context = RestContext::new(
        Arc::clone(&kv),
        node.consensus.cluster(),
        Arc::clone(&authority),
        facts,
        request_limits(config),
        stopped.clone(),
    );
    let workers = workers_router(WorkersContext {
        kv: Arc::clone(&kv),
        channel: node.consensus.leader_channel(),
        verdicts: Arc::clone(&verdicts),
        clock: Arc::new(SystemClock::new()),
        facts: worker_facts(node),
        probes: probes(node, config, &kv, &certificate, &authority, events.clone())?,
        settings,
    });
    let source = backup_source(node, config, &kv);
    let rotation = key_rotation(node, config, &kv);
    let others = workers
        .merge(events_router(events.clone()))
        .merge(backup_router(source.clone()))
        .merge(super::policy::router(node, config, &kv))
        .merge(keys_router(Arc::clone(&rotation)))
        .merge(recovery_router(Arc::clone(&kv)))
        .merge(endorsements::router(Arc::clone(&kv)));
    let router = router_with(Arc::clone(&context), others);
    if let Some(events) = events {
        let api = Arc::new(OwnApi(router.clone()));
        tracker.spawn(events.run(api, stopped.clone()));
    }
    let keeper = super::policy::keeper(node, config, &kv, vec![Arc::clone(&rotation) as _]);
    tracker.spawn(keeper.run(stopped.clone()));
    tracker.spawn(rotation.run(stopped.clone()));
    tracker.spawn(escrow_keeper(node, config, &kv).run(stopped.clone()));
    if let Some(plan) = backup_plan(config)? {
        tracker.spawn(run_schedule(source, plan, stopped.clone()));
    }
    super::restart::follow_up(node, config, &context, stopped);
    if let Some(recovery) = recovery {
        super::restart::tell_of_recovery(&recovery, &context, stopped);
    }
    tracker.spawn(run_workers(leader, Arc::clone(&kv), stopped.clone()));
    tracker.spawn(verdicts.run(stopped.clone()));
    if let Some(chain) = chain {
        tracker.spawn(chain.watch(stopped.clone()));
    }
    endorsements::describe_metrics();
    tracker.spawn(endorsements::follow(
        Arc::clone(&node.endorsed),
        Arc::clone(&kv),
        stopped.clone(),
    ));
    let keeper = Keeper::new(
        Arc::clone(&kv),
        Arc::clone(&node.endorsed),
        sources(node, config),
    )?;
    tracker.spawn(keeper.run(stopped.clone()));
    let nodes = context.node_connections();
    tracker.spawn(run_controllers(
        context,
        config.api.listen.port(),
        stopped.clone(),
    ));
    tracker.spawn(Arc::clone(&certificate).keep_fresh(stopped.clone()));
    if let (Some(listener), Some(face)) = (&node.etcd, &config.etcd) {
        let context = super::etcd::context(node, config, face, metrics)?;
        let serving = nautilus_etcd::serve(
            duplicate(listener)?,
            Some(Arc::clone(&tls)),
            context,
            stopped.clone(),
        );
        tracing::info!(etcd = %face.endpoint.advertise, "serving");
        tracker.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the etcd face ended");
            }
        });
    }
    let limits = ConnectionLimits {
        shutdown_grace: SHUTDOWN_GRACE,
        ..ConnectionLimits::default()
    };
    if let Some(listener) = &node.plain {
        let listener = duplicate(listener)?;
        let serving =
            serve_plain_loopback(listener, router.clone(), limits.clone(), stopped.clone());
        tracker.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the plain listener ended");
            }
        });
    }
    tracing::info!(api = %config.api.advertise, "serving");
    let listener = duplicate(&node.api)?;
    serve_tls(listener, tls, router, limits, nodes, stopped.clone())
        .await
        .context("serve the API")?;
    tracker.close();
    tracker.wait().await;
    Ok(())
}

/// What snapshots are made from.
pub(super) fn backup_source(node: &Node, config: &NodeConfig, kv: &Arc<dyn Kv>) -> Source {
    Source {
        kv: Arc::clone(kv),
        leases: lease_table(node.consensus.leases()),
        quorum: super::keys::quorum_key(&node.keyring),
        cluster: config.cluster_id.clone(),
    }
}

/// The way from one generation of keys to the next.
fn key_rotation(node: &Node, config: &NodeConfig, kv: &Arc<dyn Kv>) -> Arc<KeyRotation> {
    let sealed = Arc::clone(&node.sealed_keys);
    KeyRotation::new(RotationParts {
        node_id: config.node_id,
        kv: Arc::clone(kv),
        cluster: node.consensus.cluster(),
        keys: node.consensus.keys(),
        keyring: node.keyring.clone(),
        save: Arc::new(move |keyring| sealed.write(keyring).map_err(|error| format!("{error:#}"))),
        bytes_per_s: config.keys_reencrypt_bytes_per_s,
    })
}

/// Shares of the keys for the operators.
fn escrow_keeper(node: &Node, config: &NodeConfig, kv: &Arc<dyn Kv>) -> EscrowKeeper {
    EscrowKeeper {
        cluster_id: config.cluster_id.clone(),
        node_id: config.node_id,
        kv: Arc::clone(kv),
        cluster: node.consensus.cluster(),
        keyring: node.keyring.clone(),
        folder: node.sealed_keys.data_dir.path().to_owned(),
    }
}

/// Where endorsements are fetched from.
fn sources(node: &Node, config: &NodeConfig) -> Sources {
    let settings = &config.attestation.endorsements;
    Sources {
        amd_kds: settings.amd_kds.clone(),
        intel_pcs: settings.intel_pcs.clone(),
    }
    .or_of_hardware(node.identity.kind())
}

/// The schedule of snapshots, if there is one.
fn backup_plan(config: &NodeConfig) -> anyhow::Result<Option<Plan>> {
    let Some(backup) = &config.backup else {
        return Ok(None);
    };
    let destination = Destination::parse(&backup.destination, &backup.s3)
        .map_err(|error| Failure::Usage.error(format!("backup.destination: {error}")))?;
    Ok(Some(Plan {
        destination,
        interval: backup.interval,
        keep: backup.keep,
        max_age: backup.max_age,
        audience: Audience {
            recipients: backup.recipients.clone(),
        },
    }))
}

/// The listener for a server that wants to own it.
pub(super) fn duplicate(
    listener: &tokio::net::TcpListener,
) -> anyhow::Result<tokio::net::TcpListener> {
    use std::os::fd::AsFd as _;
    let copy = listener
        .as_fd()
        .try_clone_to_owned()
        .context("duplicate a listener")?;
    Ok(tokio::net::TcpListener::from_std(
        std::net::TcpListener::from(copy),
    )?)
}

/// Pins the operators of the configuration, unless the quorum has operators: its
/// configuration is believed at genesis only.
async fn pin(kv: &dyn Kv, config: &NodeConfig) -> anyhow::Result<()> {
    let operators: Vec<Operator> = config
        .operators
        .iter()
        .map(|operator| Operator {
            spki_sha256: spki_fingerprint(&operator.public_key_der),
            user: operator.user.clone(),
            groups: vec![MASTERS_GROUP.to_owned()],
        })
        .collect();
    loop {
        let present = async {
            kv.read_barrier().await.map_err(|error| error.to_string())?;
            let mut request = RangeRequest::newest(KeyRange::prefix(OPERATORS_PREFIX));
            request.count_only = true;
            kv.range(&request)
                .map(|answer| answer.count)
                .map_err(|error| error.to_string())
        };
        let failed = match present.await {
            Ok(0) => match pin_operators(kv, &operators).await {
                Ok(()) => {
                    tracing::info!(operators = operators.len(), "pinned the operators");
                    return Ok(());
                }
                Err(error @ nautilus_rest::OperatorError::Invalid { .. }) => {
                    return Err(Failure::Usage.error(error));
                }
                Err(error) => error.to_string(),
            },
            Ok(_) => return Ok(()),
            Err(reason) => reason,
        };
        tracing::warn!(reason = %failed, "the operators are not pinned yet");
        tokio::time::sleep(PIN_PAUSE).await;
    }
}

/// The face's limits, as configured.
fn request_limits(config: &NodeConfig) -> RequestLimits {
    let default = RequestLimits::default();
    let [reading, changing] = config
        .api_inflight
        .map(|most| most.and_then(|most| usize::try_from(most).ok()));
    RequestLimits {
        max_requests_inflight: reading.unwrap_or(default.max_requests_inflight),
        max_mutating_requests_inflight: changing.unwrap_or(default.max_mutating_requests_inflight),
        ..default
    }
}

pub(super) fn names(config: &NodeConfig) -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN_NAMES.iter().map(|&name| name.to_owned()).collect();
    names.push(SERVICE_ADDRESS.to_owned());
    let etcd = config.etcd.iter().map(|face| &face.endpoint.advertise);
    let advertised = std::iter::once(&config.api.advertise).chain(etcd);
    let hosts = advertised.map(|address| host_of(address).to_owned());
    for name in hosts.chain(config.api_extra_sans.iter().cloned()) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The host of `host:port`; an IPv6 address without its brackets.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Other issuers whose tokens count, by the configuration.
fn authentication(config: &NodeConfig) -> anyhow::Result<Option<Arc<AuthenticationConfiguration>>> {
    let Some(path) = &config.authentication else {
        return Ok(None);
    };
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    let refused = |why: String| Failure::Usage.error(format!("{}: {why}", path.display()));
    let document = serde_yaml_ng::from_slice(&text).map_err(|error| refused(error.to_string()))?;
    Ok(Some(
        read_authentication(document, &config.service_account_issuers).map_err(refused)?,
    ))
}

/// The audit log that the configuration asks for.
fn audit(
    config: &NodeConfig,
    signer: &Arc<RootSigner>,
    stopped: &CancellationToken,
    tracker: &TaskTracker,
) -> anyhow::Result<Option<Arc<Audit>>> {
    let Some(asked) = &config.audit else {
        return Ok(None);
    };
    let refused = |why: String| Failure::Usage.error(format!("audit: {why}"));
    let policy = std::fs::read(&asked.policy_file)
        .with_context(|| asked.policy_file.display().to_string())?;
    let policy = serde_yaml_ng::from_slice(&policy).map_err(|error| refused(error.to_string()))?;
    let signer = Arc::clone(signer);
    let sign = Arc::new(move |head| {
        let signer = Arc::clone(&signer);
        Box::pin(async move { signer.sign_audit(head).await }) as _
    });
    let (audit, written) = Audit::start(policy, asked.log.clone(), sign, stopped.clone())
        .map_err(|why| refused(format!("{}: {why}", asked.log.path.display())))?;
    tracker.spawn(written);
    Ok(Some(audit))
}

fn facts(
    node: &Node,
    config: &NodeConfig,
    metrics: &PrometheusHandle,
    stopped: &CancellationToken,
    tracker: &TaskTracker,
) -> anyhow::Result<NodeFacts> {
    let identity = Arc::clone(&node.identity);
    let transport = Arc::clone(&node.transport);
    let metrics = metrics.clone();
    let quoter = Arc::clone(&node.identity);
    let evidence = Arc::new(move |report_data: &[u8; 64]| quoter.evidence(report_data));
    let signer = RootSigner::new(&config.cluster_id, config.node_id, evidence);
    let signer = Arc::new(signer);
    Ok(NodeFacts {
        authentication: authentication(config)?,
        service_account_issuers: config.service_account_issuers.clone(),
        audit: audit(config, &signer, stopped, tracker)?,
        cluster: config.cluster_id.clone(),
        api_address: format!("https://{}", config.api.advertise),
        tee: node.identity.tee(),
        measurement: node.identity.measurement(),
        evidence: Arc::new(move |report_data| identity.evidence(&report_data)),
        credential_report_data: Arc::new(credential_report_data),
        evidence_digest: Arc::new(move |node_id| transport.evidence_digest(node_id)),
        ledger: node.consensus.ledger(),
        sign_root: Arc::new(move |head| {
            let signer = Arc::clone(&signer);
            Box::pin(async move { signer.sign(head).await })
        }),
        metrics_text: Arc::new(move || metrics.render()),
        kubelets: config.kubelets.clone(),
        serving_names: names(config),
        workers: None,
        control: config.control.clone(),
        node_usages: Some(Arc::new(WorkersUsages(node.consensus.leader_channel()))),
    })
}

fn worker_facts(node: &Node) -> Facts {
    Facts {
        enclave: node.identity.is_hardware(),
        components: ["api", "consensus", "store", "workers"]
            .map(str::to_owned)
            .into(),
        tee_type: node.identity.tee(),
        security_level: u8::from(node.identity.is_hardware()),
        measurement: node.identity.measurement(),
    }
}

fn probes(
    node: &Node,
    config: &NodeConfig,
    kv: &Arc<dyn Kv>,
    certificate: &Arc<ServingCertificate>,
    authority: &Arc<Authority>,
    events: Option<Arc<Events>>,
) -> anyhow::Result<Probes> {
    let kv = Arc::clone(kv);
    let forms = Arc::new(Forms::new(
        Arc::clone(&node.identity),
        Arc::clone(certificate),
        config.cluster_id.clone(),
    )?);
    let authority_pem = authority.certificate_pem();
    let server = format!("https://{}", config.api.advertise);
    let (cluster_id, node_id) = (config.cluster_id.clone(), config.node_id);
    let cluster = node.consensus.cluster();
    Ok(Probes {
        ready: Arc::new(move || match kv.leadership().leader {
            Some(_) => Ok(()),
            None => Err("no leader is known".to_owned()),
        }),
        sui_connected: Arc::new(move || match &events {
            Some(events) => events.connected(),
            None => Err("this quorum follows no chain".to_owned()),
        }),
        attest: Arc::new(move |nonce, form| {
            let forms = Arc::clone(&forms);
            Box::pin(async move {
                tokio::task::spawn_blocking(move || forms.make(&nonce, form))
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| crate::exit::one_line(&error))
            })
        }),
        quorum: Arc::new(move || QuorumView {
            cluster: cluster_id.clone(),
            node_id,
            members: cluster.members(),
        }),
        kubeconfig: Arc::new(move |user| Ok(public_kubeconfig(&authority_pem, &server, user))),
    })
}

/// A kubeconfig without the private key, which never leaves its owner.
fn public_kubeconfig(authority_pem: &str, server: &str, user: &User) -> String {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority_pem);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (server, user) = (quoted(server), quoted(&user.name));
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: nautilus\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {authority}\ncontexts:\n- name: nautilus\n  context:\n    \
         cluster: nautilus\n    user: {user}\ncurrent-context: nautilus\nusers:\n- name: {user}\n  user: {{}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_kubeconfig_is_yaml_that_names_its_user() {
        let user = User {
            name: "a \"b\"".into(),
            ..User::anonymous()
        };
        let text = public_kubeconfig("CA", "https://127.0.0.1:1", &user);
        let parsed: serde_json::Value = serde_yaml_ng::from_str(&text).expect("YAML");
        assert_eq!(parsed["users"][0]["name"], "a \"b\"");
        assert_eq!(
            parsed["clusters"][0]["cluster"]["server"],
            "https://127.0.0.1:1"
        );
    }
}
