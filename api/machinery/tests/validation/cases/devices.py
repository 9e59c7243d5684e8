"""Devices: claims, what they are made from, classes, slices, taints."""

from cases.corpus import Corpus, changed

CASES = []
meta = {"name": "x"}
LONG = "a" * 64


def corpus(plural, base, *more):
    return Corpus(CASES, "resource.k8s.io", "v1", plural, base, *more)


EXACT = {"name": "r", "exactly": {"deviceClassName": "c.example.org"}}
CLAIM = {"metadata": meta, "spec": {"devices": {"requests": [EXACT]}}}
claim = corpus("resourceclaims", CLAIM)
own = "spec.devices.requests.0."
claim.create("plain")
claim.create("empty", {"spec": {}})
claim.create("nothing asked", {"spec.devices.requests.0.exactly": None})
claim.create("both ways", {own + "firstAvailable": [{"name": "s", "deviceClassName": "c"}]})
claim.creates(own + "name", ["", "A", "a.b", LONG, None])
claim.creates(own + "exactly.deviceClassName", ["", "A_", None])
claim.creates(own + "exactly.allocationMode", ["All", "X", "ExactCount"])
claim.creates(own + "exactly.count", [0, -1, 2])
claim.create("count of all", {own + "exactly.allocationMode": "All", own + "exactly.count": 2})
claim.creates(own + "exactly.selectors", [[{}], [{"cel": {"expression": "device.driver == 'a'"}}], [{"cel": {"expression": "a" * 10241}}], [{"cel": {"expression": "true"}}] * 33])
claim.creates(own + "exactly.tolerations", [
    [{}], [{"operator": "Exists"}], [{"operator": "Exists", "value": "v"}], [{"key": "a b", "operator": "Equal", "value": "a b"}],
    [{"key": "k", "operator": "X", "effect": "X"}], [{"operator": "Equal", "key": "k", "effect": "NoExecute"}], [{"key": "k"}], [{"operator": "Exists"}] * 17])
claim.create("two alike", {"spec.devices.requests.1": EXACT})
claim.create("too many requests", {"spec.devices.requests": [{**EXACT, "name": f"r{at}"} for at in range(33)]})
first = [{"name": "s", "deviceClassName": "c"}, {"name": "t", "deviceClassName": "d", "count": 2}]
claim.create("first available", {own + "exactly": None, own + "firstAvailable": first})
claim.create("first available wrong", {own + "exactly": None, own + "firstAvailable": [{"name": "S", "deviceClassName": ""}, {"name": "s", "deviceClassName": "c", "allocationMode": "X"}]})
claim.create("first available twice", {own + "exactly": None, own + "firstAvailable": [first[0], first[0]]})
claim.create("too many first available", {own + "exactly": None, own + "firstAvailable": [{"name": f"s{at}", "deviceClassName": "c"} for at in range(9)]})
claim.creates("spec.devices.constraints", [
    [{}], [{"matchAttribute": "a"}], [{"matchAttribute": "a.example.org/b"}], [{"matchAttribute": "A_/b-c"}], [{"requests": ["r"], "matchAttribute": "a.b/c"}],
    [{"requests": ["x"], "matchAttribute": "a.b/c"}], [{"requests": ["r", "r"], "matchAttribute": "a.b/c"}], [{"requests": ["r/s/t"], "matchAttribute": "a.b/c"}],
    [{"requests": ["r/s", "R"], "matchAttribute": "a.b/c"}], [{"distinctAttribute": "a.b/c"}], [{"matchAttribute": "/"}], [{"matchAttribute": f"a.b/{LONG}"}],
    [{"matchAttribute": "a.b/c"}] * 33])
claim.create("constraint of a part", {own + "exactly": None, own + "firstAvailable": first, "spec.devices.constraints": [{"requests": ["r/s", "r/u"], "matchAttribute": "a.b/c"}]})
opaque = {"driver": "d.example.org", "parameters": {"a": 1}}
claim.creates("spec.devices.config", [
    [{}], [{"opaque": opaque}], [{"opaque": {"driver": "", "parameters": {}}}], [{"opaque": {"driver": "A_", "parameters": "x"}}], [{"opaque": {"driver": LONG, "parameters": [1]}}],
    [{"requests": ["x"], "opaque": opaque}], [{"requests": ["r", "r"], "opaque": opaque}], [{"opaque": {"driver": "d", "parameters": {"a": "b" * 10240}}}],
    [{"opaque": {"driver": "d"}}], [{"opaque": opaque}] * 33])
