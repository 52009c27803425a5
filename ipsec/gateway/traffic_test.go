package gateway_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/gateway/port"
)

// setsockopt sets an integer option.
func setsockopt(t testing.TB, c *net.UDPConn, level, name, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	check(t, err)
	var e error
	check(t, raw.Control(func(fd uintptr) { e = unix.SetsockoptInt(int(fd), level, name, value) }))
	check(t, e)
}

func getsockopt(t testing.TB, c *net.UDPConn, level, name int) (value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	check(t, err)
	var e error
	check(t, raw.Control(func(fd uintptr) { value, e = unix.GetsockoptInt(int(fd), level, name) }))
	check(t, e)
	return value
}

// dial opens a UDP socket in node i that sends to a.
func dial(t testing.TB, p *pair, i int, from netip.Addr, a netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	check(t, p.ns[i].Do(func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(a))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	check(t, c.SetDeadline(time.Now().Add(2*time.Minute)))
	return c
}

// TestUDP passes datagrams of all sorts of sizes, alone and as super-packets.
func TestUDP(t *testing.T) {
	variants(t, func(t *testing.T, kind port.Kind, v6 bool, e ipsec.Encapsulation) {
		p := tunnel(t, kind, v6, e)
		for i := range p.gw {
			for _, addrs := range [][2]netip.Addr{inner4, inner6} {
				in := listen(t, p, 1-i, netip.AddrPortFrom(addrs[1-i], 0))
				out := dial(t, p, i, addrs[i], in.LocalAddr().(*net.UDPAddr).AddrPort())
				buf := make([]byte, 70000)
				receive := func(want []byte) {
					t.Helper()
					n, err := in.Read(buf)
					check(t, err)
					if string(buf[:n]) != string(want) {
						t.Fatalf("%d bytes arrived, not the %d sent", n, len(want))
					}
				}
				for _, n := range []int{0, 1, 2, 3, 4, 100, 1300, 1400, 1410, 1472, 2000, 5000, 60000} {
					_, err := out.Write(pattern(n))
					check(t, err)
					receive(pattern(n))
				}
				// UDP_SEGMENT: the kernel hands the gateway one packet for all.
				setsockopt(t, out, unix.SOL_UDP, unix.UDP_SEGMENT, 1000)
				_, err := out.Write(pattern(20500))
				check(t, err)
				for at := 0; at < 20500; at += 1000 {
					receive(pattern(20500)[at:min(at+1000, 20500)])
				}
			}
		}
	})
}

// TestPlaintextIsRefused tries to pass packets between the protected subnets in the clear, in both directions, with IPv4
// and IPv6. Only node 0 has a gateway.
func TestPlaintextIsRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := namespaces(t)
		gw := p.startNode(t, 0, kind)
		for i := range p.ns { // routes in the clear, which would work
			h, err := p.ns[i].Netlink()
			check(t, err)
			link, err := h.LinkByName("net0")
			check(t, err)
			for _, r := range []struct{ dst, via netip.Addr }{{inner4[1-i], outer4[1-i]}, {inner6[1-i], outer6[1-i]}} {
				dst := &net.IPNet{IP: r.dst.AsSlice(), Mask: net.CIDRMask(r.dst.BitLen(), r.dst.BitLen())}
				check(t, h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: r.via.AsSlice()}))
			}
		}
		families := []struct{ inner, outer [2]netip.Addr }{{inner4, outer4}, {inner6, outer6}}
		pass := func(from int, src, dst netip.Addr) bool { // to socket of dst; a second packet between outer addresses follows it
			in := listen(t, p, 1-from, netip.AddrPortFrom(dst, 0))
			out := dial(t, p, from, src, in.LocalAddr().(*net.UDPAddr).AddrPort())
			if from == 0 { // past the routes
				raw, err := out.SyscallConn()
				check(t, err)
				var e error
				check(t, raw.Control(func(fd uintptr) { e = unix.BindToDevice(int(fd), "net0") }))
				check(t, e)
			}
			out.Write([]byte("clear")) // the kernel may say EPERM
			marker := listen(t, p, 1-from, netip.AddrPortFrom(outer4[1-from], 0))
			mark := dial(t, p, from, outer4[from], marker.LocalAddr().(*net.UDPAddr).AddrPort())
			_, err := mark.Write([]byte("mark"))
			check(t, err)
			_, err = marker.Read(make([]byte, 10))
			check(t, err)
			check(t, in.SetReadDeadline(time.Now())) // what has arrived is there already
			raw, err := in.SyscallConn()
			check(t, err)
			n := 0
			check(t, raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), make([]byte, 10), unix.MSG_DONTWAIT) }))
			return n > 0
		}
		for _, f := range families {
			for from := range 2 {
				if !pass(from, f.inner[from], f.inner[1-from]) {
					t.Fatal("nothing passes even without a policy: the test tests nothing")
				}
			}
		}
		check(t, gw.AddTunnel(policy(0, false, ipsec.UDP)))
		want := uint64(0)
		for _, f := range families {
			for from := range 2 {
				if pass(from, f.inner[from], f.inner[1-from]) {
					t.Errorf("plaintext from %v reached %v", f.inner[from], f.inner[1-from])
				}
				want++
				if got := p.drops(t, 0).Plaintext; got != want {
					t.Errorf("%d refused, want %d", got, want)
				}
				// Traffic that only one end of is in the policy is not its business.
				if from == 1 && !pass(1, f.outer[1], f.inner[0]) {
					t.Errorf("%v cannot reach %v any more", f.outer[1], f.inner[0])
				}
			}
		}
		// By the routes it goes into the port, where it waits for an SA in vain.
		out := dial(t, p, 0, inner4[0], netip.AddrPortFrom(inner4[1], 9))
		_, err := out.Write([]byte("no SA"))
		check(t, err)
		eventually(t, "NoSA is counted", func() bool { return p.drops(t, 0).NoSA == 1 })
		told := func() ipsec.Expiry {
			t.Helper()
			select {
			case x := <-gw.Expiries():
				return x
			case <-time.After(2 * time.Minute):
				t.Fatal("not told of a packet that found no SA")
				return ipsec.Expiry{}
			}
		}
		if x := told(); x != (ipsec.Expiry{Tunnel: "t", Trigger: ipsec.ByTraffic}) {
			t.Errorf("told %+v", x)
		}
		// It is told once, until there has been an SA.
		_, err = out.Write([]byte("again"))
		check(t, err)
		eventually(t, "NoSA is counted", func() bool { return p.drops(t, 0).NoSA == 2 })
		sa := newSA(0x7000)
		sa.Hard.Packets = 1
		check(t, gw.SetOutbound("t", &sa))
		_, err = out.Write([]byte("the only one"))
		check(t, err)
		if x := told(); x.Trigger != ipsec.ByPackets {
			t.Errorf("told %+v", x)
		}
		check(t, gw.RemoveOutbound("t", 0x7000))
		_, err = out.Write([]byte("no SA"))
		check(t, err)
		if x := told(); x != (ipsec.Expiry{Tunnel: "t", Trigger: ipsec.ByTraffic}) {
			t.Errorf("told %+v", x)
		}
		check(t, gw.RemoveTunnel("t"))
		for _, f := range families {
			for from := range 2 {
				if !pass(from, f.inner[from], f.inner[1-from]) {
					t.Error("nothing passes after RemoveTunnel")
				}
			}
		}
	})
}

