// Command differential drives etcd and Quorate with the same requests and compares the answers field by field.
//
// The requests are random, from a seed, and are sent as they stand in etcd's interface, without etcd's client
// library in between: it would keep the odd ones back. Every difference that is not in the table of deliberate
// ones is printed once, with an example, and fails the run.
//
// Most of a run's time is waiting: for etcd's ten turns a second in which watches catch up, and for what may never be
// told. So several pairs of servers, lanes, are driven at a time, each with random numbers of its own: what a lane
// asks does not depend on the others.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
)

func main() {
	etcd := flag.String("etcd", "", "etcd's `binary`")
	quorate := flag.String("quorate", "", "Quorate's `binary`")
	seed := flag.Uint64("seed", 1, "the random `number` that everything comes from")
	calls := flag.Int("calls", 20_000, "how `many` calls to make")
	lanes := flag.Int("lanes", 4, "how `many` pairs of servers to drive at a time, each with its part of the calls")
	lane := flag.Int("lane", -1, "drive only the pair with this `number`, with the calls that it gets among -lanes")
	scratch := flag.String("scratch", os.TempDir(), "the `folder` for the data of both")
	only := flag.String("only", "", "make only calls whose `name` contains this")
	without := flag.String("without", "", "make no calls whose `name` contains one of these, separated by commas")
	trace := flag.Int("trace", 0, "print the last `count` calls before each difference")
	flag.Parse()
	if *etcd == "" || *quorate == "" {
		fmt.Fprintln(os.Stderr, "both binaries are needed: -etcd, -quorate")
		os.Exit(2)
	}
	if *lanes < 1 || *lane >= *lanes {
		fmt.Fprintln(os.Stderr, "-lanes must be at least 1, and -lane below it")
		os.Exit(2)
	}
	var runs []*run
	for number := range *lanes {
		if *lane >= 0 && number != *lane {
			continue
		}
		one := newRun(*seed, number, *etcd, *quorate, *scratch)
		one.trace = *trace
		one.choose(*only, *without)
		runs = append(runs, one)
	}
	errs := make([]error, len(runs))
	var wait sync.WaitGroup
	for index, one := range runs {
		wait.Go(func() {
			errs[index] = one.drive((*calls + *lanes - 1) / *lanes)
			one.stop()
		})
	}
	wait.Wait()
	isSame := report(runs)
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	if !isSame {
		os.Exit(1)
	}
}
