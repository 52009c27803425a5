package gateway_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
	"pqlab/ipsec/gateway/port"
)

// peer plays the gateway of node 1 by hand, so that it can send what no gateway would. Node 0 has a real one, and a socket
// that receives what comes out of the tunnel.
type peer struct {
	*pair
	t    testing.TB
	v6   bool         // outer addresses
	conn *net.UDPConn // node 1, port 4500
	seal *esp.Sealer
	open *esp.Opener
	app  *net.UDPConn // node 0, inner address
}

const spiIn, spiOut = 0x2000, 0x3000 // as node 0 sees it

func newPeer(t testing.TB, kind port.Kind, edit func(in, out *ipsec.SA)) *peer {
	t.Helper()
	return (&peer{pair: namespaces(t), t: t}).start(kind, edit)
}

func (p *peer) start(kind port.Kind, edit func(in, out *ipsec.SA)) *peer {
	t := p.t
	t.Helper()
	gw := p.startNode(t, 0, kind)
	check(t, gw.AddTunnel(policy(0, p.v6, ipsec.UDP)))
	in, out := newSA(spiIn), newSA(spiOut)
	if edit != nil {
		edit(&in, &out)
	}
	var err error
	p.seal, err = esp.NewSealer(in.SPI, &in.Key, in.Salt, in.Seq)
	check(t, err)
	p.open, err = esp.NewOpener(out.SPI, &out.Key, out.Salt, 64, out.Seq)
	check(t, err)
	check(t, gw.AddInbound("t", &in))
	check(t, gw.SetOutbound("t", &out))
	p.conn = listen(t, p.pair, 1, netip.AddrPortFrom(p.outer(1), ipsec.UDPPort))
	p.app = listen(t, p.pair, 0, netip.AddrPortFrom(inner4[0], 7000))
	return p
}

// listen opens a UDP socket in node i.
func listen(t testing.TB, p *pair, i int, a netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	check(t, p.ns[i].Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	check(t, c.SetDeadline(time.Now().Add(2*time.Minute)))
	return c
}

// datagram is a UDP packet from node 1's subnet to node 0's application.
func datagram(t testing.TB, tos uint8, payload string, edit func(*layers.IPv4)) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 9, TOS: tos, Protocol: layers.IPProtocolUDP, SrcIP: inner4[1].AsSlice(), DstIP: inner4[0].AsSlice()}
	if edit != nil {
		edit(ip)
	}
	udp := &layers.UDP{SrcPort: 7001, DstPort: 7000}
	check(t, udp.SetNetworkLayerForChecksum(ip))
	b := gopacket.NewSerializeBuffer()
	check(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, udp, gopacket.Payload(payload)))
	return bytes.Clone(b.Bytes())
}

// sealed is an ESP packet around inner.
func (p *peer) sealed(inner []byte, next byte) []byte {
	p.t.Helper()
	buf := make([]byte, esp.Size(len(inner)))
	copy(buf[esp.Offset:], inner)
	check(p.t, p.seal.Seal(buf, len(inner), next))
	return buf
}

func (p *peer) send(packet []byte) {
	p.t.Helper()
	_, err := p.conn.WriteToUDPAddrPort(packet, netip.AddrPortFrom(p.outer(0), ipsec.UDPPort))
	check(p.t, err)
}

func (p *peer) outer(i int) netip.Addr {
	if p.v6 {
		return outer6[i]
	}
	return outer4[i]
}

// expect reads the next datagram that came out of the tunnel.
func (p *peer) expect(want string) {
	p.t.Helper()
	buf := make([]byte, 2000)
	n, err := p.app.Read(buf)
	check(p.t, err)
	if got := string(buf[:n]); got != want {
		p.t.Fatalf("received %q, want %q", got, want)
	}
}

// flush sends a good packet and waits for it: everything sent before has then been handled.
func (p *peer) flush() {
	p.t.Helper()
	p.send(p.sealed(datagram(p.t, 0, "flush", nil), esp.IPv4))
	p.expect("flush")
}

func (p *pair) drops(t testing.TB, i int) ipsec.Drops {
	t.Helper()
	d, err := p.gw[i].Drops("t")
	check(t, err)
	return d
}

func (p *pair) drops0(t testing.TB, i int) ipsec.Drops {
	t.Helper()
	d, err := p.gw[i].Drops("")
	check(t, err)
	return d
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

func eachKind(t *testing.T, f func(t *testing.T, kind port.Kind)) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f(t, kind)
		})
	}
}

