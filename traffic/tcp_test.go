package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTCP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		addr  netip.Addr
		src   TCPSource
		relay int
	}{
		"one stream":      {loopback4, TCPSource{Bytes: 50e6}, 0},
		"fewer bytes":     {loopback4, TCPSource{Bytes: 3, Streams: 5}, 0},
		"four streams":    {loopback4, TCPSource{Bytes: 50e6 + 3, Streams: 4, Probe: time.Millisecond}, 0},
		"from an address": {loopback4, TCPSource{Bytes: 1e6, From: loopback4, Probe: -1}, 0},
		"ipv6":            {loopback6, TCPSource{Bytes: 50e6}, 0},
		"two relays":      {loopback4, TCPSource{Bytes: 50e6 + 7, Streams: 2, Probe: time.Millisecond}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.addr.Is6() {
				needIPv6(t)
			}
			sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(c.addr, 0))
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Close()
			c.src.To = sink.Addr()
			var relays []*Relay
			for range c.relay {
				r, err := ListenRelay(t.Context(), netip.AddrPortFrom(c.addr, 0), c.src.To, c.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				relays = append(relays, r)
				c.src.To = r.Addr()
			}
			sent, err := c.src.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r, err := sink.Finish(t.Context(), sent)
			if err != nil {
				t.Fatal(err)
			}
			if sent.Bytes != c.src.Bytes || r.Bytes != c.src.Bytes || r.Sent != c.src.Bytes || r.Received != c.src.Bytes || r.Lost != 0 {
				t.Errorf("%d bytes sent, %d received, in the result %d and %d, want %d", sent.Bytes, r.Bytes, r.Sent, r.Received, c.src.Bytes)
			}
			var inBins, inConns uint64
			for _, b := range r.Bins {
				inBins += b.Bits
			}
			for _, n := range sink.Connections() {
				inConns += n
			}
			if inBins != 8*r.Bytes || inConns != r.Bytes {
				t.Errorf("%d bits in bins and %d bytes in connections of %d bytes", inBins, inConns, r.Bytes)
			}
			if want := max(c.src.Streams, 1); r.Streams != want || len(sink.Connections()) != want {
				t.Errorf("%d streams, %d connections, want %d", r.Streams, len(sink.Connections()), want)
			}
			if r.Bytes > 1e6 && (r.Duration <= 0 || r.BitsPerSecond <= 0) {
				t.Errorf("nothing was measured: %+v", r)
			}
			if c.src.Probe >= 0 && c.src.Bytes > 1e6 && (r.Latency == nil || r.Latency.Count < 1 || r.Latency.P50 <= 0) {
				t.Errorf("no round trips: %+v", r.Latency)
			}
			if c.src.Probe < 0 && r.Latency != nil {
				t.Errorf("round trips that nobody asked for: %+v", r.Latency)
			}
			for _, relay := range relays {
				relay.Close()
				if n, failed := relay.Connections(); int(n) != c.src.Streams+1 || failed != 0 {
					t.Errorf("%d connections relayed and %d failed, want %d", n, failed, c.src.Streams+1)
				}
				if relay.Bytes() < c.src.Bytes {
					t.Errorf("%d bytes relayed of %d", relay.Bytes(), c.src.Bytes)
				}
			}
		})
	}
}

// A flow tells the congestion control that its own sockets have: that of the route, where it names one, or the kernel's.
func TestTCPCongestion(t *testing.T) {
	t.Parallel()
	const file = "/proc/sys/net/ipv4/tcp_congestion_control"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Skip(err)
	}
	sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(loopback4, 0))
	if err != nil {
		t.Fatal(err)
	}
	sent, err := TCPSource{To: sink.Addr(), Bytes: 1, Streams: 2}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := sink.Finish(t.Context(), sent)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(want)); sent.Congestion != got || r.Congestion != got {
		t.Errorf("sent with %q, in the result %q; %s has %q", sent.Congestion, r.Congestion, file, got)
	}
	// It is the socket's and not the kernel's.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const reno = "reno" // every kernel has it, and lets everybody use it
	if err := control(c.(*net.TCPConn), func(fd int) error {
		return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, reno)
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := congestion(c.(*net.TCPConn)); err != nil || got != reno {
		t.Errorf("%q, %v; want %q", got, err, reno)
	}
}

