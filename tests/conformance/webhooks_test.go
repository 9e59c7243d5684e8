package conformance

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/spf13/cobra"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	conversion "k8s.io/kubernetes/test/images/agnhost/crd-conversion-webhook"
	admission "k8s.io/kubernetes/test/images/agnhost/webhook"
)

// Plays the Deployments of the suite's webhooks and the Services in front of them: the
// handlers of the suite's own image answer in this process, on an address of this machine
// that is not loopback, with the certificate of the Deployment's Secret. Other Deployments
// and Services are left alone.
type webhooks struct {
	nodes   *standIn
	address net.IP

	lock   sync.Mutex
	served map[types.UID]*served
}

// A Deployment that is served.
type served struct {
	namespace string
	labels    labels.Set
	server    *http.Server
	port      int32
}

// By the first argument of the container.
var handlers = map[string]http.Handler{}

// Lets the image's programs register their handlers: the rest of each, which wants to be
// in a container, ends with the goroutine.
func collectHandlers() {
	exit := klog.OsExit
	defer func() { klog.OsExit = exit }()
	klog.OsExit = func(int) { runtime.Goexit() }
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	defer klog.LogToStderr(true)
	defer klog.SetOutput(os.Stderr)
	for _, command := range []*cobra.Command{admission.CmdWebhook, conversion.CmdCrdConversionWebhook} {
		own := http.NewServeMux()
		whole := http.DefaultServeMux
		http.DefaultServeMux = own
		done := make(chan struct{})
		go func() {
			defer close(done)
			command.Run(command, nil)
		}()
		<-done
		http.DefaultServeMux = whole
		handlers[command.Name()] = own
	}
}

// An address at which a master can reach this process.
func ownAddress() (net.IP, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		if own, ok := address.(*net.IPNet); ok && own.IP.To4() != nil && own.IP.IsGlobalUnicast() {
			return own.IP, nil
		}
	}
	return nil, fmt.Errorf("webhooks need an IPv4 address that is not loopback, and this machine has none")
}

func startWebhooks(nodes *standIn, factory informers.SharedInformerFactory) error {
	collectHandlers()
	address, err := ownAddress()
	if err != nil {
		return err
	}
	hooks := &webhooks{nodes: nodes, address: address, served: map[types.UID]*served{}}
	deployments := factory.Apps().V1().Deployments().Informer()
	if _, err := deployments.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if deployment, ok := object.(*apps.Deployment); ok {
				go hooks.report(deployment.DeepCopy(), hooks.deploy)
			}
		},
		DeleteFunc: func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			if deployment, ok := object.(*apps.Deployment); ok {
				hooks.stop(deployment.UID)
			}
		},
	}); err != nil {
		return err
	}
	services := factory.Core().V1().Services().Informer()
	_, err = services.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if service, ok := object.(*core.Service); ok {
				go hooks.pair(service.DeepCopy())
			}
		},
	})
	return err
}

func (hooks *webhooks) report(deployment *apps.Deployment, step func(context.Context, *apps.Deployment) error) {
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	if err := step(ctx, deployment); err != nil {
		fmt.Fprintf(os.Stderr, "deployment %s/%s: %v\n", deployment.Namespace, deployment.Name, err)
	}
}

// Serves a Deployment of the image's webhooks and says that it is complete.
func (hooks *webhooks) deploy(ctx context.Context, deployment *apps.Deployment) error {
	pod := &deployment.Spec.Template.Spec
	if len(pod.Containers) != 1 || len(pod.Containers[0].Args) == 0 || len(pod.Volumes) != 1 || pod.Volumes[0].Secret == nil {
		return nil
	}
	handler, ok := handlers[pod.Containers[0].Args[0]]
	if !ok {
		return nil
	}
	secret, err := hooks.nodes.client.CoreV1().Secrets(deployment.Namespace).Get(ctx, pod.Volumes[0].Secret.SecretName, meta.GetOptions{})
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(hooks.address.String(), "0"), &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener)
	hooks.lock.Lock()
	hooks.served[deployment.UID] = &served{
		namespace: deployment.Namespace,
		labels:    deployment.Spec.Template.Labels,
		server:    server,
		port:      int32(listener.Addr().(*net.TCPAddr).Port),
	}
	hooks.lock.Unlock()
	err = hooks.complete(ctx, deployment)
	if errors.IsNotFound(err) {
		hooks.stop(deployment.UID)
	}
	return err
}

