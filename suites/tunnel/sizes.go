package tunnel

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/agent"
	"pqlab/suites/testlab"
	"pqlab/traffic"
)

func sizes(e testlab.Env) {
	for _, o := range testlab.Carriages() {
		It(fmt.Sprintf("passes full-size TCP and UDP of the hosts over the default fibre: %v", o), func(ctx SpecContext) {
			r := up(ctx, e, eastWest(o))
			for _, v6 := range []bool{false, true} {
				for _, s := range []agent.Source{
					{Proto: traffic.TCP, Bytes: 3 << 20},
					{Proto: traffic.UDP, Packets: 500, Rate: 40e6}, // of the largest frame that the route takes, not to be fragmented
				} {
					got := r.flow(ctx, s, v6)
					if s.Proto == traffic.TCP {
						Expect(got.Bytes).To(Equal(s.Bytes))
						continue
					}
					Expect(got.FrameSize).To(Equal(1500))
					Expect(got).To(And(HaveField("Received", s.Packets), HaveField("Duplicated", uint64(0))))
				}
			}
		}, NodeTimeout(timeout))

		for _, mtu := range []int{1500, 9000, 16000} {
			It(fmt.Sprintf("tells senders the size that passes a fibre of MTU %d, and fragments for those that allow it: %v", mtu, o), func(ctx SpecContext) {
				r := up(ctx, e, sized(o, mtu, mtu))
				for _, v6 := range []bool{false, true} {
					r.discovers(ctx, v6, room(o, mtu))
					got := r.flow(ctx, agent.Source{Proto: traffic.TCP, Bytes: 3 << 20}, v6)
					Expect(got.Bytes).To(Equal(uint64(3 << 20)))
				}
			}, NodeTimeout(timeout))
		}
	}

	It("passes payloads of sizes from 1 to 9000 bytes unchanged", func(ctx SpecContext) {
		draw := testlab.Seeded()
		o := testlab.Carriages()[draw.IntN(len(testlab.Carriages()))]
		GinkgoWriter.Println(o)
		r := up(ctx, e, sized(o, 9000, 9000))
		for _, v6 := range []bool{false, true} {
			a, b := testlab.Open(ctx, r.Lab, "h1", r.host("h1", v6)), testlab.Open(ctx, r.Lab, "h2", r.host("h2", v6))
			r.discover(ctx, a, b, room(o, 9000)) // what IPv6 sends before it has heard of it is lost
			a = testlab.Open(ctx, r.Lab, "h1", r.host("h1", v6))
			for n := 1; n <= 9000; n += 1 + draw.IntN(60) {
				testlab.Pass(a, b, testlab.Random(n))
			}
			testlab.Pass(a, b, testlab.Random(9000))
		}
	}, NodeTimeout(timeout))
}

// flow sends from h1 to h2.
func (r *rig) flow(ctx context.Context, s agent.Source, v6 bool) traffic.Result {
	GinkgoHelper()
	s.From = r.host("h1", v6)
	return testlab.Flow{From: "h1", To: "h2", At: r.host("h2", v6), Source: s, Quiet: testlab.Unhurried}.Run(ctx, r.Lab)
}

// discovers checks that a sender who forbids fragments learns that room bytes pass and not one more, and that another's
// packets pass at any size.
func (r *rig) discovers(ctx context.Context, v6 bool, room int) {
	GinkgoHelper()
	a, b := testlab.Open(ctx, r.Lab, "h1", r.host("h1", v6)), testlab.Open(ctx, r.Lab, "h2", r.host("h2", v6))
	headers := r.discover(ctx, a, b, room)
	exact := testlab.Random(room - headers)
	testlab.Pass(a, b, exact)
	_, err := a.WriteToUDPAddrPort(append(exact, 0), b.At)
	Expect(err).To(MatchError(unix.EMSGSIZE), "one byte more")

	loose := testlab.Open(ctx, r.Lab, "h1", r.host("h1", v6))
	loose.Set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	for _, n := range []int{room - headers, room - headers + 1, 2 * room, 20_000, 60_000} {
		testlab.Pass(loose, b, testlab.Random(n))
	}
}

// discover makes a, which forbids fragments from then on, learn the size that passes to b, by the answer to a packet that
// is too big. It returns the bytes of the headers.
func (r *rig) discover(ctx context.Context, a, b testlab.Mailbox, room int) (headers int) {
	GinkgoHelper()
	a.Set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	probe := testlab.Open(ctx, r.Lab, "h1", a.At.Addr())
	Expect(probe.PathMTU(b)).To(BeNumerically(">", room), "the host's own link takes more than the tunnel")
	_, err := a.WriteToUDPAddrPort(make([]byte, room+1-a.Headers()), b.At)
	Expect(err).NotTo(HaveOccurred())
	Eventually(ctx, func() int { return probe.PathMTU(b) }).WithPolling(pollEvery).Should(Equal(room), "the path MTU that the host has learnt")
	return a.Headers()
}
