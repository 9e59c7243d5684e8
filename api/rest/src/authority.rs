//! The quorum's certificate authority.
//!
//! One ECDSA P-256 key for the whole quorum, made by whichever node comes first
//! and kept under [`AUTHORITY_KEY`] in the replicated, encrypted store. It issues
//! each node's serving certificate and the client certificates of operators.
//!
//! Invariants
//! - There is one authority per quorum: it is written by a compare-and-swap that
//!   holds only while the key does not exist. Only a recovery writes another one, and
//!   its certificate says so in its name.
//! - The private key stands in the encrypted store and in memory only; copies of
//!   its bytes are zeroized, and [`Authority`] shows none of it.
//! - Names in issued certificates are decided here, never taken from a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_access::certificates;
use nautilus_machine::{
    Command, Compare, Kv, Operation, Outcome, Proposal, ProposeError, Put, RangeRequest, Txn,
    types::KeyRange,
};
use nautilus_machinery::identity::{NODE_USER_PREFIX, NODES_GROUP};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// Where the authority stands in the key space. No face serves this prefix.
pub const AUTHORITY_KEY: &str = "/nautilus/ca";
/// Where the front proxy's authority stands: the same form.
const FRONT_PROXY_KEY: &str = "/nautilus/front-proxy-ca";
/// How long the authority's own certificate is valid.
pub const AUTHORITY_VALIDITY_DAYS: u64 = 3650;
/// How long a node's serving certificate is valid; renewed after two thirds.
pub const SERVING_VALIDITY_DAYS: u64 = 90;
/// How long a client certificate is valid when nobody says.
pub const CLIENT_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// The shortest that may be asked for.
pub const CLIENT_VALIDITY_MIN: Duration = Duration::from_secs(60);
/// Certificates count from so long before they were made, for clocks that differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// Attempts to read or create the authority while the quorum elects a leader.
const LOAD_ATTEMPTS: u32 = 60;
/// Pause between two of them.
const LOAD_PAUSE: Duration = Duration::from_millis(500);
/// Groups of an issued client certificate, at most.
pub const MAX_GROUPS: usize = 2;
/// Bytes of a certificate signing request, at most.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// Why the authority could not be had or could not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The store could not be read or written.
    #[error("the quorum's certificate authority could not be loaded: {0}")]
    Store(String),
    /// The stored authority does not parse.
    #[error("the stored certificate authority is damaged: {0}")]
    Damaged(String),
    /// Key or certificate generation failed.
    #[error("certificate could not be made: {0}")]
    Issue(String),
    /// The request is no valid PKCS#10 request, or its signature does not hold.
    #[error("certificate signing request refused: {0}")]
    Request(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Issue(error.to_string())
    }
}

/// A checked certificate signing request: its signature holds.
pub struct CheckedRequest {
    params: CertificateSigningRequestParams,
    spki_der: Vec<u8>,
}

impl CheckedRequest {
    /// Parses a PEM PKCS#10 request and checks that it is signed by its own key.
    pub fn from_pem(pem: &str) -> Result<Self, AuthorityError> {
        if pem.len() > MAX_CSR_BYTES {
            return Err(AuthorityError::Request(format!(
                "{} bytes are more than the limit of {MAX_CSR_BYTES}",
                pem.len()
            )));
        }
        let der = pem_to_der(pem, "CERTIFICATE REQUEST")
            .ok_or_else(|| AuthorityError::Request("it is not PEM `CERTIFICATE REQUEST`".into()))?;
        Self::from_der(&der)
    }

    /// The same of DER, of [`MAX_CSR_BYTES`] at most.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, AuthorityError> {
        let params = CertificateSigningRequestParams::from_der(&der.into())
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
        let spki_der = csr_spki(der)?;
        Ok(Self { params, spki_der })
    }

    /// The DER `SubjectPublicKeyInfo` of the request's key.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }
}

