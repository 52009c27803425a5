package pqc

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"math/bits"
	"testing"
	"testing/quick"
)

const testDomain = "test"

func sources(secrets ...[]byte) []Source {
	names := []string{"tls", "kem", "qkd", "other"}
	out := make([]Source, len(secrets))
	for i, s := range secrets {
		out[i] = Source{Name: names[i], Secret: s}
	}
	return out
}

func secretOf(b byte) []byte { return bytes.Repeat([]byte{b}, SecretSize) }

func combined(t testing.TB, c Combiner, s ...Source) []byte {
	t.Helper()
	key, err := c.Combine(testDomain, s...)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestXORIsTheSum holds for any secrets, and undoing one leaves the other: which is also why either alone hides the
// key.
func TestXORIsTheSum(t *testing.T) {
	sum := func(a, b, c [SecretSize]byte) bool {
		two, three := combined(t, XOR{}, sources(a[:], b[:])...), combined(t, XOR{}, sources(a[:], b[:], c[:])...)
		for i := range a {
			if two[i] != a[i]^b[i] || three[i] != a[i]^b[i]^c[i] {
				return false
			}
		}
		return true
	}
	if err := quick.Check(sum, nil); err != nil {
		t.Error(err)
	}
}

// TestUniformOverTheHonestSecret: with one secret known and fixed, the key runs through all values as the other does.
// The map is a bijection for xor (shown by inverting it), and for both combiners every bit of the key depends on the
// honest secret.
func TestUniformOverTheHonestSecret(t *testing.T) {
	for _, c := range Combiners() {
		for honest := range 2 {
			ones := make([]int, 8*SecretSize)
			const runs = 2000
			for i := range runs {
				s := [][]byte{secretOf(7), secretOf(7)}
				h := sha512.Sum512_256(binary.BigEndian.AppendUint32(nil, uint32(i)))
				s[honest] = h[:]
				key := combined(t, c, sources(s...)...)
				if c == (Combiner)(XOR{}) {
					back := combined(t, XOR{}, sources(key, s[1-honest])...)
					if !bytes.Equal(back, s[honest]) {
						t.Fatal("not invertible")
					}
				}
				for bit := range ones {
					ones[bit] += int(key[bit/8] >> (bit % 8) & 1)
				}
			}
			for bit, n := range ones {
				// 2000 fair bits have a standard deviation of 22.4; 6 of them are passed once in 5e8.
				if n < runs/2-134 || n > runs/2+134 {
					t.Errorf("%s: bit %d is 1 in %d of %d keys", c.Name(), bit, n, runs)
				}
			}
		}
	}
}

func TestCombinersRefuse(t *testing.T) {
	one, two := secretOf(1), secretOf(2)
	for _, c := range Combiners() {
		for name, tc := range map[string]struct {
			sources []Source
			want    error
		}{
			"none":            {nil, ErrSources},
			"one":             {sources(one), ErrSources},
			"equal":           {sources(one, bytes.Clone(one)), ErrEqualSecrets},
			"equal, of three": {sources(one, two, one), ErrEqualSecrets},
			"zero":            {sources(one, secretOf(0)), ErrZeroSecret},
			"both zero":       {sources(secretOf(0), secretOf(0)), ErrZeroSecret},
		} {
			if key, err := c.Combine(testDomain, tc.sources...); !errors.Is(err, tc.want) || key != nil {
				t.Errorf("%s: %s: %v, want %v", c.Name(), name, err, tc.want)
			}
		}
		eachWrongLength(SecretSize, func(b []byte) {
			var size *SizeError
			for _, s := range [][]Source{sources(b, one), sources(one, b), sources(b, b)} {
				if _, err := c.Combine(testDomain, s...); !errors.As(err, &size) {
					t.Fatalf("%s: secret of %d bytes: %v", c.Name(), len(b), err)
				}
			}
		})
	}
	if _, err := (XOR{}).Combine(testDomain, sources(one, two, secretOf(3))...); !errors.Is(err, ErrZeroSecret) {
		t.Errorf("three secrets whose sum is zero: %v", err)
	}
}

// TestHardenedVector recomputes the key from the description in docs/exchange.md.
func TestHardenedVector(t *testing.T) {
	s := []Source{
		{Name: "tls", Secret: secretOf(1), Public: [][]byte{[]byte("binding")}},
		{Name: "kem", Secret: secretOf(2), Public: [][]byte{[]byte("key"), []byte("ciphertext")}},
	}
	var info []byte
	number := func(n int) { info = binary.BigEndian.AppendUint32(info, uint32(n)) }
	field := func(f string) { number(len(f)); info = append(info, f...) }
	field(testDomain)
	number(2)
	field("tls")
	number(1)
	field("binding")
	field("kem")
	number(2)
	field("key")
	field("ciphertext")
	want, err := hkdf.Key(sha512.New384, append(secretOf(1), secretOf(2)...), []byte("pqlab hardened combiner"), string(info), SecretSize)
	if err != nil {
		t.Fatal(err)
	}
	if got := combined(t, Hardened{}, s...); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestHardenedBindsEverything changes one thing at a time, moves bytes between neighbouring fields too, and wants
// another key each time.
func TestHardenedBindsEverything(t *testing.T) {
	base := func() []Source {
		return []Source{
			{Name: "tls", Secret: secretOf(1), Public: [][]byte{[]byte("binding")}},
			{Name: "kem", Secret: secretOf(2), Public: [][]byte{[]byte("key"), []byte("ciphertext")}},
		}
	}
	seen := map[string]string{string(combined(t, Hardened{}, base()...)): "unchanged"}
	note := func(what string, key []byte) {
		if before, ok := seen[string(key)]; ok {
			t.Errorf("%s and %s give the same key", before, what)
		}
		seen[string(key)] = what
	}
	for what, change := range map[string]func([]Source) []Source{
		"name":           func(s []Source) []Source { s[0].Name = "tlS"; return s },
		"binding":        func(s []Source) []Source { s[0].Public[0] = []byte("bindinG"); return s },
		"key":            func(s []Source) []Source { s[1].Public[0] = []byte("kez"); return s },
		"ciphertext":     func(s []Source) []Source { s[1].Public[1] = []byte("Ciphertext"); return s },
		"moved boundary": func(s []Source) []Source { s[1].Public = [][]byte{[]byte("keyc"), []byte("iphertext")}; return s },
		"joined":         func(s []Source) []Source { s[1].Public = [][]byte{[]byte("keyciphertext")}; return s },
		"moved to neighbour": func(s []Source) []Source {
			s[0].Public = append(s[0].Public, s[1].Public[0])
			s[1].Public = s[1].Public[1:]
			return s
		},
		"no public values": func(s []Source) []Source { s[0].Public, s[1].Public = nil, nil; return s },
		"empty value":      func(s []Source) []Source { s[0].Public = append(s[0].Public, nil); return s },
		"order":            func(s []Source) []Source { return []Source{s[1], s[0]} },
		"third source":     func(s []Source) []Source { return append(s, Source{Name: "qkd", Secret: secretOf(4)}) },
	} {
		note(what, combined(t, Hardened{}, change(base())...))
	}
	for i := range 2 {
		for bit := range 8 * SecretSize {
			s := base()
			s[i].Secret = flipped(s[i].Secret, bit)
			note("a bit of a secret", combined(t, Hardened{}, s...))
		}
	}
	other, err := Hardened{}.Combine("other domain", base()...)
	if err != nil {
		t.Fatal(err)
	}
	note("domain", other)
}

// TestChosenSecret: whoever chooses its secret last, knowing the other, chooses the key under xor; under hardened it
// does not.
func TestChosenSecret(t *testing.T) {
	honest, target := secretOf(0x5a), secretOf(0x77)
	chosen := make([]byte, SecretSize)
	for i := range chosen {
		chosen[i] = honest[i] ^ target[i]
	}
	if !bytes.Equal(combined(t, XOR{}, sources(honest, chosen)...), target) {
		t.Error("xor: documented to be forced, and was not")
	}
	forced := combined(t, Hardened{}, sources(honest, chosen)...)
	if bytes.Equal(forced, target) || distance(forced, target) < 64 {
		t.Error("hardened: forced")
	}
}

// TestMixAndMatch is the attack of Bindel et al. (PQCrypto 2019, eprint 2018/903): three decapsulations of recombined
// ciphertexts give the key of a fourth under xor. Under hardened they do not, as the ciphertexts are part of the key.
func TestMixAndMatch(t *testing.T) {
	a, b := newDecapsulationKey(t, KEMs()[0]), newDecapsulationKey(t, KEMs()[4])
	c1, s1 := encapsulate(t, KEMs()[0], a.EncapsulationKey())
	c2, s2 := encapsulate(t, KEMs()[4], b.EncapsulationKey())
	d1, _ := encapsulate(t, KEMs()[0], a.EncapsulationKey())
	d2, _ := encapsulate(t, KEMs()[4], b.EncapsulationKey())
	for _, c := range Combiners() {
		oracle := func(x, y []byte) []byte {
			return combined(t, c,
				Source{Name: "a", Secret: decapsulate(t, a, x), Public: [][]byte{a.EncapsulationKey(), x}},
				Source{Name: "b", Secret: decapsulate(t, b, y), Public: [][]byte{b.EncapsulationKey(), y}})
		}
		want := combined(t, c,
			Source{Name: "a", Secret: s1, Public: [][]byte{a.EncapsulationKey(), c1}},
			Source{Name: "b", Secret: s2, Public: [][]byte{b.EncapsulationKey(), c2}})
		guess := make([]byte, SecretSize)
		for _, key := range [][]byte{oracle(c1, d2), oracle(d1, c2), oracle(d1, d2)} {
			for i := range guess {
				guess[i] ^= key[i]
			}
		}
		if broken := bytes.Equal(guess, want); broken != (c.Name() == "xor") {
			t.Errorf("%s: broken is %v", c.Name(), broken)
		}
	}
}

func TestParseCombiner(t *testing.T) {
	for _, c := range Combiners() {
		if got, err := ParseCombiner(c.Name()); err != nil || got != c {
			t.Errorf("%s: %v, %v", c.Name(), got, err)
		}
	}
	if got, err := ParseCombiner(""); err != nil || got != (Combiner)(XOR{}) {
		t.Errorf("default: %v, %v", got, err)
	}
	var unknown *UnknownError
	if _, err := ParseCombiner("XOR"); !errors.As(err, &unknown) {
		t.Errorf("XOR: %v", err)
	}
}

func distance(a, b []byte) (n int) {
	for i := range a {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}
