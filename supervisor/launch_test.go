package supervisor

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLaunch(t *testing.T) {
	t.Parallel()
	l := launch(t)
	st, err := l.Status(t.Context())
	if err != nil || st.State != Running || st.PID == os.Getpid() || st.PID != l.pid {
		t.Errorf("%+v, %v, process %d", st, err, l.pid)
	}
	sid, err := unix.Getsid(st.PID)
	if err != nil || sid != st.PID {
		t.Errorf("session %d of process %d, %v: it is not detached", sid, st.PID, err)
	}
	if log, err := l.Log(t.Context()); err != nil || log != "lab is up\n" {
		t.Errorf("log %q, %v", log, err)
	}
	err = Launch(t.Context(), l.name, []string{"supervise", t.TempDir(), "ok"}, time.Minute, nil)
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), strconv.Itoa(st.PID)) {
		t.Errorf("a second lab of the name: %v", err)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Error(err)
	}
	if !marked(l.marks, "down") || listening(t, l.name) {
		t.Error("Down returned before the lab was down")
	}
	if _, err := Dial(t.Context(), l.name); !errors.Is(err, ErrNotFound) {
		t.Errorf("after Down: %v", err)
	}
}

// The supervisor keeps nothing of its launcher's: its streams are the log, and it has no other descriptors than it needs.
func TestSupervisorHoldsNothingOfTheCallers(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name := unique(t)
	up := program("launch", name, "supervise", t.TempDir(), "ok")
	up.Stdout, up.Stderr = w, w
	if err := up.Run(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if b, err := r.Read(make([]byte, 1)); b != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the caller's pipe stays open: %v", err)
	}
	c := dial(t, name)
	out, _, err := output(t, c, `ls -l /proc/self/fd; echo "<$`+nameVariable+`>"`)
	if err != nil || strings.Contains(out, "socket:") || strings.Contains(out, "memfd") || !strings.HasSuffix(out, "<>\n") {
		t.Errorf("a command in the lab has inherited: %s, %v", out, err)
	}
	if err := c.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLaunchFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mode, reason, output string
		exit                 int
		progress             []string
	}{
		{"fail", "this machine cannot", "words of the supervisor", 3, []string{"one", "two"}},
		{"panic", "exit status 2", "panic: in the middle of the start", 2, nil},
		{"vanish", "exit status 9", "", 9, nil},
	} {
		t.Run(test.mode, func(t *testing.T) {
			t.Parallel()
			name := unique(t)
			var progress []string
			err := Launch(t.Context(), name, []string{"supervise", t.TempDir(), test.mode}, time.Minute, func(s string) { progress = append(progress, s) })
			var start *StartError
			if !errors.As(err, &start) || start.Exit != test.exit || !strings.Contains(start.Reason, test.reason) || !strings.Contains(start.Output, test.output) {
				t.Errorf("%+v", err)
			}
			if !slices.Equal(progress, test.progress) {
				t.Errorf("progress %q", progress)
			}
			if listening(t, name) {
				t.Error("the name is still taken")
			}
		})
	}
	if err := Launch(t.Context(), "no/name", nil, 0, nil); err == nil {
		t.Error("a bad name")
	}
	if err := Run(nil, nil); err == nil {
		t.Error("Run without Launch")
	}
}

func TestLaunchInterrupted(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"context", "timeout"} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			name, marks := unique(t), t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var timeout time.Duration
			if why == "timeout" {
				timeout = 500 * time.Millisecond
			} else {
				go func() {
					eventually(t, "the start begins", func() bool { return marked(marks, "starting") })
					cancel()
				}()
			}
			err := Launch(ctx, name, []string{"supervise", marks, "hang"}, timeout, nil)
			var start *StartError
			if !errors.As(err, &start) || why == "context" && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if listening(t, name) || marked(marks, "starting") && !marked(marks, "undone") {
				t.Error("what had been made was not taken down")
			}
		})
	}
}

// A launcher that is killed takes a supervisor with it that is not ready.
func TestLauncherKilled(t *testing.T) {
	t.Parallel()
	name, marks := unique(t), t.TempDir()
	up := program("launch", name, "supervise", marks, "hang")
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the start begins", func() bool { return marked(marks, "starting") })
	up.Process.Kill()
	up.Wait()
	eventually(t, "the supervisor ends", func() bool { return marked(marks, "undone") && !listening(t, name) })
}

