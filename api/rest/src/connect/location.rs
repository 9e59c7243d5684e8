//! Which server a request is for: the pod's node, the pod, the service's endpoint.

use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::Connection;
use super::kubelet::Kubelet;
use crate::failure::Failure;
use crate::options::Version;
use crate::storage::Target;

/// Containers in the reference's order of visiting them.
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

impl Connection {
    /// The pod of the request's path.
    pub(super) async fn pod(&self) -> Result<Value, Failure> {
        self.object("pods", Some(self.namespace()), self.name())
            .await
    }

    /// An object of the core group, read behind a barrier.
    pub(super) async fn object(
        &self,
        plural: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, Failure> {
        let resource = crate::storage::built_in("", plural)?;
        let target = Target {
            resource,
            namespace,
            name,
            subresource: None,
        };
        self.storage().get(&target, Version::Newest).await
    }

    /// The kubelet of a node.
    pub(super) async fn kubelet(
        &self,
        node: &str,
        skip_verification: bool,
    ) -> Result<Kubelet, Failure> {
        let node = self.object("nodes", None, node).await?;
        Ok(self.kubelets()?.of_node(&node, skip_verification)?)
    }

    /// The kubelet of a pod that streams are opened to.
    pub(super) async fn pods_kubelet(&self, pod: &Value) -> Result<Kubelet, Failure> {
        let Some(node) = node_name(pod) else {
            let message = format!("pod {} does not have a host assigned", self.name());
            return Err(ApiError::bad_request(message).into());
        };
        self.kubelet(node, false).await
    }
}

/// The node a pod is bound to.
pub(super) fn node_name(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"]
        .as_str()
        .filter(|name| !name.is_empty())
}

/// The container that is meant: the one named, or the only one.
pub(super) fn container<'a>(asked: &'a str, pod: &'a Value) -> Result<&'a str, ApiError> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = || {
        CONTAINER_LISTS
            .into_iter()
            .filter_map(|list| pod["spec"][list].as_array())
            .flatten()
            .filter_map(|container| container["name"].as_str())
    };
    if !asked.is_empty() {
        return match names().find(|name| *name == asked) {
            Some(name) => Ok(name),
            None => Err(ApiError::bad_request(format!(
                "container {asked} is not valid for pod {pod_name}"
            ))),
        };
    }
    let own = pod["spec"]["containers"].as_array();
    match own.map(Vec::as_slice).unwrap_or_default() {
        [only] => Ok(only["name"].as_str().unwrap_or_default()),
        [] => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod_name}"
        ))),
        _ => {
            let names: Vec<&str> = names().collect();
            let names = names.join(" ");
            Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{names}]"
            )))
        }
    }
}

/// `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    pub(super) secure: bool,
    pub(super) name: &'a str,
    pub(super) port: &'a str,
}

impl<'a> Reference<'a> {
    /// `what` is the kind, for the message.
    pub(super) fn parse(what: &str, text: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => ("?", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            let text = nautilus_machinery::status::quote(text);
            return Err(ApiError::bad_request(format!(
                "invalid {what} request {text}"
            )));
        }
        Ok(Self {
            secure: scheme == "https",
            name,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_only_container_need_not_be_named() {
        let pod = json!({
            "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "a" }], "ephemeralContainers": [{ "name": "e" }] },
        });
        assert_eq!(container("", &pod), Ok("a"));
        assert_eq!(container("e", &pod), Ok("e"));
        let error = container("x", &pod).unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (400, "container x is not valid for pod p")
        );
    }

    #[test]
    fn one_of_several_is_to_be_named() {
        let pod = json!({
            "metadata": { "name": "p" },
            "spec": {
                "initContainers": [{ "name": "i" }],
                "containers": [{ "name": "a" }, { "name": "b" }],
            },
        });
        assert_eq!(
            container("", &pod).unwrap_err().message(),
            "a container name must be specified for pod p, choose one of: [i a b]"
        );
    }

    #[test]
    fn references_have_three_forms() {
        let parse = |text| Reference::parse("pod", text);
        let reference = |secure, name, port| Ok(Reference { secure, name, port });
        assert_eq!(parse("web"), reference(false, "web", ""));
        assert_eq!(parse("web:80"), reference(false, "web", "80"));
        assert_eq!(parse("https:web:http"), reference(true, "web", "http"));
        for wrong in ["", ":80", "ftp:web:1", "a:b:c:d"] {
            assert_eq!(parse(wrong).unwrap_err().code(), 400, "{wrong}");
        }
    }
}
