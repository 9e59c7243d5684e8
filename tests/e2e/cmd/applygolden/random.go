package main

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// choices is a small generator of its own, so that its sequence never changes.
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

func (c *choices) testCase() testCase {
	switch c.below(5) {
	case 0:
		return testCase{Group: "apps", Version: "v1", Kind: "Deployment"}
	case 1:
		return testCase{Group: "", Version: "v1", Kind: "Service"}
	case 2:
		return testCase{Group: "", Version: "v1", Kind: "ConfigMap"}
	default:
		return testCase{Group: "golden.example.com", Version: "v1", Kind: "Widget", Schema: "widget"}
	}
}

func (c *choices) operation(one testCase, live *unstructured.Unstructured) operation {
	op := operation{Op: pick(c, "apply", "apply", "update"), Manager: pick(c, "a", "b", "kubectl")}
	version := one.Version
	if one.Schema != "" && c.one(6) {
		op.Version = "v2"
		version = "v2"
	}
	if len(op.Manager) == 1 && op.Op == "update" {
		op.Manager = pick(c, "a", "b", "c", fmt.Sprintf("u%d", c.below(20)))
	}
	op.Force = op.Op == "apply" && c.one(3)
	if one.Kind != "ConfigMap" && c.one(4) {
		op.Subresource = "status"
	}
	exists := live.GetUID() != ""
	fresh := c.object(one)
	fresh["apiVersion"] = version
	if one.Group != "" {
		fresh["apiVersion"] = one.Group + "/" + version
	}
	fresh["kind"] = one.Kind
	op.Object = fresh
	if op.Op == "update" && exists {
		op.Object = c.changed(live, fresh)
		op.Object["apiVersion"] = fresh["apiVersion"]
		op.Managed = pick(c, "keep", "keep", "", "keep", "keep", "")
		if c.one(15) {
			op.Managed = "reset"
		}
	}
	// Numbers and lists as decoding would leave them.
	var plain map[string]any
	must(0, json.Unmarshal(must(json.Marshal(op.Object)), &plain))
	op.Object = integers(plain).(map[string]any)
	return op
}

func integers(value any) any {
	switch value := value.(type) {
	case float64:
		if value == float64(int64(value)) {
			return int64(value)
		}
	case []any:
		for at := range value {
			value[at] = integers(value[at])
		}
	case map[string]any:
		for key := range value {
			value[key] = integers(value[key])
		}
	}
	return value
}

// changed is the live object with some top-level parts taken from another.
func (c *choices) changed(live *unstructured.Unstructured, fresh map[string]any) map[string]any {
	object := runtime.DeepCopyJSON(live.Object)
	if metadata, ok := object["metadata"].(map[string]any); ok {
		delete(metadata, "managedFields")
		if c.one(3) {
			if labels, ok := fresh["metadata"].(map[string]any)["labels"]; ok {
				metadata["labels"] = labels
			} else {
				delete(metadata, "labels")
			}
		}
	}
	for _, part := range []string{"spec", "status", "data"} {
		own, ok := object[part].(map[string]any)
		other, has := fresh[part].(map[string]any)
		switch {
		case !has:
			if c.one(6) {
				delete(object, part)
			}
		case !ok:
			object[part] = other
		default:
			for _, key := range sortedKeys(other) {
				if c.one(2) {
					own[key] = other[key]
				}
			}
			for _, key := range sortedKeys(own) {
				if c.one(8) {
					delete(own, key)
				}
			}
		}
	}
	return object
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	for i := range keys {
		for j := i + 1; j < len(keys); j++ {
			if keys[j] < keys[i] {
				keys[i], keys[j] = keys[j], keys[i]
			}
		}
	}
	return keys
}

func (c *choices) object(one testCase) map[string]any {
	metadata := map[string]any{"name": "n"}
	if c.one(2) {
		metadata["labels"] = c.texts("l")
	}
	if c.one(4) {
		metadata["annotations"] = c.annotations(one)
	}
	if c.one(5) {
		metadata["finalizers"] = c.subset("x.io/1", "x.io/2", "x.io/3")
	}
	object := map[string]any{"metadata": metadata}
	switch one.Kind {
	case "ConfigMap":
		object["data"] = c.texts("d")
	case "Service":
		object["spec"] = c.service()
		if c.one(3) {
			object["status"] = map[string]any{"conditions": c.conditions()}
		}
	case "Deployment":
		object["spec"] = c.deployment()
		if c.one(3) {
			object["status"] = map[string]any{"replicas": c.below(3), "conditions": c.conditions()}
		}
	default:
		object["spec"] = c.widget()
		if c.one(3) {
			object["status"] = map[string]any{"phase": pick(c, "a", "b"), "conditions": c.conditions()}
		}
	}
	return object
}