func TestHostilePackets(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := newPeer(t, kind, nil)
		good := func(s string) []byte { return p.sealed(datagram(t, 0, s, nil), esp.IPv4) }
		p.flush()
		steps := []struct {
			name    string
			packet  []byte
			want    ipsec.Drops
			gateway ipsec.Drops // of no tunnel
		}{
			{name: "keepalive", packet: []byte{0xff}},
			{name: "IKE", packet: make([]byte, 40)},
			{name: "too short", packet: []byte{1, 2, 3}, gateway: ipsec.Drops{Malformed: 1}},
			{name: "unknown SPI", packet: append([]byte{0, 0, 0x40, 0}, make([]byte, 60)...), gateway: ipsec.Drops{UnknownSPI: 1}},
			{name: "truncated", packet: good("x")[:32], want: ipsec.Drops{Malformed: 1}},
			{name: "another source", packet: p.sealed(datagram(t, 0, "x", func(ip *layers.IPv4) { ip.SrcIP = net.IP{10, 9, 9, 9} }), esp.IPv4), want: ipsec.Drops{Policy: 1}},
			{name: "another destination", packet: p.sealed(datagram(t, 0, "x", func(ip *layers.IPv4) { ip.DstIP = outer4[0].AsSlice() }), esp.IPv4), want: ipsec.Drops{Policy: 1}},
			{name: "IPv4 said to be IPv6", packet: p.sealed(datagram(t, 0, "x", nil), esp.IPv6), want: ipsec.Drops{Malformed: 1}},
			{name: "dummy", packet: p.sealed(make([]byte, 100), esp.None)},
			{name: "inner longer than its packet", packet: p.sealed(datagram(t, 0, "x", nil)[:25], esp.IPv4), want: ipsec.Drops{Malformed: 1}},
			{name: "inner empty", packet: p.sealed(nil, esp.IPv4), want: ipsec.Drops{Malformed: 1}},
			{name: "next header TCP", packet: p.sealed(datagram(t, 0, "x", nil), 6), want: ipsec.Drops{Malformed: 1}},
		}
		corrupt := good("x")
		corrupt[30] ^= 1
		replayed := good("first")
		p.send(replayed)
		p.expect("first")
		steps = append(steps, []struct {
			name    string
			packet  []byte
			want    ipsec.Drops
			gateway ipsec.Drops
		}{
			{name: "corrupted", packet: corrupt, want: ipsec.Drops{Integrity: 1}},
			{name: "replayed", packet: replayed, want: ipsec.Drops{Replay: 1}},
		}...)
		for _, s := range steps {
			before, before0 := p.drops(t, 0), p.drops0(t, 0)
			p.send(s.packet)
			p.flush()
			if got := minus(p.drops(t, 0), before); got != s.want {
				t.Errorf("%s: tunnel dropped %+v, want %+v", s.name, got, s.want)
			}
			if got := minus(p.drops0(t, 0), before0); got != s.gateway {
				t.Errorf("%s: gateway dropped %+v, want %+v", s.name, got, s.gateway)
			}
		}
		// TFC padding after the inner packet is cut off.
		p.send(p.sealed(append(datagram(t, 0, "padded", nil), make([]byte, 77)...), esp.IPv4))
		p.expect("padded")
	})
}

func minus(a, b ipsec.Drops) ipsec.Drops {
	return ipsec.Drops{
		NoSA: a.NoSA - b.NoSA, UnknownSPI: a.UnknownSPI - b.UnknownSPI, Replay: a.Replay - b.Replay,
		Integrity: a.Integrity - b.Integrity, Malformed: a.Malformed - b.Malformed, Policy: a.Policy - b.Policy,
		Plaintext: a.Plaintext - b.Plaintext, Expired: a.Expired - b.Expired, TooBig: a.TooBig - b.TooBig, Send: a.Send - b.Send,
	}
}

// TestOtherSocket sends a good packet to a socket that its tunnel does not use.
func TestOtherSocket(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := newPeer(t, kind, nil)
		raw := policy(0, false, ipsec.ESP)
		raw.Tunnel = "raw"
		raw.Local, raw.Remote = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}, []netip.Prefix{netip.MustParsePrefix("10.78.0.0/24")}
		check(t, p.gw[0].AddTunnel(raw))
		var conn *net.IPConn
		check(t, p.ns[1].Do(func() (err error) {
			conn, err = net.DialIP("ip4:50", nil, &net.IPAddr{IP: outer4[0].AsSlice()})
			return err
		}))
		defer conn.Close()
		_, err := conn.Write(p.sealed(datagram(t, 0, "astray", nil), esp.IPv4))
		check(t, err)
		eventually(t, "the packet is refused", func() bool { return p.drops0(t, 0).UnknownSPI == 1 })
		p.flush()
	})
}

