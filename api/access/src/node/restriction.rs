//! What a node may write: its own objects, its mirror pods, the status of its pods,
//! and tokens for them.

use nautilus_machinery::identity::User;
use nautilus_machinery::status::{ApiError, quote};
use serde_json::Value;

use super::graph::MIRROR_ANNOTATION;
use super::labels::{forbidden_annotations, forbidden_labels};
use super::name_of;
use super::references::referenced;
use crate::attributes::Attributes;
use crate::certificates::Request;

/// A write as the rules see it.
pub struct Written<'a> {
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'a str,
    /// The API group.
    pub group: &'a str,
    /// As `pods`.
    pub plural: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for none.
    pub namespace: &'a str,
    /// Of the request; may be empty for a creation.
    pub name: &'a str,
    /// Who writes.
    pub user: &'a User,
    /// What is written; of a subresource, its own body.
    pub object: Option<&'a Value>,
    /// What stands.
    pub old: Option<&'a Value>,
    /// Finds an object by group, plural, namespace and name.
    pub lookup: Finder<'a>,
    /// Whether the writer may do something else besides.
    pub authorize: &'a dyn Fn(&Attributes) -> bool,
}

/// Finds an object by group, plural, namespace (empty for none) and name.
pub type Finder<'a> = &'a dyn Fn(&str, &str, &str, &str) -> Result<Option<Value>, ApiError>;

/// Refuses what a node may not write; lets other users pass. The error is a missing
/// object, or (as a plain 403 without a subject) the reason for a refusal.
pub fn restrict(written: &Written<'_>) -> Result<(), Restricted> {
    let Some(node) = name_of(written.user) else {
        return Ok(());
    };
    if node.is_empty() {
        return no(format!(
            "could not determine node from user {}",
            quote(&written.user.name)
        ));
    }
    let rule = Rule { node, written };
    match (written.group, written.plural) {
        ("", "pods") => rule.pod(),
        ("", "nodes") => rule.own_node(),
        ("", "persistentvolumeclaims") => rule.claim(),
        ("", "serviceaccounts") => rule.token(),
        ("coordination.k8s.io", "leases") => rule.lease(),
        ("storage.k8s.io", "csinodes") => rule.csi_node(),
        ("resource.k8s.io", "resourceslices") => rule.slice(),
        ("certificates.k8s.io", "certificatesigningrequests") => rule.certificate(),
        ("certificates.k8s.io", "podcertificaterequests") => {
            // A feature of the reference that is off unless it is asked for.
            no("PodCertificateRequest feature gate is disabled".to_owned())
        }
        _ => Ok(()),
    }
}

/// Why a write is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Restricted {
    /// Something it needs is not there, or could not be looked up.
    Missing(ApiError),
    /// It is forbidden, for this reason.
    Forbidden(String),
}

fn no(why: String) -> Result<(), Restricted> {
    Err(Restricted::Forbidden(why))
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

struct Rule<'a> {
    node: &'a str,
    written: &'a Written<'a>,
}

