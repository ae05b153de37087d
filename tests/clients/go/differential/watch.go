package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// settleTimeout is how long two streams may take until they have told the same.
const settleTimeout = 5 * time.Second

// told is what a watch was told: an event, or a response without any.
type told struct {
	event    *mvccpb.Event
	response *pb.WatchResponse
}

func (t told) String() string {
	if t.event != nil {
		return prototext.MarshalOptions{}.Format(t.event)
	}
	return prototext.MarshalOptions{}.Format(t.response)
}

func (t told) equals(other told) bool {
	if (t.event != nil) != (other.event != nil) {
		return false
	}
	if t.event != nil {
		return proto.Equal(t.event, other.event)
	}
	return proto.Equal(t.response, other.response)
}

// end is one side's end of a stream of watches.
type end struct {
	side   *side
	stream pb.Watch_WatchClient
	cancel context.CancelFunc

	mutex sync.Mutex
	// byWatch is what each watch was told.
	byWatch map[int64][]told
	// progress are the revisions of the answers for the whole stream.
	progress []int64
	// over is how the stream ended.
	over string
	// broken are rules that a response broke.
	broken []string
	// last is the revision of the last event of a watch whose response was whole.
	last map[int64]int64
	// compacted is the newest compaction.
	compacted int64
}

// watchStream is a stream on both sides.
type watchStream struct {
	etcd, quorate *end
	ids           []int64
	// asked is all that was asked on it but its progress.
	asked []string
}

func openWatch(one *side) (*end, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := pb.NewWatchClient(one.conn).Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	opened := &end{
		side: one, stream: stream, cancel: cancel, byWatch: map[int64][]told{}, last: map[int64]int64{},
	}
	go opened.read()
	return opened, nil
}

func (e *end) read() {
	for {
		response, err := e.stream.Recv()
		e.mutex.Lock()
		if err != nil {
			e.over = "end"
			if !errors.Is(err, io.EOF) {
				e.over = fmt.Sprintf("%v: %s", status.Code(err), status.Convert(err).Message())
			}
			e.mutex.Unlock()
			return
		}
		e.take(response)
		e.mutex.Unlock()
	}
}

// withoutSuperseded takes out of events of the compacted revision what a later change of that revision made of the
// same key. etcd drops that from its history some time after the compaction was answered, and tells it until then.
func withoutSuperseded[E any](events []E, compacted int64, of func(E) (key string, revision int64)) []E {
	kept := events[:0:0]
	for index, event := range events {
		key, revision := of(event)
		if revision == compacted && slices.ContainsFunc(events[index+1:], func(later E) bool {
			laterKey, laterRevision := of(later)
			return laterKey == key && laterRevision == revision
		}) {
			continue
		}
		kept = append(kept, event)
	}
	return kept
}

func (e *end) take(response *pb.WatchResponse) {
	translate(response, e.side.ofEtcd)
	response.Events = withoutSuperseded(response.Events, e.compacted, func(event *mvccpb.Event) (string, int64) {
		return string(event.Kv.GetKey()), event.Kv.GetModRevision()
	})
	id := response.WatchId
	if len(response.Events) == 0 && !response.Created && !response.Canceled {
		if id == -1 {
			e.progress = append(e.progress, response.Header.GetRevision())
		}
		// The progress of single watches is told by the clock.
		return
	}
	for _, event := range response.Events {
		if event.Kv.GetModRevision() < e.last[id] {
			e.broken = append(e.broken, fmt.Sprintf("watch %d went back to revision %d after %d",
				id, event.Kv.GetModRevision(), e.last[id]))
		}
		if event.Kv.GetModRevision() > response.Header.GetRevision() {
			e.broken = append(e.broken, fmt.Sprintf("an event of revision %d came with the header's %d",
				event.Kv.GetModRevision(), response.Header.GetRevision()))
		}
		e.byWatch[id] = append(e.byWatch[id], told{event: event})
	}
	if count := len(response.Events); count > 0 {
		first := response.Events[0].Kv.GetModRevision()
		if whole, found := e.last[id]; found && whole == first {
			e.broken = append(e.broken, fmt.Sprintf("revision %d was told in two parts", first))
		}
		e.last[id] = response.Events[count-1].Kv.GetModRevision()
		if response.Fragment {
			delete(e.last, id)
		}
		return
	}
	delete(e.last, id)
	bare := proto.Clone(response).(*pb.WatchResponse)
	normalise(bare)
	e.byWatch[id] = append(e.byWatch[id], told{response: bare})
}

