"""Admission, flows, certificates, groups of other servers, older forms."""

from cases.corpus import Corpus

CASES = []
meta = {"name": "x"}
ADMISSION = "admissionregistration.k8s.io"
RULE = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
HOOK = {"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [RULE],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}}}
for plural in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]:
    hooks = Corpus(CASES, ADMISSION, "v1", plural, {"metadata": meta, "webhooks": [HOOK]})
    hooks.create("plain")
    hooks.create("none", {"webhooks": None})
    hooks.create("empty", {"webhooks": [{}]})
    hooks.create("twice", {"webhooks": [HOOK, HOOK]})
    hooks.creates("webhooks.0.name", ["a", "a.b", "A.b.c"])
    hooks.creates("webhooks.0.sideEffects", ["Some", "X", "NoneOnDryRun"])
    hooks.creates("webhooks.0.admissionReviewVersions", [[], ["v2"], ["v1", "v1"], ["V1", "v1beta1"]])
    hooks.creates("webhooks.0.failurePolicy", ["X", "Ignore"])
    hooks.creates("webhooks.0.matchPolicy", ["X", "Exact"])
    hooks.creates("webhooks.0.timeoutSeconds", [0, 31, 30])
    hooks.creates("webhooks.0.reinvocationPolicy", ["X", "IfNeeded"] if plural[0] == "m" else [])
    hooks.creates("webhooks.0.namespaceSelector", [{"matchLabels": {"a b": "c"}}, {"matchExpressions": [{"key": "a", "operator": "In"}]}])
    hooks.creates("webhooks.0.clientConfig", [{}, {"url": "https://a/b"}, {"url": "http://a"}, {"url": "https://"}, {"url": "https://u@a/b?c=d#e"}, {"url": "https://a", "service": {"name": "s", "namespace": "n"}},
                                              {"service": {}}, {"service": {"name": "s", "namespace": "n", "port": 70000}}, {"service": {"name": "s", "namespace": "n", "path": "a//b"}}, {"service": {"name": "s", "namespace": "n", "path": "/a/b_/c/"}}, {"service": {"name": "s", "namespace": "n", "path": "//"}}])
    hooks.creates("webhooks.0.rules", [[], [{}], [{**RULE, "operations": ["*", "CREATE", "X"]}], [{**RULE, "apiGroups": ["*", ""], "apiVersions": ["*", ""]}], [{**RULE, "resources": ["*/*", "pods"]}], [{**RULE, "resources": ["*", "pods"]}], [{**RULE, "resources": ["pods/*", "pods/status", "*/x", "a/x", ""]}], [{**RULE, "scope": "X"}]])
    hooks.creates("webhooks.0.matchConditions", [[{"name": "", "expression": ""}], [{"name": "a b", "expression": "true"}], [{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}]])
    hooks.update("policy", {"webhooks.0.failurePolicy": "Ignore"})
    hooks.update("labels", {"metadata.labels": {"a": "b"}})

