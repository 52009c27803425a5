package wifi

import (
	"math/rand/v2"
	"time"
)

// node is who contends for the channel: an EDCAF of AC_BE (10.23.2).
type node struct {
	flows   []*flow // it sends; of the access point, one for each station; of another network none
	draws   rand.PCG
	cw      int
	retries int           // transmissions in a row that nobody answered
	backoff int           // slots that must pass yet, from when the channel is idle
	active  bool          // it has something to send
	since   time.Duration // when that began

	// Of another network.
	burst   time.Duration // how long it sends each time
	arrival time.Duration // when it will want to once more
	mean    float64       // nanoseconds between arrivals
	backlog uint64        // times that it wants to now

	transmission
}

func newNode(seed, number uint64) *node {
	n := &node{cw: cwMin}
	n.draws.Seed(seed, number)
	return n
}

// draw begins a new backoff (10.23.2.4).
func (n *node) draw() {
	n.backoff = int(n.draws.Uint64() % uint64(n.cw+1)) // cw+1 is a power of two
}

// wake tells that a node has something to send.
func (m *Medium) wake(n *node, now time.Duration) {
	if n.active {
		return
	}
	n.active, n.since = true, now
	// Who finds the channel busy draws a backoff, unless the last one still runs; who finds it idle need not (10.23.2.4).
	if n.backoff == 0 && (m.sending || now < m.idle) {
		n.draw()
	}
}

// starts is when a node sends if nobody does before: at a slot's boundary, which are counted from AIFS after the channel
// became idle (10.23.2.4).
func (m *Medium) starts(n *node) time.Duration {
	at := m.idle + aifs + time.Duration(n.backoff)*slot
	if n.since > at {
		at += (n.since - at + slot - 1) / slot * slot
	}
	return at
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
	for _, n := range m.nodes {
		if n.active && m.starts(n) <= at {
			m.senders = append(m.senders, n)
		}
	}
	m.pass(at)
	m.sending, m.ends = true, at
	for _, n := range m.senders {
		m.begin(n, at)
		m.ends = max(m.ends, n.to)
	}
}

// finish ends what is being sent, delivers, and lets the senders learn about it.
func (m *Medium) finish() {
	m.sending = false
	began, ended := m.senders[0].from, m.ends
	for _, n := range m.senders {
		ended = max(ended, n.answered())
	}
	m.busy += ended - began
	m.idle = ended
	m.disturb(began, ended)
	collided := len(m.senders) > 1
	for _, n := range m.senders {
		done := !collided
		if n.burst > 0 {
			m.leave(n, collided)
		} else {
			done = m.settle(n, collided)
		}
		n.contend(done)
	}
}

// contend draws the next backoff: all do after they have sent, whether they have more or not (10.23.2.2).
func (n *node) contend(done bool) {
	switch {
	case done:
		n.cw, n.retries = cwMin, 0
	case n.retries+1 < shortRetryLimit:
		n.cw, n.retries = min(2*n.cw+1, cwMax), n.retries+1
	default:
		n.cw, n.retries = cwMin, 0
	}
	n.draw()
}
