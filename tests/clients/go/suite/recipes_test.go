package suite

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func session(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	one, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	check(t, err)
	t.Cleanup(func() { _ = one.Close() })
	return one
}

func TestAMutexLetsOneInAtATime(t *testing.T) {
	ctx, client := begin(t)
	var group sync.WaitGroup
	inside, rounds := 0, 0
	failures := make(chan error, 100)
	for range 5 {
		mutex := concurrency.NewMutex(session(t, client), "lock")
		group.Go(func() {
			for range 5 {
				if err := mutex.Lock(ctx); err != nil {
					failures <- err
					return
				}
				inside++
				if inside != 1 {
					failures <- errors.New("two hold the lock")
				}
				rounds++
				inside--
				if err := mutex.Unlock(ctx); err != nil {
					failures <- err
				}
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	equal(t, "rounds", rounds, 25)
}

func TestALockThatIsHeldIsToldAtOnceAndFreedByTheEndOfItsSession(t *testing.T) {
	ctx, client := begin(t)
	holder := session(t, client)
	check(t, concurrency.NewMutex(holder, "lock").Lock(ctx))
	other := concurrency.NewMutex(session(t, client), "lock")
	if err := other.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Fatalf("got %v", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- other.Lock(ctx) }()
	check(t, holder.Close())
	check(t, receive(t, "the lock", locked))
}

func TestALeaderIsFollowedByTheNextOne(t *testing.T) {
	ctx, client := begin(t)
	first := concurrency.NewElection(session(t, client), "election")
	second := concurrency.NewElection(session(t, client), "election")
	if _, err := first.Leader(ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
		t.Fatalf("got %v", err)
	}
	check(t, first.Campaign(ctx, "first"))
	observed := second.Observe(ctx)
	equal(t, "leader", string(receive(t, "leader", observed).Kvs[0].Value), "first")
	elected := make(chan error, 1)
	go func() { elected <- second.Campaign(ctx, "second") }()
	check(t, first.Proclaim(ctx, "still first"))
	equal(t, "leader", string(receive(t, "leader", observed).Kvs[0].Value), "still first")
	check(t, first.Resign(ctx))
	check(t, receive(t, "the election", elected))
	equal(t, "leader", string(receive(t, "leader", observed).Kvs[0].Value), "second")
	if err := first.Proclaim(ctx, "x"); !errors.Is(err, concurrency.ErrElectionNotLeader) {
		t.Fatalf("got %v", err)
	}
}

func TestTransactionsInSoftwareLoseNoUpdate(t *testing.T) {
	ctx, client := begin(t)
	for _, isolation := range []concurrency.Isolation{
		concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads,
	} {
		key := fmt.Sprintf("count/%d", isolation)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 10 {
					_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
						count, _ := strconv.Atoi(stm.Get(key))
						stm.Put(key, strconv.Itoa(count+1))
						return nil
					}, concurrency.WithIsolation(isolation), concurrency.WithAbortContext(ctx))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		answer, err := client.Get(ctx, key)
		check(t, err)
		equal(t, "count", string(answer.Kvs[0].Value), "40")
	}
}

func TestWaitingForALockEndsWithItsContext(t *testing.T) {
	ctx, client := begin(t)
	check(t, concurrency.NewMutex(session(t, client), "lock").Lock(ctx))
	short, cancel := context.WithCancel(ctx)
	waits := make(chan error, 1)
	go func() { waits <- concurrency.NewMutex(session(t, client), "lock").Lock(short) }()
	for {
		answer, err := client.Get(ctx, "lock/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		check(t, err)
		if answer.Count == 2 {
			break
		}
	}
	cancel()
	if err := receive(t, "the end of waiting", waits); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	answer, err := client.Get(ctx, "lock/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	check(t, err)
	equal(t, "places in the queue", answer.Count, 1)
}