claim.create("parameters of nothing", {"spec.devices.config": [{"opaque": {"driver": "D.example.org", "parameters": {}}}]})
claim.create("another's attribute", {"spec.devices.constraints": [{"matchAttribute": "A.b/c", "distinctAttribute": "a"}]})
claim.create("attribute of a long domain", {"spec.devices.constraints": [{"matchAttribute": f"{LONG}/c"}, {"matchAttribute": "a/b/c"}, {"matchAttribute": "a/"}]})
claim.create("too many names", {"spec.devices.constraints": [{"requests": ["r"] * 33, "matchAttribute": "a.b/c"}], "spec.devices.config": [{"requests": ["r"] * 33, "opaque": opaque}]})
claim.creates(own + "exactly.capacity", [{"requests": {"a.b/c": "1"}}, {"requests": {"a b": "1"}}, {}])
claim.creates(own + "exactly.derivedAttributes", [[{"name": "a.b/c", "expression": "1"}]])
claim.create("first available, all of it", {own + "exactly": None, own + "firstAvailable": [{**first[0], "selectors": [{}], "count": -1, "tolerations": [{"operator": "Exists", "value": "v"}], "capacity": {"requests": {"a": "1"}}, "derivedAttributes": []}]})
claim.create("three alike", {"spec.devices.requests": [EXACT] * 3})
claim.update("requests", {own + "exactly.count": 2})
claim.update("labels", {"metadata.labels": {"a": "b"}})
claim.update("labels wrong", {"metadata.labels": {"a b": "b"}})
result = {"request": "r", "driver": "d.example.org", "pool": "p", "device": "v"}
given = {"devices": {"results": [result]}}
use = {"resource": "pods", "name": "p", "uid": "u"}
UID = "00000000-0000-4000-8000-000000000001"
for name, status in [
    ("nothing", {}), ("allocated", {"allocation": given}), ("reserved", {"allocation": given, "reservedFor": [use]}), ("reserved unallocated", {"reservedFor": [use]}),
    ("reserved for nobody", {"allocation": given, "reservedFor": [{"resource": "", "name": "", "uid": ""}]}),
    ("reserved twice", {"allocation": given, "reservedFor": [use, use]}),
    ("reserved for many", {"allocation": given, "reservedFor": [{**use, "uid": f"u{at}"} for at in range(257)]}),
    ("result wrong", {"allocation": {"devices": {"results": [{"request": "x", "driver": "A_", "pool": "", "device": ""}]}}}),
    ("result worse", {"allocation": {"devices": {"results": [{"request": "r/s/t", "driver": "", "pool": "a//B", "device": "A"}]}}}),
    ("results many", {"allocation": {"devices": {"results": [result] * 33}}}),
    ("configured", {"allocation": {"devices": {"results": [result], "config": [{"source": "FromClaim", "requests": ["r"], "opaque": opaque}]}}}),
    ("configured wrong", {"allocation": {"devices": {"results": [result], "config": [{"source": "X"}, {"source": "", "requests": ["x"], "opaque": opaque}]}}}),
    ("on nodes", {"allocation": {**given, "nodeSelector": {"nodeSelectorTerms": []}}}),
    ("device", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "data": {"a": 1}}]}),
    ("device twice", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v"}] * 2}),
    ("device unknown", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "w"}]}),
    ("device wrong", {"allocation": given, "devices": [{"driver": "A_", "pool": "P", "device": ""}]}),
    ("device of a share", {"allocation": {"devices": {"results": [{**result, "shareID": UID}]}}, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "shareID": UID}]}),
    ("device of another share", {"allocation": {"devices": {"results": [{**result, "shareID": "A" + UID[1:]}]}}, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "shareID": "a"}]}),
    ("device condition", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "conditions": [{"type": "Ready", "status": "X", "reason": "", "message": "", "lastTransitionTime": None}]}]}),
    ("device conditions", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "conditions": [{"type": f"Ready{at}", "status": "True", "reason": "A", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"} for at in range(9)]}]}),
    ("device data", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "data": "x"}]}),
    ("device much data", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "data": {"a": "b" * 10240}}]}),
    ("device no data", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "data": None}]}),
    ("device without allocation", {"devices": [{"driver": "d.example.org", "pool": "p", "device": "v"}]}),
    ("networks", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "networkData": {"ips": [f"10.0.0.{at}/24" for at in range(17)]}}]}),
    ("network forms", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "networkData": {"ips": ["10.0.0.01/24", "2001:DB8::1/64", "::ffff:10.0.0.1/120", "10.0.0.1/33", "10.0.0.1"]}}]}),
    ("bound", {"allocation": {"devices": {"results": [{**result, "bindingConditions": ["a"], "bindingFailureConditions": ["b"]}]}}}),
    ("bound wrong", {"allocation": {"devices": {"results": [{**result, "bindingConditions": ["a", "a", "a b"], "bindingFailureConditions": ["a", "c", "c"]}]}}}),
    ("bound never", {"allocation": {"devices": {"results": [{**result, "bindingFailureConditions": ["c"]}]}}}),
    ("bound always", {"allocation": {"devices": {"results": [{**result, "bindingConditions": ["c"] }]}}}),
    ("bound much", {"allocation": {"devices": {"results": [{**result, "bindingConditions": ["a", "b", "c", "d", "e"], "bindingFailureConditions": ["f"] * 5}]}}}),
    ("tolerant", {"allocation": {"devices": {"results": [{**result, "tolerations": [{}, {"key": "a b", "operator": "X", "effect": "X"}]}]}}}),
    ("skipping", {"allocation": {"devices": {"results": [{**result, "skipNodeOperations": ["NodePrepareResources"]}]}}}),
    ("consumed", {"allocation": {"devices": {"results": [{**result, "consumedCapacity": {"a": "1"}}]}}}),
    ("configs many", {"allocation": {"devices": {"results": [result], "config": [{"source": "FromClaim", "opaque": opaque}] * 65}}}),
    ("on a node", {"allocation": {**given, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}, "allocationTimestamp": "2026-01-01T00:00:00Z"}}),
    ("network", {"allocation": given, "devices": [{"driver": "d.example.org", "pool": "p", "device": "v", "networkData": {"interfaceName": "i" * 257, "hardwareAddress": "h" * 129, "ips": ["10.0.0.1/24", "10.0.0.1/24", "x"]}}]}),
]:
    claim.update(f"status {name}", {"status": status}, subresource="status")
