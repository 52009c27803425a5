package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// TCPSink receives a TCP flow and answers its probes.
type TCPSink struct {
	ln    *net.TCPListener
	addr  netip.AddrPort
	clock clock
	stop  func() bool
	wg    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	conns   map[*net.TCPConn]struct{}
	counts  []uint64 // bytes of each load connection, in order of arrival
	bins    bins
	failure error
}

// ListenTCP opens a sink, which receives until Finish, Close or the end of ctx.
func ListenTCP(ctx context.Context, addr netip.AddrPort) (*TCPSink, error) {
	ln, err := listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("tcp sink: %w", err)
	}
	s := &TCPSink{ln: ln, addr: ln.Addr().(*net.TCPAddr).AddrPort(), clock: newClock(), conns: map[*net.TCPConn]struct{}{}}
	s.wg.Go(s.accept)
	s.stop = context.AfterFunc(ctx, s.shut)
	return s, nil
}

// Addr is where the sink listens.
func (s *TCPSink) Addr() netip.AddrPort { return s.addr }

// Received counts the bytes that have arrived until now.
func (s *TCPSink) Received() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bins.total
}

// Connections gives the bytes received by each load connection, in the order in which they came.
func (s *TCPSink) Connections() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]uint64(nil), s.counts...)
}

// Close ends the sink and its connections. It may be called after Finish.
func (s *TCPSink) Close() error {
	s.stop()
	s.shut()
	s.wg.Wait()
	return nil
}

func (s *TCPSink) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.ln.Close()
	for c := range s.conns {
		abort(c)
	}
}

// Finish is told what was sent and closes the sink. It need not wait: a source's Run ends when the sink has confirmed
// every byte.
func (s *TCPSink) Finish(_ context.Context, sent Sent) (Result, error) {
	s.Close()
	if sent.Proto != TCP {
		return Result{}, fmt.Errorf("tcp sink at %v: was told of a %s flow", s.addr, sent.Proto)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Result{
		Proto: TCP, Streams: len(sent.Packets), Sent: sent.Bytes, Received: s.bins.total,
		Retransmitted: sent.Retransmitted, Congestion: sent.Congestion, Latency: sent.RoundTrip,
	}
	s.bins.fill(&r, sent)
	return r, s.failure
}

func (s *TCPSink) accept() {
	for {
		conn, err := s.ln.AcceptTCP()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.fail(err)
			}
			return
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			abort(conn)
			return
		}
		s.conns[conn] = struct{}{}
		s.wg.Go(func() { s.serve(conn) })
		s.mu.Unlock()
	}
}

func (s *TCPSink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil && !s.closed {
		s.failure = fmt.Errorf("tcp sink at %v: %w", s.addr, err)
	}
}

func (s *TCPSink) serve(conn *net.TCPConn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		conn.Close()
	}()
	var g [greetingSize]byte
	if _, err := io.ReadFull(conn, g[:]); err != nil || binary.BigEndian.Uint32(g[:]) != magic {
		return // not a source: a port scan, or somebody's mistake
	}
	switch binary.BigEndian.Uint32(g[4:]) {
	case forLoad:
		s.count(conn)
	case forProbe:
		var b [probeSize]byte
		for {
			if _, err := io.ReadFull(conn, b[:]); err != nil {
				return
			}
			if _, err := conn.Write(b[:]); err != nil {
				return
			}
		}
	}
}

// count takes a stream to its end and confirms its length.
func (s *TCPSink) count(conn *net.TCPConn) {
	s.mu.Lock()
	index := len(s.counts)
	s.counts = append(s.counts, 0)
	s.mu.Unlock()
	buf := make([]byte, chunk)
	var total uint64
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			total += uint64(n)
			now := s.clock.now()
			s.mu.Lock()
			s.counts[index] = total
			s.bins.add(now, uint64(n))
			s.mu.Unlock()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], total)
	if _, err := conn.Write(b[:]); err != nil {
		s.fail(err)
	}
}
