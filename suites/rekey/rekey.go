// Package rekey verifies when a tunnel's keys are replaced, and that replacing them loses nothing.
package rekey

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
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
	r.events.Until(ctx, "established at both ends", func(all []agent.Event) bool {
		return len(only(all, ipsec.Established)) == 2
	})
	return r
}

func manual(o *lab.Options) { o.ManualClock = true }

func other(node string) string {
	if node == "a" {
		return "b"
	}
	return "a"
}

func only(all []agent.Event, kind ipsec.EventKind) []agent.Event {
	return slices.DeleteFunc(slices.Clone(all), func(e agent.Event) bool { return e.Kind != kind })
}

// rekeyed waits until both ends have told of n rekeys in all, and returns the latest at the node that began it and at
// the other. Nothing may have failed or expired.
func (r *rig) rekeyed(ctx context.Context, n int) (initiator, responder agent.Event) {
	GinkgoHelper()
	all := r.events.Until(ctx, "rekeyed at both ends", func(all []agent.Event) bool {
		return len(only(all, ipsec.Rekeyed)) >= 2*n
	})
	r.calm(all)
	rekeys := only(all, ipsec.Rekeyed)
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

// calm fails where an exchange failed that an end of the tunnel began, or a hard limit was reached. What only the other
// end tells of as failed is an exchange that gave way to its own, and whose messages came late.
func (r *rig) calm(all []agent.Event) {
	GinkgoHelper()
	Expect(slices.DeleteFunc(only(all, ipsec.Failed), func(e agent.Event) bool { return !e.Initiator })).To(BeEmpty())
	Expect(only(all, ipsec.Expired)).To(BeEmpty())
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

// send sends packets of size bytes from a node to the other one, and returns what arrived.
func (r *rig) send(ctx context.Context, from string, packets uint64, size int) traffic.Result {
	GinkgoHelper()
	got, err := r.flow(ctx, from, agent.Source{Proto: traffic.UDP, Packets: packets, FrameSize: size})
	Expect(err).NotTo(HaveOccurred())
	return got
}

// deliver sends, and fails if anything is lost.
func (r *rig) deliver(ctx context.Context, from string, packets uint64, size int) {
	GinkgoHelper()
	if packets == 0 {
		return
	}
	got := r.send(ctx, from, packets, size)
	Expect(got.Received).To(Equal(packets))
	Expect(got.Duplicated).To(BeZero())
}

func (r *rig) flow(ctx context.Context, from string, s agent.Source) (traffic.Result, error) {
	to := other(from)
	s.Flow, s.From, s.Streams = rand.Uint64(), r.inner(from), 1
	sink, err := r.Node(to).Agent().OpenSink(ctx, agent.Sink{
		Proto: s.Proto, Listen: netip.AddrPortFrom(r.inner(to), 0), Flow: s.Flow, Streams: 1,
	})
	if err != nil {
		return traffic.Result{}, err
	}
	s.To = sink.Addr
	sent, err := r.Node(from).Agent().Send(ctx, s)
	if err != nil {
		return traffic.Result{}, err
	}
	return r.Node(to).Agent().FinishSink(ctx, agent.Finish{ID: sink.ID, Sent: sent})
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

const timeout = 20 * time.Second
