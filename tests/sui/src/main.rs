//! `sui-standin`: the stand-in as a program. Prints where it listens as one line of JSON, and serves
//! until it is told to end.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use nautilus_sui_standin::{Addresses, Chain, Standin};

/// A stand-in for a full node of Sui, for tests.
#[derive(Parser)]
struct Arguments {
    /// Where the gRPC face listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    grpc: SocketAddr,
    /// Where the JSON-RPC face listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    jsonrpc: SocketAddr,
    /// Where the admin face listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// What the validators' keys follow from.
    #[arg(long, default_value = "standin")]
    name: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let at = Addresses {
        grpc: arguments.grpc,
        jsonrpc: arguments.jsonrpc,
        admin: arguments.admin,
    };
    let mut standin = Standin::of(Chain::new(&arguments.name)?, at).await?;
    let line = serde_json::to_string(&standin.addresses())?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    tokio::select! {
        () = standin.wait() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}
