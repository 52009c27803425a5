package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
	"pqlab/internal/vm/guest"
)

// grace is how long a command may take to end after the SIGTERM of the timeout.
const grace = 2 * time.Second

// setupLimit is how long the guest may take between its hello and the command's start.
const setupLimit = 3 * time.Minute

// session is a command in a guest that is up.
type session struct {
	config  *Config
	machine *machine
	out     *channel.Writer
	in      *channel.Reader
	began   time.Time

	credit chan int
	screen *os.File // where the terminal's output goes
}

// run sends the command and is its go-between until it has ended.
func (s *session) run(ctx context.Context) (int, error) {
	command, err := s.command()
	if err != nil {
		return 0, err
	}
	s.config.Say("starting the command")
	if err := s.out.Value(channel.Start, command); err != nil {
		return 0, s.lost(err)
	}
	s.credit = make(chan int, channel.Window) // each credit is of a byte at least, so that it never blocks
	started, result := make(chan struct{}), make(chan result, 1)
	go func() { result <- s.receive(started) }()

	setup := time.NewTimer(setupLimit)
	defer setup.Stop()
	for {
		select {
		case <-started:
			return s.attend(ctx, result)
		case r := <-result:
			return r.status, r.err
		case <-setup.C:
			return 0, &Error{Kind: ErrFiles, Err: fmt.Errorf("the guest was not ready after %v", setupLimit), Console: s.console(), Remedy: "is a file system of this machine hanging?"}
		case <-ctx.Done():
			return 0, ended(ctx)
		case sig := <-s.config.Signals:
			if sig != unix.SIGWINCH {
				return 0, context.Canceled
			}
		}
	}
}

