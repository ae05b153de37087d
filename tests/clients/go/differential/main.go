// Command differential drives etcd and Quorate with the same requests and compares the answers field by field.
//
// The requests are random, from a seed, and are sent as they stand in etcd's interface, without etcd's client
// library in between: it would keep the odd ones back. Every difference that is not in the table of deliberate
// ones is printed once, with an example, and fails the run.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	etcd := flag.String("etcd", "", "etcd's `binary`")
	quorate := flag.String("quorate", "", "Quorate's `binary`")
	seed := flag.Uint64("seed", 1, "the random `number` that everything comes from")
	calls := flag.Int("calls", 20_000, "how `many` calls to make")
	scratch := flag.String("scratch", os.TempDir(), "the `folder` for the data of both")
	only := flag.String("only", "", "make only calls whose `name` contains this")
	without := flag.String("without", "", "make no calls whose `name` contains one of these, separated by commas")
	trace := flag.Int("trace", 0, "print the last `count` calls before each difference")
	flag.Parse()
	if *etcd == "" || *quorate == "" {
		fmt.Fprintln(os.Stderr, "both binaries are needed: -etcd, -quorate")
		os.Exit(2)
	}
	run := newRun(*seed, *etcd, *quorate, *scratch)
	run.trace = *trace
	run.choose(*only, *without)
	err := run.drive(*calls)
	run.stop()
	isSame := run.report()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	if !isSame {
		os.Exit(1)
	}
}
