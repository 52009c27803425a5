package interop

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

func marks(rig func() *rig, v6 bool) {
	It("copy DSCP and ECN outwards, and combine ECN inwards, each as it says", func(ctx SpecContext) {
		r := rig()
		for _, w := range r.ways(ctx, v6) {
			w.to.ShowMarks()
			inject := w.injector()
			const ef, af41, cs7 = 46 << 2, 34 << 2, 56 << 2
			for _, tos := range []byte{0, testlab.ECT0, ef | testlab.ECT1, af41 | testlab.CE, cs7 | testlab.ECT0, 63 << 2} {
				w.from.SetMark(tos)
				payload := testlab.Mark()
				outer, packets := w.held(ctx, payload)
				Expect(outer.TOS).To(Equal(testlab.Encapsulated(w.sealer == r.kernel, tos)), "outer field of %s for inner %#02x", w.sealer, tos)
				inject.ESP(outer, packets...)
				w.to.expectMarked(payload, tos)
			}
			for inner, row := range testlab.Decapsulated(w.opener == r.kernel) {
				w.from.SetMark(byte(af41 | inner))
				payloads := [][]byte{testlab.Mark(), testlab.Mark(), testlab.Mark(), testlab.Mark()}
				outer, packets := w.held(ctx, payloads...)
				for mark, want := range row {
					outer.TOS = cs7 | byte(mark) // the DSCP on the way says nothing
					inject.ESP(outer, packets[mark])
					if want == testlab.Refused {
						w.pass(testlab.Mark()) // what arrives is the next one
						continue
					}
					w.to.expectMarked(payloads[mark], af41|want)
				}
			}
		}
		r.refused(ctx, r.gateway, refusal{tunnel: ipsec.Drops{Malformed: 1}})
	}, NodeTimeout(timeout))
}
