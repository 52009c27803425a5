package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"pqlab/agent"
	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/rootless"
	"pqlab/lab"
	"pqlab/nodes"
	"pqlab/topology"
)

var owner hygiene.Owner // answers for what the labs of these tests leave

func TestMain(m *testing.M) {
	nodes.InitMain()
	agent.Main()
	journal.SweeperMain()
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: tests need network namespaces:", err)
		os.Exit(1)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // else an agent with the race detector takes a second to end
	owner = hygiene.Self()
	os.Exit(m.Run())
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{0: nil, 7: {7}, 2: {3, 1, 2}, 3: {4, 1, 2, 3}} {
		var labs []Lab
		var runs []Throughput
		for _, v := range values {
			labs = append(labs, Lab{Up: -v, Down: v})
			runs = append(runs, Throughput{Streams: 4, Plain: v, OfHandMade: v + 1}, Throughput{Streams: 1, Plain: 100})
		}
		if got := Median(labs, func(l Lab) float64 { return l.Down }); got != want {
			t.Errorf("median of %v: %v", values, got)
		}
		got := medians(runs, []int{4})[0]
		if got.Streams != 4 || got.Plain != want || len(values) > 0 && got.OfHandMade != want+1 || got.Encrypted != 0 {
			t.Errorf("medians of %v: %+v", values, got)
		}
		if q := got.Quartiles; (q != nil) != (len(values) > 0) || q != nil && (q[0] != slices.Min(values)+1 && len(values) < 4 || q[0] > got.OfHandMade || q[1] < got.OfHandMade) {
			t.Errorf("quartiles of %v: %v", values, q)
		}
	}
}

// A lab's times and memory are measured, and it is gone.
func TestUpDown(t *testing.T) {
	owner.Check(t)
	pair, err := topology.Builtin("pair")
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range []*topology.Topology{pair, topology.Chain(3)} {
		l, err := upDown(t.Context(), top)
		if err != nil || l.Up <= 0 || l.Down <= 0 || l.RSS < 1<<20 {
			t.Errorf("%s: %+v, %v", top.Name, l, err)
		}
	}
}

// Each number of streams is measured in each run, with the tunnel and without, in turns.
func TestMeasureTunnel(t *testing.T) {
	owner.Check(t)
	var told []string
	got, err := MeasureTunnel(t.Context(), []int{1, 2}, 2, 100*time.Millisecond, lab.Options{Shaper: "none", Dataplane: "gateway"}, func(s string) { told = append(told, s) })
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Runs) != 4 || got.Dataplane == "" || got.Shaper != "none" || len(told) != 8 || told[0] == told[1] {
		t.Errorf("%+v, told %q", got, told)
	}
	for i, r := range got.Runs {
		if r.Streams != i%2+1 || r.Plain <= 0 || r.Encrypted <= 0 {
			t.Errorf("run %+v", r)
		}
	}
}

func TestInterrupted(t *testing.T) {
	owner.Check(t)
	for step := range 2 { // without the tunnel, with it
		ctx, cancel := context.WithCancel(t.Context())
		n := -1
		_, err := MeasureTunnel(ctx, []int{1}, 1, time.Minute, lab.Options{}, func(string) {
			if n++; n == step {
				cancel()
			} else {
				time.AfterFunc(50*time.Millisecond, cancel)
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("at step %d: %v", step, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := MeasureLabs(ctx, 3, 1, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
