//! What an operator holds: a policy in a file, and the key that signs it.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use nautilus_attest_protocol::Policy;
use nautilus_attest_protocol::policy::{Approval, PublicKey, change_bytes};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::exit::Failure;

/// DER before the 32 bytes of an Ed25519 public key (RFC 8410).
const ED25519_SPKI: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// DER before the 65 bytes of a P-256 public key (RFC 5480).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Reads a policy: JSON, YAML or TOML, by the file's ending (TOML for any other). What
/// `nautilus policy get --output json` shows can be read back.
///
/// # Errors
/// Wrong usage, with the place of the mistake.
pub(crate) fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let ending = path.extension().and_then(|ending| ending.to_str());
    let policy = parse(&text, ending.unwrap_or_default())
        .map_err(|reason| Failure::Usage.error(format!("{}: {reason}", path.display())))?;
    policy
        .check()
        .map_err(|error| Failure::Usage.error(format!("{}: {error}", path.display())))?;
    Ok(policy)
}

fn parse(text: &str, ending: &str) -> Result<Policy, String> {
    match ending {
        "json" => serde_json::from_str(text).map_err(|error| error.to_string()),
        "yaml" | "yml" => serde_yaml_ng::from_str(text).map_err(|error| error.to_string()),
        _ => toml::from_str(text).map_err(|error| error.to_string()),
    }
}

/// An operator's private key: Ed25519 or ECDSA P-256. Shows and serializes nothing.
pub(crate) enum OperatorSigner {
    /// Ed25519.
    Ed25519(Ed25519KeyPair),
    /// ECDSA P-256.
    P256(EcdsaKeyPair),
}

impl OperatorSigner {
    /// Reads a PEM file: PKCS#8, or SEC 1 for P-256.
    ///
    /// # Errors
    /// A file that cannot be read, or another algorithm.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let pem = zeroize::Zeroizing::new(
            std::fs::read(path).with_context(|| path.display().to_string())?,
        );
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| anyhow!("{}: not a PEM private key: {error}", path.display()))?;
        let der = key.secret_der();
        let p256 = &ECDSA_P256_SHA256_ASN1_SIGNING;
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(pair));
        }
        EcdsaKeyPair::from_pkcs8(p256, der)
            .or_else(|_| EcdsaKeyPair::from_private_key_der(p256, der))
            .map(Self::P256)
            .map_err(|_| {
                Failure::Usage.error(format!(
                    "{}: an operator signs with an Ed25519 or ECDSA P-256 key",
                    path.display()
                ))
            })
    }

    /// The public half.
    pub(crate) fn public_key(&self) -> anyhow::Result<PublicKey> {
        let (prefix, key) = match self {
            Self::Ed25519(pair) => (ED25519_SPKI, pair.public_key().as_ref()),
            Self::P256(pair) => (P256_SPKI, pair.public_key().as_ref()),
        };
        Ok(PublicKey::from_spki([prefix, key].concat())?)
    }

    /// Approves that in quorum `cluster_id` the policy before `document` is replaced by
    /// it.
    pub(crate) fn approve(&self, cluster_id: &str, document: &Policy) -> anyhow::Result<Approval> {
        let base = document.epoch.saturating_sub(1);
        let message = change_bytes(cluster_id, base, &document.digest());
        let signature = match self {
            Self::Ed25519(pair) => pair.sign(&message).as_ref().to_vec(),
            Self::P256(pair) => pair
                .sign(&SystemRandom::new(), &message)
                .map_err(|_| anyhow!("signing failed"))?
                .as_ref()
                .to_vec(),
        };
        Ok(Approval {
            operator: self.public_key()?.fingerprint(),
            signature: hex::encode(signature),
        })
    }
}

#[cfg(test)]
mod tests {
    use nautilus_attest_protocol::policy::{OperatorKey, accept};
    use nautilus_attest_protocol::{EvidencePolicy, Measurement, TeeKind};

    use super::*;

    const TOML: &str = "\
schema = 1
epoch = 3
threshold = 1

[evidence]
allow_simulated = true

[[evidence.kinds.simulated.measurements]]
measurement = \"00ff\"
name = \"1.2\"

[evidence.kinds.snp]
measurements = [{ measurement = \"0102\", not_after_ms = 1900000000000 }]
minimum_tcb = { microcode = 72 }

[diversity]
vendor_faults = 1
";

    #[test]
    fn a_policy_reads_alike_in_its_three_forms() {
        let policy = parse(TOML, "toml").expect("TOML");
        assert_eq!((policy.epoch, policy.check()), (3, Ok(())));
        let json = serde_json::to_string(&policy).expect("JSON");
        assert_eq!(parse(&json, "json").expect("JSON"), policy);
        let yaml = serde_yaml_ng::to_string(&policy).expect("YAML");
        assert_eq!(parse(&yaml, "yaml").expect("YAML"), policy);
    }

    #[test]
    fn a_mistake_is_named() {
        let spoiled = TOML.replace("72", "-72");
        assert!(parse(&spoiled, "toml").is_err());
        let unknown = TOML.replace("threshold", "treshold");
        let said = parse(&unknown, "toml").expect_err("unknown");
        assert!(said.contains("treshold"), "{said}");
    }

    #[test]
    fn keys_of_both_kinds_sign_what_the_quorum_accepts() {
        let dir = tempfile::tempdir().expect("a folder");
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256] {
            let pair = rcgen::KeyPair::generate_for(algorithm).expect("a key");
            let path = dir.path().join("key");
            std::fs::write(&path, pair.serialize_pem()).expect("written");
            let signer = OperatorSigner::read(&path).expect("read");
            let measurement = Measurement::new([1; 48]).expect("48 bytes");
            let evidence = EvidencePolicy::new(true).allow(TeeKind::Simulated, measurement);
            let mut present = Policy::of_evidence(evidence);
            present.epoch = 1;
            present.threshold = 1;
            present.operators = vec![OperatorKey {
                name: "ann".into(),
                public_key: signer.public_key().expect("its own"),
            }];
            let next = Policy {
                epoch: 2,
                ..present.clone()
            };
            let approval = signer.approve("reef", &next).expect("signed");
            assert_eq!(accept(&present, "reef", &next, &[approval]), Ok(()));
        }
    }
}
