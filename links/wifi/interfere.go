package wifi

import (
	"math"
	"math/rand/v2"
	"time"

	"pqlab/links/medium"
)

// Interferer is who else sends in a cell's channel, for a time of Burst each time, with gaps of random length.
type Interferer struct {
	Duty   float64       // share of the time in which it sends, more than 0 and less than 1; if it defers: in which it would like to
	Power  float64       // dBm as received everywhere in the cell
	Burst  time.Duration // 0: 2 ms
	Defers bool          // another Wi-Fi network: it contends for the channel as stations do, and Power means nothing
}

const (
	// defaultBurst is our choice: longer than a full A-MPDU at 867 Mbit/s, shorter than the longest PPDU.
	defaultBurst = 2 * time.Millisecond
	// energyDetect is the power in dBm from which on stations take the channel for busy, whatever the signal (17.3.10.6, 21.3.18.5.2:
	// of the primary 20 MHz).
	energyDetect = -62
)

// noise is an interferer that defers to nobody.
type noise struct {
	power    float64 // dBm
	audible  bool    // stations defer to it
	burst    time.Duration
	mean     float64 // nanoseconds of a gap
	draws    rand.PCG
	from, to time.Duration // of the burst that is next, or holds
}

// jam is a burst during a transmission.
type jam struct {
	from, to time.Duration
	power    float64 // mW
}

func exponential(draws *rand.PCG, mean float64) time.Duration {
	u := float64(draws.Uint64()>>11) / (1 << 53)
	return time.Duration(-math.Log1p(-u) * mean)
}

func (n *noise) advance() {
	n.from = n.to + 1 + exponential(&n.draws, n.mean)
	n.to = n.from + n.burst
}

// interfere makes what others do begin now.
func (m *Medium) interfere(now time.Duration, all []Interferer) {
	m.nodes, m.noises = m.nodes[:1+len(m.stations):1+len(m.stations)], nil
	for i, in := range all {
		burst := in.Burst
		if burst == 0 {
			burst = defaultBurst
		}
		number := 1<<32 + uint64(i)
		if in.Defers {
			n := newNode(m.config.Seed, number)
			n.burst, n.mean = burst, float64(burst)/in.Duty
			n.arrival = now + exponential(&n.draws, n.mean)
			m.nodes = append(m.nodes, n)
			continue
		}
		n := &noise{power: in.Power, audible: in.Power >= energyDetect, burst: burst, mean: float64(burst) * (1 - in.Duty) / in.Duty}
		n.draws.Seed(m.config.Seed, number)
		n.to = now
		n.advance()
		m.noises = append(m.noises, n)
	}
}

// arrivals lets another network want to send.
func (m *Medium) arrivals(at time.Duration) {
	for _, n := range m.nodes[1+len(m.stations):] {
		if n.arrival <= at {
			n.backlog++
			n.arrival += 1 + exponential(&n.draws, n.mean)
			m.wake(n, at)
		}
	}
}

// leave ends what another network sent.
func (m *Medium) leave(n *node, collided bool) {
	if !collided {
		n.backlog--
	}
	for n.arrival <= m.now {
		n.backlog++
		n.arrival += 1 + exponential(&n.draws, n.mean)
	}
	n.active = n.backlog > 0
	m.observe(n.from, n.to, collided)
}

func (m *Medium) observe(from, to time.Duration, collided bool) {
	if m.config.Observe != nil {
		m.config.Observe(Exchange{From: from, To: to, Port: medium.Nowhere, Collided: collided})
	}
}

// disturb gathers the bursts that fall into a transmission, and forgets those that are over.
func (m *Medium) disturb(from, to time.Duration) {
	m.jams = m.jams[:0]
	for _, n := range m.noises {
		for n.to <= from {
			n.advance()
		}
		for n.from < to {
			m.jams = append(m.jams, jam{n.from, n.to, math.Pow(10, n.power/10)})
			if n.to > to {
				break
			}
			m.observe(n.from, n.to, true)
			n.advance()
		}
	}
}

// quiet puts off the end of a busy channel until no burst that stations hear holds any more.
func (m *Medium) quiet(at time.Duration) {
	m.idle = max(m.idle, at)
	for again := true; again; {
		again = false
		for _, n := range m.noises {
			for n.audible && n.from <= m.idle {
				if n.to > m.idle {
					m.busy += n.to - max(n.from, m.idle)
					m.idle, again = n.to, true
				}
				m.observe(n.from, n.to, false)
				n.advance()
			}
		}
	}
}

// disturbedSNR is that of a flow's receiver during a time, with the bursts that fall into it added to the noise.
func (m *Medium) disturbedSNR(f *flow, from, to time.Duration) float64 {
	power := 0.0
	for _, j := range m.jams {
		if j.from < to && from < j.to {
			power += j.power
		}
	}
	if power == 0 {
		return f.snr
	}
	return f.snr - 10*math.Log10(1+power/math.Pow(10, m.radio.floor(f.station.width)/10))
}
