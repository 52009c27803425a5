package rootless

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

const helper = "PQLAB_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helper); name != "" {
		if err := Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		help(name, os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// state is what a helper sees after Enter.
type state struct {
	UID, PID, Parent int
	Args             []string
	Loopback, Netns  bool
	Marked           bool
	Descriptors      map[string]string // number to target
	Nested           *state
}

// help is what the program does once it is inside.
func help(name string, args []string) {
	switch name {
	case "state":
		s := state{UID: os.Getuid(), PID: os.Getpid(), Parent: os.Getppid(), Args: os.Args}
		_, s.Marked = os.LookupEnv(mark)
		if lo, err := net.InterfaceByName("lo"); err == nil {
			s.Loopback = lo.Flags&net.FlagUp != 0
		}
		s.Netns = onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }) == nil
		s.Descriptors = map[string]string{}
		entries, _ := os.ReadDir("/proc/self/fd")
		for _, e := range entries {
			if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
				s.Descriptors[e.Name()] = target
			}
		}
		if slices.Contains(args, "nest") {
			cmd := exec.Command("/proc/self/exe", "nested")
			out, err := cmd.Output()
			if err == nil {
				err = json.Unmarshal(out, &s.Nested)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(98)
			}
		}
		json.NewEncoder(os.Stdout).Encode(s)
	case "exit":
		n, _ := strconv.Atoi(args[0])
		os.Exit(n)
	case "die":
		n, _ := strconv.Atoi(args[0])
		dieOf(unix.Signal(n))
	case "echo": // standard input to standard output, descriptor 4 to standard error
		io.Copy(os.Stdout, os.Stdin)
		io.Copy(os.Stderr, os.NewFile(4, "given"))
	case "close": // descriptor 4, and go on
		unix.Close(4)
		io.Copy(io.Discard, os.Stdin)
	case "signals": // print each
		c := make(chan os.Signal, 100)
		signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGWINCH)
		fmt.Println(os.Getpid())
		for s := range c {
			fmt.Println(int(s.(syscall.Signal)))
			if s == unix.SIGTERM {
				return
			}
		}
	case "forbid": // user namespaces to ourselves, as the administrator of this one, and try
		err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
		if err == nil {
			err = onThread(func() error {
				hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				var none [2]unix.CapUserData
				if err := unix.Capset(&hdr, &none[0]); err != nil {
					return err
				}
				return Enter()
			})
		}
		var unavailable *UnavailableError
		fmt.Println(errors.As(err, &unavailable), errors.Is(err, unix.ENOSPC))
		fmt.Fprintln(os.Stderr, err)
	}
}

func onThread(f func() error) error {
	c := make(chan error)
	go func() {
		runtime.LockOSThread()
		c <- f()
	}()
	return <-c
}

// command runs this test binary as an ordinary user.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), helper+"="+name, "GORACE=atexit_sleep_ms=0") // or each would end a second late
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	return cmd
}

// run runs a helper and skips the test where the machine has no user namespaces.
func run(t *testing.T, cmd *exec.Cmd) (stdout string, err error) {
	t.Helper()
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err = cmd.Run()
	if cmd.ProcessState.ExitCode() == 99 {
		t.Skip(diag.String())
	}
	if diag.Len() > 0 {
		t.Log(diag.String())
	}
	return out.String(), err
}

func TestEnter(t *testing.T) {
	t.Parallel()
	cmd := command(t, "state", "one", "two three", "nest")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd.ExtraFiles = []*os.File{nil, r, nil, nil, w} // 4 and 7
	out, err := run(t, cmd)
	if err != nil {
		t.Fatal(err)
	}
	var s state
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	if s.UID != 0 || !s.Netns || !s.Loopback || s.Marked {
		t.Errorf("inside: %+v", s)
	}
	if s.Parent != cmd.Process.Pid || s.PID == cmd.Process.Pid {
		t.Errorf("process %d, parent %d; started %d", s.PID, s.Parent, cmd.Process.Pid)
	}
	if want := []string{"/proc/self/exe", "one", "two three", "nest"}; !slices.Equal(s.Args, want) {
		t.Errorf("arguments %q", s.Args)
	}
	var pipe unix.Stat_t
	if err := unix.Fstat(int(r.Fd()), &pipe); err != nil {
		t.Fatal(err)
	}
	target := fmt.Sprintf("pipe:[%d]", pipe.Ino)
	for fd, to := range s.Descriptors {
		if (to == target) != (fd == "4" || fd == "7") {
			t.Errorf("descriptor %s is %s; 4 and 7 should be %s", fd, to, target)
		}
	}
	if s.Descriptors["4"] != target || s.Descriptors["7"] != target {
		t.Errorf("descriptors %v; 4 and 7 should be %s", s.Descriptors, target)
	}
	// What is started inside has the capabilities and stays where it is.
	if s.Nested == nil || s.Nested.Parent != s.PID || !s.Nested.Netns {
		t.Errorf("nested: %+v", s.Nested)
	}
}

