//! AMD SEV-SNP: a report that the chip signs with a key of its own (VCEK) or of
//! its cloud provider (VLEK), both certified by AMD for one level of firmware.
//!
//! The measurement is the launch measurement, the platform the chip's id. AMD gives
//! no verdict on patches, so the TCB's status is always "up to date" and its
//! components are for the policy to judge.
//!
//! Invariants: the signature is checked over the bytes as they came; a certificate
//! counts only for the chip and the firmware it names, under the built-in root,
//! beside a revocation list of that root that is at hand and in time.

mod endorsement;
mod product;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use nautilus_attest_protocol::{Claims, Endorsements, Evidence, Refused, UnixMillis, Verifier};
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::pem::Pem;

use crate::certificate::{Certificate, RevocationList, malformed};
pub(crate) use endorsement::{read_chain, read_der};
use product::{Authorities, Key, Product};
use report::{Report, WHAT};

const ROOT_NAME: &str = "AMD root certificate (ARK)";
const AUTHORITY_NAME: &str = "AMD intermediate certificate (ASK or ASVK)";
const LIST_NAME: &str = "AMD revocation list";
const CHAIN_NAME: &str = "AMD certificate chain";

/// Most certificates in a chain that was imported.
const MAX_CHAIN_CERTIFICATES: usize = 2;

