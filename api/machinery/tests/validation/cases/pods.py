"""Pods: every field that has a rule, right and wrong."""

from cases.corpus import Corpus, changed

CASES = []
CONTAINER = {"name": "c", "image": "nginx:1"}
POD = {"metadata": {"name": "p"}, "spec": {"containers": [CONTAINER]}}
FULL = {
    "metadata": {"name": "p", "labels": {"app": "a", "tier": "b"}, "annotations": {"a/b": "c"}},
    "spec": {
        "containers": [{
            "name": "c", "image": "nginx", "command": ["x"], "workingDir": "/w",
            "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP", "hostPort": 5300}],
            "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                    {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5"}},
            "volumeMounts": [{"name": "e", "mountPath": "/e"}, {"name": "s", "mountPath": "/s", "subPath": "a/b"}],
            "livenessProbe": {"httpGet": {"port": 80}}, "readinessProbe": {"tcpSocket": {"port": "http"}},
            "startupProbe": {"grpc": {"port": 9000}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"exec": {"command": ["y"]}}},
            "securityContext": {"runAsUser": 1, "capabilities": {"add": ["NET_ADMIN"]}, "seccompProfile": {"type": "RuntimeDefault"}},
        }],
        "initContainers": [{"name": "i", "image": "a/b:c"}, {"name": "side", "image": "x@sha256:" + "0" * 64, "restartPolicy": "Always"}],
        "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}},
                    {"name": "h", "hostPath": {"path": "/h"}}, {"name": "cm", "configMap": {"name": "cm"}},
                    {"name": "pr", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"downwardAPI": {"items": [{"path": "d", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
                    {"name": "eph", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}},
                    {"name": "im", "image": {"reference": "a/b"}}],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]},
                             "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}, "matchLabelKeys": ["tier"]}],
                                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}}}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}, "matchLabelKeys": ["tier"]}],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        "serviceAccountName": "sa", "nodeSelector": {"a": "b"}, "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a.b"]}],
        "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b", "_x.y"], "options": [{"name": "ndots", "value": "2"}]},
        "securityContext": {"fsGroup": 1, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}], "fsGroupChangePolicy": "Always"},
        "imagePullSecrets": [{"name": "x"}], "readinessGates": [{"conditionType": "a/b"}], "priorityClassName": "pc", "runtimeClassName": "rc",
        "overhead": {"cpu": "0.0001"}, "terminationGracePeriodSeconds": 60, "activeDeadlineSeconds": 100, "hostname": "h", "subdomain": "s",
    },
}
pod = Corpus(CASES, "", "v1", "pods", POD)
pod.create("minimal")
pod.create("full", base=FULL)
pod.create("empty", {"spec": {}})
pod.create("no name", {"metadata": {}})
pod.creates("metadata.name", ["A", "a.b", "a" * 64, "-a"])
pod.creates("metadata.labels", [{"a b": "c"}, {"a": "b c"}, {"a/b/c": "d"}, {"x" * 64: "y"}, {"": "y"}, {"A.b/c": "d"}])
pod.creates("metadata.annotations", [{"a b": "c"}, {"kubernetes.io/config.mirror": "x"}, {"controller.kubernetes.io/pod-deletion-cost": "a"},
    {"controller.kubernetes.io/pod-deletion-cost": "+1"}, {"controller.kubernetes.io/pod-deletion-cost": "-7"}, {"seccomp.security.alpha.kubernetes.io/pod": "bad"},
    {"container.apparmor.security.beta.kubernetes.io/c": "runtime/default"}, {"container.apparmor.security.beta.kubernetes.io/d": "x"},
    {"scheduler.alpha.kubernetes.io/critical-pod": ""}, {"seccomp.security.alpha.kubernetes.io/pod": "localhost/../x"}])
