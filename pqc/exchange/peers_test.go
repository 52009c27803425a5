package exchange_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

func newIdentity(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := exchange.NewIdentity("stranger", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// neither checks that no side has a session.
func neither(t testing.TB, r exchangetest.Result) {
	t.Helper()
	if r.Initiator != nil || r.InitiatorErr == nil {
		t.Errorf("initiator has a session; its error is %v", r.InitiatorErr)
	}
	if r.Responder != nil || r.ResponderErr == nil {
		t.Errorf("responder has a session; its error is %v", r.ResponderErr)
	}
}

func TestWrongCertificate(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})

	impostor := responder
	impostor.Endpoint.Certificate = newIdentity(t)
	r := run(t, initiator, impostor)
	neither(t, r)
	if !errors.Is(r.InitiatorErr, exchange.ErrUntrusted) || !errors.Is(r.InitiatorErr, exchange.BadCertificate) {
		t.Errorf("initiator, of a responder with another key: %v", r.InitiatorErr)
	}

	impostor = initiator
	impostor.Endpoint.Certificate = newIdentity(t)
	r = run(t, impostor, responder)
	neither(t, r)
	if !errors.Is(r.ResponderErr, exchange.ErrUntrusted) || !errors.Is(r.ResponderErr, exchange.Refused) {
		t.Errorf("responder, of an initiator with another key: %v", r.ResponderErr)
	}
	if errors.Is(r.InitiatorErr, exchange.ErrUntrusted) || !errors.Is(r.InitiatorErr, exchange.Refused) {
		t.Errorf("an untrusted initiator learns more than that it was refused: %v", r.InitiatorErr)
	}

	// The right certificate without its key.
	impostor = initiator
	impostor.Endpoint.Certificate.PrivateKey = newIdentity(t).PrivateKey
	neither(t, run(t, impostor, responder))
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) issue(t testing.TB, name string, until time.Time, usage ...x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestAuthority(t *testing.T) {
	t.Parallel()
	lab, other := newAuthority(t), newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(lab.cert)
	later, both := time.Now().Add(time.Hour), []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for name, tc := range map[string]struct {
		cert tls.Certificate
		want error
	}{
		"good":        {lab.issue(t, "dpu1", later, both...), nil},
		"other CA":    {other.issue(t, "dpu1", later, both...), exchange.ErrUntrusted},
		"other name":  {lab.issue(t, "dpu2", later, both...), exchange.ErrUntrusted},
		"expired":     {lab.issue(t, "dpu1", time.Now().Add(-time.Hour), both...), exchange.ErrUntrusted},
		"not for TLS": {lab.issue(t, "dpu1", later, x509.ExtKeyUsageCodeSigning), exchange.ErrUntrusted},
		"self-signed": {newIdentity(t), exchange.ErrUntrusted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trust := exchange.Peer{CAs: pool, Name: "dpu1"}

			initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
			initiator.Config.Peer, responder.Endpoint.Certificate = trust, tc.cert
			r := run(t, initiator, responder)
			if !errors.Is(r.InitiatorErr, tc.want) {
				t.Errorf("responder's certificate: %v, want %v", r.InitiatorErr, tc.want)
			}

			initiator, responder = pair(t, exchange.Config{Suites: anySuite(t)})
			responder.Config.Peer, initiator.Endpoint.Certificate = trust, tc.cert
			r = run(t, initiator, responder)
			if !errors.Is(r.ResponderErr, tc.want) {
				t.Errorf("initiator's certificate: %v, want %v", r.ResponderErr, tc.want)
			}
		})
	}
}

func TestWrongPinnedKey(t *testing.T) {
	t.Parallel()
	initiator, responder := pinnedPair(t, exchange.Config{Suites: anySuite(t), Mutual: true})
	stranger, _ := pinnedPair(t, exchange.Config{Suites: anySuite(t)})
	change := func(p *exchange.Pinned, f func(*exchange.Pinned)) *exchange.Pinned {
		c := *p
		f(&c)
		return &c
	}
	for name, tc := range map[string]struct {
		f                    func(initiator, responder *exchange.Config)
		initiator, responder error
	}{
		"responder has another": {func(_, r *exchange.Config) {
			r.Pinned = change(r.Pinned, func(p *exchange.Pinned) { p.Own = stranger.Config.Pinned.Own })
		}, exchange.ErrPinnedKey, exchange.BadSignature},
		"initiator expects another": {func(i, _ *exchange.Config) {
			i.Pinned = change(i.Pinned, func(p *exchange.Pinned) { p.Peer = stranger.Config.Pinned.Peer })
		}, exchange.ErrPinnedKey, exchange.BadSignature},
		"initiator has another": {func(i, _ *exchange.Config) {
			i.Pinned = change(i.Pinned, func(p *exchange.Pinned) { p.Own = stranger.Config.Pinned.Own })
		}, exchange.BadSignature, exchange.ErrPinnedKey},
		"responder expects another": {func(_, r *exchange.Config) {
			r.Pinned = change(r.Pinned, func(p *exchange.Pinned) { p.Peer = stranger.Config.Pinned.Peer })
		}, exchange.BadSignature, exchange.ErrPinnedKey},
		"responder shows the key but signs with another": {func(_, r *exchange.Config) {
			r.Pinned = change(r.Pinned, func(p *exchange.Pinned) { p.Own = liar{stranger.Config.Pinned.Own, p.Own.PublicKey()} })
		}, pqc.ErrSignature, exchange.BadSignature},
		"initiator shows the key but signs with another": {func(i, _ *exchange.Config) {
			i.Pinned = change(i.Pinned, func(p *exchange.Pinned) { p.Own = liar{stranger.Config.Pinned.Own, p.Own.PublicKey()} })
		}, exchange.BadSignature, pqc.ErrSignature},
		"responder is fresh": {func(_, r *exchange.Config) { r.Pinned = nil }, exchange.Refused, exchange.Refused},
		"initiator is fresh": {func(i, _ *exchange.Config) { i.Pinned = nil }, exchange.Refused, exchange.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, s := initiator, responder
			tc.f(&i.Config, &s.Config)
			r := run(t, i, s)
			neither(t, r)
			refused(t, r, tc.initiator, tc.responder)
		})
	}
}

