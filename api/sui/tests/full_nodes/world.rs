//! Full nodes of one chain in memory, and a judge that asks them.

use std::sync::Arc;
use std::time::Duration;

use nautilus_sui::shape::{SEAL_TOKEN, STAKE};
use nautilus_sui::{
    Agreement, Chain, ChainEvents, ChainJudge, ChainSettings, FullNode, Layout, ValidatorCommittee,
    Verification, authorities,
};
use nautilus_sui_standin::{Addresses, Standin, layout};
use nautilus_workers::{Judgement, SealToken, SystemClock, TokenJudge as _, Verdict};
use sui_sdk_types::Address;

/// One SUI in MIST: what a worker needs.
pub(crate) const SUI: u64 = 1_000_000_000;
/// Who owns the workers of these tests.
pub(crate) const OWNER: Address = Address::from_static("0xa1");

/// How a full node is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Grpc,
    JsonRpc,
}

pub(crate) struct World {
    pub(crate) chain: nautilus_sui_standin::Chain,
    pub(crate) full_nodes: Vec<Standin>,
}

impl World {
    /// So many full nodes of one chain.
    pub(crate) async fn with(count: usize) -> Self {
        let chain = nautilus_sui_standin::Chain::new("standin").expect("a chain");
        let mut full_nodes = Vec::new();
        for _ in 0..count {
            let full_node = Standin::of(chain.clone(), Addresses::default()).await;
            full_nodes.push(full_node.expect("ports"));
        }
        Self { chain, full_nodes }
    }

    pub(crate) fn register(&self, node_id: &str, stake: u64, token: &str) {
        self.chain
            .register_worker(node_id, OWNER, stake, token)
            .expect("registered");
    }

    pub(crate) fn committee(&self) -> Verification {
        Verification::Checkpoints(Box::new(self.committee_of(0)))
    }

    pub(crate) fn committee_of(&self, epoch: u64) -> ValidatorCommittee {
        self.chain.committee(epoch).expect("it has begun")
    }

    /// All full nodes by that face, in their order.
    pub(crate) fn settings(&self, by: By) -> ChainSettings {
        let urls = self.full_nodes.iter().map(|it| url(it, by));
        ChainSettings {
            full_nodes: urls
                .map(|it| FullNode::parse(&it).expect("a URL"))
                .collect(),
            authorities: authorities(None).expect("the system's"),
            package: layout::package(),
            layout: registry(),
            agreement: Agreement::One,
            verification: Verification::None,
            request_timeout: Duration::from_secs(1),
            hedge_after: Duration::from_millis(50),
            requests_per_second: 1000,
            events_from: None,
        }
    }
}

pub(crate) fn url(full_node: &Standin, by: By) -> String {
    match by {
        By::Grpc => format!("grpc={}", full_node.grpc_url()),
        By::JsonRpc => format!("json-rpc={}", full_node.jsonrpc_url()),
    }
}

pub(crate) fn registry() -> Layout {
    Layout::Registry {
        registry: layout::registry_id(),
    }
}

pub(crate) fn objects() -> Layout {
    Layout::Objects {
        token: SEAL_TOKEN.clone(),
        stake: STAKE.clone(),
    }
}

pub(crate) fn chain(settings: &ChainSettings) -> Arc<Chain> {
    Chain::new(settings, Arc::new(SystemClock::new())).expect("settings that are good")
}

pub(crate) fn judge(settings: &ChainSettings) -> ChainJudge {
    judge_of(&chain(settings), settings)
}

pub(crate) fn judge_of(chain: &Arc<Chain>, settings: &ChainSettings) -> ChainJudge {
    let clock = Arc::new(SystemClock::new());
    ChainJudge::new(Arc::clone(chain), settings.layout.clone(), SUI, clock)
}

pub(crate) fn events(settings: &ChainSettings) -> ChainEvents {
    ChainEvents::new(chain(settings), settings.events_from)
}

pub(crate) async fn judged(judge: &ChainJudge, token: &str, node_id: &str) -> Judgement {
    let token = SealToken::new(token.to_owned()).expect("short enough");
    judge.judge(&token, node_id).await
}

pub(crate) async fn verdict(judge: &ChainJudge, token: &str, node_id: &str) -> Verdict {
    judged(judge, token, node_id).await.verdict
}

pub(crate) fn active(stake_amount: u64) -> Verdict {
    Verdict::Active {
        owner: OWNER.to_string(),
        stake_amount,
        expires_at: None,
    }
}
