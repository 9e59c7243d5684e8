//! `nautilus bench attest`: what attestation costs. The time to verify one piece of
//! genuine evidence of each kind, its endorsements at hand; and connections per
//! second between two masters in this process, over TCP, with attestation and as
//! plain mutual TLS of the same algorithms.
//!
//! The evidence is the fixtures of `attest/tee`, each at its own clock; masters play
//! a simulated TEE.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nautilus_attest_protocol::{
    Endorsements, Evidence, EvidencePolicy, Measurement, Quoter as _, TeeKind, UnixMillis, Verifier,
};
use nautilus_attest_tee::{
    PlatformSecret, SimulatedProvider, SimulatedRoot, SimulatedVerifier, Verifiers,
};
use nautilus_attest_tls::{AttestedEndpoint, EndpointConfig, NoPins, Policy, RENEWAL_INTERVAL};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::plain::PlainEndpoint;
use super::report::Row;
use crate::up::progress::Progress;

/// Connections made at once.
const CONNECTIONS_AT_ONCE: usize = 4;
/// Rounds of each kind of connection, in turn, so that both see the same machine.
const ROUNDS: u32 = 4;

/// `nautilus bench attest`.
#[derive(Args)]
pub(crate) struct AttestArgs {
    /// How long connections of each kind are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "S")]
    seconds: u64,
    /// How often each piece of evidence is verified
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=100_000), value_name = "N")]
    verifications: u64,
}

/// One genuine piece of evidence: its kind, its bytes, its clock and its
/// endorsements by name.
struct Genuine {
    kind: TeeKind,
    body: &'static [u8],
    at_ms: UnixMillis,
    endorsements: &'static [(&'static str, &'static [u8])],
}

macro_rules! fixture {
    ($path:literal) => {
        include_bytes!(concat!("../../../attest/tee/fixtures/", $path)).as_slice()
    };
}

/// See `attest/tee/fixtures/README.md`.
const GENUINE: [Genuine; 4] = [
    Genuine {
        kind: TeeKind::Tdx,
        body: fixture!("intel/tdx-v4/quote.bin"),
        at_ms: 1_751_328_000_000,
        endorsements: &[
            (
                "intel/tcb/tdx/b0c06f000000",
                fixture!("intel/tdx-v4/endorsements/intel/tcb/tdx/b0c06f000000"),
            ),
            (
                "intel/qe/tdx",
                fixture!("intel/tdx-v4/endorsements/intel/qe/tdx"),
            ),
            (
                "intel/crl/platform",
                fixture!("intel/tdx-v4/endorsements/intel/crl/platform"),
            ),
            (
                "intel/crl/root",
                fixture!("intel/tdx-v4/endorsements/intel/crl/root"),
            ),
        ],
    },
    Genuine {
        kind: TeeKind::Sgx,
        body: fixture!("intel/sgx-v3/quote.bin"),
        at_ms: 1_751_328_000_000,
        endorsements: &[
            (
                "intel/tcb/sgx/00a067110000",
                fixture!("intel/sgx-v3/endorsements/intel/tcb/sgx/00a067110000"),
            ),
            (
                "intel/qe/sgx",
                fixture!("intel/sgx-v3/endorsements/intel/qe/sgx"),
            ),
            (
                "intel/crl/processor",
                fixture!("intel/sgx-v3/endorsements/intel/crl/processor"),
            ),
            (
                "intel/crl/root",
                fixture!("intel/sgx-v3/endorsements/intel/crl/root"),
            ),
        ],
    },
    Genuine {
        kind: TeeKind::Snp,
        body: fixture!("snp/milan-v5/report.bin"),
        at_ms: 1_782_864_000_000,
        endorsements: &[
            (
                "amd/crl/milan",
                fixture!("snp/milan-v5/endorsements/amd/crl/milan"),
            ),
            (
                "amd/vcek/milan/84ce42a85a857b8c9e17196ab8afa2331d74b477622dff13eceee2724a5888d2d80dbd3114ede150bfc0a9821628efdc4a38c4374f6dae8061a0adb9e0f4fa67/0400000000001dde",
                fixture!(
                    "snp/milan-v5/endorsements/amd/vcek/milan/84ce42a85a857b8c9e17196ab8afa2331d74b477622dff13eceee2724a5888d2d80dbd3114ede150bfc0a9821628efdc4a38c4374f6dae8061a0adb9e0f4fa67/0400000000001dde"
                ),
            ),
        ],
    },
    Genuine {
        kind: TeeKind::Nitro,
        body: fixture!("nitro/document.cbor"),
        at_ms: 1_736_179_685_472,
        endorsements: &[],
    },
];

