"""Expressions that select devices: what compiles, what it may come to, what it may cost.

Asked of the whole server (`api/rest/tests/face/devices.rs`): the rules of kinds compile nothing."""

from cases.corpus import Corpus

CASES = []
CLAIM = {"metadata": {"name": "x"}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c", "selectors": [{"cel": {"expression": "true"}}]}}]}}}
claims = Corpus(CASES, "resource.k8s.io", "v1", "resourceclaims", CLAIM)
WHERE = "spec.devices.requests.0.exactly.selectors.0.cel.expression"
QUADRATIC = "device.attributes['d'].all(a, device.attributes['d'].all(b, a != b))"
claims.creates(WHERE, [
    "device.driver == 'a'", "device", "device.name", "driver", "1", "device.driver", "true ||", "device.allowMultipleAllocations", "device.allowMultipleAllocations == 1",
    "device.attributes['a.b'].c", "device.attributes['a.b'].c == 'x'", "device.attributes['a.b'].c > 1", "device.attributes['a.b'].c.isGreaterThan(semver('1.0.0'))", "device.attributes.a.b",
    "'c' in device.attributes['a.b']", "has(device.attributes['a.b'].c)", "device.capacity['a.b'].c", "device.capacity['a.b'].c.compareTo(quantity('1Gi')) >= 0", "device.capacity['a.b'].c == '1'",
    "cel.bind(own, device.attributes['a.b'], own.x && own.y)", "device.attributes['a.b'].c.matches('(')", "device.driver.matches('(')", "device.attributes[1].c", "object.name == 'a'", "authorizer.path('/').check('get').allowed()",
    QUADRATIC, "device.attributes['d'].all(a, device.attributes['d'].all(b, device.attributes['d'].all(c, device.attributes['d'].all(e, a != b))))",
    "device.attributes.all(a, device.attributes[a].all(b, device.attributes[a].all(c, device.attributes[a].all(d, b != c))))",
    "device.attributes['d'].c.all(x, true)", "device.attributes['d'].c.contains('a')", "device.driver.lowerAscii() == 'a'",
    "[1, 2, 3].exists(a, [1, 2, 3].exists(b, device.driver.matches('a+' + string(a))))", "dyn(1)", "device.attributes['d'].exists(a, [].exists(b, b))"])
claims.create("two of them", {"spec.devices.requests.0.exactly.selectors": [{"cel": {"expression": "a"}}, {"cel": {"expression": "1"}}]})
claims.create("of a part", {"spec.devices.requests.0.exactly": None, "spec.devices.requests.0.firstAvailable": [{"name": "s", "deviceClassName": "c", "selectors": [{"cel": {"expression": "a"}}]}]})
templates = Corpus(CASES, "resource.k8s.io", "v1", "resourceclaimtemplates", {"metadata": {"name": "x"}, "spec": {"spec": CLAIM["spec"]}})
templates.creates("spec." + WHERE, ["a", "device.driver == 'a'"])
CLASS = {"metadata": {"name": "x"}, "spec": {"selectors": [{"cel": {"expression": "true"}}]}}
classes = Corpus(CASES, "resource.k8s.io", "v1", "deviceclasses", CLASS)
classes.creates("spec.selectors.0.cel.expression", ["a", "device.driver == 'a'"])
classes.update("another", {"spec.selectors.0.cel.expression": "a"})
classes.update("one more", {"spec.selectors.1": {"cel": {"expression": "1"}}})
