//! A quote of Intel DCAP: SGX in version 3, TDX in versions 4 and 5 with a report
//! of TD 1.0 or 1.5, read by the crate `dcap-qvl`.
//!
//! Invariants: sizes are checked before the quote is read; what follows a quote is
//! nothing or zeros, as buffers of the kernel have it.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use dcap_qvl::config::PckCa;
use dcap_qvl::intel::{PckExtension, extract_cert_chain, parse_pck_extension, pck_ca};
use dcap_qvl::quote::{
    AuthData, CertificationData, EnclaveReport, Quote as Parsed, Report, TDReport10,
};
use nautilus_attest_protocol::{
    Claims, MAX_EVIDENCE_BYTES, Measurement, Refused, ReportData, Tcb, TcbStatus, TeeKind,
};

use crate::certificate::malformed;

/// How this is named in refusals.
pub(super) const WHAT: &str = "Intel quote";

/// Bytes of a header, and of the length before the signature data.
const HEADER_BYTES: usize = 48;
const LENGTH_BYTES: usize = 4;
/// ECDSA on P-256, the only kind of attestation key there is.
const ATTESTATION_KEY: u16 = 2;
/// Certification data that is the whole chain of the platform's key (PCK), as PEM.
const CHAIN_DATA: u16 = 5;
/// Certification data that is the quoting enclave's report and its own.
const ENCLAVE_DATA: u16 = 6;
/// Bytes of parts of the signature data (Intel's `sgx_quote_4.h`).
const SIGNATURE_AND_KEY_BYTES: usize = 64 + 64;
const ENCLAVE_REPORT_AND_SIGNATURE_BYTES: usize = 384 + 64;
const OWN_DATA_LENGTH_BYTES: usize = 2;
const DATA_HEADER_BYTES: usize = 6;
/// Most certificates in that chain. Genuine ones have three.
const MAX_CHAIN_CERTIFICATES: usize = 4;
/// The bit of an enclave's attributes that lets a debugger in.
const SGX_DEBUG: u8 = 1 << 1;

/// What the measurement of a trust domain is hashed under.
const TDX_LABEL: &[u8] = b"nautilus TDX measurement v1";

/// A quote, read but not believed.
pub(super) struct Quote {
    parsed: Parsed,
    kind: TeeKind,
    /// DER of the platform's certificate, then of the authorities above it.
    pub(super) chain: Vec<Vec<u8>>,
    platform: PckExtension,
    authority: PckCa,
}

impl Quote {
    /// Reads a quote that must be of `kind`.
    pub(super) fn read(body: &[u8], kind: TeeKind) -> Result<Self, Refused> {
        if body.len() > MAX_EVIDENCE_BYTES {
            return Err(Refused::TooLarge {
                what: WHAT,
                size: body.len(),
                limit: MAX_EVIDENCE_BYTES,
            });
        }
        if body.len() < HEADER_BYTES {
            return Err(bad(format!("it has {} bytes", body.len())));
        }
        let parsed = Parsed::parse(body).map_err(bad)?;
        let version = parsed.header.version;
        let fits = match (&parsed.report, kind) {
            (Report::SgxEnclave(_), TeeKind::Sgx) => version == 3,
            (Report::TD10(_) | Report::TD15(_) | Report::TD15Ex(_), TeeKind::Tdx) => {
                version == 4 || version == 5
            }
            _ => false,
        };
        if !fits {
            let what = format!("version {version} of a quote as {kind} evidence");
            return Err(Refused::Unsupported { what });
        }
        if parsed.header.attestation_key_type != ATTESTATION_KEY {
            let what = format!(
                "attestation key type {}",
                parsed.header.attestation_key_type
            );
            return Err(Refused::Unsupported { what });
        }
        check_end(body, &parsed)?;
        if parsed.inner_cert_type() != CHAIN_DATA {
            let what = format!(
                "a quote with certification data {}",
                parsed.inner_cert_type()
            );
            return Err(Refused::Unsupported { what });
        }
        let chain = extract_cert_chain(&parsed).map_err(bad)?;
        let leaf = chain.first().ok_or_else(|| bad("it has no certificate"))?;
        if chain.len() > MAX_CHAIN_CERTIFICATES {
            return Err(bad(format!("it has {} certificates", chain.len())));
        }
        let platform = parse_pck_extension(leaf).map_err(bad)?;
        let authority = pck_ca(leaf).map_err(bad)?;
        Ok(Self {
            parsed,
            kind,
            chain,
            platform,
            authority,
        })
    }

