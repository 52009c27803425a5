package links

import (
	"pqlab/links/medium"
)

// Dropped counts packets that a link has dropped since it was made, in both directions.
type Dropped struct {
	Full    uint64 // in queues: for want of room, or by their management
	Retries uint64 // by a radio that had sent them as often as it may
	Model   uint64 // by chance, traces and outages; not known of netem, which counts them with other things
}

// Sum is all of them.
func (d Dropped) Sum() uint64 { return d.Full + d.Retries + d.Model }

// Add counts those of another link with these.
func (d *Dropped) Add(o Dropped) {
	d.Full, d.Retries, d.Model = d.Full+o.Full, d.Retries+o.Retries, d.Model+o.Model
}

// Dropped tells what the link dropped. What cannot be asked any more, because the link or an end's namespace is gone, is
// not in it.
func (l *Link) Dropped() (d Dropped) {
	for _, w := range l.State().Wire {
		fates := w.Fates
		d.Full += fates[medium.LostQueue] + w.Missed
		d.Retries += fates[medium.LostRetries]
		d.Model += fates[medium.LostChance] + fates[medium.LostTrace] + fates[medium.LostOutage]
	}
	if p, ok := l.body.(*pair); ok {
		for _, e := range p.ends {
			d.Full += e.full()
		}
	}
	return d
}

// full is how many packets found no room in the interface's queues.
func (e end) full() (n uint64) {
	h, err := e.ns.Netlink()
	if err != nil {
		return 0
	}
	device, err := h.LinkByIndex(e.index)
	if err != nil {
		return 0
	}
	qdiscs, err := h.QdiscList(device)
	if err != nil {
		return 0
	}
	for _, q := range qdiscs {
		attrs := q.Attrs()
		if attrs.Handle == emulatorHandle { // its losses by chance are not told from others
			continue
		}
		if s := attrs.Statistics; s != nil && s.Queue != nil {
			n += uint64(s.Queue.Drops)
		}
	}
	return n
}
