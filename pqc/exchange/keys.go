package exchange

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha512"
	"fmt"
	"io"

	"pqlab/pqc"
)

// TranscriptSize is the length of a transcript hash (SHA-384), in bytes.
const TranscriptSize = sha512.Size384

// Labels of what is derived and signed. docs/exchange.md lists them.
const (
	labelTLSKey          = "EXPORTER-pqlab-1-key"             // RFC 8446 section 7.5
	labelBinding         = "EXPORTER-pqlab-1-channel-binding" // in the manner of RFC 9266
	labelDomain          = "pqlab/1 tunnel key"
	labelResponderSigns  = "pqlab/1 responder signature"
	labelInitiatorSigns  = "pqlab/1 initiator signature"
	labelInitiatorESP    = "pqlab/1 esp initiator to responder"
	labelResponderESP    = "pqlab/1 esp responder to initiator"
	labelInitiatorAnswer = "pqlab/1 initiator answer"
	labelConfirmation    = "pqlab/1 responder confirmation"
	labelDone            = "pqlab/1 initiator done"
)

// Keys protect one direction of a tunnel: AES-256-GCM as in RFC 4106. They print their SPI and nothing else.
type Keys struct {
	SPI  uint32
	Key  [32]byte
	Salt [4]byte
}

// Wipe overwrites the key and the salt.
func (k *Keys) Wipe() {
	clear(k.Key[:])
	clear(k.Salt[:])
}

// String names the SPI.
func (k Keys) String() string { return fmt.Sprintf("keys of SPI %#08x", k.SPI) }

// Format keeps every verb from printing the keys.
func (k Keys) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// MarshalJSON keeps encoding/json from printing the keys.
func (k Keys) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", k.String()), nil }

// transcript is a chain of hashes over everything that was said: the channel binding, then each message in its parts, so
// that a signature or MAC in the middle of a message can cover what is before it and each byte is hashed once.
type transcript [TranscriptSize]byte

func newTranscript(binding []byte) transcript { return sha512.Sum384(binding) }

// add takes the next part, which may come in pieces.
func (t *transcript) add(pieces ...[]byte) {
	h := sha512.New384()
	h.Write(t[:])
	for _, p := range pieces {
		h.Write(p)
	}
	h.Sum(t[:0])
}

// signed is what a signature covers: its label, and the transcript up to the signature.
func signed(label string, t transcript) []byte {
	return append(append([]byte(label), 0), t[:]...)
}

// tlsSecrets are what both ends take from their TLS session (RFC 8446 section 7.5).
type tlsSecrets struct {
	key     []byte // secret
	binding []byte // differs if somebody stands in between
}

// schedule holds everything that is derived from the combined key.
type schedule struct {
	initiator, responder       [36]byte // AES-256 key and salt of what each one sends
	answer, confirmation, done [macSize]byte
}

func (s *schedule) wipe() {
	if s != nil {
		*s = schedule{}
	}
}

// combine makes the schedule from the two secrets and from the transcript up to the answer's MAC.
func combine(cfg *Config, keys tlsSecrets, kemSecret, encapsulationKey, ciphertext []byte, h [TranscriptSize]byte) (*schedule, error) {
	sources := []pqc.Source{
		{Name: "tls", Secret: keys.key, Public: [][]byte{keys.binding}},
		{Name: "kem", Secret: kemSecret, Public: [][]byte{encapsulationKey, ciphertext}},
	}
	if cfg.Reveal != nil {
		cfg.Reveal(reveal(sources, h))
	}
	key, err := cfg.combiner().Combine(labelDomain, sources...)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return derive(key, h)
}

// derive is HKDF (RFC 5869) with SHA-384: the transcript is the salt, the labels are the infos. No key is longer than one
// hash, so that each is T(1) = HMAC(PRK, info ‖ 0x01), and all share one HMAC's set-up.
func derive(key []byte, h [TranscriptSize]byte) (*schedule, error) {
	prk, err := hkdf.Extract(sha512.New384, key, h[:])
	if err != nil {
		return nil, err
	}
	defer clear(prk)
	expand := hmac.New(sha512.New384, prk)
	var okm [sha512.Size384]byte
	defer clear(okm[:])
	s := new(schedule)
	for _, out := range []struct {
		label string
		to    []byte
	}{
		{labelInitiatorESP, s.initiator[:]},
		{labelResponderESP, s.responder[:]},
		{labelInitiatorAnswer, s.answer[:]},
		{labelConfirmation, s.confirmation[:]},
		{labelDone, s.done[:]},
	} {
		expand.Reset()
		io.WriteString(expand, out.label)
		expand.Write([]byte{1})
		copy(out.to, expand.Sum(okm[:0]))
	}
	return s, nil
}

func (k *Keys) set(spi uint32, okm *[36]byte) {
	k.SPI = spi
	copy(k.Key[:], okm[:32])
	copy(k.Salt[:], okm[32:])
	clear(okm[:])
}

func mac(key *[macSize]byte, t transcript) []byte {
	m := hmac.New(sha512.New384, key[:])
	m.Write(t[:])
	return m.Sum(nil)
}

func reveal(sources []pqc.Source, h [TranscriptSize]byte) Secrets {
	out := Secrets{Domain: labelDomain, Transcript: h}
	for _, s := range sources {
		c := pqc.Source{Name: s.Name, Secret: append([]byte(nil), s.Secret...)}
		for _, p := range s.Public {
			c.Public = append(c.Public, append([]byte(nil), p...))
		}
		out.Sources = append(out.Sources, c)
	}
	return out
}
