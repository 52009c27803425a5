package medium

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pqlab/topology"
)

// send is a packet that a test sends.
type send struct {
	at   time.Duration
	port int
	size int
}

// left is a packet that a Medium gave out.
type left struct {
	Packet
	port int
}

// drive sends packets, in order of time, and gives what comes out. It looks at the medium whenever that wants it.
func drive(t testing.TB, m Medium, sends []send) []left {
	t.Helper()
	return driveAt(t, m, sends, func(now, until time.Duration) (time.Duration, bool) {
		at, ok := m.Next()
		return max(at, now), ok && at <= until
	})
}

// driveAt looks at the medium when look says: at a time until the next packet, or not.
func driveAt(t testing.TB, m Medium, sends []send, look func(now, until time.Duration) (time.Duration, bool)) (all []left) {
	t.Helper()
	now, last := time.Duration(0), time.Duration(0)
	leave := func(at time.Duration) {
		now = at
		m.Leave(now, func(port int, p Packet) {
			if p.Due < last || p.Due > now || p.Due < p.Entered {
				t.Fatalf("packet %d of port %d, which entered at %v, comes at %v, due %v, after one due %v", p.Number, p.From, p.Entered, now, p.Due, last)
			}
			if (port == Nowhere) != p.Fate.Lost() {
				t.Fatalf("packet %d is %v and goes to port %d", p.Number, p.Fate, port)
			}
			last = p.Due
			all = append(all, left{p, port})
		})
	}
	for _, s := range sends {
		for at, ok := look(now, s.at); ok; at, ok = look(now, s.at) {
			leave(at)
		}
		now = max(now, s.at)
		m.Enter(now, s.port, Packet{Size: s.size, Frames: 1, Data: []byte{byte(s.size)}})
	}
	leave(now)
	for at, ok := m.Next(); ok; at, ok = m.Next() {
		leave(max(at, now))
	}
	return all
}

// evenly sends n packets from port 0.
func evenly(n int, gap time.Duration, size int) []send {
	sends := make([]send, n)
	for i := range sends {
		sends[i] = send{time.Duration(i) * gap, 0, size}
	}
	return sends
}

// somehow sends n packets of all sizes from both ports, in bursts and with gaps.
func somehow(r *rand.Rand, n int, gap time.Duration) []send {
	sends := make([]send, n)
	at := time.Duration(0)
	for i := range sends {
		if r.IntN(3) > 0 {
			at += time.Duration(r.ExpFloat64() * float64(gap) * 1.5)
		}
		sends[i] = send{at, r.IntN(2), 60 + r.IntN(1455)}
	}
	return sends
}

const testMTU = 1500

func newTest(s topology.Shape) *Link {
	return NewLink([2]topology.Shape{s, s}, testMTU, [2]uint64{1, 2})
}

