package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 30 * time.Second

// side is one of the two servers, and the connection to it.
type side struct {
	name    string
	command *exec.Cmd
	ended   chan error
	conn    *grpc.ClientConn
	dir     string
	// address for clients.
	address string
	// leases of this side by those of etcd's, where the server chose them.
	leases map[int64]int64
	// ofEtcd is the other way round.
	ofEtcd map[int64]int64
}

// launch starts a program that ends with this process; its output goes to a file in dir.
func launch(name, dir string, arguments ...string) (*side, error) {
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	command := exec.Command(arguments[0], arguments[1:]...)
	command.Stdout, command.Stderr = output, output
	if err := command.Start(); err != nil {
		return nil, err
	}
	one := &side{
		name: name, command: command, ended: make(chan error, 1), dir: dir,
		leases: map[int64]int64{}, ofEtcd: map[int64]int64{},
	}
	go func() { one.ended <- command.Wait() }()
	return one, nil
}

// freeAddress is one on which nobody listens now.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// startEtcd starts etcd with fresh data. Its two ports are free when they are chosen; whoever takes one of them
// in the meantime makes another attempt necessary.
func startEtcd(binary, scratch string) (one *side, err error) {
	for range 5 {
		if one, err = tryEtcd(binary, scratch); err == nil {
			return one, nil
		}
	}
	return nil, err
}

func tryEtcd(binary, scratch string) (*side, error) {
	dir, err := os.MkdirTemp(scratch, "etcd-")
	if err != nil {
		return nil, err
	}
	client, err := freeAddress()
	if err != nil {
		return nil, err
	}
	peer, err := freeAddress()
	if err != nil {
		return nil, err
	}
	one, err := launch("etcd", dir, binary,
		"--name", "default", "--data-dir", filepath.Join(dir, "data"),
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer, "--unsafe-no-fsync", "--log-level", "error",
	)
	if err != nil {
		return nil, err
	}
	return one, one.connect(client)
}

// startQuorate starts Quorate with fresh data, on ports that the system chooses.
func startQuorate(binary, scratch string) (*side, error) {
	dir, err := os.MkdirTemp(scratch, "quorate-")
	if err != nil {
		return nil, err
	}
	one, err := launch("quorate", dir, binary,
		"server", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) && one.isRunning() {
		if address, found := readyAddress(filepath.Join(dir, "output")); found {
			return one, one.connect(address)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("quorate did not become ready:\n%s", one.output())
}

// readyAddress is the address for etcd's clients in the line that says that the server is ready.
func readyAddress(path string) (string, bool) {
	file, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] != "ready" {
			continue
		}
		for _, word := range words {
			if address, found := strings.CutPrefix(word, "etcd="); found {
				return address, true
			}
		}
	}
	return "", false
}

// connect waits until the server answers.
func (s *side) connect(address string) error {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(1<<31-1), grpc.MaxCallSendMsgSize(1<<31-1)),
	)
	if err != nil {
		return err
	}
	s.conn, s.address = conn, address
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) && s.isRunning() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("x")})
		cancel()
		if err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.stop()
	return fmt.Errorf("%s does not answer: %w\n%s", s.name, err, s.output())
}

// slowWatchers is how many of etcd's watches are behind, which it tells among its figures.
func (s *side) slowWatchers() (float64, error) {
	answer, err := web.Get("http://" + s.address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), "etcd_debugging_mvcc_slow_watcher_total "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.New("there is no figure for watches that are behind")
}

func (s *side) isRunning() bool {
	select {
	case err := <-s.ended:
		s.ended <- err
		return false
	default:
		return true
	}
}

// output is the end of what the server has printed.
func (s *side) output() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "output"))
	if size := len(text); size > 4000 {
		text = text[size-4000:]
	}
	return string(text)
}

// stop ends the server and removes its data.
func (s *side) stop() {
	if s.conn != nil {
		s.conn.Close()
	}
	if err := s.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintf(os.Stderr, "ending %s: %v\n", s.name, err)
	}
	<-s.ended
	s.ended <- nil
	os.RemoveAll(s.dir)
}
