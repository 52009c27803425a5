package medium

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"pqlab/topology"
)

// A packet takes its length at the rate, behind the delay and behind those before it, to the nanosecond.
func TestRate(t *testing.T) {
	t.Parallel()
	const delay = 5 * time.Millisecond
	for _, rate := range []topology.Rate{1e3, 1e6, 3e6, 7_777_777, 1e9, 2.5e9, 25e9, 100e9, 400e9} {
		const n, size = 1000, 1514
		s := topology.Shape{Rate: rate, Delay: delay, Queue: topology.Queue{Bytes: 1 << 40}}
		for i, p := range drive(t, newTest(s), evenly(n, 0, size)) {
			want := delay + time.Duration(float64(i+1)*size*8/float64(rate)*1e9)
			if p.Fate.Lost() || p.Due < want-1 || p.Due > want+1 {
				t.Fatalf("%v: packet %d is %v at %v, want %v", rate, i, p.Fate, p.Due, want)
			}
		}
	}
}

// A bandwidth trace gives what it says in each step, and begins anew.
func TestRateTrace(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	s := topology.Shape{
		RateTrace: []topology.RateStep{{Length: 100 * ms, Rate: 10e6}, {Length: 50 * ms}, {Length: 50 * ms, Rate: 40e6}},
		Queue:     topology.Queue{Bytes: 1 << 30},
	}
	l := newTest(s)
	l.Set(30*ms, 0, s) // where it begins
	var came [10]float64
	for i := range 100_000 {
		l.Enter(30*ms, 0, Packet{Size: 125, Frames: 1, Data: []byte{byte(i)}})
	}
	l.Leave(1030*ms, func(_ int, p Packet) {
		if step := int((p.Due - 30*ms - 1) / (100 * ms)); step < 10 {
			came[step] += 1000
		}
	})
	for i, bits := range came {
		want := 1e6 // 10 Mbit/s for 100 ms
		if i%2 == 1 {
			want = 2e6 // nothing for 50 ms, 40 Mbit/s for 50 ms
		}
		if math.Abs(bits-want) > 2000 {
			t.Errorf("%d ms: %.0f bits, want %.0f", i*100, bits, want)
		}
	}
	// A packet may take many laps.
	slow := newPace(topology.Shape{RateTrace: []topology.RateStep{{Length: time.Second, Rate: 8}, {Length: time.Second}}}, 0)
	if got := slow.send(500*ms, 80); got != 20*time.Second-500*ms+time.Second {
		t.Errorf("10 bytes from 0.5 s take until %v", got)
	}
}

// A queue has room for what it says, with what is being sent.
func TestDropTail(t *testing.T) {
	t.Parallel()
	const mbit = topology.Mbit
	for _, tt := range []struct {
		shape topology.Shape
		room  int // bytes
	}{
		{topology.Shape{Rate: 100 * mbit}, 300_000},
		{topology.Shape{Rate: 100 * mbit, Delay: 30 * time.Millisecond}, 300_000},
		{topology.Shape{Rate: 100 * mbit, Delay: 50 * time.Millisecond}, 437_500},
		{topology.Shape{Rate: 8e3}, 4020},
		{topology.Shape{Rate: topology.Gbit, Delay: time.Hour}, math.MaxUint32},
		{topology.Shape{Rate: 100 * mbit, Queue: topology.Queue{Bytes: 15140}}, 15140},
		{topology.Shape{Rate: 100 * mbit, Queue: topology.Queue{Time: 10 * time.Millisecond}}, 125_000},
		{topology.Shape{Rate: 100 * mbit, Queue: topology.Queue{Bytes: 1}}, 1514},
		{topology.Shape{RateTrace: []topology.RateStep{{Length: time.Second, Rate: 10 * mbit}, {Length: time.Second, Rate: 30 * mbit}}, Queue: topology.Queue{Time: 10 * time.Millisecond}}, 25_000},
		{topology.Shape{Rate: 100 * mbit, Queue: topology.Queue{Kind: topology.CoDel, Time: 10 * time.Millisecond}}, 125_000},
	} {
		if got := Room(tt.shape, testMTU); got != tt.room {
			t.Errorf("%v: room for %d bytes, want %d", tt.shape, got, tt.room)
		}
		const size = 1000
		came := 0
		for _, p := range drive(t, newTest(tt.shape), evenly(3000, 0, size)) {
			switch {
			case p.Fate == Delivered:
				came++
			case p.Fate != LostQueue || p.Due != 0: // it does not wait for the delay to be over
				t.Fatalf("packet %d is %v at %v", p.Number, p.Fate, p.Due)
			}
		}
		if came != min(tt.room/size, 3000) {
			t.Errorf("%v: %d of 3000 packets had room, want %d", tt.shape, came, tt.room/size)
		}
	}
}

