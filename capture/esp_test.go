package capture

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// espFrame is a frame of ESP packets, one after the other, each of size bytes but the last, made by another library.
func espFrame(t testing.TB, r *rand.Rand, dst string, udp bool, spi, seq uint32, size, last, n int) (frame []byte, packets [][]byte) {
	t.Helper()
	for i := range n {
		p := make([]byte, size)
		if i == n-1 {
			p = p[:last]
		}
		for j := range p {
			p[j] = byte(r.Uint32())
		}
		binary.BigEndian.PutUint32(p, spi)
		binary.BigEndian.PutUint32(p[4:], seq+uint32(i))
		packets = append(packets, p)
	}
	return wrap(t, dst, udp, 7, bytes.Join(packets, nil)), packets
}

// wrap puts a payload into UDP, or protocol 50, over IP to dst.
func wrap(t testing.TB, dst string, udp bool, id uint16, payload []byte) []byte {
	t.Helper()
	to := netip.MustParseAddr(dst)
	eth := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6)}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	proto := layers.IPProtocolESP
	if udp {
		proto = layers.IPProtocolUDP
	}
	if to.Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Id: id, Protocol: proto, SrcIP: []byte{10, 0, 0, 1}, DstIP: to.AsSlice()}
		eth.EthernetType, ip, network = layers.EthernetTypeIPv4, v4, v4
	} else {
		src := netip.MustParseAddr("fd00::1")
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: to.AsSlice()}
		eth.EthernetType, ip, network = layers.EthernetTypeIPv6, v6, v6
	}
	stack := []gopacket.SerializableLayer{eth, ip}
	if udp {
		u := &layers.UDP{SrcPort: 4500, DstPort: 4500}
		if err := u.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
		stack = append(stack, u)
	}
	out := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(stack, gopacket.Payload(payload))...)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(out.Bytes())
}

// none knows of no rekey.
func none(destination) uint32 { return 0 }

// Keys that change in the middle of a datagram do not keep it from being cut, wherever they change.
func TestCutAtARekey(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(11, 12))
	next := func(d destination) uint32 {
		if d == (destination{netip.MustParseAddr("10.0.0.2"), 0x1234}) {
			return 0x5678
		}
		return 0
	}
	for change := 1; change < 5; change++ {
		_, old := espFrame(t, r, "10.0.0.2", true, 0x1234, 70_000, 100, 100, change)
		_, now := espFrame(t, r, "10.0.0.2", true, 0x5678, 1, 100, 60, 5-change)
		payload := bytes.Join(append(old, now...), nil)
		frame := wrap(t, "10.0.0.2", true, 7, payload)
		if got := cut(frame, next); len(got) != 5 {
			t.Errorf("after %d: cut into %d", change, len(got))
		}
		if got := cut(wrap(t, "10.0.0.3", true, 7, payload), next); got != nil {
			t.Errorf("after %d: cut by another node's keys", change)
		}
	}
}

// What is cut is, bit by bit and with its checksums, what another library makes of each packet alone.
func TestCut(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for _, dst := range []string{"10.0.0.2", "fd00::2"} {
		for range 200 {
			size := espLeast + r.IntN(1500)
			n := 2 + r.IntN(min(40, 60000/size))
			if n*size > 65000 {
				n = 2
			}
			last := espLeast + r.IntN(size-espLeast+1)
			frame, packets := espFrame(t, r, dst, true, r.Uint32()|256, r.Uint32(), size, last, n)
			got := cut(frame, none)
			if len(got) != n {
				t.Fatalf("%d packets of %d bytes and one of %d: cut into %d", n-1, size, last, len(got))
			}
			for i, p := range packets {
				if want := wrap(t, dst, true, 7+uint16(i), p); !bytes.Equal(got[i], want) {
					t.Fatalf("packet %d of %d, %d bytes:\n%x\nwant\n%x", i, n, len(p), got[i], want)
				}
			}
		}
	}
}

// One packet is one packet, and so is what only looks like many.
func TestNoCut(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	one, _ := espFrame(t, r, "10.0.0.2", true, 0x1234, 1, 9000, 9000, 1)
	two, packets := espFrame(t, r, "10.0.0.2", true, 0x1234, 1, 100, 100, 2)
	backwards := wrap(t, "10.0.0.2", true, 7, bytes.Join([][]byte{packets[1], packets[0]}, nil))
	other := wrap(t, "10.0.0.2", true, 7, bytes.Join([][]byte{packets[0], append([]byte{1, 2, 3, 4}, packets[1][4:]...)}, nil))
	far := slices.Clone(packets[1])
	far[5] += 2 // 2^17
	jump := wrap(t, "10.0.0.2", true, 7, bytes.Join([][]byte{packets[0], far}, nil))
	raw, _ := espFrame(t, r, "10.0.0.2", false, 0x1234, 1, 100, 100, 2)
	marker := wrap(t, "10.0.0.2", true, 7, make([]byte, 300))
	for name, frame := range map[string][]byte{
		"one": one, "backwards": backwards, "another SPI": other, "a jump": jump, "protocol 50": raw, "not ESP": marker, "short": two[:60],
		"rest": two[:len(two)-1], "padded": append(slices.Clone(two), 0), "nothing": nil,
	} {
		if got := cut(frame, none); got != nil {
			t.Errorf("%s: cut into %d", name, len(got))
		}
	}
	if got := cut(two, none); len(got) != 2 {
		t.Errorf("two: cut into %d", len(got))
	}
}

// A frame without UDP checksum gets none.
func TestCutWithoutChecksum(t *testing.T) {
	t.Parallel()
	frame, _ := espFrame(t, rand.New(rand.NewPCG(5, 6)), "10.0.0.2", true, 0x1234, 1, 100, 60, 3)
	clear(frame[40:42])
	for i, b := range cut(frame, none) {
		if b[40]|b[41] != 0 {
			t.Errorf("frame %d has a checksum", i)
		}
	}
}

// Any two ways to add the same bytes agree.
func TestAdd(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		b := make([]byte, r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32() | r.Uint32()) // many ones
		}
		var sum uint64
		for i, x := range b {
			if i%2 == 0 {
				sum += uint64(x) << 8
			} else {
				sum += uint64(x)
			}
		}
		begin := uint64(r.Uint32())
		if got, want := fold(add(begin, b)), fold(sum+begin); got != want {
			t.Fatalf("%x: %#x, want %#x", b, got, want)
		}
	}
}

// FuzzCut: whatever comes, it does not fail, and what it cuts gives back every byte.
func FuzzCut(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, dst := range []string{"10.0.0.2", "fd00::2"} {
		frame, _ := espFrame(f, r, dst, true, 0x1234, 1, 60, 40, 3)
		f.Add(frame)
		raw, _ := espFrame(f, r, dst, false, 0x1234, 1, 60, 40, 1)
		f.Add(raw)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, ok := espOf(b)
		frames := cut(slices.Clone(b), none)
		if frames == nil {
			return
		}
		if !ok || len(frames) < 2 {
			t.Fatal("cut what is no ESP")
		}
		var joined []byte
		for _, one := range frames {
			each, ok := espOf(one)
			if !ok || each.spi != o.spi || each.dst != o.dst {
				t.Fatalf("a piece is another's: %+v of %+v", each, o)
			}
			joined = append(joined, one[o.esp:]...)
		}
		if !bytes.Equal(joined, b[o.esp:]) {
			t.Fatal("bytes are missing")
		}
	})
}
