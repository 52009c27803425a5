package xfrm

import (
	"errors"
	"maps"
	"net"
	"os"
	"testing"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
)

// TestAgainstAlteredGateway gives the gateway other SAs than the kernel, as if it were wrong: nothing passes, in either
// direction, and the end that refuses it counts why.
func TestAgainstAlteredGateway(t *testing.T) {
	t.Parallel()
	forged := ipsec.Drops{Integrity: 1}
	for name, c := range map[string]struct {
		alter        func(in, out *ipsec.SA) // the gateway's
		tunnel, none ipsec.Drops             // of one packet, at either end
		kernel       string                  // what the kernel calls it
	}{
		"salt":    {func(in, out *ipsec.SA) { in.Salt[3] ^= 1; out.Salt[3] ^= 1 }, forged, ipsec.Drops{}, statBroken},
		"key":     {func(in, out *ipsec.SA) { in.Key[0] ^= 0x80; out.Key[0] ^= 0x80 }, forged, ipsec.Drops{}, statBroken},
		"swapped": {func(in, out *ipsec.SA) { in.Key, out.Key = out.Key, in.Key }, forged, ipsec.Drops{}, statBroken},
		"ESN":     {func(in, out *ipsec.SA) { in.Seq += 1 << 32; out.Seq += 1 << 32 }, forged, ipsec.Drops{}, statBroken},
		"behind":  {func(in, out *ipsec.SA) { in.Seq++; out.Seq-- }, ipsec.Drops{Replay: 1}, ipsec.Drops{}, statReplay},
		"SPI":     {func(in, out *ipsec.SA) { in.SPI ^= 0x100; out.SPI ^= 0x100 }, ipsec.Drops{}, ipsec.Drops{UnknownSPI: 1}, "XfrmInNoStates"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, Config{}, ipsec.UDP)
			check(t, p.planes[1].Close())
			g, err := gateway.New(gateway.Config{Namespace: p.ns[1]})
			check(t, err)
			t.Cleanup(func() { check(t, g.Close()) })
			check(t, g.AddTunnel(policy(1, ipsec.UDP)))
			p.planes[1] = g
			d := p.planes[0].(*Dataplane)

			// At first nothing is wrong.
			a, b := p.listen(t, 0), p.listen(t, 1)
			p.key(t, 1, nil)
			pass(t, a, b, []byte("there"))
			pass(t, b, a, []byte("back"))

			numbered := func(sa *ipsec.SA) { sa.Seq = 1<<32 - 2 }
			gatewayIn, out := sas(0x1002, numbered)
			in, gatewayOut := sas(0x2002, numbered)
			c.alter(gatewayIn, gatewayOut)
			check(t, d.AddInbound("t", in))
			check(t, g.AddInbound("t", gatewayIn))
			check(t, d.SetOutbound("t", out))
			check(t, g.SetOutbound("t", gatewayOut))
			before, err := d.stat.read()
			check(t, err)

			send(t, a, b, []byte("never there"))
			send(t, b, a, []byte("never back"))
			for i, plane := range p.planes {
				var tunnel, none ipsec.Drops
				for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
					tunnel, err = plane.Drops("t")
					check(t, err)
					none, err = plane.Drops("")
					check(t, err)
					none.Policy = 0 // what the gateway's kernel itself sends to its interface
					if tunnel == c.tunnel && none == c.none {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s refused %+v of the tunnel and %+v of none", p.planes[i].Name(), tunnel, none)
					}
				}
			}
			after, err := d.stat.read()
			check(t, err)
			if rose := after.Since(before); !maps.Equal(rose, Statistics{c.kernel: 1}) {
				t.Errorf("the kernel counts %v", rose)
			}
			for i, s := range []*net.UDPConn{a, b} {

				check(t, s.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
				if n, err := s.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("node %d has received %d bytes, %v", i, n, err)
				}
			}
		})
	}
}
