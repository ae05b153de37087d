package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// page is an answer of the gateway.
type page struct {
	status int
	kind   string
	body   any
	raw    string
}

var web = http.Client{Timeout: callTimeout}

// post sends JSON to a side.
func post(one *side, path string, body []byte) (page, error) {
	answer, err := web.Post("http://"+one.address+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return page{}, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return page{}, err
	}
	got := page{status: answer.StatusCode, kind: answer.Header.Get("Content-Type"), raw: string(raw)}
	if err := json.Unmarshal(raw, &got.body); err != nil {
		got.body = string(raw)
	}
	got.body = own(one, "", got.body)
	return got, nil
}

// own takes out of JSON what is a server's own, and translates leases.
func own(one *side, name string, value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			value[name] = own(one, name, inner)
		}
		return value
	case []any:
		for index, inner := range value {
			if member, is := inner.(map[string]any); is && name == "members" {
				member["ID"] = "own"
			}
			value[index] = own(one, name, inner)
		}
		switch name {
		case "peerURLs", "clientURLs":
			return len(value)
		case "keys", "leases":
			slices.SortFunc(value, func(a, b any) int {
				return bytes.Compare([]byte(fmt.Sprint(a)), []byte(fmt.Sprint(b)))
			})
		}
		return value
	case string:
		switch name {
		case "cluster_id", "member_id", "raft_term", "dbSize", "dbSizeInUse", "dbSizeQuota", "leader",
			"raftIndex", "raftTerm", "raftAppliedIndex":
			return "own"
		case "ID", "lease":
			if number, err := strconv.ParseInt(value, 10, 64); err == nil {
				if theirs, found := one.ofEtcd[number]; found {
					return strconv.FormatInt(theirs, 10)
				}
			}
		}
	}
	return value
}

// gateway makes a call as JSON.
func (r *run) gateway() {
	chosen := r.chosen
	r.chosen = nil
	calls := []struct {
		path    string
		request proto.Message
	}{
		{"kv/range", r.rangeRequest()}, {"kv/range", r.rangeRequest()}, {"kv/put", r.put()}, {"kv/put", r.put()},
		{"kv/deleterange", r.deleteRange()}, {"kv/txn", r.txn(0)}, {"kv/txn", r.txn(0)},
		{"lease/revoke", &pb.LeaseRevokeRequest{ID: r.lease()}},
		{"kv/lease/revoke", &pb.LeaseRevokeRequest{ID: r.lease()}},
		{"lease/timetolive", &pb.LeaseTimeToLiveRequest{ID: r.lease(), Keys: true}},
		{"lease/leases", &pb.LeaseLeasesRequest{}},
		{"lease/keepalive", &pb.LeaseKeepAliveRequest{ID: r.lease()}},
		{"lease/grant", &pb.LeaseGrantRequest{ID: pick(&r.generator, leases), TTL: 100_000}},
		{"maintenance/alarm", &pb.AlarmRequest{}}, {"maintenance/status", &pb.StatusRequest{}},
		{"cluster/member/list", &pb.MemberListRequest{}}, {"auth/status", &pb.AuthStatusRequest{}},
		{"auth/authenticate", &pb.AuthenticateRequest{Name: "x"}}, {"nope", &pb.StatusRequest{}},
		{"cluster/member/remove", &pb.MemberRemoveRequest{ID: 99}},
	}
	r.chosen = chosen
	one := pick(&r.generator, calls)
	switch request := one.request.(type) {
	case *pb.RangeRequest:
		withoutTies(request)
	case *pb.TxnRequest:
		eachOp(request, func(op *pb.RequestOp) {
			if inner := op.GetRequestRange(); inner != nil {
				withoutTies(inner)
			}
		})
	}
	body, err := protojson.MarshalOptions{
		UseProtoNames: r.chance(70), EmitUnpopulated: r.chance(20), UseEnumNumbers: r.chance(30),
	}.Marshal(one.request)
	if err != nil {
		return
	}
	// A lease whose id each chooses for itself could not be followed.
	if r.chance(8) && one.path != "lease/grant" {
		body = pick(&r.generator, [][]byte{
			nil, []byte("{"), []byte("[]"), []byte("null"), []byte(`{"nope":1}`), []byte(`{"key":1}`),
			[]byte(`{"key":"!"}`), []byte(`{"ID":"x"}`), []byte(`{"ID":7}`), []byte(`{"ID":null}`), []byte("{} {}"),
			[]byte(`{"key":"YQ==","limit":1e3}`), []byte(`{"key":"YQ==","limit":"1.0"}`), []byte(`{"key":"YQ==","limit":1.5}`),
			[]byte(`{"key":"YQ==","limit":"+1"}`), []byte(`{"key":"YQ==","limit":-0}`), []byte(`{"limit":01}`),
			[]byte(`{"key":"YQ==","sort_order":"nope"}`), []byte(`{"key":"YQ==","sort_order":1e0}`),
			[]byte(`{"key":"YQ==","key":"Yg=="}`), []byte(`{"range_end":"Yg==","rangeEnd":"Yg=="}`),
			[]byte(`{"key":"YQ="}`), []byte(`{"key":"YQ"}`), []byte(`{"key":"YR=="}`), []byte(`{"ID":"1e1"}`),
			[]byte(`{"success":[{"request_range":{},"request_put":{}}]}`), []byte(`{"compare":[{"version":1,"lease":2}]}`),
		})
	}
	r.post("/v3/"+one.path, one.request, body)
}

