//! From [`Settings`] to [`NodeConfig`]: every value is checked here, once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use nautilus_attest_protocol::{EvidencePolicy, Measurement, OWN_MEASUREMENT_WORD, TeeKind};
use nautilus_attest_tee::{DEFAULT_PCRS, PcrSelection};
use nautilus_attest_tls::RENEWAL_INTERVAL;

use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{
    Attestation, AttestationSettings, Bootstrap, ConfigError, Endpoint, Log, LogFormat,
    LogSettings, NodeConfig, Operator, Provider, RaftSettings, RaftTimings, Settings, Tpm, backup,
};

/// Log entries between two checkpoints, when nothing is said.
const CHECKPOINT_EVERY_DEFAULT: u64 = 50_000;
/// Fewer entries than this between checkpoints would spend the node on snapshots.
const CHECKPOINT_EVERY_MIN: u64 = 100;
/// An orderly shutdown, when nothing is said.
const SHUTDOWN_TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// Heartbeats, when nothing is said.
const HEARTBEAT_DEFAULT_MS: u64 = 50;
/// Elections, when nothing is said.
const ELECTION_DEFAULT_MS: (u64, u64) = (150, 250);
/// A rotation of keys, when nothing is said: a part of what a disk and a core can do.
const REENCRYPT_DEFAULT_BYTES_PER_S: u64 = 32 << 20;
/// And at least.
const REENCRYPT_MIN_BYTES_PER_S: u64 = 64 << 10;
/// What is logged, when nothing is said: what the consensus library says is repeated by
/// our own crate where it matters.
const LOG_FILTER_DEFAULT: &str = "info,openraft=error";
/// The provider that takes what the machine has.
const AUTO: &str = "auto";
/// Evidence renewed more often than this would keep the TEE from everything else.
const RENEWAL_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest name of a quorum.
const CLUSTER_ID_MAX_LENGTH: usize = 64;
/// The most operators a quorum is founded with.
const OPERATORS_MAX: usize = 64;

/// Checks everything, in the order of the documentation.
pub(super) fn check(settings: Settings) -> Result<NodeConfig, ConfigError> {
    let control = super::control::control(&settings)?;
    let cluster_id = cluster_id(settings.cluster_id)?;
    let node_id = match settings.node_id {
        None => {
            return Err(ConfigError::missing(
                "node_id",
                "write a whole number from 1",
            ));
        }
        Some(0) => {
            return Err(ConfigError::invalid(
                "node_id",
                0,
                "0 names no node",
                "write a whole number from 1, unlike those of the other nodes",
            ));
        }
        Some(id) => id,
    };
    let data_dir = settings
        .data_dir
        .ok_or_else(|| ConfigError::missing("data_dir", "write the directory's path"))?;
    let bootstrap = bootstrap(settings.bootstrap.as_deref(), settings.join_addresses)?;
    let operators = operators(settings.operators.unwrap_or_default())?;
    if bootstrap == Bootstrap::Genesis && operators.is_empty() {
        return Err(ConfigError::missing(
            "operators",
            "name whoever may ask for credentials, as in admin=operator.pub: a quorum founded \
             without operators has none for good",
        ));
    }
    let operators_threshold = operators_threshold(settings.operators_threshold, operators.len())?;
    let founds = bootstrap == Bootstrap::Genesis;
    let kubelets = super::kubelet::kubelets(
        settings.api.kubelet_certificate_authority.as_deref(),
        settings.api.kubelet_preferred_address_types,
    )?;
    Ok(NodeConfig {
        kubelets,
        node_id,
        cluster_id,
        data_dir,
        bootstrap,
        peer: endpoint(
            ("peer.listen", settings.peer.listen),
            ("peer.advertise", settings.peer.advertise),
        )?,
        api: endpoint(
            ("api.listen", settings.api.listen),
            ("api.advertise", settings.api.advertise),
        )?,
        etcd: super::etcd::etcd(settings.etcd)?,
        api_extra_sans: settings.api.extra_sans.unwrap_or_default(),
        api_inflight: [
            settings.api.max_requests_inflight,
            settings.api.max_mutating_requests_inflight,
        ],
        plain_http_listen: settings
            .plain_http_listen
            .map(plain_http_listen)
            .transpose()?,
        operators,
        operators_threshold,
        backup: backup::backup(settings.backup)?,
        restore: backup::restore(settings.restore, founds)?,
        attestation: attestation(settings.attestation)?,
        sui: super::sui::sui(settings.sui, settings.tokens_file.as_deref())?,
        tokens_file: settings
            .tokens_file
            .map(|path| existing("tokens_file", path))
            .transpose()?,
        raft: raft(&settings.raft)?,
        checkpoint_every: checkpoint_every(settings.checkpoint_every)?,
        keys_reencrypt_bytes_per_s: reencrypt_rate(settings.keys.reencrypt_bytes_per_s)?,
        authentication: settings
            .authentication
            .config
            .map(|path| existing("authentication.config", path))
            .transpose()?,
        service_account_issuers: issuers(settings.authentication.service_account_issuer)?,
        control,
        audit: super::audit::audit(settings.audit)?,
        log: log(settings.log)?,
        otlp_endpoint: settings.otlp_endpoint.map(otlp_endpoint).transpose()?,
        shutdown_timeout: Duration::from_millis(
            settings
                .shutdown_timeout_ms
                .unwrap_or(SHUTDOWN_TIMEOUT_DEFAULT_MS),
        ),
    })
}

