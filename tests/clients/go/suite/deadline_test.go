package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"
)

// call makes one call with a header that gRPC's client does not let its user choose, and says how it ended: the status of
// HTTP, that of gRPC, and its message. A stream that is reset at its deadline counts as one with that status.
func (s *server) call(path, timeout string, message proto.Message) string {
	s.t.Helper()
	encoded, err := proto.Marshal(message)
	check(s.t, err)
	own := s.wire()
	own.call(path, encoded, [2]string{"grpc-timeout", timeout})
	told := map[string]string{}
	for {
		frame, err := own.framer.ReadFrame()
		if errors.Is(err, io.EOF) {
			return "closed"
		}
		check(s.t, err)
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			equal(s.t, "why the stream was reset", frame.ErrCode, http2.ErrCodeCancel)
			return "200 4 context deadline exceeded"
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				told[field.Name] = field.Value
			}
			if frame.StreamEnded() {
				text := strings.TrimSpace(fmt.Sprint(told["grpc-status"], " ", told["grpc-message"]))
				return told[":status"] + " " + text
			}
		}
	}
}

// What a real etcd answers, too.
func TestDeadlinesAreReadAsGRPCReadsThem(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server := start(t)
	get := &pb.RangeRequest{Key: []byte("k")}
	for timeout, expected := range map[string]string{
		"3S":         "200 0",
		"99999999H":  "200 0",
		"0m":         "200 4 context deadline exceeded",
		"":           `400 13 malformed grpc-timeout: transport: timeout string is too short: ""`,
		"S":          `400 13 malformed grpc-timeout: transport: timeout string is too short: "S"`,
		"123456789m": `400 13 malformed grpc-timeout: transport: timeout string is too long: "123456789m"`,
		"10s":        `400 13 malformed grpc-timeout: transport: timeout unit is not recognized: "10s"`,
		"+1S":        `400 13 malformed grpc-timeout: strconv.ParseUint: parsing "+1": invalid syntax`,
		"1.5S":       `400 13 malformed grpc-timeout: strconv.ParseUint: parsing "1.5": invalid syntax`,
	} {
		equal(t, "answer to "+timeout, server.call("/etcdserverpb.KV/Range", timeout, get), expected)
	}
	// Streams, and calls that wait for something else than the member.
	watch := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")},
	}}
	expected := "200 4 context deadline exceeded"
	equal(t, "end of a watch", server.call("/etcdserverpb.Watch/Watch", "300m", watch), expected)
	equal(t, "a watch with 0", server.call("/etcdserverpb.Watch/Watch", "0S", watch), expected)
	session, err := server.client().Grant(ctx, 60)
	check(t, err)
	lock := &v3lockpb.LockRequest{Name: []byte("l"), Lease: int64(session.ID)}
	equal(t, "a lock that is free", server.call("/v3lockpb.Lock/Lock", "5S", lock), "200 0")
	other, err := server.client().Grant(ctx, 60)
	check(t, err)
	lock.Lease = int64(other.ID)
	equal(t, "a lock that is held", server.call("/v3lockpb.Lock/Lock", "300m", lock), expected)
}

func TestDeadlinesOfTheGateway(t *testing.T) {
	server := start(t)
	post := func(path, body, timeout string) string {
		request, err := http.NewRequest(http.MethodPost, "http://"+server.address+path, strings.NewReader(body))
		check(t, err)
		request.Header.Set("Grpc-Timeout", timeout)
		answer, err := http.DefaultClient.Do(request)
		check(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		check(t, err)
		if answer.StatusCode == http.StatusOK {
			text = nil
		}
		return strings.TrimSpace(fmt.Sprint(answer.StatusCode, " ", strings.ReplaceAll(string(text), " ", "")))
	}
	late := `504 {"code":4,"message":"contextdeadlineexceeded"}`
	for timeout, expected := range map[string]string{
		"3S":         "200",
		"0m":         "200",
		"+3S":        "200",
		"123456789m": "200",
		"-1S":        late,
		"10s":        `400 {"code":3,"message":"invalidgrpc-timeout:10s"}`,
		"S":          `400 {"code":3,"message":"invalidgrpc-timeout:S"}`,
	} {
		equal(t, "answer to "+timeout, post("/v3/kv/range", `{"key":"aw=="}`, timeout), expected)
	}
	equal(t, "a lock that is free", post("/v3/lock/lock", `{"name":"bA=="}`, "5S"), "200")
	equal(t, "a lock that is held", post("/v3/lock/lock", `{"name":"bA=="}`, "300m"), late)
}
