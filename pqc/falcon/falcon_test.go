package falcon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pqlab/internal/race"
)

// sampleKey is a vector's private key.
func sampleKey(t testing.TB, d Degree) *PrivateKey {
	t.Helper()
	key, err := NewPrivateKey(d, vectors(t, d)[7].sk)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestGenerateSignVerify(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key, err := GenerateKey(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := NewPrivateKey(d, key.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for _, polynomials := range [][2][]int8{{key.f, again.f}, {key.g, again.g}, {key.bigF, again.bigF}, {key.bigG, again.bigG}} {
			if !slices.Equal(polynomials[0], polynomials[1]) {
				t.Error("a private key is another after encoding and parsing")
			}
		}
		public, err := NewPublicKey(d, key.PublicKey().Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if key.Degree() != d || public.Degree() != d {
			t.Error("a key does not know its degree")
		}
		if len(key.Bytes()) != d.PrivateKeySize() || len(public.Bytes()) != d.PublicKeySize() {
			t.Errorf("keys of %d and %d bytes", len(key.Bytes()), len(public.Bytes()))
		}
		seen := map[string]bool{}
		for _, message := range [][]byte{nil, {}, []byte("message"), make([]byte, 1<<16)} {
			for _, signer := range []*PrivateKey{key, again} {
				padded, err := signer.Sign(message)
				if err != nil {
					t.Fatal(err)
				}
				if len(padded) != d.SignatureSize() {
					t.Errorf("padded signature of %d bytes", len(padded))
				}
				if err := public.Verify(message, padded); err != nil {
					t.Error(err)
				}
				unpadded, err := signer.SignUnpadded(message)
				if err != nil {
					t.Fatal(err)
				}
				if err := public.VerifyUnpadded(message, unpadded); err != nil {
					t.Error(err)
				}
				for _, signature := range [][]byte{padded, unpadded} {
					nonce := string(signature[1 : 1+nonceSize])
					if seen[nonce] {
						t.Error("a nonce came twice")
					}
					seen[nonce] = true
				}
			}
		}
	})
}

func TestUnknownDegree(t *testing.T) {
	t.Parallel()
	for _, d := range []Degree{0, -1, 9, 10, 256, 511, 2048, 1 << 40} {
		if d.PublicKeySize() != 0 || d.PrivateKeySize() != 0 || d.SignatureSize() != 0 {
			t.Errorf("%d has sizes", d)
		}
		if _, err := GenerateKey(d); !errors.Is(err, ErrDegree) {
			t.Errorf("GenerateKey(%d): %v", d, err)
		}
		for _, b := range [][]byte{nil, make([]byte, 897), make([]byte, 1281)} {
			if _, err := NewPublicKey(d, b); !errors.Is(err, ErrDegree) {
				t.Errorf("NewPublicKey(%d): %v", d, err)
			}
			if _, err := NewPrivateKey(d, b); !errors.Is(err, ErrDegree) {
				t.Errorf("NewPrivateKey(%d): %v", d, err)
			}
		}
	}
	var zero PublicKey
	for n := range 100 {
		if err := zero.Verify(nil, make([]byte, n)); !errors.Is(err, ErrSignature) {
			t.Errorf("the zero key verifies: %v", err)
		}
		if err := zero.VerifyUnpadded(nil, bytes.Repeat([]byte{0x30}, n)); !errors.Is(err, ErrSignature) {
			t.Errorf("the zero key verifies: %v", err)
		}
	}
	var none PrivateKey
	if _, err := none.Sign(nil); !errors.Is(err, ErrPrivateKey) || none.Bytes() != nil {
		t.Errorf("the zero key signs: %v", err)
	}
}

func TestKeysOfEveryOtherLength(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		v := vectors(t, d)[7]
		for _, headed := range []bool{false, true} {
			private, public := make([]byte, 2500), make([]byte, 2500)
			if headed {
				copy(private, v.sk)
				copy(public, v.pk)
			}
			for n := range private {
				if _, err := NewPrivateKey(d, private[:n]); n != d.PrivateKeySize() && !errors.Is(err, ErrPrivateKey) {
					t.Errorf("private key of %d bytes: %v", n, err)
				}
				if _, err := NewPublicKey(d, public[:n]); n != d.PublicKeySize() && !errors.Is(err, ErrPublicKey) {
					t.Errorf("public key of %d bytes: %v", n, err)
				}
			}
		}
		other := degrees[0] + degrees[1] - d
		for header := range 256 {
			private, public := slices.Clone(v.sk), slices.Clone(v.pk)
			private[0], public[0] = byte(header), byte(header)
			if _, err := NewPrivateKey(d, private); byte(header) != v.sk[0] && !errors.Is(err, ErrPrivateKey) {
				t.Errorf("private key that begins with %#x: %v", header, err)
			}
			if _, err := NewPublicKey(d, public); byte(header) != v.pk[0] && !errors.Is(err, ErrPublicKey) {
				t.Errorf("public key that begins with %#x: %v", header, err)
			}
			if _, err := NewPrivateKey(other, private); !errors.Is(err, ErrPrivateKey) {
				t.Errorf("private key of the other degree: %v", err)
			}
			if _, err := NewPublicKey(other, public); !errors.Is(err, ErrPublicKey) {
				t.Errorf("public key of the other degree: %v", err)
			}
		}
	})
}

