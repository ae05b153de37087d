package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// callTimeout is how long a call may take.
const callTimeout = 15 * time.Second

// epochCalls are made before both servers begin anew.
const epochCalls = 3_000

// action is something that is done to both sides.
type action struct {
	name   string
	weight int
	do     func(*run)
}

// found is a kind of difference with an example.
type found struct {
	kind    string
	example string
	count   int
}

// run is a run of the test.
type run struct {
	generator
	binaries [2]string
	scratch  string
	// lane is the number of this run among those that go on at the same time.
	lane    int
	actions []action
	trace   int

	etcd, quorate *side
	streams       []*watchStream
	alives        [2]grpc.BidiStreamingClient[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]

	// watched: a watch of the past was created since etcd last had none that was behind.
	watched bool
	// hasMany keys, until they are deleted.
	hasMany bool
	// held are the keys of locks, leaders those of elections.
	held    [][]byte
	leaders []*v3electionpb.LeaderKey

	calls    map[string]int
	made     int
	epochs   int
	found    []*found
	recent   []string
	diverged bool
	// uncompared are calls that were answered by one side just when they were given up.
	uncompared int
}

func newRun(seed uint64, lane int, etcd, quorate, scratch string) *run {
	return &run{
		generator: generator{random: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15+uint64(lane)))},
		lane:      lane,
		binaries:  [2]string{etcd, quorate},
		scratch:   scratch,
		actions:   allActions(),
		calls:     map[string]int{},
	}
}

func (r *run) choose(only, without string) {
	r.actions = slices.DeleteFunc(r.actions, func(one action) bool {
		for _, word := range strings.Split(without, ",") {
			if word != "" && strings.Contains(one.name, word) {
				return true
			}
		}
		return !strings.Contains(one.name, only)
	})
}

func allActions() []action {
	unary := func(method string, request func(*run) proto.Message, answer proto.Message) func(*run) {
		return func(r *run) { r.unary(method, request(r), answer) }
	}
	const kv, lease, maintenance = "/etcdserverpb.KV/", "/etcdserverpb.Lease/", "/etcdserverpb.Maintenance/"
	return []action{
		{"Range", 20, unary(kv+"Range", func(r *run) proto.Message { return r.rangeRequest() }, &pb.RangeResponse{})},
		{"Put", 20, unary(kv+"Put", func(r *run) proto.Message { return r.put() }, &pb.PutResponse{})},
		{"DeleteRange", 7, unary(kv+"DeleteRange",
			func(r *run) proto.Message { return r.deleteRange() }, &pb.DeleteRangeResponse{})},
		{"Txn", 22, unary(kv+"Txn", func(r *run) proto.Message { return r.txn(0) }, &pb.TxnResponse{})},
		{"Compact", 2, (*run).compactBoth},
		{"Oversized", 1, unary(kv+"Put", func(r *run) proto.Message { return r.oversized() }, &pb.PutResponse{})},
		{"RangeStream", 5, (*run).rangeStream},
		{"Whole", 2, (*run).whole},
		{"LeaseGrant", 4, (*run).grantBoth},
		{"LeaseShort", 1, (*run).shortLease},
		{"LeaseRevoke", 3, unary(lease+"LeaseRevoke",
			func(r *run) proto.Message {
				return &pb.LeaseRevokeRequest{ID: pick(&r.generator, []int64{0, r.lease(), r.lease()})}
			},
			&pb.LeaseRevokeResponse{})},
		{"LeaseTimeToLive", 3, unary(lease+"LeaseTimeToLive",
			func(r *run) proto.Message {
				return &pb.LeaseTimeToLiveRequest{ID: pick(&r.generator, []int64{0, r.lease(), r.lease()}), Keys: r.chance(60)}
			}, &pb.LeaseTimeToLiveResponse{})},
		{"LeaseLeases", 2, unary(lease+"LeaseLeases",
			func(*run) proto.Message { return &pb.LeaseLeasesRequest{} }, &pb.LeaseLeasesResponse{})},
		{"LeaseKeepAlive", 3, (*run).keepAlive},
		{"MemberList", 1, unary("/etcdserverpb.Cluster/MemberList",
			func(r *run) proto.Message { return &pb.MemberListRequest{Linearizable: r.chance(50)} }, &pb.MemberListResponse{})},
		{"Status", 1, unary(maintenance+"Status",
			func(*run) proto.Message { return &pb.StatusRequest{} }, &pb.StatusResponse{})},
		{"Alarm", 1, unary(maintenance+"Alarm",
			func(r *run) proto.Message {
				return &pb.AlarmRequest{Alarm: pb.AlarmType(r.random.IntN(3)), MemberID: pick(&r.generator, []uint64{0, 0, 5})}
			}, &pb.AlarmResponse{})},
		{"Defragment", 1, unary(maintenance+"Defragment",
			func(*run) proto.Message { return &pb.DefragmentRequest{} }, &pb.DefragmentResponse{})},
		{"HashKV", 1, unary(maintenance+"HashKV",
			func(r *run) proto.Message {
				return &pb.HashKVRequest{Revision: pick(&r.generator, []int64{0, r.revisionNear()})}
			},
			&pb.HashKVResponse{})},
		{"MoveLeader", 1, unary(maintenance+"MoveLeader",
			func(r *run) proto.Message {
				return &pb.MoveLeaderRequest{TargetID: pick(&r.generator, []uint64{0, 99, math.MaxUint64})}
			}, &pb.MoveLeaderResponse{})},
		{"Refusal", 3, (*run).refusal},
		{"Malformed", 2, (*run).malformed},
		{"Lock", 2, (*run).lock},
		{"Election", 2, (*run).election},
		{"ClearRecipes", 1, (*run).clearRecipes},
		{"Many", 1, (*run).manyKeys},
		{"JSON", 6, (*run).gateway},
		{"JSONWatch", 1, (*run).watchGateway},
		{"WatchCreate", 7, (*run).watchCreate},
		{"WatchCancel", 3, (*run).watchCancel},
		{"WatchProgress", 2, (*run).watchProgress},
		{"WatchClose", 1, (*run).watchClose},
	}
}

