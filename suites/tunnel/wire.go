package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// onlyESP captures every link of a lab while marked packets pass its tunnels, and looks at each packet captured.
func onlyESP(e testlab.Env) {
	for _, info := range topology.Builtins() {
		It("shows only ESP between its gateways: "+info.Name, func(ctx SpecContext) {
			t, err := topology.Builtin(info.Name)
			Expect(err).NotTo(HaveOccurred())
			shows(ctx, e.Up(ctx, t, nil))
		}, NodeTimeout(timeout))
	}
	for _, o := range testlab.Carriages() {
		It(fmt.Sprintf("shows only ESP between its gateways: east-west, %v", o), func(ctx SpecContext) {
			shows(ctx, e.Up(ctx, eastWest(o), nil))
		}, NodeTimeout(timeout))
	}
}

func shows(ctx context.Context, l *lab.Lab) {
	GinkgoHelper()
	recordings := map[string]*testlab.Recording{}
	for _, p := range l.Plan.Links {
		recordings[p.Name] = testlab.Record(l, p.Name)
	}
	spis := map[string]map[uint32]bool{} // by tunnel
	marks := map[string][][]byte{}       // by tunnel
	for _, t := range l.Plan.Tunnels {
		tunnel := l.Tunnel(t.Name)
		_, err := tunnel.Establish(ctx)
		Expect(err).NotTo(HaveOccurred())
		spis[t.Name] = map[uint32]bool{}
		for range 2 { // under the first keys, and after a rekey
			for _, v6 := range []bool{false, true} {
				near, far := behind(ctx, l, t.A, v6), behind(ctx, l, t.B, v6)
				there, back := testlab.Mark(), testlab.Mark()
				testlab.Pass(near, far, there)
				testlab.Pass(far, near, back)
				marks[t.Name] = append(marks[t.Name], there, back)
			}
			state, err := tunnel.State(ctx, t.A.Node)
			Expect(err).NotTo(HaveOccurred())
			spis[t.Name][state.SPIs.In], spis[t.Name][state.SPIs.Out] = true, true
			_, err = tunnel.Rekey(ctx, t.B.Node)
			Expect(err).NotTo(HaveOccurred())
		}
	}
	for link, recording := range recordings {
		packets := recording.Stop()
		var carries []topology.PlannedTunnel
		for _, t := range l.Plan.Tunnels {
			if slices.Contains(t.Links, link) {
				carries = append(carries, t)
			}
		}
		kinds := map[string]int{}
		for _, p := range packets {
			kind := "plaintext"
			for _, t := range carries {
				if k := allowed(p, t, spis[t.Name]); k != "" {
					kind = k
				}
			}
			kinds[kind]++
			if len(carries) > 0 {
				Expect(kind).NotTo(Equal("plaintext"), "on link %s: %v", link, p)
			}
		}
		GinkgoWriter.Printf("link %s: %v\n", link, kinds)
		if len(carries) > 0 {
			Expect(kinds).To(And(HaveKey("esp"), HaveKey("exchange")), "link %s", link)
		}
		for _, t := range l.Plan.Tunnels {
			for _, m := range marks[t.Name] {
				seen := slices.ContainsFunc(packets, func(p gopacket.Packet) bool { return bytes.Contains(p.Data(), m) })
				protected := slices.Contains(t.Links, link)
				Expect(seen).To(Equal(!protected && reaches(l, link, t)), "whether a mark of tunnel %s is seen on link %s", t.Name, link)
			}
		}
	}
}

// behind opens a socket at an address that an end of a tunnel protects: at a host behind a DPU, else at the end itself.
func behind(ctx context.Context, l *lab.Lab, end topology.TunnelEnd, v6 bool) testlab.Mailbox {
	GinkgoHelper()
	var found testlab.Mailbox
	for _, n := range l.Plan.Nodes {
		addresses := slices.Clone(n.Inner)
		for _, i := range n.Interfaces {
			addresses = append(addresses, i.Addresses...)
		}
		for _, a := range addresses {
			if a.Addr().Is6() != v6 || n.Kind == topology.DPU || found.UDPConn != nil {
				continue
			}
			if slices.ContainsFunc(end.Subnets, func(s netip.Prefix) bool { return s.Contains(a.Addr()) }) {
				found = testlab.Open(ctx, l, n.Name, a.Addr())
			}
		}
	}
	Expect(found.UDPConn).NotTo(BeNil(), "nobody is behind %s", end.Node)
	return found
}

// reaches tells whether what passes a tunnel passes a link in the clear: the PCIe of a DPU at which it ends.
func reaches(l *lab.Lab, link string, t topology.PlannedTunnel) bool {
	for _, p := range l.Plan.Links {
		if p.Name == link && p.Kind == topology.PCIe {
			return slices.ContainsFunc([]string{t.A.Node, t.B.Node}, func(n string) bool { return n == p.A.Node || n == p.B.Node })
		}
	}
	return false
}

