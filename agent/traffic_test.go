package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"pqlab/ipsec/strongswan"
	"pqlab/pqc/exchange"
	"pqlab/traffic"
)

// What a source sends arrives at the sink, through relays for TCP, and the sink is gone after its result.
func TestTraffic(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		source Source
		relay  bool
	}{
		{"tcp", Source{Proto: traffic.TCP, Streams: 2, Bytes: 1 << 20}, false},
		{"tcp by a relay", Source{Proto: traffic.TCP, Streams: 1, Bytes: 1 << 20}, true},
		{"udp", Source{Proto: traffic.UDP, Streams: 2, Flow: 4711, Packets: 300, Rate: 50e6, FrameSize: 500}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, Config{Node: "a"}), start(t, Config{Node: "b"})
			sink, err := b.OpenSink(t.Context(), Sink{
				Proto: tt.source.Proto, Listen: netip.AddrPortFrom(b.addr, 0), Flow: tt.source.Flow, Streams: tt.source.Streams,
			})
			if err != nil {
				t.Fatal(err)
			}
			to := sink.Addr
			var relay Listening
			if tt.relay {
				if relay, err = a.OpenRelay(t.Context(), Relay{Listen: netip.AddrPortFrom(a.addr, 0), To: to, From: a.addr}); err != nil {
					t.Fatal(err)
				}
				to = relay.Addr
			}
			s := tt.source
			s.From, s.To = a.addr, to
			sent, err := a.Send(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.FinishSink(t.Context(), Finish{ID: sink.ID, Sent: sent})
			if err != nil {
				t.Fatal(err)
			}
			if got.Bytes == 0 || got.Bytes != sent.Bytes || got.Streams != s.Streams || got.Lost != 0 {
				t.Errorf("sent %+v, got %+v", sent, got)
			}
			if _, err := b.FinishSink(t.Context(), Finish{ID: sink.ID, Sent: sent}); err == nil {
				t.Error("a sink was finished twice")
			}
			if tt.relay {
				if _, err := a.FinishSink(t.Context(), Finish{ID: relay.ID, Sent: sent}); err == nil {
					t.Error("a relay was finished")
				}
				// It may have taken the connection, found its sink gone and ended it, before Dial looks.
				if conn, err := net.Dial("tcp", relay.Addr.String()); err == nil {
					conn.Close()
				} else if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the relay is gone: %v", err)
				}
				// That connection may have found nobody, which the relay tells.
				if err := a.CloseTraffic(t.Context(), relay.ID); errors.Is(err, ErrNotCarried) {
					t.Error(err)
				}
				if conn, err := net.Dial("tcp", relay.Addr.String()); err == nil {
					conn.Close()
					t.Error("the relay was closed, and accepts")
				}
			}
			if n := len(a.server.open) + len(b.server.open); n != 0 {
				t.Errorf("%d sinks and relays are open", n)
			}
		})
	}
}

func TestCloseTraffic(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	for _, proto := range []string{traffic.TCP, traffic.UDP} {
		sink, err := n.OpenSink(t.Context(), Sink{Proto: proto, Listen: netip.AddrPortFrom(n.addr, 0), Streams: 1})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := n.CloseTraffic(t.Context(), sink.ID); err != nil {
				t.Errorf("%s: %v", proto, err)
			}
		}
		again, err := n.OpenSink(t.Context(), Sink{Proto: proto, Listen: sink.Addr, Streams: 1})
		// A process that another test starts has the socket too, from its fork until its exec.
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
			again, err = n.OpenSink(t.Context(), Sink{Proto: proto, Listen: sink.Addr, Streams: 1})
		}
		if err != nil {
			t.Errorf("%s: its address is not free again: %v", proto, err)
		}
		if again.ID == sink.ID {
			t.Errorf("%s: an ID was given twice", proto)
		}
	}
	if err := n.CloseTraffic(t.Context(), 4711); err != nil {
		t.Errorf("what was never open: %v", err)
	}
}

