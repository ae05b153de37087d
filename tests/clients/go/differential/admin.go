package main

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// refusals are calls about the cluster that a server alone refuses, or that change nothing.
func refusals() []struct {
	method          string
	request, answer proto.Message
} {
	const cluster, auth = "/etcdserverpb.Cluster/", "/etcdserverpb.Auth/"
	const maintenance = "/etcdserverpb.Maintenance/"
	url := []string{"http://127.0.0.1:1"}
	return []struct {
		method          string
		request, answer proto.Message
	}{
		{cluster + "MemberAdd", &pb.MemberAddRequest{}, &pb.MemberAddResponse{}},
		{cluster + "MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"bad"}}, &pb.MemberAddResponse{}},
		{cluster + "MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1"}}, &pb.MemberAddResponse{}},
		{cluster + "MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"127.0.0.1:7"}}, &pb.MemberAddResponse{}},
		{cluster + "MemberRemove", &pb.MemberRemoveRequest{ID: 99}, &pb.MemberRemoveResponse{}},
		{cluster + "MemberRemove", &pb.MemberRemoveRequest{}, &pb.MemberRemoveResponse{}},
		{cluster + "MemberUpdate", &pb.MemberUpdateRequest{ID: 99, PeerURLs: url}, &pb.MemberUpdateResponse{}},
		{cluster + "MemberUpdate", &pb.MemberUpdateRequest{ID: 99}, &pb.MemberUpdateResponse{}},
		{cluster + "MemberPromote", &pb.MemberPromoteRequest{ID: 99}, &pb.MemberPromoteResponse{}},
		{cluster + "MemberPromote", &pb.MemberPromoteRequest{}, &pb.MemberPromoteResponse{}},
		{auth + "AuthStatus", &pb.AuthStatusRequest{}, &pb.AuthStatusResponse{}},
		{auth + "Authenticate", &pb.AuthenticateRequest{Name: "root", Password: "x"}, &pb.AuthenticateResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}, &pb.DowngradeResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Version: "1.2"}, &pb.DowngradeResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Version: "x"}, &pb.DowngradeResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Version: "3.6"}, &pb.DowngradeResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Version: "3.6.9"}, &pb.DowngradeResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Version: "3.7"}, &pb.DowngradeResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.5"},
			&pb.DowngradeResponse{}},
		{maintenance + "Downgrade", &pb.DowngradeRequest{Action: 9, Version: "3.6"}, &pb.DowngradeResponse{}},
		{maintenance + "Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE}, &pb.AlarmResponse{}},
		{maintenance + "Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: 1}, &pb.AlarmResponse{}},
		{"/grpc.health.v1.Health/Check", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}},
		{"/grpc.health.v1.Health/Check", &healthpb.HealthCheckRequest{Service: "x"}, &healthpb.HealthCheckResponse{}},
		{"/etcdserverpb.KV/Nope", &pb.RangeRequest{}, &pb.RangeResponse{}},
		{"/nope.Nope/Nope", &pb.RangeRequest{}, &pb.RangeResponse{}},
	}
}

func (r *run) refusal() {
	one := pick(&r.generator, refusals())
	r.unary(one.method, one.request, one.answer)
}

// bytesCodec sends what it is given.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (bytesCodec) Name() string                       { return "proto" }

// malformed sends what is no message, or one with fields that nobody knows. Only the codes are compared: the texts
// are those of the libraries that read messages.
func (r *run) malformed() {
	methods := []string{"KV/Range", "KV/Put", "KV/Txn", "KV/DeleteRange", "KV/Compact", "Lease/LeaseGrant",
		"Lease/LeaseRevoke", "Lease/LeaseTimeToLive", "Cluster/MemberList", "Maintenance/Status"}
	method := "/etcdserverpb." + pick(&r.generator, methods)
	message := pick(&r.generator, [][]byte{
		{0x0a}, {0x0a, 0x05, 'a'}, {0xff}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x08}, {0x0d, 1, 2}, {0x00, 0x00},
		{0x0b}, {0x0c}, {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	})
	if method == "/etcdserverpb.Lease/LeaseGrant" && len(message) > 6 {
		return
	}
	etcd, quorate := r.both(func(one *side) outcome {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		var answer []byte
		if err := one.conn.Invoke(ctx, method, &message, &answer, grpc.ForceCodec(bytesCodec{})); err != nil {
			return failed(err)
		}
		return outcome{}
	})
	r.count("malformed")
	if etcd.code != quorate.code {
		r.note("malformed", fmt.Sprintf("%s: etcd %v, quorate %v", kind(method), etcd.code, quorate.code),
			fmt.Sprintf("% x: etcd %q, quorate %q", message, etcd.text, quorate.text), nil)
		r.diverged = r.diverged || !r.hasSameData()
	}
}
