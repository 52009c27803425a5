package traffic

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func listenUDP(t testing.TB, cfg UDPSinkConfig) *UDPSink {
	t.Helper()
	if !cfg.Listen.IsValid() {
		cfg.Listen = netip.AddrPortFrom(loopback4, 0)
	}
	s, err := ListenUDP(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestUDP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		addr netip.Addr
		src  UDPSource
	}{
		"smallest":      {loopback4, UDPSource{FrameSize: 60, Packets: 20000, Rate: 50e6}},
		"smallest ipv6": {loopback6, UDPSource{FrameSize: 80, Packets: 20000, Rate: 50e6}},
		"streams":       {loopback4, UDPSource{FrameSize: 1400, Packets: 20003, Streams: 7, Rate: 500e6}},
		"more streams":  {loopback4, UDPSource{FrameSize: 1400, Packets: 10, Streams: 16}},
		"no gso":        {loopback4, UDPSource{FrameSize: 1400, Packets: 20000, Streams: 2, NoGSO: true, Rate: 500e6}},
		"one":           {loopback4, UDPSource{FrameSize: 1000, Packets: 1}},
		"largest":       {loopback4, UDPSource{Packets: 50, Rate: 100e6}}, // what the route carries
		"slow":          {loopback4, UDPSource{FrameSize: 500, Packets: 20, Rate: 400e3}},
		"fragments":     {loopback4, UDPSource{FrameSize: 5000, Packets: 200, Rate: 50e6, Fragments: true}},
		"from":          {loopback4, UDPSource{FrameSize: 500, Packets: 20, From: loopback4, Flow: 42}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.addr.Is6() {
				needIPv6(t)
			}
			sink := listenUDP(t, UDPSinkConfig{Listen: netip.AddrPortFrom(c.addr, 0), Flow: c.src.Flow, Streams: c.src.Streams})
			c.src.To = sink.Addr()
			sent, err := c.src.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r, err := sink.Finish(t.Context(), sent)
			if err != nil {
				t.Fatal(err)
			}
			if sent.Total() != c.src.Packets || r.Sent != c.src.Packets {
				t.Errorf("%d packets sent, the result says %d, want %d", sent.Total(), r.Sent, c.src.Packets)
			}
			if r.Received+r.Lost != r.Sent || r.Lost != r.SocketDrops || r.Duplicated+r.Reordered+r.Foreign+r.Unclassified != 0 {
				t.Errorf("loopback lost what its socket took: %+v", r)
			}
			least, most := sent.Packets[0], sent.Packets[0]
			for _, n := range sent.Packets {
				least, most = min(least, n), max(most, n)
			}
			if len(sent.Packets) != max(1, c.src.Streams) || most > least+1 {
				t.Errorf("packets of the streams: %d", sent.Packets)
			}
			if r.Bytes != r.Received*uint64(sent.FrameSize) || c.src.FrameSize != 0 && sent.FrameSize != c.src.FrameSize {
				t.Errorf("%d bytes of %d packets of %d", r.Bytes, r.Received, sent.FrameSize)
			}
			var bits uint64
			for _, b := range r.Bins {
				bits += b.Bits
			}
			if bits != 8*r.Bytes {
				t.Errorf("%d bits in bins of %d bytes", bits, r.Bytes)
			}
			if r.Latency == nil || r.Latency.Count != int64(r.Received) || r.Latency.P50 <= 0 || r.Latency.P50 > r.Latency.Max {
				t.Errorf("latency %+v of %d", r.Latency, r.Received)
			}
			if c.src.Rate > 0 {
				if r.Lateness == nil || r.Lateness.Count != int64(r.Sent) {
					t.Errorf("lateness %+v of %d", r.Lateness, r.Sent)
				}
				if r.BitsPerSecond > 1.001*float64(c.src.Rate) {
					t.Errorf("%.0f bit/s at a rate of %d", r.BitsPerSecond, c.src.Rate)
				}
				schedule := time.Duration(float64(c.src.Packets) * float64(sent.FrameSize) * 8 / float64(c.src.Rate) * 1e9)
				if d := sent.End.Sub(sent.Start) - schedule - sent.Behind; d < -time.Microsecond || d > time.Microsecond {
					t.Errorf("the schedule took %v, want %v", sent.End.Sub(sent.Start), schedule)
				}
			}
		})
	}
}

