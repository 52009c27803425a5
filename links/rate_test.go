package links

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// joined is a link with an address at each end.
func joined(t testing.TB, rate topology.Rate, mtu int, shaper Shaper) (a, b *netns.Namespace) {
	t.Helper()
	nss := spaces(t, 2)
	link := planned("a-b")
	link.Rate, link.MTU = rate, mtu
	made, err := Make(link, nss[0], nss[1], shaper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	for i, name := range []string{"eth0", "eth7"} {
		h, err := nss[i].Netlink()
		if err != nil {
			t.Fatal(err)
		}
		l, err := h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, byte(i+1)), Mask: net.CIDRMask(24, 32)}}); err != nil {
			t.Fatal(err)
		}
	}
	return nss[0], nss[1]
}

// A flow is a running transfer from a to b and the kernel's count of what has arrived. A counter of the kernel's does
// not care how late a busy machine lets the receiving process run.
type flow struct {
	arrived func() uint64 // bytes
	leap    time.Duration // what may arrive at once when a gap is filled, as the time that it takes at the rate
	stop    func()
}

// tcp counts payload in order. (Interface counters count a segmented packet's headers once, the filter counts them all.)
// Its window is what a rate brings in 12 ms: enough to keep the filter busy, and not so much that its queue drops.
func tcp(t testing.TB, a, b *netns.Namespace, address string, rate topology.Rate) flow {
	t.Helper()
	return tcpWindow(t, a, b, address, rate, 12*time.Millisecond) // the kernel may offer more at first
}

// tcpWindow has a window of what the rate brings in that time; 0: what the kernel chooses.
func tcpWindow(t testing.TB, a, b *netns.Namespace, address string, rate topology.Rate, window time.Duration) flow {
	t.Helper()
	var l net.Listener
	var c net.Conn
	if err := b.Do(func() (err error) {
		l, err = (&net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			return errors.Join(raw.Control(func(fd uintptr) {
				if window == 0 {
					return
				}
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, int(float64(rate)/8*window.Seconds()))
			}), err)
		}}).Listen(t.Context(), "tcp", address+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := a.Do(func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err }); err != nil {
		t.Fatal(err)
	}
	sink, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<17)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	wg.Go(func() { io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{sink}, make([]byte, 1<<20)) })
	raw, err := sink.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return flow{
		leap: 4 * window,
		arrived: func() (bytes uint64) {
			if err := raw.Control(func(fd uintptr) {
				info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
				if err != nil {
					t.Error(err)
					return
				}
				bytes = info.Bytes_received
			}); err != nil {
				t.Error(err)
			}
			return bytes
		},
		stop: func() {
			c.Close()
			sink.Close()
			wg.Wait()
		},
	}
}

// udp sends as much as it can from a to b, to a port that throws it away, and counts frames at the receiving interface.
func udp(t testing.TB, a, b *netns.Namespace, size int) flow {
	t.Helper()
	return udpTo(t, a, b, 1, size, 0)
}

// udpTo sends to that end of a link, 0 or 1, so many datagrams and then nothing for a millisecond; 0: as many as it can.
func udpTo(t testing.TB, a, b *netns.Namespace, end, size, burst int) flow {
	t.Helper()
	var sink, c *net.UDPConn
	to := &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(end+1)), Port: 7}
	if err := b.Do(func() (err error) { sink, err = net.ListenUDP("udp", to); return err }); err != nil {
		t.Fatal(err)
	}
	if err := a.Do(func() (err error) { c, err = net.DialUDP("udp", nil, to); return err }); err != nil {
		t.Fatal(err)
	}
	h, err := b.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, size)
		for n := 1; ; n++ {
			// A full queue drops and may say ENOBUFS, which is what we want.
			if _, err := c.Write(buf); errors.Is(err, net.ErrClosed) {
				return
			}
			if burst > 0 && n%burst == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	return flow{
		arrived: func() uint64 {
			l, err := h.LinkByName([2]string{"eth0", "eth7"}[end])
			if err != nil {
				t.Error(err)
				return 0
			}
			return l.Attrs().Statistics.RxBytes
		},
		stop: func() {
			c.Close()
			sink.Close()
			wg.Wait()
		},
	}
}

