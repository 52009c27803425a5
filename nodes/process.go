package nodes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

// Command is what Start runs.
type Command struct {
	Path  string     // executable; searched in PATH if it has no slash
	Args  []string   // without the name
	Env   []string   // nil: the caller's
	Dir   string     // empty: the caller's
	Files []*os.File // descriptors 3, 4, … of the process; the caller keeps its own

	Stdin, Stdout, Stderr *os.File // nil: /dev/null

	// TTY: Stdin is a terminal, and becomes the controlling terminal of a session of the process's own.
	TTY bool

	// PIDs holds the process and all that it starts; nil: none does.
	PIDs *PIDNamespace

	unshare uintptr // namespaces that the process begins
}

// Process is a process in a node, and what it has started.
//
// It leads a process group. Signals reach the whole group, and what is left of the group is killed when the process
// ends. The process is killed when the one that started it dies, however that dies; but not its children, and a
// descendant that has left the group (setsid, an interactive shell's jobs) escapes the signals too. Where there is a
// cgroup, Cgroup.Kill and Cgroup.Remove reach all of them. A PIDNamespace reaches them always.
type Process struct {
	pid   int
	done  chan struct{} // closed when the process has been waited for
	lock  chan struct{} // holds one token; its holder may signal, knowing that the pid is ours
	state *os.ProcessState
	err   error
}

// Start runs cmd in ns, and from its first instruction in cgroup unless that is nil.
//
// A thread stays in the namespace until the process has ended, because the kernel's parent-death signal follows the
// thread that forked and not its process.
func Start(ns *netns.Namespace, cgroup *Cgroup, cmd Command) (*Process, error) {
	path, err := exec.LookPath(cmd.Path)
	if err != nil {
		return nil, err
	}
	if cmd.PIDs != nil && cmd.Dir == "" { // entering its mounts leaves the current directory
		if cmd.Dir, err = os.Getwd(); err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, err
		}
	}
	p := &Process{done: make(chan struct{}), lock: make(chan struct{}, 1)}
	p.lock <- struct{}{}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		err := ns.Do(func() error {
			process, err := cmd.fork(path, cgroup)
			if err != nil {
				return err
			}
			p.pid = process.Pid
			started <- nil
			p.await(process)
			return nil
		})
		if err != nil {
			started <- fmt.Errorf("start %s: %w", cmd.Path, err)
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

// fork starts the process from the calling thread.
func (cmd Command) fork(path string, cgroup *Cgroup) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{cmd.Stdin, cmd.Stdout, cmd.Stderr}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	attr := &os.ProcAttr{
		Dir:   cmd.Dir,
		Env:   cmd.Env,
		Files: append(files, cmd.Files...),
		Sys:   &syscall.SysProcAttr{Cloneflags: cmd.unshare},
	}
	if cmd.PIDs == nil {
		attr.Sys.Pdeathsig = syscall.SIGKILL
	} else if err := cmd.PIDs.enter(); err != nil { // which kills it with its PID 1
		return nil, err
	}
	if cmd.TTY {
		attr.Sys.Setsid, attr.Sys.Setctty = true, true // a session leader leads a group too
	} else {
		attr.Sys.Setpgid = true
	}
	leave, err := cgroup.enter(attr.Sys)
	if err != nil {
		return nil, err
	}
	process, err := os.StartProcess(path, append([]string{cmd.Path}, cmd.Args...), attr)
	if errLeave := leave(); errLeave != nil && err == nil {
		process.Kill()
		process.Wait()
		return nil, errLeave
	}
	return process, err
}

// await reaps the process after killing what is left of its group: until then its pid, and so its group's, is taken.
func (p *Process) await(process *os.Process) {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	<-p.lock
	unix.Kill(-p.pid, unix.SIGKILL)
	p.state, p.err = process.Wait()
	// The token is not given back: nobody may signal any more.
}

// Pid is the process's id, and its group's.
func (p *Process) Pid() int { return p.pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends sig to the process and its group. A process that has ended is os.ErrProcessDone.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	case <-p.lock:
	}
	defer func() { p.lock <- struct{}{} }()
	if err := unix.Kill(-p.pid, sig); err != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// Wait waits until the process has ended and what was left of its group is killed. An exit that is no success is an
// *exec.ExitError. It may be called more than once.
func (p *Process) Wait() error {
	<-p.done
	if p.err == nil && !p.state.Success() {
		return &exec.ExitError{ProcessState: p.state}
	}
	return p.err
}

// Stop sends SIGTERM, and when ctx ends SIGKILL, and waits for the end. It is no error that the process was ended by
// these signals, or had ended before.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	<-p.done
	return p.err
}

// CPU is processor time.
type CPU struct {
	User, System time.Duration
}

// Rusage is what a process that has ended, and those that it had waited for, have used; nil before the end.
func (p *Process) Rusage() *syscall.Rusage {
	select {
	case <-p.done:
	default:
		return nil
	}
	usage, _ := p.state.SysUsage().(*syscall.Rusage)
	return usage
}

// CPU is what the process and those that it has waited for have used: to the microsecond after its end, before that to
// the kernel's clock tick of 10 ms.
func (p *Process) CPU() (CPU, error) {
	select {
	case <-p.lock: // while we hold it the pid is not given to another process
		defer func() { p.lock <- struct{}{} }()
		return cpuOf(p.pid)
	case <-p.done:
	}
	usage := p.Rusage()
	if usage == nil {
		return CPU{}, fmt.Errorf("CPU of process %d: %w", p.pid, p.err)
	}
	return CPU{User: time.Duration(usage.Utime.Nano()), System: time.Duration(usage.Stime.Nano())}, nil
}

// cpuOf reads a live process's times (proc_pid_stat(5), fields 14 to 17).
func cpuOf(pid int) (CPU, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return CPU{}, err
	}
	// The second field is the name in brackets, which may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, hz = 14 - 3, 100 // USER_HZ is 100 on every architecture that Go runs on
	if len(fields) < utime+4 {
		return CPU{}, fmt.Errorf("CPU of process %d: /proc/%d/stat has %d fields", pid, pid, len(fields)+2)
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[utime+i], 10, 64); err != nil {
			return CPU{}, fmt.Errorf("CPU of process %d: %w", pid, err)
		}
	}
	return CPU{
		User:   time.Duration(ticks[0]+ticks[2]) * time.Second / hz,
		System: time.Duration(ticks[1]+ticks[3]) * time.Second / hz,
	}, nil
}
