package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"time"
)

const (
	// BeatInterval is how often a worker beats; three missed beats make it lost.
	BeatInterval = 30 * time.Second

	registerPath     = "/api/v1/register-worker"
	registerAttempt  = 15 * time.Second
	registerDeadline = 45 * time.Second
	beatPath         = "/api/v1/heartbeat"
	beatAttempt      = 6 * time.Second
	beatDeadline     = 25 * time.Second
	// beatJitter is the share of the interval by which beats are drawn apart.
	beatJitter = 0.1
	// retryPause is between two calls that found nobody.
	retryPause = time.Second
)

// Facts is what a beat says of the worker; nil fields are left out.
type Facts struct {
	StakeStatus   string         `json:"stake_status,omitempty"`
	StakeAmount   *uint64        `json:"stake_amount,omitempty"`
	RunningPods   *int           `json:"running_pods,omitempty"`
	ResourceUsage *ResourceUsage `json:"resource_usage,omitempty"`
}

// ResourceUsage is in percent.
type ResourceUsage struct {
	CPU    float64 `json:"cpu_percent"`
	Memory float64 `json:"memory_percent"`
	Disk   float64 `json:"disk_percent"`
}

// Event is what a running worker tells: what it did, and why it failed if it did.
type Event struct {
	// What is "registered" or "acknowledged"; with Err, what was tried.
	What string
	Err  error
}

// Worker is one machine that joins with a Seal token.
type Worker struct {
	Client *Client
	NodeID string
	Token  string
	// Owner, if set, proves with each registration and beat that the token's owner sends it.
	Owner Signer
	// Interval between beats; 0 is BeatInterval.
	Interval time.Duration
	// Facts, if set, is asked before each beat.
	Facts func() Facts
	// Observe, if set, hears of every registration and beat.
	Observe func(Event)
}

// Register registers the worker. All attempts carry one timestamp and have one effect.
func (w *Worker) Register(ctx context.Context) error {
	return w.post(ctx, request{
		path: registerPath, leaderFirst: true,
		attempt: registerAttempt, deadline: registerDeadline,
	}, Facts{})
}

// Beat sends one heartbeat.
func (w *Worker) Beat(ctx context.Context) error {
	var facts Facts
	if w.Facts != nil {
		facts = w.Facts()
	}
	return w.post(ctx, request{path: beatPath, attempt: beatAttempt, deadline: beatDeadline}, facts)
}

// Run registers and beats until the context ends, which gives nil, or the quorum refuses
// the worker or is not to be believed. A quorum that is out of reach is waited for; one
// that does not know the worker any more gets its registration again.
func (w *Worker) Run(ctx context.Context) error {
	interval := w.Interval
	if interval == 0 {
		interval = BeatInterval
	}
	what, act := "registered", w.Register
	for {
		started := time.Now()
		err := act(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if w.Observe != nil {
			w.Observe(Event{what, err})
		}
		var refusal *Refusal
		pause := retryPause
		switch {
		case err == nil:
			apart := 1 + beatJitter*(2*mathrand.Float64()-1)
			pause = time.Duration(float64(interval)*apart) - time.Since(started)
			if what == "registered" {
				pause = 0
			}
			what, act = "acknowledged", w.Beat
		case errors.As(err, &refusal) && refusal.Status == http.StatusNotFound && what == "acknowledged":
			what, act, pause = "registered", w.Register, retryPause
		case !errors.Is(err, ErrUnavailable):
			return err
		}
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

func (w *Worker) post(ctx context.Context, r request, facts Facts) error {
	now := time.Now().Unix()
	body, err := json.Marshal(struct {
		NodeID    string `json:"node_id"`
		Timestamp int64  `json:"timestamp"`
		Facts
	}{w.NodeID, now, facts})
	if err != nil {
		return err
	}
	r.body = body
	r.header = http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json"},
		"X-Seal-Token": {w.Token},
	}
	if w.Owner != nil {
		proof, err := w.Owner.SignPersonalMessage(ctx, ProofMessage(w.NodeID, now))
		if err != nil {
			return fmt.Errorf("the owner's proof: %w", err)
		}
		r.header.Set("X-Seal-Proof", base64.StdEncoding.EncodeToString(proof))
	}
	return w.Client.call(ctx, r)
}
