//! Events about the masters themselves, as `kubectl get events` shows them.

use nautilus_machinery::identity::User;
use nautilus_machinery::resource;
use serde_json::json;

use crate::account::Account;
use crate::context::RestContext;
use crate::controllers::ControllerError;
use crate::ids;

/// Where they stand; masters are not in any namespace.
const NAMESPACE: &str = "default";
/// The user in whose name a master writes of itself.
const MASTER_USER: &str = "system:nautilus-master";

/// That user, who is nobody's but this process's.
static USER: Account = Account::new(|| User::internal(MASTER_USER));

/// Something that happened to a master and that operators must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterEvent {
    /// Which.
    pub node_id: u64,
    /// Tells this one from others of the node; lower-case letters, digits and `-`.
    pub suffix: String,
    /// One word in capitals and small letters, such as `DiskRolledBack`.
    pub reason: &'static str,
    /// What happened, and what to do.
    pub message: String,
}

/// Writes a warning, unless it is there. Idempotent.
///
/// # Errors
/// The quorum did not take it; it may be tried again.
pub async fn record_master_event(
    context: &RestContext,
    event: &MasterEvent,
) -> Result<(), ControllerError> {
    let Some(events) = resource::find("", "v1", "events") else {
        return Ok(());
    };
    let master = format!("nautilus-{}", event.node_id);
    let now = ids::now_rfc3339();
    let object = json!({
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {
            "name": format!("{master}.{}", event.suffix),
            "namespace": NAMESPACE,
        },
        "involvedObject": { "kind": "Master", "apiVersion": "nautilus/v1", "name": master },
        "type": "Warning",
        "reason": event.reason,
        "message": event.message,
        "source": { "component": "nautilus", "host": master },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    });
    match context
        .storage()
        .create(events, Some(NAMESPACE), object, &USER.writer())
        .await
    {
        Ok(_) => Ok(()),
        // It is there already.
        Err(failure) if failure.error.code() == 409 => Ok(()),
        Err(failure) => Err(ControllerError::new("an event about a master", &failure)),
    }
}
