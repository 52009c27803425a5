package links

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/vm/guest"
	"pqlab/topology"
)

// A prober sends numbered datagrams from a to b, and tells what became of them. The kernel says when one arrived, so that
// a receiver that runs late changes nothing.
type prober struct {
	t    testing.TB
	from *net.UDPConn
	to   *net.UDPConn
	size int
	sent []time.Time // by number
	link *Link
	side int // from which it sends
}

// arrival is a datagram that came.
type arrival struct {
	number int
	delay  time.Duration
}

func newProber(t testing.TB, link *Link, a, b *netns.Namespace, size int) *prober {
	t.Helper()
	return proberTo(t, link, 0, a, b, size)
}

// proberTo sends from a, which is that side of the link, to b.
func proberTo(t testing.TB, link *Link, side int, a, b *netns.Namespace, size int) *prober {
	t.Helper()
	p := &prober{t: t, size: size, link: link, side: side}
	to := &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(2-side)), Port: 7}
	noRoom := false
	if err := b.Do(func() (err error) {
		listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			return errors.Join(raw.Control(func(fd uintptr) {
				// Room for all: nobody need be quick.
				if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20) != nil {
					noRoom = true
				}
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
			}), err)
		}}
		c, err := listen.ListenPacket(t.Context(), "udp", to.String())
		if err == nil {
			p.to = c.(*net.UDPConn)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if noRoom {
		t.Skip("room to receive all that comes takes CAP_NET_ADMIN over the machine (root; a guest has it)")
	}
	if err := a.Do(func() (err error) { p.from, err = net.DialUDP("udp", nil, to); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.from.Close(); p.to.Close() })
	return p
}

// send sends one datagram.
func (p *prober) send() {
	p.t.Helper()
	b := make([]byte, p.size)
	binary.BigEndian.PutUint32(b, uint32(len(p.sent)))
	p.sent = append(p.sent, time.Now())
	if _, err := p.from.Write(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
		p.t.Fatal(err)
	}
}

// keepUp waits until a wire has read most of what was sent: it has a model of what it reads, and an interface has room
// for so much that it has not read.
func (p *prober) keepUp() {
	const unread = 1000
	if !p.link.Driven() {
		return
	}
	for end := time.Now().Add(20 * time.Second); p.link.State().Wire[p.side].Packets+unread < uint64(len(p.sent)); {
		if time.Now().After(end) {
			p.t.Fatalf("the wire has read %d of %d packets", p.link.State().Wire[p.side].Packets, len(p.sent))
		}
		time.Sleep(time.Millisecond)
	}
}

// pace sends n datagrams, gap apart.
func (p *prober) pace(n int, gap time.Duration) {
	p.t.Helper()
	tick := time.NewTicker(max(gap, time.Nanosecond))
	defer tick.Stop()
	for i := range n {
		p.send()
		if i%256 == 0 {
			p.keepUp()
		}
		if gap > 0 {
			<-tick.C
		}
	}
}

