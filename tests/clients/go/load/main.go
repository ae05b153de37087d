// Command load measures what etcd's own benchmark does not: lists of many keys, many watches, and calls against an
// empty handler of the same server. It drives servers that run, in turn, and prints a table.
//
//	load -servers etcd=127.0.0.1:2379=PID,quorate=127.0.0.1:3379=PID -work list,watch-1,watch-100,calls-64
//
// list: 100,000 keys of 1 KiB, read by pages of 500, in one answer and as a stream; the best of three, and the
// greatest resident memory while they were read.
// watch-N: 10,000 watches of one key over N connections: memory of each, then puts one behind the other, the
// changes told a second, and the p99 of the puts.
// calls-N: N callers over as many connections, 100 at most: an empty handler (health), puts, and linearizable and
// serializable reads.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// server is one that runs.
type server struct {
	name, address string
	pid           int
}

func (s server) connect() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{s.address}, DialTimeout: 20 * time.Second, Logger: zap.NewNop(),
		MaxCallRecvMsgSize: 1 << 30,
	})
}

func (s server) stat(file, field string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.pid, file))
	if err != nil {
		return 0
	}
	if field == "" {
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
		user, _ := strconv.ParseFloat(fields[11], 64)
		system, _ := strconv.ParseFloat(fields[12], 64)
		return (user + system) * 10_000
	}
	for _, line := range strings.Split(string(text), "\n") {
		if value, found := strings.CutPrefix(line, field+":"); found {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024
		}
	}
	return 0
}

// cpu is the time that the server has taken, in microseconds.
func (s server) cpu() float64 { return s.stat("stat", "") }

// resident is its memory in MiB, and peak the most that it was since it was forgotten.
func (s server) resident() float64 { return s.stat("status", "VmRSS") }
func (s server) peak() float64     { return s.stat("status", "VmHWM") }

func (s server) forgetPeak() {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0)
}

func say(format string, arguments ...any) { fmt.Printf(format+"\n", arguments...) }

const (
	listed    = 100_000
	valueSize = 1 << 10
	pageSize  = 500
)

