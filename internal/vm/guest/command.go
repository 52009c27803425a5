package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
)

// run starts the command, unless there is an error already, and returns when the other end has closed the channel.
func run(c channel.Command, already error, out *channel.Writer, in *channel.Reader) error {
	var p *process
	if already == nil {
		p, already = start(c)
	}
	if already != nil {
		f := channel.Failure{Stage: channel.Setup, Text: already.Error()}
		var known *failure
		if errors.As(already, &known) {
			f.Stage, f.Status = known.stage, known.status
		}
		if err := out.Value(channel.Failed, f); err != nil {
			return err
		}
		_, _, err := in.Next()
		return err
	}
	if err := out.Write(channel.Started, nil); err != nil {
		return err
	}
	return p.serve(out, in)
}

// process is the command.
type process struct {
	pid    int
	input  *queue
	stdin  *os.File    // ours: a pipe's end, the terminal, or nil
	master *os.File    // of the terminal, or nil
	out    [3]*os.File // ends of pipes, and the terminal, of the kinds below; or nil
}

// kinds are of process.out.
var kinds = [3]channel.Kind{channel.Output, channel.Errors, channel.Screen}

// start starts the command in a session of its own.
func start(c channel.Command) (*process, error) {
	if len(c.Args) == 0 {
		return nil, &failure{channel.Exec, errors.New("no command"), 127}
	}
	if err := os.Chdir(c.Dir); err != nil {
		return nil, &failure{channel.Files, err, 0}
	}
	path, err := find(c.Args[0], c.Env)
	if err != nil {
		return nil, execFailure(err)
	}
	p := &process{input: newQueue()}
	theirs, err := p.files(c.Terminal)
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	if err != nil {
		return nil, &failure{channel.Setup, err, 0}
	}
	attr := &syscall.SysProcAttr{Setsid: true}
	if c.Terminal != nil {
		for i, on := range c.Terminal.On {
			if on {
				attr.Setctty, attr.Ctty = true, i
				break
			}
		}
	}
	running, err := os.StartProcess(path, c.Args, &os.ProcAttr{Dir: c.Dir, Env: c.Env, Files: theirs, Sys: attr})
	if err != nil {
		p.close()
		return nil, execFailure(err)
	}
	p.pid = running.Pid
	return p, running.Release()
}

// find looks a program up as execvp does, in the command's own $PATH.
func find(name string, env []string) (string, error) {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			os.Setenv("PATH", value)
		}
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil
	}
	return path, err
}

// execFailure has the status that a shell gives.
func execFailure(err error) error {
	status := 126
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		status = 127
	}
	return &failure{channel.Exec, err, status}
}

// files makes the command's descriptors. The caller closes those returned.
func (p *process) files(t *channel.Terminal) (theirs []*os.File, err error) {
	var slave *os.File
	if t != nil {
		if p.master, slave, err = openTerminal(*t); err != nil {
			return nil, err
		}
		p.stdin, p.out[2] = p.master, p.master
	}
	for fd := range 3 {
		if t != nil && t.On[fd] {
			theirs = append(theirs, slave)
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		if fd == 0 {
			p.stdin, theirs = w, append(theirs, r)
		} else {
			p.out[fd-1], theirs = r, append(theirs, w)
		}
	}
	return theirs, nil
}

func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.master, p.out[0], p.out[1]} {
		if f != nil {
			f.Close()
		}
	}
}

// openTerminal makes a pseudo-terminal and gives its ends.
func openTerminal(t channel.Terminal) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			err = errno
			return
		}
		slave = os.NewFile(n, "terminal")
		if t.Settings != nil {
			if err = unix.IoctlSetTermios(int(n), unix.TCSETS, t.Settings); err != nil {
				return
			}
		}
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &t.Size)
	})
	if err = errors.Join(err, cerr); err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	return master, slave, nil
}