// TestUDPNeverEarly reads when each packet left, and compares with when it was due.
func TestUDPNeverEarly(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const n, interval = 50, 2 * time.Millisecond
	sent, err := UDPSource{
		To: conn.LocalAddr().(*net.UDPAddr).AddrPort(), Packets: n, FrameSize: 250, Rate: 1e6,
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	for i := range n {
		k, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		h, ok := parseHeader(buf[:k])
		if !ok || h.seq != uint64(i) {
			t.Fatalf("packet %d: %+v %v", i, h, ok)
		}
		if due := sent.Start.Add(time.Duration(i) * interval); h.sent < due {
			t.Fatalf("packet %d left %v early", i, due.Sub(h.sent))
		}
	}
}

// hostile stands between source and sink and does as it is told to each datagram.
func hostile(t *testing.T, to netip.AddrPort, each func(n int, d []byte, send func([]byte))) (netip.AddrPort, func()) {
	t.Helper()
	in, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// What a busy machine keeps waiting here must not be lost here.
	if err := raw.Control(func(fd uintptr) { setBuffer(int(fd), unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, sinkSocket) }); err != nil {
		t.Fatal(err)
	}
	out, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for n := 0; ; n++ {
			k, err := in.Read(buf)
			if err != nil {
				return
			}
			each(n, append([]byte(nil), buf[:k]...), func(b []byte) {
				if _, err := out.Write(b); err != nil {
					t.Error(err)
				}
			})
		}
	})
	end := func() {
		in.Close()
		wg.Wait()
		out.Close()
	}
	t.Cleanup(end)
	return in.LocalAddr().(*net.UDPAddr).AddrPort(), end
}

// TestUDPExact loses, doubles and swaps known packets, and the result must say precisely that.
func TestUDPExact(t *testing.T) {
	t.Parallel()
	sink := listenUDP(t, UDPSinkConfig{Flow: 7})
	const n = 2000
	var held []byte
	var lost, swapped, doubled uint64
	lostSeqs := map[uint64]Instant{}
	var seen atomic.Int64
	to, end := hostile(t, sink.Addr(), func(i int, d []byte, send func([]byte)) {
		defer seen.Add(1)
		h, _ := parseHeader(d)
		switch {
		case i == 0 || i == n-1 || i%100 == 50: // the first and the last too
			lost++
			lostSeqs[h.seq] = h.sent
		case i%100 == 20:
			held = d
		case i%100 == 23: // overtaken by two
			send(d)
			send(held)
			swapped++
		case i%100 == 70:
			send(d)
			send(d)
			send(d)
			doubled += 2
		case i%100 == 90: // a stranger
			b := append([]byte(nil), d...)
			b[0] ^= 1
			send(b)
			send(b[:5])
			send(d)
		default:
			send(d)
		}
	})
	sent, err := UDPSource{To: to, Flow: 7, Packets: n, FrameSize: 200, Rate: 2e6, NoGSO: true}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all passed the middle", func() bool { return seen.Load() == n })
	end()
	r, err := sink.Finish(t.Context(), sent)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost != lost || r.Reordered != swapped || r.Duplicated != doubled || r.Foreign != 2*n/100 || r.SocketDrops != 0 {
		t.Errorf("lost %d reordered %d duplicated %d foreign %d, want %d %d %d %d",
			r.Lost, r.Reordered, r.Duplicated, r.Foreign, lost, swapped, doubled, 2*n/100)
	}
	if got := lostBetween(r, sent.Start, sent.Last); got != lost {
		t.Errorf("%d lost from the start to the end, want %d", got, lost)
	}
	for seq, at := range lostSeqs {
		// Each was lost alone; packets that left in one batch share their moment, so neighbours may count too.
		if got := lostBetween(r, at, at); got < 1 {
			t.Errorf("packet %d was lost, and none at its moment", seq)
		}
	}
	for _, l := range r.Losses {
		at, ok := lostSeqs[l.First]
		if !ok || l.Count != 1 || at < l.After || at > l.Before {
			t.Errorf("loss %+v, sent at %d", l, at)
		}
	}
}