fn csr_spki(der: &[u8]) -> Result<Vec<u8>, AuthorityError> {
    use x509_parser::prelude::FromDer;
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(der)
        .map_err(|error| AuthorityError::Request(error.to_string()))?;
    Ok(csr.certification_request_info.subject_pki.raw.to_vec())
}

fn pem_to_der(pem: &str, label: &str) -> Option<Vec<u8>> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let body = pem.split_once(&begin)?.1.split_once(&end)?.0;
    let text: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    BASE64.decode(text).ok()
}

/// DER as PEM with 64 characters a line.
pub(crate) fn der_to_pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// The loaded authority. Has neither `Debug` nor `Serialize` on purpose.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_der: CertificateDer<'static>,
    spki_der: Vec<u8>,
}

impl Authority {
    /// Loads the quorum's authority, creating it if this node is the first. Waits
    /// for a leader for about half a minute.
    pub async fn load_or_create(kv: &dyn Kv, cluster: &str) -> Result<Self, AuthorityError> {
        Self::load_or_create_at(kv, AUTHORITY_KEY, cluster).await
    }

    /// The authority that vouches for this server alone, when it names users to extension
    /// servers: nobody else is ever given a certificate of it.
    pub(crate) async fn front_proxy(kv: &dyn Kv, cluster: &str) -> Result<Self, AuthorityError> {
        let name = format!("{cluster} front proxy");
        Self::load_or_create_at(kv, FRONT_PROXY_KEY, &name).await
    }

