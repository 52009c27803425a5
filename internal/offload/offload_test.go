package offload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// spec describes a packet that gopacket makes, with all its checksums.
type spec struct {
	v6       bool
	udp      bool
	flow     int
	id       uint16
	tos, ttl uint8
	fragment bool // may be fragmented
	seq, ack uint32
	window   uint16
	flags    func(*layers.TCP) // beside ACK
	options  []layers.TCPOption
	payload  []byte
}

var timestamps = []layers.TCPOption{
	{OptionType: layers.TCPOptionKindNop, OptionLength: 1}, {OptionType: layers.TCPOptionKindNop, OptionLength: 1},
	{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
}

func (s spec) packet(t testing.TB) []byte {
	t.Helper()
	var network gopacket.NetworkLayer
	proto := layers.IPProtocolTCP
	if s.udp {
		proto = layers.IPProtocolUDP
	}
	if s.v6 {
		network = &layers.IPv6{Version: 6, TrafficClass: s.tos, FlowLabel: 0x12345, HopLimit: s.ttl, NextHeader: proto, SrcIP: net.ParseIP("fd00::1"), DstIP: net.ParseIP("fd00::2")}
	} else {
		ip := &layers.IPv4{Version: 4, TOS: s.tos, TTL: s.ttl, Id: s.id, Protocol: proto, SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{10, 0, 0, 2}}
		if !s.fragment {
			ip.Flags = layers.IPv4DontFragment
		}
		network = ip
	}
	var transport gopacket.SerializableLayer
	if s.udp {
		u := &layers.UDP{SrcPort: layers.UDPPort(1000 + s.flow), DstPort: 53}
		u.SetNetworkLayerForChecksum(network)
		transport = u
	} else {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(1000 + s.flow), DstPort: 80, Seq: s.seq, Ack: s.ack, ACK: true, Window: s.window, Options: s.options}
		if s.flags != nil {
			s.flags(tcp)
		}
		tcp.SetNetworkLayerForChecksum(network)
		transport = tcp
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		network.(gopacket.SerializableLayer), transport, gopacket.Payload(s.payload))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func payload(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i*i>>3)
	}
	return b
}

// segments of one flow, as a sender with the segment size mss makes them; the last has PSH.
func segments(t testing.TB, s spec, n, mss int) (packets [][]byte) {
	data := payload(n, byte(s.flow))
	for at := 0; at < n; at += mss {
		one := s
		one.payload = data[at:min(at+mss, n)]
		one.seq += uint32(at)
		one.id += uint16(at / mss)
		if at+mss >= n && !s.udp {
			one.flags = func(tcp *layers.TCP) {
				if s.flags != nil {
					s.flags(tcp)
				}
				tcp.PSH = true
			}
		}
		packets = append(packets, one.packet(t))
	}
	return packets
}

// recorder is a Writer that keeps super-packets, and cuts them again.
type recorder struct {
	t     testing.TB
	count int      // of packets written
	cut   [][]byte // their segments
}

func (r *recorder) Write(h *Header, pieces [][]byte) error {
	r.count++
	if len(pieces) > 1000 {
		r.t.Errorf("%d pieces", len(pieces))
	}
	packet := bytes.Join(pieces, nil)
	if len(packet) > 65535 {
		r.t.Errorf("packet of %d bytes", len(packet))
	}
	var s Segmenter
	if err := s.Reset(*h, packet); err != nil {
		r.t.Fatalf("%+v: %v", *h, err)
	}
	n := 0
	for ; s.Len() > 0; n++ {
		segment := make([]byte, s.Len())
		if len(segment) > s.Largest() {
			r.t.Errorf("segment of %d bytes, largest is %d", len(segment), s.Largest())
		}
		s.Next(segment)
		r.cut = append(r.cut, segment)
	}
	if n != s.Count() {
		r.t.Errorf("%d segments, Count says %d", n, s.Count())
	}
	return nil
}

