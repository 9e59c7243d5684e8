//! What nodes may do, by examples and against a graph made anew.

use nautilus_machinery::identity::{NODES_GROUP, User};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::graph::PodNeeds;
use super::*;
use crate::attributes::Attributes;

fn kubelet(name: &str) -> User {
    User::authenticated(format!("system:node:{name}"), vec![NODES_GROUP.into()])
}

fn pod(name: &str, node: &str, secret: &str) -> Value {
    json!({
        "metadata": { "namespace": "a", "name": name },
        "spec": {
            "nodeName": node,
            "serviceAccountName": "robot",
            "containers": [{ "env": [{ "valueFrom": { "secretKeyRef": { "name": secret } } }] }],
            "volumes": [{ "persistentVolumeClaim": { "claimName": secret } }],
        },
    })
}

fn set(graph: &mut Graph, name: &str, pod: Option<&Value>) {
    graph.set_pod("a", name, pod.and_then(PodNeeds::read));
}

fn ask(verb: &str, resource: &str, name: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        is_resource: true,
        resource: resource.into(),
        namespace: "a".into(),
        name: name.into(),
        ..Attributes::default()
    }
}

#[test]
fn a_node_reads_what_its_pods_name_and_nothing_else() {
    let mut graph = Graph::default();
    set(&mut graph, "web", Some(&pod("web", "n1", "s1")));
    let volume = json!({ "spec": {
        "claimRef": { "namespace": "a", "name": "s1" },
        "csi": { "nodeStageSecretRef": { "namespace": "b", "name": "stage" } },
    } });
    graph.set_volume("v1", Some(&volume));
    let may = |graph: &Graph, node: &str, asked: &Attributes| {
        authorize(graph, &[], &kubelet(node), asked).is_allowed()
    };
    let mut stage = ask("get", "secrets", "stage");
    stage.namespace = "b".into();
    let mut volume = ask("get", "persistentvolumes", "v1");
    volume.namespace.clear();
    for asked in [
        ask("get", "secrets", "s1"),
        ask("watch", "secrets", "s1"),
        ask("get", "serviceaccounts", "robot"),
        ask("get", "persistentvolumeclaims", "s1"),
        ask("get", "pods", "web"),
        volume,
        stage,
    ] {
        assert!(may(&graph, "n1", &asked), "{asked:?}");
        assert!(!may(&graph, "n2", &asked), "{asked:?}");
    }
    assert!(!may(&graph, "n1", &ask("get", "secrets", "s2")));
    assert!(!may(&graph, "n1", &ask("list", "secrets", "")));
    assert_eq!(
        authorize(&graph, &[], &kubelet("n2"), &ask("get", "secrets", "s1")).reason(),
        "no relationship found between node 'n2' and this object"
    );
    set(&mut graph, "web", None);
    assert!(!may(&graph, "n1", &ask("get", "secrets", "s1")));
}

#[test]
fn a_node_lists_its_own_pods_by_selector() {
    let graph = Graph::default();
    let mut asked = ask("list", "pods", "");
    let judged = authorize(&graph, &[], &kubelet("n1"), &asked);
    assert_eq!(
        judged.reason(),
        "can only list/watch pods with spec.nodeName field selector"
    );
    asked.fields =
        nautilus_machinery::selector::field_terms("spec.nodeName=n1").expect("a selector");
    assert!(authorize(&graph, &[], &kubelet("n1"), &asked).is_allowed());
    assert!(!authorize(&graph, &[], &kubelet("n2"), &asked).is_allowed());
}

#[test]
fn only_the_nodes_group_makes_a_node() {
    let alone = User::authenticated("system:node:n1", vec![]);
    assert_eq!(name_of(&alone), None);
    assert_eq!(name_of(&kubelet("n1")), Some("n1"));
    assert_eq!(
        name_of(&User::authenticated("n1", vec![NODES_GROUP.into()])),
        None
    );
}

proptest! {
    /// However pods came and went, the counts are those of the pods that are there.
    #[test]
    fn counts_follow_the_pods(
        steps in proptest::collection::vec((0..4_u8, 0..3_u8, 0..3_u8, any::<bool>()), 0..24)
    ) {
        let (mut graph, mut there) = (Graph::default(), std::collections::BTreeMap::new());
        for (name, node, secret, gone) in steps {
            let name = format!("p{name}");
            let object = pod(&name, &format!("n{node}"), &format!("s{secret}"));
            set(&mut graph, &name, Some(&object).filter(|_| !gone));
            if gone {
                there.remove(&name);
            } else {
                there.insert(name, (node, secret));
            }
        }
        for node in 0..3_u8 {
            for secret in 0..3_u8 {
                let needed = there.values().any(|own| *own == (node, secret));
                let found = graph.needs(&format!("n{node}"), "secrets", "a", &format!("s{secret}"));
                prop_assert_eq!(found, needed);
            }
        }
        for name in there.into_keys() {
            set(&mut graph, &name, None);
        }
        prop_assert_eq!(format!("{graph:?}"), format!("{:?}", Graph::default()));
    }
}

