// Compares OpenAPI v2 with the reference, in two ways.
//
//	go run ./openapi golden SWAGGER_JSON ../../tests/golden
//
// writes openapi-v2.json: a sample document with the bytes that the reference's
// own conversion makes of it, and the definitions of the types served as the
// reference's document (api/openapi-spec/swagger.json of its release) states
// them, without descriptions.
//
//	cargo run --release -p nautilus-machinery --example openapi -- FOLDER
//	go run ./openapi check FOLDER
//
// reads our document with the libraries that clients read it with: the protobuf
// form is what the reference would make of the JSON form, its models are found
// by kind, and they accept and refuse what they should.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	openapi "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	models "k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kube-openapi/pkg/util/proto/validation"
)

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "golden":
		golden(os.Args[2], os.Args[3])
	case len(os.Args) == 3 && os.Args[1] == "check":
		check(os.Args[2])
	default:
		fail("usage: golden SWAGGER_JSON FOLDER | check FOLDER")
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

func must[T any](value T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return value
}

// One of everything that our document has.
const sample = `{"swagger":"2.0","info":{"title":"Sample","version":"v1"},"paths":{"/a/{name}":{
"get":{"description":"reads","consumes":["*/*"],"produces":["application/json","application/yaml"],"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/b.A"}}},"schemes":["https"],"x-kubernetes-action":"get","x-kubernetes-group-version-kind":{"group":"","kind":"A","version":"v1"}},
"put":{"consumes":["*/*"],"parameters":[{"in":"body","name":"body","required":true,"schema":{"$ref":"#/definitions/b.A"}}],"responses":{"200":{"description":"OK","schema":{"type":"object"}},"201":{"description":"Created","schema":{"type":"object"}}}},
"post":{"responses":{"200":{"description":"OK"}},"x-flag":true,"x-number":3},
"delete":{"parameters":[{"in":"body","name":"body","schema":{"$ref":"#/definitions/b.A"}}],"responses":{"200":{"description":""}}},
"patch":{"consumes":["application/merge-patch+json"],"parameters":[{"name":"dryRun","in":"query","type":"string","uniqueItems":true},{"name":"force","in":"query","type":"boolean","uniqueItems":false,"x-text":"true"}],"responses":{"200":{"description":"OK"}}},
"parameters":[{"name":"name","in":"path","description":"the name","required":true,"type":"string","uniqueItems":true}]},"/b":{}},
"definitions":{"b.A":{"description":"a type","type":"object","required":["kind","list"],"properties":{"kind":{"type":"string"},"count":{"type":"integer","format":"int32"},"map":{"type":"object","additionalProperties":{"type":"string","format":"byte"}},"list":{"type":"array","items":{"$ref":"#/definitions/b.B"},"x-kubernetes-list-map-keys":["name","protocol"],"x-kubernetes-list-type":"map","x-kubernetes-patch-merge-key":"name","x-kubernetes-patch-strategy":"merge,retainKeys"},"inner":{"$ref":"#/definitions/b.B","x-kubernetes-map-type":"atomic"}},"x-kubernetes-group-version-kind":[{"group":"","kind":"A","version":"v1"},{"group":"b.io","kind":"A","version":"v1"}]},"b.B":{"type":"string","format":"int-or-string"}}}`

func golden(swagger, folder string) {
	document := must(openapi.ParseDocument([]byte(sample)))
	var reference struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(must(os.ReadFile(swagger)), &reference); err != nil {
		fail("%v", err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "{\"sample\": %s,\n\"protobuf\": %q,\n\"definitions\": {", compact(sample),
		base64.StdEncoding.EncodeToString(must(proto.Marshal(document))))
	groups := map[string]bool{}
	for _, kind := range kinds() {
		groups[kind.Group+"/"+kind.Version] = true
	}
	separator := ""
	for _, name := range served(reference.Definitions) {
		body := must(json.Marshal(plain(reference.Definitions[name], groups)))
		fmt.Fprintf(&out, "%s\n%q: %s", separator, name, body)
		separator = ","
	}
	out.WriteString("\n}}\n")
	if err := os.WriteFile(filepath.Join(folder, "openapi-v2.json"), []byte(out.String()), 0o644); err != nil {
		fail("%v", err)
	}
}

func compact(text string) string {
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(text)); err != nil {
		fail("%v", err)
	}
	return out.String()
}

// checkV3 compares the protobuf form of each v3 document.
func checkV3(folder string) {
	for _, file := range must(filepath.Glob(filepath.Join(folder, "v3-*.json"))) {
		expected := must(proto.Marshal(must(openapiv3.ParseDocument(must(os.ReadFile(file))))))
		wire := must(os.ReadFile(strings.TrimSuffix(file, ".json") + ".pb"))
		if !bytes.Equal(wire, expected) {
			fail("%s: the protobuf form (%d bytes) is not what the reference makes of it (%d bytes)", file, len(wire), len(expected))
		}
	}
}

