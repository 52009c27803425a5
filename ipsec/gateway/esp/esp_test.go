package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
)

var (
	testKey  = [32]byte{1, 2, 3, 31: 9}
	testSalt = [4]byte{0xca, 0xfe, 0xba, 0xbe}
)

const testSPI = 0xdeadbeef

// gcm seals or opens with nothing of this package: RFC 4106 by hand.
func gcm(t testing.TB, seq uint64, iv []byte) (aead cipher.AEAD, nonce, aad []byte) {
	t.Helper()
	block, err := aes.NewCipher(testKey[:])
	if err != nil {
		t.Fatal(err)
	}
	if aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	nonce = append(bytes.Clone(testSalt[:]), iv...)
	aad = binary.BigEndian.AppendUint32(nil, testSPI)
	aad = binary.BigEndian.AppendUint32(aad, uint32(seq>>32))
	aad = binary.BigEndian.AppendUint32(aad, uint32(seq))
	return aead, nonce, aad
}

// handmade is an ESP packet around plain, which has its padding and trailer.
func handmade(t testing.TB, seq uint64, plain []byte) []byte {
	iv := []byte{8, 7, 6, 5, 4, 3, byte(seq >> 8), byte(seq)} // not as Seal chooses it
	aead, nonce, aad := gcm(t, seq, iv)
	packet := binary.BigEndian.AppendUint32(nil, testSPI)
	packet = binary.BigEndian.AppendUint32(packet, uint32(seq))
	packet = append(packet, iv...)
	return aead.Seal(packet, nonce, plain, aad)
}

