//! An attestation report of AMD SEV-SNP, versions 2 to 5 (AMD 56860, table 23),
//! and the certificates that the host may have put after it (GHCB 2.03, section
//! 4.1.8.1): a table of GUIDs with offsets and lengths, counted from its start.
//!
//! Fields are read by the crate `sev`; what is signed is the report's first bytes
//! as they came.
//!
//! Invariants: sizes are checked first; bytes that nobody signed are zero.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use nautilus_attest_protocol::{
    Claims, MAX_EVIDENCE_BYTES, Measurement, Refused, Tcb, TcbStatus, TeeKind,
};
use sev::firmware::guest::AttestationReport;
use sev::firmware::host::TcbVersion;
use sev::parser::ByteParser as _;

use super::product::{Key, Product};
use crate::certificate::malformed;

/// How this is named in refusals.
pub(super) const WHAT: &str = "SEV-SNP report";

/// Bytes of a report.
pub(super) const REPORT_BYTES: usize = 1184;
/// The bytes that are signed.
const SIGNED: Range<usize> = 0..0x2a0;
/// The two numbers of the signature, little endian, each in 72 bytes.
const SIGNATURE: Range<usize> = 0x2a0..0x330;
/// Bytes of one number as it stands in the report.
const NUMBER_FIELD_BYTES: usize = 72;
/// Bytes of one number on P-384.
const NUMBER_BYTES: usize = 48;
const KEY_INFO: Range<usize> = 0x48..0x4c;
const REPORTED_TCB: Range<usize> = 0x180..0x188;
const CHIP_ID: Range<usize> = 0x1a0..0x1e0;
/// A chip id of Turin has this many bytes, zeros after them.
const TURIN_CHIP_ID_BYTES: usize = 8;

/// ECDSA P-384 with SHA-384.
const SIGNATURE_ALGORITHM: u32 = 1;
/// The bit of the guest policy that lets a migration agent move the guest.
const MIGRATION_AGENT_BIT: u64 = 1 << 18;
/// The bit of the guest policy that lets the host look into the guest.
const DEBUG_BIT: u64 = 1 << 19;

/// Bytes of an entry in the table of certificates: GUID, offset, length.
const ENTRY_BYTES: usize = 24;
/// Most entries read. Hosts put five at most.
const MAX_ENTRIES: usize = 16;

/// A report, read but not believed.
pub(super) struct Report<'a> {
    raw: &'a [u8; REPORT_BYTES],
    fields: AttestationReport,
    /// Which key signed it.
    pub(super) key: Key,
    /// DER of that key's certificate, when it came with the report.
    pub(super) certificate: Option<&'a [u8]>,
}

