//! The ranges that services get their addresses from: the leader makes the default one,
//! says of each whether it is ready, and lets one go only when no service has an address
//! of it any more (KEP-1880).
//!
//! Invariants
//! - A range with addresses in use that no other range holds is never removed.
//! - Every write is fenced by the leader's term and allowed to its account by its role.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use nautilus_machine::types::KeyRange;
use nautilus_machine::{RangeRequest, WatchRequest, Watcher};
use nautilus_machinery::allocation::Cidr;
use nautilus_machinery::conditions;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Resource;
use serde_json::{Value, json};

use crate::account::Account;
use crate::failure::{Failure, unless_gone};
use crate::ids;
use crate::storage::{Storage, Target, built_in, metadata_text, versioned_object};

static USER: Account = Account::new(|| User::controller("service-cidrs-controller"));

/// The range of a cluster whose operator chose none: the reference tools' own.
pub(crate) const DEFAULT_RANGE: &str = "10.96.0.0/12";
/// The name of the default range.
pub(crate) const DEFAULT_NAME: &str = "kubernetes";

/// The group of ranges and addresses.
const GROUP: &str = "networking.k8s.io";
/// Holds a range until its addresses are free.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Between two looks while nothing was seen to change.
const IDLE_PAUSE: Duration = Duration::from_secs(60);
/// The same while a range waits for its addresses, or after a failure.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The default range as an object.
pub(crate) fn default_object() -> Value {
    json!({
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": { "name": DEFAULT_NAME },
        "spec": { "cidrs": [DEFAULT_RANGE] },
    })
}

/// Looks after the ranges. Ends only by being dropped.
pub(crate) async fn run(storage: &Storage) {
    let mut watcher: Option<Box<dyn Watcher>> = None;
    loop {
        if watcher.is_none() {
            watcher = watch(storage);
        }
        let pause = match sweep(storage).await {
            Ok(false) if watcher.is_some() => IDLE_PAUSE,
            Ok(_) => BUSY_PAUSE,
            Err(failure) => {
                // A role's refusal was told already.
                if failure.error.code() != 403 {
                    tracing::warn!(error = %failure.error, "services' ranges are looked at later");
                }
                BUSY_PAUSE
            }
        };
        let changed = async {
            match watcher.as_mut() {
                Some(watcher) => watcher.next().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            goes_on = changed => !goes_on,
            () = tokio::time::sleep(pause) => false,
        };
        if ended {
            watcher = None;
        }
    }
}

fn watch(storage: &Storage) -> Option<Box<dyn Watcher>> {
    let range = KeyRange::prefix(built_in(GROUP, "servicecidrs").ok()?.storage_prefix());
    let request = WatchRequest {
        range,
        from: None,
        previous: false,
    };
    storage.kv.watch(request).ok()
}

/// One look at every range; whether one still waits.
async fn sweep(storage: &Storage) -> Result<bool, Failure> {
    storage.barrier().await?;
    let resource = built_in(GROUP, "servicecidrs")?;
    let (rows, _) = storage
        .rows(KeyRange::prefix(resource.storage_prefix()))
        .await?;
    let mut ranges = Vec::with_capacity(rows.len());
    for row in &rows {
        ranges.push(versioned_object(resource, row)?);
    }
    let mut waits = false;
    for range in &ranges {
        let going = is_going(range);
        let in_use = going && is_in_use(storage, range, &ranges)?;
        waits |= in_use;
        if let Some(condition) = condition(range, going, in_use) {
            set_condition(storage, resource, range, condition).await?;
        }
        set_finalizer(storage, resource, range, !going || in_use).await?;
    }
    Ok(waits)
}

fn is_going(range: &Value) -> bool {
    !range["metadata"]["deletionTimestamp"].is_null()
}

fn cidrs(range: &Value) -> impl Iterator<Item = Cidr> {
    let cidrs = range["spec"]["cidrs"].as_array().into_iter().flatten();
    cidrs.filter_map(|cidr| Cidr::parse(cidr.as_str()?).ok())
}

/// Whether an address is taken that only ranges on their way out hold.
fn is_in_use(storage: &Storage, range: &Value, ranges: &[Value]) -> Result<bool, Failure> {
    let staying: Vec<Cidr> = ranges
        .iter()
        .filter(|other| !is_going(other))
        .flat_map(cidrs)
        .collect();
    let own: Vec<Cidr> = cidrs(range).collect();
    let prefix = built_in(GROUP, "ipaddresses")?.storage_prefix();
    let request = RangeRequest {
        keys_only: true,
        ..RangeRequest::newest(KeyRange::prefix(prefix.clone()))
    };
    let taken: BTreeSet<IpAddr> = storage
        .kv
        .range(&request)?
        .kvs
        .iter()
        .filter_map(|row| std::str::from_utf8(&row.key).ok())
        .filter_map(|key| key.strip_prefix(&prefix)?.parse().ok())
        .collect();
    let within = |ranges: &[Cidr], address| ranges.iter().any(|range| range.contains(address));
    Ok(taken
        .into_iter()
        .any(|address| within(&own, address) && !within(&staying, address)))
}

/// The condition to write, unless it stands already.
fn condition(range: &Value, going: bool, in_use: bool) -> Option<Value> {
    let (status, reason, message) = match (going, in_use) {
        (false, _) => ("True", "", "Kubernetes Service CIDR is ready"),
        (true, true) => (
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or \
             create a new ServiceCIDR",
        ),
        (true, false) => return None,
    };
    let conditions = range["status"]["conditions"].as_array();
    let stands = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == status);
    (!stands).then(|| {
        json!({
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": ids::now_rfc3339(),
        })
    })
}

async fn set_condition(
    storage: &Storage,
    resource: &'static Resource,
    range: &Value,
    condition: Value,
) -> Result<(), Failure> {
    let make = |current: &Value| {
        let mut wanted = current.clone();
        conditions::set(&mut wanted["status"], &condition);
        Ok(wanted)
    };
    update(storage, resource, range, Some("status"), make).await
}

async fn set_finalizer(
    storage: &Storage,
    resource: &'static Resource,
    range: &Value,
    wanted: bool,
) -> Result<(), Failure> {
    let has = |object: &Value| {
        let finalizers = object["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|list| list.iter().any(|own| own == FINALIZER))
    };
    if has(range) == wanted || (wanted && is_going(range)) {
        return Ok(());
    }
    let make = |current: &Value| {
        let mut object = current.clone();
        let mut finalizers = object["metadata"]["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        finalizers.retain(|own| own != FINALIZER);
        if wanted {
            finalizers.push(json!(FINALIZER));
        }
        object["metadata"]["finalizers"] = Value::Array(finalizers);
        Ok(object)
    };
    update(storage, resource, range, None, make).await
}

async fn update(
    storage: &Storage,
    resource: &'static Resource,
    range: &Value,
    subresource: Option<&str>,
    make: impl Fn(&Value) -> Result<Value, Failure> + Send + Sync,
) -> Result<(), Failure> {
    let target = Target {
        resource,
        namespace: None,
        name: metadata_text(range, "name"),
        subresource,
    };
    // Somebody may have removed it: nothing to look after.
    unless_gone(storage.update(&target, &USER.writer(), make).await)
}