fn reencrypt_rate(value: Option<u64>) -> Result<u64, ConfigError> {
    let rate = value.unwrap_or(REENCRYPT_DEFAULT_BYTES_PER_S);
    if rate < REENCRYPT_MIN_BYTES_PER_S {
        return Err(ConfigError::invalid(
            "keys.reencrypt_bytes_per_s",
            rate,
            "at this rate a rotation never ends",
            "write at least 65536",
        ));
    }
    Ok(rate)
}

fn cluster_id(value: Option<String>) -> Result<String, ConfigError> {
    const REMEDY: &str = "write 1 to 64 of the characters a-z, 0-9 and -";
    let value = value.ok_or_else(|| ConfigError::missing("cluster_id", REMEDY))?;
    let fits = (1..=CLUSTER_ID_MAX_LENGTH).contains(&value.len())
        && value
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if fits {
        Ok(value)
    } else {
        Err(ConfigError::invalid(
            "cluster_id",
            value,
            "not a name",
            REMEDY,
        ))
    }
}

fn bootstrap(
    value: Option<&str>,
    join_addresses: Option<Vec<String>>,
) -> Result<Bootstrap, ConfigError> {
    const REMEDY: &str = "write \"genesis\" (this node founds the quorum), \"join\", or \"recover\" (see `nautilus recover --help`)";
    let join_addresses = join_addresses.unwrap_or_default();
    match value {
        None => Err(ConfigError::missing("bootstrap", REMEDY)),
        Some("genesis") if join_addresses.is_empty() => Ok(Bootstrap::Genesis),
        Some("genesis") => Err(ConfigError::invalid(
            "join_addresses",
            join_addresses.join(","),
            "a founder joins nobody",
            "remove it, or write bootstrap = \"join\"",
        )),
        Some("recover") => Ok(Bootstrap::Recover),
        Some("join") if join_addresses.is_empty() => Err(ConfigError::missing(
            "join_addresses",
            "write the peer addresses of members",
        )),
        Some("join") => {
            for address in &join_addresses {
                host_and_port("join_addresses", address)?;
            }
            Ok(Bootstrap::Join(join_addresses))
        }
        Some(other) => Err(ConfigError::invalid(
            "bootstrap",
            other,
            "no such way",
            REMEDY,
        )),
    }
}

