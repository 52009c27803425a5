package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A connection to a sink begins with eight bytes: the magic and what it is for.
const (
	greetingSize = 8
	forLoad      = 1 // bytes until the end of the stream, answered by their number (8 bytes)
	forProbe     = 2 // messages of probeSize, each answered by itself
)

const (
	chunk     = 256 << 10 // bytes per read and write
	probeSize = 64
	// hurry replaces the time to drain when the caller's context has ended.
	hurry = time.Second
)

// ErrUndelivered says that the network did not carry a flow: no connection came about for want of a way or an answer, or its
// bytes were not confirmed in time. What the other end did is something else: a connection that it refuses, resets or ends.
var ErrUndelivered = errors.New("not delivered")

// undelivered is ErrUndelivered with the reason, whose text it has.
type undelivered struct{ error }

func (u undelivered) Unwrap() error      { return u.error }
func (undelivered) Is(target error) bool { return target == ErrUndelivered }

// noWay says whether a connection failed for want of a way or an answer, and not because nobody listens, because the other end
// ended it, or of a mistake.
func noWay(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || slices.ContainsFunc(
		[]error{unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENETDOWN},
		func(e error) bool { return errors.Is(err, e) })
}

// blame is err, as ErrUndelivered if it is the network's doing.
func blame(err error) error {
	if err != nil && noWay(err) {
		return undelivered{err}
	}
	return err
}

func greet(c net.Conn, what uint32) error {
	var b [greetingSize]byte
	binary.BigEndian.PutUint32(b[0:], magic)
	binary.BigEndian.PutUint32(b[4:], what)
	_, err := c.Write(b[:])
	return err
}

// TCPSource sends a TCP flow and measures round trips beside it.
type TCPSource struct {
	From     netip.Addr     // local address; zero: the kernel chooses
	To       netip.AddrPort // the sink, or the first relay on the way to it
	Streams  int            // 0: 1
	Rate     uint64         // bit/s of payload, of all streams together; 0: as fast as it goes
	Duration time.Duration  // 0: until Bytes, or until ctx ends
	Bytes    uint64         // of all streams together; 0: until Duration
	Probe    time.Duration  // between round trips; 0: 10 ms; negative: none are measured
	Connect  time.Duration  // how long a connection may take to come about; 0: 30 s
	Drain    time.Duration  // how long what was written may take to arrive; 0: 10 s
}

// Run sends until the flow is complete or ctx ends (which is no error), then waits until the sink has confirmed every
// byte: for the time to drain, or a second where ctx has ended. What the network did not carry is ErrUndelivered; the Sent
// tells of what was sent until then. A source that reaches its sink by relays sees a reset where one of these finds no way
// onwards, which that tells (Relay.Err).
func (t TCPSource) Run(ctx context.Context) (Sent, error) {
	if !t.To.IsValid() || t.To.Port() == 0 {
		return Sent{Proto: TCP}, fmt.Errorf("tcp source: no destination: %v", t.To)
	}
	if t.Streams < 0 || t.Streams > 1<<15 {
		return Sent{Proto: TCP}, fmt.Errorf("tcp to %v: %d streams; 1 to 32768 are possible", t.To, t.Streams)
	}
	t.Streams = max(t.Streams, 1)
	if t.Probe == 0 {
		t.Probe = 10 * time.Millisecond
	}
	if t.Connect == 0 {
		t.Connect = 30 * time.Second
	}
	if t.Drain == 0 {
		t.Drain = 10 * time.Second
	}
	s := &tcpSender{cfg: t, clock: newClock()}
	return s.run(ctx)
}

type tcpSender struct {
	cfg   TCPSource
	clock clock
	buf   []byte
}

type tcpStream struct {
	conn          *net.TCPConn
	written       uint64
	segments      uint64
	retransmitted uint64
	err           error
}

