package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pqlab/bench"
	"pqlab/bench/crypto"
)

func TestBenchLinksUsage(t *testing.T) {
	t.Parallel()
	for args, named := range map[string]string{"--runs 0": "--runs", "--duration -1s": "--duration", "more": "more"} {
		r := pqlab(t, append([]string{"bench", "links"}, strings.Fields(args)...)...)
		if r.code != exitUsage || !strings.Contains(r.err, named) {
			t.Errorf("%s: exit status %d: %s", args, r.code, r.err)
		}
	}
}

func measuredLinks() bench.Links {
	off, three, no, yes := 0.0125, 3.0, false, true
	return bench.Links{
		Machine: crypto.Machine{Kernel: "Linux 9.9", CPUs: 7, CPU: "Some CPU", PQLab: "v3", Revision: "cafe"},
		Shapers: []string{"wire", "netem", "tbf"}, Missing: map[string]string{"tbf": "no such thing"}, LeftOut: "left out", Caveat: "beware",
		Errors: []bench.LinkError{
			{Shaper: "wire", Rate: 1e6, Delay: 5, P50: 11, P99: 22, Off: &off},
			{Shaper: "netem", Rate: 1e6, Delay: 5, P50: 33, P99: 4400, Unmeasured: []string{"for a reason"}},
			{Shaper: "wire", Rate: 0, Delay: 5, P50: 55, P99: 66, Loaded: true},
		},
		Jitters: []bench.JitterError{
			{Shaper: "wire", Distribution: "uniform", Delay: 5, Jitter: 1, Packets: 9, Errors: [3]bench.QuartileError{{Error: 1, Low: -2, High: 3}, {Error: 4, Low: -5, High: 6}, {Error: -7, Low: -8, High: 9}}, Tail: []bench.TailError{{Share: 0.9, QuartileError: bench.QuartileError{Error: 5000}}}},
		},
		Losses: []bench.LossError{
			{Shaper: "wire", LossSeen: bench.LossSeen{Packets: 20000, Wanted: 0.001, Seen: 0.0012, Low: 0.0008, High: 0.0017, Missed: 4}},
			{Shaper: "netem", LossSeen: bench.LossSeen{Packets: 20000, Wanted: 0.001, Seen: 0.0011, Low: 0.0007, High: 0.0016}},
		},
		Load: &bench.Load{Processes: 7, Cores: 6.5},
		Goals: []bench.Goal{
			{What: "first", Unit: "things", Least: &three, Seen: &three, Low: &three, High: &three, Met: &yes},
			{What: "second", Unit: "%", Most: &three, Seen: &three, Low: &three, High: &three, Met: &no},
			{What: "third", Unit: "%", Most: &three, Why: "it rained"},
		},
	}
}

// Shapers are side by side, each row has a link as it is and busy, and each goal says whether it was met.
func TestPrintLinks(t *testing.T) {
	t.Parallel()
	out := measuredLinks()
	var text strings.Builder
	if err := printLinks(&text, out); err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range []string{
		"1Mbit/s 5 ms +11 µs +22 µs +1.25 % +33 µs +4.4 ms -", "none 5 ms +55 µs +66 µs - - - -",
		"5 ms 1 ms, uniform wire +1 µs (-2 µs to +3 µs) +4 µs (-5 µs to +6 µs) -7 µs (-8 µs to +9 µs) +5.0 ms (+0 µs to +0 µs) -",
		"0.1 % 0.120 % 0.080 to 0.170 % 20000 4 0.110 % 0.070 to 0.160 % 20000 0",
		"no such thing", "left out", "for a reason", "beware", "goal met: first: 3 things", "goal missed: second", "it rained", "7 endless loops",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q in %s", want, text.String())
		}
	}
}

