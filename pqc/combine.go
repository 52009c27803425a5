package pqc

import (
	"crypto/hkdf"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Source is one of the secrets that a tunnel's key is made of.
type Source struct {
	Name   string   // "tls", "kem", "qkd"; at most 255 bytes
	Secret []byte   // SecretSize bytes, wiped by its owner
	Public [][]byte // what both ends saw while they agreed on it: keys, ciphertexts, a channel binding
}

// Format keeps every verb from printing the secret.
func (s Source) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "source %s", s.Name) }

// MarshalJSON keeps encoding/json from printing the secret.
func (s Source) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", "source "+s.Name), nil }

// Combiner joins the secrets of two or more sources into one key of SecretSize bytes, which the caller wipes. The
// order of the sources matters to some combiners, so both ends give the same.
type Combiner interface {
	Name() string
	// Combine fails with ErrSources, a *SizeError, ErrZeroSecret or ErrEqualSecrets. The domain tells apart uses of
	// the same secrets.
	Combine(domain string, sources ...Source) ([]byte, error)
}

var (
	// ErrSources says that there are fewer than two sources to combine.
	ErrSources = errors.New("a combination needs at least two sources")
	// ErrZeroSecret says that a source gave only zeros, or that the secrets cancel each other out.
	ErrZeroSecret = errors.New("secret is all zeros")
	// ErrEqualSecrets says that two sources gave the same secret: their XOR is zero and hides nothing.
	ErrEqualSecrets = errors.New("two sources gave the same secret")
)

// Combiners lists every combiner, the default first.
func Combiners() []Combiner { return []Combiner{XOR{}, Hardened{}} }

// ParseCombiner finds a combiner by its name; an empty name means the default, xor. It fails with an *UnknownError.
func ParseCombiner(name string) (Combiner, error) {
	if name == "" {
		return XOR{}, nil
	}
	return find("combiner", Combiners(), name)
}

// XOR is the combiner of the paper: the bitwise sum of all secrets. Whoever lacks one of them knows nothing of the
// sum, provided that they are independent. It does not bind ciphertexts: it keeps IND-CPA but not IND-CCA security
// (Giacon, Heuer, Poettering, PKC 2018), so it needs a protocol around it that authenticates the whole transcript, as
// package exchange does.
type XOR struct{}

// Name is "xor".
func (XOR) Name() string { return "xor" }

// Combine ignores the domain and the public values.
func (XOR) Combine(_ string, sources ...Source) ([]byte, error) {
	if err := checkSources(sources); err != nil {
		return nil, err
	}
	key := make([]byte, SecretSize)
	for _, s := range sources {
		subtle.XORBytes(key, key, s.Secret)
	}
	if isZero(key) { // three or more can cancel without two of them being equal
		return nil, fmt.Errorf("xor of %d sources: %w", len(sources), ErrZeroSecret)
	}
	return key, nil
}

// Hardened derives the key from all secrets and everything public about them, in the manner of NIST SP 800-227: it stays
// IND-CCA secure while one of the sources is, and a source that can choose its secret cannot choose the key.
type Hardened struct{}

// Name is "hardened".
func (Hardened) Name() string { return "hardened" }

// Combine is HKDF with SHA-384 (RFC 5869): the secrets are the input keying material; the domain, and the number,
// names and public values of the sources are the info. Every field has its length before it, so that no two inputs
// read the same.
func (Hardened) Combine(domain string, sources ...Source) ([]byte, error) {
	if err := checkSources(sources); err != nil {
		return nil, err
	}
	secrets := make([]byte, 0, len(sources)*SecretSize)
	defer func() { clear(secrets) }()
	var info cryptobyte.Builder
	addBytes(&info, []byte(domain))
	info.AddUint32(uint32(len(sources)))
	for _, s := range sources {
		secrets = append(secrets, s.Secret...)
		addBytes(&info, []byte(s.Name))
		info.AddUint32(uint32(len(s.Public)))
		for _, p := range s.Public {
			addBytes(&info, p)
		}
	}
	context, err := info.Bytes()
	if err != nil {
		return nil, fmt.Errorf("hardened: %w", err)
	}
	return hkdf.Key(sha512.New384, secrets, []byte("pqlab hardened combiner"), string(context), SecretSize)
}

func addBytes(b *cryptobyte.Builder, field []byte) {
	b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(field) })
}

func checkSources(sources []Source) error {
	if len(sources) < 2 {
		return fmt.Errorf("%d sources: %w", len(sources), ErrSources)
	}
	for i, s := range sources {
		if err := checkSize(s.Name, secretBytes, len(s.Secret), SecretSize); err != nil {
			return err
		}
		if isZero(s.Secret) {
			return fmt.Errorf("source %s: %w", s.Name, ErrZeroSecret)
		}
		for _, other := range sources[:i] {
			if subtle.ConstantTimeCompare(s.Secret, other.Secret) == 1 {
				return fmt.Errorf("sources %s and %s: %w", other.Name, s.Name, ErrEqualSecrets)
			}
		}
	}
	return nil
}

func isZero(secret []byte) bool {
	var or byte
	for _, b := range secret {
		or |= b
	}
	return subtle.ConstantTimeByteEq(or, 0) == 1
}