// randomShape has each part or not.
func randomShape(r *rand.Rand) topology.Shape {
	maybe := func(f float64) float64 { return f * float64(r.IntN(2)) }
	s := topology.Shape{
		Delay: time.Duration(maybe(r.Float64() * 5e7)), Loss: maybe(r.Float64() / 2), Duplication: maybe(r.Float64() / 2),
		Corruption: maybe(r.Float64() / 2), Rate: topology.Rate(maybe(1e6 + r.Float64()*1e8)),
	}
	if s.Delay > 0 {
		s.Reordering = maybe(r.Float64() / 4)
		if r.IntN(2) == 0 {
			s.Jitter, s.Unordered = s.Delay/[]time.Duration{2, 20}[r.IntN(2)], r.IntN(2) == 0 // with and without a part that all have
			s.Distribution = []string{"", "uniform", "pareto", "paretonormal"}[r.IntN(4)]
		}
	}
	switch r.IntN(4) {
	case 0:
		s.Loss, s.GilbertElliott = 0, topology.GilbertElliott{P: 0.1 + r.Float64()/2, R: 0.1 + r.Float64()/2, Good: maybe(0.1)}
	case 1:
		s.Loss, s.LossTrace = 0, []int{r.IntN(10), 1 + r.IntN(3), 1 + r.IntN(10)}
	}
	if r.IntN(4) == 0 {
		s.Outages = []topology.Outage{{Start: 20 * time.Millisecond, Length: 10 * time.Millisecond, Every: time.Duration(r.IntN(2)) * 50 * time.Millisecond}}
	}
	if r.IntN(4) == 0 {
		s.Rate, s.RateTrace = 0, []topology.RateStep{{Length: 30 * time.Millisecond, Rate: 10e6}, {Length: 5 * time.Millisecond}, {Length: 7 * time.Millisecond, Rate: 1e6 + topology.Rate(r.IntN(1e8))}}
	}
	switch r.IntN(4) {
	case 0:
		s.Queue = topology.Queue{Bytes: uint64(3000 + r.IntN(100000))}
	case 1:
		s.Queue = topology.Queue{Kind: topology.CoDel, Time: 50 * time.Millisecond}
	}
	return s
}

// shapes runs a property over many shapes.
func shapes(t *testing.T, property func(t *testing.T, r *rand.Rand, s topology.Shape)) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := randomShape(r)
		if property(t, r, s); t.Failed() {
			t.Fatalf("with seed %d: %v", seed, s)
		}
	}
}

// What enters comes out once; what is given back is counted, and is its own.
func TestEachComesOutOnce(t *testing.T) {
	t.Parallel()
	shapes(t, func(t *testing.T, r *rand.Rand, s topology.Shape) {
		l := newTest(s)
		sends := somehow(r, 1000, 200*time.Microsecond)
		var seen [2]map[uint64]int
		var sent, copies, corrupted [2]uint64
		var fates [2][fates]uint64
		seen[0], seen[1] = map[uint64]int{}, map[uint64]int{}
		for _, p := range drive(t, l, sends) {
			if p.port != Nowhere && p.port != 1-p.From {
				t.Errorf("from port %d to port %d", p.From, p.port)
			}
			fates[p.From][p.Fate]++
			if p.Flip > 0 && !p.Fate.Lost() {
				corrupted[p.From]++
			}
			if len(p.Data) != 1 || p.Data[0] != byte(p.Size) {
				t.Errorf("packet %d lost its data", p.Number)
			}
			if p.Copy {
				copies[p.From]++
				continue
			}
			seen[p.From][p.Number]++
		}
		for _, s := range sends {
			sent[s.port]++
		}
		for port, n := range sent {
			for number := range n {
				if seen[port][number] != 1 {
					t.Errorf("packet %d of port %d came out %d times", number, port, seen[port][number])
				}
			}
			c := l.Counters(port)
			if c.Packets != n || c.Fates != fates[port] || c.Copies != copies[port] || c.Corrupted != corrupted[port] || len(seen[port]) != int(n) {
				t.Errorf("port %d: %+v, want %d packets, %v, %d copies, %d corrupted", port, c, n, fates[port], copies[port], corrupted[port])
			}
			if d := l.directions[port]; d.varied.bytes != 0 || d.same.bytes != 0 || d.queue.bytes != 0 || d.front.bytes != 0 {
				t.Errorf("port %d: an empty link holds %d + %d bytes, its queues %d + %d", port, d.varied.bytes, d.same.bytes, d.queue.bytes, d.front.bytes)
			}
		}
	})
}