claim.update("status again", {"status.allocation.devices.results.0.device": "w"}, status={"allocation": given}, subresource="status")
claim.update("status released", {"status.allocation": None}, status={"allocation": given}, subresource="status")

taken = {"allocation": given, "reservedFor": [use], "devices": [{"driver": "d.example.org", "pool": "p", "device": "v"}]}
claim.update("status given back", {"status.allocation": None, "status.reservedFor": None}, status=taken, subresource="status")
claim.update("status given back wrong", {"status.allocation": None}, status=taken, subresource="status")
claim.update("status and spec", {"spec.devices.requests.0.name": "s", "status.reservedFor": None}, status=taken, subresource="status")
claim.update("status alike", {"metadata.labels": {"a": "b"}}, status=taken, subresource="status")
claim.update("status through the object", {"status.reservedFor": None}, status=taken)

template = corpus("resourceclaimtemplates", {"metadata": meta, "spec": {"spec": CLAIM["spec"]}})
template.create("plain")
template.create("empty", {"spec": {}})
template.creates("spec.metadata", [{"labels": {"a b": "c"}}, {"annotations": {"a b": "c"}}, {"labels": {"a": "b"}}])
template.creates("spec.spec.devices.requests", [[{"name": "A"}], [EXACT, EXACT]])
template.update("spec", {"spec.spec.devices.requests.0.name": "s"})
template.update("labels", {"metadata.labels": {"a": "b"}})

