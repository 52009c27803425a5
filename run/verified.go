package run

import (
	"fmt"
	"strings"
	"time"

	"pqlab/lab"
	"pqlab/report"
)

// judgeLinks tells what was measured of the links before the lab was used. What was out of tolerance made no lab, so that
// each direction of which something was measured is a check that holds.
func (r *runner) judgeLinks(all []lab.Measured) {
	for _, m := range all {
		l := linkOf(m)
		r.result.Links = append(r.result.Links, l)
		measured := l.Measured()
		if measured == nil {
			continue
		}
		detail := strings.Join(measured, ", ") + " within tolerance"
		if len(l.Unmeasured) > 0 {
			detail += "; not verified: " + strings.Join(l.Unmeasured, ", ")
		}
		r.check(fmt.Sprintf("link %s from %s to %s is as asked for", l.Link, l.From, l.To), true, detail)
	}
}

// linkOf is what was measured of a link, as a result has it.
func linkOf(m lab.Measured) report.Link {
	l := report.Link{
		Link: m.Link, From: m.From, To: m.To, Shaper: m.Shaper, Wanted: m.Asked, Tries: m.Tries, Unmeasured: m.Unmeasured,
		Loss: shareOf(m.Loss), Duplication: shareOf(m.Duplication),
		LateMs: ms(m.Lateness.Max), LateP99Ms: ms(m.Lateness.P99), Missed: m.Missed,
	}
	if d := m.Delay; d != nil {
		quartiles := func(q [3]time.Duration) [3]float64 { return [3]float64{ms(q[0]), ms(q[1]), ms(q[2])} }
		l.Delay = &report.LinkDelay{
			Packets: d.Packets, Wanted: quartiles(d.Wanted), Sending: ms(d.Sending), Seen: quartiles(d.Seen), Low: quartiles(d.Low), High: quartiles(d.High),
			Least: ms(d.Least), P99: ms(d.P99), Most: ms(d.Most),
		}
		for _, q := range d.Tail {
			l.Delay.Tail = append(l.Delay.Tail, report.LinkQuantile{Share: q.Share, Wanted: ms(q.Wanted), Seen: ms(q.Seen), Low: ms(q.Low), High: ms(q.High)})
		}
	}
	if m.Rate != nil {
		l.Rate = &report.LinkRate{Wanted: m.Rate.Wanted, Seen: m.Rate.Seen}
	}
	return l
}

func shareOf(s *lab.MeasuredShare) *report.LinkShare {
	if s == nil {
		return nil
	}
	return &report.LinkShare{Packets: s.Packets, Count: s.Count, Wanted: s.Wanted, Seen: s.Seen, Low: s.Low, High: s.High}
}
