package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// events takes that many off a watch.
func events(t *testing.T, watch clientv3.WatchChan, count int) []*clientv3.Event {
	t.Helper()
	var got []*clientv3.Event
	for len(got) < count {
		answer := receive(t, fmt.Sprintf("event %d of %d", len(got), count), watch)
		check(t, answer.Err())
		got = append(got, answer.Events...)
	}
	equal(t, "events", len(got), count)
	return got
}

func TestAWatchGoesOnBehindARestartWithoutAGap(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	server := start(t)
	client := server.client()
	watch := client.Watch(clientv3.WithRequireLeader(ctx), "k", clientv3.WithPrefix(), clientv3.WithRev(1))
	const count = 60
	for index := range count {
		if index%20 == 10 {
			server.restart()
		}
		for attempt := 0; ; attempt++ {
			_, err := client.Put(ctx, "k", fmt.Sprint(index))
			if err == nil {
				break
			}
			// A server that is not there yet: nothing was written, or it was written before.
			if attempt > 500 {
				t.Fatal(err)
			}
		}
	}
	newest, err := client.Get(ctx, "k")
	check(t, err)
	last := int64(1)
	for last < newest.Header.Revision {
		for _, event := range receive(t, "events", watch).Events {
			equal(t, "revision", event.Kv.ModRevision, last+1)
			last = event.Kv.ModRevision
		}
	}
	equal(t, "the last value", string(newest.Kvs[0].Value), fmt.Sprint(count-1))
}

func TestProgressIsToldToAllWatchesOfAStream(t *testing.T) {
	ctx, client := begin(t)
	first := client.Watch(ctx, "a", clientv3.WithCreatedNotify())
	second := client.Watch(ctx, "b", clientv3.WithCreatedNotify())
	equal(t, "created", receive(t, "creation", first).Created, true)
	equal(t, "created", receive(t, "creation", second).Created, true)
	put, err := client.Put(ctx, "c", "v")
	check(t, err)
	check(t, client.RequestProgress(ctx))
	for _, watch := range []clientv3.WatchChan{first, second} {
		answer := receive(t, "progress", watch)
		equal(t, "is progress", answer.IsProgressNotify(), true)
		equal(t, "revision", answer.Header.Revision, put.Header.Revision)
	}
}

func TestAWatchOfACompactedPastEndsWithThatError(t *testing.T) {
	ctx, client := begin(t)
	for range 5 {
		_, err := client.Put(ctx, "k", "v")
		check(t, err)
	}
	_, err := client.Compact(ctx, 4)
	check(t, err)
	watch := client.Watch(ctx, "k", clientv3.WithRev(2))
	answer := receive(t, "the end", watch)
	if !errors.Is(answer.Err(), rpctypes.ErrCompacted) {
		t.Fatalf("got %v", answer.Err())
	}
	equal(t, "compacted at", answer.CompactRevision, 4)
	if _, open := <-watch; open {
		t.Fatal("something came behind the end")
	}
	// The stream lives on, and the boundary itself can be watched.
	got := events(t, client.Watch(ctx, "k", clientv3.WithRev(4)), 3)
	equal(t, "first", got[0].Kv.ModRevision, 4)
}

func TestEventsTellWhatWasBeforeAndWhatIsAsked(t *testing.T) {
	ctx, client := begin(t)
	_, err := client.Put(ctx, "k", "1")
	check(t, err)
	all := client.Watch(ctx, "k", clientv3.WithRev(1), clientv3.WithPrevKV())
	deletes := client.Watch(ctx, "k", clientv3.WithRev(1), clientv3.WithFilterPut())
	_, err = client.Put(ctx, "k", "2")
	check(t, err)
	_, err = client.Delete(ctx, "k")
	check(t, err)
	got := events(t, all, 3)
	equal(t, "created", got[0].IsCreate() && got[0].PrevKv == nil, true)
	equal(t, "modified", got[1].IsModify(), true)
	equal(t, "the value before", string(got[1].PrevKv.Value), "1")
	equal(t, "deleted", got[2].Type, mvccpb.Event_DELETE)
	equal(t, "the value before", string(got[2].PrevKv.Value), "2")
	equal(t, "only the deletion", events(t, deletes, 1)[0].Kv.ModRevision, 4)
}

func TestLargeHistoriesComeInFragments(t *testing.T) {
	ctx, client := begin(t)
	value := strings.Repeat("v", 300_000)
	for index := range 20 {
		_, err := client.Put(ctx, fmt.Sprintf("k/%02d", index), value)
		check(t, err)
	}
	watch := client.Watch(ctx, "k/", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFragment())
	for index, event := range events(t, watch, 20) {
		equal(t, "key", string(event.Kv.Key), fmt.Sprintf("k/%02d", index))
		equal(t, "size", len(event.Kv.Value), len(value))
	}
}

// Somebody who comes late is told how far the store is, and never a part of a revision without being told so.
func TestAWatchThatCatchesUpIsToldTheRevisionOfTheStore(t *testing.T) {
	ctx, client := begin(t)
	value := strings.Repeat("v", 10_000)
	const rounds = 30
	for round := range rounds {
		var writes []clientv3.Op
		for index := range 40 {
			writes = append(writes, clientv3.OpPut(fmt.Sprintf("k/%d/%02d", round, index), value))
		}
		_, err := client.Txn(ctx).Then(writes...).Commit()
		check(t, err)
	}
	newest := int64(rounds + 1)
	for _, options := range [][]clientv3.OpOption{{}, {clientv3.WithFragment()}} {
		options = append(options, clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithCreatedNotify())
		// A stream of its own.
		own := metadata.AppendToOutgoingContext(ctx, "own", fmt.Sprint(len(options)))
		watch := client.Watch(own, "k/", options...)
		equal(t, "revision at the creation", receive(t, "creation", watch).Header.Revision, newest)
		for next := int64(2); next <= newest; {
			answer := receive(t, "changes", watch)
			check(t, answer.Err())
			equal(t, "revision of the store", answer.Header.Revision, newest)
			equal(t, "progress", answer.IsProgressNotify(), false)
			equal(t, "changes of whole revisions", len(answer.Events)%40, 0)
			for index, event := range answer.Events {
				equal(t, "revision", event.Kv.ModRevision, next+int64(index/40))
			}
			next += int64(len(answer.Events) / 40)
		}
	}
}

func TestACanceledWatchEndsAndOthersGoOn(t *testing.T) {
	ctx, client := begin(t)
	short, cancel := context.WithCancel(ctx)
	canceled := client.Watch(short, "k", clientv3.WithCreatedNotify())
	kept := client.Watch(ctx, "k", clientv3.WithCreatedNotify())
	receive(t, "creation", canceled)
	receive(t, "creation", kept)
	cancel()
	for range canceled {
	}
	_, err := client.Put(ctx, "k", "v")
	check(t, err)
	events(t, kept, 1)
}
