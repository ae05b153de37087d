package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endTimeout is how long a program may take to end after SIGTERM.
const endTimeout = 20 * time.Second

// process is a program that was started here, with its output in a file. It ends with this program.
type process struct {
	command *exec.Cmd
	ended   chan struct{}
	output  string
	// cpuBefore is what earlier lives of the same program used.
	cpuBefore time.Duration
}

// starts are made by one thread that never ends: the kernel ends a child with the thread that started it.
var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
}

// launch starts a program; what it prints is appended to the file.
func launch(output string, arguments ...string) (*process, error) {
	file, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	command := exec.Command(arguments[0], arguments[1:]...)
	command.Stdout, command.Stderr = file, file
	command.Dir = filepath.Dir(output)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	done := make(chan error)
	starts <- func() { done <- command.Start() }
	if err := <-done; err != nil {
		return nil, err
	}
	one := &process{command: command, ended: make(chan struct{}), output: output}
	go func() {
		_ = command.Wait()
		close(one.ended)
	}()
	return one, nil
}

func (p *process) isRunning() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// end sends a signal and waits; who does not end in time is killed, and that is an error.
func (p *process) end(signal syscall.Signal) error {
	p.cpuBefore = p.cpu()
	if !p.isRunning() {
		return nil
	}
	_ = p.command.Process.Signal(signal)
	select {
	case <-p.ended:
		return nil
	case <-time.After(endTimeout):
	}
	_ = p.command.Process.Kill()
	<-p.ended
	return fmt.Errorf("%s did not end within %v of %v", p.command.Path, endTimeout, signal)
}

// tail is the end of what it printed.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.output)
	if size := len(text); size > 3000 {
		text = text[size-3000:]
	}
	return string(text)
}

// cpu is the processor time it has used, with that of its earlier lives.
func (p *process) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return p.cpuBefore
	}
	// The fields behind the name, which stands in parentheses; ticks of 10 ms.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return p.cpuBefore
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return p.cpuBefore + time.Duration(user+system)*10*time.Millisecond
}

// memory is what it has resident, in bytes.
func (p *process) memory() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.command.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// freePorts are ports of the loopback address on which nobody listens now.
func freePorts(count int) ([]int, error) {
	ports := make([]int, 0, count)
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Held until all are found, so that they differ.
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
