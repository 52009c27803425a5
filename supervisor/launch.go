package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stopGrace = 30 * time.Second // for a supervisor that is told to stop to take its lab down
	exitGrace = 10 * time.Second // for a supervisor that has failed to end
)

// Launch starts this program anew with args as the supervisor of a lab of that name, where it must call Run, and
// returns when the lab is ready. The new process has a session of its own and keeps the working directory. progress,
// if not nil, gets what the start reports.
//
// A name that is taken is ErrExists. A start that fails is a *StartError. If ctx ends, or the timeout (0: none) is over
// before the lab is ready, the supervisor is stopped, which takes down what it had made. In each case the supervisor is
// gone when Launch returns.
func Launch(ctx context.Context, name string, args []string, timeout time.Duration, progress func(string)) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not ready after %v", timeout))
		defer cancel()
	}
	listener, err := claim(name)
	if err != nil {
		return err
	}
	defer listener.Close()
	log, err := newLog()
	if err != nil {
		return err
	}
	defer log.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	shared, err := listener.File()
	if err != nil {
		return err
	}
	defer shared.Close()

	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), nameVariable+"="+name)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{listenerFD - 3: shared, statusFD - 3: theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return &StartError{Lab: name, Reason: err.Error(), Exit: 1}
	}
	// Nothing of the supervisor's stays open here: its end must show.
	theirs.Close()
	shared.Close()
	listener.Close()
	gone := make(chan struct{})
	go func() { waitForExit(cmd.Process.Pid); close(gone) }()
	if err := follow(ctx, start{name: name, cmd: cmd, conn: ours, gone: gone, log: log}, progress); err != nil {
		return err
	}
	go cmd.Wait() // for programs that live longer than their labs
	return nil
}

// claim takes the name of a lab, which one process at a time can have.
func claim(name string) (*net.UnixListener, error) {
	a := address(os.Geteuid(), name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a, Net: "unix"})
	if !errors.Is(err, syscall.EADDRINUSE) {
		if err != nil {
			return nil, fmt.Errorf("lab %s: %w", name, err)
		}
		return l, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := dialSocket(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, ErrExists)
	}
	defer c.Close()
	cred, err := peer(c)
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, ErrExists)
	}
	if cred.Uid != uint32(os.Geteuid()) {
		return nil, fmt.Errorf("lab %s: %w: user %d has taken the name; choose another", name, ErrExists, cred.Uid)
	}
	return nil, fmt.Errorf("lab %s: %w (supervisor %d); pqlab down %s takes it down", name, ErrExists, cred.Pid, name)
}

func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "supervisor")
	defer f.Close()
	theirs := os.NewFile(uintptr(fds[1]), "launcher")
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

// start is a supervisor on its way.
type start struct {
	name string
	cmd  *exec.Cmd // leads a process group, and is not waited for: its number stays its own
	conn *net.UnixConn
	gone <-chan struct{} // closed when the process has ended
	log  *os.File
}

// follow waits for the start to succeed or fail.
func follow(ctx context.Context, s start, progress func(string)) error {
	messages := make(chan startMessage)
	left := make(chan struct{})
	defer close(left)
	go func() {
		defer close(messages)
		for {
			var m startMessage
			if decode(s.conn, &m, maxRequest) != nil {
				return
			}
			select {
			case messages <- m:
			case <-left:
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			s.end(syscall.SIGTERM, stopGrace)
			return s.failed(fmt.Sprintf("%v; it was taken down", context.Cause(ctx)), 1, context.Cause(ctx))
		case m, ok := <-messages:
			switch {
			case !ok:
				s.end(0, exitGrace)
				state := s.cmd.ProcessState
				err := s.failed("its supervisor ended: "+state.String(), state.ExitCode(), nil)
				if err.Output != "" { // it has not said why, but perhaps printed it
					err.Reason += ": " + strings.TrimSpace(err.Output)
				}
				return err
			case m.Ready:
				return nil
			case m.Error != "":
				s.end(0, exitGrace)
				return s.failed(m.Error, m.Exit, nil)
			case progress != nil:
				progress(m.Progress)
			}
		}
	}
}

// end waits for the process to end, after a signal if there is one, and kills its group when the grace is over.
func (s start) end(sig syscall.Signal, grace time.Duration) {
	group := -s.cmd.Process.Pid
	if sig != 0 {
		syscall.Kill(s.cmd.Process.Pid, sig) // not its group: who waits for a rootless supervisor passes signals on
	}
	select {
	case <-s.gone:
	case <-time.After(grace):
	}
	syscall.Kill(group, syscall.SIGKILL) // what a supervisor that crashed has left in its group
	s.cmd.Wait()
}

// failed makes the error. A supervisor killed by a signal, or that ended as if all was well, has no exit status to give.
func (s start) failed(reason string, exit int, cause error) *StartError {
	if exit <= 0 {
		exit = 1
	}
	output, err := tailLog(s.log, logTail)
	if err != nil {
		output = "(its output cannot be read: " + err.Error() + ")"
	}
	return &StartError{Lab: s.name, Reason: strings.TrimSpace(reason), Exit: exit, Output: output, cause: cause}
}

// waitForExit waits for a child to end and does not reap it, so that its number and that of its process group cannot
// become another's before the caller has sent his last signal.
func waitForExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for process %d: %w", pid, err)
		}
	}
}