    async fn load_or_create_at(
        kv: &dyn Kv,
        key: &str,
        cluster: &str,
    ) -> Result<Self, AuthorityError> {
        let mut last = String::from("no attempt was made");
        for attempt in 0..LOAD_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(LOAD_PAUSE).await;
            }
            if let Err(error) = kv.read_barrier().await {
                last = error.to_string();
                continue;
            }
            if let Some(bytes) = read_row(kv, key)? {
                return Self::from_row(&bytes);
            }
            let row = Self::generate_row(cluster)?;
            match kv.propose(create_proposal(key, &row)).await {
                // Ours or another node's: the read tells whose authority stands.
                Ok(applied) => match applied.outcome {
                    Outcome::Txn { .. } => {
                        if let Some(bytes) = read_row(kv, key)? {
                            return Self::from_row(&bytes);
                        }
                        last = "the authority was written and is not there".into();
                    }
                    other => last = format!("{other:?}"),
                },
                Err(ProposeError::Unavailable(reason) | ProposeError::Unknown(reason)) => {
                    last = reason;
                }
                Err(error) => return Err(AuthorityError::Store(error.to_string())),
            }
        }
        Err(AuthorityError::Store(last))
    }

    /// An authority that stands in no store and lives as long as the process.
    pub fn ephemeral(cluster: &str) -> Result<Self, AuthorityError> {
        Self::from_row(&Self::generate_row(cluster)?)
    }

    /// Puts a new authority in the place of the present one, with `row` in the same
    /// transaction: after a recovery nothing that the old one issued counts any more.
    /// Only if `row`'s key does not exist yet.
    pub async fn replace(
        kv: &dyn Kv,
        cluster: &str,
        row: (String, Vec<u8>),
    ) -> Result<(), AuthorityError> {
        let authority = Self::generate_row(cluster)?;
        let (key, value) = row;
        let proposal = Proposal::new(Command::Txn(Txn {
            compare: vec![Compare::mod_revision(key.clone(), 0)],
            then: vec![
                Operation::Put(Put::new(AUTHORITY_KEY, authority.to_vec())),
                Operation::Delete {
                    range: KeyRange::single(FRONT_PROXY_KEY.to_owned()),
                    prev_kv: false,
                },
                Operation::Put(Put::new(key, value)),
            ],
            otherwise: Vec::new(),
        }));
        match kv.propose(proposal).await {
            Ok(applied) if matches!(applied.outcome, Outcome::Txn { .. }) => Ok(()),
            Ok(applied) => Err(AuthorityError::Store(format!("{:?}", applied.outcome))),
            Err(error) => Err(AuthorityError::Store(error.to_string())),
        }
    }

    fn generate_row(cluster: &str) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = authority_params(cluster)?.self_signed(&key)?;
        Ok(row(certificate.der(), &Zeroizing::new(key.serialize_der())))
    }

    fn from_row(bytes: &[u8]) -> Result<Self, AuthorityError> {
        let damaged = |what: String| AuthorityError::Damaged(what);
        let (certificate, key) =
            split_row(bytes).ok_or_else(|| damaged("its row is cut short".into()))?;
        let pair = KeyPair::try_from(key).map_err(|error| damaged(error.to_string()))?;
        let certificate_der = CertificateDer::from(certificate.to_vec());
        let spki_der = certificate_spki(&certificate_der)?;
        let issuer = Issuer::from_ca_cert_der(&certificate_der, pair)
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Self {
            issuer,
            certificate_der,
            spki_der,
        })
    }

    /// The authority's certificate.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }

    /// The authority's certificate as PEM: what clients trust.
    pub fn certificate_pem(&self) -> String {
        der_to_pem("CERTIFICATE", &self.certificate_der)
    }

    /// The DER `SubjectPublicKeyInfo` of the authority.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Issues a serving certificate for these host names and addresses, over a key
    /// made here and held in memory only.
    pub fn issue_serving(&self, names: &[String]) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative_names(names)?;
        params.distinguished_name = common_name("nautilus-apiserver", &[]);
        self.issue_held(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a part of this server a client certificate of this user and these groups,
    /// over a key made here and held in memory only.
    pub(crate) fn issue_component(
        &self,
        user: &str,
        groups: &[String],
    ) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(user, groups);
        self.issue_held(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues over a key made here and held in memory only.
    fn issue_held(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        set_validity(&mut params, days(SERVING_VALIDITY_DAYS))?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key_der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key_der)
            .map_err(|error| AuthorityError::Issue(error.to_string()))?;
        let chain = vec![certificate.der().clone(), self.certificate_der.clone()];
        Ok(Arc::new(CertifiedKey::new(chain, signer)))
    }

    /// Issues a client certificate over the request's key, for this user and groups and
    /// so long. Everything else the request asks for is ignored.
    pub fn issue_client(
        &self,
        request: &CheckedRequest,
        user: &str,
        groups: &[String],
        validity: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        if groups.len() > MAX_GROUPS {
            return Err(AuthorityError::Issue(format!(
                "user {user:?} has {} groups, a certificate holds {MAX_GROUPS}",
                groups.len()
            )));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(user, groups);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, validity)?;
        let certificate = params.signed_by(&request.params.public_key, &self.issuer)?;
        Ok(certificate.der().clone())
    }

    /// Issues a kubelet's serving certificate over the request's key, for these host names and
    /// addresses, none of which may be an API server's, and so long.
    pub(crate) fn issue_kubelet_serving(
        &self,
        request: &CheckedRequest,
        node: &str,
        names: &[String],
        validity: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative_names(names)?;
        let groups = [NODES_GROUP.to_owned()];
        params.distinguished_name = common_name(&format!("{NODE_USER_PREFIX}{node}"), &groups);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, validity)?;
        let certificate = params.signed_by(&request.params.public_key, &self.issuer)?;
        Ok(certificate.der().clone())
    }

    /// Issues what an approved `CertificateSigningRequest` asks for, as PEM: its
    /// subject and names, for these usages and so long. The request must be signed by
    /// its own key.
    pub(crate) fn issue_requested(
        &self,
        request: &certificates::Request,
        usages: &[String],
        validity: Duration,
    ) -> Result<String, AuthorityError> {
        if request.organizations.len() > MAX_GROUPS {
            return Err(AuthorityError::Request(format!(
                "{} organizations, a certificate holds {MAX_GROUPS}",
                request.organizations.len()
            )));
        }
        let checked = CertificateSigningRequestParams::from_der(&request.der.as_slice().into())
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&request.common_name, &request.organizations);
        params.subject_alt_names = checked.params.subject_alt_names;
        for usage in usages {
            match usage_of(usage) {
                Some(Usage::Key(usage)) if params.key_usages.contains(&usage) => {}
                Some(Usage::Key(usage)) => params.key_usages.push(usage),
                Some(Usage::Extended(usage)) => params.extended_key_usages.push(usage),
                None => {
                    let why = format!("the usage {usage:?} is not known");
                    return Err(AuthorityError::Request(why));
                }
            }
        }
        set_validity(&mut params, validity)?;
        let certificate = params.signed_by(&checked.public_key, &self.issuer)?;
        Ok(der_to_pem("CERTIFICATE", certificate.der()))
    }
}

