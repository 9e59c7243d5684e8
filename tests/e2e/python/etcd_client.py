"""Drives the Python client etcd3 against the members that the ETCDCTL_* variables name.

Prints "ok" when every promise was kept; ends with 1 and the broken one otherwise.
"""

import os
import queue
import sys
import uuid
from urllib.parse import urlparse

import etcd3


def connect(endpoint):
    address = urlparse(endpoint)
    return etcd3.client(
        host=address.hostname,
        port=address.port,
        ca_cert=os.environ["ETCDCTL_CACERT"],
        cert_cert=os.environ["ETCDCTL_CERT"],
        cert_key=os.environ["ETCDCTL_KEY"],
        timeout=30,
    )


def check(promise, kept):
    if not kept:
        print("failed:", promise)
        sys.exit(1)


def keys(one, other):
    one.put("/python/a", "1")
    value, meta = other.get("/python/a")
    check("another member reads what was put", value == b"1")
    check("the first version is 1", meta.version == 1)
    one.put("/python/b", "2")
    found = [(value, meta.key) for value, meta in other.get_prefix("/python/", sort_order="descend")]
    check("a prefix is read in order", found == [(b"2", b"/python/b"), (b"1", b"/python/a")])
    check("a key that is not there is None", one.get("/python/none")[0] is None)
    check("replace compares", one.replace("/python/a", "1", "3"))
    check("replace refuses", not one.replace("/python/a", "1", "4"))
    check("delete says whether", one.delete("/python/b") and not one.delete("/python/b"))


def transactions(client):
    branch = client.transaction(
        compare=[client.transactions.value("/python/a") == "3"],
        success=[client.transactions.put("/python/t", "then"), client.transactions.get("/python/a")],
        failure=[client.transactions.put("/python/t", "else")],
    )
    check("the comparison holds", branch[0])
    check("a transaction reads", branch[1][1][0][0] == b"3")
    check("a transaction writes", client.get("/python/t")[0] == b"then")


def watches(one, other):
    events = queue.Queue(maxsize=100)
    watch = one.add_watch_prefix_callback("/python/w/", events.put)
    other.put("/python/w/1", "x")
    other.delete("/python/w/1")
    seen = []
    while len(seen) < 2:
        seen.extend(events.get(timeout=30).events)
    check("a watch sees a put", isinstance(seen[0], etcd3.events.PutEvent) and seen[0].value == b"x")
    check("a watch sees a deletion", isinstance(seen[1], etcd3.events.DeleteEvent))
    one.cancel_watch(watch)


def leases(client):
    lease = client.lease(60)
    client.put("/python/leased", "x", lease=lease)
    check("a lease has its time", lease.granted_ttl == 60 and 0 < lease.remaining_ttl <= 60)
    check("a lease knows its keys", lease.keys == [b"/python/leased"])
    check("a lease is kept alive", lease.refresh()[0].TTL == 60)
    lease.revoke()
    check("its keys end with it", client.get("/python/leased")[0] is None)


def locks(one, other):
    name = f"python-{uuid.uuid4()}"
    with one.lock(name, ttl=30) as held:
        check("the lock is held", held.is_acquired())
        check("nobody else gets it", not other.lock(name, ttl=30).acquire(timeout=1))
    with other.lock(name, ttl=30) as held:
        check("it goes to the next", held.is_acquired())


def main():
    endpoints = os.environ["ETCDCTL_ENDPOINTS"].split(",")
    one, other = connect(endpoints[0]), connect(endpoints[-1])
    check("every member is listed", len(list(one.members)) == len(endpoints))
    check("the status has a leader", one.status().leader is not None)
    keys(one, other)
    transactions(one)
    watches(one, other)
    leases(other)
    locks(one, other)
    print("ok")


if __name__ == "__main__":
    main()
