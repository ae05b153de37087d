"""etcd3-py, which speaks to the JSON gateway, streams too."""

import threading
import time
import unittest

import etcd3
from etcd3 import Lease, Lock, Txn

from server import Server

PATIENCE = 20


def complain(arguments):
    """A keep-alive's thread stumbles over its own lock when it ends, whatever the server does."""
    if arguments.thread is None or "keepalived" not in arguments.thread.name:
        threading.__excepthook__(arguments)


threading.excepthook = complain


class Case(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.client = self.connect()

    def connect(self):
        client = etcd3.Client(self.server.host, self.server.port, timeout=PATIENCE)
        self.addCleanup(client.close)
        return client

    def test_it_finds_the_version_by_itself(self):
        self.assertRegex(self.client.server_version, r"^3\.\d+\.\d+$")
        self.assertRegex(self.client.cluster_version, r"^3\.\d+\.0$")

    def test_keys(self):
        client = self.client
        client.put("key", "one")
        self.assertEqual(client.put("key", "two", prev_kv=True).prev_kv.value, b"one")
        pair = client.range("key").kvs[0]
        self.assertEqual((pair.value, pair.version, pair.create_revision), (b"two", 2, 2))
        for index in range(5):
            client.put(f"range/{index}", str(index))
        self.assertEqual(client.range("range/", prefix=True, count_only=True).count, 5)
        self.assertEqual([pair.key for pair in client.range("range/3", "range/9").kvs], [b"range/3", b"range/4"])
        self.assertTrue(client.range("range/", prefix=True, limit=2).more)
        self.assertEqual(client.delete_range("range/", prefix=True, prev_kv=True).deleted, 5)
        self.assertEqual(len(client.range(all=True).kvs), 1)

    def test_transactions(self):
        txn = Txn(self.client)
        txn.If(txn.key("key").version == 0)
        txn.Then(txn.put("key", "made"))
        txn.Then(txn.range("key"))
        txn.Else(txn.range("key"))
        answer = txn.commit()
        self.assertTrue(answer.succeeded)
        self.assertEqual(answer.responses[1].response_range.kvs[0].value, b"made")
        self.assertNotIn("succeeded", txn.commit())

    def test_errors(self):
        # The client looks for a text that etcd's gateway told up to 3.5, so it is the code that counts here.
        def refused(answer):
            if answer.status_code >= 400:
                raise ValueError(answer.status_code, answer.json()["code"])

        self.client.status()
        self.client._raise_for_status = refused
        for told, call in [
            ((400, 11), lambda: self.client.range("key", revision=99)),
            ((404, 5), lambda: self.client.lease_revoke(99)),
            ((404, 5), lambda: self.client.member_remove(99)),
        ]:
            with self.assertRaises(ValueError) as caught:
                call()
            self.assertEqual(caught.exception.args, told)

    def test_watches(self):
        first = self.client.put("watched/a", "1").header.revision
        self.client.delete_range("watched/a")
        watcher = self.client.Watcher(key="watched/", prefix=True, start_revision=first, prev_kv=True)
        told = []
        watcher.onEvent(told.append)
        watcher.runDaemon()
        for index in range(10):
            self.connect().put("watched/b", str(index))
        end = time.monotonic() + PATIENCE
        while len(told) < 12:
            self.assertLess(time.monotonic(), end, told)
            time.sleep(0.05)
        watcher.stop()
        self.assertEqual([event.type.value for event in told], ["PUT", "DELETE"] + ["PUT"] * 10)
        self.assertEqual(told[1].prev_kv.value, b"1")
        self.assertEqual([event.value for event in told[2:]], [b"%d" % index for index in range(10)])

    def test_leases(self):
        with Lease(self.client, ttl=10) as lease:
            self.client.put("leased", "x", lease=lease.ID)
            self.assertEqual(lease.time_to_live(keys=True).keys, [b"leased"])
            self.assertEqual(lease.keepalive_once().TTL, 10)
            self.assertTrue(lease.alive())
        self.assertNotIn("kvs", self.client.range("leased"))
        self.assertEqual(self.client.lease_time_to_live(77).TTL, -1)

    def test_locks(self):
        with Lock(self.client, "mutex", lock_ttl=10) as first:
            self.assertTrue(first.is_acquired)
            second = Lock(self.connect(), "mutex", lock_ttl=10)
            with self.assertRaises(etcd3.stateful.lock.EtcdLockAcquireTimeout):
                second.acquire(timeout=0.3)
        self.assertTrue(second.acquire(timeout=PATIENCE))
        second.release()

    def test_members_and_maintenance(self):
        members = self.client.member_list().members
        self.assertEqual([member.name for member in members], ["default"])
        self.assertEqual(self.client.status().leader, members[0].ID)
        self.client.defragment()
        self.assertNotIn("alarms", self.client.alarm_get(0, 0))
        self.client.compact(self.client.put("key", "x").header.revision)
        for part in self.client.snapshot():
            self.assertGreater(len(part.blob), 0)
            break


if __name__ == "__main__":
    unittest.main()
