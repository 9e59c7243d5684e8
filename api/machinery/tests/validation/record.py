#!/usr/bin/env python3
"""Records what a real kube-apiserver makes of the corpus in `cases/`.

    record.py [GROUP ...]       writes golden/GROUP.json for each cases/GROUP.py

A case is an object sent with dryRun=All: the golden keeps the defaulted result of one
that is accepted, and code, causes and warnings of one that is refused. The case of an
update first creates its object for good, so that `old` is what the server stored.
The binaries kube-apiserver and etcd are taken from $NAUTILUS_E2E_BIN. Admission plugins
that change or judge objects are off: this corpus is about the kinds' own rules.
"""

import copy, http.client, importlib, json, os, re, socket, ssl, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
BINARIES = Path(os.environ["NAUTILUS_E2E_BIN"])
TOKEN = "an-administrators-token"
PLUGINS_OFF = (
    "CertificateApproval,CertificateSigning,CertificateSubjectRestriction,ClusterTrustBundleAttest,"
    "DefaultIngressClass,DefaultStorageClass,DefaultTolerationSeconds,LimitRanger,"
    "PersistentVolumeClaimResize,PodSecurity,Priority,ResourceQuota,RuntimeClass,ServiceAccount,"
    "StorageObjectInUseProtection,TaintNodesByCondition"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Oracle:
    def __init__(self, home):
        home = Path(home)
        client, peer, self.port = free_port(), free_port(), free_port()
        url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        (home / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
        subprocess.run(["openssl", "genrsa", "-out", home / "key.pem", "2048"], check=True, capture_output=True)
        self.log = open(home / "log", "w")
        self.processes = [
            subprocess.Popen([BINARIES / "etcd", "--data-dir", home / "etcd", "--listen-client-urls", url,
                              "--advertise-client-urls", url, "--listen-peer-urls", peer_url,
                              "--initial-advertise-peer-urls", peer_url, "--initial-cluster", f"default={peer_url}",
                              "--unsafe-no-fsync"], stdout=self.log, stderr=self.log),
            subprocess.Popen([BINARIES / "kube-apiserver", "--etcd-servers", url,
                              "--service-account-issuer", "https://oracle.test",
                              "--service-account-signing-key-file", home / "key.pem",
                              "--service-account-key-file", home / "key.pem",
                              "--token-auth-file", home / "tokens.csv", "--authorization-mode", "AlwaysAllow",
                              "--service-cluster-ip-range", "10.0.0.0/16,fd00::/108",
                              "--allow-privileged", "--profiling=false",
                              "--disable-admission-plugins", PLUGINS_OFF,
                              "--bind-address", "127.0.0.1", "--secure-port", str(self.port),
                              "--cert-dir", home / "serving"], stdout=self.log, stderr=self.log),
        ]
        self.connection = None
        self.wait()

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def wait(self):
        for _ in range(600):
            try:
                if self.send("GET", "/readyz")[0] == 200 and self.send("GET", "/api/v1/namespaces/default")[0] == 200:
                    return
            except OSError:
                self.connection = None
            time.sleep(0.2)
        raise SystemExit("the kube-apiserver does not get ready")

    def send(self, method, path, body=None):
        if self.connection is None:
            context = ssl._create_unverified_context()
            self.connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=60)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        self.connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        warnings = [warning(line) for line in answer.headers.get_all("Warning") or []]
        try:
            return answer.status, json.loads(text), warnings
        except ValueError:
            return answer.status, text.decode(), warnings


def warning(line):
    """The text of `299 - "text"`."""
    return line.split(" ", 2)[2][1:-1].replace('\\"', '"').replace("\\\\", "\\")


NAMESPACED_NOT = {
    "namespaces", "nodes", "persistentvolumes", "storageclasses", "csidrivers", "csinodes", "volumeattachments",
    "volumeattributesclasses", "clusterroles", "clusterrolebindings", "priorityclasses", "runtimeclasses",
    "certificatesigningrequests", "validatingwebhookconfigurations", "mutatingwebhookconfigurations",
    "validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings", "flowschemas", "prioritylevelconfigurations", "apiservices", "deviceclasses",
    "resourceslices", "ingressclasses", "ipaddresses", "servicecidrs", "devicetaintrules", "clustertrustbundles",
    "tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews",
}


def put(target, path, value):
    """Sets (`None`: removes) what stands at a dotted path; a key with dots is written a~1b as in `a.b`."""
    parts = [part.replace("~1", ".") for part in path.split(".")]
    for at, part in enumerate(parts[:-1]):
        if isinstance(target, list):
            target = target[int(part)]
        else:
            if target.get(part) is None:
                target[part] = [] if parts[at + 1].isdigit() else {}
            target = target[part]
    last = parts[-1]
    if isinstance(target, list):
        if value is None:
            del target[int(last)]
        elif int(last) == len(target):
            target.append(value)
        else:
            target[int(last)] = value
    elif value is None:
        target.pop(last, None)
    else:
        target[last] = value


def changed(base, changes):
    made = copy.deepcopy(base)
    for path, value in changes.items():
        put(made, path, copy.deepcopy(value))
    return made


def named(text):
    """With the uid of the tests in place of the server's own."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "00000000-0000-4000-8000-000000000001", text)


VOLATILE = ["uid", "creationTimestamp", "managedFields", "resourceVersion", "selfLink"]


def bare(thing, volatile):
    for key in VOLATILE:
        thing.get("metadata", {}).pop(key, None)
    for path in volatile:
        put_if(thing, path)
    return thing


def put_if(thing, path):
    """Removes what stands at a path, if anything does."""
    *parts, last = (part.replace("~1", ".") for part in path.split("."))
    try:
        for part in parts:
            thing = thing[int(part) if isinstance(thing, list) else part]
        if last in thing:
            del thing[last]
    except (KeyError, IndexError, TypeError):
        pass


def record(oracle, case, serial):
    group, version, plural = case["resource"]
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    namespace = None if plural in NAMESPACED_NOT else "default"
    base = root + (f"/namespaces/{namespace}" if namespace else "") + f"/{plural}"
    sent = {"resource": "/".join(case["resource"]), "case": case["name"]}
    if case.get("old") is not None:
        old = copy.deepcopy(case["old"])
        name = old["metadata"].get("name", "x")
        code, stored, _ = oracle.send("POST", base, old)
        if code == 409:
            oracle.send("DELETE", f"{base}/{name}?gracePeriodSeconds=0")
            code, stored, _ = oracle.send("POST", base, old)
        if code >= 300:
            print(f"  {case['name']}: the old object is refused: {stored.get('message')}")
            return None
        if case.get("old_status") is not None:
            with_status = copy.deepcopy(stored)
            with_status["status"] = case["old_status"]
            code, answer, _ = oracle.send("PUT", f"{base}/{name}/status", with_status)
            if code >= 300:
                print(f"  {case['name']}: the old status is refused: {answer.get('message')}")
                return None
            stored = answer
        new = changed(stored, case["changes"])
        path = f"{base}/{name}" + (f"/{case['subresource']}" if case.get("subresource") else "")
        code, answer, warnings = oracle.send("PUT", path + "?dryRun=All", new)
        sent["subresource"] = case.get("subresource")
        sent["old"] = bare(copy.deepcopy(stored), [])
        sent["changes"] = case["changes"]
        if not case.get("subresource"):
            sent.pop("subresource")
        remove(oracle, base, name, stored)
    else:
        sent["object"] = case["object"]
        code, answer, warnings = oracle.send("POST", base + "?dryRun=All", case["object"])
    if code < 300:
        sent["result"] = bare(answer, case.get("volatile", []))
    else:
        sent["code"] = code
        causes = (answer.get("details") or {}).get("causes") if isinstance(answer, dict) else None
        if causes:
            sent["causes"] = [[c.get("field", ""), c.get("reason", ""), named(c.get("message", ""))] for c in causes]
        else:
            sent["message"] = answer.get("message") if isinstance(answer, dict) else answer
    if warnings:
        sent["warnings"] = warnings
    if case.get("volatile"):
        sent["volatile"] = case["volatile"]
    return sent


def remove(oracle, base, name, stored):
    oracle.send("DELETE", f"{base}/{name}?gracePeriodSeconds=0")
    code, left, _ = oracle.send("GET", f"{base}/{name}")
    if code == 200:
        left["metadata"]["finalizers"] = []
        oracle.send("PUT", f"{base}/{name}", left)
        oracle.send("DELETE", f"{base}/{name}?gracePeriodSeconds=0")


def main():
    wanted = sys.argv[1:] or sorted(path.stem for path in (HERE / "cases").glob("*.py") if path.stem != "corpus")
    (HERE / "golden").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        oracle = Oracle(home)
        try:
            for group in wanted:
                module = importlib.import_module(f"cases.{group}")
                lines = [record(oracle, case, at) for at, case in enumerate(module.CASES)]
                lines = [json.loads(named(json.dumps(line))) for line in lines if line is not None]
                text = ",\n".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines)
                (HERE / "golden" / f"{group}.json").write_text(f"[\n{text}\n]\n")
                print(f"{group}: {len(lines)} cases")
        finally:
            oracle.stop()


if __name__ == "__main__":
    main()
