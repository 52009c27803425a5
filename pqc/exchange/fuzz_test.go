package exchange

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"pqlab/pqc"
)

// seeds gives the five messages of honest exchanges, with headers.
func seeds(f *testing.F, add func(messageType, []byte)) {
	f.Helper()
	for _, name := range []string{"dilithium2+kyber512", "mldsa65+mlkem768"} {
		for _, mutual := range []bool{false, true} {
			newDuo(f, mustSuite(f, name), mutual, false).messages(f, add)
		}
	}
}

// FuzzProposal: what decodes, encodes to the same bytes, so no two encodings mean the same; and it keeps all limits.
func FuzzProposal(f *testing.F) {
	seeds(f, func(t messageType, m []byte) {
		if t == typeProposal {
			f.Add(m[headerSize:])
		}
	})
	f.Add([]byte{})
	f.Add([]byte{version, 1, 't', 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		var m proposal
		if err := m.decode(body); err != nil {
			return
		}
		if len(body) > maxProposalBody {
			t.Errorf("%d bytes decode, beyond the limit of %d", len(body), maxProposalBody)
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[headerSize:], body) {
			t.Errorf("%x encodes as %x", body, again[headerSize:])
		}
		p := m.public()
		if err := p.check(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzOffer(f *testing.F) {
	seeds(f, func(t messageType, m []byte) {
		if t == typeOffer {
			f.Add(m[headerSize:])
		}
	})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		var m offer
		n, err := m.decode(body)
		if err != nil {
			return
		}
		begun, err := m.begin(len(m.signature))
		if err != nil {
			t.Fatal(err)
		}
		again, err := finishOffer(begun, m.signature)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[headerSize:], body) || !bytes.Equal(begun[headerSize:], body[:n]) {
			t.Errorf("%x encodes as %x", body, again[headerSize:])
		}
	})
}

func FuzzAnswer(f *testing.F) {
	seeds(f, func(t messageType, m []byte) {
		if t == typeAnswer {
			f.Add(m[headerSize:])
		}
	})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		var m answer
		n, err := m.decode(body)
		if err != nil {
			return
		}
		begun, err := m.begin(len(m.signature))
		if err != nil {
			t.Fatal(err)
		}
		again, err := finishAnswer(append16(begun, m.signature), m.mac[:])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[headerSize:], body) || !bytes.Equal(begun[headerSize:], body[:n]) {
			t.Errorf("%x encodes as %x", body, again[headerSize:])
		}
	})
}

// FuzzInitiator and FuzzResponder give a side any body in place of an honest one's. Nobody who lacks the secrets can
// make one that is taken.
func FuzzInitiator(f *testing.F) {
	d := newDuo(f, mustSuite(f, "mldsa44+mlkem512"), true, false)
	if _, e := d.initiator.propose(); e != nil {
		f.Fatal(e)
	}
	seeds(f, func(t messageType, m []byte) { f.Add(m[headerSize:]) })
	f.Fuzz(func(t *testing.T, body []byte) {
		message := append(make([]byte, headerSize), body...)
		if e := d.try(t, typeOffer, message); e == nil {
			t.Error("an offer was taken")
		}
	})
}

func FuzzResponder(f *testing.F) {
	d := newDuo(f, mustSuite(f, "mldsa44+mlkem512"), true, false)
	message, e := d.initiator.propose()
	if e != nil {
		f.Fatal(e)
	}
	if _, e := d.takeProposal(message); e != nil {
		f.Fatal(e)
	}
	seeds(f, func(t messageType, m []byte) { f.Add(m[headerSize:]) })
	f.Fuzz(func(t *testing.T, body []byte) {
		message := append(make([]byte, headerSize), body...)
		if e := d.try(t, typeAnswer, message); e == nil {
			t.Error("an answer was taken")
		}
	})
}

// FuzzRespond writes any bytes into a TLS session with a valid certificate. The responder ends with an error, has no
// session, and does not wait beyond its deadline.
func FuzzRespond(f *testing.F) {
	mine, err := NewIdentity("initiator", nil)
	if err != nil {
		f.Fatal(err)
	}
	theirs, err := NewIdentity("responder", nil)
	if err != nil {
		f.Fatal(err)
	}
	cfg := Config{Peer: Peer{Pin: PinOf(mine.Leaf)}, Suites: []pqc.Suite{mustSuite(f, "dilithium2+kyber512")}}
	seeds(f, func(t messageType, m []byte) { f.Add(m) })
	f.Add([]byte{255, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		a, b := net.Pipe()
		defer a.Close()
		go func() {
			c := tls.Client(a, &tls.Config{
				Certificates: []tls.Certificate{mine}, InsecureSkipVerify: true, NextProtos: []string{ALPN}, CurvePreferences: []tls.CurveID{tls.X25519},
			})
			if c.Handshake() == nil {
				go c.Write(stream)
				buffer := make([]byte, 1<<14)
				for {
					if n, err := c.Read(buffer); err != nil || n > 0 && messageType(buffer[0]) != typeOffer {
						break
					}
				}
			}
			a.Close()
		}()
		start := time.Now()
		s, err := Respond(context.Background(), b, Endpoint{Certificate: theirs, Deadline: 100 * time.Millisecond}, func(Hello) (Config, Accept, error) {
			return cfg, duoAccept, nil
		})
		if s != nil || err == nil {
			t.Error("a session was made")
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}
