package keying_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/pqc"
	"pqlab/pqc/exchange"
)

// patience bounds what a test waits for; nothing here takes a fraction of it.
const patience = 2 * time.Minute

// plane is a dataplane that carries nothing.
type plane struct{ expiries chan ipsec.Expiry }

func (plane) Name() string                                    { return "none" }
func (plane) AddTunnel(ipsec.Policy) error                    { return nil }
func (plane) AddInbound(string, *ipsec.SA) error              { return nil }
func (plane) SetOutbound(string, *ipsec.SA) error             { return nil }
func (plane) RemoveInbound(string, uint32) error              { return nil }
func (plane) RemoveOutbound(string, uint32) error             { return nil }
func (plane) Drops(string) (ipsec.Drops, error)               { return ipsec.Drops{}, nil }
func (plane) RemoveTunnel(string) error                       { return nil }
func (plane) Close() error                                    { return nil }
func (p plane) Expiries() <-chan ipsec.Expiry                 { return p.expiries }
func (plane) Counters(string, uint32) (ipsec.Counters, error) { return ipsec.Counters{}, nil }

// end is one end of the tunnel "t", with its listener.
type end struct {
	endpoint exchange.Endpoint
	tunnels  *ipsec.Tunnels
	tunnel   *ipsec.Tunnel
	service  *keying.Service
	listener net.Listener

	mu      sync.Mutex
	reports []keying.Report
	failed  []error
}

func (e *end) pin() exchange.Pin { return exchange.PinOf(e.endpoint.Certificate.Leaf) }

func open(t *testing.T, name string) *end {
	t.Helper()
	certificate, err := exchange.NewIdentity(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &end{endpoint: exchange.Endpoint{Certificate: certificate}}
	e.tunnels = ipsec.NewTunnels(plane{make(chan ipsec.Expiry)}, nil, nil)
	e.service = keying.New(e.endpoint, e.tunnels.Get, func(r keying.Report) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.reports = append(e.reports, r)
	})
	addr := netip.MustParseAddr("127.0.0.1")
	if e.tunnel, err = e.tunnels.Add(ipsec.Config{
		Policy: ipsec.Policy{Tunnel: "t", Src: addr, Dst: addr, PathMTU: 1500}, Keyer: e.service.Keyer("t"),
	}); err != nil {
		t.Fatal(err)
	}
	if e.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := e.service.Serve(ctx, e.listener, func(err error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.failed = append(e.failed, err)
		}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		e.listener.Close()
		e.tunnels.Close()
		serving.Wait()
	})
	return e
}

func (e *end) failures() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]error(nil), e.failed...)
}

func (e *end) reported() []keying.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]keying.Report(nil), e.reports...)
}

func config(t *testing.T, peer exchange.Pin) exchange.Config {
	t.Helper()
	suite, err := pqc.ParseSuite("mldsa44+mlkem512")
	if err != nil {
		t.Fatal(err)
	}
	return exchange.Config{Peer: exchange.Peer{Pin: peer}, Suites: []pqc.Suite{suite}, Deadline: patience}
}

// pair is two ends that trust each other.
func pair(t *testing.T) (a, b *end) {
	t.Helper()
	a, b = open(t, "a"), open(t, "b")
	for _, e := range [][2]*end{{a, b}, {b, a}} {
		own, peer := e[0], e[1]
		own.service.Dial = func(ctx context.Context, p keying.Peer) (net.Conn, error) {
			if p.Tunnel != "t" {
				return nil, fmt.Errorf("peer %+v", p)
			}
			return peer.dial(ctx)
		}
		own.service.Trust(keying.Peer{Tunnel: "t", Remote: netip.MustParseAddr("127.0.0.1"), Config: config(t, peer.pin())})
	}
	return a, b
}

