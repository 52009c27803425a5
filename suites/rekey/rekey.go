// Package rekey verifies when a tunnel's keys are replaced, and that replacing them loses nothing.
package rekey

import (
	"context"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

// Specs of the claim.
func Specs(e testlab.Env) {
	Describe("rekey", Label("emu", "vm"), func() {
		e.Guard()
		byTime(e)
		byVolume(e)
		onDemand(e)
		hardLimits(e)
		underLoad(e)
		grace(e)
	})
}

// rig is the lab of two hosts, a and b, with a tunnel between them.
type rig struct {
	*lab.Lab
	kernel bool // its tunnels are the kernel's
	tunnel *lab.Tunnel
	events *testlab.Events
}

const tunnelName = "ab"

// describe is the topology, of the quickest suite: what triggers a rekey does not depend on it.
func describe(limits topology.Limits, options ...topology.TunnelOption) *topology.Builder {
	options = append(options, topology.Rekey(limits), topology.Suite("mldsa44+mlkem512"))
	return topology.New("rekey").Host("a").Host("b").Fibre("a", "b").Tunnel(tunnelName, "a", "b", options...)
}

// up makes the lab, and keys the tunnel from a.
func up(ctx context.Context, e testlab.Env, t testlab.Planner, change func(*lab.Options)) *rig {
	GinkgoHelper()
	l := e.Up(ctx, t, change)
	r := &rig{Lab: l, kernel: e.Kernel(), tunnel: l.Tunnel(tunnelName), events: testlab.Collect(l)}
	_, err := r.tunnel.Establish(ctx)
	Expect(err).NotTo(HaveOccurred())
	r.events.Established(ctx)
	return r
}

func manual(o *lab.Options) { o.ManualClock = true }

func other(node string) string {
	if node == "a" {
		return "b"
	}
	return "a"
}

// rekeyed waits until both ends have told of n rekeys in all, and returns the latest at the node that began it and at
// the other. Nothing may have failed or expired.
func (r *rig) rekeyed(ctx context.Context, n int) (initiator, responder agent.Event) {
	GinkgoHelper()
	all := r.events.Until(ctx, "rekeyed at both ends", func(all []agent.Event) bool {
		return len(testlab.Only(all, ipsec.Rekeyed)) >= 2*n
	})
	testlab.Calm(all)
	rekeys := testlab.Only(all, ipsec.Rekeyed)
	Expect(rekeys).To(HaveLen(2*n), "rekeys at both ends")
	initiator, responder = rekeys[2*n-2], rekeys[2*n-1]
	if !initiator.Initiator {
		initiator, responder = responder, initiator
	}
	Expect(initiator.Initiator).To(BeTrue())
	Expect(responder.Initiator).To(BeFalse())
	Expect(responder.Node).To(Equal(other(initiator.Node)))
	Expect(responder.Trigger).To(Equal(ipsec.ByPeer))
	Expect(responder.New).To(Equal(ipsec.SPIPair{In: initiator.New.Out, Out: initiator.New.In}))
	Expect(responder.Old).To(Equal(ipsec.SPIPair{In: initiator.Old.Out, Out: initiator.Old.In}))
	return initiator, responder
}

func (r *rig) state(ctx context.Context, node string) agent.TunnelState {
	GinkgoHelper()
	s, err := r.tunnel.State(ctx, node)
	Expect(err).NotTo(HaveOccurred())
	return s
}

// inner is the IPv4 address of a node in the tunnel.
func (r *rig) inner(node string) netip.Addr {
	for _, p := range r.Node(node).Plan.Inner {
		if p.Addr().Is4() {
			return p.Addr()
		}
	}
	Fail(node + " has no inner address")
	return netip.Addr{}
}

// packets are so many of size bytes, from a node to the other one, no faster than any machine takes them.
func (r *rig) packets(from string, n uint64, size int) testlab.Flow {
	GinkgoHelper()
	return r.flow(from, agent.Source{Proto: traffic.UDP, Packets: n, FrameSize: size, Rate: 50e6})
}

// flow is one from a node to the other one.
func (r *rig) flow(from string, s agent.Source) testlab.Flow {
	GinkgoHelper()
	s.From = r.inner(from)
	return testlab.Flow{From: from, To: other(from), At: r.inner(other(from)), Source: s}
}

// both are flows in both directions.
func (r *rig) both(s agent.Source) []testlab.Flow {
	GinkgoHelper()
	return testlab.Both(s, [2]string{"a", "b"}, [2]netip.Addr{r.inner("a"), r.inner("b")})
}

// deliver sends packets, and fails if anything is lost.
func (r *rig) deliver(ctx context.Context, from string, packets uint64, size int) {
	GinkgoHelper()
	if packets == 0 {
		return
	}
	flow := r.packets(from, packets, size)
	flow.Quiet = testlab.Unhurried
	got := flow.Run(ctx, r.Lab)
	Expect(got.Received).To(Equal(packets))
	Expect(got.Duplicated).To(BeZero())
}

// counts matches counters. The kernel's of blocks and bytes are bounds: it does not see the padding, which is between 2
// and 5 bytes of each packet, nor where in a block a packet ends.
func (r *rig) counts(want ipsec.Counters) types.GomegaMatcher {
	if !r.kernel {
		return Equal(want)
	}
	return And(HaveField("Packets", want.Packets), HaveField("Seq", want.Seq),
		HaveField("Bytes", And(BeNumerically(">=", want.Bytes), BeNumerically("<=", want.Bytes+3*want.Packets))),
		HaveField("Blocks", And(BeNumerically(">=", want.Blocks), BeNumerically("<=", want.Blocks+want.Packets))))
}

// plaintextOf is what the cipher is given for an inner packet of n bytes: packet, padding to a multiple of four with the
// two bytes of the trailer (RFC 4303 section 2.4).
func plaintextOf(n int) uint64 {
	return uint64(n+2+3) / 4 * 4
}

// blocksOf is what that costs in AES blocks.
func blocksOf(n int) uint64 { return (plaintextOf(n) + 15) / 16 }

const timeout = 2 * time.Minute
