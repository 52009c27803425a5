package wifi

import (
	"time"

	"pqlab/links/medium"
)

// transmission is what a node sends: a PPDU that is an A-MPDU, or a BlockAckReq.
type transmission struct {
	flow     *flow // nil: another network's
	rate     int   // of the flow's
	sample   bool
	request  bool     // a BlockAckReq
	seqs     []uint64 // of its packets
	bytes    int      // of the A-MPDU
	from, to time.Duration
}

// answered is when the channel is free again: after the BlockAck. Without one all wait as long: the sender for its time-out,
// the others for EIFS, whose EstimatedAckTxTime after a PPDU of HT or VHT (68, 44 or 32 µs by its modulation) is that of this very
// BlockAck (10.3.2.3.7).
func (t *transmission) answered() time.Duration {
	if t.flow == nil {
		return t.to
	}
	return t.to + sifs + t.flow.rates[t.rate].ack
}

// begin decides what a node sends.
func (m *Medium) begin(n *node, at time.Duration) {
	t := &n.transmission
	t.from = at
	if n.burst > 0 {
		t.to = at + n.burst
		return
	}
	t.flow = n.flows[0]
	if len(n.flows) > 1 {
		t.flow = m.choose(n)
	}
	f := t.flow
	if len(f.station.Path) > 0 {
		m.locate(f.station, at)
	}
	if t.request = f.gaveUp; t.request {
		t.rate, t.sample, t.seqs, t.bytes = f.control.robust, false, t.seqs[:0], 0
		t.to = at + f.rates[t.rate].request
	} else {
		f.aggregate(t)
		t.to = at + f.rates[t.rate].duration(t.bytes)
	}
	f.deficit -= t.answered() - t.from
}

// quantum is the airtime that a station gets by turns: Linux' default weight (IEEE80211_DEFAULT_AIRTIME_WEIGHT, 256 µs).
const quantum = 256 * µs

// choose is the flow that the access point serves: by deficit round robin over airtime, as Linux does (Høiland-Jørgensen et al., "Ending
// the anomaly", USENIX ATC 2017), or simply by turns.
func (m *Medium) choose(n *node) *flow {
	for {
		f := n.flows[m.turn]
		if f.waiting() {
			if m.config.RoundRobin {
				m.turn = (m.turn + 1) % len(n.flows)
				return f
			}
			if f.deficit > 0 {
				return f
			}
			f.deficit += quantum
		}
		m.turn = (m.turn + 1) % len(n.flows)
	}
}

// settle ends a transmission, and says whether it was answered.
func (m *Medium) settle(n *node, collided bool) (acked bool) {
	t := &n.transmission
	f := t.flow
	r := &f.rates[t.rate]
	f.exchanges++
	failed := 0
	if t.request {
		acked = !collided && f.chance(f.exchanges, forRequest) >= m.controlLoss(f, r.ackRate, blockAckReq, t.from, t.to)
		// Told or not, the receiver does not wait for ever: it passes on what it holds after a time (100 ms: Linux'
		// HT_RX_REORDER_BUF_TIMEOUT).
		if f.requests++; acked || int(f.requests) >= f.station.tries {
			f.gaveUp, f.requests = false, 0
			m.release(f, f.start)
		}
	} else {
		failed = m.receive(f, t, collided)
		m.release(f, f.next)
		acked = failed < len(t.seqs) &&
			f.chance(f.exchanges, forAck) >= m.controlLoss(f, r.ackRate, blockAck, t.to+sifs, t.answered())
		m.conclude(f, t, acked)
	}
	f.note(t, failed, collided)
	known := 0
	if acked {
		known = len(t.seqs) - failed
	}
	f.control.learn(f, t, known)
	n.active = false
	for _, g := range n.flows {
		n.active = n.active || g.waiting()
	}
	if m.config.Observe != nil {
		m.config.Observe(Exchange{
			From: t.from, To: t.answered(), Port: f.port, Streams: r.streams, MCS: r.mcs,
			MPDUs: len(t.seqs), Failed: failed, Collided: collided, Answered: acked,
		})
	}
	return acked
}

// receive decides which MPDUs of a PPDU arrive, and counts those that do not.
func (m *Medium) receive(f *flow, t *transmission, collided bool) (failed int) {
	r := &f.rates[t.rate]
	start := t.from + r.preamble
	disturbed := len(m.jams) > 0
	if !collided && disturbed {
		// Whoever misses the preamble's SIGNAL field (BPSK, 24 bits) misses all.
		collided = f.chance(f.exchanges, forPreamble) < m.controlLoss(f, modulationOf(0), 3, t.from, start)
	}
	if collided {
		return len(t.seqs)
	}
	perByte := float64(t.to-start) / float64(t.bytes)
	sent := 0
	for _, seq := range t.seqs {
		p := f.at(seq)
		loss := f.lossOf(t.rate, int(p.bytes))
		next := sent + subframeSize(int(p.bytes))
		if disturbed {
			from, to := start+time.Duration(float64(sent)*perByte), start+time.Duration(float64(next)*perByte)
			if snr := m.disturbedSNR(f, from, to); snr < f.snr {
				loss = max(loss, lossAt(r.modulation, streamSNR(snr, r.streams), int(p.bytes)))
			}
		}
		sent = next
		if f.chance(p.packet.Number, uint64(p.tries)) < loss {
			failed++
			continue
		}
		p.received = true
	}
	return failed
}

// controlLoss is the share of control frames that are lost, which all send with one stream.
func (m *Medium) controlLoss(f *flow, with modulation, bytes int, from, to time.Duration) float64 {
	snr := m.disturbedSNR(f, from, to)
	if f.station.errors >= 0 && snr == f.snr {
		return 0
	}
	return lossAt(with, snr, bytes)
}

// release passes on what the receiver holds in order, over gaps only before upTo: nothing will fill them.
func (m *Medium) release(f *flow, upTo uint64) {
	for f.next < f.end {
		p := f.at(f.next)
		if p.received {
			m.deliver(f, p.packet)
		} else if f.next >= upTo {
			return
		}
		p.packet.Data = nil
		f.next++
	}
}

// conclude ends an attempt for the sender, who learned by a BlockAck what arrived or, without one, that nothing did. What it
// gives up is lost, unless the receiver has it after all.
func (m *Medium) conclude(f *flow, t *transmission, acked bool) {
	for _, seq := range t.seqs {
		p := f.at(seq)
		p.tries++
		switch {
		case acked && p.received:
		case int(p.tries) < f.station.tries:
			f.retries++
			continue
		case !p.received:
			m.lose(f, p.packet, medium.LostRetries)
			p.packet.Data = nil
		}
		p.done = true
		f.bytes -= int64(p.packet.Size)
	}
	for f.start < f.end && f.at(f.start).done {
		f.start++
	}
	f.gaveUp = f.next < f.start
}

// Exchange is what was sent on the channel: a PPDU and the BlockAck after it, or what an interferer or another network did.
type Exchange struct {
	From, To     time.Duration // until the channel is free again; of several that collide the others may be longer
	Port         int           // by which its packets entered; medium.Nowhere: none of ours
	Streams, MCS int
	MPDUs        int // 0: a BlockAckReq
	Failed       int // MPDUs
	Collided     bool
	Answered     bool
}
