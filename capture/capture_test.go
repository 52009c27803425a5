package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after two minutes: %s", what)
		}
	}
}

// link joins two new namespaces by "eth0" at both ends.
func link(t testing.TB, mtu int) (a, b *netns.Namespace) {
	t.Helper()
	ns, err := netns.New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range ns {
			n.Close()
		}
	})
	h, err := ns[0].Netlink()
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "eth0", mtu
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns[1].Fd()), PeerMTU: uint32(mtu)}); err != nil {
		t.Fatal(err)
	}
	for _, n := range ns {
		h, err := n.Netlink()
		if err != nil {
			t.Fatal(err)
		}
		l, err := h.LinkByName("eth0")
		if err == nil {
			err = h.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Until the kernel has noticed the carrier it drops what is sent, and calls that a success.
	for _, n := range ns {
		h, err := n.Netlink()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the link has carrier", func() bool {
			l, err := h.LinkByName("eth0")
			return err == nil && l.Attrs().OperState == netlink.OperUp
		})
	}
	return ns[0], ns[1]
}

// sender puts IP packets on a namespace's eth0.
func sender(t testing.TB, ns *netns.Namespace) func(ip []byte) {
	t.Helper()
	fd, err := open(ns, "eth0", unix.SOCK_RAW, []bpf.Instruction{bpf.RetConstant{Val: 0}}, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(ip []byte) {
		t.Helper()
		frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0, 0}, ip...)
		proto := uint16(unix.ETH_P_ARP)
		if len(ip) > 0 && ip[0]>>4 == 4 {
			proto = unix.ETH_P_IP
		} else if len(ip) > 0 && ip[0]>>4 == 6 {
			proto = unix.ETH_P_IPV6
		}
		binary.BigEndian.PutUint16(frame[12:], proto)
		for {
			_, err := unix.Write(fd, frame)
			if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) {
				continue // the queue is full for a moment
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

func byKind(c Counts) [kinds]uint64 {
	return [kinds]uint64{c.Other, c.ESP, c.ESPinUDP, c.Exchange, c.Plaintext}
}

// TestWatch sends every kind in both directions and counts at both ends.
func TestWatch(t *testing.T) {
	t.Parallel()
	a, b := link(t, 1500)
	var ws [2]*Watcher
	for i, ns := range []*netns.Namespace{a, b} {
		w, err := Watch(ns, "eth0", wanted)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = w.Stop() })
		ws[i] = w
	}
	var want [kinds]uint64
	var leaks int
	const times = 3
	for _, send := range []func([]byte){sender(t, a), sender(t, b)} {
		for range times {
			for _, e := range examples() {
				if len(e.b) == 0 {
					continue // a frame without anything is not sent
				}
				send(e.b)
				want[e.want]++
				if e.want == plaintext {
					leaks++
				}
			}
		}
	}
	for i, w := range ws {
		var got [kinds]uint64
		eventually(t, "all are counted", func() bool {
			c, err := w.Counts()
			if err != nil {
				t.Fatal(err)
			}
			got = byKind(c)
			sum := uint64(0)
			for k := range kinds {
				sum += min(got[k], want[k])
			}
			return sum >= uint64(times*2*(len(examples())-1))
		})
		c, err := w.Stop()
		if err != nil {
			t.Fatal(err)
		}
		got = byKind(c)
		for k := esp; k < kinds; k++ {
			if got[k] != want[k] {
				t.Errorf("end %d: %d of kind %d, want %d", i, got[k], k, want[k])
			}
		}
		if got[other] < want[other] { // the kernel's own multicast may come on top
			t.Errorf("end %d: %d others, want %d", i, got[other], want[other])
		}
		if len(c.Leaks) == 0 || len(c.Leaks) > min(leaks, maxLeaks) {
			t.Errorf("end %d: %d leaks are told of %d", i, len(c.Leaks), leaks)
		}
		for _, l := range c.Leaks {
			if !slices.ContainsFunc(examples(), func(e example) bool {
				r, ok := parseLeak(e.b)
				return ok && e.want == plaintext && r == l
			}) {
				t.Errorf("end %d: leak %v was never sent", i, l)
			}
		}
		again, err := w.Stop()
		if err != nil || byKind(again) != got {
			t.Errorf("end %d: a second Stop gives %v and %v", i, again, err)
		}
	}
}

