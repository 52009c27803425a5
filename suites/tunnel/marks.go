package tunnel

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

func marks(e testlab.Env) {
	for i, o := range testlab.Carriages() {
		v6 := i%2 == 0 // the other family than the outer one's
		It(fmt.Sprintf("copies DSCP and ECN outwards, and combines ECN inwards as RFC 6040 says: %v", o), func(ctx SpecContext) {
			a := besiege(ctx, e, o, v6)
			a.to.ShowMarks()
			const ef, af41, cs7 = 46 << 2, 34 << 2, 56 << 2
			for _, tos := range []byte{0, testlab.ECT0, testlab.ECT1, testlab.CE, ef, ef | testlab.ECT0, af41 | testlab.CE, cs7 | testlab.ECT1, 63 << 2} {
				a.from.SetMark(tos)
				payload := testlab.Mark()
				outer, packets := a.held().Packets(ctx, a.Lab, a.from, a.to, payload)
				Expect(outer.TOS).To(Equal(testlab.Encapsulated(a.kernel, tos)), "outer field for inner %#02x", tos)
				a.inject.ESP(outer, packets...)
				a.to.ExpectMarked(payload, tos)
			}

			dropped := uint64(0)
			for inner, row := range testlab.Decapsulated(a.kernel) {
				a.from.SetMark(byte(af41 | inner))
				payloads := [][]byte{testlab.Mark(), testlab.Mark(), testlab.Mark(), testlab.Mark()}
				outer, packets := a.held().Packets(ctx, a.Lab, a.from, a.to, payloads...)
				for mark, want := range row {
					outer.TOS = cs7 | byte(mark) // the DSCP on the way says nothing
					a.inject.ESP(outer, packets[mark])
					if want == testlab.Refused {
						dropped++
						continue // and then what arrives is the next one
					}
					a.to.ExpectMarked(payloads[mark], af41|want)
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
