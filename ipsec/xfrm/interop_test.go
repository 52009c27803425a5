package xfrm

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"testing"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
)

// TestAgainstGateway holds the two dataplanes against each other: each opens what the other has sealed, of every size,
// across 2^32 and across rekeys from either side, and both count the same.
func TestAgainstGateway(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		for e, what := range map[ipsec.Encapsulation]string{ipsec.UDP: "udp", ipsec.ESP: "esp"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				p := start(t, c, e)
				check(t, p.planes[1].Close())
				g, err := gateway.New(gateway.Config{Namespace: p.ns[1]})
				check(t, err)
				t.Cleanup(func() { check(t, g.Close()) })
				check(t, g.AddTunnel(policy(1, e)))
				p.planes[1] = g

				random := mathrand.New(mathrand.NewPCG(3, uint64(e)))
				a, b := p.listen(t, 0), p.listen(t, 1)
				for n := range uint32(4) {
					p.key(t, n, func(sa *ipsec.SA) { sa.Seq = 1<<32 - 10 })
					for i := range p.planes {
						if n > 0 {
							check(t, p.planes[i].RemoveOutbound("t", uint32(i+1)<<12+n-1))
							check(t, p.planes[i].RemoveInbound("t", uint32(2-i)<<12+n-1))
						}
					}
					for range 40 {
						payload := make([]byte, 1+random.IntN(9000))
						rand.Read(payload)
						pass(t, a, b, payload)
						pass(t, b, a, payload)
					}
					for i := range p.planes {
						spi := uint32(i+1)<<12 + n
						out, err := p.planes[i].Counters("t", spi)
						check(t, err)
						in, err := p.planes[1-i].Counters("t", spi)
						check(t, err)
						if out.Packets != in.Packets || out.Seq != in.Seq || out.Seq != 1<<32-10+out.Packets || out.Packets < 40 {
							t.Errorf("%s sent %+v, %s received %+v", p.planes[i].Name(), out, p.planes[1-i].Name(), in)
						}
						exact, most := out, in
						if i == 0 {
							exact, most = in, out
						}
						if most.Blocks < exact.Blocks || most.Bytes < exact.Bytes || most.Blocks > exact.Blocks+exact.Packets {
							t.Errorf("%+v is not a bound of %+v", most, exact)
						}
					}
				}
				for _, d := range p.planes {
					for _, name := range []string{"t", ""} {
						drops, err := d.Drops(name)
						if name == "" && d == p.planes[1] {
							drops.Policy = 0 // what the kernel itself sends to its interface
						}
						if err != nil || drops != (ipsec.Drops{}) {
							t.Errorf("%s: %s", d.Name(), fmt.Sprint(drops, err))
						}
					}
				}
			})
		}
	}
}
