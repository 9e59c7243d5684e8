//! Intel's two: TDX through configfs-tsm, SGX through Gramine's `/dev/attestation`.
//!
//! Offsets are those of Intel's quote structures (SGX and TDX DCAP Quoting Library
//! API): header, then the report's body.

use nautilus_attest_protocol::{Measurement, ReportData};
use nautilus_attest_secret::Secret;
use zeroize::Zeroizing;

use super::kernel::{Kernel, TDREPORT_BYTES, TDX_GUEST};
use super::tsm::{self, TsmError};
use crate::intel::domain_measurement;

/// The name of TDX' driver behind configfs-tsm.
const TDX_TSM_PROVIDER: &str = "tdx_guest";
const GRAMINE: &str = "dev/attestation";
/// What Gramine says where no quote can be made.
const NO_ATTESTATION: &str = "none";
const LINE_MAX_BYTES: usize = 256;
const QUOTE_MAX_BYTES: usize = 32 * 1024;
/// Gramine's file of the key that EGETKEY derives for this MRENCLAVE.
const MRENCLAVE_KEY: &str = "dev/attestation/keys/_sgx_mrenclave";
const SGX_KEY_BYTES: usize = 16;

const HEADER_BYTES: usize = 48;
/// A version 5 quote has the type and the size of the body before it.
const DESCRIPTOR_BYTES: usize = 6;
/// Within a TD report's body.
const TD_REPORT_DATA_AT: usize = 520;
/// Within an enclave report's body.
const ENCLAVE_REPORT_DATA_AT: usize = 320;
/// Within TDREPORT_STRUCT: TDINFO, then MRTD after attributes and XFAM.
const MRTD_AT: usize = 512 + 16;
/// MRCONFIGID, MROWNER and MROWNERCONFIG lie between.
const RTMR0_AT: usize = MRTD_AT + 4 * REGISTER_BYTES;
/// Bytes of MRTD and of each RTMR.
const REGISTER_BYTES: usize = 48;

pub(super) fn look_for_tdx(
    kernel: &dyn Kernel,
    tsm: &Result<String, TsmError>,
) -> Result<String, String> {
    match tsm {
        Ok(provider) if provider == TDX_TSM_PROVIDER => Ok("configfs-tsm".to_owned()),
        _ if kernel.exists(TDX_GUEST) => Ok(format!("/{TDX_GUEST}")),
        Ok(provider) => Err(format!(
            "there is no /{TDX_GUEST}, and {provider} is behind configfs-tsm"
        )),
        Err(error) => Err(format!("there is no /{TDX_GUEST}; {error}")),
    }
}

/// A quote of this trust domain. The guest device alone makes none: it gives the
/// module's report, which only its own machine can check.
pub(super) fn quote_td(kernel: &dyn Kernel, report_data: &ReportData) -> Result<Vec<u8>, String> {
    let made = match tsm::report(kernel, report_data) {
        Ok(made) if made.provider == TDX_TSM_PROVIDER => made.report,
        Ok(made) => return Err(format!("{} is behind configfs-tsm", made.provider)),
        Err(error @ (TsmError::Absent | TsmError::NoProvider(_))) if kernel.exists(TDX_GUEST) => {
            return Err(format!(
                "/{TDX_GUEST} makes reports for this machine only; a quote needs configfs-tsm: {error}"
            ));
        }
        Err(error) => return Err(error.to_string()),
    };
    let body = td_body(&made)?;
    check_report_data(&made, body + TD_REPORT_DATA_AT, report_data)?;
    Ok(made)
}

/// The measurement alone, of a kernel that makes no quotes.
pub(super) fn measurement_by_device(kernel: &dyn Kernel) -> Result<Measurement, String> {
    let report = kernel
        .tdx_report(&[0; 64])
        .map_err(|error| format!("/{TDX_GUEST}: {error}"))?;
    if report.len() != TDREPORT_BYTES {
        return Err(format!("the module's report has {} bytes", report.len()));
    }
    // As the verifier has it: of MRTD and RTMR0 to RTMR2.
    let mrtd = &report[MRTD_AT..][..REGISTER_BYTES];
    let rtmrs = &report[RTMR0_AT..][..3 * REGISTER_BYTES];
    Measurement::new(domain_measurement(mrtd, rtmrs)).map_err(|error| error.to_string())
}

/// Where the body of a TD quote starts.
fn td_body(quote: &[u8]) -> Result<usize, String> {
    match quote
        .first_chunk()
        .map(|version| u16::from_le_bytes(*version))
    {
        Some(4) => Ok(HEADER_BYTES),
        Some(5) => Ok(HEADER_BYTES + DESCRIPTOR_BYTES),
        Some(version) => Err(format!("a TDX quote of version {version}")),
        None => Err("an empty quote".to_owned()),
    }
}

pub(super) fn look_for_sgx(kernel: &dyn Kernel) -> Result<String, String> {
    if !kernel.exists(GRAMINE) {
        return Err(format!("there is no /{GRAMINE} (not inside Gramine)"));
    }
    let path = format!("{GRAMINE}/attestation_type");
    let kind = kernel
        .read(&path, LINE_MAX_BYTES)
        .map_err(|error| format!("/{path}: {error}"))?;
    match String::from_utf8_lossy(&kind).trim() {
        "dcap" => Ok(format!("/{GRAMINE}")),
        NO_ATTESTATION => Err(format!(
            "/{path} says none (sgx.remote_attestation in the manifest, or gramine-direct)"
        )),
        other => Err(format!(
            "/{path} says {}, and only dcap is supported",
            other.escape_default()
        )),
    }
}

/// A quote of this enclave.
pub(super) fn quote_enclave(
    kernel: &dyn Kernel,
    report_data: &ReportData,
) -> Result<Vec<u8>, String> {
    let failed = |file: &str, error: std::io::Error| format!("/{GRAMINE}/{file}: {error}");
    kernel
        .write(&format!("{GRAMINE}/user_report_data"), report_data)
        .map_err(|error| failed("user_report_data", error))?;
    let quote = kernel
        .read(&format!("{GRAMINE}/quote"), QUOTE_MAX_BYTES)
        .map_err(|error| failed("quote", error))?;
    check_report_data(&quote, HEADER_BYTES + ENCLAVE_REPORT_DATA_AT, report_data)?;
    Ok(quote)
}

/// The key that the processor derives for this enclave and no other.
pub(super) fn enclave_key(kernel: &dyn Kernel) -> Result<Secret<SGX_KEY_BYTES>, String> {
    let key = kernel
        .read(MRENCLAVE_KEY, SGX_KEY_BYTES)
        .map(Zeroizing::new)
        .map_err(|error| format!("/{MRENCLAVE_KEY}: {error}"))?;
    Secret::from_slice(&key).ok_or_else(|| {
        format!(
            "/{MRENCLAVE_KEY} has {} bytes, not {SGX_KEY_BYTES}",
            key.len()
        )
    })
}

fn check_report_data(quote: &[u8], at: usize, report_data: &ReportData) -> Result<(), String> {
    if quote.get(at..at + report_data.len()) == Some(&report_data[..]) {
        return Ok(());
    }
    Err("the quote is over other report data than was asked: another request came between".into())
}