pod.creates("metadata.finalizers", [["a"], ["a/b"], ["orphan", "foregroundDeletion"], ["A_b/c d"]])
pod.creates("metadata.ownerReferences", [[{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"}], [{"apiVersion": "", "kind": "", "name": "", "uid": ""}],
    [{"apiVersion": "v1", "kind": "Event", "name": "x", "uid": "u"}], [{"apiVersion": "a/b/c", "kind": "X", "name": "x", "uid": "u"}],
    [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u", "controller": True}, {"apiVersion": "v1", "kind": "Pod", "name": "y", "uid": "v", "controller": True}]])
c = "spec.containers.0."
pod.creates(c + "name", ["", "A", "a.b", "a" * 64])
pod.creates(c + "image", ["", " nginx", "nginx", "nginx:latest", "NGINX", "a/b@sha256:" + "1" * 64, "localhost:5000/x", "example.com:5000/x:v1", "nginx:latest@sha256:" + "1" * 64])
pod.creates(c + "imagePullPolicy", ["Sometimes", "Never"])
pod.creates(c + "terminationMessagePolicy", ["X", "FallbackToLogsOnError"])
pod.creates(c + "ports", [[{"containerPort": 0}], [{"containerPort": 70000}], [{"containerPort": 80, "hostPort": 70000}], [{"containerPort": 80, "protocol": "tcp"}],
    [{"containerPort": 80, "name": "a_b"}], [{"containerPort": 80, "name": "aaaaaaaaaaaaaaaa"}], [{"containerPort": 80, "name": "12"}], [{"containerPort": 80, "name": "a--b"}], [{"containerPort": 80, "name": "-a"}],
    [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}], [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}], [{"containerPort": 80}, {"containerPort": 80}],
    [{"containerPort": 80, "hostPort": 1}, {"containerPort": 80}], [{"containerPort": 80, "hostIP": "1.2.3.4"}]])
pod.creates(c + "env", [[{"name": ""}], [{"name": "a=b"}], [{"name": "a-b.c d"}], [{"name": "é"}], [{"name": "A", "valueFrom": {}}], [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "a", "key": "b"}}}],
    [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": ""}}}], [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.restartPolicy"}}}], [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x.y"}}}],
    [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}}}], [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}],
    [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}], [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['A B']"}}}], [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['a']"}}}],
    [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.host"}}}], [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": ""}}}], [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "x"}}}],
    [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}], [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "3Mi"}}}],
    [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.hugepages-2Mi", "divisor": "3Mi"}}}], [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage", "divisor": "3"}}}],
    [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "", "key": ""}}}], [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "A", "key": "a/b"}}}], [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "../x", "key": "a"}}}],
    [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], [{"name": "A", "value": "1"}, {"name": "A", "value": "x$(A)"}]])
pod.creates(c + "envFrom", [[{}], [{"configMapRef": {}}], [{"secretRef": {"name": "A"}}], [{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}], [{"prefix": "a=b", "secretRef": {"name": "a-"}}]])
pod.creates(c + "resources", [{"limits": {"cpu": "-1"}}, {"limits": {"foo": "1"}}, {"limits": {"a/b": "1"}}, {"limits": {"a/b": "1.5"}}, {"requests": {"a/b": "1"}}, {"limits": {"a/b": "1"}, "requests": {"a/b": "2"}},
    {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}, {"limits": {"hugepages-2Mi": "4Mi"}}, {"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}, {"requests": {"hugepages-2Mi": "4Mi", "cpu": "1"}}, {"limits": {"requests.foo/bar": "1"}},
    {"limits": {"memory": "100m"}}, {"limits": {"pods": "1"}}, {"limits": {"a b": "1"}}, {"claims": [{"name": "x"}]}, {"limits": {"cpu": "0.00001"}}, {"limits": {"kubernetes.io/x": "1"}}, {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}}, {"requests": {"storage": "1"}}])