fn restricted(node: &str, operation: &str, plural: &str, object: &Value, old: &Value) -> String {
    let user = kubelet(node);
    let (group, plural) = plural.split_once(' ').unwrap_or(("", plural));
    let written = Written {
        operation,
        group,
        plural,
        subresource: "",
        namespace: "kube-node-lease",
        name: object["metadata"]["name"].as_str().unwrap_or_default(),
        user: &user,
        object: Some(object),
        old: Some(old),
        lookup: &|_, plural, _, name| {
            let found = json!({ "metadata": { "name": name, "uid": "u" } });
            Ok((plural == "nodes").then_some(found))
        },
        authorize: &|_| false,
    };
    match restrict(&written) {
        Ok(()) => String::new(),
        Err(Restricted::Forbidden(why)) => why,
        Err(Restricted::Missing(error)) => error.message().to_owned(),
    }
}

#[test]
fn a_node_writes_its_own_objects_only() {
    let node = |labels: Value| json!({ "metadata": { "name": "n1", "labels": labels } });
    let plain = node(json!({ "kubernetes.io/hostname": "n1", "mine": "x" }));
    assert_eq!(
        restricted("n1", "CREATE", "nodes", &plain, &Value::Null),
        ""
    );
    assert_eq!(
        restricted("n2", "CREATE", "nodes", &plain, &Value::Null),
        "node \"n2\" is not allowed to modify node \"n1\""
    );
    let steered = node(json!({ "node-restriction.kubernetes.io/pci": "1", "x.k8s.io/y": "1" }));
    assert_eq!(
        restricted("n1", "UPDATE", "nodes", &steered, &node(json!({}))),
        "is not allowed to modify labels: node-restriction.kubernetes.io/pci, x.k8s.io/y"
    );
    // What the quorum says of a node is not the kubelet's to say, nor to take back.
    for (field, key) in [
        ("labels", "nautilus.io/stake-tier"),
        ("annotations", "nautilus.io/node-id"),
        ("annotations", "nautilus.io/remove-from"),
    ] {
        let mut noted = plain.clone();
        noted["metadata"][field][key] = json!("x");
        let refusal = format!("is not allowed to modify {field}: {key}");
        for (new, old) in [(&noted, &plain), (&plain, &noted)] {
            assert_eq!(restricted("n1", "UPDATE", "nodes", new, old), refusal);
        }
        let refusal = format!("node \"n1\" is not allowed to set the following {field}: {key}");
        let made = restricted("n1", "CREATE", "nodes", &noted, &Value::Null);
        assert_eq!(made, refusal);
        let kept = restricted("n1", "UPDATE", "nodes", &noted, &noted);
        assert_eq!(kept, "");
    }
    let mut tainted = plain.clone();
    tainted["spec"] = json!({ "taints": [{ "key": "a" }] });
    assert_eq!(
        restricted("n1", "UPDATE", "nodes", &plain, &tainted),
        "node \"n1\" is not allowed to modify taints"
    );
    let lease = json!({ "metadata": { "name": "n1" } });
    let leases = "coordination.k8s.io leases";
    assert_eq!(restricted("n1", "CREATE", leases, &lease, &Value::Null), "");
    assert_eq!(
        restricted("n2", "UPDATE", leases, &lease, &Value::Null),
        "can only access node lease with the same name as the requesting node"
    );
}

#[test]
fn a_node_makes_mirror_pods_of_its_own_that_need_nothing() {
    let mirror = json!({
        "metadata": {
            "name": "static",
            "annotations": { "kubernetes.io/config.mirror": "h" },
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true },
            ],
        },
        "spec": { "nodeName": "n1", "volumes": [{ "name": "v", "hostPath": {} }] },
    });
    let create = |pod: &Value| restricted("n1", "CREATE", "pods", pod, &Value::Null);
    assert_eq!(create(&mirror), "");
    let mut changed = mirror.clone();
    changed["metadata"]["annotations"] = json!({});
    assert!(create(&changed).starts_with("pod does not have \"kubernetes.io/config.mirror\""));
    let mut changed = mirror.clone();
    changed["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "s" } }]);
    assert_eq!(
        create(&changed),
        "node \"n1\" can not create pods that reference secrets"
    );
    let mut changed = mirror;
    changed["metadata"]["ownerReferences"][0]["uid"] = "other".into();
    assert_eq!(
        create(&changed),
        "node n1 UID mismatch: expected other got u"
    );
}
