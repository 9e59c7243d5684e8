//! What stands ready for the day when too few members are left: the quorum's keys,
//! wrapped by a recovery secret, and a share of that secret for each operator, sealed to
//! the operator's key.
//!
//! ```text
//! keys ── AES-256-GCM ──► recovery secret ── Shamir ──► share ── HPKE ──► operator
//!              terms: authenticated by both ───────────────────────┘
//! ```
//! Nothing of it is secret: it is a row of the quorum and a file of every node. As many
//! operators as the threshold open it together, and only for an enclave that proved
//! itself to each of them.
//!
//! Invariants: the recovery secret is drawn for one escrow and kept nowhere; an escrow
//! whose terms were changed opens nothing.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_attest_protocol::Policy;
use nautilus_attest_protocol::policy::{OperatorKey, PublicKey};
use nautilus_store::{Generation, Keyring};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::shamir::{self, SECRET_BYTES, SHARE_BYTES, Share};
use crate::exit::Failure;

const SHARE_INFO: &[u8] = b"nautilus recovery share v1";
const SUBMIT_INFO: &[u8] = b"nautilus recovery submission v1";
const WRAP_LABEL: &[u8] = b"nautilus recovery wrap v1";
/// Bytes of an uncompressed point of P-256, and of a SubjectPublicKeyInfo with one.
const POINT_BYTES: usize = 65;
const P256_SPKI_BYTES: usize = 91;
/// Bytes of AES-GCM's tag.
const TAG_BYTES: usize = 16;

/// What an escrow is for. The same terms need no other escrow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    /// Whose keys.
    pub(crate) cluster_id: String,
    /// How many recoveries there were before it was made.
    pub(crate) recoveries: u64,
    /// Shares that are enough.
    pub(crate) threshold: u8,
    /// Who has a share, in the order of the shares.
    pub(crate) operators: Vec<OperatorKey>,
    /// The roots that it gives back.
    pub(crate) roots: Vec<RootName>,
}

/// Names a root without telling anything of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootName {
    /// Its generation.
    pub(crate) generation: Generation,
    /// Hex.
    pub(crate) fingerprint: String,
}

impl RootName {
    /// Every root of a keyring.
    pub(crate) fn all_of(keyring: &Keyring) -> Vec<Self> {
        let generations = keyring.generations().into_iter();
        let named = generations.filter_map(|generation| {
            Some(Self {
                generation,
                fingerprint: hex::encode(keyring.fingerprint(generation)?),
            })
        });
        named.collect()
    }
}

impl Terms {
    /// The terms by which a policy's operators hold shares: as many as must sign a change
    /// of the policy bring back the keys.
    ///
    /// # Errors
    /// Why there can be no escrow: a share can be sealed to keys of P-256 only.
    pub(crate) fn of_policy(
        cluster_id: &str,
        policy: &Policy,
        recoveries: u64,
        roots: Vec<RootName>,
    ) -> Result<Self, String> {
        let operators = policy.operators.iter();
        let operators = operators.filter(|operator| point_of(&operator.public_key).is_some());
        let operators: Vec<_> = operators.cloned().collect();
        let threshold = u8::try_from(policy.threshold).unwrap_or(u8::MAX);
        if threshold == 0 || operators.len() < usize::from(threshold) {
            return Err(format!(
                "{} of {} operators have keys of ECDSA P-256, to which shares can be sealed, and \
                 {threshold} are needed",
                operators.len(),
                policy.operators.len()
            ));
        }
        Ok(Self {
            cluster_id: cluster_id.to_owned(),
            recoveries,
            threshold,
            operators,
            roots,
        })
    }

    /// What wraps and seals are bound to.
    pub(crate) fn digest(&self) -> anyhow::Result<Vec<u8>> {
        let text = serde_json::to_vec(self).context("the escrow's terms")?;
        Ok(digest(&SHA256, &text).as_ref().to_vec())
    }
}

/// Everything that operators need to recover the quorum, in public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Escrow {
    /// What it is for.
    pub(crate) terms: Terms,
    /// The keyring's secrets under the recovery secret, base64.
    wrapped_keys: String,
    /// One for each operator.
    shares: Vec<SealedShare>,
}

/// An operator's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedShare {
    /// Sealed to the operator's key.
    sealed: Sealed,
    /// SHA-256 of the share, hex: a wrong one is named when it comes.
    share_sha256: String,
}

/// A message sealed by HPKE (RFC 9180), both parts in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    encapsulated: String,
    ciphertext: String,
}

