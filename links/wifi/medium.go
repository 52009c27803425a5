// Package wifi models a cell of Wi-Fi in virtual time: an access point and its stations, who share one channel. What
// takes time is airtime: of contention, preambles, data, BlockAcks, and of what is sent again. It knows no clock, no socket and
// no goroutine; see package medium.
package wifi

import (
	"math/rand/v2"
	"time"

	"pqlab/links/medium"
)

// Medium is a cell. Port 2·i is that of station i, 2·i+1 the access point's towards it. It is for one goroutine.
type Medium struct {
	radio    Radio
	stations []*station
	flows    []*flow // by port that sends
	nodes    []*node // the access point, the stations, then other networks

	now     time.Duration
	idle    time.Duration // since when, or from when, nobody sends
	sending bool          // until ends somebody does
	ends    time.Duration
	senders []*node // who send now; more than one: they collide
	out     []outgoing
	taken   int // of out
	busy    time.Duration
	turn    int // the access point's, of stations
}

// outgoing is a packet that leaves at its Due.
type outgoing struct {
	port   int
	packet medium.Packet
}

// station is one of a cell.
type station struct {
	Station
	rates      []rate
	width      int
	aggregate  int
	window     uint64
	queue      int
	queueBytes int64
	tries      int
	errors     float64 // share of MPDUs lost whatever the SNR; negative: what the SNR gives
	up, down   *flow
	metres     float64
	walls      int
}

// node is who contends for the channel (10.23.2: one EDCAF each, of AC_BE).
type node struct {
	flows   []*flow // it sends; more than one at the access point
	draws   rand.PCG
	cw      int
	retries int
	backoff int           // slots that must pass yet, from when the channel is idle
	since   time.Duration // when it began to have something to send
	active  bool          // it has

	transmission
}

// transmission is what a node sends.
type transmission struct {
	flow     *flow
	rate     int
	sample   bool
	request  bool     // a BlockAckReq
	seqs     []uint64 // of its packets
	sizes    int      // bytes of the subframes
	from, to time.Duration
}

// Enter takes a packet at a port.
func (m *Medium) Enter(now time.Duration, port int, p medium.Packet) {
	m.advance(now, false)
	f := m.flows[port]
	p.From, p.Number, p.Entered = port, f.counters.Packets, m.now
	f.counters.Packets++
	f.counters.Bytes += uint64(p.Size)
	if !f.push(p) {
		f.counters.LostQueue++
		m.give(medium.Nowhere, &p, medium.LostQueue, m.now)
		return
	}
	if n := f.node; !n.active {
		n.active = true
		n.since = m.now
		// Who finds the channel busy draws a backoff (10.23.2.2); who finds it idle has counted down already.
		if n.backoff == 0 && (m.sending || m.now < m.idle) {
			n.draw()
		}
	}
}

// Whole is 0: each frame is an MPDU.
func (m *Medium) Whole(int) int { return 0 }

// Next is when something happens on the channel.
func (m *Medium) Next() (time.Duration, bool) {
	if m.taken < len(m.out) {
		return m.out[m.taken].packet.Due, true
	}
	own := false
	for _, n := range m.nodes {
		own = own || n.active
	}
	if !own {
		return 0, false // what other networks do is made up for when one of ours has something
	}
	return m.event()
}

// Leave gives out what has arrived or was lost until now.
func (m *Medium) Leave(now time.Duration, out func(port int, p medium.Packet)) {
	m.advance(now, true)
	for ; m.taken < len(m.out); m.taken++ {
		o := &m.out[m.taken]
		out(o.port, o.packet)
		o.packet.Data = nil
	}
	m.out, m.taken = m.out[:0], 0
}

func (m *Medium) give(port int, p *medium.Packet, fate medium.Fate, due time.Duration) {
	m.out = append(m.out, outgoing{port, *p})
	o := &m.out[len(m.out)-1].packet
	o.Fate, o.Due = fate, due
}

// event is when the state of the channel changes next.
func (m *Medium) event() (time.Duration, bool) {
	if m.sending {
		return m.ends, true
	}
	return m.access()
}

// advance lets happen what happens before now, or, if including, until now.
func (m *Medium) advance(now time.Duration, including bool) {
	for {
		at, ok := m.event()
		if !ok || at > now || at == now && !including {
			break
		}
		m.now = max(m.now, at)
		if m.sending {
			m.finish(at)
		} else {
			m.send(at)
		}
	}
	m.now = max(m.now, now)
}

// starts is when a node sends if nobody does before: at a slot's boundary (10.23.2.4).
func (m *Medium) starts(n *node) time.Duration {
	base := m.idle + aifs
	at := base + time.Duration(n.backoff)*slot
	if n.since > at {
		at += (n.since - at + slot - 1) / slot * slot
	}
	return at
}

