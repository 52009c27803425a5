package run

import (
	"context"
	"errors"
	"fmt"

	"pqlab/lab"
	"pqlab/links"
	"pqlab/supervisor"
	"pqlab/topology"
)

// SetLink changes the shape of a link.
func (h *held) SetLink(_ context.Context, link, from string, args []string) error {
	change, err := topology.ParseChange(args)
	if err == nil {
		err = h.lab.SetLink(link, from, change)
	}
	var mistakes topology.Errors
	switch {
	case errors.As(err, &mistakes), errors.Is(err, links.ErrUnshaped):
		return fmt.Errorf("%w: %v", supervisor.ErrInput, err)
	case errors.Is(err, lab.ErrNoLink):
		return noLink{err}
	}
	return err
}

// noLink is the lab's error, and the supervisor's.
type noLink struct{ error }

func (noLink) Is(target error) bool { return target == supervisor.ErrNoLink }

func linkStatus(p topology.PlannedLink, state links.State) supervisor.LinkStatus {
	return supervisor.LinkStatus{
		Name: p.Name, Kind: string(p.Kind), A: p.A.Node + ":" + p.A.Interface, B: p.B.Node + ":" + p.B.Interface,
		Shaper: state.Shaper, Seeded: state.Seeded, FromA: shapeStatus(state.Shapes[0]), FromB: shapeStatus(state.Shapes[1]),
	}
}

func shapeStatus(s topology.Shape) supervisor.ShapeStatus {
	out := supervisor.ShapeStatus{
		Text: s.String(), Rate: uint64(s.Rate), Delay: s.Delay, Jitter: s.Jitter, Unordered: s.Unordered,
		Loss: s.Loss, LossCorrelation: s.LossCorrelation, Duplication: s.Duplication, Reordering: s.Reordering, Corruption: s.Corruption,
	}
	if s.Jitter > 0 {
		out.Distribution = s.DelayDistribution()
	}
	if s.GilbertElliott != (topology.GilbertElliott{}) {
		g := s.Chain()
		out.GilbertElliott = []float64{g.P, g.R, g.Bad, g.Good}
	}
	return out
}
