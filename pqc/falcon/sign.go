package falcon

import "crypto/sha3"

// expandedKey is what signing wants beside f, g, F and G; computed once for a key.
type expandedKey struct{}

// expand computes k.expanded from k.f, k.g, k.F and k.G. It fails with ErrPrivateKey if a leaf of the tree is outside
// what the sampler takes, so that signing with a key that was read always ends.
func (k *PrivateKey) expand() error { return ErrPrivateKey }

func (e *expandedKey) wipe() {}

// sign signs a message with the nonce; rng seeds the sampler as the reference implementation does (56 bytes at each
// attempt). header is 0x30+logn; the signature header ‖ nonce ‖ compressed s2 is repeated, with the same nonce, until it
// is short enough, and fits into SignatureSize if padded.
func (k *PrivateKey) sign(message []byte, nonce *[nonceSize]byte, rng *sha3.SHAKE, padded bool) ([]byte, error) {
	return nil, ErrPrivateKey
}
