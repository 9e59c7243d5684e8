// A kubelet for tests: the real server of kubelets (k8s.io/kubernetes/pkg/kubelet/server)
// over the real streaming server of container runtimes (k8s.io/cri-streaming), with
// processes of this machine in the place of containers.
//
// It registers a Node that points to it, and says of the pods that are bound to it that
// they run. A command runs in the pod's own folder. A container's log is what the
// environment of its first container says under LOG, line by line; the log of a
// container named "options" is the options that the kubelet was asked with.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/client-go/util/retry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/server"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	name := flag.String("node", "node-1", "the node's name")
	address := flag.String("address", "127.0.0.1", "where to serve, and what the Node says")
	certificate := flag.String("tls-cert-file", "", "the serving certificate")
	key := flag.String("tls-private-key-file", "", "its key")
	clientCA := flag.String("client-ca-file", "", "whose clients may ask")
	advertised := flag.String("advertise-address", "", "what the Node says instead")
	tunnel := flag.String("tunnel", "", "a master to bring a tunnel to, as host:port")
	tunnelCertificate := flag.String("tunnel-cert-file", "", "the node's client certificate, for the tunnel")
	tunnelKey := flag.String("tunnel-key-file", "", "its key")
	features := flag.String("declared-features", "", "what the Node says it can do")
	flag.Parse()

	client := clientOf(*kubeconfig)
	folder, err := os.MkdirTemp("", "kubelet-")
	check(err)
	defer os.RemoveAll(folder)
	kubelet := &kubelet{client: client, node: *name, folder: folder}
	kubelet.startStreaming()

	listener, err := net.Listen("tcp", net.JoinHostPort(*address, "0"))
	check(err)
	port := listener.Addr().(*net.TCPAddr).Port
	configuration := &config.KubeletConfiguration{EnableDebuggingHandlers: true}
	handler := server.NewServer(context.Background(), kubelet, nil, nil, nil, nil, configuration)
	web := &http.Server{Handler: &handler, TLSConfig: tlsOf(*certificate, *key, *clientCA)}
	go func() { log.Fatal(web.ServeTLS(listener, "", "")) }()

	if *tunnel != "" {
		go bringTunnel(*tunnel, *tunnelCertificate, *tunnelKey, *clientCA, port)
	}
	if *advertised == "" {
		advertised = address
	}
	kubelet.register(*advertised, int32(port), *features)
	fmt.Printf("serving on %s:%d\n", *address, port)
	go kubelet.runPods()
	select {}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func clientOf(kubeconfig string) kubernetes.Interface {
	configuration, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	check(err)
	client, err := kubernetes.NewForConfig(configuration)
	check(err)
	return client
}

func tlsOf(certificate, key, clientCA string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	pem, err := os.ReadFile(clientCA)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientCAs:    roots,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		VerifyPeerCertificate: func(_ [][]byte, chains [][]*x509.Certificate) error {
			subject := chains[0][0].Subject
			for _, group := range subject.Organization {
				if group == "system:masters" && subject.CommonName == "kube-apiserver-kubelet-client" {
					return nil
				}
			}
			return fmt.Errorf("no client of an API server: %s", subject)
		},
	}
}

// bringTunnel holds a tunnel as an agent of K3s does, and opens nothing but this kubelet
// for the other side.
func bringTunnel(master, certificate, key, authority string, port int) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	pem, err := os.ReadFile(authority)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	dialer := &websocket.Dialer{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}}
	own := fmt.Sprintf("127.0.0.1:%d", port)
	allowed := func(proto, address string) bool { return proto == "tcp" && address == own }
	connected := func(context.Context, *remotedialer.Session) error {
		fmt.Println("tunnel connected")
		return nil
	}
	for {
		err := remotedialer.ConnectToProxy(context.Background(), "wss://"+master+"/v1-k3s/connect", http.Header{}, allowed, dialer, connected)
		log.Printf("the tunnel ended: %v", err)
		time.Sleep(200 * time.Millisecond)
	}
}

// kubelet is what the server asks of a kubelet; what is not here is not asked by tests.
type kubelet struct {
	server.HostInterface
	client    kubernetes.Interface
	node      string
	folder    string
	streaming streaming.Server
}

func (k *kubelet) startStreaming() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	configuration := streaming.DefaultConfig
	configuration.Addr = listener.Addr().String()
	k.streaming, err = streaming.NewServer(configuration, k)
	check(err)
	go func() { log.Fatal(http.Serve(listener, k.streaming)) }()
}

func (k *kubelet) register(address string, port int32, features string) {
	ctx := context.Background()
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.node}}
	created, err := k.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		created, err = k.client.CoreV1().Nodes().Get(ctx, k.node, metav1.GetOptions{})
	}
	check(err)
	// Controllers of nodes may be first to write to it.
	check(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		created.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}}
		created.Status.DaemonEndpoints.KubeletEndpoint.Port = port
		if features != "" {
			created.Status.DeclaredFeatures = strings.Split(features, ",")
		}
		_, err := k.client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			created, _ = k.client.CoreV1().Nodes().Get(ctx, k.node, metav1.GetOptions{})
		}
		return err
	}))
}

// runPods says of every pod of this node that its containers run.
func (k *kubelet) runPods() {
	ctx := context.Background()
	mine := fields.OneTermEqualSelector("spec.nodeName", k.node).String()
	for {
		time.Sleep(200 * time.Millisecond)
		pods, err := k.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: mine})
		if err != nil {
			continue
		}
		for index := range pods.Items {
			pod := &pods.Items[index]
			if pod.DeletionTimestamp != nil {
				zero := int64(0)
				_ = k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
				continue
			}
			if run(pod) {
				_, _ = k.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
			}
		}
	}
}