// Who drives a medium late or seldom sees the same times.
func TestDoesNotDependOnItsDriver(t *testing.T) {
	t.Parallel()
	shapes(t, func(t *testing.T, r *rand.Rand, s topology.Shape) {
		sends := somehow(r, 400, 200*time.Microsecond)
		punctual := drive(t, newTest(s), sends)
		lazy := driveAt(t, newTest(s), sends, func(now, until time.Duration) (time.Duration, bool) {
			return now + (until-now)/2, r.IntN(3) == 0
		})
		same := func(a, b left) bool {
			return a.port == b.port && a.From == b.From && a.Number == b.Number && a.Due == b.Due && a.Fate == b.Fate && a.Flip == b.Flip && a.Copy == b.Copy
		}
		// Packets of one time may change places between directions.
		order := func(a, b left) int {
			return 8*int(a.Due-b.Due) + 4*(a.From-b.From)
		}
		slices.SortStableFunc(punctual, order)
		slices.SortStableFunc(lazy, order)
		if !slices.EqualFunc(punctual, lazy, same) {
			for i := range min(len(punctual), len(lazy)) {
				if !same(punctual[i], lazy[i]) {
					t.Fatalf("\n%+v\n%+v", punctual[i], lazy[i])
				}
			}
			t.Fatal(len(punctual), len(lazy))
		}
	})
}

// What is lost on the way and what comes is given out in order of time, also by one who looks once.
func TestGivesOutInOrder(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, s := range []topology.Shape{
		{Rate: topology.Mbit, Delay: 20 * ms, Jitter: 4 * ms, Distribution: "uniform", Unordered: true, Queue: topology.Queue{Bytes: 5000}},
		{Rate: topology.Mbit, Delay: 20 * ms, Queue: topology.Queue{Kind: topology.CoDel, Time: time.Second, Target: ms, Interval: 2 * ms}},
	} {
		l := newTest(s)
		for i := range 100 {
			l.Enter(time.Duration(i)*ms/2, 0, Packet{Size: 500, Frames: 1})
		}
		var last time.Duration
		lost, between := 0, 0 // between those that come
		l.Leave(time.Hour, func(_ int, p Packet) {
			switch {
			case p.Due < last:
				t.Errorf("%v: packet %d at %v, after one at %v", s, p.Number, p.Due, last)
			case p.Fate.Lost():
				lost++
			default:
				between = lost
			}
			last = p.Due
		})
		if between == 0 {
			t.Errorf("%v: none was lost between those that came", s)
		}
	}
}

// Nothing overtakes, unless it is asked for.
func TestKeepsOrder(t *testing.T) {
	t.Parallel()
	overtaken := 0
	shapes(t, func(t *testing.T, r *rand.Rand, s topology.Shape) {
		asked := s.Reordering > 0 || s.Unordered
		var last [2]uint64
		for _, p := range drive(t, newTest(s), somehow(r, 1000, 200*time.Microsecond)) {
			if p.Fate.Lost() {
				continue
			}
			if p.Number < last[p.From] {
				overtaken++
				if !asked {
					t.Errorf("packet %d of port %d after packet %d", p.Number, p.From, last[p.From])
				}
			}
			last[p.From] = p.Number
		}
	})
	if overtaken == 0 {
		t.Error("nothing was ever overtaken")
	}
}

// Chance depends on the seed and on the number of a packet, not on when it enters.
func TestFateIsTheSeeds(t *testing.T) {
	t.Parallel()
	type fate struct {
		lost bool
		flip int
	}
	differ := false
	shapes(t, func(t *testing.T, r *rand.Rand, s topology.Shape) {
		s.Queue, s.Rate, s.RateTrace, s.Outages = topology.Queue{}, 0, nil, nil // what depends on time
		fates := func(seed uint64, gap time.Duration) map[[3]uint64]fate {
			sends := somehow(rand.New(rand.NewPCG(7, uint64(gap))), 500, gap)
			for i := range sends {
				sends[i].port, sends[i].size = 0, 100
			}
			all := map[[3]uint64]fate{}
			for _, p := range drive(t, NewLink([2]topology.Shape{s, s}, testMTU, [2]uint64{seed, 0}), sends) {
				copy := uint64(0)
				if p.Copy {
					copy = 1
				}
				all[[3]uint64{p.Number, copy}] = fate{p.Fate.Lost(), p.Flip}
			}
			return all
		}
		equal := func(a, b map[[3]uint64]fate) bool {
			for k, v := range a {
				if w, ok := b[k]; !ok || v != w {
					return false
				}
			}
			return len(a) == len(b)
		}
		first := fates(1, time.Millisecond)
		if !equal(first, fates(1, 10*time.Microsecond)) {
			t.Error("the same seed gave another fate at other times")
		}
		differ = differ || !equal(first, fates(2, time.Millisecond))
	})
	if !differ {
		t.Error("another seed gave the same fates")
	}
}

