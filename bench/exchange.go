package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"pqlab/pqc"
)

// GoalExchange is the most that an exchange is meant to cost, in what its primitives cost alone: of GoalExchangeSuite,
// with a signature key made for each exchange.
const (
	GoalExchange      = 1.25
	GoalExchangeSuite = "dilithium3+kyber768"
)

// noisy is how much longer than its CPU time a sample may take on the wall before it counts as disturbed.
const noisy = 1.1

// Exchanges are what whole exchanges cost, and what their primitives cost alone in the same run. All times are the CPU time
// of this process, the kernel's part included, while both ends share one core and a TCP connection that stands already.
type Exchanges struct {
	Identity string     `json:"identity"` // "fresh" or "pinned"
	Cores    int        `json:"cores"`
	Suites   []Exchange `json:"suites"`
}

// Exchange is what exchanges of one suite cost. Each figure but the rates is a median of all rounds, so that neither the
// steps nor the primitives add up exactly.
type Exchange struct {
	Suite   string   `json:"suite"`
	Samples []Sample `json:"samples"`       // of Total, one a round
	Noisy   int      `json:"noisy_samples"` // of them; they count like the others

	// PerSecond is how many exchanges all cores together complete in a second, connecting, disconnecting and the collection
	// of garbage included; PerCore is how many in a second of CPU time.
	PerSecond float64 `json:"per_second"`
	PerCore   float64 `json:"per_second_and_core"`

	Total float64 `json:"total_us"`
	// Steps of other exchanges than those of Total, because reading the clock twenty times has its price; it is in Rest.
	Steps Steps `json:"steps_us"`
	// Primitives are done alone, as often as in an exchange: a bare TLS handshake, and what the suite and the combiner do.
	// Their Rest is 0.
	Primitives Steps   `json:"primitives_us"`
	Sum        float64 `json:"primitives_sum_us"`
	Ratio      float64 `json:"ratio"` // of an exchange to its primitives, round by round

	Wire Wire `json:"wire"`
}

// Steps in µs. What arrives in a message is measured from its bytes: parsing the key is part of Verify and Encaps, unless it
// is pinned.
type Steps struct {
	TLS     float64 `json:"tls"`    // until the responder has taken its secrets from the session
	Keygen  float64 `json:"keygen"` // of the KEM's key, and of the signature's unless it is pinned
	Sign    float64 `json:"sign"`
	Verify  float64 `json:"verify"`
	Encaps  float64 `json:"encaps"`
	Decaps  float64 `json:"decaps"`
	Combine float64 `json:"combine"` // on both sides, with the derivation of all keys
	Rest    float64 `json:"rest"`
}

// named are all fields but Rest.
func (s *Steps) named() []*float64 {
	return []*float64{&s.TLS, &s.Keygen, &s.Sign, &s.Verify, &s.Encaps, &s.Decaps, &s.Combine}
}

func (s *Steps) sum() (all float64) {
	for _, step := range s.named() {
		all += *step
	}
	return all
}

// Sample is one exchange.
type Sample struct {
	CPU   float64 `json:"us"`
	Noisy bool    `json:"noisy,omitempty"` // the core was taken away meanwhile
}

// Wire is what one exchange put on its TCP connection, TLS included, TCP and IP not.
type Wire struct {
	Initiator  int `json:"initiator_bytes"`
	Responder  int `json:"responder_bytes"`
	Messages   int `json:"messages"`    // of the exchange's own protocol
	RoundTrips int `json:"round_trips"` // times that the initiator had sent something and then waited
}

// ExchangeOptions say what to measure.
type ExchangeOptions struct {
	Suites     []pqc.Suite
	Pinned     bool          // long-lived signature keys
	Iterations int           // rounds of each suite; 0: as many as Duration lets
	Duration   time.Duration // of each suite; 0: as long as Iterations take
}

// RepresentativeSuites has one suite for each signature scheme, with the KEM of its security level: an ML-KEM for an ML-DSA,
// and a Kyber for what is of the same round of the competition.
func RepresentativeSuites() []pqc.Suite {
	kems := map[string]string{
		"dilithium2": "kyber512", "dilithium3": "kyber768", "dilithium5": "kyber1024",
		"mldsa44": "mlkem512", "mldsa65": "mlkem768", "mldsa87": "mlkem1024",
		"falcon512": "kyber512", "falcon1024": "kyber1024",
	}
	var all []pqc.Suite
	for _, s := range pqc.Signatures() {
		if k, err := pqc.ParseKEM(kems[s.Name()]); err == nil {
			all = append(all, pqc.Suite{Signature: s, KEM: k})
		}
	}
	return all
}

