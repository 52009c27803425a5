package combine

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

// man is in the middle, in the TLS session. He follows docs/exchange.md and shares no code with package exchange.
type man struct {
	combiner combiner
	suite    pqc.Suite
	signs    bool   // with a key of his own; otherwise he leaves the initiator's signature as it is
	tls      source // all that he knows of the secrets
	found    []byte // a ciphertext to swap in whose secret he does not know; nil means one of his own

	proposed, offered []byte
	keys              derived
}

// takesOver puts him behind an initiator: he learns TLS's secret of it and nothing of the KEM's.
func (a *man) takesOver(e *exchangetest.End) {
	e.Config.Reveal = func(s exchange.Secrets) { a.tls = source{"tls", s.Sources[0].Secret, s.Sources[0].Public} }
	e.Config.Tamper = a.sees
}

// sees is what he does with a message.
func (a *man) sees(m []byte) []byte {
	switch m[0] {
	case proposal:
		a.proposed = bytes.Clone(m)
	case offer:
		a.offered = bytes.Clone(m)
	case answer:
		return a.finish(m)
	}
	return m
}

// finish is his answer, and at once what follows the responder's confirmation.
func (a *man) finish(honest []byte) []byte {
	body := cryptobyte.String(a.offered[header:])
	var suite, ek, public cryptobyte.String
	if !body.ReadUint8LengthPrefixed(&suite) || !body.Skip(32+4) || !body.ReadUint16LengthPrefixed(&ek) || !body.ReadUint16LengthPrefixed(&public) {
		panic("no offer")
	}
	key, err := a.suite.KEM.ParseEncapsulationKey(ek)
	if err != nil {
		panic(err)
	}
	ciphertext, secret, err := key.Encapsulate()
	if err != nil {
		panic(err)
	}
	if a.found != nil {
		ciphertext = a.found
	}
	t := transcript(sha512.Sum384(a.tls.public[0]))
	t.add(a.proposed)
	t.add(a.offered[header : len(a.offered)-len(body)])
	t.add(a.offered[:header], body)

	// Public key and signature are as they were, if there are any, or his own.
	rest := cryptobyte.String(honest[header+2+len(ciphertext):])
	var publicKey, signature cryptobyte.String
	if !rest.ReadUint16LengthPrefixed(&publicKey) || !rest.ReadUint16LengthPrefixed(&signature) {
		panic("no answer")
	}
	var signer pqc.SigningKey
	if a.signs {
		if signer, err = a.suite.Signature.GenerateKey(); err != nil {
			panic(err)
		}
		publicKey = signer.PublicKey()
	}
	unsigned := append(field(ciphertext), field(publicKey)...)
	t.add(unsigned)
	if a.signs {
		if signature, err = signer.Sign(append([]byte("pqlab/1 initiator signature\x00"), t[:]...)); err != nil {
			panic(err)
		}
	}
	t.add(field(signature))
	a.keys = expand(a.combiner.key([]source{a.tls, {"kem", secret, [][]byte{ek, ciphertext}}}), t[:])

	reply := message(answer, append(append(unsigned, field(signature)...), mac(a.keys.answer, t)...))
	t.add(reply[:header], reply[len(reply)-48:])
	t.add(message(confirmation, mac(a.keys.confirmation, t)))
	return append(reply, message(done, mac(a.keys.done, t))...)
}

// transcript is the hash of what was said.
type transcript [48]byte

func (t *transcript) add(part ...[]byte) {
	*t = sha512.Sum384(slices.Concat(append([][]byte{t[:]}, part...)...))
}

func mac(key [48]byte, t transcript) []byte {
	m := hmac.New(sha512.New384, key[:])
	m.Write(t[:])
	return m.Sum(nil)
}

func field(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}
