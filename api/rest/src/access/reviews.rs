//! Reviews: kinds that are asked, never stored.

use std::sync::Arc;

use nautilus_access::review::{self, Asked};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::Access;
use crate::context::RestContext;
use crate::failure::Failure;
use crate::ids;

/// Answers a creation of `resource` where it is a review; `None` for any other kind.
pub(crate) async fn serve(
    context: &Arc<RestContext>,
    user: &User,
    resource: &Resource,
    namespace: Option<&str>,
    object: &Value,
) -> Option<Result<Value, Failure>> {
    let access = &context.access;
    let authorize = |user: &User, asked: &_| access.authorize(user, asked);
    let judged = |asked| review::access(asked, object, user, &authorize);
    let answer = match (&*resource.group, &*resource.kind) {
        ("authorization.k8s.io", "SelfSubjectAccessReview") => judged(Asked::Own),
        ("authorization.k8s.io", "SubjectAccessReview") => judged(Asked::Other),
        ("authorization.k8s.io", "LocalSubjectAccessReview") => {
            judged(Asked::Local(namespace.unwrap_or_default()))
        }
        ("authorization.k8s.io", "SelfSubjectRulesReview") => {
            review::rules_namespace(object).map(|namespace| {
                let (rules, incomplete, error) = access.rules_for(user, namespace);
                review::rules(&rules, incomplete, &error)
            })
        }
        ("authentication.k8s.io", "SelfSubjectReview") => Ok(review::whoami(
            &resource.api_version(),
            user,
            &ids::now_rfc3339(),
        )),
        ("authentication.k8s.io", "TokenReview") => review_token(access, object).await,
        _ => return None,
    };
    Some(answer.map_err(Failure::from))
}

async fn review_token(access: &Access, object: &Value) -> Result<Value, ApiError> {
    let (token, wanted) = review::token_asked(object)?;
    let judged = access.authenticate(token, &wanted).await;
    Ok(review::token_answer(
        object,
        judged
            .as_ref()
            .map(|found| (&found.user, found.audiences.as_slice()))
            .map_err(String::as_str),
    ))
}
