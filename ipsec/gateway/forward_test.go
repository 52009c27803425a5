package gateway_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/gateway/port"
)

// Hosts behind the gateways.
var (
	host4 = [2]netip.Addr{netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("10.2.0.9")}
	host6 = [2]netip.Addr{netip.MustParseAddr("fd00:1::9"), netip.MustParseAddr("fd00:2::9")}
)

// hosts puts a host behind each node of p; the pair that it returns is the hosts'. The links to them carry mtu bytes.
func hosts(t testing.TB, p *pair, mtu int) *pair {
	t.Helper()
	nss, err := netns.New(2)
	check(t, err)
	t.Cleanup(func() {
		for _, ns := range nss {
			ns.Close()
		}
	})
	for i, node := range p.ns {
		check(t, node.Do(func() error {
			return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
				os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
		}))
		h, err := node.Netlink()
		check(t, err)
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "host0", mtu
		check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "host0", PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(nss[i].Fd())}))
		via4, via6 := host4[i].Prev(), host6[i].Prev()
		address(t, h, "host0", netip.PrefixFrom(via4, 24), netip.PrefixFrom(via6, 64))
		hh, err := nss[i].Netlink()
		check(t, err)
		address(t, hh, "host0", netip.PrefixFrom(host4[i], 24), netip.PrefixFrom(host6[i], 64))
		for _, via := range []netip.Addr{via4, via6} {
			any := &net.IPNet{IP: make(net.IP, via.BitLen()/8), Mask: make(net.IPMask, via.BitLen()/8)}
			check(t, hh.RouteAdd(&netlink.Route{Dst: any, Gw: via.AsSlice()}))
		}
	}
	for i := range nss {
		ready(t, nss[i], "host0")
		ready(t, p.ns[i], "host0")
	}
	return &pair{ns: [2]*netns.Namespace(nss)}
}

// TestForwarded passes traffic of hosts behind the gateways: TCP in super-packets, and UDP that may and may not be
// fragmented.
func TestForwarded(t *testing.T) {
	variants(t, func(t *testing.T, kind port.Kind, v6 bool, e ipsec.Encapsulation) {
		p := tunnel(t, kind, v6, e)
		h := hosts(t, p, 1500)
		for i := range 2 {
			h.transfer(t, i, host4, 2<<20)
			h.transfer(t, i, host6, 2<<20)
		}
		want := routeMTU(t, p, 0, inner4[0], inner4[1])
		for _, addrs := range [][2]netip.Addr{host4, host6} {
			in := listen(t, h, 1, netip.AddrPortFrom(addrs[1], 0))
			out := dial(t, h, 0, addrs[0], in.LocalAddr().(*net.UDPAddr).AddrPort())
			big := 1500 - 28
			if addrs[0].Is4() {
				setsockopt(t, out, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
				_, err := out.Write(pattern(big)) // the gateway's node cuts it
				check(t, err)
				n, err := in.Read(make([]byte, 2000))
				check(t, err)
				if n != big {
					t.Errorf("%d bytes arrived of %d", n, big)
				}
				setsockopt(t, out, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			} else {
				big -= 20
				setsockopt(t, out, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
			}
			// The TCP stream before has made the path's MTU known to the host already, or else this does.
			var err error
			for range 2 {
				if _, err = out.Write(pattern(big)); err == nil {
					if _, err = out.Read(make([]byte, 1)); err == nil {
						t.Fatal("an answer, not an error")
					}
				}
			}
			if !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("too big for the tunnel: %v", err)
			}
			if got := routeMTU(t, h, 0, addrs[0], addrs[1]); got != want {
				t.Errorf("the host believes in %d bytes, the tunnel carries %d", got, want)
			}
		}
		for i := range p.gw {
			if d := p.drops(t, i); d != (ipsec.Drops{}) {
				t.Errorf("node %d dropped %+v", i, d)
			}
		}
	})
}

// TestLocalIsOuterAddress is a client whose protected subnet is its own outer address.
func TestLocalIsOuterAddress(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := namespaces(t)
		p.start(t, kind)
		client := []netip.Prefix{netip.PrefixFrom(outer4[0], 32)}
		for i, gw := range p.gw {
			pol := policy(i, false, ipsec.UDP)
			pol.Local = []netip.Prefix{netip.PrefixFrom(inner4[1], 24)}
			pol.Remote = client
			if i == 0 {
				pol.Local, pol.Remote = pol.Remote, pol.Local
			}
			check(t, gw.AddTunnel(pol))
		}
		p.key(t, 0x5000, nil)
		p.transfer(t, 0, [2]netip.Addr{outer4[0], inner4[1]}, 1<<20)
		p.transfer(t, 1, [2]netip.Addr{outer4[0], inner4[1]}, 1<<20)
		// The gateways themselves go on talking in the clear, as a key exchange must.
		p.transfer(t, 0, outer4, 1<<20)
		p.transfer(t, 1, outer4, 1<<20)
		for i := range p.gw {
			if d := p.drops(t, i); d != (ipsec.Drops{}) {
				t.Errorf("node %d dropped %+v", i, d)
			}
		}
	})
}

