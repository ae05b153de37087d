package main

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// waitTimeout is how long a call may wait for its turn.
const waitTimeout = 300 * time.Millisecond

var names = [][]byte{[]byte("lock"), []byte("a"), {}}

// patient makes a call that may wait for ever, and gives up on it. What it leaves behind is taken back some time
// after that.
func (r *run) patient(method string, request, answer proto.Message) (etcd, quorate outcome) {
	r.remember(method, request)
	etcd, quorate = r.both(func(one *side) outcome {
		ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
		defer cancel()
		answer := fresh(answer)
		if err := one.conn.Invoke(ctx, method, request, answer); err != nil {
			return failed(err)
		}
		translate(answer, one.ofEtcd)
		return outcome{answer: answer}
	})
	r.count(method)
	if etcd.code == codes.DeadlineExceeded && quorate.code == codes.DeadlineExceeded {
		// Both put a key and delete it, or neither does.
		if !until(settleTimeout, r.hasSameData) {
			r.note(kind(method), "the data differ when nobody waits any more", "", request)
			r.diverged = true
		}
		return etcd, quorate
	}
	r.compare(method, request, etcd, quorate)
	return etcd, quorate
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
