package interop

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

func sizes(rig func() *rig) {
	It("take payloads of 1 to 9000 bytes from each other unchanged, in fragments where they must be", func(ctx SpecContext) {
		r, draw := rig(), seeded()
		for _, v6 := range []bool{false, true} {
			for _, w := range r.ways(ctx, v6) {
				if v6 { // routers do not fragment it, so the host has to know
					w.discover(ctx)
				}
				w.from.set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
				exact := w.room() - w.headers()
				lengths := []int{1, exact - 1, exact, exact + 1, 9000}
				for range 24 {
					lengths = append(lengths, 1+draw.IntN(9000))
				}
				for range 12 {
					lengths = append(lengths, 1+draw.IntN(exact))
				}
				for _, n := range lengths {
					w.pass(random(n))
				}

				before := r.state(ctx, w.sealer).Out.Packets
				w.pass(random(9000))
				out := r.state(ctx, w.sealer).Out
				Expect(out.Packets-before).To(BeNumerically(">=", 9000/exact+1), "fragments were sealed one by one")
				Eventually(ctx, func() uint64 { return r.state(ctx, w.opener).In.Packets }).Should(Equal(out.Packets), "%v", w)

				if !v6 {
					w.discover(ctx)
				}
				w.from.set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
				w.pass(random(exact))
			}
		}
		r.refusedNothing(ctx)
	}, NodeTimeout(timeout))
}

// discover makes the sending host learn what passes, by the answer to a packet that is one byte too big.
func (w *way) discover(ctx context.Context) {
	GinkgoHelper()
	w.from.set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	_, err := w.from.WriteToUDPAddrPort(random(w.room()+1-w.headers()), w.to.at)
	Expect(err).NotTo(HaveOccurred(), "the host's own link takes it")
	// The kernel tells the size of the way of a connected socket only, which looks the route up anew.
	probe := w.behind(ctx, w.sealer, w.from.at.Addr().Is6())
	known := func() (mtu int) {
		GinkgoHelper()
		Expect(probe.option(func(fd int) (err error) {
			if to := w.to.at; to.Addr().Is6() {
				err = unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
				if err == nil {
					mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
				}
			} else {
				err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
				if err == nil {
					mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
				}
			}
			return err
		})).To(Succeed())
		return mtu
	}
	Eventually(ctx, known).Should(Equal(w.room()), "what the host has been told by %s", w.sealer)
}