// What leaves never has more than the rate, over any time, but for the one frame that ends in it.
func TestNeverExceedsTheRate(t *testing.T) {
	t.Parallel()
	shapes(t, func(t *testing.T, r *rand.Rand, s topology.Shape) {
		if s.Rate == 0 {
			s.Rate, s.RateTrace = topology.Rate(1e6+r.Uint64N(1e9)), nil
		}
		sends := somehow(r, 1000, 50*time.Microsecond)
		for i := range sends {
			sends[i].port = 0
		}
		var came []left
		for _, p := range drive(t, newTest(s), sends) {
			if !p.Fate.Lost() {
				came = append(came, p)
			}
		}
		for i := range came {
			bits := 0.0
			for _, p := range came[i+1:] {
				bits += float64(p.Size) * 8
				if took := float64(p.Due - came[i].Due); bits > float64(s.Rate)*(took+2)/1e9 {
					t.Fatalf("%v bits in %v", bits, p.Due-came[i].Due)
				}
			}
		}
	})
}

// The memory that a link takes is bounded, however much is sent over it; that of a link whose delay is always the same by
// its queue and what the rate brings in the delay: rate × delay × 2, unless it is short.
func TestHoldsNoMore(t *testing.T) {
	t.Parallel()
	const ms, size, burst = time.Millisecond, testMTU + header, 1 << 20
	for _, s := range []topology.Shape{
		{Delay: time.Second}, {Delay: time.Hour},
		{Delay: 30 * ms, Rate: 1e8}, {Delay: 100 * ms, Rate: 1e6}, {Delay: 100 * ms, Rate: 1e8}, {Delay: 50 * ms, Rate: 1e9}, {Delay: ms, Rate: 1e8},
		{Delay: 100 * ms, RateTrace: []topology.RateStep{{Length: 200 * ms, Rate: 5e7}, {Length: 100 * ms, Rate: 1e8}}},
		{Delay: 100 * ms, Rate: 1e8, Jitter: 50 * ms, Distribution: "pareto"},
		{Delay: 100 * ms, Rate: 1e8, Jitter: 10 * ms, Distribution: "uniform"},
		{Delay: 100 * ms, Rate: 1e8, Reordering: 0.5},
		{Rate: 1e6, Queue: topology.Queue{Bytes: 5000}},
	} {
		l := newTest(s)
		d := l.directions[0]
		rate := float64(d.pace.fastest())
		held, most := 0, 0
		send := func(now time.Duration) {
			l.Enter(now, 0, Packet{Size: size, Frames: 1})
			held += size
			l.Leave(now, func(_ int, p Packet) { held -= p.Size })
			most = max(most, held)
		}
		gap := time.Nanosecond // a second at three times the rate, or a burst
		if rate > 0 {
			gap = time.Duration(size * 8 / (3 * rate) * 1e9)
		}
		for now := time.Duration(0); now < time.Second && l.Counters(0).Packets < 500_000; now += gap {
			send(now)
		}
		perDelay := rate / 8 * s.Delay.Seconds()
		bound := perDelay + float64(Room(s, testMTU)) + size
		switch {
		case rate == 0:
			bound = mostHeld + burst
		case s.Jitter > 0:
			spread := 35 * ms // of uniform, from end to end
			if s.Distribution == "pareto" {
				spread = s.Delay + d.chance.most
			}
			bound += 2*rate/8*spread.Seconds() + burst
		case s.Reordering > 0:
			bound = 2*perDelay + burst + 2*float64(Room(s, testMTU)) // all of it passes before the rate, and what skips it has a queue
		case s.Delay >= 30*ms && bound > 2*perDelay && len(s.RateTrace) == 0:
			t.Errorf("%v may hold %.0f bytes, and is to hold %.0f at most", s, bound, 2*perDelay)
		}
		if float64(most) > bound || l.Counters(0).Fates[LostQueue] == 0 {
			t.Errorf("%v holds %d bytes, may %.0f; %d did not fit", s, most, bound, l.Counters(0).Fates[LostQueue])
		}
	}
}

