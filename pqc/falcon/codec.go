package falcon

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// The first byte of an encoding is one of these plus the degree's logarithm (Falcon spec 3.11.1, 3.11.3 to 3.11.5).
const (
	headerPublic    = 0x00
	headerPrivate   = 0x50
	headerSignature = 0x30
)

// maxCoefficient is the largest absolute value in a signature: four bits of unary and seven of binary.
const maxCoefficient = 2047

// maxSignatureSize is more than any signature of degree d has that compress writes without padding.
func (d Degree) maxSignatureSize() int { return d.pick(752, 1462) }

// compress writes s2 as Falcon spec 3.11.2 says to the begin of dst, pads the byte that was begun with zero bits and returns the
// number of bytes. It returns 0 if dst is too short or a coefficient is outside [-2047, 2047].
func compress(dst []byte, s2 []int16) int {
	var acc uint64 // the last bits, fewer than 8 of them before each coefficient
	held, n := 0, 0
	for _, s := range s2 {
		sign := uint64(uint16(s) >> 15)
		magnitude := uint64(s)
		if sign == 1 {
			magnitude = uint64(-int(s))
		}
		if magnitude > maxCoefficient {
			return 0
		}
		// The sign, the seven low bits, as many zeros as the high bits say, a one.
		length := 9 + int(magnitude>>7)
		acc = acc<<length | (sign<<7|magnitude&127)<<(length-8) | 1
		for held += length; held >= 8; n++ {
			held -= 8
			if n == len(dst) {
				return 0
			}
			dst[n] = byte(acc >> held)
		}
	}
	if held > 0 {
		if n == len(dst) {
			return 0
		}
		dst[n] = byte(acc << (8 - held))
		n++
	}
	return n
}

// decompress reads len(s2) coefficients from the begin of src and returns the number of bytes that they take. There is only one
// encoding of each: it returns 0 for a zero with a sign, a coefficient outside [-2047, 2047], bits that are not zero
// after the last coefficient in its byte, and if src ends too early. Not constant in time: signatures are public.
func decompress(s2 []int16, src []byte) int {
	var acc uint64 // what was read and not yet used, from the highest bit on; zeros below
	held, n := 0, 0
	for i := range s2 {
		if held < 32 { // a coefficient has up to 24 bits
			if len(src)-n >= 4 {
				acc |= uint64(binary.BigEndian.Uint32(src[n:])) << (32 - held)
				held, n = held+32, n+4
			} else {
				for ; n < len(src); n++ {
					acc |= uint64(src[n]) << (56 - held)
					held += 8
				}
			}
		}
		// The one that ends the zeros was read: what was not is zeros, and they are too many.
		high := bits.LeadingZeros64(acc << 8)
		if high > maxCoefficient>>7 {
			return 0
		}
		magnitude := int16(high<<7) | int16(acc>>56&127)
		sign := int16(int64(acc) >> 63)
		if magnitude == 0 && sign != 0 {
			return 0
		}
		s2[i] = magnitude ^ sign - sign
		acc <<= 9 + high
		held -= 9 + high
	}
	n -= held / 8
	if acc>>56>>(8-held%8) != 0 {
		return 0
	}
	return n
}

// NewPublicKey reads an encoded public key, of PublicKeySize bytes, and does not keep b. It fails with ErrDegree or
// ErrPublicKey.
func NewPublicKey(d Degree, b []byte) (*PublicKey, error) {
	if err := checkEncoding(d, ErrPublicKey, b, d.PublicKeySize(), headerPublic); err != nil {
		return nil, err
	}
	p := &PublicKey{degree: d, encoded: append([]byte(nil), b...), h: make([]uint32, d)}
	if !decodeModQ(p.h, b[1:]) {
		return nil, fmt.Errorf("%w: a coefficient is not less than %d", ErrPublicKey, q)
	}
	p.prepare()
	return p, nil
}

// prepare transforms h, once for all verifications.
func (p *PublicKey) prepare() {
	transform(p.h)
	for i := range p.h {
		p.h[i] = reduce(p.h[i])
	}
}

func (p *PublicKey) set(d Degree, h []uint16) {
	p.degree = d
	p.encoded = make([]byte, d.PublicKeySize())
	p.encoded[0] = headerPublic + byte(d.logn())
	encodeModQ(p.encoded[1:], h)
	p.h = make([]uint32, d)
	for i := range h {
		p.h[i] = uint32(h[i])
	}
	p.prepare()
}

