//! Why there is no attested connection, by the step that failed.

use std::fmt;
use std::io;
use std::time::Duration;

use nautilus_attest_protocol::handshake::HandshakeError;
use nautilus_attest_protocol::{QuoteError, Refused};
use rustls::CertificateError;

/// How far a connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The TLS handshake.
    TlsHandshake,
    /// The hellos of the attested handshake.
    Hello,
    /// The evidence of the attested handshake.
    Evidence,
    /// The verdicts of the attested handshake.
    Verdict,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsHandshake => "TLS handshake",
            Self::Hello => "attested handshake, waiting for the peer's hello",
            Self::Evidence => "attested handshake, waiting for the peer's evidence",
            Self::Verdict => "attested handshake, waiting for the peer's verdict",
        })
    }
}

/// Why there is no attested connection.
#[derive(Debug, thiserror::Error)]
pub enum AttestedError {
    /// We refuse the peer; it has been told why unless TLS itself failed.
    #[error("peer refused: {0}")]
    Refused(Refused),
    /// The peer refuses us, in its words.
    #[error("refused by the peer: {reason}")]
    RefusedByPeer {
        /// The peer's reason.
        reason: String,
    },
    /// The peer ended TLS with an alert.
    #[error("the peer ended the {stage} with the TLS alert {alert}; its log names the reason")]
    Alert {
        /// How far the connection had come.
        stage: Stage,
        /// The alert's name.
        alert: String,
    },
    /// TLS failed: no certificate, another version, a bad signature.
    #[error("{stage} failed: {source}")]
    Tls {
        /// How far the connection had come.
        stage: Stage,
        /// The reason.
        source: rustls::Error,
    },
    /// The peer went away.
    #[error("the peer closed the connection in the {stage}")]
    Closed {
        /// How far the connection had come.
        stage: Stage,
    },
    /// The peer sent too little for too long.
    #[error("the peer did not complete the {stage} within {timeout:?}")]
    Timeout {
        /// How far the connection had come.
        stage: Stage,
        /// The limit for the whole handshake.
        timeout: Duration,
    },
    /// The network failed.
    #[error("connection failed in the {stage}: {source}")]
    Io {
        /// How far the connection had come.
        stage: Stage,
        /// The reason.
        source: io::Error,
    },
    /// Our own TEE gave no evidence.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// Our own evidence does not hold under our own verifier.
    #[error("this node's own evidence is refused by its own verifier: {0}")]
    OwnEvidence(Refused),
    /// Our own certificate or TLS configuration could not be made.
    #[error("making this node's TLS identity failed: {0}")]
    Identity(String),
}

impl AttestedError {
    /// Whether one end refused the other, as against failing to reach it or to speak.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::RefusedByPeer { .. } | Self::Alert { .. } | Self::Tls { .. }
        )
    }

    /// From what TLS reports through the stream.
    pub(crate) fn from_io(stage: Stage, error: io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
                match other.0.downcast_ref::<Refused>() {
                    Some(refused) => Self::Refused(refused.clone()),
                    None => Self::Io {
                        stage,
                        source: error,
                    },
                }
            }
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert {
                stage,
                alert: format!("{alert:?}"),
            },
            Some(tls) => Self::Tls {
                stage,
                source: tls.clone(),
            },
            None if is_end(error.kind()) => Self::Closed { stage },
            None => Self::Io {
                stage,
                source: error,
            },
        }
    }
}

fn is_end(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

impl From<HandshakeError> for AttestedError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused(refused) => Self::Refused(refused),
            HandshakeError::RefusedByPeer { reason } => Self::RefusedByPeer { reason },
        }
    }
}

impl From<AttestedError> for io::Error {
    fn from(error: AttestedError) -> Self {
        let kind = match &error {
            refusal if refusal.is_refusal() => io::ErrorKind::PermissionDenied,
            AttestedError::Closed { .. } => io::ErrorKind::UnexpectedEof,
            AttestedError::Timeout { .. } => io::ErrorKind::TimedOut,
            AttestedError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
