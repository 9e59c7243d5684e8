// Writes what the reference's printers show of sample objects of every kind, for our
// cells to be compared with: objects filled at random from a fixed seed, with words
// that the printers know.
//
// Times in the samples are before NOW (seconds since 1970), which stands for the time
// of printing. Run: go run ./cells > ../../tests/golden/cells.json
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

	internalextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	definitions "k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/tableconvertor"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
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

// Seconds since 1970 that stand for now in the samples: 2026-01-01T00:00:00Z.
const now = 1767225600

// Samples of each kind.
const samples = 3

type kind struct {
	Group, Version, Kind, Plural string
	StorageVersionHash           string
}

type row struct {
	Group   string          `json:"group"`
	Version string          `json:"version"`
	Plural  string          `json:"plural"`
	Object  json.RawMessage `json:"object"`
	Cells   []any           `json:"cells"`
}

var unprinted = map[string]bool{
	"roles": true, "clusterroles": true, "limitranges": true, "csistoragecapacities": true,
}

func main() {
	for _, add := range []func(*runtime.Scheme) error{
		apiextensions.AddToScheme, apiregistration.AddToScheme,
	} {
		check(add(scheme.Scheme))
	}
	check(internalextensions.AddToScheme(legacyscheme.Scheme))
	check(apiextensions.AddToScheme(legacyscheme.Scheme))
	check(internalregistration.AddToScheme(legacyscheme.Scheme))
	check(apiregistration.AddToScheme(legacyscheme.Scheme))
	text, err := os.ReadFile("../kinds-v1.37.json")
	check(err)
	var table struct{ Kinds []kind }
	check(json.Unmarshal(text, &table))
	generator := printers.NewTableGenerator().With(printersinternal.AddHandlers)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintf(out, "{\"now\":%d,\"rows\":[", now)
	separator := "\n"
	for at, k := range table.Kinds {
		if k.StorageVersionHash == "" || unprinted[k.Plural] {
			continue
		}
		fill := &filler{rand.New(rand.NewSource(int64(at)))}
		for i := 0; i < samples; i++ {
			if printed, ok := print(generator, fill, k); ok {
				body, err := json.Marshal(printed)
				check(err)
				fmt.Fprintf(out, "%s%s", separator, body)
				separator = ",\n"
			}
		}
	}
	fmt.Fprint(out, "\n]}\n")
}

// print makes a sample and what the reference shows of it; false if it is none.
func print(generator *printers.HumanReadableGenerator, fill *filler, k kind) (found row, ok bool) {
	// The printers trust what validation would have refused.
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	gvk := schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}
	object, err := scheme.Scheme.New(gvk)
	check(err)
	fill.value(reflect.ValueOf(object).Elem(), "", 0)
	object.GetObjectKind().SetGroupVersionKind(gvk)
	body, err := json.Marshal(object)
	check(err)
	// What JSON cannot say is not in the sample.
	object, err = scheme.Scheme.New(gvk)
	check(err)
	check(json.Unmarshal(body, object))
	if k.Kind != "CustomResourceDefinition" { // shows no ages
		shift(reflect.ValueOf(object).Elem(), time.Duration(time.Now().Unix()-now)*time.Second)
	}
	internal, err := legacyscheme.Scheme.UnsafeConvertToVersion(object, schema.GroupVersion{Group: k.Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return row{}, false
	}
	var printed *meta.Table
	switch k.Kind {
	case "CustomResourceDefinition":
		printed, err = convert(definitions.New(), internal)
	case "APIService":
		printed, err = convert(&apiservices.REST{}, internal)
	default:
		printed, err = generator.GenerateTable(internal, printers.GenerateOptions{Wide: true})
	}
	if err != nil {
		return row{}, false
	}
	return row{k.Group, k.Version, k.Plural, body, printed.Rows[0].Cells}, true
}

func convert(store rest.TableConvertor, object runtime.Object) (*meta.Table, error) {
	return store.ConvertToTable(context.Background(), object, nil)
}

// shift moves every time of an object.
func shift(v reflect.Value, by time.Duration) {
	switch value := v.Addr().Interface().(type) {
	case *meta.Time:
		if !value.IsZero() {
			value.Time = value.Add(by)
		}
		return
	case *meta.MicroTime:
		if !value.IsZero() {
			value.Time = value.Add(by)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			shift(v.Elem(), by)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			if v.Type().Field(i).IsExported() {
				shift(v.Field(i), by)
			}
		}
	case reflect.Slice:
		for i := 0; i < v.Len(); i++ {
			shift(v.Index(i), by)
		}
	}
}

// filler fills values at random, sparsely below the first levels.
type filler struct{ *rand.Rand }