// drive makes the calls.
func (r *run) drive(calls int) error {
	weights := 0
	for _, one := range r.actions {
		weights += one.weight
	}
	for begun := -epochCalls; r.made < calls; {
		if r.made-begun >= epochCalls || r.diverged {
			if err := r.begin(); err != nil {
				return err
			}
			begun = r.made
		}
		number := r.random.IntN(weights)
		for _, one := range r.actions {
			if number -= one.weight; number < 0 {
				one.do(r)
				break
			}
		}
		for _, one := range []*side{r.etcd, r.quorate} {
			if !one.isRunning() {
				r.note("the server", fmt.Sprintf("%s ended", one.name), one.output(), nil)
				r.diverged = true
			}
		}
		if len(r.found) > 400 {
			return errors.New("there are too many differences")
		}
	}
	r.settle()
	return nil
}

// begin starts both servers with fresh data.
func (r *run) begin() (err error) {
	r.stop()
	r.epochs++
	r.diverged = false
	r.revision, r.compacted, r.mixed, r.chosen, r.recent = 1, -1, map[int64]bool{}, nil, nil
	r.held, r.leaders, r.hasMany, r.watched = nil, nil, false, false
	if r.etcd, err = startEtcd(r.binaries[0], r.scratch); err != nil {
		return err
	}
	r.quorate, err = startQuorate(r.binaries[1], r.scratch)
	return err
}

// stop ends both servers.
func (r *run) stop() {
	if !r.diverged && r.etcd != nil && r.quorate != nil {
		r.settle()
	}
	for _, stream := range r.streams {
		stream.close()
	}
	r.streams = nil
	r.alives[0], r.alives[1] = nil, nil
	for _, one := range []*side{r.etcd, r.quorate} {
		if one != nil {
			one.stop()
		}
	}
	r.etcd, r.quorate = nil, nil
}

func shorten(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return text[:size] + fmt.Sprintf("... (%d bytes)", len(text))
}