func (e *end) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", e.listener.Addr().String())
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestBothRoles(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	for i, begins := range []*end{a, b, a} {
		how := begins.tunnel.Rekey
		if i == 0 {
			how = begins.tunnel.Establish
		}
		was := begins.tunnel.Current()
		if err := how(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := begins.tunnel.Current()
		if now.In == was.In || now.Out == was.Out {
			t.Errorf("exchange %d: SPIs %+v after %+v", i, now, was)
		}
		eventually(t, "the same SAs at both ends", func() bool {
			return a.tunnel.Current() == (ipsec.SPIPair{In: b.tunnel.Current().Out, Out: b.tunnel.Current().In})
		})
		ra, rb := a.reported()[i], b.reported()[i]
		if ra.Transcript != rb.Transcript || ra.Initiator != (begins == a) || rb.Initiator == ra.Initiator || ra.In != rb.Out || ra.Out != rb.In ||
			ra.Tunnel != "t" || ra.Suite != "mldsa44+mlkem512" || ra.Combiner != "xor" || ra.TLSGroup != "X25519" || ra.Timings.Total == 0 || ra.Traffic.Sent == 0 {
			t.Errorf("exchange %d: reports %+v and %+v", i, ra, rb)
		}
		eventually(t, "the exchange is over at both ends", func() bool { return idle(a) && idle(b) })
	}
	if f := append(a.failures(), b.failures()...); len(f) > 0 {
		t.Errorf("failures %v", f)
	}
}

// idle says whether an end would take part in an exchange now.
func idle(e *end) bool {
	r, err := e.tunnel.Accept(math.MaxUint32) // an exchange of its own does not give way to this
	if err != nil {
		return false
	}
	r.Finish(errOnlyAsked)
	return true
}

var errOnlyAsked = fmt.Errorf("only asked: %w", ipsec.ErrAbandoned)

// An end in the middle of an exchange is busy for the peer's: that is no failure of the initiator's, who comes again.
func TestBusy(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, err := b.tunnel.Accept(4711)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.tunnel.Establish(t.Context()) }()
	eventually(t, "B refuses", func() bool { return len(b.failures()) > 0 })
	var accepted *keying.AcceptedError
	if f := b.failures()[0]; !errors.Is(f, ipsec.ErrBusy) || errors.As(f, &accepted) {
		t.Errorf("B says %v", f)
	}
	r.Finish(errors.New("given up"))
	if err := <-done; err != nil {
		t.Errorf("A did not come again: %v", err)
	}
	// What the initiator's end makes of it.
	r, err = b.tunnel.Accept(4712)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Finish(errors.New("given up"))
	err = a.service.Keyer("t").Initiate(t.Context(), ipsec.Proposal{SPI: 5000}, func(*ipsec.Keys) error { t.Error("installed"); return nil })
	if !errors.Is(err, ipsec.ErrBusy) {
		t.Errorf("A says %v", err)
	}
}