/// An operator's private key of P-256, with its public half. Shows nothing.
pub(crate) struct ShareKey {
    private: HpkePrivateKey,
    point: Vec<u8>,
}

/// The key pair of an enclave that waits for shares; it lives as long as the process.
pub(crate) struct Desk {
    public: HpkePublicKey,
    private: HpkePrivateKey,
}

impl Escrow {
    /// Wraps a keyring's `secrets` by the terms.
    pub(crate) fn make(terms: Terms, secrets: &[u8]) -> anyhow::Result<Self> {
        let count = u8::try_from(terms.operators.len()).context("more than 255 operators")?;
        let bound = terms.digest()?;
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        aws_lc_rs::rand::fill(&mut secret[..]).map_err(|_| anyhow!("no random bytes"))?;
        let shares = shamir::split(&secret, terms.threshold, count).context("split the secret")?;
        let sealed = terms
            .operators
            .iter()
            .zip(&shares)
            .map(|(operator, share)| {
                let point = point_of(&operator.public_key)
                    .with_context(|| format!("operator {:?} has no key of P-256", operator.name))?;
                Ok(SealedShare {
                    sealed: seal(point, SHARE_INFO, &bound, &share[..])?,
                    share_sha256: fingerprint(share),
                })
            });
        // Of the whole length at once: a vector that grows leaves copies behind.
        let mut wrapped = Zeroizing::new(Vec::with_capacity(secrets.len() + TAG_BYTES));
        wrapped.extend_from_slice(secrets);
        wrapping(&secret)?
            .seal_in_place_append_tag(once(), Aad::from(&bound), &mut *wrapped)
            .map_err(|_| anyhow!("wrapping the keys failed"))?;
        Ok(Self {
            wrapped_keys: BASE64.encode(&*wrapped),
            shares: sealed.collect::<anyhow::Result<_>>()?,
            terms,
        })
    }

    /// The share of the operator whose key this is, and that operator's fingerprint.
    pub(crate) fn open_share(&self, key: &ShareKey) -> anyhow::Result<(String, Share)> {
        let operators = self.terms.operators.iter().zip(&self.shares);
        for (operator, share) in operators {
            if point_of(&operator.public_key) == Some(&key.point) {
                let opened = open(
                    &key.private,
                    SHARE_INFO,
                    &self.terms.digest()?,
                    &share.sealed,
                );
                let opened = opened.with_context(|| format!("operator {:?}", operator.name))?;
                return Ok((operator.public_key.fingerprint(), read_share(&opened)?));
            }
        }
        bail!("no share is sealed to this key: its owner was no operator when the escrow was made")
    }

    /// The name of an operator by the key's fingerprint, after checking that `share` is
    /// the one that was sealed to it.
    pub(crate) fn check(&self, operator: &str, share: &Share) -> anyhow::Result<String> {
        let mut operators = self.terms.operators.iter().zip(&self.shares);
        let (own, sealed) = operators
            .find(|(own, _)| own.public_key.fingerprint() == operator)
            .with_context(|| format!("no share belongs to a key {operator:?}"))?;
        ensure!(
            sealed.share_sha256 == fingerprint(share),
            "this is not the share of {:?}",
            own.name
        );
        Ok(own.name.clone())
    }

    /// The keys, from checked shares of different operators.
    pub(crate) fn keys(&self, shares: &[Share]) -> anyhow::Result<Keyring> {
        let wanted = usize::from(self.terms.threshold);
        ensure!(
            wanted > 0 && shares.len() >= wanted,
            "{} shares are there, {wanted} are needed",
            shares.len()
        );
        let secret = shamir::combine(&shares[..wanted]);
        let mut wrapped = Zeroizing::new(BASE64.decode(&self.wrapped_keys)?);
        let opened = wrapping(&secret)?
            .open_in_place(once(), Aad::from(&self.terms.digest()?), &mut wrapped)
            .map_err(|_| anyhow!("the shares do not open the keys: the escrow was altered"))?;
        Keyring::from_secrets(opened).context("the keys in the escrow")
    }
}

impl ShareKey {
    /// Reads a PEM file: PKCS#8 or SEC 1.
    ///
    /// # Errors
    /// A file that can't be read, or another algorithm.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let pem = Zeroizing::new(std::fs::read(path).with_context(name)?);
        Self::from_pem(&pem).map_err(|error| Failure::Usage.error(format!("{}: {error}", name())))
    }

    fn from_pem(pem: &[u8]) -> anyhow::Result<Self> {
        let der = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|error| anyhow!("not a PEM private key: {error}"))?;
        let other = || anyhow!("shares are sealed to keys of ECDSA P-256; this is another");
        let key = PrivateKey::from_private_key_der(&ECDH_P256, der.secret_der());
        let key = key.map_err(|_| other())?;
        let point = key.compute_public_key().map_err(|_| other())?;
        let scalar: EcPrivateKeyBin<'_> = key.as_be_bytes().map_err(|_| other())?;
        Ok(Self {
            private: HpkePrivateKey::from(scalar.as_ref().to_vec()),
            point: point.as_ref().to_vec(),
        })
    }
}

