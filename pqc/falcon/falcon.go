// Package falcon is the signature scheme Falcon, as submitted to round 3 of NIST's competition (Falcon specification 1.2 of
// 2020-10-01, cited here as "Falcon spec"), in its two sizes Falcon-512 and Falcon-1024. FIPS 206, which will differ from it,
// had not been published when this was written.
//
// # Side channels
//
// Key generation, and signing after the message was hashed, take no branch and read no table at an index that depends on a
// secret, except where the specification itself repeats: the number of attempts that key generation, the sampler and
// signing make is seen from outside and says nothing of the result. Not constant in time are
//
//   - hashing to a point, which depends on the message and the nonce, both of them public in a signature;
//   - compressing a signature, which is public when it is done; how long those were that turned out too long to be padded
//     or too far from the point can be learned from the time they took;
//   - verification and the parsing of public keys: all that goes in is public;
//   - the reason for which a private key is refused;
//   - the processor's own float64 instructions, whose time depends on the operands on some processors (division and
//     square root, and subnormal numbers, which do not occur), and what package math does where a processor has no
//     instruction that rounds, which branches. Build with -tags falcon_emulated to have integers in their place:
//     signatures are the same, signing takes about 20 times as long.
package falcon

import (
	"bytes"
	"crypto/rand"
	"crypto/sha3"
	"errors"
	"fmt"
)

// Degree is that of the ring Z[x]/(x^Degree + 1), by which the two sizes of Falcon are named.
type Degree int

// The degrees that the specification names.
const (
	Degree512  Degree = 512  // Falcon-512, of NIST's level 1
	Degree1024 Degree = 1024 // Falcon-1024, of NIST's level 5
)

// Errors are wrapped with what was wrong.
var (
	// ErrDegree says that a degree is neither of the two.
	ErrDegree = errors.New("falcon: degree is neither 512 nor 1024")
	// ErrPublicKey says that bytes are no public key.
	ErrPublicKey = errors.New("falcon: invalid public key")
	// ErrPrivateKey says that bytes are no private key.
	ErrPrivateKey = errors.New("falcon: invalid private key")
	// ErrSignature says that a signature is malformed or another key's or another message's.
	ErrSignature = errors.New("falcon: invalid signature")
)

// PublicKeySize is the length of an encoded public key in bytes: 897 or 1793; 0 of an unknown degree.
func (d Degree) PublicKeySize() int { return d.pick(897, 1793) }

// PrivateKeySize is the length of an encoded private key in bytes: 1281 or 2305; 0 of an unknown degree.
func (d Degree) PrivateKeySize() int { return d.pick(1281, 2305) }

// SignatureSize is the length of a padded signature in bytes: 666 or 1280; 0 of an unknown degree.
func (d Degree) SignatureSize() int { return d.pick(666, 1280) }

// logn is the binary logarithm of a known degree.
func (d Degree) logn() uint { return uint(d.pick(9, 10)) }

// bound is the largest squared norm of a signature, floor(beta^2) (Falcon spec table 3.3).
func (d Degree) bound() uint32 { return uint32(d.pick(34034726, 70265242)) }

func (d Degree) pick(of512, of1024 int) int {
	switch d {
	case Degree512:
		return of512
	case Degree1024:
		return of1024
	}
	return 0
}

func (d Degree) check() error {
	if d != Degree512 && d != Degree1024 {
		return fmt.Errorf("%w: %d", ErrDegree, int(d))
	}
	return nil
}

// PublicKey verifies signatures. It may be used by several goroutines at once.
type PublicKey struct {
	degree  Degree
	encoded []byte
	h       []uint32 // transformed, see modq.go
}

// PrivateKey signs. It may be used by several goroutines at once, until it is wiped.
type PrivateKey struct {
	public           PublicKey
	f, g, bigF, bigG []int8 // fG - gF = q; not "F" and "G", which would be exported
	expanded         expandedKey
}

// GenerateKey makes a private key from crypto/rand. It fails with ErrDegree.
func GenerateKey(d Degree) (*PrivateKey, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	var seed [48]byte
	defer clear(seed[:])
	rand.Read(seed[:]) // never fails
	var rng sha3.SHAKE
	rng.Write(seed[:])
	defer rng.Reset()
	return generateKey(d, &rng)
}

// generateKey makes the private key that rng gives, the same one as the reference implementation.
func generateKey(d Degree, rng *sha3.SHAKE) (*PrivateKey, error) {
	f, g, F, G := ntruGen(d.logn(), rng)
	k, err := newPrivateKey(d, f, g, F, G)
	if err != nil {
		return nil, err
	}
	if err := k.expand(); err != nil {
		return nil, err
	}
	return k, nil
}

// Degree is the degree of the key.
func (k *PrivateKey) Degree() Degree { return k.public.degree }

// Degree is the degree of the key.
func (p *PublicKey) Degree() Degree { return p.degree }

// PublicKey is the key that verifies what k signs. It outlives k.Wipe.
func (k *PrivateKey) PublicKey() *PublicKey {
	public := k.public
	return &public
}

// Sign signs a message of any length, with a new random nonce: two signatures of a message differ. The result is padded to
// SignatureSize. It fails with ErrPrivateKey after Wipe.
func (k *PrivateKey) Sign(message []byte) ([]byte, error) { return k.signRandom(message, true) }

// SignUnpadded is Sign without the padding: the result is as long as it happens to be, about 655 and 1271 bytes in the mean.
func (k *PrivateKey) SignUnpadded(message []byte) ([]byte, error) {
	return k.signRandom(message, false)
}

func (k *PrivateKey) signRandom(message []byte, padded bool) ([]byte, error) {
	if k.f == nil {
		return nil, fmt.Errorf("%w: it was wiped", ErrPrivateKey)
	}
	var nonce [nonceSize]byte
	var seed [48]byte
	defer clear(seed[:])
	rand.Read(nonce[:]) // never fails
	rand.Read(seed[:])
	var rng sha3.SHAKE
	rng.Write(seed[:])
	defer rng.Reset()
	return k.sign(message, &nonce, &rng, padded)
}

// Wipe overwrites the key; it signs no more.
func (k *PrivateKey) Wipe() {
	for _, secret := range [][]int8{k.f, k.g, k.bigF, k.bigG} {
		clear(secret)
	}
	k.f, k.g, k.bigF, k.bigG = nil, nil, nil, nil
	k.expanded.wipe()
}

// Format keeps every verb from printing the key.
func (k PrivateKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Falcon-%d private key", int(k.public.degree))
}

// Bytes is the encoded key.
func (p *PublicKey) Bytes() []byte { return bytes.Clone(p.encoded) }