impl<'a> Report<'a> {
    /// Reads a report, and the table of certificates after it if there is one.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Refused> {
        if body.len() > MAX_EVIDENCE_BYTES {
            return Err(Refused::TooLarge {
                what: WHAT,
                size: body.len(),
                limit: MAX_EVIDENCE_BYTES,
            });
        }
        let Some((raw, table)) = body.split_first_chunk::<REPORT_BYTES>() else {
            return Err(bad(format!(
                "it has {} bytes of {REPORT_BYTES}",
                body.len()
            )));
        };
        let version = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
        if !(2..=5).contains(&version) {
            return Err(unsupported(format!(
                "version {version} of an SEV-SNP report"
            )));
        }
        if raw[CHIP_ID].iter().all(|byte| *byte == 0) {
            return Err(unsupported("an SEV-SNP report whose chip id is masked"));
        }
        let fields = AttestationReport::from_bytes(raw).map_err(bad)?;
        if fields.sig_algo != SIGNATURE_ALGORITHM {
            let what = format!(
                "signature algorithm {} of an SEV-SNP report",
                fields.sig_algo
            );
            return Err(unsupported(what));
        }
        if raw[SIGNATURE.end..].iter().any(|byte| *byte != 0) {
            return Err(bad("there are bytes after its signature"));
        }
        let key = signing_key(raw)?;
        let certificate = find_certificate(table, key)?;
        Ok(Self {
            raw,
            fields,
            key,
            certificate,
        })
    }

    /// The bytes that its key signed.
    pub(super) fn signed(&self) -> &[u8] {
        &self.raw[SIGNED]
    }

    /// The signature's two numbers, big endian, one after the other.
    pub(super) fn signature(&self) -> Result<[u8; 2 * NUMBER_BYTES], Refused> {
        let mut signature = [0; 2 * NUMBER_BYTES];
        let fields = self.raw[SIGNATURE].chunks_exact(NUMBER_FIELD_BYTES);
        for (field, number) in fields.zip(signature.chunks_exact_mut(NUMBER_BYTES)) {
            let (value, padding) = field.split_at(NUMBER_BYTES);
            if padding.iter().any(|byte| *byte != 0) {
                return Err(bad("a number of its signature is too large"));
            }
            number.copy_from_slice(value);
            number.reverse();
        }
        Ok(signature)
    }

    /// The products it can be of: a report of version 2 does not tell Milan from
    /// Genoa.
    pub(super) fn products(&self) -> Vec<Product> {
        match (self.fields.cpuid_fam_id, self.fields.cpuid_mod_id) {
            (Some(family), Some(model)) => Product::of(family, model).into_iter().collect(),
            _ if self.turin_like() => vec![Product::Turin],
            _ => vec![Product::Milan, Product::Genoa],
        }
    }

    fn turin_like(&self) -> bool {
        let rest = &self.raw[CHIP_ID][TURIN_CHIP_ID_BYTES..];
        rest.iter().all(|byte| *byte == 0)
    }

    /// The chip's id, in the length that AMD's key server and certificates know.
    pub(super) fn chip_id(&self) -> &[u8] {
        let id = &self.raw[CHIP_ID];
        if self.turin_like() {
            &id[..TURIN_CHIP_ID_BYTES]
        } else {
            id
        }
    }

    /// The reported TCB as it stands in the report.
    pub(super) fn reported_tcb_bytes(&self) -> &[u8] {
        &self.raw[REPORTED_TCB]
    }

    /// The security versions that the signing key stands for.
    pub(super) fn reported_tcb(&self) -> BTreeMap<String, u32> {
        components(&self.fields.reported_tcb)
    }

    /// The virtual machine privilege level that asked for it.
    pub(super) fn privilege_level(&self) -> u32 {
        self.fields.vmpl
    }

    /// Refuses a guest that may be moved by a migration agent: it could go on
    /// elsewhere with everything it knows.
    pub(super) fn check_stays(&self) -> Result<(), Refused> {
        if u64::from_le_bytes(self.policy()) & MIGRATION_AGENT_BIT != 0 {
            return Err(unsupported(
                "an SEV-SNP guest that a migration agent may move",
            ));
        }
        Ok(())
    }

    /// The guest policy as it stands in the report (not as `sev` would write it).
    fn policy(&self) -> [u8; 8] {
        let mut policy = [0; 8];
        policy.copy_from_slice(&self.raw[8..16]);
        policy
    }

    /// What the report says.
    pub(super) fn claims(&self) -> Result<Claims, Refused> {
        let fields = &self.fields;
        let registers: [(&str, &[u8]); 10] = [
            ("host_data", &fields.host_data),
            ("family_id", &fields.family_id),
            ("image_id", &fields.image_id),
            ("id_key_digest", &fields.id_key_digest),
            ("author_key_digest", &fields.author_key_digest),
            ("report_id", &fields.report_id),
            ("guest_policy", &self.policy()),
            ("guest_svn", &fields.guest_svn.to_be_bytes()),
            ("platform_info", &u64::from(fields.plat_info).to_be_bytes()),
            ("vmpl", &fields.vmpl.to_be_bytes()),
        ];
        let registers = registers.map(|(name, value)| (name.to_owned(), value.to_vec()));
        Ok(Claims {
            tee: TeeKind::Snp,
            measurement: Measurement::new(fields.measurement).map_err(bad)?,
            platform: hex::encode(&self.raw[CHIP_ID]),
            debug: u64::from_le_bytes(self.policy()) & DEBUG_BIT != 0,
            report_data: fields.report_data,
            tcb: Tcb {
                status: TcbStatus::UpToDate,
                advisories: BTreeSet::new(),
                components: self.reported_tcb(),
            },
            registers: registers.into(),
        })
    }
}

/// The components of a TCB by the names of the claims.
fn components(tcb: &TcbVersion) -> BTreeMap<String, u32> {
    let known = [
        ("bootloader", Some(tcb.bootloader)),
        ("tee", Some(tcb.tee)),
        ("snp", Some(tcb.snp)),
        ("microcode", Some(tcb.microcode)),
        ("fmc", tcb.fmc),
    ];
    let known = known.into_iter();
    known
        .filter_map(|(name, version)| Some((name.to_owned(), u32::from(version?))))
        .collect()
}

fn signing_key(raw: &[u8; REPORT_BYTES]) -> Result<Key, Refused> {
    let mut field = [0; 4];
    field.copy_from_slice(&raw[KEY_INFO]);
    match (u32::from_le_bytes(field) >> 2) & 0b111 {
        0 => Ok(Key::Vcek),
        1 => Ok(Key::Vlek),
        other => Err(unsupported(format!(
            "an SEV-SNP report signed by key {other}"
        ))),
    }
}

/// The certificate of `key` in the host's table.
fn find_certificate(table: &[u8], key: Key) -> Result<Option<&[u8]>, Refused> {
    for at in 0..MAX_ENTRIES {
        let start = at * ENTRY_BYTES;
        let entry = table.get(start..start + ENTRY_BYTES);
        let Some(entry) = entry.filter(|entry| entry.iter().any(|byte| *byte != 0)) else {
            return Ok(None);
        };
        if entry[..16] != key.table_guid() {
            continue;
        }
        let number = |at: usize| {
            let field = [entry[at], entry[at + 1], entry[at + 2], entry[at + 3]];
            u32::from_le_bytes(field) as usize
        };
        let (offset, length) = (number(16), number(20));
        let end = offset.saturating_add(length);
        let certificate = table.get(offset..end);
        return certificate
            .map(Some)
            .ok_or_else(|| bad("a certificate lies outside of its table"));
    }
    Ok(None)
}

fn unsupported(what: impl Into<String>) -> Refused {
    Refused::Unsupported { what: what.into() }
}

fn bad(reason: impl std::fmt::Display) -> Refused {
    malformed(WHAT, reason)
}
