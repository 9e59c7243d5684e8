//! Receipts: proofs that the quorum accepted a change, and that its history only grew.
//!
//! `GET /nautilus/v1/receipt?revision=N[&key=K]` and
//! `GET /nautilus/v1/receipt/consistency?from=N[&to=M]`. Without a revision, the key's
//! newest version counts. Hashes are in hex; keys, values, signatures, public keys and
//! evidence in base64.
//!
//! Any node answers, and signs the root with its own attested key: every member is
//! judged by one policy and applies committed entries only, so that a leader's word
//! would add nothing but a node that must live.
//!
//! Invariants
//! - What is signed was read behind a read barrier.
//! - The documents are the same for whoever writes and whoever checks them.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Uri;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{
    Committed, Leaf, LeafKind, LogPosition, RangeRequest, Revision, RootStatement, TreeHash,
    UnixMillis, is_clients,
};
use nautilus_machinery::status::ApiError;
use serde::{Deserialize, Serialize};

use crate::context::RestContext;
use crate::failure::Failure;
use crate::ids::{hex, unhex};
use crate::respond;
use crate::route::{ReceiptRequest, query_pairs};

/// The form of the documents.
pub const RECEIPT_VERSION: u32 = 1;

/// A change of one key, and the proof that the quorum's ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptDocument {
    /// [`RECEIPT_VERSION`].
    pub version: u32,
    /// What was committed.
    pub leaf: LeafDocument,
    /// The value, in base64; whoever passes a receipt on may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The siblings on the leaf's way to the root, lowest first.
    pub inclusion: Vec<String>,
    /// The root, signed.
    pub root: SignedRoot,
}

/// A leaf of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeafDocument {
    /// Its index, from 0.
    pub index: u64,
    /// What happened.
    pub kind: LeafWord,
    /// The revision: of a Kubernetes object, its resourceVersion.
    pub revision: Revision,
    /// The position among the changes of the revision.
    pub position: u32,
    /// The Raft term of the entry that made it.
    pub term: u64,
    /// The Raft index of that entry.
    pub log_index: u64,
    /// The revision that created the key's life; 0 of a deletion.
    pub create_revision: Revision,
    /// Puts since creation; 0 of a deletion.
    pub key_version: u64,
    /// The key, in base64.
    pub key: String,
    /// SHA-256 of the value; of a deletion none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_sha256: Option<String>,
    /// What hid the leaf from whoever saw its hash.
    pub blinding: String,
}

/// [`LeafKind`] in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeafWord {
    /// Created or written.
    Put,
    /// Deleted.
    Delete,
    /// Taken over from another store.
    Load,
}

/// A root of the ledger, signed by a key that evidence vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedRoot {
    /// The quorum's name.
    pub cluster: String,
    /// The node that signed.
    pub node: u64,
    /// Leaves in the ledger.
    pub size: u64,
    /// The root.
    pub sha256: String,
    /// The term of the last entry in it.
    pub term: u64,
    /// The store's revision.
    pub revision: Revision,
    /// When it was signed, in milliseconds since 1970 by the node's clock.
    pub time_ms: u64,
    /// DER of the key's SubjectPublicKeyInfo (P-256), in base64.
    pub public_key: String,
    /// ECDSA with SHA-256 over [`RootStatement::to_be_signed`], ASN.1, in base64.
    pub signature: String,
    /// The TEE's evidence over the public key, in base64.
    pub evidence: String,
}

/// The proof that one ledger begins with another, and the newest root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsistencyDocument {
    /// [`RECEIPT_VERSION`].
    pub version: u32,
    /// Leaves of the older ledger.
    pub from: u64,
    /// Leaves of the newer one.
    pub to: u64,
    /// The proof.
    pub proof: Vec<String>,
    /// The ledger as it is now, signed.
    pub root: SignedRoot,
}

/// Which field of a document is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DocumentError {
    field: &'static str,
    reason: &'static str,
}

impl LeafDocument {
    fn of(committed: &Committed) -> Self {
        let leaf = &committed.leaf;
        Self {
            index: committed.index,
            kind: match leaf.kind {
                LeafKind::Put => LeafWord::Put,
                LeafKind::Delete => LeafWord::Delete,
                LeafKind::Load => LeafWord::Load,
            },
            revision: leaf.revision,
            position: leaf.position,
            term: leaf.log.term,
            log_index: leaf.log.index,
            create_revision: leaf.create_revision,
            key_version: leaf.key_version,
            key: BASE64.encode(&leaf.key),
            value_sha256: leaf.value_sha256.map(|hash| hex(&hash)),
            blinding: hex(&leaf.blinding),
        }
    }

    /// The leaf that is hashed.
    pub fn to_leaf(&self) -> Result<Leaf, DocumentError> {
        let value_sha256 = self.value_sha256.as_deref();
        Ok(Leaf {
            kind: match self.kind {
                LeafWord::Put => LeafKind::Put,
                LeafWord::Delete => LeafKind::Delete,
                LeafWord::Load => LeafKind::Load,
            },
            revision: self.revision,
            position: self.position,
            log: LogPosition {
                term: self.term,
                index: self.log_index,
            },
            create_revision: self.create_revision,
            key_version: self.key_version,
            blinding: parse_hash("leaf.blinding", &self.blinding)?,
            key: parse_base64("leaf.key", &self.key)?.into(),
            value_sha256: value_sha256
                .map(|hash| parse_hash("leaf.valueSha256", hash))
                .transpose()?,
        })
    }
}

