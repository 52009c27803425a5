package bench

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

// round is one exchange, and each of its primitives once alone.
type round struct {
	Sample
	steps      Steps
	primitives Steps
	wire       Wire
}

// exchanger is a pair of ends that trust each other, and what connects them.
type exchanger struct {
	suite                pqc.Suite
	initiator, responder exchangetest.End
	client, server       *tls.Config // of the bare handshake
	listener             *net.TCPListener
}

func newExchanger(suite pqc.Suite, pinned bool) (*exchanger, error) {
	p := &exchanger{suite: suite}
	var err error
	if p.initiator, p.responder, err = exchangetest.Pair(exchange.Config{Suites: []pqc.Suite{suite}}); err != nil {
		return nil, err
	}
	if pinned {
		if err := exchangetest.Pinned(&p.initiator, &p.responder); err != nil {
			return nil, err
		}
	}
	p.client, p.server = bareTLS(p.initiator), bareTLS(p.responder)
	p.listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	return p, err
}

func (p *exchanger) close() { p.listener.Close() }

// bareTLS is what an exchange asks of TLS, and no more.
func bareTLS(e exchangetest.End) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{e.Endpoint.Certificate}, MinVersion: tls.VersionTLS13, NextProtos: []string{exchange.ALPN},
		ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, SessionTicketsDisabled: true,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
}

// wires are the two ends of a TCP connection. They stay open when they are closed, until they are cut: neither an exchange
// nor a bare handshake pays for connecting and disconnecting.
type wires struct{ initiator, responder openConn }

type openConn struct{ *net.TCPConn }

func (openConn) Close() error { return nil }

func (p *exchanger) connect() (w wires, err error) {
	a, err := net.DialTCP("tcp", nil, p.listener.Addr().(*net.TCPAddr))
	if err != nil {
		return w, err
	}
	b, err := p.listener.AcceptTCP()
	if err != nil {
		a.Close()
		return w, err
	}
	return wires{openConn{a}, openConn{b}}, nil
}

// cut resets the connection, which leaves no port waiting for its last packets.
func (w wires) cut() {
	for _, c := range []openConn{w.initiator, w.responder} {
		c.SetLinger(0)
		c.TCPConn.Close()
	}
}

// whole connects, makes an exchange, and disconnects.
func (p *exchanger) whole(ctx context.Context) error {
	w, err := p.connect()
	if err != nil {
		return err
	}
	defer w.cut()
	r, _ := exchangeOnce(ctx, w, p.initiator, p.responder, nil)
	r.Wipe()
	return errors.Join(r.InitiatorErr, r.ResponderErr)
}

// exchangeOnce measures steps with the stopwatch, which may be nil, and tells how long after the initiator the responder
// began.
func exchangeOnce(
	ctx context.Context, w wires, initiator, responder exchangetest.End, watch func() time.Duration,
) (r exchangetest.Result, entered time.Duration) {
	initiator.Endpoint.Stopwatch, responder.Endpoint.Stopwatch = watch, watch
	var began time.Duration
	if watch != nil {
		began = watch()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if watch != nil {
			entered = watch() - began
		}
		lookup := func(exchange.Hello) (exchange.Config, exchange.Accept, error) {
			return responder.Config, func() (uint32, error) { return exchange.MinSPI, nil }, nil
		}
		if r.Responder, r.ResponderErr = exchange.Respond(ctx, w.responder, responder.Endpoint, lookup); r.ResponderErr == nil {
			r.ResponderErr = r.Responder.Confirm(ctx, nil)
		}
	}()
	r.Initiator, r.InitiatorErr = exchange.Initiate(ctx, w.initiator, initiator.Endpoint, initiator.Config, exchangetest.Proposal())
	if r.InitiatorErr == nil {
		r.InitiatorErr = r.Initiator.Done(ctx)
	}
	<-done
	return r, entered
}

func (p *exchanger) round(ctx context.Context) (r round, err error) {
	signed, err := p.undisturbed(ctx, &r)
	if err != nil {
		return r, err
	}
	if r.primitives, err = p.alone(signed); err != nil {
		return r, err
	}
	if r.primitives.TLS, err = p.handshake(); err != nil {
		return r, err
	}
	return r, p.split(ctx, &r)
}

// signed is a signature that was made in an exchange, to be made again: the time that Dilithium and ML-DSA take depends on
// the key and the message, by a factor of ten.
type signed struct {
	key     []byte // SigningKey.Bytes, of one that was made for the exchange
	message []byte
}

// recorder is a signature scheme, and recorded a key, that tell what was signed.
type recorder struct {
	pqc.Signature
	to *signed
}

type recorded struct {
	pqc.SigningKey
	to *signed
}

func (r recorder) GenerateKey() (pqc.SigningKey, error) {
	k, err := r.Signature.GenerateKey()
	if err != nil {
		return nil, err
	}
	return recorded{k, r.to}, nil
}

func (k recorded) Sign(message []byte) ([]byte, error) {
	k.to.message = message
	return k.SigningKey.Sign(message)
}

func (k recorded) Wipe() {
	k.to.key = k.Bytes()
	k.SigningKey.Wipe()
}