func TestDistrusted(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := a.tunnel.Establish(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.service.Distrust("t")
	eventually(t, "the exchange is over", func() bool { return idle(a) && idle(b) })
	if err := a.tunnel.Rekey(t.Context()); !errors.Is(err, exchange.Refused) {
		t.Errorf("a rekey with a peer who does not know us: %v", err)
	}
	if err := b.service.Keyer("t").Initiate(t.Context(), ipsec.Proposal{SPI: 5000}, nil); err == nil {
		t.Error("an exchange with a peer who is not trusted")
	}
	b.service.Distrust("t")
	b.service.Trust(keying.Peer{Tunnel: "t", Config: config(t, a.pin())})
	if err := a.tunnel.Rekey(t.Context()); err != nil {
		t.Errorf("when trusted again: %v", err)
	}
}

// Somebody with a valid TLS identity that is not the pinned one reserves nothing: the tunnel is not even asked, and an
// exchange of ours that is under way goes on, though the stranger's SPI is lower.
func TestStranger(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	certificate, err := exchange.NewIdentity("stranger", nil)
	if err != nil {
		t.Fatal(err)
	}
	// A's own exchange is held in its way to B.
	dialled, goOn := make(chan struct{}), make(chan struct{})
	toB := a.service.Dial
	a.service.Dial = func(ctx context.Context, p keying.Peer) (net.Conn, error) {
		close(dialled)
		<-goOn
		return toB(ctx, p)
	}
	done := make(chan error, 1)
	go func() { done <- a.tunnel.Establish(t.Context()) }()
	<-dialled
	attack := func(endpoint exchange.Endpoint, tunnel string) error {
		conn, err := a.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s, err := exchange.Initiate(t.Context(), conn, endpoint, config(t, a.pin()), exchange.Proposal{Tunnel: tunnel, SPI: 256})
		if err == nil {
			s.Close()
		}
		return err
	}
	if err := attack(exchange.Endpoint{Certificate: certificate}, "t"); !errors.Is(err, exchange.Refused) {
		t.Errorf("a stranger: %v", err)
	}
	if err := attack(b.endpoint, "u"); !errors.Is(err, exchange.Refused) {
		t.Errorf("a tunnel that is not there: %v", err)
	}
	eventually(t, "both are told", func() bool { return len(a.failures()) == 2 })
	for _, f := range a.failures() {
		var accepted *keying.AcceptedError
		if errors.As(f, &accepted) || errors.Is(f, ipsec.ErrBusy) {
			t.Errorf("told %v", f)
		}
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Errorf("the exchange that was under way: %v", err)
	}
	if n := len(a.failures()) + len(b.failures()); n != 2 || len(a.reported()) != 1 {
		t.Errorf("%d failures, %d reports", n, len(a.reported()))
	}
	// This test would see an exchange that gave way: the peer's own, with a lower SPI, wins.
	a.service.Dial = func(ctx context.Context, p keying.Peer) (net.Conn, error) {
		<-ctx.Done() // abandoned
		return nil, ctx.Err()
	}
	eventually(t, "the exchange is over", func() bool { return idle(a) && idle(b) })
	go a.tunnel.Rekey(t.Context())
	eventually(t, "A begins", func() bool { return !idle(a) })
	_ = attack(b.endpoint, "t") // as the peer; A answers it
	eventually(t, "A answers its peer", func() bool { return len(a.reported()) > 1 })
}

// A failure of the peer's after it was accepted is the tunnel's to tell, and says so.
func TestAcceptedFailure(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	conn, err := b.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, b.pin())
	sent := 0
	c.Tamper = func(m []byte) []byte {
		if sent++; sent > 1 {
			m[len(m)-1] ^= 1
		}
		return m
	}
	if _, err := exchange.Initiate(t.Context(), conn, a.endpoint, c, exchange.Proposal{Tunnel: "t", SPI: 4711}); err == nil {
		t.Fatal("an answer that was tampered with")
	}
	eventually(t, "B tells", func() bool { return len(b.failures()) == 1 })
	var accepted *keying.AcceptedError
	if f := b.failures()[0]; !errors.As(f, &accepted) || !errors.Is(f, exchange.BadConfirm) {
		t.Errorf("B says %v", f)
	}
	if b.tunnel.Current() != (ipsec.SPIPair{}) || !idle(b) {
		t.Error("something is left of it")
	}
}

// A peer who gives its exchange up, at whatever message, has not failed, and the tunnel is free for the next.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	for message := 1; message <= 3; message += 2 { // those of the initiator's before the keys are installed
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := b.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := config(t, b.pin())
		sent := 0
		c.Tamper = func(m []byte) []byte {
			if sent += 2; sent > message {
				cancel() // and the message is not sent any more
			}
			return m
		}
		if _, err := exchange.Initiate(ctx, conn, a.endpoint, c, exchange.Proposal{Tunnel: "t", SPI: 4711}); !errors.Is(err, exchange.Cancelled) {
			t.Fatalf("at message %d: %v", message, err)
		}
		eventually(t, "B ends it", func() bool { return len(b.failures()) == (message+1)/2 })
		var accepted *keying.AcceptedError
		f := b.failures()[message/2]
		if !errors.Is(f, ipsec.ErrAbandoned) || !errors.Is(f, exchange.Cancelled) || errors.As(f, &accepted) != (message > 1) {
			t.Errorf("at message %d B says %v", message, f)
		}
		if !idle(b) {
			t.Errorf("at message %d: B is busy still", message)
		}
	}
	b.tunnels.Close()
	for e := range b.tunnels.Events() {
		if e.Kind == ipsec.Failed {
			t.Errorf("B tells %+v", e)
		}
	}
}

