package tunnel

import (
	"fmt"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

func many(e testlab.Env) {
	It("keeps a hundred tunnels between two DPUs apart", func(ctx SpecContext) {
		const tunnels = 100
		addresses := func(host int) (all []string) {
			for i := range tunnels {
				all = append(all, fmt.Sprintf("10.%d.0.%d/24", host, i+1))
			}
			return all
		}
		one := func(host, i int) string { return fmt.Sprintf("10.%d.0.%d/32", host, i+1) }
		name := func(i int) string { return fmt.Sprintf("t%d", i) }
		t := topology.New("many").
			Host("h1").DPU("d1", topology.On("h1")).
			Host("h2").DPU("d2", topology.On("h2")).
			PCIe("h1", "d1", topology.At("h1", "", addresses(1)...)).
			PCIe("h2", "d2", topology.At("h2", "", addresses(2)...)).
			Fibre("d1", "d2", topology.Name(fibreLink))
		for i := range tunnels {
			t.Tunnel(name(i), "d1", "d2", topology.Suite("mldsa44+mlkem512"),
				topology.Protect("d1", one(1, i)), topology.Protect("d2", one(2, i)))
		}
		began := time.Now()
		l := e.Up(ctx, t, nil)
		made := time.Since(began)
		began = time.Now()
		keying, kctx := errgroup.WithContext(ctx)
		keying.SetLimit(8)
		for i := range tunnels {
			keying.Go(func() error {
				_, err := l.Tunnel(name(i)).Establish(kctx)
				return err
			})
		}
		Expect(keying.Wait()).To(Succeed())
		GinkgoWriter.Printf("%d tunnels: lab up in %v, keyed in %v\n", tunnels, made.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

		spis := map[uint32]bool{} // inbound, of d1
		for i := range tunnels {
			state, err := l.Tunnel(name(i)).State(ctx, "d1")
			Expect(err).NotTo(HaveOccurred())
			spis[state.SPIs.In] = true
		}
		Expect(spis).To(And(HaveLen(tunnels), Not(HaveKey(uint32(0)))))

		carried := func(i int) uint64 {
			GinkgoHelper()
			state, err := l.Tunnel(name(i)).State(ctx, "d2")
			Expect(err).NotTo(HaveOccurred())
			Expect(state.Drops).To(Equal(ipsec.Drops{}))
			return state.In.Packets
		}
		try := func(i int) {
			GinkgoHelper()
			before := carried(i)
			a := testlab.Open(ctx, l, "h1", netipAddr(one(1, i)))
			b := testlab.Open(ctx, l, "h2", netipAddr(one(2, i)))
			testlab.Pass(a, b, testlab.Mark())
			testlab.Pass(b, a, testlab.Mark())
			Eventually(ctx, func() uint64 { return carried(i) }).Should(Equal(before+1), "each packet goes through its own tunnel")
		}
		for i := 0; i < tunnels; i += 9 {
			try(i)
		}
		const gone = 45
		for _, node := range []string{"d1", "d2"} {
			Expect(l.Node(node).Agent().RemoveTunnel(ctx, name(gone))).To(Succeed())
		}
		_, err := l.Tunnel(name(gone)).State(ctx, "d1")
		Expect(err).To(HaveOccurred())
		for i := 0; i < tunnels; i += 9 {
			if i != gone {
				try(i)
			}
		}
		_, err = l.Tunnel(name(gone+1)).Rekey(ctx, "d2")
		Expect(err).NotTo(HaveOccurred())
		try(gone + 1)
	}, NodeTimeout(4*time.Minute))
}

func netipAddr(prefix string) netip.Addr { return netip.MustParsePrefix(prefix).Addr() }
