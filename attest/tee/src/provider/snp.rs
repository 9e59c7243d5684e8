//! AMD SEV-SNP: reports through configfs-tsm, or the guest device where the kernel
//! has no configfs-tsm; sealing keys through the guest device.
//!
//! Offsets are those of the ATTESTATION_REPORT structure and of MSG_KEY_REQ in AMD's
//! SEV-SNP Firmware ABI Specification (56860).

use nautilus_attest_protocol::ReportData;
use nautilus_attest_secret::Secret;

use super::kernel::{Kernel, SEV_GUEST, SevGuest};
use super::tsm::{self, TsmError};

/// The name of its driver behind configfs-tsm.
pub(super) const TSM_PROVIDER: &str = "sev_guest";

const REPORT_BYTES: usize = 0x4a0;
const GUEST_SVN_AT: usize = 0x04;
const VMPL_AT: usize = 0x30;
const FLAGS_AT: usize = 0x48;
const REPORT_DATA_AT: usize = 0x50;
const COMMITTED_TCB_AT: usize = 0x1e0;

/// In the device's answers: the firmware's status, then where the content starts.
const ANSWER_HEADER_BYTES: usize = 0x20;

/// Mixed into a sealing key: guest policy, measurement, the guest's version and the
/// platform's (GUEST_FIELD_SELECT, bits 0, 3, 4, 5).
const MIXED_FIELDS: u64 = 1 | 1 << 3 | 1 << 4 | 1 << 5;
/// ROOT_KEY_SELECT: derive from the chip's key.
const FROM_VCEK: u32 = 1 << 1;
/// ROOT_KEY_SELECT: as the firmware chooses, which without a VLEK is the chip's key.
const FROM_ONLY_KEY: u32 = 0;
/// SIGNING_KEY, bits 2 to 4 of the flags: 1 says that a VLEK is loaded.
const SIGNED_BY_VLEK: u32 = 1;

pub(super) fn look(kernel: &dyn Kernel, tsm: &Result<String, TsmError>) -> Result<String, String> {
    match tsm {
        Ok(provider) if provider == TSM_PROVIDER => Ok("configfs-tsm".to_owned()),
        _ if kernel.exists(SEV_GUEST) => Ok(format!("/{SEV_GUEST}")),
        Ok(provider) => Err(format!(
            "there is no /{SEV_GUEST}, and {provider} is behind configfs-tsm"
        )),
        Err(error) => Err(format!("there is no /{SEV_GUEST}; {error}")),
    }
}

/// A report, and what certificates the host put beside it.
pub(super) fn quote(kernel: &dyn Kernel, report_data: &ReportData) -> Result<Vec<u8>, String> {
    let (mut report, certificates) = match tsm::report(kernel, report_data) {
        Ok(made) if made.provider == TSM_PROVIDER => (made.report, made.auxiliary),
        Ok(_) | Err(TsmError::Absent | TsmError::NoProvider(_)) => {
            (device_report(kernel, report_data)?, Vec::new())
        }
        Err(error) => return Err(error.to_string()),
    };
    if report.len() < REPORT_BYTES {
        return Err(format!(
            "the report has {} bytes, not {REPORT_BYTES}",
            report.len()
        ));
    }
    report.truncate(REPORT_BYTES);
    if report[REPORT_DATA_AT..][..64] != report_data[..] {
        return Err("the report is over other report data than was asked".to_owned());
    }
    report.extend_from_slice(&certificates);
    Ok(report)
}

fn device_report(kernel: &dyn Kernel, report_data: &ReportData) -> Result<Vec<u8>, String> {
    let (request_bytes, response_bytes) = SevGuest::Report.sizes();
    // user_data, vmpl 0: the driver asks for no less than the guest's own level.
    let mut request = vec![0; request_bytes];
    request[..64].copy_from_slice(report_data);
    let mut response = vec![0; response_bytes];
    kernel
        .sev_guest(SevGuest::Report, &request, &mut response)
        .map_err(|error| format!("/{SEV_GUEST}: SNP_GET_REPORT: {error}"))?;
    check_status("SNP_GET_REPORT", &response)?;
    Ok(response[ANSWER_HEADER_BYTES..][..REPORT_BYTES].to_vec())
}

/// What a sealing key was derived of. Kept beside what it seals, so that it is found
/// again after the platform's firmware was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyRequest {
    root_key: u32,
    vmpl: u32,
    guest_svn: u32,
    tcb: u64,
}

impl KeyRequest {
    /// Bytes of its encoding.
    pub(crate) const BYTES: usize = 20;

