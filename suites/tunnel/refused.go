package tunnel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/suites/testlab"
	"pqlab/traffic"
)

const (
	pollEvery = time.Millisecond
	window    = 4096 // packets: the replay window
)

// attack is a lab whose fibre an attacker has: specs send in d1's place what d2 is to refuse.
type attack struct {
	*rig
	from, to testlab.Mailbox // at h1 and h2
	inject   *testlab.Injector
	outer    testlab.Outer // of d1's packets
}

func besiege(ctx context.Context, e testlab.Env, o testlab.Carriage, v6 bool) *attack {
	GinkgoHelper()
	r := up(ctx, e, eastWest(o))
	a := &attack{
		rig: r, from: testlab.Open(ctx, r.Lab, "h1", r.host("h1", v6)), to: testlab.Open(ctx, r.Lab, "h2", r.host("h2", v6)),
		inject: testlab.Inject(r.Lab, fibreLink, "d1"),
		outer:  testlab.Outer{Src: r.tunnel.Plan.OuterA, Dst: r.tunnel.Plan.OuterB},
	}
	if o.Encapsulation == "esp" {
		a.outer.Encapsulation = ipsec.ESP
	}
	return a
}

// fence passes a packet that is good: what was injected before it has been handled, and was not delivered.
func (a *attack) fence() {
	GinkgoHelper()
	testlab.Pass(a.from, a.to, testlab.Mark())
}

func (a *attack) refused(ctx context.Context, ofTunnel, rest ipsec.Drops) {
	GinkgoHelper()
	a.fence()
	if a.kernel { // where another processor may be busy with what came before the fence
		Eventually(ctx, func() ipsec.Drops { return together(a.drops(ctx, "d2")) }).Should(Equal(together(ofTunnel, rest)), "refused")
		return
	}
	t, g := a.drops(ctx, "d2")
	Expect(t).To(Equal(ofTunnel), "refused of the tunnel")
	Expect(g).To(Equal(rest), "refused of no tunnel")
}

// together is what was refused, as far as the kernel tells: for the namespace, and what is wrong under a good ICV, or is
// too short to have one, is not always told from a wrong one.
func together(ofTunnel, rest ipsec.Drops) ipsec.Drops {
	return ipsec.Drops{
		NoSA: ofTunnel.NoSA + rest.NoSA, UnknownSPI: ofTunnel.UnknownSPI + rest.UnknownSPI, Replay: ofTunnel.Replay + rest.Replay,
		Malformed: ofTunnel.Malformed + rest.Malformed + ofTunnel.Integrity + rest.Integrity, Policy: ofTunnel.Policy + rest.Policy,
		Plaintext: ofTunnel.Plaintext + rest.Plaintext, Expired: ofTunnel.Expired + rest.Expired, TooBig: ofTunnel.TooBig + rest.TooBig,
		Send: ofTunnel.Send + rest.Send,
	}
}

// unseen is how long an ESP packet must be for the kernel to count it: as an IP header, where it comes in UDP.
func (a *attack) unseen() int {
	switch {
	case !a.kernel || a.outer.Encapsulation != ipsec.UDP:
		return 0
	case a.outer.Src.Is4():
		return 20
	}
	return 40
}

