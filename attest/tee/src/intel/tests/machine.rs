//! A machine with SGX and TDX under an authority of our own: certificates,
//! collateral and quotes in Intel's forms.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::PKCS_ECDSA_P256_SHA256;

use super::*;
use crate::fixtures::{Authority, Issued, Leaf, Table};

pub(super) const PPID: [u8; 16] = [0xab; 16];
const FMSPC: [u8; 6] = [0, 1, 2, 3, 4, 5];
const QE_SIGNER: [u8; 32] = [0x51; 32];
const QE_AUTHENTICATION: [u8; 32] = [0x52; 32];
const SEAM_SIGNER: [u8; 48] = [0; 48];
const VENDOR: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// Serial numbers of the platform's certificate and of the authority above it.
pub(super) const PCK_SERIAL: u8 = 0x21;
pub(super) const AUTHORITY_SERIAL: u8 = 0x22;

pub(super) struct Machine {
    pub(super) kind: TeeKind,
    pub(super) version: u16,
    pub(super) root: Authority,
    authority: Authority,
    pck: Issued,
    signer: Issued,
    attestation_key: EcdsaKeyPair,
    /// The body of the quote.
    pub(super) report: Vec<u8>,
    pub(super) status: &'static str,
    pub(super) advisories: &'static str,
    /// The least version of each component in the only TCB level.
    pub(super) least: u8,
    pub(super) revoked: Vec<u8>,
    pub(super) revoked_by_root: Vec<u8>,
}

impl Machine {
    pub(super) fn new(kind: TeeKind, version: u16) -> Self {
        Self::with_pck(kind, version, |_| {})
    }

    pub(super) fn with_pck(kind: TeeKind, version: u16, change: impl Fn(&mut Leaf)) -> Self {
        let root = Authority::root("Intel SGX Root CA", &PKCS_ECDSA_P256_SHA256);
        let authority = root.below("Intel SGX PCK Platform CA", AUTHORITY_SERIAL);
        let mut leaf = Leaf {
            name: "Intel SGX PCK Certificate".to_owned(),
            serial: PCK_SERIAL,
            extensions: vec![(vec![1, 2, 840, 113_741, 1, 13, 1], sgx_extension())],
            ..Leaf::default()
        };
        change(&mut leaf);
        let pck = authority.issue(leaf);
        let signer = root.issue(Leaf {
            name: "Intel SGX TCB Signing".to_owned(),
            serial: 0x23,
            ..Leaf::default()
        });
        let report = if kind == TeeKind::Sgx {
            enclave([5; 32], [6; 32], 0x05, [7; 64])
        } else {
            domain(version)
        };
        Self {
            kind,
            version,
            root,
            authority,
            pck,
            signer,
            attestation_key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            report,
            status: "UpToDate",
            advisories: "",
            least: 3,
            revoked: Vec::new(),
            revoked_by_root: Vec::new(),
        }
    }

    pub(super) fn judge(&self, at_ms: u64) -> Result<Claims, Refused> {
        let verifier = IntelVerifier::new(self.kind, Arc::new(self.endorsements()));
        let verifier = verifier.with_root(self.root.der());
        verifier.verify(&Evidence::new(self.kind, self.quote()), at_ms)
    }

    pub(super) fn endorsements(&self) -> Table {
        let kind = self.kind;
        let mut table = Table::default();
        let fmspc = hex::encode(FMSPC);
        table.put(
            &format!("intel/tcb/{kind}/{fmspc}"),
            self.signed("tcbInfo", &self.tcb_info()),
        );
        table.put(
            &format!("intel/qe/{kind}"),
            self.signed("enclaveIdentity", &self.identity()),
        );
        table.put("intel/crl/platform", self.authority.list(&self.revoked));
        table.put("intel/crl/root", self.root.list(&self.revoked_by_root));
        table
    }

    fn signed(&self, field: &str, content: &str) -> Vec<u8> {
        let signature = self
            .signer
            .sign(&ECDSA_P256_SHA256_FIXED_SIGNING, content.as_bytes());
        let signature = hex::encode(signature);
        let chain = self.signer.pem.clone() + &self.root.pem();
        format!("{{\"{field}\":{content},\"signature\":\"{signature}\"}}{chain}").into_bytes()
    }

    fn tcb_info(&self) -> String {
        let versions = vec![format!("{{\"svn\":{}}}", self.least); 16].join(",");
        let (id, module, domains) = if self.kind == TeeKind::Tdx {
            let module = format!(
                "\"tdxModule\":{{\"mrsigner\":\"{}\",\"attributes\":\"0000000000000000\",\"attributesMask\":\"FFFFFFFFFFFFFFFF\"}},",
                hex::encode(SEAM_SIGNER)
            );
            // The second component is the module's version: see `domain`.
            let domains = versions.replacen(&self.least.to_string(), "0", 2);
            let domains = domains.replacen('0', &self.least.to_string(), 1);
            ("TDX", module, format!("\"tdxtcbcomponents\":[{domains}],"))
        } else {
            ("SGX", String::new(), String::new())
        };
        format!(
            "{{\"id\":\"{id}\",\"version\":3,{DATES},\"fmspc\":\"{}\",\"pceId\":\"0000\",\"tcbType\":0,\"tcbEvaluationDataNumber\":17,{module}\"tcbLevels\":[{{\"tcb\":{{\"sgxtcbcomponents\":[{versions}],{domains}\"pcesvn\":{}}},\"tcbDate\":\"2026-01-01T00:00:00Z\",\"tcbStatus\":\"{}\",\"advisoryIDs\":[{}]}}]}}",
            hex::encode_upper(FMSPC),
            self.least,
            self.status,
            self.advisories
        )
    }