func TestEnterStrayMark(t *testing.T) {
	t.Parallel()
	for _, stray := range []string{
		"", "nonsense", "1", "1 ", " user:[1]", "x user:[1]", fmt.Sprintf("%d user:[1]", os.Getpid()+1),
	} {
		cmd := command(t, "state")
		cmd.Env = append(cmd.Env, mark+"="+stray)
		out, err := run(t, cmd)
		var s state
		if err == nil {
			err = json.Unmarshal([]byte(out), &s)
		}
		if err != nil || s.UID != 0 || !s.Netns {
			t.Errorf("%s=%q: %v %+v", mark, stray, err, s)
		}
	}
}

func TestEnterCapable(t *testing.T) {
	t.Parallel()
	able, err := capable()
	if err != nil {
		t.Fatal(err)
	}
	if !able {
		t.Skip("this process lacks CAP_SYS_ADMIN or CAP_NET_ADMIN; TestEnter's nested process has them")
	}
	cmd := command(t, "state")
	cmd.SysProcAttr.Credential = nil
	out, err := run(t, cmd)
	var s state
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil || s.PID != cmd.Process.Pid || s.Parent != os.Getpid() {
		t.Errorf("a capable process was run again: %v %+v", err, s)
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	out, err := run(t, command(t, "forbid"))
	if err != nil || out != "true true\n" {
		t.Errorf("max_user_namespaces = 0: %q %v", out, err)
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 3, 42, 255} {
		_, err := run(t, command(t, "exit", strconv.Itoa(n)))
		var exit *exec.ExitError
		switch {
		case n == 0 && err == nil:
		case errors.As(err, &exit) && exit.ExitCode() == n:
		default:
			t.Errorf("exit %d: %v", n, err)
		}
	}
}

func TestDeathBySignal(t *testing.T) {
	t.Parallel()
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL, unix.SIGQUIT, unix.SIGSEGV, unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1} {
		_, err := run(t, command(t, "die", strconv.Itoa(int(s))))
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Errorf("%v: %v", s, err)
			continue
		}
		if ws := exit.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != s || ws.CoreDump() {
			t.Errorf("died of %v (core %v), want %v", exit, ws.CoreDump(), s)
		}
	}
}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	cmd := command(t, "echo")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.WriteString("given")
	w.Close()
	cmd.ExtraFiles = []*os.File{nil, r}
	cmd.Stdin = strings.NewReader("input")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() == 99 {
		t.Skip(stderr.String())
	}
	if err != nil || string(out) != "input" || stderr.String() != "given" {
		t.Errorf("%q %q %v", out, stderr.String(), err)
	}
}

// The waiting process must not keep open what the program closes.
func TestDescriptorEnds(t *testing.T) {
	t.Parallel()
	cmd := command(t, "close")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{nil, w}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read from a pipe that the program has closed: %v", err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 99 {
		t.Error(err)
	}
}

// session is a helper that prints the signals it gets, with a terminal of its own.
type session struct {
	cmd      *exec.Cmd
	terminal *os.File
	inner    int
	lines    *bufio.Scanner
}

func newSession(t *testing.T) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal to try with: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal to try with: %v", err)
	}
	defer slave.Close()

	cmd := command(t, "signals")
	cmd.Stdin = slave
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty, cmd.SysProcAttr.Ctty = true, true, 0
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var diag bytes.Buffer
	cmd.Stderr = &diag
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := &session{cmd: cmd, terminal: master, lines: bufio.NewScanner(out)}
	if !s.lines.Scan() {
		cmd.Wait()
		if cmd.ProcessState.ExitCode() == 99 {
			t.Skip(diag.String())
		}
		t.Fatal(diag.String())
	}
	if s.inner, err = strconv.Atoi(s.lines.Text()); err != nil || s.inner == cmd.Process.Pid {
		t.Fatalf("program %d inside %d: %v", s.inner, cmd.Process.Pid, err)
	}
	return s
}

func (s *session) next() unix.Signal {
	if !s.lines.Scan() {
		return 0
	}
	n, _ := strconv.Atoi(s.lines.Text())
	return unix.Signal(n)
}

