// Writes what the reference makes of sample objects, for tests of ours to be
// compared with: objects filled at random (from a fixed seed) in both wire
// forms, strategic merge patches, quantities, ages, strict decoding.
//
// Run: go run ./golden ../../tests/golden
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	events "k8s.io/api/events/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kinds "k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	kjson "sigs.k8s.io/json"
)

func main() {
	dir := os.Args[1]
	check(os.MkdirAll(dir, 0o755))
	write(dir, "objects.json", objects())
	write(dir, "strategic.json", patches())
	write(dir, "quantities.json", quantities())
	write(dir, "durations.json", durations())
	write(dir, "strict.json", strict())
	write(dir, "selectors.json", selectors())
}

func write(dir, name string, rows []any) {
	var out strings.Builder
	out.WriteString("[")
	for i, row := range rows {
		if i > 0 {
			out.WriteString(",")
		}
		body, err := json.Marshal(row)
		check(err)
		out.WriteString("\n" + string(body))
	}
	out.WriteString("\n]\n")
	check(os.WriteFile(filepath.Join(dir, name), []byte(out.String()), 0o644))
}

type object struct {
	Schema   string          `json:"schema"`
	JSON     json.RawMessage `json:"json"`
	Protobuf string          `json:"protobuf"`
}

func objects() []any {
	scheme := runtime.NewScheme()
	check(core.AddToScheme(scheme))
	check(events.AddToScheme(scheme))
	check(coordination.AddToScheme(scheme))
	meta.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codec := protobuf.NewSerializer(scheme, scheme)
	check(apiextensions.AddToScheme(kinds.Scheme))
	check(apiregistration.AddToScheme(kinds.Scheme))
	fill := &filler{rand.New(rand.NewSource(37))}
	rows, stable := []any{}, false
	add := func(gv schema.GroupVersion, value runtime.Object, times int) {
		t := reflect.TypeOf(value).Elem()
		for i := 0; i < times; i++ {
			sample := reflect.New(t)
			if i > 0 {
				fill.value(sample.Elem(), 0)
			}
			o := sample.Interface().(runtime.Object)
			o.GetObjectKind().SetGroupVersionKind(gv.WithKind(t.Name()))
			var wire strings.Builder
			check(codec.Encode(o, &wire))
			body, err := json.Marshal(o)
			check(err)
			if stable {
				// The wire does not tell an empty list from none: another sample then.
				read, _, err := codec.Decode([]byte(wire.String()), nil, reflect.New(t).Interface().(runtime.Object))
				check(err)
				again, err := json.Marshal(read)
				check(err)
				if string(again) != string(body) && times < 20 {
					times++
					continue
				}
			}
			rows = append(rows, object{
				Schema:   strings.ReplaceAll(strings.ReplaceAll(t.PkgPath(), "k8s.io/", "io.k8s."), "/", ".") + "." + t.Name(),
				JSON:     body,
				Protobuf: base64.StdEncoding.EncodeToString([]byte(wire.String())),
			})
		}
	}
	v1 := schema.GroupVersion{Version: "v1"}
	add(v1, &core.Pod{}, 12)
	for _, o := range []runtime.Object{
		&core.Namespace{}, &core.Node{}, &core.ConfigMap{}, &core.Secret{}, &core.Service{},
		&core.ServiceAccount{}, &core.Event{}, &core.Binding{}, &core.ConfigMapList{},
	} {
		add(v1, o, 4)
	}
	add(schema.GroupVersion{Group: "events.k8s.io", Version: "v1"}, &events.Event{}, 4)
	add(schema.GroupVersion{Group: "coordination.k8s.io", Version: "v1"}, &coordination.Lease{}, 4)
	add(v1, &meta.DeleteOptions{}, 4)
	add(v1, &meta.Status{}, 4)
	codec, stable = protobuf.NewSerializer(kinds.Scheme, kinds.Scheme), true
	for _, gvk := range others() {
		object, err := kinds.Scheme.New(gvk)
		check(err)
		add(gvk.GroupVersion(), object, 2)
	}
	return rows
}

