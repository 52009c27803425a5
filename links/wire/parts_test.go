package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/offload"
	"pqlab/links/medium"
)

func TestBuffers(t *testing.T) {
	t.Parallel()
	var b buffers
	r := rand.New(rand.NewPCG(1, 2))
	var used [][]byte
	for range 100_000 {
		if r.IntN(2) == 0 || len(used) == 0 {
			n := 1 + r.IntN(biggest)
			if r.IntN(2) == 0 {
				n = 1 + r.IntN(2000)
			}
			buf := b.get(n)
			if len(buf) != n || cap(buf) > max(n+n/4, smallest) {
				t.Fatalf("%d bytes of %d for %d", len(buf), cap(buf), n)
			}
			buf[0], buf[n-1] = 1, 1
			used = append(used, buf)
			continue
		}
		i := r.IntN(len(used))
		b.put(used[i])
		used[i] = used[len(used)-1]
		used = used[:len(used)-1]
	}
	for _, buf := range used {
		b.put(buf)
	}
	kept := 0
	for c, free := range b.free {
		if sizeOf(c) == biggest {
			if len(free) > batch {
				t.Errorf("%d of the biggest are kept", len(free))
			}
		} else {
			kept += len(free) * sizeOf(c)
		}
		seen := map[*byte]bool{}
		for _, buf := range free {
			if at := &buf[:1][0]; seen[at] || cap(buf) != sizeOf(c) {
				t.Fatalf("a buffer of %d bytes is kept twice, or among those of %d", cap(buf), sizeOf(c))
			} else {
				seen[at] = true
			}
		}
	}
	if kept != b.kept || kept > spare || kept < spare-biggest {
		t.Errorf("%d bytes are kept, %d by its own count", kept, b.kept)
	}
	before := b
	b.put(nil)
	b.put(make([]byte, 100)) // not from here
	b.put(make([]byte, biggest+1))
	for c := range b.free {
		if len(b.free[c]) != len(before.free[c]) {
			t.Error("took a buffer that is none of its own")
		}
	}
}

// large is a large segment as a TAP gives it: Ethernet, VLAN tags, IPv4 and TCP.
func large(payload, segment, tags int) []byte {
	l2 := ethernetLen + vlanLen*tags
	b := make([]byte, offload.HeaderLen+l2+40+payload)
	h := offload.Header{Flags: offload.NeedsChecksum, GSOType: 1, HeaderLen: uint16(l2 + 40), GSOSize: uint16(segment), CsumStart: uint16(l2 + 20), CsumField: 16}
	h.Encode(b)
	frame := b[offload.HeaderLen:]
	for i := range tags {
		binary.BigEndian.PutUint16(frame[12+vlanLen*i:], 0x8100)
	}
	binary.BigEndian.PutUint16(frame[l2-2:], 0x0800)
	ip := frame[l2:]
	ip[0], ip[8], ip[9], ip[32] = 0x45, 64, 6, 5<<4
	binary.BigEndian.PutUint16(ip[2:], uint16(40+payload))
	for i := range payload {
		ip[40+i] = byte(i * i >> 3)
	}
	return b
}

// A large segment stays whole, or comes in pieces that the medium's limit has room for, with all its bytes and sizes as
// they are on the link.
func TestCut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		payload, segment, tags, whole int
		sizes                         []int // on the link
		frames                        []int
	}{
		{10 * 1000, 1000, 0, 1 << 30, []int{10540}, []int{10}},
		{10 * 1000, 1000, 0, 10540, []int{10540}, []int{10}},
		{10 * 1000, 1000, 0, 10539, []int{9486, 1054}, []int{9, 1}},
		{10*1000 + 1, 1000, 0, 4216, []int{4216, 4216, 2163}, []int{4, 4, 3}},
		{3000, 1000, 0, 0, []int{1054, 1054, 1054}, []int{1, 1, 1}},
		{3000, 1000, 1, 0, []int{1058, 1058, 1058}, []int{1, 1, 1}},
		{2500, 1000, 2, 0, []int{1062, 1062, 562}, []int{1, 1, 1}},
		{1000, 1000, 0, 0, []int{1054}, []int{1}},
	} {
		var b buffers
		c := cutter{buffers: &b}
		data := large(tt.payload, tt.segment, tt.tags)
		want := bytes.Clone(data[len(data)-tt.payload:])
		l2 := ethernetLen + vlanLen*tt.tags
		var got []byte
		i := 0
		if !c.cut(data, tt.whole, func(p medium.Packet) {
			if i >= len(tt.sizes) || p.Size != tt.sizes[i] || p.Frames != tt.frames[i] {
				t.Errorf("%+v: packet %d is of %d bytes in %d frames", tt, i, p.Size, p.Frames)
			}
			i++
			var h offload.Header
			h.Decode(p.Data)
			if h.Segmented() != (p.Frames > 1) || int(h.CsumStart) != l2+20 || int(h.HeaderLen) != l2+40 {
				t.Errorf("%+v: %+v", tt, h)
			}
			if !bytes.Equal(p.Data[offload.HeaderLen:][:l2], large(0, 1, tt.tags)[offload.HeaderLen:][:l2]) {
				t.Errorf("%+v: header %x", tt, p.Data[offload.HeaderLen:][:l2])
			}
			got = append(got, p.Data[offload.HeaderLen+l2+40:]...)
		}) || i != len(tt.sizes) || !bytes.Equal(got, want) {
			t.Errorf("%+v: %d packets with %d bytes", tt, i, len(got))
		}
	}
}

