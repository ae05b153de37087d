package suite

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
)

const (
	longKeys  = 300
	longValue = 100_000
)

// fill writes keys of 30 MB in all: more than a server may want to hold of one answer.
func fill(t *testing.T, ctx context.Context, client *clientv3.Client) {
	t.Helper()
	for index := range longKeys {
		_, err := client.Put(ctx, fmt.Sprintf("long/%03d", index), string(long(index)))
		check(t, err)
	}
}

func long(index int) []byte {
	return bytes.Repeat([]byte{byte('a' + index%26)}, longValue)
}

// whole looks whether all keys came, in the order in which they are wanted.
func whole(t *testing.T, answer *clientv3.GetResponse, place func(int) int) {
	t.Helper()
	equal(t, "keys", len(answer.Kvs), longKeys)
	equal(t, "the count", answer.Count, longKeys)
	equal(t, "more", answer.More, false)
	for at, kv := range answer.Kvs {
		index := place(at)
		equal(t, "a key", string(kv.Key), fmt.Sprintf("long/%03d", index))
		equal(t, "its value", bytes.Equal(kv.Value, long(index)), true)
		equal(t, "its revision", kv.ModRevision, int64(index+2))
	}
}

// TestAnswersThatAreLong: an answer of 30 MB is one message, whatever its order, also to who takes gzip, and reads
// at a revision that is old by now.
func TestAnswersThatAreLong(t *testing.T) {
	ctx, one := t.Context(), start(t)
	for _, call := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		client, err := clientv3.New(clientv3.Config{
			Endpoints: []string{one.address}, DialTimeout: patience, Logger: zap.NewNop(),
			MaxCallRecvMsgSize: math.MaxInt32,
			DialOptions:        []grpc.DialOption{grpc.WithDefaultCallOptions(call...)},
		})
		check(t, err)
		if call == nil {
			fill(t, ctx, client)
		}
		answer, err := client.Get(ctx, "long/", clientv3.WithPrefix())
		check(t, err)
		whole(t, answer, func(at int) int { return at })
		answer, err = client.Get(ctx, "long/", clientv3.WithPrefix(),
			clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
		check(t, err)
		whole(t, answer, func(at int) int { return longKeys - 1 - at })
		answer, err = client.Get(ctx, "long/", clientv3.WithPrefix(), clientv3.WithLimit(longKeys-1))
		check(t, err)
		equal(t, "keys", len(answer.Kvs), longKeys-1)
		equal(t, "more", answer.More, true)
		equal(t, "the count", answer.Count, longKeys)
		_, err = client.Put(ctx, "behind", "")
		check(t, err)
		answer, err = client.Get(ctx, "long/", clientv3.WithPrefix(), clientv3.WithRev(longKeys+1))
		check(t, err)
		whole(t, answer, func(at int) int { return at })
		equal(t, "the revision of the store", answer.Header.Revision > longKeys+1, true)
		check(t, client.Close())
	}
}

// TestCompactionBesideLongAnswers: one who compacts up to the newest revision all the time fails nobody's reads.
func TestCompactionBesideLongAnswers(t *testing.T) {
	ctx, one := t.Context(), start(t)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{one.address}, DialTimeout: patience, Logger: zap.NewNop(), MaxCallRecvMsgSize: math.MaxInt32,
	})
	check(t, err)
	t.Cleanup(func() { _ = client.Close() })
	fill(t, ctx, client)
	end, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				done <- nil
				return
			case <-time.After(1 * time.Millisecond):
			}
			put, err := client.Put(ctx, "other", "x")
			if err == nil {
				_, err = client.Compact(ctx, put.Header.Revision)
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 20 {
		answer, err := client.Get(ctx, "long/", clientv3.WithPrefix())
		check(t, err)
		equal(t, "keys", len(answer.Kvs), longKeys)
	}
	close(end)
	check(t, <-done)
}