// note keeps a difference.
func (r *run) note(method, where, shown string, request proto.Message) {
	kind := method + ": " + where
	if index := slices.IndexFunc(r.found, func(one *found) bool { return one.kind == kind }); index >= 0 {
		r.found[index].count++
		return
	}
	example := ""
	if request != nil {
		example = "\n    request " + shorten(prototext.MarshalOptions{}.Format(request), 900)
	}
	if shown != "" {
		example += "\n    " + shorten(shown, 1500)
	}
	example += fmt.Sprintf("\n    at revision %d, compacted at %d, call %d of lane %d",
		r.revision, r.compacted, r.made, r.lane)
	if r.trace > 0 && deliberateOf(kind) == nil {
		recent := r.recent[max(0, len(r.recent)-r.trace):]
		example += "\n    after " + strings.Join(recent, "\n          ")
	}
	r.found = append(r.found, &found{kind, example, 1})
	if deliberateOf(kind) == nil {
		fmt.Printf("DIFFERENT %s%s\n", kind, example)
	}
}

func (r *run) remember(method string, request proto.Message) {
	if r.trace == 0 {
		return
	}
	r.recent = append(r.recent, kind(method)+" "+shorten(prototext.MarshalOptions{}.Format(request), 500))
	if len(r.recent) > 2*r.trace {
		r.recent = slices.Clone(r.recent[r.trace:])
	}
}

func (r *run) count(method string) {
	r.calls[kind(method)]++
	r.made++
}

// both does something at both sides at the same time.
func (r *run) both(do func(*side) outcome) (etcd, quorate outcome) {
	done := make(chan outcome, 1)
	go func() { done <- do(r.etcd) }()
	quorate = do(r.quorate)
	return <-done, quorate
}

func failed(err error) outcome {
	one := status.Convert(err)
	return outcome{code: one.Code(), text: one.Message()}
}

// ask sends a request to one side.
func ask(one *side, method string, request, answer proto.Message) outcome {
	request = proto.Clone(request)
	translate(request, one.leases)
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := one.conn.Invoke(ctx, method, request, answer); err != nil {
		return failed(err)
	}
	translate(answer, one.ofEtcd)
	return outcome{answer: answer}
}

// unary makes a call with one answer and compares; etcd's is returned.
func (r *run) unary(method string, request, answer proto.Message) (etcd, quorate outcome) {
	r.remember(method, request)
	etcd, quorate = r.both(func(one *side) outcome { return ask(one, method, request, fresh(answer)) })
	r.count(method)
	r.compare(method, request, etcd, quorate)
	return etcd, quorate
}

// compare keeps the differences; after one it looks whether both still have the same data.
func (r *run) compare(method string, request proto.Message, etcd, quorate outcome) {
	if header, is := etcd.answer.(interface{ GetHeader() *pb.ResponseHeader }); is && etcd.code == 0 {
		r.reached(request, header.GetHeader().GetRevision())
	}
	for _, one := range []outcome{etcd, quorate} {
		if one.code == 0 && one.answer != nil {
			normalise(one.answer)
		}
	}
	if etcd.code == 0 && quorate.code == 0 && etcd.answer != nil && quorate.answer != nil {
		align(request, etcd.answer, quorate.answer)
	}
	list := differences(etcd, quorate)
	for _, one := range list {
		r.note(kind(method), one.where, one.shown, request)
	}
	if len(list) > 0 && !r.hasSameData() {
		r.diverged = true
	}
}

// reached notes the revision that the answer to a request told.
func (r *run) reached(request proto.Message, revision int64) {
	if txn, is := request.(*pb.TxnRequest); is && revision > r.revision && mixes(txn) {
		r.mixed[revision] = true
	}
	r.revision = max(r.revision, revision)
}

// hasSameData is whether both have the same keys and leases.
func (r *run) hasSameData() bool {
	for _, one := range []struct {
		method          string
		request, answer proto.Message
	}{
		{"/etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, &pb.RangeResponse{}},
		{"/etcdserverpb.Lease/LeaseLeases", &pb.LeaseLeasesRequest{}, &pb.LeaseLeasesResponse{}},
	} {
		etcd, quorate := r.both(func(at *side) outcome { return ask(at, one.method, one.request, fresh(one.answer)) })
		if etcd.code != 0 || quorate.code != 0 {
			return false
		}
		normalise(etcd.answer)
		normalise(quorate.answer)
		if !proto.Equal(etcd.answer, quorate.answer) {
			return false
		}
	}
	return true
}

// whole compares all that there is.
func (r *run) whole() {
	r.unary("/etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, &pb.RangeResponse{})
}

// manyKeys writes more keys than one part of a stream holds, or takes them away again.
func (r *run) manyKeys() {
	const put, del = "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/DeleteRange"
	if r.hasMany {
		r.hasMany = false
		r.unary(del, &pb.DeleteRangeRequest{Key: []byte("bn/"), RangeEnd: []byte("bn0")}, &pb.DeleteRangeResponse{})
		return
	}
	r.hasMany = true
	size := pick(&r.generator, []int{10, 3_000, 25_000})
	for half := range 2 {
		request := &pb.TxnRequest{}
		for index := range 20 {
			key := fmt.Appendf(nil, "bn/%02d", 2*index+half)
			value := bytes.Repeat([]byte{byte('a' + index)}, size)
			request.Success = append(request.Success,
				&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}})
		}
		r.unary(put, request, &pb.TxnResponse{})
	}
}

