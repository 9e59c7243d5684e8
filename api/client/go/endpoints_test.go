package client

import (
	"errors"
	"slices"
	"testing"
	"time"
)

var start = time.Unix(1_800_000_000, 0)

func three() *endpoints { return newEndpoints([]string{"a", "b"}, []string{"c"}) }

func TestWritesGoToTheLeaderAndBeatsStayWhereTheyAre(t *testing.T) {
	e := three()
	e.good("b", false)
	e.leader = "c"
	if at, _ := e.choose(start, true); at != "c" {
		t.Errorf("a write goes to %q", at)
	}
	e.good("c", true)
	if at, _ := e.choose(start, false); at != "b" {
		t.Errorf("a beat goes to %q", at)
	}
}

func TestFailedEndpointRestsLongerEachTime(t *testing.T) {
	e := newEndpoints([]string{"a"}, nil)
	now, last := start, time.Duration(0)
	for range 5 {
		e.failed("a", now, 0, 0)
		_, wait := e.choose(now, false)
		if wait <= last {
			t.Fatalf("rests %v after %v", wait, last)
		}
		now, last = now.Add(wait), wait
		if at, _ := e.choose(now, false); at != "a" {
			t.Fatal("it is not tried again")
		}
	}
	for range 50 {
		e.failed("a", now, 0, 1)
	}
	if _, wait := e.choose(now, false); wait != backoffMost/2 {
		t.Errorf("rests %v", wait)
	}
}

func TestWhatAServerAsksIsRespectedWithinABound(t *testing.T) {
	e := three()
	e.failed("a", start, 3*time.Second, 0)
	e.failed("b", start, time.Hour, 0)
	e.failed("c", start, 0, 0)
	for after, wanted := range map[time.Duration]string{backoffLeast: "c", 3 * time.Second: "c"} {
		if at, _ := e.choose(start.Add(after), false); at != wanted && at != "a" {
			t.Errorf("after %v: %q", after, at)
		}
	}
	e.failed("a", start.Add(4*time.Second), time.Minute, 0)
	e.failed("c", start.Add(4*time.Second), time.Minute, 0)
	if at, _ := e.choose(start.Add(retryAfterMost), false); at != "b" {
		t.Errorf("an hour is asked, the most is %v: %q", retryAfterMost, at)
	}
}

func TestNobodyIsBelievedOnceEveryoneWasRefused(t *testing.T) {
	e, reason := three(), errors.New("other code")
	e.refused("a", start, reason)
	e.failed("b", start, 0, 0)
	e.refused("c", start, reason)
	if e.refusal(start) != nil {
		t.Error("b may still be believed")
	}
	e.refused("b", start, reason)
	if e.refusal(start) != reason {
		t.Error(e.refusal(start))
	}
	later := start.Add(refusedPause)
	if at, _ := e.choose(later, false); at == "" || e.refusal(later) != nil {
		t.Error("what was wrong may have been mended")
	}
}

func TestMembersThatAreNamedTakeTheCachesPlace(t *testing.T) {
	e := three()
	e.learn([]string{"b", "d"})
	known := e.addresses()
	slices.Sort(known)
	if !slices.Equal(known, []string{"a", "b", "d"}) {
		t.Errorf("%v", known)
	}
	var many []string
	for n := range 2 * maxEndpoints {
		many = append(many, string(rune('α'+n)))
	}
	if e.learn(many); len(e.addresses()) != maxEndpoints {
		t.Errorf("%d are known", len(e.addresses()))
	}
	if e.learn(nil); len(e.addresses()) != maxEndpoints {
		t.Error("forgotten for nobody")
	}
}

func TestAddressesHaveOneForm(t *testing.T) {
	for text, wanted := range map[string]string{
		"127.0.0.1:6443": "https://127.0.0.1:6443", "https://n1.example:1/": "https://n1.example:1",
		"[::1]:7443": "https://[::1]:7443",
		"http://a:1": "", "https://a": "", "a:b": "", "https://a:1/x": "", "https://u@a:1": "", "": "",
	} {
		if got, err := parseAddress(text); got != wanted || (err == nil) != (wanted != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