func TestReordered(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := newPeer(t, kind, func(in, _ *ipsec.SA) { in.Seq, in.ReplayWindow = 1<<32-5, 8 })
		var packets [][]byte
		for i := range 12 {
			packets = append(packets, p.sealed(datagram(t, 0, string(rune('a'+i)), nil), esp.IPv4))
		}
		for _, i := range []int{3, 0, 9, 2, 11, 4} {
			p.send(packets[i])
			p.expect(string(rune('a' + i)))
		}
		before := p.drops(t, 0)
		p.send(packets[3]) // left of the window
		p.send(packets[1]) // never seen, but left of the window too
		p.flush()
		if got := minus(p.drops(t, 0), before); got != (ipsec.Drops{Replay: 2}) {
			t.Errorf("dropped %+v", got)
		}
	})
}

// TestCounters checks that both directions count exactly as the cipher does.
func TestCounters(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := newPeer(t, kind, nil)
		var want ipsec.Counters
		for n := range 50 {
			payload := string(make([]byte, 13*n))
			inner := datagram(t, 0, payload, nil)
			p.send(p.sealed(inner, esp.IPv4))
			p.expect(payload)
			plain := (len(inner) + 2 + 3) / 4 * 4
			want.Bytes += uint64(plain)
			want.Blocks += uint64((plain + 15) / 16)
			want.Packets++
			want.Seq++
			_, err := p.app.WriteToUDPAddrPort([]byte(payload), netip.AddrPortFrom(inner4[1], 7001))
			check(t, err)
			if got := p.receive(); len(got) != len(inner) {
				t.Fatalf("inner packet of %d bytes, want %d", len(got), len(inner))
			}
		}
		for _, spi := range []uint32{spiIn, spiOut} {
			var got ipsec.Counters
			eventually(t, "the counters are published", func() bool {
				c, err := p.gw[0].Counters("t", spi)
				check(t, err)
				got = c
				return c.Packets == want.Packets
			})
			if got != want {
				t.Errorf("SPI %#x: %+v, want %+v", spi, got, want)
			}
		}
	})
}

// An SA that was removed is not kept, nor are its keys, until another packet happens to come.
func TestRemovedInboundGoesAtOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, kind port.Kind) {
		p := newPeer(t, kind, nil)
		sa := p.gw[0].Inbound(spiIn)
		p.flush()
		if sa.Value() == nil {
			t.Fatal("gone while in use")
		}
		check(t, p.gw[0].RemoveInbound("t", spiIn))
		eventually(t, "the SA is freed", func() bool {
			runtime.GC()
			return sa.Value() == nil
		})
	})
}

// receive opens the next ESP packet from node 0.
func (p *peer) receive() []byte {
	p.t.Helper()
	buf := make([]byte, 70000)
	n, err := p.conn.Read(buf)
	check(p.t, err)
	payload, err := p.open.Open(buf[:n])
	check(p.t, err)
	return payload.Inner
}

