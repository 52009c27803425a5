package pqc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// stride is how far apart the flipped bits of one key, ciphertext or signature are: a prime, so that every bit
// position in a byte comes up.
const stride = 97

func eachKEM(t *testing.T, f func(*testing.T, KEM)) {
	for _, k := range KEMs() {
		t.Run(k.Name(), func(t *testing.T) {
			t.Parallel()
			f(t, k)
		})
	}
}

func eachSignature(t *testing.T, f func(*testing.T, Signature)) {
	for _, s := range Signatures() {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			f(t, s)
		})
	}
}

// eachWrongLength calls f with slices of every length but want, up to well beyond it.
func eachWrongLength(want int, f func([]byte)) {
	long := make([]byte, want+300)
	for n := range long {
		if n != want {
			f(long[:n])
		}
	}
	f(nil)
	f(make([]byte, 1<<20))
}

func flipped(b []byte, bit int) []byte {
	b = bytes.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

func newDecapsulationKey(t testing.TB, k KEM) DecapsulationKey {
	t.Helper()
	d, err := k.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func encapsulate(t testing.TB, k KEM, public []byte) (ciphertext, secret []byte) {
	t.Helper()
	e, err := k.ParseEncapsulationKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if ciphertext, secret, err = e.Encapsulate(); err != nil {
		t.Fatal(err)
	}
	return ciphertext, secret
}

func decapsulate(t testing.TB, d DecapsulationKey, ciphertext []byte) []byte {
	t.Helper()
	secret, err := d.Decapsulate(ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestKEMRoundTrip(t *testing.T) {
	eachKEM(t, func(t *testing.T, k KEM) {
		d := newDecapsulationKey(t, k)
		public := d.EncapsulationKey()
		if len(public) != k.EncapsulationKeySize() {
			t.Errorf("key of %d bytes, want %d", len(public), k.EncapsulationKeySize())
		}
		e, err := k.ParseEncapsulationKey(public)
		if err != nil {
			t.Fatal(err)
		}
		secrets := map[string]bool{}
		for range 3 { // keys are reusable
			ciphertext, secret, err := e.Encapsulate()
			if err != nil {
				t.Fatal(err)
			}
			if len(ciphertext) != k.CiphertextSize() || len(secret) != SecretSize {
				t.Errorf("ciphertext of %d and secret of %d bytes, want %d and %d", len(ciphertext), len(secret), k.CiphertextSize(), SecretSize)
			}
			if !bytes.Equal(secret, decapsulate(t, d, ciphertext)) {
				t.Error("the two sides have different secrets")
			}
			secrets[string(secret)] = true
		}
		if len(secrets) != 3 {
			t.Error("a secret came twice")
		}
	})
}

func TestKEMWrongLengths(t *testing.T) {
	eachKEM(t, func(t *testing.T, k KEM) {
		d := newDecapsulationKey(t, k)
		eachWrongLength(k.EncapsulationKeySize(), func(b []byte) {
			var size *SizeError
			if _, err := k.ParseEncapsulationKey(b); !errors.As(err, &size) || size.Got != len(b) || !errors.Is(err, ErrKey) {
				t.Fatalf("key of %d bytes: %v", len(b), err)
			}
		})
		eachWrongLength(k.CiphertextSize(), func(b []byte) {
			var size *SizeError
			if _, err := d.Decapsulate(b); !errors.As(err, &size) || size.Want != k.CiphertextSize() {
				t.Fatalf("ciphertext of %d bytes: %v", len(b), err)
			}
		})
	})
}

// TestKEMFlippedBits changes single bits: nobody gets the same secret, and nothing but an impossible key is an error.
func TestKEMFlippedBits(t *testing.T) {
	eachKEM(t, func(t *testing.T, k KEM) {
		d := newDecapsulationKey(t, k)
		public := d.EncapsulationKey()
		ciphertext, secret := encapsulate(t, k, public)
		for bit := 0; bit < 8*len(ciphertext); bit += stride {
			one := decapsulate(t, d, flipped(ciphertext, bit))
			if bytes.Equal(one, secret) {
				t.Fatalf("ciphertext's bit %d does not matter", bit)
			}
			if !bytes.Equal(one, decapsulate(t, d, flipped(ciphertext, bit))) {
				t.Fatalf("ciphertext's bit %d: rejection gives another secret each time", bit)
			}
		}
		for bit := 0; bit < 8*len(public); bit += stride {
			e, err := k.ParseEncapsulationKey(flipped(public, bit))
			if errors.Is(err, ErrKey) {
				continue // a coefficient beyond q (FIPS 203 section 7.2)
			}
			if err != nil {
				t.Fatal(err)
			}
			ciphertext, secret, err := e.Encapsulate()
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(secret, decapsulate(t, d, ciphertext)) {
				t.Fatalf("key's bit %d does not matter", bit)
			}
		}
	})
}

// TestKEMModulus gives coefficients beyond q to the KEMs: FIPS 203 refuses them, round 3 of Kyber does not.
func TestKEMModulus(t *testing.T) {
	eachKEM(t, func(t *testing.T, k KEM) {
		public := bytes.Clone(newDecapsulationKey(t, k).EncapsulationKey())
		public[0], public[1] = 0xff, public[1]|0x0f // the first coefficient is 4095
		_, err := k.ParseEncapsulationKey(public)
		if want := strings.HasPrefix(k.Name(), "mlkem"); errors.Is(err, ErrKey) != want {
			t.Errorf("error %v; ML-KEM must refuse, Kyber must not", err)
		}
	})
}

func TestSignatureRoundTrip(t *testing.T) {
	eachSignature(t, func(t *testing.T, s Signature) {
		key, err := s.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.ParseSigningKey(key.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(key.PublicKey(), again.PublicKey()) || !bytes.Equal(key.Bytes(), again.Bytes()) {
			t.Error("a signing key is another after encoding and parsing")
		}
		if len(key.Bytes()) != s.SigningKeySize() || len(key.PublicKey()) != s.PublicKeySize() {
			t.Errorf("keys of %d and %d bytes, want %d and %d", len(key.Bytes()), len(key.PublicKey()), s.SigningKeySize(), s.PublicKeySize())
		}
		public, err := s.ParsePublicKey(key.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(public.Bytes(), key.PublicKey()) {
			t.Error("a public key is another after parsing and encoding")
		}
		if key.Scheme() != s || public.Scheme() != s {
			t.Error("a key does not know its scheme")
		}
		for _, message := range [][]byte{nil, {}, []byte("message"), make([]byte, 1<<16)} {
			for _, signer := range []SigningKey{key, again} {
				signature, err := signer.Sign(message)
				if err != nil {
					t.Fatal(err)
				}
				if len(signature) == 0 || len(signature) > s.SignatureSize() {
					t.Errorf("signature of %d bytes, want at most %d", len(signature), s.SignatureSize())
				}
				if err := public.Verify(message, signature); err != nil {
					t.Error(err)
				}
				if err := public.Verify(append([]byte{1}, message...), signature); !errors.Is(err, ErrSignature) {
					t.Errorf("another message: %v", err)
				}
			}
		}
	})
}

func TestSignatureWrongLengths(t *testing.T) {
	eachSignature(t, func(t *testing.T, s Signature) {
		key, err := s.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		public, err := s.ParsePublicKey(key.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		eachWrongLength(s.PublicKeySize(), func(b []byte) {
			var size *SizeError
			if _, err := s.ParsePublicKey(b); !errors.As(err, &size) || !errors.Is(err, ErrKey) {
				t.Fatalf("public key of %d bytes: %v", len(b), err)
			}
		})
		eachWrongLength(s.SigningKeySize(), func(b []byte) {
			var size *SizeError
			if _, err := s.ParseSigningKey(b); !errors.As(err, &size) || !errors.Is(err, ErrKey) {
				t.Fatalf("signing key of %d bytes: %v", len(b), err)
			}
		})
		eachWrongLength(s.SignatureSize(), func(b []byte) {
			if err := public.Verify([]byte("m"), b); !errors.Is(err, ErrSignature) {
				t.Fatalf("signature of %d bytes: %v", len(b), err)
			}
		})
	})
}

func TestSignatureFlippedBits(t *testing.T) {
	eachSignature(t, func(t *testing.T, s Signature) {
		message := []byte("a message")
		key, err := s.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		public, err := s.ParsePublicKey(key.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		signature, err := key.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		for bit := 0; bit < 8*len(signature); bit += stride {
			if err := public.Verify(message, flipped(signature, bit)); !errors.Is(err, ErrSignature) {
				t.Fatalf("signature's bit %d: %v", bit, err)
			}
		}
		for bit := 0; bit < 8*len(message); bit++ {
			if err := public.Verify(flipped(message, bit), signature); !errors.Is(err, ErrSignature) {
				t.Fatalf("message's bit %d: %v", bit, err)
			}
		}
		for bit := 0; bit < 8*s.PublicKeySize(); bit += stride {
			other, err := s.ParsePublicKey(flipped(key.PublicKey(), bit))
			if err != nil {
				if !errors.Is(err, ErrKey) {
					t.Fatal(err)
				}
				continue
			}
			if err := other.Verify(message, signature); !errors.Is(err, ErrSignature) {
				t.Fatalf("public key's bit %d: %v", bit, err)
			}
		}
	})
}

// TestRandomBytes gives every parser random bytes of the right length: an error or a usable key, never a panic.
func TestRandomBytes(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	read := func(n int) []byte {
		b := make([]byte, n)
		random.Read(b)
		return b
	}
	for _, k := range KEMs() {
		d := newDecapsulationKey(t, k)
		for range 20 {
			if e, err := k.ParseEncapsulationKey(read(k.EncapsulationKeySize())); err == nil {
				if _, _, err := e.Encapsulate(); err != nil {
					t.Error(err)
				}
			}
			decapsulate(t, d, read(k.CiphertextSize()))
		}
	}
	for _, s := range Signatures() {
		for range 20 {
			if p, err := s.ParsePublicKey(read(s.PublicKeySize())); err == nil {
				if err := p.Verify(read(10), read(s.SignatureSize())); !errors.Is(err, ErrSignature) {
					t.Error(err)
				}
			}
		}
	}
}

// TestWipe looks into the wiped keys, also behind the pointer in which circl keeps a KEM's secret vector.
func TestWipe(t *testing.T) {
	eachKEM(t, func(t *testing.T, k KEM) {
		d := newDecapsulationKey(t, k).(*circlDecapsulationKey)
		field := reflect.ValueOf(d.secret).Elem().FieldByName("sk")
		if !field.IsValid() || field.Elem().IsZero() {
			t.Fatal("circl keeps the secret vector elsewhere now: Wipe has to learn where")
		}
		vector := field.Elem()
		d.Wipe()
		if !vector.IsZero() || !reflect.ValueOf(d.secret).Elem().IsZero() {
			t.Error("the key is still there")
		}
	})
	eachSignature(t, func(t *testing.T, s Signature) {
		key, err := s.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		key.Wipe()
		switch key := key.(type) {
		case *circlSigningKey:
			if !reflect.ValueOf(key.secret).Elem().IsZero() {
				t.Error("the key is still there")
			}
		default: // a key of this project, which tests itself what it overwrites
			if key.Bytes() != nil {
				t.Error("a wiped key has bytes")
			}
			if _, err := key.Sign(nil); err == nil {
				t.Error("a wiped key signs")
			}
		}
	})
}

// TestSecretsDoNotPrint formats secret types with every verb and looks for their bytes.
func TestSecretsDoNotPrint(t *testing.T) {
	s := Signatures()[0]
	key, err := s.ParseSigningKey(bytes.Repeat([]byte{0xab}, s.SigningKeySize()))
	if err != nil {
		t.Fatal(err)
	}
	decapsulation := newDecapsulationKey(t, KEMs()[0])
	source := Source{Name: "tls", Secret: bytes.Repeat([]byte{0xab}, SecretSize)}
	for _, secret := range []any{key, decapsulation, source, &source, []any{key, decapsulation, source}, struct{ S Source }{source}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			if out := fmt.Sprintf(verb, secret); len(out) > 300 || containsSecret(out) {
				t.Errorf("%s of %T prints the secret", verb, secret)
			}
		}
		out, err := json.Marshal(secret)
		if err != nil || containsSecret(string(out)) || len(out) > 300 {
			t.Errorf("JSON of %T: %v", secret, err)
		}
	}
}

// containsSecret finds 0xab 0xab in the ways that fmt and encoding/json write bytes.
func containsSecret(out string) bool {
	for _, s := range []string{"abab", "ABAB", "0xab, 0xab", "171 171", "\xab\xab", `\xab\xab`, "q6ur"} {
		if strings.Contains(out, s) {
			return true
		}
	}
	return false
}

func TestSuites(t *testing.T) {
	suites := Suites()
	if len(suites) != len(KEMs())*len(Signatures()) {
		t.Fatalf("%d suites", len(suites))
	}
	seen := map[Suite]bool{}
	for _, s := range suites {
		if seen[s] {
			t.Errorf("%v twice", s)
		}
		seen[s] = true
		parsed, err := ParseSuite(s.String())
		if err != nil || parsed != s {
			t.Errorf("%v parses as %v, %v", s, parsed, err)
		}
	}
	if !reflect.DeepEqual(suites, Suites()) {
		t.Error("the order is not stable")
	}
	for _, name := range []string{"", "+", "mldsa65", "mldsa65+", "+mlkem768", "mlkem768+mldsa65", "MLDSA65+mlkem768", "mldsa65+mlkem768+", " mldsa65+mlkem768"} {
		var unknown *UnknownError
		if s, err := ParseSuite(name); !errors.As(err, &unknown) || len(unknown.Known) == 0 {
			t.Errorf("%q parses as %v, %v", name, s, err)
		}
	}
	// What is no suite at all gets told what there is.
	_, err := ParseSuite("foo")
	for _, known := range append(names(Signatures()), names(KEMs())...) {
		if !strings.Contains(err.Error(), known) {
			t.Errorf("%v: without %s", err, known)
		}
	}
	if s, err := ParseSuite((Suite{}).String()); err == nil {
		t.Errorf("the zero suite's name parses as %v", s)
	}
}

// TestSizes pins the sizes that the specifications give.
func TestSizes(t *testing.T) {
	kems := map[string][2]int{
		"kyber512": {800, 768}, "kyber768": {1184, 1088}, "kyber1024": {1568, 1568},
		"mlkem512": {800, 768}, "mlkem768": {1184, 1088}, "mlkem1024": {1568, 1568},
	}
	for _, k := range KEMs() {
		if got := [2]int{k.EncapsulationKeySize(), k.CiphertextSize()}; got != kems[k.Name()] {
			t.Errorf("%s: %v, want %v", k.Name(), got, kems[k.Name()])
		}
	}
	signatures := map[string][2]int{
		"dilithium2": {1312, 2420}, "dilithium3": {1952, 3293}, "dilithium5": {2592, 4595},
		"falcon512": {897, 666}, "falcon1024": {1793, 1280},
		"mldsa44": {1312, 2420}, "mldsa65": {1952, 3309}, "mldsa87": {2592, 4627},
	}
	for _, s := range Signatures() {
		if got := [2]int{s.PublicKeySize(), s.SignatureSize()}; got != signatures[s.Name()] {
			t.Errorf("%s: %v, want %v", s.Name(), got, signatures[s.Name()])
		}
	}
}
