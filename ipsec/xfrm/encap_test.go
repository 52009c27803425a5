package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// TestSockets: what comes from one of the peers has a socket of its own, beside one for what comes from anywhere, and nobody
// else can have the port. It needs no ESP.
func TestSockets(t *testing.T) {
	t.Parallel()
	p := nodes(t)
	d, err := open(Config{Namespace: p.ns[0]}, func(*xfrmnl.Conn, bool) error { return nil })
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	check(t, err)
	defer func() { check(t, d.Close()) }()
	at := netip.MustParseAddr
	const anyone, peer, neighbour = "00000000:0000", "020200C0:1194", "090200C0:1194" // as /proc writes them
	add := func(name string, dst netip.Addr) {
		t.Helper()
		to := policy(0, ipsec.UDP)
		to.Tunnel, to.Dst = name, dst
		to.Remote = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(len(d.tunnels)), name[0]}), 32)}
		check(t, d.AddTunnel(to))
	}
	remove := func(name string) { t.Helper(); check(t, d.RemoveTunnel(name)) }
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"a tunnel to where no way leads", func() { add("far", at("203.0.113.1")) }, []string{anyone}},
		{"one to a peer", func() { add("a", outer[1]) }, []string{anyone, peer}},
		{"another one to it", func() { add("b", outer[1]) }, []string{anyone, peer}},
		{"one to another peer", func() { add("c", at("192.0.2.9")) }, []string{anyone, peer}},
		{"the peer's first goes", func() { remove("a") }, []string{anyone, peer}},
		{"its last goes", func() { remove("b") }, []string{anyone}},
		{"one more to the other peer", func() { add("e", at("192.0.2.9")) }, []string{anyone, neighbour}},
		{"the other's first goes, which had none", func() { remove("c") }, []string{anyone}},
		{"and its last", func() { remove("e") }, []string{anyone}},
		{"all have gone", func() { remove("far") }, nil},
		{"one to a peer again", func() { add("a", outer[1]) }, []string{anyone, peer}},
	} {
		step.do()
		if got := peersBound(t, p.ns[0]); !slices.Equal(got, step.want) {
			t.Errorf("%s: sockets %q, not %q", step.name, got, step.want)
		}
		if step.want == nil {
			continue
		}
		check(t, p.ns[0].Do(func() error { // who would share, as charon does
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := share(fd, 1); err != nil {
				return err
			}
			if err := unix.Bind(fd, sockaddr(outer[0])); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%s: another one binds the port: %v", step.name, err)
			}
			return nil
		}))
	}
}

// peersBound gives the peers of the sockets of a namespace that have the port of ESP in UDP.
func peersBound(t *testing.T, ns *netns.Namespace) (peers []string) {
	t.Helper()
	check(t, ns.Do(func() error {
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
