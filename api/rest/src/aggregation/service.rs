//! An APIService as it matters here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// Where a service listens that an APIService does not say more of.
const DEFAULT_PORT: u16 = 443;

/// See the module.
#[derive(Debug)]
pub(crate) struct ApiService {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    /// Who answers; `None`: this server.
    pub(super) service: Option<ServiceReference>,
    /// PEM; empty: the system's authorities, of which a TEE has none.
    pub(super) ca_bundle: Vec<u8>,
    pub(super) insecure: bool,
    pub(crate) available: bool,
    group_priority: i64,
    version_priority: i64,
}

/// A port of a service.
#[derive(Debug, Clone)]
pub(super) struct ServiceReference {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port: u16,
}

impl ApiService {
    #[expect(clippy::needless_pass_by_value, reason = "the form a lister wants")]
    pub(super) fn read(object: Value) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &object["spec"];
        let reference = &spec["service"];
        let service = reference.is_object().then(|| ServiceReference {
            namespace: text(&reference["namespace"]),
            name: text(&reference["name"]),
            port: reference["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(DEFAULT_PORT),
        });
        let ca_bundle = BASE64
            .decode(spec["caBundle"].as_str().unwrap_or_default())
            .map_err(|error| format!("spec.caBundle: {error}"))?;
        let conditions = object["status"]["conditions"].as_array();
        let available = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Available" && condition["status"] == "True");
        Ok(Self {
            name: text(&object["metadata"]["name"]),
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            service,
            ca_bundle,
            insecure: spec["insecureSkipTLSVerify"].as_bool().unwrap_or(false),
            available,
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or(0),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
        })
    }

    /// Whether another server answers.
    pub(super) fn is_remote(&self) -> bool {
        self.service.is_some()
    }

    /// `apis/GROUP/VERSION`.
    pub(super) fn path(&self) -> String {
        format!("apis/{}/{}", self.group, self.version)
    }

    /// The order among extension servers: the highest priority first, then by name.
    pub(super) fn order(&self) -> (i64, String, i64, String) {
        (
            -self.group_priority,
            self.group.clone(),
            -self.version_priority,
            self.version.clone(),
        )
    }
}
