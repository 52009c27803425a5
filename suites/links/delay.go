package links

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/internal/vm/guest"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// promptly is how much later than it should the quickest of many packets may come, slack a quantile of them. The lower bound
// has none: nothing ever comes too early.
const (
	promptly = 500 * time.Microsecond
	slack    = 10 * time.Millisecond
)

// prompt is promptly where the processor is real.
func prompt() time.Duration {
	if guest.Emulated() {
		return slack
	}
	return promptly
}

// delay is what comes late, and in which order.
func delay(s shaper) {
	for _, d := range []time.Duration{20 * time.Millisecond, 150 * time.Millisecond} {
		It(fmt.Sprintf("delays by %v in either direction, never by less", d), func(ctx SpecContext) {
			trials(12, func(seed uint64) string {
				p := s.pair(ctx, topology.Shape{Delay: d}, seed)
				for _, node := range []string{"a", "b"} {
					got := p.from(node, 100).send(ctx, 200, time.Millisecond).fates(ctx)
					undisturbed(got)
					least := got.Delays()[0]
					Expect(least).To(BeNumerically(">=", d))
					if least > d+prompt() {
						return fmt.Sprintf("from %s: the least delay is %v", node, least)
					}
				}
				return ""
			})
		}, NodeTimeout(timeout))
	}
	const mean, jitter, n = 150 * time.Millisecond, 30 * time.Millisecond, 800
	for _, v := range []struct {
		shape            topology.Shape
		low, middle, top float64 // quantiles 10 %, 50 % and 85 %, in standard deviations from the mean
	}{
		{topology.Shape{}, -1.282, 0, 1.036},
		{topology.Shape{Distribution: "uniform"}, -1.386, 0, 1.212},
		{topology.Shape{Distribution: "pareto"}, -0.54, -0.277, 0.441},
		{topology.Shape{Table: []float64{0, 0, 0, 0, 1}}, -0.5, -0.5, 2},
	} {
		v.shape.Delay, v.shape.Jitter = mean, jitter
		It(fmt.Sprintf("varies a delay as asked: %v", v.shape), func(ctx SpecContext) {
			trials(8, func(seed uint64) string {
				shape := v.shape
				shape.Unordered = true
				got := s.pair(ctx, shape, seed).from("a", 100).send(ctx, n, 500*time.Microsecond).fates(ctx)
				late, repeated := got.Overtaken()
				Expect([]int{got.Missing(), repeated}).To(Equal([]int{0, 0}), "missing, repeated")
				Expect(late).To(BeNumerically(">", n/10), "overtaken")
				for _, q := range []struct{ at, sigmas float64 }{{0.1, v.low}, {0.5, v.middle}, {0.85, v.top}} {
					seen, want := got.Delays()[int(q.at*n)], mean+time.Duration(q.sigmas*float64(jitter))
					const chance = jitter / 4 // more than a quantile of so many is off by
					if seen < want-chance || seen > want+chance+testlab.Patience(slack) {
						return fmt.Sprintf("quantile %v is %v, not %v", q.at, seen, want)
					}
				}
				return ""
			})
		}, NodeTimeout(timeout))
	}
	It("varies a delay and keeps the order, unless asked not to", func(ctx SpecContext) {
		got := s.pair(ctx, topology.Shape{Delay: mean, Jitter: jitter}, seed).from("a", 100).send(ctx, n, 500*time.Microsecond).fates(ctx)
		undisturbed(got)
		spread := got.Delays()
		Expect(spread[n*9/10]-spread[n/10]).To(BeNumerically(">", jitter/4), "the delay does not vary")
	}, NodeTimeout(timeout))
}
