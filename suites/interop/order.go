package interop

import (
	"encoding/binary"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

// order has each end number its packets across 2^32, and the other take them in any order, each of them once.
func order(rig func() *rig, v6 bool) {
	It("number packets across 2^32, take them from each other in any order, and once", func(ctx SpecContext) {
		const n = 2 * before
		r, draw := rig(), testlab.Seeded()
		for _, w := range r.ways(ctx, v6) {
			var payloads [][]byte
			for range n {
				payloads = append(payloads, testlab.Mark())
			}
			outer, packets := w.held(ctx, payloads...)
			for i, packet := range packets {
				seq := uint64(start + 1 + i)
				Expect(binary.BigEndian.Uint32(packet[4:])).To(Equal(uint32(seq)), "sequence number on the fibre")
			}
			inject := w.injector()
			for _, i := range draw.Perm(n) {
				inject.ESP(outer, packets[i])
				w.to.expect(payloads[i])
			}
			slices.Reverse(packets)
			inject.ESP(outer, packets...)
			w.pass(testlab.Mark())
			counted := And(HaveField("Packets", uint64(n+1)), HaveField("Seq", uint64(start+n+1)))
			Expect(r.state(ctx, w.sealer).Out).To(counted, w.String())
			Eventually(ctx, func() ipsec.Counters { return r.state(ctx, w.opener).In }).Should(counted, w.String())
			old := refusal{tunnel: ipsec.Drops{Replay: n}}
			if w.opener == r.kernel {
				old.name = "XfrmInStateSeqError"
			}
			r.refused(ctx, w.opener, old)
		}
	}, NodeTimeout(timeout))
}
