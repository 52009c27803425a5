package medium

import (
	"math/rand/v2"
	"slices"
	"time"

	"pqlab/topology"
)

// chance decides the fates of one direction's packets. What becomes of packet n depends on the seed and on n alone: each
// packet takes the same number of random words, whatever becomes of it.
type chance struct {
	words  *rand.PCG
	random bool
	shape  topology.Shape
	chain  topology.GilbertElliott
	bad    bool            // the chain's state
	varies []time.Duration // what is added to the delay, with equal probability each; nil: nothing
	least  time.Duration   // delay: the part that all packets have; none where some skip it, which they do before the rate
	most   time.Duration   // delay
	losses []int           // loss trace: so many pass, so many are lost …
	run    int             // in losses
	passed int             // packets of that run
}

// draw is what befalls one frame.
type draw struct {
	lost      Fate
	delay     time.Duration
	reordered bool
	flip      int // as Packet.Flip
}

func newChance(s topology.Shape, seed uint64) chance {
	c := chance{words: rand.NewPCG(seed, 0), random: s.Random(), shape: s, chain: s.Chain(), varies: variations(s), losses: s.LossTrace}
	c.least, c.most = s.Delay, s.Delay
	if len(c.varies) > 0 {
		c.least, c.most = max(0, s.Delay+slices.Min(c.varies)), max(0, s.Delay+slices.Max(c.varies))
	}
	if s.Reordering > 0 {
		c.least = 0
	}
	if start := unit(c.words.Uint64()); c.chain.P > 0 {
		c.bad = start < c.chain.P/(c.chain.P+c.chain.R) // as after many packets
	}
	return c
}

// unit is a random word as a number from 0 to less than 1.
func unit(word uint64) float64 { return float64(word>>11) / (1 << 53) }

// next gives the fate of the next packet, of that many bytes, and, if it is duplicated, that of its copy.
func (c *chance) next(size int) (first, second draw, twice bool) {
	first.delay = c.shape.Delay
	if c.random {
		var words [13]uint64
		for i := range words {
			words[i] = c.words.Uint64()
		}
		first = c.frame([6]uint64(words[:6]), size)
		if unit(words[12]) < c.shape.Duplication {
			if twice = !first.lost.Lost(); twice {
				second = c.frame([6]uint64(words[6:12]), size)
			}
			first.lost = Delivered // of a packet that is both lost and duplicated one comes
		}
	}
	if len(c.losses) > 0 {
		for c.passed == c.losses[c.run] {
			c.run, c.passed = (c.run+1)%len(c.losses), 0
		}
		if c.passed++; c.run%2 == 1 {
			first.lost = LostTrace
		}
	}
	return first, second, twice
}

func (c *chance) frame(words [6]uint64, size int) (d draw) {
	if c.chain.P > 0 {
		share := c.chain.Good
		if c.bad {
			share = c.chain.Bad
		}
		if unit(words[0]) < share {
			d.lost = LostChance
		}
		leave := c.chain.P
		if c.bad {
			leave = c.chain.R
		}
		if unit(words[1]) < leave {
			c.bad = !c.bad
		}
	}
	if unit(words[2]) < c.shape.Corruption && size > 0 {
		d.flip = 1 + int(words[3]%uint64(8*size))
	}
	if unit(words[4]) < c.shape.Reordering {
		d.reordered = true
		return d
	}
	d.delay = c.shape.Delay
	if len(c.varies) > 0 {
		d.delay = max(0, d.delay+c.varies[words[5]%uint64(len(c.varies))])
	}
	return d
}