// What the controllers of Deployments and ReplicaSets would write of a complete rollout.
func (hooks *webhooks) complete(ctx context.Context, deployment *apps.Deployment) error {
	const revision, hashLabel, hash = "deployment.kubernetes.io/revision", apps.DefaultDeploymentUniqueLabelKey, "standin"
	marked := func(own map[string]string) map[string]string {
		return labels.Merge(own, labels.Set{hashLabel: hash})
	}
	replicas := *deployment.Spec.Replicas
	template := *deployment.Spec.Template.DeepCopy()
	template.Labels = marked(template.Labels)
	sets := hooks.nodes.client.AppsV1().ReplicaSets(deployment.Namespace)
	set, err := sets.Create(ctx, &apps.ReplicaSet{
		ObjectMeta: meta.ObjectMeta{
			Name:            deployment.Name + "-" + hash,
			Labels:          template.Labels,
			Annotations:     map[string]string{revision: "1"},
			OwnerReferences: []meta.OwnerReference{*meta.NewControllerRef(deployment, apps.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: apps.ReplicaSetSpec{
			Replicas: &replicas,
			Selector: &meta.LabelSelector{MatchLabels: marked(deployment.Spec.Selector.MatchLabels)},
			Template: template,
		},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	set.Status = apps.ReplicaSetStatus{
		Replicas: replicas, FullyLabeledReplicas: replicas, ReadyReplicas: replicas,
		AvailableReplicas: replicas, ObservedGeneration: set.Generation,
	}
	if _, err := sets.UpdateStatus(ctx, set, meta.UpdateOptions{}); err != nil {
		return err
	}
	deployments := hooks.nodes.client.AppsV1().Deployments(deployment.Namespace)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"1"}}}`, revision)
	deployment, err = deployments.Patch(ctx, deployment.Name, types.MergePatchType, patch, meta.PatchOptions{})
	if err != nil {
		return err
	}
	now := meta.Now()
	deployment.Status = apps.DeploymentStatus{
		ObservedGeneration: deployment.Generation,
		Replicas:           replicas, UpdatedReplicas: replicas,
		ReadyReplicas: replicas, AvailableReplicas: replicas,
		Conditions: []apps.DeploymentCondition{{
			Type: apps.DeploymentAvailable, Status: core.ConditionTrue, Reason: "MinimumReplicasAvailable",
			LastUpdateTime: now, LastTransitionTime: now,
		}},
	}
	_, err = deployments.UpdateStatus(ctx, deployment, meta.UpdateOptions{})
	return err
}

func (hooks *webhooks) stop(uid types.UID) {
	hooks.lock.Lock()
	defer hooks.lock.Unlock()
	if found, ok := hooks.served[uid]; ok {
		found.server.Close()
		delete(hooks.served, uid)
	}
}

// Gives a Service that selects a served Deployment its endpoint.
func (hooks *webhooks) pair(service *core.Service) {
	if len(service.Spec.Selector) == 0 || len(service.Spec.Ports) != 1 {
		return
	}
	port, ok := hooks.behind(service)
	if !ok {
		return
	}
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	slices := hooks.nodes.client.DiscoveryV1().EndpointSlices(service.Namespace)
	_, err := slices.Create(ctx, &discovery.EndpointSlice{
		ObjectMeta: meta.ObjectMeta{
			Name:            service.Name + "-standin",
			Labels:          map[string]string{discovery.LabelServiceName: service.Name},
			OwnerReferences: []meta.OwnerReference{*meta.NewControllerRef(service, core.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: discovery.AddressTypeIPv4,
		Ports: []discovery.EndpointPort{{
			Name: &service.Spec.Ports[0].Name, Port: &port, Protocol: ptr.To(core.ProtocolTCP),
		}},
		Endpoints: []discovery.Endpoint{{
			Addresses:  []string{hooks.address.String()},
			Conditions: discovery.EndpointConditions{Ready: ptr.To(true)},
		}},
	}, meta.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		fmt.Fprintf(os.Stderr, "service %s/%s: %v\n", service.Namespace, service.Name, err)
	}
}

func (hooks *webhooks) behind(service *core.Service) (int32, bool) {
	hooks.lock.Lock()
	defer hooks.lock.Unlock()
	selector := labels.SelectorFromSet(service.Spec.Selector)
	for _, found := range hooks.served {
		if found.namespace == service.Namespace && selector.Matches(found.labels) {
			return found.port, true
		}
	}
	return 0, false
}