// A delay that is always the same changes no packet's fate, only when it comes, whether it passes before the rate or after it.
func TestDelayOnlyDelays(t *testing.T) {
	t.Parallel()
	shapes(t, func(t *testing.T, r *rand.Rand, s topology.Shape) {
		s.Jitter, s.Distribution, s.Table, s.Reordering, s.Delay = 0, "", nil, 0, 0
		if s.Queue.Bytes == 0 && s.Queue.Time == 0 {
			s.Queue.Bytes = uint64(Room(s, testMTU))
		}
		sends := somehow(r, 1000, 50*time.Microsecond)
		at := func(delay time.Duration) map[string]int {
			s.Delay = delay
			all := map[string]int{}
			for _, p := range drive(t, newTest(s), sends) {
				due := p.Due
				if !p.Fate.Lost() {
					due -= delay
				}
				all[fmt.Sprint(p.From, p.Number, p.Copy, p.Fate, p.Flip, due)]++
			}
			return all
		}
		delay := time.Duration(r.Int64N(int64(time.Second)))
		if a, b := at(0), at(delay); !maps.Equal(a, b) {
			t.Errorf("%v: %v of delay changes fates", s, delay)
		}
	})
}

// What bounds memory decides on no packet's fate before a link gets some megabytes more than it passes: the queue does. For that it
// is 1 MiB more than the queue and what is on its way.
func TestQueueDecides(t *testing.T) {
	t.Parallel()
	const size = testMTU + header
	for _, rate := range []topology.Rate{topology.Mbit, 100 * topology.Mbit, topology.Gbit} {
		for _, s := range []topology.Shape{
			{}, {Delay: time.Millisecond}, {Delay: 100 * time.Millisecond}, {Delay: time.Millisecond, Queue: topology.Queue{Bytes: size}},
			{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Unordered: true},
		} {
			for _, load := range []float64{0.5, 0.95, 3} {
				s.Rate = rate
				lost := func(bounded bool) (fates []bool, total int) {
					l := newTest(s)
					if !bounded {
						d := l.directions[0]
						d.varied.most, d.same.most = math.MaxInt, math.MaxInt
					}
					r := rand.New(rand.NewPCG(7, 8))
					const packets = 5000
					fates = make([]bool, packets)
					out := func(_ int, p Packet) {
						if p.Fate.Lost() {
							fates[p.Number] = true
							total++
						}
					}
					now := time.Duration(0)
					for range packets {
						l.Enter(now, 0, Packet{Size: size, Frames: 1})
						now += time.Duration(r.ExpFloat64() * size * 8 / float64(rate) / load * float64(time.Second))
						l.Leave(now, out)
					}
					drain(l, out)
					return fates, total
				}
				want, all := lost(false)
				if got, total := lost(true); !slices.Equal(got, want) {
					t.Errorf("%v at %v of it: %d lost, without a bound %d, or others", s, load, total, all)
				}
			}
		}
	}
}

func drain(l *Link, out func(int, Packet)) {
	for at, ok := l.Next(); ok; at, ok = l.Next() {
		l.Leave(at, out)
	}
}
