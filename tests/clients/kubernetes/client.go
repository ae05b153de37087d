package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// requestTimeout is longer than kube-apiserver's own, so that it is the one that gives up.
const requestTimeout = 75 * time.Second

// client is one connection to kube-apiserver, over HTTP/2.
type client struct {
	http *http.Client
	base string
}

// refusal is an answer other than success.
type refusal struct {
	code    int
	message string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.code, r.message) }

// codeOf is the HTTP code of an error, 0 when there was no answer.
func codeOf(err error) int {
	if refused, is := errors.AsType[*refusal](err); is {
		return refused.code
	}
	return 0
}

// isUncertain tells whether a write with this outcome may have happened, or may still.
func isUncertain(err error) bool {
	code := codeOf(err)
	return err != nil && (code == 0 || code >= 500)
}

func newClient(server *apiServer) *client {
	return &client{
		base: server.address,
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: server.roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		}},
	}
}

// do sends a request and returns the body of the answer.
func (c *client) do(method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// send sends a request whose answer is still to be read.
func (c *client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<16))
		var status struct{ Message string }
		if json.Unmarshal(text, &status) != nil || status.Message == "" {
			status.Message = string(text)
		}
		return nil, &refusal{response.StatusCode, status.Message}
	}
	return response, nil
}

// object is what this program looks at in an object.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		UID         string            `json:"uid"`
		Revision    uint64            `json:"resourceVersion,string"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	// Of a Status, as it ends a watch.
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (o *object) key() string  { return o.Metadata.Namespace + "/" + o.Metadata.Name }
func (o *object) mark() string { return o.Metadata.Annotations["mark"] }

// list is a page of objects.
type list struct {
	Metadata struct {
		Revision  uint64 `json:"resourceVersion,string"`
		Continue  string `json:"continue"`
		Remaining int    `json:"remainingItemCount"`
	} `json:"metadata"`
	Items []object `json:"items"`
}

// object sends a request that is answered by an object.
func (c *client) object(method, path string, body []byte) (*object, error) {
	text, err := c.do(method, path, body)
	if err != nil {
		return nil, err
	}
	found := &object{}
	return found, json.Unmarshal(text, found)
}

// list asks for one page of a list.
func (c *client) list(path string) (*list, error) {
	text, err := c.do("GET", path, nil)
	if err != nil {
		return nil, err
	}
	found := &list{}
	return found, json.Unmarshal(text, found)
}