// MeasureExchange measures one suite after the other.
func MeasureExchange(ctx context.Context, o ExchangeOptions, progress func(string)) (Exchanges, error) {
	out := Exchanges{Identity: "fresh", Cores: runtime.GOMAXPROCS(0)}
	if o.Pinned {
		out.Identity = "pinned"
	}
	if o.Iterations <= 0 && o.Duration <= 0 {
		return out, errors.New("neither iterations nor a duration are given: the measurement would not end")
	}
	for i, s := range o.Suites {
		progress(fmt.Sprintf("%v, suite %d of %d", s, i+1, len(o.Suites)))
		e, err := measureSuite(ctx, s, o)
		if err != nil {
			return out, fmt.Errorf("suite %v: %w", s, err)
		}
		out.Suites = append(out.Suites, e)
	}
	return out, nil
}

func measureSuite(ctx context.Context, suite pqc.Suite, o ExchangeOptions) (Exchange, error) {
	out := Exchange{Suite: suite.String()}
	p, err := newExchanger(suite, o.Pinned)
	if err != nil {
		return out, err
	}
	defer p.close()
	var rounds []round
	alone := limits{o.Iterations, o.Duration * 3 / 4}
	err = onOneCore(func() error {
		if _, err := p.round(ctx); err != nil { // the first finds nothing in the caches
			return err
		}
		for began := time.Now(); !alone.reached(len(rounds), began); {
			r, err := p.round(ctx)
			if err != nil {
				return err
			}
			rounds = append(rounds, r)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	out.summarize(rounds)
	out.PerSecond, out.PerCore, err = p.throughput(ctx, limits{o.Iterations, o.Duration / 4})
	return out, err
}

// onOneCore runs f with one goroutine at a time, so that the CPU time that the process takes during a step is the step's.
func onOneCore(f func() error) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	return f()
}

// limits end a measurement, but not before it was made once.
type limits struct {
	n int           // 0: none
	d time.Duration // 0: none
}

func (l limits) reached(n int, began time.Time) bool {
	return n > 0 && (l.n > 0 && n >= l.n || l.d > 0 && time.Since(began) >= l.d)
}

// summarize takes the medians.
func (e *Exchange) summarize(rounds []round) {
	of := func(f func(*round) float64) float64 {
		values := make([]float64, len(rounds))
		for i := range rounds {
			values[i] = f(&rounds[i])
		}
		return median(values)
	}
	for _, r := range rounds {
		e.Samples = append(e.Samples, r.Sample)
		if r.Noisy {
			e.Noisy++
		}
	}
	e.Total = of(func(r *round) float64 { return r.CPU })
	e.Sum = of(func(r *round) float64 { return r.primitives.sum() })
	e.Ratio = of(func(r *round) float64 { return r.CPU / r.primitives.sum() })
	primitives := e.Primitives.named()
	for i, step := range e.Steps.named() {
		*step = of(func(r *round) float64 { return *r.steps.named()[i] })
		*primitives[i] = of(func(r *round) float64 { return *r.primitives.named()[i] })
	}
	e.Steps.Rest = of(func(r *round) float64 { return r.steps.Rest })
	e.Wire = Wire{
		Initiator:  int(of(func(r *round) float64 { return float64(r.wire.Initiator) })),
		Responder:  int(of(func(r *round) float64 { return float64(r.wire.Responder) })),
		Messages:   int(of(func(r *round) float64 { return float64(r.wire.Messages) })),
		RoundTrips: int(of(func(r *round) float64 { return float64(r.wire.RoundTrips) })),
	}
}

// throughput keeps all cores busy with exchanges.
func (p *exchanger) throughput(ctx context.Context, until limits) (perSecond, perCore float64, err error) {
	var (
		mu    sync.Mutex
		n     int
		first error
		all   sync.WaitGroup
	)
	began, cpu := time.Now(), cpuTime()
	next := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if first != nil || until.reached(n, began) {
			return false
		}
		n++
		return true
	}
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for next() {
				if err := p.whole(ctx); err != nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return float64(n) / time.Since(began).Seconds(), float64(n) / (cpuTime() - cpu).Seconds(), first
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}
