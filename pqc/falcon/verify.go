package falcon

import "fmt"

// Verify checks a padded signature of a message, of SignatureSize bytes. It fails with ErrSignature, and takes no memory
// if it does not.
func (p *PublicKey) Verify(message, signature []byte) error {
	if size := p.degree.SignatureSize(); len(signature) != size {
		return fmt.Errorf("%w: a padded one of Falcon-%d has %d bytes, not %d", ErrSignature, int(p.degree), size, len(signature))
	}
	return p.verify(message, signature, true)
}

// VerifyUnpadded checks a signature that ends with its last coefficient. It fails with ErrSignature, and takes no memory
// if it does not.
func (p *PublicKey) VerifyUnpadded(message, signature []byte) error {
	return p.verify(message, signature, false)
}

func (p *PublicKey) verify(message, signature []byte, padded bool) error {
	if len(signature) <= 1+nonceSize {
		return fmt.Errorf("%w: %d bytes hold no more than a nonce", ErrSignature, len(signature))
	}
	if header := headerSignature + byte(p.degree.logn()); signature[0] != header {
		return fmt.Errorf("%w: the first byte is %#02x, that of Falcon-%d %#02x", ErrSignature, signature[0], int(p.degree), header)
	}
	var arrays struct {
		s2   [1024]int16
		c    [1024]uint16
		work [1024]uint32
	}
	n := int(p.degree)
	s2, c := arrays.s2[:n], arrays.c[:n]
	nonce, compressed := signature[1:1+nonceSize], signature[1+nonceSize:]
	used := decompress(s2, compressed)
	if used == 0 {
		return fmt.Errorf("%w: the coefficients are not encoded as they should be", ErrSignature)
	}
	for _, b := range compressed[used:] {
		if b != 0 || !padded {
			return fmt.Errorf("%w: %d bytes after the last coefficient", ErrSignature, len(compressed)-used)
		}
	}
	hashToPoint(c, nonce, message)
	if p.squaredNorm(s2, c, arrays.work[:n]) > uint64(p.degree.bound()) {
		return ErrSignature
	}
	return nil
}

// squaredNorm is that of (s1, s2), where s1 = c - s2*h modulo q, centred (Falcon spec 3.10).
func (p *PublicKey) squaredNorm(s2 []int16, c []uint16, work []uint32) uint64 {
	modQ(work, s2)
	transform(work)
	for i, h := range p.h {
		work[i] = reduce(work[i] * h) // 11q * q fits
	}
	transformBack(work)
	var sum uint64
	for i := range s2 {
		x := uint32(c[i]) + q - work[i]
		s1 := int64(centre(reduce(x)))
		sum += uint64(s1*s1) + uint64(int64(s2[i])*int64(s2[i]))
	}
	return sum
}