func TestTCPRate(t *testing.T) {
	t.Parallel()
	const rate, tries = 40e6, 10
	for try := 1; ; try++ {
		sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(loopback4, 0))
		if err != nil {
			t.Fatal(err)
		}
		sent, err := TCPSource{To: sink.Addr(), Rate: rate, Streams: 2, Duration: time.Second}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Finish(t.Context(), sent); err != nil {
			t.Error(err)
		}
		// A source that keeps no rate sends a hundred times more; a machine that is busy may send less, now and then.
		bits := float64(sent.Bytes) * 8
		if bits > rate*1.02 {
			t.Fatalf("%.0f bits in a second, want at most %.0f", bits, rate)
		}
		if bits >= rate/4 {
			return
		}
		if t.Logf("%.0f bits in a second, want %.0f", bits, rate); try == tries {
			t.Fatal("never a quarter of the rate")
		}
	}
}

func TestTCPDuration(t *testing.T) {
	t.Parallel()
	sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(loopback4, 0))
	if err != nil {
		t.Fatal(err)
	}
	sent, err := TCPSource{To: sink.Addr(), Duration: 200 * time.Millisecond}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := sent.End.Sub(sent.Start); d < 200*time.Millisecond {
		t.Errorf("ended after %v", d)
	}
	if r, err := sink.Finish(t.Context(), sent); err != nil || r.Bytes != sent.Bytes {
		t.Errorf("%d of %d bytes, %v", r.Bytes, sent.Bytes, err)
	}
}

// TestTCPBroken ends the relay in the middle: the source must say so, and at once, and not that it is the network's doing.
func TestTCPBroken(t *testing.T) {
	t.Parallel()
	sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(loopback4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	relay, err := ListenRelay(t.Context(), netip.AddrPortFrom(loopback4, 0), sink.Addr(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := TCPSource{To: relay.Addr(), Rate: 100e6, Streams: 2}.Run(t.Context())
		failed <- err
	}()
	eventually(t, "load arrives", func() bool { return sink.Received() > 0 })
	relay.Close()
	if err := relay.Err(); err != nil {
		t.Errorf("a relay that was closed blames another: %v", err)
	}
	select {
	case err := <-failed:
		if err == nil || errors.Is(err, ErrUndelivered) {
			t.Errorf("a source whose relay ended: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the source did not notice within a minute")
	}
}

// A sink that ends is not the network's doing either, whatever the source is at.
func TestTCPSinkEnds(t *testing.T) {
	t.Parallel()
	for _, streams := range []int{1, 3} {
		sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(loopback4, 0))
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() {
			_, err := TCPSource{To: sink.Addr(), Streams: streams, Rate: 50e6}.Run(t.Context())
			failed <- err
		}()
		eventually(t, "load arrives", func() bool { return sink.Received() > 0 })
		sink.Close()
		if err := <-failed; err == nil || errors.Is(err, ErrUndelivered) {
			t.Errorf("%d streams to a sink that ended: %v", streams, err)
		}
	}
}

// Of all errors of a connection these alone are the network's.
func TestNoWay(t *testing.T) {
	t.Parallel()
	wrap := func(err error) error { return fmt.Errorf("x: %w", &net.OpError{Op: "read", Err: err}) }
	for _, err := range []error{os.ErrDeadlineExceeded, unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENETDOWN} {
		if !noWay(wrap(err)) {
			t.Errorf("%v is the network's", err)
		}
	}
	for _, err := range []error{unix.ECONNRESET, unix.EPIPE, unix.ECONNREFUSED, unix.EINVAL, unix.EPERM, unix.EADDRNOTAVAIL, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if noWay(wrap(err)) {
			t.Errorf("%v is not the network's", err)
		}
	}
}

// The network's silence is the source's to judge: no sink and no relay ends a connection because nothing comes.
func TestTCPNoKeepAlive(t *testing.T) {
	t.Parallel()
	sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(loopback4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	conn, err := net.Dial("tcp", sink.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the sink has a connection", func() bool {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		for c := range sink.conns {
			if err := control(c, func(fd int) error {
				on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
				if on != 0 {
					t.Error("it probes its peer")
				}
				return err
			}); err != nil {
				t.Error(err)
			}
			return true
		}
		return false
	})
}

// TestTCPSilentSink has a sink that takes everything and confirms nothing.
func TestTCPSilentSink(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c)
				<-t.Context().Done()
			}()
		}
	}()
	to := ln.Addr().(*net.TCPAddr).AddrPort()
	sent, err := TCPSource{To: to, Bytes: 1e5, Probe: -1, Drain: 50 * time.Millisecond}.Run(t.Context())
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, ErrUndelivered) {
		t.Errorf("%d bytes sent, error %v, want a time-out", sent.Bytes, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (TCPSource{To: to, Bytes: 1e5}).Run(ctx); err == nil || errors.Is(err, ErrUndelivered) {
		t.Errorf("a context that had ended before the connection: %v", err)
	}
}

// silent is an address where the first packet of a connection is lost, in a queue that is full.
func silent(t *testing.T) netip.AddrPort {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(loopback4, uint16(name.(*unix.SockaddrInet4).Port))
	for failed := 0; failed < 3; { // once may be this process, that was not run in time
		c, err := net.DialTimeout("tcp", to.String(), 200*time.Millisecond)
		if err != nil {
			failed++
			continue
		}
		failed = 0
		t.Cleanup(func() { c.Close() })
	}
	return to
}

// unheard is an address at which nobody listens, and at which nobody else will: a socket has its port.
func unheard(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.As4()}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(loopback4, uint16(at.(*unix.SockaddrInet4).Port))
}

