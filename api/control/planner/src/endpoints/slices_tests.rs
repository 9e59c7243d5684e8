//! The controller of EndpointSlices against small clusters.

use super::*;
use crate::testing::{Cluster, at};

fn service(spec: &Value) -> Value {
    let mut service = json!({
        "metadata": {"namespace": "n", "name": "web", "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "10.0.0.1",
            "ipFamilies": ["IPv4"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    });
    nautilus_machinery::patch::merge(&mut service["spec"], spec);
    service
}

fn pod(number: usize, ready: bool) -> Value {
    let since = object::time_field(at(1000 + i64::try_from(number).expect("small")));
    let ready = if ready { "True" } else { "False" };
    json!({
        "metadata": {"namespace": "n", "name": format!("p{number:03}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "node"},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": format!("10.1.0.{number}")}, {"ip": format!("fd00::{number:x}")}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}],
        },
    })
}

fn cluster(service: Value, pods: usize) -> (Cluster, Key) {
    let mut cluster = Cluster::default();
    let node = json!({"metadata": {"name": "node", "labels": {hints::ZONE: "z"}}});
    cluster.put(kind::NODES, node);
    let key = Key::of(&cluster.put(kind::SERVICES, service));
    for number in 0..pods {
        cluster.put(kind::PODS, pod(number, true));
    }
    (cluster, key)
}

fn slices(cluster: &Cluster) -> Vec<std::sync::Arc<Value>> {
    cluster.list(kind::ENDPOINT_SLICES, Within::All)
}

fn endpoints(cluster: &Cluster) -> Vec<Value> {
    let slices = slices(cluster);
    let all = slices
        .iter()
        .flat_map(|own| object::items(&own["endpoints"]));
    all.cloned().collect()
}

