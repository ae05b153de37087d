package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// counted objects are written by all workers, each adding one to what it read.
const (
	countedObjects = 4
	countedOwner   = "counted"
)

// tally is what the workers of a mix did.
type tally struct {
	acknowledged, uncertain, refused, lists, listed atomic.Int64
	mutex                                           sync.Mutex
	// answers without success, by their text.
	answers map[string]int
	// lastWrite and longestGap: the time without any acknowledged write.
	lastWrite  time.Time
	longestGap time.Duration
	// waits are how long consistent lists took that are answered from memory.
	waits      []time.Duration
	violations []string
}

func newTally() *tally { return &tally{answers: map[string]int{}, lastWrite: time.Now()} }

func (t *tally) wrote() {
	t.acknowledged.Add(1)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	now := time.Now()
	t.longestGap = max(t.longestGap, now.Sub(t.lastWrite))
	t.lastWrite = now
}

func (t *tally) failed(err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.answers[generalize(err.Error())]++
}

func (t *tally) waited(duration time.Duration) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.waits = append(t.waits, duration)
}

func (t *tally) violate(format string, arguments ...any) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.violations = append(t.violations, fmt.Sprintf(format, arguments...))
}

// owned is an object of a worker, as it was last acknowledged.
type owned struct {
	key, uid, mark string
	revision       uint64
	// inDoubt tells that a write without a clear answer may still come.
	inDoubt bool
	// written is when the last write that may have happened was sent.
	written time.Time
}

// worker writes objects of its own, whose state it therefore knows, and the counted ones.
type worker struct {
	name     string
	client   *client
	journals []*journal
	tally    *tally
	random   *rand.Rand
	payload  string
	serial   int
	owned    map[*journal][]*owned
	// newest revision of a write of its own, by kind.
	newest map[*journal]uint64
	// uncertain tells that a list of a kind may have what is not known.
	uncertain map[*journal]bool
}

func newWorker(number int, seed uint64, server *apiServer, journals []*journal, tally *tally, payload string) *worker {
	return &worker{
		name: fmt.Sprintf("w%d", number), client: newClient(server), journals: journals, tally: tally,
		random: rand.New(rand.NewPCG(seed, uint64(number))), payload: payload,
		owned: map[*journal][]*owned{}, newest: map[*journal]uint64{}, uncertain: map[*journal]bool{},
	}
}

// run makes one call after the other until it is told to stop.
func (w *worker) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			w.step()
		}
	}
}

func (w *worker) step() {
	journal := w.journals[w.random.IntN(len(w.journals))]
	objects := w.owned[journal]
	draw := w.random.IntN(100)
	switch {
	case draw < 3:
		w.count()
	case draw < 6:
		w.listOwned(journal)
	case draw < 8:
		w.listByPages(journal)
	case len(objects) == 0 || (draw < 40 && len(objects) < 60):
		w.create(journal)
	case draw < 50:
		w.get(journal, objects[w.random.IntN(len(objects))])
	case draw < 80:
		w.update(journal, objects[w.random.IntN(len(objects))])
	default:
		w.delete(journal, objects[w.random.IntN(len(objects))])
	}
}

func (w *worker) nextMark() string {
	w.serial++
	return fmt.Sprintf("%s.%d", w.name, w.serial)
}

func (w *worker) create(journal *journal) {
	mark := w.nextMark()
	one := &owned{
		key: fmt.Sprintf("%s/%s-%d", namespaceOf(w.random.IntN(namespacesCount)), w.name, w.serial), mark: mark,
	}
	sent := time.Now()
	namespace, _, _ := strings.Cut(one.key, "/")
	found, err := w.client.object("POST", journal.kind.folder(namespace),
		journal.kind.encode(one.key, mark, w.payload, "", 0))
	if err != nil {
		w.doubt(journal, one, mark, sent, err)
		return
	}
	w.acknowledged(journal, one, "ADDED", mark, sent, found)
	w.owned[journal] = append(w.owned[journal], one)
}

func (w *worker) acknowledged(
	journal *journal, one *owned, what, mark string, sent time.Time, found *object,
) {
	one.mark, one.uid, one.revision, one.written = mark, found.Metadata.UID, found.Metadata.Revision, sent
	journal.send(mark, sent)
	w.newest[journal] = max(w.newest[journal], one.revision)
	journal.acknowledge(change{one.revision, what, one.key, mark})
	w.tally.wrote()
}

