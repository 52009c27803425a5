package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pqlab/bench/crypto"
	"pqlab/lab"
	"pqlab/links"
	"pqlab/topology"
)

// Links is how far links are off what they are asked for, and what a wire costs.
type Links struct {
	Machine crypto.Machine `json:"machine"`
	Started time.Time      `json:"started"`
	Seconds float64        `json:"seconds"` // that it took
	// Caveat says what the figures must not be taken for; empty where they may be taken for the machine's.
	Caveat   string            `json:"caveat,omitempty"`
	Shapers  []string          `json:"shapers"`
	Missing  map[string]string `json:"missing,omitempty"` // shapers that this machine lacks, and why
	Activity crypto.Activity   `json:"activity"`          // while links were measured idle
	Errors   []LinkError       `json:"errors"`
	Jitters  []JitterError     `json:"jitter_errors"`
	Losses   []LossError       `json:"losses"`
	Load     *Load             `json:"load,omitempty"` // beside which links were measured loaded
	// LoadMissing is why nothing was measured beside a load; empty if it was.
	LoadMissing string `json:"load_missing,omitempty"`
	// LeftOut is what of the grid this machine was not asked for, and why; empty if nothing.
	LeftOut     string     `json:"left_out,omitempty"`
	Wire        *WireGoals `json:"wire,omitempty"`         // nil: not measured
	WireMissing string     `json:"wire_missing,omitempty"` // why
	Goals       []Goal     `json:"goals"`                  // of the wire
}

// LinkError is how far a link was off, the worse of its directions.
type LinkError struct {
	Shaper     string   `json:"shaper"`
	Loaded     bool     `json:"loaded"`                 // all processors had something else to do
	Rate       float64  `json:"wanted_bits_per_second"` // 0: none
	Delay      float64  `json:"wanted_delay_ms"`        // one way
	P50        float64  `json:"delay_error_p50_us"`     // of packets of 100 bytes
	P99        float64  `json:"delay_error_p99_us"`
	Lost       int      `json:"lost"`                 // of packets that were not to be
	Off        *float64 `json:"rate_error,omitempty"` // share of the rate; nil: not measured
	Unmeasured []string `json:"unmeasured,omitempty"`
}

// Grid is what links are asked for.
type Grid struct {
	Rates   []topology.Rate // 0: none
	Delays  []time.Duration
	Jitters []topology.Shape // delays that vary
	Losses  []float64        // shares of packets
	LeftOut string           // what else links could be asked for, and why they are not
}

// LinkGrid goes from 1 Mbit/s to 2 Gbit/s, from no delay to 200 ms, and from a loss of 0.1 % to 10 %; quick leaves out what lies
// between, and more. An emulated processor is not asked for what it could not send.
func LinkGrid(quick, emulated bool) Grid {
	const msec = time.Millisecond
	jitter := func(delay, jitter time.Duration, distribution string) topology.Shape {
		return topology.Shape{Delay: delay, Jitter: jitter, Distribution: distribution}
	}
	g := Grid{
		Rates: []topology.Rate{topology.Mbit, topology.Gbit}, Delays: []time.Duration{0, 5 * msec},
		Jitters: []topology.Shape{jitter(5*msec, msec, "normal")}, Losses: []float64{0.01},
	}
	if !quick {
		g = Grid{
			Rates:  []topology.Rate{0, topology.Mbit, 10 * topology.Mbit, 100 * topology.Mbit, topology.Gbit, 2 * topology.Gbit},
			Delays: []time.Duration{0, 5 * msec, 50 * msec, 200 * msec},
			Jitters: []topology.Shape{
				jitter(5*msec, msec, "uniform"), jitter(5*msec, msec, "normal"), jitter(50*msec, 2*msec, "uniform"), jitter(50*msec, 2*msec, "normal"),
			},
			Losses: []float64{0.001, 0.01, 0.1},
		}
	}
	if emulated {
		const most = 100 * topology.Mbit
		g.Rates = slices.DeleteFunc(g.Rates, func(r topology.Rate) bool { return r > most })
		g.LeftOut = fmt.Sprintf("rates above %v: an emulated processor does not send as much", most)
	}
	return g
}

// LinkOptions say what is measured of links.
type LinkOptions struct {
	Machine  crypto.Machine // that measures
	Grid     Grid
	Packets  int           // for losses, of each direction
	Runs     int           // of what a wire is meant to reach; 0: that is not measured
	Duration time.Duration // of each flow
}

