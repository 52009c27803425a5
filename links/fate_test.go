package links

import (
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/vm/guest"
	"pqlab/topology"
	"pqlab/traffic"
)

// prober is a traffic.Prober over a link.
type prober struct {
	*traffic.Prober
	t    testing.TB
	sent uint64
	link *Link
	side int // from which it sends
}

func newProber(t testing.TB, link *Link, a, b *netns.Namespace, size int) *prober {
	t.Helper()
	return proberTo(t, link, 0, a, b, size)
}

// proberTo sends from a, which is that side of the link, to b.
func proberTo(t testing.TB, link *Link, side int, a, b *netns.Namespace, size int) *prober {
	t.Helper()
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(2 - side)}), 0)
	p, err := traffic.NewProber(a.Do, b.Do, to, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return &prober{Prober: p, t: t, link: link, side: side}
}

// keepUp waits until a wire has read all that was sent but so many packets: it has a model of what it reads, and an
// interface has room for so much that it has not read.
func (p *prober) keepUp(unread uint64) {
	p.t.Helper()
	if !p.link.Driven() {
		return
	}
	for end := time.Now().Add(2 * time.Minute); p.link.State().Wire[p.side].Packets+unread < p.sent; {
		if time.Now().After(end) {
			p.t.Fatalf("the wire has read %d of %d packets", p.link.State().Wire[p.side].Packets, p.sent)
		}
		time.Sleep(time.Millisecond)
	}
}

// pace sends n datagrams, gap apart.
func (p *prober) pace(n int, gap time.Duration) {
	p.t.Helper()
	for n > 0 {
		some := min(n, 256)
		if err := p.Send(p.t.Context(), some, gap); err != nil {
			p.t.Fatal(err)
		}
		n, p.sent = n-some, p.sent+uint64(some)
		p.keepUp(1000)
	}
}

// arrivals waits until nothing has come for so long.
func (p *prober) arrivals(quiet time.Duration) traffic.Fates {
	p.t.Helper()
	got, err := p.Settle(p.t.Context(), quiet)
	if err != nil {
		p.t.Fatal(err)
	}
	if got.Damaged > 0 {
		p.t.Fatalf("%d datagrams came with other bytes than were sent", got.Damaged)
	}
	return got
}

// within tells whether seen of n is likely for the probability p: it lies farther off once in ten million times.
func within(seen, n int, p float64) bool {
	return math.Abs(float64(seen)-float64(n)*p) <= 5.33*math.Sqrt(float64(n)*p*(1-p))
}

// steadily tries again, as a busy machine makes packets late now and then, and never early.
func steadily(t *testing.T, try func() (late bool)) {
	t.Helper()
	const tries = 20
	for range tries {
		if !try() {
			return
		}
	}
	t.Errorf("late in %d tries", tries)
}

func TestDelay(t *testing.T) { each(t, testDelay) }

func testDelay(t *testing.T, shaper Shaper) {
	made, a, b := pairOf(t, planned("bare"), shaper)
	p := newProber(t, made, a, b, 100)
	p.pace(200, time.Millisecond)
	bare := p.arrivals(500 * time.Millisecond).Delays()
	own := bare[len(bare)/2] // what the way takes without a delay
	for _, d := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		steadily(t, func() bool {
			made, a, b := pairOf(t, shaped(topology.Shape{Delay: d}), shaper)
			p := newProber(t, made, a, b, 100)
			p.pace(300, time.Millisecond)
			got := p.arrivals(500 * time.Millisecond).Delays()
			if len(got) != 300 || got[0] < d {
				t.Fatalf("%v: %d of 300 came, the first after %v", d, len(got), got[:min(1, len(got))])
			}
			median := got[len(got)/2]
			t.Logf("%v: least %v, median %v, 99%% %v; without a delay, median %v", d, got[0], median, got[len(got)*99/100], own)
			// One of so many finds an idle processor. (An emulated one is slow even then.)
			const prompt = 300 * time.Microsecond
			return median > d+own+time.Millisecond || got[0] > d+prompt && !guest.Emulated()
		})
	}
}

func TestJitter(t *testing.T) { each(t, testJitter) }

