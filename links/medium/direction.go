package medium

import (
	"bytes"
	"math"
	"time"

	"pqlab/topology"
)

// direction is what a link does to the packets of one sender. A packet's fate is decided when it enters; then it is
// delayed, and then it waits in the queue to be sent at the rate. (netem has the same order in package links.)
type direction struct {
	mtu     int
	seed    uint64
	chance  chance
	outages []topology.Outage
	began   time.Duration // the shape
	ordered bool
	line    line          // being delayed
	lastDue time.Duration // of those that were
	front   fifo          // waiting for the rate before all others: they were reordered
	queue   queue
	pace    pace
	sending *Packet // nil: nothing
	waited  bool    // sending was in the queue
	unsent  uint64  // bits of sending, at the time since
	since   time.Duration
	sent    time.Duration // when nothing of it will be left
	most    int           // bytes that it may hold
	held    int
	entered uint64 // packets
	out     []*Packet
	count   Counters
	free    []*Packet
}

func newDirection(s topology.Shape, mtu int, seed uint64) *direction {
	d := &direction{mtu: mtu, seed: seed}
	d.set(0, s)
	return d
}

// set changes the shape for what enters from now on, and the rate and the queue for what has still to be sent. Random
// choices and traces begin anew.
func (d *direction) set(now time.Duration, s topology.Shape) {
	d.chance = newChance(s, d.seed)
	d.ordered, d.outages, d.began = !s.Unordered, s.Outages, now
	d.repace(now, newPace(s, now))
	d.queue.room = Room(s, d.mtu)
	if s.Queue.Kind != topology.CoDel {
		d.queue.codel = nil
	} else {
		c := codel{maxPacket: d.mtu + header}
		if d.queue.codel != nil {
			c = *d.queue.codel
		}
		c.target, c.interval = s.Queue.Control()
		d.queue.codel = &c
	}
	var longest time.Duration
	for _, v := range d.chance.varies {
		longest = max(longest, v)
	}
	if d.most = inFlight(d.pace.fastest(), s.Delay+longest); !d.pace.none() {
		d.most += d.queue.room
	}
}

// repace changes the rate. Of what is being sent it holds for the part that is left.
func (d *direction) repace(now time.Duration, p pace) {
	if d.sending != nil {
		left := float64(d.unsent) - d.pace.passed(d.since, now)
		d.unsent, d.since = uint64(max(0, math.Round(left))), now
		d.sent = p.send(now, d.unsent)
	}
	d.pace = p
}

// isOut says whether an outage holds.
func (d *direction) isOut(now time.Duration) bool {
	for _, o := range d.outages {
		since := now - d.began - o.Start
		if o.Every > 0 && since >= 0 {
			since %= o.Every
		}
		if since >= 0 && since < o.Length {
			return true
		}
	}
	return false
}

const (
	header = 14 // bytes that a frame has above the MTU, as they are counted
	// A queue holds what the rate brings in that time, as those of package links do: 20 ms, and the 4 ms of a token
	// bucket.
	roomTime = 24 * time.Millisecond
	// unlimited stands for the rate of a link that has none, where it is about memory.
	unlimited = 20 * topology.Gbit
	// mostHeld are bytes: what a link without a rate holds however long its delay.
	mostHeld = 512 << 20
)

// Room is the size of a shape's queue in bytes: what the topology says, or what the rate brings in 24 ms and in twice the
// delay. TCP has so much on its way over a link that with less it would leave the link idle after a loss.
func Room(s topology.Shape, mtu int) int {
	perSecond := float64(s.MeanRate()) / 8
	room := max(perSecond*roomTime.Seconds(), perSecond*0.02+4000, perSecond*0.02+float64(mtu+header)) + 2*s.Delay.Seconds()*perSecond
	switch {
	case s.Queue.Bytes > 0:
		room = float64(s.Queue.Bytes)
	case s.Queue.Time > 0:
		room = perSecond * s.Queue.Time.Seconds()
	case s.Rate == 0 && len(s.RateTrace) == 0:
		return math.MaxInt32 // nothing waits
	}
	return int(min(max(room, float64(mtu+header)), math.MaxUint32)) // one frame is being sent
}

// inFlight is how many bytes may be on their way: twice what the rate brings in the delay, and something for a burst.
func inFlight(fastest topology.Rate, delay time.Duration) int {
	const burst = 1 << 20
	if fastest == 0 {
		return burst + int(min(2*float64(unlimited)/8*delay.Seconds(), mostHeld))
	}
	return burst + int(min(2*float64(fastest)/8*delay.Seconds(), math.MaxInt32))
}

