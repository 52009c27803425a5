package wifi

import (
	"math"
	"math/rand/v2"
	"time"

	"pqlab/links/medium"
)

// mpdu is a packet from when it is queued until the sender has done with it and the receiver has passed it on.
type mpdu struct {
	packet   medium.Packet
	bytes    int32 // of the MPDU
	tries    uint8
	received bool // the receiver has it
	done     bool // the sender will not send it again: acknowledged or given up
}

// flow is one direction of a station: its queue, the sender's BlockAck window and the receiver's reorder buffer, which are
// parts of one ring. Sequence numbers count packets and never wrap.
type flow struct {
	station *station
	node    *node // that sends
	port    int   // that it enters by
	seed    uint64

	ring     []mpdu // of a power of two
	next     uint64 // the receiver's: first that it has not passed on
	start    uint64 // the sender's: first that is not done; next may be on either side
	end      uint64 // first that is not there yet
	bytes    int64  // of the frames from start to end that are not done
	gaveUp   bool   // the receiver must be told that start has moved: it waits for what will never come
	requests uint8  // that told it so, in a row

	exchanges uint64 // so far; each has chances of its own
	snr       float64
	rates     []rate
	success   []float64 // logSuccess of each rate at this SNR
	known     []bool    // which of them were computed
	control   minstrel
	deficit   time.Duration // of airtime, at the access point

	delay time.Duration // behind the air
	line  fifo          // of what is delayed
	due   time.Duration // of the last in it

	count     medium.Counters
	delivered uint64 // bytes
	retries   uint64
	sent      sent
}

func (f *flow) at(seq uint64) *mpdu { return &f.ring[seq&uint64(len(f.ring)-1)] }

// push queues a packet; false if there is no room.
func (f *flow) push(p medium.Packet) bool {
	s := f.station
	if f.end-f.start >= uint64(s.queue) || f.bytes+int64(p.Size) > s.queueBytes {
		return false
	}
	if used := f.end - min(f.next, f.start); used == uint64(len(f.ring)) {
		ring := make([]mpdu, max(2*window, 2*len(f.ring)))
		for seq := min(f.next, f.start); seq < f.end; seq++ {
			ring[seq&uint64(len(ring)-1)] = *f.at(seq)
		}
		f.ring = ring
	}
	*f.at(f.end) = mpdu{packet: p, bytes: int32(mpduSize(p.Size))}
	f.end++
	f.bytes += int64(p.Size)
	return true
}

// waiting says whether there is something to send.
func (f *flow) waiting() bool { return f.start < f.end || f.gaveUp }

// chance is a number from 0 to 1 that depends on nothing but the seed and what it is for, so that a packet's fate at its n-th
// attempt is the same however long it waited.
func (f *flow) chance(number, what uint64) float64 {
	var p rand.PCG
	p.Seed(f.seed+what, number)
	return float64(p.Uint64()>>11) / (1 << 53)
}

// What a chance is for; attempts of packets are below.
const (
	forAck = 1<<32 + iota
	forRequest
	forPreamble
	forSample
)

// lossOf is the share of MPDUs of so many bytes that are lost at one of the rates.
func (f *flow) lossOf(rate, bytes int) float64 {
	if f.station.errors >= 0 {
		return f.station.errors
	}
	if !f.known[rate] {
		r := &f.rates[rate]
		f.success[rate] = logSuccess(r.modulation, streamSNR(f.snr, r.streams))
		f.known[rate] = true
	}
	return -math.Expm1(float64(8*bytes) * f.success[rate])
}

// tune takes over a new SNR.
func (f *flow) tune(snr float64) {
	if snr != f.snr {
		f.snr = snr
		clear(f.known)
	}
}

// aggregate chooses what the next PPDU carries: what is to be sent again first, in order, then new packets, as far as the window goes.
func (f *flow) aggregate(t *transmission) {
	t.rate, t.sample = f.control.choose(f, t.from)
	r := &f.rates[t.rate]
	most := f.station.aggregate
	if t.sample {
		most = min(most, samplePackets)
	}
	t.seqs, t.bytes = t.seqs[:0], 0
	for seq := f.start; seq < f.end && seq < f.start+f.station.window && len(t.seqs) < most; seq++ {
		m := f.at(seq)
		if m.done {
			continue
		}
		size := subframeSize(int(m.bytes))
		if len(t.seqs) > 0 && t.bytes+size > r.maxBytes {
			break
		}
		t.seqs = append(t.seqs, seq)
		t.bytes += size
	}
}
