package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchMax is how many packets of a stream leave in one system call: UDP_MAX_SEGMENTS of kernels before 6.9.
	batchMax = 64
	// tick is the shortest time between wake-ups of a paced source: what is due within it leaves together.
	tick = 250 * time.Microsecond
	// patience is how far a schedule may lag; beyond it the rest is given up (Sent.Behind), not sent in a burst.
	patience = 100 * time.Millisecond
	// refusals after which nobody is taken to listen. Kernels send "port unreachable" sparingly (icmp_ratelimit).
	refusals = 8
)

// UDPSource sends a UDP flow. Each stream has a socket, so a port, of its own.
//
// The schedule is of absolute deadlines: packet i is due i/rate after the start and never leaves before. The source
// sleeps between batches and never spins; the price is that packets leave up to a tick (0.25 ms) and the kernel's wake-up
// late, which Sent.Lateness tells.
type UDPSource struct {
	From      netip.Addr     // local address; zero: the kernel chooses
	To        netip.AddrPort // the sink
	Flow      uint64         // as the sink's
	Streams   int            // 0: 1
	FrameSize int            // bytes of IP packet; 0: the largest that the route to To carries now
	Rate      uint64         // bit/s of IP packets, of all streams together; 0: as fast as the socket takes them
	Duration  time.Duration  // 0: until Packets, or until ctx ends
	Packets   uint64         // of all streams together; 0: until Duration
	Fragments bool           // send without DF and let packets that are too large be fragmented
	NoGSO     bool           // one buffer for each packet from the start, as small senders do
}

// Run sends until the flow is complete, ctx ends (which is no error) or a packet cannot be sent. What was sent is told in
// every case.
func (u UDPSource) Run(ctx context.Context) (Sent, error) {
	s, err := u.open()
	if err != nil {
		return Sent{Proto: UDP, FrameSize: u.FrameSize}, err
	}
	defer s.close()
	stop := context.AfterFunc(ctx, func() { s.interrupt() })
	defer stop()
	err = s.run(ctx)
	return s.sent(), err
}

type udpSender struct {
	cfg      UDPSource
	clock    clock
	streams  []*udpStream
	buf      []byte // batchMax payloads
	payload  int
	total    uint64 // packets sent
	start    Instant
	shift    time.Duration // schedule given up so far
	limit    uint64
	interval float64 // ns between packets; 0: none
	late     histogram
	refused  uint64
	end      Instant
	last     Instant // of the last send
}

type udpStream struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	id   uint32
	seq  uint64
	gso  bool

	msgs [batchMax]mmsghdr
	iovs [batchMax]unix.Iovec
	ctl  []byte // UDP_SEGMENT
	vlen int    // of msgs
	done int    // of msgs
	err  unix.Errno
	push func(fd uintptr) bool // made once, so that a batch allocates nothing
}

func (u UDPSource) open() (_ *udpSender, err error) {
	if !u.To.IsValid() || u.To.Port() == 0 {
		return nil, fmt.Errorf("udp source: no destination: %v", u.To)
	}
	if u.Streams < 0 || u.Streams > 1<<15 {
		return nil, fmt.Errorf("udp to %v: %d streams; 1 to 32768 are possible", u.To, u.Streams)
	}
	u.Streams = max(u.Streams, 1)
	s := &udpSender{cfg: u, clock: newClock(), late: newHistogram()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for i := range u.Streams {
		st, err := u.dial(uint32(i))
		if err != nil {
			return nil, err
		}
		s.streams = append(s.streams, st)
	}
	if err := s.setFrame(); err != nil {
		return nil, err
	}
	return s, nil
}

func (u UDPSource) dial(id uint32) (*udpStream, error) {
	conn, err := net.DialUDP(network("udp", u.To.Addr()), localUDP(u.From), net.UDPAddrFromAddrPort(u.To))
	if err != nil {
		return nil, fmt.Errorf("udp source: %w", err)
	}
	st := &udpStream{conn: conn, id: id, gso: !u.NoGSO && !u.Fragments}
	err = control(conn, func(fd int) error {
		setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, 1<<20)
		discover4, discover6 := unix.IP_PMTUDISC_DO, unix.IPV6_PMTUDISC_DO
		if u.Fragments {
			discover4, discover6 = unix.IP_PMTUDISC_DONT, unix.IPV6_PMTUDISC_DONT
		}
		if u.To.Addr().Unmap().Is4() {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discover4)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, discover6)
	})
	if err == nil {
		st.raw, err = conn.SyscallConn()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("udp to %v: %w", u.To, err)
	}
	st.push = func(fd uintptr) bool {
		for st.done < st.vlen {
			n, e := sendmmsg(fd, st.msgs[st.done:st.vlen])
			switch e {
			case 0:
				st.done += n
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				st.err = e
				return true
			}
		}
		return true
	}
	st.ctl = make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&st.ctl[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return st, nil
}

