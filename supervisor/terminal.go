package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// drainQuiet is how long a terminal must be silent for its output to be over if its end does not show. The kernel shows
// it when the session's leader ends, unless the lab has given the command no session.
const drainQuiet = time.Second

// terminal is a pseudo-terminal for a command, joined to the user's own. A command cannot use the user's: it is in
// another session, so that job control and Ctrl-C would not reach it.
type terminal struct {
	user   *os.File // raw until close
	before *term.State
	master *os.File
	slave  *os.File

	resized chan os.Signal
	wake    *os.File // its closing ends typing
	woken   *os.File
	copying sync.WaitGroup // typing and resizing
	ended   chan struct{}  // closed when the command has ended
	output  chan struct{}  // closed when the output is over
}

// openTerminal makes a terminal of the size of in, makes in raw, and copies between the two; output goes to out.
func openTerminal(in, out *os.File) (_ *terminal, err error) {
	if in == nil || !term.IsTerminal(int(in.Fd())) {
		return nil, errors.New("a terminal is asked for, and standard input is none")
	}
	t := &terminal{user: in, resized: make(chan os.Signal, 1), ended: make(chan struct{}), output: make(chan struct{})}
	defer func() {
		if err != nil {
			closeAll([]*os.File{t.master, t.slave, t.wake, t.woken})
		}
	}()
	// Non-blocking, so that reading it takes deadlines.
	if t.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("making a terminal: %w", err)
	}
	if t.slave, err = openSlave(t.master); err != nil {
		return nil, err
	}
	if t.woken, t.wake, err = os.Pipe(); err != nil {
		return nil, err
	}
	t.copySize()
	if t.before, err = term.MakeRaw(int(in.Fd())); err != nil {
		return nil, fmt.Errorf("making the terminal raw: %w", err)
	}
	signal.Notify(t.resized, syscall.SIGWINCH)
	t.copySize() // it may have changed before the signal was listened for
	t.copying.Go(func() {
		for range t.resized {
			t.copySize()
		}
	})
	inFD, wokenFD := int(in.Fd()), int(t.woken.Fd())
	t.copying.Go(func() { t.typing(inFD, wokenFD) })
	go t.print(out)
	return t, nil
}

func openSlave(master *os.File) (*os.File, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var slaveErr error
	err = raw.Control(func(m uintptr) {
		if slaveErr = unix.IoctlSetPointerInt(int(m), unix.TIOCSPTLCK, 0); slaveErr != nil {
			return
		}
		n, _, e := unix.Syscall(unix.SYS_IOCTL, m, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if e != 0 {
			slaveErr = e
		}
		fd = int(n)
	})
	if err = errors.Join(err, slaveErr); err != nil {
		return nil, fmt.Errorf("making a terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// attach gives the command the terminal in place of those of its files that are the user's.
func (t *terminal) attach(c Command) Command {
	c.Stdin, c.Stdout = t.slave, t.slave
	if c.Stderr == nil || term.IsTerminal(int(c.Stderr.Fd())) {
		c.Stderr = t.slave
	}
	return c
}

// copySize makes the command's terminal as large as the user's; the kernel tells the command.
func (t *terminal) copySize() {
	size, err := unix.IoctlGetWinsize(int(t.user.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return // a terminal that hung up has no size
	}
	raw, err := t.master.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(m uintptr) { unix.IoctlSetWinsize(int(m), unix.TIOCSWINSZ, size) })
}

// typing copies what the user types. It waits with poll, so that it takes no key that comes after the command's end.
func (t *terminal) typing(in, woken int) {
	buf := make([]byte, 4096)
	fds := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}, {Fd: int32(woken), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil || fds[1].Revents != 0 {
			return
		}
		n, err := unix.Read(in, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		if _, err := t.master.Write(buf[:n]); err != nil {
			return
		}
	}
}

// print copies what the command prints until nobody has its terminal open any more, or out fails.
func (t *terminal) print(out *os.File) {
	defer close(t.output)
	buf := make([]byte, 32<<10)
	for {
		n, err := t.master.Read(buf)
		if n > 0 && out != nil {
			if _, err := out.Write(buf[:n]); err != nil {
				out = nil // go on reading, or the command would stop
			}
		}
		if err != nil {
			return
		}
		select {
		case <-t.ended:
			t.master.SetReadDeadline(time.Now().Add(drainQuiet))
		default:
		}
	}
}

// drain waits for the rest of the output of a command that has ended.
func (t *terminal) drain() {
	close(t.ended)
	t.master.SetReadDeadline(time.Now().Add(drainQuiet))
	<-t.output
}

// close gives the user's terminal back.
func (t *terminal) close() {
	signal.Stop(t.resized)
	close(t.resized)
	t.wake.Close()
	t.master.Close() // hangs up what still runs in it
	t.slave.Close()
	t.copying.Wait()
	<-t.output
	t.woken.Close()
	term.Restore(int(t.user.Fd()), t.before)
}
