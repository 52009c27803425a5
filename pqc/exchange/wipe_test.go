package exchange

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pqlab/pqc"
)

// spy hands out the primitives of a suite and keeps a reference to every secret that they give, and to every key.
type spy struct {
	mu      sync.Mutex
	secrets map[string][][]byte
	live    map[string]int // keys that were made and not wiped
	wiped   int
}

func (s *spy) secret(name string, b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secrets == nil {
		s.secrets = map[string][][]byte{}
	}
	s.secrets[name] = append(s.secrets[name], b)
	return b
}

func (s *spy) key(name string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = map[string]int{}
	}
	s.live[name] += n
	if n < 0 {
		s.wiped++
	}
}

// check wants all secrets zero and all keys wiped.
func (s *spy) check(t *testing.T, least int) {
	t.Helper()
	n := 0
	for name, secrets := range s.secrets {
		for _, b := range secrets {
			if n++; slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) {
				t.Errorf("a %s is still there", name)
			}
		}
	}
	for name, n := range s.live {
		if n != 0 {
			t.Errorf("%d of the %ss are still there", n, name)
		}
	}
	if n < least {
		t.Errorf("saw %d secrets, want at least %d", n, least)
	}
}

type spyKEM struct {
	pqc.KEM
	spy *spy
}

func (k spyKEM) GenerateKey() (pqc.DecapsulationKey, error) {
	d, err := k.KEM.GenerateKey()
	k.spy.key("decapsulation key", 1)
	return spyDecapsulation{d, k.spy}, err
}

func (k spyKEM) ParseEncapsulationKey(b []byte) (pqc.EncapsulationKey, error) {
	e, err := k.KEM.ParseEncapsulationKey(b)
	return spyEncapsulation{e, k.spy}, err
}

type spyDecapsulation struct {
	pqc.DecapsulationKey
	spy *spy
}

func (d spyDecapsulation) Decapsulate(b []byte) ([]byte, error) {
	secret, err := d.DecapsulationKey.Decapsulate(b)
	return d.spy.secret("KEM secret", secret), err
}

func (d spyDecapsulation) Wipe() {
	d.DecapsulationKey.Wipe()
	d.spy.key("decapsulation key", -1)
}

type spyEncapsulation struct {
	pqc.EncapsulationKey
	spy *spy
}

func (e spyEncapsulation) Encapsulate() (ciphertext, secret []byte, err error) {
	ciphertext, secret, err = e.EncapsulationKey.Encapsulate()
	return ciphertext, e.spy.secret("KEM secret", secret), err
}

type spySignature struct {
	pqc.Signature
	spy *spy
}

func (s spySignature) GenerateKey() (pqc.SigningKey, error) {
	k, err := s.Signature.GenerateKey()
	s.spy.key("signing key", 1)
	return spySigning{k, s.spy}, err
}

type spySigning struct {
	pqc.SigningKey
	spy *spy
}

func (k spySigning) Wipe() {
	k.SigningKey.Wipe()
	k.spy.key("signing key", -1)
}

type spyCombiner struct {
	pqc.Combiner
	spy *spy
}

func (c spyCombiner) Combine(domain string, sources ...pqc.Source) ([]byte, error) {
	for _, s := range sources {
		c.spy.secret(s.Name+" secret", s.Secret)
	}
	key, err := c.Combiner.Combine(domain, sources...)
	return c.spy.secret("combined key", key), err
}

