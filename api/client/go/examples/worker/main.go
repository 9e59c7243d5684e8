// Command worker registers with a quorum whose code it knows, and beats until it is
// stopped. It prints one line per registration and beat.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"nautilus.io/client"
	"nautilus.io/client/nitro"
	"nautilus.io/client/snp"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	servers := flag.String("server", "", "members, HOST:PORT, separated by commas; some suffice")
	measurements := flag.String("measurement", "", "accepted code, KIND:HEX, separated by commas")
	simulatedRoot := flag.String("simulated-root-key", "", "file of the key of simulated evidence (development)")
	authority := flag.String("ca", "", "PEM file of the quorum's authority; names this very quorum")
	cache := flag.String("cache", "", "file that keeps the members' addresses")
	ownerKey := flag.String("owner-key", "", "file of the owner's Ed25519 seed, 64 hex digits; proves ownership")
	nodeID := flag.String("node-id", "", "the worker's id")
	interval := flag.Duration("interval", client.BeatInterval, "time between beats")
	flag.Parse()

	policy := client.Policy{
		Measurements: strings.Split(*measurements, ","),
		Verifiers: map[client.Kind]client.Verifier{
			client.Nitro: nitro.Verifier{},
			client.SNP:   snp.Verifier{},
		},
	}
	if *simulatedRoot != "" {
		key, err := os.ReadFile(*simulatedRoot)
		if err != nil {
			return err
		}
		verifier, err := client.NewSimulatedVerifier(string(key))
		if err != nil {
			return err
		}
		policy.Verifiers[client.Simulated] = verifier
	}
	config := client.Config{Endpoints: strings.Split(*servers, ","), Policy: policy, CacheFile: *cache}
	if *authority != "" {
		pem, err := os.ReadFile(*authority)
		if err != nil {
			return err
		}
		config.Authority = x509.NewCertPool()
		if !config.Authority.AppendCertsFromPEM(pem) {
			return errors.New(*authority + " holds no certificate")
		}
	}
	quorum, err := client.New(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	worker := client.Worker{
		Client: quorum,
		NodeID: *nodeID,
		// Not a flag: other users of this machine read command lines.
		Token:    os.Getenv("SEAL_TOKEN"),
		Interval: *interval,
		Facts:    func() client.Facts { return client.Facts{StakeStatus: "active"} },
		Observe: func(event client.Event) {
			at := time.Now().Format(time.RFC3339)
			if event.Err != nil {
				fmt.Println(at, "failed:", event.What, event.Err)
				return
			}
			fmt.Println(at, event.What, len(quorum.Endpoints()), "members known")
		},
	}
	if *ownerKey != "" {
		text, err := os.ReadFile(*ownerKey)
		if err != nil {
			return err
		}
		seed, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(seed) != ed25519.SeedSize {
			return errors.New(*ownerKey + " holds no seed of 64 hex digits")
		}
		worker.Owner = client.Ed25519{Key: ed25519.NewKeyFromSeed(seed)}
	}
	return worker.Run(ctx)
}
