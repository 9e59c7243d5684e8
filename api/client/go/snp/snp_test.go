package snp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nautilus.io/client"
)

const fixtures = "../../../../attest/tee/fixtures/snp/"

// published answers from the folder of one genuine report, for AMD's key server.
type published string

func (p published) Get(url string) ([]byte, error) {
	if _, product, isList := strings.Cut(strings.TrimSuffix(url, "/crl"), "/vcek/v1/"); isList && strings.HasSuffix(url, "/crl") {
		return os.ReadFile(filepath.Join(fixtures, string(p), "endorsements/amd/crl", strings.ToLower(product)))
	}
	found, err := filepath.Glob(filepath.Join(fixtures, string(p), "endorsements/amd/vcek/*/*/*"))
	if err != nil || len(found) != 1 {
		return nil, errors.New("not published: " + url)
	}
	return os.ReadFile(found[0])
}

// Genuine reports, and the clocks at which they hold (attest/tee/fixtures/README.md).
var clocks = map[string]time.Time{
	"milan-v2": time.Date(2025, 8, 1, 0, 0, 0, 0, time.UTC),
	"genoa-v3": time.Date(2025, 8, 1, 0, 0, 0, 0, time.UTC),
	"milan-v5": time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC),
}

func report(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(fixtures, name, "report.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestGenuineReportsAreRead(t *testing.T) {
	for name, now := range clocks {
		claims, err := Verifier{published(name)}.Verify(t.Context(), report(t, name), now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if claims.Debug || len(claims.Measurement) != 48 || len(claims.ReportData) != 64 || len(claims.Platform) != 128 {
			t.Errorf("%s: %+v", name, claims)
		}
	}
}

func TestChangedReportIsRefused(t *testing.T) {
	const name = "genoa-v3"
	body := report(t, name)
	// Report data, measurement, host data, reported TCB, chip id, signature.
	for _, at := range []int{0x50, 0x90, 0xc0, 0x180, 0x1a0, 0x2a0} {
		changed := append([]byte(nil), body...)
		changed[at] ^= 1
		_, err := (Verifier{published(name)}).Verify(t.Context(), changed, clocks[name])
		if err == nil {
			t.Errorf("accepted with byte %#x changed", at)
		}
		// Of a changed chip or TCB nothing is published: it can't be told from an outage.
		isOfNoChip := at == 0x180 || at == 0x1a0
		if errors.Is(err, client.ErrCannotTell) && !isOfNoChip {
			t.Errorf("byte %#x changed, and it can't be told: %v", at, err)
		}
	}
}

// outage is a key server that is out of reach until the asker gives up.
type outage struct{}

func (outage) Get(string) ([]byte, error) { return nil, errors.New("out of reach") }

func (outage) GetContext(ctx context.Context, _ string) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestWhileAMDIsOutOfReachNothingIsSaidAgainstAReport(t *testing.T) {
	for name, now := range clocks {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := (Verifier{outage{}}).Verify(ctx, report(t, name), now)
		cancel()
		if !errors.Is(err, client.ErrCannotTell) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
