//! Discovery documents, from the table of kinds: legacy and aggregated.
//!
//! Pure functions of the table (and of the server's addresses for `/api`): the
//! same release gives the same bytes, so their hash is a good `ETag`.

use serde_json::{Map, Value, json};

use crate::resource::{self, Resource, Subresource};

/// The group and version pairs served, the core group first, then by name.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for resource in resource::all() {
        let pair = (resource.group, resource.version);
        if !found.contains(&pair) {
            found.push(pair);
        }
    }
    found.sort_unstable();
    found
}

fn resources_of(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    let (group, version) = (group.to_owned(), version.to_owned());
    resource::all()
        .iter()
        .filter(move |r| r.group == group && r.version == version)
}

/// `GET /api`: `APIVersions`; `server_address` is `host:port`.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}
        ],
    })
}

/// `GET /apis`: `APIGroupList`.
pub fn api_group_list() -> Value {
    let groups: Vec<Value> = named_groups().into_iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/<group>`: `APIGroup`, `None` for a group not served.
pub fn api_group(group: &str) -> Option<Value> {
    let group = named_groups().into_iter().find(|own| *own == group)?;
    let mut document = Map::new();
    document.insert("kind".to_owned(), json!("APIGroup"));
    document.insert("apiVersion".to_owned(), json!("v1"));
    if let Value::Object(entry) = group_entry(group) {
        document.extend(entry);
    }
    Some(Value::Object(document))
}

fn named_groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = group_versions()
        .into_iter()
        .map(|(group, _)| group)
        .filter(|g| !g.is_empty())
        .collect();
    groups.dedup();
    groups
}

fn group_entry(group: &str) -> Value {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(own, _)| *own == group)
        .map(|(group, version)| {
            json!({"groupVersion": resource::api_version(group, version), "version": version})
        })
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

/// `GET /api/v1` and `/apis/<group>/<version>`: `APIResourceList`, `None` for
/// what is not served.
pub fn api_resource_list(group: &str, version: &str) -> Option<Value> {
    let mut entries: Vec<(String, Value)> = Vec::new();
    for resource in resources_of(group, version) {
        entries.push((resource.plural.to_owned(), resource_entry(resource)));
        for sub in resource.subresources {
            let name = format!("{}/{}", resource.plural, sub.name);
            entries.push((name.clone(), subresource_entry(resource, sub, &name)));
        }
    }
    if entries.is_empty() {
        return None;
    }
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    let resources: Vec<Value> = entries.into_iter().map(|(_, entry)| entry).collect();
    let mut document = json!({"kind": "APIResourceList"});
    if !group.is_empty() {
        document["apiVersion"] = json!("v1");
    }
    document["groupVersion"] = json!(resource::api_version(group, version));
    document["resources"] = json!(resources);
    Some(document)
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    for (name, list) in [
        ("shortNames", resource.short_names),
        ("categories", resource.categories),
    ] {
        if !list.is_empty() {
            entry[name] = json!(list);
        }
    }
    if !resource.storage_version_hash.is_empty() {
        entry["storageVersionHash"] = json!(resource.storage_version_hash);
    }
    entry
}

fn subresource_entry(resource: &Resource, sub: &Subresource, name: &str) -> Value {
    let mut entry = json!({"name": name, "singularName": "", "namespaced": resource.namespaced});
    if (sub.group, sub.version) != (resource.group, resource.version) {
        entry["group"] = json!(sub.group);
        entry["version"] = json!(sub.version);
    }
    entry["kind"] = json!(sub.kind);
    entry["verbs"] = json!(sub.verbs);
    entry
}

/// Aggregated discovery; `version` is `v2` or `v2beta1`. `core`: for `/api`,
/// else for `/apis`.
pub fn aggregated(core: bool, version: &str) -> Value {
    let groups: Vec<&str> = if core { vec![""] } else { named_groups() };
    let items: Vec<Value> = groups.into_iter().map(aggregated_group).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(own, _)| *own == group)
        .map(|(group, version)| {
            let mut resources: Vec<&Resource> = resources_of(group, version).collect();
            resources.sort_by_key(|resource| resource.plural);
            let resources: Vec<Value> = resources.into_iter().map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({})
    } else {
        json!({"name": group})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(resource.group, resource.version, resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    for (name, list) in [
        ("shortNames", resource.short_names),
        ("categories", resource.categories),
    ] {
        if !list.is_empty() {
            entry[name] = json!(list);
        }
    }
    if !resource.subresources.is_empty() {
        let subresources: Vec<Value> = resource
            .subresources
            .iter()
            .map(|sub| {
                json!({
                    "subresource": sub.name,
                    "responseKind": kind(sub.group, sub.version, sub.kind),
                    "verbs": sub.verbs,
                })
            })
            .collect();
        entry["subresources"] = json!(subresources);
    }
    entry
}

/// `GET /version`: the release whose API is served, and this build.
/// `build_date` is RFC 3339 or empty; `platform` as `linux/amd64`.
pub fn version(git_commit: &str, build_date: &str, compiler: &str, platform: &str) -> Value {
    let release = crate::schema::release();
    let mut numbers = release.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": format!("{release}+nautilus"),
        "gitCommit": git_commit,
        "gitTreeState": "clean",
        "buildDate": build_date,
        "goVersion": "",
        "compiler": compiler,
        "platform": platform,
    })
}

/// An entity tag: a hash of the bytes, in upper-case hex (FNV-1a, 128 bits; not
/// for secrets).
pub fn entity_tag(bytes: &[u8]) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in bytes {
        hash ^= u128::from(*byte);
        hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    format!("{hash:032X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_lists_its_kinds_as_the_reference_does() {
        let list = api_resource_list("coordination.k8s.io", "v1").expect("served");
        assert_eq!(
            list.to_string(),
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"coordination.k8s.io/v1","resources":[{"name":"leases","singularName":"lease","namespaced":true,"kind":"Lease","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"storageVersionHash":"gqkMMb/YqFM="}]}"#
        );
        assert!(api_resource_list("apps", "v1").is_none());
    }

    #[test]
    fn aggregated_discovery_has_every_group_once() {
        let document = aggregated(false, "v2");
        let names: Vec<&str> = document["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, ["coordination.k8s.io", "events.k8s.io"]);
        let core = aggregated(true, "v2");
        let pods = core["items"][0]["versions"][0]["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|resource| resource["resource"] == "pods");
        assert_eq!(
            pods.map(|pods| &pods["subresources"][2]["subresource"]),
            Some(&json!("status"))
        );
    }

    #[test]
    fn the_tag_changes_with_the_bytes() {
        assert_ne!(entity_tag(b"a"), entity_tag(b"b"));
        assert_eq!(entity_tag(b"a").len(), 32);
    }
}
