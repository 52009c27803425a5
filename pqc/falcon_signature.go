package pqc

import (
	"fmt"

	"pqlab/pqc/falcon"
)

// falconSignature adapts pqc/falcon. All signatures are padded, so that a scheme has one length of them.
type falconSignature struct {
	name   string
	degree falcon.Degree
}

func (s falconSignature) Name() string        { return s.name }
func (s falconSignature) PublicKeySize() int  { return s.degree.PublicKeySize() }
func (s falconSignature) SigningKeySize() int { return s.degree.PrivateKeySize() }
func (s falconSignature) SignatureSize() int  { return s.degree.SignatureSize() }

func (s falconSignature) GenerateKey() (SigningKey, error) {
	private, err := falcon.GenerateKey(s.degree)
	if err != nil {
		return nil, fmt.Errorf("%s: generate key: %w", s.name, err)
	}
	return &falconSigningKey{signature: s, private: private}, nil
}

func (s falconSignature) ParseSigningKey(b []byte) (SigningKey, error) {
	if err := checkSize(s.name, signingKeyBytes, len(b), s.SigningKeySize()); err != nil {
		return nil, err
	}
	private, err := falcon.NewPrivateKey(s.degree, b)
	if err != nil {
		return nil, fmt.Errorf("%s: signing key: %w (%v)", s.name, ErrKey, err)
	}
	return &falconSigningKey{signature: s, private: private}, nil
}

func (s falconSignature) ParsePublicKey(b []byte) (PublicKey, error) {
	if err := checkSize(s.name, publicKeyBytes, len(b), s.PublicKeySize()); err != nil {
		return nil, err
	}
	public, err := falcon.NewPublicKey(s.degree, b)
	if err != nil {
		return nil, fmt.Errorf("%s: public key: %w (%v)", s.name, ErrKey, err)
	}
	return &falconPublicKey{signature: s, public: public}, nil
}

type falconSigningKey struct {
	signature falconSignature
	private   *falcon.PrivateKey
}

func (k *falconSigningKey) Scheme() Signature { return k.signature }
func (k *falconSigningKey) Bytes() []byte     { return k.private.Bytes() }
func (k *falconSigningKey) PublicKey() []byte { return k.private.PublicKey().Bytes() }

func (k *falconSigningKey) Sign(message []byte) ([]byte, error) { return k.private.Sign(message) }

func (k *falconSigningKey) Wipe() { k.private.Wipe() }

// Format keeps every verb from printing the key.
func (k *falconSigningKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s signing key", k.signature.name)
}

type falconPublicKey struct {
	signature falconSignature
	public    *falcon.PublicKey
}

func (p *falconPublicKey) Scheme() Signature { return p.signature }
func (p *falconPublicKey) Bytes() []byte     { return p.public.Bytes() }

func (p *falconPublicKey) Verify(message, signature []byte) error {
	if err := checkSize(p.signature.name, signatureBytes, len(signature), p.signature.SignatureSize()); err != nil {
		return err
	}
	if err := p.public.Verify(message, signature); err != nil {
		return fmt.Errorf("%s: %w", p.signature.name, ErrSignature)
	}
	return nil
}
