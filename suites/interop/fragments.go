package interop

import (
	"encoding/binary"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

// fragments cuts ESP packets on their way. Neither end sends such, but a router of an IPv4 path may make them.
func fragments(rig func() *rig, v6 bool) {
	It("take ESP packets of each other that were cut on their way", func(ctx SpecContext) {
		r, draw := rig(), testlab.Seeded()
		for _, w := range r.ways(ctx, v6) {
			inject := w.injector()
			for _, pieces := range []int{2, 3, 7} {
				payload := testlab.Random(1000)
				outer, packets := w.held(ctx, payload)
				all := cut(whole(outer, packets[0]), pieces, draw.Uint32())
				Expect(len(all)).To(Equal(pieces))
				draw.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				for _, piece := range all {
					inject.Frame(outer.Src.Is6(), piece)
				}
				w.to.expect(payload)
			}
			w.pass(testlab.Mark())
		}
		r.refusedNothing(ctx)
	}, NodeTimeout(timeout))
}

// whole is the IP packet around an ESP packet.
func whole(o testlab.Outer, esp []byte) []byte {
	GinkgoHelper()
	if o.Encapsulation == ipsec.ESP {
		return testlab.Packet(o, layers.IPProtocolESP, gopacket.Payload(esp))
	}
	return testlab.Packet(o, layers.IPProtocolUDP, &layers.UDP{SrcPort: ipsec.UDPPort, DstPort: ipsec.UDPPort}, gopacket.Payload(esp))
}

// cut makes fragments of an IP packet without options (RFC 791 section 3.2, RFC 8200 section 4.5).
func cut(ip []byte, pieces int, id uint32) (all [][]byte) {
	v6 := ip[0]>>4 == 6
	header := 20
	if v6 {
		header = 40
	}
	payload := ip[header:]
	size := (len(payload)/pieces + 8) &^ 7
	for at := 0; at < len(payload); at += size {
		end, more := at+size, uint16(1)
		if end >= len(payload) {
			end, more = len(payload), 0
		}
		f := append([]byte{}, ip[:header]...)
		if v6 {
			f[6] = 44
			binary.BigEndian.PutUint16(f[4:], uint16(8+end-at))
			f = append(f, ip[6], 0)
			f = binary.BigEndian.AppendUint16(f, uint16(at)|more)
			f = binary.BigEndian.AppendUint32(f, id)
		} else {
			binary.BigEndian.PutUint16(f[2:], uint16(20+end-at))
			binary.BigEndian.PutUint16(f[4:], uint16(id))
			binary.BigEndian.PutUint16(f[6:], uint16(at/8)|more<<13)
			binary.BigEndian.PutUint16(f[10:], 0)
			binary.BigEndian.PutUint16(f[10:], checksum(f))
		}
		all = append(all, append(f, payload[at:end]...))
	}
	return all
}

// checksum of an IPv4 header (RFC 1071).
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
