package pqc

import (
	"bytes"
	"crypto/aes"
	"crypto/mlkem"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"fmt"
	"io"
	"testing"
)

// drbg is the generator of NIST's PQCgenKAT.c: AES-256 in CTR_DRBG without derivation function (SP 800-90A).
type drbg struct {
	key [32]byte
	v   [16]byte
}

func newDRBG(seed []byte) *drbg {
	g := new(drbg)
	g.update(seed)
	return g
}

func (g *drbg) blocks(out []byte) {
	c, err := aes.NewCipher(g.key[:])
	if err != nil {
		panic(err)
	}
	for len(out) > 0 {
		for i := len(g.v) - 1; i >= 0; i-- {
			if g.v[i]++; g.v[i] != 0 {
				break
			}
		}
		var block [16]byte
		c.Encrypt(block[:], g.v[:])
		out = out[copy(out, block[:]):]
	}
}

func (g *drbg) update(data []byte) {
	var next [48]byte
	g.blocks(next[:])
	for i := range data {
		next[i] ^= data[i]
	}
	copy(g.key[:], next[:32])
	copy(g.v[:], next[32:])
}

func (g *drbg) bytes(n int) []byte {
	out := make([]byte, n)
	g.blocks(out)
	g.update(nil)
	return out
}

func katSeeds() *drbg {
	var seed [48]byte
	for i := range seed {
		seed[i] = byte(i)
	}
	return newDRBG(seed[:])
}

