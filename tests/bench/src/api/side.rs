//! The two that are compared: a server of the Kubernetes API, and what it stands on.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::closed::{Ask, ask};
use crate::drive::Endpoint;

/// For a server to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// For one answer while it starts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two questions.
const POLL: Duration = Duration::from_millis(50);

/// One of the two.
pub trait ApiSide {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Where the server that is measured serves clients.
    fn endpoint(&self) -> Endpoint;

    /// The process of that server.
    fn server(&self) -> u32;

    /// All processes, the server's too.
    fn processes(&self) -> Vec<u32>;
}

/// Waits until the server has the namespace that the load goes to.
///
/// # Errors
/// When it does not in time.
pub async fn ready(side: &dyn ApiSide) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    for path in ["/readyz", "/api/v1/namespaces/default"] {
        loop {
            match ask(&side.endpoint(), &Ask::get(path), ANSWER_TIMEOUT).await {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("{}: not ready", side.name()));
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
    Ok(())
}
