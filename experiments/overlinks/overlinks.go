// Package overlinks measures how long a tunnel takes to come about over links of all sorts, suite by suite, and says where
// the border between Falcon and Dilithium lies. Everything that it says is computed from what it measured.
package overlinks

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"pqlab/experiments"
	"pqlab/experiments/samples"
	"pqlab/lab"
	"pqlab/pqc"
	"pqlab/topology"
)

// Name of the experiment.
const Name = "exchange-over-links"

// Options say what to measure: every suite over every link, with every pair of devices.
type Options struct {
	Suites  []pqc.Suite
	Rates   []topology.Rate
	Delays  []time.Duration // one way
	Losses  []float64       // share of packets, each way
	Devices []Devices
	Repeats int
	Lossy   int           // repeats where the loss is leastLossy or more; 0: as many as elsewhere
	Limit   time.Duration // after which an exchange counts as never ended
	Pinned  bool          // long-lived signature keys, in place of one made for each exchange
	Seed    uint64
	Lab     lab.Options

	Version  string
	Command  []string
	Progress func(done float64, what string) // from one goroutine at a time
}

// leastLossy is the loss from which on times scatter by TCP's timeouts, and a link counts as lossy.
const leastLossy = 0.01

// repeats over a link.
func (o Options) repeats(l Link) int {
	if l.Loss >= leastLossy && o.Lossy > 0 {
		return o.Lossy
	}
	return o.Repeats
}

// Devices are the profiles of the two ends; empty means all that this machine has.
type Devices struct {
	Initiator string `json:"initiator"`
	Responder string `json:"responder"`
}

func (d Devices) String() string {
	switch {
	case d == Devices{}:
		return "this machine"
	case d.Initiator == d.Responder:
		return d.Initiator
	}
	or := func(name string) string {
		if name == "" {
			return "this machine"
		}
		return name
	}
	return or(d.Initiator) + " to " + or(d.Responder)
}

// Link is what both directions of the link have.
type Link struct {
	Rate    topology.Rate `json:"bits_per_second"`
	DelayMs float64       `json:"delay_ms"` // one way
	Loss    float64       `json:"loss"`     // share of packets
}

func (l Link) delay() time.Duration { return time.Duration(l.DelayMs * float64(time.Millisecond)) }

// String is as "1 Mbit/s, 20 ms, 1 % loss".
func (l Link) String() string {
	return spaced(l.Rate) + ", " + spaced(l.delay()) + ", " + percent(l.Loss) + " loss"
}

// Ms is a time in milliseconds. One that is infinite, because more than half never ended, is null in JSON.
type Ms float64

// MarshalJSON writes what is no number as null.
func (m Ms) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(m), 0) || math.IsNaN(float64(m)) {
		return []byte("null"), nil
	}
	return json.Marshal(math.Round(float64(m)*1e3) / 1e3)
}

// Result is a run of the experiment.
type Result struct {
	experiments.About
	Identity   string  `json:"identity"` // "fresh" or "pinned"
	Repeats    int     `json:"repeats"`
	Lossy      int     `json:"lossy_repeats"` // where the loss is 1 % or more
	LimitMs    float64 `json:"limit_ms"`
	Queue      string  `json:"queue"` // before each link's rate
	Confidence float64 `json:"confidence"`

	Cells       []Cell       `json:"cells"`
	Comparisons []Comparison `json:"comparisons"`
	Borders     []Border     `json:"borders"`
	Advice      []Advice     `json:"advice"`
}

// Cell is one suite over one link between one pair of devices. Times are from asking for the tunnel until its initiator
// knows that SAs of both directions are in use at both ends.
type Cell struct {
	Devices Devices `json:"devices"`
	Link    Link    `json:"link"`
	Suite   string  `json:"suite"`

	Median Ms `json:"median_ms"` // null: no tunnel within the limit
	Q1     Ms `json:"q1_ms"`
	Q3     Ms `json:"q3_ms"`

	Times []Ms     `json:"times_ms"` // of each exchange in order; null: no tunnel within the limit
	Never int      `json:"never"`    // how many of them had no tunnel within the limit
	Why   []string `json:"why"`      // of those that failed before it, each reason once

	Bytes         int     `json:"handshake_bytes"`        // of an exchange, both ways, TLS included, TCP and IP not; the median
	Retransmitted float64 `json:"retransmitted_segments"` // of an exchange, both ends, the mean
	Late          bool    `json:"late"`                   // the machine was too busy to keep the link's schedule

	values, sizes []float64
	again         uint64 // segments
}

// add takes in the exchanges of another lab with the same link.
func (c *Cell) add(o Cell) {
	c.values, c.sizes, c.again = append(c.values, o.values...), append(c.sizes, o.sizes...), c.again+o.again
	c.Late = c.Late || o.Late
	for _, why := range o.Why {
		if !slices.Contains(c.Why, why) {
			c.Why = append(c.Why, why)
		}
	}
}

func (c *Cell) summarize() {
	if len(c.sizes) > 0 {
		c.Bytes = int(samples.Quantile(c.sizes, 0.5))
	}
	c.Retransmitted = float64(c.again) / float64(max(1, len(c.values)))
	c.Median, c.Q1, c.Q3 = Ms(samples.Quantile(c.values, 0.5)), Ms(samples.Quantile(c.values, 0.25)), Ms(samples.Quantile(c.values, 0.75))
	c.Times, c.Never = make([]Ms, len(c.values)), 0
	for i, v := range c.values {
		c.Times[i] = Ms(v)
		if math.IsInf(v, 1) {
			c.Never++
		}
	}
	if c.Why == nil {
		c.Why = []string{}
	}
}

// signature is the first half of the suite's name.
func (c *Cell) signature() string {
	name, _, _ := strings.Cut(c.Suite, "+")
	return name
}
