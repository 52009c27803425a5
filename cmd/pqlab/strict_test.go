package main

import (
	"slices"
	"testing"

	"pqlab/report"
)

// The result has how late each direction of a wire was, and a strict run fails if and only if one was too late.
func TestStrict(t *testing.T) {
	needLabs(t)
	clean(t)
	file := write(t, `
name: strict
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links: [{a: a, b: b, kind: ethernet, delay: 1ms}]
traffic: [{from: a, to: b, proto: tcp}]
`)
	r := pqlab(t, "run", file, "--shaper", "wire", "--duration", "300ms", "--strict", "--json")
	if r.code == exitUnsupported {
		t.Skip(r.err)
	}
	got := parse[struct {
		Lateness []report.Lateness `json:"lateness"`
		Checks   []report.Check    `json:"checks"`
	}](t, r.out)
	if len(got.Lateness) != 2 || got.Lateness[0].From != "a" || got.Lateness[1].From != "b" {
		t.Fatalf("%+v", got.Lateness)
	}
	late := false
	for _, l := range got.Lateness {
		if l.Packets == 0 || l.P50 <= 0 || l.P99 < l.P50 || l.Max < l.P99 {
			t.Errorf("%+v", l)
		}
		late = late || l.Late
	}
	checks := slices.DeleteFunc(got.Checks, func(c report.Check) bool { return c.Name != "links keep their schedule" })
	if len(checks) != 1 || checks[0].OK == late {
		t.Errorf("late %v: %+v", late, checks)
	}
	if late && r.code != exitFailed || !late && r.code != exitOK {
		t.Errorf("late %v: exit %d, %s", late, r.code, r.err)
	}
}
