//! Who may do what: the one place that decides. Until rules of roles come,
//! `system:masters` may do everything and everybody else reads only what tells a
//! client where it is.

use http::Method;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;

use crate::route::Route;

/// Refuses with 403 in the reference's words, or lets pass.
pub(crate) fn authorize(
    user: &User,
    method: &Method,
    path: &str,
    route: &Route,
) -> Result<(), ApiError> {
    let allowed = match route {
        // Whoever can reach the node may ask whether it lives; a credential request
        // is judged by the key that signed it.
        Route::Health { .. } | Route::Version | Route::Credentials => true,
        Route::Groups { .. }
        | Route::Group(_)
        | Route::GroupVersion { .. }
        | Route::OpenApiV2
        | Route::OpenApiIndex
        | Route::OpenApiDocument(_)
        | Route::Leader => user.is_authenticated(),
        Route::Resource(_)
        | Route::Metrics
        | Route::Status
        | Route::Certificates
        | Route::Members(_)
        | Route::Receipts(_)
        | Route::MethodNotAllowed
        | Route::NotFound => false,
    };
    if allowed || user.is_master() {
        return Ok(());
    }
    Err(match route {
        Route::Resource(request) => ApiError::forbidden(
            &user.name,
            request.verb.as_str(),
            request.resource,
            request.subresource.as_deref().unwrap_or_default(),
            request.namespace.as_deref(),
            request.name.as_deref().unwrap_or_default(),
        ),
        _ => ApiError::forbidden_path(&user.name, &method.as_str().to_ascii_lowercase(), path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;

    fn judge(user: &User, path: &str) -> Result<(), ApiError> {
        let route = route::parse(&Method::GET, &path.parse().expect("a path"));
        authorize(user, &Method::GET, path, &route)
    }

    #[test]
    fn anonymous_reads_health_and_version_only() {
        let anonymous = User::anonymous();
        assert!(judge(&anonymous, "/readyz").is_ok());
        assert!(judge(&anonymous, "/version").is_ok());
        for path in [
            "/api",
            "/apis",
            "/metrics",
            "/nautilus/v1/leader",
            "/api/v1/pods",
            "/nope",
        ] {
            assert_eq!(judge(&anonymous, path).expect_err(path).code(), 403);
        }
    }

    #[test]
    fn an_ordinary_user_is_told_what_it_may_not_do() {
        let user = User::authenticated("jane", vec!["dev".into()]);
        let error = judge(&user, "/api/v1/namespaces/a/pods").expect_err("no rule allows it");
        assert_eq!(
            error.message(),
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in \
             the namespace \"a\""
        );
    }
}