func (s *tcpSender) dial(ctx context.Context, what uint32) (*net.TCPConn, error) {
	d := net.Dialer{KeepAlive: -1, Timeout: s.cfg.Connect}
	if s.cfg.From.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.cfg.From, 0))
	}
	c, err := d.DialContext(ctx, network("tcp", s.cfg.To.Addr()), s.cfg.To.String())
	if err == nil {
		if err = greet(c, what); err != nil {
			c.Close()
		}
	}
	if err != nil {
		err = fmt.Errorf("tcp source: %w", err)
		if noWay(err) && ctx.Err() == nil {
			err = undelivered{err}
		}
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func (s *tcpSender) run(ctx context.Context) (Sent, error) {
	out := Sent{Proto: TCP}
	streams := make([]*tcpStream, s.cfg.Streams)
	defer func() {
		for _, st := range streams {
			if st != nil {
				abort(st.conn)
			}
		}
	}()
	for i := range streams {
		conn, err := s.dial(ctx, forLoad)
		if err != nil {
			return out, err
		}
		streams[i] = &tcpStream{conn: conn}
	}
	var err error
	if out.Congestion, err = congestion(streams[0].conn); err != nil {
		return out, fmt.Errorf("tcp to %v: congestion control: %w", s.cfg.To, err)
	}
	var probe *net.TCPConn
	if s.cfg.Probe > 0 {
		if probe, err = s.dial(ctx, forProbe); err != nil {
			return out, err
		}
		defer probe.Close()
	}
	s.buf = make([]byte, chunk)
	for i := range s.buf {
		s.buf[i] = byte(i*167 ^ i>>8)
	}

	out.Start = s.clock.now()
	stop := time.Time{}
	if s.cfg.Duration > 0 {
		stop = time.Now().Add(s.cfg.Duration)
	}
	// Sending ends with ctx; what was written is then still given its time to arrive.
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	rtt := newHistogram()
	var probing, load sync.WaitGroup
	var probeErr error
	if probe != nil {
		probing.Go(func() { probeErr = s.probe(sending, probe, rtt) })
	}
	for i, st := range streams {
		load.Go(func() { st.err = s.stream(sending, st, i, stop) })
	}
	load.Wait()
	out.End = s.clock.now()
	cancel()
	probing.Wait()

	var errs []error
	for i, st := range streams {
		out.Packets = append(out.Packets, st.segments)
		out.Bytes += st.written
		out.Retransmitted += st.retransmitted
		if st.err != nil {
			errs = append(errs, fmt.Errorf("tcp to %v, stream %d: %w", s.cfg.To, i, st.err))
		}
	}
	if probeErr != nil {
		errs = append(errs, fmt.Errorf("tcp to %v, round trips: %w", s.cfg.To, probeErr))
	}
	out.RoundTrip = rtt.latency()
	if slices.ContainsFunc(errs, func(err error) bool { return !noWay(err) }) { // what else went wrong may be for that
		return out, errors.Join(errs...)
	}
	return out, blame(errors.Join(errs...))
}

// stream sends its share, closes, and waits for the sink's count.
func (s *tcpSender) stream(ctx context.Context, st *tcpStream, index int, stop time.Time) error {
	var quota uint64 // 0: none
	if s.cfg.Bytes > 0 {
		k := uint64(s.cfg.Streams)
		quota = s.cfg.Bytes / k
		if uint64(index) < s.cfg.Bytes%k {
			quota++
		}
		if quota == 0 {
			return s.confirm(ctx, st)
		}
	}
	// The deadline ends a write that waits for a slow peer; that ctx ends does the same.
	if err := st.conn.SetWriteDeadline(stop); err != nil {
		return err
	}
	release := context.AfterFunc(ctx, func() { _ = st.conn.SetWriteDeadline(time.Unix(1, 0)) })
	err := s.write(ctx, st, quota, stop)
	release()
	if err != nil {
		return err
	}
	return s.confirm(ctx, st)
}

func (s *tcpSender) write(ctx context.Context, st *tcpStream, quota uint64, stop time.Time) error {
	size := uint64(chunk)
	var interval float64 // ns per byte
	if s.cfg.Rate > 0 {
		rate := float64(s.cfg.Rate) / float64(s.cfg.Streams) / 8 // bytes/s
		interval = 1e9 / rate
		size = min(size, max(1448, uint64(rate/100))) // 10 ms
	}
	start := s.clock.now()
	var paced uint64 // bytes on the schedule
	for ctx.Err() == nil && (stop.IsZero() || time.Now().Before(stop)) && (quota == 0 || st.written < quota) {
		n := size
		if quota > 0 {
			n = min(n, quota-st.written)
		}
		if interval > 0 {
			due := start + Instant(float64(paced)*interval)
			if late := s.clock.now().Sub(due); late > patience {
				start += Instant(late) // TCP held it up: do not make up for it in a burst
			} else if !stop.IsZero() && due > s.clock.at(stop) {
				sleepUntil(ctx, s.clock, s.clock.at(stop))
				return nil
			} else if !sleepUntil(ctx, s.clock, due) {
				return nil
			}
			paced += n
		}
		k, err := st.conn.Write(s.buf[:n])
		st.written += uint64(k)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return nil
			}
			return err
		}
	}
	return nil
}

// confirm ends the stream and makes sure that all of it has arrived.
func (s *tcpSender) confirm(ctx context.Context, st *tcpStream) error {
	if err := st.conn.CloseWrite(); err != nil {
		return err
	}
	if err := st.conn.SetReadDeadline(time.Now().Add(s.cfg.Drain)); err != nil {
		return err
	}
	release := context.AfterFunc(ctx, func() {
		_ = st.conn.SetReadDeadline(time.Now().Add(min(hurry, s.cfg.Drain)))
	})
	defer release()
	var b [8]byte
	_, err := io.ReadFull(st.conn, b[:])
	if info, e := tcpInfo(st.conn); e == nil {
		st.segments, st.retransmitted = uint64(info.Data_segs_out), uint64(info.Total_retrans)
	}
	if err != nil {
		return fmt.Errorf("no confirmation of %d bytes: %w", st.written, err)
	}
	if got := binary.BigEndian.Uint64(b[:]); got != st.written {
		return fmt.Errorf("%d of %d bytes arrived", got, st.written)
	}
	return nil
}

// probe measures one round trip per interval until ctx ends. A round trip longer than the interval delays the next.
func (s *tcpSender) probe(ctx context.Context, conn *net.TCPConn, h histogram) error {
	release := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer release()
	var b [probeSize]byte
	for due := s.clock.now(); ; due = max(due.Add(s.cfg.Probe), s.clock.now()) {
		if !sleepUntil(ctx, s.clock, due) {
			return nil
		}
		t0 := s.clock.now()
		_, err := conn.Write(b[:])
		if err == nil {
			_, err = io.ReadFull(conn, b[:])
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		h.record(s.clock.now().Sub(t0), 1)
	}
}

// abort closes without waiting for what the other side has not taken; after a complete exchange it changes nothing.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

func tcpInfo(c *net.TCPConn) (info *unix.TCPInfo, err error) {
	err = control(c, func(fd int) error {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return info, err
}

// congestion names the algorithm by which the kernel decides how fast a connection sends.
func congestion(c *net.TCPConn) (name string, err error) {
	err = control(c, func(fd int) error {
		name, err = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		return err
	})
	return name, err
}