// An install that fails at either end is the exchange's failure.
func TestInstallFails(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	full := errors.New("full")
	err := a.service.Keyer("t").Initiate(t.Context(), ipsec.Proposal{SPI: 5000}, func(k *ipsec.Keys) error {
		defer k.Wipe()
		if k.In.SPI != 5000 || k.Out.SPI == 0 || k.In.Key == ([32]byte{}) || k.In.Key == k.Out.Key {
			t.Errorf("keys of %v and %v", k.In, k.Out)
		}
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	eventually(t, "B tells", func() bool { return len(b.failures()) == 1 })
	if b.tunnel.Current() != (ipsec.SPIPair{}) {
		t.Error("B has SAs that A has not")
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	e := open(t, "a")
	keyer := e.service.Keyer("t")
	if err := keyer.Initiate(t.Context(), ipsec.Proposal{SPI: 5000}, nil); err == nil {
		t.Error("without a peer")
	}
	// Without a Dial the way is TCP between the outer addresses; nobody is there.
	at := netip.MustParseAddr("127.255.255.254")
	e.service.Trust(keying.Peer{Tunnel: "t", Local: at, Remote: at, Config: config(t, exchange.Pin{1})})
	var op *net.OpError
	if err := keyer.Initiate(t.Context(), ipsec.Proposal{SPI: 5000}, nil); !errors.As(err, &op) || op.Source == nil {
		t.Errorf("%v", err)
	} else if source, ok := netip.AddrFromSlice(op.Source.(*net.TCPAddr).IP); !ok || source.Unmap() != at {
		t.Errorf("dialled from %v", op.Source)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := keyer.Initiate(cancelled, ipsec.Proposal{SPI: 5000}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// However many strangers connect, a bounded number is answered at once, and Serve returns when its listener and its context
// have ended and the last stranger is gone.
func TestServeIsBounded(t *testing.T) {
	t.Parallel()
	e := open(t, "a")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.service.Trust(keying.Peer{Tunnel: "t", Remote: netip.MustParseAddr("127.0.0.1")})
	counting := &countingListener{Listener: l}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	var failed atomic.Int64
	go func() { served <- e.service.Serve(ctx, counting, func(error) { failed.Add(1) }) }()
	for range 3 * keying.MaxAnswering {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // none says a word
	}
	const most = keying.MaxAnswering + 1 // one waits for its turn
	eventually(t, "strangers are answered", func() bool { return counting.open.Load() == most })
	for range 100 {
		runtime.Gosched()
		if n := counting.accepted.Load(); n != most {
			t.Fatalf("%d strangers are taken in at once", n)
		}
	}
	l.Close()
	select {
	case <-served:
		t.Fatal("Serve does not wait for those whom it answers")
	default:
	}
	stop()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Serve outlives its listener and its context")
	}
	if n := counting.open.Load(); n != 0 || failed.Load() != counting.accepted.Load() {
		t.Errorf("%d connections are open; %d of %d failures told", n, failed.Load(), counting.accepted.Load())
	}
}

// countingListener counts the connections that it gave, and those of them that are open.
type countingListener struct {
	net.Listener
	accepted, open atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.accepted.Add(1)
	l.open.Add(1)
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// An error of the listener's own ends Serve and is told.
func TestListenerFails(t *testing.T) {
	t.Parallel()
	e := open(t, "a")
	broken := errors.New("broken")
	if err := e.service.Serve(t.Context(), brokenListener{e.listener, broken}, nil); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type brokenListener struct {
	net.Listener
	err error
}

func (l brokenListener) Accept() (net.Conn, error) { return nil, l.err }
