package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// report prints what the runs have compared; false: there are differences that are not meant.
func report(runs []*run) bool {
	calls := map[string]int{}
	merged := map[string]*found{}
	made, epochs, uncompared := 0, 0, 0
	for _, one := range runs {
		made, epochs, uncompared = made+one.made, epochs+one.epochs, uncompared+one.uncompared
		for name, count := range one.calls {
			calls[name] += count
		}
		for _, difference := range one.found {
			if known := merged[difference.kind]; known != nil {
				known.count += difference.count
			} else {
				merged[difference.kind] = difference
			}
		}
	}
	all := slices.SortedFunc(maps.Values(merged), func(a, b *found) int { return cmp.Compare(a.kind, b.kind) })
	fmt.Printf("compared %d calls in %d lives of both servers, %d lanes at a time\n", made, epochs, len(runs))
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		fmt.Printf("  %8d  %s\n", calls[name], name)
	}
	if uncompared > 0 {
		fmt.Printf("not compared: %d calls that one side answered just when they were given up\n", uncompared)
	}
	unmeant := 0
	for _, one := range all {
		if meant := deliberateOf(one.kind); meant != nil {
			fmt.Printf("deliberate, %d times: %s\n    %s\n", one.count, one.kind, meant.reason)
		} else {
			unmeant++
		}
	}
	for _, one := range all {
		if deliberateOf(one.kind) == nil {
			fmt.Printf("DIFFERENT, %d times: %s\n", one.count, one.kind)
		}
	}
	if unmeant == 0 {
		fmt.Println("no other differences")
	} else {
		fmt.Printf("%d kinds of differences that are not meant\n", unmeant)
	}
	return unmeant == 0
}
