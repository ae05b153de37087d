package suite

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// requests are what the log of a running server holds, read as programs read etcd's.
func requests(t *testing.T, s *server) []*pb.InternalRaftRequest {
	t.Helper()
	command := exec.Command(os.Getenv("QUORATE"), "inspect", "log", "--as-etcd", filepath.Join(s.dir, "data"))
	command.Stderr = os.Stderr
	output, err := command.Output()
	check(t, err)
	var found []*pb.InternalRaftRequest
	for _, line := range strings.Split(strings.TrimSpace(string(output)), "\n")[1:] {
		var entry struct {
			Index, Term uint64
			Data        string
		}
		check(t, json.Unmarshal([]byte(line), &entry))
		data, err := base64.StdEncoding.DecodeString(entry.Data)
		check(t, err)
		if len(data) == 0 {
			continue
		}
		request := &pb.InternalRaftRequest{}
		check(t, proto.Unmarshal(data, request))
		if len(request.ProtoReflect().GetUnknown()) != 0 {
			t.Fatalf("a message with fields that etcd does not know: %v", request)
		}
		equal(t, "the number of the request", request.Header.ID, entry.Index)
		found = append(found, request)
	}
	return found
}

// TestLog: etcd's own messages read what was written out of the log.
func TestLog(t *testing.T) {
	ctx, one := t.Context(), start(t)
	client := one.client()
	_, err := client.Put(ctx, "a", "1")
	check(t, err)
	inner := clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("c", "3"), clientv3.OpGet("c", clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))}, nil)
	_, err = client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("a"), "=", "1"), clientv3.Compare(clientv3.ModRevision("b"), "<", 9), clientv3.Compare(clientv3.LeaseValue("a"), "!=", 5)).
		Then(inner, clientv3.OpDelete("a", clientv3.WithPrefix(), clientv3.WithPrevKV())).
		Else(clientv3.OpGet("a")).Commit()
	check(t, err)
	_, err = client.Put(ctx, "c", "", clientv3.WithIgnoreValue())
	check(t, err)
	_, err = client.Compact(ctx, 3)
	check(t, err)

	found := requests(t, one)
	equal(t, "requests", len(found), 4)
	equal(t, "the first put", string(found[0].Put.Key)+string(found[0].Put.Value), "a1")
	txn := found[1].Txn
	equal(t, "compares", len(txn.Compare), 3)
	equal(t, "the value", string(txn.Compare[0].GetValue()), "1")
	equal(t, "the revision", txn.Compare[1].GetModRevision(), 9)
	equal(t, "less", txn.Compare[1].Result, pb.Compare_LESS)
	equal(t, "the lease", txn.Compare[2].GetLease(), 5)
	within := txn.Success[0].GetRequestTxn()
	equal(t, "the put inside", string(within.Success[0].GetRequestPut().Value), "3")
	equal(t, "the order inside", within.Success[1].GetRequestRange().SortTarget, pb.RangeRequest_MOD)
	deletion := txn.Success[1].GetRequestDeleteRange()
	equal(t, "the end of the deletion", string(deletion.RangeEnd), "b")
	equal(t, "previous values", deletion.PrevKv, true)
	equal(t, "the other branch", string(txn.Failure[0].GetRequestRange().Key), "a")
	equal(t, "the value is kept", found[2].Put.IgnoreValue, true)
	equal(t, "the compaction", found[3].Compaction.Revision, 3)
}