// arrivals waits until nothing has come for so long.
func (p *prober) arrivals(quiet time.Duration) []arrival {
	p.t.Helper()
	var all []arrival
	b, oob := make([]byte, p.size), make([]byte, 128)
	for {
		p.to.SetReadDeadline(time.Now().Add(quiet))
		n, control, _, _, err := p.to.ReadMsgUDP(b, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil || n != p.size {
			p.t.Fatal(n, err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:control])
		if err != nil || len(messages) != 1 {
			p.t.Fatal(messages, err)
		}
		at := time.Unix(int64(binary.NativeEndian.Uint64(messages[0].Data)), int64(binary.NativeEndian.Uint64(messages[0].Data[8:])))
		number := int(binary.BigEndian.Uint32(b))
		if number >= len(p.sent) {
			p.t.Fatalf("datagram %d of %d", number, len(p.sent))
		}
		all = append(all, arrival{number, at.Sub(p.sent[number])})
	}
}

// lost says of each datagram whether it did not come.
func (p *prober) lost(got []arrival) []bool {
	lost := make([]bool, len(p.sent))
	for i := range lost {
		lost[i] = true
	}
	for _, a := range got {
		lost[a.number] = false
	}
	return lost
}

func count(lost []bool) (n int) {
	for _, l := range lost {
		if l {
			n++
		}
	}
	return n
}

// overtaken counts arrivals that came after one with a larger number, and repeated those that had come already.
func overtaken(got []arrival) (late, repeated int) {
	seen := map[int]bool{}
	highest := -1
	for _, a := range got {
		switch {
		case seen[a.number]:
			repeated++
		case a.number < highest:
			late++
		}
		seen[a.number] = true
		highest = max(highest, a.number)
	}
	return late, repeated
}

func delays(got []arrival) []time.Duration {
	var d []time.Duration
	for _, a := range got {
		d = append(d, a.delay)
	}
	slices.Sort(d)
	return d
}

// within tells whether seen of n is likely for the probability p: it lies farther off once in ten million times.
func within(seen, n int, p float64) bool {
	return math.Abs(float64(seen)-float64(n)*p) <= 5.33*math.Sqrt(float64(n)*p*(1-p))
}

// steadily tries again, as a busy machine makes packets late now and then, and never early.
func steadily(t *testing.T, try func() (late bool)) {
	t.Helper()
	tries := 4
	if guest.Emulated() { // where a processor that somebody else takes for a moment makes ten times as many late
		tries = 20
	}
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
	bare := delays(p.arrivals(500 * time.Millisecond))
	own := bare[len(bare)/2] // what the way takes without a delay
	for _, d := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		steadily(t, func() bool {
			made, a, b := pairOf(t, shaped(topology.Shape{Delay: d}), shaper)
			p := newProber(t, made, a, b, 100)
			p.pace(300, time.Millisecond)
			got := delays(p.arrivals(500 * time.Millisecond))
			if len(got) != 300 || got[0] < d {
				t.Fatalf("%v: %d of 300 came, the first after %v", d, len(got), got[:min(1, len(got))])
			}
			median := got[len(got)/2]
			t.Logf("%v: least %v, median %v, 99%% %v; without a delay, median %v", d, got[0], median, got[len(got)*99/100], own)
			return median > d+own+time.Millisecond
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
			got := delays(arrived)
			late, _ := overtaken(arrived)
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
		if late, _ := overtaken(arrived); late != 0 || len(arrived) != n/2 {
			t.Errorf("%v: %d of %d came, %d overtaken", tt.shape, len(arrived), n/2, late)
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
		lost := p.lost(got)
		bursts := 0
		for i, l := range lost {
			if l && (i == 0 || !lost[i-1]) {
				bursts++
			}
		}
		mean := float64(count(lost)) / float64(bursts)
		t.Logf("%v: %d of %d lost (%.3f %%, asked %.3f %%) in %d bursts of %.2f (asked %.2f)", tt.shape, count(lost), n,
			float64(count(lost))/n*100, tt.share*100, bursts, mean, tt.burst)
		if late, repeated := overtaken(got); late+repeated > 0 {
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
		if math.Abs(float64(count(lost))-n*tt.share) > spread {
			t.Errorf("%v: %d of %d lost", tt.shape, count(lost), n)
		}
	}
}

// Loss in the bad and in the good state, and what else may befall a packet.
func TestFates(t *testing.T) { each(t, testFates) }

func testFates(t *testing.T, shaper Shaper) {
	const n = 20000
	try := func(s topology.Shape, gap time.Duration, n int) (*prober, []arrival) {
		made, a, b := pairOf(t, shaped(s), shaper)
		p := newProber(t, made, a, b, 200)
		p.pace(n, gap)
		return p, p.arrivals(time.Second)
	}
	p, got := try(topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.5, R: 0.5, Bad: 0.3, Good: 0.1}}, 0, n)
	if lost := count(p.lost(got)); !within(lost, n, 0.2) {
		t.Errorf("lost in both states: %d of %d", lost, n)
	}
	_, got = try(topology.Shape{Duplication: 0.02}, 0, n)
	if late, repeated := overtaken(got); late != 0 || !within(repeated, n, 0.02) || len(got) != n+repeated {
		t.Errorf("duplication: %d came, %d twice, %d overtaken", len(got), repeated, late)
	} else {
		t.Logf("2%% duplication: %d of %d", repeated, n)
	}
	// Of a frame of 242 bytes, a bit of the source's hardware address may change unseen.
	p, got = try(topology.Shape{Corruption: 0.05}, 0, n)
	if lost := count(p.lost(got)); !within(lost, n, 0.05*(1-6.0/242)) {
		t.Errorf("corruption: %d of %d thrown away", lost, n)
	} else {
		t.Logf("5%% corruption: %d of %d thrown away", lost, n)
	}
	const paced = 3000
	_, got = try(topology.Shape{Delay: 20 * time.Millisecond, Reordering: 0.1}, 200*time.Microsecond, paced)
	early := 0
	for _, a := range got {
		if a.delay < 10*time.Millisecond {
			early++
		}
	}
	late, repeated := overtaken(got)
	t.Logf("10%% reordering: %d of %d skipped the delay, %d overtaken", early, paced, late)
	if !within(early, paced, 0.1) || late < paced/2 || repeated != 0 || len(got) != paced {
		t.Errorf("reordering: %d came, %d early, %d overtaken, %d repeated", len(got), early, late, repeated)
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
		return p.lost(p.arrivals(500 * time.Millisecond))
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
	raw, err := p.from.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	for range sends {
		var b []byte
		for range each {
			b = binary.BigEndian.AppendUint32(b, uint32(len(p.sent)))
			b = append(b, make([]byte, size-4)...)
			p.sent = append(p.sent, time.Now())
		}
		if _, err := p.from.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	lost := p.lost(p.arrivals(time.Second))
	whole := 0 // sends that were lost or came as one
	for i := 0; i < len(lost); i += each {
		if n := count(lost[i : i+each]); n == 0 || n == each {
			whole++
		}
	}
	if !within(count(lost), len(lost), 0.3) || whole > 0 {
		t.Errorf("%d of %d lost; %d of %d sends had one fate", count(lost), len(lost), whole, sends)
	}
}

// A delay costs no rate: neither TCP's, which must hold it all on the way, nor that of small packets.
func TestDelayKeepsRate(t *testing.T) { each(t, testDelayKeepsRate) }

func testDelayKeepsRate(t *testing.T, shaper Shaper) {
	const rate = 100 * topology.Mbit
	// second is the share of the rate that passes in the second best of many windows: a busy machine takes from most.
	second := func(delay time.Duration) float64 {
		_, a, b := pairOf(t, shaped(topology.Shape{Rate: rate, Delay: delay}), shaper)
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
	late, repeated := overtaken(got)
	if len(got) != 3*n || late+repeated != 0 {
		t.Fatalf("%d of %d came, %d overtaken, %d repeated", len(got), 3*n, late, repeated)
	}
	// The second part catches up with what is on its way of the first.
	for i, want := range []time.Duration{60 * time.Millisecond, 5 * time.Millisecond, 30 * time.Millisecond} {
		part := delays(got[i*n+n*3/4 : (i+1)*n])
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
