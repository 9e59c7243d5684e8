//! The rules as Kubernetes' documentation words them, over objects, slowly: no index, no
//! interning, no deltas. What the scheduler must agree with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::object;

/// Everything there is.
#[derive(Debug, Clone, Default)]
pub(super) struct Plain {
    pub(super) nodes: Vec<Value>,
    /// Bound ones.
    pub(super) pods: Vec<Value>,
    pub(super) namespaces: Vec<Value>,
    pub(super) services: Vec<Value>,
}

fn selects(selector: &Value, labels: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    let equal = selector["matchLabels"].as_object();
    let equal = equal.into_iter().flatten();
    equal
        .clone()
        .all(|(key, value)| labels.get(key) == Some(value))
        && object::items(&selector["matchExpressions"]).all(|own| holds(own, labels))
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let own = labels.get(expression["key"].as_str().expect("a key"));
    let values = &expression["values"];
    let among = || own.is_some_and(|own| object::items(values).any(|value| value == own));
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok());
    let compared = || Some((number(own?)?, number(&values[0])?));
    match expression["operator"].as_str().expect("an operator") {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => own.is_some(),
        "DoesNotExist" => own.is_none(),
        "Gt" => compared().is_some_and(|(own, bound)| own > bound),
        "Lt" => compared().is_some_and(|(own, bound)| own < bound),
        other => panic!("{other}"),
    }
}

fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

fn domain<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    labels(node).get(key)?.as_str()
}

fn amount(quantities: &Value, name: &str) -> i64 {
    quantities[name].as_i64().unwrap_or_default()
}

fn asked(pod: &Value, name: &str, unsaid: i64) -> i64 {
    let containers = object::items(&pod["spec"]["containers"]);
    let requests = containers.map(|own| &own["resources"]["requests"]);
    requests
        .map(|own| own.get(name).map_or(unsaid, |_| amount(own, name)))
        .sum()
}

fn tolerated(taint: &Value, pod: &Value) -> bool {
    object::items(&pod["spec"]["tolerations"]).any(|own| {
        let fits = |field: &str| own[field].is_null() || own[field] == taint[field];
        fits("effect")
            && fits("key")
            && (own["operator"] == "Exists" || own["value"] == taint["value"])
    })
}

fn terms<'a>(pod: &'a Value, field: &str, strength: &str) -> impl Iterator<Item = &'a Value> {
    let strength = format!("{strength}DuringSchedulingIgnoredDuringExecution");
    object::items(&pod["spec"]["affinity"][field][strength])
}

const REQUIRED: &str = "required";
const PREFERRED: &str = "preferred";

fn node_term_matches(term: &Value, node: &Value) -> bool {
    object::items(&term["matchExpressions"]).all(|own| holds(own, labels(node)))
}

fn is_where_it_wants(pod: &Value, node: &Value) -> bool {
    let wanted = pod["spec"]["nodeSelector"].as_object();
    let mut wanted = wanted.into_iter().flatten();
    let required =
        &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let mut alternatives = object::items(&required["nodeSelectorTerms"]);
    wanted.all(|(key, value)| labels(node).get(key) == Some(value))
        && (required.is_null() || alternatives.any(|term| node_term_matches(term, node)))
}

impl Plain {
    fn on<'a>(&'a self, node: &'a Value) -> impl Iterator<Item = &'a Value> {
        let name = &node["metadata"]["name"];
        self.pods
            .iter()
            .filter(move |pod| pod["spec"]["nodeName"] == *name)
    }

