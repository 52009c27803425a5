package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pqlab/links/medium"
	"pqlab/report"
)

const fatedLab = `
name: fated
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links: [{name: ab, a: a, b: b, kind: ethernet, delay: 2ms, jitter: 1ms, loss: 3%, duplication: 3%}]
traffic: [{from: a, to: b, proto: udp, rate: 2Mbit/s, frame_size: 400}]
`

// traceFile reads the one trace that a directory has.
func traceFile(t *testing.T, dir string) *medium.Trace {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "ab.fates" {
		t.Fatalf("%v, %v", entries, err)
	}
	f, err := os.Open(filepath.Join(dir, "ab.fates"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := medium.ReadTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// Fates are recorded and replayed by flags, and what does not go together ends with 2 before anything is made.
func TestFatesFlags(t *testing.T) {
	needLabs(t)
	clean(t)
	file, dir := write(t, fatedLab), filepath.Join(t.TempDir(), "traces")
	r := pqlab(t, "run", file, "--duration", "300ms", "--record-fates", dir, "--json")
	if r.code == exitUnsupported {
		t.Skip(r.err)
	}
	type result struct {
		Shaper string         `json:"shaper"`
		Fates  []report.Fates `json:"fates"`
	}
	got := parse[result](t, r.out)
	trace := traceFile(t, dir)
	if got.Shaper != "wire" || len(got.Fates) != 2 || got.Fates[0].File != filepath.Join(dir, "ab.fates") || trace.Link != "ab" || trace.Packets(0) == 0 {
		t.Errorf("%+v of %s", got, r.out)
	}
	got = parse[result](t, pqlab(t, "run", file, "--duration", "300ms", "--seed", "77", "--replay-fates", dir, "--json").out)
	if len(got.Fates) != 2 || got.Fates[0].File != "" || got.Fates[0].Replayed == nil || got.Fates[0].Replayed.Met == 0 {
		t.Errorf("%+v", got)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.CopyFS(broken, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(broken, "ab.fates")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, "0 1 2\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	where := fmt.Sprintf("%s:%d:", path, strings.Count(string(text), "\n")+1)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"run", file, "--replay-fates", broken}, where},
		{[]string{"up", file, "--replay-fates", broken}, where},
		{[]string{"run", file, "--replay-fates", filepath.Join(dir, "none")}, "link ab"},
		{[]string{"run", file, "--record-fates", dir, "--shaper", "netem"}, "--shaper=wire"},
		{[]string{"run", "north-south", "--record-fates", filepath.Join(dir, "none")}, "airtime"},
		{[]string{"run", file, "--record-fates", "/proc/none"}, "/proc/none"},
		{[]string{"run", write(t, fatedLab+"verify: true\n"), "--record-fates", dir}, "verify: true"},
	} {
		if r := pqlab(t, tt.args...); r.code != exitUsage || !strings.Contains(r.err, tt.says) || r.out != "" {
			t.Errorf("%v: exit status %d, %s%s", tt.args, r.code, r.out, r.err)
		}
	}
}

// A trace is complete after Ctrl-C, too.
func TestFatesInterrupted(t *testing.T) {
	needLabs(t)
	clean(t)
	file, dir := write(t, fatedLab), filepath.Join(t.TempDir(), "traces")
	if r := pqlab(t, "run", file, "--duration", "10ms", "--record-fates", filepath.Join(t.TempDir(), "try")); r.code == exitUnsupported {
		t.Skip(r.err)
	}
	c, shown, keys := onTerminal(t, "run", file, "--duration", "1m", "--record-fates", dir)
	until(t, "traffic is shown", func() bool { return strings.Contains(shown.String(), "udp from a to b") })
	if _, err := keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if got := code(t, c.Wait()); got != exitInterrupted {
		t.Errorf("exit status %d: %q", got, shown)
	}
	if trace := traceFile(t, dir); trace.Link != "ab" {
		t.Errorf("%+v", trace.Header)
	}
}

// A lab that stays up records until it is taken down, and one that replays takes no other shapes.
func TestFatesUp(t *testing.T) {
	needLabs(t)
	clean(t)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	file, dir := write(t, fatedLab), filepath.Join(t.TempDir(), "traces")
	if r := pqlab(t, "up", file, "--record-fates", dir); r.code == exitUnsupported {
		t.Skip(r.err)
	} else if r.code != exitOK {
		t.Fatal(r.err)
	}
	if r := pqlab(t, "down", "fated"); r.code != exitOK {
		t.Fatal(r.err)
	}
	traceFile(t, dir)
	if r := pqlab(t, "up", file, "--replay-fates", dir); r.code != exitOK {
		t.Fatal(r.err)
	}
	if r := pqlab(t, "link", "set", "fated", "ab", "delay=9ms"); r.code != exitUsage || !strings.Contains(r.err, "replays") {
		t.Errorf("exit status %d, %s", r.code, r.err)
	}
	if r := pqlab(t, "down", "fated"); r.code != exitOK {
		t.Fatal(r.err)
	}
}
