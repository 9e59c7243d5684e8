//! Discovery documents, from the table of kinds: legacy and aggregated.
//!
//! Pure functions of the table (and of the server's addresses for `/api`): the
//! same release gives the same bytes, so their hash is a good `ETag`.

use serde_json::{Map, Value, json};

use crate::resource::{self, Index, Resource, Subresource};

/// The group and version pairs served, in the order of the kinds.
pub fn group_versions(kinds: &Index) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for resource in kinds.all() {
        let pair = (resource.group.as_str(), resource.version.as_str());
        if found.last() != Some(&pair) && !found.contains(&pair) {
            found.push(pair);
        }
    }
    found
}

/// `GET /`: what is served, by path; `groups`: the groups and versions.
pub fn root_paths(groups: &[(&str, &str)]) -> Value {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/apis",
        "/apis/",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for (group, version) in groups {
        let root = match *group {
            "" => "/api".to_owned(),
            group => format!("/apis/{group}"),
        };
        paths.push(format!("{root}/{version}"));
        paths.push(root);
    }
    paths.sort_unstable();
    paths.dedup();
    json!({ "paths": paths })
}

/// The kinds of one group and version, by plural name.
fn resources_of<'a>(kinds: &'a Index, group: &str, version: &str) -> Vec<&'a Resource> {
    let mut found: Vec<&Resource> = kinds
        .all()
        .iter()
        .map(AsRef::as_ref)
        .filter(|r| r.group == group && r.version == version)
        .collect();
    found.sort_by(|left, right| left.plural.cmp(&right.plural));
    found
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
pub fn api_group_list(kinds: &Index) -> Value {
    let pairs = group_versions(kinds);
    let groups: Vec<Value> = named_groups(&pairs)
        .into_iter()
        .map(|group| group_entry(&pairs, group))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/<group>`: `APIGroup`, `None` for a group not served.
pub fn api_group(kinds: &Index, group: &str) -> Option<Value> {
    let pairs = group_versions(kinds);
    let group = named_groups(&pairs).into_iter().find(|own| *own == group)?;
    let mut document = Map::new();
    document.insert("kind".to_owned(), json!("APIGroup"));
    document.insert("apiVersion".to_owned(), json!("v1"));
    if let Value::Object(entry) = group_entry(&pairs, group) {
        document.extend(entry);
    }
    Some(Value::Object(document))
}

fn named_groups<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    let mut groups: Vec<&str> = Vec::new();
    for (group, _) in pairs {
        if !group.is_empty() && !groups.contains(group) {
            groups.push(group);
        }
    }
    groups
}

fn group_entry(pairs: &[(&str, &str)], group: &str) -> Value {
    let versions: Vec<Value> = pairs
        .iter()
        .filter(|(own, _)| *own == group)
        .map(|(group, version)| {
            json!({"groupVersion": resource::api_version(group, version), "version": version})
        })
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

/// `GET /api/v1` and `/apis/<group>/<version>`: `APIResourceList`, `None` for
/// what is not served.
pub fn api_resource_list(kinds: &Index, group: &str, version: &str) -> Option<Value> {
    let mut resources: Vec<Value> = Vec::new();
    for resource in resources_of(kinds, group, version) {
        resources.push(resource_entry(resource));
        let subresources = resource.subresources.iter();
        resources.extend(subresources.map(|sub| subresource_entry(resource, sub)));
    }
    if resources.is_empty() {
        return None;
    }
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
        ("shortNames", &resource.short_names),
        ("categories", &resource.categories),
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

fn subresource_entry(resource: &Resource, sub: &Subresource) -> Value {
    let name = format!("{}/{}", resource.plural, sub.name);
    let mut entry = json!({"name": name, "singularName": "", "namespaced": resource.namespaced});
    if !is_own(resource, sub) {
        entry["group"] = json!(sub.group);
        entry["version"] = json!(sub.version);
    }
    entry["kind"] = json!(sub.kind);
    entry["verbs"] = json!(sub.verbs);
    entry
}

/// Whether the subresource's body is of a kind of its owner's group and version.
fn is_own(resource: &Resource, sub: &Subresource) -> bool {
    sub.group == resource.group && sub.version == resource.version
}

/// Aggregated discovery; `version` is `v2` or `v2beta1`. `core`: for `/api`,
/// else for `/apis`.
pub fn aggregated(kinds: &Index, core: bool, version: &str) -> Value {
    let pairs = group_versions(kinds);
    let groups: Vec<&str> = if core { vec![""] } else { named_groups(&pairs) };
    let items: Vec<Value> = groups
        .into_iter()
        .map(|group| aggregated_group(kinds, &pairs, group))
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(kinds: &Index, pairs: &[(&str, &str)], group: &str) -> Value {
    let versions: Vec<Value> = pairs
        .iter()
        .filter(|(own, _)| *own == group)
        .map(|(group, version)| {
            let resources: Vec<Value> = resources_of(kinds, group, version)
                .into_iter()
                .map(aggregated_resource)
                .collect();
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

/// A built-in kind of the group and version that the entry stands in is named without them.
fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let (own_group, own_version) = match &resource.defined {
        Some(_) => (resource.group.as_str(), resource.version.as_str()),
        None => ("", ""),
    };
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(own_group, own_version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    for (name, list) in [
        ("shortNames", &resource.short_names),
        ("categories", &resource.categories),
    ] {
        if !list.is_empty() {
            entry[name] = json!(list);
        }
    }
    if !resource.subresources.is_empty() {
        let subresources = resource.subresources.iter().map(|sub| {
            let (group, version) = match is_own(resource, sub) {
                true => (own_group, own_version),
                false => (sub.group.as_str(), sub.version.as_str()),
            };
            json!({
                "subresource": sub.name,
                "responseKind": kind(group, version, &sub.kind),
                "verbs": sub.verbs,
            })
        });
        entry["subresources"] = subresources.collect();
    }
    entry
}

/// `GET /version`: the release whose API is served, and this build.
/// `build_date` is RFC 3339 or empty; `platform` as `linux/amd64`.
pub fn version(git_commit: &str, build_date: &str, compiler: &str, platform: &str) -> Value {
    let release = crate::schema::release();
    let mut numbers = release.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    // As the reference has it: one release back.
    let oldest = minor.parse::<u32>().unwrap_or_default().saturating_sub(1);
    json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": oldest.to_string(),
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
    use crate::resource::built_in;

    #[test]
    fn a_group_lists_its_kinds_as_the_reference_does() {
        let list = api_resource_list(built_in(), "coordination.k8s.io", "v1").expect("served");
        assert_eq!(
            list.to_string(),
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"coordination.k8s.io/v1","resources":[{"name":"leases","singularName":"lease","namespaced":true,"kind":"Lease","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"storageVersionHash":"gqkMMb/YqFM="}]}"#
        );
        assert!(api_resource_list(built_in(), "apps", "v1beta1").is_none());
    }

    #[test]
    fn aggregated_discovery_has_every_group_once() {
        let document = aggregated(built_in(), false, "v2");
        let items = document["items"].as_array().expect("a list");
        let mut names: Vec<&str> = items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names.first(), Some(&"apiregistration.k8s.io"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), items.len());
        let autoscaling = items
            .iter()
            .find(|item| item["metadata"]["name"] == "autoscaling");
        let versions = &autoscaling.expect("served")["versions"];
        assert_eq!(
            (&versions[0]["version"], &versions[1]["version"]),
            (&json!("v2"), &json!("v1"))
        );
    }

    #[test]
    fn a_foreign_body_of_a_subresource_is_named_in_full() {
        let core = aggregated(built_in(), true, "v2");
        let resources = core["items"][0]["versions"][0]["resources"].as_array();
        let pods = resources
            .expect("a list")
            .iter()
            .find(|entry| entry["resource"] == "pods");
        let subresources = pods.expect("served")["subresources"]
            .as_array()
            .expect("a list");
        let kind = |name: &str| {
            let sub = subresources.iter().find(|sub| sub["subresource"] == name);
            sub.map(|sub| sub["responseKind"].to_string())
        };
        assert_eq!(
            kind("status").as_deref(),
            Some(r#"{"group":"","version":"","kind":"Pod"}"#)
        );
        assert_eq!(
            kind("eviction").as_deref(),
            Some(r#"{"group":"policy","version":"v1","kind":"Eviction"}"#)
        );
    }

    #[test]
    fn the_tag_changes_with_the_bytes() {
        assert_ne!(entity_tag(b"a"), entity_tag(b"b"));
        assert_eq!(entity_tag(b"a").len(), 32);
    }
}
