package exchange

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"time"

	"pqlab/pqc"
)

// Session is an exchange whose keys are agreed. It is not safe for concurrent use. The caller ends it with Done
// (initiator), Confirm (responder) or Close, and wipes it.
type Session struct {
	Initiator     bool
	Tunnel        string
	Suite         pqc.Suite
	Combiner      string
	Pinned        bool
	Mutual        bool
	Encapsulation Encapsulation
	Trigger       string // as the initiator said
	Replaces      uint32 // as the initiator said: an SPI of its own
	Peer          Pin    // of its TLS certificate
	TLSGroup      tls.CurveID

	In, Out Keys // of the SAs that this side receives with and sends with
	// Transcript hash that the keys are derived with; equal on both sides, and public.
	Transcript [TranscriptSize]byte
	Timings    Timings
	Traffic    Traffic

	channel                  *channel // nil when the exchange is over
	watch                    stopwatch
	schedule                 *schedule
	transcript               transcript
	proposedSPI, acceptedSPI uint32
}

// Done tells the responder that the initiator's inbound SA is in place, and ends the exchange. Nil means that the
// responder has it, and sends on its outbound SA: it ended the session. After an error it may have it or not.
func (s *Session) Done(ctx context.Context) error {
	if err := s.open(true, typeDone); err != nil {
		return err
	}
	start := time.Now()
	defer s.channel.enter(ctx)()
	return s.finish(start, s.sendDone())
}

func (s *Session) sendDone() *Error {
	message, err := encodeMAC(typeDone, mac(&s.schedule.done, s.transcript))
	if err != nil {
		return fail(typeDone, Internal, err)
	}
	if e := s.channel.send(typeDone, message); e != nil {
		return e
	}
	return s.channel.awaitEnd(typeDone)
}

// Confirm tells the initiator that the responder's inbound SA is in place, waits until the initiator's is, and calls
// switched, which makes the responder send on its outbound SA. Only when that has returned nil does the initiator learn
// that the exchange is complete. After an error, switched was not called or has failed; see docs/exchange.md for the
// inbound SA. A nil switched does nothing.
func (s *Session) Confirm(ctx context.Context, switched func() error) error {
	if err := s.open(false, typeConfirmation); err != nil {
		return err
	}
	start := time.Now()
	defer s.channel.enter(ctx)()
	return s.finish(start, s.confirm(switched))
}

func (s *Session) confirm(switched func() error) *Error {
	message, e := s.confirmation()
	if e != nil {
		return e
	}
	if e := s.channel.send(typeConfirmation, message); e != nil {
		return e
	}
	if message, e = s.channel.receive(typeDone, macSize); e != nil {
		return e
	}
	if e := s.done(message); e != nil || switched == nil {
		return e
	}
	if err := switched(); err != nil {
		return fail(typeDone, Internal, err)
	}
	return nil
}

// confirmation makes the responder's last message.
func (s *Session) confirmation() ([]byte, *Error) {
	message, err := encodeMAC(typeConfirmation, mac(&s.schedule.confirmation, s.transcript))
	if err != nil {
		return nil, fail(typeConfirmation, Internal, err)
	}
	s.transcript.add(message)
	return message, nil
}

// done takes the initiator's last message.
func (s *Session) done(message []byte) *Error {
	return s.checkMAC(typeDone, message, func(k *schedule) *[macSize]byte { return &k.done })
}

// Close gives the exchange up, if it is not over, and tells the peer. The keys stay until Wipe.
func (s *Session) Close() error {
	if s.channel != nil {
		s.finish(time.Now(), fail(typeDone, Cancelled, nil))
	}
	return nil
}

// Wipe overwrites all key material that the session holds.
func (s *Session) Wipe() {
	s.In.Wipe()
	s.Out.Wipe()
	s.schedule.wipe()
}

// String names the tunnel, the suite and the SPIs.
func (s *Session) String() string {
	return fmt.Sprintf("exchange %s %v in %#08x out %#08x", s.Tunnel, s.Suite, s.In.SPI, s.Out.SPI)
}

