// Kubernetes' own end-to-end suite, built from its Go module as one test binary that runs
// the [Conformance] tests of tests.json and compares what came of each with what stands
// there. `make conformance` builds it and runs it against a quorum of its own.
//
// tests.json names every [Conformance] test of the release. A test is "pass", or has a
// "reason" for not being run: what it needs that no API server alone can give.
package conformance

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"k8s.io/kubernetes/test/e2e"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	manifests "k8s.io/kubernetes/test/e2e/testing-manifests"
	"k8s.io/kubernetes/test/fixtures"

	_ "k8s.io/kubernetes/test/e2e/feature"

	_ "k8s.io/kubernetes/test/e2e/apimachinery"
	_ "k8s.io/kubernetes/test/e2e/apps"
	_ "k8s.io/kubernetes/test/e2e/architecture"
	_ "k8s.io/kubernetes/test/e2e/auth"
	_ "k8s.io/kubernetes/test/e2e/common"
	_ "k8s.io/kubernetes/test/e2e/dra"
	_ "k8s.io/kubernetes/test/e2e/instrumentation"
	_ "k8s.io/kubernetes/test/e2e/kubectl"
	_ "k8s.io/kubernetes/test/e2e/network"
	_ "k8s.io/kubernetes/test/e2e/node"
	_ "k8s.io/kubernetes/test/e2e/scheduling"
	_ "k8s.io/kubernetes/test/e2e/storage"
)

// A test of tests.json.
type entry struct {
	Name   string `json:"name"`
	Pass   bool   `json:"pass"`
	Reason string `json:"reason,omitempty"`
}

// What came of a test that ran.
type outcome struct {
	Name    string `json:"name"`
	Pass    bool   `json:"pass"`
	Seconds int    `json:"seconds"`
	Failure string `json:"failure,omitempty"`
}

var (
	listFile    = flag.String("tests", "tests.json", "the tests and what is expected of each")
	resultsFile = flag.String("results", "", "where to write what came of each, as JSON")
	only        = flag.String("only", "", "run the tests that match, whatever is expected of them")
)

func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	focus, err := focus()
	if err == nil {
		err = flag.Set("ginkgo.focus", focus)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	testfiles.AddFileSource(manifests.GetE2ETestingManifestsFS())
	testfiles.AddFileSource(fixtures.GetTestFixturesFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	if err := startStandIn(framework.TestContext.KubeConfig); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

func TestE2E(t *testing.T) {
	e2e.RunE2ETests(t)
}

// One expression for the tests to run: ginkgo takes no list.
func focus() (string, error) {
	text, err := os.ReadFile(*listFile)
	if err != nil {
		return "", err
	}
	var entries []entry
	if err := json.Unmarshal(text, &entries); err != nil {
		return "", fmt.Errorf("%s: %w", *listFile, err)
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return "", fmt.Errorf("-only: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if (*only == "" && entry.Pass) || (*only != "" && wanted.MatchString(entry.Name)) {
			names = append(names, regexp.QuoteMeta(entry.Name))
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no test of %s is to be run", *listFile)
	}
	return strings.Join(names, "|"), nil
}

var _ = ginkgo.ReportAfterSuite("outcomes", func(report ginkgo.Report) {
	if *resultsFile == "" {
		return
	}
	outcomes := []outcome{}
	for _, spec := range report.SpecReports {
		if spec.LeafNodeType.String() != "It" || spec.State.String() == "skipped" && spec.Failure.Message == "" {
			continue
		}
		found := outcome{
			Name:    spec.FullText(),
			Pass:    spec.State.String() == "passed",
			Seconds: int(spec.RunTime / time.Second),
		}
		if !found.Pass {
			found.Failure = spec.State.String() + ": " + first(spec.Failure.Message)
		}
		outcomes = append(outcomes, found)
	}
	sort.Slice(outcomes, func(i, j int) bool { return outcomes[i].Name < outcomes[j].Name })
	text, err := json.MarshalIndent(outcomes, "", "  ")
	if err == nil {
		err = os.WriteFile(*resultsFile, append(text, '\n'), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
})

// The first lines of a failure, enough to know it by.
func first(text string) string {
	const most = 600
	text = strings.TrimSpace(text)
	if len(text) > most {
		text = text[:most]
	}
	return text
}
