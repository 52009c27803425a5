package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"pqlab/lab"
	"pqlab/probe"
	"pqlab/topology"
)

// Tunnel is the throughput of the pair lab without its tunnel, with it, and with one that is made by hand.
type Tunnel struct {
	Dataplane string `json:"dataplane"`
	Shaper    string `json:"shaper"`
	// Caveat says what the figures must not be taken for; empty where they may be taken for the machine's.
	Caveat string `json:"caveat,omitempty"`
	// HandMadeMissing is why no tunnel was made by hand; empty with a dataplane that cannot be made by hand.
	HandMadeMissing string       `json:"hand_made_missing,omitempty"`
	Runs            []Throughput `json:"runs"`
	Medians         []Throughput `json:"medians"` // of each field, by number of streams
}

// Throughput of one run, in bit/s of TCP payload. What was made by hand is 0 where that was not measured.
type Throughput struct {
	Streams    int     `json:"streams"`
	Plain      float64 `json:"plain_bits_per_second"`
	Encrypted  float64 `json:"tunnel_bits_per_second"`
	OfPlain    float64 `json:"of_plain"` // what the tunnel leaves of it
	HandMade   float64 `json:"hand_made_bits_per_second,omitempty"`
	OfHandMade float64 `json:"of_hand_made,omitempty"` // the tunnel beside the one made by hand
	// Quartiles of OfHandMade, in a median: between them is half of the runs.
	Quartiles *[2]float64 `json:"of_hand_made_quartiles,omitempty"`
}

// GoalHandMade is the least part of a hand-made tunnel's throughput that the kernel's dataplane is meant to reach.
const GoalHandMade = 0.97

// medians of runs by number of streams.
func medians(runs []Throughput, streams []int) (all []Throughput) {
	for _, n := range streams {
		sorted := func(f func(Throughput) float64) (values []float64) {
			for _, r := range runs {
				if v := f(r); r.Streams == n && v != 0 {
					values = append(values, v)
				}
			}
			slices.Sort(values)
			return values
		}
		of := func(f func(Throughput) float64) float64 { return median(sorted(f)) }
		m := Throughput{
			Streams: n,
			Plain:   of(func(r Throughput) float64 { return r.Plain }), Encrypted: of(func(r Throughput) float64 { return r.Encrypted }),
			OfPlain:  of(func(r Throughput) float64 { return r.OfPlain }),
			HandMade: of(func(r Throughput) float64 { return r.HandMade }),
		}
		if ratios := sorted(func(r Throughput) float64 { return r.OfHandMade }); len(ratios) > 0 {
			m.OfHandMade = median(ratios)
			m.Quartiles = &[2]float64{ratios[len(ratios)/4], ratios[3*len(ratios)/4]}
		}
		all = append(all, m)
	}
	return all
}

// way is a pair lab that is up, with or without a tunnel.
type way struct {
	name string
	lab  *lab.Lab
	hand *hand // nil unless its tunnel is made by hand
}

// Names of the ways.
const (
	plain    = "plain"
	tunnel   = "tunnel"
	handMade = "tunnel made by hand"
)

// MeasureTunnel sends TCP through pair labs for d each, in turns: without a tunnel, with it, and, where the kernel's
// dataplane carries it, with one like it that iproute2 has made. The labs are up together.
func MeasureTunnel(ctx context.Context, streams []int, runs int, d time.Duration, o lab.Options, progress func(string)) (_ Tunnel, err error) {
	out := Tunnel{Caveat: caveat()}
	o.Log = os.Stderr
	var ways []*way
	defer func() {
		for _, w := range ways {
			err = errors.Join(err, w.close(context.WithoutCancel(ctx)))
		}
	}()
	names := []string{plain, tunnel}
	plane, err := probe.Dataplane(o.Dataplane)
	if err != nil {
		return out, err
	}
	if plane.Name == probe.XFRM {
		names = append(names, handMade)
	}
	for _, name := range names {
		w, err := open(ctx, name, streams, o, strings.HasSuffix(out.Dataplane, "/interface"))
		var missing *handError
		if errors.As(err, &missing) {
			out.HandMadeMissing = missing.Error()
			continue
		}
		if err != nil {
			return out, err
		}
		ways = append(ways, w)
		if name == tunnel {
			state, err := w.lab.Tunnel("ab").State(ctx, "a")
			if err != nil {
				return out, err
			}
			out.Shaper, out.Dataplane = w.lab.ShapedBy(), state.Dataplane
		}
	}

	turns := slices.Clone(ways)
	for range runs {
		for i, n := range streams {
			rates := map[string]float64{}
			for _, w := range turns {
				progress(fmt.Sprintf("%s, %d at a time", w.name, n))
				if rates[w.name], err = w.send(ctx, i, d); err != nil {
					return out, err
				}
			}
			r := Throughput{
				Streams: n, Plain: rates[plain], Encrypted: rates[tunnel], OfPlain: rates[tunnel] / rates[plain], HandMade: rates[handMade],
			}
			if r.HandMade > 0 {
				r.OfHandMade = r.Encrypted / r.HandMade
			}
			out.Runs = append(out.Runs, r)
		}
		slices.Reverse(turns) // so that a machine that grows slower favours nobody
	}
	out.Medians = medians(out.Runs, streams)
	return out, nil
}

// open makes the lab of a way, with a flow for each number of streams. iface says that a tunnel by hand gets an interface. A
// *handError says that none can be made by hand here.
func open(ctx context.Context, name string, streams []int, o lab.Options, iface bool) (_ *way, err error) {
	b := topology.New("pair").Host("a").Host("b").Fibre("a", "b").Tunnel("ab", "a", "b")
	for _, n := range streams {
		b = b.TCP("a", "b", topology.Name(fmt.Sprintf("tcp%d", n)), topology.Streams(n))
	}
	p, err := b.Plan()
	if err != nil {
		return nil, err
	}
	planned := p.Tunnels[0]
	if name != tunnel { // all else stays as it is, addresses and routes too
		p.Tunnels = nil
	}
	w := &way{name: name}
	if w.lab, err = lab.Up(ctx, p, o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(context.WithoutCancel(ctx)))
		}
	}()
	switch name {
	case tunnel:
		_, err = w.lab.Tunnel("ab").Establish(ctx)
	case handMade:
		w.hand, err = makeByHand(ctx, w.lab, planned, iface)
	}
	return w, err
}

// send measures one flow of the way, in bit/s.
func (w *way) send(ctx context.Context, flow int, d time.Duration) (float64, error) {
	if w.hand != nil {
		return w.hand.send(ctx, w.lab.Plan.Traffic[flow], d)
	}
	r, err := w.lab.Send(ctx, w.lab.Plan.Traffic[flow], d)
	return r.BitsPerSecond, err
}

func (w *way) close(ctx context.Context) error {
	if w.hand != nil {
		w.hand.close()
	}
	return w.lab.Down(ctx)
}
