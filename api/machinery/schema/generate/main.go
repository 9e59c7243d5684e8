// Writes the table of facts about Kubernetes' types that the server runs on:
// for every type reachable from the kinds served, its fields in order, with
// their JSON names, kinds, protobuf numbers, and the merge facts.
//
// It looks at the Go types by reflection (JSON and protobuf tags, patch tags)
// and at their sources for the `+` markers (optional, listType, mapType).
// The same module versions give the same bytes. Run: go run . > ../facts-v1.37.json
//
// A field is [name, kind, number, flags, extras?]. Kinds: s string, b bool,
// i int32, l int64, d float64, y bytes, T Time, M MicroTime, Q Quantity,
// I IntOrString, R RawExtension, F FieldsV1, D Duration, J any JSON, A B S a
// JSON schema or schemas, a boolean, strings, @name message; before
// them * for a pointer, [ for a list, { for a map keyed by strings. Flags:
// e omitempty, z omitzero, r required, n inlined in JSON, t from TypeMeta.
// A type has its fields (f), the kinds it is (g), how it merges as a whole (m)
// and its unions (u), as x-kubernetes-unions.
//
// Merge facts, defaults and what is required are those of the OpenAPI documents
// of the release (overlay.go), which are made from the same markers.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	certificates "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	events "k8s.io/api/events/v1"
	flowcontrol "k8s.io/api/flowcontrol/v1"
	networking "k8s.io/api/networking/v1"
	node "k8s.io/api/node/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	dra "k8s.io/api/resource/v1"
	scheduling "k8s.io/api/scheduling/v1"
	storage "k8s.io/api/storage/v1"
	storagemigration "k8s.io/api/storagemigration/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// Groups whose kinds are taken, all that their scheme knows: those a server of
// this release serves by default.
var groups = []func(*runtime.Scheme) error{
	core.AddToScheme, admissionregistration.AddToScheme, apiextensions.AddToScheme,
	apiregistration.AddToScheme, apps.AddToScheme, authentication.AddToScheme,
	authorization.AddToScheme, autoscaling.AddToScheme, autoscalingv2.AddToScheme,
	batch.AddToScheme, certificates.AddToScheme, coordination.AddToScheme,
	discovery.AddToScheme, events.AddToScheme, flowcontrol.AddToScheme,
	networking.AddToScheme, node.AddToScheme, policy.AddToScheme, rbac.AddToScheme,
	dra.AddToScheme, scheduling.AddToScheme, storage.AddToScheme,
	storagemigration.AddToScheme,
}

// A kind that may stand alone in a request or an answer.
type root struct {
	group, version string
	of             reflect.Type
}

// What stands in every group, named in one.
var common = map[string][]any{
	"": {
		meta.Status{}, meta.WatchEvent{}, meta.DeleteOptions{}, meta.CreateOptions{},
		meta.UpdateOptions{}, meta.PatchOptions{}, meta.ListOptions{}, meta.GetOptions{},
		meta.List{},
	},
	"meta.k8s.io": {meta.PartialObjectMetadata{}, meta.PartialObjectMetadataList{}},
}

func roots() []root {
	scheme := runtime.NewScheme()
	for _, add := range groups {
		check(add(scheme))
	}
	found := []root{}
	for gvk, t := range scheme.AllKnownTypes() {
		if !strings.HasPrefix(t.PkgPath(), "k8s.io/apimachinery/") {
			found = append(found, root{gvk.Group, gvk.Version, t})
		}
	}
	sort.Slice(found, func(i, j int) bool { return modelName(found[i].of) < modelName(found[j].of) })
	for group, values := range common {
		for _, value := range values {
			found = append(found, root{group, "v1", reflect.TypeOf(value)})
		}
	}
	return found
}

var leaves = map[reflect.Type]string{
	reflect.TypeOf(meta.Time{}):            "T",
	reflect.TypeOf(meta.MicroTime{}):       "M",
	reflect.TypeOf(meta.Duration{}):        "D",
	reflect.TypeOf(meta.FieldsV1{}):        "F",
	reflect.TypeOf(resource.Quantity{}):    "Q",
	reflect.TypeOf(intstr.IntOrString{}):   "I",
	reflect.TypeOf(runtime.RawExtension{}): "R",

	reflect.TypeOf(apiextensions.JSON{}):                         "J",
	reflect.TypeOf(apiextensions.JSONSchemaPropsOrArray{}):       "A",
	reflect.TypeOf(apiextensions.JSONSchemaPropsOrBool{}):        "B",
	reflect.TypeOf(apiextensions.JSONSchemaPropsOrStringArray{}): "S",
}

