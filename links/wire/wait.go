package wire

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pqlab/internal/offload"
)

const headers = offload.HeaderLen + ethernetLen

// read and write do not wait, and so need not tell Go's scheduler.
func read(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// write drops what the kernel does not take: it says so of an interface that is down, or gone, as of a cable that nobody
// listens to.
func write(fd int, b []byte) {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno != unix.EINTR {
			return
		}
	}
}

// wait returns when there is something to read, a task, or something that is due.
func (w *Wire) wait() {
	at, due := w.medium.Next()
	now := w.now()
	var left time.Duration // until something is due
	if due && !w.ready {
		left = w.spin.sleep(now, at, w.worked)
	}
	w.looked = w.awake.at(now)
	if w.look() || w.ready || due && left == 0 {
		return
	}
	for _, p := range w.ports {
		if p != nil {
			p.empty(w.looked)
		}
	}
	if !due {
		w.sleep(nil)
		w.awake.slept(now, w.now(), never)
	} else {
		timeout := unix.NsecToTimespec(int64(left))
		w.sleep(&timeout)
		w.awake.slept(now, w.now(), now+left)
	}
	w.looked = w.awake.at(w.now())
}

// look says whether there is something to read, or a task.
func (w *Wire) look() bool {
	var atOnce unix.Timespec
	n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.poll[0])), uintptr(len(w.poll)), uintptr(unsafe.Pointer(&atOnce)), 0, 0, 0)
	return n != 0
}

// sleep waits so long, or for ever if timeout is nil. A signal, of which Go sends some to threads that run long, ends it
// early: then the loop comes here again with what is left.
func (w *Wire) sleep(timeout *unix.Timespec) {
	if _, err := unix.Ppoll(w.poll, timeout, nil); err != nil {
		for i := range w.poll {
			w.poll[i].Revents = 0
		}
	}
}

// spin says how long a wire may sleep before something is due. The rest of the time it looks at the clock: a sleeping thread
// is woken late by some tens of microseconds. It may spend a quarter of the time so, and no more: it has its processor in
// common with the nodes. The zero value is for a wire that begins.
type spin struct {
	credit time.Duration // that may still be spent
	last   time.Duration // when it was counted
	spun   bool          // since then
}

const (
	margin    = 100 * time.Microsecond
	share     = 4
	mostSpent = 2 * time.Millisecond
)

// sleep gives how long to sleep before something is due; 0: look again at once. worked says that the time since the last
// call was not spent on looking alone.
func (s *spin) sleep(now, due time.Duration, worked bool) time.Duration {
	passed := now - s.last
	s.last = now
	if s.spun && !worked {
		s.credit -= passed
	}
	s.credit = min(s.credit+passed/share, mostSpent)
	left := due - now
	if s.spun = left <= margin && s.credit > 0; s.spun || left <= 0 {
		return 0
	}
	if s.credit > 0 {
		return left - margin
	}
	return left
}