// A way on which the first packet of a connection is lost is given up after a time. Where nobody listens it is not the way's fault.
func TestTCPNoConnection(t *testing.T) {
	t.Parallel()
	source := TCPSource{To: silent(t), Bytes: 1, Probe: -1, Connect: 300 * time.Millisecond, Drain: 100 * time.Millisecond}
	if sent, err := source.Run(t.Context()); !errors.Is(err, ErrUndelivered) {
		t.Errorf("%+v, %v", sent, err)
	}
	source.To = unheard(t)
	if _, err := source.Run(t.Context()); !errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, ErrUndelivered) {
		t.Errorf("where nobody listens: %v", err)
	}
}

func TestRelayUnreachable(t *testing.T) {
	t.Parallel()
	to := unheard(t)
	relay, err := ListenRelay(t.Context(), netip.AddrPortFrom(loopback4, 0), to, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	if _, err := (TCPSource{To: relay.Addr(), Bytes: 1e5, Probe: -1}).Run(t.Context()); err == nil || errors.Is(err, ErrUndelivered) {
		t.Errorf("through a relay that reaches nobody: %v", err)
	}
	if _, failed := relay.Connections(); failed == 0 {
		t.Error("the relay did not count its failure")
	}
	relay.Close()
	if err := relay.Err(); !errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, ErrUndelivered) {
		t.Errorf("the relay says %v", err)
	}
}

// What the source sees as a reset is the network's doing where a relay found no way onwards, and the relay knows.
func TestRelayNoWay(t *testing.T) {
	t.Parallel()
	relay := &Relay{to: silent(t), dialer: net.Dialer{Timeout: 100 * time.Millisecond}}
	if err := relay.open(t.Context(), netip.AddrPortFrom(loopback4, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := (TCPSource{To: relay.Addr(), Bytes: 1e5, Probe: -1}).Run(t.Context()); err == nil || errors.Is(err, ErrUndelivered) {
		t.Errorf("the source cannot know: %v", err)
	}
	relay.Close()
	if err := relay.Err(); !errors.Is(err, ErrUndelivered) {
		t.Errorf("the relay says %v", err)
	}
}

func TestTCPBadInput(t *testing.T) {
	t.Parallel()
	for _, s := range []TCPSource{{}, {To: netip.AddrPortFrom(loopback4, 0)}, {To: netip.AddrPortFrom(loopback4, 9), Streams: -1}} {
		if _, err := s.Run(t.Context()); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
	sink, err := ListenTCP(t.Context(), netip.AddrPortFrom(loopback4, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Finish(t.Context(), Sent{Proto: UDP}); err == nil {
		t.Error("a TCP sink finished a UDP flow")
	}
}

// TestTCPShort has a sink that confirms less than was sent.
func TestTCPShort(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		_, _ = c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)-greetingSize-1))
	}()
	sent, err := TCPSource{To: ln.Addr().(*net.TCPAddr).AddrPort(), Bytes: 1e5, Probe: -1}.Run(t.Context())
	if err == nil || sent.Bytes != 1e5 {
		t.Errorf("%d bytes sent, error %v", sent.Bytes, err)
	}
}
