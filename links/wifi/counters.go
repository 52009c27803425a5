package wifi

import "time"

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

	Packets, Bytes            uint64 // that entered, frames
	Delivered, DeliveredBytes uint64
	LostQueue, LostRetries    uint64
	Queued                    uint64 // not yet given up and not yet delivered

	PPDUs      uint64        // sent; also those that collided
	Collisions uint64        // PPDUs
	MPDUs      uint64        // sent in PPDUs, each time
	Failed     uint64        // MPDUs that were not received, in collisions too
	Retries    uint64        // MPDUs that were to be sent again
	Requests   uint64        // BlockAckReq: after what was given up
	Airtime    time.Duration // of PPDUs and their BlockAcks

	Sizes [window + 1]uint64 // PPDUs by number of MPDUs
	Rates []RateCount        // what was ever used
}

// RateCount is what was sent at one rate.
type RateCount struct {
	Streams, MCS         int
	PPDUs, MPDUs, Failed uint64
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

// Snapshot is the cell as it is now, a copy. Like all of Medium it is for the Medium's goroutine.
func (m *Medium) Snapshot() Cell {
	c := Cell{At: m.now, Busy: m.busy}
	for _, s := range m.stations {
		c.Stations = append(c.Stations, StationState{s.Name, s.metres, s.walls, s.up.snapshot(), s.down.snapshot()})
	}
	return c
}

func (f *flow) snapshot() Direction {
	d := f.counters
	r := &f.rates[f.control.best]
	d.SNR, d.MCS, d.Streams, d.PHYRate = f.snr, r.mcs, r.streams, r.bitRate()
	d.Queued = d.Packets - d.Delivered - d.LostQueue - d.LostRetries
	d.Rates = nil
	for i, n := range f.used {
		if n.PPDUs > 0 {
			n.Streams, n.MCS = f.rates[i].streams, f.rates[i].mcs
			d.Rates = append(d.Rates, n)
		}
	}
	return d
}

// account notes a transmission and what of it was not received.
func (f *flow) account(t *transmission, lost int, collided bool) {
	c := &f.counters
	r := &f.rates[t.rate]
	c.Airtime += t.to - t.from + sifs + r.ack
	if collided {
		c.Collisions++
	}
	if t.request {
		c.Requests++
		return
	}
	c.PPDUs++
	c.MPDUs += uint64(len(t.seqs))
	c.Failed += uint64(lost)
	c.Sizes[len(t.seqs)]++
	u := &f.used[t.rate]
	u.PPDUs++
	u.MPDUs += uint64(len(t.seqs))
	u.Failed += uint64(lost)
}
