package xfrm

import (
	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// What another keying daemon, which installs its SAs itself, needs to be held to the contract of package ipsec.

// Soft gives the kernel's limits at which an SA has to be replaced so that a limit is never reached before it is told, as
// long as no inner packet is larger than largest bytes. Limits of time are left out.
func Soft(l ipsec.Limits, largest int) xfrmnl.Limits {
	l.Time = 0
	return tightest(softBounds(l, largest))
}

// Hard gives the kernel's limits beyond which an SA carries nothing, so that a limit is never passed. ErrLimit: it is less
// than what one packet may take.
func Hard(l ipsec.Limits, largest int) (xfrmnl.Limits, error) {
	l.Time = 0
	bounds, err := hardBounds(l, largest)
	return tightest(bounds), err
}

// Reached are the soft limits that an SA has reached, by what the kernel says of it; none: it was time.
func Reached(l ipsec.Limits, largest int, s *xfrmnl.State) []ipsec.Trigger {
	l.Time = 0
	return reached(softBounds(l, largest), s)
}

// Counted are the counters of an SA that has carried nothing before its first packet.
func Counted(s xfrmnl.State, outbound bool) ipsec.Counters {
	of := sa{outbound: outbound, last: s}
	return of.counters()
}

// Drops gives what was refused by the contract's reasons.
func (s Statistics) Drops() ipsec.Drops { return s.drops() }