func (w *worker) update(journal *journal, one *owned) {
	mark := w.nextMark()
	sent := time.Now()
	body := journal.kind.encode(one.key, mark, w.payload, one.uid, one.revision)
	found, err := w.client.object("PUT", journal.kind.path(one.key), body)
	if err != nil {
		w.doubt(journal, one, mark, sent, err)
		return
	}
	w.acknowledged(journal, one, "MODIFIED", mark, sent, found)
}

func (w *worker) delete(journal *journal, one *owned) {
	condition := fmt.Sprintf(`{"preconditions":{"uid":%q,"resourceVersion":"%d"}}`, one.uid, one.revision)
	if _, err := w.client.do("DELETE", journal.kind.path(one.key), []byte(condition)); err != nil {
		w.doubt(journal, one, one.key, one.written, err)
		return
	}
	journal.acknowledgeDeletion(one.key)
	w.tally.wrote()
	w.forget(journal, one)
}

func (w *worker) forget(journal *journal, one *owned) {
	w.owned[journal] = slices.DeleteFunc(w.owned[journal], func(other *owned) bool { return other == one })
}

// doubt deals with a write that was not acknowledged: it may have happened, and the state is read again.
func (w *worker) doubt(journal *journal, one *owned, mark string, sent time.Time, err error) {
	w.tally.failed(err)
	if isUncertain(err) {
		w.tally.uncertain.Add(1)
		journal.doubt(mark)
		journal.send(mark, sent)
		one.inDoubt, one.written, w.uncertain[journal] = true, sent, true
	} else {
		w.tally.refused.Add(1)
		hasExpired := journal.kind.expires && time.Since(one.written) >= eventTTL
		if !one.inDoubt && !hasExpired {
			w.tally.violate("%s of %s: %v, and nothing was in doubt", mark, one.key, err)
		}
	}
	w.read(journal, one)
}