/// A listener, and what to tell others about it.
pub(super) fn endpoint(
    (listen_key, listen): (&'static str, Option<String>),
    (advertise_key, advertise): (&'static str, Option<String>),
) -> Result<Endpoint, ConfigError> {
    const REMEDY: &str = "write an IP address and a port, as in 127.0.0.1:6443";
    let listen = listen.ok_or_else(|| ConfigError::missing(listen_key, REMEDY))?;
    let address: SocketAddr = listen
        .parse()
        .map_err(|error| ConfigError::invalid(listen_key, &listen, error, REMEDY))?;
    let advertise = match advertise {
        Some(advertise) => {
            host_and_port(advertise_key, &advertise)?;
            advertise
        }
        None if address.ip().is_unspecified() => {
            return Err(ConfigError::invalid(
                advertise_key,
                "",
                format!("{listen_key} is {listen}, which others can't connect to"),
                "write the host name or address and port that others use",
            ));
        }
        None => listen,
    };
    Ok(Endpoint {
        listen: address,
        advertise,
    })
}

fn host_and_port(key: &'static str, value: &str) -> Result<(), ConfigError> {
    let fits = value
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0));
    if fits {
        return Ok(());
    }
    Err(ConfigError::invalid(
        key,
        value,
        "not host:port",
        "write a host name or address and a port, as in 10.0.0.5:7443",
    ))
}

fn plain_http_listen(value: String) -> Result<SocketAddr, ConfigError> {
    const KEY: &str = "plain_http_listen";
    const REMEDY: &str =
        "write a loopback address, as in 127.0.0.1:8080; others must use TLS (api.listen)";
    let address: SocketAddr = value
        .parse()
        .map_err(|error| ConfigError::invalid(KEY, &value, error, REMEDY))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(ConfigError::invalid(
        KEY,
        value,
        "tokens would cross the network unencrypted",
        REMEDY,
    ))
}

fn operators(values: Vec<String>) -> Result<Vec<Operator>, ConfigError> {
    const KEY: &str = "operators";
    if values.len() > OPERATORS_MAX {
        return Err(ConfigError::invalid(
            KEY,
            values.len(),
            "more than 64",
            "name fewer",
        ));
    }
    values
        .into_iter()
        .map(|value| {
            let Some((user, path)) = value.split_once('=').filter(|(user, _)| !user.is_empty())
            else {
                return Err(ConfigError::invalid(
                    KEY,
                    value,
                    "not USER=FILE",
                    "write a user name and the file of the public key, as in admin=operator.pub",
                ));
            };
            let bytes = std::fs::read(path).map_err(|error| {
                ConfigError::invalid(KEY, &value, error, "name a readable public key file")
            })?;
            let public_key_der = public_key_der(&bytes).map_err(|reason| {
                ConfigError::invalid(
                    KEY,
                    &value,
                    reason,
                    "give a SubjectPublicKeyInfo in PEM (`-----BEGIN PUBLIC KEY-----`) or DER",
                )
            })?;
            Ok(Operator {
                user: user.to_owned(),
                public_key_der,
            })
        })
        .collect()
}

/// More than half when nothing is said.
fn operators_threshold(value: Option<u32>, operators: usize) -> Result<u32, ConfigError> {
    let operators = u32::try_from(operators).unwrap_or(u32::MAX);
    match value {
        None => Ok(operators / 2 + 1),
        Some(value) if (1..=operators.max(1)).contains(&value) => Ok(value),
        Some(value) => Err(ConfigError::invalid(
            "operators_threshold",
            value,
            format!("there are {operators} operators"),
            "write 1 to the number of operators",
        )),
    }
}

/// The DER of a public key given as PEM or DER.
fn public_key_der(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let der = match std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.contains("-----BEGIN"))
    {
        Some(text) => {
            let body = text
                .split_once("-----BEGIN PUBLIC KEY-----")
                .and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY-----"))
                .map(|(body, _)| body.split_whitespace().collect::<String>())
                .ok_or("no block `PUBLIC KEY` in it")?;
            base64::engine::general_purpose::STANDARD
                .decode(body)
                .map_err(|error| error.to_string())?
        }
        None => bytes.to_vec(),
    };
    let (rest, _) = SubjectPublicKeyInfo::from_der(&der)
        .map_err(|error| format!("not a public key: {error}"))?;
    if !rest.is_empty() {
        return Err("bytes follow the public key".to_owned());
    }
    Ok(der)
}

