package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// stack is a kube-apiserver on a store.
type stack struct {
	name   string
	folder string
	store  *store
	server *apiServer
}

// startStack starts both with fresh data, and makes what the objects need: namespaces and the definition of widgets.
func startStack(name, binary, kubernetes, folder string, size int) (*stack, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	store, err := startStore(binary, folder, size)
	if err != nil {
		return nil, err
	}
	one := &stack{name: name, folder: folder, store: store}
	if one.server, err = startAPIServer(kubernetes, folder, store.endpoints()); err == nil {
		err = one.prepare()
	}
	if err != nil {
		one.stop()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return one, nil
}

func (s *stack) prepare() error {
	client := newClient(s.server)
	for number := range namespacesCount {
		body := fmt.Sprintf(`{"metadata":{"name":%q}}`, namespaceOf(number))
		if _, err := client.do("POST", "/api/v1/namespaces", []byte(body)); err != nil {
			return err
		}
	}
	definitions := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	if _, err := client.do("POST", definitions, []byte(widgetDefinition)); err != nil {
		return err
	}
	// The first one takes kube-apiserver two seconds, on purpose.
	widgets := kinds[2]
	key := namespaceOf(0) + "/first-1"
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		_, err := client.do("POST", widgets.folder(namespaceOf(0)), widgets.encode(key, "0", "", "", 0))
		if err == nil {
			_, err = client.do("DELETE", widgets.path(key), nil)
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the custom resource definition is not served")
}

func (s *stack) stop() {
	if s.server != nil {
		if err := s.server.process.end(15); err != nil {
			fmt.Fprintln(os.Stderr, "warning:", err)
		}
	}
	s.store.stop()
}

// figure is what one kind of work came to.
type figure struct {
	// count of objects, or of changes told to watches.
	count     int
	time      time.Duration
	latencies []time.Duration
	storeCPU  time.Duration
	serverCPU time.Duration
}

func (f *figure) add(other figure) {
	f.count += other.count
	f.time += other.time
	f.latencies = append(f.latencies, other.latencies...)
	f.storeCPU += other.storeCPU
	f.serverCPU += other.serverCPU
}

func (f *figure) rate() float64 { return float64(f.count) / f.time.Seconds() }

// percentile is in milliseconds.
func percentile(latencies []time.Duration, part float64) float64 {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	one := latencies[min(len(latencies)-1, int(part*float64(len(latencies))))]
	return float64(one.Microseconds()) / 1000
}

// works are the kinds of work, in the order in which they are done.
var works = []string{"create", "get", "list from cache", "list from store", "update", "watch", "delete"}

// load is the objects on one stack from which figures are taken.
type load struct {
	stack   *stack
	clients []*client
	payload string
	figures map[string]*figure
	// objects by number; those that expire are only created and read.
	objects int
	lasting []int
}

func newLoad(stack *stack, objects, workers int, payload string) *load {
	one := &load{stack: stack, payload: payload, figures: map[string]*figure{}, objects: objects}
	for range workers {
		one.clients = append(one.clients, newClient(stack.server))
	}
	for number := range objects {
		if !kinds[number%len(kinds)].expires {
			one.lasting = append(one.lasting, number)
		}
	}
	return one
}

func (l *load) kind(number int) *kind { return kinds[number%len(kinds)] }

func (l *load) key(number int) string {
	return fmt.Sprintf("%s/figure-%d", namespaceOf(number/len(kinds)), number)
}

// run does one part of one kind of work.
func (l *load) run(work string, part, parts int) error {
	before, server := l.stack.store.cpu(), l.stack.server.process.cpu()
	begin := time.Now()
	done, err := l.work(work, part, parts)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", l.stack.name, work, err)
	}
	done.time = time.Since(begin)
	done.storeCPU, done.serverCPU = l.stack.store.cpu()-before, l.stack.server.process.cpu()-server
	if l.figures[work] == nil {
		l.figures[work] = &figure{}
	}
	l.figures[work].add(done)
	return nil
}

func (l *load) work(work string, part, parts int) (figure, error) {
	all := make([]int, l.objects)
	for number := range all {
		all[number] = number
	}
	share := func(numbers []int) []int { return numbers[part*len(numbers)/parts : (part+1)*len(numbers)/parts] }
	switch work {
	case "create":
		return l.each(share(all), l.create)
	case "get":
		return l.each(share(all), l.get)
	case "update":
		return l.each(share(l.lasting), l.update)
	case "delete":
		return l.each(share(l.lasting), l.delete)
	case "watch":
		return l.watch(min(50, l.objects/10), 400/parts)
	}
	return l.list(work == "list from cache")
}

// each does something with each object, by all clients.
func (l *load) each(numbers []int, do func(client *client, number int) error) (figure, error) {
	var next atomic.Int64
	var mutex sync.Mutex
	done := figure{count: len(numbers)}
	var failed error
	var group sync.WaitGroup
	for _, client := range l.clients {
		group.Go(func() {
			var latencies []time.Duration
			var err error
			for err == nil {
				at := int(next.Add(1)) - 1
				if at >= len(numbers) {
					break
				}
				begin := time.Now()
				err = do(client, numbers[at])
				latencies = append(latencies, time.Since(begin))
			}
			mutex.Lock()
			defer mutex.Unlock()
			failed = errors.Join(failed, err)
			done.latencies = append(done.latencies, latencies...)
		})
	}
	group.Wait()
	return done, failed
}

func (l *load) create(client *client, number int) error {
	kind, key := l.kind(number), l.key(number)
	namespace, _, _ := strings.Cut(key, "/")
	_, err := client.do("POST", kind.folder(namespace), kind.encode(key, "0", l.payload, "", 0))
	return err
}

func (l *load) get(client *client, number int) error {
	_, err := client.do("GET", l.kind(number).path(l.key(number)), nil)
	if codeOf(err) == 404 && l.kind(number).expires {
		return nil
	}
	return err
}

// update is a read and a write on condition of what was read.
func (l *load) update(client *client, number int) error {
	kind, key := l.kind(number), l.key(number)
	found, err := client.object("GET", kind.path(key), nil)
	if err != nil {
		return err
	}
	body := kind.encode(key, "1", l.payload, found.Metadata.UID, found.Metadata.Revision)
	_, err = client.do("PUT", kind.path(key), body)
	return err
}

func (l *load) delete(client *client, number int) error {
	_, err := client.do("DELETE", l.kind(number).path(l.key(number)), nil)
	return err
}

// list reads all kinds that are cached, whole; or those that are not, by pages of 500.
func (l *load) list(isCached bool) (done figure, err error) {
	for _, kind := range kinds {
		if kind.isCached != isCached || kind.expires {
			continue
		}
		for range 3 {
			begin := time.Now()
			var count int
			if isCached {
				// The answer is not decoded: that would take as long as making it.
				text, err := l.clients[0].do("GET", kind.folder(""), nil)
				if err != nil {
					return done, err
				}
				count = strings.Count(string(text), `"uid":`)
			} else {
				items, _, err := listPages(l.clients[0], kind, scope{}, 500)
				if err != nil {
					return done, err
				}
				count = len(items)
			}
			done.count += count
			done.latencies = append(done.latencies, time.Since(begin))
		}
	}
	return done, nil
}

// watch opens watches of leases, of which each is one in the store, and updates leases under them.
func (l *load) watch(watches, updates int) (done figure, err error) {
	var kind *kind
	var numbers []int
	for _, number := range l.lasting {
		if one := l.kind(number); !one.isCached {
			kind = one
			numbers = append(numbers, number)
		}
	}
	first, err := l.clients[0].list(kind.scopePath(scope{}, "limit=1"))
	if err != nil {
		return done, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	path := kind.scopePath(scope{}, "watch=true", fmt.Sprint("resourceVersion=", first.Metadata.Revision))
	results := make(chan error, watches)
	client := newClient(l.stack.server)
	for range watches {
		go func() { results <- l.follow(ctx, client, path, updates) }()
	}
	changed := make([]int, updates)
	for index := range changed {
		changed[index] = numbers[index%len(numbers)]
	}
	if _, err := l.each(changed, l.touch); err != nil {
		return done, err
	}
	for range watches {
		if err := <-results; err != nil {
			return done, err
		}
	}
	return figure{count: watches * updates}, nil
}

// touch is an update that does not mind others.
func (l *load) touch(client *client, number int) error {
	for {
		err := l.update(client, number)
		if codeOf(err) != 409 {
			return err
		}
	}
}

// follow reads as many changes of its own objects as were made.
func (l *load) follow(ctx context.Context, client *client, path string, count int) error {
	response, err := client.send(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for lines := json.NewDecoder(response.Body); count > 0; {
		var event struct {
			Type   string
			Object object
		}
		if err := lines.Decode(&event); err != nil {
			return err
		}
		if event.Type == "ERROR" {
			return &refusal{event.Object.Code, event.Object.Message}
		}
		if strings.HasPrefix(event.Object.key(), namespacePrefix) {
			count--
		}
	}
	return nil
}

// measure takes figures of all stacks, in turns, so that what else the machine does meets all alike.
func measure(stacks []*stack, objects, workers int, payload string) ([]*load, error) {
	const parts = 4
	var loads []*load
	for _, stack := range stacks {
		loads = append(loads, newLoad(stack, objects, workers, payload))
	}
	for _, work := range works {
		for part := range parts {
			for turn := range loads {
				load := loads[(turn+part)%len(loads)]
				if err := load.run(work, part, parts); err != nil {
					return nil, err
				}
			}
		}
	}
	return loads, nil
}

// printFigures prints a table, with the ratio of the first stack to the second where there are two.
func printFigures(loads []*load) {
	header := fmt.Sprintf("%-16s", "objects/s")
	for _, load := range loads {
		header += fmt.Sprintf(" | %-52s", load.stack.name+": /s, p50, p99, CPU us: store, api")
	}
	if len(loads) == 2 {
		header += " | ratio of /s, of store CPU"
	}
	fmt.Println(header)
	for _, work := range works {
		line := fmt.Sprintf("%-16s", work)
		for _, load := range loads {
			one := load.figures[work]
			each := func(cpu time.Duration) float64 { return float64(cpu.Microseconds()) / float64(max(one.count, 1)) }
			line += fmt.Sprintf(" | %8.0f %8.1f ms %8.1f ms %10.1f %10.1f", one.rate(),
				percentile(one.latencies, 0.5), percentile(one.latencies, 0.99), each(one.storeCPU), each(one.serverCPU))
		}
		if len(loads) == 2 {
			one, other := loads[0].figures[work], loads[1].figures[work]
			line += fmt.Sprintf(" | %5.2f %5.2f", one.rate()/other.rate(),
				one.storeCPU.Seconds()/float64(one.count)/max(1e-9, other.storeCPU.Seconds()/float64(other.count)))
		}
		fmt.Println(line)
	}
	for _, load := range loads {
		fmt.Printf("%s: resident %d MB (greatest member), kube-apiserver %d MB\n", load.stack.name,
			load.stack.store.memory()>>20, load.stack.server.process.memory()>>20)
	}
}
