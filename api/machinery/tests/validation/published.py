#!/usr/bin/env python3
"""Records what a real kube-apiserver publishes of kinds that are defined: `golden/published.json`.

Each case is a definition's schema; the golden keeps the schema as the server stored it, and the
types of the objects and of their list in OpenAPI v2 and v3. The binaries are taken from
$NAUTILUS_E2E_BIN, as `record.py` does.
"""

import json, sys, tempfile, time
from pathlib import Path

from record import Oracle

GROUP, VERSION = "stable.example.org", "v1"


def of(properties=None, **more):
    made = {"type": "object", **more}
    return made if properties is None else {**made, "properties": properties}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
INT_OR_STRING = {"x-kubernetes-int-or-string": True}
EITHER = [WHOLE, TEXT]
OPEN = {"x-kubernetes-preserve-unknown-fields": True}
EMBEDDED = {"x-kubernetes-embedded-resource": True}
RULES = [{"rule": "self.a < 3", "message": "large", "reason": "FieldValueInvalid", "fieldPath": ".a"}, {"rule": "self.a < 4"}]

# The kind; what it is of; the fields that it is selected by.
CASES = {
    "Bare": (of(), []),
    "Open": (of({"spec": of()}, description="Open at the root.", **OPEN), []),
    "Named": (of({"metadata": of({"name": {"type": "string", "maxLength": 20}}), "apiVersion": TEXT, "kind": TEXT}), []),
    "Described": (of({"spec": of({"size": {"type": "integer", "format": "int32", "description": "How large it is.", "title": "Size", "default": 2}},
                                 description="What is wanted.", required=["size"]),
                      "status": of({"phase": TEXT}, description="What is.")}, description="A thing."), []),
    "Selected": (of({"spec": of({"colour": TEXT, "size": WHOLE})}), ["spec.colour", "spec.size"]),
    "Limited": (of({
        "whole": {"type": "integer", "minimum": 1, "maximum": 9, "exclusiveMaximum": True, "multipleOf": 2},
        "number": {"type": "number", "minimum": 0.5, "exclusiveMinimum": True},
        "text": {"type": "string", "enum": ["blue", "red"], "pattern": "^[a-z]+$", "minLength": 1, "maxLength": 8},
        "form": {"type": "string", "format": "date"},
        "other": {"type": "string", "format": "unheard-of"},
        "list": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 4},
        "map": of(additionalProperties=TEXT, minProperties=1, maxProperties=3),
        "zero": {"type": "integer", "minimum": 0, "maximum": 0, "default": 0},
        "flag": {"type": "boolean", "default": False},
    }), []),
    "Listed": (of({
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                  "items": of({"name": TEXT, "maybe": {"type": "string", "nullable": True}}, required=["name"])},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": TEXT},
        "atomic": {"type": "array", "x-kubernetes-list-type": "atomic", "items": of({"a": {"type": "string", "default": "b"}})},
        "map": of(additionalProperties=TEXT, **{"x-kubernetes-map-type": "granular"}),
        "free": of(additionalProperties=True),
    }), []),
    "Nullable": (of({
        "text": {"type": "string", "nullable": True, "default": None, "example": "a", "externalDocs": {"url": "http://example.org", "description": "More."}},
        "object": of({"a": TEXT}, nullable=True),
        "list": {"type": "array", "nullable": True, "items": TEXT},
        "map": of(additionalProperties={"type": "string", "nullable": True}, minProperties=1),
        "some": of({"n": {"type": "string", "nullable": True}, "m": TEXT}, required=["n", "m"]),
        "none": of({"n": {"type": "string", "nullable": True}}, required=["n"]),
    }), []),
    "Kept": (of({
        "any": OPEN, "described": {"description": "Anything.", **OPEN}, "object": of({"a": TEXT}, **OPEN),
        "list": {"type": "array", "items": TEXT, **OPEN}, "within": {"type": "array", "items": of(**OPEN)},
        "required": of({"a": TEXT}, required=["a"], **OPEN), "text": {"type": "string", **OPEN},
    }), []),
    "IntOrString": (of({
        "plain": INT_OR_STRING, "stated": {"anyOf": EITHER, "maxLength": 3, **INT_OR_STRING},
        "more": {"anyOf": [{"maximum": 3}, {"pattern": "a"}], **INT_OR_STRING},
        "all": {"allOf": [{"anyOf": EITHER}, {"minLength": 1}], **INT_OR_STRING},
        "both": {"anyOf": [{"maximum": 3}, {"pattern": "a"}], "allOf": [{"minLength": 1}], **INT_OR_STRING},
        "each": of(additionalProperties=INT_OR_STRING),
    }), []),
    "Embedding": (of({
        "one": of({"spec": of()}, **EMBEDDED), "open": of(description="Anything.", **EMBEDDED, **OPEN),
        "many": {"type": "array", "items": of({"spec": of(), "kind": {"type": "string", "enum": ["A"]}}, required=["spec", "kind"], **EMBEDDED)},
    }), []),
    "Alternatives": (of({
        "either": of({"a": TEXT, "b": TEXT}, oneOf=[{"required": ["a"]}, {"required": ["b"]}],
                     allOf=[{"properties": {"a": {"minLength": 1}}}], anyOf=[{"required": ["a"]}, {"required": ["b"]}],
                     **{"not": {"required": ["a", "b"]}}),
    }), []),
    "Ruled": (of({"spec": of({"a": {"type": "integer", "default": 0}}, default={"a": 1},
                             **{"x-kubernetes-map-type": "atomic", "x-kubernetes-validations": RULES})}), []),
}