// Whenever a launcher dies, either the lab is up and well or nothing is left.
func TestLauncherKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for range 40 {
		name, marks := unique(t), t.TempDir()
		up := program("launch", name, "supervise", marks, "ok")
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(rand.N(60*time.Millisecond), func() { up.Process.Kill() })
		up.Wait()
		kill.Stop()
		eventually(t, "the lab is up or gone", func() bool {
			if !listening(t, name) {
				return len(withArg(t, marks)) == 0
			}
			c, err := Dial(t.Context(), name)
			if err != nil {
				return false
			}
			st, err := c.Status(t.Context())
			return err == nil && st.State == Running && c.Down(t.Context()) == nil
		})
	}
}

// Whenever a supervisor is killed, nothing is left: no socket, no command, and each client knows.
func TestSupervisorKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for i := range 40 {
		name, marks := unique(t), t.TempDir()
		launched := make(chan error, 1)
		go func() {
			launched <- Launch(t.Context(), name, []string{"supervise", marks, "ok"}, time.Minute, nil)
		}()
		if i%2 == 0 { // in the life of the lab, else in its start
			if err := <-launched; err != nil {
				t.Fatal(err)
			}
			launched <- nil
		}
		script, arg := sleeper(t)
		type result struct {
			status int
			err    error
		}
		ran := make(chan result, 1)
		go func() {
			c, err := Dial(t.Context(), name)
			if err != nil {
				ran <- result{ExitLost, err}
				return
			}
			status, err := c.Exec(t.Context(), "n1", sh(script))
			ran <- result{status, err}
		}()
		<-time.After(rand.N(40 * time.Millisecond))
		var killed bool
		eventually(t, "there is a supervisor to kill", func() bool {
			for _, pid := range withArg(t, marks) {
				killed = syscall.Kill(pid, syscall.SIGKILL) == nil || killed
			}
			select {
			case err := <-launched: // if a lab began after the look, its supervisor is still to be killed
				launched <- err
				return killed || err != nil
			default:
				return killed
			}
		})
		err := <-launched
		var start *StartError
		if err != nil && !errors.As(err, &start) {
			t.Errorf("Launch: %v", err)
		}
		if r := <-ran; r.status != ExitLost || r.err == nil {
			t.Errorf("Exec: %d, %v", r.status, r.err)
		}
		eventually(t, "nothing is left", func() bool {
			return !listening(t, name) && len(withArg(t, arg)) == 0 && len(withArg(t, marks)) == 0
		})
	}
}

func TestSignalsTakeTheLabDown(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		l := launch(t)
		script, arg := sleeper(t)
		ran := make(chan int, 1)
		go func() {
			status, err := l.Exec(t.Context(), "n1", sh(script))
			if err != nil {
				t.Error(err)
			}
			ran <- status
		}()
		eventually(t, "the command runs", func() bool { return len(withArg(t, arg)) > 0 })
		if err := syscall.Kill(l.pid, sig); err != nil {
			t.Fatal(err)
		}
		if status := <-ran; status != 128+int(syscall.SIGHUP) {
			t.Errorf("%v: the command's status is %d", sig, status)
		}
		eventually(t, "the lab goes", func() bool { return !listening(t, l.name) })
		if !marked(l.marks, "down") || len(withArg(t, arg)) != 0 {
			t.Errorf("%v: not taken down", sig)
		}
	}
}

// A supervisor that crashes leaves its last words to the clients that it had.
func TestLastWords(t *testing.T) {
	t.Parallel()
	l := launch(t)
	waiting := make(chan error, 1)
	script, arg := sleeper(t)
	go func() {
		_, err := l.Exec(t.Context(), "n1", sh(script))
		waiting <- err
	}()
	eventually(t, "the command runs", func() bool { return len(withArg(t, arg)) > 0 })
	status, err := l.Exec(t.Context(), "crash", sh("true"))
	for _, err := range []error{err, <-waiting} {
		var lost *LostError
		if !errors.As(err, &lost) || !strings.Contains(lost.Last, "panic: the lab has a bug") {
			t.Errorf("%v", err)
		}
	}
	if status != ExitLost {
		t.Errorf("exit status %d", status)
	}
	eventually(t, "nothing is left", func() bool { return !listening(t, l.name) && len(withArg(t, arg)) == 0 })
}

