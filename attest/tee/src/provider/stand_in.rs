//! A stand-in of the kernel's side, for tests only: devices and pseudo-files that
//! behave as Linux', AMD's and Gramine's documents say, down to the generation of
//! configfs-tsm and the status words of firmware. Its evidence is signed by nobody.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use aws_lc_rs::digest;
use minicbor::{Decoder, Encoder};

use super::kernel::{Kernel, SEV_GUEST, SevGuest, TDREPORT_BYTES};

/// What the stand-in's NSM calls itself.
pub(super) const MODULE_ID: &str = "i-0bee92034f3d60691-enc01943c5eaab3ad6a";
/// A host's table of certificates without any: the entry that ends it.
pub(super) const NO_CERTIFICATES: [u8; 24] = [0; 24];
/// A report to copy, with other fields.
const GENUINE_REPORT: &[u8] = include_bytes!("../../fixtures/snp/milan-v5/report.bin");
const TSM: &str = "sys/kernel/config/tsm/report";
const COMMITTED_TCB: u64 = 0x1b_0700_0000_0004;

/// Which driver is behind configfs-tsm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    Nothing,
    Snp,
    Tdx,
}

/// A quote of Intel's to copy, with other report data: the certificates are real.
#[derive(Clone, Copy)]
pub(super) struct Template {
    pub(super) quote: &'static [u8],
    pub(super) report_data_at: usize,
}

#[derive(Default)]
struct State {
    tsm: Option<Option<Template>>,
    behind: Option<Behind>,
    entries: BTreeMap<String, Entry>,
    races: u32,
    drops_writes: bool,
    nsm: bool,
    refuses: bool,
    last_nsm_request: Vec<u8>,
    sev_guest: bool,
    code: u8,
    fields_mixed: u64,
    gramine: Option<Gramine>,
}

#[derive(Default)]
struct Entry {
    generation: u64,
    inblob: Vec<u8>,
}

struct Gramine {
    kind: &'static str,
    template: Template,
    report_data: Vec<u8>,
}

/// The stand-in.
pub(super) struct StandIn(Mutex<State>);

impl StandIn {
    /// A kernel without any TEE.
    pub(super) fn bare() -> Self {
        Self(Mutex::new(State {
            code: 0x5e,
            ..State::default()
        }))
    }

    /// With configfs-tsm, and what is behind it.
    pub(super) fn with_tsm(behind: Behind) -> Self {
        let this = Self::bare();
        this.change(|state| {
            state.tsm = Some(None);
            state.behind = Some(behind);
        });
        this
    }

    /// With configfs-tsm on a TDX guest whose quotes are like this one.
    pub(super) fn with_tdx(template: Template) -> Self {
        let this = Self::with_tsm(Behind::Tdx);
        this.change(|state| state.tsm = Some(Some(template)));
        this
    }

    /// With the SNP guest device alone.
    pub(super) fn with_sev_guest() -> Self {
        let this = Self::bare();
        this.change(|state| state.sev_guest = true);
        this
    }

    /// With the Nitro security module.
    pub(super) fn with_nsm() -> Self {
        let this = Self::bare();
        this.change(|state| state.nsm = true);
        this
    }

    /// Inside Gramine, whose attestation is of `kind`.
    pub(super) fn with_gramine(kind: &'static str, template: Template) -> Self {
        let this = Self::bare();
        this.change(|state| {
            state.gramine = Some(Gramine {
                kind,
                template,
                report_data: Vec::new(),
            });
        });
        this
    }

    /// The SNP guest device besides what is there.
    pub(super) fn add_sev_guest(&self) {
        self.change(|state| state.sev_guest = true);
    }

    /// Another writer comes between the next `times` requests and their reports.
    pub(super) fn race_next(&self, times: u32) {
        self.change(|state| state.races = times);
    }

    /// Binary attributes are closed without being committed.
    pub(super) fn drop_writes(&self, drops: bool) {
        self.change(|state| state.drops_writes = drops);
    }

    /// The NSM answers errors.
    pub(super) fn refuse(&self, refuses: bool) {
        self.change(|state| state.refuses = refuses);
    }