func (c *choices) annotations(one testCase) map[string]any {
	texts := c.texts("a")
	if c.one(2) {
		version := one.Version
		if one.Group != "" {
			version = one.Group + "/" + version
		}
		inner := map[string]any{"apiVersion": version, "kind": one.Kind, "metadata": map[string]any{"name": "n", "labels": c.texts("l")}}
		if one.Kind == "ConfigMap" {
			inner["data"] = c.texts("d")
		}
		texts["kubectl.kubernetes.io/last-applied-configuration"] = string(must(json.Marshal(inner)))
	}
	return texts
}

func (c *choices) texts(prefix string) map[string]any {
	texts := map[string]any{}
	for at := range 4 {
		if c.one(2) {
			texts[fmt.Sprintf("%s%d", prefix, at)] = pick(c, "x", "y", "<&>")
		}
	}
	return texts
}

func (c *choices) subset(items ...any) []any {
	var chosen []any
	for _, item := range items {
		if c.one(2) {
			chosen = append(chosen, item)
		}
	}
	for i := range chosen {
		j := c.below(len(chosen))
		chosen[i], chosen[j] = chosen[j], chosen[i]
	}
	if c.one(12) && len(chosen) > 0 {
		chosen = append(chosen, chosen[0])
	}
	if chosen == nil {
		return []any{}
	}
	return chosen
}

func (c *choices) conditions() []any {
	var conditions []any
	for _, kind := range c.subset("A", "B", "C") {
		conditions = append(conditions, map[string]any{"type": kind, "status": pick(c, "True", "False"), "reason": pick(c, "r", "s")})
	}
	return conditions
}

func (c *choices) service() map[string]any {
	spec := map[string]any{}
	var ports []any
	for _, port := range c.subset(80, 443, 8080) {
		one := map[string]any{"port": port, "name": fmt.Sprint("p", port)}
		if c.one(2) {
			one["protocol"] = pick(c, "TCP", "UDP")
		}
		if c.one(2) {
			one["targetPort"] = pick[any](c, 1, "http")
		}
		ports = append(ports, one)
	}
	spec["ports"] = ports
	if c.one(2) {
		spec["selector"] = c.texts("s")
	}
	if c.one(3) {
		spec["type"] = pick(c, "ClusterIP", "NodePort")
	}
	if c.one(4) {
		spec["externalIPs"] = c.subset("1.1.1.1", "2.2.2.2")
	}
	if c.one(15) {
		spec["unknown"] = 1
	}
	if c.one(15) {
		spec["type"] = nil
	}
	return spec
}

func (c *choices) deployment() map[string]any {
	spec := map[string]any{}
	if c.one(2) {
		spec["replicas"] = c.below(4)
	}
	if c.one(2) {
		spec["selector"] = map[string]any{"matchLabels": c.texts("s")}
	}
	if c.one(3) {
		spec["strategy"] = map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxSurge": pick[any](c, 1, "25%")}}
	}
	var containers []any
	for _, name := range c.subset("a", "b", "c") {
		container := map[string]any{"name": name}
		if c.one(2) {
			container["image"] = pick(c, "i:1", "i:2")
		}
		if c.one(2) {
			var env []any
			for _, name := range c.subset("E", "F", "G") {
				env = append(env, map[string]any{"name": name, "value": pick(c, "1", "2")})
			}
			container["env"] = env
		}
		if c.one(3) {
			container["ports"] = []any{map[string]any{"containerPort": pick(c, 1, 2)}}
		}
		if c.one(3) {
			container["args"] = c.subset("x", "y")
		}
		if c.one(3) {
			container["resources"] = map[string]any{"limits": map[string]any{"cpu": pick(c, "1", "1000m")}}
		}
		containers = append(containers, container)
	}
	pod := map[string]any{"containers": containers}
	if c.one(3) {
		pod["nodeSelector"] = c.texts("n")
	}
	if c.one(4) {
		pod["tolerations"] = []any{map[string]any{"key": pick(c, "k", "l")}}
	}
	spec["template"] = map[string]any{"metadata": map[string]any{"labels": c.texts("s")}, "spec": pod}
	return spec
}