// TestWatchMisses nothing, far beyond what any buffer holds.
func TestWatchMisses(t *testing.T) {
	t.Parallel()
	a, b := link(t, 1500)
	w, err := Watch(b, "eth0", wanted)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	send := sender(t, a)
	p := packet(6, "10.1.0.1:1", "10.2.0.1:2", 1000)
	const n = 20_000
	for range n {
		send(p)
	}
	var c Counts
	eventually(t, "all are counted", func() bool {
		if c, err = w.Counts(); err != nil {
			t.Fatal(err)
		}
		return c.Plaintext >= n
	})
	if c.Plaintext != n || len(c.Leaks) == 0 {
		t.Errorf("%d plaintext packets with %d leaks told, want %d", c.Plaintext, len(c.Leaks), n)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	a, _ := link(t, 1500)
	if _, err := Watch(a, "eth1", wanted); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no such interface: %v", err)
	}
	if _, err := Open(a, "eth1", Options{File: NewFile(io.Discard, "")}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no such interface: %v", err)
	}
	if _, err := Watch(a, "a name far too long for the kernel", wanted); err == nil {
		t.Error("a name that no interface can have was accepted")
	}
	if _, err := Open(a, "eth0", Options{}); err == nil {
		t.Error("a tap without a file")
	}
	if _, err := Open(a, "eth0", Options{File: NewFile(io.Discard, ""), SnapLen: -1}); err == nil {
		t.Error("a negative snap length")
	}
	full := errors.New("disk full")
	tap, err := Open(a, "eth0", Options{File: NewFile(broken{full}, "")})
	if err != nil {
		t.Fatal(err)
	}
	sender(t, a)(packet(6, "10.1.0.1:1", "10.2.0.1:2", 1000))
	if _, err := tap.Close(); !errors.Is(err, full) {
		t.Errorf("a file that cannot be written: %v", err)
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

// TestDescriptors are closed, on success and on failure. Not parallel: it counts them.
func TestDescriptors(t *testing.T) {
	a, _ := link(t, 1500)
	count := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	round := func() {
		_, _ = Watch(a, "none", wanted)
		w, err := Watch(a, "eth0", wanted)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Stop(); err != nil {
			t.Fatal(err)
		}
		_, _ = Open(a, "none", Options{File: NewFile(io.Discard, "")})
		tap, err := Open(a, "eth0", Options{File: NewFile(io.Discard, "")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tap.Close(); err != nil {
			t.Fatal(err)
		}
	}
	round() // the runtime opens its poller
	before := count()
	for range 20 {
		round()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestTap captures at both ends into one file and reads that with an independent reader.
func TestTap(t *testing.T) {
	t.Parallel()
	a, b := link(t, 65000)
	var out bytes.Buffer
	file := NewFile(&out, "lab pair, run 1")
	left, err := Open(a, "eth0", Options{File: file, Name: "a:eth0", Comment: "PCIe"})
	if err != nil {
		t.Fatal(err)
	}
	// Only UDP: EtherType IPv4, protocol 17; and of that the headers.
	right, err := Open(b, "eth0", Options{File: file, SnapLen: 60, Filter: []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 23, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 17, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 20},
		bpf.RetConstant{Val: 0},
	}})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	send := sender(t, a)
	udp := packet(17, "10.1.0.1:1", "10.2.0.1:2", 64000)
	const n = 200
	for i := range n {
		binary.BigEndian.PutUint32(udp[100:], uint32(i))
		send(udp)
		send(packet(6, "10.1.0.1:1", "10.2.0.1:2", 20))
		// An ordinary user's buffer holds two such frames: never have more waiting, but have some when it closes.
		eventually(t, "the left end keeps up", func() bool { return left.Captured() >= uint64(2*i) })
	}
	eventually(t, "all have arrived", func() bool { return right.Captured() == n })
	sl, err := left.Close()
	if err != nil {
		t.Fatal(err)
	}
	sr, err := right.Close()
	if err != nil {
		t.Fatal(err)
	}
	// The sending end sees a frame before send returns, so Close must not lose any.
	if sl.Captured < 2*n || sl.Dropped != 0 || sr != (Statistics{Captured: n}) {
		t.Errorf("left %+v, right %+v", sl, sr)
	}
	r, err := pcapgo.NewNgReader(&out, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	var seen [2]int
	for {
		data, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if ci.Timestamp.Before(begin.Add(-time.Second)) || ci.Timestamp.After(time.Now().Add(time.Second)) {
			t.Fatalf("captured at %v, sent at %v", ci.Timestamp, begin)
		}
		if len(data) < 34 || data[23] != 17 || data[12] != 8 {
			continue
		}
		i := seen[ci.InterfaceIndex]
		seen[ci.InterfaceIndex]++
		if ci.Length != 14+len(udp) {
			t.Fatalf("a frame of %d bytes, want %d", ci.Length, 14+len(udp))
		}
		if want := []int{14 + len(udp), 60}[ci.InterfaceIndex]; len(data) != want {
			t.Fatalf("%d bytes kept of a frame, want %d", len(data), want)
		}
		if ci.InterfaceIndex == 0 && binary.BigEndian.Uint32(data[114:]) != uint32(i) {
			t.Fatalf("frame %d is out of order", i)
		}
	}
	if seen != [2]int{n, n} {
		t.Errorf("%v UDP frames are in the file, want %d of each tap", seen, n)
	}
	if r.NInterfaces() != 2 || r.SectionInfo().Comment != "lab pair, run 1" {
		t.Fatalf("%d interfaces, comment %q", r.NInterfaces(), r.SectionInfo().Comment)
	}
	for i, want := range []pcapgo.NgInterface{{Name: "a:eth0", Comment: "PCIe"}, {Name: "eth0", SnapLength: 60}} {
		got, err := r.Interface(i)
		if err != nil || got.Name != want.Name || got.Comment != want.Comment || got.SnapLength != want.SnapLength || got.LinkType != layers.LinkTypeEthernet {
			t.Errorf("interface %d: %+v, %v", i, got, err)
		}
	}
	if again, err := left.Close(); err != nil || again != sl {
		t.Errorf("a second Close gives %+v and %v", again, err)
	}
}

// BenchmarkSend shows what a watch costs a packet on its link.
func BenchmarkSend(b *testing.B) {
	for _, watched := range []bool{false, true} {
		name := map[bool]string{false: "alone", true: "watched"}[watched]
		b.Run(name, func(b *testing.B) {
			x, y := link(b, 1500)
			if watched {
				w, err := Watch(y, "eth0", wanted)
				if err != nil {
					b.Fatal(err)
				}
				defer w.Stop()
			}
			send := sender(b, x)
			p := packet(17, "192.0.2.1:4500", "192.0.2.2:4500", 1400)
			for b.Loop() {
				send(p)
			}
		})
	}
}

// TestTapDrains: frames that wait in the kernel when a tap closes are written.
func TestTapDrains(t *testing.T) {
	t.Parallel()
	a, _ := link(t, 1500)
	tap, err := Open(a, "eth0", Options{File: NewFile(io.Discard, "")})
	if err != nil {
		t.Fatal(err)
	}
	send := sender(t, a)
	tap.out.mu.Lock()
	tap.out.open = nil // so that nobody reads before the end
	tap.out.mu.Unlock()
	const n = 10 * tapBatch
	for range n {
		send(packet(6, "10.1.0.1:1", "10.2.0.1:2", 100))
	}
	if early := tap.Captured(); early >= n {
		t.Fatalf("the reader took all %d frames: nothing is left to drain", early)
	}
	if s, err := tap.Close(); err != nil || s.Captured < n || s.Dropped != 0 {
		t.Errorf("%+v, %v, want %d frames", s, err, n)
	}
}
