//! Simulated evidence: made by a node that holds the root's key, judged by anyone
//! who holds its public half.
//!
//! The body is the CBOR array `[document, signature]`; the document is the map
//! `{"measurement", "platform", "report-data", "issued-at-ms"}` in that order and
//! in its only encoding, the signature ECDSA P-256 with SHA-256 over a label and
//! the document's bytes as received.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minicbor::{Decoder, Encoder};
use nautilus_attest_protocol::{
    Claims, Counter, Evidence, Measurement, Provider, QuoteError, Quoter, Refused, ReportData,
    SealError, Sealer, Tcb, TeeKind, UnixMillis, Verifier,
};
use zeroize::Zeroizing;

use crate::measurement::measure_running_binary;
use crate::platform::PlatformSecret;
use crate::root::{RootPublicKey, SimulatedRoot};
use crate::sealing;
use crate::secret_file::SecretFileError;

/// How long simulated evidence holds. Longer than any certificate that carries it.
pub const SIMULATED_EVIDENCE_LIFETIME_MS: u64 = 48 * 60 * 60 * 1000;
/// How far ahead of ours the clock of the maker may be.
pub const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;

const SIGNATURE_LABEL: &[u8] = b"nautilus simulated evidence v2\0";
const PLATFORM_BYTES: usize = 32;

/// The simulated TEE of one node: makes evidence and seals.
pub struct SimulatedProvider {
    root: SimulatedRoot,
    secret: PlatformSecret,
    platform: String,
    measurement: Measurement,
    counter: Option<Arc<dyn Counter>>,
}

/// Why a simulated TEE did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedError {
    /// One of its secret files.
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    /// The running binary could not be read.
    #[error("measuring the running binary failed: {0}")]
    Measure(#[source] std::io::Error),
}

impl SimulatedProvider {
    /// A simulated TEE that claims `measurement`.
    pub fn new(root: SimulatedRoot, secret: PlatformSecret, measurement: Measurement) -> Self {
        let platform = secret.platform_id();
        Self {
            root,
            secret,
            platform,
            measurement,
            counter: None,
        }
    }

    /// The same with a monotonic counter beside it, such as a TPM's.
    #[must_use]
    pub fn with_counter(mut self, counter: Option<Arc<dyn Counter>>) -> Self {
        self.counter = counter;
        self
    }

    /// The simulated TEE of this process, measured by its binary.
    pub fn for_this_process(
        root: SimulatedRoot,
        secret: PlatformSecret,
    ) -> Result<Self, SimulatedError> {
        let measurement = measure_running_binary().map_err(SimulatedError::Measure)?;
        Ok(Self::new(root, secret, measurement))
    }

    fn owner(&self) -> sealing::Owner<'_> {
        sealing::Owner {
            kind: TeeKind::Simulated,
            platform: &self.platform,
            measurement: &self.measurement,
        }
    }

    /// The key that verifies its evidence.
    pub fn root_public_key(&self) -> RootPublicKey {
        self.root.public_key()
    }

    /// Evidence issued at a given time.
    pub fn quote_at(
        &self,
        report_data: &ReportData,
        issued_at_ms: UnixMillis,
    ) -> Result<Evidence, QuoteError> {
        let failed = |reason: &str| QuoteError {
            kind: TeeKind::Simulated,
            reason: reason.to_owned(),
        };
        let platform =
            hex::decode(&self.platform).map_err(|_| failed("its platform id is no hex"))?;
        let document = Document {
            measurement: self.measurement.as_bytes(),
            platform: &platform,
            report_data,
            issued_at_ms,
        };
        let document = document.encode();
        let signature = self
            .root
            .sign(&signed_bytes(&document))
            .ok_or_else(|| failed("signing failed"))?;
        let mut body = Encoder::new(Vec::with_capacity(document.len() + signature.len() + 8));
        let written = body
            .array(2)
            .and_then(|e| e.bytes(&document))
            .and_then(|e| e.bytes(&signature))
            .is_ok();
        assert!(written, "writing CBOR to memory cannot fail");
        Ok(Evidence::new(TeeKind::Simulated, body.into_writer()))
    }
}

impl Quoter for SimulatedProvider {
    fn kind(&self) -> TeeKind {
        TeeKind::Simulated
    }

    fn measurement(&self) -> Measurement {
        self.measurement.clone()
    }

    fn platform(&self) -> String {
        self.platform.clone()
    }

