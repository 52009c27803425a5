package traffic

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sinkMessages = 16      // per receive system call; each may be a GRO buffer of many datagrams
	sinkBuffer   = 1 << 16 // bytes per message
	sinkSocket   = 32 << 20
	// leap is how far ahead of the highest sequence number one may be and still be believed.
	leap = 1 << 32
)

// DefaultQuiet is for machines that forward a packet within milliseconds, but for moments when they have too much else to do.
const DefaultQuiet = time.Second

// UDPSink receives a UDP flow.
type UDPSink struct {
	flow  uint64
	quiet time.Duration
	conn  *net.UDPConn
	raw   syscall.RawConn
	addr  netip.AddrPort
	clock clock
	stop  func() bool

	reader chan struct{} // closed when the reading goroutine has ended
	all    chan struct{} // closed when everything that was sent has arrived

	msgs [sinkMessages]mmsghdr
	iovs [sinkMessages]unix.Iovec
	ctl  [sinkMessages][64]byte
	buf  []byte
	pull func(fd uintptr) bool
	got  int
	err  unix.Errno

	mu       sync.Mutex // guards what follows
	streams  []sequence
	latency  histogram
	bins     bins
	received uint64
	foreign  uint64
	expected uint64 // math.MaxUint64: not known yet
	complete bool   // all is closed
	last     Instant
	failure  error
}

// UDPSinkConfig says what a UDPSink receives.
type UDPSinkConfig struct {
	Listen  netip.AddrPort // port 0: the kernel chooses
	Flow    uint64         // as the source's; datagrams of other flows count as foreign
	Streams int            // as the source's; 0: 1
	Quiet   time.Duration  // how long nothing may arrive after the end before the missing are lost; 0: DefaultQuiet
}

// ListenUDP opens a sink, which receives until Finish, Close or the end of ctx.
func ListenUDP(ctx context.Context, cfg UDPSinkConfig) (*UDPSink, error) {
	if cfg.Streams < 0 || cfg.Streams > 1<<15 {
		return nil, fmt.Errorf("udp sink at %v: %d streams; 1 to 32768 are possible", cfg.Listen, cfg.Streams)
	}
	conn, err := net.ListenUDP(network("udp", cfg.Listen.Addr()), net.UDPAddrFromAddrPort(cfg.Listen))
	if err != nil {
		return nil, fmt.Errorf("udp sink: %w", err)
	}
	s := &UDPSink{
		flow: cfg.Flow, quiet: cmp.Or(cfg.Quiet, DefaultQuiet), conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), clock: newClock(),
		reader: make(chan struct{}), all: make(chan struct{}),
		buf:     make([]byte, sinkMessages*sinkBuffer),
		streams: make([]sequence, max(cfg.Streams, 1)), latency: newHistogram(), expected: math.MaxUint64,
	}
	s.raw, err = conn.SyscallConn()
	if err == nil {
		err = control(conn, func(fd int) error {
			setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, sinkSocket)
			// Linux before 5.0 has no UDP_GRO; datagrams then come one by one.
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
			return nil
		})
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("udp sink at %v: %w", cfg.Listen, err)
	}
	s.pull = func(fd uintptr) bool {
		for {
			s.got, s.err = recvmmsg(fd, s.msgs[:])
			if s.err != unix.EINTR {
				return s.err != unix.EAGAIN
			}
		}
	}
	s.stop = context.AfterFunc(ctx, func() { s.conn.Close() })
	go s.read()
	return s, nil
}

// Addr is where the sink listens.
func (s *UDPSink) Addr() netip.AddrPort { return s.addr }

// Received counts the datagrams that have arrived until now, duplicates not counted.
func (s *UDPSink) Received() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received
}

