package links

import (
	"errors"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	shapers "pqlab/links"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

// change is what a link does that is changed while packets are on it.
func change(s shaper) {
	It("takes another delay at once, and loses nothing and lets nothing overtake", func(ctx SpecContext) {
		trials(8, func(seed uint64) (wrong string) {
			const n = 200
			p := s.pair(ctx, topology.Shape{Delay: 200 * time.Millisecond}, seed)
			f := p.from("a", 100)
			f.send(ctx, n, time.Millisecond)
			p.set("", "delay=20ms")
			f.send(ctx, n, time.Millisecond)
			p.set("", "delay=80ms", "rate=10Mbit/s")
			f.send(ctx, n, time.Millisecond)
			got := f.fates(ctx)
			undisturbed(got)
			for i, want := range []time.Duration{200 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond} {
				// What comes first after a change catches up with what was on its way.
				part := traffic.Fates{Arrived: got.Arrived[i*n : (i+1)*n]}
				least := part.Delays()[0]
				Expect(least).To(BeNumerically(">=", want), "part %d", i)
				if least > want+testlab.Patience(slack) {
					wrong += fmt.Sprintf("part %d: the least delay is %v; ", i, least)
				}
			}
			return wrong
		})
	}, NodeTimeout(timeout))
	It("takes another rate at once", func(ctx SpecContext) {
		trials(8, func(seed uint64) (wrong string) {
			p := s.pair(ctx, topology.Shape{Rate: 5 * topology.Mbit}, seed)
			f := p.from("a", large)
			rates := []topology.Rate{5 * topology.Mbit, 20 * topology.Mbit, 10 * topology.Mbit}
			var ends []int // of what was sent at each rate
			for _, r := range rates {
				p.set("a", "rate="+r.String())
				f.offer(ctx, 3*r, time.Second)
				ends = append(ends, *f.sent)
			}
			got := f.fates(ctx)
			late, repeated := got.Overtaken()
			Expect([]int{late, repeated}).To(Equal([]int{0, 0}), "overtaken, repeated")
			from := 0
			for i, r := range rates {
				var part []traffic.Arrival
				for _, a := range got.Arrived {
					if a.Number >= from && a.Number < ends[i] {
						part = append(part, a)
					}
				}
				from = ends[i]
				// The first leave together with those that waited at the rate before, the last at the rate that follows.
				const others = 100
				if len(part) < 4*others {
					return fmt.Sprintf("at %v only %d came", r, len(part))
				}
				part = part[others : len(part)-others]
				wrong += f.above(part, r, 1.02+room(r)/bits(part))
				seen := windows(part)
				if best := seen[len(seen)-2]; best < 0.9*float64(r) {
					wrong += fmt.Sprintf("in no two windows more than %.0f bit/s pass at a rate of %v; ", best, r)
				}
			}
			return wrong
		})
	}, NodeTimeout(timeout))
	It("changes the direction that is meant, and no other", func(ctx SpecContext) {
		const d = 100 * time.Millisecond
		trials(8, func(seed uint64) string {
			p := s.pair(ctx, topology.Shape{Delay: time.Millisecond}, seed)
			p.set("b", "delay="+d.String())
			there := p.from("a", 100).send(ctx, 100, time.Millisecond).fates(ctx)
			back := p.from("b", 100).send(ctx, 100, time.Millisecond).fates(ctx)
			undisturbed(there)
			undisturbed(back)
			Expect(back.Delays()[0]).To(BeNumerically(">=", d))
			if least := there.Delays()[0]; least >= d {
				return fmt.Sprintf("the other direction has a least delay of %v", least)
			}
			return ""
		})
	}, NodeTimeout(timeout))
	It("stays as it was after a change that cannot be made", func(ctx SpecContext) {
		p := s.pair(ctx, topology.Shape{Rate: 10 * topology.Mbit}, seed)
		before := p.Link(linkName).State()
		for _, change := range [][]string{{"rate=20Mbit/s", "jitter=1h"}, {"loss=10%", "delay=200ms", "jitter=100h"}} {
			c, err := topology.ParseChange(change)
			if err == nil {
				err = p.SetLink(linkName, "", c)
			}
			var mistakes topology.Errors
			var lacks *shapers.UnsupportedError
			Expect(errors.As(err, &mistakes) || errors.As(err, &lacks)).To(BeTrue(), "%v: %v", change, err)
			after := p.Link(linkName).State()
			Expect(after.Shapes).To(Equal(before.Shapes), "%v", change)
			Expect(after.Shaper).To(Equal(before.Shaper), "%v", change)
		}
	}, NodeTimeout(timeout))
}
