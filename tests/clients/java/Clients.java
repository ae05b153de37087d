import static io.etcd.jetcd.ByteSequence.from;
import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.common.exception.CompactedException;
import io.etcd.jetcd.election.LeaderResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.CompactOption;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;

/** jetcd against a Quorate with fresh data: each test has a server of its own. */
public final class Clients {
    private static final long PATIENCE_S = 20;

    private interface Test {
        void run(Clients with) throws Exception;
    }

    private final Path dir;
    private final List<Client> opened = new ArrayList<>();
    private String address = "127.0.0.1:0";
    private Process process;
    private Client client;

    private Clients() throws Exception {
        dir = Files.createTempDirectory(Path.of(System.getenv("SCRATCH")), "java-");
        start();
        client = connect();
    }

    private void start() throws Exception {
        process = new ProcessBuilder(System.getenv("QUORATE"), "server", "--data-dir", dir.resolve("data").toString(),
                "--listen", address).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader output = new BufferedReader(new InputStreamReader(process.getInputStream(), UTF_8));
        for (String line; (line = output.readLine()) != null;) {
            for (String word : line.split(" ")) {
                if (word.startsWith("etcd=")) {
                    address = word.substring("etcd=".length());
                    return;
                }
            }
        }
        throw new IllegalStateException("the server ended before it was ready");
    }

    private void kill() throws Exception {
        process.destroyForcibly().waitFor();
    }

    private Client connect() {
        Client one = Client.builder().endpoints("http://" + address).build();
        opened.add(one);
        return one;
    }

    private void end() throws Exception {
        for (Client one : opened) {
            one.close();
        }
        kill();
        try (var paths = Files.walk(dir)) {
            paths.sorted((a, b) -> b.compareTo(a)).forEach(path -> path.toFile().delete());
        }
    }

    private static ByteSequence bytes(String text) {
        return from(text, UTF_8);
    }

    private static <T> T get(CompletableFuture<T> future) throws Exception {
        return future.get(PATIENCE_S, TimeUnit.SECONDS);
    }

    private static void equal(Object got, Object expected) {
        if (!got.equals(expected)) {
            throw new AssertionError("got " + got + ", expected " + expected);
        }
    }

    private static void refused(String text, CompletableFuture<?> future) throws Exception {
        try {
            get(future);
        } catch (ExecutionException error) {
            if (!error.getCause().toString().contains(text)) {
                throw new AssertionError("refused with " + error.getCause() + ", expected " + text);
            }
            return;
        }
        throw new AssertionError("not refused, expected " + text);
    }

    private static <T> T take(BlockingQueue<T> from) throws Exception {
        T one = from.poll(PATIENCE_S, TimeUnit.SECONDS);
        if (one == null) {
            throw new AssertionError("nothing came");
        }
        return one;
    }

    private static String text(List<KeyValue> pairs) {
        List<String> parts = new ArrayList<>();
        for (KeyValue pair : pairs) {
            parts.add(pair.getKey().toString(UTF_8) + "=" + pair.getValue().toString(UTF_8));
        }
        return String.join(" ", parts);
    }

    private void put(String key, String value) throws Exception {
        get(client.getKVClient().put(bytes(key), bytes(value)));
    }