device_class = corpus("deviceclasses", {"metadata": meta, "spec": {}})
device_class.create("plain")
device_class.creates("spec.selectors", [[{}], [{"cel": {"expression": "true"}}], [{"cel": {"expression": "true"}}] * 33])
device_class.creates("spec.config", [[{}], [{"opaque": opaque}], [{"opaque": {"driver": "A_", "parameters": None}}], [{"opaque": opaque}] * 33])
device_class.creates("spec.extendedResourceName", ["cpu", "example.org/a", "kubernetes.io/a", "a b", ""])
device_class.creates("metadata.name", ["A", "a.b"])
device_class.creates("spec.extendedResourceName", ["requests.example.org/a", "a.b/" + LONG, "example.org/a/b", "/a"])
device_class.create("parameters of nothing", {"spec.config": [{"opaque": {"driver": "d"}}]})
device_class.update("nothing", {})
device_class.update("name of a resource", {"spec.extendedResourceName": "example.org/a"})
device_class.update("labels", {"metadata.labels": {"a": "b"}}, base={"metadata": meta, "spec": {"config": [{"opaque": opaque}], "selectors": [{"cel": {"expression": "true"}}]}})
device_class.update("config", {"spec.config": [{}]})
device_class.update("selectors", {"spec.selectors": [{"cel": {"expression": "true"}}]})