/// Extensions of AMD's certificates (AMD 57230, table 9): product, security
/// versions, chip id.
const PRODUCT_NAME: Oid<'static> = oid!(1.3.6.1.4.1.3704.1.2);
static SECURITY_VERSIONS: [(&str, Oid<'static>); 5] = [
    ("bootloader", oid!(1.3.6.1.4.1.3704.1.3.1)),
    ("tee", oid!(1.3.6.1.4.1.3704.1.3.2)),
    ("snp", oid!(1.3.6.1.4.1.3704.1.3.3)),
    ("microcode", oid!(1.3.6.1.4.1.3704.1.3.8)),
    ("fmc", oid!(1.3.6.1.4.1.3704.1.3.9)),
];
const CHIP_ID: Oid<'static> = oid!(1.3.6.1.4.1.3704.1.4);

/// DER tags of the values in those extensions.
const INTEGER_TAG: u8 = 0x02;
const IA5_STRING_TAG: u8 = 0x16;

/// The only privilege level evidence is taken from: the guest's highest, where a
/// service module may stand above everything else.
const PRIVILEGE_LEVEL: u32 = 0;

/// Judges reports of SEV-SNP.
pub(crate) struct SnpVerifier {
    endorsements: Arc<dyn Endorsements>,
    authorities: BTreeMap<Product, Authorities>,
}

impl SnpVerifier {
    /// Under AMD's roots.
    pub(crate) fn new(endorsements: Arc<dyn Endorsements>) -> Self {
        Self {
            endorsements,
            authorities: Product::ALL
                .into_iter()
                .map(|product| (product, Authorities::genuine(product)))
                .collect(),
        }
    }

    /// Under other roots.
    #[cfg(test)]
    fn with_authorities(mut self, product: Product, authorities: Authorities) -> Self {
        self.authorities.insert(product, authorities);
        self
    }
}

impl Verifier for SnpVerifier {
    fn verify(&self, evidence: &Evidence, now_ms: UnixMillis) -> Result<Claims, Refused> {
        let report = Report::read(&evidence.body)?;
        let (product, leaf) = self.find_certificate(&report)?;
        let name = report.key.certificate_name();
        let leaf = Certificate::read(name, &leaf)?;
        self.check_chain(product, report.key, &leaf, now_ms)?;
        check_signature(&report, &leaf)?;
        check_product(product, &leaf)?;
        check_firmware(&report, &leaf)?;
        check_chip(&report, &leaf)?;
        if report.privilege_level() != PRIVILEGE_LEVEL {
            return Err(Refused::PrivilegeLevel {
                seen: report.privilege_level(),
                expected: PRIVILEGE_LEVEL,
            });
        }
        report.check_stays()?;
        report.claims()
    }
}

impl SnpVerifier {
    /// The product and the DER of the certificate of the report's key: the one that
    /// came with it, or the one at hand.
    fn find_certificate(&self, report: &Report<'_>) -> Result<(Product, Arc<[u8]>), Refused> {
        if let Some(der) = report.certificate {
            let product = product_of(report, der)?;
            return Ok((product, der.into()));
        }
        let mut missing = None;
        for product in report.products() {
            let name = certificate_name(product, report);
            match self.endorsements.find(&name) {
                Some(der) => return Ok((product, der)),
                None => missing = missing.or(Some(name)),
            }
        }
        Err(missing.map_or_else(unknown_product, |name| Refused::MissingEndorsement { name }))
    }

    /// Root, authority, revocation list and leaf fit together, and hold now.
    fn check_chain(
        &self,
        product: Product,
        key: Key,
        leaf: &Certificate<'_>,
        now_ms: UnixMillis,
    ) -> Result<(), Refused> {
        let authorities = self.authorities.get(&product).ok_or_else(unknown_product)?;
        let root = Certificate::read(ROOT_NAME, &authorities.root)?;
        let imported = self.imported_authority(product, key, authorities)?;
        let authority = imported.as_deref();
        let authority = authority.unwrap_or_else(|| authorities.intermediate(key));
        let authority = Certificate::read(AUTHORITY_NAME, authority)?;

        root.check_authority(1)?;
        authority.check_issued_by(&root)?;
        authority.check_authority(0)?;
        leaf.check_issued_by(&authority)?;
        for certificate in [&root, &authority, leaf] {
            certificate.check_validity(now_ms)?;
        }

        let name = list_name(product);
        let list = self.endorsements.find(&name);
        let list = list.ok_or(Refused::MissingEndorsement { name })?;
        let list = RevocationList::read(LIST_NAME, &list)?;
        list.check_issued_by(&root)?;
        list.check_validity(now_ms)?;
        authority.check_not_revoked(&list)
    }

    /// An authority that was imported, under the built-in root.
    fn imported_authority(
        &self,
        product: Product,
        key: Key,
        authorities: &Authorities,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let name = format!("amd/chain/{}/{}", key.name(), product.name());
        let Some(chain) = self.endorsements.find(&name) else {
            return Ok(None);
        };
        let read: Result<Vec<_>, _> = Pem::iter_from_buffer(&chain)
            .take(MAX_CHAIN_CERTIFICATES)
            .collect();
        let read = read.map_err(|error| malformed(CHAIN_NAME, error))?;
        match read.as_slice() {
            [authority, root] if root.contents == authorities.root => {
                Ok(Some(authority.contents.clone()))
            }
            [_, _] => Err(Refused::Signature {
                what: CHAIN_NAME,
                expected: ROOT_NAME.to_owned(),
            }),
            _ => Err(malformed(CHAIN_NAME, "it has no intermediate and root")),
        }
    }
}

/// What a report says, before anything is believed.
pub(crate) fn read_unverified(body: &[u8]) -> Result<Claims, Refused> {
    Report::read(body)?.claims()
}

/// What a verifier looks up for a report and cannot do without. A report of
/// version 2 without its certificate leaves two products open; one of them has it.
pub(crate) fn endorsement_names(body: &[u8]) -> Result<BTreeSet<String>, Refused> {
    let report = Report::read(body)?;
    if let Some(der) = report.certificate {
        return Ok([list_name(product_of(&report, der)?)].into());
    }
    let mut names = BTreeSet::new();
    for product in report.products() {
        names.insert(list_name(product));
        names.insert(certificate_name(product, &report));
    }
    Ok(names)
}

fn list_name(product: Product) -> String {
    format!("amd/crl/{}", product.name())
}

fn certificate_name(product: Product, report: &Report<'_>) -> String {
    format!(
        "amd/{}/{}/{}/{}",
        report.key.name(),
        product.name(),
        hex::encode(report.chip_id()),
        hex::encode(report.reported_tcb_bytes())
    )
}

/// The product whose authority the certificate names, if the report can be of it.
fn product_of(report: &Report<'_>, der: &[u8]) -> Result<Product, Refused> {
    let certificate = Certificate::read(report.key.certificate_name(), der)?;
    let issuer = certificate.issuer_name().unwrap_or_default();
    let title = issuer.strip_prefix(report.key.authority_prefix());
    let mut products = report.products().into_iter();
    products
        .find(|product| Some(product.title()) == title)
        .ok_or_else(unknown_product)
}

fn unknown_product() -> Refused {
    Refused::Unsupported {
        what: "an SEV-SNP report of a processor that is none of Milan, Genoa and Turin".to_owned(),
    }
}

fn check_signature(report: &Report<'_>, leaf: &Certificate<'_>) -> Result<(), Refused> {
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, leaf.p384_key()?);
    key.verify(report.signed(), &report.signature()?)
        .map_err(|_| Refused::Signature {
            what: WHAT,
            expected: leaf.what().to_owned(),
        })
}

