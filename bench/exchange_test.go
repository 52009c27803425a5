package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
)

func mustSuite(t testing.TB, name string) pqc.Suite {
	t.Helper()
	s, err := pqc.ParseSuite(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every figure is there, and each is of what its name says.
func TestMeasureExchange(t *testing.T) {
	suites := []pqc.Suite{mustSuite(t, "mldsa44+mlkem512"), mustSuite(t, "dilithium3+kyber768")}
	cores := runtime.GOMAXPROCS(0)
	for _, pinned := range []bool{false, true} {
		var told []string
		got, err := MeasureExchange(t.Context(), ExchangeOptions{Suites: suites, Pinned: pinned, Iterations: 5}, func(s string) { told = append(told, s) })
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Suites) != 2 || len(told) != 2 || got.Cores != cores || runtime.GOMAXPROCS(0) != cores || (got.Identity == "pinned") != pinned {
			t.Errorf("%+v, told %q, on %d of %d cores", got, told, runtime.GOMAXPROCS(0), cores)
		}
		for i, e := range got.Suites {
			if e.Suite != suites[i].String() || len(e.Samples) != 5 || e.PerSecond <= 0 || e.PerCore <= 0 {
				t.Errorf("%+v", e)
			}
			for _, s := range []Steps{e.Steps, e.Primitives} {
				for j, step := range s.named() {
					if *step <= 0 {
						t.Errorf("%s: step %d of %+v", e.Suite, j, s)
					}
				}
			}
			if e.Steps.Rest <= 0 || e.Primitives.Rest != 0 || e.Total <= 0 || e.Sum <= 0 || e.Ratio <= 0 {
				t.Errorf("%+v", e)
			}
			// What the suite puts into an offer and an answer is on the wire, and not much besides.
			k, s := suites[i].KEM, suites[i].Signature
			offer, answer := k.EncapsulationKeySize()+s.PublicKeySize()+s.SignatureSize(), k.CiphertextSize()
			w := e.Wire
			if w.Responder < offer || w.Responder > offer+2000 || w.Initiator < answer || w.Initiator > answer+2000 || w.Messages != 5 || w.RoundTrips != 4 {
				t.Errorf("%s: %+v", e.Suite, w)
			}
		}
	}
}

// A step that is not taken costs nothing: making a signature key with pinned identities.
func TestPinnedMakesNoKey(t *testing.T) {
	suite := mustSuite(t, "dilithium5+kyber512")
	var key *keygens
	for _, pinned := range []bool{false, true} {
		key = &keygens{Signature: suite.Signature}
		p, err := newExchanger(pqc.Suite{Signature: key, KEM: suite.KEM}, pinned)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		before := key.n
		if _, err := p.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := 3 // in the whole exchange, in the split one, and alone
		if pinned {
			want = 0
		}
		if made := key.n - before; made != want {
			t.Errorf("pinned=%v: %d signature keys", pinned, made)
		}
	}
}

type keygens struct {
	pqc.Signature
	n int
}

func (k *keygens) GenerateKey() (pqc.SigningKey, error) {
	k.n++
	return k.Signature.GenerateKey()
}

// The signature that is made alone is the one of the exchange, so that it takes as long.
func TestSignsAgain(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		p, err := newExchanger(mustSuite(t, "mldsa44+mlkem512"), pinned)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		var r round
		again, err := p.undisturbed(t.Context(), &r)
		if err != nil {
			t.Fatal(err)
		}
		if label := "pqlab/1 responder signature\x00"; !strings.HasPrefix(string(again.message), label) || len(again.message) != len(label)+exchange.TranscriptSize {
			t.Errorf("pinned=%v: %q was signed", pinned, again.message)
		}
		if _, err := p.alone(again); err != nil {
			t.Errorf("pinned=%v: %v", pinned, err)
		}
		if pinned != (again.key == nil) {
			t.Errorf("pinned=%v: a key of %d bytes", pinned, len(again.key))
		}
	}
}

