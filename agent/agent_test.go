package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pqlab/ipsec"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// patience bounds what a test waits for; nothing here takes a fraction of it.
const patience = 2 * time.Minute

// plane is a dataplane that carries nothing.
type plane struct {
	expiries chan ipsec.Expiry
	// onCounters runs before an SA's counters are read.
	onCounters func()

	mu      sync.Mutex
	tunnels map[string]map[uint32]ipsec.SA
	closed  bool
}

func newPlane() *plane {
	return &plane{expiries: make(chan ipsec.Expiry), tunnels: map[string]map[uint32]ipsec.SA{}}
}

var _ ipsec.Dataplane = (*plane)(nil)

func (p *plane) Name() string                  { return "memory" }
func (p *plane) Expiries() <-chan ipsec.Expiry { return p.expiries }

func (p *plane) AddTunnel(policy ipsec.Policy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tunnels[policy.Tunnel] = map[uint32]ipsec.SA{}
	return nil
}

func (p *plane) AddInbound(tunnel string, sa *ipsec.SA) error  { return p.add(tunnel, sa) }
func (p *plane) SetOutbound(tunnel string, sa *ipsec.SA) error { return p.add(tunnel, sa) }

func (p *plane) add(tunnel string, sa *ipsec.SA) error {
	defer sa.Wipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tunnels[tunnel] == nil {
		return errors.New("no such tunnel")
	}
	p.tunnels[tunnel][sa.SPI] = *sa
	return nil
}

func (p *plane) RemoveInbound(tunnel string, spi uint32) error  { return p.remove(tunnel, spi) }
func (p *plane) RemoveOutbound(tunnel string, spi uint32) error { return p.remove(tunnel, spi) }

func (p *plane) remove(tunnel string, spi uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tunnels[tunnel], spi)
	return nil
}

func (p *plane) Counters(tunnel string, spi uint32) (ipsec.Counters, error) {
	if p.onCounters != nil {
		p.onCounters()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.tunnels[tunnel][spi]; !ok {
		return ipsec.Counters{}, fmt.Errorf("no SA %#x", spi)
	}
	return ipsec.Counters{}, nil
}

func (p *plane) Drops(string) (ipsec.Drops, error) { return ipsec.Drops{}, nil }

func (p *plane) RemoveTunnel(tunnel string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tunnels, tunnel)
	return nil
}

func (p *plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("closed twice")
	}
	p.closed = true
	close(p.expiries)
	return nil
}

