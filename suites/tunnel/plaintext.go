package tunnel

import (
	"errors"
	"fmt"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

func plaintext(e testlab.Env) {
	for _, v6 := range []bool{false, true} {
		It(fmt.Sprintf("refuses plaintext between the protected subnets in both directions: IPv6 %t", v6), func(ctx SpecContext) {
			r := up(ctx, e, eastWest(testlab.Carriages()[0]))
			a, b := testlab.Open(ctx, r.Lab, "h1", r.host("h1", v6)), testlab.Open(ctx, r.Lab, "h2", r.host("h2", v6))
			clear := func(from, to testlab.Mailbox) []byte {
				GinkgoHelper()
				return testlab.Packet(testlab.Outer{Src: from.At.Addr(), Dst: to.At.Addr()}, layers.IPProtocolUDP,
					&layers.UDP{SrcPort: layers.UDPPort(from.At.Port()), DstPort: layers.UDPPort(to.At.Port())}, gopacket.Payload("in the clear"))
			}
			const n = 4
			// From the fibre, at either gateway.
			for as, packet := range map[string][]byte{"d1": clear(a, b), "d2": clear(b, a)} {
				inject := testlab.Inject(r.Lab, fibreLink, as)
				for range n {
					inject.Frame(v6, packet)
				}
			}
			// From the host, as if it were the other one.
			spoof := testlab.Inject(r.Lab, pcieLink, "h1")
			spoof.Frame(v6, clear(b, a))
			// On its way out, past the tunnel.
			recording := testlab.Record(r.Lab, fibreLink)
			near, _ := testlab.Ends(r.Lab, fibreLink, "d1")
			past := testlab.Open(ctx, r.Lab, "d1", address(r.Lab, "d1", v6))
			for _, i := range r.Node("d1").Plan.Interfaces {
				if i.Name == near.Name {
					continue
				}
				for _, own := range i.Addresses { // in the protected subnet
					if own.Addr().Is6() == v6 {
						past = testlab.Open(ctx, r.Lab, "d1", own.Addr())
					}
				}
			}
			raw, err := past.SyscallConn()
			Expect(err).NotTo(HaveOccurred())
			var option error
			Expect(raw.Control(func(fd uintptr) { option = unix.BindToDevice(int(fd), near.Name) })).To(Succeed())
			Expect(option).NotTo(HaveOccurred())
			for range n {
				_, err := past.WriteToUDPAddrPort([]byte("in the clear"), b.At)
				Expect(err == nil || errors.Is(err, unix.EPERM)).To(BeTrue(), "%v", err)
			}

			Eventually(ctx, func() ipsec.Drops { return r.state(ctx, "d1").Drops }).Should(Equal(ipsec.Drops{Plaintext: 2*n + 1}))
			Eventually(ctx, func() ipsec.Drops { return r.state(ctx, "d2").Drops }).Should(Equal(ipsec.Drops{Plaintext: n}))
			testlab.Pass(a, b, []byte("through the tunnel"))
			testlab.Pass(b, a, []byte("through the tunnel"))
			for _, p := range recording.Stop() {
				Expect(string(p.Data())).NotTo(ContainSubstring("in the clear"))
			}
		}, NodeTimeout(timeout))
	}
}
