//! The chain's events on this node: who follows them, and the API server that the requests among
//! them reach.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use nautilus_machine::{Kv, LeaderChannel};
use nautilus_machinery::identity::User;
use nautilus_sui::{Chain, ChainEvents};
use nautilus_workers::chain::Cursor;
use nautilus_workers::events::{
    ApiAnswer, ApiRequest, ApiRequests, Events, EventsContext, EventsSettings,
};
use nautilus_workers::{Leader, SystemClock, Verdicts};
use tower::ServiceExt as _;

use crate::config::NodeConfig;

/// Who the API server takes requests of the chain to come from; owns the fields that they set.
const AGENT: HeaderValue = HeaderValue::from_static("nautilus-sui");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What follows the chain's events, where one is configured.
pub(super) fn events(
    config: &NodeConfig,
    kv: &Arc<dyn Kv>,
    verdicts: &Arc<Verdicts>,
    chain: Option<&Arc<Chain>>,
    leader: (&Leader, Arc<dyn LeaderChannel>),
) -> Option<Arc<Events>> {
    let (chain, sui) = (chain?, config.sui.as_ref()?);
    let from = sui.chain.events_from;
    Some(Events::new(EventsContext {
        kv: Arc::clone(kv),
        channel: leader.1,
        hints: leader.0.hints(),
        source: Arc::new(ChainEvents::new(Arc::clone(chain), from)),
        verdicts: Arc::clone(verdicts),
        clock: Arc::new(SystemClock::new()),
        settings: EventsSettings {
            resume_at: from.map(|from| Cursor {
                checkpoint: from.checked_sub(1),
                event: None,
            }),
            stake_tiers: sui.tiers,
            drain: sui.drain,
            ..EventsSettings::default()
        },
    }))
}

/// This node's own API server, asked in process: authorization, admission and audit are those
/// of every request.
pub(super) struct OwnApi(pub(super) Router);

impl ApiRequests for OwnApi {
    fn execute(
        &self,
        user: User,
        request: ApiRequest,
        limit_bytes: usize,
    ) -> BoxFuture<'_, Result<ApiAnswer, String>> {
        let router = self.0.clone();
        Box::pin(async move {
            let mut asked = Request::builder()
                .method(request.method)
                .uri(request.path)
                .header(ACCEPT, JSON)
                .header(USER_AGENT, AGENT);
            if let Some(content_type) = request.content_type {
                asked = asked.header(CONTENT_TYPE, content_type);
            }
            let asked = asked
                .extension(user)
                .body(Body::from(request.body))
                .map_err(|error| error.to_string())?;
            let answer = match router.oneshot(asked).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            };
            let code = answer.status().as_u16();
            let (body, truncated) = beginning(answer.into_body(), limit_bytes).await?;
            Ok(ApiAnswer {
                code,
                body,
                truncated,
            })
        })
    }
}

/// The first bytes of a body, and whether there are more.
async fn beginning(mut body: Body, limit_bytes: usize) -> Result<(Bytes, bool), String> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else {
            continue;
        };
        let room = limit_bytes - read.len();
        if data.len() > room {
            read.extend_from_slice(&data[..room]);
            return Ok((read.freeze(), true));
        }
        read.extend_from_slice(&data);
    }
    Ok((read.freeze(), false))
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::any;

    use super::*;

    #[tokio::test]
    async fn a_request_reaches_the_router_as_its_users_and_a_long_answer_is_cut() {
        let echo = |Extension(user): Extension<User>, request: Request<Body>| async move {
            format!("{} {} {}", user.name, request.method(), request.uri())
        };
        let api = OwnApi(Router::new().route("/api/{*path}", any(echo)));
        let ask = |path: &str, limit_bytes| {
            let request = ApiRequest {
                method: http::Method::GET,
                path: path.to_owned(),
                content_type: None,
                body: Bytes::new(),
            };
            let user = User::authenticated("sui:0xa1", Vec::new());
            api.execute(user, request, limit_bytes)
        };
        let answer = ask("/api/v1/pods", 100).await.expect("an answer");
        assert_eq!(answer.code, 200);
        assert_eq!(answer.body, "sui:0xa1 GET /api/v1/pods");
        assert!(!answer.truncated);
        let answer = ask("/api/v1/pods", 8).await.expect("an answer");
        assert_eq!((&*answer.body, answer.truncated), (&b"sui:0xa1"[..], true));
        assert_eq!(ask("/other", 8).await.expect("an answer").code, 404);
        assert!(ask("no path", 8).await.is_err());
    }
}
