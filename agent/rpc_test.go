package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"pqlab/ipsec"
	"pqlab/traffic"
)

// Errors keep their message and the sentinels that a lab decides on; the node's name is added.
func TestErrorsCross(t *testing.T) {
	t.Parallel()
	if fromStatus("n", "Call", toStatus(nil)) != nil {
		t.Error("an error of nothing")
	}
	all := []error{errors.ErrUnsupported, context.DeadlineExceeded, context.Canceled}
	for _, tt := range []struct {
		err  error
		want error
	}{
		{fmt.Errorf("no TUN: %w", errors.ErrUnsupported), errors.ErrUnsupported},
		{fmt.Errorf("step answer: %w", context.DeadlineExceeded), context.DeadlineExceeded},
		{fmt.Errorf("given up: %w", context.Canceled), context.Canceled},
		{errors.Join(context.Canceled, errors.ErrUnsupported), errors.ErrUnsupported},
		{errors.New("plain"), nil},
	} {
		err := fromStatus("n", "Call", toStatus(tt.err))
		var e *Error
		if !errors.As(err, &e) || e.Node != "n" || e.Call != "Call" || e.Reason != tt.err.Error() || !strings.Contains(err.Error(), e.Reason) {
			t.Errorf("%v became %#v", tt.err, err)
		}
		for _, sentinel := range all {
			if errors.Is(err, sentinel) != (sentinel == tt.want) {
				t.Errorf("%v became %v, which is %v", tt.err, err, sentinel)
			}
		}
	}
}

