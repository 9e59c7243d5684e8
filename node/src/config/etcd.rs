//! The etcd face's part of the configuration, in etcd's own words: its flags are
//! aliases of ours, its forms of a value (`https://127.0.0.1:2379`, `8760h`, `1000`)
//! are accepted, and its variables `ETCD_*` are read where ours say nothing.

use std::time::Duration;

use nautilus_etcd::AutoCompaction;

use super::settings::EtcdSettings;
use super::{ConfigError, Endpoint, check};

/// Bytes of a request, at most, when nothing is said: etcd's default.
const REQUEST_BYTES_DEFAULT: u64 = 1_572_864;
/// The most that can be replicated in one piece.
const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Operations of a transaction, at most, when nothing is said: etcd's default.
const TXN_OPS_DEFAULT: u64 = 128;
/// The store's quota when nothing is said: etcd's default, 2 GiB.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// Streams of a connection when nothing is said.
const STREAMS_DEFAULT: u32 = 4096;
/// Between two progress notifications of a watch, when nothing is said: etcd's default.
const PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
/// A simple token's life, when nothing is said: etcd's default.
const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// bcrypt's cost, when nothing is said: etcd's default.
const BCRYPT_COST_DEFAULT: u32 = 10;

/// The etcd face of a node, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Etcd {
    /// Where etcd clients reach the node.
    pub(crate) endpoint: Endpoint,
    /// Bytes of a request, at most.
    pub(crate) max_request_bytes: usize,
    /// Operations of a transaction, at most.
    pub(crate) max_txn_ops: usize,
    /// Bytes of the store above which writes are refused (NOSPACE); `None`: no quota.
    pub(crate) quota_backend_bytes: Option<u64>,
    /// Streams of a connection, at most.
    pub(crate) max_concurrent_streams: u32,
    /// Which old revisions are forgotten without being asked.
    pub(crate) auto_compaction: AutoCompaction,
    /// The kind of tokens that users get.
    pub(crate) auth_token: String,
    /// A simple token's life without use.
    pub(crate) auth_token_ttl: Duration,
    /// bcrypt's cost.
    pub(crate) bcrypt_cost: u32,
    /// Between two progress notifications of a watch that asked for them.
    pub(crate) progress_notify_interval: Duration,
}

/// Checks the section; `None` where no listener is said: the face is off.
pub(super) fn etcd(said: EtcdSettings) -> Result<Option<Etcd>, ConfigError> {
    let said = said.over(EtcdSettings::of_etcd(|name| std::env::var(name).ok()));
    let Some(listen) = said.listen else {
        return Ok(None);
    };
    let endpoint = check::endpoint(
        ("etcd.listen", Some(address_of(&listen))),
        ("etcd.advertise", said.advertise.as_deref().map(address_of)),
    )?;
    let max_request_bytes = said.max_request_bytes.unwrap_or(REQUEST_BYTES_DEFAULT);
    if !(1024..=REQUEST_BYTES_MAX).contains(&max_request_bytes) {
        return Err(ConfigError::invalid(
            "etcd.max_request_bytes",
            max_request_bytes,
            "not between 1 KiB and 8 MiB",
            "write 1572864, as etcd has it, or what the largest object needs",
        ));
    }
    let bcrypt_cost = said.bcrypt_cost.unwrap_or(BCRYPT_COST_DEFAULT);
    if !(4..=31).contains(&bcrypt_cost) {
        return Err(ConfigError::invalid(
            "etcd.bcrypt_cost",
            bcrypt_cost,
            "bcrypt knows costs from 4 to 31",
            "write 10, as etcd has it",
        ));
    }
    Ok(Some(Etcd {
        endpoint,
        max_request_bytes: usize::try_from(max_request_bytes).unwrap_or(usize::MAX),
        max_txn_ops: usize::try_from(said.max_txn_ops.unwrap_or(TXN_OPS_DEFAULT).max(1))
            .unwrap_or(usize::MAX),
        quota_backend_bytes: quota(said.quota_backend_bytes),
        max_concurrent_streams: said
            .max_concurrent_streams
            .unwrap_or(STREAMS_DEFAULT)
            .max(1),
        auto_compaction: auto_compaction(
            said.auto_compaction_mode.as_deref(),
            said.auto_compaction_retention.as_deref(),
        )?,
        auth_token: said.auth_token.unwrap_or_else(|| "simple".to_owned()),
        auth_token_ttl: said
            .auth_token_ttl
            .map_or(TOKEN_TTL_DEFAULT, Duration::from_secs),
        bcrypt_cost,
        progress_notify_interval: duration_or(
            "etcd.watch_progress_notify_interval",
            said.watch_progress_notify_interval.as_deref(),
            PROGRESS_DEFAULT,
        )?,
    }))
}

