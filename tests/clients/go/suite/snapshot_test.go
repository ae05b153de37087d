package suite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// TestSnapshot takes a snapshot as etcdctl does and opens it with the library that etcd keeps its data with.
func TestSnapshot(t *testing.T) {
	client := start(t).client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lease, err := client.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	for number := range 3000 {
		key := fmt.Sprintf("key-%04d", number%500)
		if number%7 == 0 {
			_, err = client.Delete(ctx, key)
		} else {
			_, err = client.Put(ctx, key, fmt.Sprint(number), clientv3.WithLease(lease.ID))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	all, err := client.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	compacted := all.Header.Revision - 1000
	if _, err := client.Compact(ctx, compacted); err != nil {
		t.Fatal(err)
	}

	answer, err := client.SnapshotWithVersion(ctx)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(answer.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	size := len(content) - sha256.Size
	if answer.Version != "3.7.0" || size <= 0 || size%512 != 0 {
		t.Fatalf("version %q, %d bytes and a checksum", answer.Version, size)
	}
	if sum := sha256.Sum256(content[:size]); !bytes.Equal(sum[:], content[size:]) {
		t.Fatalf("the checksum is not that of the content")
	}

	path := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(path, content[:size], 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		for problem := range tx.Check() {
			t.Error(problem)
		}
		present := map[string]*mvccpb.KeyValue{}
		return tx.Bucket([]byte("key")).ForEach(func(revision, value []byte) error {
			kv := &mvccpb.KeyValue{}
			if err := proto.Unmarshal(value, kv); err != nil {
				return err
			}
			main := int64(binary.BigEndian.Uint64(revision))
			switch isDelete := len(revision) == 18; {
			case isDelete && main < compacted:
				t.Errorf("a delete at %d, before the compaction at %d", main, compacted)
			case isDelete:
				delete(present, string(kv.Key))
			default:
				if main != kv.ModRevision {
					t.Errorf("revision %d stands under %d", kv.ModRevision, main)
				}
				present[string(kv.Key)] = kv
			}
			if main == all.Header.Revision {
				for _, wanted := range all.Kvs {
					if !proto.Equal(present[string(wanted.Key)], wanted) {
						t.Errorf("%v in the file, %v in the store", present[string(wanted.Key)], wanted)
					}
				}
				if len(present) != len(all.Kvs) {
					t.Errorf("%d keys in the file, %d in the store", len(present), len(all.Kvs))
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		for _, name := range []string{"alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"} {
			if tx.Bucket([]byte(name)) == nil {
				t.Errorf("there is no bucket %s", name)
			}
		}
		if leases := tx.Bucket([]byte("lease")).Stats().KeyN; leases != 1 {
			t.Errorf("%d leases", leases)
		}
		if version := tx.Bucket([]byte("meta")).Get([]byte("storageVersion")); string(version) != "3.7.0" {
			t.Errorf("storage version %q", version)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
