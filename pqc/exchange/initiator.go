package exchange

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"time"

	"pqlab/pqc"
)

// Initiate proposes the tunnel to the responder at the other end of conn and returns when the responder has confirmed
// the keys, and so has its inbound SA in place. The caller installs its inbound SA, may then send on its outbound one,
// and calls Session.Done.
//
// Initiate owns conn. An error is an *Error; then conn is closed, the peer has been told, and no key is left.
func Initiate(ctx context.Context, conn net.Conn, ep Endpoint, cfg Config, p Proposal) (*Session, error) {
	s := &Session{Initiator: true, watch: ep.Stopwatch}
	start := time.Now()
	i := &initiator{cfg: &cfg, session: s, proposed: p}
	s.channel = newChannel(conn, &ep, &s.Traffic)
	if err := i.run(ctx, &ep); err != nil {
		return nil, s.abort(err)
	}
	s.Timings.Total = time.Since(start)
	return s, nil
}

func (i *initiator) run(ctx context.Context, ep *Endpoint) *Error {
	c := i.session.channel
	defer c.enter(ctx)()
	if err := i.check(); err != nil {
		return fail(typeProposal, Internal, fmt.Errorf("%w: %w", ErrConfig, err))
	}
	c.setDeadline(i.cfg.Deadline)
	c.tamper = i.cfg.Tamper

	start := i.session.watch.start()
	keys, e := c.client(ep, i.cfg)
	if e != nil {
		return e
	}
	i.tls = keys
	defer i.tls.wipe()
	i.session.describe(c.tls.ConnectionState())
	i.session.Timings.TLS = start.elapsed()
	if err := c.checkGroup(i.cfg); err != nil {
		return fail(typeProposal, Refused, err)
	}

	message, e := i.propose()
	if e != nil {
		return e
	}
	if e := c.send(typeProposal, message); e != nil {
		return e
	}
	limit := 0
	for _, s := range i.suites {
		limit = max(limit, maxOfferBody(s))
	}
	if message, e = c.receive(typeOffer, limit); e != nil {
		return e
	}
	if message, e = i.answer(message); e != nil {
		return e
	}
	if e := c.send(typeAnswer, message); e != nil {
		return e
	}
	if message, e = c.receive(typeConfirmation, macSize); e != nil {
		return e
	}
	return i.confirmed(message)
}

// initiator goes through the exchange message by message and knows nothing of connections. After an error it is
// useless.
type initiator struct {
	cfg      *Config
	session  *Session
	proposed Proposal
	tls      tlsSecrets

	suites []pqc.Suite // that were proposed
}

func (i *initiator) check() error {
	if err := i.cfg.check(true); err != nil {
		return err
	}
	for _, s := range i.cfg.Suites {
		if i.cfg.usable(s) && !slices.Contains(i.suites, s) {
			i.suites = append(i.suites, s)
		}
	}
	if len(i.suites) == 0 {
		return fmt.Errorf("no suite has the signature scheme of the pinned keys")
	}
	return i.proposed.check()
}

// propose makes the first message.
func (i *initiator) propose() ([]byte, *Error) {
	m := proposal{
		tunnel: i.proposed.Tunnel, combiner: i.cfg.combiner().Name(), pinned: i.cfg.Pinned != nil, mutual: i.cfg.Mutual,
		spi: i.proposed.SPI, encapsulation: i.cfg.Encapsulation, trigger: i.proposed.Trigger, replaces: i.proposed.Replaces,
	}
	for _, s := range i.suites {
		m.suites = append(m.suites, s.String())
	}
	rand.Read(m.nonce[:])
	message, err := m.encode()
	if err != nil {
		return nil, fail(typeProposal, Internal, err)
	}
	i.session.adopt(&m)
	i.session.transcript = newTranscript(i.tls.binding)
	i.session.transcript.add(message)
	return message, nil
}