POOL = {"name": "p", "generation": 1, "resourceSliceCount": 1}
SLICE = {"metadata": meta, "spec": {"driver": "d.example.org", "pool": POOL, "nodeName": "n", "devices": [{"name": "v"}]}}
TAINT_TIMES = [f"spec.devices.0.taints.{at}.timeAdded" for at in range(2)]
slices = corpus("resourceslices", SLICE, TAINT_TIMES)
slices.create("plain")
slices.create("empty", {"spec": {}})
slices.creates("spec.driver", ["", "A_", LONG])
slices.creates("spec.pool", [{}, {**POOL, "name": "A/b"}, {**POOL, "name": "a/b/c.d"}, {**POOL, "name": "a" * 254}, {**POOL, "generation": -1, "resourceSliceCount": 0}])
slices.creates("spec.nodeName", ["", "A_", None])
slices.creates("spec.allNodes", [True, False])
slices.create("all nodes", {"spec.nodeName": None, "spec.allNodes": True})
slices.create("no nodes", {"spec.nodeName": None, "spec.allNodes": False})
slices.create("nodes by label", {"spec.nodeName": None, "spec.nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}})
slices.create("nodes by no label", {"spec.nodeName": None, "spec.nodeSelector": {"nodeSelectorTerms": []}})
slices.create("nodes by device", {"spec.nodeName": None, "spec.perDeviceNodeSelection": True, "spec.devices.0.nodeName": "n"})
slices.create("nodes by no device", {"spec.nodeName": None, "spec.perDeviceNodeSelection": True, "spec.devices.0.nodeName": "", "spec.devices.0.allNodes": False})
slices.create("nodes by device twice", {"spec.nodeName": None, "spec.perDeviceNodeSelection": True, "spec.devices.0.nodeName": "n", "spec.devices.0.allNodes": True})
slices.create("nodes not by device", {"spec.perDeviceNodeSelection": False, "spec.devices.0.nodeName": "n"})
slices.creates("spec.devices", [[{}], [{"name": "A"}], [{"name": "v"}, {"name": "v"}], [{"name": f"v{at}"} for at in range(129)], None])
slices.create("no devices", {"spec.devices": []})
attribute = lambda value: {"spec.devices.0.attributes": {"a": value}}
for name, value in [("none", {}), ("text", {"string": "b"}), ("long", {"string": "b" * 65}), ("two", {"string": "b", "int": 1}), ("version", {"version": "1.2.3-a.1+b"}), ("version wrong", {"version": "1.2"}), ("flag", {"bool": False}), ("number", {"int": 0})]:
    slices.create(f"attribute {name}", attribute(value))
slices.creates("spec.devices.0.attributes", [{"a b": {"int": 1}}, {"a.b/c": {"int": 1}}, {"A_/c": {"int": 1}}, {"/c": {"int": 1}}, {"a.b/": {"int": 1}}, {LONG: {"int": 1}}, {f"a{at}": {"int": 1} for at in range(33)}])
slices.creates("spec.devices.0.capacity", [{"a": {"value": "1"}}, {"a b": {"value": "1"}}, {"a": {"value": "1", "requestPolicy": {"default": "1"}}}])
slices.creates("spec.devices.0.taints", [[{}], [{"key": "a", "effect": "NoSchedule"}], [{"key": "a b", "value": "c d", "effect": "X"}], [{"key": "a", "effect": "None"}], [{"key": "a", "effect": "NoExecute"}] * 17])
slices.creates("spec.devices.0.attributes", [{"a/b/c": {"int": 1}}, {f"{LONG}/a": {"int": 1}}, {f"{LONG}.{LONG}/a": {"int": 1}}, {"A.b/c": {"int": 1}}, {"a": {"ints": [1]}}, {"a": {"ints": [1], "int": 1}}, {"a": {"version": "1.0.0-" + LONG}}, {"a": {"version": "v1.0.0"}}, {"a": {"version": "1.0.0-01"}}, {"a": {"version": "01.0.0"}}, {"a": {"version": "1.0.0+01.a-b"}}])
slices.create("many attributes", {"spec.devices.0.attributes": {f"a{at}": {"int": 1} for at in range(49)}})
slices.create("many capacities", {"spec.devices.0.attributes": {f"a{at}": {"int": 1} for at in range(20)}, "spec.devices.0.capacity": {f"b{at}": {"value": "1"} for at in range(20)}})
slices.create("driver in capitals", {"spec.driver": "D.example.org"})
slices.create("many devices with taints", {"spec.devices": [{"name": f"v{at}"} for at in range(64)] + [{"name": "w", "taints": [{"key": "a", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}]}]})
slices.create("devices and counters", {"spec.sharedCounters": [{"name": "c", "counters": {"m": {"value": "1"}}}]})
counted = {"spec.devices": None, "spec.sharedCounters": [{"name": "c", "counters": {"m": {"value": "1"}}}]}
slices.create("counters", counted)
slices.creates("spec.sharedCounters", [[{}], [{"name": "A", "counters": {}}], [{"name": "c", "counters": {"A": {"value": "1"}, "m": {"value": "1"}}}], [counted["spec.sharedCounters"][0]] * 2, [{"name": f"c{at}", "counters": {"m": {"value": "1"}}} for at in range(9)], [{"name": "c", "counters": {f"m{at}": {"value": "1"} for at in range(33)}}]], base=changed(SLICE, {"spec.devices": None}))
slices.creates("spec.devices.0.consumesCounters", [[{}], [{"counterSet": "c", "counters": {"m": {"value": "1"}}}], [{"counterSet": "A", "counters": {"B": {"value": "1"}}}], [{"counterSet": "c", "counters": {"m": {"value": "1"}}}] * 2, [{"counterSet": f"c{at}", "counters": {"m": {"value": "1"}}} for at in range(3)], [{"counterSet": "c", "counters": {f"m{at}": {"value": "1"} for at in range(33)}}], [{"counterSet": "c", "counters": {"m": {"value": "1"}}, "compatibilityGroups": ["a"]}]])
policy = lambda own, value="10": {"spec.devices.0.allowMultipleAllocations": True, "spec.devices.0.capacity": {"a": {"value": value, "requestPolicy": own}}}
for own in [
    {}, {"default": "1"}, {"default": "20"}, {"validValues": ["1"]}, {"default": "1", "validValues": ["1", "2"]}, {"default": "3", "validValues": ["1", "2"]}, {"default": "1", "validValues": ["2", "1"]},
    {"default": "1", "validValues": ["1", "1"]}, {"default": "1", "validValues": ["1", "1000m"]}, {"default": "1", "validValues": ["1", "11"]}, {"default": "1", "validValues": [f"{at}" for at in range(1, 12)]},
    {"default": "1", "validValues": ["1"], "validRange": {"min": "1"}}, {"validRange": {"min": "1"}}, {"default": "1", "validRange": {}}, {"default": "1", "validRange": {"min": "1"}}, {"default": "1", "validRange": {"min": "11"}},
    {"default": "1", "validRange": {"min": "2"}}, {"default": "1", "validRange": {"min": "1", "max": "5"}}, {"default": "5", "validRange": {"min": "2", "max": "1"}}, {"default": "5", "validRange": {"min": "2", "max": "11"}},
    {"default": "1", "validRange": {"min": "1", "step": "2"}}, {"default": "2", "validRange": {"min": "1", "step": "2"}}, {"default": "1", "validRange": {"min": "1", "max": "4", "step": "2"}}, {"default": "1", "validRange": {"min": "1", "step": "0"}},
    {"default": "1", "validRange": {"min": "1", "step": "-1"}}, {"default": "1", "validRange": {"min": "1", "step": "10"}}, {"default": "1500m", "validRange": {"min": "500m", "step": "500m"}}, {"default": "1700m", "validRange": {"min": "500m", "step": "500m"}},
    {"default": "1500u", "validRange": {"min": "500u", "step": "500u"}}, {"default": "-1", "validRange": {"min": "-1", "step": "1"}}, {"default": "1", "validRange": {"min": "-1"}}, {"default": "1500m", "validRange": {"min": "1", "step": "1"}},
]:
    slices.create(f"policy {own!r}"[:120], policy(own))
slices.create("policy beyond", policy({"default": "1", "validRange": {"min": "1", "max": "20E", "step": "1"}}, "100E"))
slices.create("policy of bytes", policy({"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Mi"}}, "80Gi"))
slices.create("policy of odd bytes", policy({"default": "1Gi", "validRange": {"min": "1Mi", "step": "3Mi"}}, "80Gi"))
slices.create("nodes by labels", {"spec.nodeName": None, "spec.nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}})
slices.create("nodes by wrong label", {"spec.nodeName": None, "spec.nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a b", "operator": "X"}]}]}})
slices.create("nodes by device's label", {"spec.nodeName": None, "spec.perDeviceNodeSelection": True, "spec.devices.0.nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a b", "operator": "Exists"}]}]}})
slices.create("nodes by device's wrong name", {"spec.nodeName": None, "spec.perDeviceNodeSelection": True, "spec.devices.0.nodeName": "A_"})
slices.creates("spec.devices.0.bindingConditions", [["a"], ["a b", "a", "a"]])
slices.create("binding", {"spec.devices.0.bindingConditions": ["a"], "spec.devices.0.bindingFailureConditions": ["b"], "spec.devices.0.bindsToNode": True})
slices.create("binding wrong", {"spec.devices.0.bindingConditions": ["a", "b", "c", "d", "e"], "spec.devices.0.bindingFailureConditions": ["a", "f", "f"]})
slices.creates("spec.partitionTypeAttribute", ["a.b/c"])
slices.creates("spec.skipNodeOperations", [["NodePrepareResources"]])
slices.creates("spec.devices.0.nodeAllocatableResources", [{"cpu": {}}])
slices.update("nothing", {})
slices.update("node of none", {"spec.nodeName": None})
slices.update("capacity", {"spec.devices.0.capacity": {"a": {"value": "1", "requestPolicy": {"default": "1"}}}})
slices.update("capitals", {"metadata.labels": {"a": "b"}}, base=changed(SLICE, {"spec.driver": "D.example.org"}))
slices.update("driver", {"spec.driver": "e.example.org"})
slices.update("pool", {"spec.pool.name": "q"})
slices.update("node", {"spec.nodeName": "m"})
slices.update("device", {"spec.devices.0.name": "w", "spec.pool.generation": 2})
slices.update("taints", {"spec.devices.0.taints": [{"key": "a", "effect": "X"}]})