pod.creates(c + "volumeMounts", [[{"name": "", "mountPath": ""}], [{"name": "x", "mountPath": "/x"}]])
mounts = changed(POD, {"spec.volumes": [{"name": "v"}, {"name": "pvc", "persistentVolumeClaim": {"claimName": "x"}}]})
pod.creates(c + "volumeMounts", [[{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}], [{"name": "v", "mountPath": "/a", "subPath": "/x"}], [{"name": "v", "mountPath": "/a", "subPath": "../x", "subPathExpr": "y"}],
    [{"name": "v", "mountPath": "/a", "mountPropagation": "X"}], [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}], [{"name": "v", "mountPath": "/a", "recursiveReadOnly": "Enabled"}], [{"name": "v", "mountPath": "/a", "recursiveReadOnly": "X"}],
    [{"name": "v", "mountPath": "/a", "recursiveReadOnly": "IfPossible", "readOnly": True, "mountPropagation": "HostToContainer"}], [{"name": "v", "mountPath": "relative"}]], base=mounts)
pod.creates(c + "volumeDevices", [[{"name": "pvc", "devicePath": "/dev/x"}], [{"name": "v", "devicePath": "/dev/x"}], [{"name": "", "devicePath": ""}], [{"name": "pvc", "devicePath": "/dev/../x"}], [{"name": "pvc", "devicePath": "/a"}, {"name": "pvc", "devicePath": "/a"}]], base=mounts)
pod.create("mount and device", {c + "volumeDevices": [{"name": "pvc", "devicePath": "/a"}], c + "volumeMounts": [{"name": "pvc", "mountPath": "/a"}]}, base=mounts)
for probe in ["livenessProbe", "readinessProbe", "startupProbe"]:
    pod.creates(c + probe, [{}, {"exec": {}}, {"exec": {"command": ["x"]}, "httpGet": {"port": 1}}, {"httpGet": {"port": 0}}, {"httpGet": {"port": "A b"}}, {"httpGet": {"port": 1, "scheme": "http"}}, {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b"}]}},
        {"tcpSocket": {"port": 70000}}, {"grpc": {"port": 0}}, {"exec": {"command": ["x"]}, "successThreshold": 2, "timeoutSeconds": -1, "periodSeconds": -1, "failureThreshold": -1, "initialDelaySeconds": -1}, {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 0}, {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 5}])
pod.creates(c + "lifecycle", [{"preStop": {}}, {"preStop": {"sleep": {"seconds": 100}}}, {"postStart": {"sleep": {"seconds": -1}}}, {"postStart": {"httpGet": {"port": ""}}}, {"stopSignal": "SIGTERM"}])
pod.creates(c + "securityContext", [{"runAsUser": -1}, {"runAsGroup": 1 << 31}, {"procMount": "X"}, {"procMount": "Unmasked"}, {"allowPrivilegeEscalation": False, "privileged": True}, {"allowPrivilegeEscalation": False, "capabilities": {"add": ["CAP_SYS_ADMIN"]}},
    {"seccompProfile": {"type": ""}}, {"seccompProfile": {"type": "X"}}, {"seccompProfile": {"type": "Localhost"}}, {"seccompProfile": {"type": "Localhost", "localhostProfile": "/x"}}, {"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}},
    {"appArmorProfile": {"type": "Localhost"}}, {"appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}}, {"appArmorProfile": {"type": "X"}}, {"appArmorProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}, {"appArmorProfile": {"type": ""}},
    {"windowsOptions": {"runAsUserName": ""}}, {"windowsOptions": {"runAsUserName": "a\\b\\c"}}, {"windowsOptions": {"runAsUserName": "a:b"}}, {"windowsOptions": {"gmsaCredentialSpecName": "A"}}, {"windowsOptions": {"gmsaCredentialSpec": ""}}, {"windowsOptions": {"hostProcess": True}}])
pod.creates(c + "restartPolicy", ["Always", "X", "Never"])
pod.creates(c + "restartPolicyRules", [[{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]])
pod.create("restart rules", {c + "restartPolicy": "Never", c + "restartPolicyRules": [{"action": "X", "exitCodes": {"operator": "X"}}, {"action": "Restart"}]})
pod.creates(c + "resizePolicy", [[{"resourceName": "cpu", "restartPolicy": "NotRequired"}], [{"resourceName": "x", "restartPolicy": "x"}], [{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "cpu", "restartPolicy": "RestartContainer"}]])
pod.create("two containers of a name", {"spec.containers.1": CONTAINER})
s = "spec."
pod.creates(s + "restartPolicy", ["X", "Never"])
pod.creates(s + "dnsPolicy", ["X", "None", "Default"])
pod.creates(s + "nodeName", ["A", "n"])
pod.creates(s + "serviceAccountName", ["A_"])
pod.creates(s + "serviceAccount", ["old"])
pod.creates(s + "activeDeadlineSeconds", [0, -1, 1 << 31])
pod.creates(s + "terminationGracePeriodSeconds", [-5, 0])
pod.creates(s + "hostname", ["a.b", "A"])
pod.creates(s + "subdomain", ["a.b"])
pod.creates(s + "hostnameOverride", ["A", "a.b", "a" * 65])
pod.creates(s + "priorityClassName", ["A"])
pod.creates(s + "runtimeClassName", ["A", ""])
pod.creates(s + "preemptionPolicy", ["X", ""])
pod.creates(s + "overhead", [{"foo": "1"}, {"cpu": "-1"}, {"cpu": "0.00001"}])
pod.creates(s + "nodeSelector", [{"a b": "c d"}, {"beta.kubernetes.io/os": "linux"}])
pod.creates(s + "schedulingGates", [[{"name": "a"}], [{"name": "a b"}, {"name": "a b"}]])
pod.create("gated and placed", {"spec.schedulingGates": [{"name": "a"}], "spec.nodeName": "n"})
pod.creates(s + "readinessGates", [[{"conditionType": "a b"}]])
pod.creates(s + "hostAliases", [[{"ip": "x"}], [{"ip": "1.2.3.4", "hostnames": ["A"]}], [{"ip": "01.2.3.4"}], [{"ip": "::ffff:1.2.3.4"}], [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}], [{"ip": "2001:DB8::1"}]])
pod.creates(s + "imagePullSecrets", [[{}], [{"name": "a"}, {"name": "a"}]])
pod.creates(s + "dnsConfig", [{"nameservers": ["1", "2", "3", "4"]}, {"searches": ["A", ".", "a."] + ["a.b"] * 30}, {"options": [{"value": "x"}]}, {"searches": ["a" * 200] * 12}])
pod.create("dns none", {"spec.dnsPolicy": "None", "spec.dnsConfig": {}})
pod.creates(s + "tolerations", [[{"key": "a b"}], [{"operator": "Equal"}], [{"key": "a", "operator": "X"}], [{"key": "a", "operator": "Exists", "value": "b"}], [{"key": "a", "effect": "X"}], [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}], [{"key": "a", "value": "a b"}], [{"key": "a", "operator": "Lt", "value": "1"}]])
pod.creates(s + "topologySpreadConstraints", [[{}], [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "X"}], [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}], [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 0}],
    [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}] * 2, [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule", "nodeAffinityPolicy": "X", "nodeTaintsPolicy": "Honor", "matchLabelKeys": ["a b"], "labelSelector": {"matchLabels": {"a": "b c"}}}],
    [{"maxSkew": 1, "topologyKey": "beta.kubernetes.io/arch", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"]}]])
na = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
pod.creates(na, [{"nodeSelectorTerms": []}, {"nodeSelectorTerms": [{}]}] + [{"nodeSelectorTerms": [{"matchExpressions": [e]}]} for e in
    [{"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["a"]}, {"key": "a", "operator": "Gt"}, {"key": "a b", "operator": "X", "values": ["a b"]}]] +
    [{"nodeSelectorTerms": [{"matchFields": [e]}]} for e in [{"key": "metadata.name", "operator": "In", "values": ["A"]}, {"key": "x", "operator": "Exists"}, {"key": "metadata.name", "operator": "In", "values": ["a", "b"]}]])
pod.creates("spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", [[{"weight": 0, "preference": {}}], [{"weight": 101, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["a b"]}]}}]])
for which in ["podAffinity", "podAntiAffinity"]:
    pod.creates(f"spec.affinity.{which}.requiredDuringSchedulingIgnoredDuringExecution", [[{}], [{"topologyKey": "a b", "labelSelector": {"matchLabels": {"a b": "c"}}, "namespaces": ["A"]}], [{"topologyKey": "a", "matchLabelKeys": ["x"]}],
        [{"topologyKey": "a", "labelSelector": {"matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}, "matchLabelKeys": ["x"], "mismatchLabelKeys": ["x"]}], [{"topologyKey": "a", "labelSelector": {"matchExpressions": [{"key": "x", "operator": "X"}]}, "namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "In"}, {"key": "y", "operator": "Exists", "values": ["z"]}]}}]])
    pod.creates(f"spec.affinity.{which}.preferredDuringSchedulingIgnoredDuringExecution", [[{"weight": 0, "podAffinityTerm": {"topologyKey": "a"}}]])
pod.creates(s + "securityContext", [{"fsGroup": -1, "runAsUser": -1, "runAsGroup": -1, "supplementalGroups": [-1]}, {"sysctls": [{"name": "", "value": ""}, {"name": "A"}, {"name": "a"}, {"name": "a"}]}, {"fsGroupChangePolicy": "X"}, {"supplementalGroupsPolicy": "X"}, {"seLinuxChangePolicy": "X"}, {"seccompProfile": {"type": "X"}}])
pod.create("host network", {"spec.hostNetwork": True, c + "ports": [{"containerPort": 80}], "spec.securityContext": {"sysctls": [{"name": "net.x", "value": "1"}]}})
pod.create("host network, other port", {"spec.hostNetwork": True, c + "ports": [{"containerPort": 80, "hostPort": 81}]})
pod.create("host ipc", {"spec.hostIPC": True, "spec.securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}, {"name": "kernel/sem", "value": "1"}]}})
pod.create("no host users", {"spec.hostUsers": False, "spec.hostNetwork": True, "spec.hostPID": True, "spec.hostIPC": True})
pod.create("shared process namespace", {"spec.shareProcessNamespace": True, "spec.hostPID": True})
pod.create("windows", {"spec.os": {"name": "windows"}, "spec.securityContext": {"runAsUser": 1, "sysctls": [{"name": "a", "value": "b"}]}, "spec.hostPID": True, c + "securityContext": {"privileged": True, "runAsUser": 1}})
pod.create("linux", {"spec.os": {"name": "linux"}, c + "securityContext": {"windowsOptions": {"runAsUserName": "a"}}})
pod.creates(s + "os", [{"name": ""}, {"name": "mac"}])
pod.create("ephemeral containers", {"spec.ephemeralContainers": [{"name": "e", "image": "x"}]})
pod.creates(s + "initContainers", [[{"name": "c", "image": "x"}], [{"name": "i", "image": "x", "livenessProbe": {"exec": {"command": ["a"]}}, "lifecycle": {"preStop": {"exec": {"command": ["a"]}}}}], [{"name": "i", "image": "x", "restartPolicy": "Always", "livenessProbe": {"exec": {}}}],
    [{"name": "i", "image": "x", "restartPolicy": "X"}], [{"name": "i", "image": "x", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}], [{"name": "", "image": ""}]])
pod.creates(s + "resourceClaims", [[{"name": "a"}], [{"name": "", "resourceClaimName": "x"}], [{"name": "a", "resourceClaimName": "A"}], [{"name": "a", "resourceClaimName": "x", "resourceClaimTemplateName": "y"}], [{"name": "a", "resourceClaimName": "x"}, {"name": "a", "resourceClaimName": "x"}]])
pod.create("claims of containers", {"spec.resourceClaims": [{"name": "a", "resourceClaimName": "x"}], c + "resources": {"claims": [{"name": "a"}, {"name": "a"}, {"name": "b"}, {"name": ""}]}})
pod.create("claims of containers by request", {"spec.resourceClaims": [{"name": "a", "resourceClaimName": "x"}], c + "resources": {"claims": [{"name": "a", "request": "r"}, {"name": "a", "request": "R"}, {"name": "a"}]}})
pod.creates(s + "resources", [{"limits": {"cpu": "1"}}, {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}, {"limits": {"a/b": "1"}}, {"limits": {"ephemeral-storage": "1"}}, {"claims": [{"name": "x"}]}])
pod.create("pod and container resources", {"spec.resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}, c + "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "4"}}})
pod.create("pod and container resources, good", {"spec.resources": {"limits": {"cpu": "2", "memory": "1Gi"}}, c + "resources": {"requests": {"cpu": "500m"}}})
v = "spec.volumes"
pod.creates(v, [[{"name": ""}], [{"name": "A"}], [{"name": "a"}, {"name": "a"}], [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}, "secret": {"secretName": "x"}}], [{"name": "a", "emptyDir": {"sizeLimit": "-1"}}],
    [{"name": "a", "downwardAPI": {}, "cephfs": {"monitors": ["x"]}, "emptyDir": {}}]])