// answer takes the responder's offer, verifies it, and makes the third message and all keys.
func (i *initiator) answer(message []byte) ([]byte, *Error) {
	s := i.session
	body := message[headerSize:]
	var m offer
	n, err := m.decode(body)
	if err != nil {
		return nil, fail(typeOffer, BadMessage, err)
	}
	at := slices.IndexFunc(i.suites, func(s pqc.Suite) bool { return s.String() == m.suite })
	if at < 0 {
		return nil, fail(typeOffer, BadMessage, fmt.Errorf("%w: suite %q", ErrDowngrade, m.suite))
	}
	s.Suite = i.suites[at]

	s.transcript.add(body[:n])
	start := s.watch.start()
	if e := verify(typeOffer, i.cfg, s.Suite, m.publicKey, m.signature, signed(labelResponderSigns, s.transcript)); e != nil {
		return nil, e
	}
	s.Timings.Verify = start.elapsed()
	s.transcript.add(message[:headerSize], body[n:])

	start = s.watch.start()
	encapsulationKey, err := s.Suite.KEM.ParseEncapsulationKey(m.encapsulationKey)
	if err != nil {
		return nil, fail(typeOffer, BadMessage, err)
	}
	ciphertext, secret, err := encapsulationKey.Encapsulate()
	if err != nil {
		return nil, fail(typeAnswer, Internal, err)
	}
	defer clear(secret)
	s.Timings.Encaps = start.elapsed()

	unconfirmed, e := i.sign(answer{ciphertext: ciphertext})
	if e != nil {
		return nil, e
	}
	if e := s.combine(typeAnswer, i.cfg, &i.tls, secret, m.encapsulationKey, ciphertext); e != nil {
		return nil, e
	}
	s.setKeys(s.proposedSPI, m.spi)
	reply, err := finishAnswer(unconfirmed, mac(&s.schedule.answer, s.Transcript))
	if err != nil {
		return nil, fail(typeAnswer, Internal, err)
	}
	s.transcript.add(reply[:headerSize], reply[len(unconfirmed):])
	return reply, nil
}

// sign completes an answer up to its MAC; unless both sides sign, public key and signature stay empty.
func (i *initiator) sign(m answer) (unconfirmed []byte, e *Error) {
	s := i.session
	var key pqc.SigningKey
	size := 0
	if i.cfg.Mutual {
		if key, e = s.signingKey(typeAnswer, i.cfg); e != nil {
			return nil, e
		}
		if i.cfg.Pinned == nil {
			defer key.Wipe()
		}
		m.publicKey, size = key.PublicKey(), s.Suite.Signature.SignatureSize()
	}
	begun, err := m.begin(size)
	if err != nil {
		return nil, fail(typeAnswer, Internal, err)
	}
	s.transcript.add(begun[headerSize:])
	if i.cfg.Mutual {
		if m.signature, e = s.sign(typeAnswer, key, labelInitiatorSigns); e != nil {
			return nil, e
		}
	}
	unconfirmed = append16(begun, m.signature)
	s.transcript.add(unconfirmed[len(begun):])
	return unconfirmed, nil
}

// confirmed checks the responder's confirmation.
func (i *initiator) confirmed(message []byte) *Error {
	return i.session.checkMAC(typeConfirmation, message, func(k *schedule) *[macSize]byte { return &k.confirmation })
}

// verify checks a signature of the peer, and with pinned identities that the key is the one expected.
func verify(t messageType, cfg *Config, suite pqc.Suite, public, signature, covered []byte) *Error {
	var key pqc.PublicKey
	if cfg.Pinned != nil {
		key = cfg.Pinned.Peer
		if !bytes.Equal(key.Bytes(), public) {
			return fail(t, BadSignature, ErrPinnedKey)
		}
	} else {
		var err error
		if key, err = suite.Signature.ParsePublicKey(public); err != nil {
			return fail(t, BadMessage, err)
		}
	}
	if err := key.Verify(covered, signature); err != nil {
		return fail(t, BadSignature, err)
	}
	return nil
}

// checkMAC compares a confirmation or done message with what it has to be.
func (s *Session) checkMAC(t messageType, message []byte, key func(*schedule) *[macSize]byte) *Error {
	if len(message) != headerSize+macSize {
		return fail(t, BadMessage, fmt.Errorf("%d bytes, want %d", len(message), headerSize+macSize))
	}
	if !hmac.Equal(message[headerSize:], mac(key(s.schedule), s.transcript)) {
		return fail(t, BadConfirm, nil)
	}
	s.transcript.add(message)
	return nil
}
