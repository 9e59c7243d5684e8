//! The policy's routes, for administrators.
//!
//! ```text
//! GET  /nautilus/v1/policy           the record in force, and what this node judges by
//! GET  /nautilus/v1/policy/history   every record, oldest first
//! GET  /nautilus/v1/policy/pending   changes that lack approvals
//! GET  /nautilus/v1/policy/nodes     what each member runs
//! POST /nautilus/v1/policy/changes   a document and approvals of it
//! GET, POST, DELETE /nautilus/v1/upgrade    the upgrade under way
//! ```
//! Whoever may call is no matter of trust: a change counts by its signatures alone.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{StatusCode, header};
use nautilus_attest_protocol::Policy;
use nautilus_attest_protocol::policy::{Approval, approving_operators};
use nautilus_machine::{Cluster, Kv, MemberRole};
use nautilus_machinery::identity::User;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::quorum::keeps_a_majority;
use super::source::PolicySource;
use super::store::{self, NodeCode, PENDING_MAX, Record, StoreError, Upgrade};
use super::unix_millis;

/// Bytes of a change, at most.
const BODY_BYTES_MAX: usize = 512 << 10;
/// How often a change is tried anew that another one came before.
const ATTEMPTS: usize = 8;
/// How long a change waits for voters of whom nothing is known yet: a few looks of the keeper.
const VOTERS_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at what is known.
const VOTERS_PAUSE: Duration = Duration::from_millis(100);

/// What the routes need.
pub(crate) struct Face {
    /// The quorum's name: part of what operators sign.
    pub(crate) cluster_id: String,
    /// The rows.
    pub(crate) kv: Arc<dyn Kv>,
    /// The membership.
    pub(crate) cluster: Arc<dyn Cluster>,
    /// What this node judges by.
    pub(crate) source: Arc<PolicySource>,
}

/// `POST /nautilus/v1/policy/changes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeRequest {
    /// The whole new policy; its epoch is the present one's and 1.
    pub(crate) document: Policy,
    /// Signatures, any number; those that are pending of the same document count too.
    pub(crate) approvals: Vec<Approval>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeAnswer {
    /// Whether the document is in force.
    pub(crate) applied: bool,
    /// The document's epoch.
    pub(crate) epoch: u64,
    /// Hex of its digest.
    pub(crate) digest: String,
    /// Operators who have approved.
    pub(crate) given: u32,
    /// Operators who must.
    pub(crate) needed: u32,
}

type Refused = (StatusCode, String);

/// The routes. Requests must carry their [`User`] in their extensions.
pub(crate) fn policy_router(face: Face) -> Router {
    Router::new()
        .route("/nautilus/v1/policy", get(current))
        .route("/nautilus/v1/policy/history", get(history))
        .route("/nautilus/v1/policy/pending", get(pending))
        .route("/nautilus/v1/policy/nodes", get(nodes))
        .route("/nautilus/v1/policy/changes", post(change))
        .route(
            "/nautilus/v1/upgrade",
            get(upgrade).post(begin_upgrade).delete(end_upgrade),
        )
        .with_state(Arc::new(face))
}

type Shared = State<Arc<Face>>;

async fn current(State(face): Shared, request: Request) -> Response {
    answer(face.read(master(&request), |face| {
        let record = face.present()?.0;
        let judging = face.source.present();
        let mut value = to_value(&record)?;
        value["digest"] = hex::encode(record.document.digest()).into();
        value["judging_by"] =
            json!({ "epoch": judging.epoch, "origin": to_value(&face.source.origin())? });
        Ok(value)
    }))
    .await
}

async fn history(State(face): Shared, request: Request) -> Response {
    answer(face.read(master(&request), |face| {
        let records = store::history(face.kv.as_ref()).map_err(|error| failed(&error))?;
        Ok(json!({ "history": to_value(&records)? }))
    }))
    .await
}

