package suite

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// watches is how many the server has, as it says itself.
func (s *server) watches() string {
	s.t.Helper()
	answer, err := http.Get("http://" + s.address + "/metrics")
	check(s.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	check(s.t, err)
	for line := range strings.Lines(string(text)) {
		if count, found := strings.CutPrefix(line, `quorate_limit_used{limit="watches"} `); found {
			return strings.TrimSpace(count)
		}
	}
	s.t.Fatal("the watches are not told")
	return ""
}

// A request of HTTP is over with its body. Its watch goes on, until the client goes, whether or not there is
// something to tell.
func TestAWatchAsJSONGoesOnBehindItsRequestAndEndsWithItsClient(t *testing.T) {
	server := start(t)
	client := server.client()
	body := []byte(`{"create_request": {"key": "aw=="}}`)
	answer, err := http.Post("http://"+server.address+"/v3/watch", "application/json", bytes.NewReader(body))
	check(t, err)
	lines := json.NewDecoder(answer.Body)
	var line struct {
		Result struct {
			Created bool
			Events  []struct {
				Kv struct{ Key, Value []byte }
			}
		}
	}
	check(t, lines.Decode(&line))
	equal(t, "created", line.Result.Created, true)
	equal(t, "watches", server.watches(), "1")
	_, err = client.Put(t.Context(), "k", "v")
	check(t, err)
	check(t, lines.Decode(&line))
	equal(t, "value", string(line.Result.Events[0].Kv.Value), "v")
	check(t, answer.Body.Close())
	for deadline := time.Now().Add(patience); server.watches() != "0"; {
		if time.Now().After(deadline) {
			t.Fatal("the watch of a client that has gone is still there")
		}
	}
}
