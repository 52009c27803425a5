package gateway_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
	"pqlab/ipsec/gateway/port"
)

// routeMTU is what the node believes that it can send to dst at once.
func routeMTU(t testing.TB, p *pair, i int, from, dst netip.Addr) int {
	t.Helper()
	c := dial(t, p, i, from, netip.AddrPortFrom(dst, 9))
	if dst.Is4() {
		return getsockopt(t, c, unix.IPPROTO_IP, unix.IP_MTU)
	}
	return getsockopt(t, c, unix.IPPROTO_IPV6, unix.IPV6_MTU)
}

// TestFullSize sends packets that may not be fragmented: the largest that the MTU allows passes and fills the path, and one
// byte more is refused at once.
func TestFullSize(t *testing.T) {
	variants(t, func(t *testing.T, kind port.Kind, v6 bool, e ipsec.Encapsulation) {
		p := tunnel(t, kind, v6, e)
		overhead := 20
		if v6 {
			overhead = 40
		}
		if e == ipsec.UDP {
			overhead += 8
		}
		want := 0
		for n := range 1500 {
			if overhead+esp.Size(n) <= 1500 {
				want = n
			}
		}
		for _, addrs := range [][2]netip.Addr{inner4, inner6} {
			mtu := routeMTU(t, p, 0, addrs[0], addrs[1])
			if mtu != want {
				t.Errorf("MTU to %v is %d, want %d", addrs[1], mtu, want)
			}
			in := listen(t, p, 1, netip.AddrPortFrom(addrs[1], 0))
			out := dial(t, p, 0, addrs[0], in.LocalAddr().(*net.UDPAddr).AddrPort())
			payload := mtu - 28
			if addrs[0].Is4() {
				setsockopt(t, out, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			} else {
				payload = mtu - 48
				setsockopt(t, out, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
				setsockopt(t, out, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
			}
			_, err := out.Write(make([]byte, payload))
			check(t, err)
			n, err := in.Read(make([]byte, 2000))
			check(t, err)
			if n != payload {
				t.Errorf("%d bytes arrived of %d", n, payload)
			}
			if _, err := out.Write(make([]byte, payload+1)); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("one byte more: %v", err)
			}
		}
		for i := range p.gw {
			if d := p.drops(t, i); d != (ipsec.Drops{}) {
				t.Errorf("node %d dropped %+v", i, d)
			}
		}
	})
}

// TestICMPTooBig sends past the kernel's routes, with the probing mode that ignores them: then the gateway must answer.
func TestICMPTooBig(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := tunnel(t, kind, false, ipsec.UDP)
		second := policy(0, false, ipsec.UDP)
		// A second tunnel with a longer path lifts the interface's own MTU.
		second.Tunnel, second.PathMTU = "wide", 4000
		second.Local, second.Remote = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}, []netip.Prefix{netip.MustParsePrefix("10.78.0.0/24")}
		check(t, p.gw[0].AddTunnel(second))
		for _, addrs := range [][2]netip.Addr{inner4, inner6} {
			out := dial(t, p, 0, addrs[0], netip.AddrPortFrom(addrs[1], 9))
			level, name, value, errqueue := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_RECVERR
			if addrs[0].Is6() {
				level, name, value, errqueue = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_RECVERR
			}
			setsockopt(t, out, level, name, value)
			setsockopt(t, out, level, errqueue, 1)
			before := p.drops(t, 0).TooBig
			_, err := out.Write(make([]byte, 2000))
			check(t, err)
			if _, err := out.Read(make([]byte, 10)); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("from %v: read: %v", addrs[0], err)
			}
			oob := make([]byte, 500)
			raw, err := out.SyscallConn()
			check(t, err)
			var n int
			var e error
			check(t, raw.Control(func(fd uintptr) {
				_, n, _, _, e = unix.Recvmsg(int(fd), make([]byte, 10), oob, unix.MSG_ERRQUEUE)
			}))
			check(t, e)
			messages, err := unix.ParseSocketControlMessage(oob[:n])
			check(t, err)
			mtu := 0
			for _, m := range messages {
				if int(m.Header.Level) == level && int(m.Header.Type) == errqueue {
					mtu = int(binary.NativeEndian.Uint32(m.Data[8:]))
				}
			}
			if want := routeMTU(t, p, 0, addrs[0], addrs[1]); mtu != want {
				t.Errorf("from %v: ICMP says %d, want %d", addrs[0], mtu, want)
			}
			if got := p.drops(t, 0).TooBig - before; got != 1 {
				t.Errorf("%d packets were too big", got)
			}
		}
	})
}

