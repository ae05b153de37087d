"""python-etcd3 and its living fork (etcd-sdk-python, imported as pyetcd), which have one interface.

    MODULE=etcd3 python grpc_client.py
"""

import importlib
import io
import os
import queue
import threading
import time
import unittest

from server import Server

module = importlib.import_module(os.environ["MODULE"])
PATIENCE = 20


def complain(arguments):
    """What a thread of the clients says when its channel is closed under it is no news."""
    if "Channel closed" not in str(arguments.exc_value):
        threading.__excepthook__(arguments)


threading.excepthook = complain


class Case(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.client = self.connect()

    def connect(self):
        client = module.client(host=self.server.host, port=self.server.port, timeout=PATIENCE)
        self.addCleanup(client.close)
        return client

    def wait(self, what, holds):
        end = time.monotonic() + PATIENCE
        while not holds():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.05)


class Keys(Case):
    def test_put_get_delete(self):
        client = self.client
        client.put("key", "one")
        previous = client.put("key", b"two \x00\xff", prev_kv=True)
        self.assertEqual(previous.prev_kv.value, b"one")
        value, meta = client.get("key")
        self.assertEqual((value, meta.key, meta.version), (b"two \x00\xff", b"key", 2))
        self.assertEqual((meta.create_revision, meta.mod_revision, meta.lease_id), (2, 3, 0))
        self.assertEqual(client.get("missing"), (None, None))
        self.assertTrue(client.delete("key"))
        self.assertFalse(client.delete("key"))

    def test_ranges(self):
        client = self.client
        for index in range(10):
            client.put(f"range/{index}", str(9 - index))
        client.put("other", "x")
        self.assertEqual([value for value, _ in client.get_prefix("range/")], [b"%d" % n for n in range(9, -1, -1)])
        by_value = client.get_prefix("range/", sort_order="ascend", sort_target="value")
        self.assertEqual([meta.key for _, meta in by_value], [b"range/%d" % n for n in range(9, -1, -1)])
        self.assertEqual([meta.key for _, meta in client.get_range("range/3", "range/5")], [b"range/3", b"range/4"])
        self.assertEqual({value for value, _ in client.get_prefix("range/", keys_only=True)}, {b""})
        self.assertEqual(len(list(client.get_all())), 11)
        self.assertEqual(client.delete_prefix("range/").deleted, 10)
        self.assertEqual(len(list(client.get_all())), 1)

    def test_transactions(self):
        client = self.client
        self.assertTrue(client.put_if_not_exists("key", "one"))
        self.assertFalse(client.put_if_not_exists("key", "two"))
        self.assertTrue(client.replace("key", "one", "two"))
        self.assertFalse(client.replace("key", "one", "three"))
        of = client.transactions
        done, answers = client.transaction(
            compare=[of.value("key") == "two", of.version("key") > 1, of.create("key") < 9, of.mod("none") == 0],
            success=[of.put("new", "value"), of.get("key"), of.delete("key"), of.get("key")],
            failure=[of.put("never", "never")])
        self.assertTrue(done)
        self.assertEqual(answers[1][0][0], b"two")
        self.assertEqual(answers[3], [])
        done, answers = client.transaction(
            compare=[of.value("new") != "value"], success=[],
            failure=[of.txn(compare=[of.version("new") == 1], success=[of.get("new")], failure=[])])
        self.assertFalse(done)
        self.assertEqual(client.get("never"), (None, None))

    def test_a_compacted_revision_is_refused(self):
        for value in "123":
            revision = self.client.put("key", value).header.revision
        self.client.compact(revision, physical=True)
        with self.assertRaises(Exception) as caught:
            self.client.compact(revision)
        self.assertIn("compacted", str(caught.exception.__context__ or caught.exception))
        events, cancel = self.client.watch("key", start_revision=2)
        with self.assertRaises(module.exceptions.RevisionCompactedError) as caught:
            next(events)
        self.assertEqual(caught.exception.compacted_revision, revision)
        cancel()

    def test_the_largest_request(self):
        self.client.put("large", b"x" * 1_500_000)
        self.assertEqual(len(self.client.get("large")[0]), 1_500_000)
        with self.assertRaises(Exception):
            self.client.put("large", b"x" * 1_600_000)


