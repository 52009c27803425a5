// Package vm runs a command in a guest kernel, over the files of the host.
//
// The guest is QEMU's. This program is its first process: it sees the host's root over 9p, read-only, with an overlay in
// memory above it, and chosen directories writable. Everything that the command reads and writes goes through one virtio
// port (package channel). Nothing is left of a guest: its first files and its kernel are given to QEMU as descriptors, and
// QEMU dies with this process, however that ends.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
	"pqlab/internal/vm/kernel"
)

// Limits of a boot. An ordinary guest takes 2 s under KVM, and 4 s under TCG on an idle machine: a busy one has its time.
const (
	kvmLimit = 6 * time.Second
	tcgLimit = 3 * time.Minute
)

// Config says what to run and where.
type Config struct {
	Args []string
	Env  []string
	Dir  string // in which the command starts, and which it can write to

	Kernel kernel.Kernel
	Shares []string // other directories that the command can write to
	Memory int64    // of the guest, in bytes
	CPUs   int      // 0: up to four under KVM, and one under TCG, where more are of no use
	Accel  string   // Auto, KVM or TCG

	// Timeout bounds everything; 0 does not. The command is then sent SIGTERM, and two seconds later it is gone.
	Timeout time.Duration

	Stdin, Stdout, Stderr *os.File
	Signals               <-chan os.Signal // for the command; before it runs SIGINT, SIGTERM and SIGHUP end the guest. SIGWINCH is the terminal's new size.

	Cache string       // a directory for what was found out about this machine; "" is none
	Say   func(string) // told what goes on before the command runs, and "" when it does; may be nil

	bootLimits map[string]time.Duration // by accelerator, for tests; others have what is usual
}

// Check is an error if the values make no guest.
func (c *Config) Check() error {
	switch {
	case len(c.Args) == 0:
		return errors.New("no command")
	case c.Memory < MinMemory:
		return fmt.Errorf("memory %d MiB: a guest takes at least %d", c.Memory>>20, MinMemory>>20)
	case c.CPUs < 0 || c.CPUs > 255:
		return fmt.Errorf("%d CPUs: want 1 to 255, or 0 for as many as are of use", c.CPUs)
	case c.Accel != Auto && c.Accel != KVM && c.Accel != TCG && c.Accel != "":
		return fmt.Errorf("accelerator %q: want auto, kvm or tcg", c.Accel)
	case c.Timeout < 0:
		return fmt.Errorf("timeout %v: want 0 or more", c.Timeout)
	}
	_, err := c.shares()
	return err
}

// MinMemory is with what Debian's kernel boots and has room for a command.
const MinMemory = 192 << 20

// ours are the directories that the guest has of its own.
var ours = []string{"/dev", "/proc", "/run", "/sys"}

// shares are the directories to export, parents first. The directory of the command is one of them, where it can be.
func (c *Config) shares() ([]channel.Share, error) {
	var paths []string
	for _, path := range c.Shares {
		real, err := realDir(path)
		if err != nil {
			return nil, fmt.Errorf("share %s: %w", path, err)
		}
		if guests(real) {
			return nil, fmt.Errorf("share %s: the guest has its own /, /dev, /proc, /run and /sys", path)
		}
		paths = append(paths, real)
	}
	dir, err := realDir(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("directory of the command: %w", err)
	}
	if !guests(dir) {
		paths = append(paths, dir)
	}
	slices.Sort(paths)
	var all []channel.Share
	for _, path := range slices.Compact(paths) {
		if !slices.ContainsFunc(all, func(s channel.Share) bool { return below(path, s.Path) }) {
			all = append(all, channel.Share{Tag: "share" + strconv.Itoa(len(all)), Path: path})
		}
	}
	return all, nil
}

// realDir is a directory's path without symbolic links.
func realDir(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(real)
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "share", Path: real, Err: unix.ENOTDIR}
	}
	return real, err
}

// guests tells whether a directory of the host has none in its place in the guest.
func guests(path string) bool {
	return path == "/" || slices.ContainsFunc(ours, func(dir string) bool { return below(path, dir) })
}

// below tells whether path is dir or in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// Run runs the command in a guest and returns its exit status as a shell says it: 128 and the signal's number for one
// that died of a signal. When ctx ends, or Run returns for another reason, the guest is gone. The error is an *Error, one of
// Check's, or ctx's.
func Run(ctx context.Context, c Config) (int, error) {
	if err := c.Check(); err != nil {
		return 0, err
	}
	if c.Say == nil {
		c.Say = func(string) {}
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout+grace, ErrTimeout)
		defer cancel()
	}
	began := time.Now()
	m, err := boot(ctx, &c)
	if err != nil {
		return 0, err
	}
	defer m.stop()
	debug.FreeOSMemory() // the program and the kernel, some 50 MB: the guest has them now
	s := &session{config: &c, machine: m, out: channel.NewWriter(m.conn), in: channel.NewReader(m.conn), began: began}
	return s.run(ctx)
}

