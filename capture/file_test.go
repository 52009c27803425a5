package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"golang.org/x/sys/unix"
)

// content is what an independent reader finds in a file.
type content struct {
	packets []found
	reader  *pcapgo.NgReader
}

type found struct {
	data     []byte
	info     gopacket.CaptureInfo
	comments []string
	way      pcapgo.NgEpbFlag
}

func readFile(t testing.TB, b []byte) content {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	c := content{reader: r}
	for {
		data, info, opts, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
		p := found{data: data, info: info, comments: opts.Comments}
		if opts.Flags != nil {
			p.way = opts.Flags.Direction
		}
		c.packets = append(c.packets, p)
	}
}

// kindsOf lists the kinds of the blocks of a file, and fails if the last is not whole.
func kindsOf(t testing.TB, b []byte) (kinds []uint32, bodies [][]byte) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 12 || int(le32(b[4:])) > len(b) || le32(b[4:])%4 != 0 || le32(b[le32(b[4:])-4:]) != le32(b[4:]) {
			t.Fatalf("%d bytes are no block", len(b))
		}
		n := le32(b[4:])
		kinds, bodies, b = append(kinds, le32(b)), append(bodies, b[8:n-4]), b[n:]
	}
	return kinds, bodies
}

// sync'd buffer.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// mine says which of the sent packets a frame is; the kernel sends some of its own.
func mine(b []byte) (int, bool) {
	if len(b) < 14+40 || b[12] != 8 || b[23] != 6 {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(b[14+30:])), true
}

func numbered(i int) []byte {
	p := packet(6, "10.1.0.1:1", "10.2.0.1:2", 100)
	binary.BigEndian.PutUint32(p[30:], uint32(i))
	return p
}

// Both ends of a link, with traffic both ways at once, in one file: in order of time, each packet first at the end that sent
// it, with its direction.
func TestOrder(t *testing.T) {
	t.Parallel()
	a, b := link(t, 1500)
	var out lockedBuffer
	file := NewFile(&out, "")
	for _, ns := range []struct {
		name string
		opts Options
	}{{"a", Options{File: file, Name: "a:eth0", Description: "link ab", Comment: "node a", Speed: 1e9}}, {"b", Options{File: file, Name: "b:eth0"}}} {
		space := a
		if ns.name == "b" {
			space = b
		}
		if _, err := Open(space, "eth0", ns.opts); err != nil {
			t.Fatal(err)
		}
	}
	const n = 3000
	fromA, fromB := sender(t, a), sender(t, b)
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := range n {
			fromA(numbered(i))
		}
	})
	sending.Go(func() {
		for i := range n {
			fromB(numbered(n + i))
		}
	})
	sending.Wait()
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if file.Unordered() != 0 {
		t.Errorf("%d packets are out of order", file.Unordered())
	}
	c := readFile(t, out.Bytes())
	var last time.Time
	seen := map[int][]int{} // by packet: the interfaces, in order
	for _, p := range c.packets {
		if p.info.Timestamp.Before(last) {
			t.Fatalf("%v after %v", p.info.Timestamp, last)
		}
		last = p.info.Timestamp
		i, ok := mine(p.data)
		if !ok {
			continue
		}
		seen[i] = append(seen[i], p.info.InterfaceIndex)
		want := pcapgo.NgEpbFlagDirectionOutbound
		if (i < n) != (p.info.InterfaceIndex == 0) {
			want = pcapgo.NgEpbFlagDirectionInbound
		}
		if p.way != want {
			t.Fatalf("packet %d at end %d: direction %v", i, p.info.InterfaceIndex, p.way)
		}
	}
	for i := range 2 * n {
		want := []int{0, 1}
		if i >= n {
			want = []int{1, 0}
		}
		if !slices.Equal(seen[i], want) {
			t.Fatalf("packet %d was seen at %v, want %v", i, seen[i], want)
		}
	}
	first, err := c.reader.Interface(0)
	if err != nil || first.Name != "a:eth0" || first.Description != "link ab" || first.Comment != "node a" || first.LinkType != layers.LinkTypeEthernet {
		t.Errorf("%+v, %v", first, err)
	}
	for i := range 2 {
		d, err := c.reader.Interface(i)
		if err != nil || d.Statistics.PacketsReceived < 2*n || d.Statistics.PacketsDropped != 0 {
			t.Errorf("interface %d: %+v, %v", i, d.Statistics, err)
		}
	}
}