// TestKyberKAT computes the 100 vectors of PQCkemKAT_*.rsp; the hashes are those of the reference implementation's
// files. For ML-KEM see TestMLKEMAccumulated.
func TestKyberKAT(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"kyber512":  "e9c2bd37133fcb40772f81559f14b1f58dccd1c816701be9ba6214d43baf4547",
		"kyber768":  "a1e122cad3c24bc51622e4c242d8b8acbcd3f618fee4220400605ca8f9ea02c2",
		"kyber1024": "89248f2f33f7f4f7051729111f3049c409a933ec904aedadf035f30fa5646cd5",
	} {
		k, err := ParseKEM(name)
		if err != nil {
			t.Fatal(err)
		}
		scheme := k.(circlKEM).scheme
		seeds, out := katSeeds(), sha256.New()
		fmt.Fprintf(out, "# %s\n\n", scheme.Name())
		for i := range 100 {
			seed := seeds.bytes(48)
			g := newDRBG(seed)
			coins := append(g.bytes(32), g.bytes(32)...) // two calls, as the reference has them
			public, secret := scheme.DeriveKeyPair(coins)
			p, _ := public.MarshalBinary()
			s, _ := secret.MarshalBinary()
			parsed, err := scheme.UnmarshalBinaryPublicKey(p)
			if err != nil {
				t.Fatal(err)
			}
			ciphertext, shared, err := scheme.EncapsulateDeterministically(parsed, g.bytes(32))
			if err != nil {
				t.Fatal(err)
			}
			d := circlDecapsulationKey{kem: k.(circlKEM), secret: secret, public: p}
			if !bytes.Equal(shared, decapsulate(t, &d, ciphertext)) {
				t.Fatal("the two sides have different secrets")
			}
			fmt.Fprintf(out, "count = %d\nseed = %X\npk = %X\nsk = %X\nct = %X\nss = %X\n\n", i, seed, p, s, ciphertext, shared)
		}
		if got := hex.EncodeToString(out.Sum(nil)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestDilithiumKAT computes the 100 vectors of PQCsignKAT_*.rsp; the hashes are those of the reference
// implementation's files.
func TestDilithiumKAT(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"dilithium2": "38ed991c5ca11e39ab23945ca37af89e059d16c5474bf8ba96b15cb4e948af2a",
		"dilithium3": "8196b32212753f525346201ffec1c7a0a852596fa0b57bd4e2746231dab44d55",
		"dilithium5": "7ded97a6e6c809b43b54c248171d7504fa6a0cab651bf288bb00034782667481",
	} {
		s, err := ParseSignature(name)
		if err != nil {
			t.Fatal(err)
		}
		seeds, out := katSeeds(), sha256.New()
		fmt.Fprintf(out, "# %s\n\n", s.(circlSignature).scheme.Name())
		for i := range 100 {
			seed := seeds.bytes(48)
			message := seeds.bytes(33 * (i + 1))
			key, err := s.ParseSigningKey(newDRBG(seed).bytes(32))
			if err != nil {
				t.Fatal(err)
			}
			expanded, err := key.(*circlSigningKey).secret.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			signature, err := key.Sign(message)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, s, key.PublicKey(), message, signature)
			fmt.Fprintf(out, "count = %d\nseed = %X\nmlen = %d\nmsg = %X\npk = %X\nsk = %X\nsmlen = %d\nsm = %X%X\n\n",
				i, seed, len(message), message, key.PublicKey(), expanded, len(message)+len(signature), signature, message)
		}
		if got := hex.EncodeToString(out.Sum(nil)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestMLDSAAccumulated hashes the results of 100 runs with an empty message, signed deterministically. The hashes are
// those of the test of Go's own ML-DSA (crypto/internal/fips140test).
func TestMLDSAAccumulated(t *testing.T) {
	for name, want := range map[string]string{
		"mldsa44": "d51148e1f9f4fa1a723a6cf42e25f2a99eb5c1b378b3d2dbbd561b1203beeae4",
		"mldsa65": "8358a1843220194417cadbc2651295cd8fc65125b5a5c1a239a16dc8b57ca199",
		"mldsa87": "8c3ad714777622b8f21ce31bb35f71394f23bc0fcf3c78ace5d608990f3b061b",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := ParseSignature(name)
			if err != nil {
				t.Fatal(err)
			}
			in, out := sha3.NewSHAKE128(), sha3.NewSHAKE128()
			seed := make([]byte, 32)
			for range 100 {
				read(t, in, seed)
				key, err := s.ParseSigningKey(seed)
				if err != nil {
					t.Fatal(err)
				}
				signature, err := key.Sign(nil)
				if err != nil {
					t.Fatal(err)
				}
				verify(t, s, key.PublicKey(), nil, signature)
				out.Write(key.PublicKey())
				out.Write(signature)
			}
			sum := make([]byte, 32)
			read(t, out, sum)
			if got := hex.EncodeToString(sum); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// TestMLKEMInterop runs each side against the standard library's ML-KEM, which is another implementation.
func TestMLKEMInterop(t *testing.T) {
	type decapsulator interface{ Decapsulate([]byte) ([]byte, error) }
	for name, std := range map[string]struct {
		generate func() (decapsulator, []byte, error)
		parse    func([]byte) (interface {
			Encapsulate() (secret, ciphertext []byte)
		}, error)
	}{
		"mlkem768": {
			func() (decapsulator, []byte, error) {
				d, err := mlkem.GenerateKey768()
				return d, d.EncapsulationKey().Bytes(), err
			},
			func(b []byte) (interface {
				Encapsulate() (secret, ciphertext []byte)
			}, error) {
				return mlkem.NewEncapsulationKey768(b)
			},
		},
		"mlkem1024": {
			func() (decapsulator, []byte, error) {
				d, err := mlkem.GenerateKey1024()
				return d, d.EncapsulationKey().Bytes(), err
			},
			func(b []byte) (interface {
				Encapsulate() (secret, ciphertext []byte)
			}, error) {
				return mlkem.NewEncapsulationKey1024(b)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := ParseKEM(name)
			if err != nil {
				t.Fatal(err)
			}
			for range 100 {
				theirs, public, err := std.generate()
				if err != nil {
					t.Fatal(err)
				}
				ciphertext, secret := encapsulate(t, k, public)
				got, err := theirs.Decapsulate(ciphertext)
				if err != nil || !bytes.Equal(got, secret) {
					t.Fatalf("we encapsulate, they decapsulate: %v", err)
				}
				ours := newDecapsulationKey(t, k)
				e, err := std.parse(ours.EncapsulationKey())
				if err != nil {
					t.Fatal(err)
				}
				secret, ciphertext = e.Encapsulate()
				if !bytes.Equal(secret, decapsulate(t, ours, ciphertext)) {
					t.Fatal("they encapsulate, we decapsulate: different secrets")
				}
				ciphertext[0] ^= 1
				ours2, theirs2 := decapsulate(t, ours, ciphertext), secret
				if bytes.Equal(ours2, theirs2) {
					t.Fatal("a changed ciphertext gives the same secret")
				}
			}
		})
	}
}

func verify(t testing.TB, s Signature, public, message, signature []byte) {
	t.Helper()
	p, err := s.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(message, signature); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, r io.Reader, b []byte) {
	t.Helper()
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
}