def definition(kind, schema, selectable):
    plural = kind.lower() + "s"
    version = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    if selectable:
        version["selectableFields"] = [{"jsonPath": f".{path}"} for path in selectable]
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}Row" if kind == "Listed" else f"{kind}List"}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{GROUP}"},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}}


def fetch(oracle, path, types, wanted):
    """The types, once all the wanted ones are published."""
    for _ in range(150):
        document = oracle.send("GET", path)[1]
        for name in types:
            document = document.get(name, {}) if isinstance(document, dict) else {}
        if all(name in document for name in wanted):
            return document
        time.sleep(0.2)
    raise SystemExit(f"{path}: not published")


def main():
    with tempfile.TemporaryDirectory() as home:
        oracle = Oracle(home)
        try:
            cases = []
            for kind, (schema, selectable) in CASES.items():
                code, stored, _ = oracle.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(kind, schema, selectable))
                if code != 201:
                    raise SystemExit(f"{kind}: {stored.get('message')}")
                cases.append({"group": GROUP, "version": VERSION, "kind": kind, "plural": stored["spec"]["names"]["plural"],
                              "list_kind": stored["spec"]["names"]["listKind"], "selectable": selectable,
                              "schema": stored["spec"]["versions"][0]["schema"]["openAPIV3Schema"]})
            prefix = ".".join(reversed(GROUP.split("."))) + f".{VERSION}."
            wanted = [prefix + case[name] for case in cases for name in ("kind", "list_kind")]
            v2 = fetch(oracle, "/openapi/v2", ["definitions"], wanted)
            v3 = fetch(oracle, f"/openapi/v3/apis/{GROUP}/{VERSION}", ["components", "schemas"], wanted)
            for case in cases:
                for name, types in (("v2", v2), ("v3", v3)):
                    case[name] = {"object": types[prefix + case["kind"]], "list": types[prefix + case["list_kind"]]}
        finally:
            oracle.stop()
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    golden = Path(__file__).resolve().parent.parent / "golden" / "published.json"
    golden.write_text(f"[\n{lines}\n]\n")
    print(f"published: {len(cases)} kinds")


if __name__ == "__main__":
    main()