// has names the tunnels that stand.
func (p *plane) has() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name := range p.tunnels {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// node is an agent that runs in the test's process, with a dataplane of memory.
type node struct {
	*Client
	server *Server
	plane  *plane
	addr   netip.Addr
	end    func() // ends the agent and returns when nothing of it runs
}

var lastAddr atomic.Uint32

// loopback is an address of this test's own: exchanges have a fixed port.
func loopback() netip.Addr {
	n := lastAddr.Add(1)
	return netip.AddrFrom4([4]byte{127, byte(64 + os.Getpid()%128), byte(os.Getpid() >> 7), byte(n)})
}

func start(t *testing.T, c Config) *node {
	t.Helper()
	if c.Node == "" {
		c.Node = "n"
	}
	client, theirs, err := Connect(c.Node)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(c)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Client: client, server: s, plane: newPlane(), addr: loopback()}
	s.plane = func() (ipsec.Dataplane, error) { return n.plane, nil }
	served := make(chan error, 1)
	go func() { served <- s.serve(conn) }()
	n.end = sync.OnceFunc(func() {
		client.Close()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("the agent outlives its socket")
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(n.end)
	return n
}

// pair is two agents with a tunnel.
func pair(t *testing.T, c Config, change func(*Tunnel)) (a, b *node) {
	t.Helper()
	ca, cb := c, c
	ca.Node, cb.Node = "a", "b"
	a, b = start(t, ca), start(t, cb)
	connect(t, a, b, "ab", change)
	return a, b
}

func spec(name string, from, to *node) Tunnel {
	return Tunnel{
		Policy: ipsec.Policy{
			Tunnel: name, Local: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Remote: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
			Src: from.addr, Dst: to.addr, PathMTU: 1500,
		},
		Suite: "mldsa44+mlkem512", Combiner: "xor", Grace: time.Hour,
	}
}

// connect gives two agents a tunnel and makes them know each other.
func connect(t *testing.T, a, b *node, name string, change func(*Tunnel)) {
	t.Helper()
	var ids [2]Identity
	ends := [2]*node{a, b}
	for i, n := range ends {
		s := spec(name, n, ends[1-i])
		if change != nil {
			change(&s)
		}
		var err error
		if ids[i], err = n.AddTunnel(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range ends {
		hello, err := ends[1-i].Hello(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Trust(t.Context(), Trust{Tunnel: name, Pin: hello.Pin, SigningKey: ids[1-i].SigningKey}); err != nil {
			t.Fatal(err)
		}
	}
}

// log is what an agent's events are collected in.
type log struct {
	mu     sync.Mutex
	events []Event
}

func (l *log) note(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *log) of(kind ipsec.EventKind) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []Event
	for _, e := range l.events {
		if e.Kind == kind {
			some = append(some, e)
		}
	}
	return some
}

func (l *log) until(t *testing.T, kind ipsec.EventKind, n int) []Event {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events of kind %s", n, kind), func() bool { return len(l.of(kind)) >= n })
	return l.of(kind)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func watch(t *testing.T, n *node) *log {
	t.Helper()
	l := new(log)
	if err := n.Events(t.Context(), l.note); err != nil {
		t.Fatal(err)
	}
	return l
}

// A binary that is started with the arguments of Args is an agent, which answers on its inherited socket and ends with it.
func TestMainServes(t *testing.T) {
	t.Parallel()
	want := Config{Node: "node with spaces", ManualClock: true}
	client, theirs, err := Connect(want.Node)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", want.Args()...)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hello, err := client.Hello(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if hello.Node != want.Node || hello.PID != cmd.Process.Pid || hello.Pin == (Greeting{}).Pin {
		t.Errorf("greeting %+v of process %d", hello, cmd.Process.Pid)
	}
	if err := client.Advance(ctx, time.Hour); err != nil {
		t.Errorf("its configuration did not arrive: %v", err)
	}
	client.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("an agent whose lab is gone: %v", err)
	}
}

func TestMainRefuses(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no configuration": {command},
		"not JSON":         {command, "{"},
		"no socket":        {command, "{}"},
	} {
		var exit *exec.ExitError
		if err := exec.Command("/proc/self/exe", args...).Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An agent that is killed in the middle of a call, and every call after that, is an *Error that names the node.
func TestDeadAgent(t *testing.T) {
	t.Parallel()
	client, theirs, err := Connect("b")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	cmd := exec.Command("/proc/self/exe", Config{Node: "b"}.Args()...)
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if _, err := client.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	quiet, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and takes nothing
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	done := make(chan error, 1)
	go func() {
		_, err := client.Send(t.Context(), Source{Proto: "tcp", Streams: 1, Duration: time.Hour, To: quiet.Addr().(*net.TCPAddr).AddrPort()})
		done <- err
	}()
	conn, err := quiet.Accept() // so the call is under way
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd.Process.Kill()
	cmd.Wait()
	dead := func(what string, err error) {
		t.Helper()
		var e *Error
		if !errors.As(err, &e) || e.Node != "b" || errors.Is(err, context.Canceled) || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	dead("the call under way", <-done)
	_, err = client.Hello(t.Context())
	dead("a later call", err)
	dead("a later stream", client.Events(t.Context(), func(Event) {}))
}

// An agent ends with its client also where no call was ever made.
func TestCloseWithoutACall(t *testing.T) {
	t.Parallel()
	start(t, Config{}).end()
}

// Close returns when nothing of the agent runs any more, whatever was under way. It is not parallel: it counts goroutines.
func TestCloseEndsEverything(t *testing.T) {
	// The first agent of a process starts what stays, such as the library's.
	warm := start(t, Config{})
	if _, err := warm.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	warm.end()
	before := settledGoroutines()

	a, b := pair(t, Config{}, func(s *Tunnel) { s.Suite, s.Pinned = "dilithium2+kyber512", true })
	watch(t, a)
	watch(t, b)
	if _, err := a.Establish(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	sink, err := a.OpenSink(t.Context(), Sink{Proto: "tcp", Listen: netip.AddrPortFrom(a.addr, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.OpenSink(t.Context(), Sink{Proto: "udp", Listen: netip.AddrPortFrom(b.addr, 0), Streams: 1, Flow: 7}); err != nil {
		t.Fatal(err)
	}
	relay, err := b.OpenRelay(t.Context(), Relay{Listen: netip.AddrPortFrom(b.addr, 0), To: sink.Addr})
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(t.Context(), Source{Proto: "tcp", Streams: 2, Rate: 1e6, Duration: time.Hour, From: a.addr, To: relay.Addr})
		sent <- err
	}()
	strangers, err := net.Dial("tcp", netip.AddrPortFrom(a.addr, 4500).String()) // an exchange that never goes on
	if err != nil {
		t.Fatal(err)
	}
	defer strangers.Close()
	a.end()
	b.end()
	if err := <-sent; err == nil {
		t.Error("a call that was under way succeeded")
	}
	for _, n := range []*node{a, b} {
		if left := n.plane.has(); len(left) > 0 || !n.plane.closed {
			t.Errorf("tunnels %v, dataplane closed: %v", left, n.plane.closed)
		}
		if err := n.server.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines where there were %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := a.server.addTunnel(t.Context(), spec("late", a, b)); !errors.Is(err, ipsec.ErrClosed) {
		t.Errorf("a tunnel for an agent that is closed: %v", err)
	}
}

// settledGoroutines counts when the number has been the same for a while.
func settledGoroutines() int {
	n, same := runtime.NumGoroutine(), 0
	for same < 20 {
		time.Sleep(time.Millisecond)
		if now := runtime.NumGoroutine(); now == n {
			same++
		} else {
			n, same = now, 0
		}
	}
	return n
}
