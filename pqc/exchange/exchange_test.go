package exchange_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

func suites(t testing.TB, names ...string) (out []pqc.Suite) {
	t.Helper()
	for _, name := range names {
		s, err := pqc.ParseSuite(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// anySuite is for tests in which the suite does not matter.
func anySuite(t testing.TB) []pqc.Suite { return suites(t, "mldsa44+mlkem512") }

func pair(t testing.TB, cfg exchange.Config) (initiator, responder exchangetest.End) {
	t.Helper()
	initiator, responder, err := exchangetest.Pair(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return initiator, responder
}

func pinnedPair(t testing.TB, cfg exchange.Config) (initiator, responder exchangetest.End) {
	t.Helper()
	initiator, responder = pair(t, cfg)
	if err := exchangetest.Pinned(&initiator, &responder); err != nil {
		t.Fatal(err)
	}
	return initiator, responder
}

// run does one exchange over TCP.
func run(t testing.TB, initiator, responder exchangetest.End) exchangetest.Result {
	t.Helper()
	a, b, err := exchangetest.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	r := exchangetest.Run(context.Background(), initiator, responder, a, b)
	t.Cleanup(r.Wipe)
	return r
}

// agreed checks that both sides have the same, crossed.
func agreed(t testing.TB, r exchangetest.Result) {
	t.Helper()
	if r.InitiatorErr != nil || r.ResponderErr != nil {
		t.Fatalf("initiator: %v, responder: %v", r.InitiatorErr, r.ResponderErr)
	}
	i, s := r.Initiator, r.Responder
	if i.In != s.Out || i.Out != s.In || i.Transcript != s.Transcript || i.Suite != s.Suite || i.TLSGroup != s.TLSGroup {
		t.Fatal("the two sides have different keys")
	}
	if i.In.Key == i.Out.Key || i.In.Salt == i.Out.Salt {
		t.Fatal("both directions have the same key")
	}
	if i.In.Key == [32]byte{} || i.Out.Key == [32]byte{} {
		t.Fatal("a key is zero")
	}
	if i.In.SPI != 0x1001 || i.Out.SPI != 0x2002 {
		t.Fatalf("initiator has SPIs in %#x, out %#x", i.In.SPI, i.Out.SPI)
	}
}

// refused checks that neither side has a session and that each knows why.
func refused(t testing.TB, r exchangetest.Result, initiator, responder error) {
	t.Helper()
	if !errors.Is(r.InitiatorErr, initiator) || r.Initiator != nil {
		t.Errorf("initiator: %v, want %v", r.InitiatorErr, initiator)
	}
	if !errors.Is(r.ResponderErr, responder) || r.Responder != nil {
		t.Errorf("responder: %v, want %v", r.ResponderErr, responder)
	}
}

func TestEverySuite(t *testing.T) {
	t.Parallel()
	for _, s := range pqc.Suites() {
		for _, combiner := range pqc.Combiners() {
			t.Run(s.String()+"/"+combiner.Name(), func(t *testing.T) {
				t.Parallel()
				initiator, responder := pair(t, exchange.Config{Suites: []pqc.Suite{s}, Combiner: combiner, Deadline: time.Minute}) // Falcon, the race detector, a busy machine
				r := run(t, initiator, responder)
				agreed(t, r)
				if r.Initiator.Suite != s || r.Initiator.Combiner != combiner.Name() || r.Responder.Combiner != combiner.Name() {
					t.Errorf("initiator has %v by %s", r.Initiator.Suite, r.Initiator.Combiner)
				}
			})
		}
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for _, pinned := range []bool{false, true} {
		for _, mutual := range []bool{false, true} {
			for _, encapsulation := range []exchange.Encapsulation{exchange.UDP, exchange.ESP} {
				t.Run(fmt.Sprintf("pinned=%v/mutual=%v/%v", pinned, mutual, encapsulation), func(t *testing.T) {
					t.Parallel()
					initiator, responder := pair(t, exchange.Config{Suites: anySuite(t), Mutual: mutual, Encapsulation: encapsulation})
					if pinned {
						if err := exchangetest.Pinned(&initiator, &responder); err != nil {
							t.Fatal(err)
						}
					}
					r := run(t, initiator, responder)
					agreed(t, r)
					for _, s := range []*exchange.Session{r.Initiator, r.Responder} {
						if s.Pinned != pinned || s.Mutual != mutual || s.Encapsulation != encapsulation || s.Tunnel != "t1" || s.Trigger != "demand" {
							t.Errorf("session says %+v", s)
						}
						if signed := s.Initiator && mutual || !s.Initiator; (s.Timings.Sign > 0) != signed {
							t.Errorf("initiator=%v: sign took %v", s.Initiator, s.Timings.Sign)
						}
						if fresh := !pinned && (!s.Initiator || mutual); (s.Timings.SignatureKeygen > 0) != fresh {
							t.Errorf("initiator=%v: signature keygen took %v", s.Initiator, s.Timings.SignatureKeygen)
						}
						if (s.Timings.Verify > 0) != (s.Initiator || mutual) {
							t.Errorf("initiator=%v: verify took %v", s.Initiator, s.Timings.Verify)
						}
					}
					if r.Initiator.Peer != responderPin(responder) || r.Responder.Peer != responderPin(initiator) {
						t.Error("a session names another peer")
					}
				})
			}
		}
	}
}

func responderPin(e exchangetest.End) exchange.Pin {
	return exchange.PinOf(e.Endpoint.Certificate.Leaf)
}

// TestReveal recomputes the keys of both directions from the two sources, from the description in docs/exchange.md and
// with the standard library only.
func TestReveal(t *testing.T) {
	t.Parallel()
	var seen [2]exchange.Secrets
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	initiator.Config.Reveal = func(s exchange.Secrets) { seen[0] = s }
	responder.Config.Reveal = func(s exchange.Secrets) { seen[1] = s }
	r := run(t, initiator, responder)
	agreed(t, r)
	for i, side := range seen {
		if len(side.Sources) != 2 || side.Sources[0].Name != "tls" || side.Sources[1].Name != "kem" {
			t.Fatalf("sources: %v", side.Sources)
		}
		key := make([]byte, 32)
		for j := range key {
			key[j] = side.Sources[0].Secret[j] ^ side.Sources[1].Secret[j]
		}
		if side.Transcript != r.Initiator.Transcript {
			t.Error("another transcript")
		}
		prk, err := hkdf.Extract(sha512.New384, key, side.Transcript[:])
		if err != nil {
			t.Fatal(err)
		}
		for label, keys := range map[string]exchange.Keys{
			"pqlab/1 esp initiator to responder": r.Initiator.Out,
			"pqlab/1 esp responder to initiator": r.Initiator.In,
		} {
			okm, err := hkdf.Expand(sha512.New384, prk, label, 36)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(okm[:32], keys.Key[:]) || !bytes.Equal(okm[32:], keys.Salt[:]) {
				t.Errorf("side %d, %s: recomputed key differs", i, label)
			}
		}
	}
	// What was revealed is a copy, and both sides had the same.
	for i := range seen[0].Sources {
		a, b := seen[0].Sources[i], seen[1].Sources[i]
		if !bytes.Equal(a.Secret, b.Secret) || len(a.Public) != len(b.Public) {
			t.Errorf("the sides have different secrets of source %s", a.Name)
		}
		for j := range a.Public {
			if !bytes.Equal(a.Public[j], b.Public[j]) {
				t.Errorf("the sides have different public values of source %s", a.Name)
			}
		}
	}
}

// TestEqualSourcesRefused has a TLS secret that equals the KEM's: a combiner that sees it so stands for that.
func TestEqualSourcesRefused(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	initiator.Config.Combiner = equalSources{}
	r := run(t, initiator, responder)
	refused(t, r, exchange.Internal, exchange.Internal)
	if !errors.Is(r.InitiatorErr, pqc.ErrEqualSecrets) {
		t.Errorf("initiator: %v", r.InitiatorErr)
	}
}

type equalSources struct{ pqc.XOR }

func (equalSources) Combine(domain string, sources ...pqc.Source) ([]byte, error) {
	sources[0].Secret = sources[1].Secret
	return pqc.XOR{}.Combine(domain, sources...)
}

func TestTrafficAndTimings(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	r := run(t, initiator, responder)
	agreed(t, r)
	i, s := r.Initiator.Traffic, r.Responder.Traffic
	if i.Sent != s.Received || i.Received != s.Sent {
		t.Errorf("initiator counts %+v, responder %+v", i, s)
	}
	kem, signature := r.Initiator.Suite.KEM, r.Initiator.Suite.Signature
	if least := kem.CiphertextSize() + 48*2; i.Sent < least || i.Sent > least+2000 {
		t.Errorf("initiator sent %d bytes", i.Sent)
	}
	if least := kem.EncapsulationKeySize() + signature.PublicKeySize() + signature.SignatureSize() + 48; s.Sent < least || s.Sent > least+2000 {
		t.Errorf("responder sent %d bytes", s.Sent)
	}
	if i.MessagesSent != 3 || i.MessagesReceived != 2 || s.MessagesSent != 2 || s.MessagesReceived != 3 {
		t.Errorf("initiator counts %+v, responder %+v", i, s)
	}
	if i.RoundTrips != 4 || s.RoundTrips != 3 { // the last is done and the end of the session
		t.Errorf("round trips: %d and %d, want 4 and 3", i.RoundTrips, s.RoundTrips)
	}
	a, b := r.Initiator.Timings, r.Responder.Timings
	if a.TLS == 0 || a.Encaps == 0 || a.Combine == 0 || a.Decaps != 0 || a.KEMKeygen != 0 || a.TLS+a.Verify+a.Encaps+a.Combine > a.Total {
		t.Errorf("initiator's timings: %+v", a)
	}
	if b.TLS == 0 || b.KEMKeygen == 0 || b.Decaps == 0 || b.Combine == 0 || b.Encaps != 0 || b.TLS+b.SignatureKeygen+b.KEMKeygen+b.Sign+b.Decaps+b.Combine > b.Total {
		t.Errorf("responder's timings: %+v", b)
	}
}

func TestTLSGroups(t *testing.T) {
	t.Parallel()
	hybrid := []tls.CurveID{tls.X25519MLKEM768}
	both := []tls.CurveID{tls.X25519, tls.X25519MLKEM768}
	for name, tc := range map[string]struct {
		initiator        []tls.CurveID // of its Config
		endpoint, tunnel []tls.CurveID // of the responder, and of its Config
		want             tls.CurveID   // 0: refused
	}{
		"default":                       {nil, nil, nil, tls.X25519},
		"hybrid":                        {hybrid, hybrid, hybrid, tls.X25519MLKEM768},
		"hybrid offered only":           {hybrid, nil, nil, 0},
		"hybrid accepted too":           {nil, both, both, tls.X25519},
		"hybrid for other tunnels":      {nil, both, nil, tls.X25519},
		"hybrid for other tunnels only": {hybrid, both, nil, 0},
		"hybrid preferred to ours":      {both, both, nil, 0},
		"tunnel wants it hybrid":        {nil, both, hybrid, 0},
		"tunnel gets it hybrid":         {both, both, hybrid, tls.X25519MLKEM768},
		"tunnel wants it classical":     {hybrid, both, []tls.CurveID{tls.X25519}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
			initiator.Endpoint.TLSGroups = both // counts for a responder only
			initiator.Config.TLSGroups, responder.Endpoint.TLSGroups, responder.Config.TLSGroups = tc.initiator, tc.endpoint, tc.tunnel
			r := run(t, initiator, responder)
			if tc.want != 0 {
				agreed(t, r)
				if r.Initiator.TLSGroup != tc.want {
					t.Errorf("group %v, want %v", r.Initiator.TLSGroup, tc.want)
				}
				return
			}
			if r.Initiator != nil || r.Responder != nil || r.InitiatorErr == nil || r.ResponderErr == nil {
				t.Errorf("initiator: %v, responder: %v", r.InitiatorErr, r.ResponderErr)
			}
			if tc.endpoint != nil && !errors.Is(r.ResponderErr, exchange.ErrTLSGroup) {
				t.Errorf("responder: %v", r.ResponderErr)
			}
		})
	}
}

func TestParseTLSGroup(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]tls.CurveID{
		"X25519": tls.X25519, "x25519": tls.X25519, "secp256r1": tls.CurveP256, "X25519MLKEM768": tls.X25519MLKEM768,
		"SecP384r1MLKEM1024": tls.SecP384r1MLKEM1024, "": 0, "X448": 0,
	} {
		if got, err := exchange.ParseTLSGroup(name); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}

// TestPreference: the initiator's order decides among what both accept.
func TestPreference(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{})
	initiator.Config.Suites = suites(t, "mldsa87+mlkem1024", "dilithium3+kyber768", "mldsa44+mlkem512")
	responder.Config.Suites = suites(t, "mldsa44+mlkem512", "dilithium3+kyber768")
	r := run(t, initiator, responder)
	agreed(t, r)
	if got := r.Responder.Suite.String(); got != "dilithium3+kyber768" {
		t.Errorf("suite %s", got)
	}
}

// TestPinnedChoosesSuite: pinned keys leave only the suites of their scheme.
func TestPinnedChoosesSuite(t *testing.T) {
	t.Parallel()
	all := suites(t, "mldsa65+mlkem768", "dilithium2+kyber512", "mldsa44+mlkem512")
	initiator, responder := pinnedPair(t, exchange.Config{Suites: all[2:]})
	initiator.Config.Suites, responder.Config.Suites = all, all
	r := run(t, initiator, responder)
	agreed(t, r)
	if got := r.Responder.Suite.String(); got != "mldsa44+mlkem512" {
		t.Errorf("suite %s", got)
	}
}

func TestECDSAIdentity(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	for _, e := range []struct{ end, peer *exchangetest.End }{{&initiator, &responder}, {&responder, &initiator}} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if e.end.Endpoint.Certificate, err = exchange.NewIdentity("node", key); err != nil {
			t.Fatal(err)
		}
		e.peer.Config.Peer.Pin = responderPin(*e.end)
	}
	agreed(t, run(t, initiator, responder))
}

// TestIndependent: no two exchanges have a key, a salt or a transcript in common.
func TestIndependent(t *testing.T) {
	t.Parallel()
	initiator, responder := pinnedPair(t, exchange.Config{Suites: anySuite(t), Mutual: true})
	seen := map[any]bool{}
	for range 20 {
		r := run(t, initiator, responder)
		agreed(t, r)
		for _, v := range []any{r.Initiator.In.Key, r.Initiator.Out.Key, r.Initiator.Transcript} {
			if seen[v] {
				t.Fatal("the same twice")
			}
			seen[v] = true
		}
	}
}

func TestWipe(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	r := run(t, initiator, responder)
	agreed(t, r)
	for _, s := range []*exchange.Session{r.Initiator, r.Responder} {
		s.Wipe()
		for _, k := range []exchange.Keys{s.In, s.Out} {
			if k.Key != [32]byte{} || k.Salt != [4]byte{} || k.SPI == 0 {
				t.Error("keys are there after Wipe")
			}
		}
	}
}

// The initiator learns that the exchange is complete when the responder sends on its new SA, and not if it cannot.
func TestDoneWaitsForTheSwitch(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	for _, fault := range []error{nil, errors.New("no outbound SA")} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			a, b := net.Pipe()
			hold, respond, done := make(chan struct{}), make(chan error, 1), make(chan error, 1)
			go func() {
				s, err := exchange.Respond(ctx, b, responder.Endpoint, accept(responder.Config))
				if err == nil {
					defer s.Wipe()
					err = s.Confirm(ctx, func() error { <-hold; return fault })
				}
				respond <- err
			}()
			s, err := exchange.Initiate(ctx, a, initiator.Endpoint, initiator.Config, exchangetest.Proposal())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Wipe()
			go func() { done <- s.Done(ctx) }()
			synctest.Wait()
			if len(done) > 0 {
				t.Errorf("fault %v: done before the switch", fault)
			}
			close(hold)
			if err := <-done; (err == nil) != (fault == nil) {
				t.Errorf("fault %v: done: %v", fault, err)
			}
			if err := <-respond; !errors.Is(err, fault) {
				t.Errorf("fault %v: responder: %v", fault, err)
			}
		})
	}
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	r := run(t, initiator, responder)
	agreed(t, r)
	if err := r.Initiator.Done(ctx); !errors.Is(err, exchange.ErrFinished) {
		t.Errorf("Done twice: %v", err)
	}
	if err := r.Responder.Confirm(ctx, nil); !errors.Is(err, exchange.ErrFinished) {
		t.Errorf("Confirm twice: %v", err)
	}
	if err := r.Initiator.Confirm(ctx, nil); err == nil {
		t.Error("an initiator can confirm")
	}
	if err := r.Responder.Done(ctx); err == nil {
		t.Error("a responder can be done")
	}
	if err := r.Initiator.Close(); err != nil {
		t.Errorf("Close after the end: %v", err)
	}
}

