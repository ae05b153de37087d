package main

import (
	"bytes"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// outcome is what a server made of a call.
type outcome struct {
	answer proto.Message
	code   codes.Code
	text   string
}

// leaseFields hold the ids of leases. Those that the servers chose are translated.
var leaseFields = map[protoreflect.FullName]bool{
	"mvccpb.KeyValue.lease":                     true,
	"etcdserverpb.PutRequest.lease":             true,
	"etcdserverpb.Compare.lease":                true,
	"etcdserverpb.LeaseGrantResponse.ID":        true,
	"etcdserverpb.LeaseRevokeRequest.ID":        true,
	"etcdserverpb.LeaseKeepAliveRequest.ID":     true,
	"etcdserverpb.LeaseKeepAliveResponse.ID":    true,
	"etcdserverpb.LeaseTimeToLiveRequest.ID":    true,
	"etcdserverpb.LeaseTimeToLiveResponse.ID":   true,
	"etcdserverpb.LeaseStatus.ID":               true,
	"etcdserverpb.LeaseGrantRequest.ID":         true,
	"etcdserverpb.LeaseCheckpoint.ID":           true,
	"etcdserverpb.LeaseCheckpointRequest.lease": true,
}

// ownFields belong to a server: only whether they are set is compared.
var ownFields = map[protoreflect.FullName]bool{
	"etcdserverpb.ResponseHeader.cluster_id":       true,
	"etcdserverpb.ResponseHeader.member_id":        true,
	"etcdserverpb.ResponseHeader.raft_term":        true,
	"etcdserverpb.Member.ID":                       true,
	"etcdserverpb.StatusResponse.dbSize":           true,
	"etcdserverpb.StatusResponse.dbSizeInUse":      true,
	"etcdserverpb.StatusResponse.dbSizeQuota":      true,
	"etcdserverpb.StatusResponse.leader":           true,
	"etcdserverpb.StatusResponse.raftIndex":        true,
	"etcdserverpb.StatusResponse.raftTerm":         true,
	"etcdserverpb.StatusResponse.raftAppliedIndex": true,
}

// ownTexts are lists of addresses: their lengths are compared.
var ownTexts = map[protoreflect.FullName]bool{
	"etcdserverpb.Member.peerURLs":   true,
	"etcdserverpb.Member.clientURLs": true,
}

// each visits the fields that are set, those of nested messages too.
func each(m protoreflect.Message, visit func(protoreflect.Message, protoreflect.FieldDescriptor)) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		visit(m, field)
		if field.Kind() != protoreflect.MessageKind || field.IsMap() {
			return true
		}
		if field.IsList() {
			for index := range value.List().Len() {
				each(value.List().Get(index).Message(), visit)
			}
			return true
		}
		each(value.Message(), visit)
		return true
	})
}

// translate replaces leases in a message.
func translate(m proto.Message, leases map[int64]int64) {
	if len(leases) == 0 {
		return
	}
	each(m.ProtoReflect(), func(m protoreflect.Message, field protoreflect.FieldDescriptor) {
		if !leaseFields[field.FullName()] {
			return
		}
		if other, found := leases[m.Get(field).Int()]; found {
			m.Set(field, protoreflect.ValueOfInt64(other))
		}
	})
}

// normalise takes out of an answer what is a server's own.
func normalise(answer proto.Message) {
	each(answer.ProtoReflect(), func(m protoreflect.Message, field protoreflect.FieldDescriptor) {
		name := field.FullName()
		switch {
		case ownFields[name] && field.Kind() == protoreflect.Int64Kind:
			m.Set(field, protoreflect.ValueOfInt64(1))
		case ownFields[name] && field.Kind() == protoreflect.Uint32Kind:
			m.Set(field, protoreflect.ValueOfUint32(1))
		case ownFields[name]:
			m.Set(field, protoreflect.ValueOfUint64(1))
		case ownTexts[name]:
			for index := range m.Get(field).List().Len() {
				m.Mutable(field).List().Set(index, protoreflect.ValueOfString("http://address"))
			}
		}
	})
	switch answer := answer.(type) {
	case *pb.HashKVResponse:
		// Of equal keys on members of one kind only, and of none it may be 0.
		answer.Hash = 0
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(answer.Keys, bytes.Compare)
	case *pb.LeaseLeasesResponse:
		// etcd sorts them by what is left of their time.
		slices.SortFunc(answer.Leases, func(a, b *pb.LeaseStatus) int {
			return compareNumbers(a.ID, b.ID)
		})
	}
}