// Words by field; others get a short name.
var words = map[string][]string{
	"Status": {"True", "False", "Unknown"},
	"Type": {
		"Ready", "Complete", "Failed", "Approved", "Denied", "Issued", "Available", "Established",
		"Suspended", "Healthy", "Succeeded", "Running", "Dangling", "Initialized", "PodScheduled",
		"ClusterIP", "LoadBalancer", "ExternalName", "Resource", "Pods", "Object", "External",
		"ContainerResource", "InternalIP", "ExternalIP", "Limited", "Exempt",
	},
	"Phase":      {"Running", "Pending", "Succeeded", "Failed", "Bound"},
	"Kind":       {"User", "Group", "ServiceAccount", "Pod", "Deployment"},
	"Reason":     {"", "Completed", "Error", "SchedulingGated", "CrashLoopBackOff", "NodeLost"},
	"Operator":   {"In", "NotIn", "Exists"},
	"APIVersion": {"apps/v1", "v1"},
	"Resource":   {"pods", "Things"},
	"IP":         {"10.1.2.3", "fd00::1", "10.1.2.4"},
}

var nested = map[string]bool{
	"Affinity": true, "Volumes": true, "StringData": true, "GenerateName": true, "SelfLink": true, "UID": true,
	"ResourceVersion": true, "Generation": true, "DeletionGracePeriodSeconds": true, "Finalizers": true,
	"Annotations": false, "SecurityContext": true, "ManagedFields": true,
	"Lifecycle": true, "LivenessProbe": true, "ReadinessProbe": true, "StartupProbe": true,
	"Env": true, "EnvFrom": true, "EphemeralContainers": true, "EphemeralContainerStatuses": true,
	"Schema": true, "TopologySpreadConstraints": true, "Tolerations": true, "VolumeMounts": true,
	"VolumeDevices": true, "PersistentVolumeSource": true, "Conversion": true, "Allocation": false,
	"VolumeClaimTemplates": true, "DNSConfig": true, "NodeAffinity": true, "Data": true,
	"Rules": false, "ClientConfig": true, "Images": true, "ResourceClaims": true, "Config": true,
	"AllocatedResources": true, "AllocatedResourcesStatus": true, "Resources": false,
	"MatchResources": true, "MatchConstraints": true, "NamespaceSelector": true,
	"ObjectSelector": true, "AdditionalPrinterColumns": true, "SharedCounters": true,
	"Devices": true, "PodTemplate": true, "TypeMeta": true, "Variables": true,
}

func (f *filler) value(v reflect.Value, name string, depth int) {
	if nested[name] || depth > 9 || f.leaf(v) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if f.some(depth) {
			v.Set(reflect.New(v.Type().Elem()))
			f.value(v.Elem(), name, depth+1)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			field := v.Type().Field(i)
			if field.IsExported() {
				f.value(v.Field(i), field.Name, depth+1)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if f.some(depth) {
				v.SetBytes([]byte{1, 2})
			}
			return
		}
		n := f.Intn(3)
		if depth < 4 && f.Intn(4) == 0 {
			n = 5
		}
		for i := 0; i < n; i++ {
			element := reflect.New(v.Type().Elem()).Elem()
			f.value(element, name, depth+1)
			v.Set(reflect.Append(v, element))
		}
	case reflect.Map:
		f.entries(v, depth)
	case reflect.String:
		f.word(v, name)
	case reflect.Bool:
		v.SetBool(f.Intn(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.Intn(9)))
	}
}

func (f *filler) word(v reflect.Value, name string) {
	if list, ok := words[name]; ok && f.Intn(8) != 0 {
		v.SetString(list[f.Intn(len(list))])
	} else if f.Intn(4) != 0 {
		v.SetString(strings.ToLower(string("abcdefgh"[f.Intn(8)])) + fmt.Sprint(f.Intn(3)))
	}
}

func (f *filler) entries(v reflect.Value, depth int) {
	if !f.some(depth) || v.Type().Elem().Kind() == reflect.Slice {
		return
	}
	keys := []string{"storage", "cpu", "limits.cpu", "kubernetes.io/role", "node-role.kubernetes.io/x"}
	sort.Strings(keys)
	v.Set(reflect.MakeMap(v.Type()))
	for _, key := range keys {
		if f.Intn(2) == 0 {
			element := reflect.New(v.Type().Elem()).Elem()
			f.value(element, "", depth+1)
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), element)
		}
	}
}

func (f *filler) leaf(v reflect.Value) bool {
	ago := func() time.Time { return time.Unix(now-int64(1)<<f.Intn(28), 0).UTC() }
	switch value := v.Addr().Interface().(type) {
	case *meta.Time:
		if f.Intn(4) != 0 {
			*value = meta.NewTime(ago())
		}
	case *meta.MicroTime:
		if f.Intn(4) != 0 {
			*value = meta.NewMicroTime(ago())
		}
	case *resource.Quantity:
		*value = resource.MustParse([]string{"1", "100m", "2Gi", "1500"}[f.Intn(4)])
	case *intstr.IntOrString:
		*value = []intstr.IntOrString{intstr.FromInt32(3), intstr.FromString("50%")}[f.Intn(2)]
	case *runtime.RawExtension:
		value.Raw = []byte(`{}`)
	case *apiextensions.JSONSchemaProps, *meta.FieldsV1, *meta.Duration:
	default:
		return false
	}
	return true
}

func (f *filler) some(depth int) bool { return depth < 4 || f.Intn(3) != 0 }

func check(err error) {
	if err != nil {
		panic(err)
	}
}
