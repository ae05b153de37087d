package main

import (
	"os"
	"regexp"
	"strings"
)

// What differs from run to run in a line of a log, or in an answer.
var particulars = []struct {
	pattern *regexp.Regexp
	general string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`apiserver-[a-z0-9]{20,}`), "apiserver-ID"},
	{regexp.MustCompile(namespacePrefix + `\d+`), "NAMESPACE"},
	{regexp.MustCompile(`\b(` + countedOwner + `|w\d+)-\d+`), "NAME"},
	{regexp.MustCompile(`0x[0-9a-f]+`), "HEX"},
	{regexp.MustCompile(`\d+(\.\d+)?`), "N"},
}

// generalize takes out of a text what differs from run to run.
func generalize(text string) string {
	for _, one := range particulars {
		text = one.pattern.ReplaceAllString(text, one.general)
	}
	if len(text) > 220 {
		text = text[:220] + "..."
	}
	return strings.TrimSpace(text)
}

// complaintLine is a line of kube-apiserver's log at the level of errors, or beyond.
var complaintLine = regexp.MustCompile(`^[EF]\d{4} [\d:.]+ +\d+ ([a-z0-9_]+\.go):\d+\] (.*)`)

// complaints are the kinds of errors in the log, each with how often it stands there.
func (a *apiServer) complaints() (map[string]int, error) {
	text, err := os.ReadFile(a.process.output)
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if parts := complaintLine.FindStringSubmatch(line); parts != nil {
			found[parts[1]+" "+generalize(parts[2])]++
		}
	}
	return found, nil
}

// usual are the errors that kube-apiserver logs with a real etcd too, and when.
var usual = []struct {
	pattern *regexp.Regexp
	when    string
}{
	{regexp.MustCompile(`^options.go The manifest file is empty`), "at each start"},
	{
		regexp.MustCompile(`^controller.go ("Failed to ensure lease exists|"Error while syncing ConfigMap").*not found`),
		"at the first start, before it has made its namespaces",
	},
	{
		regexp.MustCompile(`^status.go .*(error reading from server|connection refused|transport is closing)`),
		"when a member is killed",
	},
	{
		regexp.MustCompile(`^status.go .*etcdserver: request timed out`),
		"when the leader is killed: the write may have happened",
	},
}

// isUsual tells whether a kind of complaint is known from a real etcd.
func isUsual(complaint string) bool {
	for _, one := range usual {
		if one.pattern.MatchString(complaint) {
			return true
		}
	}
	return false
}
