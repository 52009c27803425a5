package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/agent"
	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/vm/guest"
	"pqlab/nodes"
	"pqlab/suites"
)

// mark in the environment makes the test binary pqlab.
const mark = "PQLAB_TEST_EXECUTE"

// Preparations, named in the environment, that the test binary makes before it becomes pqlab.
const (
	prepareMark  = "PQLAB_TEST_PREPARE"
	noNamespaces = "no-namespaces" // the user may not make user namespaces and has no capabilities
	noTUN        = "no-tun"        // there is no /dev/net/tun
)

func TestMain(m *testing.M) {
	guest.Main()
	prepare()
	nodes.InitMain()
	agent.Main()
	journal.SweeperMain()
	suites.Main()
	if os.Getenv(mark) != "" {
		os.Exit(execute(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// prepare is called in new user, mount and network namespaces, and runs the program again.
func prepare() {
	what := os.Getenv(prepareMark)
	if what == "" {
		return
	}
	os.Unsetenv(prepareMark)
	runtime.LockOSThread()
	var err error
	switch what {
	case noNamespaces:
		err = os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
		for c := range uintptr(unix.CAP_LAST_CAP + 1) {
			err = errors.Join(err, unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))
		}
	case noTUN:
		err = errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", "/dev/net", "tmpfs", 0, ""))
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	os.Stderr.WriteString("preparing " + what + ": " + err.Error() + "\n")
	os.Exit(99)
}

// prepared makes a command be prepared first.
func prepared(what string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Env = append(c.Env, prepareMark+"="+what)
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
	}
}

// command is pqlab with these arguments.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, "/proc/self/exe", args...)
	c.Env = append(os.Environ(), mark+"=1", "GORACE=atexit_sleep_ms=0")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // it takes its lab down
	c.WaitDelay = time.Minute
	return c
}

type result struct {
	code     int
	out, err string
}

// pqlab runs pqlab to its end.
func pqlab(t testing.TB, args ...string) result {
	t.Helper()
	return finish(t, command(t, args...))
}

func finish(t testing.TB, c *exec.Cmd) result {
	t.Helper()
	var out, diagnostics bytes.Buffer
	c.Stdout, c.Stderr = &out, &diagnostics
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v\n%s", c.Args, err, &diagnostics)
	}
	if c.ProcessState.ExitCode() == 99 {
		t.Skipf("cannot prepare: %s", &diagnostics)
	}
	return result{c.ProcessState.ExitCode(), out.String(), diagnostics.String()}
}

// parse reads what a command printed, which must be one JSON document.
func parse[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %.300s", err, text)
	}
	if d.More() {
		t.Errorf("more than one document: %.300s", text)
	}
	return v
}

// needLabs skips where this machine cannot make labs at all.
func needLabs(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if r := pqlab(t, "run", write(t, "nodes: [{name: a, kind: host}]\n")); r.code == exitUnsupported {
		t.Skipf("no labs here: %s", r.err)
	}
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// clean makes the test fail if anything is left at its end. It and what runs beside it would see each other, so tests
// that call it are not parallel.
func clean(t *testing.T) {
	t.Helper()
	before, err := hygiene.Take()
	if err != nil {
		t.Fatal(err)
	}
	owner := hygiene.NewOwner()
	t.Setenv(hygiene.Variable, owner.Token)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		left, err := hygiene.Settled(ctx, before, owner)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	})
}

// terminal makes a pseudo-terminal and gives its ends.
func terminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if e := unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); e != nil {
			t.Fatal(e)
		}
		n, _, e := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if e != 0 {
			t.Fatal(e)
		}
		slave = os.NewFile(n, "slave")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
