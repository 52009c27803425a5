package falcon

import (
	"crypto/sha3"
	"encoding/binary"
	"math/bits"
)

// prng gives the sampler its random bytes: ChaCha20, keyed and read as the reference implementation does it, so that its
// signatures can be reproduced.
type prng struct {
	key     [12]uint32 // the last two words are a nonce that the counter is added to modulo 2
	counter uint64
	block   [8 * 64]byte // eight blocks, word by word
	at      int          // what was used of block
}

// seed keys p with the next 56 bytes of rng.
func (p *prng) seed(rng *sha3.SHAKE) {
	var seed [56]byte
	rng.Read(seed[:])
	for i := range p.key {
		p.key[i] = binary.LittleEndian.Uint32(seed[4*i:])
	}
	p.counter = binary.LittleEndian.Uint64(seed[48:])
	clear(seed[:])
	p.refill()
}

func (p *prng) refill() {
	for i := range 8 {
		p.chacha(p.block[4*i:])
		p.counter++
	}
	p.at = 0
}

// uint64 is the next 8 bytes. A rest of up to 9 bytes is thrown away.
func (p *prng) uint64() uint64 {
	if p.at >= len(p.block)-9 {
		p.refill()
	}
	x := binary.LittleEndian.Uint64(p.block[p.at:])
	p.at += 8
	return x
}

func (p *prng) uint8() uint8 {
	x := p.block[p.at]
	if p.at++; p.at == len(p.block) {
		p.refill()
	}
	return x
}

// The constants that ChaCha20 begins with: "expand 32-byte k".
const (
	chacha0 = 0x61707865
	chacha1 = 0x3320646e
	chacha2 = 0x79622d32
	chacha3 = 0x6b206574
)

// chacha writes the 16 words of the block of p.counter to dst, each 32 bytes after the one before.
func (p *prng) chacha(dst []byte) {
	k := &p.key
	low, high := k[10]^uint32(p.counter), k[11]^uint32(p.counter>>32)
	x0, x1, x2, x3 := uint32(chacha0), uint32(chacha1), uint32(chacha2), uint32(chacha3)
	x4, x5, x6, x7 := k[0], k[1], k[2], k[3]
	x8, x9, x10, x11 := k[4], k[5], k[6], k[7]
	x12, x13, x14, x15 := k[8], k[9], low, high
	for range 10 {
		x0, x4, x8, x12 = quarterRound(x0, x4, x8, x12)
		x1, x5, x9, x13 = quarterRound(x1, x5, x9, x13)
		x2, x6, x10, x14 = quarterRound(x2, x6, x10, x14)
		x3, x7, x11, x15 = quarterRound(x3, x7, x11, x15)
		x0, x5, x10, x15 = quarterRound(x0, x5, x10, x15)
		x1, x6, x11, x12 = quarterRound(x1, x6, x11, x12)
		x2, x7, x8, x13 = quarterRound(x2, x7, x8, x13)
		x3, x4, x9, x14 = quarterRound(x3, x4, x9, x14)
	}
	_ = dst[15*32+3]
	le := binary.LittleEndian
	le.PutUint32(dst[0*32:], x0+chacha0)
	le.PutUint32(dst[1*32:], x1+chacha1)
	le.PutUint32(dst[2*32:], x2+chacha2)
	le.PutUint32(dst[3*32:], x3+chacha3)
	le.PutUint32(dst[4*32:], x4+k[0])
	le.PutUint32(dst[5*32:], x5+k[1])
	le.PutUint32(dst[6*32:], x6+k[2])
	le.PutUint32(dst[7*32:], x7+k[3])
	le.PutUint32(dst[8*32:], x8+k[4])
	le.PutUint32(dst[9*32:], x9+k[5])
	le.PutUint32(dst[10*32:], x10+k[6])
	le.PutUint32(dst[11*32:], x11+k[7])
	le.PutUint32(dst[12*32:], x12+k[8])
	le.PutUint32(dst[13*32:], x13+k[9])
	le.PutUint32(dst[14*32:], x14+low)
	le.PutUint32(dst[15*32:], x15+high)
}

func quarterRound(a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	a += b
	d = bits.RotateLeft32(d^a, 16)
	c += d
	b = bits.RotateLeft32(b^c, 12)
	a += b
	d = bits.RotateLeft32(d^a, 8)
	c += d
	b = bits.RotateLeft32(b^c, 7)
	return a, b, c, d
}