// post sends a body, which may be that of the request.
func (r *run) post(path string, request proto.Message, body []byte) {
	method := "JSON " + path
	pages := [2]page{}
	errs := [2]error{}
	done := make(chan struct{})
	go func() { pages[0], errs[0] = post(r.etcd, path, body); close(done) }()
	pages[1], errs[1] = post(r.quorate, path, body)
	<-done
	r.count(method)
	shown := fmt.Sprintf("%s\n    etcd %d %s\n    quorate %d %s", shorten(string(body), 400), pages[0].status,
		shorten(pages[0].raw, 500), pages[1].status, shorten(pages[1].raw, 500))
	where := ""
	switch {
	case errs[0] != nil || errs[1] != nil:
		where = fmt.Sprintf("etcd %v, quorate %v", errs[0], errs[1])
	case pages[0].status != pages[1].status:
		where = fmt.Sprintf("status: etcd %d, quorate %d", pages[0].status, pages[1].status)
	case pages[0].kind != pages[1].kind:
		where = fmt.Sprintf("content: etcd %q, quorate %q", pages[0].kind, pages[1].kind)
	default:
		where = unlike("", pages[0].body, pages[1].body)
	}
	if where != "" {
		r.note(method, where, shown, nil)
		r.diverged = r.diverged || !r.hasSameData()
	}
	if body, is := pages[0].body.(map[string]any); is {
		if header, is := body["header"].(map[string]any); is {
			if revision, err := strconv.ParseInt(fmt.Sprint(header["revision"]), 10, 64); err == nil {
				r.reached(request, revision)
			}
		}
	}
}