// undisturbed measures a whole exchange and no part of it.
func (p *exchanger) undisturbed(ctx context.Context, r *round) (*signed, error) {
	w, err := p.connect()
	if err != nil {
		return nil, err
	}
	defer w.cut()
	responder, to := p.responder, new(signed)
	if pinned := responder.Config.Pinned; pinned != nil {
		responder.Config.Pinned = &exchange.Pinned{Own: recorded{pinned.Own, to}, Peer: pinned.Peer}
	} else {
		responder.Config.Suites = []pqc.Suite{{Signature: recorder{p.suite.Signature, to}, KEM: p.suite.KEM}}
	}
	began, cpu := time.Now(), cpuTime()
	got, _ := exchangeOnce(ctx, w, p.initiator, responder, nil)
	r.CPU = us(cpuTime() - cpu)
	r.Noisy = us(time.Since(began)) > noisy*r.CPU
	got.Wipe()
	return to, errors.Join(got.InitiatorErr, got.ResponderErr)
}

// split measures the steps of an exchange, which takes longer than an undisturbed one: the clock is read twenty times.
func (p *exchanger) split(ctx context.Context, r *round) error {
	w, err := p.connect()
	if err != nil {
		return err
	}
	defer w.cut()
	cpu := cpuTime()
	got, entered := exchangeOnce(ctx, w, p.initiator, p.responder, cpuTime)
	all := us(cpuTime() - cpu)
	got.Wipe()
	if err := errors.Join(got.InitiatorErr, got.ResponderErr); err != nil {
		return err
	}
	i, s := got.Initiator.Timings, got.Responder.Timings
	r.steps = Steps{
		TLS: us(entered + s.TLS), Keygen: us(s.SignatureKeygen + s.KEMKeygen), Sign: us(s.Sign), Verify: us(i.Verify),
		Encaps: us(i.Encaps), Decaps: us(s.Decaps), Combine: us(i.Combine + s.Combine),
	}
	r.steps.Rest = all - r.steps.sum()
	t := got.Initiator.Traffic
	r.wire = Wire{Initiator: t.Sent, Responder: t.Received, Messages: t.MessagesSent + t.MessagesReceived, RoundTrips: t.RoundTrips}
	return nil
}

// handshake is TLS 1.3 with certificates on both sides over a connection like an exchange's: from the making of the client's
// hello until both sides have verified the other's signature. No secret is exported, no pin is compared, nothing is sent in
// the session, not even its end.
func (p *exchanger) handshake() (float64, error) {
	w, err := p.connect()
	if err != nil {
		return 0, err
	}
	defer w.cut()
	cpu := cpuTime()
	served := make(chan error, 1)
	go func() { served <- tls.Server(w.responder, p.server).Handshake() }()
	err = errors.Join(tls.Client(w.initiator, p.client).Handshake(), <-served)
	return us(cpuTime() - cpu), err
}

// alone does what an exchange does with the suite and the combiner, and signs what it signed.
func (p *exchanger) alone(again *signed) (out Steps, err error) {
	lap := func(to *float64, f func() error) {
		if err == nil {
			began := cpuTime()
			err = f()
			*to += us(cpuTime() - began)
		}
	}
	var (
		key                        pqc.SigningKey
		verification               pqc.PublicKey
		decapsulation              pqc.DecapsulationKey
		signature, ciphertext      []byte
		encapsulated, decapsulated []byte
	)
	if pinned := p.responder.Config.Pinned; pinned != nil {
		key, verification = pinned.Own, p.initiator.Config.Pinned.Peer
	} else {
		lap(&out.Keygen, func() error { _, err := p.suite.Signature.GenerateKey(); return err })
		if err != nil {
			return out, err
		}
		if key, err = p.suite.Signature.ParseSigningKey(again.key); err != nil {
			return out, err
		}
	}
	lap(&out.Keygen, func() (err error) { decapsulation, err = p.suite.KEM.GenerateKey(); return err })
	lap(&out.Sign, func() (err error) { signature, err = key.Sign(again.message); return err })
	lap(&out.Verify, func() (err error) {
		if verification == nil {
			if verification, err = p.suite.Signature.ParsePublicKey(key.PublicKey()); err != nil {
				return err
			}
		}
		return verification.Verify(again.message, signature)
	})
	lap(&out.Encaps, func() error {
		public, err := p.suite.KEM.ParseEncapsulationKey(decapsulation.EncapsulationKey())
		if err == nil {
			ciphertext, encapsulated, err = public.Encapsulate()
		}
		return err
	})
	lap(&out.Decaps, func() (err error) { decapsulated, err = decapsulation.Decapsulate(ciphertext); return err })
	exported, transcript := make([]byte, pqc.SecretSize), make([]byte, exchange.TranscriptSize)
	rand.Read(exported)
	rand.Read(transcript)
	for _, s := range [][]byte{encapsulated, decapsulated} {
		lap(&out.Combine, func() error {
			return combine(pqc.Source{Name: "tls", Secret: exported}, pqc.Source{Name: "kem", Secret: s}, transcript)
		})
	}
	return out, err
}

// combine makes as many keys as an exchange does on each side, by the letter of RFC 5869.
func combine(a, b pqc.Source, salt []byte) error {
	key, err := pqc.XOR{}.Combine("", a, b)
	if err != nil {
		return err
	}
	prk, err := hkdf.Extract(sha512.New384, key, salt)
	if err != nil {
		return err
	}
	for _, size := range []int{36, 36, 48, 48, 48} { // of two SAs, and of three MAC keys
		if _, err := hkdf.Expand(sha512.New384, prk, "pqlab/1 responder confirmation", size); err != nil {
			return err
		}
	}
	return nil
}

// cpuTime is what all threads of this process have had of the cores.
func cpuTime() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // cannot fail: Linux always has it
	return time.Duration(t.Nano())
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
