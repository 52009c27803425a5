package experiments

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pqlab/links"
	"pqlab/links/wire"
	"pqlab/topology"
)

// What was late of many wires is counted, and told where it was; only then it is a warning.
func TestSchedule(t *testing.T) {
	t.Parallel()
	direction := func(p99 time.Duration, missed uint64) links.Wire {
		return links.Wire{Lateness: wire.Lateness{Packets: 1000, P50: p99 / 2, P99: p99, Max: 2 * p99}, Missed: missed}
	}
	var none, good, bad Schedule
	good.note("one", direction(300*time.Microsecond, 0))
	good.note("two", direction(200*time.Microsecond, 0))
	for i := range 5 {
		bad.note("run "+string(rune('1'+i)), direction(time.Duration(i)*2*time.Millisecond, 0))
	}
	bad.note("run 6", direction(0, 7))
	for name, tt := range map[string]struct {
		s    Schedule
		want Schedule
		says []string
	}{
		"none": {none, Schedule{}, []string{"no link"}},
		"good": {good, Schedule{Directions: 2, P99Ms: 0.3, MaxMs: 0.6}, []string{"0.3 ms", "0.6 ms"}},
		"bad":  {bad, Schedule{Directions: 6, Late: 5, P99Ms: 8, MaxMs: 16, Missed: 7}, []string{"5 of 6", "run 2", "run 4", "2 more"}},
	} {
		if tt.s.Directions != tt.want.Directions || tt.s.Late != tt.want.Late || tt.s.P99Ms != tt.want.P99Ms || tt.s.MaxMs != tt.want.MaxMs || tt.s.Missed != tt.want.Missed {
			t.Errorf("%s: %+v", name, tt.s)
		}
		for _, word := range tt.says {
			if !strings.Contains(tt.s.String(), word) {
				t.Errorf("%s: %q does not say %q", name, tt.s, word)
			}
		}
		var a About
		a.Timing(tt.s)
		if late := tt.want.Late > 0; a.Punctual() == late || len(a.Warnings) > 0 != late {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// An experiment has no use for links without their shapes, and so is not offered them.
func TestShapeable(t *testing.T) {
	t.Parallel()
	plan, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Delay(time.Millisecond)).Plan()
	if err != nil {
		t.Fatal(err)
	}
	var lacks *links.UnsupportedError
	if err := Shapeable(plan, "tbf"); !errors.As(err, &lacks) || strings.Contains(err.Error(), "none") {
		t.Error(err)
	}
	if err := Shapeable(plan, "wier"); !errors.Is(err, links.ErrUnknownShaper) {
		t.Error(err)
	}
	if err := Shapeable(plan, "none"); err != nil { // it was asked for
		t.Error(err)
	}
}
