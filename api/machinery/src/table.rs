//! Objects as `meta.k8s.io` Tables, the form kubectl prints, and as
//! `PartialObjectMetadata`.
//!
//! Source of the columns: `pkg/printers/internalversion` of v1.37.

pub mod cells;
pub mod duration;

use serde_json::{Map, Value, json};

use crate::fields;
use crate::openapi::descriptions;
use crate::resource::{Column, Resource};
use crate::schema;

/// What of each object goes into its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, the default.
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; empty means metadata, `None` for what is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// A table of `items`; a watch renders one item at a time, and states its
/// columns only with the first. `version` is `v1` or `v1beta1` of
/// `meta.k8s.io`; `list_meta` is the list's metadata (`resourceVersion`, `continue`, …).
pub fn render(
    resource: &Resource,
    items: &[Value],
    list_meta: &Value,
    include: IncludeObject,
    version: &str,
    now_unix_seconds: i64,
    with_columns: bool,
) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|item| row(resource, item, include, version, now_unix_seconds))
        .collect();
    let metadata = if list_meta.is_null() {
        json!({})
    } else {
        list_meta.clone()
    };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": if with_columns { columns(resource) } else { Value::Null },
        "rows": rows,
    })
}

/// A table of a list: as [`render`], and what only a list can show.
pub fn render_list(
    resource: &Resource,
    items: &[Value],
    list_meta: &Value,
    include: IncludeObject,
    version: &str,
    now_unix_seconds: i64,
) -> Value {
    let mut order: Vec<&Value> = items.iter().collect();
    if resource.plural == "flowschemas" {
        order.sort_by_key(|item| {
            let precedence = item["spec"]["matchingPrecedence"].as_i64().unwrap_or(0);
            (precedence, item["metadata"]["name"].as_str())
        });
    }
    let default = match resource.plural.as_str() {
        "storageclasses" => default_class(items),
        _ => None,
    };
    let mut table = render(
        resource,
        &[],
        list_meta,
        include,
        version,
        now_unix_seconds,
        true,
    );
    let rows = order.into_iter().map(|item| {
        let mut row = row(resource, item, include, version, now_unix_seconds);
        if default.is_some() && item["metadata"]["name"].as_str() == default {
            row["cells"][0] = json!(format!("{} (default)", default.unwrap_or_default()));
        }
        row
    });
    table["rows"] = rows.collect();
    table
}

/// The class that claims without one get: of those marked the newest, then the first by name.
fn default_class(items: &[Value]) -> Option<&str> {
    let marked = items.iter().filter(|item| {
        let annotations = &item["metadata"]["annotations"];
        annotations["storageclass.kubernetes.io/is-default-class"] == "true"
            || annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true"
    });
    let metadata = |item: &'_ Value, key: &str| {
        item["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let default = marked.max_by(|left, right| {
        metadata(left, "creationTimestamp")
            .cmp(&metadata(right, "creationTimestamp"))
            .then(metadata(right, "name").cmp(&metadata(left, "name")))
    })?;
    default["metadata"]["name"].as_str()
}

/// What the field that a column shows is for, or the column's own text.
fn description(column: &Column) -> String {
    let place = column.described_by.as_str();
    let text = place
        .rsplit_once('.')
        .and_then(|(owner, field)| descriptions::of_field(owner, field));
    match text {
        Some(text) => text.to_owned(),
        None if place.starts_with("io.k8s.") => String::new(),
        None => place.to_owned(),
    }
}

fn columns(resource: &Resource) -> Value {
    let columns = resource.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.column_type,
            "format": column.format,
            "description": description(column),
            "priority": column.priority,
        })
    });
    Value::Array(columns.collect())
}

fn row(
    resource: &Resource,
    item: &Value,
    include: IncludeObject,
    version: &str,
    now_unix_seconds: i64,
) -> Value {
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial_object_metadata(item, version),
        IncludeObject::Object => with_kind(resource, item),
    };
    let mut row = Map::new();
    row.insert(
        "cells".to_owned(),
        json!(resource.cells.of(item, now_unix_seconds)),
    );
    if let Some(conditions) = completed(resource, item) {
        row.insert("conditions".to_owned(), conditions);
    }
    row.insert("object".to_owned(), object);
    Value::Object(row)
}

