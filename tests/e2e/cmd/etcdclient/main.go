// etcdclient drives etcd's Go client and its concurrency package against any server of
// etcd's interface, taken from the ETCDCTL_* variables. It prints what happened, one
// line each, and ends with 1 when a promise was broken.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// sessionTTL is how long a dead client's locks outlive it, in seconds.
const sessionTTL = 10

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: etcdclient counter|election|stm|hold NAME|watch PREFIX COUNT|leases"))
	}
	client := connect()
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	commands := map[string]func(context.Context, *clientv3.Client, []string) error{
		"counter":  counter,
		"election": election,
		"stm":      stm,
		"hold":     hold,
		"watch":    watch,
		"leases":   leases,
	}
	command, ok := commands[os.Args[1]]
	if !ok {
		fail(fmt.Errorf("no command %q", os.Args[1]))
	}
	if err := command(ctx, client, os.Args[2:]); err != nil {
		fail(err)
	}
	fmt.Println("ok")
}

func fail(err error) {
	fmt.Println("failed:", err)
	os.Exit(1)
}

func connect() *clientv3.Client {
	info := transport.TLSInfo{
		CertFile:      os.Getenv("ETCDCTL_CERT"),
		KeyFile:       os.Getenv("ETCDCTL_KEY"),
		TrustedCAFile: os.Getenv("ETCDCTL_CACERT"),
	}
	tls, err := info.ClientConfig()
	if err != nil {
		fail(err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            strings.Split(os.Getenv("ETCDCTL_ENDPOINTS"), ","),
		DialTimeout:          10 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		TLS:                  tls,
	})
	if err != nil {
		fail(err)
	}
	return client
}

// counter lets workers count in a key that only its lock guards: a read, then a write.
func counter(ctx context.Context, client *clientv3.Client, _ []string) error {
	const workers, rounds = 5, 8
	var group sync.WaitGroup
	failures := make(chan error, workers)
	for range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			failures <- countLocked(ctx, client, rounds)
		}()
	}
	group.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return err
		}
	}
	got, err := number(ctx, client, "counter")
	if err != nil {
		return err
	}
	if got != workers*rounds {
		return fmt.Errorf("counted %d, not %d: the lock did not exclude", got, workers*rounds)
	}
	return nil
}

func countLocked(ctx context.Context, client *clientv3.Client, rounds int) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(sessionTTL))
	if err != nil {
		return err
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, "/lock/counter")
	for range rounds {
		if err := mutex.Lock(ctx); err != nil {
			return err
		}
		value, err := number(ctx, client, "counter")
		if err != nil {
			return err
		}
		if _, err := client.Put(ctx, "counter", strconv.Itoa(value+1)); err != nil {
			return err
		}
		if err := mutex.Unlock(ctx); err != nil {
			return err
		}
	}
	return nil
}

func number(ctx context.Context, client *clientv3.Client, key string) (int, error) {
	got, err := client.Get(ctx, key)
	if err != nil || len(got.Kvs) == 0 {
		return 0, err
	}
	return strconv.Atoi(string(got.Kvs[0].Value))
}

// election lets three campaign; each leads once, and an observer sees all three.
func election(ctx context.Context, client *clientv3.Client, _ []string) error {
	const candidates = 3
	observer, err := concurrency.NewSession(client, concurrency.WithTTL(sessionTTL))
	if err != nil {
		return err
	}
	defer observer.Close()
	seen := concurrency.NewElection(observer, "/election").Observe(ctx)
	failures := make(chan error, candidates)
	for candidate := range candidates {
		go func() { failures <- campaign(ctx, client, fmt.Sprintf("candidate-%d", candidate)) }()
	}
	leaders := map[string]bool{}
	for len(leaders) < candidates {
		select {
		case got, ok := <-seen:
			if !ok {
				return errors.New("the observer's channel ended")
			}
			leaders[string(got.Kvs[0].Value)] = true
			if _, err := client.Put(ctx, "/seen/"+string(got.Kvs[0].Value), ""); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("only %v led", leaders)
		}
	}
	for range candidates {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

// campaign leads until the observer has seen it, then resigns.
func campaign(ctx context.Context, client *clientv3.Client, name string) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(sessionTTL))
	if err != nil {
		return err
	}
	defer session.Close()
	election := concurrency.NewElection(session, "/election")
	if err := election.Campaign(ctx, name); err != nil {
		return err
	}
	leader, err := election.Leader(ctx)
	if err != nil {
		return err
	}
	if got := string(leader.Kvs[0].Value); got != name {
		return fmt.Errorf("%s won but %s leads", name, got)
	}
	if err := election.Proclaim(ctx, name); err != nil {
		return err
	}
	if err := await(ctx, client, "/seen/"+name); err != nil {
		return err
	}
	return election.Resign(ctx)
}

