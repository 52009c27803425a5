package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pqlab/internal/race"
	"pqlab/pqc"
)

// duo is an exchange between two honest sides that exist without TLS and without connections, so that a step can be
// repeated with thousands of altered messages.
type duo struct {
	initiator *initiator
	responder *responder
	config    [2]Config // initiator's, responder's
}

var duoAccept = Accept(func() (uint32, error) { return 0x2002, nil })

func newDuo(t testing.TB, suite pqc.Suite, mutual, pinned bool) *duo {
	t.Helper()
	d := new(duo)
	for i := range d.config {
		d.config[i] = Config{Peer: Peer{Pin: Pin{1}}, Suites: []pqc.Suite{suite}, Mutual: mutual}
	}
	if pinned {
		a, b := newSigningKey(t, suite.Signature), newSigningKey(t, suite.Signature)
		d.config[0].Pinned = &Pinned{Own: a, Peer: publicKey(t, b)}
		d.config[1].Pinned = &Pinned{Own: b, Peer: publicKey(t, a)}
	}
	keys := func() tlsSecrets {
		return tlsSecrets{key: bytes.Repeat([]byte{7}, 32), binding: bytes.Repeat([]byte{9}, 32)}
	}
	d.initiator = &initiator{
		cfg: &d.config[0], session: &Session{Initiator: true}, tls: keys(),
		proposed: Proposal{Tunnel: "tunnel", SPI: 0x1001, Trigger: "demand", Replaces: 0x999},
	}
	if err := d.initiator.check(); err != nil {
		t.Fatal(err)
	}
	d.responder = &responder{session: new(Session), tls: keys()}
	return d
}

