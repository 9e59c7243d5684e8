//! The stand-in by its ports: what the chain's own client libraries read from it.

mod cursors;
mod faults;
mod grpc;
mod http;
mod jsonrpc;
mod light_client;

use nautilus_sui_standin::Standin;
use sui_sdk_types::Address;

/// 2 SUI, in MIST.
const STAKE: u64 = 2_000_000_000;

fn owner() -> Address {
    Address::from_static("0xa11ce")
}

/// A chain with the worker `w1` and nothing else.
async fn with_worker() -> Standin {
    let standin = Standin::start().await.expect("ports");
    let chain = standin.chain();
    chain
        .register_worker("w1", owner(), STAKE, "seal-1")
        .expect("no such worker yet");
    standin
}
