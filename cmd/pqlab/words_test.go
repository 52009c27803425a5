package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A lab, link or node that there is not is the user's mistake, which is told with what he may have meant; an empty flag, which
// an unset variable of a shell leaves, changes nothing.
func TestLinkSetMistakes(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := fmt.Sprintf("words-%d", os.Getpid())
	defer func() { command(t, "down", lab).Run() }()
	up := pqlab(t, "up", write(t, "nodes: [{name: alice, kind: host}, {name: bob, kind: host}]\nlinks: [{kind: ethernet, a: alice, b: bob, delay: 1ms}]\n"),
		"--name", lab, "--shaper", "wire", "--json")
	if up.code != exitOK {
		t.Fatal(up.err)
	}
	bad := filepath.Join(t.TempDir(), "bad.trace")
	if err := os.WriteFile(bad, []byte("1s 1Mbit/s\n1s fast\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		says []string
	}{
		"lab":          {[]string{"link", "set", lab[1:], "alice-bob", "loss=7%"}, []string{lab}},
		"lab of ps":    {[]string{"ps", lab + "x"}, []string{lab}},
		"link":         {[]string{"link", "set", lab, "alice-bo", "loss=7%"}, []string{"alice-bob"}},
		"other link":   {[]string{"link", "set", lab, "wan", "loss=7%"}, []string{"alice-bob"}},
		"node":         {[]string{"link", "set", lab, "alice-bob", "--from", "h3", "loss=7%"}, []string{"h3", "alice and bob"}},
		"empty node":   {[]string{"link", "set", lab, "alice-bob", "--from", "", "loss=7%"}, []string{"--from"}},
		"empty report": {[]string{"run", "pair", "--report", ""}, []string{"--report"}},
		"trace":        {[]string{"link", "set", lab, "alice-bob", "rate_trace={file: " + bad + "}"}, []string{bad + ":2"}},
		"YAML":         {[]string{"link", "set", lab, "alice-bob", "gilbert_elliott={p: 1%"}, []string{"gilbert_elliott"}},
	} {
		r := pqlab(t, tt.args...)
		if r.code != exitUsage {
			t.Errorf("%s: exit status %d: %s", name, r.code, r.err)
		}
		for _, says := range tt.says {
			if !strings.Contains(r.err, says) {
				t.Errorf("%s: no %q in %s", name, says, r.err)
			}
		}
	}
	type direction struct {
		Loss  float64
		Delay uint64 `json:"delay_ns"`
		Trace struct {
			Steps  int
			Length uint64 `json:"length_ns"`
			Mean   uint64 `json:"mean_bits_per_second"`
		} `json:"rate_trace"`
		LossTrace struct{ Packets, Lost int } `json:"loss_trace"`
		Queue     struct {
			Kind string
			Time uint64 `json:"time_ns"`
		}
		Outages []struct {
			Start  uint64 `json:"start_ns"`
			Length uint64 `json:"length_ns"`
			Every  uint64 `json:"every_ns"`
		}
		Lateness *struct{ Packets uint64 }
	}
	type link struct {
		FromA direction `json:"from_a"`
		FromB direction `json:"from_b"`
	}
	now := parse[struct{ Links []link }](t, pqlab(t, "ps", lab, "--json").out)
	if l := now.Links[0]; l.FromA.Loss != 0 || l.FromB.Loss != 0 || l.FromA.Delay != 1e6 || l.FromA.Lateness == nil {
		t.Errorf("changed by mistakes: %+v", l)
	}

	// What is too long for an argument comes from a file or from standard input.
	good := filepath.Join(t.TempDir(), "good.trace")
	if err := os.WriteFile(good, []byte(strings.Repeat("1s 1Mbit/s\n1s 3Mbit/s\n", 1<<15)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := command(t, "link", "set", lab, "alice-bob", "--json", "rate_trace={file: "+good+"}", "loss_trace={file: -}", "queue={time: 50ms}",
		"outages=[{start: 1h, length: 1s, every: 2h}]")
	c.Stdin = strings.NewReader("0001\n")
	r := finish(t, c)
	if r.code != exitOK {
		t.Fatal(r.err)
	}
	d := parse[link](t, r.out).FromB
	if d.Trace.Steps != 1<<16 || d.Trace.Length != 65536e9 || d.Trace.Mean != 2e6 || d.LossTrace.Packets != 4 || d.LossTrace.Lost != 1 ||
		d.Queue.Kind != "drop-tail" || d.Queue.Time != 50e6 || len(d.Outages) != 1 || d.Outages[0].Every != 7200e9 {
		t.Errorf("%+v", d)
	}
}