// Close gives the flow up. It may be called after Finish.
func (s *UDPSink) Close() error {
	s.stop()
	err := s.conn.Close()
	<-s.reader
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Finish is told what was sent, waits until all of it has arrived, or nothing has for the quiet time, and closes the sink.
// When ctx ends first the result says what had arrived by then, beside ctx's error.
func (s *UDPSink) Finish(ctx context.Context, sent Sent) (Result, error) {
	if sent.Proto != UDP || len(sent.Packets) != len(s.streams) {
		s.Close()
		return Result{}, fmt.Errorf("udp sink at %v: was told of a %s flow of %d streams, and receives udp of %d",
			s.addr, sent.Proto, len(sent.Packets), len(s.streams))
	}
	s.mu.Lock()
	s.expected = sent.Total()
	s.checkComplete()
	s.mu.Unlock()

	waited := s.wait(ctx)
	var drops uint32
	dropsErr := control(s.conn, func(fd int) (err error) {
		drops, err = socketDrops(fd)
		return err
	})
	s.Close()

	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.result(sent)
	r.SocketDrops = uint64(drops)
	switch {
	case s.failure != nil:
		return r, fmt.Errorf("udp sink at %v: %w", s.addr, s.failure)
	case waited != nil:
		return r, fmt.Errorf("udp sink at %v: waiting for packets in flight: %w", s.addr, waited)
	case errors.Is(dropsErr, net.ErrClosed):
		return r, fmt.Errorf("udp sink at %v: %w", s.addr, net.ErrClosed)
	case dropsErr != nil && !errors.Is(dropsErr, unix.ENOPROTOOPT): // before Linux 4.12 there is no such counter
		return r, fmt.Errorf("udp sink at %v: %w", s.addr, dropsErr)
	}
	return r, nil
}

// wait returns when all has arrived, or nothing more is likely to.
func (s *UDPSink) wait(ctx context.Context) error {
	begin := s.clock.now()
	timer, set := time.NewTimer(s.quiet), time.Now()
	defer timer.Stop()
	wait := s.quiet
	again := func(d time.Duration) { wait, set = d, time.Now(); timer.Reset(d) }
	const stalls = 20 // that are waited for: a machine may be so busy that it never runs this in time
	stalled := 0
	for {
		select {
		case <-s.all:
			return nil
		case <-s.reader:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			s.mu.Lock()
			silent := s.clock.now().Sub(max(s.last, begin))
			s.mu.Unlock()
			switch {
			case silent < s.quiet:
				again(s.quiet - silent)
			case stalled < stalls && (stoodStill(time.Since(set), wait) || s.unread()):
				stalled++
				again(s.quiet)
			default:
				return nil
			}
		}
	}
}

// stoodStill says whether this process was not run for some time while it waited for d: what was to come meanwhile may
// not have, and that is no quiet.
func stoodStill(took, d time.Duration) bool { return took > d+d/10+10*time.Millisecond }

// unread says whether a datagram lies in the socket.
func (s *UDPSink) unread() bool {
	var next int
	err := control(s.conn, func(fd int) (err error) {
		next, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	})
	return err == nil && next > 0
}

func (s *UDPSink) result(sent Sent) Result {
	r := Result{
		Proto: UDP, Streams: len(s.streams), Sent: sent.Total(), Received: s.received, Foreign: s.foreign,
		FrameSize: sent.FrameSize, Lateness: sent.Lateness, Behind: sent.Behind, Latency: s.latency.latency(),
	}
	for i := range s.streams {
		q := &s.streams[i]
		q.end(sent.Packets[i], max(sent.End, sent.Last))
		r.Duplicated += q.duplicated
		r.Reordered += q.reordered
		r.Unclassified += q.unclassified
		r.Losses = append(r.Losses, q.losses(i)...)
	}
	r.Losses = condense(r.Losses, maxLosses)
	for i := range r.Losses {
		l := &r.Losses[i]
		l.After = max(l.After, sent.Start)
	}
	if r.Received < r.Sent {
		r.Lost = r.Sent - r.Received
	}
	s.bins.fill(&r, sent)
	return r
}

func (s *UDPSink) read() {
	defer close(s.reader)
	for s.receive() {
	}
}

// receive takes one batch, and reports whether there may be another.
func (s *UDPSink) receive() bool {
	for i := range s.msgs {
		s.iovs[i].Base = &s.buf[i*sinkBuffer]
		s.iovs[i].SetLen(sinkBuffer)
		h := &s.msgs[i].hdr
		h.Iov, h.Iovlen = &s.iovs[i], 1
		h.Control = &s.ctl[i][0]
		h.SetControllen(len(s.ctl[i]))
	}
	s.got, s.err = 0, 0
	if err := s.raw.Read(s.pull); err != nil {
		return false // closed
	}
	now := s.clock.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != 0 {
		s.failure = s.err
		return false
	}
	var bytes uint64
	s.last = now
	for i := range s.got {
		n := int(s.msgs[i].len)
		b := s.buf[i*sinkBuffer : i*sinkBuffer+n]
		size := groSize(s.ctl[i][:s.msgs[i].hdr.Controllen])
		if size == 0 {
			size = max(n, 1)
		}
		for {
			d := b[:min(size, len(b))]
			bytes += s.take(d, now)
			if b = b[len(d):]; len(b) == 0 {
				break
			}
		}
	}
	if bytes > 0 {
		s.bins.add(now, bytes)
	}
	s.checkComplete()
	return true
}

// take counts one datagram, and gives the bytes of its IP packet if it is new.
func (s *UDPSink) take(d []byte, now Instant) uint64 {
	h, ok := parseHeader(d)
	if !ok || h.flow != s.flow || uint64(h.stream) >= uint64(len(s.streams)) {
		s.foreign++
		return 0
	}
	q := &s.streams[h.stream]
	if h.seq >= q.next && h.seq-q.next >= leap {
		s.foreign++
		return 0
	}
	if !q.arrive(h.seq, h.sent) {
		return 0
	}
	s.received++
	s.latency.record(now.Sub(h.sent), 1)
	return uint64(len(d) + overhead(s.addr.Addr()))
}

func (s *UDPSink) checkComplete() {
	if !s.complete && s.received >= s.expected {
		s.complete = true
		close(s.all)
	}
}

// groSize finds UDP_GRO among control messages: the size of each datagram in a buffer but the last.
func groSize(ctl []byte) int {
	for len(ctl) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(ctl) {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && n >= unix.CmsgLen(4) {
			return int(binary.NativeEndian.Uint32(ctl[unix.CmsgLen(0):]))
		}
		next := unix.CmsgSpace(n - unix.CmsgLen(0))
		if next >= len(ctl) {
			return 0
		}
		ctl = ctl[next:]
	}
	return 0
}