// read finds out what the state of an object is. That of a write in doubt is not taken for acknowledged: when it
// comes to effect is for the watches to tell.
func (w *worker) read(journal *journal, one *owned) {
	for {
		found, err := w.client.object("GET", journal.kind.path(one.key), nil)
		switch {
		case err == nil:
			isOwned := slices.Contains(w.owned[journal], one)
			one.mark, one.uid, one.revision = found.mark(), found.Metadata.UID, found.Metadata.Revision
			if !isOwned {
				w.owned[journal] = append(w.owned[journal], one)
			}
			return
		case codeOf(err) == 404:
			w.forget(journal, one)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// get reads an object: it must be as it was acknowledged.
func (w *worker) get(journal *journal, one *owned) {
	found, err := w.client.object("GET", journal.kind.path(one.key), nil)
	hasExpired := journal.kind.expires && time.Since(one.written) >= eventTTL
	switch {
	case err != nil && codeOf(err) == 404 && (one.inDoubt || hasExpired):
		w.forget(journal, one)
	case err != nil && codeOf(err) == 404:
		w.tally.violate("%s of %s, acknowledged at %d, is not there", journal.kind.name, one.key, one.revision)
		w.forget(journal, one)
	case err != nil:
		w.tally.failed(err)
	case found.Metadata.Revision != one.revision || found.mark() != one.mark:
		if !one.inDoubt {
			w.tally.violate("%s %s is %s at %d, acknowledged was %s at %d", journal.kind.name, one.key,
				found.mark(), found.Metadata.Revision, one.mark, one.revision)
		}
		one.mark, one.revision = found.mark(), found.Metadata.Revision
	}
}

// listOwned lists what the worker owns, consistently: it must be what was acknowledged.
func (w *worker) listOwned(journal *journal) {
	scope := scope{owner: w.name}
	atLeast := w.newest[journal]
	begin := time.Now()
	found, err := w.client.list(journal.kind.scopePath(scope))
	if err != nil {
		w.tally.failed(err)
		return
	}
	if journal.kind.isCached {
		w.tally.waited(time.Since(begin))
	}
	w.tally.lists.Add(1)
	w.tally.listed.Add(int64(len(found.Items)))
	journal.saw(scope, "consistent", atLeast, found.Metadata.Revision, found.Items)
	if w.uncertain[journal] || journal.kind.expires {
		return
	}
	known := map[string]uint64{}
	for _, one := range w.owned[journal] {
		known[one.key] = one.revision
	}
	for index := range found.Items {
		item := &found.Items[index]
		if known[item.key()] != item.Metadata.Revision {
			w.tally.violate("a list at %d has %s %s at %d, acknowledged was %d", found.Metadata.Revision,
				journal.kind.name, item.key(), item.Metadata.Revision, known[item.key()])
		}
		delete(known, item.key())
	}
	for key, revision := range known {
		w.tally.violate("a list at %d lacks %s %s, acknowledged at %d", found.Metadata.Revision, journal.kind.name,
			key, revision)
	}
}

// listByPages lists a namespace, or all, by small pages, while others write: together they are one state.
func (w *worker) listByPages(journal *journal) {
	scope := scope{}
	if w.random.IntN(2) == 0 {
		scope.namespace = namespaceOf(w.random.IntN(namespacesCount))
	}
	items, revision, err := listPages(w.client, journal.kind, scope, 50+w.random.IntN(200))
	if err != nil {
		w.tally.failed(err)
		if code := codeOf(err); !isUncertain(err) && code != 410 {
			w.tally.violate("pages of %s: %v", journal.kind.name, err)
		}
		return
	}
	w.tally.lists.Add(1)
	w.tally.listed.Add(int64(len(items)))
	journal.saw(scope, "by pages", 0, revision, items)
}

// listPages reads a list page by page.
func listPages(client *client, kind *kind, scope scope, limit int) (items []object, revision uint64, err error) {
	var last string
	for next := ""; ; {
		parameters := []string{fmt.Sprint("limit=", limit)}
		if next != "" {
			parameters = append(parameters, "continue="+next)
		}
		page, err := client.list(kind.scopePath(scope, parameters...))
		if err != nil {
			return nil, 0, err
		}
		if revision != 0 && page.Metadata.Revision != revision {
			return nil, 0, fmt.Errorf("a page at revision %d behind one at %d", page.Metadata.Revision, revision)
		}
		revision = page.Metadata.Revision
		for index := range page.Items {
			key := page.Items[index].key()
			if key <= last {
				return nil, 0, fmt.Errorf("%s stands behind %s", key, last)
			}
			last = key
		}
		items = append(items, page.Items...)
		if next = page.Metadata.Continue; next == "" {
			return items, revision, nil
		}
	}
}

// counted is a ConfigMap that all add to.
type counted struct {
	object
	Data struct {
		Count int `json:"count,string"`
	} `json:"data"`
}

func countedKey(number int) string {
	return fmt.Sprintf("%s/%s-%d", namespaceOf(number), countedOwner, number)
}

func encodeCounted(key, mark, uid string, revision uint64, count int) []byte {
	var fields map[string]any
	text := kinds[0].encode(key, mark, "", uid, revision)
	if err := json.Unmarshal(text, &fields); err != nil {
		panic(err)
	}
	fields["data"] = map[string]string{"count": fmt.Sprint(count)}
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return text
}

func readCounted(client *client, key string) (*counted, error) {
	text, err := client.do("GET", kinds[0].path(key), nil)
	if err != nil {
		return nil, err
	}
	found := &counted{}
	return found, json.Unmarshal(text, found)
}

// count adds one to a counted object, on condition that nobody else did since it was read.
func (w *worker) count() {
	journal := w.journals[0]
	key := countedKey(w.random.IntN(countedObjects))
	found, err := readCounted(w.client, key)
	if err != nil {
		w.tally.failed(err)
		return
	}
	mark := w.nextMark()
	body := encodeCounted(key, mark, found.Metadata.UID, found.Metadata.Revision, found.Data.Count+1)
	written, err := w.client.object("PUT", journal.kind.path(key), body)
	switch {
	case err == nil:
		journal.acknowledge(change{written.Metadata.Revision, "MODIFIED", key, mark})
		w.tally.wrote()
	case isUncertain(err):
		w.tally.failed(err)
		w.tally.uncertain.Add(1)
		journal.doubt(mark)
	case codeOf(err) != 409:
		w.tally.violate("adding to %s: %v", key, err)
	}
}
