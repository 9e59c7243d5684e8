package nitro

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"
	"time"
)

// Genuine documents, and the clocks at which they hold (attest/tee/fixtures/README.md).
func genuine(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("../../../../attest/tee/fixtures/nitro/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

var made = time.Date(2025, 1, 6, 16, 7, 5, 0, time.UTC)

func TestGenuineDocumentIsRead(t *testing.T) {
	claims, err := Verifier{}.Verify(t.Context(), genuine(t, "document.cbor"), made)
	if err != nil {
		t.Fatal(err)
	}
	if claims.Debug || len(claims.Measurement) != 48 || len(claims.ReportData) != 64 || claims.Platform == "" {
		t.Fatalf("%+v", claims)
	}
}

func TestDebugModeIsTold(t *testing.T) {
	claims, err := Verifier{}.Verify(t.Context(), genuine(t, "debug.cbor"), time.Date(2021, 3, 5, 17, 1, 49, 0, time.UTC))
	if err != nil || !claims.Debug {
		t.Fatalf("%+v, %v", claims, err)
	}
}

func TestOldAndEarlyDocumentsAreRefused(t *testing.T) {
	body := genuine(t, "document.cbor")
	for _, now := range []time.Time{made.Add(lifetime + time.Minute), made.Add(-skew - time.Minute)} {
		if _, err := (Verifier{}).Verify(t.Context(), body, now); err == nil {
			t.Errorf("accepted at %v", now)
		}
	}
}

func TestChangedBitAnywhereIsRefused(t *testing.T) {
	body := genuine(t, "document.cbor")
	for at := 0; at < len(body); at += 7 {
		changed := append([]byte(nil), body...)
		changed[at] ^= 1 << (at % 8)
		if _, err := (Verifier{}).Verify(t.Context(), changed, made); err == nil {
			t.Errorf("accepted with byte %d changed", at)
		}
	}
}

func TestRootIsTheOneThatAWSPublishes(t *testing.T) {
	sum := sha256.Sum256(root)
	if hex.EncodeToString(sum[:]) != "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b" {
		t.Fatalf("%x", sum)
	}
}
