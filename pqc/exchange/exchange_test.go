package exchange_test

import (
	"context"
	"testing"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

func suite(t testing.TB, name string) pqc.Suite {
	t.Helper()
	s, err := pqc.ParseSuite(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pair(t testing.TB, cfg exchange.Config) (initiator, responder exchangetest.End) {
	t.Helper()
	initiator, responder, err := exchangetest.Pair(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return initiator, responder
}

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
	if i.In != s.Out || i.Out != s.In || i.Transcript != s.Transcript || i.Suite != s.Suite {
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

func TestEverySuite(t *testing.T) {
	t.Parallel()
	for _, s := range pqc.Suites() {
		for _, combiner := range pqc.Combiners() {
			t.Run(s.String()+"/"+combiner.Name(), func(t *testing.T) {
				t.Parallel()
				agreed(t, run2(t, exchange.Config{Suites: []pqc.Suite{s}, Combiner: combiner}))
			})
		}
	}
}

func run2(t *testing.T, cfg exchange.Config) exchangetest.Result {
	t.Helper()
	initiator, responder := pair(t, cfg)
	return run(t, initiator, responder)
}