impl Desk {
    /// A fresh key pair.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let pair = SUITE.generate_key_pair();
        let (public, private) = pair.map_err(|error| anyhow!("drawing a key: {error}"))?;
        Ok(Self { public, private })
    }

    /// What shares are sealed to; evidence is made over it.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public.0
    }

    /// A share that an operator submitted.
    pub(crate) fn receive(&self, operator: &str, sealed: &Sealed) -> anyhow::Result<Share> {
        let opened = open(&self.private, SUBMIT_INFO, operator.as_bytes(), sealed);
        read_share(&opened?)
    }
}

/// Seals an operator's share to a desk that proved itself.
pub(crate) fn submit(desk: &[u8], operator: &str, share: &Share) -> anyhow::Result<Sealed> {
    seal(desk, SUBMIT_INFO, operator.as_bytes(), &share[..])
}

fn seal(to: &[u8], info: &[u8], aad: &[u8], plain: &[u8]) -> anyhow::Result<Sealed> {
    let sealed = SUITE.seal(info, aad, plain, &HpkePublicKey(to.to_vec()));
    let (encapsulated, ciphertext) = sealed.map_err(|error| anyhow!("sealing: {error}"))?;
    Ok(Sealed {
        encapsulated: BASE64.encode(encapsulated.0),
        ciphertext: BASE64.encode(ciphertext),
    })
}

fn open(
    key: &HpkePrivateKey,
    info: &[u8],
    aad: &[u8],
    sealed: &Sealed,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let encapsulated = EncapsulatedSecret(BASE64.decode(&sealed.encapsulated)?);
    let ciphertext = BASE64.decode(&sealed.ciphertext)?;
    let opened = SUITE.open(&encapsulated, info, aad, &ciphertext, key);
    opened.map(Zeroizing::new).map_err(|_| {
        anyhow!("the sealed share does not open: it, or what it is bound to, was altered")
    })
}

fn read_share(bytes: &[u8]) -> anyhow::Result<Share> {
    let mut share = Zeroizing::new([0; SHARE_BYTES]);
    ensure!(
        bytes.len() == SHARE_BYTES,
        "a share has {SHARE_BYTES} bytes"
    );
    share.copy_from_slice(bytes);
    Ok(share)
}

fn fingerprint(share: &Share) -> String {
    hex::encode(digest(&SHA256, &share[..]))
}

/// The point of a key of P-256.
fn point_of(key: &PublicKey) -> Option<&[u8]> {
    let spki = key.spki();
    (spki.len() == P256_SPKI_BYTES).then(|| &spki[P256_SPKI_BYTES - POINT_BYTES..])
}

/// A secret wraps once and is never used again.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn wrapping(secret: &[u8; SECRET_BYTES]) -> anyhow::Result<LessSafeKey> {
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), WRAP_LABEL);
    let key = UnboundKey::new(&AES_256_GCM, derived.as_ref());
    Ok(LessSafeKey::new(
        key.map_err(|_| anyhow!("AES-256 refused its key"))?,
    ))
}

#[cfg(test)]
mod tests {
    use nautilus_attest_protocol::EvidencePolicy;
    use nautilus_store::RootKey;
    use rcgen::PublicKeyData as _;

    use super::*;

    fn keyring() -> Keyring {
        let keyring = Keyring::new(RootKey::from_bytes([7; 32]));
        keyring.add(2, RootKey::from_bytes([8; 32])).expect("added");
        keyring.advance(2).expect("held");
        keyring
    }

    /// Operators with keys of P-256, and a policy that so many of them change.
    fn governed(count: usize, threshold: u32) -> (Vec<ShareKey>, Policy) {
        let mut policy = Policy::of_evidence(EvidencePolicy::new(true));
        policy.threshold = threshold;
        let keys = (0..count).map(|at| {
            let pair = rcgen::KeyPair::generate().expect("a key");
            policy.operators.push(OperatorKey {
                name: format!("operator-{at}"),
                public_key: PublicKey::from_spki(pair.subject_public_key_info()).expect("P-256"),
            });
            ShareKey::from_pem(pair.serialize_pem().as_bytes()).expect("P-256")
        });
        (keys.collect(), policy)
    }

