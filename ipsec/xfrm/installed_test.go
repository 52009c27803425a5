package xfrm

import (
	"testing"

	"github.com/vishvananda/netlink"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// TestInstalled holds the SAs that the kernel has against what a tunnel's are to be, as another library reads them. That they
// have extended sequence numbers is what TestTraffic shows: it goes across 2^32.
func TestInstalled(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		for e, what := range map[ipsec.Encapsulation]string{ipsec.UDP: "udp", ipsec.ESP: "esp"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				p := start(t, c, e)
				p.key(t, 1, nil)
				d := p.planes[0].(*Dataplane)
				h, err := p.ns[0].Netlink()
				check(t, err)
				states, err := h.XfrmStateList(netlink.FAMILY_ALL)
				check(t, err)
				if len(states) != 2 {
					t.Fatalf("%d SAs: %+v", len(states), states)
				}
				for _, s := range states {
					if a := s.Aead; a == nil || a.Name != "rfc4106(gcm(aes))" || len(a.Key) != 32+4 || a.ICVLen != 128 {
						t.Errorf("SPI %#x: algorithm %v", s.Spi, a)
					}
					if s.Mode != netlink.XFRM_MODE_TUNNEL || s.Reqid == 0 || (s.Ifid != 0) == c.NoInterface {
						t.Errorf("SPI %#x: mode %v, reqid %d, if_id %d", s.Spi, s.Mode, s.Reqid, s.Ifid)
					}
					if u := s.Encap; (u != nil) != (e == ipsec.UDP) ||
						u != nil && (u.Type != netlink.XFRM_ENCAP_ESPINUDP || u.SrcPort != ipsec.UDPPort || u.DstPort != ipsec.UDPPort) {
						t.Errorf("SPI %#x: encapsulation %v", s.Spi, u)
					}
				}
				if states[0].Reqid != states[1].Reqid {
					t.Errorf("reqid %d and %d", states[0].Reqid, states[1].Reqid)
				}
				for end, want := range []xfrmnl.State{1: {SPI: 0x1001, Direction: xfrmnl.Out}, 0: {SPI: 0x2001, Direction: xfrmnl.In, Window: xfrmnl.MaxWindow}} {
					if !d.directions {
						want.Direction = xfrmnl.Undirected
					}
					got, err := d.conn.GetSA(outer[end], want.SPI)
					check(t, err)
					if got.Direction != want.Direction || want.Window != 0 && got.Window != want.Window {
						t.Errorf("SPI %#x: direction %v, window %d; want %v, %d", want.SPI, got.Direction, got.Window, want.Direction, want.Window)
					}
				}
			})
		}
	}
}
