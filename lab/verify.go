package lab

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pqlab/links/wire"
	"pqlab/topology"
)

// Measured is how one direction of a link did with the packets that were sent to measure it.
type Measured struct {
	Link, From, To string
	At             topology.LinkPosition
	Shaper         string
	Asked          string // what is wanted in words: a shape, or airtime
	Wanted         topology.Shape
	Delay          *MeasuredDelay // nil: not measured, as the next ones
	Loss           *MeasuredShare // with what a receiver throws away because it was corrupted
	Duplication    *MeasuredShare
	Rate           *MeasuredRate
	Unreached      *Unreached    // in place of Rate
	Unmeasured     []string      // what is asked of the link and was not measured, and why
	Lateness       wire.Lateness // of a wire, since it was made: a busy machine does not keep its schedule
	Missed         uint64        // packets that a wire did not read in time, since it was made; they are among those lost
	Tries          int           // how often it was measured until it was within tolerance, if it was
}

// MeasuredDelay has the quartiles of a delay: the first, the median and the third.
type MeasuredDelay struct {
	Packets   int
	Wanted    [3]time.Duration
	Sending   time.Duration // that a packet may take more than Wanted, because it is sent at the link's rate
	Seen      [3]time.Duration
	Low, High [3]time.Duration   // between which, and with Tail's, the truth of all is with the confidence; 0 and all the time it took: not known
	Tail      []MeasuredQuantile // 90 % and 99 %
	Least     time.Duration
	P99, Most time.Duration
	Woken     time.Duration // so late, at most, was what sent the packets: so busy was the machine
}

// MeasuredQuantile is one of a delay: so large a share is not longer.
type MeasuredQuantile struct {
	Share                   float64
	Wanted, Seen, Low, High time.Duration // the truth is between Low and High with the confidence; 0 and all the time it took: not known
}

// MeasuredShare is how many of the packets something happened to, with its exact confidence interval.
type MeasuredShare struct {
	Packets, Count          int
	Wanted, Seen, Low, High float64
}

// MeasuredRate is in bit/s of Ethernet frames, of a link that more was sent over than it passes.
type MeasuredRate struct {
	Wanted, Seen float64
	Low, High    float64 // what Seen may be for the jitter of the delay
	Time         time.Duration
}

// Unreached is a rate that cannot be had here, and the most that can, in bit/s of Ethernet frames.
type Unreached struct {
	Wanted, Most float64
	Sent         bool // Most is what a sender made; else what was seen to pass, or the bound of what a shaper paces
}

// String is "no more than 2.5Gbit/s is sent here".
func (u Unreached) String() string {
	if u.Sent {
		return fmt.Sprintf("this machine sent no more than %s", bitRate(u.Most))
	}
	return fmt.Sprintf("no more than %s passes a link here", bitRate(u.Most))
}

// OutOfTolerance is one thing that a direction of a link does otherwise than it was asked to.
type OutOfTolerance struct {
	Link, From, To       string
	At                   topology.Position // of the link, or of its rate
	What                 string            // "rate", "median delay", …
	Wanted, Seen, Within string            // with units; Within: the interval that the truth is in, "" if Seen is exact
	Tolerance            string            // "" if there is none for it
	Shaper               string
	Lateness             wire.Lateness // of a wire
}

// ToleranceError says which links are out of tolerance. Of the lab nothing is left.
type ToleranceError struct {
	Off []OutOfTolerance
}

// Error has a line for each.
func (e *ToleranceError) Error() string {
	lines := make([]string, len(e.Off))
	for i, o := range e.Off {
		text := fmt.Sprintf("link %s, from %s to %s: %s: wanted %s, measured %s", o.Link, o.From, o.To, o.What, o.Wanted, o.Seen)
		if at := o.At.String(); at != "" {
			text = at + ": " + text
		}
		if o.Within != "" {
			text += " (" + o.Within + ")"
		}
		if o.Tolerance != "" {
			text += ", tolerance " + o.Tolerance
		}
		if late := o.Lateness; late.Max >= tooLate {
			text += fmt.Sprintf("; this machine is too busy: packets left the wire up to %v late, one in a hundred by more than %v", late.Max, late.P99)
		}
		lines[i] = text
	}
	return strings.Join(lines, "\n") + "\na wider tolerance, another --shaper or a machine with less to do would pass; without verify: true nothing is measured"
}

// ErrUnshaped says that links are to be verified which are to be made without their shapes.
var ErrUnshaped = errors.New("contradicts --shaper=none")

// tooLate is more than a machine is late that has a processor left for the wire.
const tooLate = 5 * time.Millisecond

// tries is how often a link is measured that is out of tolerance: a busy machine makes packets late now and then, and
// chance fools now and then, and neither does so each time.
const tries = 3

// verify measures each shaped link. One that is out of tolerance makes it a *ToleranceError.
func (l *Lab) verify(ctx context.Context) error {
	began := time.Now()
	measured := make([][]Measured, len(l.Plan.Links))
	off := make([][]OutOfTolerance, len(l.Plan.Links))
	g, ctx := errgroup.WithContext(ctx)
	// Sending and receiving takes a processor each.
	g.SetLimit(max(1, runtime.NumCPU()/2))
	for i, p := range l.Plan.Links {
		if p.Needs(p.Shape) == nil {
			continue
		}
		g.Go(func() (err error) {
			measured[i], off[i], err = l.verifyLink(ctx, p)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.Verified, l.VerifyTime = slices.Concat(measured...), time.Since(began)
	for _, m := range l.Verified {
		for _, u := range m.Unmeasured {
			l.warn(fmt.Sprintf("link %s, from %s: not verified: %s", m.Link, m.From, u))
		}
	}
	if all := slices.Concat(off...); len(all) > 0 {
		return &ToleranceError{all}
	}
	return nil
}

// verifyLink measures a link until it is within tolerance.
func (l *Lab) verifyLink(ctx context.Context, p topology.PlannedLink) ([]Measured, []OutOfTolerance, error) {
	return retried(l.Plan.Tolerance, func() ([]Measured, error) { return l.Measure(ctx, p, l.Plan.Tolerance, Effort{}) })
}

// retried measures until all is within tolerance, tries times at most.
func retried(t topology.Tolerance, measure func() ([]Measured, error)) (m []Measured, off []OutOfTolerance, err error) {
	for try := 1; ; try++ {
		if m, err = measure(); err != nil {
			return nil, nil, err
		}
		off = nil
		for i := range m {
			m[i].Tries = try
			off = append(off, m[i].judge(t)...)
		}
		if off == nil || try == tries {
			for i := range m {
				for _, f := range m[i].tails(t) {
					if f.excused != "" {
						m[i].Unmeasured = append(m[i].Unmeasured, f.excused)
					}
				}
			}
			return m, off, nil
		}
	}
}
