//! What a TEE says about itself: its kind, the evidence as it travels, and the
//! claims a verifier has read from it.
//!
//! On the wire evidence is CBOR in the form the Confidential Computing
//! Consortium's interoperable RA-TLS uses for the X.509 extension 2.23.133.5.4.9:
//! * tagged: `tag([evidence, claims-buffer])`, the tag naming the format;
//! * or, for kinds without a tag, a conceptual message wrapper (CMW) record
//!   `[media type, evidence, 4]`, where 4 says "evidence".
//!
//! The claims buffer is a copy for foreign verifiers; ours computes what it must
//! be from the key and compares. Decoding is strict: nothing before, between or
//! after the parts, and only the canonical encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use minicbor::data::Tag;
use minicbor::{Decoder, Encoder};
use serde::{Deserialize, Serialize};

use crate::binding::ReportData;
use crate::refused::Refused;

/// Object identifier `tcg-dice-conceptual-message-wrapper`, under which a
/// certificate carries evidence (TCG DICE Attestation Architecture).
pub const EVIDENCE_EXTENSION_OID: &[u64] = &[2, 23, 133, 5, 4, 9];

/// CBOR tag of our simulated evidence: the letters `naut` as a 32-bit number, in
/// the range that IANA gives to whoever asks first. Not registered.
pub const SIMULATED_CBOR_TAG: u64 = 0x6e61_7574;

/// CBOR tag of an Intel quote, SGX or TDX, in interoperable RA-TLS.
pub const INTEL_QUOTE_CBOR_TAG: u64 = 60000;

/// The CMW indicator's bit for evidence (bit 2).
pub const CMW_INDICATOR_EVIDENCE: u64 = 1 << 2;

/// Media type of a Nitro attestation document in a CMW record. Not registered.
const NITRO_MEDIA_TYPE: &str = "application/aws-nitro-document+cbor";

/// Media type of an SEV-SNP report, with its certificates after it, in a CMW
/// record. Not registered.
const SNP_MEDIA_TYPE: &str = "application/vnd.amd.sev-snp-report";

/// Longest encoded evidence accepted. A TDX quote with its certificates is about
/// 5 KiB, a Nitro document about 5 KiB.
pub const MAX_EVIDENCE_BYTES: usize = 32 * 1024;

/// Longest measurement of any kind (SHA-512).
pub const MAX_MEASUREMENT_BYTES: usize = 64;

/// Which kind of trusted execution environment stands behind evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeeKind {
    /// A process that only plays a TEE, for development.
    Simulated,
    /// AWS Nitro Enclaves.
    Nitro,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Intel SGX.
    Sgx,
}

impl TeeKind {
    /// Every kind, in order.
    pub const ALL: [Self; 5] = [
        Self::Simulated,
        Self::Nitro,
        Self::Snp,
        Self::Tdx,
        Self::Sgx,
    ];

    /// The name in configuration and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::Nitro => "nitro",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Sgx => "sgx",
        }
    }

    fn wire_form(self) -> WireForm {
        match self {
            Self::Simulated => WireForm::Tagged(SIMULATED_CBOR_TAG),
            Self::Tdx | Self::Sgx => WireForm::Tagged(INTEL_QUOTE_CBOR_TAG),
            Self::Nitro => WireForm::Wrapped(NITRO_MEDIA_TYPE),
            Self::Snp => WireForm::Wrapped(SNP_MEDIA_TYPE),
        }
    }
}

impl fmt::Display for TeeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TeeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
                format!("unknown kind of TEE {text:?}; known: {}", known.join(", "))
            })
    }
}

enum WireForm {
    Tagged(u64),
    Wrapped(&'static str),
}

/// The digest of the code that runs in a TEE. Shown and read as lower-case hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Measurement(Vec<u8>);

impl Measurement {
    /// From raw bytes: 1 to [`MAX_MEASUREMENT_BYTES`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, MeasurementError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > MAX_MEASUREMENT_BYTES {
            return Err(MeasurementError::Length(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Measurement {
    type Err = MeasurementError;

    fn from_str(text: &str) -> Result<Self, MeasurementError> {
        Self::new(hex::decode(text).map_err(|error| MeasurementError::Hex(error.to_string()))?)
    }
}

impl TryFrom<String> for Measurement {
    type Error = MeasurementError;

    fn try_from(text: String) -> Result<Self, MeasurementError> {
        text.parse()
    }
}

impl From<Measurement> for String {
    fn from(measurement: Measurement) -> Self {
        measurement.to_string()
    }
}

/// Why bytes or text are not a measurement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasurementError {
    /// Empty or too long.
    #[error("a measurement has 1 to {MAX_MEASUREMENT_BYTES} bytes, this one has {0}")]
    Length(usize),
    /// Not hex.
    #[error("a measurement is written in hex: {0}")]
    Hex(String),
}

/// Evidence as a TEE made it, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Which kind of TEE is said to have made it.
    pub kind: TeeKind,
    /// The kind's own format: a signed document, a quote, a report.
    pub body: Vec<u8>,
    /// The claims buffer carried beside it in a certificate; empty elsewhere, and
    /// always empty for kinds that travel as CMW records.
    pub claims_buffer: Vec<u8>,
}

impl Evidence {
    /// Evidence without a claims buffer.
    pub fn new(kind: TeeKind, body: Vec<u8>) -> Self {
        Self {
            kind,
            body,
            claims_buffer: Vec::new(),
        }
    }