MATCH = {"resourceRules": [RULE]}
VAP = {"metadata": meta, "spec": {"matchConstraints": MATCH, "validations": [{"expression": "true"}]}}
vap = Corpus(CASES, ADMISSION, "v1", "validatingadmissionpolicies", VAP)
vap.create("plain")
vap.create("empty", {"spec": {}})
vap.creates("spec.failurePolicy", ["X", "Ignore"])
vap.creates("spec.paramKind", [{}, {"apiVersion": "v1", "kind": "ConfigMap"}, {"apiVersion": "a/b/c", "kind": "X"}, {"apiVersion": "A_/V1", "kind": "x_"}, {"apiVersion": "a.b/", "kind": "X"}, {"apiVersion": "/", "kind": "X"}])
vap.creates("spec.matchConstraints", [{}, {"resourceRules": [RULE], "matchPolicy": "X"}, {"resourceRules": [{**RULE, "resourceNames": ["a", "a", "b/c"]}]}, {"resourceRules": [RULE], "excludeResourceRules": [{}]}, {"resourceRules": [RULE], "objectSelector": {"matchLabels": {"a b": "c"}}}])
vap.creates("spec.validations", [[{"expression": " "}], [{"expression": "true", "message": " "}], [{"expression": "true", "message": "a\nb"}], [{"expression": "true", "messageExpression": " "}], [{"expression": "true", "reason": "X"}], [{"expression": "true", "reason": "Forbidden", "message": "m"}]])
vap.creates("spec.auditAnnotations", [[{"key": "a b", "valueExpression": "'x'"}], [{"key": "a", "valueExpression": " "}], [{"key": "a", "valueExpression": "'x'"}, {"key": "a", "valueExpression": "'y'"}]])
vap.creates("spec.variables", [[{"name": "a", "expression": "1"}], [{"name": "", "expression": ""}], [{"name": "for", "expression": "1"}], [{"name": "1a", "expression": "1"}]])
vap.update("policy", {"spec.failurePolicy": "Ignore"})
vap.update("status", {"status": {"conditions": [{"type": "a b", "status": "X"}], "typeChecking": {"expressionWarnings": [{"fieldRef": "", "warning": ""}]}}}, subresource="status")
VAPB = {"metadata": meta, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
vapb = Corpus(CASES, ADMISSION, "v1", "validatingadmissionpolicybindings", VAPB)
vapb.create("plain")
vapb.create("empty", {"spec": {}})
vapb.creates("spec.validationActions", [["X"], ["Deny", "Warn"], ["Deny", "Deny"], ["Warn", "Audit"]])
REFS = [{}, {"name": "a", "parameterNotFoundAction": "Deny"}, {"name": "a", "selector": {}, "parameterNotFoundAction": "Allow"}, {"selector": {"matchLabels": {"a b": "c"}}, "parameterNotFoundAction": "X"}, {"name": "a/b"}]
vapb.creates("spec.paramRef", REFS)
vapb.creates("spec.matchResources", [{}, {"resourceRules": [{}]}, {"matchPolicy": "X"}])
vapb.creates("spec.policyName", ["A_"])
vapb.update("policy", {"spec.policyName": "q"})
MAP = {"metadata": meta, "spec": {"matchConstraints": MATCH, "reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/a', value: 'b'}]"}}]}}
mutating = Corpus(CASES, ADMISSION, "v1", "mutatingadmissionpolicies", MAP)
mutating.create("empty", {"spec": {}})
mutating.creates("spec.reinvocationPolicy", ["X", ""])
mutating.creates("spec.mutations", [[], [{}], [{"patchType": "X"}], [{"patchType": "JSONPatch"}], [{"patchType": "JSONPatch", "jsonPatch": {"expression": " "}}], [{"patchType": "ApplyConfiguration", "jsonPatch": {"expression": "[]"}}]])
mutating.create("delete", {"spec.matchConstraints": {"resourceRules": [{**RULE, "operations": ["DELETE"]}]}})
mapb = Corpus(CASES, ADMISSION, "v1", "mutatingadmissionpolicybindings", {"metadata": meta, "spec": {"policyName": "p"}})
mapb.create("plain")
mapb.create("empty", {"spec": {}})
mapb.creates("spec.paramRef", REFS)
mapb.creates("spec.matchResources", [{"resourceRules": [{**RULE, "operations": ["DELETE", "CREATE"]}]}])

