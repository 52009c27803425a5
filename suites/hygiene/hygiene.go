// Package hygiene is the claim that nothing is left of a lab, however it ended: not after taking it down, not after a
// start that failed, and not after killing pqlab at any moment.
package hygiene

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"

	"pqlab/internal/vm/guest"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

const (
	// cleanTime bounds how long it takes until nothing is left: the processes die at once, the sweeper kills what is in the
	// cgroups and removes them, and the kernel frees the namespaces.
	cleanTime = time.Minute
	// killsVariable raises how many random moments are tried.
	killsVariable = "PQLAB_KILLS"
	defaultKills  = 10
	fewKills      = 3
)

// Specs are the claim's.
func Specs(e testlab.Env) {
	Describe("hygiene", Label("emu", "vm"), func() {
		e.Guard()
		Describe("a lab taken down", func() { labs(e) })
		Describe("a lab that cannot be made", func() { failures(e) })
		Describe("an agent killed", func() { agents(e) })
		for _, u := range users() {
			Describe("pqlab as "+u.text, func() {
				killed(e, u)
				held(e, u)
				starved(e, u)
			})
		}
		Describe("a lab that does not go down", func() { stuck(e) })
	})
}

// kills is how many random moments to try.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv(killsVariable)); err == nil && n > 0 {
		return n
	}
	if guest.Emulated() { // where pqlab takes ten times as long
		return fewKills
	}
	return defaultKills
}

// fewer is for specs beside the plainest one.
func fewer(kills int) int { return max(fewKills, kills/2+1) }

// moments returns n random moments from the start to a little after the end of something that takes 1, one in each n-th of
// it. They follow from Ginkgo's seed.
func moments(n int) []float64 {
	r := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), uint64(n)))
	all := make([]float64, n)
	for i := range all {
		all[i] = (float64(i) + r.Float64()) / float64(n) * 1.05
	}
	return all
}

// within is a context that ends with the spec, or before.
func within(ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, testlab.Patience(d))
	DeferCleanup(cancel)
	return ctx
}

// small is a lab that has one of everything that could be left: a bridge, DPUs, profiles, a tunnel, shaped links.
func small() *topology.Builder {
	return topology.New("small").
		Host("h1", topology.Profile("xeon")).DPU("d1", topology.On("h1"), topology.Profile("bluefield-2")).
		Host("h2").DPU("d2", topology.On("h2"), topology.Profile("bluefield-3")).
		Switch("s").
		Ethernet("d1", "s", 25*topology.Gbit).Ethernet("d2", "s", 25*topology.Gbit).
		Tunnel("t", "d1", "d2").
		TCP("h1", "h2").UDP("h1", "h2", 50*topology.Mbit)
}
