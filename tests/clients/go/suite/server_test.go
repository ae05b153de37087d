// Package suite holds what programs do with etcd's Go client, as tests against Quorate.
package suite

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// server is a running Quorate.
type server struct {
	t       *testing.T
	dir     string
	command *exec.Cmd
	address string
}

// start starts a server with fresh data, on a port that the system chooses.
func start(t *testing.T) *server {
	t.Helper()
	one := &server{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	one.launch()
	t.Cleanup(one.kill)
	return one
}

func (s *server) launch() {
	s.t.Helper()
	binary := os.Getenv("QUORATE")
	if binary == "" {
		s.t.Fatal("QUORATE names no binary; run tests/clients/run")
	}
	s.command = exec.Command(binary, "server", "--data-dir", filepath.Join(s.dir, "data"), "--listen", s.address)
	s.command.Stderr = os.Stderr
	output, err := s.command.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.command.Start(); err != nil {
		s.t.Fatal(err)
	}
	for lines := bufio.NewScanner(output); lines.Scan(); {
		for _, word := range strings.Fields(lines.Text()) {
			if address, found := strings.CutPrefix(word, "etcd="); found {
				s.address = address
				return
			}
		}
	}
	s.t.Fatal("the server ended before it was ready")
}

func (s *server) kill() {
	_ = s.command.Process.Kill()
	_ = s.command.Wait()
}

// restart ends the server without warning and starts it again with its data, at its address.
func (s *server) restart() {
	s.t.Helper()
	s.kill()
	s.launch()
}

// client is one of the server's.
func (s *server) client() *clientv3.Client {
	s.t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{s.address}, DialTimeout: patience, Logger: zap.NewNop(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// begin starts a server, and a client for it.
func begin(t *testing.T) (context.Context, *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx, start(t).client()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, expected T) {
	t.Helper()
	if got != expected {
		t.Fatalf("%s: got %v, expected %v", what, got, expected)
	}
}

// receive takes one thing off a channel.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case one, open := <-from:
		if !open {
			t.Fatalf("%s: the channel was closed", what)
		}
		return one
	case <-time.After(patience):
		t.Fatalf("%s: nothing came", what)
	}
	panic("unreachable")
}

// text of the keys and values in an answer.
func text(answer *clientv3.GetResponse) string {
	var parts []string
	for _, kv := range answer.Kvs {
		parts = append(parts, string(kv.Key)+"="+string(kv.Value))
	}
	return strings.Join(parts, " ")
}
