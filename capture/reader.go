package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tapBatch  = 32
	tapFrame  = 65535 + 18 // the largest GSO frame with its Ethernet header and a VLAN tag
	maxRounds = 16         // batches that are read of a tap before the next tap's turn
)

// reader is what the goroutine that reads the taps of a file has.
type reader struct {
	bell int           // an eventfd
	done chan struct{} // closed when it has ended
	msgs [tapBatch]mmsghdr
	iovs [tapBatch]unix.Iovec
	from [tapBatch]unix.RawSockaddrLinklayer
	ctl  [tapBatch][128]byte
	buf  []byte
}

// mmsghdr of recvmmsg(2). Go pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func newReader() (*reader, error) {
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &reader{bell: bell, done: make(chan struct{}), buf: make([]byte, tapBatch*tapFrame)}, nil
}

// end waits for the goroutine, whose file has no tap any more. The file's lock is not held.
func (r *reader) end() {
	if r != nil {
		<-r.done
		unix.Close(r.bell)
	}
}

// wake ends the wait for packets. A nil reader does not wait.
func (r *reader) wake() {
	if r == nil {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(r.bell, one[:]) // fails only when it is ringing already
}

// read reads the taps and writes their packets in turn, until the file has another reader or none.
func (f *File) read(r *reader) {
	defer close(r.done)
	var fds []unix.PollFd
	for {
		f.mu.Lock()
		if f.reader != r {
			f.mu.Unlock()
			return
		}
		turn := f.turn
		fds = append(fds[:0], unix.PollFd{Fd: int32(r.bell), Events: unix.POLLIN})
		for _, t := range f.open {
			fds = append(fds, unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN})
		}
		wait := -1
		if len(f.held) > 0 || len(f.out) > 0 {
			wait = int(every / time.Millisecond)
		}
		f.mu.Unlock()

		began := time.Now().UnixNano()
		_, err := unix.Poll(fds, wait)
		if err == nil && fds[0].Revents != 0 {
			var b [8]byte
			_, _ = unix.Read(r.bell, b[:])
		}

		f.mu.Lock()
		if f.reader == r {
			f.round(began, func(i int) bool {
				return err != nil || f.turn != turn || fds[i+1].Revents != 0
			})
		}
		f.mu.Unlock()
	}
}

// round reads the taps that have something, and writes what may be written. What follows needs the lock.
func (f *File) round(began int64, has func(i int) bool) {
	until := int64(math.MaxInt64)
	for i, t := range f.open {
		seen := began
		if has(i) {
			seen = f.drain(t, maxRounds)
		}
		until = min(until, seen-int64(late))
	}
	if len(f.open) == 1 {
		until = math.MaxInt64 // nobody to wait for
	}
	if f.follow {
		until = min(until, f.until)
	}
	f.emit(until)
	if len(f.held) == 0 || began-f.flushed > int64(flushEvery) {
		f.flush()
		f.flushed = began
	}
}

// readAll reads what the kernel has of every tap.
func (f *File) readAll() {
	for _, t := range f.open {
		f.drainAll(t)
	}
}

func (f *File) drainAll(t *Tap) { f.drain(t, math.MaxInt) }

// drain reads a tap, up to so many batches, and says up to what time it has been read.
func (f *File) drain(t *Tap, batches int) (until int64) {
	r := f.reader
	for range batches {
		now := time.Now().UnixNano()
		n, errno := r.receive(t)
		switch errno {
		case 0:
		case unix.EINTR, unix.ENETDOWN: // the latter is told once; the interface may come up again
			continue
		case unix.EAGAIN:
			return now
		default:
			if t.err == nil {
				t.err = os.NewSyscallError("recvmmsg", errno)
			}
			return now
		}
		for i := range n {
			until = f.take(t, i)
		}
	}
	return until
}

func (r *reader) receive(t *Tap) (int, unix.Errno) {
	for i := range r.msgs {
		r.iovs[i].Base = &r.buf[i*tapFrame]
		r.iovs[i].SetLen(tapFrame)
		h := &r.msgs[i].hdr
		h.Iov, h.Iovlen = &r.iovs[i], 1
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.from[i])), uint32(unsafe.Sizeof(r.from[i]))
		h.Control = &r.ctl[i][0]
		h.SetControllen(len(r.ctl[i]))
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(t.fd), uintptr(unsafe.Pointer(&r.msgs[0])), tapBatch, unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// take holds the i-th frame that was received, and gives its time.
func (f *File) take(t *Tap, i int) int64 {
	r := f.reader
	m := &r.msgs[i]
	data := r.buf[i*tapFrame:][:m.len]
	at, length := control(r.ctl[i][:m.hdr.Controllen])
	if at == 0 {
		at = time.Now().UnixNano()
	}
	way := inbound
	if r.from[i].Pkttype == unix.PACKET_OUTGOING {
		way = outbound
	}
	t.read.Add(1)
	f.hold(&frame{at: at, tap: t, direction: way, length: max(length, len(data)), data: f.slab.copy(data)})
	return at
}

// control finds the time stamp, in nanoseconds since 1970, and the whole length of a frame among its control messages.
func control(ctl []byte) (at int64, length int) {
	for len(ctl) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(ctl) {
			return at, length
		}
		body := ctl[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(body) >= int(unsafe.Sizeof(unix.Timespec{})):
			at = (*unix.Timespec)(unsafe.Pointer(&body[0])).Nano()
		case h.Level == unix.SOL_PACKET && h.Type == unix.PACKET_AUXDATA && len(body) >= int(unsafe.Sizeof(auxdata{})):
			length = int((*auxdata)(unsafe.Pointer(&body[0])).length)
		}
		next := unix.CmsgSpace(len(body))
		if next >= len(ctl) {
			return at, length
		}
		ctl = ctl[next:]
	}
	return at, length
}

// auxdata is struct tpacket_auxdata (linux/if_packet.h).
type auxdata struct {
	status, length, snaplen uint32
	mac, net, tci, tpid     uint16
}

// countDrops adds what the kernel dropped since the last time: reading resets its counter.
func (t *Tap) countDrops() {
	if t.closed {
		return
	}
	s, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		t.err = errors.Join(t.err, fmt.Errorf("PACKET_STATISTICS: %w", err))
		return
	}
	t.stats.Dropped += uint64(s.Drops)
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