// serve passes everything on until the command has ended and the other end has closed the channel.
func (p *process) serve(out *channel.Writer, in *channel.Reader) error {
	go p.feed(out)
	var copies [len(kinds)]chan error
	for i, kind := range kinds {
		copies[i] = make(chan error, 1)
		go func() { copies[i] <- forward(out, kind, p.out[i]) }()
	}
	received := make(chan error, 1)
	go func() { received <- p.receive(in) }()

	status, err := p.wait()
	if err != nil {
		return err
	}
	for i, f := range p.out {
		if f == nil {
			continue
		}
		// What the command itself wrote is in the pipe by now. Others that it started may hold the pipe open forever.
		if err := f.SetReadDeadline(time.Now()); err != nil {
			return err
		}
		if err := <-copies[i]; err != nil {
			return err
		}
		if err := drain(out, kinds[i], f); err != nil {
			return err
		}
	}
	unix.Sync()
	if err := out.Write(channel.Exit, []byte{status}); err != nil {
		return err
	}
	return <-received
}

// wait returns the command's status as a shell gives it. Meanwhile it takes care of orphans, as the first process must.
func (p *process) wait() (byte, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case pid == p.pid && (status.Exited() || status.Signaled()):
			return shellStatus(status), nil
		}
	}
}

// shellStatus is that of a shell: 128 and the signal's number for a process that died of one.
func shellStatus(s unix.WaitStatus) byte {
	if s.Signaled() {
		return byte(128 + int(s.Signal()))
	}
	return byte(s.ExitStatus())
}

// chunk is how much of the output goes into one frame at most.
const chunk = 32 << 10

// forward sends what a file holds until its end or its deadline.
func forward(out *channel.Writer, kind channel.Kind, f *os.File) error {
	if f == nil {
		return nil
	}
	b := make([]byte, chunk)
	for {
		n, err := f.Read(b)
		if n > 0 {
			if err := out.Write(kind, b[:n]); err != nil {
				return err
			}
		}
		if err != nil { // at its end, EIO of a terminal that everyone has closed, or the deadline
			return nil
		}
	}
}

// drain sends what is still in a file, without waiting for more.
func drain(out *channel.Writer, kind channel.Kind, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	b := make([]byte, chunk)
	for {
		n := 0
		if err := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) }); err != nil {
			return err
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return nil
		}
		if err := out.Write(kind, b[:n]); err != nil {
			return err
		}
	}
}

// feed writes the input to the command, and gives credit for what has been written.
func (p *process) feed(out *channel.Writer) {
	for {
		b, more := p.input.take()
		if len(b) > 0 {
			// A command that has closed its input gets none: credit is given all the same, and nothing waits.
			_, _ = p.stdin.Write(b)
			if out.Write(channel.Credit, channel.Bytes(len(b))) != nil {
				return
			}
		}
		if !more {
			if p.stdin != p.master {
				p.stdin.Close()
			}
			return
		}
	}
}

// receive does what the other end says, until it closes the channel.
func (p *process) receive(in *channel.Reader) error {
	for {
		kind, data, err := in.Next()
		if err != nil {
			return err
		}
		switch kind {
		case channel.Input:
			p.input.put(data)
		case channel.Signal:
			n, err := channel.One(data)
			if err != nil {
				return err
			}
			p.signal(unix.Signal(n))
		case channel.Size:
			size, err := channel.Decode[unix.Winsize](data)
			if err != nil {
				return err
			}
			if p.master != nil {
				p.resize(size)
			}
		default:
			return fmt.Errorf("%w: frame of kind %d while the command runs", channel.ErrProtocol, kind)
		}
	}
}

// signal sends one to the command. Those that a terminal sends go to its whole group, as a terminal does it.
func (p *process) signal(s unix.Signal) {
	if to := target(p.pid, s); to != 0 {
		_ = unix.Kill(to, s) // it may have ended just now
	}
}

// target is whom kill(2) is told to signal; 0 is nobody. Never may it be the first process or everybody.
func target(pid int, s unix.Signal) int {
	switch {
	case pid <= 1 || s < 1 || s > 64:
		return 0
	case s == unix.SIGINT, s == unix.SIGQUIT, s == unix.SIGHUP:
		return -pid
	}
	return pid
}

func (p *process) resize(size unix.Winsize) {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) })
}
