//! Every member of a quorum, asked and judged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aws_lc_rs::digest::{SHA256, digest};
use nautilus_attest_protocol::{Claims, TeeKind};
use nautilus_client::{Address, ExamineError, Examined, Judge, PublicMember, examine};
use serde::Serialize;

/// Nodes asked in one survey, at most.
const MAX_NODES: usize = 64;

/// What came of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Genuine, fresh, and allowed.
    Accepted,
    /// It did not answer.
    Unreachable,
    /// It answered and is not accepted.
    Refused,
}

impl Outcome {
    /// As in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }
}

/// The verdict on one node. What is not known is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Its id: what it says itself, or what a member says of it.
    pub(crate) id: Option<u64>,
    /// `https://host:port` that was asked.
    pub(crate) address: String,
    /// `voter` or `learner`, as an accepted member says.
    pub(crate) role: Option<String>,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// Why it is not accepted.
    pub(crate) reason: Option<String>,
    /// What its evidence says, if that is genuine.
    #[serde(flatten)]
    pub(crate) evidence: Option<Shown>,
}

/// What genuine evidence says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// The kind of TEE.
    pub(crate) tee: TeeKind,
    /// Hex of the code's measurement.
    pub(crate) measurement: String,
    /// The chip or platform, hex.
    pub(crate) platform: String,
    /// The vendor's verdict on the platform's patches.
    pub(crate) tcb_status: &'static str,
    /// The vendor's open advisories.
    pub(crate) advisories: Vec<String>,
    /// Security version numbers by component.
    pub(crate) tcb_components: BTreeMap<String, u32>,
    /// What the policy says.
    pub(crate) policy: String,
    /// SHA-256 of the serving key's SubjectPublicKeyInfo, hex.
    pub(crate) serving_key_sha256: String,
    /// SHA-256 of the evidence, hex.
    pub(crate) evidence_sha256: String,
    /// What this verdict does not say.
    pub(crate) not_checked: Vec<&'static str>,
}

impl Shown {
    fn new(examined: &Examined, policy: String) -> Self {
        let claims = &examined.claims;
        Self {
            tee: claims.tee,
            measurement: claims.measurement.to_string(),
            platform: claims.platform.clone(),
            tcb_status: claims.tcb.status.name(),
            advisories: claims.tcb.advisories.iter().cloned().collect(),
            tcb_components: claims.tcb.components.clone(),
            policy,
            serving_key_sha256: hex::encode(digest(&SHA256, &examined.spki)),
            evidence_sha256: hex::encode(examined.evidence_digest),
            not_checked: not_checked(claims),
        }
    }
}

/// What evidence of this kind leaves open, and what no evidence tells.
fn not_checked(claims: &Claims) -> Vec<&'static str> {
    let of_kind: &[&str] = match claims.tee {
        TeeKind::Simulated => &[
            "hardware: whoever holds the simulated root can make this evidence",
            "the platform's patches",
        ],
        TeeKind::Nitro => &["the platform's patches: Nitro's evidence does not name them"],
        TeeKind::Snp => &["advisories: AMD's evidence does not name them"],
        TeeKind::Tdx | TeeKind::Sgx => &[],
    };
    let mut open = of_kind.to_vec();
    open.push("members that no accepted member names");
    open
}

/// A quorum, as it looks from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Survey {
    /// The quorum's name, as its first accepted member says.
    pub(crate) cluster: Option<String>,
    /// The worst of the outcomes.
    pub(crate) outcome: Outcome,
    /// By id.
    pub(crate) members: Vec<Verdict>,
}

/// Asks the node at `first`, then every member that accepted nodes name.
pub(crate) async fn survey(first: &Address, judge: &Judge) -> Survey {
    let mut asking = Asking {
        judge,
        cluster: None,
        verdicts: Vec::new(),
        seen: BTreeSet::new(),
    };
    let mut waiting: VecDeque<(Address, Option<PublicMember>)> =
        VecDeque::from([(first.clone(), None)]);
    let mut known: BTreeSet<Address> = BTreeSet::from([first.clone()]);
    while let Some((address, member)) = waiting.pop_front() {
        for member in asking.one(&address, member).await {
            let Ok(next) = member.api_address.parse::<Address>() else {
                asking.without_address(&member);
                continue;
            };
            if known.len() < MAX_NODES && known.insert(next.clone()) {
                waiting.push_back((next, Some(member)));
            }
        }
    }
    asking.finish()
}

