package crypto

import (
	"bytes"
	"crypto/rand"
	"errors"

	"pqlab/pqc"
)

// messageSize is about that of what an exchange signs: a label and a SHA-384 hash.
const messageSize = 80

// peers is how many keys the client meets in turn, so that no key stays in its caches because it is always the same.
const peers = 64

// letter is what a client gets from a server.
type letter struct{ key, message, signature []byte }

// post keeps the latest letters.
type post struct {
	letters []letter
	written int
	read    int
}

func (p *post) put(l letter) {
	if len(p.letters) < peers {
		p.letters = append(p.letters, l)
	} else {
		p.letters[p.written%peers] = l
	}
	p.written++
}

// next is never asked for before the server's first round.
func (p *post) next() letter {
	p.read++
	return p.letters[p.read%len(p.letters)]
}

// signatureJobs: the server makes a key and signs with it; the client verifies, and has only bytes.
func signatureJobs(s pqc.Signature) (client, server *job) {
	figures := &Scheme{Name: s.Name(), Kind: Signature}
	box := &post{}
	server = &job{what: s.Name() + ", server", scheme: figures, parts: []string{Keygen, Sign}, whole: KeygenSign}
	server.round = func(j *job) error {
		l := letter{message: make([]byte, messageSize)}
		rand.Read(l.message)
		var key pqc.SigningKey
		err := j.time(0, func() (err error) {
			key, err = s.GenerateKey()
			return err
		})
		if err != nil {
			return err
		}
		defer key.Wipe()
		err = j.time(1, func() (err error) {
			l.signature, err = key.Sign(l.message)
			return err
		})
		if err != nil {
			return err
		}
		l.key = bytes.Clone(key.PublicKey())
		figures.PublicKey, figures.Signature = len(l.key), max(figures.Signature, len(l.signature))
		box.put(l)
		return nil
	}
	client = &job{what: s.Name() + ", client", scheme: figures, parts: []string{Verify}}
	client.round = func(j *job) error {
		l := box.next()
		return j.time(0, func() error {
			key, err := s.ParsePublicKey(l.key)
			if err != nil {
				return err
			}
			return key.Verify(l.message, l.signature)
		})
	}
	return client, server
}

var errSecrets = errors.New("the two ends have different secrets")

// kemJobs: the server makes a key and decapsulates with it; the client encapsulates, and has only bytes.
func kemJobs(k pqc.KEM) (client, server *job) {
	figures := &Scheme{Name: k.Name(), Kind: KEM}
	box := &post{}
	encapsulate := func(key []byte) (ciphertext, secret []byte, err error) {
		e, err := k.ParseEncapsulationKey(key)
		if err != nil {
			return nil, nil, err
		}
		return e.Encapsulate()
	}
	server = &job{what: k.Name() + ", server", scheme: figures, parts: []string{Keygen, Decaps}, whole: KeygenDecaps}
	server.round = func(j *job) error {
		var key pqc.DecapsulationKey
		err := j.time(0, func() (err error) {
			key, err = k.GenerateKey()
			return err
		})
		if err != nil {
			return err
		}
		defer key.Wipe()
		public := bytes.Clone(key.EncapsulationKey())
		ciphertext, want, err := encapsulate(public)
		if err != nil {
			return err
		}
		var got []byte
		err = j.time(1, func() (err error) {
			got, err = key.Decapsulate(ciphertext)
			return err
		})
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return errSecrets
		}
		figures.PublicKey, figures.Ciphertext = len(public), len(ciphertext)
		box.put(letter{key: public})
		return nil
	}
	client = &job{what: k.Name() + ", client", scheme: figures, parts: []string{Encaps}}
	client.round = func(j *job) error {
		l := box.next()
		return j.time(0, func() error {
			_, _, err := encapsulate(l.key)
			return err
		})
	}
	return client, server
}
