package bench

import (
	"fmt"
	"slices"
)

// Goal is one thing that a wire is meant to reach, and how far it came. All numbers are in its unit.
type Goal struct {
	What  string   `json:"what"`
	Unit  string   `json:"unit"`
	Least *float64 `json:"at_least,omitempty"` // nil: any
	Most  *float64 `json:"at_most,omitempty"`
	Seen  *float64 `json:"seen,omitempty"` // the median of runs; nil: not measured
	// Low and High are the worst and the best of the runs; of a share of packets the 99 % interval, and the goal is that it has what was asked
	// for.
	Low  *float64 `json:"low,omitempty"`
	High *float64 `json:"high,omitempty"`
	Met  *bool    `json:"met,omitempty"`        // nil: not judged
	Why  string   `json:"not_judged,omitempty"` // why
}

// Missed are the goals that were not met. What was not judged is none.
func (l Links) Missed() (missed []Goal) {
	for _, g := range l.Goals {
		if g.Met != nil && !*g.Met {
			missed = append(missed, g)
		}
	}
	return missed
}

// Goals judges what a wire reached.
func (w *WireGoals) Goals() []Goal {
	const giga, percent, mega = 1e9, 0.01, 1e6
	least := func(what, unit string, one, bound float64, runs ...float64) Goal {
		bound /= one
		return judged(Goal{What: what, Unit: unit, Least: &bound}, one, runs)
	}
	most := func(what, unit string, one, bound float64, runs ...float64) Goal {
		bound /= one
		return judged(Goal{What: what, Unit: unit, Most: &bound}, one, runs)
	}
	within := func(what string, off float64, runs []float64) Goal {
		low, high := (1-off)/percent, (1+off)/percent
		return judged(Goal{What: what, Unit: "%", Least: &low, Most: &high}, percent, runs)
	}
	goals := []Goal{
		least("TCP without a shape", "Gbit/s", giga, GoalUnshaped, w.Unshaped...),
		within("TCP at 1 Gbit/s, of what its frames leave", GoalRate, w.TCP),
		within("UDP at 1 Gbit/s, of what its frames leave", GoalRate, w.UDP),
		least("goodput that the model of Wi-Fi gives TCP", "Gbit/s", giga, GoalAir, w.Air.Model),
		least("TCP over Wi-Fi", "Gbit/s", giga, GoalAir, w.Air.TCP...),
		most("error of the median of a delay of 5 ms", "µs", 1, GoalDelayP50, w.P50...),
		most("error of the 99th percentile of a delay of 5 ms", "µs", 1, GoalDelayP99, w.P99...),
		w.Loss.goal(percent),
		most(fmt.Sprintf("%d idle wires, of one processor", w.IdleLinks), "%", percent, GoalIdleCPU, w.IdleCPU...),
	}
	for _, f := range w.Floods {
		what := fmt.Sprintf("memory of a link of %g Mbit/s, %g ms, flooded with frames of %d bytes: %s", f.Rate/mega, f.Delay, f.Frame, f.Of)
		goals = append(goals, most(what, "MB", mega, float64(f.Most), float64(f.Memory)))
	}
	return goals
}

// judged holds the median of runs, of which one makes the goal's unit, against its bounds.
func judged(g Goal, one float64, runs []float64) Goal {
	if len(runs) == 0 {
		g.Why = "this machine did not send as much"
		return g
	}
	seen, low, high := MedianOf(runs)/one, slices.Min(runs)/one, slices.Max(runs)/one
	met := (g.Least == nil || seen >= *g.Least) && (g.Most == nil || seen <= *g.Most)
	g.Seen, g.Low, g.High, g.Met = &seen, &low, &high, &met
	return g
}

func (l LossSeen) goal(one float64) Goal {
	wanted, seen, low, high := l.Wanted/one, l.Seen/one, l.Low/one, l.High/one
	g := Goal{What: fmt.Sprintf("loss of %g %%, within the 99 %% interval of %d packets", wanted, l.Packets), Unit: "%", Least: &wanted, Most: &wanted}
	if l.Packets == 0 {
		g.Why = "no packet was counted"
		return g
	}
	met := low <= wanted && wanted <= high
	g.Seen, g.Low, g.High, g.Met = &seen, &low, &high, &met
	if l.Missed > 0 {
		g.What += fmt.Sprintf(" (%d of those lost were not read in time)", l.Missed)
	}
	return g
}