func TestLimits(t *testing.T) {
	inner := len(datagram(t, 0, "flush", nil)) // 33 bytes: 36 for the cipher, 3 blocks
	plain := uint64(inner+2+3) / 4 * 4
	for _, c := range []struct {
		name    string
		soft    ipsec.Limits
		hard    ipsec.Limits
		trigger ipsec.Trigger
	}{
		{"packets", ipsec.Limits{Packets: 3}, ipsec.Limits{Packets: 5}, ipsec.ByPackets},
		{"bytes", ipsec.Limits{Bytes: 3 * plain}, ipsec.Limits{Bytes: 5 * plain}, ipsec.ByBytes},
		{"bytes in between", ipsec.Limits{Bytes: 3*plain - 1}, ipsec.Limits{Bytes: 6*plain - 1}, ipsec.ByBytes},
		{"blocks", ipsec.Limits{Blocks: 3 * 3}, ipsec.Limits{Blocks: 5 * 3}, ipsec.ByBlocks},
		{"blocks in between", ipsec.Limits{Blocks: 3*3 - 1}, ipsec.Limits{Blocks: 6*3 - 1}, ipsec.ByBlocks},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, port.Auto, func(in, out *ipsec.SA) {
				in.Soft, in.Hard, out.Soft, out.Hard = c.soft, c.hard, c.soft, c.hard
			})
			for range 5 {
				p.flush()
				_, err := p.app.WriteToUDPAddrPort([]byte("flush"), netip.AddrPortFrom(inner4[1], 7001))
				check(t, err)
				p.receive()
			}
			// Beyond the limit nothing passes, however much is tried.
			for range 3 {
				p.send(p.sealed(datagram(t, 0, "more", nil), esp.IPv4))
				_, err := p.app.WriteToUDPAddrPort([]byte("flush"), netip.AddrPortFrom(inner4[1], 7001))
				check(t, err)
			}
			eventually(t, "all are refused", func() bool { return p.drops(t, 0).Expired == 6 })
			for _, spi := range []uint32{spiIn, spiOut} {
				got, err := p.gw[0].Counters("t", spi)
				check(t, err)
				if got.Packets != 5 {
					t.Errorf("SPI %#x carried %d packets", spi, got.Packets)
				}
			}
			check(t, p.gw[0].Close())
			told := map[ipsec.Expiry]int{}
			for e := range p.gw[0].Expiries() {
				told[e]++
			}
			for _, spi := range []uint32{spiIn, spiOut} {
				for _, hard := range []bool{false, true} {
					e := ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: c.trigger, Hard: hard}
					if told[e] != 1 {
						t.Errorf("%+v came %d times", e, told[e])
					}
					delete(told, e)
				}
			}
			if len(told) > 0 {
				t.Errorf("also came %v", told)
			}
		})
	}
}

// TestECN passes each pair of marks through the tunnel, both ways (RFC 6040).
func TestECN(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v6=%v", v6), func(t *testing.T) {
			eachKind(t, func(t *testing.T, kind port.Kind) { testECN(t, kind, v6) })
		})
	}
}

func testECN(t *testing.T, kind port.Kind, v6 bool) {
	p := (&peer{pair: namespaces(t), t: t, v6: v6}).start(kind, nil)
	level, tos := unix.IPPROTO_IP, unix.IP_TOS
	setsockopt(t, p.app, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	if v6 {
		level, tos = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		setsockopt(t, p.conn, level, unix.IPV6_RECVTCLASS, 1)
	} else {
		setsockopt(t, p.conn, level, unix.IP_RECVTOS, 1)
	}
	const drop = 9
	table := [4][4]int{ // inner, outer: Not-ECT, ECT(1), ECT(0), CE
		{0, 0, 0, drop},
		{1, 1, 1, 3},
		{2, 1, 2, 3},
		{3, 3, 3, 3},
	}
	for inner := range 4 {
		for outer := range 4 {
			want := table[inner][outer]
			before := p.drops(t, 0)
			// DSCP of the outer header stays outside.
			setsockopt(t, p.conn, level, tos, 0x48|outer)
			p.send(p.sealed(datagram(t, 0xb8|uint8(inner), "marked", nil), esp.IPv4))
			if want == drop {
				setsockopt(t, p.conn, level, tos, 0)
				p.flush()
				if got := minus(p.drops(t, 0), before); got != (ipsec.Drops{Malformed: 1}) {
					t.Errorf("inner %d, outer %d: dropped %+v", inner, outer, got)
				}
				continue
			}
			if got := readTOS(t, p.app); got != 0xb8|want {
				t.Errorf("inner %d, outer %d: TOS %#x, want %#x", inner, outer, got, 0xb8|want)
			}
		}
		setsockopt(t, p.app, unix.IPPROTO_IP, unix.IP_TOS, 0xb8|inner)
		_, err := p.app.WriteToUDPAddrPort([]byte("marked"), netip.AddrPortFrom(inner4[1], 7001))
		check(t, err)
		if got := readTOS(t, p.conn); got != 0xb8|inner {
			t.Errorf("inner %#x became outer %#x", 0xb8|inner, got)
		}
	}
}

func readTOS(t testing.TB, c *net.UDPConn) int {
	t.Helper()
	buf, oob := make([]byte, 2000), make([]byte, 100)
	_, n, _, _, err := c.ReadMsgUDP(buf, oob)
	check(t, err)
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	check(t, err)
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TOS {
			return int(m.Data[0])
		}
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_TCLASS {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	t.Fatal("no TOS")
	return 0
}
