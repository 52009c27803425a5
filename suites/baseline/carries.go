package baseline

import (
	"net/netip"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/suites/testlab"
	"pqlab/topology"
)

func carries(e testlab.Env) {
	for _, o := range [][2]string{{"udp", "ipv4"}, {"udp", "ipv6"}, {"esp", "ipv4"}, {"esp", "ipv6"}} {
		It("carries TCP and UDP of both families in both directions, as ESP alone: "+o[0]+" over "+o[1], func(ctx SpecContext) {
			r := up(ctx, e, describe(topology.Encapsulation(o[0]), topology.Family(o[1])), nil)
			recording := testlab.Record(r.Lab, fibreLink)
			report, err := r.tunnel.Establish(ctx)
			Expect(err).NotTo(HaveOccurred())
			a, b := r.state(ctx, "d1"), r.state(ctx, "d2")
			Expect(a.Keying).To(HavePrefix("strongswan "))
			Expect(a.Dataplane).To(Equal("xfrm/interface"))
			Expect(report.Suite).To(Equal("ed25519+x25519"))
			Expect(report.Timings.Total).To(BeNumerically(">", 0))
			Expect(report.In).NotTo(BeZero())
			Expect(a.SPIs.In).To(Equal(report.In))
			Expect(b.SPIs.In).To(Equal(a.SPIs.Out))
			Expect(b.SPIs.Out).To(Equal(a.SPIs.In))

			for _, f := range r.Plan.Traffic {
				Expect(f.Tunnels).To(Equal([]string{tunnelName}))
				r.send(ctx, f, time.Second/2)
			}
			r.clean(ctx)
			a, b = r.state(ctx, "d1"), r.state(ctx, "d2")
			Expect(b.In.Packets).To(Equal(a.Out.Packets))
			Expect(a.In.Packets).To(Equal(b.Out.Packets))
			Expect(a.Out.Packets).NotTo(BeZero())
			Expect(a.Out.Seq).To(Equal(a.Out.Packets))

			// What passed the fibre is IKE between the ends, as much as was told, and ESP.
			packets := recording.Stop()
			var esp uint64
			var ike []int // bytes of each message
			for _, p := range packets {
				src, dst := outer(p)
				if !src.IsValid() || src.IsLinkLocalUnicast() || dst.IsMulticast() {
					continue // ARP and neighbour discovery
				}
				Expect([]netip.Addr{src, dst}).To(ConsistOf(r.tunnel.Plan.OuterA, r.tunnel.Plan.OuterB), "%v", p)
				if o, _, ok := testlab.ESP(p); ok {
					Expect(o.Src).To(Equal(src))
					esp++
					continue
				}
				if l := p.Layer(layers.LayerTypeICMPv6); l != nil {
					continue
				}
				udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
				Expect(ok).To(BeTrue(), "%v", p)
				Expect(udp.DstPort).To(BeElementOf(layers.UDPPort(500), layers.UDPPort(4500)))
				Expect(udp.SrcPort).To(Equal(udp.DstPort))
				ike = append(ike, len(udp.Payload))
			}
			// Two round trips, and what charon repeats on a slow machine, even after the exchange.
			Expect(report.Traffic.MessagesSent).To(BeNumerically(">=", 2))
			Expect(report.Traffic.MessagesReceived).To(BeNumerically(">=", 2))
			told := report.Traffic.MessagesSent + report.Traffic.MessagesReceived
			Expect(len(ike)).To(BeNumerically(">=", told))
			bytes := 0
			for _, n := range ike[:told] {
				bytes += n
			}
			Expect(bytes).To(Equal(report.Traffic.Sent + report.Traffic.Received))
			Expect(esp).To(BeNumerically(">", 0))

			log, err := r.Node("d1").Agent().Log(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Count(log, "\n")).To(BeNumerically(">", 5))
		}, NodeTimeout(timeout))
	}
}

func outer(p gopacket.Packet) (src, dst netip.Addr) {
	n := p.NetworkLayer()
	if n == nil {
		return
	}
	from, to := n.NetworkFlow().Endpoints()
	src, _ = netip.AddrFromSlice(from.Raw())
	dst, _ = netip.AddrFromSlice(to.Raw())
	return src, dst
}
