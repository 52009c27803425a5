package falcon

import (
	"bytes"
	"testing"
)

// Signing with the vectors' own keys gives the vectors' bytes.
func TestVectorsSign(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		for i, v := range vectors(t, d) {
			private, err := NewPrivateKey(d, v.sk)
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			random := newDRBG(t, v.seed)
			random.bytes(t, 48) // what the key was made from
			nonce := [nonceSize]byte(random.bytes(t, nonceSize))
			signature, err := private.sign(v.message, &nonce, shake(random.bytes(t, 48)), false)
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			if !bytes.Equal(signature, v.signature(t, d)) {
				t.Errorf("vector %d: another signature", i)
			}
		}
	})
}
