//! Vendors' X.509 certificates and revocation lists, judged one step at a time.
//!
//! A chain of a TEE vendor has a fixed shape and a pinned root, so there is no
//! search for a path: each caller names the steps. The algorithm of a signature
//! follows from the issuer's key and never from what is judged: RSA signs by PSS
//! with SHA-384, P-384 by ECDSA with SHA-384, P-256 by ECDSA with SHA-256.
//!
//! Invariants: nothing is trusted because it parses; bytes left over, a second
//! algorithm beside the signed one and unknown critical extensions are refused.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
    VerificationAlgorithm,
};
use nautilus_attest_protocol::{Refused, UnixMillis};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

/// The largest certificate read, in bytes. Genuine ones have up to 1.7 KiB.
const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;
/// The largest revocation list read, in bytes. Intel's have some KiB.
const MAX_REVOCATION_LIST_BYTES: usize = 256 * 1024;

/// Bytes of an uncompressed point on P-256.
const P256_POINT_BYTES: usize = 65;
/// Bytes of an uncompressed point on P-384.
pub(crate) const P384_POINT_BYTES: usize = 97;

/// A certificate, read but not believed.
pub(crate) struct Certificate<'a> {
    what: &'static str,
    inner: X509Certificate<'a>,
}

impl<'a> Certificate<'a> {
    /// Reads DER; `what` names the certificate in refusals.
    pub(crate) fn read(what: &'static str, der: &'a [u8]) -> Result<Self, Refused> {
        let inner = parse(what, der, MAX_CERTIFICATE_BYTES, X509Certificate::from_der)?;
        if inner.signature_algorithm != inner.tbs_certificate.signature {
            return Err(malformed(what, "it names two signature algorithms"));
        }
        let known = [
            OID_X509_EXT_BASIC_CONSTRAINTS,
            OID_X509_EXT_KEY_USAGE,
            OID_X509_EXT_EXTENDED_KEY_USAGE,
        ];
        for extension in inner.extensions() {
            if extension.critical && !known.contains(&extension.oid) {
                let reason = format!("its critical extension {} is unknown", extension.oid);
                return Err(malformed(what, reason));
            }
        }
        Ok(Self { what, inner })
    }

    /// Checks that `issuer` signed it.
    pub(crate) fn check_issued_by(&self, issuer: &Certificate<'_>) -> Result<(), Refused> {
        if self.inner.issuer().as_raw() != issuer.inner.subject().as_raw() {
            return Err(self.not_signed_by(issuer));
        }
        let signed = self.inner.tbs_certificate.as_ref();
        let signature = &self.inner.signature_value.data;
        if !verifies(issuer.inner.public_key(), signed, signature) {
            return Err(self.not_signed_by(issuer));
        }
        Ok(())
    }

    fn not_signed_by(&self, issuer: &Certificate<'_>) -> Refused {
        Refused::Signature {
            what: self.what,
            expected: issuer.what.to_owned(),
        }
    }

    /// Checks that it may issue certificates, with `below` further authorities
    /// between it and the last certificate.
    pub(crate) fn check_authority(&self, below: usize) -> Result<(), Refused> {
        let constraints = self.inner.basic_constraints();
        let constraints = constraints.map_err(|error| malformed(self.what, error))?;
        let Some(constraints) = constraints.map(|extension| extension.value) else {
            return Err(malformed(self.what, "it is not an authority's"));
        };
        let deep_enough = constraints
            .path_len_constraint
            .is_none_or(|limit| u64::from(limit) >= below as u64);
        if !constraints.ca || !deep_enough {
            return Err(malformed(self.what, "it may not issue this certificate"));
        }
        let usage = self.inner.key_usage();
        let usage = usage.map_err(|error| malformed(self.what, error))?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(malformed(self.what, "its key may not sign certificates"));
        }
        Ok(())
    }

    /// Checks that it holds at `at_ms`.
    pub(crate) fn check_validity(&self, at_ms: UnixMillis) -> Result<(), Refused> {
        let validity = self.inner.validity();
        check_window(self.what, &validity.not_before, &validity.not_after, at_ms)
    }

    /// Checks that `list`, which must be of its issuer, does not name it.
    pub(crate) fn check_not_revoked(&self, list: &RevocationList<'_>) -> Result<(), Refused> {
        let serial = self.inner.raw_serial();
        let mut revoked = list.inner.iter_revoked_certificates();
        if revoked.any(|entry| entry.raw_serial() == serial) {
            return Err(Refused::Revoked {
                what: self.what,
                serial: hex::encode(serial),
            });
        }
        Ok(())
    }

    /// The value of its extension `oid`, if it has one; two are refused.
    pub(crate) fn extension(&self, oid: &Oid<'_>) -> Result<Option<&'a [u8]>, Refused> {
        let extension = self.inner.tbs_certificate.get_extension_unique(oid);
        let extension = extension.map_err(|error| malformed(self.what, error))?;
        Ok(extension.map(|extension| extension.value))
    }

    /// Its public key as an uncompressed point on P-384.
    pub(crate) fn p384_key(&self) -> Result<&[u8], Refused> {
        let key = self.inner.public_key();
        let point = &key.subject_public_key.data;
        if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || point.len() != P384_POINT_BYTES
        {
            return Err(malformed(self.what, "its key is not on the curve P-384"));
        }
        Ok(point)
    }

    /// Its public key's bits: a point, or a structure of its kind.
    pub(crate) fn key_bytes(&self) -> &[u8] {
        &self.inner.public_key().subject_public_key.data
    }

    /// From when until when it holds.
    pub(crate) fn window_ms(&self) -> (UnixMillis, UnixMillis) {
        let validity = self.inner.validity();
        (millis(&validity.not_before), millis(&validity.not_after))
    }

    /// The common name of its issuer.
    pub(crate) fn issuer_name(&self) -> Option<&str> {
        common_name(self.inner.issuer())
    }

    /// The common name of its owner.
    pub(crate) fn subject_name(&self) -> Option<&str> {
        common_name(self.inner.subject())
    }

    /// How it is named in refusals.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }
}

