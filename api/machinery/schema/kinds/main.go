// Writes the table of the kinds that a kube-apiserver of this release serves by
// default: names, verbs, subresources (from the release's discovery documents) and
// the columns of their tables (from the printers themselves).
// The same module versions give the same bytes. Run: go run . > ../kinds-v1.37.json
//
// A column is [name, type, format, priority, description]; the description names
// the field whose documentation it repeats, as `core.v1.PodSpec.nodeName`; prose
// that stands nowhere else is left out. A subresource is [name, group, version,
// kind, verbs, type].
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	internalextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	definitions "k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/tableconvertor"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/kubernetes/scheme"
	internalregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiservices "k8s.io/kube-aggregator/pkg/registry/apiservice/etcd"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	_ "k8s.io/kubernetes/pkg/apis/flowcontrol/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/storagemigration/install"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
)

const kubernetes = "k8s.io/kubernetes"

// Group versions served by default, in the order of `/apis`.
var served = []string{
	"v1", "apiregistration.k8s.io/v1", "apps/v1", "events.k8s.io/v1",
	"authentication.k8s.io/v1", "authorization.k8s.io/v1", "autoscaling/v2",
	"autoscaling/v1", "batch/v1", "certificates.k8s.io/v1", "networking.k8s.io/v1",
	"policy/v1", "rbac.authorization.k8s.io/v1", "storage.k8s.io/v1",
	"admissionregistration.k8s.io/v1", "apiextensions.k8s.io/v1",
	"scheduling.k8s.io/v1", "coordination.k8s.io/v1", "node.k8s.io/v1",
	"discovery.k8s.io/v1", "resource.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1",
	"storagemigration.k8s.io/v1",
}

// Kinds whose stores do not use the printers, though some have one.
var unprinted = map[string]bool{
	"roles": true, "clusterroles": true, "limitranges": true, "csistoragecapacities": true,
}

type kind struct {
	Group        string   `json:"group"`
	Version      string   `json:"version"`
	Kind         string   `json:"kind"`
	Plural       string   `json:"plural"`
	Singular     string   `json:"singular"`
	Namespaced   bool     `json:"namespaced"`
	Verbs        []string `json:"verbs"`
	ShortNames   []string `json:"shortNames,omitempty"`
	Categories   []string `json:"categories,omitempty"`
	Hash         string   `json:"storageVersionHash,omitempty"`
	Schema       string   `json:"schema"`
	Columns      [][]any  `json:"columns"`
	Subresources [][]any  `json:"subresources,omitempty"`
}

type generator struct {
	columns map[schema.GroupKind][]meta.TableColumnDefinition
	fields  map[string]string // documentation -> where it stands
}

func main() {
	for _, add := range []func(*runtime.Scheme) error{apiextensions.AddToScheme, apiregistration.AddToScheme} {
		check(add(scheme.Scheme))
	}
	g := &generator{columns: map[schema.GroupKind][]meta.TableColumnDefinition{}, fields: map[string]string{}}
	printersinternal.AddHandlers(g)
	g.ownTables()
	g.document()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprint(out, "{\"kinds\":[")
	separator := "\n"
	for _, groupVersion := range served {
		for _, one := range g.kinds(groupVersion) {
			row, err := json.Marshal(one)
			check(err)
			fmt.Fprintf(out, "%s%s", separator, row)
			separator = ",\n"
		}
	}
	fmt.Fprint(out, "\n]}\n")
}

// TableHandler is called by the printers for each type they know.
func (g *generator) TableHandler(columns []meta.TableColumnDefinition, print any) error {
	of := reflect.TypeOf(print).In(0)
	kinds, _, err := legacyscheme.Scheme.ObjectKinds(reflect.New(of.Elem()).Interface().(runtime.Object))
	if err != nil {
		return nil // a type of no group: statuses, tables
	}
	for _, kind := range kinds {
		g.columns[kind.GroupKind()] = columns
	}
	return nil
}

