package baseline

import (
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

func refuses(e testlab.Env) {
	It("lets nothing out before there are SAs, nor after charon has died", Label(testlab.Provokes), func(ctx SpecContext) {
		r := up(ctx, e, describe(), nil)
		// udp sends both flows of UDP, and tells how much arrived, and how much was seen in the clear.
		udp := func() (arrived uint64, n int) {
			GinkgoHelper()
			recording := testlab.Record(r.Lab, fibreLink)
			for _, f := range r.Plan.Traffic[2:] {
				got, err := r.Send(ctx, f, time.Second/4)
				Expect(err).NotTo(HaveOccurred())
				Expect(got.Sent).NotTo(BeZero())
				arrived += got.Received
			}
			for _, p := range recording.Stop() {
				src, dst := outer(p)
				for _, s := range append(r.tunnel.Plan.A.Subnets, r.tunnel.Plan.B.Subnets...) {
					if s.Contains(src) || s.Contains(dst) {
						n++
						break
					}
				}
			}
			return arrived, n
		}
		arrived, clear := udp()
		Expect(arrived).To(BeZero())
		Expect(clear).To(BeZero())
		Expect(r.state(ctx, "d1").Drops.NoSA).NotTo(BeZero())
		Expect(r.state(ctx, "d1").SPIs).To(Equal(ipsec.SPIPair{}))

		r.establish(ctx)
		for _, f := range r.Plan.Traffic {
			r.send(ctx, f, time.Second/4)
		}
		kill(charonOf(r.Node("d1").PID()))
		r.events.Until(ctx, "told of charon's end", func(all []agent.Event) bool { return len(testlab.Only(all, ipsec.Failed)) > 0 })
		_, clear = udp() // the kernel's SAs are there still
		Expect(clear).To(BeZero())
		_, err := r.tunnel.State(ctx, "d1")
		Expect(err).To(HaveOccurred())
		_, err = r.tunnel.Rekey(ctx, "d1")
		Expect(err).To(HaveOccurred())
	}, NodeTimeout(timeout))

	It("begins an exchange when there is a packet for one, where it is told to", Label(testlab.Provokes), func(ctx SpecContext) {
		r := up(ctx, e, describe(), func(o *lab.Options) { o.OnTraffic = true })
		_, err := r.Send(ctx, r.Plan.Traffic[2], time.Second/4)
		Expect(err).NotTo(HaveOccurred())
		r.events.Established(ctx)
		for _, f := range r.Plan.Traffic {
			r.send(ctx, f, time.Second/4)
		}
	}, NodeTimeout(timeout))

	It("names the reason why there is no exchange, and goes on to refuse plaintext", Label(testlab.Provokes), func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Deadline(time.Second)), nil)
		kill(charonOf(r.Node("d2").PID()))
		began := time.Now()
		_, err := r.tunnel.Establish(ctx)
		Expect(err).To(MatchError(ContainSubstring(tunnelName)))
		Expect(errors.Is(err, agent.ErrNotCarried)).To(BeFalse(), "%v", err) // charon has ended, and the network is well
		Expect(time.Since(began)).To(BeNumerically("<", testlab.Patience(10*time.Second)))
		got, err := r.Send(ctx, r.Plan.Traffic[2], time.Second/4)
		Expect(err).NotTo(HaveOccurred())
		Expect(got.Received).To(BeZero())
	}, NodeTimeout(timeout))
}
