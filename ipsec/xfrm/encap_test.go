package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// TestSockets: what comes from the peer has a socket of its own, beside one for what comes from anywhere. It needs no ESP.
func TestSockets(t *testing.T) {
	t.Parallel()
	p := nodes(t)
	d, err := open(Config{Namespace: p.ns[0]}, func(*xfrmnl.Conn, bool) error { return nil })
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	check(t, err)
	defer func() { check(t, d.Close()) }()
	bound := func() (peers []string) {
		check(t, p.ns[0].Do(func() error {
			text, err := os.ReadFile("/proc/thread-self/net/udp")
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); strings.HasSuffix(f[1], fmt.Sprintf(":%04X", ipsec.UDPPort)) {
					peers = append(peers, f[2])
				}
			}
			return err
		}))
		slices.Sort(peers)
		return peers
	}
	check(t, d.AddTunnel(policy(0, ipsec.UDP)))
	one := bound()
	if len(one) != 2 || one[0] != "00000000:0000" || !strings.HasSuffix(one[1], ":1194") {
		t.Errorf("sockets of one tunnel: %q", one)
	}
	other := policy(0, ipsec.UDP) // between the same addresses
	other.Tunnel, other.Remote = "other", []netip.Prefix{netip.MustParsePrefix("10.3.0.0/16")}
	check(t, d.AddTunnel(other))
	far := policy(0, ipsec.UDP) // to where no way leads
	far.Tunnel, far.Remote, far.Dst = "far", []netip.Prefix{netip.MustParsePrefix("10.4.0.0/16")}, netip.MustParseAddr("203.0.113.1")
	check(t, d.AddTunnel(far))
	if all := bound(); len(all) != 3 || all[0] != one[0] || all[1] != one[1] || all[2] != one[1] {
		t.Errorf("sockets of three tunnels: %q", all)
	}
	for _, name := range []string{"t", "far", "other"} {
		check(t, d.RemoveTunnel(name))
	}
	if left := bound(); len(left) != 0 {
		t.Errorf("sockets of none: %q", left)
	}
}