    fn quote(&self, report_data: &ReportData) -> Result<Evidence, QuoteError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| QuoteError {
                kind: TeeKind::Simulated,
                reason: "the clock stands before 1970".to_owned(),
            })?;
        self.quote_at(
            report_data,
            u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        )
    }

    fn quotes_at_once(&self) -> bool {
        true
    }
}

impl Sealer for SimulatedProvider {
    fn seal(&self, label: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        sealing::seal(&self.secret, &self.owner(), label, plaintext)
    }

    fn unseal(&self, label: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        sealing::unseal(&self.secret, &self.owner(), label, sealed)
    }
}

impl Provider for SimulatedProvider {
    fn counter(&self) -> Option<Arc<dyn Counter>> {
        self.counter.clone()
    }
}

/// Judges simulated evidence under one root.
pub struct SimulatedVerifier {
    root: RootPublicKey,
}

impl SimulatedVerifier {
    /// Trusts `root`.
    pub fn new(root: RootPublicKey) -> Self {
        Self { root }
    }
}

impl Verifier for SimulatedVerifier {
    fn verify(&self, evidence: &Evidence, now_ms: UnixMillis) -> Result<Claims, Refused> {
        if evidence.kind != TeeKind::Simulated {
            return Err(Refused::Unsupported {
                what: format!("{} evidence", evidence.kind),
            });
        }
        let (document, signature) = split(&evidence.body)?;
        if !self.root.verifies(&signed_bytes(document), signature) {
            return Err(Refused::Signature {
                what: "simulated evidence",
                expected: self.root.shown(),
            });
        }
        let document = Document::decode(document)?;
        check_time(document.issued_at_ms, now_ms)?;
        document.claims()
    }
}

/// What simulated evidence says, before anything is believed.
pub(crate) fn read_unverified(body: &[u8]) -> Result<Claims, Refused> {
    Document::decode(split(body)?.0)?.claims()
}

/// The document and the signature over it.
fn split(body: &[u8]) -> Result<(&[u8], &[u8]), Refused> {
    let mut decoder = Decoder::new(body);
    if decoder.array().map_err(malformed)? != Some(2) {
        return Err(malformed("it is an array of document and signature"));
    }
    let document = decoder.bytes().map_err(malformed)?;
    let signature = decoder.bytes().map_err(malformed)?;
    if decoder.position() != body.len() {
        return Err(malformed("bytes are left over"));
    }
    Ok((document, signature))
}

fn check_time(issued_at_ms: UnixMillis, now_ms: UnixMillis) -> Result<(), Refused> {
    let what = "simulated evidence";
    let valid_from_ms = issued_at_ms.saturating_sub(CLOCK_SKEW_MS);
    if now_ms < valid_from_ms {
        return Err(Refused::NotYetValid {
            what,
            valid_from_ms,
            now_ms,
        });
    }
    let expired_at_ms = issued_at_ms.saturating_add(SIMULATED_EVIDENCE_LIFETIME_MS);
    if now_ms > expired_at_ms {
        return Err(Refused::Expired {
            what,
            expired_at_ms,
            now_ms,
        });
    }
    Ok(())
}

struct Document<'a> {
    measurement: &'a [u8],
    platform: &'a [u8],
    report_data: &'a ReportData,
    issued_at_ms: UnixMillis,
}

