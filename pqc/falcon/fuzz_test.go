package falcon

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func FuzzNewPublicKey(f *testing.F) {
	for _, d := range degrees {
		encoded := vectors(f, d)[0].pk
		f.Add(d == Degree1024, encoded)
		f.Add(d == Degree1024, encoded[:100])
		f.Add(d == Degree512, encoded)
	}
	f.Fuzz(func(t *testing.T, large bool, b []byte) {
		d := degreeOf(large)
		key, err := NewPublicKey(d, b)
		if err != nil {
			if !errors.Is(err, ErrPublicKey) || key != nil {
				t.Fatal(key, err)
			}
			return
		}
		h := make([]uint16, d)
		transformed := slices.Clone(key.h)
		transformBack(transformed)
		for i, x := range transformed {
			h[i] = uint16(x)
		}
		var again PublicKey
		again.set(d, h)
		if !bytes.Equal(again.Bytes(), b) || !bytes.Equal(key.Bytes(), b) {
			t.Fatal("a key has two encodings")
		}
	})
}

func FuzzNewPrivateKey(f *testing.F) {
	for _, d := range degrees {
		encoded := vectors(f, d)[0].sk
		f.Add(d == Degree1024, encoded)
		f.Add(d == Degree1024, encoded[:100])
		f.Add(d == Degree512, encoded)
	}
	f.Fuzz(func(t *testing.T, large bool, b []byte) {
		key, err := NewPrivateKey(degreeOf(large), b)
		if err != nil {
			if !errors.Is(err, ErrPrivateKey) || key != nil {
				t.Fatal(key, err)
			}
			return
		}
		if !bytes.Equal(key.Bytes(), b) {
			t.Fatal("a key has two encodings")
		}
		signature, err := key.Sign(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := key.PublicKey().Verify(b, signature); err != nil {
			t.Fatal("a key that was accepted does not sign:", err)
		}
	})
}

// FuzzDecompress compares with the specification's way, bit by bit.
func FuzzDecompress(f *testing.F) {
	for _, d := range degrees {
		f.Add(uint16(d), vectors(f, d)[0].signature(f, d)[1+nonceSize:])
	}
	f.Add(uint16(3), bitString{}.coefficient(1, 0, 0).coefficient(0, 1, 20).coefficient(0, 127, 15).bytes())
	f.Add(uint16(2), bitString{}.coefficient(1, 1, 1).coefficient(0, 1, 15).bytes())
	f.Fuzz(func(t *testing.T, n uint16, b []byte) {
		n = n%1024 + 1
		s2 := make([]int16, n)
		used := decompress(s2, b)
		want, size := naiveDecompress(int(n), b)
		if used != size || used != 0 && !slices.Equal(s2, want) {
			t.Fatalf("%d bytes hold %v; they should be %d, of %v", used, s2, size, want)
		}
		if used == 0 {
			return
		}
		again := make([]byte, used)
		if compress(again, s2) != used || !bytes.Equal(again, b[:used]) {
			t.Fatalf("%v has two encodings, %x and %x", s2, again, b[:used])
		}
	})
}

func FuzzVerify(f *testing.F) {
	for _, d := range degrees {
		_, message, padded, unpadded := sample(f, d)
		f.Add(d == Degree1024, message, padded)
		f.Add(d == Degree1024, message, unpadded)
		f.Add(d == Degree512, message, unpadded)
	}
	samples := map[bool]struct {
		key     *PublicKey
		message []byte
		valid   []byte // unpadded
	}{}
	for _, large := range []bool{false, true} {
		key, message, _, unpadded := sample(f, degreeOf(large))
		one := samples[large]
		one.key, one.message, one.valid = key, message, unpadded
		samples[large] = one
	}
	f.Fuzz(func(t *testing.T, large bool, message, signature []byte) {
		one := samples[large]
		padded, unpadded := one.key.Verify(message, signature), one.key.VerifyUnpadded(message, signature)
		for _, err := range []error{padded, unpadded} {
			if err != nil && !errors.Is(err, ErrSignature) {
				t.Fatal(err)
			}
		}
		if (padded == nil || unpadded == nil) &&
			!(bytes.Equal(message, one.message) && bytes.Equal(bytes.TrimRight(signature, "\x00"), bytes.TrimRight(one.valid, "\x00"))) {
			t.Fatal("a forgery")
		}
		if padded == nil && len(signature) != degreeOf(large).SignatureSize() {
			t.Fatalf("a padded signature of %d bytes", len(signature))
		}
	})
}

func degreeOf(large bool) Degree {
	if large {
		return Degree1024
	}
	return Degree512
}