// Whatever way a signal comes, the program gets it once. SIGTERM comes after it and so after its double, if one there is:
// the waiting process passes signals on in order.
func TestSignalsOnce(t *testing.T) {
	t.Parallel()
	terminal := func(key byte) func(*session) error {
		return func(s *session) error {
			_, err := s.terminal.Write([]byte{key})
			return err
		}
	}
	kill := func(sig unix.Signal) func(*session) error {
		return func(s *session) error { return unix.Kill(s.cmd.Process.Pid, sig) }
	}
	group := func(sig unix.Signal) func(*session) error {
		return func(s *session) error { return unix.Kill(-s.cmd.Process.Pid, sig) }
	}
	for _, c := range []struct {
		name string
		send func(*session) error
		want unix.Signal
	}{
		{"Ctrl-C", terminal(3), unix.SIGINT},
		{"Ctrl-Backslash", terminal(28), unix.SIGQUIT},
		{"window size", func(s *session) error {
			return unix.IoctlSetWinsize(int(s.terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99})
		}, unix.SIGWINCH},
		{"kill -INT -PGID", group(unix.SIGINT), unix.SIGINT},
		{"kill -HUP -PGID", group(unix.SIGHUP), unix.SIGHUP},
		{"kill -INT", kill(unix.SIGINT), unix.SIGINT},
		{"kill -HUP", kill(unix.SIGHUP), unix.SIGHUP},
		{"kill -QUIT", kill(unix.SIGQUIT), unix.SIGQUIT},
		{"kill -USR1", kill(unix.SIGUSR1), unix.SIGUSR1},
		{"kill -WINCH", kill(unix.SIGWINCH), unix.SIGWINCH},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSession(t)
			for range 3 {
				if err := c.send(s); err != nil {
					t.Fatal(err)
				}
				if got := s.next(); got != c.want {
					t.Fatalf("got %v, want %v", got, c.want)
				}
				if c.name == "window size" {
					break // only a change of size is one
				}
			}
			if err := unix.Kill(s.cmd.Process.Pid, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if got := s.next(); got != unix.SIGTERM {
				t.Errorf("got %v, want %v: signal was delivered twice", got, unix.SIGTERM)
			}
			if err := s.cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// SIGKILL of the process that the user knows ends the others too.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		children = append(children, strings.Fields(string(b))...)
	}
	if len(children) != 2 {
		t.Errorf("children %v; want the program and the witness", children)
	}
	if !slices.Contains(children, strconv.Itoa(s.inner)) {
		t.Fatalf("children %v, program %d", children, s.inner)
	}
	var fds []unix.PollFd
	for _, c := range children {
		pid, _ := strconv.Atoi(c)
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	s.cmd.Process.Kill()
	for i := range fds {
		for {
			n, err := unix.Poll(fds[i:i+1], 20_000)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n != 1 {
				t.Errorf("process %s lives on after its parent: %v", children[i], err)
			}
			break
		}
	}
}

// A signal that was ignored from the start (nohup) does not reach the program.
func TestIgnored(t *testing.T) {
	t.Parallel()
	cmd := command(t, "signals")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP; exec "$0"`, "/proc/self/fd/3"}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &session{cmd: cmd, lines: bufio.NewScanner(out)}
	if s.next() != 0 {
		unix.Kill(cmd.Process.Pid, unix.SIGHUP)
		unix.Kill(cmd.Process.Pid, unix.SIGTERM)
		if got := s.next(); got != unix.SIGTERM {
			t.Errorf("got %v, want %v", got, unix.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 99 {
		t.Error(err)
	}
}

func TestDiagnose(t *testing.T) {
	t.Parallel()
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	seen := map[string]bool{}
	for _, c := range []struct {
		name string
		fs   fstest.MapFS
		err  error
		want string // a word that only this reason has
	}{
		{"limit", fstest.MapFS{"proc/sys/user/max_user_namespaces": file("0\n")}, unix.ENOSPC, "user.max_user_namespaces"},
		{"Debian", fstest.MapFS{"proc/sys/kernel/unprivileged_userns_clone": file("0\n")}, unix.EPERM, "unprivileged_userns_clone"},
		{"network limit", fstest.MapFS{"proc/sys/user/max_net_namespaces": file("0\n")}, unix.ENOSPC, "max_net_namespaces"},
		{"Ubuntu", fstest.MapFS{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": file("1\n")}, unix.EACCES, "AppArmor"},
		{"container", fstest.MapFS{"proc/self/status": file("Name:\tx\nSeccomp:\t2\n")}, unix.EPERM, "seccomp"},
		{"kernel", fstest.MapFS{}, unix.EINVAL, "CONFIG_USER_NS"},
		{"nested", fstest.MapFS{"proc/sys/user/max_user_namespaces": file("100\n")}, unix.EUSERS, "too many"},
		{"other", fstest.MapFS{"proc/self/status": file("Seccomp:\t0\n")}, unix.EPERM, "chroot"},
	} {
		e := diagnose(c.fs, c.err)
		if !strings.Contains(e.Reason, c.want) || e.Remedy == "" || !errors.Is(e, c.err) {
			t.Errorf("%s: %v", c.name, e)
		}
		if seen[e.Reason] {
			t.Errorf("%s: reason of another case: %s", c.name, e.Reason)
		}
		seen[e.Reason] = true
	}
}
