package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// command makes the Command of a request with the files that came with it.
func (q *execRequest) command(files []*os.File) (Command, error) {
	if q == nil || len(q.Path) == 0 {
		return Command{}, fmt.Errorf("%w: no command", ErrProtocol)
	}
	c := Command{Path: string(q.Path), Args: texts(q.Args), Env: texts(q.Env), Dir: string(q.Dir), TTY: q.TTY}
	for _, slot := range []struct {
		has bool
		to  **os.File
	}{{q.Stdin, &c.Stdin}, {q.Stdout, &c.Stdout}, {q.Stderr, &c.Stderr}} {
		if !slot.has {
			continue
		}
		if len(files) == 0 {
			return Command{}, fmt.Errorf("%w: descriptors are missing", ErrProtocol)
		}
		*slot.to, files = files[0], files[1:]
	}
	if len(files) > 0 {
		return Command{}, fmt.Errorf("%w: %d descriptors too many", ErrProtocol, len(files))
	}
	if c.TTY && c.Stdin == nil {
		return Command{}, fmt.Errorf("%w: a terminal is asked for and not given", ErrProtocol)
	}
	return c, nil
}

func texts(b [][]byte) []string {
	s := make([]string, len(b))
	for i := range b {
		s[i] = string(b[i])
	}
	return s
}

// beginExec gives the lab and counts the command, so that the lab's end waits for it.
func (s *server) beginExec() (Lab, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lab == nil {
		return nil, fmt.Errorf("%w: it is %s", ErrState, s.state)
	}
	s.execs.Add(1)
	return s.lab, nil
}

// execute runs a command to its end, or hangs it up when the client goes away or the lab is taken down.
func (s *server) execute(c *net.UnixConn, q *execRequest, files []*os.File) {
	cmd, err := q.command(files)
	if err != nil {
		refuse(c, err)
		return
	}
	lab, err := s.beginExec()
	if err != nil {
		refuse(c, err)
		return
	}
	defer s.execs.Done()
	p, err := lab.Exec(s.exec, q.Node, cmd)
	closeAll(files) // else a pipe's reader would wait for our end as well
	if err != nil {
		refuse(c, err)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	answer(c, reply{PID: p.Pid()})
	c.SetDeadline(time.Time{})
	gone := make(chan struct{})
	s.conns.Go(func() {
		defer close(gone)
		forward(c, p)
	})
	select {
	case err = <-ended:
	case <-gone:
		err = s.hangUp(p, ended)
	case <-s.exec.Done():
		err = s.hangUp(p, ended)
	}
	var r reply
	if status, err := exitStatus(err); err != nil {
		r.Errors = []wireError{toWire(err)}
	} else {
		r.Exit = &status
	}
	answer(c, r)
	c.Close() // ends forward
	<-gone
}

// hangUp ends a process: SIGHUP now, SIGKILL when the grace is over.
func (s *server) hangUp(p Process, ended <-chan error) error {
	// A failure means that it has ended, and then so does the wait.
	p.Signal(syscall.SIGHUP)
	p.Signal(syscall.SIGCONT) // a stopped process cannot act on a SIGHUP
	grace := time.NewTimer(s.grace)
	defer grace.Stop()
	select {
	case err := <-ended:
		return err
	case <-grace.C:
		p.Signal(syscall.SIGKILL)
		return <-ended
	}
}

// exitStatus makes of what Wait returned what a shell would show.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	if err == nil {
		return 0, nil
	}
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// forward passes signals on until the client goes away or talks nonsense.
func forward(c *net.UnixConn, p Process) {
	for {
		var n notice
		if _, err := receive(c, &n, maxNotice, 0); err != nil {
			return
		}
		sig := syscall.Signal(n.Signal)
		if !forwarded(sig) {
			return
		}
		if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
			return
		}
	}
}

func forwarded(sig os.Signal) bool {
	switch sig {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGWINCH:
		return true
	}
	return false
}