// withoutTies keeps a request from sorting more than one key by something else than the keys.
func withoutTies(request *pb.RangeRequest) {
	if request.RangeEnd != nil {
		request.SortTarget = pb.RangeRequest_KEY
	}
}

// catchUp waits until etcd's watches are done with the past. It lets them catch up ten times a second, even those
// that have nothing to tell, and one that is canceled or compacted before is not told its past.
func (r *run) catchUp() {
	if !r.watched {
		return
	}
	for deadline := time.Now().Add(settleTimeout); r.watched && time.Now().Before(deadline); {
		behind, err := r.etcd.slowWatchers()
		r.watched = err != nil || behind > 0
		// The last time for what has been told to arrive.
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *run) compactBoth() {
	// A watch that is not done with the past would be told of its end by one side and not by the other.
	r.catchUp()
	if !r.settle() {
		return
	}
	request := r.compact()
	etcd, _ := r.unary("/etcdserverpb.KV/Compact", request, &pb.CompactionResponse{})
	if etcd.code == 0 {
		r.compacted = max(r.compacted, request.Revision)
		for _, stream := range r.streams {
			stream.etcd.compactedAt(r.compacted)
			stream.quorate.compactedAt(r.compacted)
		}
	}
}

func (r *run) grantBoth() {
	request := r.grant()
	const method = "/etcdserverpb.Lease/LeaseGrant"
	r.remember(method, request)
	etcd, quorate := r.both(func(one *side) outcome { return ask(one, method, request, &pb.LeaseGrantResponse{}) })
	r.count(method)
	if request.ID == 0 && etcd.code == 0 && quorate.code == 0 {
		theirs, ours := etcd.answer.(*pb.LeaseGrantResponse), quorate.answer.(*pb.LeaseGrantResponse)
		if ours.ID <= 0 {
			r.note(kind(method), "a lease that the server chose is not positive", fmt.Sprint(ours.ID), request)
		}
		r.chosen = append(r.chosen, theirs.ID)
		r.quorate.leases[theirs.ID], r.quorate.ofEtcd[ours.ID] = ours.ID, theirs.ID
		ours.ID = theirs.ID
	}
	r.compare(method, request, etcd, quorate)
}

func (r *run) shortLease() {
	request := r.shortGrant()
	etcd, quorate := r.unary("/etcdserverpb.Lease/LeaseGrant", request, &pb.LeaseGrantResponse{})
	if etcd.code == 0 && quorate.code == 0 {
		r.unary("/etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: request.ID}, &pb.LeaseRevokeResponse{})
	}
}

func (r *run) keepAlive() {
	const method = "/etcdserverpb.Lease/LeaseKeepAlive"
	request := &pb.LeaseKeepAliveRequest{ID: pick(&r.generator, []int64{0, r.lease(), r.lease(), r.lease()})}
	r.remember(method, request)
	closes := r.chance(10)
	etcd, quorate := r.both(func(one *side) outcome {
		index := 0
		if one == r.quorate {
			index = 1
		}
		if r.alives[index] == nil {
			stream, err := pb.NewLeaseClient(one.conn).LeaseKeepAlive(context.Background())
			if err != nil {
				return failed(err)
			}
			r.alives[index] = stream
		}
		stream := r.alives[index]
		mapped := proto.Clone(request)
		translate(mapped, one.leases)
		if err := stream.Send(mapped.(*pb.LeaseKeepAliveRequest)); err != nil {
			return failed(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			r.alives[index] = nil
			return failed(err)
		}
		translate(answer, one.ofEtcd)
		if closes {
			r.alives[index] = nil
			stream.CloseSend()
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				return failed(err)
			}
		}
		return outcome{answer: answer}
	})
	r.count(method)
	r.compare(method, request, etcd, quorate)
}

func (r *run) rangeStream() {
	const method = "/etcdserverpb.KV/RangeStream"
	request := r.rangeRequest()
	if r.chance(80) {
		// Else nearly every one of them would be refused.
		request.SortOrder, request.SortTarget = 0, 0
		request.MinModRevision, request.MaxModRevision = 0, 0
		request.MinCreateRevision, request.MaxCreateRevision = 0, 0
	}
	if request.SortOrder == pb.RangeRequest_NONE {
		withoutTies(request)
	}
	r.remember(method, request)
	etcd, quorate := r.both(func(one *side) outcome {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		stream, err := pb.NewKVClient(one.conn).RangeStream(ctx, request)
		if err != nil {
			return failed(err)
		}
		merged := &pb.RangeResponse{}
		for ended := false; ; {
			answer, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return failed(err)
			}
			part := answer.GetRangeResponse()
			if ended {
				r.noteRule(method, one, "tells more behind the last part")
			}
			ended = part.GetHeader() != nil
			if !ended && (part.GetMore() || part.GetCount() != 0) {
				r.noteRule(method, one, "tells the count before the last part")
			}
			proto.Merge(merged, part)
		}
		translate(merged, one.ofEtcd)
		return outcome{answer: merged}
	})
	r.count(method)
	r.compare(method, request, etcd, quorate)
}

// noteRule says on standard error that a side breaks a rule of its own; both sides run at once.
func (r *run) noteRule(method string, one *side, text string) {
	fmt.Fprintf(os.Stderr, "%s: %s %s\n", kind(method), one.name, text)
}

// openStream is a stream of watches, mostly one that is there already.
func (r *run) openStream() *watchStream {
	if len(r.streams) > 0 && (len(r.streams) >= 3 || r.chance(80)) {
		return pick(&r.generator, r.streams)
	}
	etcd, err := openWatch(r.etcd)
	if err != nil {
		r.note("Watch", "etcd: "+err.Error(), "", nil)
		return nil
	}
	quorate, err := openWatch(r.quorate)
	if err != nil {
		r.note("Watch", "quorate: "+err.Error(), "", nil)
		return nil
	}
	etcd.compactedAt(r.compacted)
	quorate.compactedAt(r.compacted)
	stream := &watchStream{etcd: etcd, quorate: quorate}
	r.streams = append(r.streams, stream)
	return stream
}

func (r *run) drop(stream *watchStream) {
	stream.close()
	r.streams = slices.DeleteFunc(r.streams, func(one *watchStream) bool { return one == stream })
}

// settled compares what the watches of a stream were told; after a difference it is closed.
func (r *run) settled(stream *watchStream, request proto.Message) bool {
	where, shown := stream.settle()
	if where == "" {
		return true
	}
	r.note("Watch", where, shown, request)
	r.drop(stream)
	return false
}

func (r *run) settle() bool {
	same := true
	for _, stream := range slices.Clone(r.streams) {
		same = r.settled(stream, nil) && same
	}
	return same
}

// sendBoth sends a message on a stream.
func (r *run) sendBoth(stream *watchStream, request *pb.WatchRequest) bool {
	r.remember("/Watch", request)
	r.count("Watch")
	if request.GetProgressRequest() == nil {
		stream.asked = append(stream.asked, prototext.MarshalOptions{}.Format(request))
	}
	for _, one := range []*end{stream.etcd, stream.quorate} {
		if err := one.send(request); err != nil {
			r.note("Watch", fmt.Sprintf("%s takes no more: %v", one.side.name, one.ending()), "", request)
			r.drop(stream)
			return false
		}
	}
	return true
}

func (r *run) watchCreate() {
	stream := r.openStream()
	if stream == nil {
		return
	}
	if slices.Contains(stream.ids, -1) {
		// What is refused is told under the same id, and may come before the past of the watch.
		r.catchUp()
	}
	if !r.settled(stream, nil) {
		return
	}
	create := r.watch(stream.ids)
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
	before := [2]int{stream.etcd.created(), stream.quorate.created()}
	if !r.sendBoth(stream, request) {
		return
	}
	if create.StartRevision > 0 {
		r.watched = true
	}
	if !until(settleTimeout, func() bool {
		return stream.etcd.created() > before[0] && stream.quorate.created() > before[1]
	}) {
		r.note("Watch", "a creation is not answered", fmt.Sprintf("etcd: %v, quorate: %v",
			stream.etcd.created() > before[0], stream.quorate.created() > before[1]), request)
		r.drop(stream)
		return
	}
	if create.WatchId != 0 {
		stream.ids = append(stream.ids, create.WatchId)
	} else {
		stream.ids = append(stream.ids, int64(len(stream.ids)))
	}
	r.settled(stream, request)
}

func (r *run) watchCancel() {
	if len(r.streams) == 0 {
		return
	}
	stream := pick(&r.generator, r.streams)
	r.catchUp()
	if !r.settled(stream, nil) {
		return
	}
	id := pick(&r.generator, append([]int64{0, 1, 2, 99, -1}, stream.ids...))
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
		CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	if !r.sendBoth(stream, request) {
		return
	}
	// There is no answer to wait for where there is no such watch: one to something else shows that this one
	// has been looked at.
	marker := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}}}
	before := [2]int{stream.etcd.created(), stream.quorate.created()}
	if r.sendBoth(stream, marker) {
		until(settleTimeout, func() bool {
			return stream.etcd.created() > before[0] && stream.quorate.created() > before[1]
		})
		r.settled(stream, request)
	}
}

