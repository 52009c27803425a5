package run

import (
	"cmp"
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
	case errors.Is(err, lab.ErrNoLink), errors.Is(err, lab.ErrNoEnd):
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
	status := func(side int) supervisor.ShapeStatus {
		s := state.Shapes[side]
		out := shapeStatus(s)
		if state.Shaper == "wire" {
			out.Lateness = lateness(state.Wire[side])
		}
		out.Text = p.Does(s)
		if len(ignored) > 0 { // then it does nothing
			out.Text = fmt.Sprintf("%v; lacks %s", s, strings.Join(ignored, ", "))
		}
		return out
	}
	return supervisor.LinkStatus{
		Name: p.Name, Kind: string(p.Kind), A: p.A.Node + ":" + p.A.Interface, B: p.B.Node + ":" + p.B.Interface,
		Shaper: state.Shaper, Seeded: state.Seeded, FromA: status(0), FromB: status(1),
	}
}

func lateness(w links.Wire) *supervisor.Lateness {
	l := w.Lateness
	return &supervisor.Lateness{Packets: l.Packets, P50: l.P50, P99: l.P99, Max: l.Max, Missed: w.Missed, Late: w.Late()}
}

// shapeStatus is all that a shape is but the text.
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
	if n := len(s.RateTrace); n > 0 {
		out.RateTrace = &supervisor.RateTraceStatus{Steps: n, Mean: uint64(s.MeanRate())}
		for _, step := range s.RateTrace {
			out.RateTrace.Length += step.Length
		}
	}
	if len(s.LossTrace) > 0 {
		out.LossTrace = &supervisor.LossTraceStatus{}
		for i, n := range s.LossTrace { // that pass, that are lost, that pass …
			out.LossTrace.Packets += n
			if i%2 == 1 {
				out.LossTrace.Lost += n
			}
		}
	}
	if q := s.Queue; q != (topology.Queue{}) {
		out.Queue = &supervisor.QueueStatus{Kind: cmp.Or(q.Kind, topology.DropTail), Bytes: q.Bytes, Time: q.Time}
		if q.Kind == topology.CoDel {
			out.Queue.Target, out.Queue.Interval = q.Control()
		}
	}
	for _, o := range s.Outages {
		out.Outages = append(out.Outages, supervisor.OutageStatus(o))
	}
	return out
}