/// A revocation list, read but not believed.
pub(crate) struct RevocationList<'a> {
    what: &'static str,
    inner: CertificateRevocationList<'a>,
}

impl<'a> RevocationList<'a> {
    /// Reads DER; `what` names the list in refusals.
    pub(crate) fn read(what: &'static str, der: &'a [u8]) -> Result<Self, Refused> {
        let read = CertificateRevocationList::from_der;
        let inner = parse(what, der, MAX_REVOCATION_LIST_BYTES, read)?;
        if inner.signature_algorithm != inner.tbs_cert_list.signature {
            return Err(malformed(what, "it names two signature algorithms"));
        }
        Ok(Self { what, inner })
    }

    /// Checks that `issuer` signed it.
    pub(crate) fn check_issued_by(&self, issuer: &Certificate<'_>) -> Result<(), Refused> {
        let signed = self.inner.tbs_cert_list.as_ref();
        let signature = &self.inner.signature_value.data;
        if self.inner.issuer().as_raw() != issuer.inner.subject().as_raw()
            || !verifies(issuer.inner.public_key(), signed, signature)
        {
            return Err(Refused::Signature {
                what: self.what,
                expected: issuer.what.to_owned(),
            });
        }
        Ok(())
    }

    /// From when until when it is the present one.
    pub(crate) fn window_ms(&self) -> Result<(UnixMillis, UnixMillis), Refused> {
        let Some(next_update) = self.inner.next_update() else {
            return Err(malformed(self.what, "it does not say until when it holds"));
        };
        Ok((millis(&self.inner.last_update()), millis(&next_update)))
    }

    /// The common name of its issuer.
    pub(crate) fn issuer_name(&self) -> Option<&str> {
        common_name(self.inner.issuer())
    }

    /// Checks that it is the present one at `at_ms`.
    pub(crate) fn check_validity(&self, at_ms: UnixMillis) -> Result<(), Refused> {
        let Some(next_update) = self.inner.next_update() else {
            return Err(malformed(self.what, "it does not say until when it holds"));
        };
        check_window(self.what, &self.inner.last_update(), &next_update, at_ms)
    }
}

/// Checks that `at_ms` is not before `from` and not after `until`.
fn check_window(
    what: &'static str,
    from: &ASN1Time,
    until: &ASN1Time,
    at_ms: UnixMillis,
) -> Result<(), Refused> {
    check_dates(what, millis(from), millis(until), at_ms)
}

/// Checks that `at_ms` is not before `valid_from_ms` and not after `expired_at_ms`.
pub(crate) fn check_dates(
    what: &'static str,
    valid_from_ms: UnixMillis,
    expired_at_ms: UnixMillis,
    now_ms: UnixMillis,
) -> Result<(), Refused> {
    if now_ms < valid_from_ms {
        return Err(Refused::NotYetValid {
            what,
            valid_from_ms,
            now_ms,
        });
    }
    if now_ms > expired_at_ms {
        return Err(Refused::Expired {
            what,
            expired_at_ms,
            now_ms,
        });
    }
    Ok(())
}

fn millis(time: &ASN1Time) -> UnixMillis {
    u64::try_from(time.timestamp())
        .unwrap_or(0)
        .saturating_mul(1000)
}

fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = name.iter_common_name();
    names.next().and_then(|name| name.as_str().ok())
}

fn verifies(key: &SubjectPublicKeyInfo<'_>, message: &[u8], signature: &[u8]) -> bool {
    let bytes: &[u8] = &key.subject_public_key.data;
    let kind = &key.algorithm.algorithm;
    let algorithm: &'static dyn VerificationAlgorithm = if *kind == OID_PKCS1_RSAENCRYPTION {
        &RSA_PSS_2048_8192_SHA384
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && bytes.len() == P384_POINT_BYTES {
        &ECDSA_P384_SHA384_ASN1
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && bytes.len() == P256_POINT_BYTES {
        &ECDSA_P256_SHA256_ASN1
    } else {
        return false;
    };
    UnparsedPublicKey::new(algorithm, bytes)
        .verify(message, signature)
        .is_ok()
}

fn parse<'a, T, E: std::fmt::Display>(
    what: &'static str,
    der: &'a [u8],
    limit: usize,
    read: impl Fn(&'a [u8]) -> Result<(&'a [u8], T), E>,
) -> Result<T, Refused> {
    if der.len() > limit {
        return Err(Refused::TooLarge {
            what,
            size: der.len(),
            limit,
        });
    }
    let (rest, inner) = read(der).map_err(|error| malformed(what, error))?;
    if !rest.is_empty() {
        return Err(malformed(what, "bytes are left over"));
    }
    Ok(inner)
}

/// A refusal for bytes that are not what they should be.
pub(crate) fn malformed(what: &'static str, reason: impl std::fmt::Display) -> Refused {
    Refused::Malformed {
        what,
        reason: reason.to_string(),
    }
}