func run(pod *v1.Pod) bool {
	changed := pod.Status.Phase != v1.PodRunning
	pod.Status.Phase = v1.PodRunning
	running := func(statuses []v1.ContainerStatus, name string) []v1.ContainerStatus {
		for _, status := range statuses {
			if status.Name == name {
				return statuses
			}
		}
		changed = true
		started := true
		return append(statuses, v1.ContainerStatus{
			Name: name, Ready: true, Started: &started, ContainerID: "process://" + name,
			State: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.Now()}},
		})
	}
	for _, container := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = running(pod.Status.ContainerStatuses, container.Name)
	}
	for _, container := range pod.Spec.EphemeralContainers {
		pod.Status.EphemeralContainerStatuses = running(pod.Status.EphemeralContainerStatuses, container.Name)
	}
	if changed {
		pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}
	}
	return changed
}

func (k *kubelet) GetPodByName(namespace, name string) (*v1.Pod, bool) {
	pod, err := k.client.CoreV1().Pods(namespace).Get(context.Background(), name, metav1.GetOptions{})
	return pod, err == nil
}

func (k *kubelet) GetPods() []*v1.Pod { return nil }

func (k *kubelet) SyncLoopHealthCheck(*http.Request) error { return nil }

func (k *kubelet) GetKubeletContainerLogs(ctx context.Context, full, container string, options *v1.PodLogOptions, stdout, _ io.Writer) error {
	if container == "options" {
		return json.NewEncoder(stdout).Encode(options)
	}
	name, namespace, _ := strings.Cut(full, "_")
	pod, _ := k.GetPodByName(namespace, name)
	if pod == nil {
		return errors.New("no such pod")
	}
	if options.Previous {
		return fmt.Errorf("previous terminated container %q in pod %q not found", container, name)
	}
	lines := []string{}
	for _, variable := range pod.Spec.Containers[0].Env {
		if variable.Name == "LOG" {
			lines = strings.Split(variable.Value, "\n")
		}
	}
	if options.TailLines != nil && int(*options.TailLines) < len(lines) {
		lines = lines[len(lines)-int(*options.TailLines):]
	}
	for _, line := range lines {
		fmt.Fprintln(stdout, line)
	}
	if options.Follow {
		// Proof that what was written before came through before the end.
		for index := range 3 {
			time.Sleep(100 * time.Millisecond)
			fmt.Fprintf(stdout, "later %d\n", index)
		}
	}
	return nil
}

func location(text string, err error) (*url.URL, error) {
	if err != nil {
		return nil, err
	}
	return url.Parse(text)
}

func (k *kubelet) GetExec(_ context.Context, pod string, _ types.UID, _ string, command []string, options remotecommand.Options) (*url.URL, error) {
	answer, err := k.streaming.GetExec(&runtimeapi.ExecRequest{
		ContainerId: pod, Cmd: command, Tty: options.TTY,
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr,
	})
	return location(answer.GetUrl(), err)
}

func (k *kubelet) GetAttach(_ context.Context, pod string, _ types.UID, container string, options remotecommand.Options) (*url.URL, error) {
	answer, err := k.streaming.GetAttach(&runtimeapi.AttachRequest{
		ContainerId: pod + "/" + container, Tty: options.TTY,
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr,
	})
	return location(answer.GetUrl(), err)
}

func (k *kubelet) GetPortForward(_ context.Context, name, namespace string, _ types.UID, options portforward.V4Options) (*url.URL, error) {
	answer, err := k.streaming.GetPortForward(&runtimeapi.PortForwardRequest{
		PodSandboxId: name + "_" + namespace, Port: options.Ports,
	})
	return location(answer.GetUrl(), err)
}

// Exec runs a command in the pod's folder.
func (k *kubelet) Exec(ctx context.Context, pod string, arguments []string, in io.Reader, out, problems io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	folder := filepath.Join(k.folder, pod)
	check(os.MkdirAll(folder, 0o755))
	command := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	command.Dir = folder
	if tty {
		return exit(runOnTerminal(command, in, out, resize))
	}
	command.Stdout, command.Stderr = writer(out), writer(problems)
	if in != nil {
		// Not command.Stdin: its end would be waited for.
		pipe, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(pipe, in)
			_ = pipe.Close()
		}()
	}
	return exit(command.Run())
}

func writer(stream io.WriteCloser) io.Writer {
	if stream == nil {
		return io.Discard
	}
	return stream
}

func exit(err error) error {
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return utilexec.CodeExitError{Err: failed, Code: failed.ExitCode()}
	}
	return err
}

func runOnTerminal(command *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	command.Stdin, command.Stdout, command.Stderr = terminal, terminal, terminal
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	go func() {
		for size := range resize {
			_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
		}
	}()
	if err := command.Start(); err != nil {
		return err
	}
	_ = terminal.Close()
	if in != nil {
		go func() { _, _ = io.Copy(master, in) }()
	}
	var copied sync.WaitGroup
	copied.Go(func() { _, _ = io.Copy(out, master) })
	err = command.Wait()
	copied.Wait()
	return err
}

// Attach greets, and says back what it hears until it hears "bye".
func (k *kubelet) Attach(_ context.Context, container string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	if out != nil {
		fmt.Fprintf(out, "attached to %s\n", container)
	}
	if in == nil {
		return nil
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if out != nil {
			fmt.Fprintf(out, "heard %s\n", text)
		}
		if text == "bye" {
			break
		}
	}
	return nil
}

// PortForward connects to a port of this machine.
func (k *kubelet) PortForward(_ context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	target, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer target.Close()
	go func() {
		_, _ = io.Copy(target, stream)
		_ = target.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, target)
	return err
}
