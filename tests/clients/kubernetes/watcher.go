package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// segment is a watch without a gap: what was there at its begin, and each change since.
type segment struct {
	begin   uint64
	changes []change
	at      []time.Time
}

// watcher keeps a watch open, goes on where it was when the stream ends, and lists again only when it is told that
// its revision is gone.
type watcher struct {
	journal *journal
	scope   scope
	client  *client
	// streams tells that the first state comes over the watch itself, not from a list.
	streams  bool
	mutex    sync.Mutex
	segments []*segment
	// at is where the watch goes on; 0 when it has to begin anew.
	at uint64
	// opened counts streams, bookmarks those, expired how often the revision was gone.
	opened, bookmarks, expired int
	violations                 []string
	// ready is closed when the first state is there.
	ready     chan struct{}
	readyOnce sync.Once
	done      chan struct{}
}

func watch(ctx context.Context, journal *journal, scope scope, client *client, streams bool) *watcher {
	one := &watcher{
		journal: journal, scope: scope, client: client, streams: streams,
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	go func() {
		defer close(one.done)
		for ctx.Err() == nil {
			err := one.follow(ctx)
			if codeOf(err) == 410 {
				one.mutex.Lock()
				one.at, one.expired = 0, one.expired+1
				one.mutex.Unlock()
			} else if err != nil && ctx.Err() == nil {
				time.Sleep(50 * time.Millisecond)
			}
		}
	}()
	return one
}

// follow is one stream.
func (w *watcher) follow(ctx context.Context) error {
	parameters := []string{"watch=true", "allowWatchBookmarks=true"}
	isInitial := false
	switch {
	case w.at > 0:
		parameters = append(parameters, fmt.Sprint("resourceVersion=", w.at))
	case w.streams:
		isInitial = true
		parameters = append(parameters, "sendInitialEvents=true", "resourceVersionMatch=NotOlderThan")
	default:
		found, err := w.client.list(w.journal.kind.scopePath(w.scope))
		if err != nil {
			return err
		}
		w.begin(found.Metadata.Revision, "before a watch", found.Items)
		parameters = append(parameters, fmt.Sprint("resourceVersion=", w.at))
	}
	response, err := w.client.send(ctx, "GET", w.journal.kind.scopePath(w.scope, parameters...), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	w.mutex.Lock()
	w.opened++
	w.mutex.Unlock()
	var initial []object
	for lines := json.NewDecoder(response.Body); ; {
		var event struct {
			Type   string
			Object object
		}
		if err := lines.Decode(&event); err != nil {
			return err
		}
		switch {
		case event.Type == "ERROR":
			return &refusal{event.Object.Code, event.Object.Message}
		case event.Type == "BOOKMARK" && isInitial:
			if event.Object.Metadata.Annotations["k8s.io/initial-events-end"] != "true" {
				continue
			}
			isInitial = false
			w.begin(event.Object.Metadata.Revision, "streamed", initial)
		case isInitial:
			initial = append(initial, event.Object)
		case event.Type == "BOOKMARK":
			w.bookmark(event.Object.Metadata.Revision)
		default:
			w.take(event.Type, &event.Object)
		}
	}
}

// begin begins a segment.
func (w *watcher) begin(revision uint64, how string, items []object) {
	w.journal.saw(w.scope, how, 0, revision, items)
	w.mutex.Lock()
	w.segments = append(w.segments, &segment{begin: revision})
	w.at = revision
	w.mutex.Unlock()
	w.readyOnce.Do(func() { close(w.ready) })
}

func (w *watcher) bookmark(revision uint64) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.bookmarks++
	if revision < w.at {
		w.violations = append(w.violations, fmt.Sprintf("a bookmark at %d behind %d", revision, w.at))
	}
	w.at = revision
}

// take notes a change.
func (w *watcher) take(what string, found *object) {
	one := change{found.Metadata.Revision, what, found.key(), found.mark()}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	// Objects that hang on one lease go in one revision.
	if one.revision < w.at || (one.revision == w.at && !w.journal.kind.expires) {
		w.violations = append(w.violations, fmt.Sprintf("%s was told behind revision %d", one, w.at))
	}
	w.at = one.revision
	if strings.HasPrefix(one.key, namespacePrefix) {
		last := w.segments[len(w.segments)-1]
		last.changes, last.at = append(last.changes, one), append(last.at, time.Now())
	}
}

// count is how many changes it was told.
func (w *watcher) count() (sum int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, segment := range w.segments {
		sum += len(segment.changes)
	}
	return sum
}

// judge compares what it was told with all changes that were made.
func (w *watcher) judge() []string {
	name := fmt.Sprintf("watch of %s %s", w.journal.kind.name, w.scope)
	var violations []string
	for _, one := range w.violations {
		violations = append(violations, name+": "+one)
	}
	for index, segment := range w.segments {
		isLast := index == len(w.segments)-1
		slices.SortStableFunc(segment.changes, compareChanges)
		var expected []change
		for _, one := range w.journal.changes {
			if one.revision > segment.begin && w.scope.contains(one.key) {
				expected = append(expected, one)
			}
		}
		if !isLast && len(expected) > len(segment.changes) {
			expected = expected[:len(segment.changes)]
		}
		if err := firstDifference(expected, segment.changes); err != nil {
			violations = append(violations, fmt.Sprintf("%s from %d on: %v", name, segment.begin, err))
		}
	}
	return violations
}

// firstDifference tells where two lists of changes part.
func firstDifference(expected, told []change) error {
	for index := range min(len(expected), len(told)) {
		if expected[index] != told[index] {
			return fmt.Errorf("change %d was %s, it told %s", index, expected[index], told[index])
		}
	}
	switch {
	case len(told) < len(expected):
		return fmt.Errorf("it told %d changes of %d; the next was %s", len(told), len(expected), expected[len(told)])
	case len(told) > len(expected):
		return errors.New("it told more changes than were made: " + told[len(expected)].String())
	}
	return nil
}