// join passes packets through a Coalescer and returns how many are left, and what they are cut to.
func join(t testing.TB, packets [][]byte) *recorder {
	t.Helper()
	var c Coalescer
	r := &recorder{t: t}
	for _, p := range packets {
		c.Add(bytes.Clone(p))
	}
	if lost, err := c.Flush(r); lost != 0 || err != nil {
		t.Fatalf("lost %d: %v", lost, err)
	}
	before := r.count
	if c.Flush(r); r.count != before {
		t.Error("a second Flush wrote something")
	}
	return r
}

func TestJoinsAndCutsBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		packets [][]byte
		want    int // packets after joining
	}{
		{"TCP IPv4", segments(t, spec{ttl: 64, seq: 1}, 40*1400, 1400), 1},
		{"TCP IPv4, last is short", segments(t, spec{ttl: 64}, 39*1400+1, 1400), 1},
		{"TCP IPv6", segments(t, spec{v6: true, ttl: 64, seq: 1<<32 - 3000}, 40*1400, 1400), 1},
		{"options", segments(t, spec{ttl: 64, options: timestamps}, 10*1388, 1388), 1},
		{"IPv6, options, ECE, ECT(0)", segments(t, spec{v6: true, tos: 2, ttl: 3, options: timestamps, flags: func(t *layers.TCP) { t.ECE = true }}, 10*1388, 1388), 1},
		{"identification wraps", segments(t, spec{ttl: 64, id: 65530}, 10*1400, 1400), 1},
		{"without DF", segments(t, spec{ttl: 64, fragment: true}, 10*1400, 1400), 1},
		{"odd payloads", segments(t, spec{ttl: 64}, 9*333+2, 333), 1},
		{"more than a packet holds", segments(t, spec{ttl: 64}, 50*1400, 1400), 2},
		{"tiny segments", segments(t, spec{ttl: 64}, 600, 1), 2},
		{"UDP", segments(t, spec{udp: true, ttl: 64}, 40*1400, 1400), 1},
		{"UDP IPv6, last is short", segments(t, spec{udp: true, v6: true, ttl: 64}, 5*1401+1, 1401), 1},
		{"UDP, more segments than the kernel takes", segments(t, spec{udp: true, ttl: 64}, 100*10, 10), 2},
		{"one", segments(t, spec{ttl: 64}, 10, 1400), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := join(t, c.packets)
			if r.count != c.want {
				t.Errorf("%d packets are left, want %d", r.count, c.want)
			}
			same(t, r.cut, c.packets)
		})
	}
}

func same(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d of %d is\n%x\nnot\n%x", i, len(want), got[i], want[i])
		}
	}
}

