package falcon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// sample is a vector's key with its signature in both forms. The slices are the caller's: the vectors are read by other
// tests at the same time.
func sample(t testing.TB, d Degree) (key *PublicKey, message, padded, unpadded []byte) {
	v := vectors(t, d)[7]
	key, err := NewPublicKey(d, v.pk)
	if err != nil {
		t.Fatal(err)
	}
	unpadded = v.signature(t, d)
	padded = append(slices.Clone(unpadded), make([]byte, d.SignatureSize()-len(unpadded))...)
	return key, slices.Clone(v.message), padded, unpadded
}

func TestVerifyRefusesEveryFlippedBit(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key, message, padded, unpadded := sample(t, d)
		for _, form := range []struct {
			signature []byte
			verify    func(message, signature []byte) error
		}{{padded, key.Verify}, {unpadded, key.VerifyUnpadded}} {
			for i := 0; i < 8*len(form.signature); i += stride() {
				form.signature[i/8] ^= 1 << (i % 8)
				if err := form.verify(message, form.signature); !errors.Is(err, ErrSignature) {
					t.Errorf("bit %d of byte %d of %d: %v", i%8, i/8, len(form.signature), err)
				}
				form.signature[i/8] ^= 1 << (i % 8)
			}
			for i := 0; i < 8*len(message); i += stride() {
				message[i/8] ^= 1 << (i % 8)
				if err := form.verify(message, form.signature); !errors.Is(err, ErrSignature) {
					t.Errorf("bit %d of the message: %v", i, err)
				}
				message[i/8] ^= 1 << (i % 8)
			}
			if err := form.verify(message, form.signature); err != nil {
				t.Errorf("put together again: %v", err)
			}
		}
	})
}

func TestVerifyRefusesEveryOtherLength(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key, message, padded, unpadded := sample(t, d)
		long := append(slices.Clone(padded), make([]byte, 100)...)
		for n := range long {
			if err := key.Verify(message, long[:n]); n != len(padded) && !errors.Is(err, ErrSignature) {
				t.Errorf("%d bytes: %v", n, err)
			}
			if err := key.VerifyUnpadded(message, long[:n]); n != len(unpadded) && !errors.Is(err, ErrSignature) {
				t.Errorf("%d bytes unpadded: %v", n, err)
			}
			if err := key.Verify(message, make([]byte, n)); !errors.Is(err, ErrSignature) {
				t.Errorf("%d zeros: %v", n, err)
			}
			if err := key.VerifyUnpadded(message, make([]byte, n)); !errors.Is(err, ErrSignature) {
				t.Errorf("%d zeros unpadded: %v", n, err)
			}
		}
		if err := key.Verify(message, nil); !errors.Is(err, ErrSignature) {
			t.Error(err)
		}
	})
}

// TestVerifyRefusesOtherDegree: a signature under its own header, under the key's header, and cut or filled to the key's size.
func TestVerifyRefusesOtherDegree(t *testing.T) {
	t.Parallel()
	for i, d := range degrees {
		key, _, _, _ := sample(t, d)
		_, message, padded, unpadded := sample(t, degrees[1-i])
		for _, signature := range [][]byte{padded, unpadded} {
			for _, header := range []byte{0x39, 0x3a} {
				signature[0] = header
				resized := append(slices.Clone(signature), make([]byte, 2000)...)[:d.SignatureSize()]
				for _, s := range [][]byte{signature, resized} {
					if err := key.Verify(message, s); !errors.Is(err, ErrSignature) {
						t.Errorf("%d, header %#x, %d bytes: %v", d, header, len(s), err)
					}
					if err := key.VerifyUnpadded(message, s); !errors.Is(err, ErrSignature) {
						t.Errorf("%d unpadded, header %#x, %d bytes: %v", d, header, len(s), err)
					}
				}
			}
		}
	}
}