// Calls end with their context, and say so.
func TestCallsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	quiet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	_, err = n.Send(ctx, Source{Proto: traffic.TCP, Streams: 1, Duration: time.Hour, To: quiet.Addr().(*net.TCPAddr).AddrPort()})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Hello(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := n.Events(cancelled, func(Event) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestUnknownCalls(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	_, err := invoke[struct{}](t.Context(), n.Client, "Format", "c:")
	_, errStream := receive(t.Context(), n.Client, "Format", struct{}{}, func(struct{}) {})
	_, errIn := invoke[struct{}](t.Context(), n.Client, "Advance", "soon")
	for name, err := range map[string]error{"call": err, "stream": errStream, "request": errIn} {
		var e *Error
		if !errors.As(err, &e) || e.Node != "n" {
			t.Errorf("%s that is not known: %v", name, err)
		}
	}
	if _, err := n.Hello(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A flow of hours has more bins than gRPC takes by default.
func TestLongMessages(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	long := strings.Repeat("long ", 2<<20)
	var e *Error
	if err := n.RemoveTunnel(t.Context(), long); !errors.As(err, &e) || len(e.Reason) < maxReason || len(e.Reason) > maxReason+10 {
		t.Errorf("request of %d bytes: %.200v", len(long), err)
	}
	ended, _ := startStream(t, n, func(send func(Event) error) error { return send(Event{Error: long}) })
	if e := <-ended; e.Error != long {
		t.Errorf("answer of %d bytes arrived as %d", len(long), len(e.Error))
	}
}

// startStream subscribes to an agent whose Events are those that f sends.
func startStream(t *testing.T, n *node, f func(send func(Event) error) error) (<-chan Event, <-chan error) {
	t.Helper()
	events := make(chan Event, 16)
	client, server := socket(t)
	g := newStreamServer(func(*Server, struct{}) func(context.Context, func(Event) error) error {
		return func(_ context.Context, send func(Event) error) error { return f(send) }
	})
	go g.Serve(newSingle(server))
	t.Cleanup(g.Stop)
	conn, err := dial(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	done, err := receive(t.Context(), &Client{node: n.node, conn: conn}, "Events", struct{}{}, func(e Event) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	return events, done
}

func newStreamServer(open func(*Server, struct{}) func(context.Context, func(Event) error) error) *grpc.Server {
	g := grpc.NewServer(grpc.ForceServerCodec(codec{}), grpc.MaxSendMsgSize(maxMessage))
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{stream("Events", open)},
	}, &Server{})
	return g
}

func socket(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// The end of a stream is told: nil if it was over, the server's error if it failed.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	_, ended := startStream(t, n, func(send func(Event) error) error { return nil })
	if err := <-ended; err != nil {
		t.Errorf("a stream that was over: %v", err)
	}
	_, ended = startStream(t, n, func(send func(Event) error) error { return fmt.Errorf("kaput: %w", errors.ErrUnsupported) })
	var e *Error
	if err := <-ended; !errors.As(err, &e) || !errors.Is(err, errors.ErrUnsupported) || e.Reason != "kaput: "+errors.ErrUnsupported.Error() {
		t.Errorf("a stream that failed: %v", err)
	}
}

// Once receive has returned, open has: what happens afterwards is not missed.
func TestStreamIsOpenWhenReceiveReturns(t *testing.T) {
	t.Parallel()
	for range 50 {
		var opened, ended sync.WaitGroup
		opened.Add(1)
		ended.Add(1)
		var mu sync.Mutex
		open := false
		client, server := socket(t)
		g := newStreamServer(func(*Server, struct{}) func(context.Context, func(Event) error) error {
			time.Sleep(time.Millisecond) // so that a call that did not wait would win
			mu.Lock()
			open = true
			mu.Unlock()
			return func(ctx context.Context, _ func(Event) error) error { defer ended.Done(); <-ctx.Done(); return nil }
		})
		go g.Serve(newSingle(server))
		conn, err := dial(client)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done, err := receive(ctx, &Client{node: "n", conn: conn}, "Events", struct{}{}, func(Event) {})
		mu.Lock()
		was := open
		mu.Unlock()
		if err != nil || !was {
			t.Fatalf("open: %v, %v", was, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("a stream that was given up: %v", err)
		}
		ended.Wait()
		conn.Close()
		g.Stop()
	}
}

// Every event from the subscription on arrives, in order; streams that have ended are forgotten.
func TestEvents(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Node: "n"})
	n.server.events.send(Event{Tunnel: "before"})
	ctx, cancel := context.WithCancel(t.Context())
	var first, second log
	if err := n.Events(ctx, first.note); err != nil {
		t.Fatal(err)
	}
	if err := n.Events(t.Context(), second.note); err != nil {
		t.Fatal(err)
	}
	const many = 1000
	for i := range many {
		n.server.events.send(Event{Kind: ipsec.Rekeyed, At: traffic.Instant(i)})
	}
	for _, l := range []*log{&first, &second} {
		got := l.until(t, ipsec.Rekeyed, many)
		if !slices.IsSortedFunc(got, func(a, b Event) int { return int(a.At - b.At) }) || len(l.of("")) != 0 || got[many-1].Missed != 0 {
			t.Errorf("%d events, not in order or not those since the subscription", len(got))
		}
	}
	cancel()
	eventually(t, "the subscription ends", func() bool {
		n.server.events.mu.Lock()
		defer n.server.events.mu.Unlock()
		return len(n.server.events.subscribers) == 1
	})
}

// Whoever falls behind misses events and is told how many; nobody waits for him.
func TestBroadcastToTheSlow(t *testing.T) {
	t.Parallel()
	var b broadcast
	b.send(Event{}) // to nobody
	slow, quick := b.subscribe(), b.subscribe()
	total := cap(slow) + 10
	for i := range total {
		b.send(Event{At: traffic.Instant(i), Missed: 5}) // 5 were missed before they came here
		if e := <-quick; e.At != traffic.Instant(i) || e.Missed != 5 {
			t.Fatalf("quick got %+v as event %d", e, i)
		}
	}
	for i := range cap(slow) {
		if e := <-slow; e.At != traffic.Instant(i) || e.Missed != 5 {
			t.Fatalf("slow got %+v as event %d", e, i)
		}
	}
	b.send(Event{At: 1 << 40, Missed: 5})
	if e := <-slow; e.At != 1<<40 || e.Missed != 15 {
		t.Errorf("after %d that found no room: %+v", total-cap(slow), e)
	}
	b.unsubscribe(slow)
	b.unsubscribe(slow)
	b.send(Event{})
	if len(slow) != 0 || len(quick) != 2 {
		t.Errorf("%d for the one who left, %d for the other", len(slow), len(quick))
	}
}
