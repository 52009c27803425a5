package rootless

import (
	"math/bits"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// witness is a process in our process group that tells what was sent to the group, by the terminal (Ctrl-C, a new window
// size) or by kill(-PGID). The program in its namespaces is in the group too and has had that; what was sent to us alone
// it has not. Nothing else tells the two apart: Go keeps a signal's origin to itself.
//
// It is a fork without exec, so it takes no memory of its own, and as it makes system calls and nothing else it needs
// nothing of the Go runtime, whose other threads are not there.
type witness struct {
	pid  int
	pipe *os.File // its answers
	last map[syscall.Signal]time.Time
}

// merged is the time within which signals of one kind count as one, as those do that the kernel has not yet delivered:
// the witness cannot count them either.
const merged = 50 * time.Millisecond

// query asks the witness what it saw. It is a real-time signal: the kernel hands out the ordinary ones before it.
const query = 40

// newWitness starts a witness. It is killed when the calling thread ends, and so the caller's goroutine must be locked
// to it.
func newWitness() (*witness, error) {
	r, wr, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer wr.Close()
	scratch := &testimony{}
	pid, errno := forkWitness(wr.Fd(), uintptr(os.Getpid()), scratch)
	runtime.KeepAlive(scratch)
	if errno != 0 {
		r.Close()
		return nil, errno
	}
	return &witness{pid: int(pid), pipe: r, last: map[syscall.Signal]time.Time{}}, nil
}

// saw tells whether s was sent to the group since the last question, or just before. The kernel signals a group's members
// youngest first, so that the witness has had s when we have.
func (w *witness) saw(s syscall.Signal) bool {
	if w == nil {
		return false
	}
	for _, g := range w.ask() {
		w.last[g] = time.Now()
	}
	at, ok := w.last[s]
	return ok && time.Since(at) < merged
}

// ask returns what was sent to the group since it was last asked.
func (w *witness) ask() (seen []syscall.Signal) {
	if unix.Kill(w.pid, query) != nil {
		return nil
	}
	var mask uint64
	b := unsafe.Slice((*byte)(unsafe.Pointer(&mask)), 8)
	// It has always answered by then, unless somebody has stopped it.
	w.pipe.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := w.pipe.Read(b); n != len(b) || err != nil {
		return nil
	}
	for ; mask != 0; mask &= mask - 1 {
		seen = append(seen, syscall.Signal(bits.TrailingZeros64(mask)+1))
	}
	return seen
}

// end ends the witness.
func (w *witness) end() {
	if w == nil {
		return
	}
	unix.Kill(w.pid, unix.SIGKILL)
	unix.Wait4(w.pid, nil, 0, nil)
	w.pipe.Close()
}

// testimony is what a witness works with; it is allocated before the fork.
type testimony struct {
	all, old uint64 // signal sets
	seen     uint64
}

// forkWitness forks and returns in the parent only. Behind the fork it must not grow the stack, allocate, or be watched
// by the race detector.
//
//go:noinline
//go:norace
//go:nosplit
func forkWitness(pipe, parent uintptr, t *testimony) (pid uintptr, errno syscall.Errno) {
	t.all = ^uint64(0)
	// All signals are blocked over the fork, and in the witness for good: it takes them when it wants.
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&t.all)), uintptr(unsafe.Pointer(&t.old)), 8, 0, 0)
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&t.old)), 0, 8, 0, 0)
		return pid, errno
	}

	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	if ppid, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); ppid != parent {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	// It holds nothing open but its pipe.
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, pipe+1, 1<<31-1, 0)
	for fd := uintptr(0); fd < pipe; fd++ {
		syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	for {
		s, _, err := syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&t.all)), 0, 0, 8, 0, 0)
		switch {
		case err == syscall.EINTR:
		case err != 0:
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
		case s == query:
			syscall.RawSyscall(unix.SYS_WRITE, pipe, uintptr(unsafe.Pointer(&t.seen)), 8)
			t.seen = 0
		default:
			t.seen |= 1 << (s - 1)
		}
	}
}