func TestDoesNotJoin(t *testing.T) {
	base := spec{ttl: 64, tos: 4, seq: 100, ack: 7, window: 500, id: 9, options: timestamps, payload: payload(100, 1)}
	second := base
	second.seq, second.id, second.payload = 200, 10, payload(100, 2)
	edit := func(f func(*spec)) [][]byte {
		s := second
		f(&s)
		return [][]byte{base.packet(t), s.packet(t)}
	}
	flag := func(f func(*layers.TCP)) [][]byte { return edit(func(s *spec) { s.flags = f }) }
	damage := func(which, at int) [][]byte {
		p := edit(func(*spec) {})
		p[which][at] ^= 1
		return p
	}
	udp := func(f func(*spec)) [][]byte {
		a := spec{udp: true, ttl: 64, id: 9, payload: payload(100, 1)}
		b := a
		b.id = 10
		f(&b)
		return [][]byte{a.packet(t), b.packet(t)}
	}
	zero := udp(func(*spec) {})
	for _, p := range zero {
		p[26], p[27] = 0, 0
	}
	if r := join(t, edit(func(*spec) {})); r.count != 1 {
		t.Fatal("the packets do not join even unchanged: the test tests nothing")
	}
	if r := join(t, udp(func(*spec) {})); r.count != 1 {
		t.Fatal("the datagrams do not join even unchanged: the test tests nothing")
	}
	for name, packets := range map[string][][]byte{
		"gap":                    edit(func(s *spec) { s.seq++ }),
		"again":                  edit(func(s *spec) { s.seq -= 100 }),
		"other flow":             edit(func(s *spec) { s.flow = 1 }),
		"other TOS":              edit(func(s *spec) { s.tos |= 3 }),
		"other TTL":              edit(func(s *spec) { s.ttl-- }),
		"other DF":               edit(func(s *spec) { s.fragment = true }),
		"identification":         edit(func(s *spec) { s.id = 9 }),
		"acknowledgement":        edit(func(s *spec) { s.ack++ }),
		"window":                 edit(func(s *spec) { s.window++ }),
		"no options":             edit(func(s *spec) { s.options = nil }),
		"larger":                 edit(func(s *spec) { s.payload = payload(101, 1) }),
		"pure acknowledgement":   edit(func(s *spec) { s.payload = nil }),
		"FIN":                    flag(func(t *layers.TCP) { t.FIN = true }),
		"SYN":                    flag(func(t *layers.TCP) { t.SYN = true }),
		"RST":                    flag(func(t *layers.TCP) { t.RST = true }),
		"URG":                    flag(func(t *layers.TCP) { t.URG = true }),
		"CWR":                    flag(func(t *layers.TCP) { t.CWR = true }),
		"ECE":                    flag(func(t *layers.TCP) { t.ECE = true }),
		"first IP checksum":      damage(0, 10),
		"second IP checksum":     damage(1, 10),
		"first TCP checksum":     damage(0, 36),
		"second TCP checksum":    damage(1, 36),
		"first payload":          damage(0, 60),
		"second payload":         damage(1, 90),
		"UDP without checksum":   zero,
		"UDP larger":             udp(func(s *spec) { s.payload = payload(101, 1) }),
		"UDP other flow":         udp(func(s *spec) { s.flow = 1 }),
		"UDP empty":              udp(func(s *spec) { s.payload = nil }),
		"after PSH":              {withPush(t, base), second.packet(t)},
		"TCP and UDP":            {base.packet(t), udp(func(*spec) {})[1]},
		"short one in between":   segmentsOf(t, base, 100, 50, 100),
		"acknowledgement inside": {base.packet(t), ackOf(t, base), second.packet(t)},
		"fragment inside":        {base.packet(t), fragmentOf(t, base), second.packet(t)},
	} {
		t.Run(name, func(t *testing.T) {
			r := join(t, packets)
			want := len(packets)
			if name == "short one in between" {
				want--
			}
			if r.count != want {
				t.Errorf("%d packets are left, want %d", r.count, want)
			}
			same(t, r.cut, packets)
		})
	}
}

func withPush(t testing.TB, s spec) []byte {
	s.flags = func(t *layers.TCP) { t.PSH = true }
	return s.packet(t)
}

func ackOf(t testing.TB, s spec) []byte {
	s.payload = nil
	s.seq += 100
	return s.packet(t)
}

func fragmentOf(t testing.TB, s spec) []byte {
	p := s.packet(t)
	p[6], p[7] = 0, 100
	return p
}

func segmentsOf(t testing.TB, s spec, sizes ...int) (packets [][]byte) {
	for _, n := range sizes {
		s.payload = payload(n, 5)
		packets = append(packets, s.packet(t))
		s.seq += uint32(n)
		s.id++
	}
	return packets
}

