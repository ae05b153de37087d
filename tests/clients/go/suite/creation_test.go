package suite

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A transaction may delete all keys from one on, and put one of them: that key is created.
func TestACreationBehindADeleteOfItsTransactionHasNothingBeforeIt(t *testing.T) {
	ctx, client := begin(t)
	_, err := client.Put(ctx, "k", "old")
	check(t, err)
	_, err = client.Txn(ctx).
		Then(clientv3.OpDelete("a", clientv3.WithFromKey()), clientv3.OpPut("k", "new")).Commit()
	check(t, err)
	got := events(t, client.Watch(ctx, "k", clientv3.WithRev(3), clientv3.WithPrevKV()), 2)
	equal(t, "deletion", got[0].Type, clientv3.EventTypeDelete)
	equal(t, "what was deleted", string(got[0].PrevKv.Value), "old")
	equal(t, "creation", got[1].IsCreate(), true)
	equal(t, "what was before the creation", got[1].PrevKv == nil, true)
}
