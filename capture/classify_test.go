package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

var wanted = Wanted{
	Pairs: []Pair{
		{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/16")},
		{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")}, // a tunnel's own ends
		{netip.MustParsePrefix("fd00:1::/64"), netip.MustParsePrefix("fd00:2::/52")},
		{netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("2001:db8::2/128")},
		{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd00:9::/64")}, // of two families: nothing is
	},
	Exchange: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:4433"), netip.MustParseAddrPort("[2001:db8::2]:4433")},
}

// reference says what a packet is, in plain Go, from the documentation of Wanted.
func reference(w Wanted, b []byte) kind {
	var src, dst netip.Addr
	var proto byte
	var l4 []byte
	later := false
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		proto = b[9]
		later = binary.BigEndian.Uint16(b[6:])&0x1fff != 0
		if n := 4 * int(b[0]&15); n <= len(b) {
			l4 = b[n:]
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		proto, l4 = b[6], b[40:]
		if proto == 44 && len(l4) >= 8 {
			proto, later, l4 = l4[0], binary.BigEndian.Uint16(l4[2:])>>3 != 0, l4[8:]
		}
	default:
		return other
	}
	if proto == 50 {
		return esp
	}
	if later && proto == 17 {
		return other
	}
	if !later && len(l4) >= 4 {
		sport, dport := binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		if proto == 17 && sport == 4500 && dport == 4500 {
			return espInUDP
		}
		if proto == 6 {
			for _, e := range w.Exchange {
				if e == netip.AddrPortFrom(src, sport) || e == netip.AddrPortFrom(dst, dport) {
					return exchange
				}
			}
		}
		if proto == 58 && src.Is6() && l4[0] >= 133 && l4[0] <= 137 {
			return other
		}
	}
	for _, p := range w.Pairs {
		if p.A.Addr().Is4() == p.B.Addr().Is4() &&
			(p.A.Contains(src) && p.B.Contains(dst) || p.B.Contains(src) && p.A.Contains(dst)) {
			return plaintext
		}
	}
	return other
}

// packet makes an IP packet; from and to may have ports.
func packet(proto byte, from, to string, payload int) []byte {
	split := func(s string) (netip.Addr, uint16) {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			return ap.Addr(), ap.Port()
		}
		return netip.MustParseAddr(s), 0
	}
	src, sport := split(from)
	dst, dport := split(to)
	var b []byte
	if src.Is4() {
		b = make([]byte, 20, 20+payload)
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+payload))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
	} else {
		b = make([]byte, 40, 40+payload)
		b[0], b[6], b[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(b[4:], uint16(payload))
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
	}
	l4 := make([]byte, max(4, payload))
	if proto == 6 || proto == 17 {
		binary.BigEndian.PutUint16(l4, sport)
		binary.BigEndian.PutUint16(l4[2:], dport)
	}
	return append(b, l4[:payload]...)
}

type example struct {
	name string
	b    []byte
	want kind
}

func examples() []example {
	edit := func(b []byte, f func([]byte)) []byte { f(b); return b }
	fragment6 := func(proto byte, offset uint16, rest []byte) []byte {
		p := packet(44, "2001:db8::1", "2001:db8::2", 8)
		p[40] = proto
		binary.BigEndian.PutUint16(p[42:], offset<<3|1)
		return append(p, rest...)
	}
	ports4500 := []byte{0x11, 0x94, 0x11, 0x94, 0, 0, 0, 0}
	return []example{
		{"esp", packet(50, "192.0.2.1", "192.0.2.2", 100), esp},
		{"esp of others", packet(50, "9.9.9.9", "8.8.8.8", 100), esp},
		{"esp between protected subnets", packet(50, "10.1.0.1", "10.2.0.1", 100), esp},
		{"esp6", packet(50, "2001:db8::1", "2001:db8::2", 100), esp},
		{"esp fragment", edit(packet(50, "192.0.2.1", "192.0.2.2", 100), func(b []byte) { b[7] = 20 }), esp},
		{"esp6 fragment", fragment6(50, 9, make([]byte, 50)), esp},
		{"udp", packet(17, "192.0.2.1:4500", "192.0.2.2:4500", 100), espInUDP},
		{"udp6", packet(17, "[2001:db8::1]:4500", "[2001:db8::2]:4500", 100), espInUDP},
		{"udp with ip options", edit(packet(17, "192.0.2.1:4500", "192.0.2.2:4500", 100), func(b []byte) {
			b[0] = 0x46
			copy(b[24:], ports4500)
		}), espInUDP},
		{"udp6 first fragment", fragment6(17, 0, ports4500), espInUDP},
		{"udp later fragment", edit(packet(17, "192.0.2.1:9", "192.0.2.2:9", 100), func(b []byte) { b[7] = 20 }), other},
		{"udp6 later fragment", fragment6(17, 20, make([]byte, 50)), other},
		{"udp one port", packet(17, "192.0.2.1:4501", "192.0.2.2:4500", 100), plaintext},
		{"udp no ports", packet(17, "10.1.0.1", "10.2.0.1", 3), plaintext},
		{"udp6 no ports", packet(17, "fd00:1::1", "fd00:2::1", 0), plaintext},
		{"header longer than the packet", edit(packet(17, "10.1.0.1", "10.2.0.1", 8), func(b []byte) { b[0] = 0x4f }), plaintext},
		{"exchange", packet(6, "192.0.2.1:33333", "192.0.2.2:4433", 20), exchange},
		{"exchange back", packet(6, "192.0.2.2:4433", "192.0.2.1:33333", 20), exchange},
		{"exchange6", packet(6, "[2001:db8::1]:33333", "[2001:db8::2]:4433", 20), exchange},
		{"its port at another address", packet(6, "10.1.0.1:33333", "10.2.0.1:4433", 20), plaintext},
		{"its port at the other end", packet(6, "192.0.2.2:33333", "192.0.2.1:4433", 20), plaintext},
		{"tcp", packet(6, "10.1.0.200:1", "10.2.255.1:2", 20), plaintext},
		{"tcp back", packet(6, "10.2.255.1:2", "10.1.0.200:1", 20), plaintext},
		{"tcp fragment", edit(packet(6, "10.1.0.1:1", "10.2.0.1:2", 20), func(b []byte) { b[7] = 5 }), plaintext},
		{"icmp", packet(1, "10.1.0.1", "10.2.0.1", 8), plaintext},
		{"icmp no payload", packet(1, "10.1.0.1", "10.2.0.1", 0), plaintext},
		{"ipv6", packet(6, "[fd00:1::ffff]:1", "[fd00:2:0:fff::1]:2", 20), plaintext},
		{"ipv6 outside by a bit", packet(6, "[fd00:1::ffff]:1", "[fd00:2:0:1000::1]:2", 20), other},
		{"ipv6 short fragment header", packet(44, "fd00:1::1", "fd00:2::1", 7), plaintext},
		{"ping6", edit(packet(58, "2001:db8::1", "2001:db8::2", 8), func(b []byte) { b[40] = 128 }), plaintext},
		{"neighbour solicitation", edit(packet(58, "2001:db8::1", "2001:db8::2", 24), func(b []byte) { b[40] = 135 }), other},
		{"neighbour discovery's number in ipv4", edit(packet(58, "10.1.0.1", "10.2.0.1", 24), func(b []byte) { b[20] = 135 }), plaintext},
		{"outside", packet(6, "10.1.1.1:1", "10.2.0.1:2", 20), other},
		{"within one subnet", packet(6, "10.1.0.1:1", "10.1.0.2:2", 20), other},
		{"arp", []byte{0, 1, 8, 0, 6, 4, 0, 1, 1, 2, 3, 4, 5, 6, 10, 1, 0, 1, 0, 0, 0, 0, 0, 0, 10, 2, 0, 1}, other},
		{"nothing", nil, other},
		{"short", make([]byte, 19), other},
		{"short ipv6", append([]byte{0x60}, make([]byte, 38)...), other},
	}
}

// classify runs the filter of every kind, as the kernel does, and wants exactly one to accept.
func classify(t testing.TB, vms [kinds]*bpf.VM, b []byte) kind {
	t.Helper()
	got := kinds
	for k, vm := range vms {
		n, err := vm.Run(b)
		if err != nil {
			t.Fatalf("filter %d on %x: %v", k, b, err)
		}
		if n == 0 {
			continue
		}
		if got != kinds {
			t.Fatalf("%x is of kinds %d and %d", b, got, k)
		}
		got = kind(k)
	}
	if got == kinds {
		t.Fatalf("%x is of no kind", b)
	}
	return got
}

func machines(t testing.TB, w Wanted) (vms [kinds]*bpf.VM) {
	t.Helper()
	for k := range vms {
		vm, err := bpf.NewVM(w.filter(kind(k), snapWatch))
		if err != nil {
			t.Fatal(err)
		}
		vms[k] = vm
	}
	return vms
}

func TestClassify(t *testing.T) {
	t.Parallel()
	vms := machines(t, wanted)
	for _, e := range examples() {
		if got := classify(t, vms, e.b); got != e.want {
			t.Errorf("%s is %d, want %d", e.name, got, e.want)
		}
		if got := reference(wanted, e.b); got != e.want {
			t.Errorf("%s is %d for the reference, want %d", e.name, got, e.want)
		}
		// Cut anywhere, a packet still has one kind, and the reference's.
		for n := range e.b {
			if got, want := classify(t, vms, e.b[:n]), reference(wanted, e.b[:n]); got != want {
				t.Errorf("%s, %d bytes of it, is %d, want %d", e.name, n, got, want)
			}
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, e := range examples() {
		f.Add(e.b)
	}
	vms := machines(f, wanted)
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := classify(t, vms, b), reference(wanted, b); got != want {
			t.Errorf("%x is %d, want %d", b, got, want)
		}
		if l, ok := parseLeak(b); ok && (!l.Src.IsValid() || !l.Dst.IsValid()) {
			t.Errorf("%x became %v", b, l)
		}
	})
}

// TestManyPairs: as many tunnels as one node may have fit into one filter, and one too many is told.
func TestManyPairs(t *testing.T) {
	t.Parallel()
	var w Wanted
	for i := range 100 {
		for _, s := range []string{"10.%d.0.0/24", "fd00:%x::/64"} {
			w.Pairs = append(w.Pairs, Pair{netip.MustParsePrefix(fmt.Sprintf(s, 2*i%256)), netip.MustParsePrefix(fmt.Sprintf(s, (2*i+1)%256))})
		}
	}
	vms := machines(t, w)
	last := w.Pairs[len(w.Pairs)-1]
	if got := classify(t, vms, packet(6, netip.AddrPortFrom(last.B.Addr().Next(), 1).String(), netip.AddrPortFrom(last.A.Addr(), 2).String(), 20)); got != plaintext {
		t.Errorf("the last pair's packet is %d", got)
	}
	if _, err := assemble(w.filter(plaintext, 1)); err != nil {
		t.Error(err)
	}
	for range 3 {
		w.Pairs = append(w.Pairs, w.Pairs...)
	}
	var long *TooLongError
	if _, err := assemble(w.filter(plaintext, 1)); !errors.As(err, &long) {
		t.Errorf("a filter for %d pairs: %v", len(w.Pairs), err)
	}
}

func FuzzControl(f *testing.F) {
	f.Add(make([]byte, 128))
	f.Add([]byte{32, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 35, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		control(b) // must not read beyond it
	})
}