var _ printers.PrintHandler = &generator{}

// ownTables takes the columns of the kinds whose stores print themselves.
func (g *generator) ownTables() {
	print := func(store rest.TableConvertor, group, kind string, object runtime.Object) {
		table, err := store.ConvertToTable(context.Background(), object, nil)
		check(err)
		g.columns[schema.GroupKind{Group: group, Kind: kind}] = table.ColumnDefinitions
	}
	print(&apiservices.REST{}, "apiregistration.k8s.io", "APIService", &internalregistration.APIService{})
	print(definitions.New(), "apiextensions.k8s.io", "CustomResourceDefinition", &internalextensions.CustomResourceDefinition{})
}

// document finds where each field's documentation stands; of equal texts the first by name.
func (g *generator) document() {
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || seen[t] {
			return
		}
		seen[t] = true
		if documented, ok := reflect.New(t).Interface().(interface{ SwaggerDoc() map[string]string }); ok {
			for field, text := range documented.SwaggerDoc() {
				place := modelName(t) + "." + field
				if present, ok := g.fields[text]; field != "" && (!ok || place < present) {
					g.fields[text] = place
				}
			}
		}
		for i := 0; i < t.NumField(); i++ {
			walk(t.Field(i).Type)
		}
	}
	for _, groupVersion := range served {
		gv, err := schema.ParseGroupVersion(groupVersion)
		check(err)
		for _, t := range scheme.Scheme.KnownTypes(gv) {
			walk(t)
		}
	}
}

func (g *generator) kinds(groupVersion string) []kind {
	gv, err := schema.ParseGroupVersion(groupVersion)
	check(err)
	file := "apis__" + gv.Group + "__" + gv.Version
	if gv.Group == "" {
		file = "api__" + gv.Version
	}
	text, err := os.ReadFile(filepath.Join(moduleDir(), "api/discovery", file+".json"))
	check(err)
	var list meta.APIResourceList
	check(json.Unmarshal(text, &list))
	sort.Slice(list.APIResources, func(i, j int) bool { return list.APIResources[i].Name < list.APIResources[j].Name })
	found := []kind{}
	for _, r := range list.APIResources {
		of := schema.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: r.Kind}
		if r.Version != "" {
			of.Group, of.Version = r.Group, r.Version
		}
		if _, sub, ok := strings.Cut(r.Name, "/"); ok {
			owner := &found[len(found)-1]
			owner.Subresources = append(owner.Subresources,
				[]any{sub, of.Group, of.Version, of.Kind, r.Verbs, typeName(of)})
			continue
		}
		found = append(found, kind{
			gv.Group, gv.Version, r.Kind, r.Name, r.SingularName, r.Namespaced, r.Verbs, r.ShortNames,
			r.Categories, r.StorageVersionHash, typeName(of), g.table(of.GroupKind(), r.Name), nil,
		})
	}
	return found
}

func (g *generator) table(of schema.GroupKind, plural string) [][]any {
	rows := [][]any{}
	columns := g.columns[of]
	if unprinted[plural] || len(columns) == 0 {
		object := meta.ObjectMeta{}.SwaggerDoc()
		columns = []meta.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: object["name"]},
			{Name: "Created At", Type: "date", Description: object["creationTimestamp"]},
		}
	}
	for _, c := range columns {
		rows = append(rows, []any{c.Name, c.Type, c.Format, c.Priority, g.fields[c.Description]})
	}
	return rows
}

func typeName(of schema.GroupVersionKind) string {
	object, err := scheme.Scheme.New(of)
	check(err)
	return modelName(reflect.TypeOf(object).Elem())
}

// modelName is the type's name in OpenAPI: the package path with the host reversed.
func modelName(t reflect.Type) string {
	path := strings.ReplaceAll(t.PkgPath(), "k8s.io/", "io.k8s.")
	return strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

func moduleDir() string {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", kubernetes).Output()
	check(err)
	return strings.TrimSpace(string(dir))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
