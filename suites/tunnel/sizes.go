package tunnel

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/netip"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/agent"
	"pqlab/suites/testlab"
	"pqlab/traffic"
)

func sizes(e testlab.Env) {
	for _, o := range outers() {
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
					r.discovers(ctx, v6, o.room(mtu))
					got := r.flow(ctx, agent.Source{Proto: traffic.TCP, Bytes: 3 << 20}, v6)
					Expect(got.Bytes).To(Equal(uint64(3 << 20)))
				}
			}, NodeTimeout(timeout))
		}
	}

	It("passes payloads of sizes from 1 to 9000 bytes unchanged", func(ctx SpecContext) {
		draw := seeded()
		o := outers()[draw.IntN(len(outers()))]
		GinkgoWriter.Println(o)
		r := up(ctx, e, sized(o, 9000, 9000))
		for _, v6 := range []bool{false, true} {
			a, b := open(ctx, r.Lab, "h1", r.host("h1", v6)), open(ctx, r.Lab, "h2", r.host("h2", v6))
			r.discover(ctx, a, b, o.room(9000)) // what IPv6 sends before it has heard of it is lost
			a = open(ctx, r.Lab, "h1", r.host("h1", v6))
			for n := 1; n <= 9000; n += 1 + draw.IntN(60) {
				payload := make([]byte, n)
				crand.Read(payload)
				pass(a, b, payload)
			}
			payload := make([]byte, 9000)
			crand.Read(payload)
			pass(a, b, payload)
		}
	}, NodeTimeout(timeout))
}

// seeded draws what the seed of the run says, so that a failure can be had again with -ginkgo.seed.
func seeded() *rand.Rand { return rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 1)) }

// flow sends from h1 to h2.
func (r *rig) flow(ctx context.Context, s agent.Source, v6 bool) traffic.Result {
	GinkgoHelper()
	s.Flow, s.Streams, s.From = rand.Uint64(), 1, r.host("h1", v6)
	to := r.Node("h2").Agent()
	sink, err := to.OpenSink(ctx, agent.Sink{
		Proto: s.Proto, Listen: netip.AddrPortFrom(r.host("h2", v6), 0), Flow: s.Flow, Streams: 1, Quiet: testlab.Patience(traffic.DefaultQuiet),
	})
	Expect(err).NotTo(HaveOccurred())
	s.To = sink.Addr
	sent, err := r.Node("h1").Agent().Send(ctx, s)
	Expect(err).NotTo(HaveOccurred())
	got, err := to.FinishSink(ctx, agent.Finish{ID: sink.ID, Sent: sent})
	Expect(err).NotTo(HaveOccurred())
	return got
}

// discovers checks that a sender who forbids fragments learns that room bytes pass and not one more, and that another's
// packets pass at any size.
func (r *rig) discovers(ctx context.Context, v6 bool, room int) {
	GinkgoHelper()
	a, b := open(ctx, r.Lab, "h1", r.host("h1", v6)), open(ctx, r.Lab, "h2", r.host("h2", v6))
	headers := r.discover(ctx, a, b, room)
	exact := make([]byte, room-headers)
	crand.Read(exact)
	pass(a, b, exact)
	_, err := a.WriteToUDPAddrPort(append(exact, 0), b.at)
	Expect(err).To(MatchError(unix.EMSGSIZE), "one byte more")

	level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	loose := open(ctx, r.Lab, "h1", r.host("h1", v6))
	loose.set(level, option, unix.IP_PMTUDISC_DONT)
	for _, n := range []int{room - headers, room - headers + 1, 2 * room, 20_000, 60_000} {
		payload := make([]byte, n)
		crand.Read(payload)
		pass(loose, b, payload)
	}
}

// discover makes a, which forbids fragments from then on, learn the size that passes to b, by the answer to a packet that
// is too big. It returns the bytes of the headers.
func (r *rig) discover(ctx context.Context, a, b mailbox, room int) (headers int) {
	GinkgoHelper()
	level, discover, only, mtu := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IP_MTU
	headers = 20 + 8
	v6 := a.at.Addr().Is6()
	if v6 {
		level, discover, only, mtu = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, unix.IPV6_MTU
		headers = 40 + 8
	}
	a.set(level, discover, only)
	// The kernel tells the size of the way of a connected socket only.
	probe := open(ctx, r.Lab, "h1", a.at.Addr())
	raw, err := probe.SyscallConn()
	Expect(err).NotTo(HaveOccurred())
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(b.at.Port()), Addr: [4]byte(b.at.Addr().AsSlice()[:4])}
	if v6 {
		to = &unix.SockaddrInet6{Port: int(b.at.Port()), Addr: b.at.Addr().As16()}
	}
	known := 0
	inside := func(f func(fd int) error) {
		GinkgoHelper()
		var failed error
		Expect(raw.Control(func(fd uintptr) { failed = f(int(fd)) })).To(Succeed())
		Expect(failed).NotTo(HaveOccurred())
	}
	size := func() int {
		GinkgoHelper()
		inside(func(fd int) error { return unix.Connect(fd, to) }) // which looks the route up anew
		inside(func(fd int) (err error) { known, err = unix.GetsockoptInt(fd, level, mtu); return err })
		return known
	}
	before := size()
	Expect(before).To(BeNumerically(">", room), "the host's own link takes more than the tunnel")
	_, err = a.WriteToUDPAddrPort(make([]byte, room+1-headers), b.at)
	Expect(err).NotTo(HaveOccurred())
	Eventually(ctx, size).WithPolling(pollEvery).Should(Equal(room), "the path MTU that the host has learnt")
	return headers
}

func (m mailbox) set(level, option, value int) {
	GinkgoHelper()
	raw, err := m.SyscallConn()
	Expect(err).NotTo(HaveOccurred())
	var failed error
	Expect(raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })).To(Succeed())
	Expect(failed).NotTo(HaveOccurred())
}
