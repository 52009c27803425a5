package lab

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"pqlab/internal/netns"
	"pqlab/ipsec/xfrm"
	"pqlab/probe"
	"pqlab/topology"
)

// What the kernel's IPsec refuses is told of the node that it was in, with its number, and the lab tells it of nodes whose
// tunnels are the kernel's: in others it says nothing of the tunnels.
func TestXfrmStatistics(t *testing.T) {
	l := up(t, topology.New("x").Host("a").Host("b").Host("c").Ethernet("a", "b").Ethernet("b", "c").Tunnel("ab", "a", "b"), Options{Dataplane: probe.Gateway})
	blocked := netip.MustParseAddrPort("192.0.2.9:9")
	if err := probe.XFRMPolicies(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	refuse(t, l.Node("a"), blocked, 3)
	refuse(t, l.Node("c"), blocked, 2)

	const counter = "XfrmOutPolBlock"
	for node, want := range map[string]xfrm.Statistics{"a": {counter: 3}, "b": {}, "c": {counter: 2}} {
		if got, err := l.Node(node).XfrmStatistics(); err != nil || !maps.Equal(got, want) {
			t.Errorf("node %s: %v, %v; want %v", node, got, err, want)
		}
	}
	if got, err := l.XfrmStatistics(); err != nil || len(got) != 0 {
		t.Errorf("gateways: %v, %v", got, err)
	}
	for _, node := range []string{"a", "b"} { // as if they were
		l.planes[node] = probe.Plane{Name: probe.XFRM}
	}
	if got, err := l.XfrmStatistics(); err != nil || len(got) != 2 || !maps.Equal(got["a"], xfrm.Statistics{counter: 3}) || got["b"] == nil || len(got["b"]) != 0 {
		t.Errorf("kernel's: %v, %v", got, err)
	}

	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := l.XfrmStatistics(); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("of a lab that is down: %v, %v", got, err)
	}
}

// refuse has the kernel's IPsec refuse n packets of a node.
func refuse(t *testing.T, node *Node, to netip.AddrPort, n int) {
	t.Helper()
	ns := node.Namespace()
	h, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(node.Plan.Interfaces, func(i topology.Interface) bool { return i.Link != "" }) // lo takes no part in IPsec
	link, err := h.LinkByName(node.Plan.Interfaces[i].Name)
	if err != nil {
		t.Fatal(err)
	}
	only := func(a netip.Addr) *net.IPNet {
		return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	}
	if err := errors.Join(
		h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: only(to.Addr()), Scope: netlink.SCOPE_LINK}),
		h.XfrmPolicyAdd(&netlink.XfrmPolicy{
			Src: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Dst: only(to.Addr()), Dir: netlink.XFRM_DIR_OUT, Action: netlink.XFRM_POLICY_BLOCK,
		}),
	); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error {
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.WriteToUDPAddrPort([]byte("refused"), to); err == nil {
				return errors.New("a packet was not refused")
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
