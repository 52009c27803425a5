package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pqlab/internal/vm/kernel"
	"pqlab/suites"
)

// A failure weighs more than what could not run, and that more than what was verified.
func TestTally(t *testing.T) {
	t.Parallel()
	verified := suites.Outcome{Specs: 2, Passed: 2, Skipped: []suites.Skip{{Spec: "s", Reason: "r"}}}
	failed := suites.Outcome{Specs: 2, Passed: 1, Failed: 1, Failures: []suites.Failure{{Spec: "s"}}}
	empty := suites.Outcome{}
	notRun := suites.Outcome{Skipped: []suites.Skip{{Spec: "s", Reason: "r"}}}
	couldNot := suites.Outcome{CouldNotRun: "no guest"}
	late := suites.Outcome{Specs: 2, Passed: 2, CouldNotRun: "no guest"}
	for _, c := range []struct {
		outcomes []suites.Outcome
		want     int
		says     string
	}{
		{[]suites.Outcome{verified}, exitOK, "1 of 1 claims verified"},
		{[]suites.Outcome{verified, notRun}, exitOK, "1 of 2 claims verified, 1 not run here"},
		{[]suites.Outcome{notRun}, exitUnsupported, "0 of 1 claims verified, 1 not run here"},
		{[]suites.Outcome{verified, couldNot}, exitUnsupported, "1 of 2 claims verified, 1 could not run"},
		{[]suites.Outcome{verified, late, notRun}, exitUnsupported, "1 of 3 claims verified, 1 not run here, 1 could not run"},
		{[]suites.Outcome{couldNot, failed, verified}, exitFailed, "1 of 3 claims verified, 1 could not run"},
		{[]suites.Outcome{verified, failed}, exitFailed, "1 of 2 claims verified"},
		{[]suites.Outcome{verified, empty}, exitFailed, "1 of 2 claims verified"},
	} {
		got := exitOK
		if err := tallied(c.outcomes).err(); err != nil {
			got = int(err.(exitError))
		}
		if s := tallied(c.outcomes).String(); got != c.want || s != c.says {
			t.Errorf("%+v: exit status %d, want %d, %q", c.outcomes, got, c.want, s)
		}
	}
}

// A guest that does not come up is told of, claim by claim, and nothing is verified without it.
func TestModeVMWithoutGuests(t *testing.T) {
	cache, err := kernel.UserCache()
	if err != nil {
		t.Skipf("no guest: %v", err)
	}
	k, err := cache.Find("")
	if err != nil {
		t.Skipf("no guest: %v", err)
	}
	clean(t)
	dir := t.TempDir()
	broken := filepath.Join(dir, "qemu-system-x86_64")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho out of order >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	test := func(more ...string) result {
		t.Helper()
		cmd := command(t, append([]string{"test", "--mode", "vm", "--kernel", k.Image, "combine", "tunnel"}, more...)...)
		cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+dir, "PATH="+dir+":"+os.Getenv("PATH"))
		r := finish(t, cmd)
		if r.code != exitUnsupported {
			t.Errorf("exit status %d, want %d: %s%s", r.code, exitUnsupported, r.out, r.err)
		}
		return r
	}
	got := parse[[]suites.Outcome](t, test("--json").out)
	if len(got) != 2 || slices.ContainsFunc(got, func(o suites.Outcome) bool { return !strings.Contains(o.CouldNotRun, "out of order") }) {
		t.Errorf("%+v", got)
	}
	if out := test().out; strings.Count(out, "out of order") != 2 || !strings.Contains(out, "2 could not run") {
		t.Errorf("%s", out)
	}
}
