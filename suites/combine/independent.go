package combine

import (
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
)

// source is a secret with what was public about it.
type source struct {
	name   string
	secret []byte
	public [][]byte
}

// derived is all that an exchange makes of its key.
type derived struct {
	toResponder, toInitiator   [36]byte // keys and salts of both SAs
	answer, confirmation, done [48]byte // keys of the MACs
}

// This is docs/exchange.md ("Keys") written down once more, sharing no code with what it verifies.

// xorAll is the combiner xor.
func xorAll(sources []source) (key [32]byte) {
	for _, s := range sources {
		for i := range key {
			key[i] ^= s.secret[i]
		}
	}
	return key
}

// hardened is the combiner hardened.
func hardened(sources []source) (key [32]byte) {
	var secrets, info []byte
	number := func(n int) { info = binary.BigEndian.AppendUint32(info, uint32(n)) }
	text := func(b []byte) {
		number(len(b))
		info = append(info, b...)
	}
	text([]byte("pqlab/1 tunnel key"))
	number(len(sources))
	for _, s := range sources {
		secrets = append(secrets, s.secret...)
		text([]byte(s.name))
		number(len(s.public))
		for _, p := range s.public {
			text(p)
		}
	}
	okm, err := hkdf.Key(sha512.New384, secrets, []byte("pqlab hardened combiner"), string(info), 32)
	if err != nil {
		panic(err) // of a length that HKDF does not have
	}
	return [32]byte(okm)
}

// expand gives the keys of both SAs and of the MACs.
func expand(key [32]byte, transcript []byte) (k derived) {
	prk, err := hkdf.Extract(sha512.New384, key[:], transcript)
	if err != nil {
		panic(err)
	}
	for label, out := range map[string][]byte{
		"pqlab/1 esp initiator to responder": k.toResponder[:],
		"pqlab/1 esp responder to initiator": k.toInitiator[:],
		"pqlab/1 initiator answer":           k.answer[:],
		"pqlab/1 responder confirmation":     k.confirmation[:],
		"pqlab/1 initiator done":             k.done[:],
	} {
		okm, err := hkdf.Expand(sha512.New384, prk, label, len(out))
		if err != nil {
			panic(err)
		}
		copy(out, okm)
	}
	return k
}

// combiner is one by its name in a topology.
type combiner struct {
	name string
	key  func([]source) [32]byte
}

func combiners() []combiner { return []combiner{{"xor", xorAll}, {"hardened", hardened}} }
