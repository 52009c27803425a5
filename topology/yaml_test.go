package topology_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"pqlab/internal/race"
	"pqlab/topology"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	check := func(what string, top *topology.Topology) {
		text, err := top.Marshal()
		if err != nil {
			t.Fatalf("%s: Marshal: %v", what, err)
		}
		back, err := topology.Parse(what, text)
		if err != nil {
			t.Fatalf("%s: Parse(Marshal): %v\n%s", what, err, text)
		}
		if !reflect.DeepEqual(back, top) {
			t.Fatalf("%s: got  %+v\nwant %+v\n%s", what, back, top, text)
		}
	}
	for _, b := range topology.Builtins() {
		top, err := topology.Builtin(b.Name)
		if err != nil {
			t.Fatal(err)
		}
		check(b.Name, top)
	}
	check("chain", topology.Chain(50))
	planned(500, func(i int, top *topology.Topology, _ *topology.Plan) { check(fmt.Sprintf("topology %d", i), top) })
}

func TestMarshalRefusesWhatCannotBePlanned(t *testing.T) {
	t.Parallel()
	var errs topology.Errors
	if _, err := new(topology.Topology).Marshal(); !errors.As(err, &errs) {
		t.Errorf("Marshal of an empty topology: %v, want Errors", err)
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	parse := func(fields string) (topology.Link, topology.Tunnel, error) {
		top, err := topology.Parse("x", []byte("nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks:\n- {kind: fibre, a: a, b: b, "+fields+"}\n"))
		if err != nil {
			return topology.Link{}, topology.Tunnel{}, err
		}
		return top.Links[0], topology.Tunnel{}, nil
	}
	for _, c := range []struct {
		fields string
		want   topology.Link
	}{
		{"rate: 10Mbit/s", topology.Link{Shape: topology.Shape{Rate: 10_000_000}}},
		{"rate: 2.5Gbit/s", topology.Link{Shape: topology.Shape{Rate: 2_500_000_000}}},
		{"rate: 1 kbit/s", topology.Link{Shape: topology.Shape{Rate: 1000}}},
		{"rate: 0.000001Mbit/s", topology.Link{Shape: topology.Shape{Rate: 1}}},
		{"rate: 1600000000000bit/s", topology.Link{Shape: topology.Shape{Rate: 1600 * topology.Gbit}}},
		{"loss: 1%", topology.Link{Shape: topology.Shape{Loss: 0.01}}},
		{"loss: 0.01", topology.Link{Shape: topology.Shape{Loss: 0.01}}},
		{"loss: 0.1%", topology.Link{Shape: topology.Shape{Loss: 0.001}}},
		{"loss: 100%", topology.Link{Shape: topology.Shape{Loss: 1}}},
		{"length: 80m", topology.Link{Length: 80}},
		{"length: 10km", topology.Link{Length: 10_000}},
		{"length: 0.1km", topology.Link{Length: 100}},
		{"delay: 5ms", topology.Link{Shape: topology.Shape{Delay: 5 * time.Millisecond}}},
		{"delay: 1.5s, jitter: 10us", topology.Link{Shape: topology.Shape{Delay: 1500 * time.Millisecond, Jitter: 10 * time.Microsecond}}},
		{"delay: 10ms, jitter: 2ms, distribution: uniform, unordered: true", topology.Link{Shape: topology.Shape{Delay: 10 * time.Millisecond, Jitter: 2 * time.Millisecond, Distribution: "uniform", Unordered: true}}},
		{"delay: 1s, jitter: 1s, table: [-1, 0.5, 2]", topology.Link{Shape: topology.Shape{Delay: time.Second, Jitter: time.Second, Table: []float64{-1, 0.5, 2}}}},
		{"loss: 2%, loss_correlation: 25%", topology.Link{Shape: topology.Shape{Loss: 0.02, LossCorrelation: 0.25}}},
		{"gilbert_elliott: {p: 1%, r: 0.25}", topology.Link{Shape: topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.01, R: 0.25}}}},
		{"gilbert_elliott: {p: 1%, r: 100%, bad: 50%, good: 0.1%}", topology.Link{Shape: topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.01, R: 1, Bad: 0.5, Good: 0.001}}}},
		{"delay: 1ms, duplication: 1%, reordering: 2%, corruption: 3%", topology.Link{Shape: topology.Shape{Delay: time.Millisecond, Duplication: 0.01, Reordering: 0.02, Corruption: 0.03}}},
		{"rate_trace: [1s 1Mbit/s, 500ms 0bit/s]", topology.Link{Shape: topology.Shape{RateTrace: []topology.RateStep{step(time.Second, topology.Mbit), step(500*ms, 0)}}}},
		{"loss_trace: [0, 1, 99]", topology.Link{Shape: topology.Shape{LossTrace: []int{0, 1, 99}}}},
		{"rate: 1Mbit/s, queue: codel", topology.Link{Shape: topology.Shape{Rate: topology.Mbit, Queue: topology.Queue{Kind: "codel"}}}},
		{"rate: 1Mbit/s, queue: {kind: codel, bytes: 64KiB, target: 10ms, interval: 0.2s}", topology.Link{Shape: topology.Shape{Rate: topology.Mbit,
			Queue: topology.Queue{Kind: "codel", Bytes: 65536, Target: 10 * ms, Interval: 200 * ms}}}},
		{"rate_trace: [1s 1Mbit/s, 1s 2Mbit/s], queue: {time: 50ms}", topology.Link{Shape: topology.Shape{
			RateTrace: []topology.RateStep{step(time.Second, topology.Mbit), step(time.Second, 2*topology.Mbit)}, Queue: topology.Queue{Time: 50 * ms}}}},
		{"outages: [{length: 1s}, {start: 2s, length: 1ms, every: 1m}]", topology.Link{Shape: topology.Shape{
			Outages: []topology.Outage{{Length: time.Second}, {Start: 2 * time.Second, Length: ms, Every: time.Minute}}}}},
		{"attenuation: 0.35dB/km", topology.Link{Attenuation: 0.35}},
		{"seed: 2^40", topology.Link{Seed: 1 << 40}},
		{"mtu: 9000", topology.Link{MTU: 9000}},
	} {
		got, _, err := parse(c.fields)
		got.Kind, got.A, got.B = "", topology.End{}, topology.End{}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.fields, got, err, c.want)
		}
	}
	for _, fields := range []string{
		"rate: 10", "rate: 10Mbit", "rate: 10mbit/s", "rate: -1Mbit/s", "rate: 1e3bit/s", "rate: 0x10bit/s", "rate: 1/3bit/s", "rate: 1.bit/s", "rate: 1..2Mbit/s",
		"rate: 18446744073709551616bit/s", "rate: 0bit/s", "rate: 0.1bit/s", "rate: bit/s", "rate: ''", "rate: 10MiB/s",
		"loss: 1.1", "loss: 101%", "loss: -1%", "loss: .nan", "loss: .inf", "loss: 1e-3", "loss: '%'", "loss: many",
		"length: 10", "length: -1m", "length: km", "length: 1e9km", "length: 10 miles", "length: 9999999999km",
		"delay: 1ms, jitter: 1001us", "delay: 1ms, jitter: 600us, distribution: uniform", "distribution: normal", "delay: 1s, jitter: 1s, distribution: gauss",
		"delay: 1s, unordered: true", "delay: 1s, jitter: 1s, unordered: yes", "delay: 1s, jitter: 1s, distribution: normal, table: [1, 2]",
		"delay: 1s, jitter: 1s, table: [1]", "delay: 1s, jitter: 1s, table: [3, 3, 3]", "delay: 1s, jitter: 1s, table: []", "delay: 1s, jitter: 1s, table: 1",
		"delay: 1s, jitter: 1s, table: [1, .nan]", "delay: 1s, jitter: 1s, table: [1, 2e3]", "delay: 1s, jitter: 1s, table: [1, --2]", "delay: 1s, jitter: 1s, table: [1, 9999999999999]",
		"loss_correlation: 10%", "loss: 1%, loss_correlation: 100%", "loss: 1%, gilbert_elliott: {p: 1%, r: 10%}",
		"gilbert_elliott: {p: 1%}", "gilbert_elliott: {p: 0, r: 1}", "gilbert_elliott: {p: 1%, r: 110%}", "gilbert_elliott: {p: 1%, r: 1%, bad: 0%}",
		"gilbert_elliott: {p: 1%, r: 1%, bad: 10%, good: 10%}", "gilbert_elliott: {p: 1%, r: 1%, h: 1}", "gilbert_elliott: 1%", "gilbert_elliott: {}",
		"duplication: 101%", "duplication: -1%", "corruption: 2", "reordering: 1%", "delay: 1ms, reordering: 100%",
		"delay: 5", "delay: -5ms", "delay: 5min", "delay: 999999h", "delay: 2h",
		"mtu: 0", "mtu: 2^40", "mtu: 1500.0", "mtu: -1500", "mtu: 1_500", "seed: 2^64", "seed: -1", "seed: 18446744073709551616",
	} {
		if got, _, err := parse(fields); err == nil {
			t.Errorf("%s: accepted as %+v", fields, got)
		}
	}
}

