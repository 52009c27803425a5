package wire

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/topology"
)

// BenchmarkTCP is one flow over a wire that does nothing, and over some that do. MB/s are of payload; of the rate means of
// what it leaves for payload.
func BenchmarkTCP(b *testing.B) {
	for name, s := range map[string]topology.Shape{
		"unshaped": {}, "delay 1ms": {Delay: time.Millisecond}, "rate 1Gbit": {Rate: topology.Gbit}, "rate 1Gbit, delay 5ms": {Rate: topology.Gbit, Delay: 5 * time.Millisecond},
		"rate 5Gbit": {Rate: 5 * topology.Gbit},
	} {
		b.Run(name, func(b *testing.B) {
			w, nss := lay(b, link(s), 2)
			var l net.Listener
			var c net.Conn
			if err := nss[1].Do(func() (err error) { l, err = net.Listen("tcp", "10.0.0.2:0"); return err }); err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			if err := nss[0].Do(func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err }); err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			sink, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer sink.Close()
			buf := make([]byte, 1<<20)
			go func() {
				for {
					if _, err := c.Write(buf[:1<<17]); err != nil {
						return
					}
				}
			}()
			into := make([]byte, 1<<20)
			read := func(n int) {
				for n > 0 {
					m, err := sink.Read(into[:min(n, len(into))])
					if err != nil {
						b.Fatal(err)
					}
					n -= m
				}
			}
			read(max(32<<20, int(float64(s.Rate)/8*0.3))) // the start
			b.SetBytes(1 << 20)
			before := w.processor(b)
			b.ResetTimer()
			read(b.N << 20)
			b.StopTimer()
			b.ReportMetric(float64((w.processor(b)-before).Microseconds())/float64(b.N), "µs-wire/MiB")
			if s.Rate > 0 {
				b.ReportMetric(float64(b.N<<20)*8/b.Elapsed().Seconds()/(float64(s.Rate)*1448/1514)*100, "%rate")
			}
			b.ReportMetric(float64(b.N<<20)*8/b.Elapsed().Seconds()/1e9, "Gbit/s")
			if late, err := w.Lateness(1); err == nil && s.Delay > 0 {
				b.ReportMetric(float64(late.P99.Microseconds()), "µs-late-p99")
			}
		})
	}
}

// processor is the time of a processor that the wire's thread has taken. On a busy machine that says more than the clock.
func (w *Wire) processor(t testing.TB) (d time.Duration) {
	t.Helper()
	if err := w.Do(func(time.Duration) {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			t.Error(err)
		}
		d = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}); err != nil {
		t.Fatal(err)
	}
	return d
}

// BenchmarkUDP is what passes of datagrams of 1472 bytes, sent as fast as it goes.
func BenchmarkUDP(b *testing.B) {
	for name, s := range map[string]topology.Shape{"unshaped": {}, "rate 1Gbit": {Rate: topology.Gbit}} {
		b.Run(name, func(b *testing.B) {
			w, nss := lay(b, link(s), 2)
			sink, c := listen(b, nss, 1), dial(b, nss, 0, 1)
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				buf := make([]byte, 1472)
				for {
					select {
					case <-stop:
						return
					default:
						c.Write(buf) // a full interface drops
					}
				}
			}()
			_ = sink
			h, l := handle(b, nss[1])
			count := func() uint64 {
				l, err := h.LinkByIndex(l.Attrs().Index)
				if err != nil {
					b.Fatal(err)
				}
				return l.Attrs().Statistics.RxPackets
			}
			for start := count(); count() < start+10000; {
			}
			b.SetBytes(1514)
			b.ResetTimer()
			start, before := count(), w.processor(b)
			for count() < start+uint64(b.N) {
				time.Sleep(50 * time.Microsecond)
			}
			done := count() - start
			b.StopTimer()
			b.ReportMetric(float64((w.processor(b)-before).Nanoseconds())/float64(done), "ns-wire/packet")
			b.ReportMetric(float64(done)*1514*8/b.Elapsed().Seconds()/1e9, "Gbit/s")
		})
	}
}

// BenchmarkDelay is by how much more than 5 ms a datagram takes, 1000 a second.
func BenchmarkDelay(b *testing.B) {
	const delay = 5 * time.Millisecond
	_, nss := lay(b, link(topology.Shape{Delay: delay}), 2)
	sink, c := listen(b, nss, 1), dial(b, nss, 0, 1)
	raw, err := sink.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) })
	if err != nil {
		b.Fatal(err)
	}
	var off []time.Duration
	sent := make(chan time.Time, 10000)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range b.N {
			<-tick.C
			sent <- time.Now()
			c.Write([]byte{1})
		}
	}()
	var data [8]byte
	var oob [128]byte
	for range b.N {
		_, n, _, _, err := sink.ReadMsgUDP(data[:], oob[:])
		if err != nil {
			b.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			b.Fatal(err)
		}
		stamp := messages[0].Data
		at := time.Unix(int64(binary.NativeEndian.Uint64(stamp)), int64(binary.NativeEndian.Uint64(stamp[8:])))
		off = append(off, at.Sub(<-sent)-delay)
	}
	slices.Sort(off)
	b.ReportMetric(float64(off[len(off)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(off[len(off)*99/100].Microseconds()), "µs-p99")
}

// BenchmarkIdle is the share of a processor that 100 wires take on which nothing is sent.
func BenchmarkIdle(b *testing.B) {
	for range 100 {
		lay(b, link(topology.Shape{Delay: 5 * time.Millisecond}), 2)
	}
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	b.ResetTimer()
	for range b.N {
		time.Sleep(100 * time.Millisecond)
	}
	b.ReportMetric(float64(used()-before)/float64(b.Elapsed())*100, "%cpu")
}
