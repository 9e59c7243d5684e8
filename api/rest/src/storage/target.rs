//! Which object a request is about, by its path.
//!
//! Invariant: a body is of the object that its path names, or it is refused.

use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::metadata_text;

/// Which object a write is about.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) subresource: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The namespace that it is judged in: a namespace itself is judged as if it were inside.
    pub(super) fn asked_namespace(&self) -> Option<&'a str> {
        let of_namespace = (!self.resource.namespaced && self.resource.plural == "namespaces")
            .then_some(self.name)
            .filter(|name| !name.is_empty());
        self.namespace.or(of_namespace)
    }

    pub(crate) fn key(&self) -> String {
        self.resource.key(self.namespace, self.name)
    }

    /// Whether a body is of the object that the path names.
    pub(crate) fn check_name(&self, object: &Value) -> Result<(), ApiError> {
        let asked = self.name;
        match metadata_text(object, "name") {
            own if own == asked => Ok(()),
            "" => Err(ApiError::bad_request(format!(
                "the name of the object ({asked} based on URL) was undeterminable: name must be \
                 provided"
            ))),
            own => Err(ApiError::bad_request(format!(
                "the name of the object ({own}) does not match the name on the URL ({asked})"
            ))),
        }
    }
}