// TestClose: one side cannot install its SA and gives up; the other hears it.
func TestClose(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t)})
	for _, initiatorCloses := range []bool{true, false} {
		a, b, err := exchangetest.Loopback()
		if err != nil {
			t.Fatal(err)
		}
		respond := make(chan error, 1)
		go func() {
			s, err := exchange.Respond(ctx, b, responder.Endpoint, accept(responder.Config))
			if err == nil && initiatorCloses {
				err = s.Confirm(ctx, nil)
			} else if err == nil {
				err = s.Close()
			}
			respond <- err
		}()
		s, err := exchange.Initiate(ctx, a, initiator.Endpoint, initiator.Config, exchangetest.Proposal())
		var remote *exchange.Error
		if initiatorCloses {
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			err = <-respond
		} else if e := <-respond; e != nil {
			t.Fatal(e)
		}
		if !errors.As(err, &remote) || !remote.Remote || remote.Alert != exchange.Cancelled {
			t.Errorf("initiator closes %v: the other side has %v", initiatorCloses, err)
		}
	}
}

func accept(cfg exchange.Config) exchange.Lookup {
	return func(exchange.Hello) (exchange.Config, exchange.Accept, error) {
		return cfg, func() (uint32, error) { return 0x2002, nil }, nil
	}
}

// TestHello: the responder is told all that it needs to choose.
func TestHello(t *testing.T) {
	t.Parallel()
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t), Encapsulation: exchange.ESP})
	a, b, err := exchangetest.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	hello := make(chan exchange.Hello, 1)
	go exchange.Respond(context.Background(), b, responder.Endpoint, func(h exchange.Hello) (exchange.Config, exchange.Accept, error) {
		hello <- h
		return exchange.Config{}, nil, fmt.Errorf("tunnel is being rekeyed: %w", exchange.Busy)
	})
	want := exchange.Proposal{Tunnel: "east-west", SPI: 0xfffffffe, Trigger: "blocks", Replaces: 0x100}
	_, err = exchange.Initiate(context.Background(), a, initiator.Endpoint, initiator.Config, want)
	var remote *exchange.Error
	if !errors.As(err, &remote) || !remote.Remote || !errors.Is(err, exchange.Busy) {
		t.Errorf("initiator: %v", err)
	}
	h := <-hello
	if h.Proposal != want || h.Pin != responderPin(initiator) || h.Encapsulation != exchange.ESP || h.Remote.String() != a.LocalAddr().String() || h.Certificate == nil {
		t.Errorf("lookup was told %+v", h)
	}
}