// compactedAt notes a compaction.
func (e *end) compactedAt(revision int64) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.compacted = revision
}

func (e *end) send(request *pb.WatchRequest) error { return e.stream.Send(request) }

func (e *end) ending() string {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return e.over
}

// firstGap is the first watch in which the two differ.
func (w *watchStream) firstGap() (where, shown string) {
	w.etcd.mutex.Lock()
	defer w.etcd.mutex.Unlock()
	w.quorate.mutex.Lock()
	defer w.quorate.mutex.Unlock()
	ids := []int64{}
	for _, told := range []map[int64][]told{w.etcd.byWatch, w.quorate.byWatch} {
		for id := range told {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		theirs, ours := w.etcd.byWatch[id], w.quorate.byWatch[id]
		for index := range max(len(theirs), len(ours)) {
			switch {
			case index >= len(theirs):
				return told1("quorate alone tells ", ours[index]), fmt.Sprintf("watch %d: quorate tells %v", id, ours[index])
			case index >= len(ours):
				return told1("etcd alone tells ", theirs[index]), fmt.Sprintf("watch %d: etcd tells %v", id, theirs[index])
			case !theirs[index].equals(ours[index]):
				return fmt.Sprintf("%s, %s", told1("etcd tells ", theirs[index]), told1("quorate ", ours[index])),
					fmt.Sprintf("watch %d: etcd tells %v\n      quorate tells %v", id, theirs[index], ours[index])
			}
		}
	}
	for _, one := range []*end{w.etcd, w.quorate} {
		if len(one.broken) > 0 {
			return one.side.name + " breaks a rule", one.broken[0]
		}
	}
	if w.etcd.over != w.quorate.over {
		return fmt.Sprintf("ended by etcd %q, by quorate %q", w.etcd.over, w.quorate.over), ""
	}
	return "", ""
}

// told1 is the kind of something told.
func told1(before string, one told) string {
	switch {
	case one.event != nil:
		return before + one.event.Type.String()
	case one.response.Created && one.response.Canceled:
		return before + "refused: " + one.response.CancelReason
	case one.response.Created:
		return before + "created"
	case one.response.CompactRevision != 0:
		return before + "compacted"
	}
	return before + "canceled: " + one.response.CancelReason
}

// settle waits until both ends have told the same.
func (w *watchStream) settle() (where, shown string) {
	for deadline := time.Now().Add(settleTimeout); ; time.Sleep(2 * time.Millisecond) {
		where, shown = w.firstGap()
		if where == "" || time.Now().After(deadline) {
			return where, shown
		}
	}
}

// created counts what has been answered to creations.
func (e *end) created() int {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	count := 0
	for _, list := range e.byWatch {
		for _, one := range list {
			if one.response.GetCreated() {
				count++
			}
		}
	}
	return count
}

// hasEnded is whether a watch was ended by a compaction, and the client has not canceled it since. Its id may be -1,
// which answers to what is refused have too.
func (e *end) hasEnded() bool {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	for _, list := range e.byWatch {
		isEnded := false
		for _, one := range list {
			switch {
			case one.response.GetCompactRevision() != 0:
				isEnded = true
			case one.response.GetCanceled() && !one.response.GetCreated():
				isEnded = false
			}
		}
		if isEnded {
			return true
		}
	}
	return false
}

func (e *end) progressCount() int {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return len(e.progress)
}

// until waits for a condition; false: in vain.
func until(timeout time.Duration, condition func() bool) bool {
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func (w *watchStream) close() {
	w.etcd.cancel()
	w.quorate.cancel()
}
