package falcon

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"pqlab/internal/race"
)

var degrees = []Degree{Degree512, Degree1024}

// each runs a test for both degrees, as subtests.
func each(t *testing.T, test func(t *testing.T, d Degree)) {
	for _, d := range degrees {
		t.Run(fmt.Sprint(int(d)), func(t *testing.T) {
			t.Parallel()
			test(t, d)
		})
	}
}

// stride is every how many bits a sweep stops.
func stride() int {
	if race.Enabled {
		return 41
	}
	return 1
}

// vector is one of the known answers that were submitted to NIST with round 3.
type vector struct {
	count                       int
	seed, message, pk, sk, long []byte
}

// signature is the vector's, in the form of SignUnpadded. NIST's interface has it in two parts around the message: its length
// with two bytes, the nonce, the message, a header 0x20+logn, the coefficients.
func (v vector) signature(t testing.TB, d Degree) []byte {
	size := int(binary.BigEndian.Uint16(v.long))
	nonce, rest := v.long[2:2+nonceSize], v.long[2+nonceSize:]
	message, encoded := rest[:len(v.message)], rest[len(v.message):]
	if !bytes.Equal(message, v.message) || len(encoded) != size || encoded[0] != 0x20+byte(d.logn()) {
		t.Fatalf("vector %d is not understood", v.count)
	}
	return slices.Concat([]byte{0x30 + byte(d.logn())}, nonce, encoded[1:])
}

var readVectors = map[Degree]func() ([]vector, error){
	Degree512:  sync.OnceValues(func() ([]vector, error) { return parseVectors(Degree512) }),
	Degree1024: sync.OnceValues(func() ([]vector, error) { return parseVectors(Degree1024) }),
}

func vectors(t testing.TB, d Degree) []vector {
	t.Helper()
	all, err := readVectors[d]()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 60 {
		t.Fatalf("%d vectors, not 60", len(all))
	}
	return all
}

func parseVectors(d Degree) ([]vector, error) {
	file, err := os.Open(fmt.Sprintf("testdata/falcon%d-KAT-0-59.rsp.gz", int(d)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	var all []vector
	lines := bufio.NewScanner(plain)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " = ")
		if !ok {
			continue
		}
		if name == "count" {
			all = append(all, vector{count: len(all)})
			continue
		}
		field, ok := map[string]func(v *vector) *[]byte{
			"seed": func(v *vector) *[]byte { return &v.seed },
			"msg":  func(v *vector) *[]byte { return &v.message },
			"pk":   func(v *vector) *[]byte { return &v.pk },
			"sk":   func(v *vector) *[]byte { return &v.sk },
			"sm":   func(v *vector) *[]byte { return &v.long },
		}[name]
		if !ok {
			continue
		}
		bytes, err := hex.DecodeString(value)
		if err != nil {
			return nil, err
		}
		*field(&all[len(all)-1]) = bytes
	}
	return all, lines.Err()
}

// drbg is NIST's randombytes of the known answer tests: CTR_DRBG with AES-256, without derivation function (NIST SP 800-90A
// section 10.2.1).
type drbg struct {
	block   cipher.Block
	counter [16]byte
}

func newDRBG(t *testing.T, seed []byte) *drbg {
	r := &drbg{}
	r.setKey(t, make([]byte, 32))
	r.update(t, seed)
	return r
}

func (r *drbg) setKey(t *testing.T, key []byte) {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	r.block = block
}

func (r *drbg) blocks(n int) []byte {
	out := make([]byte, (n+15)/16*16)
	for i := 0; i < len(out); i += 16 {
		for j := 15; j >= 0; j-- {
			if r.counter[j]++; r.counter[j] != 0 {
				break
			}
		}
		r.block.Encrypt(out[i:], r.counter[:])
	}
	return out[:n]
}

func (r *drbg) update(t *testing.T, input []byte) {
	next := r.blocks(48)
	for i := range input {
		next[i] ^= input[i]
	}
	r.setKey(t, next[:32])
	copy(r.counter[:], next[32:])
}

