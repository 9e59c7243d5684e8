//! Registers with a quorum whose code it knows, and beats until it is stopped. Prints one
//! line per registration and beat.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use nautilus_attest_protocol::{EvidencePolicy, NoEndorsements, TeeKind};
use nautilus_attest_tee::{SimulatedVerifier, Verifiers};
use nautilus_client::{Address, BEAT_INTERVAL, Client, ClientConfig, Facts, Judge, Worker};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

#[derive(Parser)]
struct Arguments {
    /// A member; some suffice
    #[arg(long, value_delimiter = ',')]
    server: Vec<Address>,
    /// Accepted code, KIND:HEX
    #[arg(long, value_delimiter = ',', required = true)]
    measurement: Vec<String>,
    /// File of the key of simulated evidence (development)
    #[arg(long)]
    simulated_root_key: Option<PathBuf>,
    /// PEM file of the quorum's authority; names this very quorum
    #[arg(long)]
    ca: Option<PathBuf>,
    /// File that keeps the members' addresses
    #[arg(long)]
    cache: Option<PathBuf>,
    /// The worker's id
    #[arg(long)]
    node_id: String,
    /// Milliseconds between beats
    #[arg(long)]
    interval_ms: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Not a flag: other users of this machine read command lines.
    let token = Zeroizing::new(std::env::var("SEAL_TOKEN").context("SEAL_TOKEN")?);
    let interval = arguments.interval_ms.map(Duration::from_millis);
    let worker = Worker::new(Client::new(config(&arguments)?)?, &arguments.node_id, token)?
        .with_interval(interval.unwrap_or(BEAT_INTERVAL));
    let facts = || Facts {
        stake_status: Some("active".to_owned()),
        ..Facts::default()
    };
    let running = worker.run(facts, |step, result| match result {
        Ok(()) => println!(
            "{step:?}: {} members known",
            worker.client().endpoints().len()
        ),
        Err(error) => println!("{step:?} failed: {error}"),
    });
    tokio::select! {
        result = running => Ok(result?),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn config(arguments: &Arguments) -> anyhow::Result<ClientConfig> {
    let mut policy = EvidencePolicy::new(arguments.simulated_root_key.is_some());
    for text in &arguments.measurement {
        let (kind, hex) = text.split_once(':').context("--measurement is KIND:HEX")?;
        let kind: TeeKind = kind.parse().map_err(anyhow::Error::msg)?;
        policy = policy.allow(kind, hex.parse()?);
    }
    let mut verifiers = Verifiers::with_hardware(Arc::new(NoEndorsements));
    if let Some(path) = &arguments.simulated_root_key {
        let root = std::fs::read_to_string(path)?.parse()?;
        let verifier = Arc::new(SimulatedVerifier::new(root));
        verifiers = verifiers.with(TeeKind::Simulated, verifier);
    }
    let mut authority = None;
    if let Some(path) = &arguments.ca {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path)? {
            roots.add(certificate?)?;
        }
        authority = Some(roots);
    }
    Ok(ClientConfig {
        endpoints: arguments.server.clone(),
        judge: Judge::new(policy, Arc::new(verifiers)),
        authority,
        identity: None,
        cache: arguments.cache.clone(),
    })
}
