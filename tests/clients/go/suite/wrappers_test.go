package suite

import (
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/ordering"
)

func TestANamespaceHidesItsPrefix(t *testing.T) {
	ctx, client := begin(t)
	keys := namespace.NewKV(client.KV, "app/")
	watcher := namespace.NewWatcher(client.Watcher, "app/")
	watch := watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	receive(t, "creation", watch)
	_, err := client.Put(ctx, "other", "x")
	check(t, err)
	_, err = keys.Put(ctx, "k", "v")
	check(t, err)
	inside, err := keys.Get(ctx, "", clientv3.WithFromKey())
	check(t, err)
	equal(t, "inside", text(inside), "k=v")
	outside, err := client.Get(ctx, "", clientv3.WithFromKey())
	check(t, err)
	equal(t, "outside", text(outside), "app/k=v other=x")
	equal(t, "key", string(events(t, watch, 1)[0].Kv.Key), "k")
}

func TestAMirrorGetsAllThatIsThereAndAllThatFollows(t *testing.T) {
	ctx, client := begin(t)
	const count = 2_500
	for index := range count {
		_, err := client.Put(ctx, fmt.Sprintf("k/%04d", index), "v")
		check(t, err)
	}
	syncer := mirror.NewSyncer(client, "k/", 0)
	answers, failures := syncer.SyncBase(ctx)
	got := 0
	for answer := range answers {
		got += len(answer.Kvs)
	}
	for err := range failures {
		t.Fatal(err)
	}
	equal(t, "keys", got, count)
	_, err := client.Put(ctx, "k/new", "v")
	check(t, err)
	updates := syncer.SyncUpdates(ctx)
	equal(t, "update", string(events(t, updates, 1)[0].Kv.Key), "k/new")
}

func TestOrderedReadsNeverGoBack(t *testing.T) {
	ctx, client := begin(t)
	keys := ordering.NewKV(client.KV, func(clientv3.Op, clientv3.OpResponse, int64) error {
		t.Error("a read went back")
		return nil
	})
	for index := range 50 {
		_, err := keys.Put(ctx, "k", fmt.Sprint(index))
		check(t, err)
		answer, err := keys.Get(ctx, "k", clientv3.WithSerializable())
		check(t, err)
		equal(t, "value", text(answer), fmt.Sprintf("k=%d", index))
	}
}

func TestLeasedKeysAreCachedUntilSomebodyElseWritesThem(t *testing.T) {
	ctx, client := begin(t)
	first, closeFirst, err := leasing.NewKV(client, "leasing/")
	check(t, err)
	defer closeFirst()
	second, closeSecond, err := leasing.NewKV(client, "leasing/")
	check(t, err)
	defer closeSecond()
	for index := range 5 {
		_, err = second.Put(ctx, "k", fmt.Sprint(index))
		check(t, err)
		for range 3 {
			answer, err := first.Get(ctx, "k")
			check(t, err)
			equal(t, "value", text(answer), fmt.Sprintf("k=%d", index))
		}
	}
	answer, err := first.Txn(ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "4")).
		Then(clientv3.OpPut("k", "5"), clientv3.OpGet("k")).Commit()
	check(t, err)
	equal(t, "succeeded", answer.Succeeded, true)
	last, err := second.Get(ctx, "k")
	check(t, err)
	equal(t, "value", text(last), "k=5")
	_, err = first.Delete(ctx, "k")
	check(t, err)
	last, err = second.Get(ctx, "k")
	check(t, err)
	equal(t, "keys", last.Count, 0)
}

func TestEndpointsOfAServiceAreListedAndWatched(t *testing.T) {
	ctx, client := begin(t)
	manager, err := endpoints.NewManager(client, "service")
	check(t, err)
	updates, err := manager.NewWatchChannel(ctx)
	check(t, err)
	check(t, manager.AddEndpoint(ctx, "service/a", endpoints.Endpoint{Addr: "127.0.0.1:1"}))
	one := receive(t, "update", updates)
	equal(t, "address", one[0].Endpoint.Addr, "127.0.0.1:1")
	check(t, manager.DeleteEndpoint(ctx, "service/a"))
	equal(t, "operation", receive(t, "update", updates)[0].Op, endpoints.Delete)
	list, err := manager.List(ctx)
	check(t, err)
	equal(t, "endpoints", len(list), 0)
}
