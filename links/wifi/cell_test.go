package wifi

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pqlab/internal/race"
	"pqlab/links/medium"
)

// passage is what a test saw of a packet that came out.
type passage struct {
	number       uint64
	from, to     int
	entered, due time.Duration
	fate         medium.Fate
	size         int
	data         *byte
}

// rig drives a Medium and notes what comes out.
type rig struct {
	tb    testing.TB
	m     *Medium
	now   time.Duration
	out   []passage
	sent  int
	sends []Exchange
}

func newRig(tb testing.TB, c Config) *rig {
	tb.Helper()
	r := &rig{tb: tb}
	c.Observe = func(e Exchange) { r.sends = append(r.sends, e) }
	r.m = mustNew(tb, c)
	return r
}

func (r *rig) enter(at time.Duration, port, size int) {
	r.now = at
	r.sent++
	r.m.Enter(at, port, medium.Packet{Size: size, Frames: 1, Data: make([]byte, 1)})
}

func (r *rig) leave(at time.Duration) {
	r.now = at
	r.m.Leave(at, func(port int, p medium.Packet) {
		if p.Due > at {
			r.tb.Fatalf("at %v a packet leaves that is due at %v", at, p.Due)
		}
		if p.Data == nil {
			r.tb.Fatal("a packet lost its data")
		}
		r.out = append(r.out, passage{p.Number, p.From, port, p.Entered, p.Due, p.Fate, p.Size, &p.Data[0]})
	})
}

// until lets all happen until then, each at its time.
func (r *rig) until(end time.Duration) {
	for {
		at, ok := r.m.Next()
		if !ok || at > end {
			break
		}
		r.leave(max(at, r.now))
	}
	r.leave(end)
}

// drain lets all happen.
func (r *rig) drain() {
	for range 10_000_000 {
		at, ok := r.m.Next()
		if !ok {
			return
		}
		r.leave(max(at, r.now))
	}
	r.tb.Fatal("a cell to which nothing is sent does not come to rest")
}

// randomConfig is any cell that New takes.
func randomConfig(r *rand.Rand) Config {
	c := Config{Seed: r.Uint64(), Width: []int{0, 20, 40, 80, 160}[r.IntN(5)], RoundRobin: r.IntN(2) == 0}
	for i := range 1 + r.IntN(5) {
		s := Station{Name: fmt.Sprint("s", i), Distance: r.Float64() * 60, Walls: r.IntN(3), Queue: r.IntN(300)}
		s.Format, s.Streams, s.Power, s.ShortGI = Format(r.IntN(2)), 1+r.IntN(4), 15, r.IntN(2) == 0
		s.Width = []int{20, 40, 80, 160}[r.IntN(4)]
		if s.Format == HT {
			s.Width = 20
		}
		if r.IntN(3) == 0 {
			s.MCS = ptr(r.IntN(6))
		}
		if r.IntN(3) == 0 {
			s.MaxAMPDU = 1 + r.IntN(64)
		}
		if r.IntN(2) == 0 {
			s.Errors = ptr(r.Float64() * 0.6)
		}
		if r.IntN(2) == 0 {
			s.Tries = 1 + r.IntN(4)
		}
		if r.IntN(3) == 0 {
			s.UpDelay, s.DownDelay = time.Duration(r.IntN(5))*time.Millisecond, time.Duration(r.IntN(5))*time.Millisecond
		}
		if r.IntN(4) == 0 {
			s.Path = []Waypoint{{At: 0, Distance: 2}, {At: time.Duration(1+r.IntN(200)) * time.Millisecond, Distance: 80 * r.Float64(), Walls: 1}}
		}
		c.Stations = append(c.Stations, s)
	}
	for range r.IntN(3) {
		c.Interferers = append(c.Interferers, Interferer{
			Duty: 0.05 + 0.3*r.Float64(), Power: -100 + 60*r.Float64(), Burst: time.Duration(1+r.IntN(4000)) * µs, Defers: r.IntN(2) == 0,
		})
	}
	return c
}

