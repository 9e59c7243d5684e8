// Command worker speaks the worker's wire form with resty: it registers, then
// beats. It prints one JSON line per answer and exits with 3 after three failed
// beats in a row, where a worker in the field would restart its kubelet.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-resty/resty/v2"
)

const (
	registerPath = "/api/v1/register-worker"
	// Exit codes, so that a test can tell the ends apart.
	exitUsage      = 2
	exitFailures   = 3
	exitRegistered = 4
	// Failures in a row that a worker bears.
	failureLimit = 3
)

type servers []string

func (s *servers) String() string { return strings.Join(*s, ",") }

func (s *servers) Set(text string) error {
	for _, server := range strings.Split(text, ",") {
		if server = strings.TrimRight(strings.TrimSpace(server), "/"); server != "" {
			*s = append(*s, server)
		}
	}
	return nil
}

type options struct {
	servers  servers
	ca       string
	token    string
	nodeID   string
	path     string
	interval time.Duration
	timeout  time.Duration
	count    int
	pods     int
	stake    string
	accept   string
	bodyOnly bool
	register bool
}

// registration is the body of POST /api/v1/register-worker.
type registration struct {
	NodeID    string `json:"node_id"`
	SealToken string `json:"seal_token"`
	Timestamp int64  `json:"timestamp"`
}

// heartbeat is the body of POST /api/v1/heartbeat.
type heartbeat struct {
	NodeID        string             `json:"node_id"`
	SealToken     string             `json:"seal_token,omitempty"`
	Timestamp     int64              `json:"timestamp"`
	StakeStatus   string             `json:"stake_status"`
	StakeAmount   uint64             `json:"stake_amount"`
	RunningPods   int                `json:"running_pods"`
	ResourceUsage map[string]float64 `json:"resource_usage"`
}

// line is one printed answer.
type line struct {
	What   string          `json:"what"`
	Server string          `json:"server"`
	Status int             `json:"status"`
	TookMS float64         `json:"took_ms"`
	Body   json.RawMessage `json:"body,omitempty"`
	Text   string          `json:"text,omitempty"`
	Error  string          `json:"error,omitempty"`
	AtMS   int64           `json:"at_unix_ms"`
}

type worker struct {
	options options
	client  *resty.Client
	out     *json.Encoder
	// The server that answered last; tried first.
	current int
}

func main() {
	options := parse()
	client := resty.New().
		SetTimeout(options.timeout).
		SetHeader("Content-Type", "application/json")
	if options.accept != "" {
		client.SetHeader("Accept", options.accept)
	}
	if options.ca != "" {
		if _, err := os.Stat(options.ca); err != nil {
			fail(exitUsage, err)
		}
		client.SetRootCertificate(options.ca)
	}
	w := &worker{options: options, client: client, out: json.NewEncoder(os.Stdout)}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(w.run(ctx))
}

func parse() options {
	var o options
	flag.Var(&o.servers, "server", "URL of a master; repeat it or separate by commas")
	flag.StringVar(&o.ca, "ca", "", "PEM file of the quorum's CA")
	flag.StringVar(&o.token, "token", "", "Seal token")
	flag.StringVar(&o.nodeID, "node-id", "", "the worker's id")
	flag.StringVar(&o.path, "path", "/api/v1/heartbeat", "path of the heartbeat")
	flag.DurationVar(&o.interval, "interval", 30*time.Second, "time between beats")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Second, "time an answer may take")
	flag.IntVar(&o.count, "count", 0, "beats to send; 0: until stopped")
	flag.IntVar(&o.pods, "running-pods", 0, "pods said to run")
	flag.StringVar(&o.stake, "stake-status", "active", "active, slashed or withdrawn")
	flag.StringVar(&o.accept, "accept", "", "Accept header; empty: the client's own")
	flag.BoolVar(&o.bodyOnly, "token-in-body", false, "beat with the token in the body alone")
	flag.BoolVar(&o.register, "register", true, "register before beating")
	flag.Parse()
	if len(o.servers) == 0 || o.nodeID == "" {
		fail(exitUsage, errors.New("--server and --node-id are needed"))
	}
	return o
}

func (w *worker) run(ctx context.Context) int {
	if w.options.register && !w.registered(ctx) {
		return exitRegistered
	}
	failures := 0
	for beat := 0; w.options.count == 0 || beat < w.options.count; beat++ {
		if beat > 0 && !sleep(ctx, w.options.interval) {
			return 0
		}
		if w.beat(ctx) {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			return 0
		}
		if failures++; failures >= failureLimit {
			return exitFailures
		}
	}
	return 0
}

func (w *worker) registered(ctx context.Context) bool {
	for range failureLimit {
		ok := w.post(ctx, "register", registerPath, w.options.token, registration{
			NodeID:    w.options.nodeID,
			SealToken: w.options.token,
			Timestamp: time.Now().Unix(),
		})
		if ok {
			return true
		}
		if !sleep(ctx, time.Second) {
			return false
		}
	}
	return false
}

func (w *worker) beat(ctx context.Context) bool {
	body := heartbeat{
		NodeID:      w.options.nodeID,
		Timestamp:   time.Now().Unix(),
		StakeStatus: w.options.stake,
		StakeAmount: 1_000_000_000,
		RunningPods: w.options.pods,
		ResourceUsage: map[string]float64{
			"cpu_percent": 12.5, "memory_percent": 40, "disk_percent": 7.25,
		},
	}
	header := w.options.token
	if w.options.bodyOnly {
		body.SealToken, header = w.options.token, ""
	}
	return w.post(ctx, "heartbeat", w.options.path, header, body)
}

// post sends to the servers in turn, beginning with the one that answered last,
// until one answers at all. Any status but 200 is a refusal.
func (w *worker) post(ctx context.Context, what, path, token string, body any) bool {
	for range w.options.servers {
		server := w.options.servers[w.current]
		request := w.client.R().SetContext(ctx).SetBody(body)
		if token != "" {
			request.SetHeader("X-Seal-Token", token)
		}
		started := time.Now()
		response, err := request.Post(server + path)
		printed := line{
			What: what, Server: server, AtMS: time.Now().UnixMilli(),
			TookMS: float64(time.Since(started).Microseconds()) / 1000,
		}
		if err != nil {
			printed.Error = err.Error()
			w.print(printed)
			w.current = (w.current + 1) % len(w.options.servers)
			if ctx.Err() != nil {
				return false
			}
			continue
		}
		printed.Status = response.StatusCode()
		if json.Valid(response.Body()) {
			printed.Body = response.Body()
		} else {
			printed.Text = response.String()
		}
		w.print(printed)
		return response.StatusCode() == http.StatusOK
	}
	return false
}

func (w *worker) print(printed line) {
	if err := w.out.Encode(printed); err != nil {
		fail(1, err)
	}
}

// sleep reports whether the whole time passed.
func sleep(ctx context.Context, duration time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(duration):
		return true
	}
}

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "worker:", err)
	os.Exit(code)
}