// access is when the channel is taken next.
func (m *Medium) access() (first time.Duration, ok bool) {
	for _, n := range m.nodes {
		if n.active {
			if at := m.starts(n); !ok || at < first {
				first, ok = at, true
			}
		}
	}
	return first, ok
}

// draw begins a new backoff.
func (n *node) draw() {
	n.backoff = int(n.draws.Uint64() % uint64(n.cw+1)) // cw+1 is a power of two
}

// pass counts down the slots that were idle until then.
func (m *Medium) pass(until time.Duration) {
	if slots := int((until - m.idle - aifs) / slot); slots > 0 {
		for _, n := range m.nodes {
			n.backoff = max(n.backoff-slots, 0)
		}
	}
}

// send begins a transmission of all who have waited long enough.
func (m *Medium) send(at time.Duration) {
	m.senders = m.senders[:0]
	m.ends = at
	for _, n := range m.nodes {
		if n.active && m.starts(n) <= at {
			m.senders = append(m.senders, n)
		}
	}
	m.pass(at)
	for _, n := range m.senders {
		m.begin(n, at)
		m.ends = max(m.ends, n.to)
	}
	m.sending = true
}

func (m *Medium) begin(n *node, at time.Duration) {
	t := &n.transmission
	t.from = at
	t.flow = n.flows[0]
	if len(n.flows) > 1 {
		t.flow = m.turnOf(n)
	}
	f := t.flow
	m.locate(f.station, at)
	if t.request = f.gaveUp; t.request {
		t.rate, t.sample = f.control.robust, false
		t.seqs, t.sizes = t.seqs[:0], 0
		t.to = at + f.rates[t.rate].request
		return
	}
	f.aggregate(t)
	t.to = at + f.rates[t.rate].duration(t.sizes)
}

// turnOf is the station that the access point sends to next.
func (m *Medium) turnOf(n *node) *flow {
	for {
		f := n.flows[m.turn]
		if f.waiting() {
			m.turn = (m.turn + 1) % len(n.flows)
			return f
		}
		m.turn = (m.turn + 1) % len(n.flows)
	}
}

// finish ends the transmissions, delivers, and lets the senders learn about it.
func (m *Medium) finish(at time.Duration) {
	m.sending = false
	m.idle = at
	for _, n := range m.senders {
		m.settle(n, len(m.senders) > 1)
	}
}

func (m *Medium) settle(n *node, collided bool) {
	t := &n.transmission
	f := t.flow
	r := &f.rates[t.rate]
	f.exchanges++
	deliver := func(p *medium.Packet) {
		f.counters.Delivered++
		f.counters.DeliveredBytes += uint64(p.Size)
		m.give(f.port, p, medium.Delivered, m.now)
	}
	lost, acked := 0, false
	if t.request {
		acked = !collided && f.chance(f.exchanges, forRequest) >= f.controlLoss(r.ackRate, blockAckReq)
		if f.barTries++; acked || int(f.barTries) >= f.station.tries {
			// Told or not, the receiver does not wait for ever: it passes on what it holds after some time (Linux: 100 ms).
			f.gaveUp, f.barTries = false, 0
			f.release(f.start, deliver)
		}
	} else {
		heard := false // the receiver got something, and so answers
		for _, seq := range t.seqs {
			p := f.at(seq)
			if collided || f.chance(p.packet.Number, uint64(p.tries)) < f.lossOf(t.rate, int(p.bytes)) {
				lost++
				continue
			}
			p.received, heard = true, true
		}
		f.release(f.next, deliver)
		acked = heard && f.chance(f.exchanges, forAck) >= f.controlLoss(r.ackRate, blockAck)
		f.settle(t, acked, func(p *medium.Packet) {
			f.counters.LostRetries++
			m.give(medium.Nowhere, p, medium.LostRetries, m.now)
			p.Data = nil
		})
	}
	// Without an answer all wait as long as it would have taken: the sender for its time-out, the others for EIFS, which holds an
	// estimate of it (10.3.2.3.7).
	end := t.to + sifs + r.ack
	m.idle = max(m.idle, end)
	if acked {
		n.cw, n.retries = cwMin, 0
	} else {
		n.cw, n.retries = min(2*n.cw+1, cwMax), n.retries+1
		if n.retries >= shortRetryLimit {
			n.cw, n.retries = cwMin, 0
		}
	}
	n.draw()
	f.account(t, lost, collided)
	answered := 0
	if acked {
		answered = len(t.seqs) - lost
	}
	f.control.learn(f, t, answered)
	n.active = false
	for _, g := range n.flows {
		n.active = n.active || g.waiting()
	}
	n.since = t.from
}
