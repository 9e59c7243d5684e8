//! Who judges Seal tokens on this node: the chain, the file of development, or nobody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_machine::Kv;
use nautilus_sui::{Chain, ChainJudge};
use nautilus_workers::events::WithJoinTokens;
use nautilus_workers::{
    FileJudge, Judgement, RosterSettings, SealToken, SystemClock, TokenJudge, Verdict,
    VerdictSettings, Verdicts, WorkersSettings,
};

use super::Node;
use crate::config::NodeConfig;
use crate::exit::Failure;

/// The chain, where one is configured.
pub(super) fn chain(config: &NodeConfig) -> anyhow::Result<Option<Arc<Chain>>> {
    let Some(sui) = &config.sui else {
        return Ok(None);
    };
    let chain = Chain::new(&sui.chain, Arc::new(SystemClock::new()))
        .map_err(|error| Failure::Usage.error(format!("[sui]: {error}")))?;
    let full_nodes: Vec<String> = sui.chain.full_nodes.iter().map(|it| it.name()).collect();
    tracing::info!(
        full_nodes = full_nodes.join(", "),
        package = %sui.chain.package,
        "Seal tokens are judged by the chain"
    );
    Ok(Some(chain))
}

/// The quorum's verdicts on Seal tokens, with this node's judge.
pub(super) fn verdicts(
    node: &Node,
    config: &NodeConfig,
    kv: &Arc<dyn Kv>,
    chain: Option<&Arc<Chain>>,
) -> anyhow::Result<Arc<Verdicts>> {
    let mut settings = VerdictSettings::default();
    if let Some(sui) = &config.sui {
        settings.grace = sui.grace;
        settings.lifetime = sui.verdict_lifetime;
    }
    let cluster = node.consensus.cluster();
    Ok(Verdicts::new(
        Arc::clone(kv),
        judge(config, kv, chain)?,
        Arc::new(SystemClock::new()),
        Arc::new(move || cluster.members().len()),
        &settings,
    ))
}

/// By what the leader goes that hears the workers.
pub(super) fn roster(config: &NodeConfig) -> RosterSettings {
    let mut settings = RosterSettings::default();
    if let Some(sui) = &config.sui {
        settings.drain = sui.drain;
    }
    settings
}

/// Limits of the workers' face.
pub(super) fn settings(config: &NodeConfig) -> WorkersSettings {
    let mut settings = WorkersSettings::default();
    if let Some(sui) = &config.sui {
        settings.stake_tiers = sui.tiers;
    }
    settings
}

fn judge(
    config: &NodeConfig,
    kv: &Arc<dyn Kv>,
    chain: Option<&Arc<Chain>>,
) -> anyhow::Result<Arc<dyn TokenJudge>> {
    Ok(match (chain, &config.sui, &config.tokens_file) {
        (Some(chain), Some(sui), _) => Arc::new(WithJoinTokens {
            judge: Arc::new(ChainJudge::new(
                Arc::clone(chain),
                sui.chain.layout.clone(),
                sui.tiers.node,
                Arc::new(SystemClock::new()),
            )),
            kv: Arc::clone(kv),
            min_stake_amount: sui.tiers.node,
        }),
        (_, _, Some(path)) => Arc::new(
            FileJudge::open(path)
                .map_err(|error| Failure::Usage.error(format!("tokens_file: {error}")))?,
        ),
        _ => Arc::new(NobodyKnown),
    })
}

/// The judge of a node without chain and file: it knows no token.
struct NobodyKnown;

impl TokenJudge for NobodyKnown {
    fn judge<'a>(&'a self, _token: &'a SealToken, _node_id: &'a str) -> BoxFuture<'a, Judgement> {
        Box::pin(std::future::ready(Verdict::Unknown.into()))
    }

    /// There is no chain to be spared, nor to be told of as reachable.
    fn verdict_lifetime(&self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_chain_and_file_no_token_is_known() {
        let token = SealToken::new("x".to_owned()).expect("a token");
        assert_eq!(
            NobodyKnown.judge(&token, "worker-1").await.verdict,
            Verdict::Unknown
        );
    }
}
