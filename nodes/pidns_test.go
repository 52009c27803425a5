package nodes

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// contained gives a PID namespace that the test's end closes.
func contained(t testing.TB) *PIDNamespace {
	t.Helper()
	spaces(t, 1) // skips without the right
	p, err := NewPIDNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPIDNamespaceClosesAll(t *testing.T) {
	t.Parallel()
	pids := contained(t)
	r, w := pipe(t)
	p := start(t, `setsid sh -c 'sleep 1000 & sleep 1000' & (setsid sleep 1000 &) ; sleep 1000 & echo $$; wait`, func(c *Command) {
		c.Stdout, c.PIDs = w, pids
	})
	if pid := readPid(t, r); pid == 1 || pid == p.Pid() {
		t.Errorf("the process is %d to itself and %d to us", pid, p.Pid())
	}
	all := append(descendants(t, pids.init.Pid()), descendants(t, p.Pid())...)
	if len(all) < 3 {
		t.Errorf("%d processes", len(all))
	}
	for range 2 {
		if err := pids.Close(); err != nil {
			t.Error(err)
		}
	}
	// No waiting: Close has waited.
	for _, pid := range append(all, p.Pid(), pids.init.Pid()) {
		if !gone(pid) {
			t.Errorf("process %d lives after Close", pid)
		}
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("ended by %v", err)
	}
	if _, err := Start(spaces(t, 1)[0], nil, Command{Path: "true", PIDs: pids}); err == nil {
		t.Error("started in a closed namespace")
	}
}

// Signals do as anywhere else, which they do not to PID 1.
func TestPIDNamespaceSignals(t *testing.T) {
	t.Parallel()
	pids := contained(t)
	p, err := Start(spaces(t, 1)[0], nil, Command{Path: "sleep", Args: []string{"1000"}, PIDs: pids})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("ended by %v", err)
	}
}

func TestPIDNamespaceSeesItself(t *testing.T) {
	t.Parallel()
	pids := contained(t)
	in := func(c *Command) { c.PIDs = pids }
	if got := output(t, `readlink /proc/self/exe >/dev/null && test "$(cut -d' ' -f1 /proc/$$/stat)" = $$ && echo same`, in); got != "same" {
		t.Errorf("$$ and /proc: %q", got)
	}
	// ls, sh and PID 1 are all there is.
	if got := output(t, `ls -d /proc/[0-9]* | wc -l`, in); got != "3" && got != "4" {
		t.Errorf("%s processes in its /proc", got)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, "pwd -P", in); got != wd {
		t.Errorf("directory %q", got)
	}
	if got := output(t, "echo $$", func(c *Command) { in(c); c.Dir = "/tmp" }); got == "" {
		t.Error("no output")
	}
	// Orphans are waited for.
	output(t, `(sleep 0 &) ; :`, in)
	eventually(t, "no zombie", func() bool { return len(descendants(t, pids.init.Pid())) == 0 })
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Count(string(mounts), " /proc proc ") > 1 {
		t.Errorf("a /proc was mounted outside: %v\n%s", err, mounts)
	}
}

func TestPIDNamespaceWithCgroup(t *testing.T) {
	pids := contained(t)
	c, _ := capped(t, Profile{Cores: 1, Share: 1})
	r, w := pipe(t)
	p := inside(t, spaces(t, 1)[0], c, `echo $$; sleep 1000`, func(cmd *Command) { cmd.Stdout, cmd.PIDs = w, pids })
	readPid(t, r)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	if len(descendants(t, pids.init.Pid())) > 0 {
		eventually(t, "all are gone", func() bool { return len(descendants(t, pids.init.Pid())) == 0 })
	}
}

func TestPIDNamespaceWithoutInitMain(t *testing.T) {
	spaces(t, 1)
	before := descriptors(t)
	t.Setenv(forgetful, "1")
	if p, err := NewPIDNamespace(); err == nil {
		p.Close()
		t.Error("no error")
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
