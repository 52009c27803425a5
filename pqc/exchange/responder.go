package exchange

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"pqlab/pqc"
)

// Respond takes part in an exchange that the peer at the other end of conn began, and returns when the peer has proved
// that it has the keys. The caller installs its inbound SA and calls Session.Confirm; when that returns nil it may
// send on its outbound SA.
//
// Respond owns conn. An error is an *Error; then conn is closed, the peer has been told, and no key is left. What
// accept reserved is the caller's to give back.
func Respond(ctx context.Context, conn net.Conn, ep Endpoint, lookup Lookup) (*Session, error) {
	s := &Session{watch: ep.Stopwatch}
	start := time.Now()
	r := &responder{session: s}
	s.channel = newChannel(conn, &ep, &s.Traffic)
	if err := r.run(ctx, &ep, lookup); err != nil {
		return nil, s.abort(err)
	}
	s.Timings.Total = time.Since(start)
	return s, nil
}

func (r *responder) run(ctx context.Context, ep *Endpoint, lookup Lookup) *Error {
	c, s := r.session.channel, r.session
	defer c.enter(ctx)()

	start := s.watch.start()
	keys, e := c.server(ep)
	if e != nil {
		return e
	}
	r.tls = keys
	defer r.wipe()
	state := c.tls.ConnectionState()
	s.describe(state)
	s.Timings.TLS = start.elapsed()

	message, e := c.receive(typeProposal, maxProposalBody)
	if e != nil {
		return e
	}
	m, e := r.read(message)
	if e != nil {
		return e
	}
	cfg, accept, err := lookup(Hello{
		Proposal: m.public(), Pin: s.Peer, Certificate: state.PeerCertificates[0], Remote: c.raw.RemoteAddr(), Encapsulation: m.encapsulation,
	})
	if err != nil {
		return refusal(err)
	}
	c.setDeadline(cfg.Deadline)
	c.tamper = cfg.Tamper
	if err := cfg.Peer.check(); err != nil {
		return fail(typeProposal, Internal, fmt.Errorf("%w: %w", ErrConfig, err))
	}
	if err := cfg.Peer.verify(state.PeerCertificates, x509.ExtKeyUsageClientAuth); err != nil {
		return fail(typeProposal, Refused, err)
	}
	if err := c.checkGroup(&cfg); err != nil {
		return fail(typeProposal, Refused, err)
	}

	if message, e = r.offer(&cfg, accept, m); e != nil {
		return e
	}
	if e := c.send(typeOffer, message); e != nil {
		return e
	}
	if message, e = c.receive(typeAnswer, maxAnswerBody(s.Suite, cfg.Mutual)); e != nil {
		return e
	}
	return r.accept(message)
}

// responder goes through the exchange message by message and knows nothing of connections. After an error it is
// useless.
type responder struct {
	cfg     *Config
	session *Session
	tls     tlsSecrets

	decapsulation pqc.DecapsulationKey
}

// read takes the proposal.
func (r *responder) read(message []byte) (*proposal, *Error) {
	m := new(proposal)
	if err := m.decode(message[headerSize:]); err != nil {
		return nil, fail(typeProposal, BadMessage, err)
	}
	r.session.transcript = newTranscript(r.tls.binding)
	r.session.transcript.add(message)
	return m, nil
}

// choose takes the first suite of the initiator's that is acceptable, and refuses a proposal that asks for another
// tunnel than the configured one.
func (r *responder) choose(m *proposal) (pqc.Suite, error) {
	cfg := r.cfg
	switch {
	case m.combiner != cfg.combiner().Name():
		return pqc.Suite{}, fmt.Errorf("combiner %q, want %q", m.combiner, cfg.combiner().Name())
	case m.pinned != (cfg.Pinned != nil):
		return pqc.Suite{}, fmt.Errorf("pinned identities: %v, want %v", m.pinned, cfg.Pinned != nil)
	case m.mutual != cfg.Mutual:
		return pqc.Suite{}, fmt.Errorf("mutual signatures: %v, want %v", m.mutual, cfg.Mutual)
	case m.encapsulation != cfg.Encapsulation:
		return pqc.Suite{}, fmt.Errorf("encapsulation %v, want %v", m.encapsulation, cfg.Encapsulation)
	}
	for _, name := range m.suites {
		for _, s := range cfg.Suites {
			if s.String() == name && cfg.usable(s) {
				return s, nil
			}
		}
	}
	return pqc.Suite{}, fmt.Errorf("none of the suites %q is acceptable, want one of %v", m.suites, cfg.Suites)
}