// encodeModQ writes 14 bits for each of h, the highest first; len(h) is a multiple of 4.
func encodeModQ(dst []byte, h []uint16) {
	for len(h) >= 4 {
		x := uint64(h[0])<<42 | uint64(h[1])<<28 | uint64(h[2])<<14 | uint64(h[3])
		dst[0], dst[1], dst[2], dst[3] = byte(x>>48), byte(x>>40), byte(x>>32), byte(x>>24)
		dst[4], dst[5], dst[6] = byte(x>>16), byte(x>>8), byte(x)
		dst, h = dst[7:], h[4:]
	}
}

// decodeModQ undoes encodeModQ, and reports whether all are less than q.
func decodeModQ(h []uint32, src []byte) bool {
	tooLarge := uint32(0)
	for len(h) >= 4 && len(src) >= 7 {
		x := uint64(binary.BigEndian.Uint32(src))<<24 | uint64(binary.BigEndian.Uint32(src[3:]))&0xffffff
		for i := range 4 {
			h[i] = uint32(x>>(42-14*i)) & 0x3fff
			tooLarge |= (q - 1 - h[i]) >> 31
		}
		h, src = h[4:], src[7:]
	}
	return tooLarge == 0
}

// smallBits is the number of bits that a coefficient of f and of g has (Falcon spec 3.11.5); those of F have 8.
func (d Degree) smallBits() int { return d.pick(6, 5) }

// NewPrivateKey reads an encoded private key, of PrivateKeySize bytes, and does not keep b. It computes what the encoding
// leaves out, and accepts only what signs as a key of GenerateKey does: f, g, F and G fit their widths, fG - gF = q, and the
// basis is as short. It fails with ErrDegree or ErrPrivateKey.
func NewPrivateKey(d Degree, b []byte) (*PrivateKey, error) {
	if err := checkEncoding(d, ErrPrivateKey, b, d.PrivateKeySize(), headerPrivate); err != nil {
		return nil, err
	}
	n := int(d)
	all := make([]int8, 4*n)
	f, g, F, G := all[:n:n], all[n:2*n:2*n], all[2*n:3*n:3*n], all[3*n:]
	small := d.smallBits()
	size := n * small / 8
	ok := decodeSigned(f, b[1:], small)
	ok = decodeSigned(g, b[1+size:], small) && ok
	ok = decodeSigned(F, b[1+2*size:], 8) && ok
	if !ok {
		clear(all)
		return nil, fmt.Errorf("%w: a coefficient is the lowest number of its width, which has no encoding", ErrPrivateKey)
	}
	k, err := newPrivateKey(d, f, g, F, G)
	if err == nil {
		err = k.complete()
	}
	if err == nil {
		err = k.expand()
	}
	if err != nil {
		clear(all)
		return nil, err
	}
	return k, nil
}

// Bytes is the encoded key: f, g and F; nil after Wipe. The caller owns it, and wipes it.
func (k *PrivateKey) Bytes() []byte {
	if k.f == nil {
		return nil
	}
	d := k.public.degree
	b := make([]byte, d.PrivateKeySize())
	b[0] = headerPrivate + byte(d.logn())
	small := d.smallBits()
	size := int(d) * small / 8
	encodeSigned(b[1:], k.f, small)
	encodeSigned(b[1+size:], k.g, small)
	encodeSigned(b[1+2*size:], k.bigF, 8)
	return b
}

// encodeSigned writes each of src in width bits as two's complement, the highest bit first; len(src) is a multiple of 8.
func encodeSigned(dst []byte, src []int8, width int) {
	mask := uint64(1)<<width - 1
	for len(src) >= 8 {
		x := uint64(0)
		for _, c := range src[:8] {
			x = x<<width | uint64(c)&mask
		}
		for i := range width {
			dst[i] = byte(x >> (8 * (width - 1 - i)))
		}
		dst, src = dst[width:], src[8:]
	}
}

// decodeSigned undoes encodeSigned, and reports whether none of dst is -2^(width-1), which stands for nothing.
func decodeSigned(dst []int8, src []byte, width int) bool {
	forbidden := int64(-1) << (width - 1)
	good := uint64(1)
	for len(dst) >= 8 {
		x := uint64(0)
		for _, c := range src[:width] {
			x = x<<8 | uint64(c)
		}
		for i := range 8 {
			c := int64(x<<(64-(8-i)*width)) >> (64 - width)
			good &= uint64(forbidden-c) >> 63
			dst[i] = int8(c)
		}
		dst, src = dst[8:], src[width:]
	}
	return good == 1
}

func checkEncoding(d Degree, kind error, b []byte, size int, header byte) error {
	if err := d.check(); err != nil {
		return err
	}
	if len(b) != size {
		return fmt.Errorf("%w: Falcon-%d has %d bytes, not %d", kind, int(d), size, len(b))
	}
	if header += byte(d.logn()); b[0] != header {
		return fmt.Errorf("%w: the first byte is %#02x, that of Falcon-%d %#02x", kind, b[0], int(d), header)
	}
	return nil
}
