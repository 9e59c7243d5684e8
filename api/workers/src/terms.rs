//! The terms in which this node leads.

use std::future::Future;

use futures_util::StreamExt as _;
use nautilus_machine::Kv;
use tokio_util::sync::CancellationToken;

/// Does `work` in every term in which this node leads, until the term ends, and `ended` whenever
/// who leads has changed. Returns with `shutdown` or with the node's leadership stream.
pub(crate) async fn each<W: Future<Output = ()>>(
    kv: &dyn Kv,
    shutdown: &CancellationToken,
    mut work: impl FnMut(u64) -> W,
    mut ended: impl FnMut(),
) {
    let mut changes = kv.leadership_changes();
    let mut now = kv.leadership();
    loop {
        let next = async {
            loop {
                let next = changes.next().await?;
                if next.is_self != now.is_self || (next.is_self && next.term != now.term) {
                    return Some(next);
                }
            }
        };
        let led = async {
            if now.is_self {
                work(now.term).await;
            }
            // Done, or never chosen: the next change ends this wait.
            std::future::pending::<()>().await;
        };
        let next = tokio::select! {
            () = shutdown.cancelled() => None,
            next = next => next,
            () = led => None,
        };
        ended();
        match next {
            Some(next) => now = next,
            None => return,
        }
    }
}
