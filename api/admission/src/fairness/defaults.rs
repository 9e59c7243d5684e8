//! The schemas and levels that every cluster has: the mandatory ones, which are what the
//! server goes by whatever is stored, and the suggested ones, which administrators may
//! change.
//!
//! Source: the documentation of API priority and fairness, "Defaults".

use serde_json::{Value, json};

/// Objects with this annotation on `true` follow the server's defaults.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// The group of flow schemas and priority levels.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const GROUP_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

type Named = (&'static str, Value);

fn level(name: &'static str, spec: &Value) -> Named {
    let object = json!({
        "apiVersion": GROUP_VERSION,
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    });
    (name, object)
}

fn queued(name: &'static str, shares: u32, lends: u32, queues: u32, hand: u32) -> Named {
    level(
        name,
        &json!({
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": shares,
                "lendablePercent": lends,
                "limitResponse": {
                    "type": "Queue",
                    "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50},
                },
            },
        }),
    )
}

/// `exempt` and `catch-all`.
pub fn mandatory_levels() -> Vec<Named> {
    vec![
        level(
            "exempt",
            &json!({
                "type": "Exempt",
                "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
            }),
        ),
        level(
            "catch-all",
            &json!({
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 5,
                    "lendablePercent": 0,
                    "limitResponse": {"type": "Reject"},
                },
            }),
        ),
    ]
}

/// The others.
pub fn suggested_levels() -> Vec<Named> {
    vec![
        queued("system", 30, 33, 64, 6),
        queued("node-high", 40, 25, 64, 6),
        queued("leader-election", 10, 0, 16, 4),
        queued("workload-high", 40, 50, 128, 6),
        queued("workload-low", 100, 90, 128, 6),
        queued("global-default", 20, 50, 128, 6),
    ]
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// Every account of `kube-system`.
fn system_accounts() -> Value {
    json!({
        "kind": "ServiceAccount",
        "serviceAccount": {"name": "*", "namespace": "kube-system"},
    })
}

fn everybody() -> Vec<Value> {
    vec![
        group("system:unauthenticated"),
        group("system:authenticated"),
    ]
}

fn rule(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({
        "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"],
    });
    if cluster_scope {
        rule["clusterScope"] = json!(true);
    }
    rule
}

fn schema(
    name: &'static str,
    level: &str,
    precedence: u32,
    by: Option<&str>,
    rules: &Value,
) -> Named {
    let mut object = json!({
        "apiVersion": GROUP_VERSION,
        "kind": "FlowSchema",
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "rules": [rules],
        },
    });
    if let Some(by) = by {
        object["spec"]["distinguisherMethod"] = json!({"type": by});
    }
    (name, object)
}

/// Everything these subjects may ask.
fn anything(subjects: &[Value]) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [rule(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

/// `exempt` and `catch-all`.
pub fn mandatory_schemas() -> Vec<Named> {
    let masters = anything(&[group("system:masters")]);
    let all = anything(&everybody());
    vec![
        schema("exempt", "exempt", 1, None, &masters),
        schema("catch-all", "catch-all", 10_000, Some("ByUser"), &all),
    ]
}

/// The others.
pub fn suggested_schemas() -> Vec<Named> {
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    let nodes = || vec![group("system:nodes")];
    let probes = json!({
        "subjects": everybody(),
        "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]},
        ],
    });
    let leases = "coordination.k8s.io";
    let elections = json!({
        "subjects": [
            user("system:kube-controller-manager"),
            user("system:kube-scheduler"),
            system_accounts(),
        ],
        "resourceRules": [rule(&["get", "create", "update"], leases, &["leases"], false)],
    });
    let heartbeats = json!({
        "subjects": nodes(),
        "resourceRules": [
            rule(&["*"], "", &["nodes", "nodes/status"], true),
            rule(&["*"], leases, &["leases"], false),
        ],
    });
    let of_user = |name: &str| anything(&[user(name)]);
    vec![
        schema("system-nodes", "system", 500, by_user, &anything(&nodes())),
        schema("system-node-high", "node-high", 400, by_user, &heartbeats),
        schema("probes", "exempt", 2, None, &probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            &elections,
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            &of_user("system:kube-controller-manager"),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            &of_user("system:kube-scheduler"),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            &anything(&[system_accounts()]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            by_user,
            &anything(&[group("system:serviceaccounts")]),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            by_user,
            &anything(&everybody()),
        ),
    ]
}
