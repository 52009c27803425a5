package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// recorder keeps what is written to it.
type recorder struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const limit = 2 * time.Minute // on a machine that has much else to do
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// onTerminal starts pqlab as a shell would: with a terminal that is its controlling one. It returns what the terminal
// shows, and where a person types.
func onTerminal(t *testing.T, args ...string) (c *exec.Cmd, shown *recorder, keys io.Writer) {
	t.Helper()
	master, slave := terminal(t)
	c = command(t, args...)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	shown = &recorder{}
	over := make(chan struct{})
	go func() {
		defer close(over)
		io.Copy(shown, master) // until EIO: nobody has the other end any more
	}()
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		<-over
		master.Close()
	})
	return c, shown, master
}

func code(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// On a terminal a run shows what it does, on one line; Ctrl-C takes the lab down and says so.
func TestCtrlC(t *testing.T) {
	needLabs(t)
	clean(t)
	c, shown, keys := onTerminal(t, "run", "pair", "--duration", "1m")
	until(t, "traffic is shown", func() bool { return strings.Contains(shown.String(), "tcp from a to b") })
	if text := shown.String(); strings.Contains(text, "\n") {
		t.Errorf("progress takes more than a line: %q", text)
	}
	if _, err := keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if got := code(t, c.Wait()); got != exitInterrupted {
		t.Errorf("exit status %d, want %d: %q", got, exitInterrupted, shown)
	}
	until(t, "it says what became of the lab", func() bool { return strings.Contains(shown.String(), "taken down") })
}

// The line of progress is gone when the run has ended.
func TestProgress(t *testing.T) {
	needLabs(t)
	clean(t)
	c, shown, _ := onTerminal(t, "run", "pair", "--duration", "50ms")
	if got := code(t, c.Wait()); got != exitOK {
		t.Errorf("exit status %d", got)
	}
	until(t, "the verdict is shown", func() bool { return strings.Contains(shown.String(), "pass") })
	text := shown.String()
	if !strings.Contains(text, "making the lab") {
		t.Errorf("no progress in %q", text)
	}
	if i := strings.LastIndex(text, "…"); !strings.HasPrefix(text[i:], "…\r\x1b[K") {
		t.Errorf("the line of progress stays: %q", text[i:])
	}

	c, shown, _ = onTerminal(t, "run", "pair", "--duration", "50ms", "--json")
	c.Wait()
	until(t, "the document is shown", func() bool { return strings.HasSuffix(strings.TrimSpace(shown.String()), "}") })
	if text := shown.String(); !strings.HasPrefix(text, "{") {
		t.Errorf("--json shows progress: %.200q", text)
	}
}

// A hang-up takes the lab down like an interrupt, unless it was ignored when pqlab was started (nohup).
func TestHangup(t *testing.T) {
	needLabs(t)
	for _, ignored := range []bool{false, true} {
		clean(t)
		captures := t.TempDir()
		// One that is to be interrupted does not end by itself before.
		duration := map[bool]string{false: "1m", true: "400ms"}[ignored]
		c := command(t, "run", "pair", "--duration", duration, "--json", "--capture", captures)
		if ignored {
			c.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, testBinary(t)}, c.Args[1:]...)
			c.Path = "/bin/sh"
		}
		var out, diagnostics recorder
		c.Stdout, c.Stderr = &out, &diagnostics
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		// The signals begin when the lab is up, and pqlab surely listens.
		until(t, "the captures begin", func() bool {
			files, err := os.ReadDir(captures)
			return err == nil && len(files) > 0 || len(ended) > 0
		})
		var err error
		for over := false; !over; {
			c.Process.Signal(syscall.SIGHUP)
			select {
			case err = <-ended:
				over = true
			case <-time.After(20 * time.Millisecond):
			}
		}
		want := map[bool]int{false: exitInterrupted, true: exitOK}[ignored]
		if got := code(t, err); got != want {
			t.Errorf("ignored %v: exit status %d, want %d: %s", ignored, got, want, diagnostics.String())
		}
	}
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Who asks for something of a lab that stays is told so when he does not wait for the answer.
func TestInterruptedRequest(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := fmt.Sprintf("mute-%d", os.Getpid())
	defer func() { command(t, "down", lab).Run() }()
	up := pqlab(t, "up", write(t, "nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks: [{kind: ethernet, a: a, b: b}]\n"), "--name", lab, "--json")
	if up.code != exitOK {
		t.Fatal(up.err)
	}
	supervisor, err := os.FindProcess(parse[struct{ PID int }](t, up.out).PID)
	if err != nil {
		t.Fatal(err)
	}
	defer supervisor.Signal(syscall.SIGCONT) // before it is to go down
	for _, args := range [][]string{{"link", "set", lab, "a-b", "loss=7%"}, {"ps", lab}, {"down", lab}} {
		supervisor.Signal(syscall.SIGSTOP)
		until(t, "the supervisor is stopped", func() bool { return stopped(supervisor.Pid) })
		c := command(t, args...)
		var diagnostics recorder
		c.Stderr = &diagnostics
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "it speaks to the supervisor, and so minds signals", func() bool { return hasSocket(c.Process.Pid) })
		c.Process.Signal(syscall.SIGINT)
		got := code(t, c.Wait())
		supervisor.Signal(syscall.SIGCONT)
		if got != exitInterrupted || strings.Contains(diagnostics.String(), "taken down") {
			t.Errorf("%v: exit status %d: %s", args, got, diagnostics.String())
		}
		if r := pqlab(t, "ps", lab, "--json"); r.code != exitOK {
			t.Errorf("%v: the lab is not up: %s", args, r.err)
		}
	}
}

func stopped(pid int) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return bytes.Contains(status, []byte("\nState:\tT"))
}

func hasSocket(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, _ := os.ReadDir(dir) // of a process that has ended there are none
	return slices.ContainsFunc(files, func(f os.DirEntry) bool {
		to, _ := os.Readlink(filepath.Join(dir, f.Name()))
		return strings.HasPrefix(to, "socket:")
	})
}
