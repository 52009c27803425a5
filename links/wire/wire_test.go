package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/hygiene"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/links/medium"
	"pqlab/topology"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "tests that need namespaces will be skipped:", err)
	}
	os.Exit(hygiene.Tidy(m.Run))
}

// spaces gives n namespaces that the test's end closes.
func spaces(t testing.TB, n int) []*netns.Namespace {
	t.Helper()
	var unavailable *netns.UnavailableError
	nss, err := netns.New(n)
	if errors.As(err, &unavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, ns := range nss {
			ns.Close()
		}
	})
	return nss
}

// needTAP skips where this process may make no TAP interfaces.
func needTAP(t testing.TB) {
	t.Helper()
	if err := Probe(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// lay makes a wire with a port in each of n namespaces, which have the addresses 10.0.0.1 and on, know each other, and send
// nothing of their own. The test's end closes it.
func lay(t testing.TB, m medium.Medium, n int) (*Wire, []*netns.Namespace) {
	t.Helper()
	needTAP(t)
	nss := spaces(t, n)
	w, err := New(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	addresses := make([]net.HardwareAddr, n)
	for i, ns := range nss {
		if err := ns.Set(netns.Sysctl{Key: "net/ipv6/conf/default/disable_ipv6", Value: "1"}); err != nil {
			t.Fatal(err)
		}
		if err := w.Attach(i, ns, "eth0"); err != nil {
			t.Fatal(err)
		}
		h, l := handle(t, ns)
		if err := errors.Join(h.LinkSetTxQLen(l, 10000), h.LinkSetUp(l), h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: host(i), Mask: net.CIDRMask(24, 32)}})); err != nil {
			t.Fatal(err)
		}
		addresses[i] = l.Attrs().HardwareAddr
	}
	for i, ns := range nss {
		h, l := handle(t, ns)
		for j, mac := range addresses {
			if i == j {
				continue
			}
			if err := h.NeighAdd(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: host(j), HardwareAddr: mac}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w, nss
}

func host(i int) net.IP { return net.IPv4(10, 0, 0, byte(i+1)) }

func handle(t testing.TB, ns *netns.Namespace) (*netlink.Handle, netlink.Link) {
	t.Helper()
	h, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return h, l
}

// link is a link of this shape in both directions.
func link(s topology.Shape) *medium.Link {
	return medium.NewLink([2]topology.Shape{s, s}, 1500, [2]uint64{1, 2})
}

// listen opens a port for datagrams in namespace i, with room for all.
func listen(t testing.TB, nss []*netns.Namespace, i int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := nss[i].Do(func() error {
		l := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20) // or what it has
			})
		}}
		p, err := l.ListenPacket(t.Context(), "udp", fmt.Sprintf("%v:7", host(i)))
		if err == nil {
			c = p.(*net.UDPConn)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dial(t testing.TB, nss []*netns.Namespace, from, to int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := nss[from].Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: host(to), Port: 7})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited 20 s in vain: ", what)
		}
	}
}

// Frames come as they were sent, to the port that the medium says.
func TestPassesFrames(t *testing.T) {
	w, nss := lay(t, &hub{ports: 4}, 4)
	for from := range nss {
		for to := range nss {
			if from == to {
				continue
			}
			sink, c := listen(t, nss, to), dial(t, nss, from, to)
			for _, n := range []int{1, 100, 1472} {
				sent := bytes.Repeat([]byte{byte(16*from + to)}, n)
				if _, err := c.Write(sent); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 2000)
				sink.SetReadDeadline(time.Now().Add(10 * time.Second))
				if m, _, err := sink.ReadFromUDP(got); err != nil || !bytes.Equal(got[:m], sent) {
					t.Fatalf("%d to %d: %d of %d bytes, %v", from, to, m, n, err)
				}
			}
			sink.Close()
		}
	}
	if late, err := w.Lateness(3); err != nil || late.Packets != 0 {
		t.Errorf("nothing was held back: %+v, %v", late, err)
	}
}

// hub is a medium of that many ports that gives each packet to all others at once.
type hub struct {
	ports int
	held  []medium.Packet
}

func (h *hub) Enter(now time.Duration, port int, p medium.Packet) {
	p.From, p.Entered, p.Due = port, now, now
	h.held = append(h.held, p)
}

func (h *hub) Next() (time.Duration, bool) { return 0, len(h.held) > 0 }

func (h *hub) Leave(_ time.Duration, out func(int, medium.Packet)) {
	for _, p := range h.held {
		for port := range h.ports {
			if port != p.From {
				one := p
				one.Data = bytes.Clone(p.Data)
				out(port, one)
			}
		}
	}
	h.held = nil
}

func (h *hub) Whole(int) int { return 0 }

