package medium

import (
	"time"

	"pqlab/topology"
)

// Link is the Medium between two ends, 0 and 1, each direction by itself: what one end sends the other gets, or nobody.
type Link struct {
	directions [2]*direction // by sender
}

// NewLink makes a link of these shapes, of what each end sends. The MTU is in bytes of IP packet. The seeds are those of
// the directions' random choices: the same seed and the same packets have the same fates, whenever they enter.
func NewLink(shapes [2]topology.Shape, mtu int, seeds [2]uint64) *Link {
	l := &Link{}
	for side := range l.directions {
		l.directions[side] = newDirection(shapes[side], mtu, seeds[side])
	}
	return l
}

// Set changes the shape of what port sends. What is on its way keeps its delay, and unless the new shape is unordered
// nothing overtakes it; a new rate holds for the part of a packet that has still to be sent. Random choices and traces
// begin anew.
func (l *Link) Set(now time.Duration, port int, s topology.Shape) {
	l.directions[port].advance(now)
	l.directions[port].set(now, s)
}

// Counters tell what became of what port sent. Packets that are still on their way have no fate yet.
func (l *Link) Counters(port int) Counters { return l.directions[port].count }

// Enter implements Medium.
func (l *Link) Enter(now time.Duration, port int, p Packet) { l.directions[port].enter(now, port, p) }

// Whole implements Medium.
func (l *Link) Whole(port int) int { return l.directions[port].whole() }

// Next implements Medium.
func (l *Link) Next() (at time.Duration, ok bool) {
	for _, d := range l.directions {
		if t, is := d.next(); is && (!ok || t < at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// Leave implements Medium.
func (l *Link) Leave(now time.Duration, out func(port int, p Packet)) {
	a, b := l.directions[0], l.directions[1]
	a.advance(now)
	b.advance(now)
	for i, j := 0, 0; i < len(a.out) || j < len(b.out); {
		var p *Packet
		if j == len(b.out) || i < len(a.out) && a.out[i].Due <= b.out[j].Due {
			p = a.out[i]
			i++
		} else {
			p = b.out[j]
			j++
		}
		to := 1 - p.From
		if p.Fate.Lost() {
			to = Nowhere
		}
		out(to, *p)
	}
	for _, d := range l.directions {
		d.recycle()
	}
}