func refused(e testlab.Env) {
	for i, o := range testlab.Carriages() {
		v6 := i%2 == 1
		It(fmt.Sprintf("refuses packets replayed: %v", o), func(ctx SpecContext) {
			a := besiege(ctx, e, o, v6)
			recording := testlab.Record(a.Lab, fibreLink)
			payload := testlab.Mark()
			const n = 20
			for range n {
				testlab.Pass(a.from, a.to, payload)
			}
			outer, packets := recording.ESP(ctx, a.tunnel.Plan.OuterA, testlab.SealedSize(a.from.Headers()+len(payload)), n)
			Expect(outer).To(Equal(a.outer))
			a.inject.ESP(outer, packets...)
			slices.Reverse(packets)
			a.inject.ESP(outer, packets...)
			a.refused(ctx, ipsec.Drops{Replay: 2 * n}, ipsec.Drops{})
		}, NodeTimeout(timeout), Label(testlab.Provokes))

		It(fmt.Sprintf("refuses packets corrupted in any byte, cut or lengthened, and then takes the true one: %v", o), func(ctx SpecContext) {
			a := besiege(ctx, e, o, v6)
			a.fence()
			truth := testlab.Mark()
			_, packets := a.held().Packets(ctx, a.Lab, a.from, a.to, truth)
			packet := packets[0]
			for i := range packet {
				bad := slices.Clone(packet)
				bad[i] ^= 1 << (i % 8)
				a.inject.ESP(a.outer, bad)
			}
			// The SPI is of no SA; everything else is under the ICV, that of what the packet does not carry included.
			want := ipsec.Drops{Integrity: uint64(len(packet) - 4)}
			rest := ipsec.Drops{UnknownSPI: 4}
			a.refused(ctx, want, rest)

			for n := 2; n < len(packet); n++ {
				a.inject.ESP(a.outer, packet[:n:n])
				switch {
				case n < a.unseen():
				case n < 8: // no header
					rest.Malformed++
				case n%4 != 0 || n < 8+8+4+16: // header, IV, trailer, ICV
					want.Malformed++
				default:
					want.Integrity++
				}
			}
			a.inject.ESP(a.outer, append(slices.Clone(packet), 0, 0, 0, 0))
			want.Integrity++
			a.refused(ctx, want, rest)

			a.inject.ESP(a.outer, packet)
			a.to.Expect(truth)
			a.inject.ESP(a.outer, packet)
			want.Replay++
			a.refused(ctx, want, rest)
		}, NodeTimeout(timeout), Label(testlab.Provokes))

		It(fmt.Sprintf("refuses what is sealed with the right key and is not the tunnel's: %v", o), func(ctx SpecContext) {
			a := besiege(ctx, e, o, false)
			a.fence()
			secrets, err := a.tunnel.Secrets(ctx, "d2")
			Expect(err).NotTo(HaveOccurred())
			sa := secrets.In
			seq := uint64(100) // d1's own numbers stay below
			send := func(plain []byte) {
				GinkgoHelper()
				seq++
				a.inject.ESP(a.outer, forge(sa, seq, plain))
			}
			datagram := func(src, dst netip.Addr, payload []byte) []byte {
				GinkgoHelper()
				return testlab.Packet(testlab.Outer{Src: src, Dst: dst}, layers.IPProtocolUDP,
					&layers.UDP{SrcPort: layers.UDPPort(a.from.At.Port()), DstPort: layers.UDPPort(a.to.At.Port())}, gopacket.Payload(payload))
			}
			from, to := a.from.At.Addr(), a.to.At.Addr()
			good := datagram(from, to, []byte("forged"))
			send(padded(good, nextIPv4))
			a.to.Expect([]byte("forged")) // so what follows is refused for no mistake in the forging
			send(padded(append(slices.Clone(good), make([]byte, 33)...), nextIPv4))
			a.to.Expect([]byte("forged")) // padding for traffic flow confidentiality

			unknown := sa
			unknown.SPI ^= 0x00100000
			a.inject.ESP(a.outer, forge(unknown, seq+1, padded(good, nextIPv4)))
			send(padded(nil, nextNone)) // a dummy is dropped and no fault
			rest := ipsec.Drops{UnknownSPI: 1}
			const none = 8 + 8 + 4 + 16         // bytes of an ESP packet with nothing in it
			if a.kernel && none >= a.unseen() { // it counts a dummy all the same
				rest.Malformed++
			}
			a.refused(ctx, ipsec.Drops{}, rest)

			stranger := netip.MustParseAddr("192.0.2.1")
			for _, addresses := range [][2]netip.Addr{
				{stranger, to}, {from, stranger}, {to, from}, {to, to}, {from, from}, {a.outer.Src, a.outer.Dst},
			} {
				if addresses[0].Is4() {
					send(padded(datagram(addresses[0], addresses[1], []byte("outside the policy")), nextIPv4))
				} else {
					send(padded(datagram(addresses[0], addresses[1], []byte("outside the policy")), nextIPv6))
				}
			}
			want := ipsec.Drops{Policy: 6}
			a.refused(ctx, want, rest)

			long := slices.Clone(good)
			long[3] += 4 // total length
			badPad := append(slices.Clone(good), 9, 2)
			for len(badPad)%4 != 0 {
				badPad = append(slices.Clone(badPad[:len(badPad)-2]), 9, badPad[len(badPad)-2]+1, nextIPv4)
			}
			for _, plain := range [][]byte{
				padded(good, nextIPv6), padded(good, 6), padded(good, 17), padded(long, nextIPv4), badPad,
				{1, 2, 255, nextIPv4}, padded([]byte("neither"), nextIPv4), padded(nil, nextIPv4),
			} {
				send(plain)
				want.Malformed++
			}
			if a.kernel { // whose IP, and not its IPsec, refuses a wrong total length
				want.Malformed--
			}
			if none < a.unseen() { // two were no longer
				want.Malformed -= 2
			}
			a.refused(ctx, want, rest)

			// What was sealed with the key of the other direction is nobody's.
			back := secrets.Out
			back.SPI = sa.SPI
			a.inject.ESP(a.outer, forge(back, seq+1, padded(good, nextIPv4)))
			want.Integrity++
			a.refused(ctx, want, rest)
		}, NodeTimeout(timeout), Label(testlab.Provokes))
	}

	It("carries sequence numbers beyond 2^32, of which the wire has the low half", func(ctx SpecContext) {
		a := besiege(ctx, e, testlab.Carriages()[0], false)
		secrets, err := a.tunnel.Secrets(ctx, "d2")
		Expect(err).NotTo(HaveOccurred())
		inner := func(text string) []byte {
			return padded(testlab.Packet(testlab.Outer{Src: a.from.At.Addr(), Dst: a.to.At.Addr()}, layers.IPProtocolUDP,
				&layers.UDP{SrcPort: 1, DstPort: layers.UDPPort(a.to.At.Port())}, gopacket.Payload(text)), nextIPv4)
		}
		var packets [][]byte
		for _, seq := range []uint64{5000, 1<<32 - 2, 1<<32 + 2, 1<<32 - 1, 1 << 32, 1<<32 + 1} {
			text := fmt.Sprint(seq)
			packets = append(packets, forge(secrets.In, seq, inner(text)))
			a.inject.ESP(a.outer, packets[len(packets)-1])
			a.to.Expect([]byte(text))
		}
		Eventually(ctx, func() ipsec.Counters { return a.state(ctx, "d2").In }).Should(And(HaveField("Seq", uint64(1<<32+2)), HaveField("Packets", uint64(6))))
		// The first of them, and one that is new, are now taken for numbers beyond 2^32, and so fail the check.
		a.inject.ESP(a.outer, packets...)
		a.inject.ESP(a.outer, forge(secrets.In, 3, inner("of the first 2^32")))
		last := "the end"
		a.inject.ESP(a.outer, forge(secrets.In, 1<<32+3, inner(last)))
		a.to.Expect([]byte(last))
		Eventually(ctx, func() ipsec.Drops { return a.state(ctx, "d2").Drops }).Should(Equal(ipsec.Drops{Replay: 5, Integrity: 2}))
	}, NodeTimeout(timeout), Label(testlab.Provokes))

	for _, o := range []testlab.Carriage{testlab.Carriages()[0], testlab.Carriages()[3]} {
		It(fmt.Sprintf("delivers once what arrives in any order within the replay window: %v", o), func(ctx SpecContext) {
			a := besiege(ctx, e, o, false)
			const n = 1500
			deliver, packets := a.flood(ctx, n)
			shuffled := slices.Concat(packets, packets, packets)
			testlab.Seeded().Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			a.paced(ctx, shuffled)
			got := deliver()
			Expect(got).To(And(HaveField("Sent", uint64(n)), HaveField("Received", uint64(n)), HaveField("Lost", uint64(0)),
				HaveField("Duplicated", uint64(0)), HaveField("Reordered", BeNumerically(">", n/2))))
			a.refused(ctx, ipsec.Drops{Replay: 2 * n}, ipsec.Drops{})
		}, NodeTimeout(timeout), Label(testlab.Provokes))
	}

	It("refuses what is left of the replay window, to the packet", func(ctx SpecContext) {
		a := besiege(ctx, e, testlab.Carriages()[0], false)
		const n, beyond = window + 300, 300
		deliver, packets := a.flood(ctx, n)
		a.paced(ctx, slices.Concat(packets[n-1:], packets[:n-1]))
		got := deliver()
		Expect(got).To(And(HaveField("Sent", uint64(n)), HaveField("Received", uint64(window)), HaveField("Lost", uint64(beyond)),
			HaveField("Duplicated", uint64(0))))
		Expect(got.Losses).To(HaveExactElements(And(HaveField("First", uint64(0)), HaveField("Last", uint64(beyond-1)))))
		if a.kernel { // which takes them for packets 2^32 ahead, and finds that they are not
			Eventually(ctx, func() ipsec.Drops { return a.state(ctx, "d2").Drops }).Should(Equal(ipsec.Drops{Integrity: beyond}))
			return
		}
		a.refused(ctx, ipsec.Drops{Replay: beyond}, ipsec.Drops{})
	}, NodeTimeout(timeout), Label(testlab.Provokes))
}

