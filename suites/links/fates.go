package links

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/lab"
	shapers "pqlab/links"
	"pqlab/links/medium"
	"pqlab/topology"
	"pqlab/traffic"
)

// fates is what a link does to packets again that it once did to others.
func fates(s shaper) {
	shape := topology.Shape{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Unordered: true, Loss: 0.1, Duplication: 0.1}
	if s.name != "wire" {
		It("refuses to record and to replay fates", func(ctx SpecContext) {
			t, err := topology.New("links").Host("a").Host("b").Ethernet("a", "b", topology.Rate(topology.Mbit)).Topology()
			Expect(err).NotTo(HaveOccurred())
			plan, err := t.Plan()
			Expect(err).NotTo(HaveOccurred())
			for _, f := range []shapers.Fates{{Record: directory()}, {Replay: directory()}} {
				_, err := lab.Up(ctx, plan, lab.Options{Shaper: s.name, Fates: f})
				var refused *shapers.FatesError
				Expect(errors.As(err, &refused)).To(BeTrue(), "%v", err)
			}
		}, NodeTimeout(timeout))
		return
	}
	It("gives the packets of another seed the fates of a recorded trace", func(ctx SpecContext) {
		const n, few, gap = 1000, 5, time.Millisecond
		dir := directory()
		// send gives what came of n datagrams from each end.
		send := func(seed uint64, f shapers.Fates) (got [2]traffic.Fates, history shapers.History) {
			p := s.fated(ctx, shape, seed, f)
			for side, node := range []string{"a", "b"} {
				got[side] = p.from(node, 100).send(ctx, n, gap).fates(ctx)
			}
			history, _, err := p.Link(linkName).EndHistory()
			Expect(err).NotTo(HaveOccurred())
			return got, history
		}
		first, second, third := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "third")
		recorded, history := send(seed, shapers.Fates{Record: first})
		Expect(history.File).To(BeARegularFile())
		replayed, history := send(seed+1, shapers.Fates{Record: second, Replay: first})
		other, _ := send(seed+1, shapers.Fates{Record: third})
		// What the receivers saw …
		for side, h := range history.Sides {
			was, is, control := times(recorded[side]), times(replayed[side]), times(other[side])
			Expect(was).To(And(ContainElement(0), ContainElement(1), ContainElement(2)), "side %d: how often each came", side)
			// Before its IPv6 is silenced a node may have sent a packet, and in the other run not.
			Expect([]uint64{h.Traced, h.Met}).To(HaveEach(BeNumerically("~", n+few, few)), "side %d: traced, met", side)
			before, now := int(h.Traced)-n, int(h.Met)-n
			Expect(is[max(0, before-now):n-max(0, now-before)]).To(Equal(was[max(0, now-before):n-max(0, before-now)]), "side %d: how often each came", side)
			Expect(control).NotTo(Equal(was), "side %d, of another seed: how often each came", side)
		}
		// … and the delays, of which a busy machine makes others.
		was, is, control := traced(first), traced(second), traced(third)
		for side := range 2 {
			for i := range n {
				packet := fmt.Sprint(side, i)
				Expect(is[packet]).To(Equal(was[packet]), "packet %s", packet)
			}
		}
		Expect(control).NotTo(Equal(was))
	}, NodeTimeout(2*timeout))
}

// times is how often each datagram came.
func times(f traffic.Fates) []int {
	all := make([]int, len(f.Sent))
	for _, a := range f.Arrived {
		all[a.Number]++
	}
	return all
}

// traced are the fates of the packets of a trace, by side and number, of each in no order.
func traced(dir string) map[string][]string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(dir, linkName+".fates"))
	Expect(err).NotTo(HaveOccurred())
	all := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[medium.ShapeLine:] {
		f := strings.Fields(line) // the third is its size
		packet := f[0] + " " + f[1]
		all[packet] = append(all[packet], strings.Join(f[3:], " "))
		slices.Sort(all[packet])
	}
	return all
}
