//! `[sui]`: the chain that Seal tokens are judged by.

use std::path::Path;
use std::time::Duration;

use nautilus_sui::{
    Address, Agreement, ChainSettings, FullNode, Layout, ValidatorCommittee, Verification, limits,
    shape::{self, Shape},
};
use nautilus_workers::StakeTiers;

use super::{ConfigError, SuiSettings, parse_duration};

const FULL_NODES: &str = "sui.full_nodes";
/// Shortest time for which a verdict may hold.
const VERDICT_LIFETIME_LEAST: Duration = Duration::from_secs(1);
/// Shortest and longest time for one request.
const REQUEST_TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(30);

/// The chain, and what is made of it.
#[derive(Debug, Clone)]
pub(crate) struct Sui {
    /// Which chain, and whom to ask.
    pub(crate) chain: ChainSettings,
    /// What a stake permits.
    pub(crate) tiers: StakeTiers,
    /// How old a verdict may be that is used while the chain is out of reach.
    pub(crate) grace: Duration,
    /// How long a verdict holds by itself.
    pub(crate) verdict_lifetime: Duration,
    /// How long a node drains.
    pub(crate) drain: Duration,
}

/// Whether the environment names a chain to nodes that are started in it.
pub(crate) fn names_chain() -> bool {
    std::env::var_os("NAUTILUS_SUI_FULL_NODES").is_some()
}

pub(super) fn sui(
    settings: SuiSettings,
    tokens_file: Option<&Path>,
) -> Result<Option<Sui>, ConfigError> {
    let Some(full_nodes) = settings.full_nodes.filter(|nodes| !nodes.is_empty()) else {
        return match settings.package {
            None => Ok(None),
            Some(_) => Err(ConfigError::missing(
                FULL_NODES,
                "name whom to ask, as in grpc=https://fullnode.mainnet.sui.io",
            )),
        };
    };
    if let Some(file) = tokens_file {
        return Err(ConfigError::invalid(
            "tokens_file",
            file.display(),
            "tokens are judged by the chain already (sui.full_nodes)",
            "remove tokens_file, or the section [sui] for development",
        ));
    }
    let full_nodes: Result<Vec<FullNode>, ConfigError> =
        full_nodes.iter().map(|text| full_node(text)).collect();
    let package = settings
        .package
        .ok_or_else(|| ConfigError::missing("sui.package", "write the package's id, 0x and hex"))?;
    let chain = ChainSettings {
        full_nodes: full_nodes?,
        authorities: authorities(settings.certificate_authority.as_deref())?,
        package: address("sui.package", &package)?,
        layout: layout(
            settings.layout.as_deref(),
            settings.registry,
            settings.token_struct,
            settings.stake_struct,
        )?,
        agreement: match settings.cross_check {
            Some(true) => Agreement::Two,
            _ => Agreement::One,
        },
        verification: verification(settings.verify.as_deref(), settings.committee.as_deref())?,
        request_timeout: request_timeout(settings.request_timeout)?,
        hedge_after: duration("sui.hedge_after", settings.hedge_after, limits::HEDGE_AFTER)?,
        requests_per_second: requests_per_second(settings.requests_per_second)?,
        events_from: settings.events_from,
    };
    chain.check().map_err(|error| {
        ConfigError::invalid(
            FULL_NODES,
            chain.full_nodes.len(),
            error,
            "name more full nodes, or change sui.cross_check or sui.verify",
        )
    })?;
    let verdict_lifetime = verdict_lifetime(settings.verdict_lifetime)?;
    Ok(Some(Sui {
        chain,
        tiers: tiers([
            settings.min_stake_view,
            settings.min_stake_node,
            settings.min_stake_administration,
        ])?,
        grace: grace(settings.grace, verdict_lifetime)?,
        verdict_lifetime,
        drain: duration("sui.drain", settings.drain, nautilus_workers::limits::DRAIN)?,
    }))
}

fn full_node(text: &str) -> Result<FullNode, ConfigError> {
    FullNode::parse(text).map_err(|reason| {
        // What follows the address may be a provider's key.
        let shown = text.split_inclusive('/').take(3).collect::<String>();
        ConfigError::invalid(
            FULL_NODES,
            shown,
            reason,
            "write grpc=URL or json-rpc=URL, as in grpc=https://fullnode.mainnet.sui.io",
        )
    })
}

fn address(key: &'static str, text: &str) -> Result<Address, ConfigError> {
    text.parse().map_err(|_| {
        ConfigError::invalid(key, text, "no id", "write 0x and up to 64 digits of hex")
    })
}

