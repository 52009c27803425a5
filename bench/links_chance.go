package bench

import (
	"context"
	"fmt"
	"math"

	"pqlab/lab"
	"pqlab/topology"
	"pqlab/traffic"
)

// JitterError is how far the quartiles of a delay that varies were off those of its distribution.
type JitterError struct {
	Shaper       string           `json:"shaper"`
	Loaded       bool             `json:"loaded"`
	Distribution string           `json:"distribution"`
	Delay        float64          `json:"wanted_delay_ms"`
	Jitter       float64          `json:"wanted_jitter_ms"`    // standard deviation
	Wanted       [3]float64       `json:"wanted_quartiles_ms"` // first, median, third
	Errors       [3]QuartileError `json:"quartile_errors"`
	Tail         []TailError      `json:"tail_errors"`
	Packets      int              `json:"packets"` // of both directions
	Unmeasured   []string         `json:"unmeasured,omitempty"`
}

// TailError is that of a percentile: so large a share of packets is not later.
type TailError struct {
	Share float64 `json:"share"`
	QuartileError
}

// QuartileError is in µs, of the worse direction. The truth of all of a link's is between low and high with 99 %.
type QuartileError struct {
	Error float64 `json:"error_us"`
	Low   float64 `json:"low_us"`
	High  float64 `json:"high_us"`
}

// LossError is what a link lost of the packets of both directions.
type LossError struct {
	Shaper string `json:"shaper"`
	Loaded bool   `json:"loaded"`
	LossSeen
	Unmeasured []string `json:"unmeasured,omitempty"`
}

// miss is how often an interval does not have the truth.
const miss = 0.01

// measureChance adds links whose delay varies and links that lose packets, so many of each direction, shapers taking turns.
func (l *Links) measureChance(ctx context.Context, grid Grid, loaded bool, packets int, progress func(string)) error {
	measure := func(shape topology.Shape, effort lab.Effort, add func([]lab.Measured)) error {
		for _, shaper := range l.Shapers {
			if shaper == "tbf" { // which has neither
				continue
			}
			progress(fmt.Sprintf("%s, %s: %v", shaper, how(loaded), shape))
			m, err := measureLink(ctx, shaper, shape, effort)
			if err != nil {
				return err
			}
			add(m)
		}
		return nil
	}
	for _, shape := range grid.Jitters {
		const probes = 1000 // tell the quartiles within a tenth of a standard deviation
		err := measure(shape, lab.Effort{Probes: probes}, func(m []lab.Measured) {
			e := jitterError(m)
			e.Loaded = loaded
			l.Jitters = append(l.Jitters, e)
		})
		if err != nil {
			return err
		}
	}
	for _, loss := range grid.Losses {
		err := measure(topology.Shape{Loss: loss}, lab.Effort{Losses: packets}, func(m []lab.Measured) {
			e := LossError{Shaper: m[0].Shaper, Loaded: loaded, LossSeen: lossSeen(m, loss)}
			for _, m := range m {
				e.Unmeasured = append(e.Unmeasured, m.Unmeasured...)
			}
			l.Losses = append(l.Losses, e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func jitterError(m []lab.Measured) JitterError {
	wanted := m[0].Wanted
	e := JitterError{Shaper: m[0].Shaper, Distribution: wanted.DelayDistribution(), Delay: ms(wanted.Delay), Jitter: ms(wanted.Jitter)}
	for _, m := range m {
		e.Unmeasured = append(e.Unmeasured, m.Unmeasured...)
		d := m.Delay
		if d == nil {
			continue
		}
		for q, wanted := range d.Wanted {
			off := QuartileError{us(d.Seen[q] - wanted), us(d.Low[q] - wanted), us(d.High[q] - wanted)}
			if e.Packets == 0 || off.worse(e.Errors[q]) {
				e.Errors[q] = off
			}
			e.Wanted[q] = ms(wanted)
		}
		for i, t := range d.Tail {
			off := QuartileError{us(t.Seen - t.Wanted), us(t.Low - t.Wanted), us(t.High - t.Wanted)}
			if e.Packets == 0 {
				e.Tail = append(e.Tail, TailError{t.Share, off})
			} else if off.worse(e.Tail[i].QuartileError) {
				e.Tail[i].QuartileError = off
			}
		}
		e.Packets += d.Packets
	}
	return e
}

func (e QuartileError) worse(than QuartileError) bool {
	return math.Abs(e.Error) > math.Abs(than.Error)
}

// lossSeen is what both directions lost together: their choices are independent.
func lossSeen(m []lab.Measured, wanted float64) LossSeen {
	seen := LossSeen{Wanted: wanted, Tries: 1}
	lost := 0
	for _, m := range m {
		if m.Loss != nil {
			seen.Packets += m.Loss.Packets
			lost += m.Loss.Count
		}
		seen.Missed += m.Missed
	}
	if seen.Packets > 0 {
		seen.Seen = float64(lost) / float64(seen.Packets)
	}
	seen.Low, seen.High = traffic.Interval(lost, seen.Packets, miss)
	return seen
}
