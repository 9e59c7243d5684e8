// Package client is a leader-aware client of a nautilus quorum for workers: it discovers
// the members, believes only those whose evidence it has verified, goes to the leader where
// that saves a hop, and goes on elsewhere when a node dies.
//
// Invariants: no token leaves before the very TLS key it goes to was vouched for by
// accepted evidence over a fresh nonce; every request is idempotent, so that one whose
// outcome is unknown is sent again; everything that is held has a bound.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	connectTimeout = 2 * time.Second
	// proofTimeout is for a node to make its evidence and answer.
	proofTimeout = 10 * time.Second
	// proofLifetime is how long a key that was vouched for is believed.
	proofLifetime   = 10 * time.Minute
	idleTimeout     = 90 * time.Second
	nonceBytes      = 32
	maxAnswerBytes  = 256 * 1024
	maxKeys         = 2 * maxEndpoints
	maxMessageBytes = 600

	attestationPath = "/api/v1/attestation"
	leaderHeader    = "X-Nautilus-Leader-Address"
)

// Config is what a client is told.
type Config struct {
	// Endpoints are some members: https://HOST:PORT. The others are discovered.
	Endpoints []string
	// Policy says which code is believed.
	Policy Policy
	// Authority, if set, must have issued the serving certificates: evidence tells which
	// code answers, the quorum's authority tells which quorum.
	Authority *x509.CertPool
	// Certificate, if set, gives the certificate that is shown to the quorum, such as the
	// kubelet's, as of now.
	Certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// CacheFile, if set, keeps the members' addresses for the next start.
	CacheFile string
}

// Client speaks to one quorum. Its methods may be called at the same time.
type Client struct {
	config Config
	http   *http.Client

	mu        sync.Mutex
	endpoints *endpoints
	// keys are the serving keys that were vouched for, and until when they are believed.
	keys map[string]time.Time
	// proven is until when an endpoint needs no new evidence.
	proven  map[string]time.Time
	cluster string
}

// Refusal is the quorum's final word on a request.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	// Message says why.
	Message string
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused (HTTP %d): %s", r.Status, r.Message) }

// Distrust is returned when nobody is believed, by evidence or by the authority given; no
// token was sent.
type Distrust struct {
	// Endpoint was judged last.
	Endpoint string
	// Reason is why it is not believed.
	Reason error
}

func (d *Distrust) Error() string {
	return fmt.Sprintf("%s is not believed: %v", d.Endpoint, d.Reason)
}

func (d *Distrust) Unwrap() error { return d.Reason }

// ErrUnavailable says that nobody answered in time.
var ErrUnavailable = errors.New("no member of the quorum answered in time")

// errUnproven says that a connection was not made because its key was not vouched for.
var errUnproven = errors.New("the serving key has not been vouched for")

// New checks the configuration; it speaks to nobody yet.
func New(config Config) (*Client, error) {
	var given []string
	for _, text := range config.Endpoints {
		address, err := parseAddress(text)
		if err != nil {
			return nil, err
		}
		given = append(given, address)
	}
	cached := readCache(config.CacheFile)
	if len(given)+len(cached) == 0 {
		return nil, errors.New("there is no endpoint to begin with")
	}
	if len(given) > maxEndpoints {
		return nil, fmt.Errorf("%d endpoints are more than %d", len(given), maxEndpoints)
	}
	// Each worker begins elsewhere, so that they spread over the members.
	mathrand.Shuffle(len(given), func(i, j int) { given[i], given[j] = given[j], given[i] })
	c := &Client{
		config:    config,
		endpoints: newEndpoints(given, cached),
		keys:      map[string]time.Time{},
		proven:    map[string]time.Time{},
	}
	c.http = httpClient(func(ctx context.Context, _, address string) (net.Conn, error) {
		return c.dial(ctx, address, c.checkKey)
	}, false)
	return c, nil
}

