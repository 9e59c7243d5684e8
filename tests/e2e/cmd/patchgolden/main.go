// Records what the reference's strategic merge patch and JSON patch make of random
// patches: one JSON object a line, replayed by api/machinery/tests/patches.rs.
// The same seed and count give the same bytes.
//
//	go run ./cmd/patchgolden -seed 3 -cases 300 > api/machinery/tests/golden/patches.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

type testCase struct {
	Kind     string         `json:"kind"`
	Patch    any            `json:"patch"`
	Original map[string]any `json:"original"`
	Result   map[string]any `json:"result"`
	Error    string         `json:"error,omitempty"`
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

type choices struct{ state uint64 }

func (c *choices) next() uint64 {
	c.state += 0x9e3779b97f4a7c15
	z := c.state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (c *choices) below(n int) int { return int(c.next() % uint64(n)) }

func (c *choices) one(in int) bool { return c.below(in) == 0 }

func pick[T any](c *choices, list ...T) T { return list[c.below(len(list))] }

func (c *choices) some(items ...any) []any {
	chosen := []any{}
	for _, item := range items {
		if c.one(2) {
			chosen = append(chosen, item)
		}
	}
	for i := range chosen {
		j := c.below(len(chosen))
		chosen[i], chosen[j] = chosen[j], chosen[i]
	}
	return chosen
}

func (c *choices) texts(keys ...string) map[string]any {
	texts := map[string]any{}
	for _, key := range keys {
		if c.one(2) {
			texts[key] = pick(c, "x", "y")
		}
	}
	return texts
}

// keyed makes elements of a list with a merge key.
func (c *choices) keyed(key string, values []any, fill func(map[string]any)) []any {
	list := []any{}
	for _, value := range c.some(values...) {
		element := map[string]any{key: value}
		fill(element)
		list = append(list, element)
	}
	return list
}

func (c *choices) podSpec() map[string]any {
	spec := map[string]any{}
	spec["containers"] = c.keyed("name", []any{"a", "b", "c"}, func(element map[string]any) {
		if c.one(2) {
			element["image"] = pick(c, "i:1", "i:2")
		}
		if c.one(2) {
			element["env"] = c.keyed("name", []any{"E", "F", "G"}, func(env map[string]any) { env["value"] = pick(c, "1", "2") })
		}
		if c.one(3) {
			element["args"] = c.some("p", "q")
		}
		if c.one(3) {
			element["ports"] = c.keyed("containerPort", []any{80, 81}, func(port map[string]any) {
				if c.one(2) {
					port["name"] = pick(c, "m", "n")
				}
			})
		}
	})
	if c.one(2) {
		spec["volumes"] = c.keyed("name", []any{"v", "w"}, func(volume map[string]any) {
			volume[pick(c, "emptyDir", "hostPath")] = map[string]any{}
		})
	}
	if c.one(2) {
		spec["tolerations"] = []any{map[string]any{"key": pick(c, "k", "l")}}
	}
	if c.one(2) {
		spec["nodeSelector"] = c.texts("n", "m")
	}
	if c.one(3) {
		spec["hostAliases"] = c.keyed("ip", []any{"1.1.1.1", "2.2.2.2"}, func(alias map[string]any) { alias["hostnames"] = c.some("h", "i") })
	}
	return spec
}

func (c *choices) metadata() map[string]any {
	metadata := map[string]any{"name": "n"}
	if c.one(2) {
		metadata["labels"] = c.texts("a", "b", "c")
	}
	if c.one(2) {
		metadata["finalizers"] = c.some("x.io/1", "x.io/2", "x.io/3")
	}
	if c.one(4) {
		metadata["ownerReferences"] = c.keyed("uid", []any{"1", "2"}, func(owner map[string]any) { owner["name"] = pick(c, "o", "p") })
	}
	return metadata
}

func (c *choices) object(kind string) map[string]any {
	object := map[string]any{"metadata": c.metadata()}
	switch kind {
	case "Pod":
		object["spec"] = c.podSpec()
	case "Deployment":
		strategy := map[string]any{"type": pick(c, "Recreate", "RollingUpdate")}
		if strategy["type"] == "RollingUpdate" {
			strategy["rollingUpdate"] = map[string]any{"maxSurge": 1}
		}
		object["spec"] = map[string]any{"strategy": strategy, "template": map[string]any{"spec": c.podSpec()}}
	case "Service":
		object["spec"] = map[string]any{"ports": c.keyed("port", []any{80, 443}, func(port map[string]any) {
			if c.one(2) {
				port["protocol"] = pick(c, "TCP", "UDP")
			}
		}), "externalIPs": c.some("1.1.1.1", "2.2.2.2")}
	}
	return object
}

// What lists are merged by in the objects made here; "" for primitives.
var mergeKeys = map[string]string{
	"containers": "name", "env": "name", "volumes": "name", "hostAliases": "ip",
	"ports": "containerPort", "ownerReferences": "uid", "finalizers": "",
}

// directives turns an object into a patch with directives in it.
func (c *choices) directives(value any, kind string) any {
	switch value := value.(type) {
	case map[string]any:
		patch := map[string]any{}
		for _, key := range sortedKeys(value) {
			own := value[key]
			switch {
			case c.one(4):
				continue
			case c.one(9):
				patch[key] = nil
				continue
			}
			patch[key] = c.directives(own, kind)
			list, isList := own.([]any)
			mergeKey, merges := mergeKeys[key]
			if kind == "Service" && key == "ports" {
				mergeKey = "port"
			}
			if isList && merges && len(list) > 0 {
				if c.one(3) {
					patch["$setElementOrder/"+key] = c.order(list, mergeKey)
				}
				if mergeKey == "" && c.one(2) {
					// What is added and deleted at once depends on the order of Go's maps.
					kept := c.some(list...)
					patch[key] = kept
					patch["$deleteFromPrimitiveList/"+key] = without(list, kept)
					if order, ok := patch["$setElementOrder/"+key].([]any); ok {
						patch["$setElementOrder/"+key] = without(order, without(list, kept))
					}
				}
				if mergeKey != "" {
					patch[key] = c.elements(patch[key].([]any), mergeKey)
				}
			}
		}
		if c.one(14) {
			patch["$patch"] = pick(c, "replace", "delete", "merge", "explode")
		}
		if c.one(10) {
			keys := []any{}
			for key := range patch {
				if key[0] != '$' {
					keys = append(keys, key)
				}
			}
			sortAny(keys)
			if c.one(5) && len(keys) > 0 {
				keys = keys[1:]
			}
			patch["$retainKeys"] = keys
		}
		return patch
	case []any:
		list := []any{}
		for _, item := range value {
			list = append(list, c.directivesInElement(item, kind))
		}
		return list
	}
	return value
}

func without(list, gone []any) []any {
	left := []any{}
	for _, item := range list {
		if !contains(gone, item) {
			left = append(left, item)
		}
	}
	return left
}

func contains(list []any, item any) bool {
	for _, own := range list {
		if own == item {
			return true
		}
	}
	return false
}

func (c *choices) directivesInElement(item any, kind string) any {
	element, ok := item.(map[string]any)
	if !ok {
		return item
	}
	patch := c.directives(element, kind).(map[string]any)
	for _, key := range []string{"name", "ip", "port", "containerPort", "uid"} {
		if value, ok := element[key]; ok && !c.one(40) {
			patch[key] = value
		}
	}
	return patch
}

func (c *choices) elements(list []any, mergeKey string) []any {
	for _, item := range list {
		element, ok := item.(map[string]any)
		if ok && c.one(6) {
			element["$patch"] = "delete"
		}
	}
	if c.one(10) {
		list = append([]any{map[string]any{"$patch": "replace"}}, list...)
	}
	return list
}

func (c *choices) order(list []any, mergeKey string) []any {
	order := []any{}
	for _, item := range list {
		if element, ok := item.(map[string]any); ok && mergeKey != "" {
			order = append(order, map[string]any{mergeKey: element[mergeKey]})
		} else {
			order = append(order, item)
		}
	}
	if c.one(3) && mergeKey == "name" {
		order = append(order, map[string]any{"name": pick(c, "a", "b", "z")})
	}
	for i := range order {
		j := c.below(len(order))
		order[i], order[j] = order[j], order[i]
	}
	if c.one(8) {
		order = order[1:]
	}
	return order
}

func (c *choices) operations(original map[string]any) []any {
	paths := []string{"/metadata/labels/a", "/metadata/finalizers/0", "/metadata/finalizers/-", "/spec/containers/0/image", "/spec/containers/1", "/metadata/name", "/spec/none", "/metadata/labels"}
	operations := []any{}
	for range 1 + c.below(4) {
		operation := map[string]any{"op": pick(c, "add", "remove", "replace", "test", "copy", "move"), "path": pick(c, paths...)}
		switch operation["op"] {
		case "copy", "move":
			operation["from"] = pick(c, paths...)
		case "remove":
		default:
			operation["value"] = pick[any](c, "x", "y", "x.io/1", "i:1", nil, map[string]any{"a": "x"})
		}
		operations = append(operations, operation)
	}
	return operations
}

func sortedKeys(m map[string]any) []string {
	keys := []any{}
	for key := range m {
		keys = append(keys, key)
	}
	sortAny(keys)
	sorted := []string{}
	for _, key := range keys {
		sorted = append(sorted, key.(string))
	}
	return sorted
}

func sortAny(keys []any) {
	for i := range keys {
		for j := i + 1; j < len(keys); j++ {
			if keys[j].(string) < keys[i].(string) {
				keys[i], keys[j] = keys[j], keys[i]
			}
		}
	}
}

func structOf(kind string) any {
	switch kind {
	case "Pod":
		return corev1.Pod{}
	case "Service":
		return corev1.Service{}
	default:
		return appsv1.Deployment{}
	}
}

func main() {
	seed := flag.Uint64("seed", 1, "of the random choices")
	cases := flag.Int("cases", 300, "how many")
	flag.Parse()
	c := &choices{state: *seed}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for range *cases {
		one := testCase{Kind: pick(c, "Pod", "Pod", "Deployment", "Service")}
		one.Original = c.object(one.Kind)
		var result []byte
		var err error
		original := must(json.Marshal(one.Original))
		if c.one(5) {
			one.Patch = c.operations(one.Original)
			var operations jsonpatch.Patch
			operations, err = jsonpatch.DecodePatch(must(json.Marshal(one.Patch)))
			if err == nil {
				result, err = operations.Apply(original)
			}
		} else {
			one.Patch = c.directives(c.object(one.Kind), one.Kind)
			result, err = strategicpatch.StrategicMergePatch(original, must(json.Marshal(one.Patch)), structOf(one.Kind))
		}
		if err != nil {
			one.Error = err.Error()
		} else {
			must(0, json.Unmarshal(result, &one.Result))
		}
		fmt.Fprintln(out, string(must(json.Marshal(one))))
	}
}