// setFrame decides the packets' size and what follows from it.
func (s *udpSender) setFrame() error {
	head := overhead(s.cfg.To.Addr())
	mtu, err := s.mtu()
	if err != nil {
		return err
	}
	frame := s.cfg.FrameSize
	if frame == 0 {
		frame = min(mtu, maxFrame)
	}
	most := mtu
	if s.cfg.Fragments {
		most = maxFrame
	}
	if frame < head+headerSize || frame > min(most, maxFrame) {
		return &FrameError{To: s.cfg.To, Frame: frame, Min: head + headerSize, Max: min(most, maxFrame)}
	}
	s.cfg.FrameSize = frame
	s.payload = frame - head
	s.buf = make([]byte, batchMax*s.payload)
	for i := range s.buf { // not all zero: a link or a file system that compresses must not flatter itself
		s.buf[i] = byte(i*167 ^ i>>8)
	}
	for _, st := range s.streams {
		*(*uint16)(unsafe.Pointer(&st.ctl[unix.CmsgLen(0)])) = uint16(s.payload)
	}
	s.limit = s.cfg.Packets
	if s.cfg.Rate > 0 {
		s.interval = float64(frame) * 8 / float64(s.cfg.Rate) * 1e9
	}
	return nil
}

func (s *udpSender) mtu() (mtu int, err error) {
	level, opt := unix.IPPROTO_IP, unix.IP_MTU
	if !s.cfg.To.Addr().Unmap().Is4() {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	err = control(s.streams[0].conn, func(fd int) error {
		mtu, err = unix.GetsockoptInt(fd, level, opt)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("udp to %v: MTU of the route: %w", s.cfg.To, err)
	}
	return mtu, nil
}

func (s *udpSender) close() {
	for _, st := range s.streams {
		st.conn.Close()
	}
}

// interrupt wakes a send that waits for room in the socket.
func (s *udpSender) interrupt() {
	for _, st := range s.streams {
		_ = st.conn.SetWriteDeadline(time.Unix(1, 0)) // fails on a closed socket only, where nothing waits
	}
}

func (s *udpSender) run(ctx context.Context) error {
	s.start = s.clock.now()
	s.end = s.start
	stop := Instant(1<<63 - 1)
	if s.cfg.Duration > 0 {
		stop = s.start.Add(s.cfg.Duration)
	}
	defer func() {
		if s.limit > 0 && s.total == s.limit && s.interval > 0 {
			// The last packet has its interval too.
			s.end = min(s.due(s.total), stop)
		} else {
			s.end = min(s.clock.now(), stop)
		}
	}()
	wake := s.start
	for ctx.Err() == nil {
		now := s.clock.now()
		if now >= stop || s.limit > 0 && s.total >= s.limit {
			return nil
		}
		n := s.ready(now, stop)
		if n == 0 {
			next := max(s.due(s.total), wake.Add(tick))
			if s.due(s.total) >= stop {
				next = stop
			}
			sleepUntil(ctx, s.clock, min(next, stop))
			wake = s.clock.now()
			continue
		}
		if err := s.send(n, now); err != nil {
			if ctx.Err() != nil && (errors.Is(err, errInterrupted) || errors.Is(err, ErrRefused)) {
				return nil
			}
			return err
		}
	}
	return nil
}

// due is when packet i shall leave.
func (s *udpSender) due(i uint64) Instant {
	return s.start + Instant(float64(i)*s.interval) + Instant(s.shift)
}

// ready counts the packets to send now, at most a batch for each stream.
func (s *udpSender) ready(now, stop Instant) int {
	n := uint64(len(s.streams) * batchMax)
	if s.limit > 0 {
		n = min(n, s.limit-s.total)
	}
	if s.interval == 0 {
		return int(n)
	}
	first := s.due(s.total)
	if first > now || first >= stop {
		return 0
	}
	if late := now.Sub(first); late > patience {
		s.shift += late
	}
	elapsed := min(now, stop-1) - s.start - Instant(s.shift)
	return int(min(n, uint64(float64(elapsed)/s.interval)+1-s.total))
}

var errInterrupted = errors.New("interrupted")

// send sends the next n packets, dealt out to the streams in turn.
func (s *udpSender) send(n int, now Instant) error {
	if s.interval > 0 {
		for i := range uint64(n) {
			s.late.record(now.Sub(s.due(s.total+i)), 1)
		}
	}
	k := uint64(len(s.streams))
	turn := s.total % k
	for i := uint64(0); i < k && i < uint64(n); i++ {
		st := s.streams[(turn+i)%k]
		share := (n - int(i) + int(k) - 1) / int(k)
		if err := s.sendStream(st, share); err != nil {
			return err
		}
	}
	return nil
}

// sendStream sends the next n packets of a stream.
func (s *udpSender) sendStream(st *udpStream, n int) error {
	for n > 0 {
		count := n
		if st.gso {
			count = min(n, max(1, (maxFrame-overhead(s.cfg.To.Addr()))/s.payload))
		}
		sent, err := s.push(st, count)
		st.seq += uint64(sent)
		s.total += uint64(sent)
		n -= sent
		switch {
		case err == 0:
		case err == unix.ECONNREFUSED:
			// The answer to an earlier packet; this one did not leave.
			if s.refused++; s.refused >= refusals {
				return fmt.Errorf("udp to %v: %w", s.cfg.To, ErrRefused)
			}
		case err == unix.ENOBUFS:
			// The device's queue is full: it is a loss on the way, at its first step.
			st.seq++
			s.total++
			n--
		case err == unix.ETIMEDOUT:
			return errInterrupted
		case err == unix.EMSGSIZE || st.gso && err == unix.EINVAL && s.tooBig():
			mtu, _ := s.mtu()
			return &FrameError{To: s.cfg.To, Frame: s.cfg.FrameSize, Min: MinFrame(s.cfg.To.Addr()), Max: mtu}
		case st.gso && (err == unix.EIO || err == unix.EINVAL || err == unix.EOPNOTSUPP):
			// A device without checksum offload, or a kernel before 4.18.
			st.gso = false
		default:
			return fmt.Errorf("udp to %v: send: %w", s.cfg.To, err)
		}
	}
	return nil
}

func (s *udpSender) tooBig() bool {
	mtu, err := s.mtu()
	return err == nil && s.cfg.FrameSize > mtu
}

// push sends n packets in one system call, as long as the socket has room, and says how many left.
func (s *udpSender) push(st *udpStream, n int) (int, unix.Errno) {
	now := s.clock.now()
	s.last = now
	for i := range n {
		header{stream: st.id, flow: s.cfg.Flow, seq: st.seq + uint64(i), sent: now}.put(s.buf[i*s.payload:])
	}
	per := 1
	st.vlen = n
	if st.gso && n > 1 {
		per, st.vlen = n, 1
	}
	for i := range st.vlen {
		st.iovs[i].Base = &s.buf[i*s.payload]
		st.iovs[i].SetLen(per * s.payload)
		h := &st.msgs[i].hdr
		h.Iov, h.Iovlen = &st.iovs[i], 1
		h.Control = nil
		h.SetControllen(0)
		if per > 1 {
			h.Control = &st.ctl[0]
			h.SetControllen(len(st.ctl))
		}
	}
	st.done, st.err = 0, 0
	if err := st.raw.Write(st.push); err != nil {
		return st.done * per, unix.ETIMEDOUT // closed or interrupted
	}
	return st.done * per, st.err
}

func (s *udpSender) sent() Sent {
	out := Sent{
		Proto: UDP, Start: s.start, End: s.end, Last: s.last, FrameSize: s.cfg.FrameSize,
		Bytes:    s.total * uint64(s.cfg.FrameSize),
		Lateness: s.late.latency(), Behind: s.shift, Refused: s.refused,
	}
	for _, st := range s.streams {
		out.Packets = append(out.Packets, st.seq)
	}
	return out
}
