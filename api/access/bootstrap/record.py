#!/usr/bin/env python3
"""Records what a kube-apiserver makes at its first start, as digests and as the table.

Usage: kubectl get clusterroles,clusterrolebindings,roles,rolebindings -A -o json \\
         | record.py [--table] > roles.golden

The server must be of the release that is served, freshly started on an empty store, with
RBAC on and no controller manager. With --table the lines of `roles.txt` are printed
instead of the digests that guard them. A digest is FNV-1a (64 bits) over the object's
canonical JSON without what a server adds.
"""
import json
import sys

KINDS = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]
KEPT = ["kind", "rules", "aggregationRule", "roleRef", "subjects"]


def fnv1a(data: bytes) -> int:
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return digest


def kept(item):
    out = {key: item[key] for key in KEPT if item.get(key)}
    # What a gathering role has gathered depends on when it is looked at.
    if "aggregationRule" in out:
        out.pop("rules", None)
    meta = item["metadata"]
    out["metadata"] = {
        key: meta[key]
        for key in ["name", "namespace", "labels", "annotations"]
        if meta.get(key)
    }
    return out


def place(item):
    meta = item["metadata"]
    return (KINDS.index(item["kind"]), meta.get("namespace", ""), meta["name"])


def table(item):
    meta = item["metadata"]
    name = meta["name"]
    namespace = meta.get("namespace")
    words = [item["kind"].lower(), f"{namespace}/{name}" if namespace else name]
    for key, value in meta["labels"].items():
        if key != "kubernetes.io/bootstrapping":
            words.append(f"label:{key}={value}")
    for selector in item.get("aggregationRule", {}).get("clusterRoleSelectors", []):
        words += [f"gathers:{k}={v}" for k, v in selector["matchLabels"].items()]
    lines = []
    if "roleRef" in item:
        role = item["roleRef"]
        own = "Role" if namespace else "ClusterRole"
        if (role["kind"], role["name"]) != (own, name):
            words.append(f"to:{role['kind'].lower()}/{role['name']}")
        for subject in item.get("subjects") or []:
            of = f"{subject['namespace']}/" if "namespace" in subject else ""
            lines.append(f"  {subject['kind'].lower()} {of}{subject['name']}")
    elif "aggregationRule" not in item:
        for rule in item.get("rules") or []:
            parts = [rule["verbs"]]
            for key in ["apiGroups", "resources", "resourceNames", "nonResourceURLs"]:
                if key in rule:
                    parts.append([word or "core" for word in rule[key]])
            lines.append("  " + ": ".join(" ".join(part) for part in parts))
    return "\n".join([" ".join(words)] + lines)


for item in sorted(json.load(sys.stdin)["items"], key=place):
    if sys.argv[1:] == ["--table"]:
        print(table(item))
    else:
        text = json.dumps(kept(item), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        print(f"{fnv1a(text.encode()):016x} {'/'.join(filter(None, place(item)[1:]))} {item['kind']}")