// TestFlippedPublicKeys: each is refused or verifies nothing.
func TestFlippedPublicKeys(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key, message, padded, _ := sample(t, d)
		encoded := key.Bytes()
		for i := 0; i < 8*len(encoded); i += 5 * stride() {
			encoded[i/8] ^= 1 << (i % 8)
			public, err := NewPublicKey(d, encoded)
			if err != nil && !errors.Is(err, ErrPublicKey) {
				t.Errorf("bit %d: %v", i, err)
			}
			if err == nil && !errors.Is(public.Verify(message, padded), ErrSignature) {
				t.Errorf("bit %d of the public key does not count", i)
			}
			encoded[i/8] ^= 1 << (i % 8)
		}
	})
}

// TestFlippedPrivateKeys: G follows from f, g and F, and is not short if any of them is wrong.
func TestFlippedPrivateKeys(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		encoded := slices.Clone(vectors(t, d)[7].sk)
		for i := 0; i < 8*len(encoded); i += 13 * stride() {
			encoded[i/8] ^= 1 << (i % 8)
			if _, err := NewPrivateKey(d, encoded); !errors.Is(err, ErrPrivateKey) {
				t.Errorf("bit %d: %v", i, err)
			}
			encoded[i/8] ^= 1 << (i % 8)
		}
	})
}

// encodePrivate is the encoding of any f, g, F.
func encodePrivate(d Degree, f, g, F []int8) []byte {
	b := bitString{}.add(0x50+int(d.logn()), 8)
	for i, polynomial := range [][]int8{f, g, F} {
		for _, c := range polynomial {
			b = b.add(int(c), []int{d.smallBits(), d.smallBits(), 8}[i])
		}
	}
	return b.bytes()
}

// TestPrivateKeysThatSolveNothing: keys with a G that is short, and right modulo q, and yet fG - gF is another multiple of q.
func TestPrivateKeysThatSolveNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key := sampleKey(t, d)
		f, g, F, G := key.f, key.g, key.bigF, key.bigG
		if !solvesNTRU(f, g, F, G) {
			t.Fatal("a vector's key solves nothing")
		}
		zero := make([]int8, d)
		if _, err := NewPrivateKey(d, encodePrivate(d, f, g, zero)); !errors.Is(err, ErrPrivateKey) {
			t.Errorf("F = 0, for which G = 0 is right modulo q: %v", err)
		}
		if _, err := NewPrivateKey(d, encodePrivate(d, f, g, f)); !errors.Is(err, ErrPrivateKey) {
			t.Errorf("F = f, for which G = g is right modulo q: %v", err)
		}
		if _, err := NewPrivateKey(d, encodePrivate(d, zero, g, F)); !errors.Is(err, ErrPrivateKey) {
			t.Errorf("f = 0: %v", err)
		}
		negative := slices.Clone(F)
		for i := range negative {
			negative[i] = -negative[i]
		}
		if _, err := NewPrivateKey(d, encodePrivate(d, f, g, negative)); !errors.Is(err, ErrPrivateKey) {
			t.Errorf("-F, for which fG - gF = -q: %v", err)
		}
		for i := range race.First(G, 20) {
			for _, change := range []int8{-1, 1} {
				G[i] += change
				if solvesNTRU(f, g, F, G) {
					t.Fatalf("coefficient %d of G does not count", i)
				}
				G[i] -= change
			}
		}
	})
}

