//! Checks receipts and roots, offline.
//!
//! In this order: the evidence vouches for the key, the key signed the root, the proof
//! leads from the leaf to the root, the value is the one that the leaf commits to, the
//! object given is that value. Each has an error of its own.
//!
//! Evidence is judged as of the moment at which the root says that it was signed: a
//! receipt is good for as long as the policy of whoever checks it allows the code that
//! signed it, whatever has expired since. That moment is the node's word.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use nautilus_attest_protocol::{Claims, Refused, ledger_report_data};
use nautilus_machine::{Leaf, RootStatement, TreeHash, verify_consistency, verify_inclusion};
use nautilus_rest::audit::chain::{HeadStatement, SignedHead};
use nautilus_rest::receipts::{
    ConsistencyDocument, DocumentError, RECEIPT_VERSION, ReceiptDocument, SignedRoot, parse_base64,
    parse_hash,
};
use serde_json::Value;

use crate::attested::Judge;

/// Fields of an object that the API server keeps by itself: not compared.
const BOOKKEEPING: [&str; 2] = ["resourceVersion", "managedFields"];

/// Why a receipt proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// A field is not what it must be.
    #[error("the document is malformed: {0}")]
    Malformed(#[from] DocumentError),
    /// Of a later build.
    #[error(
        "the document is of version {0}, and this build knows version {RECEIPT_VERSION}: use a newer one"
    )]
    Version(u32),
    /// Nothing good enough vouches for the key that signed.
    #[error("the key that signed the root is not vouched for: {0}")]
    Evidence(#[from] Refused),
    /// The signature is not the key's over this root.
    #[error("the root's signature does not verify: the root was altered, or another key signed it")]
    Signature,
    /// The leaf is not in the tree.
    #[error(
        "the proof does not lead from the leaf to the root: the leaf or the proof was altered, or it is of another ledger"
    )]
    Inclusion,
    /// The value is not that of the leaf.
    #[error("the value is not the one that was committed: its SHA-256 differs from the leaf's")]
    Value,
    /// The object is not the value.
    #[error("the object given is not the one that was committed: {0}")]
    Object(String),
    /// Two roots are not of one history.
    #[error(
        "the quorum's history was rolled back or forked: the ledger of {to} leaves does not begin with that of {from} leaves"
    )]
    Forked {
        /// Leaves of the older.
        from: u64,
        /// Leaves of the newer.
        to: u64,
    },
    /// The newer root is smaller.
    #[error(
        "the quorum's history was rolled back: a root signed {later} has {size} leaves, one signed before it has {before}"
    )]
    Shrunk {
        /// When, in words.
        later: String,
        /// How many.
        size: u64,
        /// How many there were.
        before: u64,
    },
    /// Roots of two quorums.
    #[error("the roots are of two quorums, {0:?} and {1:?}")]
    Clusters(String, String),
    /// The proof answers another question.
    #[error("the proof is of {0} and {1} leaves, asked for were {2} and {3}")]
    Sizes(u64, u64, u64, u64),
}

/// A root that was checked.
pub(crate) struct CheckedRoot {
    /// What was signed.
    pub(crate) statement: RootStatement,
    /// Who vouches for it.
    pub(crate) claims: Claims,
}

/// A receipt that was checked.
pub(crate) struct CheckedReceipt {
    /// What was committed.
    pub(crate) leaf: Leaf,
    /// The value, where the receipt has it.
    pub(crate) value: Option<Vec<u8>>,
    /// The root it was proved in.
    pub(crate) root: CheckedRoot,
}

/// Checks who signed a root.
pub(crate) fn root(signed: &SignedRoot, judge: &Judge) -> Result<CheckedRoot, CheckError> {
    let statement = signed.statement()?;
    let spki = parse_base64("root.publicKey", &signed.public_key)?;
    let evidence = parse_base64("root.evidence", &signed.evidence)?;
    let signature = parse_base64("root.signature", &signed.signature)?;
    let expected = ledger_report_data(&spki, &statement.cluster, statement.node);
    let claims = judge.evidence(&evidence, &expected, statement.time.0)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki)
        .verify(&statement.to_be_signed(), &signature)
        .map_err(|_| CheckError::Signature)?;
    Ok(CheckedRoot { statement, claims })
}

/// Checks who signed a head of an audit log.
pub(crate) fn audit_head(
    signed: &SignedHead,
    statement: &HeadStatement,
    judge: &Judge,
) -> Result<Claims, CheckError> {
    let spki = parse_base64("publicKey", &signed.public_key)?;
    let evidence = parse_base64("evidence", &signed.evidence)?;
    let signature = parse_base64("signature", &signed.signature)?;
    let expected = ledger_report_data(&spki, &statement.cluster, statement.node);
    let claims = judge.evidence(&evidence, &expected, statement.time_ms)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki)
        .verify(&statement.to_be_signed(), &signature)
        .map_err(|_| CheckError::Signature)?;
    Ok(claims)
}