/// Addresses where they are some, host names where not.
fn alternative_names(names: &[String]) -> Result<Vec<SanType>, AuthorityError> {
    let named = names.iter().map(|name| {
        Ok(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        })
    });
    named.collect()
}

enum Usage {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

/// The names of `certificates.k8s.io` for what a certificate is for.
fn usage_of(name: &str) -> Option<Usage> {
    use ExtendedKeyUsagePurpose as Extended;
    let key = match name {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        other => {
            return Some(Usage::Extended(match other {
                "any" => Extended::Any,
                "server auth" => Extended::ServerAuth,
                "client auth" => Extended::ClientAuth,
                "code signing" => Extended::CodeSigning,
                "email protection" | "s/mime" => Extended::EmailProtection,
                "timestamping" => Extended::TimeStamping,
                "ocsp signing" => Extended::OcspSigning,
                // `cert sign` among them: nobody gets an authority of their own.
                _ => return None,
            }));
        }
    };
    Some(Usage::Key(key))
}

/// The row under [`AUTHORITY_KEY`]: the certificate's length (4 bytes, big endian), its
/// DER, the private key's PKCS#8 DER. No serializer sees the key.
fn row(certificate: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX);
    let mut row = Zeroizing::new(Vec::with_capacity(4 + certificate.len() + key.len()));
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(certificate);
    row.extend_from_slice(key);
    row
}

fn split_row(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = row.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn read_row(kv: &dyn Kv, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, AuthorityError> {
    let request = RangeRequest::newest(KeyRange::single(key.to_owned()));
    let answer = kv
        .range(&request)
        .map_err(|error| AuthorityError::Store(error.to_string()))?;
    Ok(answer
        .kvs
        .first()
        .map(|row| Zeroizing::new(row.value.to_vec())))
}

fn create_proposal(key: &str, row: &[u8]) -> Proposal {
    Proposal::new(Command::Txn(Txn {
        compare: vec![Compare::mod_revision(key.to_owned(), 0)],
        then: vec![Operation::Put(Put::new(key.to_owned(), row.to_vec()))],
        otherwise: Vec::new(),
    }))
}

fn authority_params(cluster: &str) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("nautilus quorum {cluster}"), &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    set_validity(&mut params, days(AUTHORITY_VALIDITY_DAYS))?;
    Ok(params)
}

fn common_name(user: &str, groups: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    // A distinguished name of rcgen holds one value of a type. The second group takes
    // the same object identifier by its number; `MAX_GROUPS` allows no third.
    let types = [
        DnType::OrganizationName,
        DnType::CustomDnType(vec![2, 5, 4, 10]),
    ];
    for (kind, group) in types.into_iter().zip(groups) {
        name.push(kind, group.as_str());
    }
    name
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

fn set_validity(params: &mut CertificateParams, validity: Duration) -> Result<(), AuthorityError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| AuthorityError::Issue("the clock stands before 1970".into()))?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + validity;
    let mut serial = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut serial)
        .map_err(|_| AuthorityError::Issue("no random bytes".into()))?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

fn certificate_spki(der: &[u8]) -> Result<Vec<u8>, AuthorityError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| AuthorityError::Damaged(error.to_string()))?;
    Ok(certificate.tbs_certificate.subject_pki.raw.to_vec())
}
