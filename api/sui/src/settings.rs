//! What an operator says of the chain, checked.

use std::time::Duration;

use http::Uri;
use rustls::RootCertStore;
use sui_sdk_types::{Address, ValidatorCommittee};

use crate::layout::Layout;
use crate::limits;

/// Which chain, which package on it, and whom to ask.
#[derive(Debug, Clone)]
pub struct ChainSettings {
    /// The full nodes, the preferred one first.
    pub full_nodes: Vec<FullNode>,
    /// Whose certificates of theirs are good.
    pub authorities: RootCertStore,
    /// The package's id: the first version's, which its types carry.
    pub package: Address,
    /// How it issues tokens.
    pub layout: Layout,
    /// Whether two full nodes must agree.
    pub agreement: Agreement,
    /// Whether validators' signatures must prove it.
    pub verification: Verification,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// After how long at the latest a second full node is asked too.
    pub hedge_after: Duration,
    /// To all full nodes together.
    pub requests_per_second: u32,
    /// The first checkpoint whose events are followed; `None`: from the newest on.
    pub events_from: Option<u64>,
}

/// One full node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullNode {
    /// Which of its faces is spoken to.
    pub face: FaceKind,
    /// Where: `http` or `https`.
    pub url: Uri,
}

/// A full node's faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaceKind {
    /// `sui.rpc.v2`.
    Grpc,
    /// JSON-RPC 2.0.
    JsonRpc,
}

/// Whether two full nodes must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// One is believed.
    One,
    /// Two different ones must say the same.
    Two,
}

/// Whether validators' signatures must prove what full nodes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Full nodes are believed.
    None,
    /// Nothing counts that is not in a checkpoint signed by this committee, or one after it.
    Checkpoints(Box<ValidatorCommittee>),
}

/// Why these full nodes can't serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// None, too many, or too few to compare.
    #[error("{found} full nodes: {reason}")]
    Count {
        /// So many are named.
        found: usize,
        /// What is needed.
        reason: &'static str,
    },
    /// A full node's URL, or TLS to it.
    #[error("the full node {name}: {reason}")]
    FullNode {
        /// `host:port`.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The committee's keys.
    #[error("the committee is not one: {0}")]
    Committee(String),
}

impl FullNode {
    /// Reads `grpc=URL` or `json-rpc=URL`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (face, url) = text
            .split_once('=')
            .ok_or("the face stands before the URL, by =")?;
        let face = match face.trim() {
            "grpc" => FaceKind::Grpc,
            "json-rpc" => FaceKind::JsonRpc,
            _ => return Err("the face is neither grpc nor json-rpc"),
        };
        let url: Uri = url.trim().parse().map_err(|_| "this is no URL")?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err("the URL is neither of http nor of https");
        }
        Ok(Self { face, url })
    }

    /// `host:port`: never the path, which may hold a provider's key.
    pub fn name(&self) -> String {
        let usual = if self.url.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let host = self.url.host().unwrap_or_default();
        format!("{host}:{}", self.url.port_u16().unwrap_or(usual))
    }
}

