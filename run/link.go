package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pqlab/lab"
	"pqlab/links"
	"pqlab/supervisor"
	"pqlab/topology"
)

// SetLink changes the shape of a link, and its station.
func (h *held) SetLink(_ context.Context, link, from string, args []string) (supervisor.LinkStatus, error) {
	h.setting.Lock() // so that the state is that of this change
	defer h.setting.Unlock()
	if err := h.setLink(link, from, args); err != nil {
		return supervisor.LinkStatus{}, err
	}
	i := slices.IndexFunc(h.lab.Plan.Links, func(p topology.PlannedLink) bool { return p.Name == link })
	l := h.lab.Link(link)
	return linkStatus(h.lab.Plan.Links[i], l.State(), l.Ignored), nil
}

func (h *held) setLink(link, from string, args []string) error {
	change, err := topology.ParseChange(args)
	if err == nil {
		err = h.lab.SetLink(link, from, change)
	}
	var mistakes topology.Errors
	switch {
	case errors.As(err, &mistakes), errors.Is(err, lab.ErrBothWays), errors.Is(err, links.ErrUnshaped), errors.Is(err, links.ErrReplay):
		return fmt.Errorf("%w: %v", supervisor.ErrInput, err)
	case errors.Is(err, lab.ErrNoLink):
		return noLink{err}
	}
	return err
}

// noLink is the lab's error, and the supervisor's.
type noLink struct{ error }

func (noLink) Is(target error) bool { return target == supervisor.ErrNoLink }

// linkStatus describes a link. ignored is what it does not do though the topology asks for it.
func linkStatus(p topology.PlannedLink, state links.State, ignored []string) supervisor.LinkStatus {
	if state.Station != nil {
		p.WiFi = state.Station
	}
	status := func(s topology.Shape) supervisor.ShapeStatus {
		out := shapeStatus(s)
		out.Text = p.Does(s)
		if len(ignored) > 0 { // then it does nothing
			out.Text = fmt.Sprintf("%v; lacks %s", s, strings.Join(ignored, ", "))
		}
		return out
	}
	return supervisor.LinkStatus{
		Name: p.Name, Kind: string(p.Kind), A: p.A.Node + ":" + p.A.Interface, B: p.B.Node + ":" + p.B.Interface,
		Shaper: state.Shaper, Seeded: state.Seeded, FromA: status(state.Shapes[0]), FromB: status(state.Shapes[1]),
	}
}

// shapeStatus is all but the text.
func shapeStatus(s topology.Shape) supervisor.ShapeStatus {
	out := supervisor.ShapeStatus{
		Rate: uint64(s.Rate), Delay: s.Delay, Jitter: s.Jitter, Unordered: s.Unordered,
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
