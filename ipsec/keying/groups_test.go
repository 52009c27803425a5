package keying_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"testing"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/pqc/exchange"
)

// A tunnel is keyed over the TLS groups that it allows, also beside another at the node that allows more, and whichever end
// begins; X25519 alone is what one allows that names none.
func TestGroupsOfTwoTunnels(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	hybrid := []tls.CurveID{tls.X25519MLKEM768}
	tunnels := map[*end]*ipsec.Tunnel{}
	for _, e := range [][2]*end{{a, b}, {b, a}} {
		own, peer := e[0], e[1]
		own.service.Dial = func(ctx context.Context, _ keying.Peer) (net.Conn, error) { return peer.dial(ctx) }
		c := config(t, peer.pin())
		c.TLSGroups = hybrid
		own.service.Trust(keying.Peer{Tunnel: "h", Config: c})
		addr := netip.MustParseAddr("127.0.0.1")
		var err error
		if tunnels[own], err = own.tunnels.Add(ipsec.Config{
			Policy: ipsec.Policy{Tunnel: "h", Src: addr, Dst: addr, PathMTU: 1500}, Keyer: own.service.Keyer("h"),
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range [][2]*end{{a, b}, {b, a}} {
		from, to := e[0], e[1]
		for _, keyed := range []struct {
			tunnel *ipsec.Tunnel
			group  string
		}{{from.tunnel, "X25519"}, {tunnels[from], "X25519MLKEM768"}} {
			if err := keyed.tunnel.Rekey(t.Context()); err != nil {
				t.Fatal(err)
			}
			reports := from.reported()
			if r := reports[len(reports)-1]; r.Tunnel != keyed.tunnel.Name() || r.TLSGroup != keyed.group {
				t.Errorf("tunnel %s: %+v", keyed.tunnel.Name(), r)
			}
		}
		eventually(t, "the exchanges are over", func() bool { return idle(a) && idle(b) })

		// The peer himself asks for the group of the other tunnel.
		for _, groups := range [][]tls.CurveID{hybrid, {tls.X25519MLKEM768, tls.X25519}} {
			conn, err := to.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c, told := config(t, to.pin()), len(to.failures())
			c.TLSGroups = groups
			s, err := exchange.Initiate(t.Context(), conn, from.endpoint, c, exchange.Proposal{Tunnel: "t", SPI: 4711})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, exchange.Refused) {
				t.Errorf("a tunnel of X25519 alone is keyed over %v: %v", groups, err)
			}
			eventually(t, "the responder tells", func() bool { return len(to.failures()) > told })
			if f := to.failures()[told]; !errors.Is(f, exchange.ErrTLSGroup) {
				t.Errorf("told %v", f)
			}
		}
	}
}
