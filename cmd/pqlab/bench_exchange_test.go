package main

import (
	"strings"
	"testing"
)

// Exchanges are measured without any right, and told as JSON and nothing else.
func TestBenchExchange(t *testing.T) {
	t.Parallel()
	r := pqlab(t, "bench", "exchange", "--json", "--suite", "mldsa44+mlkem512", "--suite", "dilithium3+kyber768", "--identity", "pinned", "--iterations", "2")
	if r.code != exitOK || r.err != "" {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	if missing := lacks(parse[any](t, r.out),
		"identity", "cores", "suites[].suite", "suites[].samples[].us", "suites[].noisy_samples", "suites[].per_second", "suites[].per_second_and_core",
		"suites[].total_us", "suites[].ratio", "suites[].primitives_sum_us", "suites[].steps_us.rest", "suites[].primitives_us.tls",
		"suites[].wire.initiator_bytes", "suites[].wire.responder_bytes", "suites[].wire.round_trips",
	); missing != nil {
		t.Errorf("no %v in %s", missing, r.out)
	}
	got := parse[struct {
		Identity string
		Suites   []struct {
			Suite   string
			Samples []struct{ Us float64 }
		}
	}](t, r.out)
	if got.Identity != "pinned" || len(got.Suites) != 2 || got.Suites[1].Suite != "dilithium3+kyber768" || len(got.Suites[0].Samples) != 2 {
		t.Errorf("%+v", got)
	}
}

// The table has a line for each suite.
func TestBenchExchangeTable(t *testing.T) {
	t.Parallel()
	r := pqlab(t, "bench", "exchange", "--suite", "mldsa44+mlkem512,dilithium3+kyber768", "--duration", "10ms")
	if r.code != exitOK {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	for _, s := range []string{"mldsa44+mlkem512", "dilithium3+kyber768"} {
		if strings.Count(r.out, "\n"+s+" ") != 2 { // rates, and the split
			t.Errorf("%s is missing:\n%s", s, r.out)
		}
	}
}

func TestBenchExchangeUsage(t *testing.T) {
	t.Parallel()
	for _, tc := range [][2]string{
		{"--iterations -1", "--iterations"},
		{"--iterations 0", "--iterations"},
		{"--duration 0s", "--duration"},
		{"--duration -1s", "--duration"},
		{"--suite mldsa44", "mldsa44"},
		{"--suite mldsa44+kyber", "kyber512"},
		{"--suite=", "--suite"},
		{"--identity none", "pinned"},
		{"more", "more"},
	} {
		t.Run(tc[0], func(t *testing.T) {
			t.Parallel()
			r := pqlab(t, append([]string{"bench", "exchange"}, strings.Fields(tc[0])...)...)
			if r.code != exitUsage || !strings.Contains(r.err, tc[1]) || r.out != "" {
				t.Errorf("exit status %d, %s%s", r.code, r.out, r.err)
			}
		})
	}
}
