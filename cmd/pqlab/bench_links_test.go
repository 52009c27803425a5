package main

import (
	"os"
	"strings"
	"testing"

	"pqlab/bench"
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

// Shapers are side by side, each row has a link as it is and busy, and each goal says whether it was met.
func TestPrintLinks(t *testing.T) {
	t.Parallel()
	off := 0.0125
	out := bench.Links{
		Shapers: []string{"wire", "netem"}, Missing: map[string]string{"tbf": "no such thing"},
		Errors: []bench.LinkError{
			{Shaper: "wire", Rate: 1e6, Delay: 5, P50: 11, P99: 22, Off: &off},
			{Shaper: "netem", Rate: 1e6, Delay: 5, P50: 33, P99: 44, Unmeasured: []string{"for a reason"}},
			{Shaper: "wire", Rate: 0, Delay: 5, P50: 55, P99: 66, Loaded: true},
		},
		Caveat: "beware",
	}
	var text strings.Builder
	if err := printLinks(&text, out, 1); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")
	for i, want := range []string{"", "+11 µs +22 µs +1.25 % +33 µs +44 µs -", "+55 µs +66 µs - - - -"} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasSuffix(got, want) {
			t.Errorf("%q does not end with %q", got, want)
		}
	}
	for _, want := range []string{"no such thing", "for a reason", "beware"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in %s", want, text.String())
		}
	}

	good := bench.WireGoals{
		Unshaped: []float64{1, 9e9, 9e9}, TCP: []float64{0.995}, UDP: []float64{1.005}, P50: []float64{80}, P99: []float64{300},
		Loss: bench.LossSeen{Packets: 1e5, Wanted: 0.01, Seen: 0.0101, Low: 0.0099, High: 0.0103}, IdleCPU: []float64{0.04}, Held: 5, HeldBound: 5,
	}
	bad := bench.WireGoals{
		Unshaped: []float64{1, 1, 9e9}, TCP: []float64{0.98}, UDP: []float64{1.02}, P50: []float64{81}, P99: []float64{301},
		Loss: bench.LossSeen{Packets: 1e5, Wanted: 0.01, Seen: 0.02, Low: 0.019, High: 0.021}, IdleCPU: []float64{0.06}, Held: 6, HeldBound: 5,
	}
	const goals = 8
	for verdict, g := range map[string]bench.WireGoals{"goal met": good, "goal missed": bad} {
		text.Reset()
		out.Wire = &g
		if err := printLinks(&text, out, 1); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(text.String(), verdict+":"); n != goals {
			t.Errorf("%s %d times, want %d: %s", verdict, n, goals, text.String())
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
	r := pqlab(t, "run", "--json", "--shaper", "wire", "--duration", "200ms", write(t, text("{rate: 60%, delay: 1s, jitter: 1s}")))
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
