package falcon

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// A bit a byte, as the specification writes them.
type bitString []byte

func (b bitString) add(value, width int) bitString {
	for i := width - 1; i >= 0; i-- {
		b = append(b, byte(value>>i&1))
	}
	return b
}

// coefficient adds sign, low bits and unary as told, canonical or not.
func (b bitString) coefficient(sign, low, high int) bitString {
	return b.add(sign, 1).add(low, 7).add(0, high).add(1, 1)
}

func (b bitString) bytes() []byte {
	out := make([]byte, (len(b)+7)/8)
	for i, bit := range b {
		out[i/8] |= bit << (7 - i%8)
	}
	return out
}

// naiveCompress and naiveDecompress are Falcon spec algorithms 17 and 18, bit by bit.
func naiveCompress(s2 []int16) []byte {
	var b bitString
	for _, s := range s2 {
		sign, magnitude := 0, int(s)
		if s < 0 {
			sign, magnitude = 1, -int(s)
		}
		b = b.coefficient(sign, magnitude%128, magnitude/128)
	}
	return b.bytes()
}

func naiveDecompress(n int, src []byte) ([]int16, int) {
	s2 := make([]int16, n)
	at, ended := 0, false
	next := func() int {
		if at >= 8*len(src) {
			ended = true
			return 1
		}
		bit := src[at/8] >> (7 - at%8) & 1
		at++
		return int(bit)
	}
	for i := range s2 {
		sign, magnitude := next(), 0
		for range 7 {
			magnitude = magnitude<<1 | next()
		}
		for next() == 0 {
			magnitude += 128
		}
		if ended || magnitude > 2047 || magnitude == 0 && sign == 1 {
			return nil, 0
		}
		if s2[i] = int16(magnitude); sign == 1 {
			s2[i] = -s2[i]
		}
	}
	for at%8 != 0 {
		if next() == 1 {
			return nil, 0
		}
	}
	return s2, at / 8
}

func TestCompress(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		s2 := make([]int16, 1+random.IntN(40))
		width := 1 << random.IntN(12)
		for i := range s2 {
			s2[i] = int16(random.IntN(2*width-1) - width + 1)
		}
		want := naiveCompress(s2)
		dst := make([]byte, len(want)+3)
		for size := range dst {
			got := compress(dst[:size], s2)
			if size < len(want) && got != 0 {
				t.Fatalf("%v: %d bytes went into %d", s2, len(want), size)
			}
			if size >= len(want) && !bytes.Equal(dst[:got], want) {
				t.Fatalf("%v is %x, not %x", s2, dst[:got], want)
			}
		}
		back := make([]int16, len(s2))
		if n := decompress(back, want); n != len(want) || !slices.Equal(back, s2) {
			t.Fatalf("%x is %v, not %v", want, back, s2)
		}
		if n := decompress(back, append(want, 0xff)); n != len(want) {
			t.Fatalf("%x and more: %d bytes", want, n)
		}
		for size := range want {
			if n := decompress(back, want[:size]); n != 0 {
				t.Fatalf("%x: %d bytes are enough", want, size)
			}
		}
	}
	for _, s := range []int16{2048, -2048, 32767, -32768} {
		if n := compress(make([]byte, 100), []int16{1, s}); n != 0 {
			t.Errorf("%d is compressed to %d bytes", s, n)
		}
	}
}

func TestDecompressIsCanonical(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		bits bitString
		good bool
	}{
		"zeros":                     {bitString{}.coefficient(0, 0, 0).coefficient(0, 0, 0), true},
		"the largest":               {bitString{}.coefficient(0, 127, 15).coefficient(1, 127, 15), true},
		"minus zero":                {bitString{}.coefficient(1, 0, 0).coefficient(0, 0, 0), false},
		"minus zero at the end":     {bitString{}.coefficient(0, 5, 0).coefficient(1, 0, 0), false},
		"minus 128":                 {bitString{}.coefficient(1, 0, 1).coefficient(0, 0, 0), true},
		"unary of 16":               {bitString{}.coefficient(0, 0, 16).coefficient(0, 0, 0), false},
		"unary of 60":               {bitString{}.coefficient(0, 1, 0).coefficient(0, 0, 60), false},
		"unary without end":         {bitString{}.coefficient(0, 1, 0).add(3, 8).add(0, 6), false},
		"no unary":                  {bitString{}.coefficient(0, 1, 0).add(3, 7), false},
		"padding with its last bit": {bitString{}.coefficient(0, 1, 0).coefficient(0, 1, 0).add(1, 6), false},
		"padding with its first":    {bitString{}.coefficient(0, 1, 0).coefficient(0, 1, 0).add(32, 6), false},
		"another byte":              {bitString{}.coefficient(0, 1, 0).coefficient(0, 1, 0).add(1, 14), true},
		"no padding":                {bitString{}.coefficient(0, 1, 6).coefficient(0, 1, 0).add(255, 8), true},
	} {
		s2 := make([]int16, 2)
		n := decompress(s2, one.bits.bytes())
		if one.good != (n != 0) {
			t.Errorf("%s: %d bytes read", name, n)
		}
		want, size := naiveDecompress(2, one.bits.bytes())
		if n != size || n != 0 && !slices.Equal(s2, want) {
			t.Errorf("%s: %v in %d bytes, not %v in %d", name, s2, n, want, size)
		}
	}
}

func TestSignedCodec(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 8))
	for _, width := range []int{5, 6, 8} {
		limit := 1<<(width-1) - 1
		src, dst := make([]int8, 64), make([]int8, 64)
		encoded := make([]byte, 64*width/8)
		for range 200 {
			var b bitString
			for i := range src {
				src[i] = int8(random.IntN(2*limit+1) - limit)
				b = b.add(int(src[i]), width)
			}
			encodeSigned(encoded, src, width)
			if !bytes.Equal(encoded, b.bytes()) {
				t.Fatalf("%d bits: %v is %x", width, src, encoded)
			}
			if !decodeSigned(dst, encoded, width) || !slices.Equal(dst, src) {
				t.Fatalf("%d bits: %x is %v", width, encoded, dst)
			}
		}
		for i := range src {
			clear(encoded)
			encoded[i*width/8] = 0x80 >> (i * width % 8) // the sign without the rest
			if decodeSigned(dst, encoded, width) {
				t.Errorf("%d bits: coefficient %d may be %d", width, i, dst[i])
			}
		}
	}
}

func TestModQCodec(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		for i := 0; i < int(d); i += 7 { // every place of a group of four
			for _, value := range []int{q - 1, q, 1<<14 - 1} {
				b := bitString{}.add(int(d.logn()), 8)
				for j := range int(d) {
					if j == i {
						b = b.add(value, 14)
					} else {
						b = b.add(j*5, 14)
					}
				}
				key, err := NewPublicKey(d, b.bytes())
				if value >= q {
					if !errors.Is(err, ErrPublicKey) {
						t.Fatalf("coefficient %d may be %d: %v", i, value, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				h := make([]uint16, d)
				transformed := slices.Clone(key.h)
				transformBack(transformed)
				for j := range h {
					h[j] = uint16(transformed[j])
				}
				if h[i] != uint16(value) {
					t.Fatalf("coefficient %d is %d", i, h[i])
				}
				var again PublicKey
				again.set(d, h)
				if !bytes.Equal(again.Bytes(), b.bytes()) || !slices.Equal(again.h, key.h) {
					t.Fatalf("coefficient %d: encoded differently", i)
				}
			}
		}
	})
}
