//! The scheduler against plain rules, on random clusters that came to be by random deltas.

mod plain;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use self::plain::Plain;
use super::{PodInfo, Profile, Snapshot, explain};
use crate::controller::Change;
use crate::kind::{self, Kind};
use crate::object;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn labels(choices: &[(&'static str, &[&'static str])]) -> impl Strategy<Value = Value> + use<> {
    let pairs: Vec<_> = choices
        .iter()
        .map(|(key, values)| (Just(*key), of(select(values.to_vec()))))
        .collect();
    pairs.prop_map(|pairs| {
        let given = pairs.into_iter();
        let given = given.filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
        Value::Object(given.collect())
    })
}

fn pod_labels() -> impl Strategy<Value = Value> {
    labels(&[("app", &["a", "b"]), ("tier", &["1", "2"])])
}

fn selector() -> impl Strategy<Value = Value> {
    let expression = select(vec![
        json!([]),
        json!([{"key": "tier", "operator": "Exists"}]),
        json!([{"key": "app", "operator": "NotIn", "values": ["b"]}]),
    ]);
    prop_oneof![
        8 => pod_labels().prop_map(|labels| json!({ "matchLabels": labels })),
        2 => (pod_labels(), expression)
            .prop_map(|(labels, more)| json!({"matchLabels": labels, "matchExpressions": more})),
        1 => Just(Value::Null),
    ]
}

fn term() -> impl Strategy<Value = Value> {
    let whose = select(vec![
        json!({}),
        json!({"namespaces": ["y"]}),
        json!({"namespaceSelector": {}}),
        json!({"namespaceSelector": {"matchLabels": {"team": "y"}}}),
    ]);
    (selector(), select(vec![HOST, ZONE]), whose).prop_map(|(selector, key, mut term)| {
        term["labelSelector"] = selector;
        term["topologyKey"] = key.into();
        term
    })
}

fn pod_terms() -> impl Strategy<Value = Value> {
    let few = || vec(term(), 0..2);
    let weighted = || {
        let one = (1..100_i64, term());
        vec(one, 0..2).prop_map(|terms| {
            let terms = terms.into_iter();
            let terms =
                terms.map(|(weight, term)| json!({"weight": weight, "podAffinityTerm": term}));
            Value::Array(terms.collect())
        })
    };
    (few(), weighted()).prop_map(|(required, preferred)| {
        json!({
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        })
    })
}

fn node_terms() -> impl Strategy<Value = Value> {
    let expression = select(vec![
        json!({"key": "disk", "operator": "In", "values": ["ssd", "odd"]}),
        json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]}),
        json!({"key": "disk", "operator": "DoesNotExist"}),
        json!({"key": ZONE, "operator": "Exists"}),
        json!({"key": "size", "operator": "Gt", "values": ["3"]}),
        json!({"key": "size", "operator": "Lt", "values": ["5"]}),
        json!({"key": "never", "operator": "NotIn", "values": ["a"]}),
    ]);
    vec(expression, 1..3).prop_map(|own| json!({ "matchExpressions": own }))
}

fn constraint() -> impl Strategy<Value = Value> {
    (
        (selector(), select(vec![HOST, ZONE]), 1..3_i64),
        select(vec!["DoNotSchedule", "ScheduleAnyway"]),
        of(1..4_i64),
        of(select(vec!["Honor", "Ignore"])),
        of(select(vec!["Honor", "Ignore"])),
        any::<bool>(),
    )
        .prop_map(
            |((selector, key, skew), action, domains, affinity, taints, keys)| {
                let mut own = json!({"labelSelector": selector, "topologyKey": key, "maxSkew": skew,
                "whenUnsatisfiable": action});
                let mut set = |field: &str, value: Option<Value>| {
                    if let Some(value) = value {
                        own[field] = value;
                    }
                };
                set("minDomains", domains.map(Value::from));
                set("nodeAffinityPolicy", affinity.map(Value::from));
                set("nodeTaintsPolicy", taints.map(Value::from));
                if keys && selector.is_object() {
                    own["matchLabelKeys"] = json!(["tier"]);
                }
                own
            },
        )
}

fn containers() -> impl Strategy<Value = Value> {
    let requests = (of(1..4_i64), of(1..4_i64), of(1..3_i64));
    let one = (requests, of(80..83_u64), select(vec!["i:1", "j:1"]));
    vec(one, 1..3).prop_map(|containers| {
        let read = containers
            .into_iter()
            .map(|((cpu, memory, device), port, image)| {
                let mut requests = json!({});
                for (name, amount) in [
                    ("cpu", cpu),
                    ("memory", memory.map(|own| own << 28)),
                    ("x.io/g", device),
                ] {
                    if let Some(amount) = amount {
                        requests[name] = amount.into();
                    }
                }
                let ports: Vec<Value> = port
                    .map(|own| json!({ "hostPort": own }))
                    .into_iter()
                    .collect();
                json!({"image": image, "ports": ports, "resources": {"requests": requests}})
            });
        Value::Array(read.collect())
    })
}

