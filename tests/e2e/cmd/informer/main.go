// Command informer runs a client-go shared informer and prints one JSON line per
// event. A failover must show neither a gap nor a doubled change: every object's
// resourceVersions are printed in the order the informer hears them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	jsonContent     = "application/json"
	protobufContent = "application/vnd.kubernetes.protobuf"
)

// line is one printed event. Kind of event: SYNCED, ADDED, MODIFIED, DELETED, ERROR.
type line struct {
	Type            string `json:"type"`
	Resource        string `json:"resource"`
	Namespace       string `json:"namespace,omitempty"`
	Name            string `json:"name,omitempty"`
	UID             string `json:"uid,omitempty"`
	ResourceVersion string `json:"resource_version,omitempty"`
	Initial         bool   `json:"initial,omitempty"`
	Error           string `json:"error,omitempty"`
	AtMS            int64  `json:"at_unix_ms"`
}

type printer struct {
	mutex    sync.Mutex
	out      *json.Encoder
	resource string
}

func (p *printer) print(printed line) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	printed.Resource, printed.AtMS = p.resource, time.Now().UnixMilli()
	if err := p.out.Encode(printed); err != nil {
		fail(err)
	}
}

func (p *printer) object(kind string, object any, initial bool) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		fail(err)
	}
	p.print(line{
		Type: kind, Namespace: accessor.GetNamespace(), Name: accessor.GetName(),
		UID: string(accessor.GetUID()), ResourceVersion: accessor.GetResourceVersion(),
		Initial: initial,
	})
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig file")
	resource := flag.String("resource", "configmaps", "pods, configmaps, nodes, namespaces, secrets, services or events")
	namespace := flag.String("namespace", "", "one namespace; empty: all")
	server := flag.String("server", "", "URL of a master, instead of the kubeconfig's")
	protobuf := flag.Bool("protobuf", false, "ask for protobuf instead of JSON")
	duration := flag.Duration("duration", 0, "how long to run; 0: until stopped")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	config, err := clientcmd.BuildConfigFromFlags(*server, *kubeconfig)
	if err != nil {
		fail(err)
	}
	config.ContentType, config.AcceptContentTypes = jsonContent, jsonContent
	if *protobuf {
		config.ContentType = protobufContent
		config.AcceptContentTypes = protobufContent + "," + jsonContent
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		fail(err)
	}
	// No resync: every line is an event of the server.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(*namespace))
	informer, err := informerFor(factory, *resource)
	if err != nil {
		fail(err)
	}
	if err := follow(ctx, factory, informer, &printer{out: json.NewEncoder(os.Stdout), resource: *resource}); err != nil {
		fail(err)
	}
}

func informerFor(factory informers.SharedInformerFactory, resource string) (cache.SharedIndexInformer, error) {
	core := factory.Core().V1()
	switch resource {
	case "pods":
		return core.Pods().Informer(), nil
	case "configmaps":
		return core.ConfigMaps().Informer(), nil
	case "nodes":
		return core.Nodes().Informer(), nil
	case "namespaces":
		return core.Namespaces().Informer(), nil
	case "secrets":
		return core.Secrets().Informer(), nil
	case "services":
		return core.Services().Informer(), nil
	case "events":
		return core.Events().Informer(), nil
	}
	return nil, fmt.Errorf("no informer for %q", resource)
}

func follow(ctx context.Context, factory informers.SharedInformerFactory, informer cache.SharedIndexInformer, p *printer) error {
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		p.print(line{Type: "ERROR", Error: err.Error()})
	})
	if err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(object any, initial bool) { p.object("ADDED", object, initial) },
		UpdateFunc: func(old, object any) { p.updated(old, object) },
		DeleteFunc: func(object any) { p.object("DELETED", object, false) },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		p.print(line{Type: "SYNCED"})
	}
	<-ctx.Done()
	factory.Shutdown()
	return nil
}

// updated leaves out what a new list repeats: the informer calls it an update of an
// object to the very version it already holds.
func (p *printer) updated(old, object any) {
	if version(old) != version(object) {
		p.object("MODIFIED", object, false)
	}
}

func version(object any) string {
	typed, ok := object.(runtime.Object)
	if !ok {
		return ""
	}
	accessor, err := meta.Accessor(typed)
	if err != nil {
		return ""
	}
	return accessor.GetResourceVersion()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "informer:", err)
	os.Exit(1)
}
