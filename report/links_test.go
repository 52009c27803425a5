package report

import (
	"slices"
	"strings"
	"testing"
)

// Shares are percentages that a person can read, with how many packets they are of.
func TestLinkCells(t *testing.T) {
	t.Parallel()
	for want, share := range map[string]LinkShare{
		"100% of 300 (96.9% to 100%)":     {Packets: 300, Count: 300, Seen: 1, Low: 0.969, High: 1},
		"0% of 4 (0% to 90.0%)":           {Packets: 4, High: 0.9},
		"1.20% of 5000 (0.711% to 1.88%)": {Packets: 5000, Seen: 0.012, Low: 0.00711, High: 0.0188},
		"0% of 9000000 (0% to < 0.001%)":  {Packets: 9e6, High: 1e-7},
		"12.0% of 5000 (10.0% to 15.0%)":  {Packets: 5000, Seen: 0.12, Low: 0.1, High: 0.15},
	} {
		if got := (Link{Loss: &share}).cells()[5]; got != want {
			t.Errorf("%+v: %q, want %q", share, got, want)
		}
	}
	if got := (Link{Link: "l", From: "a", Wanted: "rate"}).cells(); !slices.Equal(got, []string{"l", "a", "rate", "-", "-", "-", "-"}) {
		t.Errorf("%q", got)
	}
}

// How many links were verified is part of the verdict, and why nothing was checked.
func TestVerdictDetail(t *testing.T) {
	t.Parallel()
	whole := Link{Delay: &LinkDelay{}}
	part := Link{Loss: &LinkShare{}, Unmeasured: []string{"why"}}
	none := Link{Unmeasured: []string{"why"}}
	flow := Result{Checks: []Check{{OK: true}}}
	with := func(r Result, links ...Link) Result {
		r.Links = links
		return r
	}
	for name, tt := range map[string]struct {
		r    Result
		want []string
		not  string
	}{
		"without verification": {flow, []string{"1 check holds"}, "verified"},
		"all":                  {with(flow, whole, whole), []string{"1 check holds", "2 of 2 directions"}, "in part"},
		"some":                 {with(flow, whole, part, none, Link{}), []string{"2 of 4 directions", "1 of them in part"}, ""},
		"none":                 {with(flow, none, none), []string{"0 of 2 directions"}, "in part"},
		"a failure":            {with(Result{Checks: []Check{{}}}, whole), []string{"1 of 1 checks failed", "1 of 1 directions"}, ""},
		"nothing in the lab":   {Result{}, []string{"nothing was checked", "traffic", "tunnels", "verify: true"}, ""},
		"no shapes":            {Result{VerifyMs: 1}, []string{"nothing was checked", "no link has a shape"}, "verify: true"},
		"nothing measured":     {with(Result{VerifyMs: 1}, none), []string{"nothing was checked", "0 of 1 directions", "traffic"}, "verify: true"},
		"no checks of traffic": {Result{Traffic: []Flow{{}}}, []string{"nothing was checked"}, "neither"},
	} {
		got := tt.r.verdictDetail()
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in %q", name, want, got)
			}
		}
		if tt.not != "" && strings.Contains(got, tt.not) {
			t.Errorf("%s: %q in %q", name, tt.not, got)
		}
	}
}