    fn escrow(count: usize, threshold: u32) -> (Vec<ShareKey>, Escrow) {
        let (keys, policy) = governed(count, threshold);
        let roots = RootName::all_of(&keyring());
        let terms = Terms::of_policy("alpha", &policy, 0, roots).expect("terms");
        (
            keys,
            Escrow::make(terms, &keyring().to_secrets()).expect("made"),
        )
    }

    #[test]
    fn two_of_three_operators_recover_every_root_through_a_desk() {
        let (keys, escrow) = escrow(3, 2);
        let desk = Desk::open().expect("a desk");
        let submitted: Vec<Share> = keys[1..]
            .iter()
            .map(|key| {
                let (operator, share) = escrow.open_share(key).expect("own share");
                let sealed = submit(desk.public_key(), &operator, &share).expect("sealed");
                let share = desk.receive(&operator, &sealed).expect("received");
                escrow.check(&operator, &share).expect("the right one");
                share
            })
            .collect();
        assert!(escrow.keys(&submitted[..1]).is_err());
        let recovered = escrow.keys(&submitted).expect("the keys");
        assert_eq!(recovered.to_secrets(), keyring().to_secrets());
        assert_eq!(RootName::all_of(&recovered), escrow.terms.roots);
    }

    #[test]
    fn a_stranger_has_no_share_and_a_wrong_one_is_named() {
        let (keys, escrow) = escrow(2, 2);
        let (strangers, _) = governed(1, 1);
        assert!(escrow.open_share(&strangers[0]).is_err());
        let (_, share) = escrow.open_share(&keys[0]).expect("own");
        let other = escrow.terms.operators[1].public_key.fingerprint();
        let error = escrow.check(&other, &share).expect_err("not his");
        assert!(
            error
                .to_string()
                .contains("not the share of \"operator-1\""),
            "{error}"
        );
    }

    #[test]
    fn every_altered_bit_of_a_share_is_noticed() {
        let (keys, escrow) = escrow(1, 1);
        let (operator, share) = escrow.open_share(&keys[0]).expect("own");
        for bit in 0..SHARE_BYTES * 8 {
            let mut altered = share.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(escrow.check(&operator, &altered).is_err(), "bit {bit}");
            // And the keys themselves notice it where nobody has checked.
            assert!(escrow.keys(&[altered]).is_err() || bit < 8, "bit {bit}");
        }
    }

    #[test]
    fn altered_terms_open_neither_shares_nor_keys() {
        let (keys, good) = escrow(3, 2);
        let opened = keys.iter().map(|key| good.open_share(key).expect("own").1);
        let shares: Vec<Share> = opened.collect();
        let alterations: [fn(&mut Terms); 4] = [
            |terms| terms.cluster_id = "beta".into(),
            |terms| terms.threshold = 1,
            |terms| terms.recoveries = 7,
            |terms| terms.roots.clear(),
        ];
        for alter in alterations {
            let mut altered = good.clone();
            alter(&mut altered.terms);
            assert!(altered.open_share(&keys[0]).is_err(), "{:?}", altered.terms);
            assert!(altered.keys(&shares).is_err(), "{:?}", altered.terms);
        }
    }

    #[test]
    fn a_submission_is_for_one_desk_and_one_operator() {
        let (keys, escrow) = escrow(1, 1);
        let (operator, share) = escrow.open_share(&keys[0]).expect("own");
        let desk = Desk::open().expect("a desk");
        let sealed = submit(desk.public_key(), &operator, &share).expect("sealed");
        assert!(desk.receive("another", &sealed).is_err());
        assert!(
            Desk::open()
                .expect("another")
                .receive(&operator, &sealed)
                .is_err()
        );
        assert!(desk.receive(&operator, &sealed).is_ok());
    }

    #[test]
    fn operators_without_keys_of_p256_do_not_count() {
        let (_, mut policy) = governed(2, 2);
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        assert!(ShareKey::from_pem(ed25519.serialize_pem().as_bytes()).is_err());
        policy.operators.push(OperatorKey {
            name: "ann".into(),
            public_key: PublicKey::from_spki(ed25519.subject_public_key_info()).expect("Ed25519"),
        });
        let terms = Terms::of_policy("alpha", &policy, 0, Vec::new()).expect("two are enough");
        assert_eq!(terms.operators.len(), 2);
        policy.threshold = 3;
        let error = Terms::of_policy("alpha", &policy, 0, Vec::new()).expect_err("two of three");
        assert!(error.contains("2 of 3 operators"), "{error}");
    }
}
