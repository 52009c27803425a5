package combine

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"

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

	said []byte // the channel binding is to come before it
	ek   []byte // the responder's
	keys derived
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
		a.said = bytes.Clone(m)
	case offer:
		a.said = append(a.said, m...)
		s := cryptobyte.String(m[header:])
		var suite, ek cryptobyte.String
		if !s.ReadUint8LengthPrefixed(&suite) || !s.Skip(32+4) || !s.ReadUint16LengthPrefixed(&ek) {
			panic("no offer")
		}
		a.ek = bytes.Clone(ek)
	case answer:
		return a.finish(m)
	}
	return m
}

// finish is his answer, and at once what follows the responder's confirmation.
func (a *man) finish(honest []byte) []byte {
	key, err := a.suite.KEM.ParseEncapsulationKey(a.ek)
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
	said := append(bytes.Clone(a.tls.public[0]), a.said...)
	body := field(ciphertext)
	if a.signs {
		signer, err := a.suite.Signature.GenerateKey()
		if err != nil {
			panic(err)
		}
		body = append(body, field(signer.PublicKey())...)
		h := with(said, body)
		signature, err := signer.Sign(append([]byte("pqlab/1 initiator signature\x00"), h[:]...))
		if err != nil {
			panic(err)
		}
		body = append(body, field(signature)...)
	} else { // public key and signature as they were, if there are any
		body = append(body, honest[header+len(body):len(honest)-48]...)
	}
	h := with(said, body)
	sources := []source{a.tls, {"kem", secret, [][]byte{a.ek, ciphertext}}}
	a.keys = expand(a.combiner.key(sources), h[:])

	reply := message(answer, append(body, mac(a.keys.answer, h)...))
	said = append(said, reply...)
	said = append(said, message(confirmation, mac(a.keys.confirmation, sha512.Sum384(said)))...)
	return append(reply, message(done, mac(a.keys.done, sha512.Sum384(said)))...)
}

// with is the hash of what was said and of a part of the next message.
func with(said, part []byte) [48]byte {
	h := sha512.Sum384(said)
	return sha512.Sum384(append(h[:], part...))
}

func mac(key, h [48]byte) []byte {
	m := hmac.New(sha512.New384, key[:])
	m.Write(h[:])
	return m.Sum(nil)
}

func field(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}