    private void keys() throws Exception {
        var kv = client.getKVClient();
        put("key", "one");
        var answer = get(kv.put(bytes("key"), bytes("two"), PutOption.builder().withPrevKV().build()));
        equal(answer.getPrevKv().getValue().toString(UTF_8), "one");
        equal(answer.getHeader().getRevision(), 3L);
        for (int index = 0; index < 5; index++) {
            put("range/" + index, "" + (9 - index));
        }
        var prefix = GetOption.builder().isPrefix(true);
        equal(get(kv.get(bytes("range/"), prefix.withCountOnly(true).build())).getCount(), 5L);
        var sorted = GetOption.builder().isPrefix(true).withLimit(2)
                .withSortField(GetOption.SortTarget.VALUE).withSortOrder(GetOption.SortOrder.ASCEND).build();
        var found = get(kv.get(bytes("range/"), sorted));
        equal(text(found.getKvs()), "range/4=5 range/3=6");
        equal(found.isMore(), true);
        equal(text(get(kv.get(bytes("key"), GetOption.builder().withRevision(2).build())).getKvs()), "key=one");
        var deleted = get(kv.delete(bytes("range/"), DeleteOption.builder().isPrefix(true).withPrevKV(true).build()));
        equal(deleted.getDeleted(), 5L);
        equal(deleted.getPrevKvs().size(), 5);
        refused("future revision", kv.get(bytes("key"), GetOption.builder().withRevision(99).build()));
        refused("requested lease not found",
                kv.put(bytes("key"), bytes("x"), PutOption.builder().withLeaseId(99).build()));
        get(kv.compact(5, CompactOption.builder().withCompactPhysical(true).build()));
        refused("has been compacted", kv.compact(5));
        refused("has been compacted", kv.get(bytes("key"), GetOption.builder().withRevision(2).build()));
    }

    private void namespaces() throws Exception {
        Client inside = Client.builder().endpoints("http://" + address).namespace(bytes("space/")).build();
        opened.add(inside);
        get(inside.getKVClient().put(bytes("key"), bytes("value")));
        equal(text(get(client.getKVClient().get(bytes("space/key"))).getKvs()), "space/key=value");
        equal(text(get(inside.getKVClient().get(bytes("key"))).getKvs()), "key=value");
    }

    private void transactions() throws Exception {
        put("key", "one");
        var kv = client.getKVClient();
        var put = PutOption.DEFAULT;
        var done = get(kv.txn()
                .If(new Cmp(bytes("key"), Cmp.Op.EQUAL, CmpTarget.value(bytes("one"))),
                        new Cmp(bytes("key"), Cmp.Op.GREATER, CmpTarget.modRevision(0)),
                        new Cmp(bytes("none"), Cmp.Op.EQUAL, CmpTarget.version(0)))
                .Then(Op.put(bytes("new"), bytes("x"), put), Op.get(bytes("new"), GetOption.DEFAULT),
                        Op.txn(new Cmp[] {new Cmp(bytes("key"), Cmp.Op.EQUAL, CmpTarget.version(0))},
                                new Op[] {}, new Op[] {Op.delete(bytes("key"), DeleteOption.DEFAULT)}))
                .Else(Op.put(bytes("never"), bytes("x"), put)).commit());
        equal(done.isSucceeded(), true);
        equal(text(done.getGetResponses().get(0).getKvs()), "new=x");
        equal(done.getTxnResponses().get(0).getDeleteResponses().get(0).getDeleted(), 1L);
        equal(get(kv.txn().If(new Cmp(bytes("key"), Cmp.Op.EQUAL, CmpTarget.value(bytes("one")))).commit())
                .isSucceeded(), false);
        refused("duplicate key", kv.txn().Then(Op.put(bytes("a"), bytes("1"), put),
                Op.put(bytes("a"), bytes("2"), put)).commit());
    }