// others are the kinds of all other groups that a server serves by default.
func others() []schema.GroupVersionKind {
	found := []schema.GroupVersionKind{}
	for _, gv := range kinds.Scheme.PrioritizedVersionsAllGroups() {
		if strings.ContainsAny(gv.Version, "ab") || gv.Group == "events.k8s.io" || gv.Group == "coordination.k8s.io" {
			continue
		}
		for kind, t := range kinds.Scheme.KnownTypes(gv) {
			known := gv.Group == "" && strings.Contains(" Pod Namespace Node ConfigMap Secret Service ServiceAccount Event Binding ", " "+kind+" ")
			plain := strings.HasPrefix(t.PkgPath(), "k8s.io/apimachinery") || strings.HasSuffix(kind, "List") || strings.HasSuffix(kind, "Options")
			// Reviews of webhooks are JSON only.
			if !known && !plain && kind != "ConversionReview" && kind != "AdmissionReview" && gv.Group != "imagepolicy.k8s.io" {
				found = append(found, gv.WithKind(kind))
			}
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].String() < found[j].String() })
	return found
}

// filler fills values at random; deeper fields more rarely.
type filler struct{ *rand.Rand }

// Schemas nest without end.
const deepest = 9

func (f *filler) value(v reflect.Value, depth int) {
	if depth > deepest || f.leaf(v) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if f.rare(depth) {
			v.Set(reflect.New(v.Type().Elem()))
			f.value(v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			if v.Type().Field(i).Name != "TypeMeta" && (depth < 2 || f.rare(depth)) {
				f.value(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		f.slice(v, depth)
	case reflect.Map:
		if f.rare(depth) {
			v.Set(reflect.MakeMap(v.Type()))
			for i := f.Intn(3); i > 0; i-- {
				item := reflect.New(v.Type().Elem()).Elem()
				f.value(item, depth+1)
				v.SetMapIndex(reflect.ValueOf(f.word()).Convert(v.Type().Key()), item)
			}
		}
	case reflect.String:
		v.SetString(f.word())
	case reflect.Bool:
		v.SetBool(f.Intn(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.Intn(5000) - 1000))
	case reflect.Float64:
		v.SetFloat(f.Float64())
	}
}

func (f *filler) rare(depth int) bool { return f.Intn(depth+2) < 2 }

func (f *filler) slice(v reflect.Value, depth int) {
	if !f.rare(depth) {
		return
	}
	length := f.Intn(3)
	if v.Type().Elem().Kind() == reflect.Uint8 {
		body := make([]byte, length+1)
		f.Read(body)
		v.SetBytes(body)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), length, length))
	for i := 0; i < length; i++ {
		f.value(v.Index(i), depth+1)
	}
}

func (f *filler) leaf(v reflect.Value) bool {
	when := time.Unix(1_700_000_000+int64(f.Intn(1_000_000)), int64(f.Intn(1_000_000))*1000).UTC()
	switch leaf := v.Addr().Interface().(type) {
	case *meta.Time:
		*leaf = meta.NewTime(when.Truncate(time.Second))
	case *meta.MicroTime:
		*leaf = meta.NewMicroTime(when)
	case *resource.Quantity:
		texts := []string{"1", "100m", "1Gi", "1536Mi", "2k", "0", "5e3", "-7", "1023", "3n"}
		*leaf = resource.MustParse(texts[f.Intn(len(texts))])
	case *intstr.IntOrString:
		*leaf = intstr.FromInt32(int32(f.Intn(70000) - 10))
		if f.Intn(2) == 0 {
			*leaf = intstr.FromString(f.word())
		}
	case *meta.FieldsV1:
		leaf.Raw = []byte(`{"f:data":{}}`)
	case *runtime.RawExtension:
		leaf.Raw = []byte(`{"x":[1,"y"]}`)
	case *apiextensions.JSON:
		leaf.Raw = []byte(`{"y":[1,null]}`)
	case *apiextensions.JSONSchemaPropsOrBool:
		leaf.Allows = true
		if f.Intn(3) == 0 {
			leaf.Schema = &apiextensions.JSONSchemaProps{Type: "string"}
		}
	case *apiextensions.JSONSchemaPropsOrArray:
		leaf.Schema = &apiextensions.JSONSchemaProps{Type: "array"}
		if f.Intn(2) == 0 {
			*leaf = apiextensions.JSONSchemaPropsOrArray{JSONSchemas: []apiextensions.JSONSchemaProps{{Type: "a"}, {}}}
		}
	case *apiextensions.JSONSchemaPropsOrStringArray:
		leaf.Property = []string{"a", "b"}
	default:
		return false
	}
	return true
}

func (f *filler) word() string {
	words := []string{"", "a", "web", "x-1", "Zürich", "日本", "with \"quotes\"", "line\nbreak", "a/b.c", "0"}
	return words[f.Intn(len(words))]
}

type patchCase struct {
	Schema   string          `json:"schema"`
	Original json.RawMessage `json:"original"`
	Patch    json.RawMessage `json:"patch"`
	Result   json.RawMessage `json:"result"` // null: refused
}

// patches crosses objects with patches; many pairs don't fit, which is meant.
func patches() []any {
	pods := []string{
		`{}`,
		`{"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}],"ports":[{"containerPort":80}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}`,
		`{"spec":{"containers":[{"name":"c"},{"name":"b"},{"name":"a"}],"imagePullSecrets":[{"name":"s"}],"nodeSelector":{"x":"y"},"securityContext":{"sysctls":[{"name":"n","value":"v"}]}},"metadata":{"finalizers":["b","a"],"ownerReferences":[{"uid":"1","name":"o"}]}}`,
	}
	changes := []string{
		`{"spec":{"containers":[{"name":"b","image":"3"},{"name":"c","image":"4"}]}}`,
		`{"spec":{"containers":[{"name":"a","env":[{"name":"F","value":"2"}]}]}}`,
		`{"spec":{"containers":[{"name":"a","env":[{"name":"E","value":null,"valueFrom":{"fieldRef":{"fieldPath":"p"}}}]}]}}`,
		`{"spec":{"containers":[{"name":"a","$patch":"delete"}]}}`,
		`{"spec":{"containers":[{"name":"a","$patch":"delete"},{"name":"d"}]}}`,
		`{"spec":{"containers":[{"$patch":"replace"},{"name":"z"}]}}`,
		`{"spec":{"containers":[{"name":"a","$patch":"replace","image":"9"}]}}`,
		`{"spec":{"tolerations":[{"key":"l"}]}}`,
		`{"spec":{"tolerations":null}}`,
		`{"spec":{"tolerations":[]}}`,
		`{"spec":{"nodeSelector":{"x":null,"z":"1"}}}`,
		`{"spec":{"nodeSelector":{"$patch":"replace","z":"1"}}}`,
		`{"spec":{"nodeSelector":null}}`,
		`{"metadata":{"labels":{"a":null,"b":"2"}}}`,
		`{"metadata":{"$patch":"replace","name":"n"}}`,
		`{"metadata":{"$patch":"delete"}}`,
		`{"metadata":{"annotations":{"a":"1","b":null}}}`,
		`{"metadata":{"finalizers":["x/3","x/1"]}}`,
		`{"metadata":{"finalizers":["c","a"],"$setElementOrder/finalizers":["c","a","b"]}}`,
		`{"metadata":{"$setElementOrder/finalizers":["x/2","x/1"]}}`,
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/1"]}}`,
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["z"],"$setElementOrder/finalizers":["z","b"]}}`,
		`{"metadata":{"ownerReferences":[{"uid":"1","$patch":"delete"},{"uid":"2"}]}}`,
		`{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"c"},{"name":"a"}],"containers":[{"name":"c","image":"5"}]}}`,
		`{"spec":{"$setElementOrder/containers":[{"name":"c"},{"name":"a"}],"containers":[{"name":"c","image":"5"},{"name":"b","$patch":"delete"}]}}`,
		`{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"c"}]}}`,
		`{"spec":{"$setElementOrder/containers":[{"name":"z"},{"name":"a"},{"name":"b"}],"containers":[{"name":"z"}]}}`,
		`{"spec":{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/p"}}]}}`,
		`{"spec":{"volumes":[{"name":"v","$retainKeys":["name"],"hostPath":{}}]}}`,
		`{"spec":{"volumes":[{"name":"w","$retainKeys":["name","emptyDir"],"emptyDir":{}}],"$setElementOrder/volumes":[{"name":"w"},{"name":"v"}]}}`,
		`{"spec":{"containers":[{"image":"3"}]}}`,
		`{"spec":{"$patch":"explode"}}`,
		`{"spec":{"containers":"x"}}`,
		`{"spec":{"containers":null}}`,
		`{"spec":null}`,
		`{"spec":{"imagePullSecrets":[{"name":"t"},{"name":"s"}]}}`,
		`{"spec":{"securityContext":{"sysctls":[{"name":"m","value":"w"}],"runAsUser":5}}}`,
		`{"spec":{"securityContext":{"$retainKeys":["runAsUser"],"runAsUser":5}}}`,
		`{"spec":{"containers":[{"name":"n","env":[{"name":"x","$patch":"delete"}],"resources":{"limits":{"cpu":null}}}]}}`,
	}
	rows := []any{}
	for _, original := range pods {
		for _, change := range changes {
			result, err := strategicpatch.StrategicMergePatch([]byte(original), []byte(change), core.Pod{})
			if err != nil {
				result = []byte("null")
			}
			rows = append(rows, patchCase{"io.k8s.api.core.v1.Pod", []byte(original), []byte(change), result})
		}
	}
	return rows
}

