package capture

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

const tapBuffer = 32 << 20 // bytes that may wait in the kernel

// Options of a Tap.
type Options struct {
	File        *File
	Name        string            // of the interface in the file; empty: the interface's own
	Description string            // on the interface
	Comment     string            // on the interface
	Speed       uint64            // bits per second; 0: not said
	SnapLen     int               // bytes kept of each frame; 0: all
	Filter      []bpf.Instruction // on the frame from its link-layer header on; empty: everything
}

// Statistics of a Tap.
type Statistics struct {
	Captured uint64 `json:"captured"` // packets that are in the file, or will be when its last tap is closed
	Dropped  uint64 `json:"dropped"`  // by the kernel, because they came faster than they could be written
}

// Tap captures what passes an interface, in both directions.
type Tap struct {
	iface     string
	out       *File
	begin     time.Time
	sock      *os.File
	fd        int // of sock
	described description
	read      atomic.Uint64
	once      sync.Once
	refused   sync.Once
	refuseErr error

	// What follows is guarded by the file's lock.
	id     int // in the file
	closed bool
	stats  Statistics
	err    error // of reading
}

// Open begins to capture on an interface of ns (nil: the caller's namespace). It needs CAP_NET_RAW there.
func Open(ns *netns.Namespace, iface string, opts Options) (*Tap, error) {
	if opts.File == nil {
		return nil, fmt.Errorf("capture %s: no file to write to", iface)
	}
	sock, err := Socket(ns, iface, opts.SnapLen, opts.Filter)
	if err != nil {
		return nil, err
	}
	if opts.Name == "" {
		opts.Name = iface
	}
	t, err := Attach(sock, opts)
	if err != nil {
		sock.Close()
	}
	return t, err
}

// Socket makes what Attach reads: a packet socket that takes, from now on, what passes an interface of ns (nil: the
// caller's namespace). It needs CAP_NET_RAW there; reading it, in whatever process, needs nothing.
func Socket(ns *netns.Namespace, iface string, snap int, filter []bpf.Instruction) (*os.File, error) {
	if snap < 0 {
		return nil, fmt.Errorf("capture %s: a snap length of %d bytes", iface, snap)
	}
	keep := tapFrame
	if snap > 0 {
		keep = min(snap, tapFrame)
	}
	fd, err := open(ns, iface, unix.SOCK_RAW, snapped(filter, uint32(keep)), tapOptions)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", iface, err)
	}
	awaitStamps()
	return os.NewFile(uintptr(fd), "packet socket on "+iface), nil
}

// Attach writes to a file what a Socket takes. The tap owns the socket, unless there is an error. Of the options the Filter
// is not used, and SnapLen only told: both are the socket's.
func Attach(sock *os.File, opts Options) (*Tap, error) {
	fd := int(sock.Fd())
	t := &Tap{iface: opts.Name, out: opts.File, begin: time.Now(), sock: sock, fd: fd}
	link, err := linkType(fd)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", opts.Name, err)
	}
	t.described = description{
		name: opts.Name, description: opts.Description, comment: opts.Comment, speed: opts.Speed, link: link, snap: uint32(opts.SnapLen),
	}
	t.out.mu.Lock()
	defer t.out.mu.Unlock()
	if err := t.out.add(t); err != nil {
		return nil, fmt.Errorf("capture %s: %w", opts.Name, err)
	}
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

// Types of link layers in a pcapng file (www.tcpdump.org/linktypes.html).
const (
	linkEthernet = 1
	linkRaw      = 101
)

// linkType of the interface that a socket is bound to. Devices without a link layer (TUN) give bare IP.
func linkType(fd int) (uint16, error) {
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
		return linkEthernet, nil
	case unix.ARPHRD_NONE:
		return linkRaw, nil
	}
	return 0, fmt.Errorf("link layer of type %d: only Ethernet, loopback and TUN can be captured", ll.Hatype)
}

// Captured counts the frames that were read until now; they are written in turn.
func (t *Tap) Captured() uint64 { return t.read.Load() }

// refuse lets no packet in any more.
func (t *Tap) refuse() error {
	t.refused.Do(func() { t.refuseErr = reject(t.fd) })
	return t.refuseErr
}

// Close ends the capture. What the kernel had taken by then is written first; with a file's last tap the statistics of all
// follow. The File's writer stays open. A second call gives the same.
func (t *Tap) Close() (Statistics, error) {
	f := t.out
	t.once.Do(func() {
		err := t.refuse()
		var last *reader
		defer func() { last.end() }()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drainAll(t)
		t.countDrops()
		t.closed = true
		if t.err == nil {
			t.err = err
		}
		last = f.remove(t)
		if err := t.sock.Close(); t.err == nil {
			t.err = err
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	err := t.err
	if err == nil {
		err = f.err
	}
	if err != nil {
		return t.stats, fmt.Errorf("capture %s: %w", t.iface, err)
	}
	return t.stats, nil
}
