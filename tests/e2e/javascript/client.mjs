// The JavaScript client against the Kubernetes API, by the kubeconfig of the first
// argument. Prints one line a part, and ok at last.
import assert from "node:assert/strict";
import {
  AppsV1Api,
  AuthorizationV1Api,
  CoreV1Api,
  KubeConfig,
  KubernetesObjectApi,
  PatchStrategy,
  Watch,
  makeInformer,
} from "@kubernetes/client-node";

const namespace = "javascript";
const config = new KubeConfig();
config.loadFromFile(process.argv[2]);
const core = config.makeApiClient(CoreV1Api);

const refused = async (code, call) => {
  await assert.rejects(call, (error) => {
    assert.equal(error.code, code, String(error));
    return true;
  });
};

async function objects() {
  await core.createNamespace({ body: { metadata: { name: namespace } } });
  const body = { metadata: { name: "a", labels: { l: "1" } }, data: { k: "v" } };
  const made = await core.createNamespacedConfigMap({ namespace, body });
  assert.equal(made.data.k, "v");
  await refused(409, () => core.createNamespacedConfigMap({ namespace, body }));
  await refused(404, () => core.readNamespacedConfigMap({ namespace, name: "none" }));
  made.data.k = "w";
  await core.replaceNamespacedConfigMap({ namespace, name: "a", body: made });
  await refused(409, () => core.replaceNamespacedConfigMap({ namespace, name: "a", body: made }));
  const selected = await core.listNamespacedConfigMap({ namespace, labelSelector: "l=1" });
  assert.deepEqual(selected.items.map((item) => item.metadata.name), ["a"]);
  console.log("objects");
}

async function watches() {
  const list = await core.listNamespacedConfigMap({ namespace });
  const seen = new Promise((resolve, reject) => {
    new Watch(config)
      .watch(
        `/api/v1/namespaces/${namespace}/configmaps`,
        { resourceVersion: list.metadata.resourceVersion },
        (type, object) => resolve([type, object.metadata.name]),
        (error) => error && reject(error),
      )
      .catch(reject);
  });
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "seen" } } });
  assert.deepEqual(await seen, ["ADDED", "seen"]);
  console.log("watches");
}

async function informers() {
  const path = `/api/v1/namespaces/${namespace}/secrets`;
  const informer = makeInformer(config, path, () => core.listNamespacedSecret({ namespace }));
  const added = new Promise((resolve) => informer.on("add", (object) => resolve(object.metadata.name)));
  await informer.start();
  await core.createNamespacedSecret({ namespace, body: { metadata: { name: "s" }, stringData: { a: "b" } } });
  assert.equal(await added, "s");
  await informer.stop();
  console.log("informers");
}

async function applies() {
  const objects = KubernetesObjectApi.makeApiClient(config);
  const body = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "applied", namespace }, data: { a: "1" } };
  const patch = (manager, force) =>
    objects.patch(body, undefined, undefined, manager, force, PatchStrategy.ServerSideApply);
  await patch("one");
  body.data.a = "2";
  await refused(409, () => patch("two"));
  assert.equal((await patch("two", true)).data.a, "2");
  console.log("applies");
}

async function workloads() {
  const apps = config.makeApiClient(AppsV1Api);
  const labels = { app: "web" };
  const spec = {
    replicas: 1,
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: "web", image: "web" }] } },
  };
  await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: "web" }, spec } });
  // The deployment's controller writes to it at the same time.
  for (let left = 20; ; left -= 1) {
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name: "web" });
    scale.spec.replicas = 3;
    try {
      await apps.replaceNamespacedDeploymentScale({ namespace, name: "web", body: scale });
      break;
    } catch (error) {
      if (error.code !== 409 || left === 0) throw error;
    }
  }
  assert.equal((await apps.readNamespacedDeployment({ namespace, name: "web" })).spec.replicas, 3);
  console.log("workloads");
}

async function rights() {
  const access = config.makeApiClient(AuthorizationV1Api);
  const body = { spec: { resourceAttributes: { verb: "create", resource: "pods", namespace } } };
  assert.ok((await access.createSelfSubjectAccessReview({ body })).status.allowed);
  console.log("rights");
}

try {
  await objects();
  await watches();
  await informers();
  await applies();
  await workloads();
  await rights();
  await core.deleteNamespace({ name: namespace });
  console.log("ok");
  process.exit(0);
} catch (error) {
  console.log(`failed: ${error.stack ?? error}`);
  process.exit(1);
}