pod.creates(v, [[dict(name="a", **source)] for source in [
    {"hostPath": {}}, {"hostPath": {"path": "/a/../b"}}, {"hostPath": {"path": "/a", "type": "X"}}, {"gitRepo": {"directory": "/x"}}, {"gitRepo": {"repository": "x", "directory": "a/../b"}},
    {"gcePersistentDisk": {"partition": 300}}, {"awsElasticBlockStore": {"partition": -1}}, {"secret": {}}, {"secret": {"secretName": "x", "defaultMode": 1000}}, {"secret": {"secretName": "x", "items": [{"key": "", "path": ""}, {"key": "a", "path": "/x"}, {"key": "a", "path": "..x", "mode": -1}, {"key": "a", "path": "a/../b"}]}},
    {"configMap": {}}, {"configMap": {"name": "x", "items": [{"key": "a", "path": "b"}, {"key": "c", "path": "b/c"}]}}, {"nfs": {}}, {"nfs": {"server": "x", "path": "y"}}, {"iscsi": {}}, {"iscsi": {"targetPortal": "x", "iqn": "foo", "lun": 300}}, {"iscsi": {"targetPortal": "x", "iqn": "iqn.2015-02.example.com:test", "chapAuthSession": True, "initiatorName": "iqn"}},
    {"iscsi": {"targetPortal": "x" * 70, "iqn": "eui.0123456789abcdef", "initiatorName": "naa.0"}}, {"glusterfs": {}}, {"flocker": {}}, {"flocker": {"datasetName": "a/b", "datasetUUID": "c"}}, {"persistentVolumeClaim": {}}, {"rbd": {}}, {"rbd": {"monitors": ["a"], "image": "b"}}, {"cinder": {"secretRef": {}}}, {"cephfs": {}},
    {"quobyte": {}}, {"quobyte": {"registry": "a", "volume": "x"}}, {"quobyte": {"registry": "a:1,b", "volume": "x"}}, {"downwardAPI": {"defaultMode": -1, "items": [{"path": ""}, {"path": "..a", "fieldRef": {"fieldPath": "spec.nodeName"}}, {"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
    {"fc": {}}, {"fc": {"targetWWNs": ["a"], "wwids": ["b"]}}, {"fc": {"targetWWNs": ["a"], "lun": 256}}, {"flexVolume": {}}, {"flexVolume": {"driver": "x", "options": {"kubernetes.io/x": "y"}}}, {"azureFile": {}}, {"vsphereVolume": {}}, {"photonPersistentDisk": {}}, {"portworxVolume": {}},
    {"azureDisk": {}}, {"azureDisk": {"diskName": "a", "diskURI": "b", "kind": "X", "cachingMode": "Y"}}, {"azureDisk": {"diskName": "a", "diskURI": "b", "kind": "Managed"}}, {"azureDisk": {"diskName": "a", "diskURI": "https://b"}}, {"storageos": {}}, {"storageos": {"volumeName": "A", "volumeNamespace": "B", "secretRef": {}}}, {"scaleIO": {}}, {"scaleIO": {"gateway": "a", "system": "b", "volumeName": "c", "secretRef": {"name": "x"}}},
    {"csi": {}}, {"csi": {"driver": "A_b", "nodePublishSecretRef": {}}}, {"csi": {"driver": "a" * 64, "nodePublishSecretRef": {"name": "A"}}}, {"ephemeral": {}}, {"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x", "labels": {"a b": "c"}}, "spec": {}}}}, {"image": {}}, {"image": {"reference": "x", "pullPolicy": "X"}},
    {"projected": {}}, {"projected": {"sources": [{}]}}, {"projected": {"defaultMode": 1000, "sources": [{"secret": {}, "configMap": {}}]}}, {"projected": {"sources": [{"serviceAccountToken": {"path": "", "expirationSeconds": 1}}]}}, {"projected": {"sources": [{"serviceAccountToken": {"path": "/x", "expirationSeconds": 1 << 33}}]}},
    {"projected": {"sources": [{"secret": {"name": "a", "items": [{"key": "a", "path": "x"}]}}, {"configMap": {"name": "a", "items": [{"key": "a", "path": "x"}]}}]}},
    {"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}}, {"projected": {"sources": [{"clusterTrustBundle": {"name": "a:b", "signerName": "c/d", "path": "x"}}]}}, {"projected": {"sources": [{"clusterTrustBundle": {"signerName": "c", "path": ""}}]}}, {"projected": {"sources": [{"clusterTrustBundle": {"name": "A", "path": "x", "labelSelector": {}}}]}},
    {"projected": {"sources": [{"podCertificate": {"signerName": "a.b/c", "keyType": "X", "maxExpirationSeconds": 1}}]}}, {"projected": {"sources": [{"podCertificate": {"signerName": "a.b/c", "keyType": "ED25519", "credentialBundlePath": "x", "keyPath": "x"}}]}},
]])
pod.create("a token without an account", {"spec.volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]})
pod.create("file keys", {"spec.volumes": [{"name": "a", "secret": {"secretName": "x"}}, {"name": "b"}], c + "env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": n, "path": "p", "key": "k"}}} for n in ["a", "b", "c"]]})
# updates
pod.update("an image", {c + "image": "nginx:2"})
pod.update("nothing", {})
pod.update("labels", {"metadata.labels": {"a": "b"}})
pod.update("a name of a container", {c + "name": "d"})
pod.update("one more container", {"spec.containers.1": {"name": "d", "image": "x"}})
pod.update("no image", {c + "image": ""})
pod.update("a space", {c + "image": " x"})
pod.update("node selector", {"spec.nodeSelector": {"a": "b"}})
pod.update("hostname", {"spec.hostname": "x"})
pod.update("deadline", {"spec.activeDeadlineSeconds": 10})
pod.update("deadline up", {"spec.activeDeadlineSeconds": 200}, base=FULL)
pod.update("no deadline", {"spec.activeDeadlineSeconds": None}, base=FULL)
pod.update("toleration more", {"spec.tolerations.1": {"key": "x", "operator": "Exists"}}, base=FULL)
pod.update("toleration changed", {"spec.tolerations.0.key": "y"}, base=FULL)
pod.update("toleration seconds", {"spec.tolerations.0.tolerationSeconds": 7}, base=FULL)
pod.update("toleration removed", {"spec.tolerations": None}, base=FULL)
pod.update("several", {"spec.hostname": "z", "spec.containers.0.env.0.value": "q", "spec.volumes.0.emptyDir.medium": "Memory"}, base=FULL)
gated = changed(FULL, {"spec.schedulingGates": [{"name": "g"}, {"name": "h"}]})
pod.update("a gate less", {"spec.schedulingGates": [{"name": "h"}]}, base=gated)
pod.update("a gate more", {"spec.schedulingGates.2": {"name": "x"}}, base=gated)
pod.update("gated, selector more", {"spec.nodeSelector.c": "d"}, base=gated)
pod.update("gated, selector changed", {"spec.nodeSelector.a": "d"}, base=gated)
pod.update("gated, affinity more", {"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.1": {"key": "z", "operator": "Exists"}}, base=gated)
pod.update("gated, affinity changed", {"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0.key": "z"}, base=gated)
pod.update("gated, affinity terms", {"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.1": {"matchExpressions": [{"key": "z", "operator": "Exists"}]}}, base=gated)
pod.update("gated, affinity removed", {"spec.affinity.nodeAffinity": None}, base=gated)
pod.update("uid", {"metadata.finalizers": ["x"]})
pod.update("ephemeral container", {"spec.ephemeralContainers": [{"name": "e", "image": "x", "targetContainerName": "c"}]}, subresource="ephemeralcontainers")
pod.update("bad ephemeral container", {"spec.ephemeralContainers": [{"name": "c", "image": "", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}, "targetContainerName": "x", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}, "livenessProbe": {"exec": {"command": ["x"]}}, "volumeMounts": [{"name": "x", "mountPath": "/x", "subPath": "y"}]}]}, subresource="ephemeralcontainers")
res = changed(POD, {c + "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}}})
pod.update("resize", {c + "resources.requests.cpu": "1500m"}, base=res, subresource="resize")
pod.update("resize to another class", {c + "resources.requests": {"cpu": "2", "memory": "2Gi"}}, base=res, subresource="resize")
pod.update("resize away", {c + "resources.requests": {"cpu": "1"}}, base=res, subresource="resize")
pod.update("resize and rename", {c + "name": "x"}, base=res, subresource="resize")
pod.update("resize and more", {"spec.containers.1": {"name": "x", "image": "y"}}, base=res, subresource="resize")
pod.update("resize other", {c + "image": "zz", c + "resources.requests.ephemeral-storage": "1"}, base=res, subresource="resize")
pod.update("resize nothing", {}, base=res, subresource="resize")
pod.update("resize bad", {c + "resources.requests.cpu": "5"}, base=res, subresource="resize")
pod.update("status", {"status.phase": "Running", "status.podIP": "1.2.3.4", "status.conditions": [{"type": "Ready", "status": "True"}]}, subresource="status")
pod.update("bad status", {"status.podIPs": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.5"}], "status.conditions": [{"type": "a b", "status": "True"}], "status.nominatedNodeName": "A", "status.qosClass": "Guaranteed", "status.hostIP": "x", "status.hostIPs": [{"ip": "y"}], "status.resourceClaimStatuses": [{"name": "x"}]}, subresource="status")
pod.update("spec in status", {"spec.hostname": "x", "status.reason": "r"}, subresource="status")
ended = {"phase": "Running", "containerStatuses": [{"name": "c", "image": "x", "imageID": "y", "ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 1}}}]}
pod.update("a container that runs again", {"status.containerStatuses.0.state": {"running": {}}}, base=changed(POD, {"spec.restartPolicy": "Never"}), subresource="status", status=ended)
