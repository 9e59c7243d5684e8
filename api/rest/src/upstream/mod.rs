//! Requests that this server passes on: to kubelets, to pods and services, to extension
//! servers, to another master.
//!
//! Knows where a request goes and how it gets there; who may ask for it was decided
//! before.
//!
//! Invariants
//! - No credential of the client's leaves with a request: neither its token nor whom it
//!   asks to be.
//! - Everything here ends with the client's connection: nothing runs on for nobody.
//! - Nothing is read from one side faster than the other takes it.

mod client;
mod forward;
mod links;
mod splice;
mod tls;

use std::fmt;
use std::sync::Arc;

use nautilus_machinery::status::ApiError;
use rustls::ClientConfig;

use crate::tunnel::Tunnels;

pub(crate) use client::{Stream, exchange};
pub(crate) use forward::{Forwarding, HostHeader, Permit, forward, held, is_upgrade, outgoing};
pub(crate) use links::Links;
pub(crate) use splice::{idle, splice};
pub(crate) use tls::{ComponentIdentity, Trust, client_config, http_client};

/// A server to pass requests on to.
#[derive(Clone)]
pub(crate) struct Upstream {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) security: Security,
    /// The node whose tunnel is the way, where it holds one.
    pub(crate) tunnel: Option<Tunnel>,
}

/// A node, and those who know of its tunnel.
#[derive(Clone)]
pub(crate) struct Tunnel {
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) node: String,
}

/// How the connection is made safe.
#[derive(Clone)]
pub(crate) enum Security {
    Plain,
    /// TLS; the certificate is judged for this name, or for the host.
    Tls(Arc<ClientConfig>, Option<String>),
}

impl Upstream {
    /// `host:port`, with brackets where they belong.
    pub(crate) fn authority(&self) -> String {
        host_port(&self.host, self.port)
    }

    pub(crate) fn scheme(&self) -> &'static str {
        match self.security {
            Security::Plain => "http",
            Security::Tls(..) => "https",
        }
    }
}

/// A host and a port as they stand in a URL.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// What went wrong on the way.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamError(pub(crate) String);

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl UpstreamError {
    /// As the reference answers for a server it can't reach while it upgrades.
    pub(crate) fn while_dialing(&self) -> ApiError {
        ApiError::unknown(format!("error dialing backend: {self}"))
    }
}
