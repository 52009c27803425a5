package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pqlab/internal/inherit"
)

// sweeperName is the argv[0] by which a process knows that it is a sweeper. Its argument is the journal's directory. Its
// standard input is a pipe that nobody but the owner can write to, and does: the names under which it tries to make the
// journal, a line each, before it does so.
const sweeperName = "pqlab-sweeper"

// patience is how long a sweeper waits for the lock of an owner that has closed its pipe by dying.
const patience = 10 * time.Second

// SweeperMain makes this process a sweeper, if it was started as one, and then does not return. Otherwise it returns at
// once. Call it before anything else in main or TestMain of a program that keeps a journal. The kind "cgroup" is undone
// by RemoveCgroup, others as extra says.
func SweeperMain(extra ...Undo) {
	if os.Args[0] != sweeperName || len(os.Args) != 2 {
		return
	}
	undo := Undo{"cgroup": RemoveCgroup}
	for _, u := range extra {
		maps.Copy(undo, u)
	}
	if err := sweep(os.Args[1], undo); err != nil {
		os.Exit(1) // nobody hears it; the journal stays, and Repair says so
	}
	os.Exit(0)
}

// sweep waits until the owner has closed its pipe, by Close or by dying, and works off what it has left.
func sweep(dir string, undo Undo) error {
	// Whoever ends the owner with one of these does so to have it clean up.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE)
	if title, err := unix.BytePtrFromString(sweeperName); err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(title)), 0, 0, 0)
	}
	debug.FreeOSMemory() // what the program's packages took for a start that is not to come
	name := ""
	names := bufio.NewScanner(os.Stdin)
	for names.Scan() {
		name = names.Text()
	}
	if err := names.Err(); err != nil {
		return err
	}
	root, err := openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer removeDir(dir)
	defer root.Close()
	if name == "" {
		return nil // the owner has not come so far
	}
	o, ok := parseOwner(name)
	if !ok {
		return fmt.Errorf("journal %q: not the name of one", name)
	}
	return new(Report).repair(root, o, o.boot, undo, patience)
}

// sweeper is the owner's side of one.
type sweeper struct {
	process *os.Process
	pipe    *os.File // closing it sets the sweeper to work
}

// startSweeper starts a sweeper for a journal in dir that is about to be made.
func startSweeper(dir string) (*sweeper, error) {
	if os.Args[0] == sweeperName {
		// Each would start the next.
		return nil, errors.New("this process was started to clean up after a crash, but its main does not call journal.SweeperMain")
	}
	type result struct {
		s   *sweeper
		err error
	}
	c := make(chan result)
	// Not on the caller's thread: that may be inside a node's network namespace, which the sweeper would keep alive.
	go func() {
		s, err := forkSweeper(dir)
		c <- result{s, err}
	}()
	r := <-c
	if r.err != nil {
		return nil, fmt.Errorf("start the process that cleans up after a crash: %w", r.err)
	}
	return r.s, nil
}

func forkSweeper(dir string) (*sweeper, error) {
	// A blocking pipe, so that the sweeper needs no poller.
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	defer unix.Close(ends[0])
	w := os.NewFile(uintptr(ends[1]), "pipe to sweeper")
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		w.Close()
		return nil, err
	}
	defer null.Close()
	files, err := inherit.Only(uintptr(ends[0]), null.Fd(), null.Fd())
	if err != nil {
		w.Close()
		return nil, err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{sweeperName, dir}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   sweeperEnv(os.Environ()),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true}, // what is sent to the owner's process group or terminal does not reach it
	})
	if err != nil {
		w.Close()
		return nil, err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		w.Close()
		return nil, err
	}
	return &sweeper{process, w}, nil
}

// sweeperEnv keeps of the environment what says whose process it is. Go is to use one thread, and not to keep files of
// its cgroup open, which is what it does to follow a quota.
func sweeperEnv(environ []string) []string {
	env := []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}
	for _, v := range environ {
		if strings.HasPrefix(v, "PQLAB_OWNER=") {
			env = append(env, v)
		}
	}
	return env
}

// tell says what the journal will be called, unless there is one of that name.
func (s *sweeper) tell(name string) error {
	if _, err := fmt.Fprintln(s.pipe, name); err != nil {
		return fmt.Errorf("tell the process that cleans up after a crash: %w", err)
	}
	return nil
}

// stop sets the sweeper to work and waits until it has ended.
func (s *sweeper) stop() {
	s.pipe.Close()
	s.process.Wait()
}