impl Rule<'_> {
    fn quoted(&self) -> String {
        quote(self.node)
    }

    fn object(&self) -> &Value {
        self.written.object.unwrap_or(&Value::Null)
    }

    fn old(&self) -> &Value {
        self.written.old.unwrap_or(&Value::Null)
    }

    fn find(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Value, Restricted> {
        (self.written.lookup)(group, plural, namespace, name)
            .and_then(|found| found.ok_or_else(|| ApiError::not_found_on(group, plural, name)))
            .map_err(Restricted::Missing)
    }

    fn unexpected(&self) -> Result<(), Restricted> {
        no(format!(
            "unexpected operation {}",
            quote(self.written.operation)
        ))
    }

    fn pod(&self) -> Result<(), Restricted> {
        let node = self.quoted();
        match (self.written.subresource, self.written.operation) {
            ("", "CREATE") => self.mirror_pod(),
            ("", "DELETE") if text(self.old(), "/spec/nodeName") == self.node => Ok(()),
            ("", "DELETE") => no(format!(
                "node {node} can only delete pods with spec.nodeName set to itself"
            )),
            ("", operation) => no(format!(
                "unexpected operation {}, node {node} can only create and delete mirror pods",
                quote(operation)
            )),
            ("status", "UPDATE") => self.pod_status(),
            ("eviction", "CREATE") => {
                let name = Some(self.written.name)
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| text(self.object(), "/metadata/name"));
                if name.is_empty() {
                    return no("could not determine pod from request data".to_owned());
                }
                let pod = self.find("", "pods", self.written.namespace, name)?;
                if text(&pod, "/spec/nodeName") == self.node {
                    return Ok(());
                }
                no(format!(
                    "node {} can only evict pods with spec.nodeName set to itself",
                    self.node
                ))
            }
            ("status" | "eviction", _) => self.unexpected(),
            (other, _) => no(format!(
                "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                quote(other)
            )),
        }
    }

    fn mirror_pod(&self) -> Result<(), Restricted> {
        let (node, pod) = (self.quoted(), self.object());
        if pod["metadata"]["annotations"][MIRROR_ANNOTATION].is_null() {
            return no(format!(
                "pod does not have {} annotation, node {node} can only create mirror pods",
                quote(MIRROR_ANNOTATION)
            ));
        }
        if text(pod, "/spec/nodeName") != self.node {
            return no(format!(
                "node {node} can only create pods with spec.nodeName set to itself"
            ));
        }
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let [owner] = owners.map_or(&[][..], Vec::as_slice) else {
            let what = match owners.map_or(0, Vec::len) {
                0 => "an owner reference",
                _ => "a single owner reference",
            };
            return no(format!(
                "node {node} can only create pods with {what} set to itself"
            ));
        };
        let itself =
            owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == self.node;
        if !itself {
            return no(format!(
                "node {node} can only create pods with an owner reference set to itself"
            ));
        }
        if owner["controller"] != true {
            return no(format!(
                "node {node} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"] == true {
            return no(format!(
                "node {node} must not set blockOwnerDeletion on an owner reference"
            ));
        }
        let own = self.find("", "nodes", "", self.node)?;
        let (uid, given) = (text(&own, "/metadata/uid"), text(owner, "/uid"));
        if uid != given {
            return no(format!(
                "node {} UID mismatch: expected {given} got {uid}",
                self.node
            ));
        }
        if let Some(kind) = referenced(pod) {
            return no(format!(
                "node {node} can not create pods that reference {kind}"
            ));
        }
        Ok(())
    }

    fn pod_status(&self) -> Result<(), Restricted> {
        let (node, old, new) = (self.quoted(), self.old(), self.object());
        if text(old, "/spec/nodeName") != self.node {
            return no(format!(
                "node {node} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
        let empty = |value: &Value| {
            value.is_null()
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty)
        };
        let same = |path: &str| {
            let of = |object: &Value| {
                let found = object.pointer(path);
                found.filter(|found| !empty(found)).cloned()
            };
            of(old) == of(new)
        };
        for (path, what) in [
            ("/metadata/labels", "labels through pod status"),
            ("/status/resourceClaimStatuses", "resource claim statues"),
            (
                "/status/extendedResourceClaimStatus",
                "extended resource claim status",
            ),
            (
                "/status/nodeAllocatableResourceClaimStatuses",
                "node allocatable resource claim statuses",
            ),
        ] {
            if !same(path) {
                return no(format!("node {node} cannot update {what}"));
            }
        }
        Ok(())
    }

    fn claim(&self) -> Result<(), Restricted> {
        if self.written.subresource != "status" {
            return no("may only update PVC status".to_owned());
        }
        if self.written.operation != "UPDATE" {
            return self.unexpected();
        }
        let kept = |object: &Value| {
            let mut object = object.clone();
            for (part, fields) in [
                ("metadata", &["resourceVersion", "managedFields"][..]),
                (
                    "status",
                    &[
                        "capacity",
                        "conditions",
                        "allocatedResourceStatuses",
                        "allocatedResources",
                    ],
                ),
            ] {
                if let Some(map) = object[part].as_object_mut() {
                    map.retain(|key, _| !fields.contains(&key.as_str()));
                }
            }
            object
        };
        if kept(self.old()) == kept(self.object()) {
            return Ok(());
        }
        no(format!(
            "node {} is not allowed to update fields other than status.quantity and \
             status.conditions",
            self.quoted()
        ))
    }

    fn own_node(&self) -> Result<(), Restricted> {
        let (node, old, new) = (self.quoted(), self.old(), self.object());
        let name = Some(self.written.name)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| text(new, "/metadata/name"));
        if name != self.node {
            return no(format!(
                "node {node} is not allowed to modify node {}",
                quote(name)
            ));
        }
        let source = |object: &Value| object["spec"]["configSource"].clone();
        match self.written.operation {
            "CREATE" => {
                if !source(new).is_null() {
                    return no(format!(
                        "node {node} is not allowed to create pods with a non-nil configSource"
                    ));
                }
                let labels = forbidden_labels(new, &Value::Null);
                if !labels.is_empty() {
                    return no(format!(
                        "node {node} is not allowed to set the following labels: {}",
                        labels.join(", ")
                    ));
                }
                let annotations = forbidden_annotations(new, &Value::Null);
                if !annotations.is_empty() {
                    return no(format!(
                        "node {node} is not allowed to set the following annotations: {}",
                        annotations.join(", ")
                    ));
                }
            }
            "UPDATE" => {
                if !source(new).is_null() && source(new) != source(old) {
                    return no(format!(
                        "node {node} is not allowed to update configSource to a new non-nil \
                         configSource"
                    ));
                }
                for (path, what) in [
                    ("/spec/taints", "taints"),
                    ("/metadata/ownerReferences", "ownerReferences"),
                ] {
                    let list = |object: &Value| {
                        let found = object.pointer(path).and_then(Value::as_array);
                        found.cloned().unwrap_or_default()
                    };
                    if list(old) != list(new) {
                        return no(format!("node {node} is not allowed to modify {what}"));
                    }
                }
                let labels = forbidden_labels(new, old);
                if !labels.is_empty() {
                    return no(format!(
                        "is not allowed to modify labels: {}",
                        labels.join(", ")
                    ));
                }
                let annotations = forbidden_annotations(new, old);
                if !annotations.is_empty() {
                    return no(format!(
                        "is not allowed to modify annotations: {}",
                        annotations.join(", ")
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn token(&self) -> Result<(), Restricted> {
        if self.written.operation != "CREATE" || self.written.subresource != "token" {
            return Ok(());
        }
        let reference = &self.object()["spec"]["boundObjectRef"];
        let name = text(reference, "/name");
        if reference["apiVersion"] != "v1" || reference["kind"] != "Pod" || name.is_empty() {
            return no("node requested token not bound to a pod".to_owned());
        }
        let uid = text(reference, "/uid");
        if uid.is_empty() {
            return no("node requested token with a pod binding without a uid".to_owned());
        }
        let pod = self.find("", "pods", self.written.namespace, name)?;
        if uid != text(&pod, "/metadata/uid") {
            return no(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ));
        }
        if text(&pod, "/spec/nodeName") != self.node {
            let why = "node requested token bound to a pod scheduled on a different node";
            return no(why.to_owned());
        }
        self.audience(&pod)
    }

    /// A node asks for tokens of those audiences only that its pod names.
    fn audience(&self, pod: &Value) -> Result<(), Restricted> {
        let audiences = self.object()["spec"]["audiences"].as_array();
        let audience = match audiences.map_or(&[][..], Vec::as_slice) {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return no("node may only request 0 or 1 audiences".to_owned()),
        };
        let asked = Attributes {
            verb: "request-serviceaccounts-token-audience".to_owned(),
            is_resource: true,
            version: "v1".to_owned(),
            resource: audience.to_owned(),
            namespace: self.written.namespace.to_owned(),
            name: self.written.name.to_owned(),
            ..Attributes::default()
        };
        if self.pod_names_audience(pod, audience) || (self.written.authorize)(&asked) {
            return Ok(());
        }
        no(format!(
            "{} is not authorized to request tokens for audience {}",
            self.written.user.name,
            quote(audience)
        ))
    }

    fn pod_names_audience(&self, pod: &Value, audience: &str) -> bool {
        let list = |value: &Value, field: &str| -> Vec<Value> {
            value[field].as_array().cloned().unwrap_or_default()
        };
        let named = |token: &Value| text(token, "/audience") == audience;
        list(&pod["spec"], "volumes").iter().any(|volume| {
            let projected = list(&volume["projected"], "sources").iter().any(|source| {
                source["serviceAccountToken"].is_object() && named(&source["serviceAccountToken"])
            });
            projected
                || self.driver_of(pod, volume).is_some_and(|driver| {
                    self.find("storage.k8s.io", "csidrivers", "", &driver)
                        .is_ok_and(|driver| {
                            list(&driver["spec"], "tokenRequests").iter().any(named)
                        })
                })
        })
    }

    /// The CSI driver behind a pod's volume.
    fn driver_of(&self, pod: &Value, volume: &Value) -> Option<String> {
        if let Some(driver) = volume.pointer("/csi/driver").and_then(Value::as_str) {
            return Some(driver.to_owned());
        }
        let claim = if volume["ephemeral"].is_object() {
            format!("{}-{}", text(pod, "/metadata/name"), text(volume, "/name"))
        } else {
            let claim = volume.pointer("/persistentVolumeClaim/claimName")?;
            claim.as_str()?.to_owned()
        };
        let namespace = self.written.namespace;
        let claim = self
            .find("", "persistentvolumeclaims", namespace, &claim)
            .ok()?;
        let name = text(&claim, "/spec/volumeName");
        let volume = self.find("", "persistentvolumes", "", name).ok()?;
        Some(volume.pointer("/spec/csi/driver")?.as_str()?.to_owned())
    }

    /// The name of what is written, also of a creation.
    fn written_name(&self) -> &str {
        if self.written.operation == "CREATE" {
            text(self.object(), "/metadata/name")
        } else {
            self.written.name
        }
    }

    fn lease(&self) -> Result<(), Restricted> {
        if self.written.namespace != "kube-node-lease" {
            return no("can only access leases in the \"kube-node-lease\" system namespace".into());
        }
        if self.written_name() == self.node {
            return Ok(());
        }
        no("can only access node lease with the same name as the requesting node".to_owned())
    }

    fn csi_node(&self) -> Result<(), Restricted> {
        if self.written_name() == self.node {
            return Ok(());
        }
        no("can only access CSINode with the same name as the requesting node".to_owned())
    }

    fn slice(&self) -> Result<(), Restricted> {
        let (object, verb) = match self.written.operation {
            "CREATE" => (self.object(), "create"),
            "DELETE" => (self.old(), "delete"),
            _ => return Ok(()),
        };
        if text(object, "/spec/nodeName") == self.node {
            return Ok(());
        }
        no(format!(
            "can only {verb} ResourceSlice with the same NodeName as the requesting node"
        ))
    }

    fn certificate(&self) -> Result<(), Restricted> {
        let signer = text(self.object(), "/spec/signerName");
        let of_kubelets = [
            "kubernetes.io/kubelet-serving",
            "kubernetes.io/kube-apiserver-client-kubelet",
        ];
        if self.written.operation != "CREATE" || !of_kubelets.contains(&signer) {
            return Ok(());
        }
        let request = match Request::of_object(self.object()) {
            Ok(request) => request,
            Err(error) => return no(format!("unable to parse csr: {error}")),
        };
        if request.common_name == format!("system:node:{}", self.node) {
            return Ok(());
        }
        no(format!(
            "can only create a node CSR with CN=system:node:{}",
            self.node
        ))
    }
}