    /// The same evidence with the claims buffer a certificate carries, where the
    /// kind's wire form has room for one.
    #[must_use]
    pub fn with_claims_buffer(mut self, claims_buffer: Vec<u8>) -> Self {
        if matches!(self.kind.wire_form(), WireForm::Tagged(_)) {
            self.claims_buffer = claims_buffer;
        }
        self
    }

    /// As it travels: at most [`MAX_EVIDENCE_BYTES`] if the receiver is to take it.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(
            self.body.len() + self.claims_buffer.len() + 64,
        ));
        let written = match self.kind.wire_form() {
            WireForm::Tagged(tag) => encoder
                .tag(Tag::new(tag))
                .and_then(|e| e.array(2))
                .and_then(|e| e.bytes(&self.body))
                .and_then(|e| e.bytes(&self.claims_buffer))
                .is_ok(),
            WireForm::Wrapped(media_type) => encoder
                .array(3)
                .and_then(|e| e.str(media_type))
                .and_then(|e| e.bytes(&self.body))
                .and_then(|e| e.u64(CMW_INDICATOR_EVIDENCE))
                .is_ok(),
        };
        assert!(written, "writing CBOR to memory cannot fail");
        encoder.into_writer()
    }

    /// Reads what [`Evidence::encode`] writes.
    ///
    /// # Errors
    /// `TooLarge` past [`MAX_EVIDENCE_BYTES`], `Unsupported` for a tag or media type
    /// that no kind has, `Malformed` for anything else that is not that encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_EVIDENCE_BYTES {
            return Err(Refused::TooLarge {
                what: "evidence",
                size: bytes.len(),
                limit: MAX_EVIDENCE_BYTES,
            });
        }
        let mut decoder = Decoder::new(bytes);
        let evidence = match decoder.datatype().map_err(malformed)? {
            minicbor::data::Type::Tag => Self::decode_tagged(&mut decoder)?,
            _ => Self::decode_wrapped(&mut decoder)?,
        };
        if evidence.encode() != bytes {
            return Err(malformed("not the canonical encoding, or bytes left over"));
        }
        Ok(evidence)
    }

    fn decode_tagged(decoder: &mut Decoder<'_>) -> Result<Self, Refused> {
        let tag = decoder.tag().map_err(malformed)?.as_u64();
        if tag != SIMULATED_CBOR_TAG && tag != INTEL_QUOTE_CBOR_TAG {
            return Err(Refused::Unsupported {
                what: format!("evidence with the CBOR tag {tag}"),
            });
        }
        if decoder.array().map_err(malformed)? != Some(2) {
            return Err(malformed("tagged evidence is an array of two byte strings"));
        }
        let body = decoder.bytes().map_err(malformed)?.to_vec();
        let claims_buffer = decoder.bytes().map_err(malformed)?.to_vec();
        let kind = if tag == SIMULATED_CBOR_TAG {
            TeeKind::Simulated
        } else {
            intel_kind(&body)?
        };
        Ok(Self {
            kind,
            body,
            claims_buffer,
        })
    }

    fn decode_wrapped(decoder: &mut Decoder<'_>) -> Result<Self, Refused> {
        if decoder.array().map_err(malformed)? != Some(3) {
            return Err(malformed(
                "a CMW record is an array of media type, value and indicator",
            ));
        }
        let media_type = decoder.str().map_err(malformed)?;
        let kind = match media_type {
            NITRO_MEDIA_TYPE => TeeKind::Nitro,
            SNP_MEDIA_TYPE => TeeKind::Snp,
            other => {
                let shown: String = other.escape_default().take(64).collect();
                return Err(Refused::Unsupported {
                    what: format!("evidence of media type {shown}"),
                });
            }
        };
        let body = decoder.bytes().map_err(malformed)?.to_vec();
        if decoder.u64().map_err(malformed)? != CMW_INDICATOR_EVIDENCE {
            return Err(malformed("the CMW record does not hold evidence"));
        }
        Ok(Self::new(kind, body))
    }
}

/// The kind of an Intel quote, from the TEE type in its header (bytes 4 to 8,
/// little endian): 0 is SGX, 0x81 is TDX.
fn intel_kind(quote: &[u8]) -> Result<TeeKind, Refused> {
    let field: [u8; 4] = quote
        .get(4..8)
        .and_then(|field| field.try_into().ok())
        .ok_or_else(|| malformed("an Intel quote is longer than its header"))?;
    match u32::from_le_bytes(field) {
        0x00 => Ok(TeeKind::Sgx),
        0x81 => Ok(TeeKind::Tdx),
        other => Err(Refused::Unsupported {
            what: format!("an Intel quote of TEE type {other:#x}"),
        }),
    }
}