/// Whatever `node` it is on; `spec.affinity` of pods alone.
fn pod() -> impl Strategy<Value = Value> {
    let affinity = of((pod_terms(), pod_terms()));
    let ends = prop::bool::weighted(0.1);
    (
        select(vec!["x", "y"]),
        pod_labels(),
        containers(),
        affinity,
        ends,
    )
        .prop_map(|(namespace, labels, containers, affinity, ends)| {
            let mut pod = json!({"metadata": {"namespace": namespace, "labels": labels},
                "spec": {"containers": containers}});
            if let Some((near, far)) = affinity {
                pod["spec"]["affinity"] = json!({"podAffinity": near, "podAntiAffinity": far});
            }
            if ends {
                pod["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
            }
            pod
        })
}

fn incoming() -> impl Strategy<Value = Value> {
    let toleration = select(vec![
        json!({"key": "k", "operator": "Exists"}),
        json!({"key": "k", "value": "v", "effect": "NoSchedule"}),
        json!({"operator": "Exists", "effect": "PreferNoSchedule"}),
        json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}),
    ]);
    let preferred = vec((1..100_i64, node_terms()), 0..3);
    (
        pod(),
        vec(toleration, 0..3),
        of(vec(node_terms(), 1..3)),
        preferred,
        of(vec(constraint(), 1..3)),
        labels(&[("disk", &["ssd"])]),
    )
        .prop_map(|(mut pod, tolerations, required, preferred, spread, selector)| {
            pod["metadata"]["uid"] = "incoming".into();
            pod["metadata"]["name"] = "incoming".into();
            if let Some(metadata) = pod["metadata"].as_object_mut() {
                metadata.remove("deletionTimestamp");
            }
            let spec = &mut pod["spec"];
            spec["tolerations"] = tolerations.into();
            spec["nodeSelector"] = selector;
            if let Some(terms) = required {
                spec["affinity"]["nodeAffinity"]
                    ["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": terms});
            }
            let preferred = preferred.into_iter();
            let preferred = preferred.map(|(weight, term)| json!({"weight": weight, "preference": term}));
            spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
                Value::Array(preferred.collect());
            if let Some(spread) = spread {
                spec["topologySpreadConstraints"] = spread.into();
            }
            pod
        })
}

fn node() -> impl Strategy<Value = Value> {
    let taint = select(vec![
        json!({"key": "k", "value": "v", "effect": "NoSchedule"}),
        json!({"key": "k", "value": "w", "effect": "NoExecute"}),
        json!({"key": "l", "value": "", "effect": "PreferNoSchedule"}),
        json!({"key": "k", "value": "v", "effect": "PreferNoSchedule"}),
    ]);
    (
        labels(&[(ZONE, &["a", "b"]), ("disk", &["ssd", "hdd"]), ("size", &["2", "4", "x"])]),
        prop::bool::weighted(0.9),
        vec(taint, 0..2),
        prop::bool::weighted(0.1),
        (1..12_i64, 0..12_i64, 0..6_i64, 2..8_i64),
        vec(select(vec![("i:1", 1), ("j:1", 2)]), 0..2),
    )
        .prop_map(|(labels, named, taints, cordoned, room, images)| {
            let (cpu, memory, devices, pods) = room;
            let mut images = images;
            images.dedup();
            let images = images.into_iter();
            let images = images.map(|(name, size)| json!({"names": [name], "sizeBytes": size * (300 << 20)}));
            json!({
                "metadata": {"labels": labels, "annotations": {"named": named}},
                "spec": {"taints": taints, "unschedulable": cordoned},
                "status": {
                    "allocatable": {"cpu": cpu, "memory": memory << 28, "pods": pods, "x.io/g": devices},
                    "images": images.collect::<Vec<Value>>(),
                },
            })
        })
}

#[derive(Debug, Clone)]
struct World {
    plain: Plain,
    /// What came and went again, or was otherwise first.
    detours: Vec<(Kind, Value)>,
}

