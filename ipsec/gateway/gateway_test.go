package gateway_test

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/gateway/port"
)

// pair is two nodes joined by a veth, each with a gateway and with an address in a subnet of its own, on lo.
type pair struct {
	ns [2]*netns.Namespace
	gw [2]*gateway.Gateway
}

// Addresses: outer 192.0.2.1 and .2, 2001:db8::1 and ::2; inner 10.N.0.1 and fd00:N::1.
var (
	outer4 = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	outer6 = [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	inner4 = [2]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")}
	inner6 = [2]netip.Addr{netip.MustParseAddr("fd00:1::1"), netip.MustParseAddr("fd00:2::1")}
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// namespaces makes the two nodes without gateways.
func namespaces(t testing.TB) *pair {
	t.Helper()
	nss, err := netns.New(2)
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN (root, or unshare -Urn): ", err)
	}
	check(t, err)
	p := &pair{ns: [2]*netns.Namespace(nss)}
	t.Cleanup(func() {
		for _, ns := range nss {
			ns.Close()
		}
	})
	h, err := nss[0].Netlink()
	check(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "net0"
	check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "net0", PeerNamespace: netlink.NsFd(nss[1].Fd())}))
	for i, ns := range nss {
		h, err := ns.Netlink()
		check(t, err)
		address(t, h, "net0", netip.PrefixFrom(outer4[i], 24), netip.PrefixFrom(outer6[i], 64))
		address(t, h, "lo", netip.PrefixFrom(inner4[i], 32), netip.PrefixFrom(inner6[i], 128))
	}
	for _, ns := range nss {
		ready(t, ns, "net0")
	}
	return p
}

// ready waits until the kernel has made an interface work, which it does in its own time: until then it drops packets,
// and has no link-local address for neighbour discovery.
func ready(t testing.TB, ns *netns.Namespace, name string) {
	t.Helper()
	h, err := ns.Netlink()
	check(t, err)
	eventually(t, name+" is up", func() bool {
		link, err := h.LinkByName(name)
		check(t, err)
		addrs, err := h.AddrList(link, netlink.FAMILY_V6)
		check(t, err)
		return link.Attrs().OperState == netlink.OperUp && slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
			return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0
		})
	})
}

// address gives an interface addresses and brings it up.
func address(t testing.TB, h *netlink.Handle, name string, prefixes ...netip.Prefix) {
	t.Helper()
	link, err := h.LinkByName(name)
	check(t, err)
	for _, prefix := range prefixes {
		flags := 0
		if prefix.Addr().Is6() {
			flags = unix.IFA_F_NODAD
		}
		n := &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
		check(t, h.AddrAdd(link, &netlink.Addr{IPNet: n, Flags: flags}))
	}
	check(t, h.LinkSetUp(link))
}

func (p *pair) start(t testing.TB, kind port.Kind) {
	t.Helper()
	for i := range p.gw {
		p.startNode(t, i, kind)
	}
}

// startNode makes node i's gateway.
func (p *pair) startNode(t testing.TB, i int, kind port.Kind) *gateway.Gateway {
	t.Helper()
	gw, err := gateway.New(gateway.Config{Port: kind, Namespace: p.ns[i]})
	if errors.Is(err, gateway.ErrNoPort) {
		t.Skip(err)
	}
	check(t, err)
	p.gw[i] = gw
	t.Cleanup(func() {
		if err := gw.Close(); err != nil {
			t.Error(err)
		}
	})
	return gw
}

// policy is tunnel "t" as node i sees it.
func policy(i int, v6 bool, e ipsec.Encapsulation) ipsec.Policy {
	p := ipsec.Policy{
		Tunnel: "t", Src: outer4[i], Dst: outer4[1-i], Encapsulation: e, PathMTU: 1500,
		Local:  []netip.Prefix{netip.PrefixFrom(inner4[i], 24), netip.PrefixFrom(inner6[i], 64)},
		Remote: []netip.Prefix{netip.PrefixFrom(inner4[1-i], 24), netip.PrefixFrom(inner6[1-i], 64)},
	}
	if v6 {
		p.Src, p.Dst = outer6[i], outer6[1-i]
	}
	return p
}

