//! `/healthz`, `/livez`, `/readyz`: whether this process lives, and whether this
//! node can serve.

use std::time::Duration;

use axum::response::Response;
use http::{StatusCode, Uri};
use nautilus_machinery::status::ApiError;
use tokio::time::{Instant, timeout};

use crate::context::RestContext;
use crate::failure::Failure;
use crate::options::Query;
use crate::respond;

/// A read barrier for `/readyz` is given up after so long.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(1);
/// A barrier is asked for at most this often, however many ask for readiness.
const BARRIER_PAUSE: Duration = Duration::from_millis(200);

/// One named check and what came of it.
struct Check {
    name: &'static str,
    outcome: Result<(), String>,
}

/// Answers one of the three, or one check of it.
pub(crate) async fn answer(
    context: &RestContext,
    endpoint: &'static str,
    wanted: Option<&str>,
    uri: &Uri,
) -> Result<Response, Failure> {
    let query = Query::of(uri);
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut checks = checks(context, endpoint).await;
    checks.retain(|check| !excluded.contains(&check.name));
    if let Some(wanted) = wanted {
        checks.retain(|check| check.name == wanted);
        if checks.is_empty() {
            return Err(ApiError::path_not_found().into());
        }
    }
    let healthy = checks.iter().all(|check| check.outcome.is_ok());
    let verbose = query.all("verbose").next().is_some();
    if healthy && !verbose {
        return Ok(respond::plain(StatusCode::OK, "ok"));
    }
    let mut text = String::new();
    for check in &checks {
        text.push_str(&match &check.outcome {
            Ok(()) => format!("[+]{} ok\n", check.name),
            Err(reason) => format!("[-]{} failed: {reason}\n", check.name),
        });
    }
    let word = if healthy { "passed" } else { "failed" };
    text.push_str(&format!(
        "{} check {word}\n",
        endpoint.trim_start_matches('/')
    ));
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    Ok(respond::plain(code, &text))
}

async fn checks(context: &RestContext, endpoint: &str) -> Vec<Check> {
    let mut checks = vec![Check {
        name: "ping",
        outcome: Ok(()),
    }];
    if endpoint == "/readyz" {
        checks.push(Check {
            name: "leader",
            outcome: leader(context),
        });
        checks.push(Check {
            name: "read-barrier",
            outcome: barrier(context).await,
        });
        checks.push(Check {
            name: "shutdown",
            outcome: shutdown(context),
        });
    }
    checks
}

fn leader(context: &RestContext) -> Result<(), String> {
    match context.kv.leadership().leader {
        Some(_) => Ok(()),
        None => Err("no leader is known".into()),
    }
}

fn shutdown(context: &RestContext) -> Result<(), String> {
    match context.shutdown.is_cancelled() {
        true => Err("the node is stopping".into()),
        false => Ok(()),
    }
}

async fn barrier(context: &RestContext) -> Result<(), String> {
    let last = *context.last_barrier.lock();
    if last.is_some_and(|at| at.elapsed() < BARRIER_PAUSE) {
        return Ok(());
    }
    let reason = match timeout(BARRIER_TIMEOUT, context.kv.read_barrier()).await {
        Ok(Ok(_)) => {
            *context.last_barrier.lock() = Some(Instant::now());
            return Ok(());
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    match last {
        Some(at) if at.elapsed() < context.limits.readiness_window => Ok(()),
        _ => Err(reason),
    }
}
