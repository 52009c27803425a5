package nodes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/hygiene"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
)

// owner makes the test binary start a shell in a node and hang, for tests that kill it.
const (
	owner     = "PQLAB_TEST_OWNER"
	ownerPIDs = "PQLAB_TEST_OWNER_PIDS" // in a PIDNamespace
	forgetful = "PQLAB_TEST_FORGETFUL"  // a main that does not call InitMain
)

func TestMain(m *testing.M) {
	if os.Getenv(forgetful) != "" {
		os.Exit(0)
	}
	InitMain()
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "tests that need namespaces will be skipped:", err)
	}
	if script := os.Getenv(owner); script != "" {
		if err := own(script); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(hygiene.Tidy(m.Run))
}

func own(script string) error {
	nss, err := netns.New(1)
	if err != nil {
		return err
	}
	cmd := Command{Path: "sh", Args: []string{"-c", script}, Stdout: os.Stdout}
	if os.Getenv(ownerPIDs) != "" {
		if cmd.PIDs, err = NewPIDNamespace(); err != nil {
			return err
		}
	}
	p, err := Start(nss[0], nil, cmd)
	if err != nil {
		return err
	}
	return p.Wait()
}

// pipe gives a pipe whose write end the test closes after the start.
func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// start starts a shell script in a new node.
func start(t testing.TB, script string, change ...func(*Command)) *Process {
	t.Helper()
	cmd := Command{Path: "sh", Args: []string{"-c", script}, Stderr: os.Stderr}
	for _, c := range change {
		c(&cmd)
	}
	p, err := Start(spaces(t, 1)[0], nil, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(unix.SIGKILL)
		p.Wait()
	})
	return p
}

// output runs a script in a new node and returns what it wrote.
func output(t testing.TB, script string, change ...func(*Command)) string {
	t.Helper()
	r, w := pipe(t)
	p := start(t, script, append(change, func(c *Command) { c.Stdout = w })...)
	w.Close()
	out, err := io.ReadAll(r)
	if err := errors.Join(err, p.Wait()); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// readPid reads a number from a line.
func readPid(t testing.TB, r io.Reader) int {
	t.Helper()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// gone tells that a process has ended; one that its new parent has yet to reap has.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.HasPrefix(string(stat[strings.LastIndex(string(stat), ")")+1:]), " Z")
}

func TestProcessIsInItsNode(t *testing.T) {
	t.Parallel()
	ns := spaces(t, 1)[0]
	r, w := pipe(t)
	p, err := Start(ns, nil, Command{Path: "readlink", Args: []string{"/proc/self/ns/net"}, Stdout: w})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	if got, want := strings.TrimSpace(string(out)), fmt.Sprintf("net:[%d]", ns.Inode()); got != want {
		t.Errorf("process in %s, want %s", got, want)
	}
}

// TestCommandFields is alone: it holds what processes have open that were started at different times against each other.
func TestCommandFields(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, "pwd -P", func(c *Command) { c.Dir = dir }); got != dir {
		t.Errorf("Dir: %q", got)
	}
	if got := output(t, `echo "$A-$HOME-"`, func(c *Command) { c.Env = []string{"A=b"} }); got != "b--" {
		t.Errorf("Env: %q", got)
	}
	if got := output(t, `echo "$0 $*"`, func(c *Command) { c.Args = append(c.Args, "name", "x y", "z") }); got != "name x y z" {
		t.Errorf("Args: %q", got)
	}
	if got := output(t, `cat; readlink /proc/self/fd/0`); got != "/dev/null" {
		t.Errorf("Stdin: %q", got)
	}
	a, aw := pipe(t)
	b, bw := pipe(t)
	const list = `ls /proc/self/fd | tr '\n' ' '`
	inherited, err := exec.Command("sh", "-c", list).Output() // from whoever started the test
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, `echo three >&3; echo four >&4; exec 3>&- 4>&-; `+list, func(c *Command) { c.Files = []*os.File{aw, bw} }); got != strings.TrimSpace(string(inherited)) {
		t.Errorf("descriptors %q, want %q", got, inherited)
	}
	aw.Close()
	bw.Close()
	for want, r := range map[string]*os.File{"three\n": a, "four\n": b} {
		if got, err := io.ReadAll(r); string(got) != want || err != nil {
			t.Errorf("Files: %q, %v", got, err)
		}
	}
}

func TestTTY(t *testing.T) {
	t.Parallel()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals: ", err)
	}
	defer ptmx.Close()
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if got := output(t, `test -t 0 && : </dev/tty && cut -d' ' -f6 /proc/$$/stat && echo $$`, func(c *Command) {
		c.Stdin, c.TTY = tty, true
	}); len(strings.Fields(got)) != 2 || strings.Fields(got)[0] != strings.Fields(got)[1] {
		t.Errorf("session and pid: %q", got)
	}
}

