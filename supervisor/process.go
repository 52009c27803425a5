package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cmd makes an exec.Cmd of c, for a Lab to start in the node: leader of a new session, whose controlling terminal is
// Stdin if c.TTY. Once it is started, Started makes a Process of it.
func (c Command) Cmd() (*exec.Cmd, error) {
	if len(c.Args) == 0 {
		return nil, errors.New("no command")
	}
	cmd := &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir}
	if c.Path == "" {
		var err error
		if cmd.Path, err = exec.LookPath(c.Args[0]); err != nil {
			return nil, err
		}
	}
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would be the supervisor's own
	}
	// A nil *os.File in an interface is not nil.
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		cmd.Stderr = c.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: c.TTY}
	return cmd, nil
}

// Started makes a Process of a started command that leads its process group and whose files are all *os.File.
func Started(cmd *exec.Cmd) Process { return &process{cmd: cmd} }

type process struct {
	cmd *exec.Cmd

	mu    sync.Mutex
	hung  bool // up
	ended bool // reaped: the number may be another's
	kill  *time.Timer
}

func (p *process) PID() int { return p.cmd.Process.Pid }

func (p *process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.signal(s)
}

func (p *process) signal(s syscall.Signal) error {
	if p.ended {
		return os.ErrProcessDone
	}
	return syscall.Kill(-p.PID(), s)
}

func (p *process) Hangup(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung || p.ended {
		return
	}
	p.hung = true
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGCONT) // what is stopped cannot act on a SIGHUP
	p.kill = time.AfterFunc(grace, func() { p.Signal(syscall.SIGKILL) })
}

func (p *process) Wait() (int, error) {
	if err := waitForExit(p.PID()); err != nil {
		return ExitLost, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung {
		p.kill.Stop()
		p.signal(syscall.SIGKILL)
	}
	p.ended = true
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return ExitLost, err
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
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
