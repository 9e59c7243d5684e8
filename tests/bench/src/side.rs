//! The two that are compared, seen alike: three members with mutual TLS on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::drive::{Endpoint, ask};
use crate::message;

/// For all members to serve.
const SERVING_TIMEOUT: Duration = Duration::from_secs(300);
/// For one answer while members start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two questions.
const POLL: Duration = Duration::from_millis(10);

/// One of the two.
pub trait Side {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Starts whatever does not run; returns before it serves.
    ///
    /// # Errors
    /// When a process cannot be started.
    fn start(&mut self) -> anyhow::Result<()>;

    /// Stops every member in order.
    ///
    /// # Errors
    /// When one can't be stopped.
    fn stop(&mut self) -> anyhow::Result<()>;

    /// Kills the member `at` (SIGKILL).
    ///
    /// # Errors
    /// When it does not run.
    fn kill(&mut self, at: usize) -> anyhow::Result<()>;

    /// Where the members serve clients.
    fn endpoints(&self) -> Vec<Endpoint>;

    /// The members' processes; those that run.
    fn processes(&self) -> Vec<u32>;

    /// Writes a snapshot to `file` the way an operator does.
    ///
    /// # Errors
    /// When the tool fails.
    fn save_snapshot(&self, file: &Path) -> anyhow::Result<()>;

    /// Makes a new cluster from `file` in `folder` and starts it in the place of this one,
    /// which must be stopped; returns before it serves.
    ///
    /// # Errors
    /// When the tool fails.
    fn restore(&mut self, file: &Path, folder: &Path) -> anyhow::Result<()>;
}

/// Waits until every member answers a linearizable read.
///
/// # Errors
/// When one does not in time.
pub async fn serving(side: &dyn Side) -> anyhow::Result<()> {
    let deadline = Instant::now() + SERVING_TIMEOUT;
    for endpoint in side.endpoints() {
        loop {
            let mut request = Vec::new();
            message::get(&mut request, b"bench/absent");
            match ask(&endpoint, message::path::RANGE, request, ANSWER_TIMEOUT).await {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| {
                        format!("{}: port {} does not serve", side.name(), endpoint.port)
                    });
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
    Ok(())
}

/// Which member leads.
///
/// # Errors
/// When none does in time.
pub async fn leader(side: &dyn Side) -> anyhow::Result<usize> {
    let deadline = Instant::now() + SERVING_TIMEOUT;
    loop {
        for (at, endpoint) in side.endpoints().iter().enumerate() {
            let answer = ask(endpoint, message::path::STATUS, Vec::new(), ANSWER_TIMEOUT).await;
            if let Ok(answer) = answer {
                let (member, leader) = message::status_answer(&answer);
                if member == leader && leader != 0 {
                    return Ok(at);
                }
            }
        }
        if Instant::now() > deadline {
            bail!("{}: no member says that it leads", side.name());
        }
        tokio::time::sleep(POLL).await;
    }
}
