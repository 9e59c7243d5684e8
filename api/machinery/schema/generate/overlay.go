package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
)

// The module whose documents of the API are read.
const kubernetes = "k8s.io/kubernetes@v1.37.2"

type property struct {
	Default json.RawMessage `json:"default"`
	MapType string          `json:"x-kubernetes-map-type"`
	List    string          `json:"x-kubernetes-list-type"`
	Keys    []string        `json:"x-kubernetes-list-map-keys"`
	Patch   string          `json:"x-kubernetes-patch-strategy"`
	Merge   string          `json:"x-kubernetes-patch-merge-key"`
}

type definition struct {
	Properties map[string]property `json:"properties"`
	Required   []string            `json:"required"`
	MapType    string              `json:"x-kubernetes-map-type"`
	Unions     []any               `json:"x-kubernetes-unions"`
}

// overlay sets the facts of each field to what the OpenAPI documents say of it.
// A type that is only ever inlined has no document: its fields stand in its owners'.
func (g *generator) overlay() {
	documents := definitions()
	for name := range g.types {
		if found, ok := documents[name]; ok {
			g.cover(name, found)
			for _, inner := range g.inlines[name] {
				g.coverInlined(documents, inner, found)
			}
		}
	}
}

func (g *generator) coverInlined(documents map[string]definition, name string, owner definition) {
	if _, ok := documents[name]; ok {
		return
	}
	g.cover(name, definition{Properties: owner.Properties, Required: owner.Required})
	for _, inner := range g.inlines[name] {
		g.coverInlined(documents, inner, owner)
	}
}

func (g *generator) cover(name string, found definition) {
	if found.MapType != "" {
		g.structTypes[name] = found.MapType
	}
	if len(found.Unions) > 0 {
		g.unions[name] = found.Unions
	}
	for _, entry := range g.types[name] {
		row := entry.([]any)
		field := row[0].(string)
		if p, ok := found.Properties[field]; ok && !strings.ContainsAny(row[3].(string), "nt") {
			covered(row, p, has(found.Required, field))
		}
	}
}

func covered(row []any, p property, required bool) {
	flags := strings.ReplaceAll(row[3].(string), "r", "")
	if required {
		flags += "r"
	}
	row[3] = flags
	extras := row[4].(map[string]any)
	set := func(key, value string) {
		delete(extras, key)
		if value != "" {
			extras[key] = value
		}
	}
	set("ps", p.Patch)
	set("mk", p.Merge)
	set("lt", p.List)
	delete(extras, "lk")
	if len(p.Keys) > 0 {
		extras["lk"] = p.Keys
	}
	// What the type says stands with the type.
	set("mt", p.MapType)
	delete(extras, "df")
	if value, ok := stated(p.Default, strings.HasPrefix(row[1].(string), "*") || strings.Contains(flags, "e")); ok {
		extras["df"] = value
	}
}

// A default that says more than that the zero value is written.
func stated(text json.RawMessage, mayBeAbsent bool) (any, bool) {
	if len(text) == 0 {
		return nil, false
	}
	var value any
	check(json.Unmarshal(text, &value))
	if empty, ok := value.(map[string]any); ok && len(empty) == 0 {
		return nil, false
	}
	return value, mayBeAbsent || !reflect.ValueOf(value).IsZero()
}

func has(list []string, text string) bool {
	for _, one := range list {
		if one == text {
			return true
		}
	}
	return false
}

func definitions() map[string]definition {
	output, err := exec.Command("go", "mod", "download", "-json", kubernetes).Output()
	check(err)
	var module struct{ Dir string }
	check(json.Unmarshal(output, &module))
	files, err := filepath.Glob(filepath.Join(module.Dir, "api/openapi-spec/v3/*_openapi.json"))
	check(err)
	all := map[string]definition{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err)
		var document struct {
			Components struct {
				Schemas map[string]definition `json:"schemas"`
			} `json:"components"`
		}
		check(json.Unmarshal(text, &document))
		for name, found := range document.Components.Schemas {
			all[name] = found
		}
	}
	return all
}