// Under a constant load of twice the rate, CoDel drops first when the delay has been above target for an interval, and then
// in intervals that shrink with the square root (RFC 8289 section 5.5).
func TestCoDel(t *testing.T) {
	t.Parallel()
	const rate, size = 10 * topology.Mbit, 1250 // 1 ms each
	for _, q := range []topology.Queue{{Kind: topology.CoDel}, {Kind: topology.CoDel, Target: 20 * time.Millisecond, Interval: 400 * time.Millisecond}} {
		q.Bytes = 1 << 30
		target, interval := q.Control()
		var drops []time.Duration
		above := time.Duration(0)
		for _, p := range drive(t, newTest(topology.Shape{Rate: rate, Queue: q}), evenly(20_000, 500*time.Microsecond, size)) {
			switch {
			case p.Fate == LostQueue:
				drops = append(drops, p.Due)
			case above == 0 && p.Due-p.Entered-time.Millisecond >= target:
				above = p.Due - time.Millisecond // when it began to be sent
			}
		}
		if len(drops) < 100 || drops[0] < above+interval || drops[0] > above+interval+time.Millisecond {
			t.Fatalf("%v: %d drops, the first at %v, above target since %v", q, len(drops), drops[:min(1, len(drops))], above)
		}
		next := drops[0]
		for i, at := range drops {
			if at < next || at > next+2*time.Millisecond {
				t.Errorf("%v: drop %d is at %v, want %v", q, i, at, next)
			}
			next += time.Duration(float64(interval) / math.Sqrt(float64(i+1)))
		}
	}
}

// CoDel leaves a queue alone that empties within an interval, and one with no more than a packet.
func TestCoDelLetsBurstsPass(t *testing.T) {
	t.Parallel()
	s := topology.Shape{Rate: 10 * topology.Mbit, Queue: topology.Queue{Kind: topology.CoDel, Bytes: 1 << 20}}
	var sends []send
	for burst := range 20 {
		for range 80 { // 80 ms of the rate
			sends = append(sends, send{time.Duration(burst) * 200 * time.Millisecond, 0, 1250})
		}
	}
	for _, p := range drive(t, newTest(s), sends) {
		if p.Fate.Lost() {
			t.Fatalf("packet %d is %v", p.Number, p.Fate)
		}
	}
	s.Rate = 100_000 // a packet of 1500 bytes takes 120 ms: each waits half of that, alone
	sends = evenly(100, 120*time.Millisecond, 1500)
	for i := range sends[1:] {
		sends[i+1].at -= 60 * time.Millisecond
	}
	for _, p := range drive(t, newTest(s), sends) {
		if p.Fate.Lost() {
			t.Fatalf("alone, packet %d is %v", p.Number, p.Fate)
		}
	}
}

// Soon after the last time CoDel goes on with the rate of drops that it had then; later it begins anew.
func TestCoDelRemembers(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, tt := range []struct {
		pause time.Duration
		soon  bool
	}{{1500 * ms, true}, {6 * time.Second, false}} {
		s := topology.Shape{Rate: 10 * topology.Mbit, Queue: topology.Queue{Kind: topology.CoDel, Bytes: 1 << 30}} // 1 ms for a packet
		sends := evenly(2400, 800*time.Microsecond, 1250)
		again := sends[len(sends)-1].at + tt.pause // by then the queue is empty
		for i := range 4000 {
			sends = append(sends, send{again + time.Duration(i)*500*time.Microsecond, 0, 1250})
		}
		var drops []time.Duration
		for _, p := range drive(t, newTest(s), sends) {
			if p.Fate == LostQueue && p.Due > again {
				drops = append(drops, p.Due)
			}
		}
		if len(drops) < 5 {
			t.Fatalf("%d drops", len(drops))
		}
		if gap := drops[1] - drops[0]; tt.soon != (gap < 60*ms) {
			t.Errorf("after %v drops begin %v apart", tt.pause, gap)
		}
	}
}

