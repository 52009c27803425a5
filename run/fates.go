package run

import (
	"fmt"
	"strings"

	"pqlab/links"
	"pqlab/report"
	"pqlab/topology"
)

// judgeFates completes the traces of what befell packets, and tells what of those that were replayed did not fit.
func (r *runner) judgeFates() {
	for _, p := range r.plan.Links {
		h, ok, err := r.lab.Link(p.Name).EndHistory()
		if ok {
			r.judgeHistory(p, h, err)
		}
	}
}

// judgeHistory is of one link.
func (r *runner) judgeHistory(p topology.PlannedLink, h links.History, err error) {
	ends := [2]string{p.A.Node, p.B.Node}
	for side, s := range h.Sides {
		f := report.Fates{Link: p.Name, From: ends[side], To: ends[1-side], File: h.File, Recorded: s.Recorded}
		if h.Replayed {
			f.Replayed = &report.Replayed{Traced: s.Traced, Met: s.Met, Beyond: s.Beyond, Differing: s.Differing}
			if how := misfits(s); how != nil {
				r.warn(fmt.Sprintf("link %s from node %s: the trace of fates does not fit: %s", p.Name, ends[side], strings.Join(how, ", ")))
			}
		}
		r.result.Fates = append(r.result.Fates, f)
	}
	switch name := fmt.Sprintf("fates of link %s are recorded", p.Name); {
	case err != nil:
		r.check(name, false, err.Error())
	case h.File != "":
		r.check(name, true, fmt.Sprintf("%d packets from %s, %d from %s, in %s", h.Sides[0].Recorded, ends[0], h.Sides[1].Recorded, ends[1], h.File))
	}
}

// misfits says in words how packets differ from those of a trace that was replayed; nil if they do not.
func misfits(s links.SideHistory) (all []string) {
	switch {
	case s.Beyond > 0 && s.Traced == 0:
		all = append(all, fmt.Sprintf("it tells of no packet, and all %d were lost", s.Met))
	case s.Beyond > 0:
		all = append(all, fmt.Sprintf("it tells of %d packets, and for the %d beyond it began anew", s.Traced, s.Beyond))
	}
	if s.Differing > 0 {
		all = append(all, fmt.Sprintf("%d of %d packets are of another size than those that were recorded", s.Differing, s.Met))
	}
	return all
}