func quantities() []any {
	rows := []any{}
	for _, text := range []string{
		"0", "1", "-1", "+1", "1.", ".5", "0.5", "1.5", "100m", "1000m", "1500m", "1k", "1000", "1024", "1023Ki",
		"1024Ki", "1Ki", "0.5Ki", "1.5Gi", "1.1Gi", "1e3", "1E3", "1e-3", "12e6", "1E", "1Ei", "0.1n", "1n", "1u",
		"999999999999", "123456789012345678901234567890", "9223372036854775807", "9223372036854775808", "8Ei", "100Ei",
		"1.23456789012", "0.0000000001", "-0.0000000001", "1e20", "1e-20", "1P", "1Pi", "5T", "3M", "1234567", "10000Mi",
		"", "a", "1.1.1", "1x", "1mm", "--1", "1e", "1 ", "Ki", ".", "e3", "1KiB", "0x10", "1_000",
	} {
		row := map[string]string{"text": text}
		if q, err := resource.ParseQuantity(text); err != nil {
			row["error"] = err.Error()
		} else {
			body, err := json.Marshal(q)
			check(err)
			check(json.Unmarshal(body, &text))
			row["canonical"] = text
		}
		rows = append(rows, row)
	}
	return rows
}

func durations() []any {
	rows := []any{}
	random := rand.New(rand.NewSource(1))
	for scale := int64(4); scale < 1<<30; scale *= 2 {
		for i := 0; i < 4; i++ {
			seconds := random.Int63n(scale) - 2
			rows = append(rows, []any{seconds, duration.HumanDuration(time.Duration(seconds) * time.Second)})
		}
	}
	return rows
}

