//! What a client discovers is what it discovers of a kube-apiserver, document by document, in
//! order: the aggregated lists, the groups, each version's resources with their verbs, short
//! names, categories and the hashes of their storage versions.
//!
//! Normalised: the address in `serverAddressByClientCIDRs`, which is the server's own; and of
//! ours what a kube-apiserver never answers itself, but has an extension server for.

use std::path::Path;
use std::process::Command;

use nautilus_tests::{ApiServer, Quorum, program};
use serde_json::Value;

/// Every document, by its path and the form that was asked for.
fn documents(kubeconfig: &Path) -> Value {
    let output = Command::new(program("discovery"))
        .arg(kubeconfig)
        .output()
        .expect("the client's program");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let mut documents: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let addresses = "/~1api/body/serverAddressByClientCIDRs/0/serverAddress";
    let address = documents.pointer_mut(addresses).expect("the address");
    assert!(address.as_str().is_some_and(|found| found.contains(':')));
    *address = Value::Null;
    documents
}

/// The group that the reference leaves to metrics-server.
const EXTENSION_GROUP: &str = "metrics.k8s.io";

/// The same without a group: its own documents, and its entries in those of all groups.
fn without_group(document: &mut Value, group: &str) {
    match document {
        Value::Object(fields) => {
            let own = format!("/apis/{group}");
            fields.retain(|path, _| !path.starts_with(&own));
            fields
                .values_mut()
                .for_each(|value| without_group(value, group));
        }
        Value::Array(items) => {
            items.retain(|item| item["name"] != group && item["metadata"]["name"] != group);
            items.iter_mut().for_each(|item| without_group(item, group));
        }
        _ => {}
    }
}

/// What differs, by its path; `None` where nothing does.
fn difference(path: &str, theirs: &Value, ours: &Value) -> Option<String> {
    match (theirs, ours) {
        (Value::Object(these), Value::Object(those)) => {
            let absent = those.keys().find(|key| !these.contains_key(*key));
            absent
                .map(|key| format!("{path}/{key}: only ours"))
                .or_else(|| {
                    these.iter().find_map(|(key, value)| {
                        let other = those.get(key).unwrap_or(&Value::Null);
                        difference(&format!("{path}/{key}"), value, other)
                    })
                })
        }
        (Value::Array(these), Value::Array(those)) if these.len() == those.len() => {
            let mut pairs = these.iter().zip(those).enumerate();
            pairs.find_map(|(index, (one, other))| {
                difference(&format!("{path}/{index}"), one, other)
            })
        }
        _ if theirs == ours => None,
        _ => Some(format!("{path}: {theirs} there, {ours} here")),
    }
}

#[test]
fn discovery_is_a_kube_apiservers() {
    let quorum = Quorum::start();
    let reference = ApiServer::start(&quorum);
    let (own, other) = (quorum.dir().join("kubeconfig"), reference.kubeconfig());
    let (mut ours, theirs) = (documents(&own), documents(&other));
    let path = format!("/apis/{EXTENSION_GROUP}/v1beta1");
    assert!(ours.get(&path).is_some(), "{path} is discovered");
    without_group(&mut ours, EXTENSION_GROUP);
    let count = theirs.as_object().map_or(0, serde_json::Map::len);
    assert!(count > 40, "{count} documents");
    assert_eq!(difference("", &theirs, &ours), None);
}
