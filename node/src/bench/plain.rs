//! What attested connections are measured against: mutual TLS 1.3 with the same
//! key exchange and the same kind of keys, the two certificates issued by one
//! authority, and nothing said after the handshake.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::attest::End;

const SERVER_NAME: &str = "peer.nautilus.invalid";

/// Both ends.
pub(super) struct PlainEndpoint {
    dialing: TlsConnector,
    accepting: TlsAcceptor,
}

impl PlainEndpoint {
    /// Makes the authority, two certificates and both ends' configurations.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(vec!["authority.nautilus.invalid".to_owned()])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let roots = Arc::new(roots);
        let identity = || -> anyhow::Result<_> {
            let key = KeyPair::generate()?;
            let params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
            let certificate = params.signed_by(&key, &authority)?;
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            Ok((vec![certificate.der().clone()], PrivateKeyDer::from(key)))
        };
        let provider = provider();

        let (chain, key) = identity()?;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain, key)?;
        client.resumption = rustls::client::Resumption::disabled();

        let (chain, key) = identity()?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            dialing: TlsConnector::from(Arc::new(client)),
            accepting: TlsAcceptor::from(Arc::new(server)),
        })
    }

    /// One end of a connection.
    pub(super) async fn handshake(&self, stream: TcpStream, end: End) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        match end {
            End::Dialed => {
                let name = ServerName::try_from(SERVER_NAME)?;
                self.dialing.connect(name, stream).await.context("dial")?;
            }
            End::Accepted => {
                self.accepting.accept(stream).await.context("accept")?;
            }
        }
        Ok(())
    }
}

/// The masters' own: X25519MLKEM768 before the classical groups.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP384R1, X25519, X25519MLKEM768};
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519MLKEM768, X25519, SECP384R1];
    Arc::new(provider)
}