func testJitter(t *testing.T, shaper Shaper) {
	const n, mean, jitter = 1000, 50 * time.Millisecond, 4 * time.Millisecond
	for _, tt := range []struct {
		shape            topology.Shape
		low, middle, top float64 // quantiles 10 %, 50 % and 85 %, in standard deviations
	}{
		{topology.Shape{}, -1.28, 0, 1.036},
		{topology.Shape{Distribution: "uniform"}, -1.386, 0, 1.212},
		{topology.Shape{Distribution: "pareto"}, -0.54, -0.277, 0.441},
		{topology.Shape{Table: []float64{0, 0, 0, 0, 1}}, -0.5, -0.5, 2},
	} {
		tt.shape.Delay, tt.shape.Jitter, tt.shape.Unordered = mean, jitter, true
		steadily(t, func() (tooLate bool) {
			made, a, b := pairOf(t, shaped(tt.shape), shaper)
			p := newProber(t, made, a, b, 100)
			p.pace(n, 500*time.Microsecond)
			arrived := p.arrivals(500 * time.Millisecond)
			got := arrived.Delays()
			late, _ := arrived.Overtaken()
			if len(got) != n || late < n/10 {
				t.Fatalf("%v: %d of %d came, %d overtaken", tt.shape, len(got), n, late)
			}
			t.Logf("%v: 10%% %v, 50%% %v, 85%% %v; %d overtaken", tt.shape, got[n/10], got[n/2], got[n*85/100], late)
			for _, q := range []struct {
				at   int
				want float64
			}{{n / 10, tt.low}, {n / 2, tt.middle}, {n * 85 / 100, tt.top}} {
				want := mean + time.Duration(q.want*float64(jitter))
				const chance = jitter / 4 // more than a quantile of so many differs by
				if got[q.at] < want-chance {
					t.Errorf("%v: quantile %.2f is %v, want %v", tt.shape, float64(q.at)/n, got[q.at], want)
				}
				tooLate = tooLate || got[q.at] > want+chance+time.Millisecond
			}
			return tooLate
		})
		tt.shape.Unordered = false
		made, a, b := pairOf(t, shaped(tt.shape), shaper)
		p := newProber(t, made, a, b, 100)
		p.pace(n/2, 500*time.Microsecond)
		arrived := p.arrivals(500 * time.Millisecond)
		if late, _ := arrived.Overtaken(); late != 0 || len(arrived.Arrived) != n/2 {
			t.Errorf("%v: %d of %d came, %d overtaken", tt.shape, len(arrived.Arrived), n/2, late)
		}
	}
}

func TestLoss(t *testing.T) { each(t, testLoss) }

func testLoss(t *testing.T, shaper Shaper) {
	const n = 30000
	for _, tt := range []struct {
		shape     topology.Shape
		share     float64 // of packets
		burst     float64 // mean, in packets
		deviation float64 // of one burst's length
	}{
		{topology.Shape{Loss: 0.01}, 0.01, 1 / 0.99, 0.1},
		{topology.Shape{Loss: 0.1, LossCorrelation: 0.5}, 0.1, 1 / 0.45, math.Sqrt(0.55) / 0.45},
		{topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.01, R: 0.25}}, 0.01 / 0.26, 4, math.Sqrt(0.75) / 0.25},
	} {
		made, a, b := pairOf(t, shaped(tt.shape), shaper)
		p := newProber(t, made, a, b, 100)
		p.pace(n, 0)
		got := p.arrivals(time.Second)
		lost, bursts := got.Missing(), got.Bursts()
		mean := float64(lost) / float64(bursts)
		t.Logf("%v: %d of %d lost (%.3f %%, asked %.3f %%) in %d bursts of %.2f (asked %.2f)", tt.shape, lost, n,
			float64(lost)/n*100, tt.share*100, bursts, mean, tt.burst)
		if late, repeated := got.Overtaken(); late+repeated > 0 {
			t.Errorf("%v: %d overtaken, %d repeated", tt.shape, late, repeated)
		}
		if math.Abs(mean-tt.burst) > 5.33*tt.deviation/math.Sqrt(float64(bursts)) {
			t.Errorf("%v: bursts of %.2f, want %.2f", tt.shape, mean, tt.burst)
		}
		// Bursts make the share vary more: by as many independent losses as there are bursts.
		spread := 5.33 * math.Sqrt(n*tt.share*tt.burst*2)
		if tt.burst < 1.1 {
			spread = 5.33 * math.Sqrt(n*tt.share)
		}
		if math.Abs(float64(lost)-n*tt.share) > spread {
			t.Errorf("%v: %d of %d lost", tt.shape, lost, n)
		}
	}
}

// Loss in the bad and in the good state, and what else may befall a packet.
func TestFates(t *testing.T) { each(t, testFates) }