// A transfer is whole, over media that keep its large segments, cut them, lose, double, swap and damage them.
func TestTransfers(t *testing.T) {
	for name, s := range map[string]topology.Shape{
		"unshaped": {}, "delay": {Delay: 2 * time.Millisecond}, "pieces": {Rate: 2 * topology.Gbit, Delay: time.Millisecond}, "frames": {Rate: 100 * topology.Mbit},
		"bad": {Delay: time.Millisecond, Loss: 0.005, Duplication: 0.05, Reordering: 0.01, Corruption: 0.005},
	} {
		t.Run(name, func(t *testing.T) {
			w, nss := lay(t, link(s), 2)
			var l net.Listener
			var c net.Conn
			if err := nss[1].Do(func() (err error) { l, err = net.Listen("tcp", "10.0.0.2:0"); return err }); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := nss[0].Do(func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err }); err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			sink, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Close()
			sent := make([]byte, 4<<20)
			rand.NewChaCha8([32]byte{1}).Read(sent)
			go func() {
				c.Write(sent)
				c.(*net.TCPConn).CloseWrite()
			}()
			sink.SetReadDeadline(time.Now().Add(60 * time.Second))
			got, err := io.ReadAll(sink)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d of %d bytes, the same: %v; %v", len(got), len(sent), bytes.Equal(got, sent), err)
			}
			var packets uint64
			if err := w.Do(func(time.Duration) { packets = w.medium.(*medium.Link).Counters(0).Packets }); err != nil {
				t.Fatal(err)
			}
			frames := uint64(len(sent) / 1448)
			switch {
			case (name == "unshaped" || name == "delay") && packets > frames/3:
				t.Errorf("%d packets for %d frames: large segments were cut", packets, frames)
			case name == "pieces" && (packets > frames || packets < frames/20):
				t.Errorf("%d packets for %d frames", packets, frames)
			case (name == "frames" || name == "bad") && packets < frames:
				t.Errorf("%d packets for %d frames", packets, frames)
			}
		})
	}
}

