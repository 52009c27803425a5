package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pqlab/agent"
	"pqlab/links"
	"pqlab/links/wifi"
	"pqlab/topology"
)

// notCarried says whether an error is the doing of the lab's links, which is a finding and not a failure of the run.
func (r *runner) notCarried(ctx context.Context, err error) bool {
	return errors.Is(err, agent.ErrNotCarried) && ctx.Err() == nil && r.lab.Err() == nil
}

// waysText describes links by their names as they are now.
func (r *runner) waysText(names []string) string {
	var all []string
	for _, p := range r.plan.Links {
		if !slices.Contains(names, p.Name) {
			continue
		}
		link := r.lab.Link(p.Name)
		text := wayText(p, link.State())
		if cell, number, ok := link.Cell(); ok {
			text += "; " + airText(cell.Stations[number])
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// wayText is a link with what it does to packets, of either direction where they differ.
func wayText(p topology.PlannedLink, state links.State) string {
	if state.Station != nil {
		p.WiFi = state.Station
	}
	there, back := p.Does(state.Shapes[0]), p.Does(state.Shapes[1])
	if there == back {
		return fmt.Sprintf("link %s (%s)", p.Name, there)
	}
	return fmt.Sprintf("link %s (from %s: %s; from %s: %s)", p.Name, p.A.Node, there, p.B.Node, back)
}

// airText is what a station's radio has for its packets.
func airText(s wifi.StationState) string {
	of := func(way string, d wifi.Direction) string {
		return fmt.Sprintf("%s SNR %.0f dB, %.4g Mbit/s, %d of %d packets given up", way, d.SNR, d.PHYRate/1e6, d.LostRetries, d.Packets)
	}
	return of("up", s.Up) + "; " + of("down", s.Down)
}
