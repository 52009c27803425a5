package links

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/suites/testlab"
	"pqlab/topology"
)

// schedule is what befalls packets by a trace, by the clock, or in a queue of their own kind.
func schedule(s shaper) {
	It("loses just the packets of a loss trace", func(ctx SpecContext) {
		trace := []int{7, 2, 4, 1}
		s.needShape(topology.Shape{LossTrace: trace})
		p := s.pair(ctx, topology.Shape{}, seed)
		p.set("", "loss_trace="+list(trace))
		got := p.from("a", 100).send(ctx, 1000, pace).fates(ctx).Lost()
		var want []bool
		for i := 0; len(want) < len(got); i++ {
			want = append(want, slices.Repeat([]bool{i%2 == 1}, trace[i%len(trace)])...)
		}
		Expect(got).To(Equal(want[:len(got)]))
	}, NodeTimeout(timeout))
	It("lets nothing in during an outage, and everything before and after", func(ctx SpecContext) {
		const start, length = 300 * time.Millisecond, 200 * time.Millisecond
		s.needShape(topology.Shape{Outages: []topology.Outage{{Start: start, Length: length}}})
		trials(8, func(seed uint64) string {
			p := s.pair(ctx, topology.Shape{}, seed)
			p.set("", fmt.Sprintf("outages=[{start: %v, length: %v}]", start, length))
			set := time.Now()
			got := p.from("a", 100).send(ctx, 1000, time.Millisecond).fates(ctx)
			lost := got.Lost()
			for i, at := range got.Sent {
				if at.After(set.Add(start + length)) {
					Expect(lost[i]).To(BeFalse(), "sent when the outage was over")
				}
			}
			// One packet each millisecond. That the wire sees one late is a busy machine's doing.
			const want = int(length / time.Millisecond)
			if n := got.Missing(); got.Bursts() != 1 || lost[0] || n < want*3/4 || n > want*5/4 {
				return fmt.Sprintf("%d are lost in %d bursts", n, got.Bursts())
			}
			return ""
		})
	}, NodeTimeout(timeout))
	It("passes the rates of a bandwidth trace, each in its time", func(ctx SpecContext) {
		const slow, fast = 5 * topology.Mbit, 20 * topology.Mbit
		shape := topology.Shape{RateTrace: []topology.RateStep{{Length: 500 * time.Millisecond, Rate: slow}, {Length: 500 * time.Millisecond, Rate: fast}}}
		s.needShape(shape)
		trials(8, func(seed uint64) (wrong string) {
			f := s.pair(ctx, shape, seed).from("a", large)
			f.offer(ctx, 3*fast, 2*time.Second)
			got := f.fates(ctx)
			seen := windows(got.Arrived)
			mean := float64(slow+fast) / 2
			// The time of a whole period and the rest of one.
			if all := total(got.Arrived); all > 1.3*mean || all < 0.7*mean {
				wrong = fmt.Sprintf("%.0f bit/s pass at %.0f in the mean; ", all, mean)
			}
			if low, high := seen[len(seen)/20], seen[len(seen)/2]; low < 0.7*float64(slow) || low > 1.2*float64(slow) || high < 0.8*float64(fast) || high > 1.2*float64(fast) {
				wrong += fmt.Sprintf("of %d windows those have %.0f and %.0f bit/s that should have %v and %v", len(seen), low, high, slow, fast)
			}
			return wrong
		})
	}, NodeTimeout(timeout))
	It("holds what the queue has room for, and drops the rest", func(ctx SpecContext) {
		const r, room = 5 * topology.Mbit, 120 * time.Millisecond
		shape := topology.Shape{Rate: r, Queue: topology.Queue{Time: room}}
		s.needShape(shape)
		trials(8, func(seed uint64) string {
			f := s.pair(ctx, shape, seed).from("a", large)
			f.offer(ctx, 3*r, 1500*time.Millisecond)
			got := f.fates(ctx)
			delays := got.Delays()
			if middle := delays[len(delays)/2]; got.Missing() == 0 || middle < room*3/4 || middle > room*5/4+testlab.Patience(slack) {
				return fmt.Sprintf("%d are lost, and half of the rest wait for less than %v", got.Missing(), middle)
			}
			return ""
		})
	}, NodeTimeout(timeout))
	It("keeps a queue short by CoDel that would stand", func(ctx SpecContext) {
		const r = 10 * topology.Mbit
		// standing is how long packets wait in the end that are a twentieth more than the rate, which fill a queue slowly.
		standing := func(kind string, seed uint64) time.Duration {
			shape := topology.Shape{Rate: r, Queue: topology.Queue{Kind: kind, Time: 400 * time.Millisecond}}
			s.needShape(shape)
			f := s.pair(ctx, shape, seed).from("a", large)
			f.offer(ctx, r*21/20, 3*time.Second)
			got := f.fates(ctx)
			got.Arrived = got.Arrived[len(got.Arrived)*2/3:]
			delays := got.Delays()
			return delays[len(delays)/2]
		}
		trials(8, func(seed uint64) string {
			tail, codel := standing(topology.DropTail, seed), standing(topology.CoDel, seed)
			if codel > tail/2 {
				return fmt.Sprintf("they wait for %v, and by CoDel for %v", tail, codel)
			}
			return ""
		})
	}, NodeTimeout(timeout))
}

// needShape skips the spec where the shaper cannot make a link of that shape.
func (s shaper) needShape(shape topology.Shape) {
	GinkgoHelper()
	s.need([]topology.PlannedLink{{Link: topology.Link{Name: linkName, Shape: shape}}})
}

// list writes numbers as a topology has them.
func list(numbers []int) string {
	var all []string
	for _, n := range numbers {
		all = append(all, strconv.Itoa(n))
	}
	return "[" + strings.Join(all, ", ") + "]"
}