// Packets wait for the secrets of their time, and are in the file after them.
func TestSecretsComeFirst(t *testing.T) {
	t.Parallel()
	a, _ := link(t, 1500)
	var out lockedBuffer
	file := NewFile(&out, "")
	file.SecretsFollow()
	tap, err := Open(a, "eth0", Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	send := sender(t, a)
	packets := func(b []byte) (n int) {
		for _, p := range readFile(t, b).packets {
			if _, ok := mine(p.data); ok {
				n++
			}
		}
		return n
	}
	send(numbered(0))
	eventually(t, "it is read", func() bool { return tap.Captured() > 0 })
	file.Learn(Secrets{Until: time.Now().Add(-time.Hour)}) // which says nothing of this packet
	file.mu.Lock()
	waiting := len(file.held)
	file.mu.Unlock()
	if waiting == 0 {
		t.Fatal("a packet did not wait for its secrets")
	}
	file.Learn(Secrets{Until: time.Now(), TLS: []byte("LABEL 00 11\n")})
	eventually(t, "the packet is written", func() bool {
		b := out.Bytes()
		return len(b) > 0 && packets(b) == 1
	})
	send(numbered(1))
	go func() {
		for tap.Captured() < 2 {
			time.Sleep(time.Millisecond)
		}
		file.Learn(Secrets{Until: time.Now().Add(time.Minute), TLS: []byte("LABEL 00 222\n")})
	}()
	if err := file.Close(); err != nil { // waits for the second secret
		t.Fatal(err)
	}
	kinds, bodies := kindsOf(t, out.Bytes())
	var order []string
	for i, k := range kinds {
		switch k {
		case blockSecrets:
			n := le32(bodies[i][4:])
			if le32(bodies[i]) != secretsTLS {
				t.Errorf("secrets of type %#x", le32(bodies[i]))
			}
			order = append(order, strings.TrimSpace(string(bodies[i][8:8+n])))
		case blockPacket:
			if j, ok := mine(bodies[i][20:]); ok {
				order = append(order, string('0'+rune(j)))
			}
		}
	}
	if want := []string{"LABEL 00 11", "0", "LABEL 00 222", "1"}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
}

// A file of which no secrets come does not wait for ever.
func TestNoMoreSecrets(t *testing.T) {
	t.Parallel()
	a, _ := link(t, 1500)
	var out lockedBuffer
	file := NewFile(&out, "")
	file.SecretsFollow()
	tap, err := Open(a, "eth0", Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	sender(t, a)(numbered(0))
	eventually(t, "it is read", func() bool { return tap.Captured() > 0 })
	file.NoMoreSecrets()
	eventually(t, "it is written", func() bool { return len(out.Bytes()) > 0 && len(readFile(t, out.Bytes()).packets) > 0 })
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// The first packet under an SA, in order of time, has its comment, and no other.
func TestComments(t *testing.T) {
	t.Parallel()
	a, _ := link(t, 1500)
	var out lockedBuffer
	file := NewFile(&out, "")
	tap, err := Open(a, "eth0", Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	sa := SA{Tunnel: "vpn", From: "a", To: "b", SPI: 0x1234, Replaces: 0x999, Dst: netip.MustParseAddr("10.0.0.2"), Key: []byte("sesame sesame"), Salt: []byte("salt")}
	file.Learn(Secrets{SAs: []SA{sa}})
	send := sender(t, a)
	for _, p := range []struct {
		dst string
		spi uint32
	}{{"10.0.0.2", 0x999}, {"10.0.0.3", 0x1234}, {"10.0.0.2", 0x1234}, {"10.0.0.2", 0x1234}} {
		frame, _ := espFrame(t, r, p.dst, true, p.spi, 1, 100, 100, 1)
		send(frame[14:])
	}
	eventually(t, "all are read", func() bool { return tap.Captured() >= 4 })
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out.Bytes(), sa.Key) {
		t.Error("the key is in the file")
	}
	var comments [][]string
	for _, p := range readFile(t, out.Bytes()).packets {
		if _, ok := espOf(p.data); ok {
			comments = append(comments, p.comments)
		}
	}
	if len(comments) != 4 || comments[0] != nil || comments[1] != nil || comments[3] != nil || len(comments[2]) != 1 {
		t.Fatalf("comments %q", comments)
	}
	for _, part := range []string{"vpn", "0x00001234", "0x00000999"} {
		if !strings.Contains(comments[2][0], part) {
			t.Errorf("%q does not say %s", comments[2][0], part)
		}
	}
}

// After so many packets, or before so many bytes, a file is complete.
func TestLimits(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*File){
		"packets": func(f *File) { f.MaxPackets = 50 },
		"bytes":   func(f *File) { f.MaxBytes = 20_000 },
	} {
		a, b := link(t, 1500)
		var out lockedBuffer
		file := NewFile(&out, "")
		set(file)
		var taps []*Tap
		for _, ns := range []Options{{}, {}} {
			ns.File = file
			space := a
			if len(taps) > 0 {
				space = b
			}
			tap, err := Open(space, "eth0", ns)
			if err != nil {
				t.Fatal(err)
			}
			taps = append(taps, tap)
		}
		send := sender(t, a)
		for i := range 500 {
			send(numbered(i))
		}
		select {
		case <-file.Done():
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s: the limit is not noticed", name)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		got := readFile(t, out.Bytes())
		var sum uint64
		for i, tap := range taps {
			s, err := tap.Close()
			if err != nil || s.Dropped != 0 {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
			sum += s.Captured
			if d, err := got.reader.Interface(i); err != nil || d.Statistics.PacketsReceived != s.Captured {
				t.Errorf("%s: interface %d says %d, want %d, %v", name, i, d.Statistics.PacketsReceived, s.Captured, err)
			}
		}
		if int(sum) != len(got.packets) {
			t.Errorf("%s: %d captured, %d in the file", name, sum, len(got.packets))
		}
		switch size := len(out.Bytes()); {
		case name == "packets" && len(got.packets) != 50:
			t.Errorf("%d packets, want 50", len(got.packets))
		case name == "bytes" && (size > 20_000 || size < 18_000):
			t.Errorf("%d bytes, want nearly 20000", size)
		}
	}
}

// A ring: each file is whole by itself, no packet is lost between them, and only the last stay.
func TestRing(t *testing.T) {
	t.Parallel()
	a, _ := link(t, 1500)
	dir := t.TempDir()
	files, err := Create(filepath.Join(dir, "x.pcapng"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	file := NewFile(files, "the lab")
	file.MaxBytes, file.Next = 10_000, files.Next
	tap, err := Open(a, "eth0", Options{File: file, Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Commit(); err != nil {
		t.Fatal(err)
	}
	file.Learn(Secrets{TLS: []byte("LABEL 00 11\n")})
	const n = 1000
	send := sender(t, a)
	for i := range n {
		send(numbered(i))
	}
	if err := errors.Join(file.Close(), files.Close()); err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, name := range files.Names() {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 || len(b) > 10_000 {
			t.Errorf("%s: %v, %d bytes, %v", name, info.Mode(), len(b), err)
		}
		kinds, _ := kindsOf(t, b)
		if !slices.Contains(kinds, blockSecrets) || kinds[len(kinds)-1] != blockStatistics {
			t.Errorf("%s: blocks %v", name, kinds)
		}
		c := readFile(t, b)
		if d, err := c.reader.Interface(0); err != nil || d.Name != "one" || c.reader.SectionInfo().Comment != "the lab" {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		for _, p := range c.packets {
			if i, ok := mine(p.data); ok {
				if i != next {
					t.Fatalf("%s: packet %d, want %d", name, i, next)
				}
				next++
			}
		}
	}
	s, err := tap.Close()
	if err != nil || next != n || s.Captured < n || len(files.Names()) < 10 {
		t.Errorf("%d packets in %d files, %+v, %v", next, len(files.Names()), s, err)
	}
}

// small is a disk with little room, which takes back what is truncated.
type small struct {
	b    []byte
	room int
}

func (s *small) Write(b []byte) (int, error) {
	n := min(len(b), s.room-len(s.b))
	s.b = append(s.b, b[:n]...)
	if n < len(b) {
		return n, unix.ENOSPC
	}
	return n, nil
}

func (s *small) Truncate(n int64) error { s.b = s.b[:n]; return nil }

// A disk that gets full leaves a file that ends with a whole block, and an error.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for room := 500; room < 1500; room += 93 {
		a, _ := link(t, 1500)
		disk := &small{room: room}
		file := NewFile(disk, "")
		if _, err := Open(a, "eth0", Options{File: file}); err != nil {
			t.Fatal(err)
		}
		send := sender(t, a)
		for i := range 20 {
			send(numbered(i))
		}
		if err := file.Close(); !errors.Is(err, unix.ENOSPC) || strings.Count(err.Error(), unix.ENOSPC.Error()) != 1 {
			t.Errorf("%v", err)
		}
		select {
		case <-file.Done():
		default:
			t.Error("the file goes on")
		}
		kindsOf(t, disk.b)
	}
}