    fn identity(&self) -> String {
        let (id, version) = if self.kind == TeeKind::Tdx {
            ("TD_QE", 2)
        } else {
            ("QE", 2)
        };
        format!(
            "{{\"id\":\"{id}\",\"version\":{version},{DATES},\"tcbEvaluationDataNumber\":17,\"miscselect\":\"00000000\",\"miscselectMask\":\"FFFFFFFF\",\"attributes\":\"05000000000000000000000000000000\",\"attributesMask\":\"FFFFFFFFFFFFFFFF0000000000000000\",\"mrsigner\":\"{}\",\"isvprodid\":1,\"tcbLevels\":[{{\"tcb\":{{\"isvsvn\":3}},\"tcbDate\":\"2026-01-01T00:00:00Z\",\"tcbStatus\":\"UpToDate\"}}]}}",
            hex::encode(QE_SIGNER)
        )
    }

    pub(super) fn quote(&self) -> Vec<u8> {
        let mut quote = Vec::new();
        quote.extend(self.version.to_le_bytes());
        quote.extend(2u16.to_le_bytes());
        let tee_type: u32 = if self.kind == TeeKind::Tdx { 0x81 } else { 0 };
        quote.extend(tee_type.to_le_bytes());
        quote.extend([0; 4]);
        quote.extend(VENDOR);
        quote.extend([0; 20]);
        if self.version == 5 {
            let body_type: u16 = if self.report.len() == 584 { 2 } else { 3 };
            quote.extend(body_type.to_le_bytes());
            quote.extend((self.report.len() as u32).to_le_bytes());
        }
        quote.extend(&self.report);
        let signature = self
            .attestation_key
            .sign(&SystemRandom::new(), &quote)
            .unwrap();
        let mut data = signature.as_ref().to_vec();
        data.extend(&self.attestation_key.public_key().as_ref()[1..]);
        let certification = self.certification();
        if self.version > 3 {
            data.extend(6u16.to_le_bytes());
            data.extend((certification.len() as u32).to_le_bytes());
        }
        data.extend(certification);
        quote.extend((data.len() as u32).to_le_bytes());
        quote.extend(data);
        quote
    }

    /// The quoting enclave's report over the attestation key, and the chain.
    fn certification(&self) -> Vec<u8> {
        let key = &self.attestation_key.public_key().as_ref()[1..];
        let mut report_data = [0; 64];
        let hash = digest(&SHA256, &[key, &QE_AUTHENTICATION].concat());
        report_data[..32].copy_from_slice(hash.as_ref());
        let report = enclave([1; 32], QE_SIGNER, 0x05, report_data);
        let signature = self.pck.sign(&ECDSA_P256_SHA256_FIXED_SIGNING, &report);
        let chain = self.pck.pem.clone() + &self.authority.pem() + &self.root.pem();
        let mut data = [report, signature].concat();
        data.extend((QE_AUTHENTICATION.len() as u16).to_le_bytes());
        data.extend(QE_AUTHENTICATION);
        data.extend(5u16.to_le_bytes());
        data.extend((chain.len() as u32).to_le_bytes());
        data.extend(chain.as_bytes());
        data
    }
}

const DATES: &str =
    "\"issueDate\":\"2026-06-01T00:00:00Z\",\"nextUpdate\":\"2026-08-01T00:00:00Z\"";

/// A report of an enclave (Intel SDM, table 40-20).
fn enclave(measurement: [u8; 32], signer: [u8; 32], flags: u8, report_data: [u8; 64]) -> Vec<u8> {
    let mut report = vec![0; 384];
    report[48] = flags;
    report[64..96].copy_from_slice(&measurement);
    report[128..160].copy_from_slice(&signer);
    report[256] = 1;
    report[258] = 3;
    report[320..].copy_from_slice(&report_data);
    report
}

/// A report of a trust domain of TD 1.0, or of TD 1.5 in version 5.
fn domain(version: u16) -> Vec<u8> {
    let mut report = vec![0; if version == 5 { 648 } else { 584 }];
    // TEE_TCB_SVN; its second byte selects a module identity: none.
    report[..16].fill(3);
    report[1] = 0;
    report[64..112].copy_from_slice(&SEAM_SIGNER);
    // SEPT_VE_DISABLE.
    report[123] = 1 << 4;
    report[136..184].fill(5);
    for (register, at) in (328..520).step_by(48).enumerate() {
        report[at..at + 48].fill(register as u8 + 1);
    }
    report[520..584].fill(7);
    if version == 5 {
        report.copy_within(..16, 584);
    }
    report
}

/// Intel's extension of a PCK certificate: PPID, TCB, PCE id, FMSPC, type.
fn sgx_extension() -> Vec<u8> {
    let mut versions: Vec<u8> = (1..=16)
        .flat_map(|at| entry(&[2, at], 0x02, &[3]))
        .collect();
    versions.extend(entry(&[2, 17], 0x02, &[3]));
    versions.extend(entry(&[2, 18], 0x04, &[3; 16]));
    let entries = [
        entry(&[1], 0x04, &PPID),
        entry(&[2], 0x30, &versions),
        entry(&[3], 0x04, &[0, 0]),
        entry(&[4], 0x04, &FMSPC),
        entry(&[5], 0x0a, &[0]),
    ];
    der(0x30, &entries.concat())
}

fn entry(rest: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    let oid = [
        &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01],
        rest,
    ]
    .concat();
    der(0x30, &[der(0x06, &oid), der(tag, value)].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match length {
        [0, short @ 0..0x80] => vec![tag, short],
        [0, byte] => vec![tag, 0x81, byte],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [header, content.to_vec()].concat()
}
