package capture

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

const (
	tapBatch  = 32
	tapFrame  = 65535 + 18 // the largest GSO frame with its Ethernet header and a VLAN tag
	tapBuffer = 32 << 20   // bytes that may wait in the kernel
)

// Options of a Tap.
type Options struct {
	File    *File
	Name    string            // of the interface in the file; empty: the interface's own
	Comment string            // on the interface
	SnapLen int               // bytes kept of each frame; 0: all
	Filter  []bpf.Instruction // on the frame from its link-layer header on; empty: everything
}

// Statistics of a Tap.
type Statistics struct {
	Captured uint64 `json:"captured"` // frames, all of them written
	Dropped  uint64 `json:"dropped"`  // by the kernel, because they came faster than they could be written
}

// Tap captures what passes an interface, in both directions.
type Tap struct {
	iface string
	out   *File
	id    int // in the file
	begin time.Time
	file  *os.File
	raw   syscall.RawConn
	done  chan struct{} // closed when the reading goroutine has ended
	once  sync.Once

	msgs  [tapBatch]mmsghdr
	iovs  [tapBatch]unix.Iovec
	ctl   [tapBatch][128]byte
	buf   []byte
	frame int // bytes of buf for each
	pull  func(fd uintptr) bool
	got   int
	errno unix.Errno

	mu    sync.Mutex // guards what follows
	stats Statistics
	err   error // why reading ended, if not by Close
}

// mmsghdr of recvmmsg(2). Go pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// Open begins to capture on an interface of ns (nil: the caller's namespace). It needs CAP_NET_RAW there.
func Open(ns *netns.Namespace, iface string, opts Options) (*Tap, error) {
	if opts.File == nil {
		return nil, fmt.Errorf("capture %s: no file to write to", iface)
	}
	if opts.SnapLen < 0 {
		return nil, fmt.Errorf("capture %s: a snap length of %d bytes", iface, opts.SnapLen)
	}
	t := &Tap{iface: iface, out: opts.File, begin: time.Now(), done: make(chan struct{}), frame: tapFrame}
	if opts.SnapLen > 0 {
		t.frame = min(opts.SnapLen, tapFrame)
	}
	fd, err := open(ns, iface, unix.SOCK_RAW, snapped(opts.Filter, uint32(t.frame)), tapOptions)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", iface, err)
	}
	t.file = os.NewFile(uintptr(fd), "packet socket on "+iface)
	link, err := linkType(fd)
	if err == nil {
		t.raw, err = t.file.SyscallConn()
	}
	if err == nil {
		i := pcapgo.NgInterface{
			Name: iface, Comment: opts.Comment, OS: "linux", LinkType: link, TimestampResolution: 9, SnapLength: uint32(opts.SnapLen),
		}
		if opts.Name != "" {
			i.Name = opts.Name
		}
		t.id, err = t.out.add(i)
	}
	if err != nil {
		t.file.Close()
		return nil, fmt.Errorf("capture %s: %w", iface, err)
	}
	t.buf = make([]byte, tapBatch*t.frame)
	t.pull = func(fd uintptr) bool {
		for {
			n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&t.msgs[0])), tapBatch, unix.MSG_DONTWAIT, 0, 0)
			t.got, t.errno = int(n), e
			if e != unix.EINTR {
				return e != unix.EAGAIN
			}
		}
	}
	go t.run()
	return t, nil
}

func tapOptions(fd int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer) != nil {
		// An ordinary user gets less, which is no error; what it costs shows in Dropped.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return os.NewSyscallError("SO_TIMESTAMPNS", err)
	}
	return os.NewSyscallError("PACKET_AUXDATA", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
}

// snapped makes a filter keep at most snap bytes of what it accepts.
func snapped(filter []bpf.Instruction, snap uint32) []bpf.Instruction {
	if len(filter) == 0 {
		return []bpf.Instruction{bpf.RetConstant{Val: snap}}
	}
	out := append([]bpf.Instruction(nil), filter...)
	for i, in := range out {
		if r, ok := in.(bpf.RetConstant); ok && r.Val > snap {
			out[i] = bpf.RetConstant{Val: snap}
		}
	}
	return out
}

