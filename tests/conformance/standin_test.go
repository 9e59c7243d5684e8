package conformance

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	batch "k8s.io/api/batch/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Plays the nodes of nodes.yaml: says of every pod that has one that it runs, and lets it
// go when it is deleted. A job's pod ends when all that its command does is to exit. It
// starts no container: tests that look into one are not for it.
type standIn struct {
	client  kubernetes.Interface
	address atomic.Uint32
}

var standInNodes = []string{"node-a", "node-b"}

// Images that no registry has, by the tests' own words.
var absent = regexp.MustCompile(`:(404|non-?existent)$`)

var exits = regexp.MustCompile(`^exit (\d+)$`)

// Starts playing nodes at the API of a kubeconfig, until the process ends.
func startStandIn(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	nodes := &standIn{client: client}
	factory := informers.NewSharedInformerFactory(client, 0)
	changed := func(object any) {
		if pod, ok := object.(*core.Pod); ok {
			go nodes.look(pod.DeepCopy())
		}
	}
	_, err = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    changed,
		UpdateFunc: func(_, object any) { changed(object) },
	})
	if err != nil {
		return err
	}
	if err := startWebhooks(nodes, factory); err != nil {
		return err
	}
	factory.Start(context.Background().Done())
	for _, name := range standInNodes {
		go nodes.beat(name)
	}
	return nil
}

// Renews a node's lease, as a kubelet does.
func (nodes *standIn) beat(name string) {
	leases := nodes.client.CoordinationV1().Leases(core.NamespaceNodeLease)
	for ; ; time.Sleep(10 * time.Second) {
		ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
		now := meta.NowMicro()
		holder, seconds := name, int32(40)
		lease, err := leases.Get(ctx, name, meta.GetOptions{})
		switch {
		case err == nil:
			lease.Spec.RenewTime = &now
			_, err = leases.Update(ctx, lease, meta.UpdateOptions{})
		case errors.IsNotFound(err):
			_, err = leases.Create(ctx, &coordination.Lease{
				ObjectMeta: meta.ObjectMeta{Name: name},
				Spec: coordination.LeaseSpec{
					HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now,
				},
			}, meta.CreateOptions{})
		}
		if err != nil && os.Getenv("STAND_IN_LOG") != "" {
			fmt.Fprintf(os.Stderr, "lease of %s: %v\n", name, err)
		}
		done()
	}
}

// One step of a pod; what it changes brings the pod here again.
func (nodes *standIn) look(pod *core.Pod) {
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	pods := nodes.client.CoreV1().Pods(pod.Namespace)
	var err error
	switch {
	case pod.DeletionTimestamp != nil && pod.Spec.NodeName != "":
		now := int64(0)
		err = pods.Delete(ctx, pod.Name, meta.DeleteOptions{
			GracePeriodSeconds: &now,
			Preconditions:      &meta.Preconditions{UID: &pod.UID},
		})
	case pod.DeletionTimestamp != nil:
	case !slices.Contains(standInNodes, pod.Spec.NodeName) || absent.MatchString(pod.Spec.Containers[0].Image):
	case pod.Status.Phase == core.PodPending, pod.Status.ObservedGeneration != pod.Generation:
		nodes.run(pod)
		_, err = pods.UpdateStatus(ctx, pod, meta.UpdateOptions{})
	case pod.Status.Phase == core.PodRunning:
		if code, ends := exitCode(pod); ends {
			end(pod, code)
			_, err = pods.UpdateStatus(ctx, pod, meta.UpdateOptions{})
		}
	}
	if err != nil && os.Getenv("STAND_IN_LOG") != "" {
		fmt.Fprintf(os.Stderr, "pod %s/%s: %v\n", pod.Namespace, pod.Name, err)
	}
}

// With which code the command of a job's pod exits, if that is all it does. One whose
// command asks for it fails when its index is odd.
func exitCode(pod *core.Pod) (int, bool) {
	container := pod.Spec.Containers[0]
	words := append(slices.Clone(container.Command), container.Args...)
	index, indexed := pod.Annotations[batch.JobCompletionIndexAnnotation]
	if owner := meta.GetControllerOf(pod); owner == nil || owner.Kind != "Job" {
		return 0, false
	}
	if len(words) == 0 {
		// A shell without input.
		return 0, strings.Contains(container.Image, "/busybox:")
	}
	script := strings.TrimSpace(words[len(words)-1])
	if exit := exits.FindStringSubmatch(script); exit != nil {
		code, err := strconv.Atoi(exit[1])
		return code, err == nil
	}
	number, err := strconv.Atoi(index)
	return number % 2, indexed && err == nil && strings.HasPrefix(script, "if [ $(expr ${JOB_COMPLETION_INDEX} % 2)")
}

// The status of a pod whose containers have ended with a code.
func end(pod *core.Pod, code int) {
	now := meta.Now()
	pod.Status.Phase = core.PodSucceeded
	if code != 0 {
		pod.Status.Phase = core.PodFailed
	}
	for at := range pod.Status.Conditions {
		condition := &pod.Status.Conditions[at]
		if condition.Type == core.PodReady || condition.Type == core.ContainersReady {
			condition.Status = core.ConditionFalse
			condition.LastTransitionTime = now
		}
	}
	for at := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[at]
		status.Ready = false
		status.State = core.ContainerState{Terminated: &core.ContainerStateTerminated{
			ExitCode: int32(code), StartedAt: now, FinishedAt: now,
		}}
	}
}

// The status of a pod whose containers all run.
func (nodes *standIn) run(pod *core.Pod) {
	now := meta.Now()
	status := &pod.Status
	status.ObservedGeneration = pod.Generation
	if status.Phase != core.PodPending {
		return
	}
	number := nodes.address.Add(1)
	address := fmt.Sprintf("10.200.%d.%d", number/250%250, number%250+1)
	status.Phase = core.PodRunning
	status.StartTime = &now
	status.HostIP = "127.0.0.1"
	status.HostIPs = []core.HostIP{{IP: "127.0.0.1"}}
	status.PodIP = address
	status.PodIPs = []core.PodIP{{IP: address}}
	for _, kind := range []core.PodConditionType{core.PodScheduled, core.PodInitialized, core.ContainersReady, core.PodReady} {
		nodes.condition(status, kind, now)
	}
	status.ContainerStatuses = nil
	for _, container := range pod.Spec.Containers {
		started := true
		status.ContainerStatuses = append(status.ContainerStatuses, core.ContainerStatus{
			Name: container.Name, Image: container.Image, ImageID: container.Image,
			ContainerID: "stand-in://" + string(pod.UID) + "/" + container.Name,
			Ready:       true, Started: &started,
			State: core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: now}},
		})
	}
}

func (nodes *standIn) condition(status *core.PodStatus, kind core.PodConditionType, now meta.Time) {
	for at := range status.Conditions {
		if status.Conditions[at].Type == kind {
			status.Conditions[at].Status = core.ConditionTrue
			status.Conditions[at].LastTransitionTime = now
			return
		}
	}
	status.Conditions = append(status.Conditions, core.PodCondition{
		Type: kind, Status: core.ConditionTrue, LastTransitionTime: now,
	})
}