class Watches(Case):
    def test_from_now_and_from_a_revision(self):
        client = self.client
        first = client.put("watched/a", "1").header.revision
        client.delete("watched/a")
        past, cancel_past = client.watch_prefix("watched/", start_revision=first, prev_kv=True)
        events = [next(past), next(past)]
        self.assertEqual([type(event).__name__ for event in events], ["PutEvent", "DeleteEvent"])
        self.assertEqual(events[1].prev_value, b"1")
        now, cancel_now = client.watch("watched/b")
        client.put("watched/a", "2")
        client.put("watched/b", "3")
        self.assertEqual(next(past).value, b"2")
        self.assertEqual(next(past).value, b"3")
        self.assertEqual(next(now).value, b"3")
        cancel_past()
        cancel_now()
        self.assertEqual(list(now), [])

    def test_callbacks_and_many_on_one_stream(self):
        told = queue.Queue()
        ids = [self.client.add_watch_callback(f"key/{index}", told.put) for index in range(20)]
        for index in range(20):
            self.client.put(f"key/{index}", str(index))
        keys = {told.get(timeout=PATIENCE).events[0].key for _ in range(20)}
        self.assertEqual(keys, {b"key/%d" % index for index in range(20)})
        for one in ids:
            self.client.cancel_watch(one)
        self.client.put("key/1", "unseen")
        self.assertEqual(self.client.add_watch_callback("key/2", told.put), 20)
        self.client.put("key/2", "seen")
        self.assertEqual(told.get(timeout=PATIENCE).events[0].value, b"seen")
        self.assertTrue(told.empty())

    def test_once(self):
        threading.Timer(0.2, lambda: self.client.put("once", "1")).start()
        self.assertEqual(self.client.watch_once("once", timeout=PATIENCE).value, b"1")
        with self.assertRaises(module.exceptions.WatchTimedOut):
            self.client.watch_once("never", timeout=0.3)

    def test_all_changes_of_many_writers(self):
        events, cancel = self.client.watch_prefix("many/")
        clients = [self.connect() for _ in range(4)]

        def write(which):
            for index in range(50):
                clients[which].put(f"many/{which}", str(index))

        threads = [threading.Thread(target=write, args=[which]) for which in range(4)]
        for thread in threads:
            thread.start()
        seen = [next(events) for _ in range(200)]
        for thread in threads:
            thread.join()
        revisions = [event.mod_revision for event in seen]
        self.assertEqual(revisions, list(range(revisions[0], revisions[0] + 200)))
        cancel()


class Leases(Case):
    def test_keys_go_with_it(self):
        lease = self.client.lease(30)
        self.client.put("leased/1", "x", lease=lease)
        self.client.put("leased/2", "x", lease=lease.id)
        self.assertEqual(lease.granted_ttl, 30)
        self.assertLessEqual(lease.remaining_ttl, 30)
        self.assertEqual(sorted(lease.keys), [b"leased/1", b"leased/2"])
        self.assertEqual([answer.TTL for answer in lease.refresh()], [30])
        lease.revoke()
        self.assertEqual(list(self.client.get_prefix("leased/")), [])
        self.assertEqual(self.client.get_lease_info(lease.id).TTL, -1)
        with self.assertRaises(Exception):
            lease.revoke()

    def test_it_ends_by_itself(self):
        lease = self.client.lease(1, lease_id=4711)
        self.assertEqual(lease.id, 4711)
        self.client.put("short", "x", lease=lease)
        event = self.client.watch_once("short", timeout=PATIENCE)
        self.assertEqual(type(event).__name__, "DeleteEvent")


class Locks(Case):
    def test_one_at_a_time(self):
        counts = {"inside": 0, "most": 0, "all": 0}

        def work(client):
            for _ in range(5):
                with client.lock("mutex", ttl=20):
                    counts["inside"] += 1
                    counts["most"] = max(counts["most"], counts["inside"])
                    counts["all"] += 1
                    time.sleep(0.005)
                    counts["inside"] -= 1

        threads = [threading.Thread(target=work, args=[self.connect()]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(counts, {"inside": 0, "most": 1, "all": 15})

    def test_it_is_freed_by_the_end_of_its_lease(self):
        first, second = self.client.lock("mutex", ttl=1), self.connect().lock("mutex", ttl=20)
        self.assertTrue(first.acquire())
        self.assertTrue(first.is_acquired())
        self.assertTrue(second.acquire(timeout=PATIENCE))
        self.assertFalse(first.is_acquired())
        self.assertFalse(first.release())
        self.assertTrue(second.release())


class Members(Case):
    def test_members_and_status(self):
        members = list(self.client.members)
        self.assertEqual([member.name for member in members], ["default"])
        self.assertEqual(list(members[0].client_urls), [f"http://{self.server.address}"])
        self.assertEqual(list(members[0].active_alarms), [])
        status = self.client.status()
        self.assertEqual(status.leader.id, members[0].id)
        self.assertRegex(status.version, r"^3\.\d+\.\d+$")
        self.assertGreater(status.db_size, 0)

    def test_maintenance(self):
        for index in range(100):
            self.client.put(f"key/{index}", "x" * 1000)
        file = io.BytesIO()
        self.client.snapshot(file)
        self.assertGreater(len(file.getvalue()), 100_000)
        self.client.defragment()
        self.assertEqual(list(self.client.list_alarms()), [])
        self.assertEqual(self.client.hash(), self.client.hash())


class Restarts(Case):
    def test_a_client_goes_on_after_a_restart(self):
        self.client.put("key", "one")
        self.server.restart()

        def put():
            try:
                self.client.put("key", "two")
                return True
            except module.exceptions.ConnectionFailedError:
                return False

        self.wait("a put after the restart", put)
        self.assertEqual(self.client.get("key")[0], b"two")


if __name__ == "__main__":
    unittest.main()