// allowed tells what a packet is that may pass a link which carries a tunnel; empty for one that may not.
func allowed(p gopacket.Packet, t topology.PlannedTunnel, spis map[uint32]bool) string {
	if p.Layer(layers.LayerTypeARP) != nil {
		return "arp"
	}
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		switch icmp.TypeCode.Type() {
		case layers.ICMPv6TypeNeighborSolicitation, layers.ICMPv6TypeNeighborAdvertisement:
			return "nd"
		case layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2: // of the kernel, to the link
			if addr, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw()); addr.IsLinkLocalMulticast() {
				return "mld"
			}
		}
		return ""
	}
	between := func(a, b netip.Addr) bool { return a == t.OuterA && b == t.OuterB || a == t.OuterB && b == t.OuterA }
	if o, esp, ok := testlab.ESP(p); ok {
		if between(o.Src, o.Dst) && (o.Encapsulation == ipsec.ESP) == (t.Encapsulation == "esp") && spis[binary.BigEndian.Uint32(esp)] {
			return "esp"
		}
		return ""
	}
	if tcp, ok := p.TransportLayer().(*layers.TCP); ok {
		flow := p.NetworkLayer().NetworkFlow()
		src, _ := netip.AddrFromSlice(flow.Src().Raw())
		dst, _ := netip.AddrFromSlice(flow.Dst().Raw())
		if between(src, dst) && (tcp.SrcPort == keying.Port || tcp.DstPort == keying.Port) {
			return "exchange"
		}
	}
	return ""
}

// unkeyed sends before there are SAs.
func unkeyed(e testlab.Env) {
	for _, o := range testlab.Carriages() {
		It(fmt.Sprintf("lets nothing pass and nothing leak without SAs: %v", o), func(ctx SpecContext) {
			l := e.Up(ctx, eastWest(o), nil)
			r := &rig{l, e.Kernel(), l.Tunnel(tunnelName)}
			recording := testlab.Record(l, fibreLink)
			const each = 5
			var boxes []testlab.Mailbox
			m := testlab.Mark()
			for _, v6 := range []bool{false, true} {
				a, b := testlab.Open(ctx, l, "h1", r.host("h1", v6)), testlab.Open(ctx, l, "h2", r.host("h2", v6))
				for range each {
					a.Send(b, m)
					b.Send(a, m)
				}
				boxes = append(boxes, a, b)
			}
			for _, node := range []string{"d1", "d2"} {
				Eventually(ctx, func() uint64 { return r.state(ctx, node).Drops.NoSA }).Should(Equal(uint64(2 * each)))
			}
			for _, p := range recording.Stop() {
				Expect(allowed(p, l.Plan.Tunnels[0], nil)).To(BeElementOf("arp", "nd", "mld"), "%v", p)
			}
			// What was refused is gone: after keying, the first to arrive is what is sent then.
			_, err := r.tunnel.Establish(ctx)
			Expect(err).NotTo(HaveOccurred())
			for i := 0; i < len(boxes); i += 2 {
				testlab.Pass(boxes[i], boxes[i+1], []byte("there"))
				testlab.Pass(boxes[i+1], boxes[i], []byte("back"))
			}
		}, NodeTimeout(timeout), Label(testlab.Provokes))
	}
}

// begins sends before there are SAs, in a lab where that begins an exchange.
func begins(e testlab.Env) {
	It("begins an exchange for a packet that finds no SA, where that is wanted", func(ctx SpecContext) {
		l := e.Up(ctx, eastWest(testlab.Carriages()[0]), func(o *lab.Options) { o.OnTraffic = true })
		r := &rig{l, e.Kernel(), l.Tunnel(tunnelName)}
		events := testlab.Collect(l)
		a, b := testlab.Open(ctx, l, "h1", r.host("h1", false)), testlab.Open(ctx, l, "h2", r.host("h2", false))
		a.Send(b, testlab.Mark())
		all := events.Until(ctx, "established", func(all []agent.Event) bool { return len(all) >= 2 })
		Expect(all).To(ConsistOf(
			And(HaveField("Node", "d1"), HaveField("Kind", ipsec.Established), HaveField("Trigger", ipsec.ByTraffic), HaveField("Initiator", true)),
			And(HaveField("Node", "d2"), HaveField("Kind", ipsec.Established), HaveField("Trigger", ipsec.ByPeer)),
		))
		testlab.Pass(a, b, testlab.Mark())
		testlab.Pass(b, a, testlab.Mark())
	}, NodeTimeout(timeout), Label(testlab.Provokes))
}
