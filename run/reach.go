package run

import (
	"fmt"
	"strings"

	"pqlab/lab"
)

const reachCheck = "links reach their rates"

// UnreachedError says which links of a lab cannot have their rates here. Of the lab nothing is left.
type UnreachedError []lab.UnreachedLink

// Error has a line for each.
func (e UnreachedError) Error() string {
	var lines []string
	for _, u := range e {
		lines = append(lines, unreachedText(u))
	}
	return strings.Join(lines, "\n") + "\nwithout --strict the lab comes up, with links as fast as this machine is"
}

func unreachedText(u lab.UnreachedLink) string {
	text := fmt.Sprintf("link %s: a rate of %v cannot be had: %v", u.Link, u.Rate(), u.Unreached)
	if at := u.At.String(); at != "" {
		text = at + ": " + text
	}
	return text
}

// judgeRates fails a strict run whose links cannot have their rates here, with a warning for each. Another run does not ask: what a
// link could have beyond what this machine sends limits no flow of it.
func (r *runner) judgeRates(unreached []lab.UnreachedLink) {
	// A plan that is verified would have been refused.
	if !r.options.Strict || r.plan.Verify || !r.rated() {
		return
	}
	var names []string
	for _, u := range unreached {
		r.warn(unreachedText(u))
		names = append(names, fmt.Sprintf("%s (%v)", u.Link, u.Rate()))
	}
	if names != nil {
		r.check(reachCheck, false, "not "+strings.Join(names, ", ")+": the warnings say what can be had")
		return
	}
	r.check(reachCheck, true, "no rate is more than a link here passes, or this machine sends")
}

// rated says whether a link has a rate.
func (r *runner) rated() bool {
	for _, p := range r.plan.Links {
		if p.Rate > 0 || len(p.RateTrace) > 0 {
			return r.options.Lab.Shaper != "none"
		}
	}
	return false
}