async fn pending(State(face): Shared, request: Request) -> Response {
    answer(face.read(master(&request), |face| {
        let (present, _) = face.present()?;
        let records = store::pending(face.kv.as_ref()).map_err(|error| failed(&error))?;
        let changes = records.iter().map(|record| {
            let mut value = to_value(record)?;
            value["digest"] = hex::encode(record.document.digest()).into();
            value["given"] = record.approvals.len().into();
            value["needed"] = present.document.threshold.into();
            Ok(value)
        });
        Ok(json!({ "pending": changes.collect::<Result<Vec<Value>, Refused>>()? }))
    }))
    .await
}

async fn nodes(State(face): Shared, request: Request) -> Response {
    answer(face.read(master(&request), |face| {
        let codes = store::nodes(face.kv.as_ref()).map_err(|error| failed(&error))?;
        Ok(json!({ "nodes": to_value(&codes)? }))
    }))
    .await
}

async fn change(State(face): Shared, request: Request) -> Response {
    answer(async {
        let user = master(&request)?;
        let asked: ChangeRequest = read_body(request).await?;
        let answer = face.submit(asked).await?;
        tracing::info!(
            user = %user.name, epoch = answer.epoch, applied = answer.applied,
            given = answer.given, needed = answer.needed, digest = %answer.digest,
            "a change of the policy"
        );
        to_value(&answer)
    })
    .await
}

async fn upgrade(State(face): Shared, request: Request) -> Response {
    answer(face.read(master(&request), |face| {
        to_value(&store::upgrade(face.kv.as_ref()).map_err(|error| failed(&error))?)
    }))
    .await
}

/// Answers with the upgrade under way: the one asked for, or another that came before.
async fn begin_upgrade(State(face): Shared, request: Request) -> Response {
    answer(async {
        let user = master(&request)?;
        let asked: Upgrade = read_body(request).await?;
        face.barrier().await?;
        if store::begin_upgrade(face.kv.as_ref(), &asked)
            .await
            .map_err(|error| failed(&error))?
        {
            tracing::info!(user = %user.name, measurement = %asked.measurement, "an upgrade begins");
        }
        to_value(&store::upgrade(face.kv.as_ref()).map_err(|error| failed(&error))?)
    })
    .await
}

async fn end_upgrade(State(face): Shared, request: Request) -> Response {
    let user = master(&request);
    answer(async {
        let user = user?;
        store::end_upgrade(face.kv.as_ref())
            .await
            .map_err(|error| failed(&error))?;
        tracing::info!(user = %user.name, "the upgrade under way ends");
        Ok(Value::Null)
    })
    .await
}

async fn read_body<T: for<'de> Deserialize<'de>>(request: Request) -> Result<T, Refused> {
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&body)
        .map_err(|error| bad(format!("the body is not as expected: {error}")))
}

impl Face {
    /// Reads linearizably.
    async fn read(
        &self,
        user: Result<User, Refused>,
        read: impl FnOnce(&Self) -> Result<Value, Refused>,
    ) -> Result<Value, Refused> {
        user?;
        self.barrier().await?;
        read(self)
    }

    async fn barrier(&self) -> Result<(), Refused> {
        let barrier = self.kv.read_barrier().await;
        barrier
            .map(|_| ())
            .map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
    }

    fn present(&self) -> Result<(Record, u64), Refused> {
        store::current(self.kv.as_ref())
            .map_err(|error| failed(&error))?
            .ok_or((
                StatusCode::NOT_FOUND,
                "this quorum keeps no policy: its nodes judge by their configurations".to_owned(),
            ))
    }

    /// Takes a change, or keeps it until enough operators have approved.
    async fn submit(&self, asked: ChangeRequest) -> Result<ChangeAnswer, Refused> {
        let voters_by = Instant::now() + VOTERS_WAIT;
        for _ in 0..ATTEMPTS {
            self.barrier().await?;
            if let Some(answer) = self.attempt(&asked, voters_by).await? {
                return Ok(answer);
            }
        }
        Err((
            StatusCode::CONFLICT,
            "other changes keep coming before this one; try again".to_owned(),
        ))
    }