fn with_kind(resource: &Resource, item: &Value) -> Value {
    let mut object = Map::new();
    object.insert("kind".to_owned(), json!(resource.kind));
    object.insert("apiVersion".to_owned(), json!(resource.api_version()));
    for (key, value) in item.as_object().into_iter().flatten() {
        object.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(object)
}

/// A pod that has ended is marked so that `kubectl get` can leave it out.
fn completed(resource: &Resource, item: &Value) -> Option<Value> {
    if resource.kind != "Pod" {
        return None;
    }
    let (reason, message) = match item["status"]["phase"].as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

/// An object's metadata alone, as `meta.k8s.io/<version>` `PartialObjectMetadata`.
pub fn partial_object_metadata(object: &Value, version: &str) -> Value {
    let mut partial = json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"],
    });
    fields::prune(schema::PARTIAL_OBJECT_METADATA, &mut partial);
    partial
}

/// A list of objects' metadata, as `PartialObjectMetadataList`.
pub fn partial_object_metadata_list(items: &[Value], list_meta: &Value, version: &str) -> Value {
    let items: Vec<Value> = items
        .iter()
        .map(|item| partial_object_metadata(item, version))
        .collect();
    let metadata = if list_meta.is_null() {
        json!({})
    } else {
        list_meta.clone()
    };
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "items": items,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;
    use expect_test::expect;

    const NOW: i64 = 1_767_225_600 + 200; // 2026-01-01T00:03:20Z

    fn print(plural: &str, group: &str, items: &[Value]) -> String {
        let resource = find(group, "v1", plural).expect("served");
        let table = render(
            resource,
            items,
            &Value::Null,
            IncludeObject::None,
            "v1",
            NOW,
            true,
        );
        let line = |cells: &Value, key: Option<&str>| {
            let cells = cells.as_array().map_or(&[][..], Vec::as_slice).iter();
            let cells = cells.map(|cell| {
                let cell = key.map_or(cell, |key| &cell[key]);
                cell.as_str()
                    .map_or_else(|| cell.to_string(), str::to_owned)
            });
            cells.collect::<Vec<_>>().join(" | ")
        };
        let mut lines = vec![line(&table["columnDefinitions"], Some("name"))];
        for row in table["rows"].as_array().into_iter().flatten() {
            assert_eq!(
                row["cells"].as_array().map(Vec::len),
                table["columnDefinitions"].as_array().map(Vec::len)
            );
            lines.push(line(&row["cells"], None));
        }
        lines.join("\n")
    }

    fn meta(name: &str) -> Value {
        json!({"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn pods_show_what_their_containers_do() {
        let pod = |name: &str, status: Value| json!({"metadata": meta(name), "spec": {"containers": [{}, {}], "nodeName": "n"}, "status": status});
        let waiting = json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}});
        let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let crashed = json!({"ready": true, "restartCount": 3, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:01:00Z"}}});
        let done = json!({"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let mut going = pod(
            "e",
            json!({"phase": "Running", "containerStatuses": [running, running]}),
        );
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:03:00Z");
        let items = [
            pod("a", json!({"phase": "Pending"})),
            pod(
                "b",
                json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [running, crashed]}),
            ),
            pod(
                "c",
                json!({"phase": "Pending", "containerStatuses": [running, waiting]}),
            ),
            pod(
                "d",
                json!({"phase": "Succeeded", "containerStatuses": [done, done]}),
            ),
            going,
            pod("f", json!({"phase": "Failed", "reason": "Evicted"})),
        ];
        expect![[r#"
            Name | Ready | Status | Restarts | Age | IP | Node | Nominated Node | Readiness Gates
            a | 0/2 | Pending | 0 | 3m20s | <none> | n | <none> | <none>
            b | 2/2 | Running | 3 (2m20s ago) | 3m20s | 10.0.0.1 | n | <none> | <none>
            c | 1/2 | ImagePullBackOff | 0 | 3m20s | <none> | n | <none> | <none>
            d | 0/2 | Completed | 0 | 3m20s | <none> | n | <none> | <none>
            e | 2/2 | Terminating | 0 | 3m20s | <none> | n | <none> | <none>
            f | 0/2 | Evicted | 0 | 3m20s | <none> | n | <none> | <none>"#]]
        .assert_eq(&print("pods", "", &items));
    }

    #[test]
    fn an_init_container_shows_its_progress() {
        let pod = |status: Value| {
            json!({"metadata": meta("a"), "spec": {"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{}]},
                "status": {"phase": "Pending", "initContainerStatuses": status}})
        };
        let items = [
            pod(
                json!([{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "restartCount": 0, "state": {"running": {}}}]),
            ),
            pod(
                json!([{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            ),
        ];
        expect![[r#"
            Name | Ready | Status | Restarts | Age | IP | Node | Nominated Node | Readiness Gates
            a | 0/1 | Init:1/2 | 0 | 3m20s | <none> | <none> | <none> | <none>
            a | 0/1 | Init:CrashLoopBackOff | 2 | 3m20s | <none> | <none> | <none> | <none>"#]]
        .assert_eq(&print("pods", "", &items));
    }

    #[test]
    fn the_other_kinds_print_as_the_reference_does() {
        let node = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"node-role.kubernetes.io/worker": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64"}}});
        let service = json!({"metadata": meta("s"), "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "nodePort": 30000, "protocol": "UDP"}], "selector": {"b": "2", "a": "1"}}});
        let event = json!({"metadata": meta("e"), "lastTimestamp": "2026-01-01T00:03:00Z", "firstTimestamp": "2026-01-01T00:02:00Z", "type": "Normal",
            "reason": "Started", "involvedObject": {"kind": "Pod", "name": "p"}, "message": " hello\n", "count": 2, "source": {"component": "kubelet", "host": "n"}});
        let printed = [
            print("nodes", "", &[node]),
            print("services", "", &[service]),
            print("events", "", &[event]),
            print(
                "configmaps",
                "",
                &[json!({"metadata": meta("c"), "data": {"a": "1"}, "binaryData": {"b": "AA=="}})],
            ),
            print(
                "secrets",
                "",
                &[json!({"metadata": meta("s"), "data": {"a": "AA=="}, "type": "Opaque"})],
            ),
            print(
                "namespaces",
                "",
                &[json!({"metadata": meta("n"), "status": {"phase": "Active"}})],
            ),
            print(
                "serviceaccounts",
                "",
                &[json!({"metadata": meta("default")})],
            ),
            print(
                "leases",
                "coordination.k8s.io",
                &[json!({"metadata": meta("l"), "spec": {"holderIdentity": "me"}})],
            ),
        ];
        expect![[r#"
            Name | Status | Roles | Age | Version | Internal-IP | External-IP | OS-Image | Kernel-Version | Container-Runtime
            n | Ready,SchedulingDisabled | worker | 3m20s | v1 | 10.0.0.2 | <none> | Debian | 6.1 (amd64) | <unknown>
            Name | Type | Cluster-IP | External-IP | Port(s) | Age | Selector
            s | ClusterIP | 10.0.0.9 | <none> | 80/TCP,81:30000/UDP | 3m20s | a=1,b=2
            Last Seen | Type | Reason | Object | Subobject | Source | Message | First Seen | Count | Name
            20s | Normal | Started | pod/p |  | kubelet, n | hello | 80s | 2 | e
            Name | Data | Age
            c | 2 | 3m20s
            Name | Type | Data | Age
            s | Opaque | 1 | 3m20s
            Name | Status | Age
            n | Active | 3m20s
            Name | Age
            default | 3m20s
            Name | Holder | Age
            l | me | 3m20s"#]]
        .assert_eq(&printed.join("\n"));
    }

    #[test]
    fn a_row_carries_its_metadata() {
        let resource = find("", "v1", "configmaps").expect("served");
        let table = render(
            resource,
            &[json!({"metadata": meta("c")})],
            &json!({"resourceVersion": "5"}),
            IncludeObject::Metadata,
            "v1",
            NOW,
            false,
        );
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["metadata"]["resourceVersion"], "5");
        assert_eq!(table["columnDefinitions"], Value::Null);
    }
}
