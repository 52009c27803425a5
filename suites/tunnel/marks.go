package tunnel

import (
	"encoding/binary"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
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

// decapsulated is figure 4 of RFC 6040, by the inner field and then the outer one.
func decapsulated() [4][4]byte {
	return [4][4]byte{
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: refuse},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	}
}

// decapsulatedByKernel is RFC 4301 section 5.1.2.1: congestion is passed on to those who can be told of it, and that is all.
func decapsulatedByKernel() [4][4]byte {
	return [4][4]byte{
		notECT: {notECT, notECT, notECT, notECT},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect0, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {ce, ce, ce, ce},
	}
}

func marks(e testlab.Env) {
	for i, o := range outers() {
		v6 := i%2 == 0 // the other family than the outer one's
		It(fmt.Sprintf("copies DSCP and ECN outwards, and combines ECN inwards as RFC 6040 says: %v", o), func(ctx SpecContext) {
			a := besiege(ctx, e, o, v6)
			field, receive := [2]int{unix.IPPROTO_IP, unix.IP_TOS}, unix.IP_RECVTOS
			if v6 {
				field, receive = [2]int{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}, unix.IPV6_RECVTCLASS
			}
			a.to.set(field[0], receive, 1)
			arrives := func(payload []byte) byte {
				GinkgoHelper()
				buf, control := make([]byte, 200), make([]byte, 64)
				n, nc, _, _, err := a.to.ReadMsgUDPAddrPort(buf, control)
				Expect(err).NotTo(HaveOccurred())
				Expect(buf[:n]).To(Equal(payload))
				messages, err := unix.ParseSocketControlMessage(control[:nc])
				Expect(err).NotTo(HaveOccurred())
				Expect(messages).To(HaveLen(1))
				if v6 {
					return byte(binary.NativeEndian.Uint32(messages[0].Data))
				}
				return messages[0].Data[0]
			}

			const ef, af41, cs7 = 46 << 2, 34 << 2, 56 << 2
			for _, tos := range []byte{0, ect0, ect1, ce, ef, ef | ect0, af41 | ce, cs7 | ect1, 63 << 2} {
				a.from.set(field[0], field[1], int(tos))
				payload := mark()
				outer, packets := a.held(ctx, a.from, a.to, payload)
				want := tos
				if a.kernel && tos&3 == ce { // RFC 3168 section 9.1.1: full functionality
					want = tos&^3 | ect0
				}
				Expect(outer.TOS).To(Equal(want), "outer field for inner %#02x", tos)
				a.inject.ESP(outer, packets...)
				Expect(arrives(payload)).To(Equal(tos))
			}

			dropped := uint64(0)
			table := decapsulated()
			if a.kernel {
				table = decapsulatedByKernel()
			}
			for inner, row := range table {
				a.from.set(field[0], field[1], af41|inner)
				payloads := [][]byte{mark(), mark(), mark(), mark()}
				outer, packets := a.held(ctx, a.from, a.to, payloads...)
				for mark, want := range row {
					outer.TOS = cs7 | byte(mark) // the DSCP on the way says nothing
					a.inject.ESP(outer, packets[mark])
					if want == refuse {
						dropped++
						continue // and then what arrives is the next one
					}
					Expect(arrives(payloads[mark])).To(Equal(af41|want), "inner %d, outer %d", inner, mark)
				}
			}
			if a.kernel {
				Expect(dropped).To(BeZero())
			} else {
				Expect(dropped).To(Equal(uint64(1)))
			}
			got, rest := a.drops(ctx, "d2")
			Expect(got).To(Equal(ipsec.Drops{Malformed: dropped}))
			Expect(rest).To(Equal(ipsec.Drops{}))
		}, NodeTimeout(timeout), Label(testlab.Provokes))
	}
}
