// Package crypto measures what the post-quantum primitives cost on a device, grouped as the paper that pqlab reproduces
// groups them: what a client does (verify, encapsulate), and what a server does (make a key and sign, make a key and
// decapsulate). Results of several devices become one figure.
package crypto

import (
	"math"
	"slices"
	"time"
)

// Result is one run on one device. Every figure in it was measured in that run.
type Result struct {
	Format        string    `json:"format"`         // Format
	FormatVersion int       `json:"format_version"` // FormatVersion
	Device        string    `json:"device"`
	Started       time.Time `json:"started"`
	Seconds       float64   `json:"seconds"`
	Iterations    int       `json:"iterations"` // of each operation
	Machine       Machine   `json:"machine"`
	Activity      Activity  `json:"activity"`
	// Overhead is what timing nothing gives. It is in every figure, and is subtracted from none.
	Overhead Times    `json:"overhead"`
	Schemes  []Scheme `json:"schemes"`
}

// The kinds of schemes.
const (
	Signature = "signature"
	KEM       = "kem"
)

// The sides of an exchange.
const (
	Client = "client"
	Server = "server"
)

// The operations. Those of two parts are measured in one sample: the server makes a key and uses it once.
const (
	Keygen       = "keygen"
	Sign         = "sign"
	Verify       = "verify" // of a public key, a message and a signature that are bytes
	KeygenSign   = "keygen+sign"
	Encaps       = "encaps" // to an encapsulation key that is bytes
	Decaps       = "decaps"
	KeygenDecaps = "keygen+decaps"
)

// Scheme is what one scheme costs. Sizes are those of what was made, in bytes; a signature's is the longest.
type Scheme struct {
	Name       string      `json:"name"`
	Kind       string      `json:"kind"`
	PublicKey  int         `json:"public_key_bytes"`
	Signature  int         `json:"signature_bytes,omitempty"`
	Ciphertext int         `json:"ciphertext_bytes,omitempty"`
	Operations []Operation `json:"operations"` // in the order of Operations
}

// Operations of a kind of scheme, first the client's, then the server's with its parts.
func Operations(kind string) []string {
	switch kind {
	case Signature:
		return []string{Verify, KeygenSign, Keygen, Sign}
	case KEM:
		return []string{Encaps, KeygenDecaps, Keygen, Decaps}
	}
	return nil
}

// Side of an operation.
func Side(operation string) string {
	if operation == Verify || operation == Encaps {
		return Client
	}
	return Server
}

// Operation is what one operation costs, over all samples, the noisy ones included.
type Operation struct {
	Name string `json:"name"`
	Side string `json:"side"`
	Times
	Preempted int `json:"preempted"` // samples during which the kernel gave the core to another
	Outliers  int `json:"outliers"`  // samples that Outlier tells apart
	Noisy     int `json:"noisy"`     // samples that are either
}

// Times are two clocks' of the same samples.
type Times struct {
	NS     Spread  `json:"ns"`
	Cycles *Spread `json:"cycles"` // of Machine.Counter; nil where there is none
}

// Spread describes samples. Quantiles lie between the two nearest samples in proportion (type 7 of Hyndman and Fan, 1996).
type Spread struct {
	P10    float64 `json:"p10"`
	Median float64 `json:"median"`
	Mean   float64 `json:"mean"`
	P90    float64 `json:"p90"`
}

// spread sorts the samples.
func spread[T int64 | uint64 | float64](samples []T) Spread {
	if len(samples) == 0 {
		return Spread{}
	}
	slices.Sort(samples)
	var sum float64
	for _, s := range samples {
		sum += float64(s)
	}
	return Spread{quantile(samples, 0.1), quantile(samples, 0.5), sum / float64(len(samples)), quantile(samples, 0.9)}
}

func quantile[T int64 | uint64 | float64](sorted []T, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(math.Floor(at))
	low := float64(sorted[i])
	if i+1 == len(sorted) {
		return low
	}
	return low + (at-float64(i))*(float64(sorted[i+1])-low)
}

// Outlier is the time above which a sample is called noisy: both half as much again as the median, and ten times as far
// above it as the ninetieth percentile is. So the tail that rejection sampling gives to signing is not called noise.
func (s Spread) Outlier() float64 { return max(1.5*s.Median, s.Median+10*(s.P90-s.Median)) }

// NoisyShare is above how many noisy samples of all an operation is marked.
const NoisyShare = 0.01

// Marked says that more than NoisyShare of n samples are noisy.
func (o Operation) Marked(n int) bool { return float64(o.Noisy) > NoisyShare*float64(n) }

func (r Result) scheme(name string) (Scheme, bool) {
	for _, s := range r.Schemes {
		if s.Name == name {
			return s, true
		}
	}
	return Scheme{}, false
}

func (s Scheme) operation(name string) (Operation, bool) {
	for _, o := range s.Operations {
		if o.Name == name {
			return o, true
		}
	}
	return Operation{}, false
}