func TestStartFailsCleanly(t *testing.T) {
	ns := spaces(t, 1)[0]
	before := descriptors(t)
	for range 20 {
		if _, err := Start(ns, nil, Command{Path: "no-such-program"}); !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("unknown program: %v", err)
		}
		if _, err := Start(ns, nil, Command{Path: "/etc/passwd"}); !errors.Is(err, os.ErrPermission) {
			t.Errorf("not a program: %v", err)
		}
		if _, err := Start(ns, nil, Command{Path: "sh", Dir: "/no/such"}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no such directory: %v", err)
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	eventually(t, "no thread left in the namespace", func() bool { return threadsIn(t, ns.Inode()) == 0 })
	ns.Close()
	if _, err := Start(ns, nil, Command{Path: "sh"}); err == nil {
		t.Error("started in a closed namespace")
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// threadsIn counts our threads in a namespace.
func threadsIn(t testing.TB, inode uint64) (n int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		var st unix.Stat_t
		if unix.Stat("/proc/self/task/"+task.Name()+"/ns/net", &st) == nil && st.Ino == inode {
			n++
		}
	}
	return n
}

func TestWait(t *testing.T) {
	t.Parallel()
	p := start(t, "exit 7")
	for range 2 {
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("exit 7: %v", err)
		}
	}
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("stop after the end: %v", err)
	}
	if !gone(p.Pid()) {
		t.Error("not reaped")
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		cancel bool // before Stop: no grace
		want   syscall.Signal
	}{
		"by TERM":          {script: "echo $$; sleep 1000", want: unix.SIGTERM},
		"by KILL":          {script: "trap '' TERM; echo $$; while :; do sleep 1000; done", cancel: true, want: unix.SIGKILL},
		"ends by own will": {script: "trap 'exit 0' TERM; echo $$; while :; do sleep 0.01; done"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w := pipe(t)
			p := start(t, tt.script, func(c *Command) { c.Stdout = w })
			if pid := readPid(t, r); pid != p.Pid() {
				t.Errorf("Pid is %d, the process says %d", p.Pid(), pid)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel {
				cancel()
			}
			if err := p.Stop(ctx); err != nil {
				t.Error(err)
			}
			var exit *exec.ExitError
			switch err := p.Wait(); {
			case tt.want == 0 && err == nil:
			case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == tt.want:
			default:
				t.Errorf("ended by %v", err)
			}
		})
	}
}

func TestSignalReachesTheGroup(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	p := start(t, `sh -c 'echo $$; exec sleep 1000'; exit 3`, func(c *Command) { c.Stdout = w })
	child := readPid(t, r)
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	eventually(t, "the child is gone", func() bool { return gone(child) })
}

func TestEndTakesTheGroupAlong(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	p := start(t, `sleep 1000 & echo $!`, func(c *Command) { c.Stdout = w })
	child := readPid(t, r)
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	eventually(t, "the child is gone", func() bool { return gone(child) })
}

// descendants lists the living below a process.
func descendants(t testing.TB, pid int) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) == 0 { // it may have ended meanwhile
		if own, err := filepath.Glob("/proc/self/task/*/children"); len(own) == 0 {
			t.Fatalf("no children in /proc (CONFIG_PROC_CHILDREN): %v", err)
		}
	}
	for _, task := range tasks {
		children, _ := os.ReadFile(task) // a thread may have ended
		for _, field := range strings.Fields(string(children)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(append(pids, child), descendants(t, child)...)
		}
	}
	return pids
}

func TestKilledOwnerLeavesNoProcess(t *testing.T) {
	t.Parallel()
	spaces(t, 1) // skips without the right
	for name, tt := range map[string]struct {
		script, env string
		processes   int
	}{
		"the process":  {"echo; exec sleep 1000", "", 1},
		"a descendant": {"setsid sleep 1000 & echo; exec sleep 1000", "1", 3}, // and PID 1
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), owner+"="+tt.script, ownerPIDs+"="+tt.env)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			pids := descendants(t, cmd.Process.Pid)
			if len(pids) != tt.processes {
				t.Errorf("%d processes, want %d", len(pids), tt.processes)
			}
			cmd.Process.Kill()
			cmd.Wait()
			for _, pid := range pids {
				eventually(t, "the process is gone with its owner", func() bool { return gone(pid) })
			}
		})
	}
}

// The thread that started a process must live as long: its end would be taken for the owner's.
func TestProcessOutlivesOtherThreads(t *testing.T) {
	ns := spaces(t, 1)[0]
	var running []*Process
	for range 30 {
		p, err := Start(ns, nil, Command{Path: "sleep", Args: []string{"1000"}})
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, p)
		for range 5 {
			ns.Do(func() error { return nil })
		}
	}
	for _, p := range running {
		select {
		case <-p.Done():
			t.Errorf("ended by itself: %v", p.Wait())
		default:
		}
		p.Signal(unix.SIGKILL)
	}
	for _, p := range running {
		p.Wait()
	}
	eventually(t, "no thread left in the namespace", func() bool { return threadsIn(t, ns.Inode()) == 0 })
}

func TestCPUOfTheLiving(t *testing.T) {
	t.Parallel()
	// Forever busy: what it has used must grow, and be no more than what the end says.
	p := start(t, `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; while :; do :; done`)
	var last CPU
	eventually(t, "CPU of a busy process grows, its dead child's included", func() bool {
		cpu, err := p.CPU()
		if err != nil {
			t.Fatal(err)
		}
		if cpu.User < last.User || cpu.System < last.System {
			t.Errorf("falls from %+v to %+v", last, cpu)
		}
		last = cpu
		return cpu.User+cpu.System > 300*time.Millisecond
	})
	p.Signal(unix.SIGKILL)
	p.Wait()
	end, err := p.CPU()
	if tick := 20 * time.Millisecond; err != nil || end.User+end.System+tick < last.User+last.System {
		t.Errorf("living %+v, dead %+v, %v", last, end, err)
	}
	usage := p.Rusage()
	if usage == nil || time.Duration(usage.Utime.Nano()) != end.User {
		t.Errorf("Rusage %+v, CPU %+v", usage, end)
	}
}