// Endpoints are the members known now.
func (c *Client) Endpoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoints.addresses()
}

// request is one call of the worker's face.
type request struct {
	path   string
	header http.Header
	body   []byte
	// leaderFirst: the request is a write of the leader's.
	leaderFirst bool
	// attempt and deadline bound one try and the whole call.
	attempt, deadline time.Duration
}

// call sends a request until somebody has answered it, within its deadline.
func (c *Client) call(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(ctx, r.deadline)
	defer cancel()
	last := ErrUnavailable
	for {
		c.mu.Lock()
		now := time.Now()
		address, wait := c.endpoints.choose(now, r.leaderFirst)
		distrust := c.endpoints.refusal(now)
		c.mu.Unlock()
		if distrust != nil {
			return distrust
		}
		if address == "" {
			if !sleep(ctx, wait) {
				return errors.Join(ErrUnavailable, last)
			}
			continue
		}
		err := c.attempt(ctx, address, r)
		var refusal *Refusal
		if err == nil || errors.As(err, &refusal) {
			return err
		}
		last = fmt.Errorf("%s: %w", address, err)
		if ctx.Err() != nil {
			return errors.Join(ErrUnavailable, last)
		}
	}
}

// attempt asks one endpoint, and notes what came of it. An error that is no Refusal says
// that another endpoint may do better.
func (c *Client) attempt(ctx context.Context, address string, r request) error {
	ctx, cancel := context.WithTimeout(ctx, r.attempt)
	defer cancel()
	answer, err := c.send(ctx, address, r)
	var distrust *Distrust
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.As(err, &distrust):
		c.endpoints.refused(address, time.Now(), distrust)
		return err
	case err != nil:
		c.endpoints.failed(address, time.Now(), 0, mathrand.Float64())
		return err
	}
	if leader := answer.header.Get(leaderHeader); leader != "" {
		c.endpoints.leader = leader
	}
	refusal := &Refusal{Status: answer.status, Message: answer.message()}
	switch {
	case answer.status == http.StatusTooManyRequests || answer.status >= 500:
		asked, _ := strconv.Atoi(answer.header.Get("Retry-After"))
		c.endpoints.failed(address, time.Now(), time.Duration(asked)*time.Second, mathrand.Float64())
		return errors.New(refusal.Error())
	case answer.status == http.StatusOK:
		refusal = nil
	}
	c.endpoints.good(address, r.leaderFirst)
	if refusal != nil {
		return refusal
	}
	return nil
}

// send judges the endpoint if that is due, and sends. A node that has another key than it
// had is judged anew, once.
func (c *Client) send(ctx context.Context, address string, r request) (*answer, error) {
	if !c.isProven(address) {
		if err := c.prove(ctx, address); err != nil {
			return nil, err
		}
	}
	answer, err := c.post(ctx, address, r)
	if errors.Is(err, errUnproven) {
		if err := c.prove(ctx, address); err != nil {
			return nil, err
		}
		answer, err = c.post(ctx, address, r)
	}
	return answer, err
}

func (c *Client) post(ctx context.Context, address string, r request) (*answer, error) {
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, address+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	post.Header = r.header.Clone()
	// Not sent: it tells net/http that the request may be sent again on a new connection.
	post.Header["Idempotency-Key"] = nil
	return do(c.http, post)
}

func (c *Client) isProven(address string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.proven[address])
}

