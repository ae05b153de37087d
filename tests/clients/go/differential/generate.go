package main

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// keys are few, so that requests meet: some are prefixes of others, some lie at the ends of the order. There are
// 12 because etcd sorts up to that many in a way that keeps the order of equals.
var keys = [][]byte{
	[]byte("a"), []byte("a\x00"), []byte("a/b"), []byte("a/c"), []byte("b"), []byte("c"), []byte("d/\xff"),
	[]byte("e"), {0}, {0xff}, {0xff, 0xff}, []byte("\xf0\x9f\xa6\x80"),
}

// leases that clients choose.
var leases = []int64{1, 2, 7, 1000, 0x7000000000000000, math.MaxInt64, -1, -9, math.MinInt64}

// generator makes the requests. It knows as much as a client may know from etcd's answers.
type generator struct {
	random    *rand.Rand
	revision  int64
	compacted int64
	// mixed are revisions of transactions that may have deleted a key and put it again.
	mixed map[int64]bool
	// chosen are the leases that etcd chose.
	chosen []int64
}

func (g *generator) chance(percent int) bool { return g.random.IntN(100) < percent }

func pick[T any](g *generator, from []T) T { return from[g.random.IntN(len(from))] }

func (g *generator) key() []byte {
	if g.chance(2) {
		return nil
	}
	return pick(g, keys)
}

// end of a range that begins with key.
func (g *generator) end(key []byte) []byte {
	switch n := g.random.IntN(100); {
	case n < 40:
		return nil
	case n < 55:
		return []byte{0}
	case n < 70:
		return prefixEnd(key)
	case n < 73:
		return key
	case n < 76:
		return []byte{0, 0}
	}
	return pick(g, keys)
}

func prefixEnd(key []byte) []byte {
	end := bytes.Clone(key)
	for index := len(end) - 1; index >= 0; index-- {
		if end[index] < 0xff {
			end[index]++
			return end[:index+1]
		}
	}
	return []byte{0}
}

func (g *generator) value() []byte {
	switch n := g.random.IntN(100); {
	case n < 20:
		return nil
	case n < 90:
		return []byte(pick(g, []string{"v", "w", "v\x00", "long value", "\xff\xfe", "7"}))
	case n < 99:
		return bytes.Repeat([]byte{byte('A' + g.random.IntN(26))}, 1+g.random.IntN(3000))
	}
	return bytes.Repeat([]byte{'x'}, 200_000)
}

// revisionNear is one that mostly exists.
func (g *generator) revisionNear() int64 {
	switch n := g.random.IntN(100); {
	case n < 4:
		return -1
	case n < 6:
		return math.MinInt64
	case n < 8:
		return math.MaxInt64
	case n < 12:
		return g.revision + 1
	case n < 15:
		return g.revision + 2 + g.random.Int64N(20)
	case n < 20:
		return g.compacted
	case n < 24:
		return g.compacted - 1
	case n < 28:
		return g.compacted + 1
	case n < 30:
		return 1
	case n < 40:
		return g.revision
	}
	return max(1, g.revision-g.random.Int64N(30))
}

func (g *generator) lease() int64 {
	if g.chance(25) && len(g.chosen) > 0 {
		return pick(g, g.chosen)
	}
	return pick(g, leases)
}

func (g *generator) rangeRequest() *pb.RangeRequest {
	request := &pb.RangeRequest{Key: g.key()}
	request.RangeEnd = g.end(request.Key)
	if g.chance(35) {
		request.Revision = g.revisionNear()
	}
	if g.chance(30) {
		request.Limit = pick(g, []int64{1, 1, 2, 3, 5, 100, -1, math.MinInt64, math.MaxInt64})
	}
	if g.chance(35) {
		request.SortOrder = pb.RangeRequest_SortOrder(g.random.IntN(3))
		request.SortTarget = pb.RangeRequest_SortTarget(g.random.IntN(5))
	}
	if g.chance(1) {
		request.SortOrder = pick(g, []pb.RangeRequest_SortOrder{3, 77, -1})
	}
	if g.chance(1) {
		request.SortTarget = pick(g, []pb.RangeRequest_SortTarget{5, 77, -1})
	}
	if g.chance(15) {
		for _, bound := range []*int64{
			&request.MinModRevision, &request.MaxModRevision, &request.MinCreateRevision,
			&request.MaxCreateRevision,
		} {
			if g.chance(40) {
				*bound = g.revisionNear()
			}
		}
	}
	request.Serializable = g.chance(20)
	request.KeysOnly = g.chance(12)
	request.CountOnly = g.chance(10)
	return request
}