// TestOnlyESPOnTheWire looks at every packet between the nodes while traffic passes.
func TestOnlyESPOnTheWire(t *testing.T) {
	variants(t, func(t *testing.T, kind port.Kind, v6 bool, e ipsec.Encapsulation) {
		p := tunnel(t, kind, v6, e)
		var fd int
		check(t, p.ns[0].Do(func() (err error) {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
			if err != nil {
				return err
			}
			link, err := net.InterfaceByName("net0")
			if err != nil {
				return err
			}
			port.SetBuffers(fd)
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Index})
		}))
		defer unix.Close(fd)
		p.transfer(t, 0, inner4, 200<<10)
		p.transfer(t, 1, inner6, 200<<10)
		count := 0
		for buf := make([]byte, 70000); ; {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			check(t, err)
			if proto := from.(*unix.SockaddrLinklayer).Protocol; proto != htons(unix.ETH_P_IP) && proto != htons(unix.ETH_P_IPV6) {
				continue // ARP
			}
			next, at, multicast := buf[9], 20, buf[16] >= 224
			if buf[0]>>4 == 6 {
				next, at, multicast = buf[6], 40, buf[24] == 0xff
			}
			switch {
			case multicast: // of the kernel itself
			case next == 58: // neighbour discovery
			case e == ipsec.ESP && next == 50:
				count++
			case e == ipsec.UDP && next == 17 && binary.BigEndian.Uint16(buf[at:]) == 4500 && binary.BigEndian.Uint16(buf[at+2:]) == 4500:
				count++
			default:
				t.Fatalf("on the wire: % x", buf[:min(n, 80)])
			}
		}
		if count < 10 {
			t.Errorf("only %d packets of ESP were seen", count)
		}
	})
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// TestRekeyUnderLoad replaces both SAs again and again, make before break, while numbered packets pass in both directions.
func TestRekeyUnderLoad(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := tunnel(t, kind, false, ipsec.UDP)
		var stop atomic.Bool
		var wg sync.WaitGroup
		var sent, received [2]int
		for i := range p.gw {
			in := listen(t, p, 1-i, netip.AddrPortFrom(inner4[1-i], 0))
			check(t, in.SetReadBuffer(1<<20))
			out := dial(t, p, i, inner4[i], in.LocalAddr().(*net.UDPAddr).AddrPort())
			credit := make(chan struct{}, 32) // packets on their way: fewer than any buffer holds
			wg.Go(func() {
				defer close(credit)
				for !stop.Load() {
					credit <- struct{}{}
					if _, err := out.Write(binary.BigEndian.AppendUint32(nil, uint32(sent[i]))); err != nil {
						t.Error(err)
						return
					}
					sent[i]++
				}
			})
			wg.Go(func() {
				buf := make([]byte, 10)
				for range credit {
					if _, err := in.Read(buf); err != nil {
						t.Errorf("after %d packets from node %d: %v", received[i], i, err)
						stop.Store(true)
						return
					}
					if got := int(binary.BigEndian.Uint32(buf)); got != received[i] {
						t.Errorf("packet %d from node %d came as number %d", got, i, received[i])
					}
					received[i]++
				}
			})
		}
		const rekeys = 100
		spi := uint32(0x1000)
		for range rekeys {
			old := spi
			spi += 2
			p.key(t, spi, nil)
			// The old SA goes when something came by the new one, and so nothing can come by the old one any more.
			for i, gw := range p.gw {
				s := spi + uint32(1-i)
				eventually(t, "the new SA is used", func() bool {
					c, err := gw.Counters("t", s)
					check(t, err)
					return c.Packets > 0 || stop.Load()
				})
				check(t, gw.RemoveInbound("t", old+uint32(1-i)))
				check(t, gw.RemoveOutbound("t", old+uint32(i)))
			}
		}
		stop.Store(true)
		wg.Wait()
		for i := range p.gw {
			if sent[i] != received[i] || sent[i] < rekeys {
				t.Errorf("node %d sent %d, %d arrived", i, sent[i], received[i])
			}
			if d, d0 := p.drops(t, i), p.drops0(t, i); d != (ipsec.Drops{}) || d0 != (ipsec.Drops{}) {
				t.Errorf("node %d dropped %+v, %+v", i, d, d0)
			}
		}
	})
}

