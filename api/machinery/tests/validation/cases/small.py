"""Config maps, secrets, namespaces."""

from cases.corpus import Corpus, changed

CASES = []
meta = {"name": "x"}

cm = Corpus(CASES, "", "v1", "configmaps", {"metadata": meta, "data": {"a": "b"}})
cm.create("plain")
cm.creates("metadata.name", ["A", "a_b", "x" * 254, "a.b"])
cm.create("bad keys", {"data": {"a/b": "c", "..x": "d"}})
cm.update("immutable", {"immutable": None, "data.a": "c"}, base=changed(cm.base, {"immutable": True}))
