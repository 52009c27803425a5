package nodes

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"pqlab/internal/netns"
	"pqlab/links"
	"pqlab/topology"
)

// build makes the lab as package lab does, and returns what takes it down.
func build(b *testing.B, plan *topology.Plan) (down func()) {
	nss, err := netns.New(len(plan.Nodes))
	if err != nil {
		b.Fatal(err)
	}
	shaper, err := links.Choose(plan.Links, "")
	if err != nil {
		b.Fatal(err)
	}
	index := map[string]int{}
	for i, n := range plan.Nodes {
		index[n.Name] = i
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range plan.Links {
		g.Go(func() error {
			_, err := links.Make(l, nss[index[l.A.Node]], nss[index[l.B.Node]], shaper)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	for i, n := range plan.Nodes {
		g.Go(func() error { return Configure(nss[i], n) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return func() {
		var wg sync.WaitGroup
		for w := range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := w; i < len(nss); i += runtime.GOMAXPROCS(0) {
					nss[i].Close()
				}
			})
		}
		wg.Wait()
	}
}

// status reads a number of /proc/self/status.
func status(b *testing.B, key string) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == key+":" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(n)
		}
	}
	b.Fatal("no ", key)
	return 0
}

func BenchmarkChain(b *testing.B) {
	for _, n := range []int{2, 10, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			spaces(b, 1)
			plan, err := topology.Chain(n).Plan()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				down := build(b, plan)
				b.StopTimer()
				b.ReportMetric(status(b, "VmHWM")/1024, "MiB-peak")
				b.ReportMetric(status(b, "Threads"), "threads")
				down()
				b.StartTimer()
			}
		})
	}
}