// traffic sends bursts over random ports at random times, and lets the cell be driven now early and now late.
func traffic(r *rand.Rand, g *rig, ports int) {
	for range 200 {
		port := r.IntN(ports)
		at := g.now + time.Duration(r.IntN(3000))*µs
		if r.IntN(2) == 0 {
			g.until(at)
		}
		for range r.IntN(60) {
			g.enter(at, port, 60+r.IntN(1455))
		}
		if r.IntN(4) == 0 {
			g.leave(g.now)
		}
	}
}

// Whatever the cell, the traffic and the driver: each packet comes out once, in time, in order and where it should, or is counted as lost; and
// the channel is never used by two who do not collide.
func TestAnyCell(t *testing.T) {
	t.Parallel()
	for seed := range uint64(race.Times(150, 15)) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := randomConfig(r)
		g := newRig(t, c)
		ports := 2 * len(c.Stations)
		traffic(r, g, ports)
		checkCounters(t, g, seed, false)
		g.drain()
		checkPassages(t, g, seed)
		checkCounters(t, g, seed, true)
		checkAir(t, g, seed)
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, c)
		}
	}
}

func checkPassages(t *testing.T, g *rig, seed uint64) {
	if len(g.out) != g.sent {
		t.Errorf("seed %d: %d packets entered, %d came out", seed, g.sent, len(g.out))
	}
	last := map[int]passage{}
	seen := map[*byte]bool{}
	var due time.Duration
	for _, p := range g.out {
		if seen[p.data] {
			t.Errorf("seed %d: %+v came out twice", seed, p)
		}
		seen[p.data] = true
		// Leave may be called late; within one call the order is that of time. Over all calls too, as later events are later.
		if p.due < due || p.due < p.entered {
			t.Errorf("seed %d: %+v after one due at %v", seed, p, due)
		}
		due = p.due
		if p.fate.Lost() {
			if p.to != medium.Nowhere {
				t.Errorf("seed %d: %+v was lost", seed, p)
			}
			continue
		}
		if p.to != p.from^1 {
			t.Errorf("seed %d: %+v went elsewhere", seed, p)
		}
		if before, ok := last[p.from]; ok && p.number <= before.number {
			t.Errorf("seed %d: %+v after %+v", seed, p, before)
		}
		last[p.from] = p
	}
}

// checkCounters compares what the cell says of itself with what was seen on its channel and at its ends.
func checkCounters(t *testing.T, g *rig, seed uint64, drained bool) {
	for i, s := range g.m.Snapshot().Stations {
		for side, d := range []Direction{s.Up, s.Down} {
			port := 2*i + side
			if got, want := d.tally(), observed(g.sends, port); !reflect.DeepEqual(got, want) {
				t.Errorf("seed %d: port %d: %+v was counted, %+v sent", seed, port, got, want)
			}
			if !drained {
				continue
			}
			var delivered, bytes uint64
			for _, p := range g.out {
				if p.from == port && !p.fate.Lost() {
					delivered, bytes = delivered+1, bytes+uint64(p.size)
				}
			}
			if d.Queued != 0 || d.Delivered != delivered || d.DeliveredBytes != bytes {
				t.Errorf("seed %d: port %d: %+v, and %d packets with %d bytes came out", seed, port, d, delivered, bytes)
			}
			// Whatever is sent again was sent before: of what has come to an end, all but the first time.
			if sent := d.Packets - d.LostQueue; d.Retries != d.MPDUs-sent {
				t.Errorf("seed %d: port %d: %d retries of %d packets that were sent %d times", seed, port, d.Retries, sent, d.MPDUs)
			}
			n := g.m.Counters(port)
			if n.Packets != d.Packets || n.Bytes != d.Bytes || n.Fates[medium.Delivered] != d.Delivered || n.Lost() != d.LostQueue+d.LostRetries {
				t.Errorf("seed %d: port %d: %+v and %+v", seed, port, n, d)
			}
		}
	}
}

