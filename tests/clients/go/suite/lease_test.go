package suite

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestALeaseLivesWhileItIsKeptAliveAndTakesItsKeysWithIt(t *testing.T) {
	ctx, client := begin(t)
	kept, err := client.Grant(ctx, 2)
	check(t, err)
	lost, err := client.Grant(ctx, 2)
	check(t, err)
	_, err = client.Put(ctx, "kept", "v", clientv3.WithLease(kept.ID))
	check(t, err)
	_, err = client.Put(ctx, "lost", "v", clientv3.WithLease(lost.ID))
	check(t, err)
	watch := client.Watch(ctx, "lost")
	alive, err := client.KeepAlive(ctx, kept.ID)
	check(t, err)
	for range 3 {
		equal(t, "TTL", receive(t, "renewal", alive).TTL, 2)
	}
	gone := receive(t, "the end of the other lease", watch)
	equal(t, "deletion", gone.Events[0].Type, clientv3.EventTypeDelete)
	left, err := client.TimeToLive(ctx, kept.ID, clientv3.WithAttachedKeys())
	check(t, err)
	equal(t, "keys", len(left.Keys), 1)
	if _, err := client.KeepAliveOnce(ctx, lost.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Fatalf("got %v", err)
	}
	none, err := client.TimeToLive(ctx, lost.ID)
	check(t, err)
	equal(t, "TTL of a lease that is not there", none.TTL, -1)
	all, err := client.Leases(ctx)
	check(t, err)
	equal(t, "leases", len(all.Leases), 1)
	_, err = client.Revoke(ctx, kept.ID)
	check(t, err)
	keys, err := client.Get(ctx, "", clientv3.WithFromKey(), clientv3.WithCountOnly())
	check(t, err)
	equal(t, "keys", keys.Count, 0)
	for deadline := time.Now().Add(patience); ; {
		if _, open := <-alive; !open {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a revoked lease is kept alive")
		}
	}
}

func TestAPutWithoutALeaseTakesAKeyOffIt(t *testing.T) {
	ctx, client := begin(t)
	lease, err := client.Grant(ctx, 100)
	check(t, err)
	for _, key := range []string{"a", "b"} {
		_, err = client.Put(ctx, key, "1", clientv3.WithLease(lease.ID))
		check(t, err)
	}
	_, err = client.Put(ctx, "a", "2")
	check(t, err)
	_, err = client.Put(ctx, "b", "2", clientv3.WithIgnoreLease())
	check(t, err)
	_, err = client.Revoke(ctx, lease.ID)
	check(t, err)
	all, err := client.Get(ctx, "", clientv3.WithFromKey())
	check(t, err)
	equal(t, "what is left", text(all), "a=2")
}
