package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

// Counts are the packets that passed, by kind; Wanted says which is what.
//
// They are exact and none is missed for want of room: they are the kernel's counts of what each filter accepted
// (PACKET_STATISTICS), which go on when nothing is stored. What counts as one packet is said at the package: a GSO
// buffer of ESP in UDP counts once.
type Counts struct {
	ESP       uint64 `json:"esp"`
	ESPinUDP  uint64 `json:"esp_in_udp"`
	Exchange  uint64 `json:"exchange"`
	Plaintext uint64 `json:"plaintext"`
	Other     uint64 `json:"other"`

	// Leaks are some of the first packets of Plaintext.
	Leaks []Leak `json:"leaks,omitempty"`
}

// Leak is a packet that passed in the clear.
type Leak struct {
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	Protocol uint8      `json:"protocol"` // of IPv4, or the next header of IPv6
	Length   int        `json:"length"`   // bytes of IP packet
}

func (l Leak) String() string {
	return fmt.Sprintf("%v to %v, protocol %d, %d bytes", l.Src, l.Dst, l.Protocol, l.Length)
}

const (
	maxLeaks  = 16
	snapWatch = 64 // bytes kept of the few packets that are
)

// Watcher counts what passes an interface, in both directions, without taking it to user space. It has a packet socket
// for each kind, with a filter for it and a receive buffer that is full after the first packets. From then on a packet
// costs one filter for each kind (tens of nanoseconds) and one addition; nothing is copied and nobody is woken.
type Watcher struct {
	iface string

	mu      sync.Mutex
	fds     [kinds]int
	counts  Counts
	stopped bool
}

// Watch begins to count what passes an interface of ns (nil: the caller's namespace). It needs CAP_NET_RAW there.
func Watch(ns *netns.Namespace, iface string, want Wanted) (*Watcher, error) {
	w := &Watcher{iface: iface}
	for k := range w.fds {
		w.fds[k] = -1
	}
	for k := range w.fds {
		fd, err := open(ns, iface, unix.SOCK_DGRAM, want.filter(kind(k), snapWatch), func(fd int) error {
			size := 1 // the kernel makes it its least, a packet or two
			if kind(k) == plaintext {
				size = 32 << 10 // for Leaks
			}
			return os.NewSyscallError("SO_RCVBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size))
		})
		if err != nil {
			w.close()
			return nil, fmt.Errorf("watch %s: %w", iface, err)
		}
		w.fds[k] = fd
	}
	return w, nil
}

// Counts until now. The kernel's counters have 32 bits: ask at least every 2^32 packets of a kind.
func (w *Watcher) Counts() (Counts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.read()
}

// Stop ends the watch and gives what it counted. A second call gives the same.
func (w *Watcher) Stop() (Counts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, err := w.read()
	w.close()
	return c, err
}

func (w *Watcher) close() {
	w.stopped = true
	for k, fd := range w.fds {
		if fd >= 0 {
			unix.Close(fd)
			w.fds[k] = -1
		}
	}
}

// read adds what was counted since the last time; reading resets the kernel's counters.
func (w *Watcher) read() (Counts, error) {
	if !w.stopped {
		for k, to := range [kinds]*uint64{&w.counts.Other, &w.counts.ESP, &w.counts.ESPinUDP, &w.counts.Exchange, &w.counts.Plaintext} {
			s, err := unix.GetsockoptTpacketStats(w.fds[k], unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err != nil {
				return w.counts, fmt.Errorf("watch %s: PACKET_STATISTICS: %w", w.iface, err)
			}
			*to += uint64(s.Packets) // with those that found no room
		}
		if err := w.leaks(); err != nil {
			return w.counts, fmt.Errorf("watch %s: %w", w.iface, err)
		}
	}
	out := w.counts
	out.Leaks = slices.Clone(out.Leaks)
	return out, nil
}

// leaks takes the plaintext packets that found room.
func (w *Watcher) leaks() error {
	var b [snapWatch]byte
	for len(w.counts.Leaks) < maxLeaks {
		n, _, err := unix.Recvfrom(w.fds[plaintext], b[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN): // told once; what came before is still there
			continue
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		if l, ok := parseLeak(b[:n]); ok {
			w.counts.Leaks = append(w.counts.Leaks, l)
		}
	}
	return nil
}

func parseLeak(b []byte) (Leak, bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return Leak{netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], int(binary.BigEndian.Uint16(b[2:]))}, true
	case len(b) >= 40 && b[0]>>4 == 6:
		return Leak{netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], 40 + int(binary.BigEndian.Uint16(b[4:]))}, true
	}
	return Leak{}, false
}
