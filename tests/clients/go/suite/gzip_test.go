package suite

import (
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// TestGzip: who sends with gzip is answered with gzip, and a small message that unpacks to a large one is refused.
func TestGzip(t *testing.T) {
	ctx, one := t.Context(), start(t)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{one.address}, DialTimeout: patience, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))},
	})
	check(t, err)
	t.Cleanup(func() { _ = client.Close() })

	watch := client.Watch(ctx, "a", clientv3.WithRev(1))
	value := strings.Repeat("quorate ", 50_000)
	for _, value := range []string{value, ""} {
		_, err = client.Put(ctx, "a", value)
		check(t, err)
	}
	answer, err := client.Get(ctx, "a", clientv3.WithRev(2))
	check(t, err)
	equal(t, "the value", string(answer.Kvs[0].Value) == value, true)
	var events []*clientv3.Event
	for len(events) < 2 {
		events = append(events, receive(t, "changes", watch).Events...)
	}
	equal(t, "the change", string(events[0].Kv.Value) == value, true)

	_, err = client.Put(ctx, "a", strings.Repeat("0", 3<<20))
	equal(t, "a value that is large only when it is unpacked", status.Code(err), codes.ResourceExhausted)
	equal(t, "who refuses it", strings.Contains(err.Error(), "after decompression"), true)
}