    /// The names of the endorsements it is judged by.
    pub(super) fn endorsements(&self) -> Names {
        let kind = self.kind;
        Names {
            tcb_info: format!("intel/tcb/{kind}/{}", hex::encode(self.platform.fmspc)),
            qe_identity: format!("intel/qe/{kind}"),
            platform_list: format!("intel/crl/{}", self.authority.as_id_str()),
            root_list: "intel/crl/root".to_owned(),
        }
    }

    /// What the quote says, with the verdict on its platform.
    pub(super) fn claims(
        &self,
        status: TcbStatus,
        advisories: BTreeSet<String>,
    ) -> Result<Claims, Refused> {
        let (measurement, report_data, debug, registers) = match &self.parsed.report {
            Report::SgxEnclave(report) => read_enclave(report),
            Report::TD10(report) => read_domain(report, None),
            Report::TD15(report) => read_domain(&report.base, Some(&report.mr_service_td)),
            Report::TD15Ex(report) => {
                read_domain(&report.base.base, Some(&report.base.mr_service_td))
            }
        };
        Ok(Claims {
            tee: self.kind,
            measurement: Measurement::new(measurement).map_err(bad)?,
            platform: hex::encode(&self.platform.ppid),
            debug,
            report_data,
            tcb: Tcb {
                status,
                advisories,
                components: self.components(),
            },
            registers: registers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }

    fn components(&self) -> BTreeMap<String, u32> {
        let mut components = BTreeMap::new();
        components.insert("pcesvn".to_owned(), u32::from(self.platform.pce_svn));
        let mut numbered = |name: &str, versions: &[u8]| {
            for (at, version) in versions.iter().enumerate() {
                components.insert(format!("{name}{at}"), u32::from(*version));
            }
        };
        numbered("cpusvn", &self.platform.cpu_svn);
        if let Some(report) = self.parsed.report.as_td10() {
            numbered("tee_tcb_svn", &report.tee_tcb_svn);
        }
        if let Some(report) = self.parsed.report.as_sgx() {
            components.insert("isvsvn".to_owned(), u32::from(report.isv_svn));
        }
        components
    }
}

/// What a verifier looks up for a quote.
pub(super) struct Names {
    pub(super) tcb_info: String,
    pub(super) qe_identity: String,
    pub(super) platform_list: String,
    pub(super) root_list: String,
}

type Reading = (Vec<u8>, ReportData, bool, Vec<(&'static str, Vec<u8>)>);

fn read_enclave(report: &EnclaveReport) -> Reading {
    let registers = vec![
        ("mrsigner", report.mr_signer.to_vec()),
        ("isvprodid", report.isv_prod_id.to_be_bytes().to_vec()),
        ("isvsvn", report.isv_svn.to_be_bytes().to_vec()),
        ("attributes", report.attributes.to_vec()),
        ("miscselect", report.misc_select.to_be_bytes().to_vec()),
    ];
    let debug = report.attributes[0] & SGX_DEBUG != 0;
    (
        report.mr_enclave.to_vec(),
        report.report_data,
        debug,
        registers,
    )
}

fn read_domain(report: &TDReport10, service: Option<&[u8; 48]>) -> Reading {
    let mut registers = vec![
        ("mrtd", report.mr_td.to_vec()),
        ("rtmr0", report.rt_mr0.to_vec()),
        ("rtmr1", report.rt_mr1.to_vec()),
        ("rtmr2", report.rt_mr2.to_vec()),
        ("rtmr3", report.rt_mr3.to_vec()),
        ("mrconfigid", report.mr_config_id.to_vec()),
        ("mrowner", report.mr_owner.to_vec()),
        ("mrownerconfig", report.mr_owner_config.to_vec()),
        ("mrseam", report.mr_seam.to_vec()),
        ("mrsignerseam", report.mr_signer_seam.to_vec()),
        ("td_attributes", report.td_attributes.to_vec()),
        ("xfam", report.xfam.to_vec()),
    ];
    registers.extend(service.map(|value| ("mrservicetd", value.to_vec())));
    // The whole first byte is "TD under debug": debugger and profilers.
    let debug = report.td_attributes[0] != 0;
    (
        domain_measurement_of(report),
        report.report_data,
        debug,
        registers,
    )
}

fn domain_measurement_of(report: &TDReport10) -> Vec<u8> {
    domain_measurement(
        &report.mr_td,
        &[report.rt_mr0, report.rt_mr1, report.rt_mr2].concat(),
    )
}

/// SHA-384 over a label, MRTD and RTMR0 to RTMR2: the virtual firmware, its
/// configuration, and what it started. MRTD alone would leave the kernel open.
/// RTMR3 is what runs there to fill, and stays a register of its own.
pub(crate) fn domain_measurement(mrtd: &[u8], rtmr0_to_2: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA384);
    for part in [TDX_LABEL, mrtd, rtmr0_to_2] {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// After the signature data there is nothing, or zeros; and in it every byte belongs
/// to a part that is signed or checked.
fn check_end(body: &[u8], parsed: &Parsed) -> Result<(), Refused> {
    let start = parsed.signed_length();
    let field = body.get(start..start.saturating_add(LENGTH_BYTES));
    let length: Option<[u8; LENGTH_BYTES]> = field.and_then(|field| field.try_into().ok());
    let length = length.ok_or_else(|| bad("it ends in its report"))?;
    let length = u32::from_le_bytes(length) as usize;
    if length != signature_data_bytes(&parsed.auth_data)? {
        return Err(bad("its signature data has bytes of no part"));
    }
    let end = start.saturating_add(LENGTH_BYTES).saturating_add(length);
    match body.get(end..) {
        Some(rest) if rest.iter().all(|byte| *byte == 0) => Ok(()),
        _ => Err(bad("there are bytes after its signature")),
    }
}

/// The bytes that the parts of the signature data take.
fn signature_data_bytes(data: &AuthData) -> Result<usize, Refused> {
    match data {
        AuthData::V3(data) => Ok(SIGNATURE_AND_KEY_BYTES
            + certification_bytes(&data.qe_auth_data.data, &data.certification_data)),
        AuthData::V4(data) => {
            let outer = &data.certification_data;
            let inner = &data.qe_report_data;
            let needed = certification_bytes(&inner.qe_auth_data.data, &inner.certification_data);
            if outer.cert_type != ENCLAVE_DATA || outer.body.data.len() != needed {
                return Err(bad("its certification data is not the quoting enclave's"));
            }
            Ok(SIGNATURE_AND_KEY_BYTES + DATA_HEADER_BYTES + needed)
        }
    }
}

/// The quoting enclave's report and signature, its own data, and the chain.
fn certification_bytes(own_data: &[u8], chain: &CertificationData) -> usize {
    ENCLAVE_REPORT_AND_SIGNATURE_BYTES
        + OWN_DATA_LENGTH_BYTES
        + own_data.len()
        + DATA_HEADER_BYTES
        + chain.body.data.len()
}

pub(super) fn bad(reason: impl std::fmt::Display) -> Refused {
    malformed(WHAT, reason)
}