func TestRateText(t *testing.T) {
	t.Parallel()
	for rate, want := range map[topology.Rate]string{
		0: "0bit/s", 1: "1bit/s", 1001: "1001bit/s", 866 * topology.Mbit: "866Mbit/s", 2500 * topology.Mbit: "2500Mbit/s", 100 * topology.Gbit: "100Gbit/s",
		1600 * topology.Gbit: "1600Gbit/s", 1600*topology.Gbit + 1: "1600000000001bit/s", math.MaxUint64: "18446744073709551615bit/s",
	} {
		if got := rate.String(); got != want {
			t.Errorf("Rate %d: %s, want %s", uint64(rate), got, want)
		}
		got, err := topology.ParseRate(want)
		if rate == 0 || rate > 1600*topology.Gbit {
			if err == nil {
				t.Errorf("ParseRate(%s) = %d", want, got)
			}
			continue
		}
		if err != nil || got != rate {
			t.Errorf("ParseRate(%s) = %d, %v", want, got, err)
		}
	}
}

func TestLoadOfNoFile(t *testing.T) {
	t.Parallel()
	if _, err := topology.Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load: %v, want os.ErrNotExist", err)
	}
}

// Hostile files end in an error soon, and in little memory.
func TestHostile(t *testing.T) {
	race.Skip(t)
	const mega = 1 << 18
	for name, text := range map[string]string{
		"too large":      strings.Repeat("#", 9*mega),
		"flow depth":     strings.Repeat("[", mega),
		"flow maps":      strings.Repeat("{a: ", mega/4),
		"closed depth":   "nodes: " + strings.Repeat("[", mega/2) + strings.Repeat("]", mega/2),
		"dashes":         strings.Repeat("- ", mega/2),
		"stairs":         stairs(1500),
		"stairs of keys": strings.ReplaceAll(stairs(1500), "-", "a:"),
		"keys": func() string {
			var b strings.Builder
			for i := range mega / 8 {
				fmt.Fprintf(&b, "k%d: 1\n", i)
			}
			return b.String()
		}(),
		"flow keys":    "{" + strings.Repeat("a: 1, ", mega/6) + "}",
		"question":     strings.Repeat("? ", mega/2),
		"tags":         strings.Repeat("!a ", mega/3),
		"anchors":      strings.Repeat("&a ", mega/3),
		"aliases":      "a: &a [x]\nb: [" + strings.Repeat("*a, ", mega/4) + "]",
		"bomb":         "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nnodes: *c\n",
		"merge":        "nodes:\n- &a {name: a}\n- {<<: *a}\n",
		"documents":    strings.Repeat("---\n", mega/4),
		"quotes":       strings.Repeat("'", mega),
		"colons":       strings.Repeat("a:", mega/2),
		"many names":   "nodes: [" + strings.Repeat("{name: a, kind: host}, ", 10001) + "]",
		"unknown ends": "nodes: [{name: a, kind: host}]\nlinks:\n" + strings.Repeat("- {kind: ethernet, a: a, b: bbb}\n", 5000),
		"long name":    "nodes: [{name: " + strings.Repeat("a", mega) + ", kind: host}]",
		"long rate":    "nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks: [{kind: fibre, a: a, b: b, rate: " + strings.Repeat("9", mega) + "bit/s}]",
		"exponent":     "nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks: [{kind: fibre, a: a, b: b, rate: 1e999999999bit/s}]",
		"long trace":   "nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks: [{kind: fibre, a: a, b: b, rate_trace: [" + strings.Repeat("1ms 1bit/s,", mega/2) + "]}]",
		"many runs":    "nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks: [{kind: fibre, a: a, b: b, loss_trace: [" + strings.Repeat("1,", 3*mega) + "]}]",
		"many outages": "nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks:\n" + strings.Repeat("- {kind: fibre, a: a, b: b, outages: ["+strings.Repeat("{length: 1ns, every: 1h},", 64)+"]}\n", mega/512),
		"NUL":          "nodes:\x00",
		"not UTF-8":    "nodes: [{name: \xff\xfe, kind: host}]",
		"all DPUs":     mesh(1200),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin := time.Now()
			_, err := topology.Parse("hostile", []byte(text))
			took := time.Since(begin)
			runtime.ReadMemStats(&after)
			var errs topology.Errors
			if !errors.As(err, &errs) || len(errs) > 100 {
				t.Fatalf("%d errors: %.200v, want 1 to 100", len(errs), err)
			}
			if len(err.Error()) > 64<<10 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
			// The bound is generous: without limits of depth and width these take gigabytes.
			if used := after.TotalAlloc - before.TotalAlloc; used > 512<<20 || took > 2*time.Minute {
				t.Errorf("took %v and %d MiB", took, used>>20)
			}
			t.Logf("%v, %d MiB: %.100v", took, (after.TotalAlloc-before.TotalAlloc)>>20, err)
		})
	}
}

