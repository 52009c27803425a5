// Package wifi models a cell of Wi-Fi in virtual time: an access point and its stations, who share one channel. What
// takes time is airtime: of contention, preambles, data, BlockAcks, and of what is sent again. It knows no clock, no socket and
// no goroutine; see package medium.
package wifi

import (
	"time"

	"pqlab/links/medium"
)

// Medium is a cell. Port 2·i is that of station i, 2·i+1 the access point's towards it; what enters at one comes out at the
// other. It is for one goroutine. New makes it.
type Medium struct {
	config   Config
	radio    Radio
	stations []*station
	flows    []*flow // by port that sends
	nodes    []*node // the access point, the stations, then other networks
	noises   []*noise

	now     time.Duration
	idle    time.Duration // since when, or from when, nobody sends
	sending bool          // until ends somebody does
	ends    time.Duration
	senders []*node // who send now; more than one: they collide
	jams    []jam   // what disturbs them
	busy    time.Duration
	turn    int // whose it is of the access point's flows

	out     fifo    // what leaves at once, and what was lost
	delayed []*flow // have, or had, a line of their own
}

var _ medium.Medium = (*Medium)(nil)

// Enter implements medium.Medium.
func (m *Medium) Enter(now time.Duration, port int, p medium.Packet) {
	m.advance(now, false)
	f := m.flows[port]
	p.From, p.Number, p.Entered = port, f.count.Packets, m.now
	f.count.Packets++
	f.count.Bytes += uint64(p.Size)
	if !f.push(p) {
		m.lose(f, p, medium.LostQueue)
		return
	}
	m.wake(f.node, m.now)
}

// Whole implements medium.Medium: each frame is an MPDU, with a fate of its own.
func (m *Medium) Whole(int) int { return 0 }

// Next implements medium.Medium.
func (m *Medium) Next() (at time.Duration, ok bool) {
	// What others do to the channel is made up for when one of ours has something to send.
	for _, n := range m.nodes[:1+len(m.stations)] {
		if n.active {
			at, _, ok = m.event()
			break
		}
	}
	for i := -1; i < len(m.delayed); i++ {
		if q := m.line(i); q.len() > 0 && (!ok || q.head().Due < at) {
			at, ok = q.head().Due, true
		}
	}
	return at, ok
}

// Leave implements medium.Medium.
func (m *Medium) Leave(now time.Duration, out func(port int, p medium.Packet)) {
	m.advance(now, true)
	for {
		var next *fifo
		for i := -1; i < len(m.delayed); i++ {
			if q := m.line(i); q.len() > 0 && q.head().Due <= now && (next == nil || q.head().Due < next.head().Due) {
				next = q
			}
		}
		if next == nil {
			return
		}
		p := next.pop()
		port := p.From ^ 1
		if p.Fate.Lost() {
			port = medium.Nowhere
		}
		out(port, p)
	}
}

// Counters tell what became of what entered at a port.
func (m *Medium) Counters(port int) medium.Counters { return m.flows[port].count }

// line is the i-th of the queues that packets leave by.
func (m *Medium) line(i int) *fifo {
	if i < 0 {
		return &m.out
	}
	return &m.delayed[i].line
}

// deliver lets a packet leave after its station's delay, and not before those before it.
func (m *Medium) deliver(f *flow, p medium.Packet) {
	p.Fate, p.Due = medium.Delivered, m.now+f.delay
	f.count.Count(p)
	f.delivered += uint64(p.Size)
	if f.delay == 0 && f.line.len() == 0 {
		m.out.push(p)
		return
	}
	p.Due = max(p.Due, f.due)
	f.due = p.Due
	f.line.push(p)
}

func (m *Medium) lose(f *flow, p medium.Packet, fate medium.Fate) {
	p.Fate, p.Due = fate, m.now
	f.count.Count(p)
	m.out.push(p)
}

// What happens on a channel.
type event int

const (
	end     event = iota // of what is being sent
	access               // of who has waited long enough
	arrive               // another network has something to send
	jamming              // an interferer begins
)

// event is what happens next; ok is false if nothing will.
func (m *Medium) event() (at time.Duration, what event, ok bool) {
	if m.sending {
		return m.ends, end, true
	}
	for _, n := range m.nodes {
		t, w := n.arrival, arrive
		switch {
		case n.active:
			t, w = m.starts(n), access
		case n.burst == 0:
			continue
		}
		if !ok || t < at {
			at, what, ok = t, w, true
		}
	}
	for _, n := range m.noises {
		if n.audible && (!ok || n.from < at) {
			at, what, ok = n.from, jamming, true
		}
	}
	return at, what, ok
}

// advance lets happen what happens before now or, if including, until now.
func (m *Medium) advance(now time.Duration, including bool) {
	for {
		at, what, ok := m.event()
		if !ok || at > now || at == now && !including {
			break
		}
		m.now = max(m.now, at)
		switch what {
		case end:
			m.finish()
		case access:
			m.send(at)
		case arrive:
			m.arrivals(at)
		case jamming:
			m.pass(at)
			m.quiet(at)
		}
	}
	m.now = max(m.now, now)
}

// fifo is a queue in a ring.
type fifo struct {
	ring       []medium.Packet // of a power of two
	first, end uint64
}

func (q *fifo) len() int { return int(q.end - q.first) }

func (q *fifo) at(i uint64) *medium.Packet { return &q.ring[i&uint64(len(q.ring)-1)] }

func (q *fifo) head() *medium.Packet { return q.at(q.first) }

func (q *fifo) push(p medium.Packet) {
	if q.len() == len(q.ring) {
		ring := make([]medium.Packet, max(2*window, 2*len(q.ring)))
		for i := q.first; i < q.end; i++ {
			ring[i&uint64(len(ring)-1)] = *q.at(i)
		}
		q.ring = ring
	}
	*q.at(q.end) = p
	q.end++
}

func (q *fifo) pop() medium.Packet {
	p := *q.head()
	q.head().Data = nil
	q.first++
	return p
}