func (r *drbg) bytes(t *testing.T, n int) []byte {
	out := r.blocks(n)
	r.update(t, nil)
	return out
}

// shake is a SHAKE256 that was fed.
func shake(seed []byte) *sha3.SHAKE {
	s := sha3.NewSHAKE256()
	s.Write(seed)
	return s
}

// TestVectorsVerify: both forms of every vector's signature, under the vector's public key and no other.
func TestVectorsVerify(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		all := vectors(t, d)
		padded, long := 0, 0
		for i, v := range all {
			public, err := NewPublicKey(d, v.pk)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(public.Bytes(), v.pk) {
				t.Errorf("vector %d: the key's bytes changed", i)
			}
			signature := v.signature(t, d)
			if err := public.VerifyUnpadded(v.message, signature); err != nil {
				t.Errorf("vector %d: %v", i, err)
			}
			if err := public.VerifyUnpadded(slices.Concat(v.message, []byte{0}), signature); !errors.Is(err, ErrSignature) {
				t.Errorf("vector %d: a longer message: %v", i, err)
			}
			other, err := NewPublicKey(d, all[(i+1)%len(all)].pk)
			if err != nil {
				t.Fatal(err)
			}
			if err := other.VerifyUnpadded(v.message, signature); !errors.Is(err, ErrSignature) {
				t.Errorf("vector %d: another key: %v", i, err)
			}
			if len(signature) > d.SignatureSize() {
				long++
				continue
			}
			padded++
			signature = append(signature, make([]byte, d.SignatureSize()-len(signature))...)
			if err := public.Verify(v.message, signature); err != nil {
				t.Errorf("vector %d, padded: %v", i, err)
			}
		}
		t.Logf("%d vectors verified, %d of them padded too; %d are too long for that", len(all), padded, long)
	})
}

// TestVectorsKeys: the secret key of every vector is decoded and its public key is the vector's.
func TestVectorsKeys(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		for i, v := range race.First(vectors(t, d), 10) {
			private, err := NewPrivateKey(d, v.sk)
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			if !bytes.Equal(private.Bytes(), v.sk) {
				t.Errorf("vector %d: the private key's bytes changed", i)
			}
			if !bytes.Equal(private.PublicKey().Bytes(), v.pk) {
				t.Errorf("vector %d: h is not g/f", i)
			}
			if !productsDifferByQ(private.f, private.g, private.bigF, private.bigG) {
				t.Errorf("vector %d: fG - gF is not q", i)
			}
			padded, err := private.Sign(v.message)
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			if err := private.PublicKey().Verify(v.message, padded); err != nil {
				t.Errorf("vector %d: its key's new signature: %v", i, err)
			}
			unpadded, err := private.SignUnpadded(v.message)
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			if err := private.PublicKey().VerifyUnpadded(v.message, unpadded); err != nil {
				t.Errorf("vector %d: its key's new unpadded signature: %v", i, err)
			}
		}
	})
}

// TestVectorsReproduce: key generation and signing give every vector's bytes, from its seed.
func TestVectorsReproduce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		all := vectors(t, d)
		if testing.Short() || race.Enabled {
			all = all[:5]
		}
		for i, v := range all {
			random := newDRBG(t, v.seed)
			private, err := generateKey(d, shake(random.bytes(t, 48)))
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			if !bytes.Equal(private.PublicKey().Bytes(), v.pk) {
				t.Errorf("vector %d: another public key", i)
			}
			if !bytes.Equal(private.Bytes(), v.sk) {
				t.Errorf("vector %d: another private key", i)
			}
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

// productsDifferByQ is fG - gF = q modulo x^n + 1, as it is written.
func productsDifferByQ(f, g, F, G []int8) bool {
	n := len(f)
	sum := make([]int, n)
	for i := range n {
		for j := range n {
			product := int(f[i])*int(G[j]) - int(g[i])*int(F[j])
			if i+j < n {
				sum[i+j] += product
			} else {
				sum[i+j-n] -= product
			}
		}
	}
	sum[0] -= q
	return !slices.ContainsFunc(sum, func(c int) bool { return c != 0 })
}