func TestTrafficRefuses(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	at := netip.AddrPortFrom(n.addr, 0)
	taken, err := n.OpenSink(t.Context(), Sink{Proto: traffic.TCP, Listen: at})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"sink's protocol":   second(n.OpenSink(t.Context(), Sink{Proto: "sctp", Listen: at})),
		"source's protocol": second(n.Send(t.Context(), Source{Proto: "sctp", Duration: time.Second})),
		"sink's address":    second(n.OpenSink(t.Context(), Sink{Proto: traffic.TCP, Listen: taken.Addr})),
		"relay's address":   second(n.OpenRelay(t.Context(), Relay{Listen: taken.Addr, To: taken.Addr})),
		"sink":              second(n.FinishSink(t.Context(), Finish{ID: 99})),
	} {
		if err == nil || errors.Is(err, ErrNotCarried) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// That the network does not carry a flow is known to the lab as such, with what was sent; that its sink ends is something else.
func TestTrafficNotCarried(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ends := make(chan bool)
	go func() {
		for closes := range ends {
			for range 2 { // the flow's and its round trips'
				c, err := ln.Accept()
				if err != nil {
					return
				}
				if closes {
					c.Close()
					continue
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(io.Discard, c)
					<-t.Context().Done() // nothing is confirmed
				}()
			}
		}
	}()
	source := Source{Proto: traffic.TCP, To: ln.Addr().(*net.TCPAddr).AddrPort(), Streams: 1, Duration: 50 * time.Millisecond, Drain: 100 * time.Millisecond}
	ends <- true
	if _, err := n.Send(t.Context(), source); err == nil || errors.Is(err, ErrNotCarried) {
		t.Errorf("a sink that ends: %v", err)
	}
	ends <- false
	sent, err := n.Send(t.Context(), source)
	var e *Error
	if !errors.Is(err, ErrNotCarried) || !errors.As(err, &e) || e.Node != "n" || sent.Start == 0 || sent.Bytes == 0 {
		t.Errorf("%+v, %v", sent, err)
	}
	close(ends)
}

// failed is a sink that knows why it did not get all, as one whose source was given up.
type failed struct {
	io.Closer
	result traffic.Result
}

func (failed) Addr() netip.AddrPort { return netip.AddrPort{} }
func (f failed) Finish(context.Context, traffic.Sent) (traffic.Result, error) {
	return f.result, errors.New("reset")
}

// Of a flow that was given up the sink tells what arrived; of one that was not it is an error.
func TestFinishBroken(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	for _, tt := range []struct {
		result traffic.Result
		broken bool
		ok     bool
	}{
		{traffic.Result{Proto: traffic.TCP, Bytes: 7}, true, true},
		{traffic.Result{Proto: traffic.TCP, Bytes: 7}, false, false},
		{traffic.Result{}, true, false}, // it made none
	} {
		got, err := n.FinishSink(t.Context(), Finish{ID: n.server.keep(failed{result: tt.result}), Broken: tt.broken})
		if (err == nil) != tt.ok || tt.ok && got.Bytes != tt.result.Bytes {
			t.Errorf("%+v: %+v, %v", tt, got, err)
		}
	}
}

// A relay that finds no way tells so when it is closed, and another failure of it is not the network's.
func TestRelayTells(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	for _, tt := range []struct {
		err     error
		network bool
	}{{errors.New("refused"), false}, {fmt.Errorf("silence: %w", traffic.ErrUndelivered), true}} {
		id := n.server.keep(closing{tt.err})
		if err := n.CloseTraffic(t.Context(), id); err == nil || errors.Is(err, ErrNotCarried) != tt.network {
			t.Errorf("%v became %v", tt.err, err)
		}
		if err := n.CloseTraffic(t.Context(), id); err != nil {
			t.Errorf("it is closed: %v", err)
		}
	}
}

type closing struct{ err error }

func (c closing) Close() error { return nil }
func (c closing) Err() error   { return c.err }

func TestExchangeError(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	for name, tt := range map[string]struct {
		ctx  context.Context
		err  error
		want bool
	}{
		"no route":            {t.Context(), &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, true},
		"no answer":           {t.Context(), fmt.Errorf("key exchange: %w", context.DeadlineExceeded), true},
		"silence":             {t.Context(), &exchange.Error{Alert: exchange.Timeout, Remote: true}, true},
		"silence of IKE":      {t.Context(), fmt.Errorf("tunnel t: %w", strongswan.ErrSilent), true},
		"charon has ended":    {t.Context(), strongswan.ErrEnded, false},
		"nobody listens":      {t.Context(), &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, false},
		"untrusted":           {t.Context(), exchange.ErrUntrusted, false},
		"nobody waits for it": {ended, context.DeadlineExceeded, false},
	} {
		if err := exchangeError(tt.ctx, tt.err); errors.Is(err, ErrNotCarried) != tt.want || err.Error() != tt.err.Error() || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