// flood sends n packets of a flow from h1 to h2 that are held on the fibre, and gives their ESP packets in order. deliver
// ends the flow and tells what h2 has got of it.
func (a *attack) flood(ctx context.Context, n uint64) (deliver func() traffic.Result, packets [][]byte) {
	GinkgoHelper()
	const flow, size = 7, 100
	from, to := a.Node("h1").Agent(), a.Node("h2").Agent()
	sink, err := to.OpenSink(ctx, agent.Sink{
		Proto: traffic.UDP, Listen: netip.AddrPortFrom(a.to.At.Addr(), 0), Flow: flow, Streams: 1, Quiet: testlab.Quiet(),
	})
	Expect(err).NotTo(HaveOccurred())
	var sent traffic.Sent
	_, packets = a.held().Sealed(ctx, a.Lab, size, int(n), func() {
		GinkgoHelper()
		var err error
		sent, err = from.Send(ctx, agent.Source{
			Proto: traffic.UDP, From: a.from.At.Addr(), To: sink.Addr, Flow: flow, Streams: 1, FrameSize: size, Packets: n,
			Rate: 20e6,
		})
		Expect(err).NotTo(HaveOccurred())
	})
	return func() traffic.Result {
		GinkgoHelper()
		got, err := to.FinishSink(ctx, agent.Finish{ID: sink.ID, Sent: sent})
		Expect(err).NotTo(HaveOccurred())
		return got
	}, packets
}

// paced injects packets no faster than d2 takes them.
func (a *attack) paced(ctx context.Context, packets [][]byte) {
	GinkgoHelper()
	seen := func() uint64 {
		s := a.state(ctx, "d2")
		return s.In.Packets + s.Drops.Replay + s.Drops.Integrity
	}
	start := seen()
	done := 0
	for chunk := range slices.Chunk(packets, 100) {
		a.inject.ESP(a.outer, chunk...)
		done += len(chunk)
		Eventually(ctx, seen).WithPolling(pollEvery).Should(Equal(start + uint64(done)))
	}
}