// TestNoTUN hides /dev/net/tun from a thread.
func TestNoTUN(t *testing.T) {
	p := namespaces(t)
	check(t, p.ns[0].Do(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("none", "/dev/net", "tmpfs", 0, ""); err != nil {
			return err
		}
		gw, err := gateway.New(gateway.Config{Port: port.TUN})
		if !errors.Is(err, gateway.ErrNoPort) || !strings.Contains(err.Error(), "/dev/net/tun") {
			t.Errorf("New with a TUN: %v, %v", gw, err)
		}
		if gw, err = gateway.New(gateway.Config{}); err != nil {
			return err
		}
		if gw.Name() != "gateway/packet" {
			t.Errorf("name is %s", gw.Name())
		}
		return gw.Close()
	}))
	gw := p.startNode(t, 0, port.TUN)
	if gw.Name() != "gateway/tun" {
		t.Errorf("name is %s", gw.Name())
	}
	if second, err := gateway.New(gateway.Config{Namespace: p.ns[0]}); err == nil {
		t.Errorf("a second gateway in one namespace: %v", second.Close())
	}
	// The second one's failure must not have harmed the first.
	check(t, gw.AddTunnel(policy(0, false, ipsec.UDP)))
	check(t, gw.Close())
}

func TestRefusals(t *testing.T) {
	p := namespaces(t)
	for _, c := range []gateway.Config{{Port: "xdp"}, {Interface: "a-name-that-is-too-long"}, {Interface: "net0"}} {
		c.Namespace = p.ns[0]
		if gw, err := gateway.New(c); err == nil {
			t.Errorf("%+v is accepted: %v", c, gw.Close())
		}
	}
	p.start(t, port.Auto)
	gw := p.gw[0]
	before := p.state(t, 0)
	for name, edit := range map[string]func(*ipsec.Policy){
		"no name":        func(p *ipsec.Policy) { p.Tunnel = "" },
		"no source":      func(p *ipsec.Policy) { p.Src = netip.Addr{} },
		"mixed families": func(p *ipsec.Policy) { p.Src = outer6[0] },
		"a zone": func(p *ipsec.Policy) {
			p.Src, p.Dst = netip.MustParseAddr("fe80::1%net0"), netip.MustParseAddr("fe80::2%net0")
		},
		"no subnets":         func(p *ipsec.Policy) { p.Local = nil },
		"one family missing": func(p *ipsec.Policy) { p.Local = p.Local[:1] },
		"protects its own": func(p *ipsec.Policy) {
			p.Local[0], p.Remote[0] = netip.PrefixFrom(outer4[0], 32), netip.PrefixFrom(outer4[1], 32)
		},
		"too small for IPv6": func(p *ipsec.Policy) { p.PathMTU = 1300 },
		"too small for IPv4": func(p *ipsec.Policy) { p.PathMTU = 100; p.Local, p.Remote = p.Local[:1], p.Remote[:1] },
		"path MTU":           func(p *ipsec.Policy) { p.PathMTU = 70000 },
		"encapsulation":      func(p *ipsec.Policy) { p.Encapsulation = 7 },
		"an invalid prefix":  func(p *ipsec.Policy) { p.Local[0] = netip.Prefix{} },
		"an IPv4-mapped one": func(p *ipsec.Policy) { p.Local[0] = netip.MustParsePrefix("::ffff:10.0.0.0/120") },
	} {
		pol := policy(0, false, ipsec.UDP)
		edit(&pol)
		if err := gw.AddTunnel(pol); !errors.Is(err, gateway.ErrPolicy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An address that the node has not got is found out late: everything must be taken back.
	pol := policy(0, false, ipsec.UDP)
	pol.Src = netip.MustParseAddr("192.0.2.77")
	if err := gw.AddTunnel(pol); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address of nobody's: %v", err)
	}
	if after := p.state(t, 0); strings.Contains(after.routes, "10.2.0") || after.fds != before.fds {
		t.Errorf("a refused tunnel leaves %+v", after)
	}
	check(t, gw.AddTunnel(policy(0, false, ipsec.UDP)))
	if err := gw.AddTunnel(policy(0, false, ipsec.UDP)); !errors.Is(err, gateway.ErrExists) {
		t.Errorf("the same tunnel: %v", err)
	}
	pol = policy(0, false, ipsec.UDP)
	pol.Tunnel = "u"
	if err := gw.AddTunnel(pol); !errors.Is(err, gateway.ErrPolicy) {
		t.Errorf("the same subnets: %v", err)
	}
	sa := newSA(255)
	if err := gw.AddInbound("t", given(sa)); !errors.Is(err, gateway.ErrSPI) {
		t.Errorf("inbound SPI 255: %v", err)
	}
	if err := gw.SetOutbound("t", given(sa)); !errors.Is(err, gateway.ErrSPI) {
		t.Errorf("outbound SPI 255: %v", err)
	}
	sa = newSA(256)
	sa.ReplayWindow = 1 << 30
	if err := gw.AddInbound("t", given(sa)); err == nil {
		t.Error("a window of 2^30 packets")
	}
	sa.ReplayWindow = 0
	check(t, gw.AddInbound("t", given(sa)))
	if err := gw.AddInbound("t", given(sa)); !errors.Is(err, gateway.ErrExists) {
		t.Errorf("the same SPI: %v", err)
	}
	if err := gw.AddInbound("x", given(sa)); !errors.Is(err, gateway.ErrUnknown) {
		t.Errorf("an SA for no tunnel: %v", err)
	}
	for _, tunnel := range []string{"t", "x"} {
		in, out := newSA(512), newSA(513)
		if err := gw.AddInbound(tunnel, &in); (err == nil) != (tunnel == "t") {
			t.Errorf("tunnel %s: %v", tunnel, err)
		}
		if err := gw.SetOutbound(tunnel, &out); (err == nil) != (tunnel == "t") {
			t.Errorf("tunnel %s: %v", tunnel, err)
		}
		for _, sa := range []ipsec.SA{in, out} {
			if sa.Key != [32]byte{} || sa.Salt != [4]byte{} {
				t.Errorf("tunnel %s: the gateway leaves the key of %v", tunnel, sa)
			}
		}
	}
	check(t, gw.RemoveInbound("t", 256))
	check(t, gw.RemoveInbound("t", 256))
	check(t, gw.RemoveOutbound("t", 999))
	if _, err := gw.Counters("t", 256); !errors.Is(err, gateway.ErrUnknown) {
		t.Errorf("counters of an SA that is gone: %v", err)
	}
	if err := gw.RemoveTunnel("x"); !errors.Is(err, gateway.ErrUnknown) {
		t.Errorf("removing no tunnel: %v", err)
	}
}