// checkAir sees that of what the stations and other networks sent, only what collided overlaps: by the beginnings, which are
// then the same.
func checkAir(t *testing.T, g *rig, seed uint64) {
	jammers := 0
	for _, in := range g.m.config.Interferers {
		if !in.Defers {
			jammers++
		}
	}
	var before Exchange
	for i, e := range g.sends {
		if e.Port == medium.Nowhere && jammers > 0 {
			continue // interferers overlap what they like
		}
		switch {
		case e.From >= e.To:
			t.Errorf("seed %d: %+v", seed, e)
		case i > 0 && e.From == before.From && before.Collided && e.Collided:
			e.To = max(e.To, before.To)
		case e.From < before.To:
			t.Errorf("seed %d: %+v before the end of %+v", seed, e, before)
		case e.From < before.To+aifs:
			t.Errorf("seed %d: %+v earlier than AIFS after %+v", seed, e, before)
		}
		before = e
	}
}

// The same seed and the same packets give the same, another seed something else.
func TestSameSeed(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) []passage {
		c := randomConfig(rand.New(rand.NewPCG(7, 7)))
		c.Seed = seed
		c.Stations[0].Errors = ptr(0.2)
		g := newRig(t, c)
		traffic(rand.New(rand.NewPCG(8, 8)), g, 2*len(c.Stations))
		g.drain()
		for i := range g.out {
			g.out[i].data = nil
		}
		return g.out
	}
	first := run(1)
	if !reflect.DeepEqual(first, run(1)) {
		t.Error("the same seed gave something else")
	}
	if reflect.DeepEqual(first, run(2)) {
		t.Error("another seed gave the same")
	}
}

// What comes out, and when, does not depend on how often Leave is called.
func TestLateDriver(t *testing.T) {
	t.Parallel()
	run := func(each time.Duration) []passage {
		c := randomConfig(rand.New(rand.NewPCG(3, 9)))
		g := newRig(t, c)
		r := rand.New(rand.NewPCG(4, 4))
		for range 300 {
			at := g.now + time.Duration(r.IntN(2000))*µs
			for g.now+each < at {
				g.leave(g.now + each)
			}
			g.enter(at, r.IntN(2*len(c.Stations)), 1000)
		}
		g.drain()
		for i := range g.out {
			g.out[i].data = nil
		}
		return g.out
	}
	first := run(50 * µs)
	for _, each := range []time.Duration{7 * µs, time.Millisecond, time.Second} {
		if !reflect.DeepEqual(first, run(each)) {
			t.Errorf("driven every %v, something else came out", each)
		}
	}
}

// Whether an attempt at a packet fails depends on the packet, not on when it is sent or with what.
func TestFatesDoNotDependOnTime(t *testing.T) {
	t.Parallel()
	lost := func(gap time.Duration) (numbers []uint64) {
		g := newRig(t, Config{Seed: 5, Stations: []Station{{Profile: profile(t, "phone-ac-1x1-80"), MCS: ptr(5), Errors: ptr(0.3), Tries: 1}}})
		for i := range 1000 {
			g.until(time.Duration(i) * gap)
			g.enter(time.Duration(i)*gap, 0, 500)
		}
		g.drain()
		for _, p := range g.out {
			if p.fate == medium.LostRetries {
				numbers = append(numbers, p.number)
			}
		}
		slices.Sort(numbers)
		return numbers
	}
	first := lost(20 * µs)
	if len(first) < 250 || len(first) > 350 {
		t.Errorf("%d of 1000 packets were lost, want 300", len(first))
	}
	if again := lost(3 * time.Millisecond); !slices.Equal(first, again) {
		t.Error("other packets were lost when they were sent at other times")
	}
}