taint = corpus("devicetaintrules", {"metadata": meta, "spec": {"deviceSelector": {"driver": "d.example.org"}, "taint": {"key": "k", "effect": "NoSchedule"}}}, ["spec.taint.timeAdded"])
taint.create("plain")
taint.create("empty", {"spec": {}})
taint.creates("spec.deviceSelector", [None, {}, {"driver": ""}, {"driver": "A_", "pool": "", "device": ""}, {"pool": "a/B", "device": "A"}])
taint.creates("spec.taint", [{"key": "", "effect": ""}, {"key": "a b", "value": "c d", "effect": "X"}, {"key": "a", "effect": "NoExecute", "value": "b"}])
taint.update("effect", {"spec.taint.effect": "NoExecute"})
taint.update("effect wrong", {"spec.taint.effect": "X"})
taint.update("selector", {"spec.deviceSelector.pool": "p"})
ready = {"type": "Ready", "status": "True", "reason": "A", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
taint.update("value", {"spec.taint.value": "v"})
taint.update("time", {"spec.taint.timeAdded": "2026-01-01T00:00:00Z", "spec.taint.effect": "NoExecute"})
taint.update("status", {"status": {"conditions": [ready]}}, subresource="status")
taint.update("status through the object", {"status": {"conditions": [ready]}})
taint.update("status twice", {"status": {"conditions": [ready, ready, {"type": "a b"}]}}, subresource="status")
taint.update("status much", {"status": {"conditions": [{**ready, "type": f"Ready{at}"} for at in range(9)]}}, subresource="status")
taint.create("status", {"status": {"conditions": [ready]}})
