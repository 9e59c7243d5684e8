//! Whether a node may do what it asks, by what its pods need.

use super::graph::Graph;
use super::name_of;
use crate::Decision;
use crate::attributes::Attributes;
use crate::rbac::Rule;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::quote;

/// The namespace of nodes' leases.
const LEASES: &str = "kube-node-lease";

/// Decides for nodes; has no opinion on other users. `rules` are those of the role
/// `system:node`, for what is not about single objects.
pub fn authorize(graph: &Graph, rules: &[Rule], user: &User, asked: &Attributes) -> Decision {
    let Some(node) = name_of(user) else {
        return no("");
    };
    if node.is_empty() {
        return no(&format!("unknown node for user {}", quote(&user.name)));
    }
    if asked.is_resource {
        let request = Request { graph, node, asked };
        if let Some(decision) = request.judge() {
            return decision;
        }
    }
    if rules.iter().any(|rule| rule.allows(asked)) {
        yes()
    } else {
        no("")
    }
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn no(reason: &str) -> Decision {
    Decision::NoOpinion(reason.to_owned())
}

struct Request<'a> {
    graph: &'a Graph,
    node: &'a str,
    asked: &'a Attributes,
}

impl Request<'_> {
    /// `None` for kinds that all nodes may use alike.
    fn judge(&self) -> Option<Decision> {
        let Attributes {
            group,
            resource,
            subresource,
            ..
        } = self.asked;
        Some(match (group.as_str(), resource.as_str()) {
            ("", "secrets" | "configmaps") => self.read(),
            ("", "persistentvolumeclaims") if subresource == "status" => self.update_status(),
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments") => self.get(),
            ("", "serviceaccounts") => self.account(),
            ("coordination.k8s.io", "leases") => self.lease(),
            ("storage.k8s.io", "csinodes") => self.csi_node(),
            ("resource.k8s.io", "resourceslices") => self.slice(),
            ("", "nodes") => self.own_node(),
            ("", "pods") => self.pod(),
            ("certificates.k8s.io", "podcertificaterequests") => self.pod_certificate(),
            _ => return None,
        })
    }

    fn verb(&self) -> &str {
        &self.asked.verb
    }

    fn has_subresource(&self) -> bool {
        !self.asked.subresource.is_empty()
    }

    fn related(&self) -> Decision {
        let Attributes {
            resource,
            namespace,
            name,
            ..
        } = self.asked;
        if name.is_empty() {
            return no("No Object name found");
        }
        if self.graph.needs(self.node, resource, namespace, name) {
            return yes();
        }
        no(&format!(
            "no relationship found between node '{}' and this object",
            self.node
        ))
    }

    fn read(&self) -> Decision {
        if !matches!(self.verb(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if self.has_subresource() {
            return no("cannot read subresource");
        }
        if self.asked.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related()
    }

    fn get(&self) -> Decision {
        if self.verb() != "get" {
            return no("can only get individual resources of this type");
        }
        if self.has_subresource() {
            return no("cannot get subresource");
        }
        self.related()
    }

    fn update_status(&self) -> Decision {
        if !matches!(self.verb(), "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related()
    }

    fn account(&self) -> Decision {
        if self.verb() == "get" && !self.has_subresource() {
            return self.read();
        }
        if self.verb() != "create" || self.asked.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if self.asked.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related()
    }

    fn lease(&self) -> Decision {
        if !matches!(
            self.verb(),
            "get" | "create" | "update" | "patch" | "delete"
        ) {
            return no("can only get, create, update, patch, or delete a node lease");
        }
        if self.asked.namespace != LEASES {
            return no(&format!(
                "can only access leases in the {} system namespace",
                quote(LEASES)
            ));
        }
        if self.verb() != "create" && self.asked.name != self.node {
            return no("can only access node lease with the same name as the requesting node");
        }
        yes()
    }

    fn csi_node(&self) -> Decision {
        if self.has_subresource() {
            return no("cannot authorize CSINode subresources");
        }
        if !matches!(
            self.verb(),
            "get" | "create" | "update" | "patch" | "delete"
        ) {
            return no("can only get, create, update, patch, or delete a CSINode");
        }
        if self.verb() != "create" && self.asked.name != self.node {
            return no("can only access CSINode with the same name as the requesting node");
        }
        yes()
    }

    /// Whether the field selector asks for this node's objects alone.
    fn selects_own(&self) -> bool {
        self.asked
            .fields
            .iter()
            .any(|term| term.equal && term.field == "spec.nodeName" && term.value == self.node)
    }

    fn slice(&self) -> Decision {
        if self.has_subresource() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match self.verb() {
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => self.related(),
            "watch" | "list" | "deletecollection" if self.selects_own() => yes(),
            "watch" | "list" | "deletecollection" => no(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, \
                 create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn own_node(&self) -> Decision {
        let name = self.asked.name.as_str();
        match (self.asked.subresource.as_str(), self.verb()) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
            ("", "get" | "list" | "watch") if name == self.node => yes(),
            ("", "get" | "list" | "watch") if name.is_empty() => no(&format!(
                "node '{}' cannot read all nodes, only its own Node object",
                self.node
            )),
            ("", "get" | "list" | "watch") => no(&format!(
                "node '{}' cannot read '{name}', only its own Node object",
                self.node
            )),
            _ => no(""),
        }
    }

    fn pod(&self) -> Decision {
        match (self.asked.subresource.as_str(), self.verb()) {
            ("", "get") => self.get(),
            ("", "list" | "watch") if self.selects_own() => yes(),
            ("", "list" | "watch") if !self.asked.name.is_empty() => self.related(),
            ("", "list" | "watch") => {
                no("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                yes()
            }
            _ => no(""),
        }
    }

    fn pod_certificate(&self) -> Decision {
        if self.has_subresource() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match self.verb() {
            "create" => yes(),
            "get" => self.related(),
            "list" | "watch" if self.selects_own() => yes(),
            "list" | "watch" => {
                no("can only list/watch podcertificaterequests with nodeName field selector")
            }
            verb => no(&format!("nodes may not {verb} podcertificaterequests")),
        }
    }
}