func (g *generator) put() *pb.PutRequest {
	request := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.chance(30)}
	if g.chance(30) {
		request.Lease = g.lease()
	}
	if g.chance(12) {
		request.IgnoreValue = true
		if g.chance(85) {
			request.Value = nil
		}
	}
	if g.chance(12) {
		request.IgnoreLease = true
		if g.chance(85) {
			request.Lease = 0
		}
	}
	return request
}

func (g *generator) deleteRange() *pb.DeleteRangeRequest {
	request := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.chance(40)}
	if g.chance(50) {
		request.RangeEnd = g.end(request.Key)
		// Else there is seldom anything left.
		if bytes.Equal(request.RangeEnd, []byte{0}) && g.chance(70) {
			request.RangeEnd = nil
		}
	}
	return request
}

func (g *generator) compare() *pb.Compare {
	one := &pb.Compare{
		Key: g.key(), Result: pb.Compare_CompareResult(g.random.IntN(4)),
		Target: pb.Compare_CompareTarget(g.random.IntN(5)),
	}
	if g.chance(25) {
		one.RangeEnd = g.end(one.Key)
	}
	kind := one.Target
	if g.chance(4) {
		kind = pb.Compare_CompareTarget(g.random.IntN(5))
	}
	switch kind {
	case pb.Compare_VERSION:
		one.TargetUnion = &pb.Compare_Version{Version: pick(g, []int64{0, 1, 2, 3, -1})}
	case pb.Compare_CREATE:
		one.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: pick(g, []int64{0, g.revisionNear()})}
	case pb.Compare_MOD:
		one.TargetUnion = &pb.Compare_ModRevision{ModRevision: pick(g, []int64{0, g.revisionNear()})}
	case pb.Compare_VALUE:
		one.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case pb.Compare_LEASE:
		lease := pick(g, []int64{0, g.lease()})
		one.TargetUnion = &pb.Compare_Lease{Lease: lease}
		// The ids that servers choose have no common order.
		if one.Result == pb.Compare_GREATER || one.Result == pb.Compare_LESS {
			one.TargetUnion = &pb.Compare_Lease{Lease: 0}
		}
	}
	if g.chance(3) {
		one.TargetUnion = nil
	}
	if g.chance(2) {
		one.Result = pick(g, []pb.Compare_CompareResult{4, 99, -1})
	}
	if g.chance(2) {
		one.Target = pick(g, []pb.Compare_CompareTarget{5, 99, -1})
	}
	return one
}

func (g *generator) txn(depth int) *pb.TxnRequest {
	request := &pb.TxnRequest{}
	for g.chance(45) && len(request.Compare) < 4 {
		request.Compare = append(request.Compare, g.compare())
	}
	request.Success, request.Failure = g.branch(depth), g.branch(depth)
	if depth == 0 && g.chance(3) {
		g.fill(request)
	}
	if depth == 0 {
		withoutCrash(request)
	}
	return request
}

func (g *generator) branch(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for g.chance(60) && len(ops) < 5 {
		op := &pb.RequestOp{}
		switch n := g.random.IntN(100); {
		case n < 40:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}
		case n < 70:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: g.put()}
		case n < 85:
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteRange()}
		case n < 98 && depth < 3:
			op.Request = &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}
		}
		if op.Request != nil || g.chance(10) {
			ops = append(ops, op)
		}
	}
	return ops
}

// fill makes a transaction as large as may be, or larger.
func (g *generator) fill(request *pb.TxnRequest) {
	count := pick(g, []int{126, 127, 128, 129, 200})
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: keys[0]}}}
	switch g.random.IntN(3) {
	case 0:
		for len(request.Success) < count {
			request.Success = append(request.Success, get)
		}
	case 1:
		for len(request.Failure) < count {
			request.Failure = append(request.Failure, get)
		}
	default:
		for len(request.Compare) < count {
			request.Compare = append(request.Compare, &pb.Compare{Key: keys[0], Result: pb.Compare_GREATER})
		}
	}
}

