package lab

import (
	"context"
	"errors"
	"fmt"

	"pqlab/links"
	"pqlab/topology"
)

// UnreachedLink is a link whose rate cannot be had here.
type UnreachedLink struct {
	Link string
	At   topology.Position // of the rate
	Unreached
}

// Rate is the one that is wanted.
func (u UnreachedLink) Rate() topology.Rate { return topology.Rate(u.Wanted) }

// reach finds the links whose rates cannot be had here: what is asked of each shaper at each rate is sent once. A link begins anew
// afterwards.
func (l *Lab) reach(ctx context.Context) error {
	type kind struct {
		shaper string
		rate   topology.Rate
	}
	seen := map[kind]*Unreached{}
	for _, p := range l.Plan.Links {
		link := l.links[p.Name]
		of := kind{link.State().Shaper, fastest(p.Shape)}
		u, known := seen[of]
		if !known {
			var err error
			if u, err = l.reachOf(ctx, p, link); err != nil {
				return fmt.Errorf("link %s: measuring its rate: %w", p.Name, err)
			}
			seen[of] = u
		}
		if u != nil {
			l.Unreached = append(l.Unreached, UnreachedLink{p.Name, p.At.Rate, *u})
		}
	}
	return nil
}

// reachOf is nil for a link that passes its rate, or of which that cannot be known.
func (l *Lab) reachOf(ctx context.Context, p topology.PlannedLink, link *links.Link) (_ *Unreached, err error) {
	if len(link.Ignored) > 0 {
		return nil, nil
	}
	if most := fastest(p.Shape); most > fastestRate {
		return &Unreached{Wanted: float64(most), Most: float64(fastestRate)}, nil
	}
	if p.Rate <= easyRate || unmeasurable(p, nil) != "" || l.options.Fates != (links.Fates{}) { // of which each packet counts
		return nil, nil
	}
	w, err := l.openWay(p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	defer func() { err = errors.Join(err, beginAnew(link)) }()
	const off = 0.05 // more than chance, and a busy machine, takes
	m := Measured{Wanted: p.Shape}
	if err := (&sample{ctx, w, 0, &m, topology.Tolerance{Rate: off}, Effort{}}).rate(); err != nil {
		return nil, err
	}
	if r := m.Rate; r != nil && r.High < r.Wanted*(1-off) {
		return &Unreached{Wanted: r.Wanted, Most: r.Seen}, nil
	}
	return m.Unreached, nil
}

// beginAnew has a link go on as if nothing had been sent over it.
func beginAnew(link *links.Link) (err error) {
	was := link.State().Shapes
	// What is given the shape that it has goes on with it.
	for _, shapes := range [][2]topology.Shape{{}, was} {
		err = errors.Join(err, link.Set(func([2]topology.Shape) ([2]topology.Shape, error) { return shapes, nil }))
	}
	return err
}
