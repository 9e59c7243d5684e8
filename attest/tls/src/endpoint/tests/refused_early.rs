//! Peers that do not come as far as an exchange of evidence: other protocols, no
//! certificate, silence, bytes cut short or past their limits.

use super::*;

#[tokio::test]
async fn a_tls_1_2_client_is_refused() {
    let world = World::new();
    let config = bare_client(&world, &[&rustls::version::TLS12]);
    let (dialed, accepted) = sockets().await;
    let server = world.node(1);
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let (dialed, accepted) = tokio::join!(
        TlsConnector::from(config).connect(name, dialed),
        server.accept(accepted)
    );
    assert!(dialed.is_err());
    let AttestedError::Tls { source, .. } = error(accepted) else {
        panic!("not a TLS error")
    };
    let expected = PeerIncompatible::Tls12NotOfferedOrEnabled;
    assert_eq!(source, rustls::Error::PeerIncompatible(expected));
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let world = World::new();
    let config = bare_client(&world, &[&rustls::version::TLS13]);
    let (dialed, accepted) = sockets().await;
    let server = world.node(1);
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let client = async {
        let mut stream = TlsConnector::from(config)
            .connect(name, dialed)
            .await
            .unwrap();
        stream.read_u8().await.unwrap_err().to_string()
    };
    let (told, accepted) = tokio::join!(client, server.accept(accepted));
    assert_eq!(
        error(accepted).to_string(),
        "TLS handshake failed: peer sent no certificates"
    );
    assert!(told.contains("CertificateRequired"), "{told}");
}

/// A TLS client without a certificate that takes any genuine master's.
fn bare_client(
    world: &World,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = configuration::provider();
    let algorithms = provider.signature_verification_algorithms;
    let filter = AdmissionFilter::new(
        world.verifier(),
        Arc::clone(&world.config(9).policy.borrow()),
        algorithms,
    );
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(filter))
        .with_no_client_auth();
    Arc::new(config)
}

#[tokio::test]
async fn a_tls_hello_cut_short_is_dropped_with_the_stage_named() {
    let world = World::new();
    let server = world.node(1);
    let (mut dialed, accepted) = sockets().await;
    // A record header that promises 512 bytes of ClientHello, and three of them.
    dialed.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).await.unwrap();
    drop(dialed);
    let dropped = error(server.accept(accepted).await);
    assert_eq!(
        dropped.to_string(),
        "the peer closed the connection in the TLS handshake"
    );
}

#[tokio::test]
async fn a_silent_peer_is_dropped_with_the_stage_named() {
    let world = World::new();
    let server = world.node(1).with_handshake_timeout(SHORT_TIMEOUT);
    let (_silent, accepted) = sockets().await;
    let dropped = error(server.accept(accepted).await);
    assert_eq!(
        dropped.to_string(),
        "the peer did not complete the TLS handshake within 300ms"
    );
}

#[tokio::test]
async fn a_peer_that_stops_after_tls_is_dropped_with_the_stage_named() {
    let world = World::new();
    let (a, b) = (
        world.node(1),
        world.node(2).with_handshake_timeout(Duration::from_secs(4)),
    );
    let (dialed, accepted) = sockets().await;
    let silent = async {
        let (mut stream, ..) = a
            .secure(dialed, Role::Initiator, &in_force(&a))
            .await
            .unwrap();
        // The first bytes of a hello, and then nothing.
        stream.write_all(&[1, 0, 0]).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (_stream, accepted) = tokio::join!(silent, b.accept(accepted));
    assert!(matches!(
        error(accepted),
        AttestedError::Timeout {
            stage: Stage::Hello,
            ..
        }
    ));
}

#[tokio::test]
async fn a_hello_cut_short_inside_tls_is_dropped_with_the_stage_named() {
    let world = World::new();
    let (a, b) = (world.node(1), world.node(2));
    let (dialed, accepted) = sockets().await;
    let leaving = async {
        let (mut stream, ..) = a
            .secure(dialed, Role::Initiator, &in_force(&a))
            .await
            .unwrap();
        stream.write_all(&[1, 0, 0, 0, 60, 0x86]).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let ((), accepted) = tokio::join!(leaving, b.accept(accepted));
    assert!(matches!(
        error(accepted),
        AttestedError::Closed {
            stage: Stage::Hello
        }
    ));
}

#[tokio::test]
async fn a_frame_past_its_limit_is_refused_before_it_is_read() {
    let world = World::new();
    let (a, b) = (world.node(1), world.node(2));
    let (dialed, accepted) = sockets().await;
    let flooding = async {
        let (mut stream, ..) = a
            .secure(dialed, Role::Initiator, &in_force(&a))
            .await
            .unwrap();
        stream
            .write_all(&[1, 0x7f, 0xff, 0xff, 0xff])
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        String::from_utf8_lossy(&heard).into_owned()
    };
    let (heard, accepted) = tokio::join!(flooding, b.accept(accepted));
    let refused = refusal(accepted);
    assert!(matches!(refused, Refused::TooLarge { what: "hello", .. }));
    assert!(heard.contains(&refused.to_string()));
}