func fill(ctx context.Context, client *clientv3.Client) error {
	value := strings.Repeat("v", valueSize)
	var group sync.WaitGroup
	failed := make(chan error, 64)
	var next atomic.Int64
	for range 64 {
		group.Go(func() {
			for number := next.Add(1) - 1; number < listed; number = next.Add(1) - 1 {
				if _, err := client.Put(ctx, fmt.Sprintf("list/%06d", number), value); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	return <-failed
}

func byPages(ctx context.Context, client *clientv3.Client) (int, error) {
	count, key, revision := 0, "list/", int64(0)
	for {
		answer, err := client.Get(ctx, key, clientv3.WithRange("list0"), clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
		if err != nil {
			return count, err
		}
		count += len(answer.Kvs)
		if !answer.More {
			return count, nil
		}
		revision = answer.Header.Revision
		key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

func whole(ctx context.Context, client *clientv3.Client) (int, error) {
	answer, err := client.Get(ctx, "list/", clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	return len(answer.Kvs), nil
}

func streamed(ctx context.Context, client *clientv3.Client) (int, error) {
	request := &pb.RangeRequest{Key: []byte("list/"), RangeEnd: []byte("list0")}
	stream, err := pb.NewKVClient(client.ActiveConnection()).RangeStream(ctx, request)
	if err != nil {
		return 0, err
	}
	for count := 0; ; {
		part, err := stream.Recv()
		if err != nil {
			if err.Error() == "EOF" {
				return count, nil
			}
			return count, err
		}
		count += len(part.RangeResponse.GetKvs())
	}
}

func list(ctx context.Context, s server) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := fill(ctx, client); err != nil {
		return err
	}
	ways := []struct {
		name string
		read func(context.Context, *clientv3.Client) (int, error)
	}{{"pages", byPages}, {"whole", whole}, {"stream", streamed}}
	for _, way := range ways {
		best, cpu := time.Hour, 0.0
		s.forgetPeak()
		before := s.resident()
		for range 3 {
			begin, used := time.Now(), s.cpu()
			count, err := way.read(ctx, client)
			if err != nil {
				return err
			}
			if count != listed {
				return fmt.Errorf("%s: %d keys came, not %d", way.name, count, listed)
			}
			if took := time.Since(begin); took < best {
				best, cpu = took, s.cpu()-used
			}
		}
		say("| list %s | %s | %.0f ms | CPU %.0f ms | memory %.0f -> %.0f MiB |", way.name, s.name,
			float64(best)/1e6, cpu/1e3, before, s.peak())
	}
	return nil
}

const watches = 10_000

func watch(ctx context.Context, s server, connections int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before := s.resident()
	var told atomic.Int64
	var group sync.WaitGroup
	begun := make(chan error, connections)
	for range connections {
		client, err := s.connect()
		if err != nil {
			return err
		}
		defer client.Close()
		stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx)
		if err != nil {
			return err
		}
		count := watches / connections
		group.Go(func() {
			for created := 0; ; {
				answer, err := stream.Recv()
				if err != nil {
					if created < count {
						begun <- err
					}
					return
				}
				if answer.Created {
					if created++; created == count {
						begun <- nil
					}
				}
				told.Add(int64(len(answer.Events)))
			}
		})
		for range count {
			create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
				CreateRequest: &pb.WatchCreateRequest{Key: []byte("watched")}}}
			if err := stream.Send(create); err != nil {
				return err
			}
		}
	}
	for range connections {
		if err := <-begun; err != nil {
			return err
		}
	}
	memory := s.resident() - before
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	const puts = 100
	times := make([]time.Duration, 0, puts)
	begin, used := time.Now(), s.cpu()
	for range puts {
		at := time.Now()
		if _, err := client.Put(ctx, "watched", "v"); err != nil {
			return err
		}
		times = append(times, time.Since(at))
	}
	for told.Load() < puts*watches && time.Since(begin) < 2*time.Minute {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(begin)
	if told.Load() != puts*watches {
		return fmt.Errorf("%d changes were told, not %d", told.Load(), puts*watches)
	}
	slices.Sort(times)
	say("| %d watches, %d connections | %s | %.1f MiB, %.0f B a watch | %.0f changes/s | put p50 %.1f ms, p99 %.1f ms | CPU %.2f us a change |",
		watches, connections, s.name, memory, memory*(1<<20)/watches, float64(puts*watches)/took.Seconds(),
		float64(times[puts/2])/1e6, float64(times[puts-1])/1e6, (s.cpu()-used)/(puts*watches))
	cancel()
	group.Wait()
	return nil
}

func calls(ctx context.Context, s server, callers int, duration time.Duration) error {
	clients := make([]*clientv3.Client, min(callers, 100))
	for index := range clients {
		client, err := s.connect()
		if err != nil {
			return err
		}
		defer client.Close()
		clients[index] = client
	}
	value := strings.Repeat("v", 256)
	if _, err := clients[0].Put(ctx, "read", value); err != nil {
		return err
	}
	kinds := []struct {
		name string
		call func(client *clientv3.Client, number int64) error
	}{
		{"empty", func(client *clientv3.Client, _ int64) error {
			_, err := healthpb.NewHealthClient(client.ActiveConnection()).Check(ctx, &healthpb.HealthCheckRequest{})
			return err
		}},
		{"put", func(client *clientv3.Client, number int64) error {
			_, err := client.Put(ctx, fmt.Sprintf("calls/%06d", number%100_000), value)
			return err
		}},
		{"get", func(client *clientv3.Client, _ int64) error {
			_, err := client.Get(ctx, "read")
			return err
		}},
		{"serializable get", func(client *clientv3.Client, _ int64) error {
			_, err := client.Get(ctx, "read", clientv3.WithSerializable())
			return err
		}},
	}
	empty := 0.0
	for _, kind := range kinds {
		var done, failed atomic.Int64
		var group sync.WaitGroup
		begin, used := time.Now(), s.cpu()
		for caller := range callers {
			client := clients[caller%len(clients)]
			group.Go(func() {
				for time.Since(begin) < duration {
					if err := kind.call(client, done.Add(1)); err != nil {
						failed.Add(1)
						fmt.Fprintln(os.Stderr, err)
						return
					}
				}
			})
		}
		group.Wait()
		if failed.Load() != 0 {
			return fmt.Errorf("%s: calls failed", kind.name)
		}
		rate := float64(done.Load()) / time.Since(begin).Seconds()
		if empty == 0 {
			empty = rate
		}
		say("| %s | %s | %d callers | %.0f/s | %.2f of empty | CPU %.1f us |", kind.name, s.name, callers, rate, rate/empty,
			(s.cpu()-used)/float64(done.Load()))
	}
	return nil
}

func main() {
	servers := flag.String("servers", "", "NAME=ADDRESS=PID,...: servers that run")
	work := flag.String("work", "calls-64,watch-100,watch-1,list", "what is measured, in turn")
	rounds := flag.Int("rounds", 1, "how often")
	seconds := flag.Int("seconds", 3, "how long each kind of call is made")
	flag.Parse()
	if err := drive(*servers, *work, *rounds, time.Duration(*seconds)*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func drive(servers, work string, rounds int, duration time.Duration) error {
	var all []server
	for _, text := range strings.Split(servers, ",") {
		parts := strings.Split(text, "=")
		if len(parts) != 3 {
			return fmt.Errorf("a server is NAME=ADDRESS=PID, and this is none: %q", text)
		}
		pid, err := strconv.Atoi(parts[2])
		if err != nil {
			return fmt.Errorf("no process id: %q", parts[2])
		}
		all = append(all, server{parts[0], parts[1], pid})
	}
	ctx := context.Background()
	for range rounds {
		for _, what := range strings.Split(work, ",") {
			for _, one := range all {
				var err error
				name, count, _ := strings.Cut(what, "-")
				switch number, _ := strconv.Atoi(count); {
				case name == "watch" && number > 0 && watches%number == 0:
					err = watch(ctx, one, number)
				case name == "calls" && number > 0:
					err = calls(ctx, one, number, duration)
				case what == "list":
					err = list(ctx, one)
				default:
					err = fmt.Errorf("nothing that is measured: %q", what)
				}
				if err != nil {
					return fmt.Errorf("%s: %s: %w", one.name, what, err)
				}
			}
		}
	}
	return nil
}
