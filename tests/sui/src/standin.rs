//! A running stand-in: its ports, its chain, its faults.
//!
//! Invariant: when it is dropped, its ports are closed and its connections cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::chain::Chain;
use crate::faults::{Answer, Control};
use crate::node::Node;
use crate::server::Port;
use crate::{admin, grpc, jsonrpc};

/// Where a stand-in listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// gRPC and gRPC-web, in clear.
    pub grpc: SocketAddr,
    /// JSON-RPC 2.0 over HTTP.
    pub jsonrpc: SocketAddr,
    /// What tests in other languages steer it by.
    pub admin: SocketAddr,
}

impl Default for Addresses {
    /// Ports of the system's choice on the loopback interface.
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            grpc: any,
            jsonrpc: any,
            admin: any,
        }
    }
}

/// A full node over a chain of its own.
pub struct Standin {
    node: Arc<Node>,
    addresses: Addresses,
    servers: JoinSet<()>,
}

impl Standin {
    /// A stand-in on ports of the system's choice.
    ///
    /// # Errors
    /// A port that can't be had.
    pub async fn start() -> Result<Self> {
        Self::of(Chain::new("standin")?, Addresses::default()).await
    }

    /// A stand-in over that chain, which others may tell of too.
    ///
    /// # Errors
    /// A port that can't be had.
    pub async fn of(chain: Chain, at: Addresses) -> Result<Self> {
        let node = Arc::new(Node::new(chain));
        let mut servers = JoinSet::new();
        let grpc = serve(
            &mut servers,
            at.grpc,
            &node.grpc,
            grpc::router(node.clone()),
        )
        .await?;
        let jsonrpc = jsonrpc::router(node.clone());
        let jsonrpc = serve(&mut servers, at.jsonrpc, &node.jsonrpc, jsonrpc).await?;
        let steady = Control::default();
        let admin = serve(&mut servers, at.admin, &steady, admin::router(node.clone())).await?;
        let addresses = Addresses {
            grpc,
            jsonrpc,
            admin,
        };
        Ok(Self {
            node,
            addresses,
            servers,
        })
    }

    /// What happens on the chain is up to the caller.
    pub fn chain(&self) -> &Chain {
        &self.node.chain
    }

    /// The chain that a face tells of when it is [`Answer::Forked`]; made here if it isn't yet.
    ///
    /// # Errors
    /// Keys that can't be made.
    pub fn fork(&self) -> Result<Chain> {
        self.node.fork()
    }

    /// The gRPC face's faults and counters.
    pub fn grpc(&self) -> &Control {
        &self.node.grpc
    }

    /// The JSON-RPC face's faults and counters.
    pub fn jsonrpc(&self) -> &Control {
        &self.node.jsonrpc
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The gRPC face's URL.
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.addresses.grpc)
    }

    /// The JSON-RPC face's URL.
    pub fn jsonrpc_url(&self) -> String {
        format!("http://{}", self.addresses.jsonrpc)
    }

    /// Serves until a server ends, which they don't by themselves.
    pub async fn wait(&mut self) {
        self.servers.join_next().await;
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.servers.abort_all();
        self.node.grpc.answer(Answer::Refused);
        self.node.jsonrpc.answer(Answer::Refused);
    }
}

async fn serve(
    servers: &mut JoinSet<()>,
    at: SocketAddr,
    control: &Control,
    router: Router,
) -> Result<SocketAddr> {
    let port = Port::bind(at, control.watch()).await;
    let port = port.with_context(|| format!("listen at {at}"))?;
    let address = axum::serve::Listener::local_addr(&port)?;
    servers.spawn(async move {
        // It returns when the task is aborted only.
        let _ = axum::serve(port, router).await;
    });
    Ok(address)
}