fn malformed(reason: impl fmt::Display) -> Refused {
    Refused::Malformed {
        what: "evidence",
        reason: reason.to_string(),
    }
}

/// What a verifier has read from evidence whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The kind of TEE.
    pub tee: TeeKind,
    /// The code it runs.
    pub measurement: Measurement,
    /// The chip or platform it runs on, lower-case hex.
    pub platform: String,
    /// Whether the TEE can be looked into. Never acceptable.
    pub debug: bool,
    /// The 64 bytes the TEE was asked to sign.
    pub report_data: ReportData,
    /// How well patched the platform is.
    pub tcb: Tcb,
    /// Further measured values by their vendor's name, in lower case: `pcr4`,
    /// `rtmr3`, `mrsigner`, `mrconfigid`, `host_data` and so on.
    pub registers: BTreeMap<String, Vec<u8>>,
}

/// How well patched a platform is, as far as its vendor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcb {
    /// The vendor's verdict.
    pub status: TcbStatus,
    /// The vendor's open advisories for it, such as `INTEL-SA-00615`.
    pub advisories: BTreeSet<String>,
    /// Security version numbers by component: `bootloader`, `tee`, `snp`,
    /// `microcode`, `fmc` for AMD; `isvsvn`, `pcesvn`, `tee_tcb_svn0` and so on
    /// for Intel.
    pub components: BTreeMap<String, u32>,
}

impl Tcb {
    /// For kinds whose evidence says nothing of the platform's patches: up to
    /// date, without advisories or components.
    pub fn nothing_to_say() -> Self {
        Self {
            status: TcbStatus::UpToDate,
            advisories: BTreeSet::new(),
            components: BTreeMap::new(),
        }
    }
}

/// A vendor's verdict on a platform's patches, in Intel's words (Intel PCS API
/// v4, "tcbStatus"), best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Nothing is missing.
    UpToDate,
    /// The code itself must mitigate what the platform cannot.
    SwHardeningNeeded,
    /// The platform's configuration leaves something open.
    ConfigurationNeeded,
    /// Both of these.
    ConfigurationAndSwHardeningNeeded,
    /// Patches are missing.
    OutOfDate,
    /// Patches are missing and the configuration leaves something open.
    OutOfDateConfigurationNeeded,
    /// The platform's keys are no longer to be trusted.
    Revoked,
}

impl TcbStatus {
    /// Every status, best first.
    pub const ALL: [Self; 7] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::Revoked,
    ];

    /// The name in policies and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SwHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSwHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_evidence() -> impl Strategy<Value = Evidence> {
        let body = proptest::collection::vec(any::<u8>(), 0..600);
        (
            0..5usize,
            body,
            proptest::collection::vec(any::<u8>(), 0..90),
        )
            .prop_map(|(kind, mut body, claims)| {
                let kind = TeeKind::ALL[kind];
                if let TeeKind::Tdx | TeeKind::Sgx = kind {
                    body.splice(
                        ..0,
                        [
                            4,
                            0,
                            2,
                            0,
                            if kind == TeeKind::Tdx { 0x81 } else { 0 },
                            0,
                            0,
                            0,
                        ],
                    );
                }
                Evidence::new(kind, body).with_claims_buffer(claims)
            })
    }

    proptest! {
        #[test]
        fn evidence_survives_its_encoding(evidence in any_evidence()) {
            prop_assert_eq!(Evidence::decode(&evidence.encode()), Ok(evidence));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_have_two_readings(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(evidence) = Evidence::decode(&bytes) {
                prop_assert_eq!(evidence.encode(), bytes);
            }
        }

        #[test]
        fn truncated_evidence_is_malformed(evidence in any_evidence(), cut in any::<prop::sample::Index>()) {
            let encoded = evidence.encode();
            let cut = cut.index(encoded.len());
            let is_malformed = matches!(Evidence::decode(&encoded[..cut]), Err(Refused::Malformed { .. }));
            prop_assert!(is_malformed);
        }
    }

    #[test]
    fn an_unknown_tag_is_refused_by_its_number() {
        let bytes = minicbor::to_vec(minicbor::data::Tagged::<4711, _>::new(1u8)).unwrap();
        let refused = Evidence::decode(&bytes).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "evidence with the CBOR tag 4711 is not supported here"
        );
    }

    #[test]
    fn oversized_evidence_is_refused_before_it_is_parsed() {
        let refused = Evidence::decode(&vec![0; MAX_EVIDENCE_BYTES + 1]).unwrap_err();
        assert!(matches!(
            refused,
            Refused::TooLarge {
                limit: MAX_EVIDENCE_BYTES,
                ..
            }
        ));
    }

    #[test]
    fn a_measurement_is_written_in_hex() {
        let measurement: Measurement = "00ff10".parse().unwrap();
        assert_eq!(measurement.to_string(), "00ff10");
        assert!("0g".parse::<Measurement>().is_err());
        assert!("".parse::<Measurement>().is_err());
    }
}
