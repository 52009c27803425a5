package run

import (
	"strings"
	"testing"

	"pqlab/lab"
	"pqlab/report"
	"pqlab/topology"
)

// Rates that cannot be had fail a strict run, which warns of each with its place. Other runs, and labs without rates, know nothing of it.
func TestJudgeRates(t *testing.T) {
	t.Parallel()
	rated, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Name("ab"), topology.Tbit).Ethernet("a", "b", topology.Name("other"), topology.Tbit).Plan()
	if err != nil {
		t.Fatal(err)
	}
	bare, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b").Plan()
	if err != nil {
		t.Fatal(err)
	}
	off := []lab.UnreachedLink{
		{Link: "ab", At: topology.Position{File: "x.yaml", Line: 3, Column: 7}, Unreached: lab.Unreached{Wanted: 1e12, Most: 2e10}},
		{Link: "other", Unreached: lab.Unreached{Wanted: 1e12, Most: 3e9, Sent: true}},
	}
	for name, tt := range map[string]struct {
		plan   *topology.Plan
		off    []lab.UnreachedLink
		strict bool
		checks int
		fails  bool
	}{
		"strict":             {rated, off, true, 1, true},
		"strict, all right":  {rated, nil, true, 1, false},
		"strict, none rated": {bare, nil, true, 0, false},
		"not strict":         {rated, nil, false, 0, false},
	} {
		r := &runner{plan: tt.plan, options: Options{Strict: tt.strict}}
		r.judgeRates(tt.off)
		if len(r.result.Checks) != tt.checks || tt.checks > 0 && r.result.Checks[0].OK == tt.fails || len(r.result.Warnings) != len(tt.off) {
			t.Errorf("%s: %+v, %q", name, r.result.Checks, r.result.Warnings)
		}
		if tt.fails && r.result.Verdict() != report.Fail {
			t.Errorf("%s: %v", name, r.result.Verdict())
		}
		for i, u := range tt.off {
			if w := r.result.Warnings[i]; !strings.Contains(w, u.Link) || !strings.HasPrefix(w, u.At.String()) || !strings.Contains(w, "1Tbit/s") {
				t.Errorf("%s: %q", name, w)
			}
		}
	}
}