// window waits for so many bytes and returns the rate at which they arrived, in bit/s, and how long they took.
func (f flow) window(bytes uint64) (rate float64, took time.Duration) {
	sample := func() (uint64, time.Time) {
		for {
			before := time.Now()
			n := f.arrived()
			if after := time.Now(); after.Sub(before) < time.Millisecond {
				return n, before
			}
		}
	}
	n, from := sample()
	for {
		time.Sleep(time.Millisecond)
		if m, now := sample(); m >= n+bytes || now.Sub(from) > 5*time.Second {
			return float64(m-n) * 8 / now.Sub(from).Seconds(), now.Sub(from)
		}
	}
}

// holds measures the flow against the rate that the filter should let pass. All windows together may have no more than
// that and one bucket. A busy machine takes from single windows, so two windows must have it all, to within a share of
// miss. (One might by a leap.)
func holds(t *testing.T, f flow, want, miss float64) (kept bool) {
	t.Helper()
	volume := uint64(want / 8 * 0.1)
	f.window(2 * volume) // the first bucket, and the losses of TCP's start
	var seen []float64
	var total float64
	var took time.Duration
	full := 0
	for len(seen) < 30 && (len(seen) < 4 || full < 2) {
		rate, d := f.window(volume)
		total += rate * d.Seconds()
		took += d
		seen = append(seen, rate/want)
		if rate > (1-miss)*want {
			full++
		}
	}
	t.Logf("shares of %.0f bit/s: %.4f", want, seen)
	if share, most := total/took.Seconds()/want, 1.01+(refill+f.leap).Seconds()/took.Seconds(); share > most {
		t.Errorf("%.4f of the rate passed within %v; %.4f may", share, took, most)
	}
	return full >= 2
}

// rated runs a test with every shaper that a rate alone may have.
func rated(t *testing.T, test func(t *testing.T, shaper Shaper)) {
	for _, name := range []string{"tbf", "wire"} {
		t.Run(name, func(t *testing.T) { test(t, need(t, name)) })
	}
}

func TestRate(t *testing.T) { rated(t, testRate) }

func testRate(t *testing.T, shaper Shaper) {
	for _, tt := range []struct {
		rate topology.Rate
		mtu  int
	}{{10e6, 1500}, {100e6, 1500}, {100e6, 9000}, {1e9, 1500}} {
		mtu := float64(tt.mtu)
		for _, proto := range []struct {
			name  string
			share float64 // what the flow counts of what the filter counts: a frame is the packet and 14 bytes
			start func(a, b *netns.Namespace) flow
		}{
			{"TCP", (mtu - 52) / (mtu + header), func(a, b *netns.Namespace) flow { return tcp(t, a, b, "10.0.0.2", tt.rate) }},
			{"UDP", 1, func(a, b *netns.Namespace) flow { return udp(t, a, b, tt.mtu-28) }},
		} {
			t.Run(fmt.Sprintf("%s %d MTU %d", proto.name, uint64(tt.rate), tt.mtu), func(t *testing.T) {
				const tries = 4 // a machine that has much to do may have less in a moment
				var free float64
				for range tries {
					a, b := joined(t, tt.rate, tt.mtu, shaper)
					f := proto.start(a, b)
					kept := holds(t, f, float64(tt.rate)*proto.share, 0.01)
					f.stop()
					if kept {
						return
					}
					// What could pass now if it were not for the rate: of a wire, which takes processors, by a wire.
					if shaper.Name() == "wire" {
						a, b = joined(t, 10*tt.rate, tt.mtu, shaper)
					} else {
						a, b = joined(t, 0, tt.mtu, none{})
					}
					f = proto.start(a, b)
					free, _ = f.window(uint64(tt.rate) / 8 / 5)
					f.stop()
					if free < 4*float64(tt.rate) {
						t.Skipf("this machine now makes %.0f bit/s without that rate: too little to tell what the filter keeps back", free)
					}
				}
				t.Errorf("the filter never let its rate pass; without it %.0f bit/s do", free)
			})
		}
	}
}

// Both directions are shaped, each on its own.
func TestBothDirections(t *testing.T) { rated(t, testBothDirections) }

func testBothDirections(t *testing.T, shaper Shaper) {
	const rate = 20e6
	a, b := joined(t, rate, 1500, shaper)
	// Datagrams, as of TCP each direction waits for its acknowledgements in the queue of the other. They leave both processors time.
	const size, burst = 1472, 20
	there, back := udpTo(t, a, b, 1, size, burst), udpTo(t, b, a, 0, size, burst)
	defer there.stop()
	defer back.stop()
	for name, f := range map[string]flow{"there": there, "back": back} {
		if !holds(t, f, rate, 0.01) {
			t.Error("too little passed ", name)
		}
	}
}