func testFates(t *testing.T, shaper Shaper) {
	const n = 20000
	try := func(s topology.Shape, gap time.Duration, n int) traffic.Fates {
		made, a, b := pairOf(t, shaped(s), shaper)
		p := newProber(t, made, a, b, 200)
		p.pace(n, gap)
		return p.arrivals(time.Second)
	}
	got := try(topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.5, R: 0.5, Bad: 0.3, Good: 0.1}}, 0, n)
	if lost := got.Missing(); !within(lost, n, 0.2) {
		t.Errorf("lost in both states: %d of %d", lost, n)
	}
	got = try(topology.Shape{Duplication: 0.02}, 0, n)
	if late, repeated := got.Overtaken(); late != 0 || !within(repeated, n, 0.02) || len(got.Arrived) != n+repeated {
		t.Errorf("duplication: %d came, %d twice, %d overtaken", len(got.Arrived), repeated, late)
	} else {
		t.Logf("2%% duplication: %d of %d", repeated, n)
	}
	// Of a frame of 242 bytes, a bit of the source's hardware address may change unseen.
	got = try(topology.Shape{Corruption: 0.05}, 0, n)
	if lost := got.Missing(); !within(lost, n, 0.05*(1-6.0/242)) {
		t.Errorf("corruption: %d of %d thrown away", lost, n)
	} else {
		t.Logf("5%% corruption: %d of %d thrown away", lost, n)
	}
	const paced = 3000
	const long = 200 * time.Millisecond // of which a busy machine makes no half of those that skip it
	got = try(topology.Shape{Delay: long, Reordering: 0.1}, 200*time.Microsecond, paced)
	early := 0
	for _, a := range got.Arrived {
		if a.Delay < long/2 {
			early++
		}
	}
	late, repeated := got.Overtaken()
	t.Logf("10%% reordering: %d of %d skipped the delay, %d overtaken", early, paced, late)
	if !within(early, paced, 0.1) || late < paced/2 || repeated != 0 || len(got.Arrived) != paced {
		t.Errorf("reordering: %d came, %d early, %d overtaken, %d repeated", len(got.Arrived), early, late, repeated)
	}
}

// The same seed and the same packets have the same fate.
func TestSeed(t *testing.T) { each(t, testSeed) }

func testSeed(t *testing.T, shaper Shaper) {
	const n = 3000
	fate := func(seed uint64, back bool) []bool {
		link := shaped(topology.Shape{Loss: 0.1})
		link.Seed = seed
		made, a, b := pairOf(t, link, shaper)
		if !made.State().Seeded {
			t.Skip("this kernel's netem takes no seed (Linux 6.6 does)")
		}
		side := 0
		if back {
			a, b, side = b, a, 1
		}
		p := proberTo(t, made, side, a, b, 100)
		p.pace(n, 0)
		return p.arrivals(500 * time.Millisecond).Lost()
	}
	first := fate(1, false)
	if again := fate(1, false); !slices.Equal(first, again) {
		t.Error("the same seed gave another fate")
	}
	if other := fate(2, false); slices.Equal(first, other) {
		t.Error("another seed gave the same fate")
	}
	if back := fate(1, true); slices.Equal(first, back) {
		t.Error("both directions have the same fate")
	}
}

// What is sent as one large segment has as many fates as it has packets.
func TestCutsSegments(t *testing.T) { each(t, testCutsSegments) }

func testCutsSegments(t *testing.T, shaper Shaper) {
	made, a, b := pairOf(t, shaped(topology.Shape{Loss: 0.3}), shaper)
	const size, each, sends = 500, 40, 200
	p := newProber(t, made, a, b, size)
	raw, err := p.Socket().SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	for range sends {
		if err := p.SendTogether(each); err != nil {
			t.Fatal(err)
		}
	}
	got := p.arrivals(time.Second)
	lost := got.Lost()
	whole := 0 // sends that were lost or came as one
	for i := 0; i < len(lost); i += each {
		if !slices.Contains(lost[i:i+each], !lost[i]) {
			whole++
		}
	}
	if !within(got.Missing(), len(lost), 0.3) || whole > 0 {
		t.Errorf("%d of %d lost; %d of %d sends had one fate", got.Missing(), len(lost), whole, sends)
	}
}

// A delay costs no rate: neither TCP's, which must hold it all on the way, nor that of small packets.
func TestDelayKeepsRate(t *testing.T) { each(t, testDelayKeepsRate) }