func TestDigits(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]float64{"0": 0, "300": 300, "1178": 1178.2, "10": 10, "9.21": 9.213, "0.017": 0.0167, "-0.5": -0.5, "2.5": 2.5, "8": 8} {
		if got := digits(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// The results in files become tables; a missed goal fails if that is asked for; what is no result is refused.
func TestBenchLinksMarkdown(t *testing.T) {
	t.Parallel()
	file := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "links.json")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	bad, good := measuredLinks(), measuredLinks()
	good.Goals, good.Machine.Kernel = good.Goals[:1], "Linux 8.8"
	for _, tt := range []struct {
		args []string
		code int
		has  []string
	}{
		{[]string{file(good), file(bad)}, exitOK, []string{"### Linux 8.8, 7 × Some CPU", "### Linux 9.9", "cafe", "| as it is | 1Mbit/s | 5 ms | +11 µs |", "| second | 3 % | at most 3 % | 3 to 3 | missed |"}},
		{[]string{"--strict", file(good)}, exitOK, []string{"Linux 8.8"}},
		{[]string{"--strict", file(good), file(bad)}, exitFailed, []string{"Linux 9.9"}},
		{nil, exitUsage, nil},
		{[]string{"--quick", file(good)}, exitUsage, nil},
		{[]string{file(map[string]int{"errors": 3})}, exitUsage, nil},
		{[]string{file(map[string]int{"other": 3})}, exitUsage, nil},
		{[]string{"/nonexistent/file"}, exitUsage, nil},
	} {
		r := pqlab(t, append([]string{"bench", "links", "--markdown"}, tt.args...)...)
		if r.code != tt.code || (r.err == "") != (tt.code == exitOK) {
			t.Errorf("%v: exit status %d, want %d: %s", tt.args, r.code, tt.code, r.err)
		}
		for _, want := range tt.has {
			if !strings.Contains(r.out, want) {
				t.Errorf("%v: no %q in %s", tt.args, want, r.out)
			}
		}
		// Each row of a table has as many cells as its head.
		cells := 0
		for line := range strings.Lines(r.out) {
			n := strings.Count(line, "|")
			if n > 0 && cells > 0 && n != cells {
				t.Errorf("%d cells of %d: %s", n-1, cells-1, line)
			}
			cells = n
		}
	}
}

// A topology that wants its links verified gets that, in its result, or no lab.
func TestVerifiedRun(t *testing.T) {
	needLabs(t)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	text := func(tolerance string) string {
		return "verify: true\ntolerance: " + tolerance + `
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links: [{name: ab, kind: ethernet, a: a, b: b, rate: 5Mbit/s, delay: 20ms}]
traffic: [{from: a, to: b, proto: udp, rate: 100kbit/s}]
`
	}
	clean(t)
	loose := write(t, text("{rate: 60%, delay: 1s, jitter: 1s, tail: 10s, confidence: 99.9999%}"))
	r := pqlab(t, "run", "--json", "--shaper", "wire", "--duration", "200ms", loose)
	for try := 1; try < 10 && r.code == exitFailed && strings.Contains(r.err, "this machine is too busy"); try++ {
		t.Logf("once more: %s", r.err)
		r = pqlab(t, "run", "--json", "--shaper", "wire", "--duration", "200ms", loose)
	}
	if r.code != exitOK {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	got := parse[struct {
		Links []struct {
			Link, From, Wanted string
			Delay              struct {
				Seen [3]float64 `json:"seen_ms"`
			}
			Rate struct {
				Wanted float64 `json:"wanted_bits_per_second"`
			}
		}
		Verify float64 `json:"verify_ms"`
	}](t, r.out)
	if len(got.Links) != 2 || got.Verify <= 0 {
		t.Fatalf("%+v", got)
	}
	for i, l := range got.Links {
		if l.Link != "ab" || l.From != []string{"a", "b"}[i] || l.Wanted == "" || l.Delay.Seen[1] < 20 || l.Rate.Wanted != 5e6 {
			t.Errorf("%+v", l)
		}
	}
	r = pqlab(t, "run", "--json", "--shaper", "wire", "--duration", "200ms", write(t, text("{rate: 60%, delay: 1ns, jitter: 1s}")))
	if r.code != exitFailed || r.out != "" || !strings.Contains(r.err, "link ab, from a to b") {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.err)
	}
}
