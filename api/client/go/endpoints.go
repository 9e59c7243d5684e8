package client

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// maxEndpoints bounds the members believed of one quorum.
	maxEndpoints = 64
	// Pauses before an endpoint that failed is tried again: doubled with each failure.
	backoffLeast = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
	// retryAfterMost bounds what a server may ask for.
	retryAfterMost = 30 * time.Second
	// refusedPause is how long an endpoint whose evidence was refused is left alone.
	refusedPause = 30 * time.Second
)

// endpoints decides where the next request goes. It knows no clock and no chance: both
// are arguments. What it holds is where to ask, never whom to believe.
type endpoints struct {
	known []*endpoint
	// The one that took the last beat; beats stay with it, on one connection.
	current string
	// Who leads, as the last answer said.
	leader string
}

type endpoint struct {
	address   string
	given     bool
	failures  int
	notBefore time.Time
	refusal   error
}

// newEndpoints begins with those given, in order, then those of a cache, which last
// until a member says who the members are.
func newEndpoints(given, cached []string) *endpoints {
	e := &endpoints{}
	for _, address := range given {
		e.add(address, true)
	}
	for _, address := range cached {
		e.add(address, false)
	}
	return e
}

func (e *endpoints) add(address string, given bool) {
	if len(e.known) < maxEndpoints && e.find(address) == nil {
		e.known = append(e.known, &endpoint{address: address, given: given})
	}
}

func (e *endpoints) find(address string) *endpoint {
	for _, known := range e.known {
		if known.address == address {
			return known
		}
	}
	return nil
}

// choose gives the endpoint to ask now: the leader first where a request is for it, then
// the last good one, then whoever failed least. When all have to rest it gives how long.
func (e *endpoints) choose(now time.Time, leaderFirst bool) (string, time.Duration) {
	rank := func(candidate *endpoint) int {
		switch {
		case leaderFirst && candidate.address == e.leader:
			return -2
		case candidate.address == e.current:
			return -1
		}
		return candidate.failures
	}
	var best *endpoint
	wait := backoffMost
	for _, candidate := range e.known {
		if rest := candidate.notBefore.Sub(now); rest > 0 {
			wait = min(wait, rest)
		} else if best == nil || rank(candidate) < rank(best) {
			best = candidate
		}
	}
	if best == nil {
		return "", wait
	}
	return best.address, 0
}

// good notes an answer. Beats do not stay with a node that was chosen for leading: members
// share them.
func (e *endpoints) good(address string, leaderFirst bool) {
	if known := e.find(address); known != nil {
		known.failures, known.notBefore, known.refusal = 0, time.Time{}, nil
		if !leaderFirst {
			e.current = address
		}
	}
}

// failed lets an endpoint rest: for as long as it asked, and at least a backoff of which
// chance (0 to 1) takes off up to a half, so that workers do not come back in step.
func (e *endpoints) failed(address string, now time.Time, asked time.Duration, chance float64) {
	known := e.find(address)
	if known == nil {
		return
	}
	backoff := min(backoffLeast<<min(known.failures, 10), backoffMost)
	backoff -= time.Duration(chance / 2 * float64(backoff))
	known.failures++
	known.refusal = nil
	known.notBefore = now.Add(max(backoff, min(asked, retryAfterMost)))
	e.leave(address)
}

func (e *endpoints) refused(address string, now time.Time, reason error) {
	if known := e.find(address); known != nil {
		known.failures++
		known.refusal = reason
		known.notBefore = now.Add(refusedPause)
		e.leave(address)
	}
}

func (e *endpoints) leave(address string) {
	if e.current == address {
		e.current = ""
	}
	if e.leader == address {
		e.leader = ""
	}
}

// refusal is why nobody is to be believed: set while every endpoint rests whose evidence was
// refused.
func (e *endpoints) refusal(now time.Time) error {
	var last error
	for _, known := range e.known {
		if known.refusal == nil || !known.notBefore.After(now) {
			return nil
		}
		last = known.refusal
	}
	return last
}

// learn takes in the members that a believed one names, in an order of chance so that
// workers spread, and forgets those that were neither given nor named. One that names
// nobody has nothing to teach.
func (e *endpoints) learn(named []string) {
	if len(named) == 0 {
		return
	}
	e.known = slices.DeleteFunc(e.known, func(known *endpoint) bool {
		return !known.given && !slices.Contains(named, known.address)
	})
	for _, at := range rand.Perm(len(named)) {
		e.add(named[at], false)
	}
}

func (e *endpoints) addresses() []string {
	var all []string
	for _, known := range e.known {
		all = append(all, known.address)
	}
	return all
}

// parseAddress reads https://host:port or host:port, and writes the former.
func parseAddress(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	at, err := url.Parse(text)
	if err != nil || at.Scheme != "https" || at.Hostname() == "" || at.Port() == "" ||
		at.User != nil || strings.Trim(at.Path, "/") != "" || at.RawQuery != "" {
		return "", fmt.Errorf("%q is no endpoint: write https://HOST:PORT", text)
	}
	return "https://" + at.Host, nil
}
