//go:build !race

// 30,000 runs in single goroutines tell the race detector nothing, and take half a minute with it.

package pqc

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"testing"
)

// TestMLKEMAccumulated hashes the results of 10,000 runs (c2sp.org/CCTV/ML-KEM, for the final FIPS 203): key pair,
// encapsulation, and the rejection of a random ciphertext.
func TestMLKEMAccumulated(t *testing.T) {
	for name, want := range map[string]string{
		"mlkem512":  "705dcffc87f4e67e35a09dcaa31772e86f3341bd3ccf1e78a5fef99ae6a35a13",
		"mlkem768":  "f959d18d3d1180121433bf0e05f11e7908cf9d03edc150b2b07cb90bef5bc1c1",
		"mlkem1024": "e3bf82b013307b2e9d47dde791ff6dfc82e694e6382404abdb948b908b75bad5",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := ParseKEM(name)
			if err != nil {
				t.Fatal(err)
			}
			scheme := k.(circlKEM).scheme
			in, out := sha3.NewSHAKE128(), sha3.NewSHAKE128()
			seed, coins, random := make([]byte, 64), make([]byte, 32), make([]byte, k.CiphertextSize())
			for range 10_000 {
				read(t, in, seed)
				public, secret := scheme.DeriveKeyPair(seed)
				p, _ := public.MarshalBinary()
				s, _ := secret.MarshalBinary()
				read(t, in, coins)
				ciphertext, shared, err := scheme.EncapsulateDeterministically(public, coins)
				if err != nil {
					t.Fatal(err)
				}
				d := circlDecapsulationKey{kem: k.(circlKEM), secret: secret, public: p}
				if !bytes.Equal(shared, decapsulate(t, &d, ciphertext)) {
					t.Fatal("the two sides have different secrets")
				}
				read(t, in, random)
				for _, b := range [][]byte{p, s, ciphertext, shared, decapsulate(t, &d, random)} {
					out.Write(b)
				}
			}
			sum := make([]byte, 32)
			read(t, out, sum)
			if got := hex.EncodeToString(sum); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}
