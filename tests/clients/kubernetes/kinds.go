package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// kind is a kind of objects that is written, listed and watched.
type kind struct {
	// name in the plural, as it stands in paths.
	name string
	// base is the path of its group and version.
	base string
	// group as metrics name it.
	group string
	// prefix of its keys in the store.
	prefix string
	// isCached tells that kube-apiserver answers lists and watches from its memory.
	isCached bool
	// expires tells that its objects hang on leases of the store, and go by themselves.
	expires bool
	// body adds what an object of the kind has to have.
	body func(fields map[string]any, payload string)
}

var kinds = []*kind{
	{
		name: "configmaps", base: "/api/v1", prefix: "/registry/configmaps/", isCached: true,
		body: func(fields map[string]any, payload string) {
			fields["data"] = map[string]string{"payload": payload}
		},
	},
	{
		name: "secrets", base: "/api/v1", prefix: "/registry/secrets/", isCached: true,
		body: func(fields map[string]any, payload string) {
			fields["data"] = map[string][]byte{"payload": []byte(payload)}
		},
	},
	{
		name: "widgets", base: "/apis/quorate.example/v1", group: "quorate.example",
		prefix: "/registry/quorate.example/widgets/", isCached: true,
		body: func(fields map[string]any, payload string) {
			fields["apiVersion"], fields["kind"] = "quorate.example/v1", "Widget"
			fields["spec"] = map[string]string{"payload": payload}
		},
	},
	{
		name: "leases", base: "/apis/coordination.k8s.io/v1", group: "coordination.k8s.io",
		prefix: "/registry/leases/",
		body: func(fields map[string]any, payload string) {
			fields["spec"] = map[string]any{
				"holderIdentity": payload, "leaseDurationSeconds": 15,
				"renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"),
			}
		},
	},
	{
		name: "events", base: "/api/v1", prefix: "/registry/events/", expires: true,
		body: func(fields map[string]any, payload string) {
			metadata := fields["metadata"].(map[string]any)
			fields["involvedObject"] = map[string]any{"kind": "Pod", "name": "x", "namespace": metadata["namespace"]}
			fields["reason"], fields["type"], fields["message"] = "Tested", "Normal", payload
		},
	},
}

// widgetDefinition is the custom resource definition of widgets.
const widgetDefinition = `{
"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
"metadata": {"name": "widgets.quorate.example"},
"spec": {
  "group": "quorate.example", "scope": "Namespaced",
  "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
  "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
    "type": "object", "properties": {"spec": {"type": "object", "properties": {"payload": {"type": "string"}}}}
  }}}]
}}`

// Objects lie in a few namespaces of their own.
const (
	namespacesCount = 4
	namespacePrefix = "k8stest-"
)

func namespaceOf(number int) string {
	return fmt.Sprintf("%s%d", namespacePrefix, number%namespacesCount)
}

// path is that of an object.
func (k *kind) path(key string) string {
	namespace, name, _ := strings.Cut(key, "/")
	return k.folder(namespace) + "/" + name
}

// folder is the path of all objects of a namespace, or of the kind.
func (k *kind) folder(namespace string) string {
	if namespace == "" {
		return k.base + "/" + k.name
	}
	return k.base + "/namespaces/" + namespace + "/" + k.name
}

// encode makes the body of a request. Names begin with that of their owner, which is a label too; the mark tells
// writes apart.
func (k *kind) encode(key, mark, payload, uid string, revision uint64) []byte {
	namespace, name, _ := strings.Cut(key, "/")
	metadata := map[string]any{
		"name": name, "namespace": namespace,
		"labels": map[string]string{"owner": ownerOf(key)}, "annotations": map[string]string{"mark": mark},
	}
	if revision > 0 {
		metadata["uid"], metadata["resourceVersion"] = uid, fmt.Sprint(revision)
	}
	fields := map[string]any{"metadata": metadata}
	k.body(fields, payload)
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return text
}

// ownerOf is the worker to whom an object belongs.
func ownerOf(key string) string {
	_, name, _ := strings.Cut(key, "/")
	owner, _, _ := strings.Cut(name, "-")
	return owner
}

// scope is a part of a kind: everything, a namespace, or the objects of one owner.
type scope struct {
	namespace, owner string
}

func (s scope) contains(key string) bool {
	return (s.namespace == "" || strings.HasPrefix(key, s.namespace+"/")) && (s.owner == "" || ownerOf(key) == s.owner)
}

func (s scope) String() string {
	switch {
	case s.namespace != "":
		return "of namespace " + s.namespace
	case s.owner != "":
		return "of owner " + s.owner
	}
	return "of all"
}

// path is that of a list or a watch, with parameters.
func (k *kind) scopePath(s scope, parameters ...string) string {
	if s.owner != "" {
		parameters = append(parameters, "labelSelector=owner%3D"+s.owner)
	}
	return k.folder(s.namespace) + "?" + strings.Join(parameters, "&")
}
