package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Times of the run under faults.
const (
	steadyTime = 6 * time.Second
	downTime   = 2 * time.Second
	calmTime   = 3 * time.Second
	endTime    = 60 * time.Second
)

// ordeal is a run of writers, readers and watchers on a stack whose members are restarted meanwhile.
type ordeal struct {
	stack    *stack
	journals []*journal
	watchers []*watcher
	tally    *tally
	faults   []string
	// page is where an old list by pages goes on, of which kind, and at which revision it stands.
	page         string
	pageRevision uint64
	violations   []string
	steadyReads  string
	compacted    float64
	time         time.Duration
}

func (o *ordeal) violate(format string, arguments ...any) {
	o.violations = append(o.violations, fmt.Sprintf(format, arguments...))
}

// runOrdeal runs it. An error is what kept it from being run; what went wrong within is in violations.
func runOrdeal(stack *stack, duration time.Duration, workers int, seed uint64, payload string) (*ordeal, error) {
	one := &ordeal{stack: stack, tally: newTally()}
	reader := newClient(stack.server)
	for number := range countedObjects {
		key := countedKey(number)
		namespace, _, _ := strings.Cut(key, "/")
		body := encodeCounted(key, "first", "", 0, 0)
		if _, err := reader.do("POST", kinds[0].folder(namespace), body); err != nil {
			return nil, err
		}
	}
	for _, kind := range kinds {
		one.journals = append(one.journals, newJournal(kind))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := one.watch(ctx); err != nil {
		return nil, err
	}
	// Behind the begin of the watches, for events go by themselves.
	for _, journal := range one.journals {
		found, err := reader.list(journal.kind.scopePath(scope{}))
		if err != nil {
			return nil, err
		}
		journal.begin = found.Metadata.Revision
		for index := range found.Items {
			item := &found.Items[index]
			if key := item.key(); strings.HasPrefix(key, namespacePrefix) {
				journal.first[key] = item.Metadata.Revision
			}
		}
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	begin := time.Now()
	one.tally.lastWrite = begin
	for number := range workers {
		worker := newWorker(number, seed, stack.server, one.journals, one.tally, payload)
		group.Go(func() { worker.run(stop) })
	}
	err := one.strike(reader, begin.Add(duration))
	close(stop)
	group.Wait()
	one.time = time.Since(begin)
	if err != nil {
		return nil, err
	}
	if err := one.waitEnd(reader); err != nil {
		return nil, err
	}
	cancel()
	for _, watcher := range one.watchers {
		<-watcher.done
	}
	return one, one.judge(reader)
}

// watch opens watches of all shapes, each kind's.
func (o *ordeal) watch(ctx context.Context) error {
	for _, journal := range o.journals {
		client := newClient(o.stack.server)
		scopes := []scope{{}, {}}
		for number := range namespacesCount {
			scopes = append(scopes, scope{namespace: namespaceOf(number)}, scope{owner: fmt.Sprintf("w%d", number)})
		}
		for index, scope := range scopes {
			o.watchers = append(o.watchers, watch(ctx, journal, scope, client, index%2 == 1))
		}
	}
	for _, watcher := range o.watchers {
		select {
		case <-watcher.ready:
		case <-time.After(startTimeout):
			return fmt.Errorf("a watch of %s %s did not begin", watcher.journal.kind.name, watcher.scope)
		}
	}
	return nil
}

// strike lets the work go on undisturbed for a while, and looks how lists are answered; then it ends members and
// starts them again until the time is over, each way at least once.
func (o *ordeal) strike(reader *client, deadline time.Time) error {
	time.Sleep(steadyTime / 3)
	before, err := o.stack.server.metrics()
	if err != nil {
		return err
	}
	time.Sleep(steadyTime * 2 / 3)
	after, err := o.stack.server.metrics()
	if err != nil {
		return err
	}
	o.judgeConsistentReads(before, after)
	page, err := reader.list(kinds[3].scopePath(scope{}, "limit=2"))
	if err != nil {
		return err
	}
	o.page, o.pageRevision = page.Metadata.Continue, page.Metadata.Revision
	if len(o.stack.store.members) < 3 {
		time.Sleep(time.Until(deadline))
		return nil
	}
	for round := 0; round < 3 || time.Now().Before(deadline); round++ {
		choose, signal, name := o.stack.store.leader, syscall.SIGTERM, "SIGTERM to the leader"
		switch round % 3 {
		case 1:
			choose, signal, name = o.stack.store.follower, syscall.SIGKILL, "SIGKILL of a follower"
		case 2:
			signal, name = syscall.SIGKILL, "SIGKILL of the leader"
		}
		victim, err := choose()
		if err != nil {
			return err
		}
		written := o.tally.acknowledged.Load()
		if err := victim.process.end(signal); err != nil {
			o.violate("%v", err)
		}
		time.Sleep(downTime)
		without := o.tally.acknowledged.Load() - written
		if err := victim.start(); err != nil {
			return err
		}
		begin := time.Now()
		if err := victim.waitHealthy(); err != nil {
			return err
		}
		o.faults = append(o.faults, fmt.Sprintf("%s (%s): %d writes acknowledged without it; back in %d ms", name,
			victim.name, without, time.Since(begin).Milliseconds()))
		time.Sleep(calmTime)
	}
	return nil
}

// judgeConsistentReads looks whether lists of cached kinds were answered from memory, at a revision that the store
// confirmed, and none of them by the store.
func (o *ordeal) judgeConsistentReads(before, after metrics) {
	grown := func(name string, labels ...string) float64 {
		return after.sum(name, labels...) - before.sum(name, labels...)
	}
	const reads = "apiserver_watch_cache_consistent_read_total"
	var fromCache, notSo, fromStore float64
	for _, kind := range kinds {
		if kind.isCached {
			resource := fmt.Sprintf(`resource=%q`, kind.name)
			good := grown(reads, resource, `success="true"`, `fallback="false"`)
			fromCache += good
			notSo += grown(reads, resource) - good
			fromStore += grown("etcd_requests_total", resource, `operation="list`)
		}
	}
	progress := grown("etcd_bookmark_total")
	o.steadyReads = fmt.Sprintf("%.0f consistent lists from the cache, %.0f failed or fell back, %.0f went to the store; "+
		"%.0f told progress of watches", fromCache, notSo, fromStore, progress)
	if fromCache == 0 || notSo > 0 || fromStore > 0 {
		o.violate("consistent reads while nothing was disturbed: %s", o.steadyReads)
	}
}

// waitEnd waits until events have gone with their leases, and the compactor has gone beyond the old page.
func (o *ordeal) waitEnd(reader *client) error {
	deadline := time.Now().Add(endTime)
	for {
		time.Sleep(500 * time.Millisecond)
		events, err := reader.list(kinds[4].scopePath(scope{}))
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(events.Items, func(one object) bool {
			return !strings.HasPrefix(one.Metadata.Namespace, namespacePrefix)
		})
		if o.compacted, err = o.stack.store.members[0].metric("etcd_debugging_mvcc_compact_revision"); err != nil {
			return err
		}
		if len(left) == 0 && o.compacted > float64(o.pageRevision) {
			break
		}
		if time.Now().After(deadline) {
			if len(left) > 0 {
				o.violate("%d events outlived their TTL by far", len(left))
			}
			if o.compacted <= float64(o.pageRevision) {
				o.violate("kube-apiserver's compactor is at %.0f only, not beyond %d", o.compacted, o.pageRevision)
			}
			return nil
		}
	}
	// Who is told of the last changes is told of them within a moment.
	time.Sleep(time.Second)
	return nil
}

// judge compares all that was told with each other, and with the state of every member.
func (o *ordeal) judge(reader *client) error {
	o.violations = append(o.violations, o.tally.violations...)
	for _, journal := range o.journals {
		name := journal.kind.name
		found, err := reader.list(journal.kind.scopePath(scope{}))
		if err != nil {
			return err
		}
		journal.saw(scope{}, "at the end", 0, found.Metadata.Revision, found.Items)
		var watchers []*watcher
		for _, watcher := range o.watchers {
			if watcher.journal == journal {
				watchers = append(watchers, watcher)
			}
		}
		for _, one := range journal.settle(watchers) {
			o.violate("%s: %s", name, one)
		}
		final, violations := journal.judge()
		for _, one := range violations {
			o.violate("%s: %s", name, one)
		}
		for _, watcher := range watchers {
			o.violations = append(o.violations, watcher.judge()...)
		}
		listed := map[string]uint64{}
		for index := range found.Items {
			listed[found.Items[index].key()] = found.Items[index].Metadata.Revision
		}
		o.compare(name+" in the last list", listed, final)
		for _, member := range o.stack.store.members {
			kept, err := member.revisions(journal.kind.prefix)
			if err != nil {
				return err
			}
			o.compare(name+" in the state of "+member.name, kept, final)
		}
	}
	if err := o.judgeCounted(reader); err != nil {
		return err
	}
	o.judgeExpired(reader)
	return nil
}

// compare compares keys and revisions with what was acknowledged.
func (o *ordeal) compare(name string, found, final map[string]uint64) {
	for key, revision := range final {
		if found[key] != revision {
			o.violate("%s: %s is at %d, written at %d", name, key, found[key], revision)
		}
	}
	for key, revision := range found {
		if _, exists := final[key]; !exists && strings.HasPrefix(key, namespacePrefix) {
			o.violate("%s: %s at %d should not be there", name, key, revision)
		}
	}
}

// judgeCounted looks whether each addition to a counted object counts once.
func (o *ordeal) judgeCounted(reader *client) error {
	for number := range countedObjects {
		key := countedKey(number)
		found, err := readCounted(reader, key)
		if err != nil {
			return err
		}
		writes := 0
		for _, one := range o.journals[0].changes {
			if one.key == key {
				writes++
			}
		}
		if found.Data.Count != writes {
			o.violate("%s counts %d after %d writes", key, found.Data.Count, writes)
		}
	}
	return nil
}

// judgeExpired asks for what was compacted: everything must be answered by 410.
func (o *ordeal) judgeExpired(reader *client) {
	old := fmt.Sprint(o.pageRevision)
	paths := []string{
		kinds[3].scopePath(scope{}, "limit=2", "continue="+url.QueryEscape(o.page)),
		kinds[3].scopePath(scope{}, "resourceVersionMatch=Exact", "resourceVersion="+old),
		kinds[0].scopePath(scope{}, "resourceVersionMatch=Exact", "resourceVersion="+old),
	}
	for _, path := range paths {
		if _, err := reader.list(path); codeOf(err) != 410 {
			o.violate("GET %s at a revision that is compacted: %v, not 410", path, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	watcher := &watcher{journal: newJournal(kinds[3]), client: reader, at: o.pageRevision, segments: []*segment{{}}}
	if err := watcher.follow(ctx); codeOf(err) != 410 {
		o.violate("watch from revision %s, which is compacted: %v, not 410", old, err)
	}
}

// print tells what was done.
func (o *ordeal) print() {
	var told, opened, bookmarks, expired, gone int
	for _, watcher := range o.watchers {
		told += watcher.count()
		opened += watcher.opened
		bookmarks += watcher.bookmarks
		expired += watcher.expired
	}
	for _, journal := range o.journals {
		gone += journal.expired
	}
	fmt.Printf("%s, %.0f s under %d faults:\n", o.stack.name, o.time.Seconds(), len(o.faults))
	for _, fault := range o.faults {
		fmt.Println("  ", fault)
	}
	fmt.Printf("   writes: %d acknowledged (%.0f/s), %d without a clear answer, %d refused; "+
		"longest time without one %d ms\n",
		o.tally.acknowledged.Load(), float64(o.tally.acknowledged.Load())/o.time.Seconds(), o.tally.uncertain.Load(),
		o.tally.refused.Load(), o.tally.longestGap.Milliseconds())
	fmt.Printf("   lists: %d of %d objects; consistent ones from the cache took p50 %.1f ms, p99 %.1f ms\n",
		o.tally.lists.Load(), o.tally.listed.Load(), percentile(o.tally.waits, 0.5), percentile(o.tally.waits, 0.99))
	fmt.Printf("   undisturbed: %s\n", o.steadyReads)
	fmt.Printf("   watches: %d over %d streams told %d changes, %d bookmarks; %d began anew after 410\n",
		len(o.watchers), opened, told, bookmarks, expired)
	fmt.Printf("   %d events went with their leases; compacted up to %.0f\n", gone, o.compacted)
	printCounts("   answers without success", o.tally.answers)
}

// printCounts prints texts with how often each was met, the most frequent first.
func printCounts(title string, counts map[string]int) {
	texts := make([]string, 0, len(counts))
	for text := range counts {
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(a, b string) int { return counts[b] - counts[a] })
	fmt.Printf("%s: %d kinds\n", title, len(texts))
	for _, text := range texts {
		fmt.Printf("   %6d  %s\n", counts[text], text)
	}
}