// Format keeps every verb from printing more than String.
func (s *Session) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

func (s *Session) open(initiator bool, t messageType) error {
	if s.Initiator != initiator {
		return fail(t, Internal, fmt.Errorf("not this side's to call"))
	}
	if s.channel == nil {
		return fail(t, Internal, ErrFinished)
	}
	return nil
}

// finish closes the connection and drops what was needed for it only.
func (s *Session) finish(start time.Time, e *Error) error {
	s.channel.close(e)
	s.channel = nil
	s.schedule.wipe()
	s.Timings.Total += time.Since(start)
	if e != nil {
		return e
	}
	return nil
}

// abort is finish for a session that nobody will see.
func (s *Session) abort(e *Error) error {
	err := s.finish(time.Now(), e)
	s.Wipe()
	return err
}

func (s *Session) describe(state tls.ConnectionState) {
	s.Peer = PinOf(state.PeerCertificates[0])
	s.TLSGroup = state.CurveID
}

func (s *Session) adopt(m *proposal) {
	s.Tunnel, s.Combiner, s.Pinned, s.Mutual = m.tunnel, m.combiner, m.pinned, m.mutual
	s.Encapsulation, s.Trigger, s.Replaces, s.proposedSPI = m.encapsulation, m.trigger, m.replaces, m.spi
}

// signingKey is the pinned one, or a new one that the caller wipes.
func (s *Session) signingKey(t messageType, cfg *Config) (pqc.SigningKey, *Error) {
	if cfg.Pinned != nil {
		return cfg.Pinned.Own, nil
	}
	start := s.watch.start()
	key, err := s.Suite.Signature.GenerateKey()
	if err != nil {
		return nil, fail(t, Internal, err)
	}
	s.Timings.SignatureKeygen = start.elapsed()
	return key, nil
}

// sign signs the transcript.
func (s *Session) sign(t messageType, key pqc.SigningKey, label string) ([]byte, *Error) {
	start := s.watch.start()
	signature, err := key.Sign(signed(label, s.transcript))
	if err != nil {
		return nil, fail(t, Internal, err)
	}
	s.Timings.Sign = start.elapsed()
	if limit := s.Suite.Signature.SignatureSize(); len(signature) > limit {
		return nil, fail(t, Internal, fmt.Errorf("%s: signature of %d bytes, want at most %d", s.Suite.Signature.Name(), len(signature), limit))
	}
	return signature, nil
}

// combine makes the keys from the transcript up to the answer's MAC, and forgets the TLS key.
func (s *Session) combine(t messageType, cfg *Config, keys *tlsSecrets, kemSecret, encapsulationKey, ciphertext []byte) *Error {
	s.Transcript = s.transcript
	start := s.watch.start()
	schedule, err := combine(cfg, *keys, kemSecret, encapsulationKey, ciphertext, s.Transcript)
	keys.wipe()
	if err != nil {
		return fail(t, Internal, err)
	}
	s.schedule = schedule
	s.Timings.Combine = start.elapsed()
	return nil
}

// stopwatch is an Endpoint's.
type stopwatch func() time.Duration

// lap is a step that is being measured.
type lap struct {
	watch stopwatch
	from  time.Duration
	wall  time.Time // without a watch
}

func (w stopwatch) start() lap {
	if w == nil {
		return lap{wall: time.Now()}
	}
	return lap{watch: w, from: w()}
}

func (l lap) elapsed() time.Duration {
	if l.watch == nil {
		return time.Since(l.wall)
	}
	return l.watch() - l.from
}

// setKeys moves the keys of the two SAs out of the schedule.
func (s *Session) setKeys(initiatorSPI, responderSPI uint32) {
	toResponder, toInitiator := &s.In, &s.Out
	if s.Initiator {
		toResponder, toInitiator = toInitiator, toResponder
	}
	toResponder.set(responderSPI, &s.schedule.initiator)
	toInitiator.set(initiatorSPI, &s.schedule.responder)
}

func (k *tlsSecrets) wipe() { clear(k.key) }

func append16(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}