fn authorities(file: Option<&Path>) -> Result<rustls::RootCertStore, ConfigError> {
    const KEY: &str = "sui.certificate_authority";
    const REMEDY: &str = "name a PEM file of certificates, or nothing for the system's";
    let Some(file) = file else {
        return nautilus_sui::authorities(None)
            .map_err(|why| ConfigError::invalid(KEY, "", why, REMEDY));
    };
    let wrong = |why: String| ConfigError::invalid(KEY, file.display(), why, REMEDY);
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    nautilus_sui::authorities(Some(&pem)).map_err(wrong)
}

fn layout(
    layout: Option<&str>,
    registry: Option<String>,
    token_struct: Option<String>,
    stake_struct: Option<String>,
) -> Result<Layout, ConfigError> {
    match layout {
        None | Some("registry") => {
            let registry = registry.ok_or_else(|| {
                ConfigError::missing(
                    "sui.registry",
                    "write the id of the shared object WorkerRegistry, or sui.layout = \"objects\"",
                )
            })?;
            Ok(Layout::Registry {
                registry: address("sui.registry", &registry)?,
            })
        }
        Some("objects") => Ok(Layout::Objects {
            token: a_struct("sui.token_struct", token_struct, &shape::SEAL_TOKEN)?,
            stake: a_struct("sui.stake_struct", stake_struct, &shape::STAKE)?,
        }),
        Some(other) => Err(ConfigError::invalid(
            "sui.layout",
            other,
            "no such layout",
            "write \"registry\" (workers in the registry's table) or \"objects\" (a token is an \
             object's id)",
        )),
    }
}

fn a_struct(
    key: &'static str,
    text: Option<String>,
    default: &Shape,
) -> Result<Shape, ConfigError> {
    let Some(text) = text else {
        return Ok(default.clone());
    };
    Shape::parse(&text).map_err(|error| {
        ConfigError::invalid(
            key,
            &text,
            error,
            "write all members in their order, as in \
             seal_token::SealToken {id: id, owner: address, stake_id: id, expires_at: u64}",
        )
    })
}

fn verification(
    verify: Option<&str>,
    committee: Option<&Path>,
) -> Result<Verification, ConfigError> {
    match verify {
        None | Some("none") => Ok(Verification::None),
        Some("checkpoints") => {
            const KEY: &str = "sui.committee";
            let file = committee.ok_or_else(|| {
                ConfigError::missing(
                    KEY,
                    "name the file of the validators of an epoch that you trust: that of the \
                     package's publication, or an earlier one",
                )
            })?;
            let remedy = "write {\"epoch\": 0, \"members\": [{\"public_key\": \"(Base64)\", \
                          \"stake\": 2500}, ..]} into it";
            let wrong = |why: String| ConfigError::invalid(KEY, file.display(), why, remedy);
            let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            let committee: ValidatorCommittee =
                serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
            Ok(Verification::Checkpoints(Box::new(committee)))
        }
        Some(other) => Err(ConfigError::invalid(
            "sui.verify",
            other,
            "no such verification",
            "write \"checkpoints\" (what validators signed) or \"none\" (full nodes are believed)",
        )),
    }
}

fn duration(
    key: &'static str,
    text: Option<String>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let Some(text) = text else {
        return Ok(default);
    };
    parse_duration(&text).ok_or_else(|| {
        ConfigError::invalid(key, &text, "not a duration", "write one as in 600ms or 5m")
    })
}

fn verdict_lifetime(text: Option<String>) -> Result<Duration, ConfigError> {
    const KEY: &str = "sui.verdict_lifetime";
    let longest = nautilus_workers::limits::VERDICT_LIFETIME;
    let lifetime = duration(KEY, text, longest)?;
    if (VERDICT_LIFETIME_LEAST..=longest).contains(&lifetime) {
        return Ok(lifetime);
    }
    Err(ConfigError::invalid(
        KEY,
        format!("{lifetime:?}"),
        "the chain would be asked all the time, or hardly ever",
        "write 1s to 30m",
    ))
}

fn grace(text: Option<String>, lifetime: Duration) -> Result<Duration, ConfigError> {
    const KEY: &str = "sui.grace";
    let grace = duration(KEY, text, nautilus_workers::limits::JUDGE_OUTAGE_GRACE)?;
    if grace > lifetime {
        return Ok(grace);
    }
    Err(ConfigError::invalid(
        KEY,
        format!("{} s", grace.as_secs()),
        "a verdict holds as long by itself",
        "write more than sui.verdict_lifetime (30m when nothing is said), as in 2h",
    ))
}

