package main

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// waitTimeout is how long a call may wait for its turn at both sides.
const waitTimeout = 300 * time.Millisecond

var names = [][]byte{[]byte("lock"), []byte("a"), {}}

// patient makes a call that may wait for ever, and gives up on it when both sides let it wait and answer something
// else meanwhile; a side that alone has not answered is waited for. What a call leaves behind is taken back some time
// after it was given up.
func (r *run) patient(method string, request waiting, answer proto.Message) (etcd, quorate outcome) {
	r.remember(method, request)
	ctx, giveUp := context.WithTimeout(context.Background(), callTimeout)
	defer giveUp()
	answers := [2]chan outcome{make(chan outcome, 1), make(chan outcome, 1)}
	for index, one := range []*side{r.etcd, r.quorate} {
		go func() {
			answer := fresh(answer)
			if err := one.conn.Invoke(ctx, method, request, answer); err != nil {
				answers[index] <- failed(err)
				return
			}
			translate(answer, one.ofEtcd)
			answers[index] <- outcome{answer: answer}
		}()
	}
	isAnswered := func() bool { return len(answers[0]) > 0 && len(answers[1]) > 0 }
	if !until(waitTimeout, isAnswered) {
		// Each of these begins when a server that was held up has gone on, and there are more than a lock takes steps.
		for range 10 {
			r.hasSameData()
		}
		if len(answers[0]) > 0 || len(answers[1]) > 0 {
			until(callTimeout, isAnswered)
		}
	}
	giveUp()
	etcd, quorate = <-answers[0], <-answers[1]
	r.count(method)
	waited := [2]bool{isGivenUp(etcd), isGivenUp(quorate)}
	switch {
	case waited[0] && waited[1]:
		// Both put a key and delete it.
		if !until(callTimeout, func() bool { return r.isWithout(request) && r.hasSameData() }) {
			r.note(kind(method), "the data differ when nobody waits any more", "", request)
			r.diverged = true
		}
		return etcd, quorate
	case ctx.Err() != nil && waited[0] != waited[1] && (etcd.code == codes.Canceled || quorate.code == codes.Canceled):
		// One has answered while it was given up.
		r.uncompared++
		r.diverged = true
		return etcd, quorate
	}
	r.compare(method, request, etcd, quorate)
	return etcd, quorate
}

// waiting is a request for a lock or an election.
type waiting interface {
	proto.Message
	GetName() []byte
	GetLease() int64
}

// isWithout is whether neither side has the key of who waits any more.
func (r *run) isWithout(request waiting) bool {
	key := &pb.RangeRequest{Key: fmt.Appendf(nil, "%s/%x", request.GetName(), request.GetLease())}
	etcd, quorate := r.both(func(at *side) outcome {
		return ask(at, "/etcdserverpb.KV/Range", key, &pb.RangeResponse{})
	})
	for _, one := range []outcome{etcd, quorate} {
		answer, is := one.answer.(*pb.RangeResponse)
		if !is || one.code != 0 || answer.Count > 0 {
			return false
		}
	}
	return true
}

func isGivenUp(one outcome) bool {
	return one.code == codes.DeadlineExceeded || one.code == codes.Canceled
}

// aLease that the client chose: the names of keys contain it.
func (r *run) aLease() int64 { return pick(&r.generator, leases) }

func (r *run) lock() {
	if len(r.held) > 0 && r.chance(50) {
		r.unary("/v3lockpb.Lock/Unlock", &v3lockpb.UnlockRequest{Key: pick(&r.generator, r.held)}, &v3lockpb.UnlockResponse{})
		return
	}
	request := &v3lockpb.LockRequest{Name: pick(&r.generator, names), Lease: r.aLease()}
	etcd, _ := r.patient("/v3lockpb.Lock/Lock", request, &v3lockpb.LockResponse{})
	if answer, is := etcd.answer.(*v3lockpb.LockResponse); is && etcd.code == 0 {
		r.held = append(r.held, answer.Key)
	}
}

func (r *run) election() {
	const service = "/v3electionpb.Election/"
	var leader *v3electionpb.LeaderKey
	if len(r.leaders) > 0 && r.chance(90) {
		leader = pick(&r.generator, r.leaders)
	}
	switch r.random.IntN(5) {
	case 0, 1:
		request := &v3electionpb.CampaignRequest{Name: pick(&r.generator, names), Lease: r.aLease(), Value: r.value()}
		etcd, _ := r.patient(service+"Campaign", request, &v3electionpb.CampaignResponse{})
		if answer, is := etcd.answer.(*v3electionpb.CampaignResponse); is && etcd.code == 0 {
			r.leaders = append(r.leaders, answer.Leader)
		}
	case 2:
		r.unary(service+"Proclaim", &v3electionpb.ProclaimRequest{Leader: leader, Value: r.value()},
			&v3electionpb.ProclaimResponse{})
	case 3:
		r.unary(service+"Leader", &v3electionpb.LeaderRequest{Name: pick(&r.generator, names)},
			&v3electionpb.LeaderResponse{})
	default:
		r.unary(service+"Resign", &v3electionpb.ResignRequest{Leader: leader}, &v3electionpb.ResignResponse{})
	}
}

// clearRecipes takes the keys of locks and elections away, so that there are few keys again.
func (r *run) clearRecipes() {
	for _, name := range []string{"lock/", "/"} {
		r.unary("/etcdserverpb.KV/DeleteRange",
			&pb.DeleteRangeRequest{Key: []byte(name), RangeEnd: prefixEnd([]byte(name))}, &pb.DeleteRangeResponse{})
	}
}