// TestSecretsAreWiped runs exchanges that succeed and exchanges that fail at each message, and looks at every secret
// afterwards. Pinned keys stay.
func TestSecretsAreWiped(t *testing.T) {
	t.Parallel()
	for at := typeTLS; at <= typeDone; at++ { // at 0 nothing is altered
		for _, pinned := range []bool{false, true} {
			s := new(spy)
			plain := mustSuite(t, "mldsa44+mlkem512")
			suite := pqc.Suite{Signature: spySignature{plain.Signature, s}, KEM: spyKEM{plain.KEM, s}}
			cfg := Config{Suites: []pqc.Suite{suite}, Combiner: spyCombiner{pqc.XOR{}, s}, Mutual: true, Tamper: func(m []byte) []byte {
				if messageType(m[0]) == at {
					m[len(m)-1] ^= 1
				}
				return m
			}}
			i, r := cfg, cfg
			mine, err := NewIdentity("initiator", nil)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := NewIdentity("responder", nil)
			if err != nil {
				t.Fatal(err)
			}
			i.Peer.Pin, r.Peer.Pin = PinOf(theirs.Leaf), PinOf(mine.Leaf)
			if pinned {
				a, b := newSigningKey(t, plain.Signature), newSigningKey(t, plain.Signature)
				i.Pinned = &Pinned{Own: spySigning{a, s}, Peer: publicKey(t, b)}
				r.Pinned = &Pinned{Own: spySigning{b, s}, Peer: publicKey(t, a)}
			}
			x, y := net.Pipe()
			var sessions [2]*Session
			var wg sync.WaitGroup
			wg.Go(func() {
				session, err := Respond(context.Background(), y, Endpoint{Certificate: theirs}, func(Hello) (Config, Accept, error) { return r, duoAccept, nil })
				if err == nil {
					sessions[1], err = session, session.Confirm(context.Background(), nil)
				}
				if (err == nil) != (at == typeTLS) {
					t.Errorf("%v: responder: %v", at, err)
				}
			})
			session, err := Initiate(context.Background(), x, Endpoint{Certificate: mine}, i, Proposal{Tunnel: "t", SPI: 256})
			if err == nil {
				sessions[0], err = session, session.Done(context.Background())
			}
			if (err == nil) != (at == typeTLS) {
				t.Errorf("%v: initiator: %v", at, err)
			}
			wg.Wait()
			for _, session := range sessions {
				if session != nil && *session.schedule != (schedule{}) {
					t.Errorf("%v: MAC keys are still there", at)
				}
			}
			least := 0
			if at == typeTLS || at >= typeAnswer {
				least = 8
			}
			s.check(t, least)
			if pinned && s.live["signing key"] != 0 {
				t.Errorf("%v: a pinned key was wiped", at)
			}
		}
	}
}

// TestTLSSecretIsWiped: it goes with the combination, and also when the exchange does not come so far.
func TestTLSSecretIsWiped(t *testing.T) {
	t.Parallel()
	gone := func(what string, k tlsSecrets) {
		t.Helper()
		if len(k.key) != pqc.SecretSize || slices.ContainsFunc(k.key, func(x byte) bool { return x != 0 }) {
			t.Errorf("%s: TLS secret of %d bytes is still there", what, len(k.key))
		}
	}
	suite := mustSuite(t, "mldsa44+mlkem512")
	d := newDuo(t, suite, false, false)
	d.messages(t, func(typ messageType, _ []byte) {
		if typ == typeAnswer {
			gone("initiator that has answered", d.initiator.tls)
		}
		if typ == typeConfirmation {
			gone("responder that has the answer", d.responder.tls)
		}
	})

	// A responder that refuses: nobody comes to combining.
	mine, err := NewIdentity("initiator", nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := NewIdentity("responder", nil)
	if err != nil {
		t.Fatal(err)
	}
	x, y := net.Pipe()
	r := &responder{session: new(Session)}
	r.session.channel = newChannel(y, new(Endpoint), &r.session.Traffic)
	var wg sync.WaitGroup
	wg.Go(func() {
		e := r.run(context.Background(), &Endpoint{Certificate: theirs}, func(Hello) (Config, Accept, error) { return Config{}, nil, Busy })
		if e == nil || e.Alert != Busy {
			t.Errorf("responder: %v", e)
		}
		r.session.abort(e)
	})
	i := &initiator{session: new(Session), proposed: Proposal{Tunnel: "t", SPI: 256}}
	i.cfg = &Config{Suites: []pqc.Suite{suite}, Peer: Peer{Pin: PinOf(theirs.Leaf)}}
	i.session.channel = newChannel(x, new(Endpoint), &i.session.Traffic)
	if e := i.run(context.Background(), &Endpoint{Certificate: mine}); e == nil || e.Alert != Busy {
		t.Errorf("initiator: %v", e)
	}
	x.Close()
	wg.Wait()
	gone("refused initiator", i.tls)
	gone("responder that refused", r.tls)
}

// TestMeter: reading ends at the limit, exactly.
func TestMeter(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	go io.Copy(b, endless{})
	defer b.Close()
	a.SetDeadline(time.Now().Add(time.Minute))
	var traffic Traffic
	n, err := io.Copy(io.Discard, &meter{Conn: a, traffic: &traffic})
	if n != maxReceived || traffic.Received != maxReceived || err != errEndless {
		t.Errorf("read %d bytes, counted %d, %v", n, traffic.Received, err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestAlertsHaveTexts: none was forgotten.
func TestAlertsHaveTexts(t *testing.T) {
	t.Parallel()
	for a := Busy; a <= BadCertificate; a++ {
		if strings.HasPrefix(a.Error(), "unknown") {
			t.Errorf("alert %d has no text", a)
		}
	}
}