// The log's memory does not grow with what is written.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	f, err := newLog()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := tailLog(f, 100); got != "" || err != nil {
		t.Errorf("empty: %q, %v", got, err)
	}
	line := strings.Repeat("x", 99) + "\n"
	for range 50 {
		if _, err := f.WriteString(strings.Repeat(line, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := trimLog(f, logKept); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if kept := st.Blocks * 512; kept > logKept+200<<10 || kept < logKept {
		t.Errorf("%d bytes of memory after %d bytes", kept, st.Size)
	}
	if got, err := tailLog(f, 250); got != line+line || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := tailLog(f, 1<<20); len(got) < logKept-len(line) || strings.Trim(got, "x\n") != "" || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A running supervisor trims its log.
func TestLogIsTrimmed(t *testing.T) {
	t.Parallel()
	l := launch(t)
	s, err := l.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.log.Write([]byte("x")); err == nil {
		t.Error("a client can write the log")
	}
	if out, err := exec.Command("sh", "-c", "yes | head -c 2000000 > /proc/"+strconv.Itoa(l.pid)+"/fd/2").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "memory is given back", func() bool {
		var st unix.Stat_t
		if err := unix.Fstat(int(s.log.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks*512 <= logKept+int64(os.Getpagesize())
	})
}

// A supervisor that re-executes itself in a user namespace is launched, served, stopped and killed like any other.
// For root there is no such namespace, and this is one more ordinary lab.
func TestRootless(t *testing.T) {
	t.Parallel()
	run := func(ctx context.Context, mode string) (name, marks string, err error) {
		name, marks = unique(t), t.TempDir()
		err = Launch(ctx, name, []string{"supervise", marks, mode}, time.Minute, nil)
		var start *StartError
		if errors.As(err, &start) && start.Exit == 3 && mode != "rootless-fail" {
			t.Skipf("this user may make no user namespace: %s", start.Output)
		}
		return name, marks, err
	}
	t.Run("life", func(t *testing.T) {
		t.Parallel()
		name, marks, err := run(t.Context(), "rootless-ok")
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, name)
		out, status, err := output(t, c, "id -u; readlink /proc/self/ns/net")
		if uid, ns, _ := strings.Cut(out, "\n"); uid != "0" || status != 0 || err != nil {
			t.Errorf("%q, %d, %v", out, status, err)
		} else if own, err := os.Readlink("/proc/self/ns/net"); err != nil || (os.Geteuid() == 0) != (own+"\n" == ns) {
			t.Errorf("network namespace %q, this is %q, %v", ns, own, err)
		}
		if st, err := c.Status(t.Context()); err != nil || st.UID != os.Geteuid() || st.PID != c.pid {
			t.Errorf("%+v, %v, process %d", st, err, c.pid)
		}
		if err := c.Down(t.Context()); err != nil || !marked(marks, "down") {
			t.Errorf("%v", err)
		}
		eventually(t, "nothing is left", func() bool { return !listening(t, name) && len(withArg(t, marks)) == 0 })
	})
	t.Run("failure", func(t *testing.T) {
		t.Parallel()
		_, _, err := run(t.Context(), "rootless-fail")
		var start *StartError
		if !errors.As(err, &start) || start.Exit != 3 || !strings.Contains(start.Reason, "this machine cannot") {
			t.Errorf("%+v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		name, marks, err := run(ctx, "rootless-hang")
		if !errors.Is(err, context.DeadlineExceeded) || marked(marks, "starting") && !marked(marks, "undone") || listening(t, name) {
			t.Errorf("%v", err)
		}
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		for i := range 10 {
			name, marks, err := run(t.Context(), "rootless-ok")
			if err != nil {
				t.Fatal(err)
			}
			pid := dial(t, name).pid // inside
			if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err != nil {
				t.Fatal(err)
			} else if fields := strings.Fields(string(stat)); i%2 == 0 && os.Geteuid() != 0 {
				if pid, err = strconv.Atoi(fields[3]); err != nil || !slices.Contains(withArg(t, marks), pid) {
					t.Fatalf("the parent %d is not the one that waits outside, %v", pid, err)
				}
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "nothing is left", func() bool { return !listening(t, name) && len(withArg(t, marks)) == 0 })
		}
	})
}