fn world() -> impl Strategy<Value = World> {
    let nodes = vec(node(), 1..6);
    let pods = vec((pod(), 0..7_usize), 0..12);
    let detours = (vec(node(), 0..3), vec((pod(), 0..7_usize), 0..6));
    let services = vec((select(vec!["x", "y"]), pod_labels()), 0..3);
    (nodes, pods, services, detours).prop_map(|(nodes, pods, services, detours)| {
        let name = |mut node: Value, at: usize| {
            node["metadata"]["name"] = format!("n{at}").into();
            if node["metadata"]["annotations"]["named"] == true {
                node["metadata"]["labels"][HOST] = format!("n{at}").into();
            }
            node
        };
        let place = |prefix: &str, at: usize, (mut pod, node): (Value, usize)| {
            let name = format!("{prefix}{at}");
            pod["metadata"]["name"] = name.clone().into();
            pod["metadata"]["uid"] = name.into();
            // Some nodes are not there.
            pod["spec"]["nodeName"] = format!("n{node}").into();
            pod
        };
        let services = services
            .into_iter()
            .enumerate()
            .map(|(at, (namespace, selector))| {
                json!({"metadata": {"namespace": namespace, "name": format!("s{at}")},
                "spec": {"selector": selector}})
            });
        let namespace = |name: &str| json!({"metadata": {"name": name, "labels": {"team": name}}});
        let number = |list: Vec<Value>| list.into_iter().enumerate();
        let plain = Plain {
            nodes: number(nodes).map(|(at, own)| name(own, at)).collect(),
            pods: pods
                .into_iter()
                .enumerate()
                .map(|(at, own)| place("p", at, own))
                .collect(),
            namespaces: ["x", "y"].map(namespace).to_vec(),
            services: services.collect(),
        };
        let (other_nodes, other_pods) = detours;
        let other_nodes = number(other_nodes).map(|(at, own)| (kind::NODES, name(own, at + 1)));
        let other_pods = other_pods.into_iter().enumerate();
        let other_pods = other_pods.map(|(at, own)| {
            // Some are pods of the world, elsewhere or otherwise at first.
            let prefix = if at % 2 == 0 { "p" } else { "q" };
            (kind::PODS, place(prefix, at, own))
        });
        World {
            plain,
            detours: other_nodes.chain(other_pods).collect(),
        }
    })
}

/// The snapshot after all detours.
fn snapshot(world: &World) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut there: BTreeMap<(Kind, String), Arc<Value>> = BTreeMap::new();
    let mut apply = |kind: Kind, name: String, after: Option<Value>| {
        let key = (kind, name);
        let before = there.remove(&key);
        let after = after.map(Arc::new);
        if let Some(after) = &after {
            there.insert(key, after.clone());
        }
        snapshot.apply(&Change {
            kind,
            before,
            after,
        });
    };
    let name = |own: &Value| format!("{}/{}", object::namespace(own), object::name(own));
    for (kind, own) in &world.detours {
        apply(*kind, name(own), Some(own.clone()));
    }
    let Plain {
        nodes,
        pods,
        namespaces,
        services,
    } = &world.plain;
    let all = [
        (kind::NODES, nodes),
        (kind::PODS, pods),
        (kind::NAMESPACES, namespaces),
        (kind::SERVICES, services),
    ];
    for (kind, own) in &world.detours {
        let stays = all
            .iter()
            .any(|(of, list)| of == kind && list.iter().any(|other| name(other) == name(own)));
        if !stays {
            apply(*kind, name(own), None);
        }
    }
    for (kind, list) in all {
        for own in list {
            apply(kind, name(own), Some(own.clone()));
        }
    }
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_node_is_judged_as_the_plain_rules_judge_it(world in world(), pod in incoming()) {
        let snapshot = snapshot(&world);
        let info = PodInfo::new(Arc::new(pod.clone()));
        let profile = Profile::default();
        let explanation = explain(&snapshot, &info, &profile);
        let plain = &world.plain;
        let expected: BTreeMap<&str, Option<String>> =
            plain.nodes.iter().map(object::name).zip(plain.reasons(&pod)).collect();
        let verdicts = explanation.verdicts.iter();
        let found: BTreeMap<&str, Option<String>> = verdicts
            .map(|own| {
                let reasons = own.rejection.as_ref().map(|own| own.reasons.join(", "));
                (own.node.as_str(), reasons)
            })
            .collect();
        prop_assert_eq!(found, expected);
        let by_name = |name: &str| plain.nodes.iter().find(|own| object::name(own) == name);
        let verdicts = explanation.verdicts.iter();
        let feasible: Vec<&Value> = verdicts
            .filter(|own| own.rejection.is_none())
            .filter_map(|own| by_name(&own.node))
            .collect();
        let scores = plain.scores(&pod, &feasible);
        for (plugin, expected) in scores {
            let found = explanation.scores.iter().find(|own| own.plugin.name() == plugin);
            let found = found.map_or(vec![0; feasible.len()], |own| own.scores.clone());
            prop_assert_eq!(found, expected, "{}", plugin);
        }
    }

    #[test]
    fn pods_that_came_and_went_leave_nothing_behind(world in world()) {
        let mut snapshot = snapshot(&world);
        for (kind, list) in [(kind::PODS, &world.plain.pods), (kind::NODES, &world.plain.nodes)] {
            for own in list {
                let before = Some(Arc::new(own.clone()));
                snapshot.apply(&Change { kind, before, after: None });
            }
        }
        prop_assert!(snapshot.is_bare());
    }
}
