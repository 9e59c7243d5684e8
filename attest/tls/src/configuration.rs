//! How masters speak TLS: 1.3 only, post-quantum key exchange first, and nothing
//! that would let one connection inherit from another.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::kx_group::{SECP384R1, X25519, X25519MLKEM768};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::admission::AdmissionFilter;
use crate::credential::Credential;
use crate::error::AttestedError;

/// The application protocol named in the TLS handshake.
pub const ALPN_PROTOCOL: &[u8] = b"nautilus-peer/1";

/// The crypto provider of masters: X25519MLKEM768 before the classical groups.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519MLKEM768, X25519, SECP384R1];
    Arc::new(provider)
}

/// The configuration of one dialed connection.
pub(crate) fn client(
    provider: Arc<CryptoProvider>,
    credential: &Credential,
    filter: Arc<AdmissionFilter>,
) -> Result<ClientConfig, AttestedError> {
    let identity = SingleCertAndKey::from(Arc::clone(&credential.certified));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| AttestedError::Identity(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(filter)
        .with_client_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![ALPN_PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// The configuration of one accepted connection.
pub(crate) fn server(
    provider: Arc<CryptoProvider>,
    credential: &Credential,
    filter: Arc<AdmissionFilter>,
) -> Result<ServerConfig, AttestedError> {
    let identity = SingleCertAndKey::from(Arc::clone(&credential.certified));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| AttestedError::Identity(error.to_string()))?
        .with_client_cert_verifier(filter)
        .with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![ALPN_PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(config)
}
