//! Operators: people whose keys are pinned when the quorum is born.
//!
//! Invariant: a row is written once and never changed by pinning again, so nobody
//! claims a running quorum by pinning a second time under the same key.

use aws_lc_rs::digest::{SHA256, digest};
use nautilus_machine::{
    Command, Compare, Kv, Operation, Outcome, Proposal, Put, RangeRequest, Txn, types::KeyRange,
};
use serde::{Deserialize, Serialize};

use crate::authority::MAX_GROUPS;

/// Where operators stand in the key space, by the SHA-256 of their public key's DER
/// `SubjectPublicKeyInfo` in lower-case hex.
pub const OPERATORS_PREFIX: &str = "/nautilus/operators/";
/// Operators pinned at once, at most.
pub const MAX_OPERATORS: usize = 64;

/// One operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// SHA-256 of the DER `SubjectPublicKeyInfo`, 64 lower-case hex digits.
    pub spki_sha256: String,
    /// The user's name: the certificate's common name.
    pub user: String,
    /// The user's groups: the certificate's organizations, at most [`MAX_GROUPS`].
    pub groups: Vec<String>,
}

/// Why operators could not be pinned or read.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The given operator makes no sense.
    #[error("operator {user:?}: {reason}")]
    Invalid {
        /// Whose.
        user: String,
        /// What is wrong.
        reason: String,
    },
    /// The store could not be read or written.
    #[error("operators could not be read or pinned: {0}")]
    Store(String),
}

/// The fingerprint under which the key of a DER `SubjectPublicKeyInfo` is pinned.
pub fn spki_fingerprint(spki_der: &[u8]) -> String {
    crate::ids::hex(digest(&SHA256, spki_der).as_ref())
}

/// Writes the operators that are not there yet. Idempotent; called at genesis.
pub async fn pin_operators(kv: &dyn Kv, operators: &[Operator]) -> Result<(), OperatorError> {
    if operators.len() > MAX_OPERATORS {
        return Err(OperatorError::Store(format!(
            "{} operators are more than the limit of {MAX_OPERATORS}",
            operators.len()
        )));
    }
    for operator in operators {
        check(operator)?;
        let key = format!("{OPERATORS_PREFIX}{}", operator.spki_sha256);
        let row = serde_json::to_vec(operator)
            .map_err(|error| OperatorError::Store(error.to_string()))?;
        let proposal = Proposal::new(Command::Txn(Txn {
            compare: vec![Compare::mod_revision(key.clone(), 0)],
            then: vec![Operation::Put(Put::new(key, row))],
            otherwise: Vec::new(),
        }));
        match kv.propose(proposal).await {
            Ok(applied) if matches!(applied.outcome, Outcome::Txn { .. }) => {}
            Ok(applied) => return Err(OperatorError::Store(format!("{:?}", applied.outcome))),
            Err(error) => return Err(OperatorError::Store(error.to_string())),
        }
    }
    Ok(())
}

/// The operator whose key has this DER `SubjectPublicKeyInfo`, read linearizably.
pub async fn find_operator(
    kv: &dyn Kv,
    spki_der: &[u8],
) -> Result<Option<Operator>, OperatorError> {
    kv.read_barrier()
        .await
        .map_err(|error| OperatorError::Store(error.to_string()))?;
    let key = format!("{OPERATORS_PREFIX}{}", spki_fingerprint(spki_der));
    let answer = kv
        .range(&RangeRequest::newest(KeyRange::single(key)))
        .map_err(|error| OperatorError::Store(error.to_string()))?;
    answer
        .kvs
        .first()
        .map(|row| {
            serde_json::from_slice(&row.value)
                .map_err(|error| OperatorError::Store(error.to_string()))
        })
        .transpose()
}

fn check(operator: &Operator) -> Result<(), OperatorError> {
    let invalid = |reason: &str| {
        Err(OperatorError::Invalid {
            user: operator.user.clone(),
            reason: reason.into(),
        })
    };
    let digits = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if operator.spki_sha256.len() != 64 || !operator.spki_sha256.bytes().all(digits) {
        return invalid("the fingerprint must be 64 lower-case hex digits");
    }
    check_names(&operator.user, &operator.groups).or_else(invalid)
}

/// Whether a user and its groups fit in a certificate's subject.
pub(crate) fn check_names(user: &str, groups: &[String]) -> Result<(), &'static str> {
    let fits = |name: &str| (1..=64).contains(&name.len());
    if !fits(user) {
        return Err("the user's name must have 1 to 64 bytes");
    }
    if groups.len() > MAX_GROUPS {
        return Err("more groups than a certificate holds");
    }
    if !groups.iter().all(|group| fits(group)) {
        return Err("a group's name must have 1 to 64 bytes");
    }
    Ok(())
}
