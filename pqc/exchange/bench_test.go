package exchange_test

import (
	"context"
	"testing"
	"time"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

// BenchmarkExchange is a whole exchange over TCP on the loopback interface, both sides in this process, with a fresh
// signature key. It reports the time in the primitives beside the whole, per exchange.
func BenchmarkExchange(b *testing.B) {
	for _, name := range []string{"dilithium3+kyber768", "mldsa65+mlkem768"} {
		b.Run(name, func(b *testing.B) {
			initiator, responder := pair(b, exchange.Config{Suites: suites(b, name)})
			b.ReportAllocs()
			var pq, tls time.Duration
			n := 0
			for b.Loop() {
				i, r := exchangeOnce(b, initiator, responder)
				pq += i.Verify + i.Encaps + r.SignatureKeygen + r.Sign + r.KEMKeygen + r.Decaps
				tls += max(i.TLS, r.TLS)
				n++
			}
			b.ReportMetric(float64(pq.Microseconds())/float64(n), "pq-us/op")
			b.ReportMetric(float64(tls.Microseconds())/float64(n), "tls-us/op")
		})
	}
}

// BenchmarkPinned has long-lived signature keys, parsed once.
func BenchmarkPinned(b *testing.B) {
	initiator, responder := pinnedPair(b, exchange.Config{Suites: suites(b, "mldsa65+mlkem768"), Combiner: pqc.Hardened{}})
	b.ReportAllocs()
	for b.Loop() {
		exchangeOnce(b, initiator, responder)
	}
}

func exchangeOnce(b *testing.B, initiator, responder exchangetest.End) (i, r exchange.Timings) {
	x, y, err := exchangetest.Loopback()
	if err != nil {
		b.Fatal(err)
	}
	result := exchangetest.Run(context.Background(), initiator, responder, x, y)
	if result.InitiatorErr != nil || result.ResponderErr != nil {
		b.Fatal(result.InitiatorErr, result.ResponderErr)
	}
	result.Wipe()
	return result.Initiator.Timings, result.Responder.Timings
}
