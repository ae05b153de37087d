// Command kubernetes runs a kube-apiserver on Quorate, works on it through its API, ends members meanwhile, and
// compares what writers, readers and watchers were told. See `run` beside it, which builds and starts it.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	kubernetes, quorate, against, scratch string
	objects, workers, size                int
	minutes                               float64
	seed                                  uint64
	keep                                  bool
}

func main() {
	var given options
	flag.StringVar(&given.kubernetes, "kube-apiserver", "", "kube-apiserver's `binary`")
	flag.StringVar(&given.quorate, "quorate", "", "Quorate's `binary`")
	flag.StringVar(&given.against, "against", "", "etcd's `binary`: do the same on it, and print both")
	flag.StringVar(&given.scratch, "scratch", os.TempDir(), "the `folder` for data and logs")
	flag.IntVar(&given.objects, "objects", 3000, "how `many` objects the figures are taken from")
	flag.IntVar(&given.workers, "workers", 32, "how `many` write and read at a time")
	flag.IntVar(&given.size, "size", 512, "`bytes` in each object, beside what Kubernetes needs")
	flag.Float64Var(&given.minutes, "minutes", 0.5, "how `long` members are ended and started again; 0 to leave it out")
	flag.Uint64Var(&given.seed, "seed", 1, "the random `number` of what workers do")
	flag.BoolVar(&given.keep, "keep", false, "leave data and logs there")
	flag.Parse()
	if given.kubernetes == "" || given.quorate == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "both binaries are needed: --kube-apiserver, --quorate")
		os.Exit(2)
	}
	violations, err := given.run()
	for index, one := range violations {
		if index == 40 {
			fmt.Printf("VIOLATION: %d more\n", len(violations)-index)
			break
		}
		fmt.Println("VIOLATION:", one)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
	}
	if err != nil || len(violations) > 0 {
		os.Exit(1)
	}
	fmt.Println("no violation")
}

// contestant is a store to run kube-apiserver on.
type contestant struct {
	name, binary string
}

func (o *options) run() (violations []string, err error) {
	// Programs are started in folders of their own, so that paths must not depend on this one's.
	if o.scratch, err = filepath.Abs(o.scratch); err != nil {
		return nil, err
	}
	if o.kubernetes, err = filepath.Abs(o.kubernetes); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(o.scratch, "kubernetes-")
	if err != nil {
		return nil, err
	}
	if o.keep {
		fmt.Println("data and logs are in", folder)
	} else {
		defer os.RemoveAll(folder)
	}
	contestants, err := o.contestants(folder)
	if err != nil {
		return nil, err
	}
	sizes := []int{3}
	if o.against != "" {
		sizes = []int{1, 3}
	}
	var running []*stack
	defer func() {
		for _, stack := range running {
			stack.stop()
		}
	}()
	// Servers end with this program whatever ends it; a signal lets it clean up first.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		if !o.keep {
			os.RemoveAll(folder)
		}
		os.Exit(130)
	}()
	for _, size := range sizes {
		running = nil
		for _, one := range contestants {
			name := fmt.Sprintf("%s x%d", one.name, size)
			begin := time.Now()
			stack, err := startStack(name, one.binary, o.kubernetes, filepath.Join(folder, strings.ReplaceAll(name, " ", "-")),
				size)
			if err != nil {
				return nil, err
			}
			fmt.Printf("%s: kube-apiserver is ready after %.1f s\n", name, time.Since(begin).Seconds())
			running = append(running, stack)
		}
		loads, err := measure(running, o.objects, o.workers, strings.Repeat("x", o.size))
		if err != nil {
			return nil, err
		}
		printFigures(loads)
		if size == 3 && o.minutes > 0 {
			found, err := o.ordeals(running)
			if err != nil {
				return nil, err
			}
			violations = append(violations, found...)
		}
		for _, stack := range running {
			stack.stop()
		}
	}
	running = nil
	return violations, nil
}

// contestants are Quorate, under the name that makes it behave as etcd, and what it is compared with.
func (o *options) contestants(folder string) ([]contestant, error) {
	quorate, err := filepath.Abs(o.quorate)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(folder, "etcd")
	if err := os.Symlink(quorate, name); err != nil {
		return nil, err
	}
	found := []contestant{{"quorate", name}}
	if o.against != "" {
		other, err := filepath.Abs(o.against)
		if err != nil {
			return nil, err
		}
		found = append(found, contestant{"etcd", other})
	}
	return found, nil
}

// ordeals runs the same under faults on each stack, one after the other.
func (o *options) ordeals(stacks []*stack) (violations []string, err error) {
	logged := map[string]map[string]int{}
	for _, stack := range stacks {
		duration := time.Duration(o.minutes * float64(time.Minute))
		one, err := runOrdeal(stack, duration, o.workers, o.seed, strings.Repeat("y", o.size))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", stack.name, err)
		}
		one.print()
		for _, text := range one.violations {
			violations = append(violations, stack.name+": "+text)
		}
		if logged[stack.name], err = stack.server.complaints(); err != nil {
			return nil, err
		}
		printCounts(stack.name+": errors in kube-apiserver's log", logged[stack.name])
	}
	var others map[string]int
	if len(stacks) == 2 {
		others = logged[stacks[1].name]
	}
	for text, count := range logged[stacks[0].name] {
		if others[text] == 0 && !isUsual(text) {
			violations = append(violations, fmt.Sprintf("kube-apiserver logged %d times what it does not with etcd: %s",
				count, text))
		}
	}
	return violations, nil
}
