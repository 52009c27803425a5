package rootless

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"pqlab/internal/inherit"
)

// catch asks for the signals that the waiting process passes on. A signal that is ignored here is ignored in the child
// too and stays so (nohup). Those of job control (SIGTSTP, SIGCONT) go to the group and do to both what they should.
func catch() chan os.Signal {
	caught := make(chan os.Signal, 64)
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH} {
		if !signal.Ignored(s) {
			signal.Notify(caught, s)
		}
	}
	return caught
}

// wait passes on to pid what is caught until pid ends, and ends this process in the same way. The thread that started
// pid must be locked to the caller: pid dies with it.
func wait(pid int, caught <-chan os.Signal, w *witness) {
	// What the program was given is its own now: a pipe must end when it closes its end, not when we do.
	fds, _ := inherit.Descriptors()
	for _, fd := range fds {
		unix.Close(fd)
	}
	ended := make(chan unix.WaitStatus)
	go func() {
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
				break
			}
		}
		ended <- status
	}()
	for {
		select {
		case s := <-caught:
			if s := s.(syscall.Signal); !w.saw(s) {
				unix.Kill(pid, s)
			}
		case status := <-ended:
			w.end()
			if status.Signaled() {
				dieOf(status.Signal())
			}
			os.Exit(status.ExitStatus())
		}
	}
}

// dieOf ends this process by signal s, so that its parent sees what the child died of.
func dieOf(s unix.Signal) {
	// The child has left a core already, if one was wanted.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	runtime.LockOSThread()
	// Go's own handler would turn the signal into an exit status.
	var action [64]byte // a struct sigaction of zeros: SIG_DFL, no flags
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	unix.Tgkill(unix.Getpid(), unix.Gettid(), s)
	os.Exit(128 + int(s)) // reached only where s does not kill
}
