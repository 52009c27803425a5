package keying_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/ipsec/keying"
	"pqlab/pqc/exchange"
)

// moody is a listener that fails with each of its errors in turn, in the way of the net package, and says when. A nil one is
// a connection that is closed already; after the last one it fails as the last one for ever.
type moody struct {
	net.Listener
	errs []error
	at   []time.Time
}

func (m *moody) Accept() (net.Conn, error) {
	n := min(len(m.at), len(m.errs)-1)
	m.at = append(m.at, time.Now())
	err := m.errs[n]
	if err == nil {
		a, b := net.Pipe()
		b.Close()
		return a, nil
	}
	if _, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError("accept4", err)
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
}

// Want of descriptors or memory passes, and so does a peer that hung up in the queue: Serve waits a moment and goes on.
func TestAcceptFailsForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := keying.New(exchange.Endpoint{}, nil, nil)
		l := &moody{errs: []error{
			syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, nil, syscall.EMFILE, nil, net.ErrClosed,
		}}
		var failed atomic.Int64
		if err := s.Serve(t.Context(), l, func(error) { failed.Add(1) }); err != nil {
			t.Error(err)
		}
		if failed.Load() != 2 || len(l.at) != len(l.errs) {
			t.Errorf("%d exchanges, %d calls of Accept", failed.Load(), len(l.at))
		}
		for i, at := range l.at[1:] {
			pause := at.Sub(l.at[i])
			if (pause > 0) != (l.errs[i] != nil) || pause > time.Second {
				t.Errorf("%v after %v", pause, l.errs[i])
			}
		}
	})
	// What does not pass ends with the context.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		s := keying.New(exchange.Endpoint{}, nil, nil)
		if err := s.Serve(ctx, &moody{errs: []error{syscall.EMFILE}}, nil); err != nil || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// Connections from where no peer is cannot take the places of those from where one is.
func TestStrangersLeaveRoom(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := b.endpoint
	endpoint.Deadline = patience
	service := keying.New(endpoint, b.tunnels.Get, func(keying.Report) {})
	peer := keying.Peer{Tunnel: "t", Remote: netip.MustParseAddr("127.0.0.1"), Config: config(t, a.pin())}
	service.Trust(peer)
	counting := &countingListener{Listener: l}
	ctx, stop := context.WithCancel(t.Context())
	failed, served := make(chan error, 1000), make(chan error, 1)
	go func() { served <- service.Serve(ctx, counting, func(err error) { failed <- err }) }()
	dial := func(ctx context.Context, from string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}
	const crowd = 3 * keying.MaxAnswering
	var conns []net.Conn
	for i := range crowd {
		conn, err := dial(t.Context(), fmt.Sprintf("127.0.0.%d", 2+i%5))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // none says a word
		conns = append(conns, conn)
	}
	eventually(t, "all are taken in", func() bool { return counting.accepted.Load() == crowd })
	eventually(t, "most are hung up on", func() bool { return counting.open.Load() == keying.MaxStrangers })
	select {
	case <-failed:
	default:
		t.Error("nobody is told that strangers are too many")
	}
	a.service.Dial = func(ctx context.Context, _ keying.Peer) (net.Conn, error) { return dial(ctx, "127.0.0.1") }
	if err := a.tunnel.Establish(t.Context()); err != nil {
		t.Errorf("the peer finds no place: %v", err)
	}
	if n := counting.open.Load(); n < keying.MaxStrangers || len(failed) > 0 {
		t.Errorf("%d connections are open, %d more failures were told", n, len(failed))
	}
	// When they go others find room.
	for _, c := range conns {
		c.Close()
	}
	for range keying.MaxStrangers {
		if err := <-failed; !errors.Is(err, io.EOF) {
			t.Errorf("the end of one who hung up: %v", err)
		}
	}
	eventually(t, "all places are free", func() bool { return counting.open.Load() == 0 })
	late, err := dial(t.Context(), "127.0.0.9")
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	eventually(t, "the last one is taken in", func() bool { return counting.accepted.Load() == crowd+2 })
	l.Close()
	stop()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Serve outlives its listener and its context")
	}
	if n := len(failed); n != 1 || !errors.Is(<-failed, exchange.Cancelled) {
		t.Errorf("%d failures, want that of the last one, which was under way", n)
	}
	if n := counting.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}
