package interop

import (
	"encoding/binary"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// ECN codepoints (RFC 3168 section 5).
const (
	notECT = iota
	ect1
	ect0
	ce
)

// refuse stands for a packet that is dropped.
const refuse = 0xff

// gatewayDecapsulates is figure 4 of RFC 6040, by the inner field and then the outer one.
func gatewayDecapsulates() [4][4]byte {
	return [4][4]byte{
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: refuse},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	}
}

// kernelDecapsulates is RFC 3168 section 9.1: congestion is copied inwards where there is ECN, and nothing else is.
func kernelDecapsulates() [4][4]byte {
	return [4][4]byte{
		notECT: {notECT, notECT, notECT, notECT},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect0, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {ce, ce, ce, ce},
	}
}

func marks(rig func() *rig, v6 bool) {
	It("copy DSCP and ECN outwards, and combine ECN inwards, each as it says", func(ctx SpecContext) {
		r := rig()
		for _, w := range r.ways(ctx, v6) {
			w.to.set(unix.IP_RECVTOS, unix.IPV6_RECVTCLASS, 1)
			inject := w.injector()
			const ef, af41, cs7 = 46 << 2, 34 << 2, 56 << 2
			for _, tos := range []byte{0, ect0, ef | ect1, af41 | ce, cs7 | ect0, 63 << 2} {
				w.from.set(unix.IP_TOS, unix.IPV6_TCLASS, int(tos))
				payload := mark()
				outer, packets := w.held(ctx, payload)
				want := tos
				if w.sealer == r.kernel && tos&3 == ce { // RFC 3168 section 9.1.1
					want = tos&^3 | ect0
				}
				Expect(outer.TOS).To(Equal(want), "outer field of %s for inner %#02x", w.sealer, tos)
				inject.ESP(outer, packets...)
				w.to.arrives(payload, tos)
			}
			table := gatewayDecapsulates()
			if w.opener == r.kernel {
				table = kernelDecapsulates()
			}
			for inner, row := range table {
				w.from.set(unix.IP_TOS, unix.IPV6_TCLASS, af41|inner)
				payloads := [][]byte{mark(), mark(), mark(), mark()}
				outer, packets := w.held(ctx, payloads...)
				for mark, want := range row {
					outer.TOS = cs7 | byte(mark) // the DSCP on the way says nothing
					inject.ESP(outer, packets[mark])
					if want == refuse {
						w.pass(random(markLen)) // what arrives is the next one
						continue
					}
					w.to.arrives(payloads[mark], af41|want)
				}
			}
		}
		r.refused(ctx, r.gateway, refusal{tunnel: ipsec.Drops{Malformed: 1}})
	}, NodeTimeout(timeout))
}

// arrives reads the next datagram, which is to be this one with this TOS or traffic class.
func (s socket) arrives(payload []byte, tos byte) {
	GinkgoHelper()
	messages, err := unix.ParseSocketControlMessage(s.receive(payload, make([]byte, 64)))
	Expect(err).NotTo(HaveOccurred())
	Expect(messages).To(HaveLen(1))
	got := messages[0].Data[0]
	if s.at.Addr().Is6() {
		got = byte(binary.NativeEndian.Uint32(messages[0].Data))
	}
	Expect(got).To(Equal(tos), "field of the inner packet")
}
