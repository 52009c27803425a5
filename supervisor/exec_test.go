package supervisor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestExec(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	c := dial(t, s.name)
	dir := t.TempDir()
	for _, test := range []struct {
		name, script, want string
		env                []string
		dir                string
		status             int
	}{
		{name: "output", script: "echo a; echo b >&2", want: "a\nb\n"},
		{name: "status", script: "exit 42", status: 42},
		{name: "signal", script: "kill -9 $$", status: 128 + 9},
		{name: "environment", script: `echo "$A,$HOME"`, env: []string{"A=x\xffy"}, want: "x\xffy,\n"},
		{name: "directory", script: "pwd", dir: dir, want: dir + "\n"},
		{name: "no standard input", script: "readlink /proc/self/fd/0", want: "/dev/null\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd := sh(test.script)
			cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(cmd.Env, test.env...), test.dir, w, w
			status, err := c.Exec(t.Context(), "n1", cmd)
			w.Close()
			got, readErr := io.ReadAll(r)
			if status != test.status || err != nil || string(got) != test.want || readErr != nil {
				t.Errorf("status %d, %v, output %q, %v", status, err, got, readErr)
			}
		})
	}
}

func TestExecArguments(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	args := []string{"-c", `for a; do printf '<%s>' "$a"; done`, "sh", "", "a b", "\xff\xfe", "'\"\n", strings.Repeat("long", 10000)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	status, err := dial(t, s.name).Exec(t.Context(), "n1", Command{Path: "sh", Args: args, Stdout: w})
	w.Close()
	if want := "<" + strings.Join(args[3:], "><") + ">"; <-read != want || status != 0 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

// 20 commands at once, each with a megabyte through its own pipes.
func TestExecTogether(t *testing.T) {
	t.Parallel()
	l := launch(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			inR, inW, err := os.Pipe()
			if err != nil {
				t.Error(err)
				return
			}
			outR, outW, err := os.Pipe()
			if err != nil {
				t.Error(err)
				return
			}
			defer closeAll([]*os.File{inR, inW, outR, outW})
			data := bytes.Repeat([]byte{byte(i), 1, 2, 3}, 1<<18)
			go func() { inW.Write(data); inW.Close() }()
			sum := make(chan [32]byte)
			go func() {
				h := sha256.New()
				io.Copy(h, outR)
				sum <- [32]byte(h.Sum(nil))
			}()
			cmd := sh("cat; exit " + strconv.Itoa(i))
			cmd.Stdin, cmd.Stdout = inR, outW
			status, err := l.Exec(t.Context(), "n"+strconv.Itoa(i%2+1), cmd)
			outW.Close()
			if got := <-sum; status != i || err != nil || got != sha256.Sum256(data) {
				t.Errorf("%d: status %d, %v", i, status, err)
			}
		})
	}
	wg.Wait()
}

// What the client gets, the command gets.
func TestSignalsAreForwarded(t *testing.T) {
	t.Parallel()
	l := launch(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			client := program("exec", l.name, "n1", "files", "sh", "-c",
				fmt.Sprintf("trap 'echo got; exit 7' %d; echo ready; while :; do sleep 0.01; done", sig))
			out, err := client.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			ready := make([]byte, 6)
			if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready\n" {
				t.Fatalf("%q, %v", ready, err)
			}
			client.Process.Signal(sig)
			rest, _ := io.ReadAll(out)
			client.Wait()
			if got := client.ProcessState.ExitCode(); got != 7 || string(rest) != "got\n" {
				t.Errorf("exit status %d, output %q", got, rest)
			}
		})
	}
	t.Run("unhandled", func(t *testing.T) {
		t.Parallel()
		script, arg := sleeper(t)
		client := program("exec", l.name, "n1", "files", "sh", "-c", script)
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the command runs", func() bool { return sleeping(t, arg) })
		client.Process.Signal(syscall.SIGTERM)
		client.Wait()
		if got := client.ProcessState.ExitCode(); got != 128+15 {
			t.Errorf("exit status %d", got)
		}
	})
}

// sleeping says whether a sleeper has become what it is to be.
func sleeping(t testing.TB, arg string) bool {
	for _, pid := range withArg(t, arg) {
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); err == nil && string(b) == "sleep\n" {
			return true
		}
	}
	return false
}

// A command does not outlive its client, even if it ignores SIGHUP.
func TestClientGone(t *testing.T) {
	t.Parallel()
	l := launch(t)
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		script, arg := sleeper(t)
		client := program("exec", l.name, "n1", "files", "sh", "-c", "trap '' HUP; "+script)
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the command runs", func() bool { return sleeping(t, arg) })
		client.Process.Kill()
		client.Wait()
		eventually(t, "the command ends", func() bool { return len(withArg(t, arg)) == 0 })
	})
	t.Run("context", func(t *testing.T) {
		t.Parallel()
		script, arg := sleeper(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			eventually(t, "the command runs", func() bool { return sleeping(t, arg) })
			cancel()
		}()
		if status, err := l.Exec(ctx, "n1", sh(script)); status != ExitLost || !errors.Is(err, context.Canceled) {
			t.Errorf("%d, %v", status, err)
		}
		eventually(t, "the command ends", func() bool { return len(withArg(t, arg)) == 0 })
	})
	if st, err := l.Status(t.Context()); err != nil || st.State != Running {
		t.Errorf("%+v, %v", st, err)
	}
}

// Clients that are killed at any moment leave no command and a lab that is well.
func TestClientKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	l := launch(t)
	var wg sync.WaitGroup
	var args []string
	for range 40 {
		script, arg := sleeper(t)
		args = append(args, arg)
		wg.Go(func() {
			client := program("exec", l.name, "n1", "files", "sh", "-c", script)
			if err := client.Start(); err != nil {
				t.Error(err)
				return
			}
			kill := time.AfterFunc(rand.N(100*time.Millisecond), func() { client.Process.Kill() })
			defer kill.Stop()
			client.Wait()
		})
	}
	wg.Wait()
	for _, arg := range args {
		eventually(t, "the command ends", func() bool { return len(withArg(t, arg)) == 0 })
	}
	if out, status, err := output(t, l.Client, "echo well"); out != "well\n" || status != 0 || err != nil {
		t.Errorf("%q, %d, %v", out, status, err)
	}
}
