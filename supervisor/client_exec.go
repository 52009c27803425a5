package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

// Exec runs a command in a node and returns its exit status, 128+n if signal n ended it. The command works on the
// files themselves: nothing is copied. With TTY, Stdin must be a terminal; the command gets one of its own, of the same
// size, and the caller's is raw for that time.
//
// INT, TERM, QUIT and HUP that this process gets meanwhile go to the command and not to the caller, whose context must
// therefore not be one that these signals end. When ctx ends, or this process, the command is hung up.
//
// If the command could not be run, the status is ExitNotFound, ExitCannotExec or ExitLost and there is an error;
// *LostError says that the lab has gone.
func (c *Client) Exec(ctx context.Context, node string, cmd Command) (int, error) {
	// The file system is the same in the node, and the PATH that the user means is the client's.
	path, err := exec.LookPath(cmd.Path)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return startStatus(err), err
	}
	cmd.Path = path
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)

	s, err := c.open(ctx)
	if err != nil {
		return ExitLost, err
	}
	defer s.close()
	if !cmd.TTY {
		return s.exec(node, cmd, signals)
	}
	t, err := openTerminal(cmd.Stdin, cmd.Stdout)
	if err != nil {
		return ExitLost, err
	}
	defer t.close()
	status, err := s.exec(node, t.attach(cmd), signals)
	t.drain()
	return status, err
}

func startStatus(err error) int {
	switch {
	case errors.Is(err, os.ErrPermission):
		return ExitCannotExec
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound):
		return ExitNotFound
	}
	return ExitLost
}

// exec sends the command and stays with it to its end.
func (s *session) exec(node string, cmd Command, signals <-chan os.Signal) (int, error) {
	q := execRequest{Node: node, Path: []byte(cmd.Path), Dir: []byte(cmd.Dir), Args: rawTexts(cmd.Args), Env: rawTexts(cmd.Env),
		TTY: cmd.TTY, Stdin: cmd.Stdin != nil, Stdout: cmd.Stdout != nil, Stderr: cmd.Stderr != nil}
	var files []*os.File
	for _, f := range []*os.File{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		if f != nil {
			files = append(files, f)
		}
	}
	r, err := s.ask(request{Op: opExec, Exec: &q}, answerTimeout, files...)
	if err != nil {
		return startStatus(err), err
	}
	if r.PID == 0 {
		return ExitLost, fmt.Errorf("lab %s: %w: an answer without a process", s.name, ErrProtocol)
	}
	if cmd.TTY {
		cmd.Stdin.Close() // the slave: the command's end of it is to be the last
	}
	s.limit(0)
	done := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case sig := <-signals:
				// A failure shows where the answer is read.
				send(s.conn, notice{Signal: int(sig.(syscall.Signal))}, maxNotice)
			case <-done:
				return
			}
		}
	})
	r, err = s.next()
	close(done)
	s.conn.SetWriteDeadline(past())
	sending.Wait()
	switch {
	case err != nil:
		return ExitLost, err
	case r.Exit == nil:
		return ExitLost, fmt.Errorf("lab %s: %w: an answer without an exit status", s.name, ErrProtocol)
	}
	return *r.Exit, nil
}

func rawTexts(s []string) [][]byte {
	b := make([][]byte, len(s))
	for i := range s {
		b[i] = []byte(s[i])
	}
	return b
}
