package run

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/lab"
	"pqlab/links"
	"pqlab/links/medium"
	"pqlab/report"
	"pqlab/topology"
)

const fated = `
name: fated
nodes: [{name: a, kind: host}, {name: b, kind: host}, {name: c, kind: host}]
links:
  - {name: ab, kind: ethernet, a: a, b: b, delay: 3ms, jitter: 1ms, unordered: true, loss: 2%, duplication: 5%, corruption: 0.5%}
  - {name: bc, kind: ethernet, a: b, b: c}
traffic:
  - {name: up, from: a, to: b, proto: udp, rate: 3Mbit/s, frame_size: 400}
`

// recordedOf reads the trace of link ab: the fates of each packet.
func recordedOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "ab.fates"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := medium.ReadTrace(bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[medium.ShapeLine:] {
		f := strings.Fields(line) // the size may be another: who asks for addresses when is left to the kernel
		all[f[0]+" "+f[1]] += fmt.Sprintln(f[3:])
	}
	return all
}

// A run's fates are recorded, and in a run of another seed its packets meet the same.
func TestFates(t *testing.T) {
	owner.Check(t)
	dir := t.TempDir()
	do := func(seed uint64, f links.Fates) report.Result {
		t.Helper()
		p := plan(t, strings.Replace(fated, "name: fated", fmt.Sprintf("name: fated\nseed: %d", seed), 1))
		result, err := Do(t.Context(), p, Options{Lab: lab.Options{Log: os.Stderr, Fates: f}, Duration: 2500 * time.Millisecond})
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(result.Fates) != 2 || result.Fates[0].Link != "ab" || result.Fates[0].From != "a" || result.Fates[1].From != "b" { // bc has no shape
			t.Fatalf("%+v", result.Fates)
		}
		return result
	}
	first, second, other := filepath.Join(dir, "1"), filepath.Join(dir, "2"), filepath.Join(dir, "3")
	r := do(1, links.Fates{Record: first})
	was := recordedOf(t, first)
	if got := r.Fates[0]; got.File != filepath.Join(first, "ab.fates") || got.Replayed != nil || got.Recorded < 100 ||
		int(got.Recorded+r.Fates[1].Recorded) < len(was) {
		t.Errorf("%+v, %d packets", got, len(was))
	}
	r = do(2, links.Fates{Record: second, Replay: first})
	is := recordedOf(t, second)
	if got := r.Fates[0].Replayed; got == nil || got.Traced < 100 || got.Met < 100 || got.Beyond != got.Met-min(got.Met, got.Traced) {
		t.Errorf("%+v", got)
	}
	do(2, links.Fates{Record: other})
	same := func(is map[string]string) (equal, compared int) {
		for key, fates := range was {
			if is[key] != "" {
				if compared++; sorted(fates) == sorted(is[key]) {
					equal++
				}
			}
		}
		return equal, compared
	}
	if equal, compared := same(is); equal != compared || compared < 100 {
		t.Errorf("%d of %d packets met the fates of the trace", equal, compared)
	}
	if equal, compared := same(recordedOf(t, other)); equal > compared/2 {
		t.Errorf("of another seed %d of %d packets have the same fates", equal, compared)
	}
}

// sorted has the lines of a text in order.
func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// What of a replay does not fit is a warning, and a trace that could not be written is a failed check.
func TestJudgeHistory(t *testing.T) {
	t.Parallel()
	p := topology.PlannedLink{Link: topology.Link{Name: "ab", A: topology.End{Node: "a"}, B: topology.End{Node: "b"}}}
	for name, tt := range map[string]struct {
		links.History
		err      error
		warnings []string // a word of each
		checks   int
		fails    bool
	}{
		"recorded": {History: links.History{File: "d/ab.fates", Sides: [2]links.SideHistory{{Recorded: 5}, {Recorded: 6}}}, checks: 1},
		"full":     {err: errors.New("no space left"), checks: 1, fails: true},
		"replayed": {History: links.History{Replayed: true, Sides: [2]links.SideHistory{{Traced: 9, Met: 7}, {}}}},
		"misfits": {
			History:  links.History{Replayed: true, Sides: [2]links.SideHistory{{Traced: 9, Met: 12, Beyond: 3, Differing: 2}, {Met: 4, Beyond: 4}}},
			warnings: []string{"3 beyond", "all 4 were lost"},
		},
	} {
		r := &runner{result: report.Result{Checks: []report.Check{{Name: "other", OK: true}}}}
		r.judgeHistory(p, tt.History, tt.err)
		if len(r.result.Checks) != tt.checks+1 || tt.fails != (r.result.Verdict() == report.Fail) || len(r.result.Warnings) != len(tt.warnings) {
			t.Errorf("%s: %+v, %q", name, r.result.Checks, r.result.Warnings)
			continue
		}
		for i, w := range tt.warnings {
			if !strings.Contains(r.result.Warnings[i], w) {
				t.Errorf("%s: %q does not say %q", name, r.result.Warnings[i], w)
			}
		}
		for side, f := range r.result.Fates {
			if f.Recorded != tt.Sides[side].Recorded || f.File != tt.File || (f.Replayed != nil) != tt.Replayed || f.From == f.To {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}
