package suite

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestKeysAreReadAsTheyWereWritten(t *testing.T) {
	ctx, client := begin(t)
	for index := range 5 {
		_, err := client.Put(ctx, fmt.Sprintf("k/%d", index), fmt.Sprint(9-index))
		check(t, err)
	}
	for _, one := range []struct {
		options  []clientv3.OpOption
		expected string
	}{
		{nil, ""},
		{[]clientv3.OpOption{clientv3.WithPrefix()}, "k/0=9 k/1=8 k/2=7 k/3=6 k/4=5"},
		{[]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(2)}, "k/0=9 k/1=8"},
		{[]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(3)}, "k/0=9 k/1=8"},
		{[]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1)}, "k/0="},
		{[]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)},
			"k/4=5 k/3=6 k/2=7 k/1=8 k/0=9"},
		{[]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinModRev(5)}, "k/3=6 k/4=5"},
		{clientv3.WithLastCreate(), "k/4=5"},
		{clientv3.WithFirstKey(), "k/0=9"},
		{[]clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithSerializable()}, "k/0=9 k/1=8 k/2=7 k/3=6 k/4=5"},
	} {
		answer, err := client.Get(ctx, "k/", one.options...)
		check(t, err)
		equal(t, "keys", text(answer), one.expected)
	}
	answer, err := client.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	check(t, err)
	equal(t, "count", answer.Count, 5)
	put, err := client.Put(ctx, "k/0", "new", clientv3.WithPrevKV())
	check(t, err)
	equal(t, "the value before", string(put.PrevKv.Value), "9")
	deleted, err := client.Delete(ctx, "k/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	check(t, err)
	equal(t, "deleted", deleted.Deleted, 5)
	equal(t, "deleted pairs", len(deleted.PrevKvs), 5)
}

func TestFailuresHaveTheErrorsOfTheClient(t *testing.T) {
	ctx, client := begin(t)
	for range 3 {
		_, err := client.Put(ctx, "k", "v")
		check(t, err)
	}
	_, err := client.Compact(ctx, 3)
	check(t, err)
	calls := map[string]struct {
		expected error
		call     func() error
	}{
		"a read of the past": {rpctypes.ErrCompacted, func() error {
			_, err := client.Get(ctx, "k", clientv3.WithRev(2))
			return err
		}},
		"a read of the future": {rpctypes.ErrFutureRev, func() error {
			_, err := client.Get(ctx, "k", clientv3.WithRev(9))
			return err
		}},
		"no key": {rpctypes.ErrEmptyKey, func() error {
			_, err := client.Put(ctx, "", "v")
			return err
		}},
		"a key that is not there": {rpctypes.ErrKeyNotFound, func() error {
			_, err := client.Put(ctx, "none", "", clientv3.WithIgnoreValue())
			return err
		}},
		"a lease that is not there": {rpctypes.ErrLeaseNotFound, func() error {
			_, err := client.Put(ctx, "k", "v", clientv3.WithLease(77))
			return err
		}},
		"a key that is put twice": {rpctypes.ErrDuplicateKey, func() error {
			_, err := client.Txn(ctx).Then(clientv3.OpPut("k", "1"), clientv3.OpPut("k", "2")).Commit()
			return err
		}},
		"too many operations": {rpctypes.ErrTooManyOps, func() error {
			ops := make([]clientv3.Op, 129)
			for index := range ops {
				ops[index] = clientv3.OpGet("k")
			}
			_, err := client.Txn(ctx).Then(ops...).Commit()
			return err
		}},
		"compaction of the future": {rpctypes.ErrFutureRev, func() error {
			_, err := client.Compact(ctx, 99)
			return err
		}},
		"a request of 1.6 MB": {rpctypes.ErrRequestTooLarge, func() error {
			_, err := client.Put(ctx, "k", string(make([]byte, 1_600_000)))
			return err
		}},
		"authentication": {rpctypes.ErrAuthNotEnabled, func() error {
			_, err := client.Authenticate(ctx, "root", "x")
			return err
		}},
		"an unknown member": {rpctypes.ErrMemberNotFound, func() error {
			_, err := client.MemberRemove(ctx, 99)
			return err
		}},
	}
	for name, one := range calls {
		if err := one.call(); !errors.Is(err, one.expected) {
			t.Errorf("%s: got %v, expected %v", name, err, one.expected)
		}
	}
}

func TestTransactionsBranchAndNest(t *testing.T) {
	ctx, client := begin(t)
	_, err := client.Put(ctx, "a", "1")
	check(t, err)
	answer, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("a"), "=", "1"), clientv3.Compare(clientv3.CreateRevision("b"), "=", 0)).
		Then(
			clientv3.OpPut("b", "2"),
			clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Version("b"), "=", 0)},
				[]clientv3.Op{clientv3.OpGet("b"), clientv3.OpDelete("a", clientv3.WithPrevKV())},
				[]clientv3.Op{clientv3.OpPut("c", "no")},
			),
		).
		Else(clientv3.OpPut("c", "no")).Commit()
	check(t, err)
	equal(t, "succeeded", answer.Succeeded, true)
	inner := answer.Responses[1].GetResponseTxn()
	equal(t, "the inner one succeeded, as its conditions hold before all", inner.Succeeded, true)
	equal(t, "what the outer one wrote", string(inner.Responses[0].GetResponseRange().Kvs[0].Value), "2")
	equal(t, "deleted", inner.Responses[1].GetResponseDeleteRange().Deleted, 1)
	all, err := client.Get(ctx, "", clientv3.WithFromKey())
	check(t, err)
	equal(t, "what is left", text(all), "b=2")
	equal(t, "one revision", all.Header.Revision, 3)
}

func TestAClientLearnsTheAddressOfALoneServer(t *testing.T) {
	ctx, client := begin(t)
	before := client.Endpoints()
	check(t, client.Sync(ctx))
	after := client.Endpoints()
	equal(t, "addresses", len(after), 1)
	equal(t, "address", after[0], "http://"+before[0])
	_, err := client.Put(ctx, "k", "v")
	check(t, err)
	status, err := client.Status(ctx, after[0])
	check(t, err)
	equal(t, "leader", status.Leader, status.Header.MemberId)
}
