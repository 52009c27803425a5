package wifi

import (
	"cmp"
	"slices"
	"time"
)

// Rate control as Linux' minstrel_ht does it (net/mac80211/rc80211_minstrel_ht.c), simplified: for each rate a moving average of the
// share of MPDUs that were acknowledged; of these and the time that a packet takes follows the best rate; now and then another
// rate is tried.
//
// docs/wifi.md has all of these, with the functions of that file that they are of.
const (
	updateInterval = 50 * time.Millisecond // of the averages: HZ/20
	sampleInterval = 20 * time.Millisecond // at least, between trials: HZ/50
	samplePackets  = 4                     // in a trial at most: our choice, so that one that fails costs little
	ewmaOld        = 0.75                  // weight of what was known: EWMA_LEVEL 96 of 128
	referenceSize  = 1200                  // bytes of the packets that rates are compared with: AVG_PKT_SIZE
	hopeless       = 0.1                   // share below which a rate counts as of no use: minstrel_ht_get_tp_avg
	capped         = 0.9                   // shares above it are no better: the same, for the sake of collisions
	certain        = 0.75                  // share above which a rate counts as sturdy: minstrel_ht_set_best_prob_rate
	expectedLength = 16                    // MPDUs of a PPDU, before any was sent: minstrel_ht_avg_ampdu_len of fast rates
	lengthWeight   = 8                     // a PPDU's part in that average is 1/8 from then on: our choice
	attempts       = 2                     // with a rate before another takes its place: minstrel_calc_retransmit's least
)

// minstrel chooses the rate of one flow.
type minstrel struct {
	fixed                bool
	best, second, robust int   // rates
	byBits               []int // rates, slowest first
	stats                []rateStat
	updates, samples     time.Duration // when the next is due
	trials               uint64
	failures             int     // transmissions in a row that nobody answered
	length               float64 // average MPDUs of a PPDU
}

type rateStat struct {
	sent, acked int     // MPDUs since the last update
	share       float64 // average that was acknowledged
	known       bool
}

// fix chooses one rate for ever.
func (c *minstrel) fix(rate int) {
	*c = minstrel{fixed: true, best: rate, second: rate, robust: rate, stats: c.stats, byBits: c.byBits[:0]}
}

// expect begins with what the rates give at the present SNR: as rate control stands after some traffic.
func (c *minstrel) expect(f *flow) {
	*c = minstrel{stats: c.stats, byBits: c.byBits[:0], trials: c.trials}
	c.length = float64(min(f.station.aggregate, expectedLength))
	for i := range f.rates {
		c.byBits = append(c.byBits, i)
		c.stats[i] = rateStat{share: 1 - f.lossOf(i, referenceSize)}
	}
	slices.SortStableFunc(c.byBits, func(a, b int) int { return cmp.Compare(f.rates[a].bitRate(), f.rates[b].bitRate()) })
	c.choices(f)
}

// choose is the rate of the next PPDU, and whether that is a trial.
func (c *minstrel) choose(f *flow, now time.Duration) (rate int, sample bool) {
	switch {
	case c.fixed:
		return c.best, false
	case c.failures >= 2*attempts:
		return c.robust, false
	case c.failures >= attempts:
		return c.second, false
	case now < c.samples || len(f.rates) == 1:
		return c.best, false
	}
	c.samples = now + sampleInterval
	c.trials++
	// By turns the next faster rate, any that could be better, and any at all.
	var among []int
	at := slices.Index(c.byBits, c.best)
	switch c.trials % 4 {
	case 0, 2:
		among = c.byBits[min(at+1, len(c.byBits)):min(at+2, len(c.byBits))]
	case 1:
		among = c.byBits[min(at+1, len(c.byBits)):]
	case 3:
		among = c.byBits
	}
	if len(among) == 0 {
		return c.best, false
	}
	rate = among[int(f.chance(c.trials, forSample)*float64(len(among)))]
	return rate, rate != c.best
}

// learn notes what a PPDU's BlockAck told, or that there was none.
func (c *minstrel) learn(f *flow, t *transmission, acked int) {
	if c.fixed || len(t.seqs) == 0 {
		return
	}
	s := &c.stats[t.rate]
	s.sent += len(t.seqs)
	s.acked += acked
	if acked > 0 || t.sample {
		c.failures = 0
	} else {
		c.failures++
	}
	if !t.sample {
		c.length += (float64(len(t.seqs)) - c.length) / lengthWeight
	}
	if t.to >= c.updates {
		c.updates = t.to + updateInterval
		for i := range c.stats {
			s := &c.stats[i]
			if s.sent == 0 {
				continue
			}
			now := float64(s.acked) / float64(s.sent)
			if s.known {
				now = ewmaOld*s.share + (1-ewmaOld)*now
			}
			*s = rateStat{share: now, known: true}
		}
		c.choices(f)
	}
}

// choices finds the rates with the most throughput, and the one that is most likely to be received.
func (c *minstrel) choices(f *flow) {
	best, second, robust := -1.0, -1.0, -1.0
	for i := range f.rates {
		share := c.stats[i].share
		t := c.throughput(&f.rates[i], share)
		switch {
		case t > best:
			second, c.second = best, c.best
			best, c.best = t, i
		case t > second:
			second, c.second = t, i
		}
		if share > certain {
			share = 1 + t // among those the fastest
		}
		if share > robust {
			robust, c.robust = share, i
		}
	}
	if best == 0 { // nothing gets through: what is simplest to receive
		c.best, c.second, c.robust = 0, 0, 0
	}
}

// throughput of packets per second, without those of others.
func (c *minstrel) throughput(r *rate, share float64) float64 {
	if share < hopeless {
		return 0
	}
	once := aifs + cwMin*slot/2 + r.preamble + sifs + r.ack
	return min(share, capped) / (once.Seconds()/c.length + referenceSize*8/r.bitRate())
}