#[test]
fn a_ready_pod_is_published_with_all_that_is_known_of_it() {
    let (mut cluster, key) = cluster(service(&json!({})), 1);
    assert_eq!(cluster.settle(&Slices, &key, at(0)), 1);
    let slices = slices(&cluster);
    let [slice] = &slices[..] else {
        panic!("one slice: {slices:?}");
    };
    let service = cluster.get(kind::SERVICES, "n", "web").expect("a service");
    let metadata = &slice["metadata"];
    assert!(object::name(slice).starts_with("web-"));
    assert_eq!(
        metadata["labels"],
        json!({
            "team": "a",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        })
    );
    assert_eq!(
        metadata["annotations"][TRIGGER_TIME],
        service["metadata"]["creationTimestamp"]
    );
    assert!(object::is_controlled_by(slice, object::uid(&service)));
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(
        slice["ports"],
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
    );
    let pod = cluster.get(kind::PODS, "n", "p000").expect("a pod");
    assert_eq!(
        slice["endpoints"],
        json!([{
            "addresses": ["10.1.0.0"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {
                "kind": "Pod", "namespace": "n", "name": "p000", "uid": object::uid(&pod),
            },
            "nodeName": "node",
            "zone": "z",
        }])
    );
}

#[test]
fn conditions_follow_the_pod() {
    let deleted = |pod: &mut Value| {
        pod["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
    };
    let phase = |pod: &mut Value| pod["status"]["phase"] = "Failed".into();
    let no_address = |pod: &mut Value| pod["status"]["podIPs"] = json!([]);
    let no_node = |pod: &mut Value| pod["spec"]["nodeName"] = "gone".into();
    type Change<'a> = &'a dyn Fn(&mut Value);
    let nothing = |_: &mut Value| {};
    for (case, ready, publish, change, expected) in [
        (
            "ready",
            true,
            false,
            &nothing as Change<'_>,
            Some((true, true, false)),
        ),
        (
            "not ready",
            false,
            false,
            &nothing,
            Some((false, false, false)),
        ),
        (
            "published anyway",
            false,
            true,
            &nothing,
            Some((true, false, false)),
        ),
        ("ending", true, false, &deleted, Some((false, true, true))),
        (
            "ending, published",
            true,
            true,
            &deleted,
            Some((true, true, true)),
        ),
        ("ended", true, false, &phase, None),
        ("no address", true, false, &no_address, None),
        ("no node", true, false, &no_node, None),
        (
            "no node, published",
            true,
            true,
            &no_node,
            Some((true, true, false)),
        ),
    ] {
        let (mut cluster, key) = cluster(service(&json!({"publishNotReadyAddresses": publish})), 0);
        let mut pod = pod(1, ready);
        change(&mut pod);
        cluster.put(kind::PODS, pod);
        cluster.settle(&Slices, &key, at(0));
        let endpoints = endpoints(&cluster);
        let conditions = endpoints.first().map(|own| {
            let is = |name: &str| own["conditions"][name] == true;
            (is("ready"), is("serving"), is("terminating"))
        });
        assert_eq!(conditions, expected, "{case}");
    }
}

#[test]
fn a_service_without_pods_has_an_empty_slice_that_is_used_later() {
    let (mut cluster, key) = cluster(service(&json!({})), 0);
    assert_eq!(cluster.settle(&Slices, &key, at(0)), 1);
    let place = slices(&cluster);
    assert_eq!((place.len(), endpoints(&cluster).len()), (1, 0));
    for number in 0..150 {
        cluster.put(kind::PODS, pod(number, true));
    }
    assert_eq!(cluster.settle(&Slices, &key, at(0)), 1);
    let full = slices(&cluster);
    assert_eq!((full.len(), endpoints(&cluster).len()), (2, 150));
    let kept = full
        .iter()
        .find(|own| object::uid(own) == object::uid(&place[0]));
    let kept = kept.expect("the slice that stood there");
    // The first of the pods to become ready.
    assert_eq!(
        kept["metadata"]["annotations"][TRIGGER_TIME],
        object::time_field(at(1000))
    );
    for number in 0..150 {
        cluster.remove(kind::PODS, &Key::new("n", format!("p{number:03}")));
    }
    assert_eq!(cluster.settle(&Slices, &key, at(0)), 1);
    let empty = slices(&cluster);
    assert_eq!((empty.len(), endpoints(&cluster).len()), (1, 0));
    assert_eq!(empty[0]["metadata"]["annotations"].get(TRIGGER_TIME), None);
}

#[test]
fn each_family_has_its_slices_and_one_that_is_given_up_goes() {
    let (mut cluster, key) = cluster(service(&json!({"ipFamilies": ["IPv4", "IPv6"]})), 3);
    cluster.settle(&Slices, &key, at(0));
    let types = |cluster: &Cluster| -> Vec<Value> {
        let mut types: Vec<Value> = slices(cluster)
            .iter()
            .map(|own| own["addressType"].clone())
            .collect();
        types.sort_by_key(Value::to_string);
        types
    };
    assert_eq!(types(&cluster), ["IPv4", "IPv6"]);
    assert!(
        endpoints(&cluster)
            .iter()
            .any(|own| own["addresses"][0] == "fd00::2")
    );
    cluster.merge(
        kind::SERVICES,
        &key,
        &json!({"spec": {"ipFamilies": ["IPv6"]}}),
    );
    cluster.settle(&Slices, &key, at(0));
    assert_eq!(types(&cluster), ["IPv6"]);
}

#[test]
fn pods_with_other_ports_stand_in_other_slices() {
    let named = json!({"ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    let (mut cluster, key) = cluster(service(&named), 0);
    for (number, port) in [(1, 8080), (2, 8080), (3, 9090)] {
        let mut pod = pod(number, true);
        pod["spec"]["containers"] = json!([{"ports": [{"name": "web", "containerPort": port}]}]);
        cluster.put(kind::PODS, pod);
    }
    cluster.settle(&Slices, &key, at(0));
    let mut shapes: Vec<(Value, usize)> = slices(&cluster)
        .iter()
        .map(|own| {
            (
                own["ports"][0]["port"].clone(),
                object::items(&own["endpoints"]).count(),
            )
        })
        .collect();
    shapes.sort_by_key(|shape| shape.1);
    assert_eq!(shapes, [(json!(9090), 1), (json!(8080), 2)]);
    cluster.remove(kind::PODS, &Key::new("n", "p003"));
    cluster.settle(&Slices, &key, at(0));
    assert_eq!(slices(&cluster).len(), 1);
}

#[test]
fn a_headless_service_names_its_pods() {
    let spec = json!({"clusterIP": "None", "ports": null});
    let (mut cluster, key) = cluster(service(&spec), 0);
    let mut pod = pod(1, true);
    pod["spec"]["hostname"] = "db-0".into();
    pod["spec"]["subdomain"] = "web".into();
    cluster.put(kind::PODS, pod);
    cluster.settle(&Slices, &key, at(0));
    assert_eq!(endpoints(&cluster)[0]["hostname"], "db-0");
    let slices = slices(&cluster);
    assert_eq!(object::label(&slices[0], HEADLESS), Some(""));
    assert_eq!(slices[0]["ports"], json!([]));
}

#[test]
fn slices_follow_the_services_labels_and_leave_others_alone() {
    let (mut cluster, key) = cluster(service(&json!({})), 2);
    let foreign = json!({
        "metadata": {"namespace": "n", "name": "own", "labels": {SERVICE_NAME: "web"}},
        "addressType": "IPv4",
    });
    let foreign = cluster.put(kind::ENDPOINT_SLICES, foreign);
    cluster.settle(&Slices, &key, at(0));
    let labels = json!({"metadata": {"labels": {"team": "b"}}});
    cluster.merge(kind::SERVICES, &key, &labels);
    assert_eq!(cluster.settle(&Slices, &key, at(0)), 1);
    let slices = slices(&cluster);
    assert_eq!(
        slices
            .iter()
            .filter(|own| object::label(own, "team") == Some("b"))
            .count(),
        1
    );
    assert!(slices.contains(&foreign));
    // A service of the same name that was made anew takes none of the former's.
    let anew = json!({"metadata": {"uid": "other"}});
    cluster.merge(kind::SERVICES, &key, &anew);
    cluster.settle(&Slices, &key, at(0));
    let ours = slices_of(&cluster, "n", "web", CONTROLLER);
    assert!(
        ours.iter()
            .all(|own| object::is_controlled_by(&own.slice, "other"))
    );
}

#[test]
fn services_without_selectors_and_other_names_are_left_alone() {
    for spec in [json!({"selector": null}), json!({"type": "ExternalName"})] {
        let (mut cluster, key) = cluster(service(&spec), 2);
        assert_eq!(cluster.settle(&Slices, &key, at(0)), 0);
    }
}

#[test]
fn a_change_concerns_the_services_that_it_may_change() {
    let (mut cluster, key) = cluster(service(&json!({})), 1);
    cluster.put(kind::SERVICES, {
        let mut other = service(&json!({"selector": {"app": "db"}}));
        other["metadata"]["name"] = "db".into();
        other
    });
    let pod = cluster.get(kind::PODS, "n", "p000").expect("a pod");
    let concerned = |before: Option<&_>, after: Option<&_>| {
        cluster.concerned(&Slices, kind::PODS, before, after)
    };
    let changed = |field: &str, value: Value| {
        let mut other = (*pod).clone();
        *other.pointer_mut(field).expect("a field") = value;
        std::sync::Arc::new(other)
    };
    let db = Key::new("n", "db");
    for (case, after, expected) in [
        ("the same", pod.clone(), vec![]),
        (
            "a status that endpoints do not tell",
            changed("/metadata/resourceVersion", json!("9")),
            vec![],
        ),
        (
            "not ready",
            changed("/status/conditions/0/status", json!("False")),
            vec![key.clone()],
        ),
        (
            "other labels",
            changed("/metadata/labels/app", json!("db")),
            vec![db, key.clone()],
        ),
        (
            "its end",
            changed("/status/phase", json!("Failed")),
            vec![key.clone()],
        ),
    ] {
        assert_eq!(concerned(Some(&pod), Some(&after)), expected, "{case}");
    }
    assert_eq!(concerned(None, Some(&pod)), std::slice::from_ref(&key));
    assert_eq!(concerned(Some(&pod), None), std::slice::from_ref(&key));
    let node = cluster.get(kind::NODES, "", "node");
    assert_eq!(
        cluster.concerned(&Slices, kind::NODES, None, node.as_ref()),
        [key]
    );
    assert_eq!(
        cluster.concerned(&Slices, kind::NODES, node.as_ref(), node.as_ref()),
        []
    );
}

#[test]
fn a_failure_is_told_of_the_service() {
    let (cluster, key) = cluster(service(&json!({})), 0);
    let mut failed = Failed {
        write: Write::create(kind::ENDPOINT_SLICES, json!({})),
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "no".to_owned(),
        namespace_ends: false,
    };
    let told = Slices.report(&cluster, &key, at(0), &failed);
    let Some(Write::Event(event)) = told.writes().next() else {
        panic!("an event");
    };
    assert_eq!(
        event.message,
        "Error updating Endpoint Slices for Service n/web: failed to create EndpointSlice for \
         Service n/web: no"
    );
    failed.namespace_ends = true;
    assert!(Slices.report(&cluster, &key, at(0), &failed).is_empty());
}
