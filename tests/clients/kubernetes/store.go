package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startTimeout is how long programs may take until they answer.
const startTimeout = 60 * time.Second

// member is one server of a store, started with etcd's flags and asked over etcd's JSON API.
type member struct {
	name      string
	client    string
	arguments []string
	output    string
	process   *process
}

// store is a cluster of one member or several.
type store struct {
	members []*member
}

// asker is for questions to members. No connection is kept: they are killed now and then.
var asker = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// startStore starts members with fresh data below a folder.
func startStore(binary, folder string, size int) (*store, error) {
	ports, err := freePorts(2 * size)
	if err != nil {
		return nil, err
	}
	var cluster []string
	for index := range size {
		cluster = append(cluster, fmt.Sprintf("m%d=http://127.0.0.1:%d", index, ports[2*index+1]))
	}
	one := &store{}
	for index := range size {
		name := fmt.Sprintf("m%d", index)
		client := fmt.Sprintf("http://127.0.0.1:%d", ports[2*index])
		peer := fmt.Sprintf("http://127.0.0.1:%d", ports[2*index+1])
		one.members = append(one.members, &member{
			name: name, client: client, output: filepath.Join(folder, name+".log"),
			arguments: []string{
				binary, "--name", name, "--data-dir", filepath.Join(folder, name),
				"--listen-client-urls", client, "--advertise-client-urls", client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new",
			},
		})
	}
	for _, member := range one.members {
		if err := member.start(); err != nil {
			one.stop()
			return nil, err
		}
	}
	for _, member := range one.members {
		if err := member.waitHealthy(); err != nil {
			one.stop()
			return nil, err
		}
	}
	return one, nil
}

// start starts the member, for the first time or again.
func (m *member) start() error {
	process, err := launch(m.output, m.arguments...)
	if err != nil {
		return err
	}
	if m.process != nil {
		process.cpuBefore = m.process.cpuBefore
	}
	m.process = process
	return nil
}

// waitHealthy waits until the member answers a linearizable read.
func (m *member) waitHealthy() error {
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) && m.process.isRunning() {
		if _, err := m.ask("/v3/kv/range", `{"key":"aGVhbHRo"}`); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s does not answer at %s:\n%s", m.name, m.client, m.process.tail())
}

// ask sends a request of etcd's JSON API.
func (m *member) ask(path, body string) ([]byte, error) {
	response, err := asker.Post(m.client+path, "application/json", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s: %s", m.client, path, response.Status, bytes.TrimSpace(text))
	}
	return text, err
}

// isLeader tells whether the member says that it leads.
func (m *member) isLeader() bool {
	text, err := m.ask("/v3/maintenance/status", "{}")
	if err != nil {
		return false
	}
	var status struct {
		Header struct {
			Member string `json:"member_id"`
		} `json:"header"`
		Leader string `json:"leader"`
	}
	return json.Unmarshal(text, &status) == nil && status.Leader != "" && status.Leader == status.Header.Member
}

// metric is the value of a metric without labels of the member.
func (m *member) metric(name string) (float64, error) {
	response, err := asker.Get(m.client + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s/metrics has no %s", m.client, name)
}

// revisions are the keys below a prefix in this member's own state, with the revision of the last change of each.
func (m *member) revisions(prefix string) (map[string]uint64, error) {
	end := []byte(prefix)
	end[len(end)-1]++
	request := fmt.Sprintf(`{"key":%q,"range_end":%q,"keys_only":true,"serializable":true}`,
		base64.StdEncoding.EncodeToString([]byte(prefix)), base64.StdEncoding.EncodeToString(end))
	text, err := m.ask("/v3/kv/range", request)
	if err != nil {
		return nil, err
	}
	var reply struct {
		Kvs []struct {
			Key      []byte `json:"key"`
			Revision uint64 `json:"mod_revision,string"`
		} `json:"kvs"`
	}
	if err := json.Unmarshal(text, &reply); err != nil {
		return nil, err
	}
	found := make(map[string]uint64, len(reply.Kvs))
	for _, pair := range reply.Kvs {
		found[strings.TrimPrefix(string(pair.Key), prefix)] = pair.Revision
	}
	return found, nil
}

// leader is the member that leads now.
func (s *store) leader() (*member, error) {
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		for _, member := range s.members {
			if member.isLeader() {
				return member, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.New("no member says that it leads")
}

// follower is a member that does not lead.
func (s *store) follower() (*member, error) {
	leader, err := s.leader()
	if err != nil {
		return nil, err
	}
	index := slices.Index(s.members, leader)
	return s.members[(index+1)%len(s.members)], nil
}

// endpoints are the addresses for clients, as kube-apiserver takes them.
func (s *store) endpoints() string {
	var addresses []string
	for _, member := range s.members {
		addresses = append(addresses, member.client)
	}
	return strings.Join(addresses, ",")
}

// cpu is what all members have used.
func (s *store) cpu() (sum time.Duration) {
	for _, member := range s.members {
		sum += member.process.cpu()
	}
	return sum
}

// memory is what the greatest member has resident.
func (s *store) memory() (most int64) {
	for _, member := range s.members {
		most = max(most, member.process.memory())
	}
	return most
}

func (s *store) stop() {
	for _, member := range s.members {
		if member.process == nil {
			continue
		}
		if err := member.process.end(syscall.SIGTERM); err != nil {
			fmt.Fprintln(os.Stderr, "warning:", err)
		}
	}
}