// What leaves at a time makes room for what comes at that time.
func TestRoomIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} {
		s := topology.Shape{Rate: 8 * topology.Mbit, Delay: delay, Queue: topology.Queue{Bytes: 2000}}
		sends := append(evenly(1, 0, 1000), evenly(1000, time.Millisecond, 1000)...) // which take 1 ms each
		for _, p := range drive(t, newTest(s), sends) {
			if p.Fate.Lost() {
				t.Fatalf("delay %v: packet %d is %v", delay, p.Number, p.Fate)
			}
		}
	}
}

// What skips the delay goes before what waits for the rate, which holds for it too.
func TestReorderedGoesFirst(t *testing.T) {
	t.Parallel()
	s := topology.Shape{Rate: 10 * topology.Mbit, Delay: 20 * time.Millisecond, Reordering: 0.05}
	var due []time.Duration
	skipped := 0
	for _, p := range drive(t, newTest(s), evenly(2000, time.Millisecond, 1250)) {
		due = append(due, p.Due)
		if wait := p.Due - p.Entered; wait < s.Delay {
			skipped++
			if wait > 2*time.Millisecond {
				t.Errorf("packet %d skips the delay and waits for %v", p.Number, wait)
			}
		}
	}
	if !slices.IsSorted(due) || skipped < 50 {
		t.Errorf("%d of 2000 skipped the delay", skipped)
	}
}

// A change holds from the next packet on, and leaves what is on its way its delay.
func TestSet(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	l := newTest(topology.Shape{Delay: 60 * ms, Loss: 0.5})
	lost := map[uint64]bool{}
	var due [300]time.Duration
	leave := func(now time.Duration) {
		l.Leave(now, func(_ int, p Packet) {
			due[p.Number] = p.Due
			lost[p.Number] = p.Fate.Lost()
		})
	}
	for i := range 300 {
		now := time.Duration(i) * ms
		switch i {
		case 100:
			l.Set(now, 0, topology.Shape{Delay: 5 * ms, Loss: 0.5})
		case 200:
			l.Set(now, 0, topology.Shape{Delay: 30 * ms, Rate: 8e6})
		}
		l.Enter(now, 0, Packet{Size: 100, Frames: 1})
		leave(now)
	}
	leave(time.Hour)
	var last time.Duration
	for i := range 100 {
		if !lost[uint64(i)] {
			last = due[i]
		}
	}
	for i := range 100 {
		at := time.Duration(i) * ms
		if !lost[uint64(i)] && due[i] != at+60*ms {
			t.Errorf("packet %d comes at %v", i, due[i])
		}
		// None of these overtakes the last before the change.
		if want := max(at+105*ms, last); !lost[uint64(i)+100] && due[i+100] != want {
			t.Errorf("packet %d comes at %v, want %v", i+100, due[i+100], want)
		}
		if lost[uint64(i)] != lost[uint64(i)+100] {
			t.Errorf("after the change packet %d has another fate than the first time", i)
		}
		if want := at + 230*ms + 100*time.Microsecond; lost[uint64(i)+200] || due[i+200] != want {
			t.Errorf("packet %d comes at %v, want %v", i+200, due[i+200], want)
		}
	}
}