impl SignedRoot {
    /// What was signed.
    pub fn statement(&self) -> Result<RootStatement, DocumentError> {
        Ok(RootStatement {
            cluster: self.cluster.clone(),
            node: self.node,
            size: self.size,
            root: parse_hash("root.sha256", &self.sha256)?,
            term: self.term,
            revision: self.revision,
            time: UnixMillis(self.time_ms),
        })
    }
}

/// A SHA-256 in hex.
pub fn parse_hash(field: &'static str, text: &str) -> Result<TreeHash, DocumentError> {
    let bytes = unhex(text).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(DocumentError {
        field,
        reason: "it is not 32 bytes in hex",
    })
}

/// Bytes in base64.
pub fn parse_base64(field: &'static str, text: &str) -> Result<Vec<u8>, DocumentError> {
    BASE64.decode(text).map_err(|_| DocumentError {
        field,
        reason: "it is not base64",
    })
}

/// `GET /nautilus/v1/receipt...`
pub(crate) async fn answer(
    context: &RestContext,
    asked: ReceiptRequest,
    uri: &Uri,
) -> Result<Response, Failure> {
    let query = Query(query_pairs(uri));
    match asked {
        ReceiptRequest::Receipt => receipt(context, &query).await,
        ReceiptRequest::Consistency => consistency(context, &query).await,
    }
}

async fn receipt(context: &RestContext, query: &Query) -> Result<Response, Failure> {
    query.allow(&["revision", "key", "keyHex"])?;
    let key = query.key()?;
    let revision = match (query.number("revision")?, &key) {
        (Some(revision), _) => revision,
        (None, Some(key)) => newest(context, key).await?,
        (None, None) => {
            let text = "name a revision, or a key (then its newest version counts), or both";
            return Err(ApiError::bad_request(text).into());
        }
    };
    let receipt = context.node.ledger.receipt(revision, key).await?;
    let value = receipt.committed.value.as_ref();
    let document = ReceiptDocument {
        version: RECEIPT_VERSION,
        leaf: LeafDocument::of(&receipt.committed),
        value: value.map(|value| BASE64.encode(value)),
        inclusion: receipt.proof.iter().map(|hash| hex(hash)).collect(),
        root: (context.node.sign_root)(receipt.head)
            .await
            .map_err(|reason| unsigned(&reason))?,
    };
    json(&document)
}

/// The revision that wrote a key's newest version.
async fn newest(context: &RestContext, key: &Bytes) -> Result<Revision, Failure> {
    context.kv.read_barrier().await?;
    let request = RangeRequest {
        keys_only: true,
        ..RangeRequest::newest(KeyRange::single(key.clone()))
    };
    let found = match is_clients(key) {
        true => context.kv.range(&request)?.kvs.pop(),
        false => None,
    };
    let found = found.ok_or_else(|| {
        let text = "no such key: of one that was deleted, give the revision too";
        ApiError::path_not_found().with_message(text.to_owned())
    })?;
    Ok(found.mod_revision)
}

async fn consistency(context: &RestContext, query: &Query) -> Result<Response, Failure> {
    query.allow(&["from", "to"])?;
    let from = query.number("from")?;
    let from = from.ok_or_else(|| ApiError::bad_request("name the older size: from=N"))?;
    let proved = context
        .node
        .ledger
        .consistency(from, query.number("to")?)
        .await?;
    let document = ConsistencyDocument {
        version: RECEIPT_VERSION,
        from: proved.from,
        to: proved.to,
        proof: proved.proof.iter().map(|hash| hex(hash)).collect(),
        root: (context.node.sign_root)(proved.head)
            .await
            .map_err(|reason| unsigned(&reason))?,
    };
    json(&document)
}

/// The query's pairs; each at most once, and none that is not known.
struct Query(Vec<(String, String)>);

impl Query {
    fn allow(&self, names: &[&str]) -> Result<(), Failure> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            let twice = self.0[..at].iter().any(|(before, _)| before == name);
            if twice || !names.contains(&name.as_str()) {
                let text = format!(
                    "parameter {name:?}: allowed once each: {}",
                    names.join(", ")
                );
                return Err(ApiError::bad_request(text).into());
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(given, _)| given == name);
        pair.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|_| ApiError::bad_request(format!("{name} is not a number")).into())
    }

    fn key(&self) -> Result<Option<Bytes>, Failure> {
        match (self.get("key"), self.get("keyHex")) {
            (None, None) => Ok(None),
            (Some(key), None) => Ok(Some(Bytes::copy_from_slice(key.as_bytes()))),
            (None, Some(key)) => match unhex(key) {
                Some(key) => Ok(Some(key.into())),
                None => Err(ApiError::bad_request("keyHex is not hex").into()),
            },
            (Some(_), Some(_)) => Err(ApiError::bad_request("give key or keyHex, not both").into()),
        }
    }
}

fn json(document: &impl Serialize) -> Result<Response, Failure> {
    let value = serde_json::to_value(document);
    respond::json_document(&value.map_err(|error| ApiError::internal(error.to_string()))?)
}

fn unsigned(reason: &str) -> Failure {
    ApiError::internal(format!("the root could not be signed: {reason}")).into()
}
