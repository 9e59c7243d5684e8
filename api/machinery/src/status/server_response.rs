//! The `Status` for an answer of another server that is none itself, as clients of the
//! reference make it (`NewGenericServerResponse`).

use super::{ApiError, Details, quote};

impl ApiError {
    /// What another server said, of which only the code is understood.
    pub fn server_response(code: u16, resource: &str, name: &str, said: &str) -> Self {
        let (reason, message) = match code {
            401 => (
                "Unauthorized",
                "the server has asked for the client to provide credentials".to_owned(),
            ),
            403 => ("Forbidden", said.to_owned()),
            404 => (
                "NotFound",
                "the server could not find the requested resource".to_owned(),
            ),
            405 => (
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource".to_owned(),
            ),
            422 => (
                "Invalid",
                "the server rejected our request due to an error in our request".to_owned(),
            ),
            429 => (
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later"
                    .to_owned(),
            ),
            503 => (
                "ServiceUnavailable",
                "the server is currently unable to handle the request".to_owned(),
            ),
            500.. => (
                "InternalError",
                format!(
                    "an error on the server ({}) has prevented the request from succeeding",
                    quote(said)
                ),
            ),
            _ => (
                "",
                format!(
                    "the server responded with the status code {code} but did not return more \
                     information"
                ),
            ),
        };
        let details = Details {
            name: name.to_owned(),
            kind: resource.to_owned(),
            ..Details::default()
        };
        Self {
            code,
            reason: std::borrow::Cow::Borrowed(reason),
            message: format!("{message} ( {resource} {name})"),
            details: Some(Box::new(details)),
        }
    }
}