func strict() []any {
	rows := []any{}
	for _, body := range []string{
		`{}`,
		`{"foo":1,"bar":{"a":1,"a":2}}`,
		`{"spec":{"containers":[{"name":"a","bar":{"x":1}},{"nome":"b"}],"nodeName":"a","nodeName":"b"}}`,
		`{"metadata":{"labels":{"a":"1","a":"2"},"Name":"x"}}`,
		`{"spec":{"volumes":[{"name":"v","emptyDir":{"x":1},"nope":{}}]}}`,
		`{"spec":{"nodeSelector":{"a":"1","b":"2","a":"3"}},"spec":{"hostname":"h"}}`,
		`{"spec":{"containers":[{"resources":{"limits":{"cpu":"1","cpu":"2"},"x":1}}]}}`,
		`{"spec":{"Containers":[]},"kind":"Pod","kind":"Pod"}`,
		`{"status":{"conditions":[{"foo":1},{"foo":2}]}}`,
		`{"metadata":{"managedFields":[{"fieldsV1":{"f:x":{},"f:x":{}}}]}}`,
	} {
		found, err := kjson.UnmarshalStrict([]byte(body), &core.Pod{})
		check(err)
		messages := []string{}
		for _, one := range found {
			messages = append(messages, one.Error())
		}
		rows = append(rows, map[string]any{"body": body, "messages": messages})
	}
	return rows
}

func selectors() []any {
	sets := []labels.Set{{}, {"a": "1"}, {"a": "2", "b": "x"}, {"a": "", "c": "5"}}
	rows := []any{}
	for _, text := range []string{
		"", "a", "!a", "a=1", "a==1", "a!=1", "a in (1,2)", "a notin (1)", "a in ()", "a in (,1)", "c>4", "c<5", "c>x",
		"a=1,b=x", "a=2,b in (x,y),!c", " a = 1 ", "a=", "a!=", "a,", ",a", "a=b=c", "=a", "a in b", "a,,b", "x in (a",
		"a=%", "a b", "!", "!!a", "a in (1", "a in (1,2))", "a notin", "-a=1", "a/b/c=1", "/a=1", "A.b/c=1", "a~b", "a=(",
		"a<5", "a>1,a<3", "in", "in in (in)", "notin notin (notin)", "a in(1)", "a=in", "a==,b",
	} {
		row := map[string]any{"text": text}
		selector, err := labels.Parse(text)
		if err != nil {
			row["error"] = err.Error()
		} else {
			matches := []bool{}
			for _, set := range sets {
				matches = append(matches, selector.Matches(set))
			}
			row["matches"] = matches
		}
		rows = append(rows, row)
	}
	return rows
}

func check(err error) {
	if err != nil {
		panic(fmt.Sprint(err))
	}
}
