// Records what the reference's field management makes of random sequences of
// applies and updates: one JSON object a line, replayed by api/apply/tests.
// The same seed and count give the same bytes.
//
//	go run ./cmd/applygolden -seed 1 -cases 200 > api/apply/tests/golden/cases.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// An operation, and what came of it.
type operation struct {
	Op          string         `json:"op"`
	Manager     string         `json:"manager"`
	Subresource string         `json:"subresource,omitempty"`
	Version     string         `json:"version,omitempty"`
	Force       bool           `json:"force,omitempty"`
	Managed     string         `json:"managed,omitempty"`
	Object      map[string]any `json:"object"`

	Error string `json:"error,omitempty"`
	// The live object without its entries, where it differs from `object`.
	Live map[string]any `json:"live,omitempty"`
	// Entries without times.
	Entries []any `json:"entries,omitempty"`
	// Managers whose time was set.
	Timed []string `json:"timed,omitempty"`
}

type testCase struct {
	Group      string      `json:"group"`
	Version    string      `json:"version"`
	Kind       string      `json:"kind"`
	Schema     string      `json:"schema,omitempty"`
	Operations []operation `json:"operations"`
}

type converter struct{}

func (converter) Convert(in, out, context any) error { return fmt.Errorf("not used") }

func (converter) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	object := in.DeepCopyObject().(*unstructured.Unstructured)
	kind := object.GroupVersionKind()
	to, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{kind})
	if !ok {
		to = target.(schema.GroupVersion).WithKind(kind.Kind)
	}
	if to.Version == "v0" {
		return nil, runtime.NewNotRegisteredErrForKind("golden", to)
	}
	object.SetGroupVersionKind(to)
	return object, nil
}

func (converter) ConvertFieldLabel(gvk schema.GroupVersionKind, label, value string) (string, string, error) {
	return "", "", fmt.Errorf("not used")
}

type defaulter struct{}

func (defaulter) Default(runtime.Object) {}

type creater struct{}

func (creater) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	object := &unstructured.Unstructured{Object: map[string]any{}}
	object.SetGroupVersionKind(kind)
	return object, nil
}

func resetFields(group, subresource string, versions ...string) map[fieldpath.APIVersion]fieldpath.Filter {
	set := fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	if subresource == "status" {
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata"))
	}
	filters := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, version := range versions {
		filters[fieldpath.APIVersion(version)] = fieldpath.NewExcludeSetFilter(set)
	}
	return filters
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func manager(types managedfields.TypeConverter, kind schema.GroupVersionKind, subresource string) *managedfields.FieldManager {
	versions := []string{kind.GroupVersion().String()}
	reset := resetFields(kind.Group, subresource, versions...)
	hub := kind.GroupVersion()
	if kind.Group == "golden.example.com" {
		reset = resetFields(kind.Group, subresource, "golden.example.com/v1", "golden.example.com/v2")
		hub.Version = "v1"
		return must(managedfields.NewDefaultCRDFieldManager(types, converter{}, defaulter{}, creater{}, kind, hub, subresource, reset))
	}
	return must(managedfields.NewDefaultFieldManager(types, converter{}, defaulter{}, creater{}, kind, hub, subresource, reset))
}

// run carries out one operation on live and writes down what came of it.
func run(types managedfields.TypeConverter, kind schema.GroupVersionKind, live *unstructured.Unstructured, op *operation) *unstructured.Unstructured {
	if op.Version != "" {
		kind.Version = op.Version
	}
	fields := manager(types, kind, op.Subresource)
	present := live.DeepCopy()
	present.SetGroupVersionKind(kind)
	object := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(op.Object)}
	var result runtime.Object
	var err error
	switch op.Op {
	case "apply":
		result, err = fields.Apply(present, object, op.Manager, op.Force)
	case "update":
		switch op.Managed {
		case "keep":
			object.SetManagedFields(present.GetManagedFields())
		case "reset":
			must(0, unstructured.SetNestedSlice(object.Object, []any{}, "metadata", "managedFields"))
		}
		result, err = fields.Update(present, object, op.Manager)
	}
	if err != nil {
		// Several faults come in any order.
		first, _, several := strings.Cut(err.Error(), "errors:")
		op.Error = first
		if several {
			op.Error += "errors:"
		}
		return live
	}
	next := result.(*unstructured.Unstructured)
	entries := next.GetManagedFields()
	for at := range entries {
		if entries[at].Time != nil {
			op.Timed = append(op.Timed, entries[at].Manager)
			entries[at].Time = nil
		}
	}
	sort.Strings(op.Timed)
	next.SetManagedFields(nil)
	next.SetUID("u")
	bare := next.DeepCopy()
	bare.SetUID("")
	unstructured.RemoveNestedField(bare.Object, "metadata", "uid")
	op.Live = bare.Object
	for _, entry := range entries {
		var plain map[string]any
		must(0, json.Unmarshal(must(json.Marshal(entry)), &plain))
		op.Entries = append(op.Entries, plain)
	}
	next.SetManagedFields(resorted(entries))
	return next
}

func resorted(entries []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	if len(entries) == 0 {
		return nil
	}
	return entries
}

func structural() managedfields.TypeConverter {
	models := map[string]*spec.Schema{}
	for _, version := range []string{"v1", "v2"} {
		model := &spec.Schema{}
		must(0, json.Unmarshal([]byte(widgetSchema), model))
		model.VendorExtensible.AddExtension("x-kubernetes-group-version-kind", []any{
			map[string]any{"group": "golden.example.com", "version": version, "kind": "Widget"},
		})
		meta := &spec.Schema{}
		must(0, json.Unmarshal([]byte(metaSchema), meta))
		model.Properties["metadata"] = *meta
		model.Properties["apiVersion"] = *spec.StringProperty()
		model.Properties["kind"] = *spec.StringProperty()
		models["Widget."+version] = model
	}
	return must(managedfields.NewTypeConverter(models, false))
}

func main() {
	seed := flag.Uint64("seed", 1, "of the random choices")
	cases := flag.Int("cases", 200, "how many")
	flag.Parse()
	builtin := applyconfigurations.NewTypeConverter(scheme.Scheme)
	widgets := structural()
	choice := &choices{state: *seed}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for range *cases {
		one := choice.testCase()
		types := builtin
		if one.Schema != "" {
			types = widgets
		}
		kind := schema.GroupVersionKind{Group: one.Group, Version: one.Version, Kind: one.Kind}
		live := &unstructured.Unstructured{Object: map[string]any{}}
		live.SetGroupVersionKind(kind)
		count := 2 + choice.below(5)
		if choice.one(20) {
			count = 16
		}
		for range count {
			op := choice.operation(one, live)
			live = run(types, kind, live, &op)
			one.Operations = append(one.Operations, op)
		}
		must(0, encoder.Encode(one))
	}
}