    /// `None` when another change came before.
    async fn attempt(
        &self,
        asked: &ChangeRequest,
        voters_by: Instant,
    ) -> Result<Option<ChangeAnswer>, Refused> {
        let kv = self.kv.as_ref();
        let (present, revision) = self.present()?;
        let digest = asked.document.digest();
        if present.document.digest() == digest {
            // Asked again after an answer that was lost.
            let given = u32::try_from(present.approvals.len()).unwrap_or(u32::MAX);
            return Ok(Some(done(&present.document, true, given, given)));
        }
        let kept = store::pending_of(kv, &digest).map_err(|error| failed(&error))?;
        let pending_revision = kept.as_ref().map_or(0, |(_, revision)| *revision);
        let mut approvals = kept.map(|(record, _)| record.approvals).unwrap_or_default();
        for approval in &asked.approvals {
            approvals.retain(|present| present.operator != approval.operator);
            approvals.push(approval.clone());
        }
        let document = &asked.document;
        let approving =
            approving_operators(&present.document, &self.cluster_id, document, &approvals)
                .map_err(|refused| (StatusCode::FORBIDDEN, refused.to_string()))?;
        let given = u32::try_from(approving.len()).unwrap_or(u32::MAX);
        if given == 0 {
            return Err(bad("a change comes with an operator's approval".to_owned()));
        }
        self.check_voters(document, voters_by).await?;
        let needed = present.document.threshold;
        let record = Record {
            document: document.clone(),
            approvals,
            at_ms: unix_millis(),
        };
        let applied = given >= needed;
        let written = if applied {
            store::replace(kv, &record, revision).await
        } else {
            self.check_room(pending_revision)?;
            store::keep_pending(kv, &record, revision, pending_revision).await
        };
        let written = written.map_err(|error| failed(&error))?;
        Ok(written.then(|| done(document, applied, given, needed)))
    }

    /// A policy that most voters do not satisfy would end the quorum. Voters that just started
    /// have until `by` to be heard of.
    async fn check_voters(&self, document: &Policy, by: Instant) -> Result<(), Refused> {
        let members = self.cluster.members();
        let voters: Vec<u64> = members
            .iter()
            .filter(|member| member.role == MemberRole::Voter)
            .map(|member| member.id)
            .collect();
        let codes = loop {
            let codes: Vec<NodeCode> =
                store::nodes(self.kv.as_ref()).map_err(|error| failed(&error))?;
            let is_known = |voter: &u64| codes.iter().any(|code| code.id == *voter);
            if voters.iter().all(is_known) || Instant::now() >= by {
                break codes;
            }
            tokio::time::sleep(VOTERS_PAUSE).await;
        };
        keeps_a_majority(&document.evidence, &voters, &codes, unix_millis())
            .map_err(|reason| (StatusCode::CONFLICT, reason))
    }

    fn check_room(&self, pending_revision: u64) -> Result<(), Refused> {
        let pending = store::pending(self.kv.as_ref())
            .map_err(|error| failed(&error))?
            .len();
        if pending_revision == 0 && pending >= PENDING_MAX {
            return Err((
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "{pending} changes wait for approvals already; approve one of them: it ends the others"
                ),
            ));
        }
        Ok(())
    }
}

fn done(document: &Policy, applied: bool, given: u32, needed: u32) -> ChangeAnswer {
    ChangeAnswer {
        applied,
        epoch: document.epoch,
        digest: hex::encode(document.digest()),
        given,
        needed,
    }
}

fn master(request: &Request) -> Result<User, Refused> {
    let user = request.extensions().get::<User>().cloned();
    user.filter(User::is_master).ok_or((
        StatusCode::FORBIDDEN,
        "only system:masters may read and change the policy".to_owned(),
    ))
}

fn bad(text: String) -> Refused {
    (StatusCode::BAD_REQUEST, text)
}

fn failed(error: &StoreError) -> Refused {
    let code = match error {
        StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::Damaged { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, error.to_string())
}

fn to_value(value: &impl Serialize) -> Result<Value, Refused> {
    serde_json::to_value(value)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// The answer, or the refusal in the form of the Kubernetes API.
async fn answer(work: impl Future<Output = Result<Value, Refused>>) -> Response {
    let (code, value) = match work.await {
        Ok(value) => (StatusCode::OK, value),
        Err((code, message)) => {
            let status = json!({
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": code.as_u16(),
                "message": message,
            });
            (code, status)
        }
    };
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
