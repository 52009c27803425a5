package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
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

// A rate that cannot be had here fails a strict run and no other; a lab that is to be verified is refused with its place, and one that
// no Ethernet has is bad input.
func TestStrictRates(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := func(more, rate string) string {
		return write(t, more+`
name: rates
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links:
  - {a: a, b: b, kind: ethernet, rate: `+rate+`}
traffic: [{from: a, to: b, proto: tcp}]
`)
	}
	type result struct {
		Warnings []string       `json:"warnings"`
		Checks   []report.Check `json:"checks"`
	}
	fast := lab("", "1Tbit/s")
	r := pqlab(t, "run", fast, "--shaper", "wire", "--duration", "100ms", "--json")
	if r.code == exitUnsupported {
		t.Skip(r.err)
	}
	names := func(all []string) bool {
		return slices.ContainsFunc(all, func(w string) bool { return strings.Contains(w, "1Tbit/s") })
	}
	if got := parse[result](t, r.out); r.code != exitOK || names(got.Warnings) {
		t.Errorf("exit %d: %q", r.code, got.Warnings)
	}
	r = pqlab(t, "run", fast, "--shaper", "wire", "--duration", "100ms", "--json", "--strict")
	got := parse[result](t, r.out)
	failed := slices.ContainsFunc(got.Checks, func(c report.Check) bool { return !c.OK && strings.Contains(c.Name, "rates") })
	if r.code != exitFailed || !names(got.Warnings) || !failed || !strings.Contains(strings.Join(got.Warnings, "\n"), fast+":5:40: ") {
		t.Errorf("strict: exit %d: %q, %+v", r.code, got.Warnings, got.Checks)
	}
	verified := lab("verify: true", "1Tbit/s")
	if r := pqlab(t, "run", verified, "--shaper", "wire", "--duration", "100ms"); r.code != exitFailed || !strings.Contains(r.err, verified+":5:40: ") {
		t.Errorf("verified: exit %d: %s", r.code, r.err)
	}
	// up has no result in which a check could fail: it refuses.
	name := fmt.Sprintf("strict-%d", os.Getpid())
	t.Cleanup(func() { command(t, "down", name).Run() })
	if r := pqlab(t, "up", fast, "--name", name, "--shaper", "wire", "--strict"); r.code != exitFailed || !strings.Contains(r.err, fast+":5:40: ") || r.out != "" {
		t.Errorf("strict up: exit %d: %s%s", r.code, r.out, r.err)
	}
	if r := pqlab(t, "ps", name); r.code != exitUsage {
		t.Errorf("it is up: exit %d: %s", r.code, r.out)
	}
	for _, args := range [][]string{{fast}, {lab("", "10Mbit/s"), "--strict"}} {
		if r := pqlab(t, append([]string{"up", "--name", name, "--shaper", "wire"}, args...)...); r.code != exitOK {
			t.Errorf("up %v: exit %d: %s", args, r.code, r.err)
		}
		if r := pqlab(t, "down", name); r.code != exitOK {
			t.Errorf("down: exit %d: %s", r.code, r.err)
		}
	}
	beyond := lab("", "2Tbit/s")
	if r := pqlab(t, "run", beyond, "--shaper", "wire"); r.code != exitUsage || !strings.Contains(r.err, beyond+":5:40: ") {
		t.Errorf("beyond: exit %d: %s", r.code, r.err)
	}
}