// Nothing comes early or never, however often a signal ends the wire's waiting.
func TestSignals(t *testing.T) {
	const delay = 200 * time.Millisecond // in which there are always signals, however busy the machine
	w, nss := lay(t, link(topology.Shape{Delay: delay}), 2)
	thread := w.thread(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Tgkill(unix.Getpid(), thread, unix.SIGURG) // as Go does to preempt
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	sink, c := listen(t, nss, 1), dial(t, nss, 0, 1)
	for i := range 10 {
		start := time.Now()
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		var got [1]byte
		sink.SetReadDeadline(start.Add(10 * time.Second)) // a wait that began anew with each signal would never end
		if _, err := sink.Read(got[:]); err != nil || got[0] != byte(i) {
			t.Fatal(got, err)
		}
		if took := time.Since(start); took < delay {
			t.Errorf("datagram %d took %v", i, took)
		}
	}
}

// A signal that ends a read, however often, costs no packet and no port.
func TestSignalsInRead(t *testing.T) {
	w, nss := lay(t, link(topology.Shape{}), 2)
	if err := w.Do(func(time.Duration) {
		calls := 0
		w.receive = func(fd int, b []byte) (int, error) {
			if calls++; calls%(batch+3) != 0 {
				return 0, unix.EINTR
			}
			return read(fd, b)
		}
	}); err != nil {
		t.Fatal(err)
	}
	sink, c := listen(t, nss, 1), dial(t, nss, 0, 1)
	for i := range 3 * batch {
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	sink.SetReadDeadline(time.Now().Add(10 * time.Second))
	for i := range 3 * batch {
		var got [1]byte
		if _, err := sink.Read(got[:]); err != nil || got[0] != byte(i) {
			t.Fatal(i, got, err)
		}
	}
}

// A wire on which nothing is sent does not run, not either when its interface has been taken away.
func TestIdle(t *testing.T) {
	w, nss := lay(t, link(topology.Shape{Delay: time.Millisecond}), 2)
	rests := func(when string) {
		t.Helper()
		before := w.processor(t)
		time.Sleep(500 * time.Millisecond) // is what is tried
		if used := w.processor(t) - before; used > 25*time.Millisecond {
			t.Errorf("%s it took %v of 500 ms", when, used)
		}
	}
	sink, c := listen(t, nss, 1), dial(t, nss, 0, 1)
	c.Write([]byte{1})
	if _, err := sink.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	rests("idle")
	h, l := handle(t, nss[0])
	if err := h.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	rests("without an interface")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// A wire for which something is always about to be due looks at the clock for a part of the time only.
func TestLooksForAPart(t *testing.T) {
	m := &soon{}
	w, err := New(m)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Do(func(time.Duration) { m.start = w.start }); err != nil {
		t.Fatal(err)
	}
	usage := func() (u unix.Rusage) {
		if err := w.Do(func(time.Duration) {
			if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return u
	}
	taken := func(u unix.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
	before, began := usage(), time.Now()
	time.Sleep(time.Second) // is what is tried
	after, passed := usage(), time.Since(began)
	// A quarter of the time, and as long again to fall asleep and wake up.
	used := taken(after) - taken(before)
	if used > passed/2 {
		t.Errorf("it took %v of %v", used, passed)
	}
	// On a busy machine it gets less than it would take; but there too it falls asleep between looks.
	if slept := after.Nvcsw - before.Nvcsw; time.Duration(slept) < used/time.Millisecond {
		t.Errorf("in %v it slept %d times", used, slept)
	}
	w.Close()
	if m.asked < 1000 {
		t.Errorf("it looked %d times", m.asked)
	}
}

// soon is a medium of which something is always due in a moment, and nothing ever comes.
type soon struct {
	start time.Time
	asked int
}

func (s *soon) Enter(time.Duration, int, medium.Packet) {}

func (s *soon) Next() (time.Duration, bool) {
	s.asked++
	return time.Since(s.start) + margin*9/10, !s.start.IsZero()
}

func (s *soon) Leave(time.Duration, func(int, medium.Packet)) {}

func (s *soon) Whole(int) int { return 0 }

// Close leaves no thread, no descriptor and no interface, in the midst of traffic and at any time.
func TestCloseLeavesNothing(t *testing.T) {
	needTAP(t)
	count := func(dir string) int {
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	nss := spaces(t, 2)
	w, err := New(link(topology.Shape{}))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	descriptors := count("/proc/self/fd")
	for i := range 20 {
		w, err := New(link(topology.Shape{Delay: time.Duration(i) * 100 * time.Microsecond}))
		if err != nil {
			t.Fatal(err)
		}
		for i, ns := range nss {
			if err := w.Attach(i, ns, "eth0"); err != nil {
				t.Fatal(err)
			}
			h, l := handle(t, ns)
			if err := errors.Join(h.LinkSetUp(l), h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: host(i), Mask: net.CIDRMask(24, 32)}})); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Attach(5, nss[0], "eth1"); err != nil {
			t.Error(err)
		}
		if err := w.Attach(5, nss[0], "eth2"); err == nil {
			t.Error("attached twice to one port")
		}
		if err := w.Attach(6, nss[0], "eth0"); !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EBUSY) {
			t.Errorf("a name that is taken: %v", err)
		}
		c := dial(t, nss, 0, 1)
		for range 100 {
			c.Write(make([]byte, 100))
		}
		c.Close()
		if i%2 == 0 {
			for _, port := range []int{1, 1, 3, 99} {
				if err := w.Detach(port); err != nil {
					t.Errorf("port %d: %v", port, err)
				}
			}
			h, err := nss[1].Netlink()
			if err != nil {
				t.Fatal(err)
			}
			if all, err := h.LinkList(); err != nil || len(all) != 1 {
				t.Fatalf("detached, and left %v, %v", all, err)
			}
			if l, err := w.Lateness(1); err != nil || l != (Lateness{}) {
				t.Error(l, err)
			}
		}
		thread := w.thread(t)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { w.Close() })
			wg.Go(func() {
				for w.Do(func(time.Duration) {}) == nil {
				}
			})
		}
		wg.Wait()
		if err := w.Attach(7, nss[0], "eth3"); !errors.Is(err, ErrClosed) {
			t.Errorf("attached to a closed wire: %v", err)
		}
		if err := w.Detach(0); err != nil {
			t.Errorf("detached from a closed wire: %v", err)
		}
		if _, err := w.Lateness(0); !errors.Is(err, ErrClosed) {
			t.Errorf("asked a closed wire: %v", err)
		}
		until(t, "the thread ends", func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", thread))
			return errors.Is(err, os.ErrNotExist)
		})
		for _, ns := range nss {
			h, err := ns.Netlink()
			if err != nil {
				t.Fatal(err)
			}
			if all, err := h.LinkList(); err != nil || len(all) != 1 {
				t.Fatalf("left %v, %v", all, err)
			}
		}
	}
	if now := count("/proc/self/fd"); now > descriptors {
		t.Errorf("%d descriptors before, %d after", descriptors, now)
	}
}

// No wire takes the process's main thread, which Go never ends: with its priority whatever ran there later would go first.
func TestNotOnTheMainThread(t *testing.T) {
	main := unix.Getpid()
	before, err := unix.Getpriority(unix.PRIO_PROCESS, main)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 { // each keeps its thread, so that Go takes the main one too
		w, err := New(link(topology.Shape{}))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := w.Do(func(time.Duration) {
			if unix.Gettid() == main {
				t.Error("it runs on the main thread")
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := unix.Getpriority(unix.PRIO_PROCESS, main); err != nil || after != before {
		t.Errorf("the main thread has priority %d, had %d, %v", after, before, err)
	}
}

// A wire that was late says so.
func TestLateness(t *testing.T) {
	w, nss := lay(t, link(topology.Shape{Delay: 200 * time.Millisecond}), 2)
	sink, c := listen(t, nss, 1), dial(t, nss, 0, 1)
	for range 3 {
		c.Write([]byte{1})
		until(t, "the packet is on its way", func() (on bool) {
			w.Do(func(time.Duration) {
				if _, on = w.medium.Next(); on {
					time.Sleep(300 * time.Millisecond) // the thread is not run
				}
			})
			return on
		})
		if _, err := sink.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	late, err := w.Lateness(1)
	if err != nil || late.Packets != 3 || late.P50 < 90*time.Millisecond || late.P99 < late.P50 || late.Max < late.P99 {
		t.Errorf("%+v, %v", late, err)
	}
}

// What waited in an interface because the thread was not run was late too, all of it, also what was read long after the
// thread ran again.
func TestLatenessOfReading(t *testing.T) {
	const stall, burst = 50 * time.Millisecond, 200
	w, nss := lay(t, link(topology.Shape{Delay: 5 * time.Millisecond}), 2)
	sink, c := listen(t, nss, 1), dial(t, nss, 0, 1)
	for range 5 {
		if err := w.Do(func(time.Duration) { // nothing is on its way that could be given out late
			for range burst {
				c.Write([]byte{1})
			}
			time.Sleep(stall)
		}); err != nil {
			t.Fatal(err)
		}
		sink.SetReadDeadline(time.Now().Add(10 * time.Second))
		for range burst {
			if _, err := sink.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if late, err := w.Lateness(1); err != nil || late.Packets != 5*burst || late.P50 < stall*98/100 {
		t.Errorf("%+v, %v", late, err)
	}
}

// An interface that is never empty is not late for that: the thread reads it all the time.
func TestReadingIsNotLate(t *testing.T) {
	const flood = 2 * time.Second
	w, nss := lay(t, link(topology.Shape{Delay: time.Millisecond}), 2)
	ended := make(chan struct{})
	if err := w.Do(func(time.Duration) {
		var until time.Duration
		w.receive = func(_ int, b []byte) (int, error) {
			if until == 0 {
				until = w.now() + flood
			} else if w.now() > until {
				w.receive = read
				close(ended)
				return 0, unix.EAGAIN
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
			clear(b[:100])
			return 100, nil
		}
	}); err != nil {
		t.Fatal(err)
	}
	dial(t, nss, 0, 1).Write([]byte{1})
	<-ended
	late, err := w.Lateness(1)
	if err != nil || late.Packets < 100 || late.P50 > flood/4 {
		t.Errorf("%+v, %v", late, err)
	}
}

// A thread that sleeps as there is nothing to do is not late when it is woken, whatever kept it from running before.
func TestSleepIsNotLate(t *testing.T) {
	const stall = 200 * time.Millisecond
	w, nss := lay(t, link(topology.Shape{Delay: time.Millisecond}), 2)
	sink, c := listen(t, nss, 1), dial(t, nss, 0, 1)
	thread := w.thread(t)
	for i := range 9 {
		if i%2 == 0 {
			if err := w.Do(func(time.Duration) { time.Sleep(stall) }); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "the thread sleeps", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", thread))
			return err == nil && bytes.Contains(stat, []byte(") S "))
		})
		time.Sleep(stall) // is what is tried
		c.Write([]byte{1})
		sink.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := sink.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if late, err := w.Lateness(1); err != nil || late.Packets != 9 || late.P50 > stall/2 {
		t.Errorf("%+v, %v", late, err)
	}
}

// thread is the wire's.
func (w *Wire) thread(t testing.TB) (id int) {
	t.Helper()
	if err := w.Do(func(time.Duration) { id = unix.Gettid() }); err != nil {
		t.Fatal(err)
	}
	return id
}

// Abandon ends all but the interfaces, which go with their namespaces.
func TestAbandon(t *testing.T) {
	w, nss := lay(t, link(topology.Shape{Delay: time.Millisecond}), 2)
	thread := w.thread(t)
	if err := errors.Join(w.Abandon(), w.Close()); err != nil {
		t.Fatal(err)
	}
	until(t, "the thread ends", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", thread))
		return errors.Is(err, os.ErrNotExist)
	})
	for _, ns := range nss {
		if _, l := handle(t, ns); l.Attrs().OperState == netlink.OperUp {
			t.Error("the interface has a carrier")
		}
	}
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == tunDevice {
			t.Error("a descriptor of an interface is open, and keeps its namespace")
		}
	}
}