/// Endorsements compiled in.
struct AtHand(Vec<(&'static str, Arc<[u8]>)>);

impl Endorsements for AtHand {
    fn find(&self, name: &str) -> Option<Arc<[u8]>> {
        let mut known = self.0.iter();
        known
            .find(|(known, _)| *known == name)
            .map(|(_, value)| Arc::clone(value))
    }
}

/// Measures every row.
pub(super) async fn run(arguments: &AttestArgs, progress: &Progress) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for genuine in &GENUINE {
        let name = format!("verify_{}_ms", genuine.kind);
        progress.wait(&name);
        let median = verify(genuine, arguments.verifications)?;
        progress.say(&format!("{name}: {median:.3}"));
        rows.push(Row::new(name, "ms", median));
    }

    let attested = Arc::new(Attested::new()?);
    let plain = Arc::new(PlainEndpoint::new()?);
    let round = Duration::from_secs(arguments.seconds) / ROUNDS;
    let mut measured = [Connections::default(); 2];
    for turn in 1..=ROUNDS {
        progress.wait(&format!("connections, round {turn} of {ROUNDS}"));
        let pair = Arc::clone(&attested);
        measured[0] += connections(round, move |stream, end| {
            let pair = Arc::clone(&pair);
            async move { pair.handshake(stream, end).await }
        })
        .await?;
        let pair = Arc::clone(&plain);
        measured[1] += connections(round, move |stream, end| {
            let pair = Arc::clone(&pair);
            async move { pair.handshake(stream, end).await }
        })
        .await?;
    }
    let [attested, plain] = measured.map(|kind| kind.per_second());
    progress.say(&format!(
        "connections per second: {attested:.0} attested, {plain:.0} plain"
    ));
    rows.push(Row::new("handshakes_attested_per_s", "1/s", attested));
    rows.push(Row::new("handshakes_plain_per_s", "1/s", plain));
    let share = attested / plain;
    rows.push(Row::new("handshakes_attested_share", "ratio", share));
    for (name, kind) in ["attested", "plain"].into_iter().zip(measured) {
        let name = format!("handshake_{name}_cpu_ms");
        rows.push(Row::new(name, "ms", kind.processor_ms()));
    }
    Ok(rows)
}

/// The median time of a verification, in milliseconds.
fn verify(genuine: &Genuine, times: u64) -> anyhow::Result<f64> {
    let endorsements = genuine.endorsements.iter();
    let endorsements = endorsements.map(|(name, value)| (*name, Arc::from(*value)));
    let verifiers = Verifiers::with_hardware(Arc::new(AtHand(endorsements.collect())));
    let evidence = Evidence::new(genuine.kind, genuine.body.to_vec());
    let mut taken = Vec::new();
    for _ in 0..times {
        let started = Instant::now();
        let claims = verifiers.verify(&evidence, genuine.at_ms);
        taken.push(started.elapsed());
        claims.with_context(|| format!("verify the {} fixture", genuine.kind))?;
    }
    taken.sort_unstable();
    let median = taken.get(taken.len() / 2).copied().unwrap_or_default();
    Ok(median.as_secs_f64() * 1000.0)
}

/// Connections made, in how much time, and how much time of processors: beside other
/// work on the machine only the latter compares.
#[derive(Clone, Copy, Default)]
struct Connections {
    made: u32,
    taken: Duration,
    processor: Duration,
}

impl Connections {
    fn per_second(self) -> f64 {
        f64::from(self.made) / self.taken.as_secs_f64()
    }

    /// Both ends together, in milliseconds.
    fn processor_ms(self) -> f64 {
        self.processor.as_secs_f64() * 1000.0 / f64::from(self.made)
    }
}

impl std::ops::AddAssign for Connections {
    fn add_assign(&mut self, other: Self) {
        self.made += other.made;
        self.taken += other.taken;
        self.processor += other.processor;
    }
}

/// The time of processors that this process has taken, in user and in kernel mode
/// (fields 14 and 15 of `/proc/self/stat`, in ticks).
fn processor_time() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // The second field is a name in parentheses, in which anything may stand.
    let after_name = text.rsplit_once(')').map(|(_, rest)| rest);
    let fields = after_name.unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<_, _>>().context("/proc/self/stat")?;
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(Duration::from_secs(1) * ticks / per_second.max(1))
}

