"""How cases are written: a valid object, and what is changed in it."""

from record import changed

CORE = ""


class Corpus:
    """The cases of one kind. Paths are dotted; `None` removes."""

    def __init__(self, cases, group, version, plural, base, volatile=()):
        self.cases, self.resource, self.base, self.volatile = cases, (group, version, plural), base, list(volatile)

    def create(self, name, changes=None, base=None):
        self.cases.append({"resource": self.resource, "name": name, "volatile": self.volatile,
                           "object": changed(base or self.base, changes or {})})

    def creates(self, path, values, base=None):
        """One case for each value at one path."""
        for value in values:
            self.create(f"{path}={value!r}"[:80], {path: value}, base)

    def update(self, name, changes, base=None, subresource=None, status=None):
        self.cases.append({"resource": self.resource, "name": name, "volatile": self.volatile,
                           "old": base or self.base, "changes": changes, "subresource": subresource,
                           "old_status": status})