// TestHundredTunnels joins a hundred pairs of subnets between two nodes, each by a tunnel of its own.
func TestHundredTunnels(t *testing.T) {
	p := namespaces(t)
	p.start(t, port.Auto)
	const n = 100
	subnet := func(i, k int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + i), byte(k), 0}), 24)
	}
	begin := time.Now()
	for i, gw := range p.gw {
		h, err := p.ns[i].Netlink()
		check(t, err)
		for k := range n {
			address(t, h, "lo", netip.PrefixFrom(subnet(i, k).Addr().Next(), 32))
			check(t, gw.AddTunnel(ipsec.Policy{
				Tunnel: fmt.Sprint(k), Src: outer4[i], Dst: outer4[1-i], PathMTU: 1500,
				Local: []netip.Prefix{subnet(i, k)}, Remote: []netip.Prefix{subnet(1-i, k)},
			}))
		}
	}
	t.Logf("%d tunnels added in %v", 2*n, time.Since(begin))
	for i, gw := range p.gw {
		for k := range n {
			sa := newSA(uint32(0x1000 + 2*k + i))
			check(t, p.gw[1-i].AddInbound(fmt.Sprint(k), given(sa)))
			check(t, gw.SetOutbound(fmt.Sprint(k), given(sa)))
		}
	}
	for k := range n {
		in := listen(t, p, 1, netip.AddrPortFrom(subnet(1, k).Addr().Next(), 7000))
		// No source is given: the route must prefer the one in the tunnel's subnet.
		var out net.Conn
		check(t, p.ns[0].Do(func() (err error) {
			out, err = net.Dial("udp", in.LocalAddr().String())
			return err
		}))
		defer out.Close()
		if got := out.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); got != subnet(0, k).Addr().Next() {
			t.Errorf("tunnel %d: source %v", k, got)
		}
		_, err := out.Write([]byte("x"))
		check(t, err)
		_, err = in.Read(make([]byte, 10))
		check(t, err)
		c, err := p.gw[1].Counters(fmt.Sprint(k), uint32(0x1000+2*k))
		check(t, err)
		eventually(t, "counted", func() bool {
			c, err = p.gw[1].Counters(fmt.Sprint(k), uint32(0x1000+2*k))
			check(t, err)
			return c.Packets == 1
		})
	}
	begin = time.Now()
	for k := range n {
		check(t, p.gw[0].RemoveTunnel(fmt.Sprint(k)))
	}
	t.Logf("%d tunnels removed in %v", n, time.Since(begin))
	for k := range n {
		if _, err := p.gw[0].Drops(fmt.Sprint(k)); !errors.Is(err, gateway.ErrUnknown) {
			t.Errorf("tunnel %d is still there: %v", k, err)
		}
	}
}