// linkType of the interface that a socket is bound to. Devices without a link layer (TUN) give bare IP.
func linkType(fd int) (layers.LinkType, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	ll, ok := sa.(*unix.SockaddrLinklayer)
	if !ok {
		return 0, fmt.Errorf("address of a packet socket is a %T", sa)
	}
	switch ll.Hatype {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		return layers.LinkTypeEthernet, nil
	case unix.ARPHRD_NONE:
		return layers.LinkTypeRaw, nil
	}
	return 0, fmt.Errorf("link layer of type %d: only Ethernet, loopback and TUN can be captured", ll.Hatype)
}

// Captured counts the frames written until now.
func (t *Tap) Captured() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stats.Captured
}

// Close ends the capture. What the kernel had taken by then is written first, and the statistics after it. The File
// stays open, but is flushed. A second call gives the same.
func (t *Tap) Close() (Statistics, error) {
	t.once.Do(func() {
		rejectErr := errors.New("not reached")
		if err := t.raw.Control(func(fd uintptr) { rejectErr = reject(int(fd)) }); err != nil {
			rejectErr = err
		}
		_ = t.file.SetReadDeadline(time.Unix(1, 0)) // ends the wait for more; the goroutine goes
		<-t.done
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.err == nil {
			t.err = rejectErr
		}
		t.finish()
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.stats, fmt.Errorf("capture %s: %w", t.iface, t.err)
	}
	return t.stats, nil
}

// finish drains the socket, which takes nothing more, and closes it. Its caller holds the lock.
func (t *Tap) finish() {
	err := t.raw.Control(func(fd uintptr) {
		for t.err == nil {
			t.arm()
			if t.pull(fd); t.errno == unix.EAGAIN {
				break
			}
			t.store()
		}
		s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			t.stats.Dropped = uint64(s.Drops)
		} else if t.err == nil {
			t.err = os.NewSyscallError("PACKET_STATISTICS", err)
		}
	})
	unwritten := t.out.end(t.id, t.begin, t.stats)
	if errors.Is(t.err, unwritten) {
		unwritten = nil // told already
	}
	t.err = errors.Join(t.err, err, t.file.Close(), unwritten)
}

func (t *Tap) run() {
	defer close(t.done)
	for {
		t.arm()
		err := t.raw.Read(t.pull)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		t.mu.Lock()
		if t.err = err; err == nil {
			t.store()
		}
		end := t.err != nil
		t.mu.Unlock()
		if end {
			return
		}
	}
}

func (t *Tap) arm() {
	for i := range t.msgs {
		t.iovs[i].Base = &t.buf[i*t.frame]
		t.iovs[i].SetLen(t.frame)
		h := &t.msgs[i].hdr
		h.Iov, h.Iovlen = &t.iovs[i], 1
		h.Control = &t.ctl[i][0]
		h.SetControllen(len(t.ctl[i]))
	}
}

// store writes what pull got. Its caller holds the lock.
func (t *Tap) store() {
	if t.errno == unix.ENETDOWN {
		return // told once; the interface may come up again
	}
	if t.errno != 0 {
		t.err = os.NewSyscallError("recvmmsg", t.errno)
		return
	}
	for i := range t.got {
		m := &t.msgs[i]
		data := t.buf[i*t.frame:][:m.len]
		when, length := control(t.ctl[i][:m.hdr.Controllen])
		if when.IsZero() {
			when = time.Now()
		}
		ci := gopacket.CaptureInfo{Timestamp: when, CaptureLength: len(data), Length: max(length, len(data)), InterfaceIndex: t.id}
		if t.err = t.out.write(ci, data); t.err != nil {
			return
		}
		t.stats.Captured++
	}
}

// control finds the time stamp and the whole length of a frame among its control messages.
func control(ctl []byte) (when time.Time, length int) {
	for len(ctl) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(ctl) {
			return when, length
		}
		body := ctl[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(body) >= int(unsafe.Sizeof(unix.Timespec{})):
			when = time.Unix((*unix.Timespec)(unsafe.Pointer(&body[0])).Unix())
		case h.Level == unix.SOL_PACKET && h.Type == unix.PACKET_AUXDATA && len(body) >= int(unsafe.Sizeof(auxdata{})):
			length = int((*auxdata)(unsafe.Pointer(&body[0])).length)
		}
		next := unix.CmsgSpace(len(body))
		if next >= len(ctl) {
			return when, length
		}
		ctl = ctl[next:]
	}
	return when, length
}

// auxdata is struct tpacket_auxdata (linux/if_packet.h).
type auxdata struct {
	status, length, snaplen uint32
	mac, net, tci, tpid     uint16
}
