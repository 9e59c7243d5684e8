//! Registers with a quorum whose code it knows, and beats until it is stopped. Prints one
//! line per registration and beat.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use nautilus_attest_protocol::{EvidencePolicy, NoEndorsements, TeeKind};
use nautilus_attest_tee::{SimulatedVerifier, Verifiers};
use nautilus_client::{Address, BEAT_INTERVAL, Client, ClientConfig, Facts, Judge, Signer, Worker};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sui_crypto::SuiSigner as _;
use sui_crypto::ed25519::Ed25519PrivateKey;
use sui_sdk_types::PersonalMessage;
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
    /// File of the owner's Ed25519 seed, 64 hex digits; proves ownership
    #[arg(long)]
    owner_key: Option<PathBuf>,
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
    let client = Client::new(config(&arguments)?)?;
    let mut worker = Worker::new(client, &arguments.node_id, token)?
        .with_interval(interval.unwrap_or(BEAT_INTERVAL));
    if let Some(path) = &arguments.owner_key {
        let mut seed = [0; 32];
        let text = Zeroizing::new(std::fs::read_to_string(path)?);
        hex::decode_to_slice(text.trim(), &mut seed).context("--owner-key")?;
        worker = worker.with_owner(Arc::new(Wallet(Ed25519PrivateKey::new(seed))));
    }
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

/// A wallet whose key is at hand.
struct Wallet(Ed25519PrivateKey);

impl Signer for Wallet {
    fn sign_personal_message(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self
            .0
            .sign_personal_message(&PersonalMessage(message.into()));
        Ok(signature.map_err(|error| error.to_string())?.to_bytes())
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