// withoutCrash takes out what etcd 3.7.3 does not survive: a put that keeps a value or a lease in a transaction
// that may have deleted the key before.
func withoutCrash(request *pb.TxnRequest) {
	deletes := false
	eachOp(request, func(op *pb.RequestOp) { deletes = deletes || op.GetRequestDeleteRange() != nil })
	eachOp(request, func(op *pb.RequestOp) {
		if put := op.GetRequestPut(); put != nil && deletes {
			put.IgnoreValue, put.IgnoreLease = false, false
		}
	})
}

// mixes is whether a transaction may delete a key and put it again.
func mixes(request *pb.TxnRequest) bool {
	deletes, puts := false, false
	eachOp(request, func(op *pb.RequestOp) {
		deletes = deletes || op.GetRequestDeleteRange() != nil
		puts = puts || op.GetRequestPut() != nil
	})
	return deletes && puts
}

func eachOp(request *pb.TxnRequest, visit func(*pb.RequestOp)) {
	for _, ops := range [][]*pb.RequestOp{request.Success, request.Failure} {
		for _, op := range ops {
			visit(op)
			if inner := op.GetRequestTxn(); inner != nil {
				eachOp(inner, visit)
			}
		}
	}
}

func (g *generator) compact() *pb.CompactionRequest {
	revision := g.revisionNear()
	if g.chance(50) {
		// The whole history would be gone too soon.
		revision = min(revision, g.compacted+g.random.Int64N(10))
	}
	// etcd 3.7.3 loses a key that was deleted and put again in the compacted revision: who reads it behind that ends
	// the server.
	for g.mixed[revision] {
		revision--
	}
	return &pb.CompactionRequest{Revision: revision, Physical: g.chance(30)}
}

func (g *generator) grant() *pb.LeaseGrantRequest {
	request := &pb.LeaseGrantRequest{TTL: 1000 + g.random.Int64N(100_000)}
	if g.chance(70) {
		request.ID = pick(g, leases)
	}
	if g.chance(8) {
		request.TTL = pick(g, []int64{9_000_000_000, 9_000_000_001, math.MaxInt64})
	}
	return request
}

// shortGrant is of a lease that would end within the test: it is revoked at once.
func (g *generator) shortGrant() *pb.LeaseGrantRequest {
	return &pb.LeaseGrantRequest{
		ID: 424242, TTL: pick(g, []int64{0, 1, 2, 3, -1, -7, math.MinInt64}),
	}
}

func (g *generator) watch(free []int64) *pb.WatchCreateRequest {
	request := &pb.WatchCreateRequest{
		Key: g.key(), PrevKv: g.chance(40), ProgressNotify: g.chance(30), Fragment: g.chance(30),
	}
	request.RangeEnd = g.end(request.Key)
	if g.chance(50) {
		request.StartRevision = g.revisionNear()
		// A far one is never reached, and keeps the stream from telling its progress.
		if request.StartRevision > g.revision+30 && g.chance(80) {
			request.StartRevision = g.revision + 3
		}
	}
	if g.chance(25) {
		request.Filters = append(request.Filters, pb.WatchCreateRequest_FilterType(g.random.IntN(2)))
	}
	if g.chance(5) {
		request.Filters = append(request.Filters, pick(g, []pb.WatchCreateRequest_FilterType{0, 1, 2, 99, -1}))
	}
	if g.chance(40) {
		request.WatchId = pick(g, append([]int64{1, 2, 3, 5, -2, -1, math.MaxInt64, math.MinInt64}, free...))
	}
	return request
}

// oversized requests: around the limit for requests, around that for messages.
func (g *generator) oversized() *pb.PutRequest {
	size := pick(g, []int{1 << 20, 1_572_864 - 60, 1_572_864, 1_600_000, 2_097_152 - 100, 2_097_152, 3 << 20})
	return &pb.PutRequest{Key: []byte("large"), Value: bytes.Repeat([]byte{'y'}, size)}
}

// kind of call, for the report: the method's name without its package.
func kind(method string) string {
	return strings.TrimPrefix(strings.TrimPrefix(method, "/etcdserverpb."), "/")
}

func fresh[T proto.Message](m T) proto.Message { return m.ProtoReflect().New().Interface() }