impl ChainSettings {
    /// Whether the full nodes suffice for what is asked of them.
    pub fn check(&self) -> Result<(), SettingsError> {
        let count = |reason| SettingsError::Count {
            found: self.full_nodes.len(),
            reason,
        };
        if self.full_nodes.is_empty() {
            return Err(count("at least one is needed"));
        }
        if self.full_nodes.len() > limits::ENDPOINTS_LIMIT {
            return Err(count("16 at most can be asked"));
        }
        let proving = |face| match self.verification {
            Verification::None => true,
            Verification::Checkpoints(_) => face == FaceKind::Grpc,
        };
        let mut names: Vec<_> = self
            .full_nodes
            .iter()
            .filter(|it| proving(it.face))
            .map(FullNode::name)
            .collect();
        let named = names.len();
        names.sort_unstable();
        names.dedup();
        if self.agreement == Agreement::Two && names.len() < named {
            return Err(count(
                "where two must say the same, each address is named once: nobody confirms itself",
            ));
        }
        if let Verification::Checkpoints(committee) = &self.verification {
            let mut stakes = committee.members.iter().map(|member| member.stake);
            let stake = stakes.try_fold(0_u64, u64::checked_add);
            if stake.is_none_or(|stake| stake == 0) {
                return Err(SettingsError::Committee(
                    "its members have no stake, or more than there can be".to_owned(),
                ));
            }
        }
        match (self.agreement, names.len()) {
            (_, 0) => Err(count(
                "only the face grpc gives what validators signed, so one of it is needed",
            )),
            (Agreement::Two, 1) => Err(count(
                "two at different addresses are needed for one to confirm the other (and of the \
                 face grpc, where signatures must prove what they say)",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sui_sdk_types::{Bls12381PublicKey, ValidatorCommitteeMember};

    #[test]
    fn a_full_node_is_a_face_and_a_url() {
        let node = FullNode::parse("grpc=https://fullnode.example.org").expect("a full node");
        assert_eq!(node.name(), "fullnode.example.org:443");
        let node = FullNode::parse("json-rpc=http://127.0.0.1:9000/key").expect("a full node");
        assert_eq!(
            (node.face, node.name()),
            (FaceKind::JsonRpc, "127.0.0.1:9000".into())
        );
        for wrong in [
            "https://a",
            "rest=https://a",
            "grpc=ftp://a",
            "grpc=/path",
            "grpc=",
        ] {
            assert!(FullNode::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn settings(
        full_nodes: &[&str],
        agreement: Agreement,
        verification: Verification,
    ) -> ChainSettings {
        ChainSettings {
            full_nodes: full_nodes
                .iter()
                .map(|it| FullNode::parse(it).expect("one"))
                .collect(),
            authorities: RootCertStore::empty(),
            package: Address::TWO,
            layout: Layout::Registry {
                registry: Address::TWO,
            },
            agreement,
            verification,
            request_timeout: limits::REQUEST_TIMEOUT,
            hedge_after: limits::HEDGE_AFTER,
            requests_per_second: limits::REQUESTS_PER_SECOND,
            events_from: None,
        }
    }

    #[test]
    fn full_nodes_must_suffice_for_what_is_asked() {
        let of = |stake| {
            let public_key = Bls12381PublicKey::new([7; Bls12381PublicKey::LENGTH]);
            let member = ValidatorCommitteeMember { public_key, stake };
            let members = vec![member; 2];
            Verification::Checkpoints(Box::new(ValidatorCommittee { epoch: 0, members }))
        };
        let signed = || of(2500);
        let (a, b, json) = ("grpc=http://a", "grpc=http://b", "json-rpc=http://c");
        for (full_nodes, agreement, verification, is_good) in [
            (vec![], Agreement::One, Verification::None, false),
            (vec![json], Agreement::One, Verification::None, true),
            (vec![json], Agreement::One, signed(), false),
            (vec![a, json], Agreement::One, signed(), true),
            (vec![a], Agreement::Two, Verification::None, false),
            (vec![a, a], Agreement::Two, Verification::None, false),
            (
                vec![a, "json-rpc=http://a", b],
                Agreement::Two,
                Verification::None,
                false,
            ),
            (vec![a], Agreement::One, of(0), false),
            (vec![a], Agreement::One, of(u64::MAX), false),
            (vec![a, json], Agreement::Two, Verification::None, true),
            (vec![a, json], Agreement::Two, signed(), false),
            (vec![a, b], Agreement::Two, signed(), true),
        ] {
            let good = settings(&full_nodes, agreement, verification).check();
            assert_eq!(
                good.is_ok(),
                is_good,
                "{full_nodes:?} {agreement:?}: {good:?}"
            );
        }
    }
}