    fn in_domain<'a>(&'a self, node: &'a Value, key: &'a str) -> impl Iterator<Item = &'a Value> {
        let own = domain(node, key);
        let nodes = self.nodes.iter();
        nodes
            .filter(move |other| own.is_some() && domain(other, key) == own)
            .flat_map(|other| self.on(other))
    }

    /// Whether a term of `owner` means `pod`.
    fn means(&self, term: &Value, owner: &Value, pod: &Value) -> bool {
        let namespace = object::namespace(pod);
        let named = || object::items(&term["namespaces"]).any(|own| own == namespace);
        let nothing_said = term["namespaces"].is_null() && term["namespaceSelector"].is_null();
        let of_namespace = self
            .namespaces
            .iter()
            .find(|own| object::name(own) == namespace);
        let selected =
            || of_namespace.is_some_and(|own| selects(&term["namespaceSelector"], labels(own)));
        let same = || nothing_said && namespace == object::namespace(owner);
        (same() || named() || selected()) && selects(&term["labelSelector"], labels(pod))
    }

    /// The first reason against each node, in the nodes' order.
    pub(super) fn reasons(&self, pod: &Value) -> Vec<Option<String>> {
        let nodes = self.nodes.iter();
        nodes.map(|node| self.reason(pod, node)).collect()
    }

    fn reason(&self, pod: &Value, node: &Value) -> Option<String> {
        let keeps_off = |taint: &&Value| taint["effect"] != "PreferNoSchedule";
        let mut taints = object::items(&node["spec"]["taints"]).filter(keeps_off);
        let cordon = serde_json::json!({"key": "node.kubernetes.io/unschedulable",
            "effect": "NoSchedule", "value": ""});
        let say = |text: &str| Some(text.to_owned());
        if node["spec"]["unschedulable"] == true && !tolerated(&cordon, pod) {
            return say("node(s) were unschedulable");
        }
        if taints.any(|own| !tolerated(own, pod)) {
            return say("node(s) had untolerated taint(s)");
        }
        if !is_where_it_wants(pod, node) {
            return say("node(s) didn't match Pod's node affinity/selector");
        }
        if !self.ports_are_free(pod, node) {
            return say("node(s) didn't have free ports for the requested pod ports");
        }
        self.lack(pod, node)
            .or_else(|| self.is_uneven(pod, node))
            .or_else(|| self.is_among_wrong_pods(pod, node))
    }

    fn ports_are_free(&self, pod: &Value, node: &Value) -> bool {
        let ports = |pod: &Value| -> BTreeSet<u64> {
            let containers = object::items(&pod["spec"]["containers"]);
            let ports = containers.flat_map(|own| object::items(&own["ports"]));
            ports.filter_map(|own| own["hostPort"].as_u64()).collect()
        };
        let mut others = self.on(node);
        others.all(|other| ports(other).is_disjoint(&ports(pod)))
    }

    fn lack(&self, pod: &Value, node: &Value) -> Option<String> {
        let allocatable = &node["status"]["allocatable"];
        let pods = i64::try_from(self.on(node).count()).expect("few");
        let mut lacks = Vec::new();
        if pods + 1 > amount(allocatable, "pods") {
            lacks.push("Too many pods".to_owned());
        }
        for name in ["cpu", "memory", "x.io/g"] {
            let used: i64 = self.on(node).map(|own| asked(own, name, 0)).sum();
            let wanted = asked(pod, name, 0);
            if wanted > 0 && wanted + used > amount(allocatable, name) {
                lacks.push(format!("Insufficient {name}"));
            }
        }
        (!lacks.is_empty()).then(|| lacks.join(", "))
    }

    fn like_pods(&self, pod: &Value, node: &Value, selector: &Value) -> i64 {
        let says_nothing = |field: &str| match &selector[field] {
            Value::Object(own) => own.is_empty(),
            Value::Array(own) => own.is_empty(),
            _ => true,
        };
        let everything =
            selector.is_object() && says_nothing("matchLabels") && says_nothing("matchExpressions");
        let like = |other: &&Value| {
            !everything
                && object::namespace(other) == object::namespace(pod)
                && !object::is_deleted(other)
                && selects(selector, labels(other))
        };
        i64::try_from(self.on(node).filter(like).count()).expect("few")
    }

    fn constraints(pod: &Value, action: &str) -> Vec<Value> {
        let all = object::items(&pod["spec"]["topologySpreadConstraints"]);
        let mut own: Vec<Value> = all
            .filter(|own| own["whenUnsatisfiable"] == action)
            .cloned()
            .collect();
        for constraint in &mut own {
            for key in object::items(&constraint["matchLabelKeys"].clone()) {
                let key = key.as_str().expect("a key");
                if let Some(value) = labels(pod).get(key) {
                    let own = serde_json::json!({"key": key, "operator": "In", "values": [value]});
                    let more = &mut constraint["labelSelector"]["matchExpressions"];
                    let mut all: Vec<Value> = object::items(more).cloned().collect();
                    all.push(own);
                    *more = all.into();
                }
            }
        }
        own
    }

    fn counts_for(constraint: &Value, pod: &Value, node: &Value) -> bool {
        let keeps_off = |taint: &&Value| taint["effect"] != "PreferNoSchedule";
        let mut taints = object::items(&node["spec"]["taints"]).filter(keeps_off);
        (constraint["nodeAffinityPolicy"] == "Ignore" || is_where_it_wants(pod, node))
            && (constraint["nodeTaintsPolicy"] != "Honor" || taints.all(|own| tolerated(own, pod)))
    }

    fn is_uneven(&self, pod: &Value, node: &Value) -> Option<String> {
        let constraints = Self::constraints(pod, "DoNotSchedule");
        let key_of = |own: &Value| own["topologyKey"].as_str().expect("a key").to_owned();
        let has_all = |node: &Value| {
            constraints
                .iter()
                .all(|own| domain(node, &key_of(own)).is_some())
        };
        for constraint in &constraints {
            let key = key_of(constraint);
            let Some(own) = domain(node, &key) else {
                let text = "node(s) didn't match pod topology spread constraints \
                            (missing required label)";
                return Some(text.to_owned());
            };
            let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
            for other in &self.nodes {
                if has_all(other) && Self::counts_for(constraint, pod, other) {
                    let name = domain(other, &key).expect("it has all");
                    *domains.entry(name).or_default() +=
                        self.like_pods(pod, other, &constraint["labelSelector"]);
                }
            }
            let least = domains.values().min().copied().unwrap_or_default();
            let enough = domains.len() as i64 >= constraint["minDomains"].as_i64().unwrap_or(1);
            let least = if enough { least } else { 0 };
            let itself = i64::from(selects(&constraint["labelSelector"], labels(pod)));
            let there = domains.get(own).copied().unwrap_or_default();
            if there + itself - least > constraint["maxSkew"].as_i64().expect("a number") {
                return Some("node(s) didn't match pod topology spread constraints".to_owned());
            }
        }
        None
    }

    fn is_among_wrong_pods(&self, pod: &Value, node: &Value) -> Option<String> {
        let key_of = |term: &Value| term["topologyKey"].as_str().expect("a key").to_owned();
        let near: Vec<&Value> = terms(pod, "podAffinity", REQUIRED).collect();
        let means_all = |other: &Value| near.iter().all(|term| self.means(term, pod, other));
        let has_keys = near
            .iter()
            .all(|term| domain(node, &key_of(term)).is_some());
        let all_there = near.iter().all(|term| {
            let key = key_of(term);
            self.in_domain(node, &key).any(means_all)
        });
        // A pod that means itself may be the first, where none is in any domain.
        let somewhere = self.nodes.iter().any(|other| {
            near.iter()
                .any(|term| domain(other, &key_of(term)).is_some())
                && self.on(other).any(means_all)
        });
        let first = !somewhere && means_all(pod);
        if !near.is_empty() && !(has_keys && (all_there || first)) {
            return Some("node(s) didn't match pod affinity rules".to_owned());
        }
        for term in terms(pod, "podAntiAffinity", REQUIRED) {
            let key = key_of(term);
            let mut there = self.in_domain(node, &key);
            if there.any(|other| self.means(term, pod, other)) {
                return Some("node(s) didn't match pod anti-affinity rules".to_owned());
            }
        }
        for key in labels(node)
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            let mut there = self.in_domain(node, key);
            let shuns = |other: &Value| {
                terms(other, "podAntiAffinity", REQUIRED)
                    .any(|term| key_of(term) == *key && self.means(term, other, pod))
            };
            if there.any(shuns) {
                let text = "node(s) didn't satisfy existing pods anti-affinity rules";
                return Some(text.to_owned());
            }
        }
        None
    }

    /// The score of each plugin for each of `nodes`.
    pub(super) fn scores(&self, pod: &Value, nodes: &[&Value]) -> BTreeMap<&'static str, Vec<i64>> {
        let of = |score: &dyn Fn(&Value) -> i64| -> Vec<i64> {
            nodes.iter().map(|node| score(node)).collect()
        };
        let deterring = |node: &Value| {
            let taints = object::items(&node["spec"]["taints"]);
            let deters = |own: &&Value| own["effect"] == "PreferNoSchedule" && !tolerated(own, pod);
            taints.filter(deters).count() as i64
        };
        let liked = |node: &Value| {
            let terms = terms(pod, "nodeAffinity", PREFERRED);
            let matching = terms.filter(|own| node_term_matches(&own["preference"], node));
            matching
                .map(|own| own["weight"].as_i64().expect("a weight"))
                .sum()
        };
        let worst_last = of(&deterring);
        let taints = stretched(&worst_last).into_iter().map(|own| 100 - own);
        BTreeMap::from([
            ("TaintToleration", taints.collect()),
            ("NodeAffinity", stretched(&of(&liked))),
            ("NodeResourcesFit", of(&|node| self.emptiness(pod, node))),
            (
                "NodeResourcesBalancedAllocation",
                of(&|node| self.balance(pod, node)),
            ),
            ("PodTopologySpread", self.evenness(pod, nodes)),
            (
                "InterPodAffinity",
                between(&of(&|node| self.sympathy(pod, node))),
            ),
            ("ImageLocality", of(&|node| self.images(pod, node))),
        ])
    }

    fn emptiness(&self, pod: &Value, node: &Value) -> i64 {
        let shares: Vec<i64> = [("cpu", 100), ("memory", 200 << 20)]
            .into_iter()
            .filter_map(|(name, unsaid)| {
                // CPUs are whole ones here, and counted in thousandths.
                let unit = if name == "cpu" { 1000 } else { 1 };
                let of = |own: &Value| {
                    let containers = object::items(&own["spec"]["containers"]);
                    let requests = containers.map(|own| &own["resources"]["requests"]);
                    let each = requests.map(|own| match own.get(name) {
                        Some(_) => amount(own, name) * unit,
                        None => unsaid,
                    });
                    each.sum::<i64>()
                };
                let capacity = amount(&node["status"]["allocatable"], name) * unit;
                let used: i64 = self.on(node).map(of).sum::<i64>() + of(pod);
                (capacity > 0).then(|| (capacity - used).max(0) * 100 / capacity)
            })
            .collect();
        shares.iter().sum::<i64>() / (shares.len() as i64).max(1)
    }

    fn balance(&self, pod: &Value, node: &Value) -> i64 {
        let names = ["cpu", "memory"];
        if names.iter().all(|name| asked(pod, name, 0) == 0) {
            return 0;
        }
        let evenness = |with: i64| {
            let shares: Vec<f64> = names
                .iter()
                .filter(|name| amount(&node["status"]["allocatable"], name) > 0)
                .map(|name| {
                    let used: i64 = self.on(node).map(|own| asked(own, name, 0)).sum();
                    let used = used + with * asked(pod, name, 0);
                    let share = used as f64 / amount(&node["status"]["allocatable"], name) as f64;
                    share.min(1.0)
                })
                .collect();
            let deviation = match shares.as_slice() {
                [first, second] => ((first - second) / 2.0).abs(),
                _ => 0.0,
            };
            ((1.0 - deviation) * 100.0) as i64
        };
        50 + (50 + evenness(1) - evenness(0)) / 2
    }

    fn evenness(&self, pod: &Value, nodes: &[&Value]) -> Vec<i64> {
        let (constraints, needs_all) = match pod["spec"]["topologySpreadConstraints"].is_array() {
            true => (Self::constraints(pod, "ScheduleAnyway"), true),
            false => (self.default_constraints(pod), false),
        };
        let key_of = |own: &Value| own["topologyKey"].as_str().expect("a key").to_owned();
        let has_all = |node: &Value| {
            constraints
                .iter()
                .all(|own| domain(node, &key_of(own)).is_some())
        };
        let counts = |node: &Value| !needs_all || has_all(node);
        let sum = |node: &Value| -> i64 {
            let crowding = constraints.iter().map(|constraint| {
                let key = key_of(constraint);
                let selector = &constraint["labelSelector"];
                let Some(own) = domain(node, &key) else {
                    return 0.0;
                };
                let looked_at = nodes.iter().filter(|other| counts(other));
                let (count, domains) = if key == "kubernetes.io/hostname" {
                    (self.like_pods(pod, node, selector), looked_at.count())
                } else {
                    let domains: BTreeSet<_> = looked_at.map(|own| domain(own, &key)).collect();
                    let same = self.nodes.iter().filter(|other| {
                        domain(other, &key) == Some(own)
                            && counts(other)
                            && Self::counts_for(constraint, pod, other)
                    });
                    let count = same.map(|other| self.like_pods(pod, other, selector)).sum();
                    (count, domains.len())
                };
                let skew = constraint["maxSkew"].as_i64().expect("a number");
                count as f64 * ((domains + 2) as f64).ln() + (skew - 1) as f64
            });
            crowding.sum::<f64>().round() as i64
        };
        let sums: Vec<Option<i64>> = nodes
            .iter()
            .map(|node| counts(node).then(|| sum(node)))
            .collect();
        let least = sums.iter().flatten().min().copied().unwrap_or_default();
        let most = sums.iter().flatten().max().copied().unwrap_or_default();
        let score = |own: &Option<i64>| match own {
            _ if constraints.is_empty() => 0,
            None => 0,
            Some(_) if most == 0 => 100,
            Some(own) => 100 * (most + least - own) / most,
        };
        sums.iter().map(score).collect()
    }

    fn default_constraints(&self, pod: &Value) -> Vec<Value> {
        let mut selector = serde_json::Map::new();
        for service in &self.services {
            let own = service["spec"]["selector"].as_object().expect("it has one");
            let same = object::namespace(service) == object::namespace(pod);
            if same
                && own
                    .iter()
                    .all(|(key, value)| labels(pod).get(key) == Some(value))
            {
                selector.extend(own.clone());
            }
        }
        if selector.is_empty() {
            return Vec::new();
        }
        [
            ("kubernetes.io/hostname", 3),
            ("topology.kubernetes.io/zone", 5),
        ]
        .map(|(key, skew)| {
            serde_json::json!({"topologyKey": key, "maxSkew": skew,
                    "labelSelector": {"matchLabels": selector}})
        })
        .to_vec()
    }

    fn sympathy(&self, pod: &Value, node: &Value) -> i64 {
        let mut sum = 0;
        for (field, sign) in [("podAffinity", 1), ("podAntiAffinity", -1)] {
            let mut weigh =
                |weight: i64, term: &Value, owner: &Value, other: &Value, there: bool| {
                    if there && self.means(term, owner, other) {
                        sum += sign * weight;
                    }
                };
            for other_node in &self.nodes {
                for other in self.on(other_node) {
                    let together = |term: &Value| {
                        let key = term["topologyKey"].as_str().expect("a key");
                        domain(node, key).is_some() && domain(node, key) == domain(other_node, key)
                    };
                    let weighted = |own: &Value| {
                        (
                            own["weight"].as_i64().expect("a weight"),
                            own["podAffinityTerm"].clone(),
                        )
                    };
                    for (weight, term) in terms(pod, field, PREFERRED).map(weighted) {
                        weigh(weight, &term, pod, other, together(&term));
                    }
                    for (weight, term) in terms(other, field, PREFERRED).map(weighted) {
                        weigh(weight, &term, other, pod, together(&term));
                    }
                    if sign == 1 {
                        for term in terms(other, field, REQUIRED) {
                            weigh(1, term, other, pod, together(term));
                        }
                    }
                }
            }
        }
        sum
    }

    fn images(&self, pod: &Value, node: &Value) -> i64 {
        let has = |node: &Value, image: &Value| -> Option<i64> {
            let mut images = object::items(&node["status"]["images"]);
            let own = images.find(|own| own["names"][0] == *image)?;
            own["sizeBytes"].as_i64()
        };
        let containers: Vec<&Value> = object::items(&pod["spec"]["containers"]).collect();
        let sizes = containers.iter().filter_map(|own| {
            let size = has(node, &own["image"])?;
            let nodes = self
                .nodes
                .iter()
                .filter(|node| has(node, &own["image"]).is_some());
            let spread = nodes.count() as f64 / self.nodes.len() as f64;
            Some((size as f64 * spread) as i64)
        });
        let (floor, ceiling) = (23 << 20, (1000 << 20) * (containers.len() as i64).max(1));
        let bytes = sizes.sum::<i64>().clamp(floor, ceiling);
        100 * (bytes - floor) / (ceiling - floor)
    }
}

fn stretched(scores: &[i64]) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or_default();
    let score = |own: &i64| if most == 0 { 0 } else { 100 * own / most };
    scores.iter().map(score).collect()
}

fn between(scores: &[i64]) -> Vec<i64> {
    let least = scores.iter().copied().min().unwrap_or_default();
    let most = scores.iter().copied().max().unwrap_or_default();
    let range = (most - least) as f64;
    let score = |own: &i64| match most == least {
        true => 0,
        false => (100.0 * ((own - least) as f64 / range)) as i64,
    };
    scores.iter().map(score).collect()
}