impl<'a> Document<'a> {
    fn claims(&self) -> Result<Claims, Refused> {
        Ok(Claims {
            tee: TeeKind::Simulated,
            measurement: Measurement::new(self.measurement).map_err(malformed)?,
            platform: hex::encode(self.platform),
            debug: false,
            report_data: *self.report_data,
            tcb: Tcb::nothing_to_say(),
            registers: BTreeMap::new(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(256));
        let written = encoder
            .map(4)
            .and_then(|e| e.str("measurement"))
            .and_then(|e| e.bytes(self.measurement))
            .and_then(|e| e.str("platform"))
            .and_then(|e| e.bytes(self.platform))
            .and_then(|e| e.str("report-data"))
            .and_then(|e| e.bytes(self.report_data))
            .and_then(|e| e.str("issued-at-ms"))
            .and_then(|e| e.u64(self.issued_at_ms))
            .is_ok();
        assert!(written, "writing CBOR to memory cannot fail");
        encoder.into_writer()
    }

    fn decode(bytes: &'a [u8]) -> Result<Self, Refused> {
        let mut decoder = Decoder::new(bytes);
        if decoder.map().map_err(malformed)? != Some(4) {
            return Err(malformed("its document has four entries"));
        }
        let mut next = |name: &str| match decoder.str().map_err(malformed)? {
            found if found == name => decoder.bytes().map_err(malformed),
            _ => Err(malformed(format!("{name} is missing"))),
        };
        let measurement = next("measurement")?;
        let platform = next("platform")?;
        let report_data = next("report-data")?;
        if decoder.str().map_err(malformed)? != "issued-at-ms" {
            return Err(malformed("issued-at-ms is missing"));
        }
        let issued_at_ms = decoder.u64().map_err(malformed)?;
        let report_data = report_data
            .try_into()
            .map_err(|_| malformed("report data has 64 bytes"))?;
        if platform.len() != PLATFORM_BYTES {
            return Err(malformed("a platform id has 32 bytes"));
        }
        let document = Self {
            measurement,
            platform,
            report_data,
            issued_at_ms,
        };
        if document.encode() != bytes {
            return Err(malformed("its document is not in the canonical encoding"));
        }
        Ok(document)
    }
}

fn signed_bytes(document: &[u8]) -> Vec<u8> {
    [SIGNATURE_LABEL, document].concat()
}

fn malformed(reason: impl std::fmt::Display) -> Refused {
    Refused::Malformed {
        what: "simulated evidence",
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn provider() -> SimulatedProvider {
        let folder = tempfile::tempdir().unwrap();
        let root = SimulatedRoot::load_or_create(&folder.path().join("root")).unwrap();
        let secret = PlatformSecret::load_or_create(&folder.path().join("platform")).unwrap();
        SimulatedProvider::new(root, secret, Measurement::new([5; 48]).unwrap())
    }

    #[test]
    fn the_claims_are_what_the_provider_said() {
        let provider = provider();
        let evidence = provider.quote_at(&[3; 64], NOW_MS).unwrap();
        let claims = SimulatedVerifier::new(provider.root_public_key())
            .verify(&evidence, NOW_MS)
            .unwrap();
        let expected = Claims {
            tee: TeeKind::Simulated,
            measurement: Measurement::new([5; 48]).unwrap(),
            platform: provider.platform(),
            debug: false,
            report_data: [3; 64],
            tcb: Tcb::nothing_to_say(),
            registers: BTreeMap::new(),
        };
        assert_eq!(claims, expected);
    }

    #[test]
    fn evidence_under_another_root_is_refused() {
        let evidence = provider().quote_at(&[3; 64], NOW_MS).unwrap();
        let refused = SimulatedVerifier::new(provider().root_public_key())
            .verify(&evidence, NOW_MS)
            .unwrap_err();
        assert!(matches!(refused, Refused::Signature { .. }), "{refused}");
    }

    #[test]
    fn evidence_is_refused_when_old_and_when_from_the_future() {
        let provider = provider();
        let verifier = SimulatedVerifier::new(provider.root_public_key());
        let evidence = provider.quote_at(&[3; 64], NOW_MS).unwrap();
        assert!(
            verifier
                .verify(&evidence, NOW_MS + SIMULATED_EVIDENCE_LIFETIME_MS)
                .is_ok()
        );
        let old = verifier
            .verify(&evidence, NOW_MS + SIMULATED_EVIDENCE_LIFETIME_MS + 1)
            .unwrap_err();
        assert!(matches!(old, Refused::Expired { .. }), "{old}");
        assert!(verifier.verify(&evidence, NOW_MS - CLOCK_SKEW_MS).is_ok());
        let early = verifier
            .verify(&evidence, NOW_MS - CLOCK_SKEW_MS - 1)
            .unwrap_err();
        assert!(matches!(early, Refused::NotYetValid { .. }), "{early}");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let provider = provider();
        let verifier = SimulatedVerifier::new(provider.root_public_key());
        let evidence = provider.quote_at(&[3; 64], NOW_MS).unwrap();
        let runner = &mut proptest::test_runner::TestRunner::default();
        runner
            .run(&(any::<prop::sample::Index>(), 0u8..8), |(at, bit)| {
                let mut altered = evidence.clone();
                let at = at.index(altered.body.len());
                altered.body[at] ^= 1 << bit;
                prop_assert!(verifier.verify(&altered, NOW_MS).is_err());
                Ok(())
            })
            .unwrap();
    }
}
