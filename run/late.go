package run

import (
	"fmt"
	"strings"

	"pqlab/links"
	"pqlab/report"
)

const scheduleCheck = "links keep their schedule"

// driven is one direction of a link whose packets pass through this process.
type driven struct {
	link, from, to string
	links.Wire
}

// driven are the directions of the lab's wires, as they have fared until now.
func (r *runner) driven() (all []driven) {
	for _, p := range r.plan.Links {
		l := r.lab.Link(p.Name)
		if !l.Driven() {
			continue
		}
		ends := [2]string{p.A.Node, p.B.Node}
		for side, w := range l.State().Wire {
			all = append(all, driven{p.Name, ends[side], ends[1-side], w})
		}
	}
	return all
}

// kernels are the lab's links that the kernel shapes, with what does it.
func (r *runner) kernels() (all []string) {
	for _, p := range r.plan.Links {
		switch shaper := r.lab.Link(p.Name).State().Shaper; shaper {
		case "wire", "none":
		default:
			all = append(all, fmt.Sprintf("%s (%s)", p.Name, shaper))
		}
	}
	return all
}

// judgeSchedule puts into the result how late wires were. Where this machine was too busy for one that is a warning, and
// for a strict run a failed check. How late the kernel is with the links that it shapes nobody tells, and a strict run says so.
func (r *runner) judgeSchedule(wires []driven, kernels []string) {
	const most = 3 // that are told in words
	if r.options.Strict && len(kernels) > 0 {
		more := ""
		if n := len(kernels) - most; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		r.warn("whether these links keep their schedule is not known: " + strings.Join(kernels[:min(most, len(kernels))], ", ") + more +
			"; the kernel shapes them, and does not tell how late it is; --shaper=wire would tell")
	}
	if len(wires) == 0 {
		return
	}
	var words []string
	late, worst := 0, report.Lateness{}
	for _, w := range wires {
		how := w.Late()
		l := report.Lateness{
			Link: w.link, From: w.from, To: w.to,
			Packets: w.Lateness.Packets, P50: ms(w.Lateness.P50), P99: ms(w.Lateness.P99), Max: ms(w.Lateness.Max), Missed: w.Missed,
			Late: len(how) > 0,
		}
		r.result.Lateness = append(r.result.Lateness, l)
		if l.P99 >= worst.P99 {
			worst = l
		}
		if !l.Late {
			continue
		}
		if late++; late <= most {
			words = append(words, fmt.Sprintf("link %s from node %s: %s", w.link, w.from, strings.Join(how, ", ")))
		}
	}
	if late > most {
		what := "directions"
		if late == most+1 {
			what = "direction"
		}
		words = append(words, fmt.Sprintf("and so in %d more %s of links", late-most, what))
	}
	switch {
	case r.options.Strict && late > 0:
		r.check(scheduleCheck, false, "this machine was too busy: "+strings.Join(words, "; "))
	case r.options.Strict:
		r.check(scheduleCheck, true, fmt.Sprintf("at most %.3g ms late for one in a hundred, link %s from node %s", worst.P99, worst.Link, worst.From))
	case late > 0:
		r.warn("this machine was too busy to keep the schedule of links: " + strings.Join(words, "; "))
	}
}
