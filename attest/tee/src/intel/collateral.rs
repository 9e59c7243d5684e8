//! What Intel says about a platform, as its provisioning certification service
//! serves it: TCB info, the identity of the quoting enclave, revocation lists.
//!
//! The crate `dcap-qvl` checks every signature; here the parts are taken from the
//! endorsements, and what has a refusal of its own (dates, revocations) is looked
//! at first.

use std::sync::Arc;

use dcap_qvl::QuoteCollateralV3;
use nautilus_attest_protocol::{Endorsements, Refused, UnixMillis};
use serde::Deserialize;
use x509_parser::pem::Pem;

use super::quote::Quote;
use crate::certificate::{Certificate, RevocationList, check_dates, malformed};

pub(super) const TCB_INFO: &str = "Intel TCB info";
pub(super) const QE_IDENTITY: &str = "Intel QE identity";
const PLATFORM: &str = "Intel PCK certificate";
const PLATFORM_AUTHORITY: &str = "Intel PCK authority's certificate";
pub(super) const PLATFORM_LIST: &str = "Intel PCK revocation list";
pub(super) const ROOT_LIST: &str = "Intel root revocation list";
pub(super) const SIGNER: &str = "Intel TCB signing certificate";

/// The largest TCB info and QE identity read, each with its chain, in bytes.
/// Intel's largest have some 30 KiB.
const MAX_SIGNED_BYTES: usize = 256 * 1024;
/// Most certificates in the chain of a signer. Intel's have two.
const MAX_CHAIN_CERTIFICATES: usize = 4;
/// Bytes of a signature on P-256.
const SIGNATURE_BYTES: usize = 64;

/// The endorsements of one quote.
pub(super) struct Collateral {
    tcb_info: Signed,
    qe_identity: Signed,
    platform_list: Arc<[u8]>,
    root_list: Arc<[u8]>,
}

impl Collateral {
    /// Looks up what `quote` needs.
    ///
    /// # Errors
    /// `MissingEndorsement` by name, `Malformed`, `TooLarge`.
    pub(super) fn find(quote: &Quote, endorsements: &dyn Endorsements) -> Result<Self, Refused> {
        let names = quote.endorsements();
        let find = |name: String| {
            let found = endorsements.find(&name);
            found.ok_or(Refused::MissingEndorsement { name })
        };
        Ok(Self {
            tcb_info: Signed::read(TCB_INFO, "tcbInfo", &find(names.tcb_info)?)?,
            qe_identity: Signed::read(QE_IDENTITY, "enclaveIdentity", &find(names.qe_identity)?)?,
            platform_list: find(names.platform_list)?,
            root_list: find(names.root_list)?,
        })
    }

    /// Checks dates and revocations, each with a refusal of its own.
    pub(super) fn check(&self, quote: &Quote, now_ms: UnixMillis) -> Result<(), Refused> {
        self.tcb_info.check_dates(now_ms)?;
        self.qe_identity.check_dates(now_ms)?;
        let platform_list = RevocationList::read(PLATFORM_LIST, &self.platform_list)?;
        let root_list = RevocationList::read(ROOT_LIST, &self.root_list)?;
        platform_list.check_validity(now_ms)?;
        root_list.check_validity(now_ms)?;
        for (at, der) in quote.chain.iter().enumerate() {
            let (what, list) = match at {
                0 => (PLATFORM, &platform_list),
                _ => (PLATFORM_AUTHORITY, &root_list),
            };
            check_certificate(what, der, list, now_ms)?;
        }
        for signed in [&self.tcb_info, &self.qe_identity] {
            for der in signed.chain_der()? {
                check_certificate(SIGNER, &der, &root_list, now_ms)?;
            }
        }
        Ok(())
    }

    /// In the form of `dcap-qvl`.
    pub(super) fn into_parts(self) -> QuoteCollateralV3 {
        QuoteCollateralV3 {
            pck_crl_issuer_chain: String::new(),
            root_ca_crl: self.root_list.to_vec(),
            pck_crl: self.platform_list.to_vec(),
            tcb_info_issuer_chain: self.tcb_info.chain,
            tcb_info: self.tcb_info.content,
            tcb_info_signature: self.tcb_info.signature,
            qe_identity_issuer_chain: self.qe_identity.chain,
            qe_identity: self.qe_identity.content,
            qe_identity_signature: self.qe_identity.signature,
            pck_certificate_chain: None,
        }
    }
}

fn check_certificate(
    what: &'static str,
    der: &[u8],
    list: &RevocationList<'_>,
    now_ms: UnixMillis,
) -> Result<(), Refused> {
    let certificate = Certificate::read(what, der)?;
    certificate.check_validity(now_ms)?;
    certificate.check_not_revoked(list)
}

/// A JSON text with Intel's signature over it and the signer's chain.
pub(super) struct Signed {
    pub(super) what: &'static str,
    pub(super) content: String,
    pub(super) signature: Vec<u8>,
    /// PEM, the signer first.
    chain: String,
}

/// The dates in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dates {
    issue_date: jiff::Timestamp,
    next_update: jiff::Timestamp,
}

impl Signed {
    /// Reads the body as Intel serves it, `{"<field>":{…},"signature":"…"}`, and the
    /// chain behind it. The text in the braces is what is signed, to the byte.
    pub(super) fn read(what: &'static str, field: &str, bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_SIGNED_BYTES {
            return Err(Refused::TooLarge {
                what,
                size: bytes.len(),
                limit: MAX_SIGNED_BYTES,
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| malformed(what, error))?;
        let chain_at = text.find("-----BEGIN").unwrap_or(text.len());
        let (body, chain) = text.split_at(chain_at);
        let content = body
            .trim()
            .strip_prefix(&format!("{{\"{field}\":"))
            .and_then(|rest| rest.strip_suffix("\"}"))
            .and_then(|rest| rest.rsplit_once(",\"signature\":\""));
        let Some((content, signature)) = content else {
            let reason = format!("it is not {{\"{field}\":…,\"signature\":…}} as Intel serves it");
            return Err(malformed(what, reason));
        };
        let signature = hex::decode(signature).map_err(|error| malformed(what, error))?;
        if signature.len() != SIGNATURE_BYTES {
            return Err(malformed(what, "its signature has not 64 bytes"));
        }
        Ok(Self {
            what,
            content: content.to_owned(),
            signature,
            chain: chain.to_owned(),
        })
    }

    fn check_dates(&self, now_ms: UnixMillis) -> Result<(), Refused> {
        let (from, until) = self.window_ms()?;
        check_dates(self.what, from, until, now_ms)
    }

    /// From when until when it is the present one.
    pub(super) fn window_ms(&self) -> Result<(UnixMillis, UnixMillis), Refused> {
        let dates: Dates =
            serde_json::from_str(&self.content).map_err(|error| malformed(self.what, error))?;
        let millis = |at: jiff::Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
        Ok((millis(dates.issue_date), millis(dates.next_update)))
    }

    pub(super) fn chain_der(&self) -> Result<Vec<Vec<u8>>, Refused> {
        let mut chain = Vec::new();
        for pem in Pem::iter_from_buffer(self.chain.as_bytes()) {
            let pem = pem.map_err(|error| malformed(self.what, error))?;
            chain.push(pem.contents);
            if chain.len() > MAX_CHAIN_CERTIFICATES {
                return Err(malformed(self.what, "its chain is too long"));
            }
        }
        Ok(chain)
    }
}
