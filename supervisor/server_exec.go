package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// command makes the Command of a request with the files that came with it.
func (q *execRequest) command(files []*os.File) (Command, error) {
	if q == nil || len(q.Args) == 0 {
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
	type end struct {
		status int
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		status, err := p.Wait()
		ended <- end{status, err}
	}()
	answer(c, reply{PID: p.PID()})
	c.SetDeadline(time.Time{})
	gone := make(chan struct{})
	s.conns.Go(func() {
		defer close(gone)
		forward(c, p)
	})
	var e end
	select {
	case e = <-ended:
	case <-gone:
		p.Hangup(s.grace)
		e = <-ended
	case <-s.exec.Done():
		p.Hangup(s.grace)
		e = <-ended
	}
	r := reply{Exit: &e.status}
	if e.err != nil {
		r.Errors = []wireError{toWire(e.err)}
	}
	answer(c, r)
	c.Close() // ends forward
	<-gone
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