    /// The strictest that this guest can ask for now: its own level and version, and
    /// the firmware that the platform can't go back behind.
    pub(super) fn strictest(report: &[u8]) -> Result<Self, String> {
        let word = |at: usize| {
            let bytes: Option<[u8; 4]> = report
                .get(at..at + 4)
                .and_then(|field| field.try_into().ok());
            bytes
                .map(u32::from_le_bytes)
                .ok_or("the report is shorter than its fields")
        };
        let (low, high) = (word(COMMITTED_TCB_AT)?, word(COMMITTED_TCB_AT + 4)?);
        let with_vlek = word(FLAGS_AT)? >> 2 & 0b111 == SIGNED_BY_VLEK;
        Ok(Self {
            root_key: if with_vlek { FROM_VCEK } else { FROM_ONLY_KEY },
            vmpl: word(VMPL_AT)?,
            guest_svn: word(GUEST_SVN_AT)?,
            tcb: u64::from(high) << 32 | u64::from(low),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(&self.root_key.to_le_bytes());
        bytes.extend_from_slice(&self.vmpl.to_le_bytes());
        bytes.extend_from_slice(&self.guest_svn.to_le_bytes());
        bytes.extend_from_slice(&self.tcb.to_le_bytes());
        bytes
    }

    /// Reads what was kept. Which fields are mixed is not kept: whoever owns the disk
    /// could name fewer, down to a key that any guest derives.
    pub(super) fn decode(kept: &[u8]) -> Option<Self> {
        let kept: &[u8; Self::BYTES] = kept.try_into().ok()?;
        let word = |at: usize| [kept[at], kept[at + 1], kept[at + 2], kept[at + 3]];
        let [root_key, vmpl, guest_svn, low, high] =
            [0, 4, 8, 12, 16].map(|at| u32::from_le_bytes(word(at)));
        matches!(root_key, FROM_VCEK | FROM_ONLY_KEY).then_some(Self {
            root_key,
            vmpl,
            guest_svn,
            tcb: u64::from(high) << 32 | u64::from(low),
        })
    }

    /// `struct snp_derived_key_req`.
    fn for_the_device(&self) -> Vec<u8> {
        let mut request = Vec::with_capacity(SevGuest::DerivedKey.sizes().0);
        request.extend_from_slice(&self.root_key.to_le_bytes());
        request.extend_from_slice(&[0; 4]);
        request.extend_from_slice(&MIXED_FIELDS.to_le_bytes());
        request.extend_from_slice(&self.vmpl.to_le_bytes());
        request.extend_from_slice(&self.guest_svn.to_le_bytes());
        request.extend_from_slice(&self.tcb.to_le_bytes());
        request
    }
}

/// The key that the firmware derives for this guest and `request`.
pub(super) fn derived_key(kernel: &dyn Kernel, request: &KeyRequest) -> Result<Secret<32>, String> {
    let response = Secret::<{ SevGuest::DerivedKey.sizes().1 }>::try_fill(|response| {
        kernel
            .sev_guest(SevGuest::DerivedKey, &request.for_the_device(), response)
            .map_err(|error| format!("/{SEV_GUEST}: SNP_GET_DERIVED_KEY: {error}"))
    })?;
    check_status("SNP_GET_DERIVED_KEY", response.expose())?;
    Secret::from_slice(&response.expose()[ANSWER_HEADER_BYTES..])
        .ok_or_else(|| "the firmware's key has another length than 32 bytes".to_owned())
}

fn check_status(what: &str, response: &[u8]) -> Result<(), String> {
    match response.first_chunk() {
        Some([0, 0, 0, 0]) => Ok(()),
        Some(status) => Err(format!(
            "{what}: the firmware's status is {:#x}",
            u32::from_le_bytes(*status)
        )),
        None => Err(format!("{what}: no status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::stand_in::{Behind, NO_CERTIFICATES, StandIn};

    #[test]
    fn both_ways_make_the_same_report() {
        let through_tsm = quote(&StandIn::with_tsm(Behind::Snp), &[3; 64]).unwrap();
        let through_device = quote(&StandIn::with_sev_guest(), &[3; 64]).unwrap();
        assert_eq!(through_tsm[..REPORT_BYTES], through_device[..]);
        assert_eq!(&through_tsm[REPORT_BYTES..], NO_CERTIFICATES);
    }

    #[test]
    fn a_key_depends_on_everything_mixed_into_it() {
        let kernel = StandIn::with_sev_guest();
        let report = quote(&kernel, &[0; 64]).unwrap();
        let request = KeyRequest::strictest(&report).unwrap();
        assert_eq!(KeyRequest::decode(&request.encode()), Some(request));
        let key = |kernel: &StandIn, request: &KeyRequest| {
            *derived_key(kernel, request).unwrap().expose()
        };
        let first = key(&kernel, &request);
        assert_eq!(first, key(&kernel, &request));
        let older = KeyRequest {
            tcb: request.tcb - 1,
            ..request
        };
        assert_ne!(first, key(&kernel, &older));
        let other_code = StandIn::with_sev_guest();
        other_code.run_other_code();
        assert_ne!(first, key(&other_code, &request));
        assert_eq!(kernel.fields_mixed(), MIXED_FIELDS);
    }

    #[test]
    fn firmware_newer_than_the_platforms_is_refused_by_it() {
        let kernel = StandIn::with_sev_guest();
        let report = quote(&kernel, &[0; 64]).unwrap();
        let request = KeyRequest::strictest(&report).unwrap();
        let newer = KeyRequest {
            tcb: request.tcb + 1,
            ..request
        };
        let Err(error) = derived_key(&kernel, &newer) else {
            panic!("a key of firmware that is not there")
        };
        assert_eq!(error, "SNP_GET_DERIVED_KEY: the firmware's status is 0x16");
    }

    #[test]
    fn with_a_vlek_the_chips_key_is_asked_for() {
        let mut report = quote(&StandIn::with_sev_guest(), &[0; 64]).unwrap();
        assert_eq!(
            KeyRequest::strictest(&report).unwrap().root_key,
            FROM_ONLY_KEY
        );
        report[FLAGS_AT] |= 1 << 2;
        assert_eq!(KeyRequest::strictest(&report).unwrap().root_key, FROM_VCEK);
    }

    #[test]
    fn what_was_kept_names_no_other_root() {
        let mut kept = vec![0; KeyRequest::BYTES];
        kept[0] = 1; // The monitor's key, which the host chooses.
        assert_eq!(KeyRequest::decode(&kept), None);
        assert_eq!(KeyRequest::decode(&kept[1..]), None);
    }
}
