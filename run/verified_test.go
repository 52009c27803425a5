package run

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pqlab/lab"
	"pqlab/report"
	"pqlab/topology"
)

// What was measured of a link is in the result, in its units, and what was not is not there.
func TestLinkOf(t *testing.T) {
	t.Parallel()
	msec := func(a, b, c time.Duration) [3]time.Duration {
		return [3]time.Duration{a * time.Millisecond, b * time.Millisecond, c * time.Millisecond}
	}
	got := linkOf(lab.Measured{
		Link: "l", From: "a", To: "b", Shaper: "wire", Asked: "airtime of x", Wanted: topology.Shape{Delay: time.Second}, Tries: 2, Unmeasured: []string{"why"},
		Delay: &lab.MeasuredDelay{
			Packets: 9, Wanted: msec(1, 2, 3), Sending: 4 * time.Millisecond, Seen: msec(5, 6, 7), Low: msec(8, 9, 10), High: msec(11, 12, 13),
			Tail:  []lab.MeasuredQuantile{{Share: 0.9, Wanted: time.Millisecond, Seen: 2 * time.Millisecond, Low: 3 * time.Millisecond, High: 4 * time.Millisecond}},
			Least: 14 * time.Millisecond, P99: 15 * time.Millisecond, Most: 16 * time.Millisecond,
		},
		Loss: &lab.MeasuredShare{Packets: 10, Count: 1, Wanted: 0.2, Seen: 0.1, Low: 0.05, High: 0.3},
		Rate: &lab.MeasuredRate{Wanted: 100, Seen: 99},
	})
	want := report.Link{
		Link: "l", From: "a", To: "b", Shaper: "wire", Wanted: "airtime of x", Tries: 2, Unmeasured: []string{"why"},
		Delay: &report.LinkDelay{
			Packets: 9, Wanted: [3]float64{1, 2, 3}, Sending: 4, Seen: [3]float64{5, 6, 7}, Low: [3]float64{8, 9, 10}, High: [3]float64{11, 12, 13},
			Tail:  []report.LinkQuantile{{Share: 0.9, Wanted: 1, Seen: 2, Low: 3, High: 4}},
			Least: 14, P99: 15, Most: 16,
		},
		Loss: &report.LinkShare{Packets: 10, Count: 1, Wanted: 0.2, Seen: 0.1, Low: 0.05, High: 0.3},
		Rate: &report.LinkRate{Wanted: 100, Seen: 99},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := linkOf(lab.Measured{}); got.Delay != nil || got.Loss != nil || got.Duplication != nil || got.Rate != nil {
		t.Errorf("%+v", got)
	}
}

// Each direction that was measured is a check; one of which nothing could be measured is none.
func TestJudgeLinks(t *testing.T) {
	t.Parallel()
	r := &runner{}
	r.judgeLinks([]lab.Measured{
		{Link: "l", From: "a", To: "b", Delay: &lab.MeasuredDelay{}, Rate: &lab.MeasuredRate{}},
		{Link: "l", From: "b", To: "a", Loss: &lab.MeasuredShare{}, Unmeasured: []string{"delay: why"}},
		{Link: "m", From: "a", To: "b", Unmeasured: []string{"why"}},
	})
	if len(r.result.Links) != 3 || len(r.result.Checks) != 2 || r.result.Verdict() != report.Pass {
		t.Fatalf("%+v", r.result)
	}
	for i, words := range [][]string{{"l", "from a to b", "delay, rate"}, {"l", "from b to a", "loss", "delay: why"}} {
		c := r.result.Checks[i]
		for _, w := range words {
			if !strings.Contains(c.Name+c.Detail, w) {
				t.Errorf("no %q in %+v", w, c)
			}
		}
	}
	if r.result.Checks[0].Name == r.result.Checks[1].Name {
		t.Error("both directions have one name")
	}
}