// Whatever the kernel sent, no packet is made of what does not fit together, and none is lost of what does.
func TestCutAnything(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var b buffers
	c := cutter{buffers: &b}
	good, bad := 0, 0
	for range 50_000 {
		data := large(1+r.IntN(3000), 1+r.IntN(1500), r.IntN(4))
		data = data[:headers+r.IntN(len(data)-headers+1)]
		for range r.IntN(4) {
			data[r.IntN(min(len(data), 100))] = byte(r.IntN(256))
		}
		n, first := 0, data[0]
		ok := c.cut(data, r.IntN(5000)-100, func(p medium.Packet) {
			n++
			if p.Size < ethernetLen || p.Frames < 1 || len(p.Data) < headers {
				t.Errorf("%+v", p)
			}
			flip(p.Data, 1+int(first)*8)
		})
		if ok != (n > 0) {
			t.Errorf("%v, and %d packets", ok, n)
		}
		if ok {
			good++
		} else {
			bad++
		}
	}
	if good < 5000 || bad < 5000 {
		t.Errorf("%d were good, %d bad", good, bad)
	}
}

// What is turned over is noticed: the checksum that the kernel left to the interface is completed before.
func TestFlip(t *testing.T) {
	t.Parallel()
	for bit := 8*(ethernetLen+20) + 1; bit <= 8*(ethernetLen+20+20+100); bit++ {
		data := large(100, 0, 0)
		ip := data[headers:]
		binary.NativeEndian.PutUint16(ip[36:], 0) // no pseudo header
		h := offload.Header{Flags: offload.NeedsChecksum, CsumStart: ethernetLen + 20, CsumField: 16}
		h.Encode(data)
		clean := bytes.Clone(data)
		flip(clean, 1<<30) // no bit of it
		flip(data, bit)
		if data[0] != 0 || clean[0] != 0 {
			t.Fatal("the checksum is still to be completed")
		}
		if got := offload.Checksum(clean[headers+20:]); got != 0 {
			t.Fatalf("completed, the checksum is off by %x", got)
		}
		differ := 0
		for i := range data {
			for d := data[i] ^ clean[i]; d != 0; d &= d - 1 {
				differ++
			}
		}
		if got := offload.Checksum(data[headers+20:]); got == 0 || differ != 1 {
			t.Fatalf("bit %d: %d bits differ, the checksum by %x", bit, differ, got)
		}
	}
}

// Looking at the clock takes a quarter of the time at most, and sleeping ends before something is due.
func TestSpin(t *testing.T) {
	t.Parallel()
	for _, gap := range []time.Duration{10 * time.Microsecond, 120 * time.Microsecond, time.Millisecond, 20 * time.Millisecond} {
		var s spin
		now, due, spun := time.Duration(0), gap, time.Duration(0)
		const step = 500 * time.Nanosecond // that one look takes
		for now < 3*time.Second {
			if now >= due {
				due += gap
			}
			sleep := s.sleep(now, due, false)
			if sleep > due-now {
				t.Fatalf("at %v: sleeps for %v, due at %v", now, sleep, due)
			}
			if sleep == 0 {
				spun += step
				now += step
			}
			now += sleep
		}
		if spun > now/share+2*mostSpent {
			t.Errorf("every %v: looked for %v of %v", gap, spun, now)
		}
		if gap >= time.Millisecond && spun < now/gap*margin*9/10 {
			t.Errorf("every %v: looked for %v only", gap, spun)
		}
	}
	var s spin
	for now := time.Duration(0); now < time.Second; now += time.Microsecond {
		if s.sleep(now, now+time.Microsecond, true); s.credit < 0 {
			t.Fatal("work was taken for looking")
		}
	}
}

// A thread that sleeps is late only once that has lasted for longer than it was to.
func TestAwake(t *testing.T) {
	t.Parallel()
	var a awake
	for i, tt := range []struct{ from, to, until, late time.Duration }{
		{10, 20, 30, 0}, {20, 30, 30, 0}, {30, 75, 50, 25}, {80, 90, never, 0}, {90, 91, 80, 11},
	} {
		before := a.at(tt.from)
		a.slept(tt.from, tt.to, tt.until)
		if got := a.at(tt.to) - before; got != tt.late {
			t.Errorf("%d: %d late, want %d", i, got, tt.late)
		}
	}
}

// What is read has waited for the longest time without a look since nothing was there.
func TestAttention(t *testing.T) {
	t.Parallel()
	var a attention
	a.empty(100)
	for i, tt := range []struct {
		do             func(time.Duration)
		at, read, want time.Duration
	}{
		{a.look, 110, 110, 10}, {a.look, 120, 125, 10}, {a.look, 170, 170, 50}, {a.look, 180, 190, 50}, {a.look, 200, 280, 80},
		{a.look, 281, 281, 81}, {a.empty, 290, 290, 0}, {a.empty, 300, 300, 0}, {a.look, 305, 306, 5},
	} {
		if tt.do(tt.at); a.waited(tt.read) != tt.want {
			t.Errorf("%d: %d, want %d", i, a.waited(tt.read), tt.want)
		}
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	for errno, remedy := range map[unix.Errno]string{ // "": the machine lacks nothing
		unix.EACCES: "chmod", unix.EPERM: "chmod", unix.ENOENT: "modprobe", unix.ENODEV: "modprobe", unix.ENXIO: "modprobe",
		unix.EMFILE: "", unix.ENFILE: "", unix.ENOMEM: "", unix.EIO: "",
	} {
		err := openError(errno)
		var lacks *UnavailableError
		if errors.As(err, &lacks) != (remedy != "") || errors.Is(err, errors.ErrUnsupported) != (remedy != "") ||
			!errors.Is(err, errno) || !strings.Contains(err.Error(), remedy) || !strings.Contains(err.Error(), tunDevice) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