// A change of the rate holds for what is being sent too: the part that is left takes its length at the new one.
func TestSetWhileSending(t *testing.T) {
	t.Parallel()
	const (
		ms   = time.Millisecond
		size = 1500 // 12,000 bits
	)
	trace := func(steps ...topology.RateStep) topology.Shape { return topology.Shape{RateTrace: steps} }
	slow := topology.Shape{Rate: 1000}
	stuck := trace(topology.RateStep{Length: 1 * ms, Rate: 6 * topology.Mbit}, topology.RateStep{Length: 20 * time.Second})
	for name, tt := range map[string]struct {
		shape topology.Shape
		set   map[time.Duration]topology.Shape
		due   time.Duration
	}{
		"a step that passes nothing, none": {stuck, map[time.Duration]topology.Shape{3 * ms: {}}, 3 * ms},
		"a step that passes nothing, rate": {stuck, map[time.Duration]topology.Shape{3 * ms: {Rate: topology.Mbit}}, 9 * ms},
		"faster":                           {slow, map[time.Duration]topology.Shape{6 * time.Second: {Rate: topology.Mbit}}, 6*time.Second + 6*ms},
		"at once faster":                   {slow, map[time.Duration]topology.Shape{0: {Rate: topology.Gbit}}, 12 * time.Microsecond},
		"slower":                           {topology.Shape{Rate: topology.Mbit}, map[time.Duration]topology.Shape{6 * ms: slow}, 6*time.Second + 6*ms},
		"the same":                         {slow, map[time.Duration]topology.Shape{5 * time.Second: {Rate: 1000, Loss: 0.5}}, 12 * time.Second},
		"a trace":                          {slow, map[time.Duration]topology.Shape{6 * time.Second: trace(topology.RateStep{Length: ms}, topology.RateStep{Length: ms, Rate: 3 * topology.Mbit})}, 6*time.Second + 4*ms},
		"twice":                            {slow, map[time.Duration]topology.Shape{3 * time.Second: {Rate: 3000}, 5 * time.Second: {Rate: 6000}}, 5500 * ms},
		"when it had been sent":            {slow, map[time.Duration]topology.Shape{13 * time.Second: {Rate: 1}}, 12 * time.Second},
		"later than ever":                  {topology.Shape{RateTrace: []topology.RateStep{{Length: time.Nanosecond, Rate: 1}, {Length: 1 << 40}}}, map[time.Duration]topology.Shape{ms: {Rate: 12 * topology.Mbit}}, 2 * ms},
	} {
		l := newTest(tt.shape)
		l.Enter(0, 0, Packet{Size: size, Frames: 1})
		l.Enter(0, 0, Packet{Size: size, Frames: 1}) // waits
		var due []time.Duration
		leave := func(at time.Duration) {
			l.Leave(at, func(_ int, p Packet) { due = append(due, p.Due) })
		}
		for _, at := range slices.Sorted(maps.Keys(tt.set)) {
			l.Set(at, 0, tt.set[at])
			if len(due) == 0 {
				leave(at)
			}
		}
		if next, ok := l.Next(); len(due) == 0 && (!ok || next != tt.due) {
			t.Errorf("%s: next is at %v, %v, want %v", name, next, ok, tt.due)
		}
		leave(max(tt.due, 13*time.Second))
		if len(due) == 0 || due[0] != tt.due {
			t.Errorf("%s: comes at %v, want %v", name, due, tt.due)
		}
	}
}

// A large segment stays whole where nothing befalls its frames by themselves.
func TestWhole(t *testing.T) {
	t.Parallel()
	const segment = 64 << 10
	for _, tt := range []struct {
		shape topology.Shape
		whole bool
	}{
		{topology.Shape{}, true}, {topology.Shape{Delay: time.Second}, true}, {topology.Shape{Rate: 10e9}, true}, {topology.Shape{Rate: 1e9}, false},
		{topology.Shape{Loss: 0.01}, false}, {topology.Shape{Corruption: 0.01}, false}, {topology.Shape{Delay: time.Second, Jitter: time.Millisecond}, false},
		{topology.Shape{LossTrace: []int{1, 1}}, false}, {topology.Shape{Outages: []topology.Outage{{Length: 1}}}, true},
		{topology.Shape{Rate: 10e9, Queue: topology.Queue{Kind: topology.CoDel}}, false}, {topology.Shape{Rate: 10e9, Queue: topology.Queue{Bytes: 100_000}}, false},
		{topology.Shape{RateTrace: []topology.RateStep{{Length: time.Second, Rate: 10e9}}}, true},
	} {
		if got := newTest(tt.shape).Whole(0); (got >= segment) != tt.whole {
			t.Errorf("%v: up to %d bytes stay whole", tt.shape, got)
		}
	}
}

