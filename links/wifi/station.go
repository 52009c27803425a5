package wifi

import (
	"cmp"
	"math"
	"time"

	"pqlab/links/medium"
)

// station is one of a cell.
type station struct {
	Station
	width      int // MHz
	aggregate  int // MPDUs
	window     uint64
	queue      int
	queueBytes int64
	tries      int
	errors     float64 // share of MPDUs lost whatever the SNR; negative: what the SNR gives
	metres     float64
	walls      int
	up, down   *flow
}

// equip makes a station what is described, which has been checked.
func (m *Medium) equip(s *station, to Station) {
	fresh := s.up.rates == nil
	steered := !fresh && s.MCS == nil && to.MCS == nil // rate control goes on
	s.Station = to
	s.width = min(to.Width, m.config.Width)
	s.aggregate = cmp.Or(to.MaxAMPDU, to.AMPDU, window)
	s.window = window
	s.queue = cmp.Or(to.Queue, defaultQueue)
	s.queueBytes = cmp.Or(to.QueueBytes, math.MaxInt64)
	s.tries = cmp.Or(to.Tries, defaultTries)
	s.errors = -1
	if to.Errors != nil {
		s.errors = *to.Errors
	}
	s.up.delay, s.down.delay = to.UpDelay, to.DownDelay
	all := rates(to.Format, s.width, to.Streams, to.ShortGI)
	for _, f := range []*flow{s.up, s.down} {
		if fresh {
			f.rates = all
			f.success, f.known = make([]float64, len(all)), make([]bool, len(all))
			f.sent.rates = make([]RateCount, len(all))
			f.control.stats = make([]rateStat, len(all))
		}
		if f.delay > 0 && f.line.ring == nil {
			f.line.ring = make([]medium.Packet, 2*window)
			m.delayed = append(m.delayed, f)
		}
	}
	m.locate(s, m.now)
	if steered {
		return
	}
	for _, f := range []*flow{s.up, s.down} {
		if to.MCS != nil {
			f.control.fix(rateIndex(all, *to.MCS, to.Streams))
		} else {
			f.control.expect(f)
		}
	}
}

func rateIndex(all []rate, mcs, streams int) int {
	for i, r := range all {
		if r.mcs == mcs && r.streams == streams {
			return i
		}
	}
	return -1
}

// locate tells a station's flows where it is.
func (m *Medium) locate(s *station, now time.Duration) {
	s.metres, s.walls = s.position(now)
	s.up.tune(m.radio.snr(s.Power, s.metres, s.walls, s.width))
	s.down.tune(m.radio.snr(m.radio.Power, s.metres, s.walls, s.width))
}

func (s *station) position(now time.Duration) (metres float64, walls int) {
	if len(s.Path) == 0 {
		return s.Distance, s.Walls
	}
	last := s.Path[0]
	for _, w := range s.Path[1:] {
		if w.At > now {
			part := max(0, float64(now-last.At)/float64(w.At-last.At))
			return last.Distance + part*(w.Distance-last.Distance), last.Walls
		}
		last = w
	}
	return last.Distance, last.Walls
}
