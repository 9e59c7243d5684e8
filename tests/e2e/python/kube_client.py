"""The Python client against the Kubernetes API, by the kubeconfig of the first argument.

Prints one line a part, and ok at last.
"""

import sys
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

NAMESPACE = "python"


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def refused(code, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ApiException as error:
        expect(error.status == code, f"{error.status} and not {code}: {error.body}")
        return error
    raise AssertionError(f"nothing was refused by {code}")


def objects(core):
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a", labels={"l": "1"}), data={"k": "v"})
    made = core.create_namespaced_config_map(NAMESPACE, body)
    expect(made.metadata.managed_fields[0].manager == "OpenAPI-Generator", made.metadata.managed_fields)
    error = refused(409, core.create_namespaced_config_map, NAMESPACE, body)
    expect("AlreadyExists" in error.body, error.body)
    refused(404, core.read_namespaced_config_map, "none", NAMESPACE)
    made.data["k"] = "w"
    changed = core.replace_namespaced_config_map("a", NAMESPACE, made)
    refused(409, core.replace_namespaced_config_map, "a", NAMESPACE, made)
    expect(changed.metadata.resource_version != made.metadata.resource_version, "a new version")
    core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"x": "y", "k": None}})
    core.patch_namespaced_config_map("a", NAMESPACE, [{"op": "test", "path": "/data/x", "value": "y"}])
    expect(core.read_namespaced_config_map("a", NAMESPACE).data == {"x": "y"}, "patched")
    refused(422, core.create_namespaced_pod, NAMESPACE, {"metadata": {"name": "p"}, "spec": {"containers": []}})
    print("objects", flush=True)


def pages(core):
    for number in range(7):
        core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": f"s{number}"}, "stringData": {"n": str(number)}})
    names, token = [], None
    while True:
        page = core.list_namespaced_secret(NAMESPACE, limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    expect(names == [f"s{number}" for number in range(7)], names)
    core.delete_collection_namespaced_secret(NAMESPACE)
    expect(not core.list_namespaced_secret(NAMESPACE).items, "all deleted")
    print("pages", flush=True)


def watches(core):
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    timer = threading.Timer(0.2, lambda: core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "seen"}}))
    timer.start()
    stream = watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=30):
        if event["object"].metadata.name == "seen":
            expect(event["type"] == "ADDED", event["type"])
            stream.stop()
    print("watches", flush=True)


def applies(api):
    found = dynamic.DynamicClient(api)
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
    made = maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="one")
    expect(made.metadata.managedFields[0].operation == "Apply", made)
    body["data"]["a"] = "2"
    try:
        maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two")
        raise AssertionError("no conflict")
    except dynamic.exceptions.ConflictError as error:
        expect('conflict with \\"one\\"' in str(error.body), error.body)
    taken = maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two", force_conflicts=True)
    expect(taken.data.a == "2", taken)
    print("applies", flush=True)


def workloads(apps, scaling):
    labels = {"app": "web"}
    apps.create_namespaced_deployment(NAMESPACE, {
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}}},
    })
    # The deployment's controller writes to it at the same time.
    for _ in range(20):
        scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
        scale.spec.replicas = 3
        try:
            apps.replace_namespaced_deployment_scale("web", NAMESPACE, scale)
            break
        except client.ApiException as error:
            expect(error.status == 409, error)
    expect(apps.read_namespaced_deployment("web", NAMESPACE).spec.replicas == 3, "scaled")
    scaling.create_namespaced_horizontal_pod_autoscaler(NAMESPACE, {
        "metadata": {"name": "web"},
        "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    })
    print("workloads", flush=True)


def rights(core, access):
    review = access.create_self_subject_access_review(
        {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": NAMESPACE}}})
    expect(review.status.allowed, review.status)
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "robot"}})
    token = core.create_namespaced_service_account_token("robot", NAMESPACE, {"spec": {"expirationSeconds": 600}})
    expect(token.status.token.count(".") == 2, "a token")
    print("rights", flush=True)


def main():
    config.load_kube_config(sys.argv[1])
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    objects(core)
    pages(core)
    watches(core)
    applies(api)
    workloads(client.AppsV1Api(api), client.AutoscalingV2Api(api))
    rights(core, client.AuthorizationV1Api(api))
    core.delete_namespace(NAMESPACE)
    print("ok", flush=True)


try:
    main()
except Exception as error:  # whatever it is, the test prints it
    print(f"failed: {type(error).__name__}: {error}", flush=True)
    raise