func compareNumbers(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// align makes what may differ the same: times that are read one behind the other, and the order of keys that
// sort alike, which etcd's sorting leaves to chance where it has more than 12 to sort.
func align(request, etcd, quorate proto.Message) {
	switch etcd := etcd.(type) {
	case *pb.LeaseTimeToLiveResponse:
		quorate := quorate.(*pb.LeaseTimeToLiveResponse)
		gap := etcd.TTL - quorate.TTL
		if etcd.TTL > 0 && quorate.TTL > 0 && -1 <= gap && gap <= 1 {
			quorate.TTL = etcd.TTL
		}
	case *pb.RangeResponse:
		if request, is := request.(*pb.RangeRequest); is {
			alignTies(request, etcd, quorate.(*pb.RangeResponse))
		}
	case *pb.TxnResponse:
		if request, is := request.(*pb.TxnRequest); is {
			alignTxn(request, etcd, quorate.(*pb.TxnResponse))
		}
	}
}

func alignTxn(request *pb.TxnRequest, etcd, quorate *pb.TxnResponse) {
	ops := request.Failure
	if etcd.Succeeded {
		ops = request.Success
	}
	if len(ops) != len(etcd.Responses) || len(ops) != len(quorate.Responses) {
		return
	}
	for index, op := range ops {
		ours, theirs := quorate.Responses[index], etcd.Responses[index]
		if inner := op.GetRequestTxn(); inner != nil && theirs.GetResponseTxn() != nil &&
			ours.GetResponseTxn() != nil {
			alignTxn(inner, theirs.GetResponseTxn(), ours.GetResponseTxn())
		}
		if inner := op.GetRequestRange(); inner != nil && theirs.GetResponseRange() != nil &&
			ours.GetResponseRange() != nil {
			alignTies(inner, theirs.GetResponseRange(), ours.GetResponseRange())
		}
	}
}

func alignTies(request *pb.RangeRequest, etcd, quorate *pb.RangeResponse) {
	sorted := request.SortTarget != pb.RangeRequest_KEY
	if !sorted || etcd.Count <= 12 || len(etcd.Kvs) != len(quorate.Kvs) {
		return
	}
	if request.Limit > 0 && int(request.Limit) < int(etcd.Count) {
		// Which of those that sort alike come before the limit is left to chance too.
		quorate.Kvs = etcd.Kvs
		return
	}
	byKey := func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
	slices.SortFunc(etcd.Kvs, byKey)
	slices.SortFunc(quorate.Kvs, byKey)
}

// difference is one place in which two answers differ.
type difference struct {
	// where is the same for differences of one kind.
	where string
	// shown are the two sides.
	shown string
}

// differences between outcomes that were normalised and aligned.
func differences(etcd, quorate outcome) []difference {
	if etcd.code != quorate.code || etcd.text != quorate.text {
		text := fmt.Sprintf("etcd %v %q, quorate %v %q", etcd.code, etcd.text, quorate.code, quorate.text)
		return []difference{{where: text}}
	}
	if etcd.answer == nil || quorate.answer == nil {
		return nil
	}
	var found []difference
	differ("", etcd.answer.ProtoReflect(), quorate.answer.ProtoReflect(), &found)
	return found
}

func differ(path string, etcd, quorate protoreflect.Message, found *[]difference) {
	tell := func(where string, theirs, ours any) {
		shown := fmt.Sprintf("etcd %v, quorate %v", theirs, ours)
		*found = append(*found, difference{where: path + where, shown: shown})
	}
	if unknown := quorate.GetUnknown(); !bytes.Equal(etcd.GetUnknown(), unknown) {
		tell(" has fields that etcd has not", etcd.GetUnknown(), unknown)
	}
	fields := etcd.Descriptor().Fields()
	for index := range fields.Len() {
		field := fields.Get(index)
		name := "." + string(field.Name())
		if path == "" {
			name = string(field.Name())
		}
		theirs, ours := etcd.Get(field), quorate.Get(field)
		switch {
		case field.IsList():
			if theirs.List().Len() != ours.List().Len() {
				tell(name+": length", theirs.List().Len(), ours.List().Len())
				continue
			}
			for index := range theirs.List().Len() {
				a, b := theirs.List().Get(index), ours.List().Get(index)
				if field.Kind() == protoreflect.MessageKind {
					differ(path+name, a.Message(), b.Message(), found)
				} else if !a.Equal(b) {
					tell(name, a, b)
				}
			}
		case etcd.Has(field) != quorate.Has(field):
			tell(name, present(etcd, field), present(quorate, field))
		case field.Kind() == protoreflect.MessageKind:
			if etcd.Has(field) {
				differ(path+name, theirs.Message(), ours.Message(), found)
			}
		case !theirs.Equal(ours):
			tell(name, theirs, ours)
		}
	}
}

func present(m protoreflect.Message, field protoreflect.FieldDescriptor) any {
	if !m.Has(field) {
		return "not set"
	}
	return m.Get(field)
}