// await returns once the key exists.
func await(ctx context.Context, client *clientv3.Client, key string) error {
	got, err := client.Get(ctx, key)
	if err != nil {
		return err
	}
	if len(got.Kvs) > 0 {
		return nil
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	for response := range client.Watch(watching, key, clientv3.WithRev(got.Header.Revision+1)) {
		if err := response.Err(); err != nil {
			return err
		}
		if len(response.Events) > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// stm moves money between accounts from many sides; none is made or lost.
func stm(ctx context.Context, client *clientv3.Client, _ []string) error {
	const accounts, workers, rounds, each = 5, 4, 10, 100
	account := func(n int) string { return fmt.Sprintf("/account/%d", n%accounts) }
	for n := range accounts {
		if _, err := client.Put(ctx, account(n), strconv.Itoa(each)); err != nil {
			return err
		}
	}
	failures := make(chan error, workers)
	for worker := range workers {
		go func() {
			for round := range rounds {
				from, to := account(worker+round), account(worker+3*round+1)
				isolation := concurrency.WithIsolation(concurrency.Isolation(round % 4 / 2))
				if _, err := concurrency.NewSTM(client, move(from, to), isolation); err != nil {
					failures <- err
					return
				}
			}
			failures <- nil
		}()
	}
	for range workers {
		if err := <-failures; err != nil {
			return err
		}
	}
	sum := 0
	for n := range accounts {
		value, err := number(ctx, client, account(n))
		if err != nil {
			return err
		}
		sum += value
	}
	if sum != accounts*each {
		return fmt.Errorf("%d in all accounts, not %d", sum, accounts*each)
	}
	return nil
}

func move(from, to string) func(concurrency.STM) error {
	return func(stm concurrency.STM) error {
		if from == to {
			return nil
		}
		out, err := strconv.Atoi(stm.Get(from))
		if err != nil {
			return err
		}
		in, err := strconv.Atoi(stm.Get(to))
		if err != nil {
			return err
		}
		stm.Put(from, strconv.Itoa(out-1))
		stm.Put(to, strconv.Itoa(in+1))
		return nil
	}
}

// hold takes the lock NAME and keeps it until the key /release/NAME/PID exists, printing
// "held" with the lock's key and "released". A lock that is lost in between is a failure.
func hold(ctx context.Context, client *clientv3.Client, arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: hold NAME WHO")
	}
	name, who := arguments[0], arguments[1]
	session, err := concurrency.NewSession(client, concurrency.WithTTL(sessionTTL))
	if err != nil {
		return err
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, "/lock/"+name)
	fmt.Println("waits")
	if err := mutex.Lock(ctx); err != nil {
		return err
	}
	fmt.Println("held", mutex.Key())
	released := make(chan error, 1)
	go func() { released <- await(ctx, client, "/release/"+name+"/"+who) }()
	select {
	case <-session.Done():
		return errors.New("the session ended while the lock was held")
	case err := <-released:
		if err != nil {
			return err
		}
	}
	owned, err := client.Txn(ctx).If(mutex.IsOwner()).Commit()
	if err != nil {
		return err
	}
	if !owned.Succeeded {
		return errors.New("the lock was somebody else's")
	}
	if err := mutex.Unlock(ctx); err != nil {
		return err
	}
	fmt.Println("released")
	return nil
}

// watch prints every key put under PREFIX from the first revision on, until it has seen
// COUNT of them, whatever becomes of the members meanwhile.
func watch(ctx context.Context, client *clientv3.Client, arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: watch PREFIX COUNT")
	}
	count, err := strconv.Atoi(arguments[1])
	if err != nil {
		return err
	}
	options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV()}
	last := int64(0)
	for response := range client.Watch(ctx, arguments[0], options...) {
		if err := response.Err(); err != nil {
			return err
		}
		for _, event := range response.Events {
			if event.Kv.ModRevision < last {
				return fmt.Errorf("revision %d after %d", event.Kv.ModRevision, last)
			}
			last = event.Kv.ModRevision
			fmt.Println("saw", string(event.Kv.Key))
			if count--; count == 0 {
				return nil
			}
		}
	}
	return ctx.Err()
}

// leases checks that keys end with their lease, and stay while it is kept alive.
func leases(ctx context.Context, client *clientv3.Client, _ []string) error {
	short, err := client.Grant(ctx, 2)
	if err != nil {
		return err
	}
	kept, err := client.Grant(ctx, 2)
	if err != nil {
		return err
	}
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	answers, err := client.KeepAlive(keeping, kept.ID)
	if err != nil {
		return err
	}
	go func() {
		for range answers {
		}
	}()
	for key, lease := range map[string]clientv3.LeaseID{"/lease/short": short.ID, "/lease/kept": kept.ID} {
		if _, err := client.Put(ctx, key, "", clientv3.WithLease(lease)); err != nil {
			return err
		}
	}
	for response := range client.Watch(ctx, "/lease/short", clientv3.WithRev(1), clientv3.WithFilterPut()) {
		if err := response.Err(); err != nil {
			return err
		}
		if len(response.Events) > 0 {
			break
		}
	}
	got, err := client.Get(ctx, "/lease/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Key) != "/lease/kept" {
		return fmt.Errorf("left over: %v", got.Kvs)
	}
	return nil
}
