package pqc

import (
	"fmt"
	"reflect"

	"github.com/cloudflare/circl/sign"
)

// circlSignature adapts a signature scheme of circl, whose functions panic on some wrong lengths. Signing is
// deterministic (FIPS 204 section 3.4 calls it the deterministic variant).
type circlSignature struct {
	name   string
	scheme sign.Scheme
}

func (s circlSignature) Name() string        { return s.name }
func (s circlSignature) PublicKeySize() int  { return s.scheme.PublicKeySize() }
func (s circlSignature) SigningKeySize() int { return s.scheme.SeedSize() }
func (s circlSignature) SignatureSize() int  { return s.scheme.SignatureSize() }

func (s circlSignature) GenerateKey() (SigningKey, error) {
	public, secret, err := s.scheme.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("%s: generate key: %w", s.name, err)
	}
	return s.signingKey(public, secret)
}

// ParseSigningKey takes the seed, of which every value is a key: the expanded form admits keys with which signing never
// ends.
func (s circlSignature) ParseSigningKey(seed []byte) (SigningKey, error) {
	if err := checkSize(s.name, signingKeyBytes, len(seed), s.SigningKeySize()); err != nil {
		return nil, err
	}
	public, secret := s.scheme.DeriveKey(seed)
	return s.signingKey(public, secret)
}

func (s circlSignature) signingKey(public sign.PublicKey, secret sign.PrivateKey) (SigningKey, error) {
	encoded, err := public.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("%s: encode key: %w", s.name, err)
	}
	return &circlSigningKey{signature: s, secret: secret, public: encoded}, nil
}

func (s circlSignature) ParsePublicKey(b []byte) (PublicKey, error) {
	if err := checkSize(s.name, publicKeyBytes, len(b), s.PublicKeySize()); err != nil {
		return nil, err
	}
	public, err := s.scheme.UnmarshalBinaryPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: public key: %w (%v)", s.name, ErrKey, err)
	}
	return &circlPublicKey{signature: s, public: public}, nil
}

type circlSigningKey struct {
	signature circlSignature
	secret    sign.PrivateKey
	public    []byte
}

func (k *circlSigningKey) Scheme() Signature { return k.signature }
func (k *circlSigningKey) PublicKey() []byte { return k.public }

func (k *circlSigningKey) Bytes() []byte {
	return k.secret.(sign.Seeded).Seed() // all of the table's schemes keep it
}

func (k *circlSigningKey) Sign(message []byte) ([]byte, error) {
	return k.signature.scheme.Sign(k.secret, message, nil), nil
}

func (k *circlSigningKey) Wipe() { reflect.ValueOf(k.secret).Elem().SetZero() }

// Format keeps every verb from printing the key.
func (k *circlSigningKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s signing key", k.signature.name)
}

type circlPublicKey struct {
	signature circlSignature
	public    sign.PublicKey
}

func (p *circlPublicKey) Scheme() Signature { return p.signature }

func (p *circlPublicKey) Bytes() []byte {
	encoded, _ := p.public.MarshalBinary() // of a parsed key: cannot fail
	return encoded
}

func (p *circlPublicKey) Verify(message, signature []byte) error {
	if err := checkSize(p.signature.name, signatureBytes, len(signature), p.signature.SignatureSize()); err != nil {
		return err
	}
	if !p.signature.scheme.Verify(p.public, message, signature, nil) {
		return fmt.Errorf("%s: %w", p.signature.name, ErrSignature)
	}
	return nil
}
