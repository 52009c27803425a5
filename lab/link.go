package lab

import (
	"errors"
	"fmt"

	"pqlab/topology"
)

// ErrNoLink says that the lab has no link of that name.
var ErrNoLink = errors.New("no such link")

// ErrNoEnd says that the link does not end at that node.
var ErrNoEnd = errors.New("no such end")

// ErrVerifiedFates says that links are to be verified whose fates are to be recorded or replayed.
var ErrVerifiedFates = errors.New("sends packets of its own, which have fates too and would be a part of the trace")

// ErrBothWays says that a station was to be changed for one direction of its link.
var ErrBothWays = errors.New("a station is where it is, and sends as it does, for both directions")

// SetLink changes the shape of a link, of what the node from sends over it, or, if from is empty, of both directions, or the
// station of a Wi-Fi link, for which from is empty (ErrBothWays). It changes all that is asked for or nothing. A shape that no link can have is topology.Errors, one that the lab's shaper
// cannot give a *links.UnsupportedError.
func (l *Lab) SetLink(name, from string, change topology.Change) error {
	link := l.links[name]
	if link == nil {
		var names []string
		for _, p := range l.Plan.Links {
			names = append(names, p.Name)
		}
		return fmt.Errorf("%w %q%s", ErrNoLink, name, topology.OrAny(name, names))
	}
	var plan topology.PlannedLink
	for _, p := range l.Plan.Links {
		if p.Name == name {
			plan = p
		}
	}
	if from != "" && from != plan.A.Node && from != plan.B.Node {
		return fmt.Errorf("link %s: %w %q; it is between %s and %s", name, ErrNoEnd, from, plan.A.Node, plan.B.Node)
	}
	shape := func(shapes [2]topology.Shape) (_ [2]topology.Shape, err error) {
		for side, node := range []string{plan.A.Node, plan.B.Node} {
			if from != "" && from != node {
				continue
			}
			if shapes[side], err = change.Apply(plan, shapes[side]); err != nil {
				return shapes, err
			}
		}
		return shapes, nil
	}
	if !change.MovesStation() {
		return link.Set(shape)
	}
	if plan.WiFi == nil {
		_, err := change.ApplyStation(plan, topology.Station{})
		return err
	}
	if from != "" {
		return fmt.Errorf("link %s: %w; leave out --from", name, ErrBothWays)
	}
	return link.SetStation(func(shapes [2]topology.Shape, station topology.Station) (_ [2]topology.Shape, _ topology.Station, err error) {
		if shapes, err = shape(shapes); err == nil {
			station, err = change.ApplyStation(plan, station)
		}
		return shapes, station, err
	})
}