struct Asking<'a> {
    judge: &'a Judge,
    cluster: Option<String>,
    verdicts: Vec<Verdict>,
    seen: BTreeSet<u64>,
}

impl Asking<'_> {
    /// Asks one node; gives the members it names, if it is to be believed.
    async fn one(&mut self, address: &Address, member: Option<PublicMember>) -> Vec<PublicMember> {
        let mut verdict = Verdict {
            id: member.as_ref().map(|member| member.id),
            address: address.to_string(),
            role: member.as_ref().map(|member| member.role.clone()),
            outcome: Outcome::Refused,
            reason: None,
            evidence: None,
        };
        let mut named = Vec::new();
        match examine(address, self.judge).await {
            Err(ExamineError::Refused(refused)) => verdict.reason = Some(refused.to_string()),
            Err(error) => {
                verdict.outcome = Outcome::Unreachable;
                verdict.reason = Some(error.to_string());
            }
            Ok(examined) => {
                let word = self.judge.policy(&examined.claims);
                let shown = word
                    .as_ref()
                    .map_or_else(ToString::to_string, |()| "allowed".to_owned());
                let fault = word
                    .err()
                    .map(|refused| refused.to_string())
                    .or_else(|| self.contradiction(&examined, member.as_ref()));
                verdict.evidence = Some(Shown::new(&examined, shown));
                match fault {
                    Some(reason) => verdict.reason = Some(reason),
                    None => {
                        let quorum = examined.quorum;
                        // Another address of a node that was asked already, such as the
                        // balancer's in front of it, is no second member.
                        if !self.seen.insert(quorum.node_id) {
                            return quorum.members;
                        }
                        verdict.outcome = Outcome::Accepted;
                        verdict.id = Some(quorum.node_id);
                        let own = quorum.members.iter().find(|own| own.id == quorum.node_id);
                        verdict.role = own.map(|own| own.role.clone());
                        self.cluster.get_or_insert(quorum.cluster);
                        named = quorum.members;
                    }
                }
            }
        }
        self.verdicts.push(verdict);
        named
    }

    /// What an accepted node says that does not fit what is known.
    fn contradiction(&self, examined: &Examined, member: Option<&PublicMember>) -> Option<String> {
        let says = &examined.quorum;
        if let Some(cluster) = self
            .cluster
            .as_ref()
            .filter(|cluster| **cluster != says.cluster)
        {
            return Some(format!(
                "it is of quorum {:?}, expected {cluster:?}",
                says.cluster
            ));
        }
        let member = member?;
        if member.id != says.node_id {
            return Some(format!(
                "it is node {}, expected node {}",
                says.node_id, member.id
            ));
        }
        let pinned = &member.platform;
        (!pinned.is_empty() && *pinned != examined.claims.platform).then(|| {
            format!(
                "it runs on platform {}, expected the pinned platform {pinned}",
                examined.claims.platform
            )
        })
    }

    /// A member that has not joined yet serves nowhere.
    fn without_address(&mut self, member: &PublicMember) {
        if self.seen.insert(member.id) {
            self.verdicts.push(Verdict {
                id: Some(member.id),
                address: member.api_address.clone(),
                role: Some(member.role.clone()),
                outcome: Outcome::Unreachable,
                reason: Some("it has not joined yet".to_owned()),
                evidence: None,
            });
        }
    }

    fn finish(mut self) -> Survey {
        self.verdicts
            .sort_by(|a, b| (a.id, &a.address).cmp(&(b.id, &b.address)));
        let worst = self.verdicts.iter().map(|verdict| verdict.outcome).max();
        Survey {
            cluster: self.cluster,
            outcome: worst.unwrap_or(Outcome::Unreachable),
            members: self.verdicts,
        }
    }
}