    private void watches() throws Exception {
        put("watched/a", "1");
        get(client.getKVClient().delete(bytes("watched/a")));
        BlockingQueue<WatchEvent> told = new ArrayBlockingQueue<>(1000);
        var options = WatchOption.builder().isPrefix(true).withRevision(2).withPrevKV(true).build();
        try (Watch.Watcher ignored = client.getWatchClient().watch(bytes("watched/"), options,
                answer -> told.addAll(answer.getEvents()))) {
            equal(take(told).getEventType(), WatchEvent.EventType.PUT);
            var event = take(told);
            equal(event.getEventType(), WatchEvent.EventType.DELETE);
            equal(event.getPrevKV().getValue().toString(UTF_8), "1");
            for (int index = 0; index < 100; index++) {
                put("watched/b", "" + index);
            }
            for (int index = 0; index < 100; index++) {
                equal(take(told).getKeyValue().getValue().toString(UTF_8), "" + index);
            }
        }
        BlockingQueue<WatchResponse> progress = new ArrayBlockingQueue<>(100);
        Watch watch = client.getWatchClient();
        try (Watch.Watcher watcher = watch.watch(bytes("quiet"), WatchOption.builder().withProgressNotify(true).build(),
                progress::add)) {
            // Asked for until the watch is there.
            WatchResponse answer = null;
            for (int attempt = 0; attempt < 100 && answer == null; attempt++) {
                watcher.requestProgress();
                answer = progress.poll(200, TimeUnit.MILLISECONDS);
            }
            if (answer == null) {
                throw new AssertionError("no progress was told");
            }
            equal(answer.isProgressNotify(), true);
            equal(answer.getHeader().getRevision(), 103L);
        }
        get(client.getKVClient().compact(50));
        BlockingQueue<Throwable> errors = new ArrayBlockingQueue<>(10);
        try (Watch.Watcher ignored = watch.watch(bytes("watched/"), options, answer -> { }, errors::add)) {
            Throwable error = take(errors);
            if (!(error instanceof CompactedException)) {
                throw new AssertionError("expected the compacted revision, got " + error);
            }
            equal(((CompactedException) error).getCompactedRevision(), 50L);
        }
    }

    private void aWatchGoesOnAfterARestart() throws Exception {
        BlockingQueue<WatchEvent> told = new ArrayBlockingQueue<>(1000);
        try (Watch.Watcher ignored = client.getWatchClient().watch(bytes("key"),
                answer -> told.addAll(answer.getEvents()))) {
            // The watch is there when it tells the first change.
            int first = 0;
            while (told.isEmpty()) {
                put("key", "" + first++);
                Thread.sleep(50);
            }
            kill();
            start();
            for (int attempt = 0;; attempt++) {
                try {
                    put("key", "last");
                    break;
                } catch (ExecutionException | TimeoutException error) {
                    if (attempt == 50) {
                        throw error;
                    }
                    Thread.sleep(100);
                }
            }
            while (!take(told).getKeyValue().getValue().toString(UTF_8).equals("last")) {
                continue;
            }
        }
    }

    private void leases() throws Exception {
        var lease = client.getLeaseClient();
        long id = get(lease.grant(1)).getID();
        get(client.getKVClient().put(bytes("leased"), bytes("x"), PutOption.builder().withLeaseId(id).build()));
        AtomicInteger kept = new AtomicInteger();
        var keeper = lease.keepAlive(id, new StreamObserver<LeaseKeepAliveResponse>() {
            @Override
            public void onNext(LeaseKeepAliveResponse answer) {
                kept.incrementAndGet();
            }

            @Override
            public void onError(Throwable error) { }

            @Override
            public void onCompleted() { }
        });
        Thread.sleep(3500);
        var left = get(lease.timeToLive(id, LeaseOption.builder().withAttachedKeys().build()));
        equal(left.getGrantedTTL() > 0 && left.getTTL() >= 0, true);
        equal(left.getKeys().get(0).toString(UTF_8), "leased");
        equal(kept.get() >= 2, true);
        keeper.close();
        for (int attempt = 0; get(client.getKVClient().get(bytes("leased"))).getCount() > 0; attempt++) {
            equal(attempt < 100, true);
            Thread.sleep(100);
        }
        equal(get(lease.timeToLive(id, LeaseOption.DEFAULT)).getTTL(), -1L);
        refused("requested lease not found", lease.revoke(id));
        refused("requested lease not found", lease.keepAliveOnce(id));
        long other = get(lease.grant(60)).getID();
        equal(get(lease.keepAliveOnce(other)).getTTL(), 60L);
        get(lease.revoke(other));
    }

    private void locks() throws Exception {
        long first = get(client.getLeaseClient().grant(30)).getID();
        long second = get(client.getLeaseClient().grant(30)).getID();
        var lock = client.getLockClient();
        var key = get(lock.lock(bytes("mutex"), first)).getKey();
        equal(key.toString(UTF_8), "mutex/" + Long.toHexString(first));
        var waiting = connect().getLockClient().lock(bytes("mutex"), second);
        Thread.sleep(300);
        equal(waiting.isDone(), false);
        get(lock.unlock(key));
        equal(get(waiting).getKey().toString(UTF_8), "mutex/" + Long.toHexString(second));
        refused("requested lease not found", lock.lock(bytes("mutex"), 4711));
    }