// progressTries is how often the progress is asked for where one of the two has told it, silentTries where neither
// has. A busy machine keeps a server for seconds from answering.
const (
	progressTries = 40
	silentTries   = 3
)

// watchProgress asks for the progress. etcd tells it only when every watch is done with the past, and says
// nothing else; so that is waited for, and it is asked again for a while.
func (r *run) watchProgress() {
	if len(r.streams) == 0 {
		return
	}
	stream := pick(&r.generator, r.streams)
	r.catchUp()
	if !r.settled(stream, nil) {
		return
	}
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
		ProgressRequest: &pb.WatchProgressRequest{}}}
	before := [2]int{stream.etcd.progressCount(), stream.quorate.progressCount()}
	answered := func() (bool, bool) {
		return stream.etcd.progressCount() > before[0], stream.quorate.progressCount() > before[1]
	}
	for try := range progressTries {
		if !r.sendBoth(stream, request) {
			return
		}
		if until(150*time.Millisecond, func() bool { a, b := answered(); return a && b }) {
			break
		}
		theirs, ours := answered()
		// On a stream with a watch that compaction has ended etcd is known to be silent.
		isSilent := !ours || stream.etcd.hasEnded()
		if !theirs && isSilent && try+1 >= silentTries {
			break
		}
	}
	theirs, ours := answered()
	if theirs != ours {
		text := "progress is told by etcd: %v, by quorate: %v"
		if stream.etcd.hasEnded() {
			text += ", on a stream with a watch that compaction has ended"
		}
		r.note("Watch", fmt.Sprintf(text, theirs, ours), strings.Join(stream.asked, "\n    "), nil)
		return
	}
	for _, one := range []*end{stream.etcd, stream.quorate} {
		one.mutex.Lock()
		// A lease that has just ended may have made it larger than what is known here.
		if count := len(one.progress); theirs && one.progress[count-1] < r.revision {
			r.note("Watch", "the progress is older than the newest revision",
				fmt.Sprintf("%s tells %d", one.side.name, one.progress[count-1]), nil)
		}
		one.mutex.Unlock()
	}
}

// watchClose ends a stream from the client's side: nothing more is asked, and what happens is told all the same.
func (r *run) watchClose() {
	if len(r.streams) == 0 {
		return
	}
	stream := pick(&r.generator, r.streams)
	if !r.settled(stream, nil) {
		return
	}
	r.remember("/Watch", &pb.WatchRequest{})
	for _, one := range []*end{stream.etcd, stream.quorate} {
		if err := one.stream.CloseSend(); err != nil {
			r.note("Watch", fmt.Sprintf("%s cannot be told the end: %v", one.side.name, err), "", nil)
		}
	}
	r.unary("/etcdserverpb.KV/Put", r.put(), &pb.PutResponse{})
	if r.settled(stream, nil) {
		r.drop(stream)
	}
}
