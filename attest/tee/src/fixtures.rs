//! For tests: genuine evidence from `fixtures/`, and an authority of our own for
//! what no genuine evidence shows (a revoked certificate, an old chain).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{EcdsaKeyPair, EcdsaSigningAlgorithm};
use nautilus_attest_protocol::{Endorsements, Evidence, Refused, TeeKind, UnixMillis, Verifier};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

/// The time of tests with our own authority: 1 July 2026.
pub(crate) const NOW_MS: UnixMillis = 1_782_864_000_000;
/// A day.
pub(crate) const DAY_MS: UnixMillis = 24 * 60 * 60 * 1000;

/// A file of `fixtures/`.
pub(crate) fn file(path: &str) -> Vec<u8> {
    std::fs::read(folder(path)).unwrap_or_else(|error| panic!("fixtures/{path}: {error}"))
}

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(path)
}

/// Endorsements in memory.
#[derive(Clone, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<String, Arc<[u8]>>);

impl Table {
    /// Adds or replaces one.
    pub(crate) fn put(&mut self, name: &str, value: Vec<u8>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Endorsements for Table {
    fn find(&self, name: &str) -> Option<Arc<[u8]>> {
        self.0.get(name).cloned()
    }
}

/// Genuine evidence with the endorsements and the clock it holds under.
pub(crate) struct Genuine {
    pub(crate) evidence: Evidence,
    pub(crate) endorsements: Table,
    pub(crate) at_ms: UnixMillis,
}

impl Genuine {
    /// From the folder `path`: `file` and `endorsements/`.
    pub(crate) fn load(kind: TeeKind, path: &str, name: &str, at_ms: UnixMillis) -> Self {
        let evidence = Evidence::new(kind, file(&format!("{path}/{name}")));
        let root = folder(path).join("endorsements");
        let mut endorsements = Table::default();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path
                        .strip_prefix(&root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned();
                    endorsements.put(&name, std::fs::read(&path).unwrap());
                }
            }
        }
        Self {
            evidence,
            endorsements,
            at_ms,
        }
    }

    /// Refusals of the evidence with each byte in `range` changed in one bit, every
    /// `step`th byte; panics for one that is accepted.
    pub(crate) fn flip_bits(
        &self,
        verifier: &dyn Verifier,
        range: std::ops::Range<usize>,
        step: usize,
    ) -> Vec<Refused> {
        let flipped = range.step_by(step).map(|at| {
            let mut evidence = self.evidence.clone();
            evidence.body[at] ^= 1 << (at % 8);
            match verifier.verify(&evidence, self.at_ms) {
                Err(refused) => refused,
                Ok(_) => panic!("accepted with a changed bit in byte {at}"),
            }
        });
        flipped.collect()
    }
}

/// A certificate authority of our own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A self-signed one, valid in 2026, whose keys are of `curve`.
    pub(crate) fn root(name: &str, curve: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(curve).unwrap();
        Self(CertifiedIssuer::self_signed(authority(name, 0x01), key).unwrap())
    }

    /// One below this one, with this serial number.
    pub(crate) fn below(&self, name: &str, serial: u8) -> Self {
        let key = KeyPair::generate_for(self.0.key().algorithm()).unwrap();
        Self(CertifiedIssuer::signed_by(authority(name, serial), key, &self.0).unwrap())
    }

    /// Its certificate.
    pub(crate) fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// Its certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a last certificate.
    pub(crate) fn issue(&self, leaf: Leaf) -> Issued {
        let key = KeyPair::generate_for(self.0.key().algorithm()).unwrap();
        let mut params = dated(&leaf.name, leaf.serial);
        if let Some((from, until)) = leaf.years {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let extensions = leaf.extensions.into_iter();
        params.custom_extensions = extensions
            .map(|(oid, value)| CustomExtension::from_oid_content(&oid, value))
            .collect();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued {
            der: certificate.der().to_vec(),
            pem: certificate.pem(),
            key,
        }
    }

    /// A revocation list of June to August 2026 that names `revoked`.
    pub(crate) fn list(&self, revoked: &[u8]) -> Vec<u8> {
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(vec![*serial]),
            revocation_time: date_time_ymd(2026, 5, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 6, 1),
            next_update: date_time_ymd(2026, 8, 1),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().der().to_vec()
    }
}

/// What a last certificate is to hold.
#[derive(Default)]
pub(crate) struct Leaf {
    pub(crate) name: String,
    pub(crate) serial: u8,
    /// From 1 January of one year to that of another; 2026 otherwise.
    pub(crate) years: Option<(i32, i32)>,
    pub(crate) extensions: Vec<(Vec<u64>, Vec<u8>)>,
}

/// A last certificate with its key.
pub(crate) struct Issued {
    pub(crate) der: Vec<u8>,
    pub(crate) pem: String,
    key: KeyPair,
}

impl Issued {
    /// A signature of its key as `algorithm` writes it.
    pub(crate) fn sign(
        &self,
        algorithm: &'static EcdsaSigningAlgorithm,
        message: &[u8],
    ) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &self.key.serialize_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }
}

fn authority(name: &str, serial: u8) -> CertificateParams {
    let mut params = dated(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn dated(name: &str, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    params.distinguished_name = names;
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params
}
