package medium

import (
	"bytes"
	"math"
	"time"

	"pqlab/topology"
)

// direction is what a link does to the packets of one sender. A packet's fate is decided when it enters. Then its delay
// passes that others may not have, then it waits in the queue to be sent at the rate, and then what is left of its delay
// passes, which all have. A link whose delay is always the same so drops what finds no room at once, and only what the rate
// lets pass is on its way; the times at which packets come are those of a link that delays first, as netem in package links,
// but that a change of the rate, by set or by a trace, is seen later at the other end: by the delay that follows.
type direction struct {
	mtu     int
	seed    uint64
	chance  chance
	outages []topology.Outage
	began   time.Duration // the shape
	ordered bool
	varied  delay         // the part of the delay that varies
	through time.Duration // when the last that was delayed is through all of its delay, but for what it waits for the rate
	front   queue         // waiting for the rate before all others: they were reordered
	queue   queue
	pace    pace
	sending *Packet // nil: nothing
	from    *queue  // that sending was in
	unsent  uint64  // bits of sending, at the time since
	since   time.Duration
	sent    time.Duration // when nothing of it will be left
	same    delay         // the part of the delay that all have
	entered uint64        // packets
	out     []*Packet
	count   Counters
	free    []*Packet
}

// delay holds packets for a time.
type delay struct {
	line
	latest time.Duration // when the last of them leaves, or left
	most   int           // bytes that it may hold
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
	d.front.room = d.queue.room
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
	fastest := d.pace.fastest()
	d.varied.allow(now, fastest, d.chance.most-d.chance.least)
	if d.same.allow(now, fastest, d.chance.least); !d.pace.none() { // a rate lets no more pass
		d.same.most = math.MaxInt
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
	// roomTime is the queue of a short link, as those of package links have it: 20 ms, and the 4 ms of a token bucket.
	roomTime = 24 * time.Millisecond
	// roomDelay is the queue of a long link, of what is on its way over it. With that, and what packets take besides their
	// length, a link has memory for no more than twice what is on its way. After a loss CUBIC goes on with 0.7 of what was on its
	// way and in the queue (RFC 9438, section 4.6): with 0.95 of what fills a link whose way back is as long.
	roomDelay = 0.7
	// unlimited stands for the rate of a link that has none, where it is about memory.
	unlimited = 20 * topology.Gbit
	// mostHeld are bytes: what a link without a rate holds however long its delay.
	mostHeld = 512 << 20
)

// Room is the size of a shape's queue in bytes: what the topology says, or what the rate brings in 24 ms, or in 0.7 of
// the delay if that is longer.
func Room(s topology.Shape, mtu int) int {
	perSecond := float64(s.MeanRate()) / 8
	room := max(perSecond*roomTime.Seconds(), perSecond*0.02+4000, perSecond*0.02+float64(mtu+header), perSecond*roomDelay*s.Delay.Seconds())
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

// inFlight is how many bytes may be in a delay, if nothing before it keeps them to the rate: twice what the rate brings, and
// something for a burst.
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
	q := d.hold(p)
	switch {
	case p.Fate.Lost():
		d.emit(now, q)
	case fate.reordered:
		d.count.Reordered++
		d.wait(now, &d.front, q)
	default:
		in, out := now+fate.delay-d.chance.least, now+fate.delay
		if d.ordered {
			in, out = max(in, d.varied.latest), max(out, d.through)
		}
		d.through = max(out, d.through)
		q.rest = min(d.chance.least, out-in) // less where it waits for one of an earlier shape, of which all had less
		d.delay(&d.varied, now, in, q, d.arrive)
	}
}

// delay holds a packet until it is due, or gives it to next at once.
func (d *direction) delay(by *delay, now, due time.Duration, p *Packet, next func(time.Duration, *Packet)) {
	if d.ordered {
		due = max(due, by.latest)
	}
	by.latest = max(due, by.latest)
	switch {
	case due <= now:
		next(now, p)
	case by.bytes+p.Size > by.most:
		d.lose(now, p)
	default:
		by.push(due, p)
	}
}

// allow bounds what may be held for so long, with room for what has to wait for packets that are held for longer.
func (d *delay) allow(now time.Duration, fastest topology.Rate, long time.Duration) {
	d.most = d.bytes + inFlight(fastest, max(long, d.latest-now))
}

// lose gives out a packet for which there is no room.
func (d *direction) lose(now time.Duration, p *Packet) {
	p.Fate = LostQueue
	d.emit(now, p)
}

// arrive lets a packet wait for the rate.
func (d *direction) arrive(now time.Duration, p *Packet) {
	if d.sending == nil && d.pace.none() {
		d.leave(now, p)
	} else {
		d.wait(now, &d.queue, p)
	}
}

// wait puts a packet into a queue.
func (d *direction) wait(now time.Duration, q *queue, p *Packet) {
	if !q.fits(p.Size) {
		d.lose(now, p)
		return
	}
	if q.put(now, p); d.sending == nil {
		d.send(now)
	}
}

// leave lets the rest of the delay of a packet pass that was sent.
func (d *direction) leave(now time.Duration, p *Packet) {
	d.delay(&d.same, now, now+p.rest, p, d.emit)
}

// send begins to send the next packet, if there is one. The line is idle.
func (d *direction) send(now time.Duration) {
	d.from = &d.front
	if d.front.len() == 0 {
		d.from = &d.queue
	}
	d.sending = d.from.take(now, func(p *Packet) { d.lose(now, p) })
	if d.sending != nil {
		d.unsent, d.since = 8*uint64(d.sending.Size), now
		d.sent = d.pace.send(now, d.unsent)
	}
}

// advance does all that happens until now.
func (d *direction) advance(now time.Duration) {
	for {
		in, entering := d.varied.first()
		out, leaving := d.same.first()
		sending := d.sending != nil
		switch {
		case leaving && out <= now && !(sending && d.sent < out) && !(entering && in < out):
			d.emit(out, d.same.pop())
		case sending && d.sent <= now && !(entering && in < d.sent):
			p := d.sending
			d.from.bytes -= p.Size
			d.sending = nil
			d.leave(d.sent, p)
			d.send(d.sent)
		case entering && in <= now:
			d.arrive(in, d.varied.pop())
		default:
			return
		}
	}
}

func (d *direction) next() (at time.Duration, ok bool) {
	if len(d.out) > 0 {
		return d.out[0].Due, true
	}
	at, ok = d.same.first()
	if in, is := d.varied.first(); is && (!ok || in < at) {
		at, ok = in, true
	}
	if d.sending != nil && (!ok || d.sent < at) {
		at, ok = d.sent, true
	}
	return at, ok
}

// hold keeps a packet that has entered.
func (d *direction) hold(p Packet) *Packet {
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
	d.count.Count(*p)
	d.out = append(d.out, p)
}

// recycle forgets what was given out.
func (d *direction) recycle() {
	const spare = 256
	for _, p := range d.out {
		if *p = (Packet{}); len(d.free) < spare {
			d.free = append(d.free, p)
		}
	}
	clear(d.out)
	d.out = d.out[:0]
}