// TestManyFlows interleaves flows at random: nothing may be changed, and the order within a flow must be kept.
func TestManyFlows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var flows [][][]byte
	for i := range 300 {
		flows = append(flows, segments(t, spec{v6: i%2 == 0, udp: i%5 == 0, flow: i, ttl: 64}, 100*(1+r.IntN(20)), 100))
	}
	key := func(p []byte) int {
		if p[0]>>4 == 6 {
			return int(binary.BigEndian.Uint16(p[40:])) - 1000
		}
		return int(binary.BigEndian.Uint16(p[20:])) - 1000
	}
	rest := slices.Clone(flows)
	var mixed [][]byte
	for left := true; left; {
		left = false
		for range 1000 {
			if i := r.IntN(len(rest)); len(rest[i]) > 0 {
				mixed = append(mixed, rest[i][0])
				rest[i] = rest[i][1:]
			}
		}
		for _, f := range rest {
			left = left || len(f) > 0
		}
	}
	got := join(t, mixed)
	if got.count >= len(mixed) {
		t.Error("nothing was joined")
	}
	var back [300][][]byte
	for _, p := range got.cut {
		back[key(p)] = append(back[key(p)], p)
	}
	for i := range flows {
		same(t, back[i], flows[i])
	}
}

// TestPartialChecksum completes what the kernel leaves to hardware.
func TestPartialChecksum(t *testing.T) {
	for _, s := range []spec{
		{ttl: 1, payload: payload(101, 3)}, {v6: true, ttl: 1, payload: payload(100, 4)},
		{udp: true, ttl: 1, payload: payload(7, 3)}, {udp: true, v6: true, ttl: 1, payload: payload(8, 4)},
	} {
		want := s.packet(t)
		h := Header{Flags: NeedsChecksum, CsumStart: 20, CsumField: 16}
		if s.v6 {
			h.CsumStart = 40
		}
		proto := uint8(protoTCP)
		if s.udp {
			h.CsumField, proto = 6, protoUDP
		}
		packet := bytes.Clone(want)
		store(packet[h.CsumStart+h.CsumField:], fold(pseudo(packet, proto, len(packet)-int(h.CsumStart))))
		if bytes.Equal(packet, want) {
			t.Fatal("the test tests nothing")
		}
		var seg Segmenter
		if err := seg.Reset(h, packet); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, seg.Len())
		seg.Next(got)
		same(t, [][]byte{got}, [][]byte{want})
	}
}

// TestZeroUDPChecksum makes datagrams whose checksum comes out as zero, which UDP must send as 0xffff.
func TestZeroUDPChecksum(t *testing.T) {
	data := make([]byte, 200)
	s := spec{udp: true, ttl: 64, payload: data[:100]}
	at := 20 + 6
	copy(data, s.packet(t)[at:at+2]) // the checksum as data makes the new one zero
	want := s.packet(t)
	if want[at] != 0xff || want[at+1] != 0xff {
		t.Fatalf("checksum % x: the test tests nothing", want[at:at+2])
	}
	copy(data[100:], data)
	double := spec{udp: true, ttl: 64, payload: data}.packet(t)
	for name, c := range map[string]struct {
		h      Header
		packet []byte
	}{
		"alone": {Header{Flags: NeedsChecksum, CsumStart: 20, CsumField: 6}, bytes.Clone(want)},
		"cut":   {Header{Flags: NeedsChecksum, GSOType: gsoUDP, GSOSize: 100, CsumStart: 20, CsumField: 6}, double},
	} {
		store(c.packet[at:], fold(pseudo(c.packet, protoUDP, len(c.packet)-20)))
		var seg Segmenter
		if err := seg.Reset(c.h, c.packet); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, seg.Len())
		seg.Next(got)
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n% x, want\n% x", name, got, want)
		}
	}
}

// TestFlagsOfSegments follows FIN, PSH and CWR, which not every segment may carry.
func TestFlagsOfSegments(t *testing.T) {
	s := spec{ttl: 64, payload: payload(300, 1), flags: func(t *layers.TCP) { t.FIN, t.PSH, t.CWR, t.ECE = true, true, true, true }}
	var seg Segmenter
	if err := seg.Reset(Header{Flags: NeedsChecksum, GSOType: gsoTCPv4 | gsoECN, GSOSize: 100, CsumStart: 20, CsumField: 16}, s.packet(t)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for seg.Len() > 0 {
		b := make([]byte, seg.Len())
		seg.Next(b)
		got = append(got, b[33])
	}
	if want := []byte{0xd0, 0x50, 0x59}; !bytes.Equal(got, want) {
		t.Errorf("flags %x, want %x", got, want)
	}
}

func TestChecksumAgainstBytewise(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
			if n%3 == 0 {
				b[i] = 0xff
			}
		}
		var acc uint32
		for i := 0; i < n; i += 2 {
			acc += uint32(b[i]) << 8
			if i+1 < n {
				acc += uint32(b[i+1])
			}
		}
		for acc > 0xffff {
			acc = acc>>16 + acc&0xffff
		}
		if got := Checksum(b); got != ^uint16(acc) {
			t.Fatalf("%d bytes: %#x, want %#x", n, got, ^uint16(acc))
		}
	}
}