// A packet that finds an idle channel is sent at the next slot's boundary; the next has to wait for AIFS and the backoff.
func TestOnePacket(t *testing.T) {
	t.Parallel()
	g := newRig(t, Config{Seed: 1, Stations: []Station{{Profile: profile(t, "jetson-ac-2x2-80"), MCS: ptr(9), Errors: ptr(0.0)}}})
	if _, ok := g.m.Next(); ok {
		t.Error("an idle cell has something to do")
	}
	at := 10*time.Millisecond + 1
	g.enter(at, 0, datagram)
	g.drain()
	// Slots are counted from AIFS after the start.
	begin := aifs + (at-aifs+slot-1)/slot*slot
	ppdu := 44*µs + 20*µs // 5 symbols of 3.6 µs
	if got := g.out[0].due; got != begin+ppdu {
		t.Errorf("the first packet came at %v, want %v", got, begin+ppdu)
	}
	// It enters during the BlockAck: the backoff after the first runs from AIFS after that.
	g.enter(g.out[0].due+1, 0, datagram)
	g.drain()
	wait := g.out[1].due - ppdu - (g.out[0].due + sifs + 32*µs + aifs)
	if wait < 0 || wait > cwMin*slot || wait%slot != 0 {
		t.Errorf("the second packet was sent %v after AIFS", wait)
	}
}

// Stations that find the channel busy draw backoffs, and so do not all send as soon as it is free.
func TestBusyChannel(t *testing.T) {
	t.Parallel()
	s := Station{Profile: profile(t, "phone-ac-1x1-80"), MCS: ptr(0), Errors: ptr(0.0)}
	g := newRig(t, Config{Seed: 1, Stations: []Station{s, s, s}})
	const rounds = 1000
	for range rounds {
		// All have been silent for long enough that their last backoffs are over.
		at := g.now + 20*time.Millisecond
		g.enter(at, 0, 1500)
		g.until(at + 300*µs) // it is being sent
		g.enter(g.now, 2, 1500)
		g.enter(g.now, 4, 1500)
		g.drain()
	}
	collided := 0
	for _, e := range g.sends {
		if e.Collided {
			collided++
		}
	}
	// Two backoffs of 0 to 15 are the same once in 16 times, and again after a collision once in 32.
	if pairs := collided / 2; pairs < rounds/16-35 || pairs > rounds/16+35 {
		t.Errorf("%d collisions in %d rounds, want about %d", pairs, rounds, rounds/16)
	}
}

// A full queue drops what comes last, by frames or by bytes.
func TestQueueLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		station Station
		want    int
	}{{Station{}, 1000}, {Station{Queue: 10}, 10}, {Station{QueueBytes: 5000}, 5}, {Station{Queue: 3, QueueBytes: 5000}, 3}} {
		tt.station.Profile = profile(t, "phone-ac-1x1-80")
		g := newRig(t, Config{Stations: []Station{tt.station}})
		for round := range 2 { // a queue that was emptied holds as much again
			before := len(g.out)
			for range 1200 {
				g.enter(g.now, 1, 1000)
			}
			g.leave(g.now)
			if dropped := 1200 - tt.want; len(g.out)-before != dropped {
				t.Errorf("%+v: %d of 1200 packets were dropped, want %d", tt.station, len(g.out)-before, dropped)
			}
			g.drain()
			d := g.m.Snapshot().Stations[0].Down
			if times := uint64(round + 1); d.Delivered != times*uint64(tt.want) || d.LostQueue != times*uint64(1200-tt.want) {
				t.Errorf("%+v: %d packets were delivered and %d dropped, want %d and %d, %d times", tt.station, d.Delivered, d.LostQueue, tt.want, 1200-tt.want, times)
			}
		}
	}
}