// The names of the kinds served and of all they refer to, in order.
func served(definitions map[string]map[string]any) []string {
	const meta = "io.k8s.apimachinery.pkg.apis.meta.v1."
	pending := []string{meta + "DeleteOptions", meta + "Status", meta + "WatchEvent", meta + "Patch"}
	for _, kind := range kinds() {
		pending = append(pending, kind.Schema)
		for _, verb := range kind.Verbs {
			if verb == "list" {
				pending = append(pending, kind.Schema+"List")
			}
		}
		for _, sub := range kind.Subresources {
			// Options of connections are no bodies.
			if name := sub[5].(string); !strings.HasSuffix(name, "Options") {
				pending = append(pending, name)
			}
		}
	}
	done := map[string]bool{}
	for len(pending) > 0 {
		name := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if done[name] {
			continue
		}
		done[name] = true
		definition, ok := definitions[name]
		if !ok {
			fail("the reference has no %s", name)
		}
		pending = append(pending, references(definition)...)
	}
	var names []string
	for name := range done {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

type kind struct {
	Group, Version, Schema string
	Verbs                  []string
	Subresources           [][]any
}

// The kinds served, from the table of kinds.
func kinds() []kind {
	var table struct{ Kinds []kind }
	if err := json.Unmarshal(must(os.ReadFile("../kinds-v1.37.json")), &table); err != nil {
		fail("%v", err)
	}
	return table.Kinds
}

func references(value any) []string {
	var found []string
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if target, ok := inner.(string); ok && key == "$ref" {
				found = append(found, strings.TrimPrefix(target, "#/definitions/"))
			}
			found = append(found, references(inner)...)
		}
	case []any:
		for _, inner := range value {
			found = append(found, references(inner)...)
		}
	}
	return found
}

// The value without descriptions (but with properties of that name); of kinds,
// those of groups served.
func plain(value any, groups map[string]bool) any {
	switch value := value.(type) {
	case map[string]any:
		kept := map[string]any{}
		for key, inner := range value {
			if _, text := inner.(string); text && key == "description" {
				continue
			}
			kept[key] = plain(inner, groups)
		}
		return kept
	case []any:
		kept := []any{}
		for _, inner := range value {
			if kind, ok := inner.(map[string]any); ok && kind["kind"] != nil {
				if !groups[fmt.Sprint(kind["group"], "/", kind["version"])] {
					continue
				}
			}
			kept = append(kept, plain(inner, groups))
		}
		return kept
	}
	return value
}

func check(folder string) {
	checkV3(folder)
	text := must(os.ReadFile(filepath.Join(folder, "openapi-v2.json")))
	wire := must(os.ReadFile(filepath.Join(folder, "openapi-v2.pb")))
	expected := must(proto.Marshal(must(openapi.ParseDocument(text))))
	if !bytes.Equal(wire, expected) {
		fail("the protobuf form (%d bytes) is not what the reference makes of the JSON form (%d bytes)", len(wire), len(expected))
	}
	document := &openapi.Document{}
	if err := proto.Unmarshal(wire, document); err != nil {
		fail("%v", err)
	}
	found := must(models.NewOpenAPIData(document))
	byKind := map[string]models.Schema{}
	for _, name := range found.ListModels() {
		model := found.LookupModel(name)
		kinds, _ := model.GetExtensions()["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			kind := kind.(map[any]any)
			byKind[fmt.Sprintf("%v/%v %v", kind["group"], kind["version"], kind["kind"])] = model
		}
	}
	for _, kind := range []string{
		"/v1 Pod", "/v1 PodList", "/v1 ConfigMap", "/v1 ConfigMapList", "/v1 Service", "/v1 Namespace",
		"/v1 DeleteOptions", "coordination.k8s.io/v1 Lease", "coordination.k8s.io/v1 DeleteOptions", "events.k8s.io/v1 Event",
	} {
		if byKind[kind] == nil {
			fail("no model of %s", kind)
		}
	}
	judge := func(kind, body string, want ...string) {
		var value any
		if err := json.Unmarshal([]byte(body), &value); err != nil {
			fail("%v", err)
		}
		var got []string
		for _, err := range validation.ValidateModel(value, byKind[kind], strings.Fields(kind)[1]) {
			got = append(got, err.Error())
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			fail("%s: got %q, want %q", body, got, want)
		}
	}
	judge("/v1 ConfigMap", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}`)
	judge("/v1 ConfigMap", `{"apiVersion":"v1","kind":"ConfigMap","dat":{"k":"v"}}`,
		`ValidationError(ConfigMap): unknown field "dat" in io.k8s.api.core.v1.ConfigMap`)
	judge("/v1 Service", `{"spec":{"ports":[{"port":80,"targetPort":8080},{"port":81,"targetPort":"http"}]}}`)
	judge("/v1 Pod", `{"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":1,"memory":"1Gi"}}}]}}`)
	judge("/v1 Pod", `{"spec":{"containers":[{"image":"a"}]}}`,
		`ValidationError(Pod.spec.containers[0]): missing required field "name" in io.k8s.api.core.v1.Container`)
	fmt.Printf("%d bytes of protobuf, %d models, %d kinds, %d paths: as the reference\n",
		len(wire), len(found.ListModels()), len(byKind), len(document.GetPaths().GetPath()))
}