    private void elections() throws Exception {
        long first = get(client.getLeaseClient().grant(30)).getID();
        long second = get(client.getLeaseClient().grant(30)).getID();
        Election election = client.getElectionClient();
        refused("NoLeaderException", election.leader(bytes("post")));
        var leader = get(election.campaign(bytes("post"), first, bytes("one"))).getLeader();
        BlockingQueue<String> seen = new ArrayBlockingQueue<>(100);
        connect().getElectionClient().observe(bytes("post"), new Election.Listener() {
            @Override
            public void onNext(LeaderResponse answer) {
                seen.add(answer.getKv().getValue().toString(UTF_8));
            }

            @Override
            public void onError(Throwable error) { }

            @Override
            public void onCompleted() { }
        });
        equal(take(seen), "one");
        var waiting = connect().getElectionClient().campaign(bytes("post"), second, bytes("two"));
        get(election.proclaim(leader, bytes("one again")));
        equal(take(seen), "one again");
        equal(waiting.isDone(), false);
        get(election.resign(leader));
        equal(get(waiting).getLeader().getName().toString(UTF_8), "post");
        equal(take(seen), "two");
        equal(get(election.leader(bytes("post"))).getKv().getValue().toString(UTF_8), "two");
    }

    private void maintenance() throws Exception {
        for (int index = 0; index < 100; index++) {
            put("key/" + index, "x".repeat(1000));
        }
        var maintenance = client.getMaintenanceClient();
        String endpoint = "http://" + address;
        var status = get(maintenance.statusMember(endpoint));
        equal(status.getVersion().startsWith("3."), true);
        equal(status.getDbSize() > 0, true);
        var hash = get(maintenance.hashKV(endpoint, 0));
        equal(get(maintenance.hashKV(endpoint, 0)).getHash(), hash.getHash());
        get(maintenance.defragmentMember(endpoint));
        equal(get(maintenance.listAlarms()).getAlarms().size(), 0);
        var file = new ByteArrayOutputStream();
        long size = get(maintenance.snapshot(file));
        equal(size, (long) file.size());
        equal(size > 100_000, true);
    }

    private void members() throws Exception {
        var cluster = client.getClusterClient();
        var members = get(cluster.listMember()).getMembers();
        equal(members.size(), 1);
        equal(members.get(0).getName(), "default");
        equal(members.get(0).getClientURIs(), List.of(URI.create("http://" + address)));
        equal(get(client.getMaintenanceClient().statusMember("http://" + address)).getLeader(), members.get(0).getId());
        refused("member not found", cluster.removeMember(4711));
    }

    private static boolean passes(String name, Test test) throws Exception {
        Clients with = new Clients();
        long begin = System.nanoTime();
        try {
            test.run(with);
            System.out.printf("ok   %s (%d ms)%n", name, Duration.ofNanos(System.nanoTime() - begin).toMillis());
            return true;
        } catch (Exception | AssertionError error) {
            System.out.printf("FAIL %s: %s%n", name, error);
            error.printStackTrace(System.out);
            return false;
        } finally {
            with.end();
        }
    }

    public static void main(String[] arguments) throws Exception {
        boolean passed = passes("keys", Clients::keys);
        passed &= passes("namespaces", Clients::namespaces);
        passed &= passes("transactions", Clients::transactions);
        passed &= passes("watches", Clients::watches);
        passed &= passes("a watch goes on after a restart", Clients::aWatchGoesOnAfterARestart);
        passed &= passes("leases", Clients::leases);
        passed &= passes("locks", Clients::locks);
        passed &= passes("elections", Clients::elections);
        passed &= passes("maintenance", Clients::maintenance);
        passed &= passes("members", Clients::members);
        System.exit(passed ? 0 : 1);
    }
}