// What is given up leaves a gap, over which the receiver passes when it is told; what nobody can hear is all given up.
func TestGivingUp(t *testing.T) {
	t.Parallel()
	run := func(errors float64, tries int) Direction {
		g := newRig(t, Config{Seed: 2, Stations: []Station{{Profile: profile(t, "phone-ac-1x1-80"), MCS: ptr(3), Errors: &errors, Tries: tries}}})
		for range 900 {
			g.enter(0, 0, 1000)
		}
		g.drain()
		checkPassages(t, g, 0)
		return g.m.Snapshot().Stations[0].Up
	}
	d := run(0.5, 2)
	if d.LostRetries < 180 || d.LostRetries > 270 { // a quarter of 900
		t.Errorf("%d of 900 packets were given up, want 225", d.LostRetries)
	}
	if d.Requests == 0 {
		t.Error("no BlockAckReq was sent")
	}
	if d := run(1, 3); d.LostRetries != 900 || d.MPDUs != 2700 || d.Delivered != 0 {
		t.Errorf("of what nobody hears %+v", d)
	}
	if d := run(0, 1); d.LostRetries != 0 || d.MPDUs != 900 || d.Retries != 0 {
		t.Errorf("of what is always heard %+v", d)
	}
}

// A delay behind the air keeps the order when it is changed, and nothing waits for it but what has it.
func TestDelay(t *testing.T) {
	t.Parallel()
	s := Station{Profile: profile(t, "phone-ac-1x1-80"), MCS: ptr(9), Errors: ptr(0.0)}
	slow := s
	slow.UpDelay = 20 * time.Millisecond
	g := newRig(t, Config{Seed: 1, Stations: []Station{slow, s}})
	g.enter(0, 0, 1000)
	g.enter(0, 2, 1000)
	g.until(10 * time.Millisecond)
	if len(g.out) != 1 || g.out[0].from != 2 {
		t.Fatalf("after 10 ms came %+v", g.out)
	}
	if err := g.m.SetStation(g.now, 0, s); err != nil {
		t.Fatal(err)
	}
	g.enter(10*time.Millisecond, 0, 1000)
	g.drain()
	if len(g.out) != 3 || g.out[1].number != 0 || g.out[1].due < 20*time.Millisecond || g.out[2].due < g.out[1].due {
		t.Errorf("with a delay that was taken away came %+v", g.out)
	}
	g.enter(30*time.Millisecond, 0, 1000)
	g.drain()
	if wait := g.out[3].due - g.out[3].entered; wait > time.Millisecond {
		t.Errorf("without a delay it took %v", wait)
	}
}

// Chances are even, and those of successive packets, attempts and exchanges have nothing to do with each other.
func TestChances(t *testing.T) {
	t.Parallel()
	const bins, n = 16, 1 << 17
	for name, at := range map[string]func(i uint64) (a, b float64){
		"packets":   func(i uint64) (a, b float64) { f := &flow{seed: 1}; return f.chance(i, 0), f.chance(i+1, 0) },
		"attempts":  func(i uint64) (a, b float64) { f := &flow{seed: 1}; return f.chance(i, 0), f.chance(i, 1) },
		"exchanges": func(i uint64) (a, b float64) { f := &flow{seed: 1}; return f.chance(i, forAck), f.chance(i+1, forAck) },
		"flows": func(i uint64) (a, b float64) {
			return (&flow{seed: 1}).chance(i, 0), (&flow{seed: 1 ^ 3<<40}).chance(i, 0)
		},
		"seeds": func(i uint64) (a, b float64) { return (&flow{seed: 1}).chance(i, 0), (&flow{seed: 2}).chance(i, 0) },
	} {
		var seen [bins][bins]int
		for i := range uint64(n) {
			a, b := at(i)
			seen[int(a*bins)][int(b*bins)]++
		}
		const expected = n / bins / bins
		squares := 0.0
		for _, row := range seen {
			for _, k := range row {
				squares += (float64(k) - expected) * (float64(k) - expected) / expected
			}
		}
		// Chi squared of 255 degrees of freedom: 255 ± 22.6.
		if squares > 255+6*22.6 || squares < 255-6*22.6 {
			t.Errorf("of two successive %s chi squared is %.0f, want about 255", name, squares)
		}
	}
}