// boot starts guests until one says hello.
func boot(ctx context.Context, c *Config) (*machine, error) {
	qemu, err := QEMU()
	if err != nil {
		return nil, err
	}
	shares, err := c.shares()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c.Say("preparing " + c.Kernel.Release)
	first, err := initrd(self, c.Kernel)
	if err != nil {
		return nil, hostError(err)
	}
	defer first.Close()
	s := spec{kernel: c.Kernel.Image, initrd: descriptor(firstDescriptor), memory: c.Memory, cpus: c.CPUs, port: firstDescriptor - 1, shares: shares}
	files := []*os.File{first}
	image, err := unpackedImage(c.Kernel.Image)
	if err != nil {
		return nil, hostError(err)
	}
	if image != nil {
		defer image.Close()
		files = append(files, image)
		s.kernel = descriptor(firstDescriptor + 1)
	}
	known := newAnswers(c.Cache, qemu)
	tries := attempts(c.Accel, usable, known)
	for i, accel := range tries {
		s.accel = accel
		limit := tcgLimit
		if accel == KVM && len(tries) > 1 {
			limit = kvmLimit
		}
		if l, ok := c.bootLimits[accel]; ok {
			limit = l
		}
		c.Say(fmt.Sprintf("booting %s under %s", c.Kernel.Release, strings.ToUpper(accel)))
		m, err := tryBoot(ctx, c, qemu, s, limit, files)
		if err == nil {
			if len(tries) > 1 {
				known.put(accel == KVM)
			}
			return m, nil
		}
		if i == len(tries)-1 || !errors.Is(err, ErrKVM) {
			return nil, err
		}
	}
	return nil, nil // not reached: there is an attempt
}

// unpackedImage is the vmlinux of a bzImage, in memory, and nil of a file that boots as it is.
func unpackedImage(path string) (*os.File, error) {
	if boots, err := kernel.IsVmlinux(path); boots || err != nil {
		return nil, err
	}
	image, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	elf, err := kernel.Vmlinux(image)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, &kernel.Error{Kernel: path, Err: err, Remedy: "take another, or what pqlab vm fetch gets"}
	}
	f, err := memory("vmlinux")
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(elf); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hostError makes an *Error of what has no kind yet.
func hostError(err error) error {
	var known *Error
	var image *kernel.Error
	if errors.As(err, &known) || errors.As(err, &image) {
		return err
	}
	return &Error{Kind: ErrHost, Err: err, Remedy: "the guest's first files are made in memory, some 30 MB"}
}

// tryBoot starts one guest and waits until it says hello. It is gone if there is an error.
func tryBoot(ctx context.Context, c *Config, qemu string, s spec, limit time.Duration, files []*os.File) (*machine, error) {
	m, err := start(qemu, s, files...)
	if err != nil {
		return nil, &Error{Kind: ErrQEMU, Err: err, Remedy: "install it again: apt-get install --reinstall qemu-system-x86"}
	}
	err = m.hello(ctx, c.Signals, limit)
	if err != nil {
		m.stop()
		var e *Error
		if errors.As(err, &e) { // what QEMU said is complete now
			m.explain(e, s)
		}
		return nil, err
	}
	return m, nil
}

// hello waits for it.
func (m *machine) hello(ctx context.Context, signals <-chan os.Signal, limit time.Duration) error {
	said := make(chan error, 1)
	go func() {
		kind, _, err := channel.NewReader(m.conn).Next()
		if err == nil && kind != channel.Hello {
			err = fmt.Errorf("%w: frame of kind %d first", channel.ErrProtocol, kind)
		}
		said <- err
	}()
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		select {
		case err := <-said:
			if err == nil {
				return nil
			}
			if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
				err = errors.New("it ended before it was up")
			}
			return &Error{Kind: ErrBoot, Err: err}
		case <-late.C:
			return &Error{Kind: ErrBoot, Err: fmt.Errorf("nothing was heard of it for %v", limit)}
		case <-ctx.Done():
			return ended(ctx)
		case s := <-signals:
			if s == unix.SIGINT || s == unix.SIGTERM || s == unix.SIGHUP || s == unix.SIGQUIT {
				return context.Canceled
			}
		}
	}
}

// ended is why ctx has.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrTimeout) {
		return &Error{Kind: ErrTimeout}
	}
	return ctx.Err()
}

// explain completes the error of a guest that is not up, after it was stopped.
func (m *machine) explain(e *Error, s spec) {
	if e.Kind != ErrBoot {
		return
	}
	said, console := strings.TrimSpace(m.stderr.text()), m.console.text()
	e.Console = lastWords(console)
	if said != "" {
		e.Err = fmt.Errorf("%w: %s", e.Err, said)
	}
	switch {
	case s.accel == KVM:
		e.Kind = ErrKVM
		e.Remedy = "--accel tcg works without"
	case console == "" && said != "": // no guest ever ran
		e.Kind = ErrQEMU
		e.Remedy = "QEMU 7.2 or newer with 9p is needed (Debian: qemu-system-x86), and as much memory as the guest is to have (--memory)"
	default:
		e.Remedy = "is it a Linux kernel for x86-64 with CONFIG_PVH, CONFIG_VIRTIO_PCI and CONFIG_SERIAL_8250_CONSOLE, and is the memory enough (--memory)? pqlab vm fetch gets a kernel that boots"
	}
}

// consoleLines is how much of the console is shown where the kernel names no trouble.
const consoleLines = 40

// trouble is how the kernel begins to say that it is in some. The traces that follow can be longer than consoleLines.
var trouble = regexp.MustCompile(`\b(Kernel panic|BUG:|Oops:|Out of memory)`)

// lastWords is the end of what was on the console: the last lines, and all since the first trouble.
func lastWords(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	first := max(0, len(lines)-consoleLines)
	if i := slices.IndexFunc(lines, trouble.MatchString); i >= 0 {
		first = min(first, i)
	}
	return strings.Join(lines[first:], "\n")
}