// newSA has a random key.
func newSA(spi uint32) (sa ipsec.SA) {
	sa.SPI = spi
	rand.Read(sa.Key[:])
	rand.Read(sa.Salt[:])
	return sa
}

// given is a copy for a dataplane, which wipes it.
func given(sa ipsec.SA) *ipsec.SA { return &sa }

// key gives tunnel "t" a new SA in each direction: spi from node 0 to 1, spi+1 back.
func (p *pair) key(t testing.TB, spi uint32, edit func(*ipsec.SA)) {
	t.Helper()
	for i := range p.gw {
		sa := newSA(spi + uint32(i))
		if edit != nil {
			edit(&sa)
		}
		check(t, p.gw[1-i].AddInbound("t", given(sa)))
		check(t, p.gw[i].SetOutbound("t", given(sa)))
	}
}

// tunnel is a pair with a tunnel that works.
func tunnel(t testing.TB, kind port.Kind, v6 bool, e ipsec.Encapsulation) *pair {
	t.Helper()
	p := namespaces(t)
	p.start(t, kind)
	for i, gw := range p.gw {
		check(t, gw.AddTunnel(policy(i, v6, e)))
	}
	p.key(t, 0x1000, nil)
	return p
}

var kinds = []port.Kind{port.TUN, port.Packet}

// variants runs f on each kind of tunnel.
func variants(t *testing.T, f func(t *testing.T, kind port.Kind, v6 bool, e ipsec.Encapsulation)) {
	for _, kind := range kinds {
		for _, v6 := range []bool{false, true} {
			for _, e := range []ipsec.Encapsulation{ipsec.UDP, ipsec.ESP} {
				name := fmt.Sprintf("%s/%s/%s", kind, map[bool]string{false: "v4", true: "v6"}[v6], map[ipsec.Encapsulation]string{ipsec.UDP: "udp", ipsec.ESP: "esp"}[e])
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					f(t, kind, v6, e)
				})
			}
		}
	}
}

// transfer sends n bytes by TCP from node i to the other, and checks what arrives.
func (p *pair) transfer(t testing.TB, i int, addrs [2]netip.Addr, n int) {
	t.Helper()
	var l *net.TCPListener
	check(t, p.ns[1-i].Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addrs[1-i], 0)))
		return err
	}))
	defer l.Close()
	deadline := time.Now().Add(2 * time.Minute)
	check(t, l.SetDeadline(deadline))
	done := make(chan error, 1)
	go func() {
		done <- p.ns[i].Do(func() error {
			c, err := net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addrs[i], 0)), l.Addr().(*net.TCPAddr))
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(deadline)
			_, err = c.Write(pattern(n))
			return err
		})
	}()
	c, err := l.AcceptTCP()
	check(t, err)
	defer c.Close()
	check(t, c.SetDeadline(deadline))
	got := make([]byte, 0, n+1)
	for len(got) < cap(got) {
		k, err := c.Read(got[len(got):cap(got)])
		got = got[:len(got)+k]
		if err != nil {
			break
		}
	}
	check(t, <-done)
	if string(got) != string(pattern(n)) {
		t.Fatalf("%d bytes arrived, not the %d that were sent", len(got), n)
	}
}

func pattern(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = binary.BigEndian.AppendUint64(b, uint64(i)*0x9e3779b97f4a7c15)
	}
	return b[:n]
}

func TestTCP(t *testing.T) {
	variants(t, func(t *testing.T, kind port.Kind, v6 bool, e ipsec.Encapsulation) {
		p := tunnel(t, kind, v6, e)
		for i := range p.gw {
			p.transfer(t, i, inner4, 4<<20)
			p.transfer(t, i, inner6, 4<<20)
		}
		for i, gw := range p.gw {
			d, err := gw.Drops("t")
			check(t, err)
			if d != (ipsec.Drops{}) {
				t.Errorf("node %d dropped %+v", i, d)
			}
			if d, err = gw.Drops(""); err != nil || d != (ipsec.Drops{}) {
				t.Errorf("node %d dropped %+v, %v", i, d, err)
			}
		}
	})
}