/// Which end of a connection.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The one that dialed.
    Dialed,
    /// The one that accepted.
    Accepted,
}

/// Makes connections for `duration`, some at once, both ends in this process.
async fn connections<F, O>(duration: Duration, handshake: F) -> anyhow::Result<Connections>
where
    F: Fn(TcpStream, End) -> O + Clone + Send + 'static,
    O: Future<Output = anyhow::Result<()>> + Send,
{
    let started = Instant::now();
    let processor_before = processor_time()?;
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS_AT_ONCE {
        let handshake = handshake.clone();
        workers.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let mut made: u32 = 0;
            while started.elapsed() < duration {
                let (dialed, accepted) =
                    tokio::try_join!(TcpStream::connect(address), listener.accept())?;
                tokio::try_join!(
                    handshake(dialed, End::Dialed),
                    handshake(accepted.0, End::Accepted)
                )?;
                made += 1;
            }
            anyhow::Ok(made)
        });
    }
    let mut made = 0;
    while let Some(worker) = workers.join_next().await {
        made += worker??;
    }
    Ok(Connections {
        made,
        taken: started.elapsed(),
        processor: processor_time()?.saturating_sub(processor_before),
    })
}

/// Two masters of one quorum.
struct Attested {
    dialing: AttestedEndpoint,
    accepting: AttestedEndpoint,
}

impl Attested {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("nautilus-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let ends = (Self::endpoint(&folder, 1), Self::endpoint(&folder, 2));
        std::fs::remove_dir_all(&folder)?;
        Ok(Self {
            dialing: ends.0?,
            accepting: ends.1?,
        })
    }

    fn endpoint(folder: &std::path::Path, node_id: u64) -> anyhow::Result<AttestedEndpoint> {
        let root = SimulatedRoot::load_or_create(&folder.join("root"))?;
        let secret = PlatformSecret::load_or_create(&folder.join(format!("platform-{node_id}")))?;
        let measurement = Measurement::new([1; 48])?;
        let verifier = SimulatedVerifier::new(root.public_key());
        let provider = SimulatedProvider::new(root, secret, measurement.clone());
        let kind = provider.kind();
        let policy = EvidencePolicy::new(true).allow(kind, measurement);
        Ok(AttestedEndpoint::new(EndpointConfig {
            cluster_id: "bench".to_owned(),
            node_id,
            quoter: Arc::new(provider),
            verifier: Arc::new(Verifiers::new().with(kind, Arc::new(verifier))),
            policy: watch::channel(Arc::new(Policy::of_evidence(policy))).1,
            renewal_interval: RENEWAL_INTERVAL,
            pins: Arc::new(NoPins),
        })?)
    }

    async fn handshake(&self, stream: TcpStream, end: End) -> anyhow::Result<()> {
        match end {
            End::Dialed => self.dialing.connect(stream, Some(2)).await?,
            End::Accepted => self.accepting.accept(stream).await?,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixture_is_accepted_with_the_endorsements_beside_it() {
        for genuine in &GENUINE {
            assert!(verify(genuine, 1).is_ok(), "{}", genuine.kind);
        }
    }
}