// TestUDPBusySink has a sink that does not read: what is lost is its own fault, and is told so.
func TestUDPBusySink(t *testing.T) {
	t.Parallel()
	for name, noGSO := range map[string]bool{"gso": false, "no gso": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := listenUDP(t, UDPSinkConfig{})
			if err := control(sink.conn, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<16)
			}); err != nil {
				t.Fatal(err)
			}
			sink.mu.Lock() // the reader stops here
			sent, err := UDPSource{To: sink.Addr(), Packets: 5000, FrameSize: 1400, NoGSO: noGSO}.Run(t.Context())
			sink.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			r, err := sink.Finish(t.Context(), sent)
			if err != nil {
				t.Fatal(err)
			}
			if r.Lost == 0 || r.SocketDrops == 0 || r.SocketDrops > r.Lost {
				t.Errorf("lost %d, of them %d at the socket", r.Lost, r.SocketDrops)
			}
			if noGSO && r.SocketDrops != r.Lost {
				t.Errorf("lost %d, of them %d at the socket: loopback loses nothing else", r.Lost, r.SocketDrops)
			}
			t.Logf("lost %d, of them %d at the socket", r.Lost, r.SocketDrops)
		})
	}
}

// TestUDPInFlight delivers the last packets only after the sink was told what was sent.
func TestUDPInFlight(t *testing.T) {
	t.Parallel()
	sink := listenUDP(t, UDPSinkConfig{Quiet: time.Hour})
	var late [][]byte
	var mu sync.Mutex
	to, end := hostile(t, sink.Addr(), func(i int, d []byte, send func([]byte)) {
		if i < 90 {
			send(d)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		late = append(late, d)
	})
	sent, err := UDPSource{To: to, Packets: 100, FrameSize: 200, NoGSO: true}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "ten are held back", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(late) == 10
	})
	end()
	type finished struct {
		r   Result
		err error
	}
	done := make(chan finished, 1)
	go func() {
		r, err := sink.Finish(t.Context(), sent)
		done <- finished{r, err}
	}()
	eventually(t, "the sink knows the end", func() bool {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		return sink.expected == 100
	})
	select {
	case f := <-done:
		t.Fatalf("finished without the packets in flight: %+v", f)
	default:
	}
	out, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(sink.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, d := range late {
		if _, err := out.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case f := <-done:
		if f.err != nil || f.r.Lost != 0 || f.r.Received != 100 {
			t.Errorf("%+v", f)
		}
	case <-time.After(2 * time.Minute): // far less than the quiet time
		t.Error("it waited although all had arrived")
	}
}

func TestUDPFinishCancelled(t *testing.T) {
	t.Parallel()
	sink := listenUDP(t, UDPSinkConfig{Quiet: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := sink.Finish(ctx, Sent{Proto: UDP, Packets: []uint64{5}})
	if !errors.Is(err, context.Canceled) || r.Lost != 5 {
		t.Errorf("%v, %+v", err, r)
	}
	if _, err := listenUDP(t, UDPSinkConfig{}).Finish(t.Context(), Sent{Proto: UDP, Packets: []uint64{1, 2}}); err == nil {
		t.Error("a sink of one stream finished a flow of two")
	}
	if r, err := listenUDP(t, UDPSinkConfig{Quiet: time.Hour}).Finish(t.Context(), Sent{Proto: UDP, Packets: []uint64{0}}); err != nil || r.Sent != 0 {
		t.Errorf("a flow of nothing: %v, %+v", err, r)
	}
}

func TestUDPErrors(t *testing.T) {
	t.Parallel()
	// A socket that is connected to another one takes from nobody else, and nobody else takes its port.
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	sent, err := UDPSource{To: to, FrameSize: 100, Rate: 8e6, Duration: 5 * time.Second}.Run(t.Context())
	if !errors.Is(err, ErrRefused) || sent.Refused == 0 {
		t.Errorf("nobody listens: %v, %d refused", err, sent.Refused)
	}
	for _, frame := range []int{1, 59, 65536, -1} {
		var fe *FrameError
		if _, err := (UDPSource{To: to, FrameSize: frame}).Run(t.Context()); !errors.As(err, &fe) || fe.Frame != frame {
			t.Errorf("a frame of %d: %v", frame, err)
		}
	}
	for _, s := range []UDPSource{{}, {To: netip.AddrPortFrom(loopback4, 0)}, {To: to, Streams: -1}} {
		if _, err := s.Run(t.Context()); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
	if _, err := ListenUDP(t.Context(), UDPSinkConfig{Listen: netip.AddrPortFrom(loopback4, 0), Streams: -1}); err == nil {
		t.Error("a sink of -1 streams")
	}
}

// TestUDPCancel ends an endless flow.
func TestUDPCancel(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]UDPSource{
		"as fast as it goes": {FrameSize: 1400},
		"one per hour":       {FrameSize: 1400, Rate: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := listenUDP(t, UDPSinkConfig{})
			src.To = sink.Addr()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan Sent, 1)
			go func() {
				sent, err := src.Run(ctx)
				if err != nil {
					t.Error(err)
				}
				done <- sent
			}()
			eventually(t, "a packet arrives", func() bool { return sink.Received() > 0 })
			cancel()
			select {
			case sent := <-done:
				if r, err := sink.Finish(t.Context(), sent); err != nil || r.Lost != r.SocketDrops && r.SocketDrops == 0 {
					t.Errorf("%v, %+v", err, r)
				}
			case <-time.After(2 * time.Minute):
				t.Fatal("the source did not end")
			}
		})
	}
}