func testDelayKeepsRate(t *testing.T, shaper Shaper) {
	const rate = 100 * topology.Mbit
	var queue topology.Queue
	if guest.Emulated() {
		queue.Time = 150 * time.Millisecond // it stops for longer than the default queue has room
	}
	// second is the share of the rate that passes in the second best of many windows: a busy machine takes from most.
	second := func(delay time.Duration) float64 {
		_, a, b := pairOf(t, shaped(topology.Shape{Rate: rate, Delay: delay, Queue: queue}), shaper)
		f := tcpWindow(t, a, b, "10.0.0.2", rate, 0)
		defer f.stop()
		f.window(uint64(rate) / 8) // TCP's start
		var seen []float64
		for len(seen) < 30 && (len(seen) < 4 || seen[len(seen)-2] < 0.95) {
			got, _ := f.window(uint64(rate) / 8 / 10)
			seen = append(seen, got/(float64(rate)*1448/1514))
			slices.Sort(seen)
		}
		t.Logf("TCP, %v and delay %v: shares of what the rate leaves for payload %.3f", rate, delay, seen)
		return seen[len(seen)-2]
	}
	if got := second(50 * time.Millisecond); got < 0.9 {
		if want := second(time.Millisecond); got < 0.85*want {
			t.Errorf("TCP got %.3f of the rate over a delay of 50 ms, %.3f over one of 1 ms", got, want)
		}
	}
	const slow = 5 * topology.Mbit
	s := topology.Shape{Rate: slow, Delay: 500 * time.Millisecond} // 2200 packets on the way
	_, a, b := pairOf(t, shaped(s), shaper)
	g := udp(t, a, b, 100)
	defer g.stop()
	g.window(uint64(slow) / 8 / 2)
	var seen []float64
	for len(seen) < 20 && (len(seen) < 2 || seen[len(seen)-2] < 0.95) {
		got, _ := g.window(uint64(slow) / 8 / 4)
		seen = append(seen, got/float64(slow))
		slices.Sort(seen)
	}
	t.Logf("UDP of 100 bytes, %v: %.3f of the rate", s, seen)
	if got := seen[len(seen)-2]; got < 0.9 {
		t.Errorf("UDP of 100 bytes: %.3f of the rate", seen)
	}
}

// A change holds from the next packet on, loses none and lets none overtake.
func TestChanges(t *testing.T) { each(t, testChanges) }

func testChanges(t *testing.T, shaper Shaper) {
	steadily(t, func() bool { return changes(t, shaper) })
}

func changes(t *testing.T, shaper Shaper) (tooLate bool) {
	made, a, b := pairOf(t, shaped(topology.Shape{Delay: 60 * time.Millisecond}), shaper)
	p := newProber(t, made, a, b, 100)
	set := func(s topology.Shape) {
		t.Helper()
		p.keepUp(0) // what a wire has not read yet is not on its way, and comes after the change
		if err := made.Set(func(now [2]topology.Shape) ([2]topology.Shape, error) { return [2]topology.Shape{s, now[1]}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	const n = 100
	p.pace(n, time.Millisecond)
	set(topology.Shape{Delay: 5 * time.Millisecond})
	p.pace(n, time.Millisecond)
	set(topology.Shape{Delay: 30 * time.Millisecond, Rate: 10 * topology.Mbit})
	p.pace(n, time.Millisecond)
	got := p.arrivals(time.Second)
	late, repeated := got.Overtaken()
	if len(got.Arrived) != 3*n || late+repeated != 0 {
		t.Fatalf("%d of %d came, %d overtaken, %d repeated", len(got.Arrived), 3*n, late, repeated)
	}
	// The second part catches up with what is on its way of the first.
	for i, want := range []time.Duration{60 * time.Millisecond, 5 * time.Millisecond, 30 * time.Millisecond} {
		part := traffic.Fates{Arrived: got.Arrived[i*n+n*3/4 : (i+1)*n]}.Delays()
		median := part[len(part)/2]
		t.Logf("part %d: median %v, asked %v", i, median, want)
		if part[0] < want {
			t.Errorf("part %d: least %v, median %v, want %v", i, part[0], median, want)
		}
		tooLate = tooLate || median > want+2*time.Millisecond
	}
	if state := made.State(); state.Shapes[0].Delay != 30*time.Millisecond || state.Shapes[1].Delay != 60*time.Millisecond {
		t.Errorf("%+v", state)
	}
	return tooLate
}