// refusal is what the user of this package says to a proposal.
func refusal(err error) *Error {
	if errors.Is(err, Busy) {
		return fail(typeProposal, Busy, err)
	}
	return fail(typeProposal, Refused, err)
}

// offer makes the second message.
func (r *responder) offer(cfg *Config, accept Accept, m *proposal) ([]byte, *Error) {
	r.cfg = cfg
	s := r.session
	if err := cfg.check(false); err != nil {
		return nil, fail(typeOffer, Internal, fmt.Errorf("%w: %w", ErrConfig, err))
	}
	suite, err := r.choose(m)
	if err != nil {
		return nil, fail(typeProposal, Refused, err)
	}
	spi, err := accept()
	if err != nil {
		return nil, refusal(err)
	}
	if spi < MinSPI {
		return nil, fail(typeOffer, Internal, fmt.Errorf("%w: SPI %#x, want at least %#x", ErrConfig, spi, MinSPI))
	}
	s.adopt(m)
	s.Suite, s.acceptedSPI = suite, spi

	key, e := s.signingKey(typeOffer, cfg)
	if e != nil {
		return nil, e
	}
	if cfg.Pinned == nil {
		defer key.Wipe()
	}
	start := s.watch.start()
	if r.decapsulation, err = suite.KEM.GenerateKey(); err != nil {
		return nil, fail(typeOffer, Internal, err)
	}
	s.Timings.KEMKeygen = start.elapsed()

	o := offer{suite: suite.String(), spi: spi, encapsulationKey: r.decapsulation.EncapsulationKey(), publicKey: key.PublicKey()}
	rand.Read(o.nonce[:])
	begun, err := o.begin(suite.Signature.SignatureSize())
	if err != nil {
		return nil, fail(typeOffer, Internal, err)
	}
	s.transcript.add(begun[headerSize:])
	signature, e := s.sign(typeOffer, key, labelResponderSigns)
	if e != nil {
		return nil, e
	}
	message, err := finishOffer(begun, signature)
	if err != nil {
		return nil, fail(typeOffer, Internal, err)
	}
	s.transcript.add(message[:headerSize], message[len(begun):])
	return message, nil
}

// accept takes the answer, verifies it, and makes all keys.
func (r *responder) accept(message []byte) *Error {
	s := r.session
	body := message[headerSize:]
	var m answer
	n, err := m.decode(body)
	if err != nil {
		return fail(typeAnswer, BadMessage, err)
	}
	confirmed := len(body) - macSize
	s.transcript.add(body[:n])
	if r.cfg.Mutual {
		start := s.watch.start()
		if e := verify(typeAnswer, r.cfg, s.Suite, m.publicKey, m.signature, signed(labelInitiatorSigns, s.transcript)); e != nil {
			return e
		}
		s.Timings.Verify = start.elapsed()
	} else if len(m.publicKey)+len(m.signature) > 0 {
		return fail(typeAnswer, BadMessage, errors.New("signed, though the tunnel is not mutual"))
	}

	start := s.watch.start()
	secret, err := r.decapsulation.Decapsulate(m.ciphertext)
	if err != nil {
		return fail(typeAnswer, BadMessage, err)
	}
	defer clear(secret)
	s.Timings.Decaps = start.elapsed()
	encapsulationKey := r.decapsulation.EncapsulationKey()
	r.decapsulation.Wipe()
	r.decapsulation = nil

	s.transcript.add(body[n:confirmed])
	if e := s.combine(typeAnswer, r.cfg, &r.tls, secret, encapsulationKey, m.ciphertext); e != nil {
		return e
	}
	if !hmac.Equal(m.mac[:], mac(&s.schedule.answer, s.Transcript)) {
		return fail(typeAnswer, BadConfirm, nil)
	}
	s.setKeys(s.proposedSPI, s.acceptedSPI)
	s.transcript.add(message[:headerSize], body[confirmed:])
	return nil
}

func (r *responder) wipe() {
	r.tls.wipe()
	if r.decapsulation != nil {
		r.decapsulation.Wipe()
		r.decapsulation = nil
	}
}
