package main

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"
)

// change is one change of an object, as a writer was told of it or as a watch tells it.
type change struct {
	revision uint64
	// what is ADDED, MODIFIED or DELETED.
	what string
	key  string
	// mark of the write; a deletion has that of the last write before it.
	mark string
}

func (c change) String() string {
	return fmt.Sprintf("%s %s %s at %d", c.what, c.key, c.mark, c.revision)
}

// seenList is a list that was read: where, at which revision, and a sum over keys and revisions.
type seenList struct {
	scope    scope
	revision uint64
	// atLeast is the revision of the reader's newest write before the list: the list must not be older.
	atLeast uint64
	count   int
	sum     uint64
	how     string
}

// journal is what writers, readers and watchers of one kind were told. Judged at the end: the acknowledged writes,
// in the order of revisions, must be what each watch told and what lies between any two lists.
type journal struct {
	kind  *kind
	mutex sync.Mutex
	// changes that were acknowledged.
	changes []change
	// deleted are the keys whose deletion was acknowledged. Names are used once, and the answer to a deletion does not
	// name a revision: watches do.
	deleted map[string]bool
	// maybes are the marks of writes without a clear answer; for a deletion the key.
	maybes map[string]bool
	// sent is when each write was sent that may have happened, by its mark.
	sent  map[string]time.Time
	lists []seenList
	// first is the list from which the journal begins.
	first map[string]uint64
	// begin is the revision of that list.
	begin uint64
	// expired counts objects that went with their lease.
	expired int
}

func newJournal(kind *kind) *journal {
	return &journal{
		kind: kind, deleted: map[string]bool{}, maybes: map[string]bool{}, sent: map[string]time.Time{},
		first: map[string]uint64{},
	}
}

// acknowledge notes a write that was acknowledged.
func (j *journal) acknowledge(one change) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.changes = append(j.changes, one)
}

// acknowledgeDeletion notes a deletion that was acknowledged.
func (j *journal) acknowledgeDeletion(key string) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.deleted[key] = true
}

// doubt notes a write that may have happened.
func (j *journal) doubt(mark string) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.maybes[mark] = true
}

// send notes when a write that may have happened was sent.
func (j *journal) send(mark string, at time.Time) {
	if !j.kind.expires {
		return
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.sent[mark] = at
}

// saw notes a list.
func (j *journal) saw(scope scope, how string, atLeast, revision uint64, items []object) {
	seen := seenList{scope: scope, revision: revision, atLeast: atLeast, how: how}
	for index := range items {
		if key := items[index].key(); strings.HasPrefix(key, namespacePrefix) {
			seen.count++
			seen.sum += weight(key, items[index].Metadata.Revision)
		}
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.lists = append(j.lists, seen)
}

// weight of an object in the sum of a list.
func weight(key string, revision uint64) uint64 {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s %d", key, revision)
	return hash.Sum64()
}

// settle takes over, from what watches have told, the revisions of deletions, the writes whose outcome nobody was told,
// and the ends of leases. What nobody wrote is a violation, and so is a deletion that no watch told.
func (j *journal) settle(watchers []*watcher) (violations []string) {
	known := map[change]bool{}
	for _, one := range j.changes {
		known[one] = true
	}
	for _, watcher := range watchers {
		for _, segment := range watcher.segments {
			for index, one := range segment.changes {
				if known[one] {
					continue
				}
				known[one] = true
				isDeleted := one.what == "DELETED"
				switch {
				case isDeleted && j.deleted[one.key]:
				case isDeleted && j.maybes[one.key], !isDeleted && j.maybes[one.mark]:
				case isDeleted && j.kind.expires:
					j.expired++
					if age := segment.at[index].Sub(j.sent[one.mark]); age < eventTTL {
						violations = append(violations, fmt.Sprintf("%s: went with its lease after %v", one, age))
					}
				default:
					violations = append(violations, fmt.Sprintf("%s: was told to a watch %s, and written by nobody",
						one, watcher.scope))
				}
				j.changes = append(j.changes, one)
			}
		}
	}
	slices.SortFunc(j.changes, compareChanges)
	told := map[string]bool{}
	for _, one := range j.changes {
		told[one.key] = told[one.key] || one.what == "DELETED"
	}
	for key := range j.deleted {
		if !told[key] {
			violations = append(violations, key+": was deleted, and no watch told it")
		}
	}
	return violations
}

// compareChanges is the order of revisions. Only the end of a lease has several changes in one.
func compareChanges(a, b change) int {
	return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.key, b.key), cmp.Compare(a.what, b.what))
}

// judge replays the changes, beside all lists, and returns what lies there at the end.
func (j *journal) judge() (final map[string]uint64, violations []string) {
	final = map[string]uint64{}
	slices.SortStableFunc(j.lists, func(a, b seenList) int { return cmp.Compare(a.revision, b.revision) })
	type total struct {
		count int
		sum   uint64
	}
	totals := map[scope]total{}
	account := func(key string, revision uint64, by int) {
		namespace, _, _ := strings.Cut(key, "/")
		for _, scope := range []scope{{}, {namespace: namespace}, {owner: ownerOf(key)}} {
			one := totals[scope]
			one.count += by
			one.sum += uint64(by) * weight(key, revision)
			totals[scope] = one
		}
	}
	for key, revision := range j.first {
		final[key] = revision
		account(key, revision, 1)
	}
	next := 0
	listsUpTo := func(revision uint64) {
		for next < len(j.lists) && j.lists[next].revision < revision {
			list := j.lists[next]
			next++
			if list.revision < list.atLeast {
				violations = append(violations, fmt.Sprintf("list %s (%s) at revision %d, behind an acknowledged write at %d",
					list.scope, list.how, list.revision, list.atLeast))
			}
			if now := totals[list.scope]; now != (total{list.count, list.sum}) && list.revision >= j.begin {
				violations = append(violations, fmt.Sprintf(
					"list %s (%s) at revision %d: %d objects with sum %x, written were %d with sum %x",
					list.scope, list.how, list.revision, list.count, list.sum, now.count, now.sum))
			}
		}
	}
	for _, one := range j.changes {
		if one.revision <= j.begin {
			continue
		}
		listsUpTo(one.revision)
		before, exists := final[one.key]
		if exists == (one.what == "ADDED") {
			violations = append(violations, fmt.Sprintf("%s: the object was there before: %v", one, exists))
		}
		if exists {
			account(one.key, before, -1)
			delete(final, one.key)
		}
		if one.what != "DELETED" {
			account(one.key, one.revision, 1)
			final[one.key] = one.revision
		}
	}
	listsUpTo(^uint64(0))
	return final, violations
}
