package interop

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/suites/testlab"
)

func sizes(rig func() *rig) {
	It("take payloads of 1 to 9000 bytes from each other unchanged, in fragments where they must be", func(ctx SpecContext) {
		r, draw := rig(), testlab.Seeded()
		for _, v6 := range []bool{false, true} {
			for _, w := range r.ways(ctx, v6) {
				if v6 { // routers do not fragment it, so the host has to know
					w.discover(ctx)
				}
				w.from.Set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
				exact := w.room() - w.from.Headers()
				lengths := []int{1, exact - 1, exact, exact + 1, 9000}
				for range 24 {
					lengths = append(lengths, 1+draw.IntN(9000))
				}
				for range 12 {
					lengths = append(lengths, 1+draw.IntN(exact))
				}
				for _, n := range lengths {
					w.pass(testlab.Random(n))
				}

				before := r.state(ctx, w.sealer).Out.Packets
				w.pass(testlab.Random(9000))
				out := r.state(ctx, w.sealer).Out
				Expect(out.Packets-before).To(BeNumerically(">=", 9000/exact+1), "fragments were sealed one by one")
				Eventually(ctx, func() uint64 { return r.state(ctx, w.opener).In.Packets }).Should(Equal(out.Packets), "%v", w)

				if !v6 {
					w.discover(ctx)
				}
				w.from.Set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
				w.pass(testlab.Random(exact))
			}
		}
		r.refusedNothing(ctx)
	}, NodeTimeout(timeout))
}

// discover makes the sending host learn what passes, by the answer to a packet that is one byte too big.
func (w *way) discover(ctx context.Context) {
	GinkgoHelper()
	w.from.Set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	_, err := w.from.WriteToUDPAddrPort(testlab.Random(w.room()+1-w.from.Headers()), w.to.At)
	Expect(err).NotTo(HaveOccurred(), "the host's own link takes it")
	probe := testlab.Open(ctx, w.Lab, w.host(w.sealer), w.from.At.Addr())
	Eventually(ctx, func() int { return probe.PathMTU(w.to.Mailbox) }).Should(Equal(w.room()), "what the host has been told by %s", w.sealer)
}