// liar shows somebody else's public key.
type liar struct {
	pqc.SigningKey
	public []byte
}

func (l liar) PublicKey() []byte { return l.public }

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(*exchange.Config){
		"suites": func(c *exchange.Config) {
			c.Suites = suites(t, "mldsa65+mlkem768", "mldsa44+kyber512", "dilithium2+mlkem512")
		},
		"combiner":      func(c *exchange.Config) { c.Combiner = pqc.Hardened{} },
		"mutual":        func(c *exchange.Config) { c.Mutual = true },
		"encapsulation": func(c *exchange.Config) { c.Encapsulation = exchange.ESP },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
			f(&responder.Config)
			refused(t, run(t, initiator, responder), exchange.Refused, exchange.Refused)
		})
	}
}

// TestBadConfig: what cannot work is refused before anything is sent, and a responder whose Config is bad says so to
// nobody but its owner.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	good, good2 := pinnedPair(t, exchange.Config{Suites: anySuite(t), Mutual: true})
	for name, f := range map[string]func(*exchange.Config){
		"no suite":         func(c *exchange.Config) { c.Suites = nil },
		"empty suite":      func(c *exchange.Config) { c.Suites = []pqc.Suite{{}} },
		"too many suites":  func(c *exchange.Config) { c.Suites = make([]pqc.Suite, 65) },
		"nobody trusted":   func(c *exchange.Config) { c.Peer = exchange.Peer{} },
		"pin and CAs":      func(c *exchange.Config) { c.Peer.CAs, c.Peer.Name = x509.NewCertPool(), "n" },
		"CAs without name": func(c *exchange.Config) { c.Peer = exchange.Peer{CAs: x509.NewCertPool()} },
		"encapsulation":    func(c *exchange.Config) { c.Encapsulation = 2 },
		"no own key":       func(c *exchange.Config) { c.Pinned = &exchange.Pinned{Peer: c.Pinned.Peer} },
		"no peer's key":    func(c *exchange.Config) { c.Pinned = &exchange.Pinned{Own: c.Pinned.Own} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, s := good, good2
			f(&i.Config)
			r := run(t, i, s)
			neither(t, r)
			if !errors.Is(r.InitiatorErr, exchange.ErrConfig) {
				t.Errorf("initiator: %v", r.InitiatorErr)
			}
			i, s = good, good2
			f(&s.Config)
			r = run(t, i, s)
			neither(t, r)
			if !errors.Is(r.ResponderErr, exchange.ErrConfig) || !errors.Is(r.InitiatorErr, exchange.Internal) {
				t.Errorf("responder: %v, initiator: %v", r.ResponderErr, r.InitiatorErr)
			}
		})
	}
	for name, p := range map[string]exchange.Proposal{
		"no tunnel":       {SPI: 256},
		"long tunnel":     {SPI: 256, Tunnel: strings.Repeat("t", 65)},
		"unprintable":     {SPI: 256, Tunnel: "t\n"},
		"not UTF-8":       {SPI: 256, Tunnel: "t", Trigger: "\xff"},
		"reserved SPI":    {SPI: 255, Tunnel: "t"},
		"long trigger":    {SPI: 256, Tunnel: "t", Trigger: strings.Repeat("t", 33)},
		"bad replacement": {SPI: 256, Tunnel: "t", Replaces: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, err := exchangetest.Loopback()
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if _, err := exchange.Initiate(context.Background(), a, good.Endpoint, good.Config, p); !errors.Is(err, exchange.ErrConfig) {
				t.Errorf("%v", err)
			}
			if n, err := b.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Error("something was sent")
			}
		})
	}
}

// TestPlainTLS meets both sides with TLS peers that are not ours.
func TestPlainTLS(t *testing.T) {
	t.Parallel()
	_, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	for name, f := range map[string]func(*tls.Config){
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"no ALPN":        func(c *tls.Config) { c.NextProtos = nil },
		"other ALPN":     func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"P-256 only":     func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, err := exchangetest.Loopback()
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			conf := &tls.Config{Certificates: []tls.Certificate{newIdentity(t)}, InsecureSkipVerify: true, NextProtos: []string{exchange.ALPN}}
			f(conf)
			go func() {
				c := tls.Client(a, conf)
				c.Handshake()
				c.Read(make([]byte, 1))
			}()
			called := false
			s, err := exchange.Respond(context.Background(), b, responder.Endpoint, func(exchange.Hello) (exchange.Config, exchange.Accept, error) {
				called = true
				return responder.Config, func() (uint32, error) { return 256, nil }, nil
			})
			var e *exchange.Error
			if s != nil || !errors.As(err, &e) || e.Step != "tls" || called {
				t.Errorf("%v", err)
			}
		})
	}
}