func newSigningKey(t testing.TB, s pqc.Signature) pqc.SigningKey {
	t.Helper()
	k, err := s.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publicKey(t testing.TB, k pqc.SigningKey) pqc.PublicKey {
	t.Helper()
	p, err := k.Scheme().ParsePublicKey(k.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// takeProposal is what a responder does with the first message.
func (d *duo) takeProposal(message []byte) (offer []byte, e *Error) {
	m, e := d.responder.read(message)
	if e != nil {
		return nil, e
	}
	return d.responder.offer(&d.config[1], duoAccept, m)
}

// messages runs the exchange and gives its five messages. Before each message is taken, take is called with it and
// with the duo as it then is.
func (d *duo) messages(t testing.TB, take func(messageType, []byte)) [][]byte {
	t.Helper()
	var all [][]byte
	must := func(typ messageType, message []byte, e *Error) []byte {
		t.Helper()
		if e != nil {
			t.Fatal(e)
		}
		if message != nil {
			take(typ, message)
			all = append(all, message)
		}
		return message
	}
	message, e := d.initiator.propose()
	message = must(typeProposal, message, e)
	message, e = d.takeProposal(message)
	message = must(typeOffer, message, e)
	message, e = d.initiator.answer(message)
	message = must(typeAnswer, message, e)
	must(typeAnswer, nil, d.responder.accept(message))
	message, e = d.responder.session.confirmation()
	message = must(typeConfirmation, message, e)
	must(typeConfirmation, nil, d.initiator.confirmed(message))
	done, err := encodeMAC(typeDone, mac(&d.initiator.session.schedule.done, d.initiator.session.transcript))
	if err != nil {
		t.Fatal(err)
	}
	must(typeDone, done, nil)
	must(typeDone, nil, d.responder.session.done(done))
	return all
}

// kept is a decapsulation key that outlives the step that wipes it.
type kept struct{ pqc.DecapsulationKey }

func (kept) Wipe() {}

// snapshot copies a duo, so that a step can be tried on the copy.
func (d *duo) snapshot() *duo {
	c := *d
	i, r := *d.initiator, *d.responder
	i.session, r.session = cloneSession(i.session), cloneSession(r.session)
	i.tls.key, r.tls.key = bytes.Clone(i.tls.key), bytes.Clone(r.tls.key)
	if r.decapsulation != nil {
		r.decapsulation = kept{r.decapsulation}
	}
	c.initiator, c.responder = &i, &r
	return &c
}

func cloneSession(s *Session) *Session {
	c := *s
	if s.schedule != nil {
		k := *s.schedule
		c.schedule = &k
	}
	return &c
}

// try gives a message to the side that it is for. A nil error means that the victim went on; for a proposal the victim
// of an alteration is the initiator, whose proposal is not what was answered.
func (d *duo) try(t testing.TB, typ messageType, message []byte) *Error {
	t.Helper()
	c := d.snapshot()
	switch typ {
	case typeProposal:
		offer, e := c.takeProposal(message)
		if e != nil {
			return e
		}
		_, e = c.initiator.answer(offer)
		return e
	case typeOffer:
		_, e := c.initiator.answer(message)
		return e
	case typeAnswer:
		return c.responder.accept(message)
	case typeConfirmation:
		return c.initiator.confirmed(message)
	}
	return c.responder.session.done(message)
}

// TestEachByteMatters flips bits of the body of each message and gives the result to the honest side that it is for.
// Headers are read by the channel: see TestTamperedHeaders.
func TestEachByteMatters(t *testing.T) {
	t.Parallel()
	for _, suite := range pqc.Suites() {
		// Each byte where keys are short, and a sample of them where they are long.
		step := 97
		switch suite.String() {
		case "dilithium2+kyber512", "mldsa44+mlkem512":
			step = 1
		}
		if race.Enabled {
			step *= 7
		}
		for _, mode := range []struct{ mutual, pinned bool }{{false, false}, {true, true}} {
			t.Run(fmt.Sprintf("%v/mutual=%v/pinned=%v", suite, mode.mutual, mode.pinned), func(t *testing.T) {
				t.Parallel()
				d := newDuo(t, suite, mode.mutual, mode.pinned)
				d.messages(t, func(typ messageType, message []byte) {
					if e := d.try(t, typ, message); e != nil {
						t.Fatalf("%v unaltered: %v", typ, e)
					}
					for at := headerSize; at < len(message); at += step {
						altered := bytes.Clone(message)
						altered[at] ^= 1 << (at % 8)
						if e := d.try(t, typ, altered); e == nil {
							t.Errorf("%v: byte %d of %d does not matter", typ, at, len(message))
						}
					}
				})
			})
		}
	}
}

// TestEachLength cuts the body of each message at each place, and adds bytes after it.
func TestEachLength(t *testing.T) {
	t.Parallel()
	d := newDuo(t, pqc.Suites()[0], true, false)
	d.messages(t, func(typ messageType, message []byte) {
		for n := headerSize; n < len(message); n++ {
			if e := d.try(t, typ, message[:n]); e == nil || e.Alert != BadMessage {
				t.Errorf("%v cut to %d of %d bytes: %v", typ, n, len(message), e)
			}
		}
		for _, n := range []int{1, 2, 48, 1 << 12} {
			if e := d.try(t, typ, append(bytes.Clone(message), make([]byte, n)...)); e == nil || e.Alert != BadMessage {
				t.Errorf("%v with %d bytes more: %v", typ, n, e)
			}
		}
	})
}

// TestReplayed gives each side messages of an earlier exchange of the same two ends with the same keys, in place of
// those of the present one. The channel binding is the same here, which TLS would prevent: the nonces and keys have to
// do.
func TestReplayed(t *testing.T) {
	t.Parallel()
	for _, pinned := range []bool{false, true} {
		d := newDuo(t, pqc.Suites()[0], true, pinned)
		before := d.snapshot()
		earlier := d.messages(t, func(messageType, []byte) {})
		before.messages(t, func(typ messageType, message []byte) {
			old := earlier[typ-1]
			if bytes.Equal(old, message) {
				t.Errorf("%v is the same in two exchanges", typ)
			}
			if e := before.try(t, typ, old); e == nil {
				t.Errorf("pinned=%v: replayed %v was taken", pinned, typ)
			}
		})
	}
}

// TestSplicedBinding has each side in another TLS session, as with a man in the middle who passes on everything.
func TestSplicedBinding(t *testing.T) {
	t.Parallel()
	d := newDuo(t, pqc.Suites()[0], false, false)
	d.responder.tls.binding[0] ^= 1
	message, e := d.initiator.propose()
	if e != nil {
		t.Fatal(e)
	}
	if message, e = d.takeProposal(message); e != nil {
		t.Fatal(e)
	}
	if _, e = d.initiator.answer(message); e == nil || e.Alert != BadSignature {
		t.Errorf("offer for another TLS session: %v", e)
	}
}

// TestDowngrade has responders that choose what was not proposed, with a good signature over it.
func TestDowngrade(t *testing.T) {
	t.Parallel()
	strong, weak := mustSuite(t, "mldsa65+mlkem768"), mustSuite(t, "dilithium2+kyber512")
	d := newDuo(t, strong, false, false)
	proposalMessage, e := d.initiator.propose()
	if e != nil {
		t.Fatal(e)
	}
	m, e := d.responder.read(proposalMessage)
	if e != nil {
		t.Fatal(e)
	}
	m.suites, d.config[1].Suites = []string{weak.String()}, []pqc.Suite{weak}
	offer, e := d.responder.offer(&d.config[1], duoAccept, m)
	if e != nil {
		t.Fatal(e)
	}
	if _, e = d.initiator.answer(offer); e == nil || !errors.Is(e, ErrDowngrade) {
		t.Errorf("weaker suite: %v", e)
	}

	// A proposal that lost its first suite on the way: the responder chooses the weaker in good faith.
	d = newDuo(t, strong, false, false)
	d.config[0].Suites, d.config[1].Suites = []pqc.Suite{strong, weak}, []pqc.Suite{strong, weak}
	if err := d.initiator.check(); err != nil {
		t.Fatal(err)
	}
	if proposalMessage, e = d.initiator.propose(); e != nil {
		t.Fatal(e)
	}
	var p proposal
	if err := p.decode(proposalMessage[headerSize:]); err != nil {
		t.Fatal(err)
	}
	p.suites = p.suites[1:]
	stripped, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	if offer, e = d.takeProposal(stripped); e != nil {
		t.Fatal(e)
	}
	if _, e = d.initiator.answer(offer); e == nil || e.Alert != BadSignature {
		t.Errorf("stripped proposal: %v", e)
	}
}

func mustSuite(t testing.TB, name string) pqc.Suite {
	t.Helper()
	s, err := pqc.ParseSuite(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