// command is what the guest is told.
func (s *session) command() (channel.Command, error) {
	c := s.config
	dir, err := realDir(c.Dir)
	if err != nil {
		return channel.Command{}, err
	}
	shares, err := c.shares()
	if err != nil {
		return channel.Command{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return channel.Command{}, err
	}
	modules := c.Kernel.Modules
	if modules != "" {
		if modules, err = filepath.EvalSymlinks(modules); err != nil {
			return channel.Command{}, err
		}
	}
	terminal, screen := terminalOf(c.Stdin, c.Stdout, c.Stderr)
	s.screen = screen
	return channel.Command{
		Args: c.Args, Env: append(slices.Clone(c.Env), guest.Accel+"="+s.machine.accel), Dir: dir, Shares: shares, Terminal: terminal, Time: time.Now().UnixNano(),
		Modules: modules, Release: c.Kernel.Release, Self: self, Preload: preload(c.Args[0], self),
	}, nil
}

// labs are the modules that labs take. The kernel loads them by itself when they are asked for, but one after the other, in
// a quarter of a second each under TCG; together they take less than one.
var labs = []string{
	"aesni-intel", "ghash_clmulni_intel", "gcm", "ghash-generic", "ctr", "seqiv", "echainiv", "drbg",
	"esp4", "esp6", "xfrm_user", "xfrm_interface", "veth", "bridge", "tun", "sch_tbf", "sch_netem", "nf_tables",
}

// preload are the modules that a program is going to need: this one, and Go's tests, for which a guest is mostly started.
func preload(program, self string) []string {
	if !strings.HasSuffix(program, ".test") {
		path, err := exec.LookPath(program)
		if err != nil {
			return nil
		}
		if path, err = filepath.Abs(path); err != nil || !same(path, self) {
			return nil
		}
	}
	return labs
}

func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// attend passes signals on while the command runs.
func (s *session) attend(ctx context.Context, results <-chan result) (int, error) {
	c := s.config
	c.Say("")
	restore, err := raw(c.Stdin, s.screen)
	if err != nil {
		return 0, &Error{Kind: ErrHost, Err: err}
	}
	defer restore()
	stopped := make(chan struct{})
	go s.feed(s.screen != nil && isTerminal(c.Stdin), stopped)

	var late <-chan time.Time
	if c.Timeout > 0 {
		t := time.NewTimer(time.Until(s.began.Add(c.Timeout)))
		defer t.Stop()
		late = t.C
	}
	timedOut := false
	for {
		select {
		case r := <-results:
			if timedOut && r.err == nil {
				return 0, &Error{Kind: ErrTimeout}
			}
			return r.status, r.err
		case <-late:
			timedOut = true
			if err := s.out.Write(channel.Signal, []byte{byte(unix.SIGTERM)}); err != nil {
				return 0, &Error{Kind: ErrTimeout}
			}
		case <-stopped:
			return 0, &Error{Kind: ErrStopped}
		case <-ctx.Done():
			return 0, ended(ctx)
		case sig := <-c.Signals:
			if err := s.signal(sig); err != nil {
				return 0, s.lost(err)
			}
		}
	}
}

// signal passes one on.
func (s *session) signal(sig os.Signal) error {
	n, ok := sig.(unix.Signal)
	if !ok {
		return nil
	}
	if n != unix.SIGWINCH {
		return s.out.Write(channel.Signal, []byte{byte(n)})
	}
	if s.screen == nil {
		return nil
	}
	size, err := unix.IoctlGetWinsize(int(s.screen.Fd()), unix.TIOCGWINSZ)
	if err != nil { // the terminal is gone, and SIGHUP is on its way
		return nil
	}
	return s.out.Value(channel.Size, *size)
}

// result is how a session ended.
type result struct {
	status int
	err    error
}

// receive does what the guest says, until the command has ended.
func (s *session) receive(started chan<- struct{}) result {
	running := false
	for {
		kind, data, err := s.in.Next()
		if err != nil {
			return result{err: s.lost(err)}
		}
		switch kind {
		case channel.Failed:
			f, err := channel.Decode[channel.Failure](data)
			if err != nil {
				return result{err: s.lost(err)}
			}
			return result{err: s.failed(f)}
		case channel.Started:
			if !running {
				running = true
				close(started)
			}
		case channel.Output:
			err = write(s.config.Stdout, data, "standard output")
		case channel.Errors:
			err = write(s.config.Stderr, data, "standard error")
		case channel.Screen:
			if s.screen != nil {
				err = write(s.screen, data, "the terminal")
			}
		case channel.Credit:
			n, err := channel.Number(data)
			if err != nil {
				return result{err: s.lost(err)}
			}
			select {
			case s.credit <- n:
			default:
				return result{err: s.lost(fmt.Errorf("%w: credit for more than was sent", channel.ErrProtocol))}
			}
		case channel.Exit:
			n, err := channel.One(data)
			if err != nil {
				return result{err: s.lost(err)}
			}
			return result{status: int(n)}
		default:
			return result{err: s.lost(fmt.Errorf("%w: frame of kind %d", channel.ErrProtocol, kind))}
		}
		if err != nil {
			return result{err: &Error{Kind: ErrStopped, Err: err}}
		}
	}
}

func write(f *os.File, data []byte, name string) error {
	if f == nil {
		return nil
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write to %s: %w", name, err)
	}
	return nil
}

// failed turns what the guest says into an error.
func (s *session) failed(f channel.Failure) error {
	e := &Error{Err: errors.New(f.Text)}
	switch f.Stage {
	case channel.Files:
		e.Kind = ErrFiles
		e.Remedy = "the kernel needs CONFIG_9P_FS, CONFIG_NET_9P_VIRTIO and CONFIG_OVERLAY_FS, and the directories must be there"
		e.Console = s.console()
	case channel.Modules:
		e.Kind, e.Console = ErrModules, s.console()
		e.Remedy = "pqlab vm fetch gets a kernel that has everything"
	case channel.Exec:
		e.Kind, e.Status = ErrCommand, f.Status
	default:
		e.Kind, e.Console = ErrModules, s.console()
		e.Remedy = "pqlab vm fetch gets a kernel that has everything"
	}
	return e
}

// lost is the error of a channel that broke: the guest has died, or does within a moment.
func (s *session) lost(err error) error {
	select {
	case <-s.machine.ended:
	case <-time.After(time.Second): // its last words may be on their way
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		err = nil
	}
	if said := s.machine.stderr.text(); said != "" {
		err = errors.Join(err, errors.New(said))
	}
	return &Error{Kind: ErrDied, Err: err, Console: s.console(), Remedy: "did it have enough memory (--memory)?"}
}

// console is the end of what the guest's kernel said.
func (s *session) console() string { return lastWords(s.machine.console.text()) }

// feed sends the input as long as the guest takes it. stopped is closed when the user asks for the end.
func (s *session) feed(terminal bool, stopped chan<- struct{}) {
	if s.config.Stdin == nil {
		_ = s.out.Write(channel.Input, nil)
		return
	}
	credit := channel.Window
	b := make([]byte, 16<<10)
	var escape escape
	for {
		for credit == 0 {
			credit += <-s.credit
		}
		n, err := s.config.Stdin.Read(b[:min(len(b), credit)])
		if n > 0 {
			if terminal && escape.seen(b[:n], time.Now()) {
				close(stopped)
				return
			}
			if s.out.Write(channel.Input, b[:n]) != nil {
				return // the receiver has noticed
			}
			credit -= n
		}
		if err != nil {
			_ = s.out.Write(channel.Input, nil)
			return
		}
	more:
		for {
			select {
			case n := <-s.credit:
				credit += n
			default:
				break more
			}
		}
	}
}
