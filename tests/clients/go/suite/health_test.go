package suite

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TestHealth: the member has a status, its services have none of their own, and who watches is told what is known.
func TestHealth(t *testing.T) {
	ctx, client := begin(t)
	health := healthpb.NewHealthClient(client.ActiveConnection())
	answer, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
	check(t, err)
	equal(t, "the status", answer.Status, healthpb.HealthCheckResponse_SERVING)
	_, err = health.Check(ctx, &healthpb.HealthCheckRequest{Service: "etcdserverpb.KV"})
	equal(t, "the status of a service", status.Code(err), codes.NotFound)
	all, err := health.List(ctx, &healthpb.HealthListRequest{})
	check(t, err)
	equal(t, "how many have a status", len(all.Statuses), 1)
	equal(t, "the status in the list", all.Statuses[""].GetStatus(), healthpb.HealthCheckResponse_SERVING)

	for service, expected := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"":                healthpb.HealthCheckResponse_SERVING,
		"etcdserverpb.KV": healthpb.HealthCheckResponse_SERVICE_UNKNOWN,
	} {
		watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{Service: service})
		check(t, err)
		answer, err := watch.Recv()
		check(t, err)
		equal(t, "the status watched", answer.Status, expected)
	}
}

// TestHealthBalancing: a client that asks servers for their health before it calls them finds one.
func TestHealthBalancing(t *testing.T) {
	one := start(t)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{one.address}, DialTimeout: patience, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithDefaultServiceConfig(
			`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`)},
	})
	check(t, err)
	t.Cleanup(func() { _ = client.Close() })
	_, err = client.Put(t.Context(), "a", "1")
	check(t, err)
}
