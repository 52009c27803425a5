package medium

import (
	"math"
	"time"
)

// queue holds what waits for the rate, first in, first out. What is being sent has left the fifo and keeps its room.
type queue struct {
	fifo
	room  int    // bytes
	bytes int    // that it holds, with what is being sent
	codel *codel // nil: it drops only what has no room
}

// fits says whether there is room for so many bytes more.
func (q *queue) fits(size int) bool { return q.bytes+size <= q.room }

// put adds a packet at the end.
func (q *queue) put(now time.Duration, p *Packet) {
	p.Due = now
	q.bytes += p.Size
	q.push(p)
}

// take gives the next packet to be sent; nil if there is none. drop is given those that CoDel throws away before it.
func (q *queue) take(now time.Duration, drop func(*Packet)) *Packet {
	throw := func(p *Packet) {
		q.bytes -= p.Size
		drop(p)
	}
	if q.codel != nil {
		return q.codel.dequeue(now, q, throw)
	}
	if q.len() == 0 {
		return nil
	}
	return q.pop()
}

// codel is Controlled Delay, RFC 8289. Names and steps are those of its section 5.
type codel struct {
	target, interval time.Duration
	maxPacket        int // bytes; with no more than that in the queue nothing is dropped

	dropping         bool
	firstAbove       time.Duration // when the delay will have been above target for an interval; 0: it is below
	dropNext         time.Duration
	count, lastCount uint32
}

func (c *codel) dequeue(now time.Duration, q *queue, drop func(*Packet)) *Packet {
	p, drops := c.next(now, q)
	switch {
	case c.dropping && !drops:
		c.dropping = false
	case c.dropping:
		for c.dropping && now >= c.dropNext {
			drop(p)
			c.count++
			if p, drops = c.next(now, q); !drops {
				c.dropping = false
			} else {
				c.dropNext = c.control(c.dropNext)
			}
		}
	case drops:
		drop(p)
		p, _ = c.next(now, q)
		c.dropping = true
		// Soon after the last time, the rate of drops that was enough then is a good one to start with.
		if delta := c.count - c.lastCount; delta > 1 && now-c.dropNext < 16*c.interval {
			c.count = delta
		} else {
			c.count = 1
		}
		c.dropNext, c.lastCount = c.control(now), c.count
	}
	return p
}

// next takes a packet off the queue, and says whether it may be dropped: whether delays have been above target for long
// enough.
func (c *codel) next(now time.Duration, q *queue) (p *Packet, drops bool) {
	if q.len() == 0 {
		c.firstAbove = 0
		return nil, false
	}
	p = q.pop()
	switch {
	case now-p.Due < c.target || q.bytes-p.Size <= c.maxPacket:
		c.firstAbove = 0
	case c.firstAbove == 0:
		c.firstAbove = now + c.interval
	default:
		return p, now >= c.firstAbove
	}
	return p, false
}

// control is the control law: drops follow each other the faster the more there were.
func (c *codel) control(t time.Duration) time.Duration {
	return t + time.Duration(float64(c.interval)/math.Sqrt(float64(c.count)))
}