// whole is the largest packet of many frames that may stay one: where each frame has a fate or a place in a managed queue
// of its own, none; where there is a rate, what passes in a time too short to matter.
func (d *direction) whole() int {
	const short = 100 * time.Microsecond
	switch {
	case d.chance.random, len(d.chance.losses) > 0, d.queue.codel != nil:
		return 0
	case d.pace.none():
		return math.MaxInt32
	}
	return int(min(float64(d.pace.fastest())/8*short.Seconds(), float64(d.queue.room)/8))
}

func (d *direction) enter(now time.Duration, port int, p Packet) {
	d.advance(now)
	p.From, p.Number, p.Entered = port, d.entered, now
	d.entered++
	d.count.Packets++
	d.count.Bytes += uint64(p.Size)
	first, second, twice := d.chance.next(p.Size)
	if twice {
		c := p
		c.Copy, c.Data = true, bytes.Clone(p.Data)
		defer d.meet(now, c, second)
	}
	d.meet(now, p, first)
}

// meet lets a packet have the fate that was drawn.
func (d *direction) meet(now time.Duration, p Packet, fate draw) {
	p.Flip, p.Fate = fate.flip, fate.lost
	if d.isOut(now) {
		p.Fate = LostOutage
	}
	if !p.Fate.Lost() && d.held+p.Size > d.most {
		p.Fate = LostQueue
	}
	q := d.hold(p)
	switch {
	case p.Fate.Lost():
		d.emit(now, q)
	case fate.reordered:
		d.count.Reordered++
		if d.front.push(q); d.sending == nil {
			d.send(now)
		}
	default:
		due := now + fate.delay
		if d.ordered {
			due = max(due, d.lastDue)
		}
		d.lastDue = max(due, d.lastDue)
		if due > now {
			d.line.push(due, q)
		} else {
			d.arrive(now, q)
		}
	}
}

// arrive lets a packet whose delay is over wait for the rate.
func (d *direction) arrive(now time.Duration, p *Packet) {
	switch {
	case d.sending == nil && d.pace.none():
		d.emit(now, p)
		return
	case !d.queue.fits(p.Size):
		p.Fate = LostQueue
		d.emit(now, p)
		return
	}
	if d.queue.put(now, p); d.sending == nil {
		d.send(now)
	}
}

// send begins to send the next packet, if there is one. The line is idle.
func (d *direction) send(now time.Duration) {
	if d.waited = d.front.len() == 0; d.waited {
		d.sending = d.queue.take(now, func(p *Packet) {
			p.Fate = LostQueue
			d.emit(now, p)
		})
	} else {
		d.sending = d.front.pop()
	}
	if d.sending != nil {
		d.unsent, d.since = 8*uint64(d.sending.Size), now
		d.sent = d.pace.send(now, d.unsent)
	}
}

// advance does all that happens until now.
func (d *direction) advance(now time.Duration) {
	for {
		due, ok := d.line.first()
		switch {
		case d.sending != nil && d.sent <= now && (!ok || d.sent <= due):
			p := d.sending
			if d.waited {
				d.queue.bytes -= p.Size
			}
			d.sending = nil
			d.emit(d.sent, p)
			d.send(d.sent)
		case ok && due <= now:
			d.arrive(due, d.line.pop())
		default:
			return
		}
	}
}

func (d *direction) next() (at time.Duration, ok bool) {
	if len(d.out) > 0 {
		return d.out[0].Due, true
	}
	at, ok = d.line.first()
	if d.sending != nil && (!ok || d.sent < at) {
		return d.sent, true
	}
	return at, ok
}

// hold keeps a packet that has entered.
func (d *direction) hold(p Packet) *Packet {
	d.held += p.Size
	if last := len(d.free) - 1; last >= 0 {
		q := d.free[last]
		d.free = d.free[:last]
		*q = p
		return q
	}
	return &p
}

// emit has a packet given out by the next leave.
func (d *direction) emit(now time.Duration, p *Packet) {
	p.Due = now
	d.held -= p.Size
	d.count.Count(*p)
	d.out = append(d.out, p)
}

// recycle forgets what was given out.
func (d *direction) recycle() {
	const spare = 1024
	for _, p := range d.out {
		if *p = (Packet{}); len(d.free) < spare {
			d.free = append(d.free, p)
		}
	}
	clear(d.out)
	d.out = d.out[:0]
}
