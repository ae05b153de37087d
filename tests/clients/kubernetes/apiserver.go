package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// token is the secret of the only user, a member of system:masters: priority and fairness do not hold it back.
const token = "quorate-test"

// What kube-apiserver is told, shorter than its defaults, so that a run of a minute sees these happen.
const (
	compactionInterval = 10 * time.Second
	eventTTL           = 15 * time.Second
)

// apiServer is a kube-apiserver.
type apiServer struct {
	address string
	process *process
	// roots are the certificates that it made for itself.
	roots *x509.CertPool
}

// startAPIServer starts a kube-apiserver on a store and waits until it is ready.
func startAPIServer(binary, folder, endpoints string) (*apiServer, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	key := filepath.Join(folder, "service-account.key")
	tokens := filepath.Join(folder, "tokens.csv")
	certificates := filepath.Join(folder, "certificates")
	if err := errors.Join(
		writeKey(key), os.WriteFile(tokens, []byte(token+",tester,1,system:masters\n"), 0o600),
	); err != nil {
		return nil, err
	}
	process, err := launch(filepath.Join(folder, "kube-apiserver.log"), binary,
		"--etcd-servers="+endpoints,
		"--etcd-compaction-interval="+compactionInterval.String(),
		"--event-ttl="+eventTTL.String(),
		// Lists and watches of leases go to the store one by one, as those of events always do.
		"--watch-cache-sizes=leases.coordination.k8s.io#0",
		"--bind-address=127.0.0.1", "--secure-port="+strconv.Itoa(ports[0]), "--cert-dir="+certificates,
		"--token-auth-file="+tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--service-cluster-ip-range=10.96.0.0/16", "--disable-admission-plugins=ServiceAccount",
	)
	if err != nil {
		return nil, err
	}
	one := &apiServer{address: fmt.Sprintf("https://127.0.0.1:%d", ports[0]), process: process}
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) && process.isRunning() {
		time.Sleep(100 * time.Millisecond)
		if one.roots == nil {
			one.roots = readCertificates(filepath.Join(certificates, "apiserver.crt"))
			continue
		}
		if _, err := newClient(one).do("GET", "/readyz", nil); err == nil {
			return one, nil
		}
	}
	tail := process.tail()
	_ = process.end(syscall.SIGKILL)
	return nil, fmt.Errorf("kube-apiserver did not become ready:\n%s", tail)
}

func writeKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

func readCertificates(path string) *x509.CertPool {
	text, err := os.ReadFile(path)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		return nil
	}
	return pool
}

// metrics are the samples of kube-apiserver, each with its labels as it is printed.
type metrics map[string]float64

func (a *apiServer) metrics() (metrics, error) {
	text, err := newClient(a).do("GET", "/metrics", nil)
	if err != nil {
		return nil, err
	}
	found := metrics{}
	for line := range strings.Lines(string(text)) {
		cut := strings.LastIndexByte(line, ' ')
		if line[0] == '#' || cut < 0 {
			continue
		}
		if value, err := strconv.ParseFloat(strings.TrimSpace(line[cut+1:]), 64); err == nil {
			found[line[:cut]] = value
		}
	}
	return found, nil
}

// sum adds up the samples of a metric whose labels contain all that is asked for.
func (m metrics) sum(name string, labels ...string) (sum float64) {
	for sample, value := range m {
		rest, found := strings.CutPrefix(sample, name)
		if !found || (rest != "" && rest[0] != '{') {
			continue
		}
		fits := true
		for _, label := range labels {
			fits = fits && strings.Contains(rest, label)
		}
		if fits {
			sum += value
		}
	}
	return sum
}