// TestPathShrinks puts a router between the gateways whose far side carries less than the policy says. TCP must go on.
func TestPathShrinks(t *testing.T) {
	for _, kind := range kinds {
		for _, v6 := range []bool{false, true} {
			for _, e := range []ipsec.Encapsulation{ipsec.UDP, ipsec.ESP} {
				t.Run(fmt.Sprintf("%s/%v/%d", kind, v6, e), func(t *testing.T) {
					t.Parallel()
					p := routed(t, 1400)
					p.start(t, kind)
					for i, gw := range p.gw {
						check(t, gw.AddTunnel(policy(i, v6, e)))
					}
					p.key(t, 0x100, nil)
					before := routeMTU(t, p, 0, inner4[0], inner4[1])
					p.transfer(t, 0, inner4, 2<<20)
					p.transfer(t, 0, inner6, 2<<20)
					if now := routeMTU(t, p, 0, inner4[0], inner4[1]); now != before-100 {
						t.Errorf("MTU is %d, was %d", now, before)
					}
				})
			}
		}
	}
}

// routed is like namespaces, but the outer networks differ and a router joins them; the second carries mtu bytes.
func routed(t testing.TB, mtu int) *pair {
	t.Helper()
	nss, err := netns.New(3)
	check(t, err)
	t.Cleanup(func() {
		for _, ns := range nss {
			ns.Close()
		}
	})
	router := nss[2]
	check(t, router.Do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	}))
	rh, err := router.Netlink()
	check(t, err)
	for i := range 2 {
		h, err := nss[i].Netlink()
		check(t, err)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "net0"
		check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("to%d", i), PeerNamespace: netlink.NsFd(router.Fd())}))
		// Host routes to each other by the router's address in the same network.
		address(t, h, "net0", netip.PrefixFrom(outer4[i], 32), netip.PrefixFrom(outer6[i], 128))
		address(t, h, "lo", netip.PrefixFrom(inner4[i], 32), netip.PrefixFrom(inner6[i], 128))
		gw4, gw6 := netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("2001:db8::fe")
		address(t, rh, fmt.Sprintf("to%d", i), netip.PrefixFrom(gw4, 32), netip.PrefixFrom(gw6, 128))
		near, err := h.LinkByName("net0")
		check(t, err)
		far, err := rh.LinkByName(fmt.Sprintf("to%d", i))
		check(t, err)
		if i == 1 {
			check(t, h.LinkSetMTU(near, mtu))
			check(t, rh.LinkSetMTU(far, mtu))
		}
		single := func(a netip.Addr) *net.IPNet {
			return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
		}
		for _, a := range []struct{ me, you, gw netip.Addr }{{outer4[i], outer4[1-i], gw4}, {outer6[i], outer6[1-i], gw6}} {
			check(t, rh.RouteReplace(&netlink.Route{LinkIndex: far.Attrs().Index, Dst: single(a.me), Scope: netlink.SCOPE_LINK}))
			check(t, h.RouteReplace(&netlink.Route{LinkIndex: near.Attrs().Index, Dst: single(a.gw), Scope: netlink.SCOPE_LINK}))
			check(t, h.RouteReplace(&netlink.Route{LinkIndex: near.Attrs().Index, Dst: single(a.you), Gw: a.gw.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}))
		}
	}
	for i := range 2 {
		ready(t, nss[i], "net0")
		ready(t, router, fmt.Sprintf("to%d", i))
	}
	return &pair{ns: [2]*netns.Namespace(nss[:2])}
}
