package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pqlab/suites"
	"pqlab/topology"
)

// lacks says which of the fields ("a.b", "a[].b") a document has not got.
func lacks(v any, fields ...string) []string {
	var missing []string
	for _, f := range fields {
		if !present(v, strings.Split(f, ".")) {
			missing = append(missing, f)
		}
	}
	return missing
}

func present(v any, path []string) bool {
	if len(path) == 0 {
		return v != nil
	}
	name, list := strings.CutSuffix(path[0], "[]")
	m, ok := v.(map[string]any)
	if !ok {
		return false
	}
	v, ok = m[name]
	if !ok || !list {
		return ok && present(v, path[1:])
	}
	all, ok := v.([]any)
	for _, e := range all {
		ok = ok && present(e, path[1:])
	}
	return ok && len(all) > 0
}

// A run tells all that it measured, as JSON and nothing else.
func TestRunJSON(t *testing.T) {
	needLabs(t)
	clean(t)
	dir := t.TempDir()
	r := pqlab(t, "run", "pair", "--duration", "1s", "--rekey-time", "1s", "--json", "--report", filepath.Join(dir, "new", "out"), "--capture", filepath.Join(dir, "pcap"))
	if r.err != "" {
		t.Errorf("on standard error: %s", r.err)
	}
	if missing := lacks(parse[any](t, r.out),
		"topology", "seed", "kernel", "dataplane", "shaper", "exchange.suite", "exchange.ms", "exchange.bytes",
		"traffic[].from", "traffic[].to", "traffic[].proto", "traffic[].streams", "traffic[].bits_per_second", "traffic[].sent",
		"traffic[].lost", "traffic[].reordered", "traffic[].latency_us.p50", "traffic[].latency_us.p99",
		"rekeys[].trigger", "rekeys[].at_ms", "rekeys[].lost", "cpu_seconds.a", "cpu_seconds.b",
	); missing != nil {
		t.Errorf("no %v in %s", missing, r.out)
	}
	got := parse[struct {
		Topology, Kernel, Dataplane, Shaper, Verdict string
		Traffic                                      []struct {
			Proto         string
			BitsPerSecond float64 `json:"bits_per_second"`
			Sent          uint64
			Latency       struct{ P50, P99 float64 } `json:"latency_us"`
		}
		Rekeys []struct{ Trigger string }
		Checks []struct {
			Name string
			OK   bool
		}
	}](t, r.out)
	failed := 0
	for _, c := range got.Checks {
		if !c.OK {
			failed++
		}
	}
	if (failed == 0) != (r.code == exitOK) || failed > 0 && r.code != exitFailed {
		t.Errorf("exit status %d with %d failed checks", r.code, failed)
	}
	if got.Topology != "pair" || got.Kernel == "" || got.Dataplane == "" || got.Shaper == "" || len(got.Traffic) != 2 {
		t.Errorf("%+v", got)
	}
	for _, f := range got.Traffic {
		if f.BitsPerSecond <= 0 || f.Sent == 0 || f.Latency.P50 <= 0 || f.Latency.P99 < f.Latency.P50 {
			t.Errorf("%+v", f)
		}
	}
	for _, k := range got.Rekeys {
		if k.Trigger != "time" {
			t.Errorf("%+v", k)
		}
	}
	for _, f := range []string{"new/out/result.json", "new/out/junit.xml", "new/out/index.html", "pcap/a-b.pcapng"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// What the flags change is in the result.
func TestRunFlags(t *testing.T) {
	needLabs(t)
	clean(t)
	r := pqlab(t, "run", "pair", "--duration", "50ms", "--json", "--suite", "dilithium2+kyber512", "--combiner", "hardened",
		"--identity", "pinned", "--encapsulation", "esp", "--family", "ipv6", "--tls-groups", "X25519MLKEM768", "--mutual",
		"--seed", "77", "--shaper", "none", "--gateway-port", "packet", "--dataplane", "gateway")
	got := parse[struct {
		Seed              uint64
		Dataplane, Shaper string
		Tunnels           []struct{ Suite, Combiner, Identity, Encapsulation string }
	}](t, r.out)
	want := struct{ Suite, Combiner, Identity, Encapsulation string }{"dilithium2+kyber512", "hardened", "pinned", "esp"}
	if r.code != exitOK || got.Seed != 77 || got.Shaper != "none" || got.Dataplane != "gateway/packet" ||
		len(got.Tunnels) != 1 || got.Tunnels[0] != want {
		t.Errorf("exit status %d, %+v, %s", r.code, got, r.err)
	}
}

// Every other command's JSON can be read too, and nothing is said beside it.
func TestJSON(t *testing.T) {
	needLabs(t)
	for _, c := range []struct {
		args   string
		fields []string // of an object
	}{
		{"topologies --json", nil},
		{"check --json pair east-west", nil},
		{"schema --json", []string{"$schema"}},
		{"show --json combined", []string{"format", "format_version", "name", "nodes[].interfaces[].name", "links[].kind", "tunnels[].outer_a", "traffic[].proto", "notes"}},
		{"ps --json", nil},
		{"bench labs --json --nodes 5 --runs 1", []string{"pair[].up_ms", "chain[].up_ms", "chain[].peak_rss_bytes", "chain_nodes"}},
		{"bench tunnel --json --runs 1 --duration 50ms", []string{"dataplane", "shaper", "runs[].tunnel_bits_per_second"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			clean(t)
			r := pqlab(t, strings.Fields(c.args)...)
			if r.code != exitOK || r.err != "" {
				t.Errorf("exit status %d, on standard error: %s", r.code, r.err)
			}
			v := parse[any](t, r.out)
			if missing := lacks(v, c.fields...); missing != nil {
				t.Errorf("no %v in %.2000s", missing, r.out)
			}
		})
	}
	t.Run("doctor", func(t *testing.T) {
		clean(t)
		r := pqlab(t, "doctor", "--json")
		if r.code != exitOK && r.code != exitUnsupported {
			t.Errorf("exit status %d: %s", r.code, r.err)
		}
		parse[any](t, r.out)
	})
}

func TestTopologies(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, b := range topology.Builtins() {
		want = append(want, b.Name)
	}
	for _, b := range parse[[]struct{ Name, Description string }](t, pqlab(t, "topologies", "--json").out) {
		got = append(got, b.Name)
		if b.Description == "" {
			t.Errorf("%s has no description", b.Name)
		}
		// What show --yaml prints is a topology again.
		r := pqlab(t, "show", b.Name, "--yaml")
		if r := pqlab(t, "check", write(t, r.out)); r.code != exitOK {
			t.Errorf("%s: %s", b.Name, r.err)
		}
		if r := pqlab(t, "show", b.Name, "--svg"); r.code != exitOK || !strings.HasPrefix(r.out, "<svg") {
			t.Errorf("%s: exit status %d, %.80s", b.Name, r.code, r.out)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A lab that stays: up, ps and down tell as JSON what they did.
func TestUpJSON(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := fmt.Sprintf("json-%d", os.Getpid())
	t.Cleanup(func() { command(t, "down", lab).Run() })
	type status struct {
		Name, Topology, State string
		PID                   int
		Nodes, Tunnels        []json.RawMessage
	}
	want := func(s status) {
		t.Helper()
		if s.Name != lab || s.Topology != "pair" || s.State != "running" || s.PID <= 1 || len(s.Nodes) != 2 || len(s.Tunnels) != 1 {
			t.Errorf("%+v", s)
		}
	}
	r := pqlab(t, "up", "pair", "--name", lab, "--json")
	if r.code != exitOK || r.err != "" {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	want(parse[status](t, r.out))
	want(parse[status](t, pqlab(t, "ps", lab, "--json").out))
	if r := pqlab(t, "up", "pair", "--name", lab); r.code != exitUsage || r.out != "" {
		t.Errorf("a second of the same name: exit status %d, %s%s", r.code, r.out, r.err)
	}
	labs := parse[[]struct {
		Name   string
		Status *status
	}](t, pqlab(t, "ps", "--json").out)
	if i := slices.IndexFunc(labs, func(l struct {
		Name   string
		Status *status
	}) bool {
		return l.Name == lab
	}); i < 0 || labs[i].Status == nil {
		t.Errorf("%+v", labs)
	} else {
		want(*labs[i].Status)
	}
	if down := parse[struct{ Down []string }](t, pqlab(t, "down", lab, "--json").out).Down; !slices.Equal(down, []string{lab}) {
		t.Errorf("down: %v", down)
	}
	if labs := parse[[]struct{ Name string }](t, pqlab(t, "ps", "--json").out); slices.Contains(labs, struct{ Name string }{lab}) {
		t.Errorf("still listed: %v", labs)
	}
}

// test tells what became of each claim. The shortest stands for all.
func TestTestJSON(t *testing.T) {
	needLabs(t)
	const claim = "combine"
	clean(t)
	junit := filepath.Join(t.TempDir(), "junit.xml")
	r := pqlab(t, "test", claim, "--json", "--junit", junit)
	got := parse[[]suites.Outcome](t, r.out)
	if r.code != exitOK || len(got) != 1 || got[0].Claim != claim || !got[0].OK() {
		t.Errorf("exit status %d, %+v, %s", r.code, got, r.err)
	}
	if info, err := os.Stat(junit); err != nil || info.Size() == 0 {
		t.Errorf("JUnit: %v", err)
	}
}