type generator struct {
	types   map[string][]any
	gvks    map[string][][3]string
	markers map[string]map[string]markers // package path + type -> field -> markers
	loaded  map[string]bool

	structTypes map[string]string   // model name -> structType marker of the type itself
	unions      map[string][]any    // model name -> its unions
	enums       map[string][]string // package path + type -> the values it has
	inlines     map[string][]string
}

type markers map[string][]string

func main() {
	g := &generator{
		types: map[string][]any{}, gvks: map[string][][3]string{},
		markers: map[string]map[string]markers{}, loaded: map[string]bool{},
		structTypes: map[string]string{}, unions: map[string][]any{}, enums: map[string][]string{}, inlines: map[string][]string{},
	}
	for _, r := range roots() {
		g.message(r.of)
		name := modelName(r.of)
		g.gvks[name] = append(g.gvks[name], [3]string{r.group, r.version, r.of.Name()})
	}
	g.overlay()
	g.write()
}

func (g *generator) write() {
	names := make([]string, 0, len(g.types))
	for name := range g.types {
		names = append(names, name)
	}
	sort.Strings(names)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintf(out, "{\"release\":\"v1.37.2\",\"types\":{")
	for i, name := range names {
		if i > 0 {
			out.WriteString(",")
		}
		entry := map[string]any{"f": rows(g.types[name])}
		if kind, ok := g.structTypes[name]; ok {
			entry["m"] = kind
		}
		if unions, ok := g.unions[name]; ok {
			entry["u"] = unions
		}
		if gvks, ok := g.gvks[name]; ok {
			entry["g"] = gvks
		}
		body, err := json.Marshal(entry)
		check(err)
		fmt.Fprintf(out, "\n%q:%s", name, body)
	}
	out.WriteString("\n}}\n")
}

// rows leaves out extras where there are none.
func rows(fields []any) []any {
	for i, field := range fields {
		row := field.([]any)
		if len(row) > 4 && len(row[4].(map[string]any)) == 0 {
			fields[i] = row[:4]
		}
	}
	return fields
}