fn attestation(settings: AttestationSettings) -> Result<Attestation, ConfigError> {
    let allow_simulated = settings.allow_simulated.unwrap_or(false);
    let provider = match settings.provider.as_deref().unwrap_or(AUTO) {
        AUTO => Provider::Hardware(None),
        "simulated" if !allow_simulated => {
            return Err(ConfigError::invalid(
                "attestation.provider",
                "simulated",
                "simulated evidence proves nothing about hardware and is not allowed",
                "for a development quorum write attestation.allow_simulated = true",
            ));
        }
        "simulated" => Provider::Simulated {
            root: settings
                .simulated_root
                .ok_or_else(|| {
                    ConfigError::missing("attestation.simulated_root", "name the root's file")
                })
                .and_then(|path| existing("attestation.simulated_root", path))?,
            platform_secret: settings
                .platform_secret
                .ok_or_else(|| {
                    ConfigError::missing("attestation.platform_secret", "name the secret's file")
                })
                .and_then(|path| existing("attestation.platform_secret", path))?,
        },
        other => match other.parse::<TeeKind>() {
            Ok(kind) => Provider::Hardware(Some(kind)),
            Err(_) => {
                return Err(ConfigError::invalid(
                    "attestation.provider",
                    other,
                    "no such provider",
                    "write \"auto\" (what the machine has, see `nautilus attest detect`), \"nitro\", \
                     \"snp\", \"tdx\", \"sgx\" or \"simulated\"",
                ));
            }
        },
    };
    let allowed_measurements = settings
        .allowed_measurements
        .unwrap_or_else(|| vec![OWN_MEASUREMENT_WORD.to_owned()]);
    allowed(&allowed_measurements, allow_simulated)?;
    Ok(Attestation {
        provider,
        tpm: tpm(settings.tpm, settings.tpm_pcrs.as_deref())?,
        allow_simulated,
        allowed_measurements,
        renewal_interval: renewal_interval(settings.renewal_interval)?,
        endorsements: super::endorsements::endorsements(settings.endorsements)?,
    })
}

fn tpm(path: Option<PathBuf>, registers: Option<&[u8]>) -> Result<Option<Tpm>, ConfigError> {
    let selection = PcrSelection::new(registers.unwrap_or(DEFAULT_PCRS)).map_err(|error| {
        let numbers: Vec<_> = registers.iter().copied().flatten().collect();
        ConfigError::invalid(
            "attestation.tpm_pcrs",
            format!("{numbers:?}"),
            error,
            "write the numbers of registers that the machine's start extends",
        )
    })?;
    match path {
        Some(path) if path.exists() => Ok(Some(Tpm {
            path,
            registers: selection,
        })),
        Some(path) => Err(ConfigError::invalid(
            "attestation.tpm",
            path.display(),
            "no such device",
            "name the TPM's device with a resource manager, as in /dev/tpmrm0, or remove it",
        )),
        None => Ok(None),
    }
}

fn renewal_interval(value: Option<String>) -> Result<Duration, ConfigError> {
    const KEY: &str = "attestation.renewal_interval";
    const REMEDY: &str = "write a duration of at least 100ms, as in 10m";
    let Some(value) = value else {
        return Ok(RENEWAL_INTERVAL);
    };
    let interval = super::parse_duration(&value)
        .ok_or_else(|| ConfigError::invalid(KEY, &value, "not a duration", REMEDY))?;
    if interval < RENEWAL_INTERVAL_MIN {
        return Err(ConfigError::invalid(
            KEY,
            &value,
            "evidence would be made without pause",
            REMEDY,
        ));
    }
    Ok(interval)
}

/// Whether the entries parse; which measurement is the own one does not matter yet.
fn allowed(entries: &[String], allow_simulated: bool) -> Result<(), ConfigError> {
    let invalid = |reason: String| {
        ConfigError::invalid(
            "attestation.allowed_measurements",
            entries.join(","),
            reason,
            "write \"self\", or the hex that `nautilus status --output json` shows",
        )
    };
    let any = Measurement::new([0; 32]).map_err(|error| invalid(error.to_string()))?;
    let entries = entries.iter().map(String::as_str);
    EvidencePolicy::from_text(entries, allow_simulated, TeeKind::Simulated, &any)
        .map(|_| ())
        .map_err(|error| invalid(error.to_string()))
}

