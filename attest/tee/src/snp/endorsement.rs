//! AMD's endorsements, read for whoever keeps them.

use x509_parser::pem::Pem;

use super::product::{Authorities, Key, Product};
use super::{
    AUTHORITY_NAME, CHAIN_NAME, CHIP_ID, LIST_NAME, MAX_CHAIN_CERTIFICATES, ROOT_NAME,
    SECURITY_VERSIONS, extension, list_name, small_integer,
};
use crate::certificate::{Certificate, RevocationList, malformed};
use crate::endorsement::{EndorsementFacts, Named};
use nautilus_attest_protocol::Refused;

/// The start of the common name of AMD's roots.
const ROOT_PREFIX: &str = "ARK-";

/// An intermediate and its root in PEM; `None` for other authorities' certificates.
pub(crate) fn read_chain(pem: &[u8]) -> Result<Option<Named>, Refused> {
    let read: Result<Vec<_>, _> = Pem::iter_from_buffer(pem)
        .take(MAX_CHAIN_CERTIFICATES + 1)
        .collect();
    let read = read.map_err(|error| malformed(CHAIN_NAME, error))?;
    let [authority, root] = read.as_slice() else {
        return Err(malformed(CHAIN_NAME, "it has no intermediate and root"));
    };
    let authority = Certificate::read(AUTHORITY_NAME, &authority.contents)?;
    let Some((key, product)) = authority.subject_name().and_then(of_authority) else {
        return Ok(None);
    };
    let genuine = Authorities::genuine(product);
    let built_in = Certificate::read(ROOT_NAME, &genuine.root)?;
    authority.check_issued_by(&built_in)?;
    if root.contents != genuine.root {
        return Err(Refused::Signature {
            what: CHAIN_NAME,
            expected: ROOT_NAME.to_owned(),
        });
    }
    let (issued_at_ms, expires_at_ms) = authority.window_ms();
    let (_, root_expires_at_ms) = built_in.window_ms();
    Ok(Some(Named {
        name: format!("amd/chain/{}/{}", key.name(), product.name()),
        facts: EndorsementFacts {
            issued_at_ms,
            expires_at_ms: expires_at_ms.min(root_expires_at_ms),
            is_checked: true,
        },
    }))
}

/// A chip's certificate or a revocation list in DER; `None` for other issuers'.
pub(crate) fn read_der(der: &[u8]) -> Result<Option<Named>, Refused> {
    if let Ok(list) = RevocationList::read(LIST_NAME, der) {
        return read_list(&list);
    }
    let Ok(leaf) = Certificate::read(Key::Vcek.certificate_name(), der) else {
        return Ok(None);
    };
    let Some((Key::Vcek, product)) = leaf.issuer_name().and_then(of_authority) else {
        return Ok(None);
    };
    let genuine = Authorities::genuine(product);
    leaf.check_issued_by(&Certificate::read(AUTHORITY_NAME, &genuine.vcek)?)?;
    let chip = extension(&leaf, "chip id", &CHIP_ID)?;
    let firmware = firmware_bytes(product, &leaf)?;
    let (issued_at_ms, expires_at_ms) = leaf.window_ms();
    Ok(Some(Named {
        name: format!(
            "amd/vcek/{}/{}/{}",
            product.name(),
            hex::encode(chip),
            hex::encode(firmware)
        ),
        facts: EndorsementFacts {
            issued_at_ms,
            expires_at_ms,
            is_checked: true,
        },
    }))
}

fn read_list(list: &RevocationList<'_>) -> Result<Option<Named>, Refused> {
    let title = list
        .issuer_name()
        .and_then(|name| name.strip_prefix(ROOT_PREFIX));
    let Some(product) = title.and_then(of_title) else {
        return Ok(None);
    };
    let genuine = Authorities::genuine(product);
    list.check_issued_by(&Certificate::read(ROOT_NAME, &genuine.root)?)?;
    let (issued_at_ms, expires_at_ms) = list.window_ms()?;
    Ok(Some(Named {
        name: list_name(product),
        facts: EndorsementFacts {
            issued_at_ms,
            expires_at_ms,
            is_checked: true,
        },
    }))
}

fn of_title(title: &str) -> Option<Product> {
    Product::ALL
        .into_iter()
        .find(|product| product.title() == title)
}

/// `SEV-Milan` and `SEV-VLEK-Milan`.
fn of_authority(name: &str) -> Option<(Key, Product)> {
    // The longer prefix first: it begins with the shorter.
    [Key::Vlek, Key::Vcek].into_iter().find_map(|key| {
        let title = name.strip_prefix(key.authority_prefix())?;
        Some((key, of_title(title)?))
    })
}

/// The level of firmware a certificate is for, as the eight bytes of a report
/// (AMD 56860, TCB_VERSION).
fn firmware_bytes(product: Product, leaf: &Certificate<'_>) -> Result<[u8; 8], Refused> {
    let version = |component: &str| -> Result<u8, Refused> {
        let known = SECURITY_VERSIONS
            .iter()
            .find(|(name, _)| *name == component);
        let Some((name, oid)) = known else {
            return Err(malformed(leaf.what(), "it tells no firmware"));
        };
        let value = small_integer(extension(leaf, name, oid)?);
        value
            .and_then(|value| u8::try_from(value).ok())
            .ok_or_else(|| malformed(leaf.what(), "a version is too large"))
    };
    let (bootloader, tee) = (version("bootloader")?, version("tee")?);
    let (snp, microcode) = (version("snp")?, version("microcode")?);
    Ok(match product {
        Product::Milan | Product::Genoa => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
        Product::Turin => [version("fmc")?, bootloader, tee, snp, 0, 0, 0, microcode],
    })
}