FLOW = "flowcontrol.apiserver.k8s.io"
SUBJECT = {"kind": "Group", "group": {"name": "g"}}
RESOURCES = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
FS = {"metadata": meta, "spec": {"priorityLevelConfiguration": {"name": "p"}, "rules": [{"subjects": [SUBJECT], "resourceRules": [RESOURCES]}]}}
fs = Corpus(CASES, FLOW, "v1", "flowschemas", FS)
fs.create("plain")
fs.create("empty", {"spec": {}})
fs.creates("spec.matchingPrecedence", [0, -1, 1, 10001, 5])
fs.creates("spec.distinguisherMethod", [{"type": "X"}, {"type": "ByUser"}, {}])
fs.creates("spec.priorityLevelConfiguration", [{"name": ""}, {"name": "A_"}])
fs.creates("spec.rules.0", [{}, {"subjects": [SUBJECT]}])
fs.creates("spec.rules.0.subjects", [[{}], [{"kind": "User"}], [{"kind": "User", "user": {"name": ""}, "group": {"name": "g"}, "serviceAccount": {"name": "a", "namespace": "b"}}], [{"kind": "ServiceAccount", "serviceAccount": {"name": "", "namespace": ""}}], [{"kind": "ServiceAccount", "serviceAccount": {"name": "A", "namespace": "B"}}], [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}}], [{"kind": "Group"}]])
fs.creates("spec.rules.0.resourceRules", [[{}], [{**RESOURCES, "verbs": ["*", "get"], "apiGroups": ["*", "a"], "resources": ["*", "b"], "namespaces": ["*", "c"]}], [{**RESOURCES, "verbs": ["X", "get"]}], [{**RESOURCES, "namespaces": ["A"]}], [{**RESOURCES, "namespaces": [], "clusterScope": True}]])
fs.creates("spec.rules.0.nonResourceRules", [[{}], [{"verbs": ["get"], "nonResourceURLs": ["", "/", "a", "/a b", "/a//b", "/a*", "/a/*", "/*/a*"]}], [{"verbs": ["get"], "nonResourceURLs": ["*", "/a"]}]])
# Updates meet the controller of the real server, which writes as well.
PL = {"metadata": meta, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}
pl = Corpus(CASES, FLOW, "v1", "prioritylevelconfigurations", PL)
pl.create("plain")
pl.create("empty", {"spec": {}})
pl.creates("spec.type", ["X", "Exempt"])
pl.creates("spec.exempt", [{}])
pl.creates("spec.limited", [None, {}, {"limitResponse": {"type": "Reject"}, "nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1}, {"limitResponse": {"type": "Reject", "queuing": {}}}, {"limitResponse": {"type": "Queue"}}, {"limitResponse": {"type": "X"}}])
pl.creates("spec.limited.limitResponse.queuing", [{"queues": -1, "handSize": -1, "queueLengthLimit": -1}, {"queues": 4, "handSize": 5}, {"queues": 20000000}, {"queues": 1000, "handSize": 8}])
pl.create("zero", {"metadata.annotations": {"flowcontrol.k8s.io/preserve-zero-concurrency-shares": ""}})
pl.update("shares", {"spec.limited.nominalConcurrencyShares": 5})

api = Corpus(CASES, "apiregistration.k8s.io", "v1", "apiservices", {"metadata": {"name": "v1.a.b"}, "spec": {"group": "a.b", "version": "v1", "groupPriorityMinimum": 5, "versionPriority": 5, "service": {"name": "s", "namespace": "n"}, "insecureSkipTLSVerify": True}})
api.create("plain")
api.create("empty", {"spec": {}})
api.create("name", {"metadata.name": "other"})
api.creates("spec.group", ["", "A_"])
api.creates("spec.version", ["V1"])
api.creates("spec.groupPriorityMinimum", [0, 20001])
api.creates("spec.versionPriority", [0, 1001])
api.creates("spec.service", [None, {}, {"name": "s", "namespace": "n", "port": 70000}])
api.creates("spec.caBundle", ["YWJj"])
api.create("local", {"spec.service": None, "spec.caBundle": "YWJj", "spec.insecureSkipTLSVerify": False})

# `openssl req -new` of a key made for it.
REQUEST = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIV01IOENBUUF3SFRFTE1Ba0dBMVVFQXd3Q2RURXhEakFNQmdOVkJBb01CV2R5YjNWd01Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVNTE9Oc3NBZGFmTkVtQ3pWc01YZ3Y1VThrbTZZM21TeS9VbVBBdkhtCnRrMTB1ZVpycVNWZ1piekdNK3BmZ2JhSWpXNlcyY2QwSDhzU3QwQ2xyYU9ETGFBQU1Bb0dDQ3FHU000OUJBTUMKQTBjQU1FUUNJRS9VS29uTjFEL29kSTlXbCsyK041eDd6cnZZMGQwMTlPOW82Tmw2ZER2ZUFpQjdYUTZ2ak5LVAp2TGNSTGgzVGVpancyTFo5VnNLR1ZibVR1TmJGOHBJNmt3PT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg=="
csr = Corpus(CASES, "certificates.k8s.io", "v1", "certificatesigningrequests",
             {"metadata": meta, "spec": {"request": REQUEST, "signerName": "a.b/c", "usages": ["client auth"]}}, ["spec.username", "spec.groups", "spec.extra", "spec.uid", "status.conditions"])
csr.create("plain")
csr.create("empty", {"spec": {}})
csr.creates("spec.request", ["", "YWJj"])
csr.creates("spec.usages", [[], ["X"], ["client auth", "client auth"]])
csr.creates("spec.signerName", ["", "a", "a/b", "kubernetes.io/legacy-unknown", "A.b/c", "a.b/c/d"])
csr.creates("spec.expirationSeconds", [1, 600])
csr.update("spec", {"spec.usages": ["server auth"]})
csr.update("approval", {"status": {"conditions": [{"type": "Approved", "status": "False"}, {"type": "Denied", "status": "True"}, {"type": "", "status": ""}]}}, subresource="approval")
csr.update("status", {"status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "YWJj"}}, subresource="status")
