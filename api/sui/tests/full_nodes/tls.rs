//! Both faces over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use nautilus_sui::{FullNode, authorities};
use nautilus_workers::Verdict;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::world::{By, SUI, World, active, judge, verdict};

/// Ends TLS in front of a full node; gives its port and the certificate.
async fn terminated(full_node: SocketAddr, protocol: &[u8]) -> (u16, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .expect("names")
        .self_signed(&key)
        .expect("signed");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate");
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let Ok(mut server) = TcpStream::connect(full_node).await else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, certificate.pem())
}

#[tokio::test]
async fn both_faces_are_spoken_to_over_tls_and_to_nobody_unknown() {
    let world = World::with(1).await;
    world.register("worker-1", SUI, "seal-1");
    let at = world.full_nodes[0].addresses();
    for (face, at, protocol, by) in [
        ("grpc", at.grpc, &b"h2"[..], By::Grpc),
        ("json-rpc", at.jsonrpc, &b"http/1.1"[..], By::JsonRpc),
    ] {
        let (port, pem) = terminated(at, protocol).await;
        let url = format!("{face}=https://localhost:{port}");
        let mut settings = world.settings(by);
        settings.full_nodes = vec![FullNode::parse(&url).expect("a URL")];
        let unknown = verdict(&judge(&settings), "seal-1", "worker-1").await;
        assert_eq!(unknown, Verdict::Unavailable, "{face}");
        settings.authorities = authorities(Some(pem.as_bytes())).expect("a certificate");
        let known = verdict(&judge(&settings), "seal-1", "worker-1").await;
        assert_eq!(known, active(SUI), "{face}");
    }
}