// The bare handshake is the one of an exchange: version, group, certificates of both.
func TestBareHandshake(t *testing.T) {
	p, err := newExchanger(mustSuite(t, "mldsa44+mlkem512"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	w, err := p.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer w.cut()
	r, _ := exchangeOnce(t.Context(), w, p.initiator, p.responder, nil)
	if err := errors.Join(r.InitiatorErr, r.ResponderErr); err != nil {
		t.Fatal(err)
	}
	var client, server tls.ConnectionState
	p.client.VerifyConnection = func(s tls.ConnectionState) error { client = s; return nil }
	p.server.VerifyConnection = func(s tls.ConnectionState) error { server = s; return nil }
	if took, err := p.handshake(); took <= 0 || err != nil {
		t.Fatalf("%v, %v", took, err)
	}
	for _, side := range []struct {
		bare tls.ConnectionState
		of   *exchange.Session
	}{{client, r.Initiator}, {server, r.Responder}} {
		if side.bare.Version != tls.VersionTLS13 || side.bare.CurveID != side.of.TLSGroup || side.bare.DidResume ||
			len(side.bare.PeerCertificates) != 1 || exchange.PinOf(side.bare.PeerCertificates[0]) != side.of.Peer {
			t.Errorf("bare %+v, in an exchange %v and %v", side.bare, side.of.TLSGroup, side.of.Peer)
		}
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	var rounds []round
	for i := range 5 {
		v := float64((i * 2) % 5) // 0, 2, 4, 1, 3
		r := round{Sample: Sample{CPU: 100 + v, Noisy: v > 2}, wire: Wire{10 + int(v), 20, 5, 4}}
		for j, step := range r.steps.named() {
			*step = v * float64(j)
		}
		r.steps.Rest = 7 * v
		r.primitives = Steps{TLS: 30 - v, Keygen: 10 + v, Sign: 10}
		rounds = append(rounds, r)
	}
	var e Exchange
	e.summarize(rounds)
	if e.Total != 102 || e.Sum != 50 || e.Ratio != 2.04 || e.Noisy != 2 || len(e.Samples) != 5 || !e.Samples[2].Noisy || e.Samples[2].CPU != 104 {
		t.Errorf("%+v", e)
	}
	if want := (Steps{0, 2, 4, 6, 8, 10, 12, 14}); e.Steps != want {
		t.Errorf("%+v", e.Steps)
	}
	if want := (Steps{TLS: 28, Keygen: 12, Sign: 10}); e.Primitives != want {
		t.Errorf("%+v", e.Primitives)
	}
	if want := (Wire{12, 20, 5, 4}); e.Wire != want {
		t.Errorf("%+v", e.Wire)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-time.Hour)
	for _, tc := range []struct {
		l       limits
		n       int
		began   time.Time
		reached bool
	}{
		{limits{n: 2}, 0, long, false},
		{limits{n: 2}, 1, long, false},
		{limits{n: 2}, 2, long, true},
		{limits{d: time.Minute}, 0, long, false}, // not before it was made once
		{limits{d: time.Minute}, 1, long, true},
		{limits{d: time.Minute}, 1000, time.Now(), false},
		{limits{n: 1000, d: time.Minute}, 1000, time.Now(), true},
		{limits{n: 1000, d: time.Minute}, 1, long, true},
	} {
		if tc.l.reached(tc.n, tc.began) != tc.reached {
			t.Errorf("%+v", tc)
		}
	}
}

// No signature scheme is forgotten.
func TestRepresentativeSuites(t *testing.T) {
	t.Parallel()
	got := RepresentativeSuites()
	for i, s := range pqc.Signatures() {
		if i >= len(got) || got[i].Signature != s {
			t.Fatalf("no suite with %s at %d of %v", s.Name(), i, got)
		}
	}
	if len(got) != len(pqc.Signatures()) {
		t.Errorf("%v", got)
	}
}

func TestExchangeFails(t *testing.T) {
	suites := RepresentativeSuites()[:1]
	if _, err := MeasureExchange(t.Context(), ExchangeOptions{Suites: suites}, func(string) {}); err == nil {
		t.Error("a measurement without an end was begun")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := MeasureExchange(ctx, ExchangeOptions{Suites: suites, Duration: time.Hour}, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	p, err := newExchanger(suites[0], false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, _, err := p.throughput(ctx, limits{d: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted on all cores: %v", err)
	}
	p.listener.Close()
	if _, err := p.round(t.Context()); err == nil {
		t.Error("a round without a listener")
	}
}

// BenchmarkExchange is the whole exchange, connecting included.
func BenchmarkExchange(b *testing.B) {
	for _, s := range RepresentativeSuites() {
		b.Run(s.String(), func(b *testing.B) {
			p, err := newExchanger(s, false)
			if err != nil {
				b.Fatal(err)
			}
			defer p.close()
			b.ReportAllocs()
			for b.Loop() {
				if err := p.whole(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