// Nor does a change have a packet wait for longer than its delay, and for those before it.
func TestSetWhereDelaysVary(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	wide := topology.Shape{Delay: 60 * ms, Jitter: 15 * ms, Distribution: "uniform"}
	narrow := topology.Shape{Delay: 60 * ms, Jitter: ms, Distribution: "uniform"}
	reordering := topology.Shape{Delay: 60 * ms, Reordering: 0.1}
	fixed, short := topology.Shape{Delay: 60 * ms}, topology.Shape{Delay: 5 * ms}
	for _, tt := range [][2]topology.Shape{
		{wide, fixed}, {wide, short}, {wide, narrow}, {wide, reordering}, {fixed, wide}, {short, wide}, {narrow, wide},
		{reordering, fixed}, {reordering, short}, {reordering, wide}, {fixed, reordering}, {short, reordering},
	} {
		for _, rate := range []topology.Rate{0, 80e6} {
			const packets, change = 300, 100
			sending := time.Duration(0) // at most, of all that may wait at once
			if rate > 0 {
				sending = packets * 10 * time.Microsecond
			}
			tt[0].Rate, tt[1].Rate = rate, rate
			l := newTest(tt[0])
			var latest [2]time.Duration // of those before the change and those after it
			var last uint64
			see := func(_ int, p Packet) {
				shape := min(int(p.Number/change), 1)
				if most := max(p.Entered+newChance(tt[shape], 1).most, latest[0]) + sending; p.Fate.Lost() || p.Due > most {
					t.Errorf("%v, then %v: packet %d is %v, at %v, by %v", tt[0], tt[1], p.Number, p.Fate, p.Due, most)
				}
				if tt[0].Reordering+tt[1].Reordering == 0 && p.Number < last {
					t.Errorf("%v, then %v: packet %d comes after packet %d", tt[0], tt[1], p.Number, last)
				}
				latest[shape], last = max(latest[shape], p.Due), p.Number
			}
			for i := range packets {
				now := time.Duration(i) * ms
				if i == change {
					l.Set(now, 0, tt[1])
				}
				l.Enter(now, 0, Packet{Size: 100, Frames: 1})
				l.Leave(now, see)
			}
			l.Leave(time.Hour, see)
			if last == 0 {
				t.Errorf("%v, then %v: nothing came", tt[0], tt[1])
			}
		}
	}
}

// What waits for the rate after a delay became short waits for what is on its way meanwhile, not after that.
func TestSetBeforeABurst(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	const packets, size = 100, 1000
	shape := topology.Shape{Rate: 8e6, Delay: 60 * ms, Queue: topology.Queue{Bytes: packets * size}} // 1 ms for each
	l := newTest(shape)
	l.Enter(0, 0, Packet{Size: size, Frames: 1})
	shape.Delay = 5 * ms
	l.Set(ms, 0, shape)
	for range packets {
		l.Enter(ms, 0, Packet{Size: size, Frames: 1})
	}
	l.Leave(time.Hour, func(_ int, p Packet) {
		if want := max(61*ms, time.Duration(1+p.Number+5)*ms); p.Fate.Lost() || p.Due != want {
			t.Errorf("packet %d is %v, at %v, want %v", p.Number, p.Fate, p.Due, want)
		}
	})
}

// What has to wait for what was on its way when a link changed has room for that, and is not lost.
func TestSetLosesNothing(t *testing.T) {
	t.Parallel()
	const ms, size = time.Millisecond, testMTU + header
	varied := topology.Shape{Rate: topology.Gbit, Delay: 40 * ms, Jitter: 5 * ms, Distribution: "uniform"} // its queue has what waits
	for _, tt := range [][2]topology.Shape{
		{varied, {Rate: topology.Gbit, Delay: 40 * ms}}, {varied, {Rate: topology.Gbit}}, {varied, {}},
		{{Rate: topology.Gbit, Delay: 40 * ms}, {}}, {{Delay: 40 * ms}, {}}, {{Delay: 40 * ms}, {Delay: 5 * ms}}, {{Delay: 40 * ms}, varied},
		{varied, {Rate: 10 * topology.Mbit, Queue: topology.Queue{Bytes: 64 << 20}}},
	} {
		l := newTest(tt[0])
		now, gap := time.Duration(0), size*8*10/9*time.Nanosecond // nine tenths of the rate
		send := func(until time.Duration) {
			for ; now < until; now += gap {
				l.Enter(now, 0, Packet{Size: size, Frames: 1})
				l.Leave(now, func(int, Packet) {})
			}
		}
		send(100 * ms)
		l.Set(now, 0, tt[1])
		if tt[1].Rate > 0 {
			gap *= time.Duration(topology.Gbit / tt[1].Rate)
		}
		send(300 * ms)
		if lost := l.Counters(0).Lost(); lost > 0 {
			t.Errorf("%v, then %v: %d lost", tt[0], tt[1], lost)
		}
	}
}