// A type with every way a field can be owned.
const widgetSchema = `{"type":"object","properties":{
"spec":{"type":"object","properties":{
 "text":{"type":"string"},"number":{"type":"integer"},"truth":{"type":"boolean"},
 "either":{"x-kubernetes-int-or-string":true},
 "set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
 "numbers":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"integer"}},
 "whole":{"type":"array","items":{"type":"object","properties":{"a":{"type":"string"}}}},
 "keyed":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name","port"],"items":{"type":"object","properties":{"name":{"type":"string"},"port":{"type":"integer","default":7},"value":{"type":"string"},"tags":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}}}}},
 "map":{"type":"object","additionalProperties":{"type":"string"}},
 "deep":{"type":"object","additionalProperties":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}}}},
 "atomic":{"type":"object","x-kubernetes-map-type":"atomic","properties":{"a":{"type":"string"},"b":{"type":"string"}}},
 "struct":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"object","properties":{"c":{"type":"string"},"d":{"type":"string"}}}}},
 "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true}
}},
"status":{"type":"object","properties":{"phase":{"type":"string"},"conditions":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["type"],"items":{"type":"object","properties":{"type":{"type":"string"},"status":{"type":"string"},"reason":{"type":"string"}}}}}}
}}`

const metaSchema = `{"type":"object","properties":{"name":{"type":"string"},"uid":{"type":"string"},"namespace":{"type":"string"},
"labels":{"type":"object","additionalProperties":{"type":"string"}},"annotations":{"type":"object","additionalProperties":{"type":"string"}},
"finalizers":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
"managedFields":{"type":"array","x-kubernetes-list-type":"atomic","items":{"type":"object","additionalProperties":true}}}}`

func (c *choices) widget() map[string]any {
	spec := map[string]any{}
	fields := []string{"text", "number", "either", "set", "numbers", "whole", "keyed", "map", "deep", "atomic", "struct", "free"}
	for _, field := range fields {
		if !c.one(3) {
			continue
		}
		spec[field] = c.field(field)
		if c.one(25) {
			spec[field] = nil
		}
		if c.one(60) {
			spec[field] = pick[any](c, true, "wrong", 5, []any{1}, map[string]any{"z": 1})
		}
	}
	if c.one(40) {
		spec["unknown"] = "u"
	}
	return spec
}

func (c *choices) field(name string) any {
	switch name {
	case "text":
		return pick(c, "x", "y", "z")
	case "number":
		return c.below(3)
	case "either":
		return pick[any](c, 1, "one", 2)
	case "set":
		return c.subset("a", "b", "c<d", "e")
	case "numbers":
		return c.subset(1, 2, 3)
	case "whole":
		return []any{map[string]any{"a": pick(c, "x", "y")}}
	case "keyed":
		items := []any{}
		for _, name := range c.subset("a", "b", "c", "d") {
			item := map[string]any{"name": name}
			if c.one(2) {
				item["port"] = pick(c, 7, 8)
			}
			if c.one(2) {
				item["value"] = pick(c, "x", "y")
			}
			if c.one(4) {
				item["tags"] = c.subset("s", "t")
			}
			if c.one(30) {
				delete(item, "name")
			}
			items = append(items, item)
		}
		return items
	case "map":
		return c.texts("m")
	case "deep":
		deep := map[string]any{}
		for _, key := range []string{"p", "q"} {
			if c.one(2) {
				deep[key] = c.pair()
			}
		}
		return deep
	case "atomic":
		return c.pair()
	case "struct":
		inner := map[string]any{}
		if c.one(2) {
			inner["a"] = pick(c, "x", "y")
		}
		if c.one(2) {
			inner["b"] = map[string]any{pick(c, "c", "d"): pick(c, "x", "y")}
		}
		return inner
	default:
		free := map[string]any{}
		if c.one(2) {
			free["k"] = pick[any](c, 1, "s", []any{1, 2}, map[string]any{"n": pick(c, 1, 2)}, nil)
		}
		if c.one(2) {
			free["m"] = map[string]any{pick(c, "o", "p"): map[string]any{"q": c.below(2)}}
		}
		return free
	}
}

func (c *choices) pair() map[string]any {
	pair := map[string]any{}
	for _, key := range []string{"a", "b"} {
		if c.one(2) {
			pair[key] = pick(c, "x", "y")
		}
	}
	return pair
}
