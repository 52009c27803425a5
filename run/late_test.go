package run

import (
	"strings"
	"testing"
	"time"

	"pqlab/links"
	"pqlab/links/wire"
	"pqlab/report"
)

// How late wires were is in the result; too late is a warning, and fails a strict run.
func TestJudgeSchedule(t *testing.T) {
	t.Parallel()
	direction := func(link, from, to string, packets int64, p99 time.Duration, missed uint64) driven {
		return driven{link, from, to, links.Wire{Missed: missed, Lateness: wire.Lateness{
			Packets: packets, P50: 20 * time.Microsecond, P99: p99, Max: 2*p99 + time.Microsecond,
		}}}
	}
	punctual := direction("ab", "b", "a", 5000, 300*time.Microsecond, 0)
	for name, tt := range map[string]struct {
		wires   []driven
		kernels []string
		late    []bool
		failing bool
		words   []string // of the warning, or of the failed check
	}{
		"no wires":                 {},
		"punctual":                 {wires: []driven{punctual}, late: []bool{false}},
		"late":                     {wires: []driven{punctual, direction("ab", "a", "b", 1000, 7*time.Millisecond, 0)}, late: []bool{false, true}, failing: true, words: []string{"link ab", "node a", "7 ms", "1000"}},
		"few packets":              {wires: []driven{direction("ab", "a", "b", 10, 7*time.Millisecond, 0)}, late: []bool{false}},
		"nothing was sent":         {wires: []driven{{link: "ab", from: "a", to: "b"}}, late: []bool{false}},
		"missed":                   {wires: []driven{direction("ab", "a", "b", 0, 0, 3)}, late: []bool{true}, failing: true, words: []string{"link ab", "3 packets"}},
		"by the kernel":            {kernels: []string{"cd (netem)"}},
		"by both":                  {wires: []driven{punctual}, kernels: []string{"cd (netem)", "ef (tbf)"}, late: []bool{false}},
		"by both, late":            {wires: []driven{direction("ab", "a", "b", 0, 0, 3)}, kernels: []string{"cd (netem)"}, late: []bool{true}, failing: true, words: []string{"link ab"}},
		"by the kernel many times": {kernels: []string{"cd (netem)", "ef (tbf)", "gh (tbf)", "ij (tbf)", "kl (tbf)"}},
		"many": {
			wires: []driven{direction("l1", "a", "b", 0, 0, 1), direction("l2", "a", "b", 0, 0, 1), direction("l3", "a", "b", 0, 0, 1), direction("l4", "a", "b", 0, 0, 1), direction("l5", "a", "b", 0, 0, 1)},
			late:  []bool{true, true, true, true, true}, failing: true, words: []string{"l1", "l2", "l3", "2 more"},
		},
	} {
		for _, strict := range []bool{false, true} {
			r := &runner{options: Options{Strict: strict}, result: report.Result{Checks: []report.Check{{Name: "other", OK: true}}}}
			r.judgeSchedule(tt.wires, tt.kernels)
			var late []bool
			for i, l := range r.result.Lateness {
				late = append(late, l.Late)
				w := tt.wires[i]
				if l.Link != w.link || l.From != w.from || l.To != w.to || l.Packets != w.Lateness.Packets || l.P99 != ms(w.Lateness.P99) ||
					l.P50 != ms(w.Lateness.P50) || l.Max != ms(w.Lateness.Max) || l.Missed != w.Missed {
					t.Errorf("%s: %+v of %+v", name, l, w)
				}
			}
			if len(late) != len(tt.late) {
				t.Errorf("%s: %v, want %v", name, late, tt.late)
				continue
			}
			for i := range late {
				if late[i] != tt.late[i] {
					t.Errorf("%s: %v, want %v", name, late, tt.late)
				}
			}
			told := ""
			if strict {
				// Of what the kernel shapes nothing is known, and that is said.
				unknown := strings.Join(r.result.Warnings, " ")
				for i, k := range tt.kernels {
					if told := strings.Contains(unknown, k); told != (i < 3) {
						t.Errorf("%s: %q, told of %s: %v", name, unknown, k, told)
					}
				}
				if failed := r.result.Verdict() == report.Fail; failed != tt.failing || len(r.result.Warnings) != min(1, len(tt.kernels)) {
					t.Errorf("%s: %+v, warnings %q", name, r.result.Checks, r.result.Warnings)
				}
				if checks := r.result.Checks[1:]; len(checks) != min(1, len(tt.wires)) {
					t.Errorf("%s: %+v", name, checks)
				} else if len(checks) > 0 {
					told = checks[0].Detail
				}
			} else {
				if r.result.Verdict() != report.Pass || len(r.result.Checks) != 1 || len(r.result.Warnings) > 0 != tt.failing {
					t.Errorf("%s: %+v, warnings %q", name, r.result.Checks, r.result.Warnings)
				}
				told = strings.Join(r.result.Warnings, " ")
			}
			for _, w := range tt.words {
				if !strings.Contains(told, w) {
					t.Errorf("%s, strict %v: %q does not say %q", name, strict, told, w)
				}
			}
		}
	}
}