func TestMalformedHeader(t *testing.T) {
	good := segments(t, spec{ttl: 64}, 3000, 3000)[0]
	good6 := segments(t, spec{v6: true, ttl: 64}, 3000, 3000)[0]
	for name, c := range map[string]struct {
		h Header
		p []byte
	}{
		"empty":                   {Header{}, nil},
		"unknown type":            {Header{GSOType: 3, GSOSize: 100, CsumStart: 20}, good},
		"no size":                 {Header{GSOType: gsoTCPv4, CsumStart: 20}, good},
		"start beyond the packet": {Header{GSOType: gsoTCPv4, GSOSize: 100, CsumStart: 60000}, good},
		"start in the IP header":  {Header{GSOType: gsoTCPv4, GSOSize: 100, CsumStart: 12}, good},
		"TCPv6 in IPv4":           {Header{GSOType: gsoTCPv6, GSOSize: 100, CsumStart: 20}, good},
		"TCPv4 in IPv6":           {Header{GSOType: gsoTCPv4, GSOSize: 100, CsumStart: 40}, good6},
		"UDP that is TCP":         {Header{GSOType: gsoUDP, GSOSize: 100, CsumStart: 20}, good},
		"headers only":            {Header{GSOType: gsoTCPv4, GSOSize: 100, CsumStart: 20}, good[:40]},
		"checksum beyond":         {Header{Flags: NeedsChecksum, CsumStart: 3030, CsumField: 16}, good},
		"checksum wraps":          {Header{Flags: NeedsChecksum, CsumStart: 65530, CsumField: 65530}, good},
	} {
		if err := new(Segmenter).Reset(c.h, bytes.Clone(c.p)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSegment feeds what a kernel should not, but could, hand out.
func FuzzSegment(f *testing.F) {
	f.Add(uint8(1), uint8(1), uint16(100), uint16(20), uint16(16), segments(f, spec{ttl: 64}, 3000, 3000)[0])
	f.Add(uint8(1), uint8(4), uint16(100), uint16(40), uint16(16), segments(f, spec{v6: true, ttl: 64}, 3000, 3000)[0])
	f.Add(uint8(1), uint8(5), uint16(100), uint16(40), uint16(6), segments(f, spec{v6: true, udp: true, ttl: 64}, 3000, 3000)[0])
	f.Add(uint8(1), uint8(0), uint16(0), uint16(20), uint16(16), segments(f, spec{ttl: 64}, 30, 30)[0])
	f.Fuzz(func(t *testing.T, flags, kind uint8, size, start, field uint16, packet []byte) {
		if len(packet) > 65535 {
			return
		}
		var s Segmenter
		if s.Reset(Header{Flags: flags, GSOType: kind, GSOSize: size, CsumStart: start, CsumField: field}, bytes.Clone(packet)) != nil {
			if s.Len() != 0 {
				t.Fatal("a refused packet has a segment")
			}
			return
		}
		total, n := 0, 0
		for s.Len() > 0 {
			b := make([]byte, s.Len())
			if len(b) > s.Largest() {
				t.Fatalf("segment of %d bytes, largest is %d", len(b), s.Largest())
			}
			s.Next(b)
			total += len(b) - s.header
			n++
		}
		if n != s.Count() || total+s.header != len(packet) {
			t.Fatalf("%d segments of %d, %d bytes of %d", n, s.Count(), total, len(packet))
		}
	})
}

// FuzzCoalesce joins packets that differ from good ones as the fuzzer likes: cut again they must be what they were, flow by
// flow in order.
func FuzzCoalesce(f *testing.F) {
	f.Add([]byte{}, uint8(3))
	f.Add([]byte{0, 2, 4, 1, 1, 22, 30, 2, 2, 33, 8}, uint8(10))
	f.Add([]byte{5, 0, 6, 1}, uint8(129))
	f.Fuzz(func(t *testing.T, edits []byte, shape uint8) {
		s := spec{ttl: 64, v6: shape&1 != 0, udp: shape&2 != 0, fragment: shape&64 != 0}
		if shape&4 != 0 {
			s.options = timestamps
		}
		packets := segments(t, s, 700, 100)
		s.flow, s.udp = 1, false
		other := segments(t, s, 500, 100)
		for i, p := range other {
			at := min(len(packets), 2*i)
			packets = slices.Insert(packets, at, p)
		}
		for ; len(edits) >= 3; edits = edits[3:] {
			p := packets[int(edits[0])%len(packets)]
			p[int(edits[1])%len(p)] = edits[2]
		}
		var in [][]byte
		for _, p := range packets {
			// What the gateway lets through: headers within the packet, and the packet as long as it says.
			switch {
			case p[0]>>4 == 4 && p[0]&15 >= 5 && int(p[0]&15)*4 <= len(p) && int(binary.BigEndian.Uint16(p[2:])) == len(p):
			case p[0]>>4 == 6 && len(p) >= 40 && int(binary.BigEndian.Uint16(p[4:]))+40 == len(p):
			default:
				continue
			}
			in = append(in, p)
		}
		got := join(t, in).cut
		// Packets of different flows may change places: compare as multisets, and the order of each flow by its ports.
		flow := func(p []byte) string {
			if p[0]>>4 == 6 {
				return fmt.Sprintf("%x%x", p[6], p[8:min(44, len(p))])
			}
			return fmt.Sprintf("%x%x", p[9], p[12:min(24, len(p))])
		}
		byFlow := func(packets [][]byte) map[string][][]byte {
			m := map[string][][]byte{}
			for _, p := range packets {
				m[flow(p)] = append(m[flow(p)], p)
			}
			return m
		}
		a, b := byFlow(got), byFlow(in)
		if len(a) != len(b) {
			t.Fatalf("%d flows, want %d", len(a), len(b))
		}
		for k := range b {
			same(t, a[k], b[k])
		}
	})
}

func BenchmarkSegment(b *testing.B) {
	packet := segments(b, spec{ttl: 64, options: timestamps}, 44*1386, 44*1386)[0]
	h := Header{Flags: NeedsChecksum, GSOType: gsoTCPv4, GSOSize: 1386, CsumStart: 20, CsumField: 16}
	buf := make([]byte, 65535)
	b.SetBytes(int64(len(packet)))
	b.ReportAllocs()
	var s Segmenter
	for b.Loop() {
		if err := s.Reset(h, packet); err != nil {
			b.Fatal(err)
		}
		for n := s.Len(); n > 0; n = s.Len() {
			s.Next(buf[:n])
		}
	}
}

type discard struct{}

func (discard) Write(*Header, [][]byte) error { return nil }

func BenchmarkCoalesce(b *testing.B) {
	packets := segments(b, spec{ttl: 64, options: timestamps}, 44*1386, 1386)
	first := bytes.Clone(packets[0])
	b.SetBytes(44 * 1386)
	b.ReportAllocs()
	var c Coalescer
	for b.Loop() {
		copy(packets[0], first) // whose headers Flush changes
		for _, p := range packets {
			c.Add(p)
		}
		if _, err := c.Flush(discard{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	p := make([]byte, 1400)
	b.SetBytes(1400)
	for b.Loop() {
		Checksum(p)
	}
}