fn request_timeout(text: Option<String>) -> Result<Duration, ConfigError> {
    const KEY: &str = "sui.request_timeout";
    let timeout = duration(KEY, text, limits::REQUEST_TIMEOUT)?;
    if REQUEST_TIMEOUT.contains(&timeout) {
        return Ok(timeout);
    }
    Err(ConfigError::invalid(
        KEY,
        format!("{timeout:?}"),
        "no full node answers in that time, or nobody waits so long",
        "write 50ms to 30s; full nodes take 200 to 500 ms",
    ))
}

fn requests_per_second(value: Option<u32>) -> Result<u32, ConfigError> {
    match value.unwrap_or(limits::REQUESTS_PER_SECOND) {
        0 => Err(ConfigError::invalid(
            "sui.requests_per_second",
            0,
            "the chain could never be asked",
            "write at least 1; public full nodes allow about 100 in 30 s",
        )),
        rate => Ok(rate),
    }
}

fn tiers([view, node, administration]: [Option<u64>; 3]) -> Result<StakeTiers, ConfigError> {
    let default = StakeTiers::default();
    let tiers = StakeTiers {
        view: view.unwrap_or(default.view),
        node: node.unwrap_or(default.node),
        administration: administration.unwrap_or(default.administration),
    };
    if 0 < tiers.view && tiers.view <= tiers.node && tiers.node <= tiers.administration {
        return Ok(tiers);
    }
    Err(ConfigError::invalid(
        "sui.min_stake_node",
        format!("{}, {}, {}", tiers.view, tiers.node, tiers.administration),
        "more stake would permit less, or none would do",
        "write sui.min_stake_view, _node and _administration in MIST, each at least the one before",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(change: impl FnOnce(&mut SuiSettings)) -> SuiSettings {
        let mut settings = SuiSettings {
            full_nodes: Some(vec!["grpc=https://a.example".into()]),
            package: Some("0xda5".into()),
            registry: Some("0x7".into()),
            ..SuiSettings::default()
        };
        change(&mut settings);
        settings
    }

    fn refused(change: impl FnOnce(&mut SuiSettings), words: &str) {
        let error = sui(said(change), None).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_chain_needs_three_words() {
        assert!(sui(SuiSettings::default(), None).expect("none").is_none());
        let chain = sui(said(|_| {}), None).expect("good").expect("a chain");
        assert_eq!(chain.chain.agreement, Agreement::One);
        assert_eq!(chain.chain.verification, Verification::None);
        assert_eq!(chain.tiers, StakeTiers::default());
    }

    #[test]
    fn what_makes_no_sense_names_the_next_step() {
        refused(|it| it.full_nodes = None, "as in grpc=https://");
        refused(
            |it| it.full_nodes = Some(vec!["https://a".into()]),
            "write grpc=URL",
        );
        refused(|it| it.package = None, "sui.package is not set");
        refused(|it| it.package = Some("da5z".into()), "up to 64 digits");
        refused(|it| it.registry = None, "sui.registry is not set");
        refused(|it| it.layout = Some("tables".into()), "\"objects\"");
        refused(|it| it.cross_check = Some(true), "sui.cross_check");
        refused(|it| it.verify = Some("all".into()), "\"checkpoints\"");
        refused(
            |it| it.verify = Some("checkpoints".into()),
            "sui.committee is not set",
        );
        refused(|it| it.requests_per_second = Some(0), "at least 1");
        refused(
            |it| it.min_stake_node = Some(1),
            "each at least the one before",
        );
        refused(|it| it.request_timeout = Some("1ms".into()), "50ms to 30s");
        refused(|it| it.grace = Some("soon".into()), "600ms");
        refused(|it| it.grace = Some("5m".into()), "write more than");
        refused(|it| it.verdict_lifetime = Some("2h".into()), "1s to 30m");
        let short = said(|it| {
            it.verdict_lifetime = Some("1m".into());
            it.grace = Some("5m".into());
            it.drain = Some("10m".into());
        });
        let short = sui(short, None).expect("good").expect("a chain");
        assert_eq!(short.drain, Duration::from_secs(600));
    }

    #[test]
    fn a_key_in_a_url_is_not_shown() {
        let with_key = vec!["rest=https://a.example/secret-key".to_owned()];
        let error = sui(said(|it| it.full_nodes = Some(with_key)), None);
        let error = error.expect_err("refused").to_string();
        assert!(
            error.contains("a.example") && !error.contains("secret-key"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_tokens_beside_the_chain_is_refused() {
        let error = sui(said(|_| {}), Some(Path::new("tokens.toml")));
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("remove tokens_file"), "{error}");
    }
}