/// 0 stands for the default, less for no quota at all, as in etcd.
fn quota(said: Option<i64>) -> Option<u64> {
    match said {
        None | Some(0) => Some(QUOTA_DEFAULT),
        Some(bytes) => u64::try_from(bytes).ok(),
    }
}

/// The address in a URL as etcd's flags have it; anything else as it is.
fn address_of(text: &str) -> String {
    let rest = text.strip_prefix("https://").unwrap_or(text);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    match rest.strip_prefix("localhost:") {
        Some(port) => format!("{}:{port}", std::net::Ipv4Addr::LOCALHOST),
        None => rest.to_owned(),
    }
}

fn auto_compaction(
    mode: Option<&str>,
    retention: Option<&str>,
) -> Result<AutoCompaction, ConfigError> {
    const KEY: &str = "etcd.auto_compaction_retention";
    let retention = retention.unwrap_or("0");
    match mode.unwrap_or("periodic") {
        "periodic" => {
            let hours: Option<u64> = retention.parse().ok();
            let period = match hours {
                Some(hours) => Duration::from_secs(hours.saturating_mul(3600)),
                None => duration_or(KEY, Some(retention), Duration::ZERO)?,
            };
            Ok(if period.is_zero() {
                AutoCompaction::Off
            } else {
                AutoCompaction::Periodic(period)
            })
        }
        "revision" => match retention.parse() {
            Ok(0) => Ok(AutoCompaction::Off),
            Ok(kept) => Ok(AutoCompaction::Revision(kept)),
            Err(error) => Err(ConfigError::invalid(
                KEY,
                retention,
                error,
                "write how many revisions are kept, as in 1000",
            )),
        },
        other => Err(ConfigError::invalid(
            "etcd.auto_compaction_mode",
            other,
            "no such mode",
            "write \"periodic\" or \"revision\"",
        )),
    }
}

/// A duration as Go writes it: numbers with units, as in `1h30m` or `500ms`.
pub(super) fn duration_or(
    key: &'static str,
    text: Option<&str>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    parse_duration(text).ok_or_else(|| {
        ConfigError::invalid(
            key,
            text,
            "not a duration",
            "write numbers with units h, m, s or ms, as in 1h30m",
        )
    })
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let part = match &rest[..unit] {
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

impl EtcdSettings {
    /// What etcd's own variables say.
    fn of_etcd(variable: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| variable(name).and_then(|text| text.parse().ok());
        Self {
            listen: variable("ETCD_LISTEN_CLIENT_URLS"),
            advertise: variable("ETCD_ADVERTISE_CLIENT_URLS"),
            max_request_bytes: number("ETCD_MAX_REQUEST_BYTES"),
            max_txn_ops: number("ETCD_MAX_TXN_OPS"),
            quota_backend_bytes: variable("ETCD_QUOTA_BACKEND_BYTES")
                .and_then(|text| text.parse().ok()),
            max_concurrent_streams: variable("ETCD_MAX_CONCURRENT_STREAMS")
                .and_then(|text| text.parse().ok()),
            auto_compaction_mode: variable("ETCD_AUTO_COMPACTION_MODE"),
            auto_compaction_retention: variable("ETCD_AUTO_COMPACTION_RETENTION"),
            auth_token: variable("ETCD_AUTH_TOKEN"),
            auth_token_ttl: number("ETCD_AUTH_TOKEN_TTL"),
            bcrypt_cost: variable("ETCD_BCRYPT_COST").and_then(|text| text.parse().ok()),
            watch_progress_notify_interval: variable("ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_forms_of_a_value_are_understood() {
        assert_eq!(address_of("https://127.0.0.1:2379"), "127.0.0.1:2379");
        assert_eq!(address_of("https://localhost:2379/"), "127.0.0.1:2379");
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("10"), None);
        assert_eq!(quota(Some(0)), Some(QUOTA_DEFAULT));
        assert_eq!(quota(Some(-1)), None);
        let auto = |mode, retention| auto_compaction(Some(mode), Some(retention)).expect("read");
        assert_eq!(
            auto("periodic", "8"),
            AutoCompaction::Periodic(Duration::from_secs(8 * 3600))
        );
        assert_eq!(auto("revision", "1000"), AutoCompaction::Revision(1000));
        assert_eq!(auto("periodic", "0"), AutoCompaction::Off);
    }

    #[test]
    fn without_a_listener_there_is_no_face() {
        assert_eq!(etcd(EtcdSettings::default()).expect("nothing said"), None);
    }

    #[test]
    fn a_plaintext_url_is_refused() {
        let said = EtcdSettings {
            listen: Some("http://127.0.0.1:2379".to_owned()),
            ..EtcdSettings::default()
        };
        let error = etcd(said).expect_err("no TLS").to_string();
        assert!(error.starts_with("etcd.listen"), "{error}");
    }
}
