package nodes

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

// initMark in the environment of PID 1 tells InitMain that it is wanted.
const initMark = "PQLAB_PID1"

// PIDNamespace holds processes that all end together: when it is closed, and when the process that made it dies, the
// kernel kills every process in it, whichever group or session that has gone to. It has its own /proc.
//
// It costs one process (this program again), so it is for commands whose children are not known.
type PIDNamespace struct {
	init     *Process
	alive    *os.File // our end of a pipe; init ends when nobody holds it
	pid, mnt *os.File
}

// NewPIDNamespace starts this program again as PID 1 of a new namespace. Its main must call InitMain first.
func NewPIDNamespace() (_ *PIDNamespace, err error) {
	home, err := netns.Current()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	held, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	ready, says, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, alive.Close())
	}
	defer ready.Close()
	p := &PIDNamespace{alive: alive}
	defer func() {
		if err != nil {
			err = fmt.Errorf("new PID namespace: %w", errors.Join(err, p.Close()))
		}
	}()
	p.init, err = Start(home, nil, Command{
		Path: "/proc/self/exe", Env: append(os.Environ(), initMark+"=1"),
		Stdin: held, Stdout: says, Stderr: os.Stderr,
		unshare: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
	})
	says.Close()
	if err != nil {
		return nil, err
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return nil, errors.New("PID 1 did not start: main does not call nodes.InitMain first")
	}
	proc := filepath.Join("/proc", strconv.Itoa(p.init.Pid()), "ns")
	if p.pid, err = os.Open(filepath.Join(proc, "pid")); err != nil {
		return nil, err
	}
	p.mnt, err = os.Open(filepath.Join(proc, "mnt"))
	return p, err
}

// enter makes what the calling thread starts from now on a process of the namespace.
func (p *PIDNamespace) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its root cannot change mounts
		return fmt.Errorf("enter PID namespace: %w", err)
	}
	for _, ns := range []*os.File{p.mnt, p.pid} {
		if err := unix.Setns(int(ns.Fd()), 0); err != nil {
			return fmt.Errorf("enter PID namespace: %w", err)
		}
	}
	return nil
}

// Close kills every process in the namespace and waits until all are gone.
func (p *PIDNamespace) Close() error {
	var err error
	if p.init != nil {
		if err = p.init.Signal(unix.SIGKILL); errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
		<-p.init.Done()
	}
	for _, f := range []*os.File{p.alive, p.pid, p.mnt} {
		if f != nil {
			f.Close()
		}
	}
	return err
}

// InitMain does nothing in a process that NewPIDNamespace has not started. In one that it has, it never returns: it
// waits for the orphans of the namespace, and ends when its maker does. Call it first in main, or in TestMain.
func InitMain() {
	if os.Getpid() != 1 || os.Getenv(initMark) == "" {
		return
	}
	// Where a container forbids it, programs see the /proc of outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err == nil {
		_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	go reap()
	if _, err := os.Stdout.Write([]byte{1}); err != nil {
		os.Exit(1)
	}
	os.Stdout.Close()
	os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// reap waits for children that were orphaned in the namespace.
func reap() {
	orphaned := make(chan os.Signal, 1)
	signal.Notify(orphaned, unix.SIGCHLD)
	for range orphaned {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}
