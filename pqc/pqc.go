// Package pqc holds the post-quantum primitives that key a tunnel: key encapsulation (KEM), signatures, suites of one
// of each, and the combiners that join the secrets of several sources into one key.
//
// All inputs are bytes of any length and content; none of them makes this package panic. Secret types print their
// name and nothing else.
package pqc

import (
	"errors"
	"fmt"
)

// KEM is a key encapsulation mechanism. Its values are immutable, comparable and safe for concurrent use. Every KEM
// here yields secrets of SecretSize bytes.
type KEM interface {
	Name() string              // as it stands in a suite's name: "mlkem768"
	EncapsulationKeySize() int // bytes
	CiphertextSize() int       // bytes
	GenerateKey() (DecapsulationKey, error)
	// ParseEncapsulationKey fails with a *SizeError, or with ErrKey if no key has this encoding.
	ParseEncapsulationKey([]byte) (EncapsulationKey, error)
}

// DecapsulationKey is the secret half of a KEM key pair. It may be used many times and concurrently until Wipe.
type DecapsulationKey interface {
	// EncapsulationKey is the encoded public half.
	EncapsulationKey() []byte
	// Decapsulate recovers the secret. A ciphertext of the right length never fails: one that was not made for this
	// key yields a secret that nobody else has (implicit rejection). Another length is a *SizeError.
	Decapsulate(ciphertext []byte) (secret []byte, err error)
	// Wipe overwrites the key, which must not be used afterwards.
	Wipe()
}

// EncapsulationKey is the public half of a KEM key pair, parsed once and usable many times and concurrently.
type EncapsulationKey interface {
	// Encapsulate makes a new secret and the ciphertext that carries it to the key's owner.
	Encapsulate() (ciphertext, secret []byte, err error)
}

// Signature is a signature scheme. Its values are immutable, comparable and safe for concurrent use.
type Signature interface {
	Name() string        // as it stands in a suite's name: "mldsa65"
	PublicKeySize() int  // bytes
	SigningKeySize() int // bytes of SigningKey.Bytes
	SignatureSize() int  // bytes, of the longest signature
	GenerateKey() (SigningKey, error)
	// ParseSigningKey reads what SigningKey.Bytes wrote. It fails with a *SizeError or ErrKey.
	ParseSigningKey([]byte) (SigningKey, error)
	// ParsePublicKey fails with a *SizeError, or with ErrKey if no key has this encoding.
	ParsePublicKey([]byte) (PublicKey, error)
}

// SigningKey is the secret half of a signature key pair. It may be used many times and concurrently until Wipe.
type SigningKey interface {
	Scheme() Signature
	// Bytes is the secret key's shortest encoding. The caller wipes it.
	Bytes() []byte
	// PublicKey is the encoded public half.
	PublicKey() []byte
	Sign(message []byte) (signature []byte, err error)
	// Wipe overwrites the key, which must not be used afterwards.
	Wipe()
}

// PublicKey is the public half of a signature key pair, parsed once and usable many times and concurrently.
type PublicKey interface {
	Scheme() Signature
	Bytes() []byte
	// Verify fails with ErrSignature, or with a *SizeError (which is an ErrSignature too) for an impossible length.
	Verify(message, signature []byte) error
}

// SecretSize is the length of every secret that a combiner takes, in bytes.
const SecretSize = 32

var (
	// ErrKey says that bytes of the right length are no key.
	ErrKey = errors.New("malformed key")
	// ErrSignature says that a signature does not verify.
	ErrSignature = errors.New("signature does not verify")
)

// SizeError says that an input has a length that the scheme does not know.
type SizeError struct {
	Scheme    string // "mlkem768"
	What      string // "ciphertext"
	Got, Want int    // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s: %s of %d bytes, want %d", e.Scheme, e.What, e.Got, e.Want)
}

// Is makes a signature of an impossible length an ErrSignature and such a key an ErrKey.
func (e *SizeError) Is(target error) bool {
	switch e.What {
	case signatureBytes:
		return target == ErrSignature
	case publicKeyBytes, signingKeyBytes, encapsulationKeyBytes:
		return target == ErrKey
	}
	return false
}

// What a SizeError can be about.
const (
	encapsulationKeyBytes = "encapsulation key"
	ciphertextBytes       = "ciphertext"
	publicKeyBytes        = "public key"
	signingKeyBytes       = "signing key"
	signatureBytes        = "signature"
	secretBytes           = "secret"
)

func checkSize(scheme, what string, got, want int) error {
	if got != want {
		return &SizeError{Scheme: scheme, What: what, Got: got, Want: want}
	}
	return nil
}
