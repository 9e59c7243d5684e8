//! Credentials by an operator's key, trusted by evidence.
//!
//! The client does not know the quorum's authority yet, so the connection proves
//! nothing. It sends a nonce and a certificate request signed by the operator's key;
//! the node answers with the certificate, the authority and evidence over all three
//! (`credential_report_data`). Only if the evidence is genuine, for this very answer
//! and within the policy is the authority returned. A relay in between sees public
//! things alone and can change none of them.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_attest_protocol::credential_report_data;
use reqwest::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::attested::Judge;
use crate::client::{ApiClient, RequestError};
use crate::exit::Failure;
use crate::simulated;

/// For a node to answer; it may have to load the authority first.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the client's nonce.
const NONCE_BYTES: usize = 32;

/// Whether `answer` is proved: by evidence over `nonce`, the authority and the
/// certificate, and from code that `judge` accepts.
fn check(judge: &Judge, nonce: &[u8], answer: &Answer) -> anyhow::Result<()> {
    let authority = single_certificate(&answer.ca)?;
    let certificate = single_certificate(&answer.certificate)?;
    let (_, parsed) = X509Certificate::from_der(&authority)
        .map_err(|error| anyhow!("the authority's certificate: {error}"))?;
    let spki = parsed.tbs_certificate.subject_pki.raw;
    let expected = credential_report_data(nonce, spki, &certificate);
    let evidence = BASE64
        .decode(&answer.evidence)
        .context("the evidence is not base64")?;
    judge.accept(&evidence, &expected)?;
    Ok(())
}

fn single_certificate(pem: &str) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("a certificate's PEM: {error}"))
}

/// What the quorum grants.
pub(crate) struct Granted {
    /// The quorum's authority, PEM: proved by evidence.
    pub(crate) authority_pem: String,
    /// The user's certificate, PEM.
    pub(crate) certificate_pem: String,
    /// The user's name, as the quorum knows the key.
    pub(crate) user: String,
    /// When the certificate ends, in seconds since the epoch.
    pub(crate) expires_at_s: i64,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The node does not serve yet, or has no quorum: it may pass.
    #[error("{0}")]
    NotYet(String),
    /// It will not pass.
    #[error(transparent)]
    Refused(anyhow::Error),
}

impl CredentialError {
    /// As a command's failure, with its exit code.
    pub(crate) fn into_failure(self) -> anyhow::Error {
        match self {
            Self::NotYet(reason) => Failure::Unavailable.error(reason),
            Self::Refused(error) => error,
        }
    }
}

/// The request: RFC 2986 in PEM, and a nonce in hex.
#[derive(Serialize)]
struct Request<'a> {
    csr: &'a str,
    nonce: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    validity_seconds: Option<u64>,
}

/// The answer: certificates in PEM, evidence in base64.
#[derive(Deserialize)]
struct Answer {
    certificate: String,
    ca: String,
    evidence: String,
}

/// Asks `server` for a certificate over the operator's key, valid for so long or for as
/// long as the quorum gives, and judges its answer.
pub(crate) async fn request(
    server: &str,
    key_pem: &str,
    judge: &Judge,
    validity: Option<Duration>,
) -> Result<Granted, CredentialError> {
    let csr = certificate_request(key_pem).map_err(CredentialError::Refused)?;
    let nonce = simulated::random_hex::<NONCE_BYTES>().map_err(CredentialError::Refused)?;
    let client = ApiClient::unverified(server).map_err(CredentialError::Refused)?;
    let request = Request {
        csr: &csr,
        nonce: &nonce,
        validity_seconds: validity.map(|validity| validity.as_secs()),
    };
    let answer: Answer = client
        .request(Method::POST, "/nautilus/v1/credentials", Some(&request), Some(TIMEOUT))
        .await
        .map_err(|error| match error {
            RequestError::Unreachable { .. }
            | RequestError::Refused { code: 429 | 500 | 503 | 504, .. } => {
                CredentialError::NotYet(error.to_string())
            }
            RequestError::Refused { code: 401 | 403, message, .. } => {
                CredentialError::Refused(Failure::Refused.error(format!(
                    "{server} refuses the operator's key: {message}; use a key that was pinned at genesis"
                )))
            }
            other => CredentialError::Refused(other.into_failure()),
        })?;
    let nonce = hex::decode(&nonce).map_err(|error| CredentialError::Refused(error.into()))?;
    check(judge, &nonce, &answer).map_err(|error| {
        CredentialError::Refused(Failure::Refused.error(format!(
            "{server} did not prove what it is, nothing was trusted: {error:#}"
        )))
    })?;
    let (user, expires_at_s) = subject_of(&answer.certificate).map_err(CredentialError::Refused)?;
    Ok(Granted {
        authority_pem: answer.ca,
        certificate_pem: answer.certificate,
        user,
        expires_at_s,
    })
}

