package pqc

import (
	"fmt"
	"reflect"

	"github.com/cloudflare/circl/kem"
)

// circlKEM adapts a KEM of circl, whose functions panic on some wrong lengths.
type circlKEM struct {
	name   string
	scheme kem.Scheme
}

func (k circlKEM) Name() string              { return k.name }
func (k circlKEM) EncapsulationKeySize() int { return k.scheme.PublicKeySize() }
func (k circlKEM) CiphertextSize() int       { return k.scheme.CiphertextSize() }

func (k circlKEM) GenerateKey() (DecapsulationKey, error) {
	public, secret, err := k.scheme.GenerateKeyPair()
	if err != nil {
		return nil, fmt.Errorf("%s: generate key: %w", k.name, err)
	}
	encoded, err := public.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("%s: encode key: %w", k.name, err)
	}
	return &circlDecapsulationKey{kem: k, secret: secret, public: encoded}, nil
}

func (k circlKEM) ParseEncapsulationKey(b []byte) (EncapsulationKey, error) {
	if err := checkSize(k.name, encapsulationKeyBytes, len(b), k.EncapsulationKeySize()); err != nil {
		return nil, err
	}
	public, err := k.scheme.UnmarshalBinaryPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: encapsulation key: %w (%v)", k.name, ErrKey, err)
	}
	return &circlEncapsulationKey{kem: k, public: public}, nil
}

type circlEncapsulationKey struct {
	kem    circlKEM
	public kem.PublicKey
}

func (e *circlEncapsulationKey) Encapsulate() (ciphertext, secret []byte, err error) {
	ciphertext, secret, err = e.kem.scheme.Encapsulate(e.public)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: encapsulate: %w", e.kem.name, err)
	}
	return ciphertext, secret, nil
}

type circlDecapsulationKey struct {
	kem    circlKEM
	secret kem.PrivateKey
	public []byte
}

func (d *circlDecapsulationKey) EncapsulationKey() []byte { return d.public }

func (d *circlDecapsulationKey) Decapsulate(ciphertext []byte) ([]byte, error) {
	if err := checkSize(d.kem.name, ciphertextBytes, len(ciphertext), d.kem.CiphertextSize()); err != nil {
		return nil, err
	}
	secret, err := d.kem.scheme.Decapsulate(d.secret, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%s: decapsulate: %w", d.kem.name, err)
	}
	return secret, nil
}

// Wipe reaches through the pointer in which circl keeps the secret vector, for which circl has no method.
func (d *circlDecapsulationKey) Wipe() {
	key := reflect.ValueOf(d.secret).Elem()
	if vector := key.FieldByName("sk"); vector.IsValid() && !vector.IsNil() {
		reflect.NewAt(vector.Type().Elem(), vector.UnsafePointer()).Elem().SetZero()
	}
	key.SetZero()
}

// Format keeps every verb from printing the key.
func (d *circlDecapsulationKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s decapsulation key", d.kem.name)
}