func TestUDPDuration(t *testing.T) {
	t.Parallel()
	sink := listenUDP(t, UDPSinkConfig{})
	const d = 300 * time.Millisecond
	sent, err := UDPSource{To: sink.Addr(), FrameSize: 1000, Rate: 8e6, Duration: d}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A busy machine sends fewer, and never makes up for it by sending longer.
	if sent.End.Sub(sent.Start) != d || sent.Total() > 300 || sent.Total() == 0 {
		t.Errorf("%d packets in %v, want 300 in %v", sent.Total(), sent.End.Sub(sent.Start), d)
	}
	r, err := sink.Finish(t.Context(), sent)
	if err != nil || r.Lost != 0 || r.Duration < d {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestUDPAllocates nothing on its way.
func TestUDPAllocates(t *testing.T) { // not parallel: it counts allocations
	sink := listenUDP(t, UDPSinkConfig{Streams: 2})
	s, err := UDPSource{To: sink.Addr(), Streams: 2, FrameSize: 200, Rate: 1e9}.open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.start = s.clock.now()
	var sent uint64
	if n := testing.AllocsPerRun(200, func() {
		now := s.clock.now()
		sleepUntil(t.Context(), s.clock, now+1000)
		s.ready(now, now+1e9)
		if err := s.send(20, now); err != nil {
			t.Fatal(err)
		}
		sent += 20
		for sink.Received() < sent {
			time.Sleep(10 * time.Microsecond)
		}
	}); n != 0 {
		t.Errorf("%v allocations for 20 packets sent and received", n)
	}
}

// TestUDPQuiet: each arrival begins the quiet time anew, and a flow that stays quiet ends after it and no later.
func TestUDPQuiet(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	synctest.Test(t, func(t *testing.T) {
		s := &UDPSink{clock: newClock(), quiet: time.Second, conn: conn, reader: make(chan struct{}), all: make(chan struct{}), expected: 100}
		begin := time.Now()
		go func() {
			for range 5 {
				time.Sleep(900 * time.Millisecond)
				s.mu.Lock()
				s.last = s.clock.now()
				s.mu.Unlock()
			}
		}()
		if err := s.wait(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != 5500*time.Millisecond {
			t.Errorf("it waited %v, want 5.5 s", d)
		}
	})
}

// TestUDPUnread: what lies in the socket has arrived, however long this process was not run to read it.
func TestUDPUnread(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.DialUDP("udp4", nil, conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	const quiet = 50 * time.Millisecond
	s := &UDPSink{clock: newClock(), quiet: quiet, conn: conn, raw: raw, reader: make(chan struct{}), all: make(chan struct{}), expected: 100}
	ended := make(chan error, 1)
	go func() { ended <- s.wait(t.Context()) }()
	select {
	case <-ended:
		t.Fatal("it gave up a datagram that had arrived")
	case <-time.After(3 * quiet):
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
