package wifi

import (
	"time"

	"pqlab/links/medium"
)

// Cell is what a Medium has done until At.
type Cell struct {
	At       time.Duration
	Busy     time.Duration // that the channel was taken, by whomever
	Stations []StationState
}

// StationState is one station of a Cell.
type StationState struct {
	Name     string
	Distance float64 // metres
	Walls    int
	Up, Down Direction // from the station, and to it
}

// Direction is what became of one direction's packets, and what was sent for them.
type Direction struct {
	SNR     float64 // dB at the receiver, over the channel's width
	MCS     int     // that rate control thinks best now, or the fixed one
	Streams int
	PHYRate float64 // bit/s of these

	Packets, Bytes            uint64 // that entered; bytes of frames
	Delivered, DeliveredBytes uint64
	LostQueue, LostRetries    uint64
	Queued                    uint64 // neither delivered nor lost yet

	PPDUs      uint64        // sent; also those that collided
	Collisions uint64        // PPDUs and BlockAckReqs
	MPDUs      uint64        // sent in PPDUs, each time
	Failed     uint64        // MPDUs that were not received, in collisions too
	Retries    uint64        // MPDUs that were to be sent again
	Requests   uint64        // BlockAckReqs sent: after what was given up
	Airtime    time.Duration // of all that was sent, and its BlockAcks

	Sizes [window + 1]uint64 // PPDUs by number of MPDUs
	Rates []RateCount        // that were used, slower ones of fewer streams first
}

// RateCount is what was sent at one rate.
type RateCount struct {
	Streams, MCS         int
	PPDUs, MPDUs, Failed uint64
}

// sent is what was sent for one direction.
type sent struct {
	collisions, requests uint64
	airtime              time.Duration
	sizes                [window + 1]uint64
	rates                []RateCount // of each rate
}

// PER is the share of MPDUs that was not received.
func (d Direction) PER() float64 { return share(d.Failed, d.MPDUs) }

// MeanAMPDU is how many MPDUs a PPDU had.
func (d Direction) MeanAMPDU() float64 { return share(d.MPDUs, d.PPDUs) }

func share(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// SnapshotAt is Snapshot after what happens before now.
func (m *Medium) SnapshotAt(now time.Duration) Cell {
	m.advance(now, false)
	return m.Snapshot()
}

// Snapshot is the cell as it is now, a copy. Like all of Medium it is for the Medium's goroutine.
func (m *Medium) Snapshot() Cell {
	c := Cell{At: m.now, Busy: m.busy}
	for _, s := range m.stations {
		m.locate(s, m.now)
		c.Stations = append(c.Stations, StationState{s.Name, s.metres, s.walls, s.up.snapshot(), s.down.snapshot()})
	}
	return c
}

func (f *flow) snapshot() Direction {
	r := &f.rates[f.control.best]
	d := Direction{
		SNR: f.snr, MCS: r.mcs, Streams: r.streams, PHYRate: r.bitRate(),
		Packets: f.count.Packets, Bytes: f.count.Bytes,
		Delivered: f.count.Fates[medium.Delivered], DeliveredBytes: f.delivered,
		LostQueue: f.count.Fates[medium.LostQueue], LostRetries: f.count.Fates[medium.LostRetries],
		Collisions: f.sent.collisions, Retries: f.retries, Requests: f.sent.requests, Airtime: f.sent.airtime,
		Sizes: f.sent.sizes,
	}
	d.Queued = d.Packets - d.Delivered - d.LostQueue - d.LostRetries
	for i, n := range f.sent.rates {
		if n.PPDUs > 0 {
			n.Streams, n.MCS = f.rates[i].streams, f.rates[i].mcs
			d.Rates = append(d.Rates, n)
			d.PPDUs += n.PPDUs
			d.MPDUs += n.MPDUs
			d.Failed += n.Failed
		}
	}
	return d
}

// note counts a transmission and what of it was not received.
func (f *flow) note(t *transmission, failed int, collided bool) {
	f.sent.airtime += t.answered() - t.from
	if collided {
		f.sent.collisions++
	}
	if t.request {
		f.sent.requests++
		return
	}
	f.sent.sizes[len(t.seqs)]++
	n := &f.sent.rates[t.rate]
	n.PPDUs++
	n.MPDUs += uint64(len(t.seqs))
	n.Failed += uint64(failed)
}