// unlike is the first place in which two values of JSON differ.
func unlike(path string, etcd, quorate any) string {
	theirs, isMap := etcd.(map[string]any)
	ours, areMaps := quorate.(map[string]any)
	if isMap && areMaps {
		names := []string{}
		for name := range theirs {
			names = append(names, name)
		}
		for name := range ours {
			if _, found := theirs[name]; !found {
				return path + "." + name + ": only quorate has it"
			}
		}
		slices.Sort(names)
		for _, name := range names {
			inner, found := ours[name]
			if !found {
				return path + "." + name + ": only etcd has it"
			}
			if name == "TTL" && near(theirs[name], inner) {
				continue
			}
			if where := unlike(path+"."+name, theirs[name], inner); where != "" {
				return where
			}
		}
		return ""
	}
	theirList, isList := etcd.([]any)
	ourList, areLists := quorate.([]any)
	if isList && areLists && len(theirList) == len(ourList) {
		for index := range theirList {
			if where := unlike(path, theirList[index], ourList[index]); where != "" {
				return where
			}
		}
		return ""
	}
	if reflect.DeepEqual(etcd, quorate) {
		return ""
	}
	if text, is := etcd.(string); is && (strings.HasPrefix(text, "proto:") ||
		strings.HasPrefix(text, "invalid character ") || text == "unexpected EOF") {
		// The words of a library that reads JSON.
		return ""
	}
	if path == ".message" || path == ".error" {
		return fmt.Sprintf("%s: etcd %q, quorate %q", path, etcd, quorate)
	}
	return path
}

func near(a, b any) bool {
	x, err := strconv.ParseInt(fmt.Sprint(a), 10, 64)
	if err != nil {
		return false
	}
	y, err := strconv.ParseInt(fmt.Sprint(b), 10, 64)
	return err == nil && x-y <= 1 && y-x <= 1
}

// watchGateway asks for a watch as JSON, which is told what is there already, and goes on.
func (r *run) watchGateway() {
	create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: max(1, r.compacted)}
	body, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	if err != nil {
		return
	}
	lines := [2][]any{}
	done := make(chan struct{})
	go func() { lines[0] = r.firstLines(r.etcd, body); close(done) }()
	lines[1] = r.firstLines(r.quorate, body)
	<-done
	for index := range lines {
		lines[index] = withoutSuperseded(lines[index], r.compacted, func(line any) (string, int64) {
			event, _ := line.(map[string]any)
			kv, _ := event["kv"].(map[string]any)
			revision, err := strconv.ParseInt(fmt.Sprint(kv["mod_revision"]), 10, 64)
			if err != nil {
				return "", math.MinInt64
			}
			return fmt.Sprint(kv["key"]), revision
		})
	}
	r.count("JSON /v3/watch")
	for index := range max(len(lines[0]), len(lines[1])) {
		if index >= len(lines[0]) || index >= len(lines[1]) {
			r.note("JSON /v3/watch", "the answers are not as many", fmt.Sprintf("etcd %v\n    quorate %v", lines[0], lines[1]), nil)
			return
		}
		if where := unlike("", lines[0][index], lines[1][index]); where != "" {
			r.note("JSON /v3/watch", where, fmt.Sprintf("etcd %v\n    quorate %v", lines[0][index], lines[1][index]), nil)
			return
		}
	}
}

// firstLines are the creation and the events of a watch up to the newest revision, in one list.
func (r *run) firstLines(one *side, body []byte) []any {
	request, err := http.NewRequest("POST", "http://"+one.address+"/v3/watch", bytes.NewReader(body))
	if err != nil {
		return []any{err.Error()}
	}
	answer, err := web.Do(request)
	if err != nil {
		return []any{err.Error()}
	}
	defer answer.Body.Close()
	stop := time.AfterFunc(2*time.Second, func() { answer.Body.Close() })
	defer stop.Stop()
	var told []any
	for reader := json.NewDecoder(answer.Body); ; {
		var line struct{ Result map[string]any }
		if err := reader.Decode(&line); err != nil {
			return append(told, "the stream broke off")
		}
		own(one, "", line.Result)
		events, _ := line.Result["events"].([]any)
		if len(events) == 0 {
			told = append(told, line.Result)
			// Nothing more comes where the newest change is not a key's that is still to be told.
			if r.revision <= 1 || r.revision < max(1, r.compacted) {
				return told
			}
			continue
		}
		told = append(told, events...)
		last, _ := events[len(events)-1].(map[string]any)
		kv, _ := last["kv"].(map[string]any)
		if revision, err := strconv.ParseInt(fmt.Sprint(kv["mod_revision"]), 10, 64); err != nil || revision >= r.revision {
			return told
		}
	}
}