/// The certificate names the product, as in `Milan-B0`.
fn check_product(product: Product, leaf: &Certificate<'_>) -> Result<(), Refused> {
    let value = extension(leaf, "product name", &PRODUCT_NAME)?;
    let name = value.strip_prefix(&[IA5_STRING_TAG]);
    let name = name.and_then(|rest| rest.split_first());
    match name {
        Some((length, name))
            if usize::from(*length) == name.len()
                && name.starts_with(product.title().as_bytes()) =>
        {
            Ok(())
        }
        _ => Err(malformed(leaf.what(), "it is for another product")),
    }
}

/// A key is certified for one level of firmware: the one that the report names.
fn check_firmware(report: &Report<'_>, leaf: &Certificate<'_>) -> Result<(), Refused> {
    for (component, seen) in report.reported_tcb() {
        let known = SECURITY_VERSIONS
            .iter()
            .find(|(name, _)| *name == component);
        let Some((name, oid)) = known else {
            continue;
        };
        let certified = small_integer(extension(leaf, name, oid)?);
        let certified =
            certified.ok_or_else(|| malformed(leaf.what(), "a version is too large"))?;
        if seen < certified {
            return Err(Refused::OldTcb {
                component,
                seen,
                expected: certified,
            });
        }
        if seen > certified {
            return Err(Refused::OldTcb {
                component: format!("{component} of the {}", leaf.what()),
                seen: certified,
                expected: seen,
            });
        }
    }
    Ok(())
}

/// The chip's own key is certified for that chip; a loaded key names no chip.
fn check_chip(report: &Report<'_>, leaf: &Certificate<'_>) -> Result<(), Refused> {
    if report.key == Key::Vlek {
        return Ok(());
    }
    let expected = extension(leaf, "chip id", &CHIP_ID)?;
    if expected != report.chip_id() {
        return Err(Refused::Chip {
            seen: hex::encode(report.chip_id()),
            expected: hex::encode(expected),
        });
    }
    Ok(())
}

fn extension<'a>(leaf: &Certificate<'a>, name: &str, oid: &Oid<'_>) -> Result<&'a [u8], Refused> {
    let value = leaf.extension(oid)?;
    value.ok_or_else(|| malformed(leaf.what(), format!("it does not tell the {name}")))
}

/// The value of a DER integer from 0 to 255.
fn small_integer(der: &[u8]) -> Option<u32> {
    match der {
        [INTEGER_TAG, 1, value] if *value < 0x80 => Some(u32::from(*value)),
        [INTEGER_TAG, 2, 0, value] if *value >= 0x80 => Some(u32::from(*value)),
        _ => None,
    }
}