// MeasureLinks measures a link of each shape of the grid, with each shaper that this machine has and that can give it, idle
// and loaded; then what a wire is meant to reach, which is no question to an emulated processor.
func MeasureLinks(ctx context.Context, o LinkOptions, progress func(string)) (Links, error) {
	out := Links{Caveat: caveat(), Machine: o.Machine, Started: time.Now(), Missing: map[string]string{}, LeftOut: o.Grid.LeftOut}
	for _, shaper := range []string{"wire", "netem", "tbf"} {
		_, err := links.Choose([]topology.PlannedLink{{Link: topology.Link{Shape: topology.Shape{Rate: topology.Mbit}}}}, shaper)
		var lacks *links.UnsupportedError
		switch {
		case errors.As(err, &lacks):
			out.Missing[shaper] = lacks.Links[0].Missing[0]
		case err != nil:
			return out, err
		default:
			out.Shapers = append(out.Shapers, shaper)
		}
	}
	stop := crypto.Watch()
	if err := out.measure(ctx, o.Grid, false, o.Packets, progress); err != nil {
		return out, err
	}
	out.Activity = stop()
	load, err := startLoad(ctx)
	if err != nil {
		out.LoadMissing = err.Error()
	} else {
		err := out.measure(ctx, o.Grid, true, o.Packets, progress)
		did, ended := load.stop()
		if err = cmp.Or(err, ended); err != nil {
			return out, err
		}
		out.Load = &did
	}
	why, lacks := out.Missing["wire"]
	switch {
	case lacks:
		out.WireMissing = why
	case out.Caveat != "":
		out.WireMissing = "an emulated processor has no speed to judge"
	case o.Runs == 0:
		out.WireMissing = "no run was asked for"
	default:
		w, err := measureWire(ctx, o.Runs, o.Duration, o.Packets, progress)
		if err != nil {
			return out, err
		}
		out.Wire, out.Goals = &w, w.Goals()
	}
	out.Seconds = time.Since(out.Started).Seconds()
	return out, nil
}

// measure adds links of each kind.
func (l *Links) measure(ctx context.Context, grid Grid, loaded bool, packets int, progress func(string)) error {
	if err := l.measureGrid(ctx, grid, loaded, progress); err != nil {
		return err
	}
	return l.measureChance(ctx, grid, loaded, packets, progress)
}

func how(loaded bool) string {
	if loaded {
		return "loaded"
	}
	return "idle"
}

// measureGrid adds a link of each rate and delay, shapers taking turns.
func (l *Links) measureGrid(ctx context.Context, grid Grid, loaded bool, progress func(string)) error {
	for _, rate := range grid.Rates {
		for _, delay := range grid.Delays {
			for _, shaper := range l.Shapers {
				if rate == 0 && delay == 0 || shaper == "tbf" && delay > 0 {
					continue
				}
				shape := topology.Shape{Rate: rate, Delay: delay}
				progress(fmt.Sprintf("%s, %s: %v", shaper, how(loaded), shape))
				m, err := measureLink(ctx, shaper, shape, lab.Effort{})
				if err != nil {
					return err
				}
				e := linkError(m)
				e.Loaded = loaded
				l.Errors = append(l.Errors, e)
			}
		}
	}
	return nil
}

// measureLink measures a link of that shape in a lab of its own.
func measureLink(ctx context.Context, shaper string, shape topology.Shape, effort lab.Effort) (_ []lab.Measured, err error) {
	t, err := topology.New("link").Host("a").Host("b").Ethernet("a", "b").Topology()
	if err != nil {
		return nil, err
	}
	t.Links[0].Shape = shape
	p, err := t.Plan()
	if err != nil {
		return nil, err
	}
	l, err := lab.Up(ctx, p, lab.Options{Shaper: shaper})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	return l.Measure(ctx, p.Links[0], topology.Tolerance{Rate: 0.01, Confidence: 1 - miss}, effort)
}

// linkError is the worse of both directions.
func linkError(m []lab.Measured) LinkError {
	e := LinkError{Shaper: m[0].Shaper, Rate: float64(m[0].Wanted.Rate), Delay: ms(m[0].Wanted.Delay)}
	for side, m := range m {
		if d := m.Delay; d != nil {
			wanted := d.Wanted[1]
			if m.Shaper == "wire" { // a bucket of tokens lets what comes after a while pass at once
				wanted += d.Sending
			}
			p50, p99 := us(d.Seen[1]-wanted), us(d.P99-wanted)
			if side == 0 || p50 > e.P50 {
				e.P50 = p50
			}
			if side == 0 || p99 > e.P99 {
				e.P99 = p99
			}
		}
		if m.Loss != nil {
			e.Lost += m.Loss.Count
		}
		if m.Rate != nil {
			off := m.Rate.Seen/m.Rate.Wanted - 1
			if e.Off == nil || off*off > *e.Off**e.Off {
				e.Off = &off
			}
		}
		e.Unmeasured = append(e.Unmeasured, m.Unmeasured...)
	}
	return e
}