func stairs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "-\n")
	}
	return b.String()
}

// mesh is n DPUs on one switch: more routes than a lab may have.
func mesh(n int) string {
	var nodes, links strings.Builder
	for i := range n {
		fmt.Fprintf(&nodes, "- {name: h%d, kind: host}\n- {name: d%d, kind: dpu, host: h%d}\n", i, i, i)
		fmt.Fprintf(&links, "- {kind: pcie, a: h%d, b: d%d}\n- {kind: ethernet, a: s, b: d%d}\n", i, i, i)
	}
	return "nodes:\n- {name: s, kind: switch}\n" + nodes.String() + "links:\n" + links.String()
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/broken/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, b := range topology.Builtins() {
		top, err := topology.Builtin(b.Name)
		if err != nil {
			f.Fatal(err)
		}
		text, err := top.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	planned(20, func(_ int, top *topology.Topology, _ *topology.Plan) {
		text, err := top.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		top, err := topology.Parse("fuzz", data)
		if err != nil {
			var errs topology.Errors
			if !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("%v is not Errors", err)
			}
			lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + 1
			for _, e := range errs {
				if e.Line < 1 || e.Line > lines+1 || e.Column < 1 || e.Kind == "" {
					t.Errorf("%+v: not in the file of %d lines", e, lines)
				}
			}
			return
		}
		plan, err := top.Plan()
		if err != nil {
			t.Fatalf("accepted, but cannot be planned: %v", err)
		}
		if len(plan.SVG()) == 0 || plan.Text() == "" {
			t.Error("nothing drawn")
		}
		text, err := top.Marshal()
		if err != nil {
			t.Fatalf("accepted, but cannot be written: %v", err)
		}
		again, err := topology.Parse("again", text)
		if err != nil || !reflect.DeepEqual(again, top) {
			t.Fatalf("does not round-trip: %v\n%s\ngot  %+v\nwant %+v", err, text, again, top)
		}
	})
}

// Editors of some systems begin a file with a byte order mark.
func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	top, err := topology.Parse("x.yaml", []byte("\ufeffname: x\nnodes: [{name: a, kind: host}]\n"))
	if err != nil || top.Name != "x" || len(top.Nodes) != 1 {
		t.Errorf("%+v, %v", top, err)
	}
	_, err = topology.Parse("x.yaml", []byte("\ufeffnaem: x\nnodes: [{name: a, kind: host}]\n"))
	var errs topology.Errors
	if !errors.As(err, &errs) || len(errs) != 1 || errs[0].Line != 1 || errs[0].Column != 1 {
		t.Errorf("%v", err)
	}
}
