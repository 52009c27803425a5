package bench

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"pqlab/lab"
	"pqlab/topology"
)

// Tunnel is the throughput of the pair lab with its tunnel and without.
type Tunnel struct {
	Dataplane string       `json:"dataplane"`
	Shaper    string       `json:"shaper"`
	Runs      []Throughput `json:"runs"`
}

// Throughput of one run, in bit/s of TCP payload.
type Throughput struct {
	Streams   int     `json:"streams"`
	Plain     float64 `json:"plain_bits_per_second"`
	Encrypted float64 `json:"tunnel_bits_per_second"`
}

// Median of the runs with so many streams.
func (t Tunnel) Median(streams int) (plain, encrypted float64) {
	var p, e []float64
	for _, r := range t.Runs {
		if r.Streams == streams {
			p, e = append(p, r.Plain), append(e, r.Encrypted)
		}
	}
	if len(p) == 0 {
		return 0, 0
	}
	slices.Sort(p)
	slices.Sort(e)
	return p[len(p)/2], e[len(e)/2]
}

// MeasureTunnel sends TCP through the pair lab, with and without its tunnel in turns, for d each.
func MeasureTunnel(ctx context.Context, streams []int, runs int, d time.Duration, o lab.Options, progress func(string)) (Tunnel, error) {
	var out Tunnel
	for range runs {
		for _, n := range streams {
			r := Throughput{Streams: n}
			for _, tunnelled := range []bool{false, true} {
				progress(map[bool]string{false: "plain", true: "tunnel"}[tunnelled])
				rate, err := throughput(ctx, n, tunnelled, d, o, &out)
				if err != nil {
					return out, err
				}
				if tunnelled {
					r.Encrypted = rate
				} else {
					r.Plain = rate
				}
			}
			out.Runs = append(out.Runs, r)
		}
	}
	return out, nil
}

func throughput(ctx context.Context, streams int, tunnelled bool, d time.Duration, o lab.Options, out *Tunnel) (_ float64, err error) {
	b := topology.New("pair").Host("a").Host("b").Fibre("a", "b")
	if tunnelled {
		b = b.Tunnel("ab", "a", "b")
	}
	p, err := b.TCP("a", "b", topology.Streams(streams)).Plan()
	if err != nil {
		return 0, err
	}
	o.Log = os.Stderr
	l, err := lab.Up(ctx, p, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Down(context.WithoutCancel(ctx))) }()
	out.Shaper = l.ShapedBy()
	if tunnelled {
		if _, err := l.Tunnel("ab").Establish(ctx); err != nil {
			return 0, err
		}
		state, err := l.Tunnel("ab").State(ctx, "a")
		if err != nil {
			return 0, err
		}
		out.Dataplane = state.Dataplane
	}
	r, err := l.Send(ctx, p.Traffic[0], d)
	return r.BitsPerSecond, err
}
