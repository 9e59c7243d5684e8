//! Signs roots of the ledger, and heads of the audit log.
//!
//! Invariants
//! - The key is made in this process, never written, and replaced every
//!   [`KEY_LIFETIME`], so that its evidence is still fresh when it signs.
//! - Evidence binds the key to the quorum and the node before anything is signed.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_attest_protocol::ledger_report_data;
use nautilus_machine::{LedgerHead, RootStatement, UnixMillis};
use nautilus_rest::audit::chain::{Head, HeadStatement, SignedHead};
use nautilus_rest::receipts::SignedRoot;
use tokio::sync::Mutex;

/// How long one key signs. Less than any TEE's evidence is accepted for.
const KEY_LIFETIME: Duration = Duration::from_secs(3600);

/// Makes encoded evidence over report data. May block.
pub(crate) type Evidence = Arc<dyn Fn(&[u8; 64]) -> Result<Vec<u8>, String> + Send + Sync>;

/// Signs this node's roots and heads. What is signed begins with what it is.
pub(crate) struct RootSigner {
    cluster: String,
    node: u64,
    evidence: Evidence,
    key: Mutex<Option<Arc<AttestedKey>>>,
}

struct AttestedKey {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
    evidence: Vec<u8>,
    made: Instant,
}

impl RootSigner {
    /// A signer for one node of a quorum.
    pub(crate) fn new(cluster: &str, node: u64, evidence: Evidence) -> Self {
        Self {
            cluster: cluster.to_owned(),
            node,
            evidence,
            key: Mutex::new(None),
        }
    }

    /// The root, signed now.
    pub(crate) async fn sign(&self, head: LedgerHead) -> Result<SignedRoot, String> {
        let key = self.key().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|_| "the clock stands before 1970".to_owned())?;
        let statement = RootStatement {
            cluster: self.cluster.clone(),
            node: self.node,
            size: head.size,
            root: head.root,
            term: head.term,
            revision: head.revision,
            time: UnixMillis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
        };
        let signature = key
            .pair
            .sign(&SystemRandom::new(), &statement.to_be_signed())
            .map_err(|_| "the cryptographic library did not sign".to_owned())?;
        Ok(SignedRoot {
            cluster: statement.cluster,
            node: statement.node,
            size: statement.size,
            sha256: hex::encode(statement.root),
            term: statement.term,
            revision: statement.revision,
            time_ms: statement.time.0,
            public_key: BASE64.encode(&key.spki),
            signature: BASE64.encode(signature.as_ref()),
            evidence: BASE64.encode(&key.evidence),
        })
    }

    /// A head of the node's audit log, signed now.
    pub(crate) async fn sign_audit(&self, head: Head) -> Result<SignedHead, String> {
        let key = self.key().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|_| "the clock stands before 1970".to_owned())?;
        let statement = HeadStatement {
            cluster: self.cluster.clone(),
            node: self.node,
            head,
            time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        };
        let signature = key
            .pair
            .sign(&SystemRandom::new(), &statement.to_be_signed())
            .map_err(|_| "the cryptographic library did not sign".to_owned())?;
        Ok(SignedHead {
            cluster: statement.cluster,
            node: statement.node,
            time_ms: statement.time_ms,
            public_key: BASE64.encode(&key.spki),
            signature: BASE64.encode(signature.as_ref()),
            evidence: BASE64.encode(&key.evidence),
        })
    }

    /// The present key; a new one when it has grown old.
    async fn key(&self) -> Result<Arc<AttestedKey>, String> {
        let mut present = self.key.lock().await;
        if let Some(key) = present.as_ref()
            && key.made.elapsed() < KEY_LIFETIME
        {
            return Ok(Arc::clone(key));
        }
        let (cluster, node) = (self.cluster.clone(), self.node);
        let evidence = Arc::clone(&self.evidence);
        let made =
            tokio::task::spawn_blocking(move || AttestedKey::make(&cluster, node, &evidence));
        let key = Arc::new(made.await.map_err(|error| error.to_string())??);
        *present = Some(Arc::clone(&key));
        Ok(key)
    }
}

impl AttestedKey {
    fn make(cluster: &str, node: u64, evidence: &Evidence) -> Result<Self, String> {
        let failed = |_| "the cryptographic library made no key".to_owned();
        let made = Instant::now();
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
        let spki = spki.as_ref().to_vec();
        let evidence = evidence(&ledger_report_data(&spki, cluster, node))?;
        Ok(Self {
            pair,
            spki,
            evidence,
            made,
        })
    }
}
