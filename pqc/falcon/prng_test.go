package falcon

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/crypto/chacha20"
)

// Each block is ChaCha20's, with the counter in the last two words of the state and a fixed nonce before it.
func TestPRNGIsChaCha20(t *testing.T) {
	t.Parallel()
	var seed [56]byte
	shake([]byte("prng")).Read(seed[:])
	seed[48], seed[49], seed[50], seed[51] = 0xfb, 0xff, 0xff, 0xff // the counter's lower word overflows soon
	counter := binary.LittleEndian.Uint64(seed[48:])

	p := prng{counter: counter}
	for i := range p.key {
		p.key[i] = binary.LittleEndian.Uint32(seed[4*i:])
	}
	for range 3 {
		p.refill()
		for i := range 8 {
			got := make([]byte, 64)
			for word := range 16 {
				copy(got[4*word:], p.block[32*word+4*i:][:4])
			}
			// RFC 8439 has the counter where the reference implementation has a part of the nonce.
			nonce := bytes.Clone(seed[36:48])
			for j := range 8 {
				nonce[4+j] ^= byte(counter >> (8 * j))
			}
			c, err := chacha20.NewUnauthenticatedCipher(seed[:32], nonce)
			if err != nil {
				t.Fatal(err)
			}
			c.SetCounter(binary.LittleEndian.Uint32(seed[32:]))
			want := make([]byte, 64)
			c.XORKeyStream(want, want)
			if !bytes.Equal(got, want) {
				t.Fatalf("block %d is %x, want %x", i, got, want)
			}
			counter++
		}
	}
}

// Numbers of 8 and of 1 byte are read in order. One of 8 bytes does not begin within the last 9 of what there is.
func TestPRNGReads(t *testing.T) {
	t.Parallel()
	var first, next prng
	first.seed(shake(nil))
	next.seed(shake(nil))
	next.refill()
	bytes := slices.Concat(first.block[:], next.block[:])
	for skip := range len(first.block) + 20 {
		var p prng
		p.seed(shake(nil))
		for i := range skip {
			if got := p.uint8(); got != bytes[i] {
				t.Fatalf("byte %d is %#x, want %#x", i, got, bytes[i])
			}
		}
		want := bytes[skip:]
		if skip >= 512-9 && skip < 512 {
			want = bytes[512:]
		}
		if got, want := p.uint64(), binary.LittleEndian.Uint64(want); got != want {
			t.Fatalf("8 bytes after %d are %#x, want %#x", skip, got, want)
		}
		if got, want := p.uint8(), want[8]; got != want {
			t.Fatalf("the byte after 8 after %d is %#x, want %#x", skip, got, want)
		}
	}
}