// prove asks a node for evidence over a fresh nonce and the key of this very connection,
// judges it, and learns whom it names.
func (c *Client) prove(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	url := address + attestationPath + "?nonce=" + hex.EncodeToString(nonce)
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	asking := httpClient(func(ctx context.Context, _, at string) (net.Conn, error) {
		return c.dial(ctx, at, nil)
	}, true)
	answer, err := do(asking, get)
	if err != nil {
		return err
	}
	if answer.status != http.StatusOK {
		return fmt.Errorf("no evidence (HTTP %d): %s", answer.status, answer.message())
	}
	var said struct {
		Evidence []byte `json:"evidence"`
		Quorum   struct {
			Cluster string `json:"cluster"`
			Members []struct {
				Address string `json:"api_address"`
			} `json:"members"`
		} `json:"quorum"`
	}
	if err := json.Unmarshal(answer.body, &said); err != nil {
		return fmt.Errorf("evidence in an unknown form: %w", err)
	}
	var named []string
	for _, member := range said.Quorum.Members {
		// A member that has not joined yet serves nowhere.
		if at, err := parseAddress(member.Address); err == nil && len(named) < maxEndpoints {
			named = append(named, at)
		}
	}
	_, reason := c.config.Policy.judge(ctx, said.Evidence, attestationReportData(nonce, answer.spki), time.Now())
	if errors.Is(reason, ErrCannotTell) {
		return reason
	}
	return c.believe(address, answer.spki, said.Quorum.Cluster, named, reason)
}

// believe notes what a node's evidence is worth.
func (c *Client) believe(address string, spki []byte, cluster string, named []string, reason error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reason == nil && c.cluster != "" && c.cluster != cluster {
		reason = fmt.Errorf("it is of quorum %q, expected %q", cluster, c.cluster)
	}
	now := time.Now()
	for key, until := range c.keys {
		if !now.Before(until) {
			delete(c.keys, key)
		}
	}
	if reason == nil && len(c.keys) >= maxKeys {
		reason = fmt.Errorf("more than %d serving keys within %v", maxKeys, proofLifetime)
	}
	if reason != nil {
		delete(c.keys, string(spki))
		delete(c.proven, address)
		c.http.CloseIdleConnections()
		return &Distrust{Endpoint: address, Reason: reason}
	}
	c.cluster = cluster
	c.keys[string(spki)] = now.Add(proofLifetime)
	c.proven[address] = now.Add(proofLifetime)
	c.endpoints.learn(named)
	for at := range c.proven {
		if c.endpoints.find(at) == nil {
			delete(c.proven, at)
		}
	}
	writeCache(c.config.CacheFile, c.endpoints.addresses())
	return nil
}

// dial opens TLS 1.3. The certificate's issuer counts only where an authority is given;
// check, if any, has a look at the key.
func (c *Client) dial(ctx context.Context, address string, check func(spki []byte) error) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// Not the usual check: evidence decides, and the authority if there is one. There
		// are no resumed sessions, which would skip it.
		InsecureSkipVerify:   true,
		GetClientCertificate: c.config.Certificate,
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			if c.config.Authority != nil {
				_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: c.config.Authority})
				if err != nil {
					return &Distrust{Endpoint: "https://" + address, Reason: err}
				}
			}
			if check == nil {
				return nil
			}
			return check(leaf.RawSubjectPublicKeyInfo)
		},
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: connectTimeout}, Config: config}
	return dialer.DialContext(ctx, "tcp", address)
}

func (c *Client) checkKey(spki []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.keys[string(spki)]) {
		return nil
	}
	return errUnproven
}

// httpClient speaks HTTP/1.1, takes no proxy of the environment and follows no redirect.
func httpClient(dial func(context.Context, string, string) (net.Conn, error), once bool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialTLSContext:    dial,
			DisableKeepAlives: once,
			IdleConnTimeout:   idleTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
	// spki is the key that the other end proved possession of.
	spki []byte
}

func do(client *http.Client, request *http.Request) (*answer, error) {
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	spki := response.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo
	return &answer{response.StatusCode, response.Header, body, spki}, nil
}

// message is the Status object's message, or the body.
func (a *answer) message() string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(a.body, &status) == nil && status.Message != "" {
		return status.Message
	}
	return strings.ToValidUTF8(string(a.body[:min(len(a.body), maxMessageBytes)]), "?")
}

// sleep waits; false when the context ended first.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