    /// From now on other code runs.
    pub(super) fn run_other_code(&self) {
        self.change(|state| state.code = 0x0c);
    }

    /// Folders below configfs-tsm.
    pub(super) fn requests_open(&self) -> usize {
        self.read_state(|state| state.entries.len())
    }

    pub(super) fn last_nsm_request(&self) -> Vec<u8> {
        self.read_state(|state| state.last_nsm_request.clone())
    }

    /// GUEST_FIELD_SELECT of the last key.
    pub(super) fn fields_mixed(&self) -> u64 {
        self.read_state(|state| state.fields_mixed)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn read_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.lock().unwrap())
    }
}

impl State {
    fn snp_report(&self, report_data: &[u8]) -> Vec<u8> {
        let mut report = GENUINE_REPORT[..0x4a0].to_vec();
        report[0x50..0x90].copy_from_slice(report_data);
        report[0x90..0xc0].fill(self.code);
        report[0x1a0..0x1e0].fill(0xc1);
        report[0x1e0..0x1e8].copy_from_slice(&COMMITTED_TCB.to_le_bytes());
        report
    }

    fn tsm_attribute(&mut self, folder: &str, attribute: &str) -> io::Result<Vec<u8>> {
        let (behind, template) = (self.behind, self.tsm.flatten());
        let races = self.races > 0 && attribute == "outblob";
        let entry = self
            .entries
            .get_mut(folder)
            .ok_or(io::ErrorKind::NotFound)?;
        if races {
            self.races -= 1;
            entry.generation += 1;
            entry.inblob = vec![0xbb; 64];
        }
        let (generation, inblob) = (entry.generation, entry.inblob.clone());
        match attribute {
            "generation" => Ok(format!("{generation}\n").into_bytes()),
            "provider" if behind == Some(Behind::Snp) => Ok(b"sev_guest\n".to_vec()),
            "provider" => Ok(b"tdx_guest\n".to_vec()),
            // The kernel's answer when nothing was asked.
            "outblob" if inblob.is_empty() => Err(io::ErrorKind::InvalidInput.into()),
            "outblob" => Ok(match template {
                Some(template) => template.filled(&inblob),
                None => self.snp_report(&inblob),
            }),
            "auxblob" if behind == Some(Behind::Snp) => Ok(NO_CERTIFICATES.to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Template {
    fn filled(&self, report_data: &[u8]) -> Vec<u8> {
        let mut quote = self.quote.to_vec();
        quote[self.report_data_at..][..64].copy_from_slice(report_data);
        quote
    }
}

/// The folder of a request and the attribute in it.
fn attribute(path: &str) -> Option<(&str, &str)> {
    let (folder, attribute) = path.rsplit_once('/')?;
    folder.starts_with(TSM).then_some((folder, attribute))
}

impl Kernel for StandIn {
    fn exists(&self, path: &str) -> bool {
        self.read_state(|state| match path {
            "dev/nsm" => state.nsm,
            "dev/attestation" => state.gramine.is_some(),
            "dev/tdx_guest" => state.behind == Some(Behind::Tdx),
            SEV_GUEST => state.sev_guest,
            TSM => state.tsm.is_some(),
            _ => attribute(path).is_some_and(|(folder, name)| {
                state.entries.contains_key(folder)
                    && (name != "auxblob" || state.behind == Some(Behind::Snp))
            }),
        })
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock().unwrap();
        let bytes = match (path, &state.gramine) {
            ("dev/attestation/attestation_type", Some(gramine)) => {
                format!("{}\n", gramine.kind).into_bytes()
            }
            ("dev/attestation/quote", Some(gramine)) => {
                gramine.template.filled(&gramine.report_data)
            }
            ("dev/attestation/keys/_sgx_mrenclave", Some(_)) => vec![state.code; 16],
            _ => match attribute(path) {
                Some((folder, name)) => state.tsm_attribute(folder, name)?,
                None => return Err(io::ErrorKind::NotFound.into()),
            },
        };
        assert!(bytes.len() <= limit);
        Ok(bytes)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let drops = state.drops_writes;
        if let ("dev/attestation/user_report_data", Some(gramine)) = (path, &mut state.gramine) {
            gramine.report_data = bytes.to_vec();
            return Ok(());
        }
        match attribute(path) {
            Some((folder, "inblob")) => {
                let entry = state
                    .entries
                    .get_mut(folder)
                    .ok_or(io::ErrorKind::NotFound)?;
                if !drops {
                    entry.inblob = bytes.to_vec();
                    entry.generation += 1;
                }
                Ok(())
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create_folder(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.tsm.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.behind == Some(Behind::Nothing) {
            // ENXIO, as tsm_report_make_item gives without a provider.
            return Err(io::Error::from_raw_os_error(6));
        }
        state.entries.insert(path.to_owned(), Entry::default());
        Ok(())
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        let removed = self.0.lock().unwrap().entries.remove(path);
        removed.map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn nsm(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock().unwrap();
        state.last_nsm_request = request.to_vec();
        let mut answer = Encoder::new(Vec::new());
        answer.map(1).unwrap();
        if state.refuses {
            answer.str("Error").unwrap().str("InternalError").unwrap();
            return Ok(answer.into_writer());
        }
        let mut request = Decoder::new(request);
        if request.probe().map().is_ok() {
            request.map().unwrap();
        }
        match request.str().unwrap() {
            "Attestation" => {
                assert_eq!(request.map().unwrap(), Some(3));
                assert_eq!(request.str().unwrap(), "user_data");
                let document = [b"document of ", request.bytes().unwrap()].concat();
                let answer = answer.str("Attestation").unwrap().map(1).unwrap();
                answer.str("document").unwrap().bytes(&document).unwrap();
            }
            "DescribePCR" => {
                let answer = answer.str("DescribePCR").unwrap().map(2).unwrap();
                answer.str("lock").unwrap().bool(true).unwrap();
                answer.str("data").unwrap().bytes(&[0xa0; 48]).unwrap();
            }
            "DescribeNSM" => {
                let answer = answer.str("DescribeNSM").unwrap().map(4).unwrap();
                answer.str("version_major").unwrap().u8(1).unwrap();
                answer.str("module_id").unwrap().str(MODULE_ID).unwrap();
                answer.str("max_pcrs").unwrap().u8(32).unwrap();
                let locked = answer.str("locked_pcrs").unwrap().array(2).unwrap();
                locked.u8(0).unwrap().u8(1).unwrap();
            }
            other => panic!("asked {other}"),
        }
        Ok(answer.into_writer())
    }

    fn sev_guest(&self, command: SevGuest, request: &[u8], response: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if !state.sev_guest {
            return Err(io::ErrorKind::NotFound.into());
        }
        assert_eq!((request.len(), response.len()), command.sizes());
        match command {
            SevGuest::Report => {
                let report = state.snp_report(&request[..64]);
                let length = u32::try_from(report.len()).unwrap();
                response[4..8].copy_from_slice(&length.to_le_bytes());
                response[0x20..][..report.len()].copy_from_slice(&report);
            }
            SevGuest::DerivedKey => {
                let word = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
                let (fields, tcb) = (word(8), word(24));
                state.fields_mixed = fields;
                // MSG_KEY_REQ with a newer TCB than the committed one: INVALID_PARAM.
                if tcb > COMMITTED_TCB {
                    response[0] = 0x16;
                    return Ok(());
                }
                let mut mixed = request.to_vec();
                mixed.push(state.code);
                let key = digest::digest(&digest::SHA256, &mixed);
                response[0x20..].copy_from_slice(key.as_ref());
            }
        }
        Ok(())
    }

    fn tdx_report(&self, report_data: &[u8; 64]) -> io::Result<Vec<u8>> {
        let mut report = vec![0; TDREPORT_BYTES];
        report[128..192].copy_from_slice(report_data);
        // TDINFO has the order of a quote's body, from the attributes on.
        let template = self.read_state(|state| state.tsm.flatten());
        if let Some(template) = template {
            let attributes = template.report_data_at - 520 + 120;
            report[512..912].copy_from_slice(&template.quote[attributes..][..400]);
        }
        Ok(report)
    }
}