func newPair(t testing.TB, seq uint64) (*Sealer, *Opener) {
	t.Helper()
	s, err := NewSealer(testSPI, &testKey, testSalt, seq)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(testSPI, &testKey, testSalt, 4096, seq)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func inner(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func seal(t testing.TB, s *Sealer, payload []byte, next byte) []byte {
	t.Helper()
	buf := make([]byte, Size(len(payload)))
	copy(buf[Offset:], payload)
	if err := s.Seal(buf, len(payload), next); err != nil {
		t.Fatal(err)
	}
	return buf
}

func TestSealIsRFC4106(t *testing.T) {
	for _, start := range []uint64{0, 1, 1<<32 - 2, 1<<32 - 1, 1 << 40, math.MaxUint64 - 3} {
		s, _ := newPair(t, start)
		for i, n := range []int{0, 1, 1420} {
			seq := start + uint64(i) + 1
			packet := seal(t, s, inner(n), IPv6)
			if got := binary.BigEndian.Uint32(packet); got != testSPI {
				t.Fatalf("SPI %#x", got)
			}
			if got := binary.BigEndian.Uint32(packet[4:]); got != uint32(seq) {
				t.Fatalf("sequence number %d on the wire, want low half of %d", got, seq)
			}
			aead, nonce, aad := gcm(t, seq, packet[8:16])
			plain, err := aead.Open(nil, nonce, packet[16:], aad)
			if err != nil {
				t.Fatalf("number %d: %v", seq, err)
			}
			want := inner(n)
			pad := (4 - (n+2)%4) % 4
			for i := range pad {
				want = append(want, byte(i+1))
			}
			if want = append(want, byte(pad), IPv6); !bytes.Equal(plain, want) {
				t.Errorf("%d bytes: plaintext\n%x, want\n%x", n, plain, want)
			}
		}
	}
}

func TestNonceNeverRepeats(t *testing.T) {
	s, _ := newPair(t, 1<<32-500)
	seen := map[string]bool{}
	for range 1000 {
		iv := string(seal(t, s, nil, None)[8:16])
		if seen[iv] {
			t.Fatalf("IV %x twice", iv)
		}
		seen[iv] = true
	}
}

func TestSizes(t *testing.T) {
	for n := range 3000 {
		if size := Size(n); size%4 != 0 || size < 8+8+n+2+16 || size > 8+8+n+2+3+16 {
			t.Fatalf("Size(%d) = %d", n, size)
		}
		if n >= 60 {
			if room := Room(n); Size(room) > n || Size(room+1) <= n {
				t.Fatalf("Room(%d) = %d, of size %d", n, room, Size(room))
			}
		}
	}
}

func TestOpen(t *testing.T) {
	trailer := func(payload []byte, pad int, next byte) []byte {
		for i := range pad {
			payload = append(payload, byte(i+1))
		}
		return append(payload, byte(pad), next)
	}
	wrong := func(at int) []byte {
		b := trailer(inner(20), 6, IPv4)
		b[20+at] ^= 0x40
		return b
	}
	for _, c := range []struct {
		name  string
		plain []byte
		want  Payload
		err   error
	}{
		{"IPv4", trailer(inner(20), 2, IPv4), Payload{Inner: inner(20), Next: IPv4}, nil},
		{"IPv6, no padding", trailer(inner(42), 0, IPv6), Payload{Inner: inner(42), Next: IPv6}, nil},
		{"longest padding", trailer(inner(23), 255, IPv4), Payload{Inner: inner(23), Next: IPv4}, nil},
		{"dummy", trailer(inner(50), 0, None), Payload{Inner: inner(50), Next: None}, nil},
		{"only a trailer", trailer(nil, 2, IPv4), Payload{Inner: []byte{}, Next: IPv4}, nil},
		{"padding beyond the start", append(inner(2), 200, IPv4), Payload{Next: IPv4}, ErrMalformed},
		{"first pad byte", wrong(0), Payload{Next: IPv4}, ErrMalformed},
		{"last pad byte", wrong(5), Payload{Next: IPv4}, ErrMalformed},
		{"next header TCP", trailer(inner(20), 2, 6), Payload{Next: 6}, ErrMalformed},
		{"next header 0", trailer(inner(20), 2, 0), Payload{Next: 0}, ErrMalformed},
		{"not a multiple of 4", trailer(inner(21), 2, IPv4), Payload{}, ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, o := newPair(t, 0)
			got, err := o.Open(handmade(t, 1, c.plain))
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if len(c.plain)%4 == 0 {
				c.want.Len = len(c.plain)
				if o.Seq() != 1 {
					t.Error("an authentic packet did not move the window")
				}
			} else if o.Seq() != 0 {
				t.Error("a packet that is no ESP moved the window")
			}
			if !bytes.Equal(got.Inner, c.want.Inner) || got.Next != c.want.Next || got.Len != c.want.Len {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	s, o := newPair(t, 5000)
	packet := seal(t, s, inner(61), IPv4)
	for bit := range len(packet) * 8 {
		forged := bytes.Clone(packet)
		forged[bit/8] ^= 1 << (bit % 8)
		if bit/8 < 4 {
			// Whoever calls has found the SA by its SPI; the SPI is authenticated as the SA's own.
			continue
		}
		if p, err := o.Open(forged); err == nil || p.Len != 0 {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
	if o.Seq() != 5000 {
		t.Errorf("forged packets moved the window to %d", o.Seq())
	}
	other, err := NewOpener(testSPI^1, &testKey, testSalt, 64, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(bytes.Clone(packet)); !errors.Is(err, ErrIntegrity) {
		t.Errorf("another SA's SPI with the same key: %v", err)
	}
	if _, err := o.Open(packet); err != nil {
		t.Errorf("the packet itself: %v", err)
	}
	if _, err := o.Open(packet); !errors.Is(err, ErrReplay) {
		t.Errorf("the packet again: %v", err)
	}
}

func TestTruncated(t *testing.T) {
	s, o := newPair(t, 0)
	packet := seal(t, s, inner(61), IPv4)
	for n := range packet {
		if _, err := o.Open(bytes.Clone(packet[:n])); err == nil {
			t.Fatalf("%d of %d bytes were accepted", n, len(packet))
		}
	}
	if _, err := o.Open(append(bytes.Clone(packet), 0, 0, 0, 0)); !errors.Is(err, ErrIntegrity) {
		t.Errorf("with 4 bytes more: %v", err)
	}
}

func TestSequenceWrapsTheWire(t *testing.T) {
	const start = 1<<32 - 100
	s, o := newPair(t, start)
	var packets [][]byte
	for range 200 {
		packets = append(packets, seal(t, s, inner(40), IPv4))
	}
	// In blocks of 8 from the last to the first, so that the high half goes back and forth.
	for i := 0; i < len(packets); i += 8 {
		block := packets[i:min(i+8, len(packets))]
		slices.Reverse(block)
		for _, p := range block {
			if _, err := o.Open(bytes.Clone(p)); err != nil {
				t.Fatalf("block %d: %v", i, err)
			}
		}
	}
	if o.Seq() != start+200 {
		t.Errorf("window at %d, want %d", o.Seq(), uint64(start+200))
	}
	for _, p := range packets {
		if _, err := o.Open(bytes.Clone(p)); !errors.Is(err, ErrReplay) {
			t.Fatalf("again: %v", err)
		}
	}
}

func TestLeftOfTheWindow(t *testing.T) {
	for _, start := range []uint64{0, 1<<32 - 100} {
		s, o := newPair(t, start)
		old := seal(t, s, inner(40), IPv4)
		unseen := seal(t, s, inner(40), IPv4)
		if _, err := o.Open(bytes.Clone(old)); err != nil {
			t.Fatal(err)
		}
		for range 5000 {
			if _, err := o.Open(seal(t, s, nil, IPv4)); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range [][]byte{old, unseen} {
			if _, err := o.Open(p); !errors.Is(err, ErrReplay) {
				t.Errorf("after %d: %v", start, err)
			}
		}
		forged := seal(t, s, nil, IPv4)
		forged[20] ^= 1
		if _, err := o.Open(forged); !errors.Is(err, ErrIntegrity) {
			t.Errorf("a forged packet with the next number: %v", err)
		}
	}
}

func TestExhausted(t *testing.T) {
	s, _ := newPair(t, math.MaxUint64-1)
	seal(t, s, nil, None)
	if err := s.Seal(make([]byte, Size(0)), 0, None); !errors.Is(err, ErrExhausted) {
		t.Errorf("one packet too many: %v", err)
	}
	if s.Seq() != math.MaxUint64 {
		t.Errorf("number %d", s.Seq())
	}
}

// FuzzOpen feeds what a stranger may send.
func FuzzOpen(f *testing.F) {
	s, _ := newPair(f, 0)
	first, second := seal(f, s, inner(40), IPv4), seal(f, s, inner(44), IPv6)
	f.Add(first)
	f.Add(second)
	f.Add([]byte{})
	f.Add(make([]byte, minLen))
	f.Fuzz(func(t *testing.T, packet []byte) {
		_, o := newPair(t, 0)
		if _, err := o.Open(bytes.Clone(packet)); err == nil {
			// Only the seeds can be authentic, as nobody else has the key. The SPI is for the caller to read.
			if !bytes.Equal(packet[4:], first[4:]) && !bytes.Equal(packet[4:], second[4:]) {
				t.Fatal("forged")
			}
		}
	})
}

// FuzzPayload feeds what a peer that has the key may send.
func FuzzPayload(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 1, 2, 2, 4})
	f.Add([]byte{0, 0, 255, 41})
	f.Fuzz(func(t *testing.T, plain []byte) {
		_, o := newPair(t, 0)
		p, err := o.Open(handmade(t, 1, bytes.Clone(plain)))
		if err != nil {
			return
		}
		n := len(plain)
		pad := int(plain[n-2])
		if p.Len != n || p.Next != plain[n-1] || !bytes.Equal(p.Inner, plain[:n-2-pad]) {
			t.Fatalf("%x gave %+v", plain, p)
		}
	})
}

var sizes = []int{64, 256, 576, 1024, 1420, 8192}

func BenchmarkSeal(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, _ := newPair(b, 0)
			buf := make([]byte, Size(n))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Seal(buf, n, IPv4); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, o := newPair(b, 0)
			packet := seal(b, s, inner(n), IPv4)
			buf := make([]byte, len(packet))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, packet)
				o.window.top, o.window.ring[0] = 0, 1 // or it would be a replay
				if _, err := o.Open(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