/// Checks a receipt.
pub(crate) fn receipt(
    document: &ReceiptDocument,
    judge: &Judge,
) -> Result<CheckedReceipt, CheckError> {
    if document.version != RECEIPT_VERSION {
        return Err(CheckError::Version(document.version));
    }
    let root = root(&document.root, judge)?;
    let leaf = document.leaf.to_leaf()?;
    let proof = hashes("inclusion", &document.inclusion)?;
    let RootStatement {
        size, root: hash, ..
    } = &root.statement;
    if !verify_inclusion(&leaf.hash(), document.leaf.index, *size, &proof, hash) {
        return Err(CheckError::Inclusion);
    }
    let value = match &document.value {
        Some(value) => Some(parse_base64("value", value)?),
        None => None,
    };
    if value.as_ref().is_some_and(|value| !leaf.commits_to(value)) {
        return Err(CheckError::Value);
    }
    Ok(CheckedReceipt { leaf, value, root })
}

impl CheckedReceipt {
    /// Whether `given` is what was committed: its bytes, or the same object (JSON or
    /// YAML) but for what the API server keeps by itself.
    pub(crate) fn commits_to_object(&self, given: &[u8]) -> Result<(), CheckError> {
        if self.leaf.commits_to(given) {
            return Ok(());
        }
        let differs = |reason: &str| CheckError::Object(reason.to_owned());
        if self.leaf.value_sha256.is_none() {
            return Err(differs("the receipt is of a deletion"));
        }
        let Some(value) = &self.value else {
            return Err(differs(
                "its bytes differ, and the receipt holds no value to compare objects with",
            ));
        };
        let committed: Value = serde_json::from_slice(value)
            .map_err(|_| differs("its bytes differ, and the committed value is no object"))?;
        let given: Value = serde_yaml_ng::from_slice(given)
            .map_err(|_| differs("it is neither the committed bytes nor JSON or YAML"))?;
        let (committed, given) = (comparable(committed), comparable(given));
        match difference("", &committed, &given) {
            None => Ok(()),
            Some(at) => Err(CheckError::Object(format!("it differs at {at}"))),
        }
    }
}

/// Checks that a root's ledger begins with that of another, by the quorum's proof.
pub(crate) fn consistency(
    older: &CheckedRoot,
    newer: &CheckedRoot,
    document: &ConsistencyDocument,
) -> Result<(), CheckError> {
    let (from, to) = (&older.statement, &newer.statement);
    if (document.from, document.to) != (from.size, to.size) {
        let (got, asked) = ((document.from, document.to), (from.size, to.size));
        return Err(CheckError::Sizes(got.0, got.1, asked.0, asked.1));
    }
    let proof = hashes("proof", &document.proof)?;
    match verify_consistency(from.size, &from.root, to.size, &to.root, &proof) {
        true => Ok(()),
        false => Err(CheckError::Forked {
            from: from.size,
            to: to.size,
        }),
    }
}

/// Checks what two roots say by themselves: one quorum, which never has fewer leaves
/// under a later term or revision than before.
pub(crate) fn order(older: &CheckedRoot, newer: &CheckedRoot) -> Result<(), CheckError> {
    let (from, to) = (&older.statement, &newer.statement);
    if from.cluster != to.cluster {
        let clusters = (from.cluster.clone(), to.cluster.clone());
        return Err(CheckError::Clusters(clusters.0, clusters.1));
    }
    if to.size < from.size {
        return Err(CheckError::Shrunk {
            later: when(to.time.0),
            size: to.size,
            before: from.size,
        });
    }
    Ok(())
}

/// A time in words.
pub(crate) fn when(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(time).unwrap_or(jiff::Timestamp::MAX);
    time.to_string()
}

fn hashes(field: &'static str, texts: &[String]) -> Result<Vec<TreeHash>, DocumentError> {
    texts.iter().map(|text| parse_hash(field, text)).collect()
}

/// An object without what the API server keeps by itself.
fn comparable(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !BOOKKEEPING.contains(&name.as_str()));
    }
    object
}

/// The path of the first difference.
fn difference(path: &str, left: &Value, right: &Value) -> Option<String> {
    let (Value::Object(one), Value::Object(other)) = (left, right) else {
        let here = if path.is_empty() { "." } else { path };
        return (left != right).then(|| here.to_owned());
    };
    let names = one.keys().chain(other.keys());
    names.into_iter().find_map(|name| {
        let (one, other) = (one.get(name), other.get(name));
        let null = Value::Null;
        let (one, other) = (one.unwrap_or(&null), other.unwrap_or(&null));
        difference(&format!("{path}.{name}"), one, other)
    })
}