// modelName is the type's name in OpenAPI: the package path with the host reversed.
func modelName(t reflect.Type) string {
	path := strings.ReplaceAll(t.PkgPath(), "k8s.io/", "io.k8s.")
	return strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

func (g *generator) message(t reflect.Type) {
	name := modelName(t)
	if _, done := g.types[name]; done {
		return
	}
	g.types[name] = []any{}
	if v := g.fieldMarkers(t, "")["structType"]; len(v) > 0 {
		g.structTypes[name] = v[0]
	}
	fields := []any{}
	for i := 0; i < t.NumField(); i++ {
		fields = append(fields, g.field(t, t.Field(i))...)
	}
	g.types[name] = fields
}

func (g *generator) field(owner reflect.Type, f reflect.StructField) []any {
	tag, _ := f.Tag.Lookup("json")
	parts := strings.Split(tag, ",")
	if parts[0] == "-" || !f.IsExported() {
		return nil
	}
	if f.Type == reflect.TypeOf(meta.TypeMeta{}) {
		return []any{[]any{"kind", "s", 0, "et"}, []any{"apiVersion", "s", 0, "et"}}
	}
	if f.Type == reflect.TypeOf(meta.ListMeta{}) && parts[0] == "" {
		return nil
	}
	number := 0
	if p := strings.Split(f.Tag.Get("protobuf"), ","); len(p) > 1 {
		number, _ = strconv.Atoi(p[1])
	}
	flags := ""
	for _, option := range parts[1:] {
		switch option {
		case "omitempty":
			flags += "e"
		case "omitzero":
			flags += "z"
		}
	}
	m := g.fieldMarkers(owner, f.Name)
	inlined := f.Anonymous && parts[0] == ""
	if inlined {
		flags += "n"
		g.inlines[modelName(owner)] = append(g.inlines[modelName(owner)], modelName(f.Type))
	} else if m.has("required") || !strings.Contains(flags, "e") && !m.has("optional") && !m.has("k8s:optional") {
		flags += "r"
	}
	name := parts[0]
	if inlined {
		name = strings.ToLower(f.Name[:1]) + f.Name[1:]
	}
	row := []any{name, g.kind(f.Type), number, flags}
	extras := map[string]any{}
	if v := f.Tag.Get("patchStrategy"); v != "" {
		extras["ps"] = v
	}
	if v := f.Tag.Get("patchMergeKey"); v != "" {
		extras["mk"] = v
	}
	if v := m["listType"]; len(v) > 0 {
		extras["lt"] = v[0]
	}
	if v := m["listMapKey"]; len(v) > 0 {
		extras["lk"] = v
	}
	if v := m["mapType"]; len(v) > 0 {
		extras["mt"] = v[0]
	}
	if v := m["structType"]; len(v) > 0 {
		extras["mt"] = v[0]
	}
	if values := g.enumeration(f.Type); len(values) > 0 {
		extras["en"] = values
	}
	if v := m["default"]; len(v) > 0 && json.Valid([]byte(v[0])) {
		extras["df"] = json.RawMessage(v[0])
	}
	return []any{append(row, extras)}
}

// enumeration is the values that a field, or each of its elements, may have.
func (g *generator) enumeration(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.String || t.PkgPath() == "" {
		return nil
	}
	g.load(t.PkgPath())
	return g.enums[t.PkgPath()+"."+t.Name()]
}

func (g *generator) kind(t reflect.Type) string {
	if leaf, ok := leaves[t]; ok {
		return leaf
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + g.kind(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "y"
		}
		return "[" + g.kind(t.Elem())
	case reflect.Map:
		return "{" + g.kind(t.Elem())
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int32:
		return "i"
	case reflect.Int64, reflect.Int:
		return "l"
	case reflect.Float64:
		return "d"
	case reflect.Struct:
		g.message(t)
		return "@" + modelName(t)
	}
	panic("no kind for " + t.String())
}

func (m markers) has(name string) bool { _, ok := m[name]; return ok }

func (g *generator) fieldMarkers(owner reflect.Type, field string) markers {
	g.load(owner.PkgPath())
	return g.markers[owner.PkgPath()+"."+owner.Name()][field]
}

// load reads the markers of every struct field of a package.
func (g *generator) load(path string) {
	if g.loaded[path] {
		return
	}
	g.loaded[path] = true
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).Output()
	check(err)
	enums, constants := map[string]bool{}, map[string][]string{}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	check(err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		check(err)
		for _, declaration := range parsed.Decls {
			group, ok := declaration.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, one := range group.Specs {
				collectConstants(one, constants)
				spec, ok := one.(*ast.TypeSpec)
				if !ok {
					continue
				}
				if docMarkers(group.Doc).has("enum") || docMarkers(spec.Doc).has("enum") {
					enums[spec.Name.Name] = true
				}
				if body, ok := spec.Type.(*ast.StructType); ok {
					found := structMarkers(body)
					found[""] = docMarkers(group.Doc) // the type's own
					g.markers[path+"."+spec.Name.Name] = found
				}
			}
		}
	}
	for name := range enums {
		values := constants[name]
		sort.Strings(values)
		g.enums[path+"."+name] = values
	}
}

// collectConstants notes the texts of a type's constants.
func collectConstants(one ast.Spec, constants map[string][]string) {
	spec, ok := one.(*ast.ValueSpec)
	if !ok {
		return
	}
	named, ok := spec.Type.(*ast.Ident)
	if !ok {
		return
	}
	for _, value := range spec.Values {
		if text, ok := value.(*ast.BasicLit); ok && text.Kind == token.STRING {
			value, err := strconv.Unquote(text.Value)
			check(err)
			constants[named.Name] = append(constants[named.Name], value)
		}
	}
}

func structMarkers(body *ast.StructType) map[string]markers {
	found := map[string]markers{}
	for _, field := range body.Fields.List {
		for _, name := range field.Names {
			found[name.Name] = docMarkers(field.Doc)
		}
		if len(field.Names) == 0 { // embedded: named as its type
			embedded := field.Type
			if qualified, ok := embedded.(*ast.SelectorExpr); ok {
				embedded = qualified.Sel
			}
			if name, ok := embedded.(*ast.Ident); ok {
				found[name.Name] = docMarkers(field.Doc)
			}
		}
	}
	return found
}

func docMarkers(doc *ast.CommentGroup) markers {
	m := markers{}
	for _, line := range strings.Split(doc.Text(), "\n") {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "+") {
			continue
		}
		key, value, _ := strings.Cut(line[1:], "=")
		m[key] = append(m[key], strings.TrimSpace(value))
	}
	return m
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