// TestPrivateKeysThatSignBadly: a basis that solves the equation but is too long, so that no signature made with it would be
// short. Its polynomials are of x^(n/2), which squares to -1: Gaussian integers. Falcon-1024 has too few bits for them.
func TestPrivateKeysThatSignBadly(t *testing.T) {
	t.Parallel()
	type gaussian = [2]int
	times := func(a, b gaussian) gaussian { return gaussian{a[0]*b[0] - a[1]*b[1], a[0]*b[1] + a[1]*b[0]} }
	const d, limit = Degree512, 31
	found := 0
	for _, f := range []gaussian{{limit, limit - 1}, {limit - 1, limit - 4}, {limit, limit - 5}} {
		g := gaussian{limit - 3, -limit}
		norm := f[0]*f[0] + f[1]*f[1]
		for x := -127; x <= 127; x++ {
			for y := -127; y <= 127; y++ {
				product := times(g, gaussian{x, y})
				quotient := times(gaussian{q + product[0], product[1]}, gaussian{f[0], -f[1]})
				G := gaussian{quotient[0] / norm, quotient[1] / norm}
				if quotient[0]%norm != 0 || quotient[1]%norm != 0 || max(G[0], -G[0], G[1], -G[1]) > 127 {
					continue
				}
				var all [4][]int8
				for i, pair := range []gaussian{f, g, {x, y}, G} {
					all[i] = make([]int8, d)
					all[i][0], all[i][int(d)/2] = int8(pair[0]), int8(pair[1])
				}
				if !productsDifferByQ(all[0], all[1], all[2], all[3]) {
					t.Fatal("the test's own key solves nothing")
				}
				found++
				if _, err := NewPrivateKey(d, encodePrivate(d, all[0], all[1], all[2])); !errors.Is(err, ErrPrivateKey) {
					t.Errorf("f = %v, g = %v, F = %v, G = %v: %v", f, g, gaussian{x, y}, G, err)
				}
			}
		}
	}
	if found < 4 {
		t.Errorf("%d such keys were found", found)
	}
}

func TestWipe(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key := sampleKey(t, d)
		public := key.PublicKey()
		secrets := [][]int8{key.f, key.g, key.bigF, key.bigG}
		e := key.expanded
		expanded := [][]fpr{e.f, e.g, e.F, e.G, e.tree}
		signature, err := key.Sign([]byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		key.Wipe()
		for _, secret := range secrets {
			if slices.ContainsFunc(secret, func(c int8) bool { return c != 0 }) {
				t.Error("the key is still there")
			}
		}
		for i, secret := range expanded {
			if slices.ContainsFunc(secret, func(x fpr) bool { return x != 0 }) {
				t.Errorf("part %d of what was computed from the key is still there", i)
			}
		}
		for _, sign := range []func([]byte) ([]byte, error){key.Sign, key.SignUnpadded} {
			if _, err := sign([]byte("m")); !errors.Is(err, ErrPrivateKey) {
				t.Errorf("signing with a wiped key: %v", err)
			}
		}
		if key.Bytes() != nil {
			t.Error("a wiped key has bytes")
		}
		if err := public.Verify([]byte("m"), signature); err != nil {
			t.Errorf("the public key is gone: %v", err)
		}
		key.Wipe()
	})
}

func TestPrivateKeyDoesNotPrint(t *testing.T) {
	t.Parallel()
	key := sampleKey(t, Degree512)
	for _, secret := range []any{key, *key, []any{key}, struct{ K *PrivateKey }{key}, struct{ K PrivateKey }{*key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			if out := fmt.Sprintf(verb, secret); len(out) > 200 || !strings.Contains(out, "Falcon-512 private key") {
				t.Errorf("%s of %T: %.300s", verb, secret, out)
			}
		}
		if out, err := json.Marshal(secret); err != nil || len(out) > 20 {
			t.Errorf("JSON of %T: %.300s", secret, out)
		}
	}
}

// TestConcurrentUse lets the race detector look at a key in many hands.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key := sampleKey(t, d)
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				message := []byte{byte(i)}
				for range 3 {
					signature, err := key.Sign(message)
					if err != nil {
						t.Error(err)
						return
					}
					if err := key.PublicKey().Verify(message, signature); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
	})
}