pub(super) fn existing(key: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    if Path::new(&path).is_file() {
        return Ok(path);
    }
    Err(ConfigError::invalid(
        key,
        path.display(),
        "no such file",
        "name an existing file",
    ))
}

/// An issuer with a colon is a URL (RFC 7519, 4.1.1).
fn issuers(issuers: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let issuers = issuers.unwrap_or_default();
    let wrong = |issuer: &&String| issuer.is_empty() || issuer.contains(':') && !is_url(issuer);
    match issuers.iter().find(wrong) {
        None => Ok(issuers),
        Some(issuer) => Err(ConfigError::invalid(
            "authentication.service_account_issuer",
            issuer,
            "neither a name nor a URL",
            "write one as in https://kubernetes.example.org",
        )),
    }
}

fn is_url(text: &str) -> bool {
    let uri: Result<http::Uri, _> = text.parse();
    uri.is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some())
}

fn raft(settings: &RaftSettings) -> Result<RaftTimings, ConfigError> {
    let heartbeat = settings
        .heartbeat_interval_ms
        .unwrap_or(HEARTBEAT_DEFAULT_MS);
    let min = settings
        .election_timeout_min_ms
        .unwrap_or(ELECTION_DEFAULT_MS.0);
    let max = settings.election_timeout_max_ms.unwrap_or_else(|| {
        if min < ELECTION_DEFAULT_MS.1 {
            ELECTION_DEFAULT_MS.1
        } else {
            min.saturating_mul(2)
        }
    });
    if heartbeat == 0 {
        return Err(ConfigError::invalid(
            "raft.heartbeat_interval_ms",
            heartbeat,
            "a leader can't beat without pause",
            "write at least 1; 50 suits one machine or one building",
        ));
    }
    if min < heartbeat.saturating_mul(2) {
        return Err(ConfigError::invalid(
            "raft.election_timeout_min_ms",
            min,
            format!("less than two heartbeats ({heartbeat} ms each) would depose every leader"),
            "write at least three times raft.heartbeat_interval_ms",
        ));
    }
    if max <= min {
        return Err(ConfigError::invalid(
            "raft.election_timeout_max_ms",
            max,
            format!("not above raft.election_timeout_min_ms ({min})"),
            "write twice raft.election_timeout_min_ms, so that candidates rarely collide",
        ));
    }
    Ok(RaftTimings {
        heartbeat_interval: Duration::from_millis(heartbeat),
        election_timeout_min: Duration::from_millis(min),
        election_timeout_max: Duration::from_millis(max),
    })
}

fn checkpoint_every(value: Option<u64>) -> Result<u64, ConfigError> {
    let value = value.unwrap_or(CHECKPOINT_EVERY_DEFAULT);
    if value >= CHECKPOINT_EVERY_MIN {
        return Ok(value);
    }
    Err(ConfigError::invalid(
        "checkpoint_every",
        value,
        "the node would do nothing but snapshots",
        "write at least 100 entries",
    ))
}

fn log(settings: LogSettings) -> Result<Log, ConfigError> {
    let format = match settings.format.as_deref() {
        None | Some("human") => LogFormat::Human,
        Some("json") => LogFormat::Json,
        Some(other) => {
            return Err(ConfigError::invalid(
                "log.format",
                other,
                "no such format",
                "write \"human\" or \"json\"",
            ));
        }
    };
    let filter = settings
        .filter
        .unwrap_or_else(|| LOG_FILTER_DEFAULT.to_owned());
    tracing_subscriber::EnvFilter::try_new(&filter).map_err(|error| {
        ConfigError::invalid(
            "log.filter",
            &filter,
            error,
            "write a level (error, warn, info, debug, trace) or target=level, by commas",
        )
    })?;
    Ok(Log { format, filter })
}

fn otlp_endpoint(value: String) -> Result<String, ConfigError> {
    let uri: Result<http::Uri, _> = value.parse();
    if uri
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
    {
        return Ok(value);
    }
    Err(ConfigError::invalid(
        "otlp_endpoint",
        value,
        "not an http(s) URL",
        "write the collector's gRPC endpoint, as in http://127.0.0.1:4317",
    ))
}