/// A certificate request over the operator's own key. The names in a certificate are
/// the quorum's decision, so the request names nobody.
pub(crate) fn certificate_request(key_pem: &str) -> anyhow::Result<String> {
    let key = rcgen::KeyPair::from_pem(key_pem)
        .context("the operator's key is not a PEM private key (PKCS#8)")?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    Ok(parameters.serialize_request(&key)?.pem()?)
}

/// Whom a certificate names, and when it ends in seconds since the epoch.
fn subject_of(certificate_pem: &str) -> anyhow::Result<(String, i64)> {
    let der = single_certificate(certificate_pem)?;
    let (_, certificate) = X509Certificate::from_der(&der)
        .map_err(|error| anyhow!("the certificate granted: {error}"))?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok());
    let name = name.context("the certificate granted names nobody")?;
    Ok((
        name.to_owned(),
        certificate.validity().not_after.timestamp(),
    ))
}

#[cfg(test)]
mod tests {
    use nautilus_attest_protocol::Quoter as _;
    use nautilus_attest_tee::{PlatformSecret, SimulatedProvider, SimulatedRoot};

    use super::*;

    /// A node that answers, and a client that judges it.
    struct World {
        provider: SimulatedProvider,
        judge: Judge,
        _dir: tempfile::TempDir,
    }

    impl World {
        fn new(allow_simulated: bool) -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let path = |name: &str| dir.path().join(name);
            let root = SimulatedRoot::load_or_create(&path("root")).expect("made");
            std::fs::write(path("root.pub"), root.public_key().to_string()).expect("written");
            let secret = PlatformSecret::load_or_create(&path("secret")).expect("made");
            let judge = crate::attested::judge(
                &["self".to_owned()],
                allow_simulated,
                Some(&path("root.pub")),
            )
            .expect("made");
            let provider = SimulatedProvider::for_this_process(root, secret).expect("measured");
            Self {
                provider,
                judge,
                _dir: dir,
            }
        }

        fn answer(&self, nonce: &[u8]) -> Answer {
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = rcgen::CertificateParams::default()
                .self_signed(&key)
                .expect("signed");
            let (_, parsed) = X509Certificate::from_der(certificate.der()).expect("its own");
            let spki = parsed.tbs_certificate.subject_pki.raw;
            let data = credential_report_data(nonce, spki, certificate.der());
            let evidence = self.provider.quote(&data).expect("evidence").encode();
            Answer {
                certificate: certificate.pem(),
                ca: certificate.pem(),
                evidence: BASE64.encode(evidence),
            }
        }
    }

    #[test]
    fn an_answer_with_fresh_evidence_is_trusted() {
        let world = World::new(true);
        check(&world.judge, b"nonce", &world.answer(b"nonce")).expect("genuine");
    }

    #[test]
    fn an_answer_to_another_nonce_is_refused() {
        let world = World::new(true);
        let error = check(&world.judge, b"mine", &world.answer(b"theirs")).expect_err("replayed");
        assert!(
            error
                .to_string()
                .starts_with("evidence answers another question"),
            "{error}"
        );
    }

    #[test]
    fn an_authority_put_in_on_the_way_is_refused() {
        let world = World::new(true);
        let mut answer = world.answer(b"nonce");
        answer.ca = world.answer(b"nonce").ca;
        check(&world.judge, b"nonce", &answer).expect_err("another authority");
    }

    #[test]
    fn simulated_evidence_is_refused_unless_it_is_allowed() {
        let world = World::new(false);
        let error = check(&world.judge, b"n", &world.answer(b"n")).expect_err("not allowed");
        assert!(
            error
                .to_string()
                .starts_with("simulated evidence is not allowed"),
            "{error}"
        );
    }

    #[test]
    fn a_request_is_signed_by_the_operators_own_key() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = certificate_request(&key.serialize_pem()).expect("a request");
        assert!(
            pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"),
            "{pem}"
        );
    }
}