// TestForms: a signature that needs all of the padded size has both forms, any other one form.
func TestForms(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		key, message, padded, unpadded := sample(t, d)
		if err := key.Verify(message, unpadded); !errors.Is(err, ErrSignature) {
			t.Error(err)
		}
		if err := key.VerifyUnpadded(message, padded); !errors.Is(err, ErrSignature) {
			t.Error(err)
		}
		for i := len(unpadded); i < len(padded); i++ {
			padded[i] = 1
			if err := key.Verify(message, padded); !errors.Is(err, ErrSignature) {
				t.Errorf("padding with a one in byte %d: %v", i, err)
			}
			padded[i] = 0
		}
	})
}

// keyFor is a key under which s1 and s2 are a signature of the message: h = (c - s1)/s2. inverse is 1/s2.
func keyFor(d Degree, nonce, message []byte, s1 []int16, inverse []uint16) *PublicKey {
	c := make([]uint16, d)
	hashToPoint(c, nonce, message)
	a, b := make([]uint32, d), make([]uint32, d)
	for i := range a {
		a[i], b[i] = uint32(inverse[i]), uint32(int32(c[i])-int32(s1[i])+q)%q
	}
	h := make([]uint16, d)
	for i, x := range naiveProduct(a, b) {
		h[i] = uint16(x)
	}
	var key PublicKey
	key.set(d, h)
	return &key
}

// TestBound: a signature as long as the bound is accepted, one whose squared norm is larger by one is not (Falcon spec table 3.3).
func TestBound(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		bound := map[Degree]int{Degree512: 34034726, Degree1024: 70265242}[d]
		random := rand.New(rand.NewPCG(9, uint64(d)))
		message, nonce := []byte("bound"), bytes.Repeat([]byte{5}, nonceSize)
		one, inverse := make([]int8, d), make([]uint16, d)
		one[0] = 1
		for name, coefficient := range map[string]func(i int) int{
			"few and large":  func(i int) int { return 3000 * (1 - 2*(i&1)) },
			"many and small": func(i int) int { return i*37%400 - 200 },
		} {
			for _, excess := range []int{-1, 0, 1} {
				s1, s2 := make([]int16, d), make([]int8, d)
				for !divideModQ(inverse, one, s2) {
					for i := range s2[:len(s2)/2] {
						s2[i] = int8(random.IntN(255) - 127)
					}
				}
				rest := bound + excess
				for _, c := range s2 {
					rest -= int(c) * int(c)
				}
				for i := range s1 {
					c := coefficient(i)
					if c*c > rest || i >= len(s1)-50 {
						c = int(math.Sqrt(float64(rest)))
						c = min(c, 6144)
					}
					s1[i] = int16(c)
					rest -= c * c
				}
				if rest != 0 {
					t.Fatalf("%s: %d is left of the norm", name, rest)
				}
				key := keyFor(d, nonce, message, s1, inverse)
				wide := make([]int16, d)
				for i := range s2 {
					wide[i] = int16(s2[i])
				}
				signature := slices.Concat([]byte{0x30 + byte(d.logn())}, nonce, naiveCompress(wide))
				err := key.VerifyUnpadded(message, signature)
				if accepted := err == nil; accepted != (excess <= 0) || !accepted && !errors.Is(err, ErrSignature) {
					t.Errorf("%s, %+d: %v", name, excess, err)
				}
			}
		}
	})
}

// TestHashToPoint compares with Falcon spec algorithm 3, word by word.
func TestHashToPoint(t *testing.T) {
	t.Parallel()
	for i := range 300 {
		message := bytes.Repeat([]byte{byte(i)}, i)
		nonce := bytes.Repeat([]byte{byte(i), 1}, nonceSize/2)
		got := make([]uint16, 512<<(i%2))
		hashToPoint(got, nonce, message)
		hash := shake(slices.Concat(nonce, message))
		var want []uint16
		for len(want) < len(got) {
			var word [2]byte
			hash.Read(word[:])
			if w := binary.BigEndian.Uint16(word[:]); w < 61445 {
				want = append(want, w%12289)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("message %d: another point", i)
		}
	}
}
