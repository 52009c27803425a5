package experiments

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"pqlab/lab"
	"pqlab/links"
	"pqlab/topology"
)

// Schedule says how well this machine kept the schedule of the wires that packets passed. The zero value is of none.
type Schedule struct {
	Directions int      `json:"directions"` // of wires, in all labs; the kernel does not tell how late its own links are
	Late       int      `json:"late"`       // of those, the ones that links.Wire.Late finds too late
	P99Ms      float64  `json:"p99_ms"`     // one packet in a hundred of a direction came later than that, where that was worst
	MaxMs      float64  `json:"max_ms"`     // the latest of all
	Missed     uint64   `json:"missed"`     // packets that nobody read in time, and that were lost by that
	Where      []string `json:"where"`      // the first that were late, in words
}

// mostTold is how many late directions are told in words.
const mostTold = 3

// Note adds the links of a lab that is still up. what says which lab that was.
func (s *Schedule) Note(what string, l *lab.Lab) {
	for _, p := range l.Plan.Links {
		link := l.Link(p.Name)
		if !link.Driven() {
			continue
		}
		ends := [2]string{p.A.Node, p.B.Node}
		for side, w := range link.State().Wire {
			s.note(fmt.Sprintf("%s, link %s from node %s", what, p.Name, ends[side]), w)
		}
	}
}

func (s *Schedule) note(what string, w links.Wire) {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	s.Directions++
	s.P99Ms, s.MaxMs, s.Missed = max(s.P99Ms, ms(w.Lateness.P99)), max(s.MaxMs, ms(w.Lateness.Max)), s.Missed+w.Missed
	how := w.Late()
	if how == nil {
		return
	}
	if s.Late++; s.Late <= mostTold {
		s.Where = append(s.Where, what+": "+strings.Join(how, ", "))
	}
}

// Kept says whether no wire was too late.
func (s Schedule) Kept() bool { return s.Late == 0 }

// String tells it in a sentence.
func (s Schedule) String() string {
	switch {
	case s.Directions == 0:
		return "no link was a wire, and the kernel does not tell how late its own are"
	case s.Kept():
		return fmt.Sprintf("%d directions of wires kept their schedule: at most %.3g ms late for one packet in a hundred, %.3g ms for one", s.Directions, s.P99Ms, s.MaxMs)
	}
	text := fmt.Sprintf("this machine was too busy to keep the schedule of %d of %d directions of wires: %s", s.Late, s.Directions, strings.Join(s.Where, "; "))
	if more := s.Late - len(s.Where); more > 0 {
		text += fmt.Sprintf("; and so in %d more", more)
	}
	return text
}

// Timing takes what is known of the wires into what a result says of its run.
func (a *About) Timing(s Schedule) {
	if a.Schedule = s; !s.Kept() {
		a.Warnings = append(a.Warnings, s.String())
	}
}

// Punctual says whether the run's wires kept their schedule.
func (a About) Punctual() bool { return a.Schedule.Kept() }

// Shapeable tells before a run whether a lab's links can have their shapes, without which there is nothing to measure. An
// error is that of links.Choose.
func Shapeable(plan *topology.Plan, shaper string) error {
	_, err := links.Choose(plan.Links, shaper)
	var lacks *links.UnsupportedError
	if errors.As(err, &lacks) {
		lacks.Shaped = true
	}
	return err
}
